"""Training batches from JPEGs, as fast as they come: this repository beside what people would use instead.

    python benchmarks/loader.py --pictures FOLDER [--size 224] [--batch 64] [--workers 2] [--repeats 5] [--huge 0]

FOLDER holds train/CLASS.NUMBER.jpg as Dogs vs. Cats does, in their original size. Every way gives normalised float batches of
augmented crops in channels_last or as it comes; all take their turns within each repeat, and the ratios are of one repeat's
times. --huge N joins N collages of 4000 × 3000 pixels, put together from the pictures, instead of the pictures themselves.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from record import record  # noqa: E402

from src.data.augmentation import Augmentation  # noqa: E402
from src.data.cache import open_cache  # noqa: E402
from src.data.loader import Images, ShuffledBatches, make_loader, read_batches  # noqa: E402
from src.models.backbone import ImageInput  # noqa: E402
from src.training.device import choose_device  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Ours:
    """The medium recipe: uint8 from the workers, normalised where the model is."""

    def __init__(self, root: Path, size: int, batch: int, workers: int, cached: bool) -> None:
        paths = sorted(path.relative_to(root).as_posix() for path in root.glob("train/*.jpg"))
        draw = Augmentation("medium", size, "crop", ("hflip",), 0)
        kept = open_cache(root, paths, draw.form, root / ".cache", 2, print) if cached else None
        images = Images(root, paths, paths, size, "crop", draw, kept)
        self.loader = make_loader(images, ShuffledBatches(len(paths), batch, 0), workers, torch.cuda.is_available())
        self.fed, self.device = ImageInput(size, MEAN, STD), choose_device("auto")

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _, images in read_batches(self.loader):
            yield self.fed.normalise(images.to(self.device, non_blocking=True), channels_last=True)


class Notebook(Dataset):
    """What Kaggle's notebooks do: cv2, albumentations, Normalize and ToTensorV2 in the worker."""

    def __init__(self, root: Path, size: int) -> None:
        self.paths = sorted(map(str, root.glob("train/*.jpg")))
        self.transform = A.Compose(
            [
                A.RandomResizedCrop((size, size), scale=(0.5, 1.0), p=1),
                A.ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.02, 0.02), p=0.5),
                A.HorizontalFlip(p=0.5),
                A.Normalize(mean=MEAN, std=STD),
                ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        image = cv2.cvtColor(cv2.imread(self.paths[row]), cv2.COLOR_BGR2RGB)
        return self.transform(image=image)["image"], int("dog." in self.paths[row])


def notebook(root: Path, size: int, batch: int, workers: int) -> Iterable[torch.Tensor]:
    loader = DataLoader(Notebook(root, size), batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True)
    return _Pictures(loader)


def timms(root: Path, size: int, batch: int, workers: int) -> Iterable[torch.Tensor]:
    """Its default training transforms; the folder is read as one class a subfolder."""
    from timm.data import create_dataset, create_loader

    data = create_dataset("", root=str(_by_class(root)), is_training=True)
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
    data = ImageFolder(str(_by_class(root)), steps)
    return _Pictures(DataLoader(data, batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True))


class _Pictures:
    """The first of each batch's two."""

    def __init__(self, loader: Iterable) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[torch.Tensor]:
        for pictures, _ in self.loader:
            yield pictures


def _by_class(root: Path) -> Path:
    """The same files as links, a folder a class."""
    folder = root / "by_class"
    for path in root.glob("train/*.jpg"):
        link = folder / path.name.partition(".")[0] / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(path.resolve())
    return folder


def collages(source: Path, target: Path, count: int) -> None:
    """Photographs of 4000 × 3000 pixels with the detail of real ones: 8 × 6 of the pictures side by side, at quality 90."""
    paths, rng = sorted(source.glob("train/*.jpg")), np.random.default_rng(0)
    (target / "train").mkdir(parents=True)
    for number in range(count):
        tiles = [cv2.resize(cv2.imread(str(path)), (500, 500)) for path in rng.choice(paths, 48)]
        rows = [np.hstack(tiles[first : first + 8]) for first in range(0, 48, 8)]
        file = target / "train" / f"{('cat', 'dog')[number % 2]}.{number}.jpg"
        cv2.imwrite(str(file), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 90])


def seconds(way: Iterable[torch.Tensor]) -> tuple[float, int]:
    """Of one pass, and how many pictures it gave."""
    started, seen = time.perf_counter(), 0
    for pictures in way:
        seen += len(pictures)
    return time.perf_counter() - started, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--huge", type=int, default=0, help="make so many collages of 12 megapixels and load those")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if asked.huge:
            collages(asked.pictures, root, asked.huge)
        else:
            (root / "train").symlink_to((asked.pictures / "train").resolve())
        given = (root, asked.size, min(asked.batch, asked.huge or asked.batch), asked.workers)
        ways = {
            "this repository": Ours(*given, cached=False),
            "this repository, cached": Ours(*given, cached=True),
            "cv2, albumentations, ToTensorV2": notebook(*given),
            "timm, its default transforms": timms(*given),
            "torchvision, v2 transforms": torchvisions(*given),
        }
        for way in ways.values():
            seconds(way)  # starts the workers and brings the files into memory
        taken = {name: [] for name in ways}
        for _ in range(asked.repeats):
            for name, way in ways.items():
                spent, seen = seconds(way)
                taken[name].append(spent / seen)
    first = np.array(taken["this repository"])
    rows = [
        {
            "way": name,
            "pictures/s": f"{1 / np.median(each):.0f}",
            "spread": f"{1 / np.max(each):.0f} to {1 / np.min(each):.0f}",
            "time against this repository's": f"{np.median(np.array(each) / first):.2f}",
            "n": len(each),
        }
        for name, each in taken.items()
    ]
    kind = "photographs of 12 megapixels" if asked.huge else "pictures in their original size"
    name = "loader-huge" if asked.huge else "loader"
    options = f" --huge {asked.huge}" if asked.huge else ""
    command = f"python benchmarks/loader.py --pictures FOLDER --size {asked.size} --workers {asked.workers}{options}"
    record(name, f"Augmented, normalised batches of {asked.size} pixels from {kind}, {asked.workers} workers.", command, rows)
    for row in rows:
        print("  ".join(f"{key}: {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
