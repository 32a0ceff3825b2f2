"""Prediction with and without TTA beside a plain loop, pictures a second.

    python benchmarks/prediction.py --pictures FOLDER [--model mobilenetv2_100] [--size 128] [--rows 512] [--repeats 5]

FOLDER holds train/*.jpg. Each way is in a process of its own with its model made already: ours as predict.py does it, in one
view and in two (the mirror image); the plain loop with cv2, albumentations and ToTensorV2 in two workers, one view.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import albumentations as A
import pandas as pd
import timm
import torch
from albumentations.pytorch import ToTensorV2
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from notebook_style import HALVES, Pictures  # noqa: E402
from record import record  # noqa: E402
from turns import Apart, show, table, take_turns  # noqa: E402

from src import config as configuration  # noqa: E402
from src.config import ModelConfig  # noqa: E402
from src.inference.tta import Tta  # noqa: E402
from src.models import backbone  # noqa: E402
from src.training.device import choose_device  # noqa: E402
from src.views import read_views  # noqa: E402


def ours(root: Path, name: str, size: int, rows: int, views: str) -> Callable[[], float]:
    device = choose_device("auto")
    model, fed = backbone.create(ModelConfig(name=name, weights="none", image_size=size, mean=HALVES, std=HALVES), 2)
    config = configuration.validate({"competition": configuration.built_in("dogs_vs_cats").model_dump()}, {})
    model = model.to(device, memory_format=torch.channels_last)
    paths = [path.relative_to(root).as_posix() for path in sorted(root.glob("train/*.jpg"))[:rows]]
    table = pd.DataFrame({"id": paths, "path": paths})
    card = backbone.Card("", "", "0", name, {}, ("cat", "dog"), fed, "squash", "", 0, {})
    tta = Tta(read_views(views), "probabilities")

    def a_pass() -> float:
        started = time.perf_counter()
        tta.over(model, card, config, root, table, device, "prediction")
        return (time.perf_counter() - started) / len(table)

    return a_pass


def plain(root: Path, name: str, size: int, rows: int) -> Callable[[], float]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = timm.create_model(name, num_classes=2).to(device).eval()
    fitted = A.Compose([A.Resize(size, size), A.Normalize(mean=HALVES, std=HALVES), ToTensorV2()])
    data = Pictures(sorted(root.glob("train/*.jpg"))[:rows], fitted)

    def a_pass() -> float:
        started, outputs = time.perf_counter(), []
        with torch.no_grad():
            for images, _ in DataLoader(data, batch_size=128, num_workers=2):
                outputs.append(model(images.to(device)).softmax(dim=1).cpu())
        return (time.perf_counter() - started) / len(torch.cat(outputs))

    return a_pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--model", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    given = asked.pictures, asked.model, asked.size, asked.rows
    ways = {
        "predict.py's, one view": Apart(ours, *given, "identity"),
        "predict.py's, two views": Apart(ours, *given, "hflip"),
        "a plain loop, one view": Apart(plain, *given),
    }
    rows = table(take_turns(ways, asked.repeats))
    command = f"python benchmarks/prediction.py --pictures FOLDER --model {asked.model} --size {asked.size}"
    what = f"Prediction of {asked.rows} JPEGs in their original size: {asked.model}, {asked.size} pixels."
    record(f"prediction-{asked.model}-{asked.size}", what, command, rows)
    show(rows)


if __name__ == "__main__":
    main()
