"""Training batches from JPEGs, as fast as they come: this repository beside what people would use instead.

    python benchmarks/loader.py --pictures FOLDER [--size 224] [--batch 64] [--workers 2] [--repeats 5] [--huge 0]

FOLDER holds train/CLASS.NUMBER.jpg as Dogs vs. Cats does, in their original size. Every way gives normalised float batches of
augmented crops in channels_last or as it comes; each runs in a process of its own, they take turns, and the ratios are of one
round's times. fastai's is among them where it is installed. --huge N makes N collages of 4000 × 3000 pixels from the
pictures, and loads those.
"""

import argparse
import importlib.util
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from notebook_style import Pictures, augmented  # noqa: E402
from record import record  # noqa: E402
from turns import Apart, show, table, take_turns  # noqa: E402

from src.data.augmentation import Augmentation  # noqa: E402
from src.data.cache import open_cache  # noqa: E402
from src.data.loader import Images, ShuffledBatches, make_loader, read_batches  # noqa: E402
from src.models.backbone import ImageInput  # noqa: E402
from src.training.device import choose_device  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BY_CLASS = "by_class"


class Ours:
    """The medium recipe: uint8 from the workers, normalised where the model is; with the settings that train.py makes."""

    def __init__(self, root: Path, size: int, batch: int, workers: int, cached: bool = False) -> None:
        paths = sorted(path.relative_to(root).as_posix() for path in root.glob("train/*.jpg"))
        draw = Augmentation("medium", size, "crop", ("hflip",), 0)
        kept = open_cache(root, paths, draw.form, root / ".cache", 2, print) if cached else None
        images = Images(root, paths, paths, draw, kept)
        self.loader = make_loader(images, ShuffledBatches(len(paths), batch, 0), workers, torch.cuda.is_available())
        self.fed, self.device = ImageInput(size, MEAN, STD), choose_device("auto")

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _, images in read_batches(self.loader):
            yield self.fed.normalise(images.to(self.device, non_blocking=True), channels_last=True)


def notebook(root: Path, size: int, batch: int, workers: int) -> Iterable[torch.Tensor]:
    """What Kaggle's notebooks do: cv2, albumentations, Normalize and ToTensorV2 in the worker."""
    data = Pictures(sorted(root.glob("train/*.jpg")), augmented(size, MEAN, STD))
    loader = DataLoader(data, batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True)
    return _Pictures(loader)


def timms(root: Path, size: int, batch: int, workers: int) -> Iterable[torch.Tensor]:
    """Its default training transforms; the folder is read as one class a subfolder."""
    from timm.data import create_dataset, create_loader

    data = create_dataset("", root=str(root / BY_CLASS), is_training=True)
    loader = create_loader(
        data, (3, size, size), batch, is_training=True, num_workers=workers, mean=MEAN, std=STD,
        use_prefetcher=torch.cuda.is_available(), device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )  # fmt: skip
    return _Pictures(loader)


def torchvisions(root: Path, size: int, batch: int, workers: int) -> Iterable[torch.Tensor]:
    """ImageFolder with v2 transforms of the same strength as the medium recipe."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = v2.Compose(
        [
            v2.ToImage(), v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True),
            v2.RandomApply([v2.ColorJitter(0.2, 0.2, 0.2, 0.02)], p=0.5), v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
        ]
    )  # fmt: skip
    data = ImageFolder(str(root / BY_CLASS), steps)
    return _Pictures(DataLoader(data, batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True))


def fastais(root: Path, size: int, batch: int, workers: int) -> Iterable[torch.Tensor]:
    """Crops in the workers, then flips, turns, warps, light and normalisation of the batch, as its users write it."""
    from fastai.vision import all as fastai

    data = fastai.ImageDataLoaders.from_folder(
        root / BY_CLASS, valid_pct=0.01, bs=batch, num_workers=workers, item_tfms=fastai.RandomResizedCrop(size, min_scale=0.5),
        batch_tfms=[*fastai.aug_transforms(), fastai.Normalize.from_stats(MEAN, STD)],
    )  # fmt: skip
    return _Pictures(data.train)


class _Pictures:
    """The first of each batch's two."""

    def __init__(self, loader: Iterable) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[torch.Tensor]:
        for pictures, _ in self.loader:
            yield pictures


def link_by_class(root: Path) -> None:
    """The same files once more, a folder a class."""
    for path in root.glob("train/*.jpg"):
        link = root / BY_CLASS / path.name.partition(".")[0] / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())


def collages(source: Path, target: Path, count: int, across: int, width: int = 4000) -> float:
    """Photographs `width` pixels wide and three quarters as high, put together from real ones, at quality 90.

    across: pictures side by side, one above the other three quarters as many. At 12 megapixels 8 make files as dense as a
    camera's, 4 are enlarged two and a half times. Returns their size in MB, on average.
    """
    paths, rng = sorted(source.glob("train/*.jpg")), np.random.default_rng(0)
    down, side = across * 3 // 4, width // across
    (target / "train").mkdir(parents=True)
    for number in range(count):
        chosen = rng.choice(paths, across * down)
        tiles = [cv2.resize(cv2.imread(str(path)), (side, side), interpolation=cv2.INTER_CUBIC) for path in chosen]
        rows = [np.hstack(tiles[first : first + across]) for first in range(0, len(tiles), across)]
        file = target / "train" / f"{('cat', 'dog')[number % 2]}.{number}.jpg"
        cv2.imwrite(str(file), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return sum(file.stat().st_size for file in target.glob("train/*.jpg")) / count / 1e6


def passes(make: Callable[..., Iterable[torch.Tensor]], *given: object) -> Callable[[], float]:
    """One pass, and its seconds a picture."""
    warnings.filterwarnings("ignore")
    way = make(*given)

    def a_pass() -> float:
        started, seen = time.perf_counter(), 0
        for pictures in way:
            seen += len(pictures)
        return (time.perf_counter() - started) / seen

    return a_pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--huge", type=int, default=0, help="make so many collages of 12 megapixels and load those")
    parser.add_argument("--across", type=int, default=4, choices=(4, 8), help="of how many pictures a collage is wide")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if asked.huge:
            megabytes = collages(asked.pictures, root, asked.huge, asked.across)
        else:
            (root / "train").symlink_to((asked.pictures / "train").resolve())
        link_by_class(root)
        given = (root, asked.size, min(asked.batch, asked.huge or asked.batch), asked.workers)
        ways = {
            "this repository": Apart(passes, Ours, *given),
            "this repository, cached": Apart(passes, Ours, *given, True),
            "cv2, albumentations, ToTensorV2": Apart(passes, notebook, *given),
            "timm, its default transforms": Apart(passes, timms, *given),
            "torchvision, v2 transforms": Apart(passes, torchvisions, *given),
        }
        if importlib.util.find_spec("fastai"):
            ways["fastai, aug_transforms"] = Apart(passes, fastais, *given)
        rows = table(take_turns(ways, asked.repeats))
    kind, name, options = "pictures in their original size", "loader", ""
    if asked.huge:
        kind = f"JPEGs of 12 megapixels, {megabytes:.1f} MB, {asked.across} real pictures wide"
        name, options = f"loader-huge-{asked.across}", f" --huge {asked.huge} --across {asked.across}"
    command = f"python benchmarks/loader.py --pictures FOLDER --size {asked.size} --workers {asked.workers}{options}"
    record(name, f"Augmented, normalised batches of {asked.size} pixels from {kind}, {asked.workers} workers.", command, rows)
    show(rows)


if __name__ == "__main__":
    main()
