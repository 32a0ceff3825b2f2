"""Decoded pictures in one file, memory-mapped and shared by all folds and epochs: decoding is most of what loading costs.

Kept either fitted to their square, as validation and the recipes that fit first would make them: then nothing changes, to the
bit. Or, for recipes that crop first, shrunk to what the smallest crop needs: a picture no larger than that is kept as it is,
a larger one is averaged twice on its way to the model.
"""

import errno
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from src.data.image import Form, ImageError, read
from src.errors import UserError
from src.files import locked

VERSION = f"2 opencv {cv2.__version__}"  # a cache of another decoder or layout is built anew
HOURS = 3 * 3600.0  # as long as another process may take to build it
SPARE = 100e6  # bytes that a build leaves free


@dataclass
class Cache:
    """Pictures by their path; each process maps the file for itself, so that a worker is sent the index alone."""

    file: Path
    places: dict[str, tuple[int, int, int]]  # offset in bytes, height, width
    _pixels: np.ndarray | None = field(default=None, repr=False)

    def read(self, path: str) -> np.ndarray | None:
        """The picture (H, W, 3) uint8 RGB, as it lies in the file: read-only. None for one that is not in the cache."""
        if path not in self.places:
            return None
        if self._pixels is None:
            self._pixels = np.asarray(np.memmap(self.file, np.uint8, "r"))  # as slicing a memmap itself takes ten times as long
        offset, height, width = self.places[path]
        return self._pixels[offset : offset + height * width * 3].reshape(height, width, 3)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_pixels": None}


def open_cache(root: Path, paths: Sequence[str], form: Form, folder: Path, workers: int, said: Callable[[str], None]) -> Cache:
    """The cache of these pictures below `root`, built in `folder` where it isn't there, or is of other pictures.

    A file that changed its size or time makes it anew. A picture that can't be read is not in it, and is left to whoever asks
    for it. workers: threads, as decoding lets go of Python. Raises UserError where the disk has too little room.
    """
    paths = sorted(set(paths))
    home = folder / f"{form.side}-{form.resize}"
    with locked(home, patience=HOURS):
        facts = [_facts(root / path) for path in paths]
        reason = _unfit(home, paths, facts)
        if reason:
            _build(root, paths, facts, form, home, workers, said, reason)
        index = np.load(home / "index.npz")
        known = zip(index["paths"].tolist(), index["offsets"].tolist(), index["shapes"].tolist(), strict=True)
        return Cache(home / "pixels.bin", {path: (offset, *shape) for path, offset, shape in known if shape[0]})


def _unfit(home: Path, paths: list[str], facts: list[tuple[int, int]]) -> str:
    """Why the cache that lies there can't be used, "" where it can."""
    try:
        with np.load(home / "index.npz") as index:
            if index["version"].item() != VERSION:
                return "the one there is another version's"
            if index["bytes"].item() != (home / "pixels.bin").stat().st_size:
                return "the one there is damaged"
            stored = dict(zip(index["paths"].tolist(), map(tuple, index["facts"].tolist()), strict=True))
    except FileNotFoundError:
        return "built once"
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        return f"the one there can't be read ({error})"
    unknown = sum(path not in stored for path in paths)
    if unknown:
        return f"{unknown:,} of these pictures are not in the one there"
    changed = sum(stored[path] != fact for path, fact in zip(paths, facts, strict=True))
    return f"{changed:,} pictures have changed since the one there was built" if changed else ""


def _build(
    root: Path, paths: list[str], facts: list[tuple[int, int]], form: Form, home: Path, workers: int,
    said: Callable[[str], None], reason: str,
) -> None:  # fmt: skip
    """Write both files beside their place, then move them there: the index last, without which there is no cache."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        shapes = np.array(list(pool.map(lambda path: _expected(root / path, form), paths)), np.int64).reshape(-1, 2)
        sizes = shapes.prod(axis=1) * 3
        offsets = np.cumsum(sizes) - sizes
        total = int(sizes.sum())
        said(f"cache: {len(paths):,} pictures, {total / 1e9:.1f} GB, in {home}: {reason}")
        shutil.rmtree(home, ignore_errors=True)  # before the disk is measured; nothing can be lost that can't be made again
        home.mkdir(parents=True)
        free = shutil.disk_usage(home).free
        if total + SPARE > free:
            raise UserError(_too_large(total, free, home))
        partial = home / "pixels.partial"
        try:
            with open(partial, "wb") as file:

                def keep(number: int) -> bool:
                    return _keep(file.fileno(), root / paths[number], form, tuple(shapes[number]), int(offsets[number]))

                hidden = not os.isatty(2)
                kept = list(tqdm(pool.map(keep, range(len(paths))), "cache", len(paths), leave=False, disable=hidden))
                os.truncate(file.fileno(), total)
        except OSError as error:
            shutil.rmtree(home, ignore_errors=True)
            if error.errno != errno.ENOSPC:
                raise UserError(f"data.cache: {partial}: {error.strerror or error}") from None
            raise UserError(_too_large(total, 0, home)) from None
    shapes[~np.array(kept, bool)] = 0
    os.replace(partial, home / "pixels.bin")
    with open(home / "index.partial", "wb") as file:
        np.savez(
            file, version=VERSION, bytes=total, paths=np.array(paths, str), facts=np.array(facts, np.int64).reshape(-1, 2),
            offsets=offsets, shapes=shapes,
        )  # fmt: skip
    os.replace(home / "index.partial", home / "index.npz")


def _keep(file: int, path: Path, form: Form, shape: tuple[int, int], offset: int) -> bool:
    """Decode a picture and write it to its place. False for one that can't be read, or is not what its header said."""
    try:
        image = form.of(read(path, form))
    except ImageError:
        return False
    if image.shape[:2] != shape:
        return False
    os.pwrite(file, image.tobytes(), offset)
    return True


def _expected(path: Path, form: Form) -> tuple[int, int]:
    """Height and width of what will be kept, by the picture's header; (0, 0) where it has none that can be read."""
    if form.resize != "shrunk":
        return form.side, form.side
    from PIL import Image  # here: prediction, which needs no cache, needs no Pillow

    try:
        with Image.open(path) as picture:
            width, height = picture.size
            turned = picture.getexif().get(0x0112, 1) >= 5  # EXIF's orientation: on its side
            reduction = form.reduction(height, width) if picture.format in ("JPEG", "MPO") else 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0
    height, width = -(-height // reduction), -(-width // reduction)  # as libjpeg rounds
    return form.shape(*((width, height) if turned else (height, width)))


def _facts(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns: by these a changed file is known."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _too_large(total: int, free: int, home: Path) -> str:
    there = f"{free / 1e9:.1f} GB are free there" if free else "the disk is full"
    return f"data.cache: the pictures take {total / 1e9:.1f} GB in {home}, and {there}; make room, or --data.cache false"
