"""One picture in one process: decoding, and decoding with augmentation, beside what else could do it.

    python benchmarks/decode.py --pictures FOLDER [--size 224] [--count 200] [--repeats 5]

FOLDER holds train/*.jpg in their original size; 1024 × 768 pixels and 12 megapixels are collages of them. One thread, files in
memory already. simplejpeg is in it where it is installed.
"""

import argparse
import importlib.util
import io
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import loader  # noqa: E402
import notebook_style  # noqa: E402
from loader import collages  # noqa: E402
from notebook_style import Pictures  # noqa: E402
from record import record  # noqa: E402
from turns import show, table, take_turns  # noqa: E402

from src.data.augmentation import Augmentation  # noqa: E402
from src.data.cache import open_cache  # noqa: E402
from src.data.image import read  # noqa: E402

SIZES = {"original size": (0, 1000), "1024 × 768": (1024, 1000), "12 megapixels": (4000, 20)}  # width, at most so many


def each(work: Callable, items: list) -> float:
    """Seconds an item."""
    started = time.perf_counter()
    for item in items:
        work(item)
    return (time.perf_counter() - started) / len(items)


def decoders(files: list[Path], draw: Augmentation) -> dict[str, Callable[[], float]]:
    encoded = [np.fromfile(file, np.uint8) for file in files]
    ways = {
        "cv2, whole, as read() without a form": partial(each, read, files),
        "read() for the medium recipe": partial(each, lambda file: read(file, draw.form), files),
        "PIL": partial(each, lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), encoded),
        "torchvision": partial(each, lambda data: decode_jpeg(torch.from_numpy(data), ImageReadMode.RGB), encoded),
    }
    if importlib.util.find_spec("simplejpeg"):
        import simplejpeg

        data = [data.tobytes() for data in encoded]
        least = [(data, *read(file, draw.form).shape[:2]) for data, file in zip(data, files, strict=True)]
        ways["simplejpeg, whole"] = partial(each, lambda data: simplejpeg.decode_jpeg(data, "RGB"), data)
        ways["simplejpeg, as small as read() for the recipe"] = partial(
            each, lambda of: simplejpeg.decode_jpeg(of[0], "RGB", min_height=of[1], min_width=of[2]), least
        )
    return ways


def augmented(root: Path, files: list[Path], draw: Augmentation, size: int) -> dict[str, Callable[[], float]]:
    names = [file.relative_to(root).as_posix() for file in files]
    kept = open_cache(root, names, draw.form, root / ".cache", 2, lambda _: None)
    notebook = Pictures(files, notebook_style.augmented(size, loader.MEAN, loader.STD))
    return {
        "decoded and augmented": partial(each, lambda file: draw(read(file, draw.form), 0, file.name), files),
        "augmented from the cache": partial(each, lambda name: draw(kept.read(name), 0, name), names),
        "cv2, albumentations, ToTensorV2": partial(each, notebook.__getitem__, list(range(len(files)))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    draw = Augmentation("medium", asked.size, "crop", ("hflip",), 0)
    with tempfile.TemporaryDirectory() as folder:
        for name, (wide, most) in SIZES.items():
            root, count = Path(folder) / str(wide), min(asked.count, most)
            if wide:
                collages(asked.pictures, root, count, 4, wide)
            else:
                (root / "train").mkdir(parents=True)
                for file in sorted(asked.pictures.glob("train/*.jpg"))[:count]:
                    (root / "train" / file.name).symlink_to(file.resolve())
            files = sorted(root.glob("train/*.jpg"))
            for kind, ways in (("decode", decoders(files, draw)), ("augment", augmented(root, files, draw, asked.size))):
                rows = table(take_turns(ways, asked.repeats))
                what = f"JPEGs of {name}, one thread; needed: the medium recipe's {asked.size} pixels."
                record(f"{kind}-{wide or 'original'}", what, "python benchmarks/decode.py --pictures FOLDER", rows)
                show(rows)


if __name__ == "__main__":
    main()
