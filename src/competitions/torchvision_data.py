"""MNIST and CIFAR-10 from torchvision's files, written as pictures: train/CLASS/NUMBER.png and test/CLASS/NUMBER.png."""

import gzip
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from src.competitions.archive import alone
from src.errors import UserError
from src.files import replacing

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset

FILES = {  # what lies in data/NAME, by which each is known; any one of them will do
    "mnist": ("raw/train-images-idx3-ubyte.gz", "raw/train-images-idx3-ubyte"),
    "cifar10": ("cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_1"),
}


def at_hand(name: str, root: Path) -> bool:
    """Whether the competition is one of these two and torchvision's files lie in its folder."""
    return any((root / file).is_file() for file in FILES.get(name, ()))


def write(name: str, root: Path) -> None:
    """All pictures of both parts, or none. What is not in `root` is fetched from torchvision's servers.

    A part's folder that is there already is left as it is. Raises UserError where files are missing or damaged and can't be
    fetched.
    """
    staging = root / f".{name}.partial"
    with alone(root):
        shutil.rmtree(staging, ignore_errors=True)  # of a process that was interrupted
        absent = [part for part in ("test", "train") if not (root / part).exists()]  # none: another process was faster
        try:
            for part in absent:
                _write_part(_read(name, root, part == "train"), staging / part)
            for part in absent:  # train last: it says "complete"
                os.replace(staging / part, root / part)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _read(name: str, root: Path, train: bool) -> "VisionDataset":
    from torchvision import datasets  # here: it takes seconds to import

    class Mnist(datasets.MNIST):
        raw_folder = property(lambda self: os.path.join(self.root, "raw"))  # not MNIST/raw below data/mnist

    kind = {"mnist": Mnist, "cifar10": datasets.CIFAR10}[name]
    try:
        for packed in (root / "raw").glob("*-ubyte.gz"):  # or torchvision refuses what was packed anew: its md5 is another
            if not packed.with_suffix("").exists():
                with replacing(packed.with_suffix("")) as partial, gzip.open(packed) as file:
                    partial.write_bytes(file.read())
        return kind(root, train, download=True)  # files that are there, and whole, are taken as they are
    except (RuntimeError, OSError, EOFError, ValueError, AssertionError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{root}: {name}'s files are missing or damaged, and can't be fetched: {said}") from None


def _write_part(data: "VisionDataset", folder: Path) -> None:
    names = [label.partition(" ")[0] for label in data.classes]  # MNIST's are "0 - zero"
    for name in names:
        (folder / name).mkdir(parents=True)
    pictures = np.asarray(data.data)
    if pictures.ndim == 4:
        pictures = pictures[..., ::-1]  # RGB → OpenCV's BGR
    for number, (picture, label) in enumerate(zip(pictures, np.asarray(data.targets), strict=True)):
        encoded = cv2.imencode(".png", picture)[1]
        (folder / names[label] / f"{number:05d}.png").write_bytes(encoded.tobytes())
