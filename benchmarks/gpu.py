"""Training steps on a GPU by precision, memory format and compilation; and end to end from JPEGs beside synthetic images.

    python benchmarks/gpu.py [--models resnet18 resnet50 …] [--batch 256] [--pictures FOLDER]

For each model: images a second and peak memory over --steps updates, after --warm-up ones. With --pictures (FOLDER/train/*.jpg)
also an epoch of the first model through the loader, from files and from the cache, beside the same steps on one batch that
is on the GPU already. Needs a CUDA GPU; without one it says so and measures nothing. --device cpu tries the script out.
"""

import argparse
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from record import record  # noqa: E402
from turns import show, table, take_turns  # noqa: E402

from src.config import ModelConfig, TrainConfig  # noqa: E402
from src.cores import cores  # noqa: E402
from src.data.augmentation import Augmentation  # noqa: E402
from src.data.cache import open_cache  # noqa: E402
from src.data.loader import Images, ShuffledBatches, choose_workers, make_loader  # noqa: E402
from src.models import backbone  # noqa: E402
from src.training.device import choose_device, choose_precision  # noqa: E402
from src.training.feed import feed  # noqa: E402
from src.training.loop import step_forward, update  # noqa: E402
from src.training.training import Training, begin  # noqa: E402

MODELS = ["resnet50", "resnet18", "vgg16", "efficientnet_b0", "convnext_tiny", "vit_small_patch16_224"]
WAYS = {
    "fp32": {"precision": "fp32", "channels_last": False},
    "fp16": {"precision": "fp16", "channels_last": False},
    "bf16": {"precision": "bf16", "channels_last": False},
    "bf16, channels_last": {"precision": "bf16"},
    "bf16, channels_last, compiled": {"precision": "bf16", "compile": True},
}
CLASSES = 42


def started(name: str, size: int, batch: int, device: torch.device, **knobs: object) -> Training:
    config = TrainConfig(batch_size=batch, epochs=1, **knobs)
    made, fed = backbone.create(ModelConfig(name=name, weights="none", image_size=size), CLASSES)
    made = made.to(device, memory_format=torch.channels_last if config.channels_last else torch.contiguous_format)
    precision, _ = choose_precision(config, device)
    training = begin(config, made, fed, np.arange(batch) % CLASSES, CLASSES, 10_000, device, precision)
    backbone.train_mode(training.model, "none")
    if config.compile:
        training.model.compile()
    return training


def synthetic(training: Training) -> tuple[torch.Tensor, torch.Tensor]:
    size, batch = training.fed.size, training.config.batch_size
    images = torch.randint(256, (batch, size, size, 3), dtype=torch.uint8, device=training.device)
    return images, torch.arange(batch, device=training.device) % CLASSES


def steps(training: Training, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> int:
    """Train on them without waiting for the device; how many images they were."""
    seen = 0
    for images, target in batches:
        training.scaler.scale(step_forward(training, training.model, images, target)).backward()
        update(training)
        seen += len(target)
    return seen


def timed(training: Training, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Seconds an image, from an empty queue to an empty queue."""
    wait(training.device)
    begun = time.perf_counter()
    seen = steps(training, batches)
    wait(training.device)
    return (time.perf_counter() - begun) / seen


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def by_way(name: str, asked: argparse.Namespace, device: torch.device) -> list[dict[str, object]]:
    """A row a way of training `name`; one after the other, as they would not fit side by side."""
    rows = []
    for way in asked.ways:
        knobs = WAYS[way]
        training = started(name, asked.size, asked.batch, device, **knobs)
        batch = synthetic(training)
        steps(training, [batch] * asked.warm_up)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        each = [1 / timed(training, [batch] * asked.steps) for _ in range(asked.repeats)]
        memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")
        rows.append(
            {
                "model": name,
                "way": way,
                "img/s": f"{np.median(each):,.0f}",
                "spread": f"{min(each):,.0f} to {max(each):,.0f}",
                "GiB": f"{memory:.1f}",
                "n": asked.repeats,
            }
        )
        print(rows[-1])
        del training, batch
        torch.cuda.empty_cache()
    return rows


def end_to_end(asked: argparse.Namespace, device: torch.device) -> list[dict[str, object]]:
    """Epochs from files, and from the cache, beside the same number of steps on what is on the GPU already."""
    root = asked.pictures
    paths = sorted(path.relative_to(root).as_posix() for path in root.glob("train/*.jpg"))
    recipe = Augmentation("medium", asked.size, "crop", ("hflip",), 0)
    kept = open_cache(root, paths, recipe.form, root / ".cache", len(cores()), print)
    training = started(asked.models[0], asked.size, asked.batch, device, precision="auto")
    batch, labels = synthetic(training), torch.arange(len(paths)) % CLASSES
    order = ShuffledBatches(len(paths), asked.batch, 0)

    def epoch(loader: DataLoader) -> float:
        return timed(training, ((images, target) for images, target, _ in feed(loader, labels, device)))

    pictures = [Images(root, paths, paths, recipe, cache) for cache in (None, kept)]
    files, cached = (make_loader(each, order, choose_workers(None, device), device.type == "cuda") for each in pictures)

    ways = {
        "synthetic": partial(timed, training, [batch] * len(order)),
        "from the cache": partial(epoch, cached),
        "from the files": partial(epoch, files),
    }
    return table(take_turns(ways, asked.repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--device", default="cuda")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA GPU here: nothing was measured (--device cpu tries the script out)")
    device = choose_device(asked.device)
    rows = [row for name in asked.models for row in by_way(name, asked, device)]
    options = f"--size {asked.size} --batch {asked.batch}"
    if asked.device == "cuda":
        record(
            "gpu", f"Training steps on synthetic images of {asked.size} pixels.", f"python benchmarks/gpu.py {options}", rows
        )
    if asked.pictures:
        rows = end_to_end(asked, device)
        show(rows)
        if asked.device == "cuda":
            what = f"{asked.models[0]} from real JPEGs beside synthetic images, batches of {asked.batch}, {asked.size} pixels."
            record("gpu-end-to-end", what, f"python benchmarks/gpu.py {options} --pictures FOLDER", rows)


if __name__ == "__main__":
    main()
