"""Decoded pictures in one file, memory-mapped and shared by all folds and epochs: decoding is most of what loading costs.

Kept either fitted to their square, as validation and the recipes that fit first would make them: then nothing changes, to the
bit. Or, for recipes that crop first, shrunk to what the smallest crop needs: a picture no larger than that is kept as it is,
a larger one is averaged twice on its way to the model.
"""

import errno
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from src.data.digests import digests
from src.data.image import DECODER, Form, ImageError, irregular, jpeg_size, read
from src.data.spread import parts, spread
from src.errors import UserError
from src.files import locked, replacing

VERSION = f"3 decoder {DECODER}"  # a cache of another decoder or layout is built anew
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

    Pictures are known by the digest of their bytes. One that can't be read is not in it, and is left to whoever asks for it.
    workers: processes that build. Raises UserError where the disk has too little room.
    """
    paths = sorted(set(paths))
    home = folder / f"{form.side}-{form.resize}"
    with locked(home, patience=HOURS):
        now = digests(root, paths, folder.parent, workers)  # beside the data, for all that ask
        reason = _unfit(home, paths, now)
        if reason:
            _build(root, paths, now, form, home, workers, said, reason)
        index = np.load(home / "index.npz")
        known = zip(index["paths"].tolist(), index["offsets"].tolist(), index["shapes"].tolist(), strict=True)
        return Cache(home / "pixels.bin", {path: (offset, *shape) for path, offset, shape in known if shape[0]})


def _unfit(home: Path, paths: list[str], now: np.ndarray) -> str:
    """Why the cache that lies there can't be used, "" where it can. now: the pictures' digests."""
    try:
        with np.load(home / "index.npz") as file:
            if file["version"].item() != VERSION:
                return "the one there is another version's"
            index = dict(file)
        if index["bytes"].item() != (home / "pixels.bin").stat().st_size:
            return "the one there is damaged"
        place = {path: number for number, path in enumerate(index["paths"].tolist())}
        stored = index["digests"]
    except FileNotFoundError:
        return "built once"
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        return f"the one there can't be read ({error})"
    unknown = sum(path not in place for path in paths)
    if unknown:
        return f"{unknown:,} of these pictures are not in the one there"
    changed = int((stored[[place[path] for path in paths]] != now).sum())
    return f"{changed:,} pictures have changed since the one there was built" if changed else ""


def _write_index(home: Path, index: dict[str, Any]) -> None:
    with replacing(home / "index.npz") as partial, open(partial, "wb") as file:
        np.savez(file, **index)


def _build(
    root: Path, paths: list[str], now: np.ndarray, form: Form, home: Path, workers: int,
    said: Callable[[str], None], reason: str,
) -> None:  # fmt: skip
    """Write both files beside their place, then move them there: the index last, without which there is no cache."""
    chunks = parts(len(paths))
    shapes = np.full((len(paths), 2), form.side, np.int64)
    if form.resize == "shrunk":
        tasks = [(root, paths[chunk], form) for chunk in chunks]
        for number, found in spread(_expected, tasks, workers, "data.cache"):
            shapes[chunks[number]] = found
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
        partial.touch()
        os.truncate(partial, total)
        tasks = [(root, paths[chunk], form, partial, sizes[chunk], offsets[chunk]) for chunk in chunks]
        with tqdm(total=len(paths), desc="cache", unit=" images", leave=False, disable=None) as bar:  # None: only on a terminal
            for number, kept in spread(_keep, tasks, workers, "data.cache"):
                shapes[chunks[number]] = kept
                bar.update(len(kept))
        os.replace(partial, home / "pixels.bin")
        known = {"digests": now, "offsets": offsets, "shapes": shapes}
        _write_index(home, {"version": VERSION, "bytes": total, "paths": np.array(paths, str)} | known)
    except OSError as error:
        shutil.rmtree(home, ignore_errors=True)
        if error.errno != errno.ENOSPC:
            raise UserError(f"data.cache: {home}: {error.strerror or error}") from None
        raise UserError(_too_large(total, 0, home)) from None


def _keep(root: Path, paths: list[str], form: Form, file: Path, sizes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Decode pictures and write them to their places. (n, 2) height and width of each; 0, 0 for one that can't be read, or is
    not what its header said."""
    shapes = np.zeros((len(paths), 2), np.int64)
    with open(file, "r+b") as pixels:
        for number, path in enumerate(paths):
            try:
                image = form.of(read(root / path, form))
            except ImageError:
                continue
            if image.size == sizes[number]:
                os.pwrite(pixels.fileno(), image.tobytes(), offsets[number])
                shapes[number] = image.shape[:2]
    return shapes


def _expected(root: Path, paths: list[str], form: Form) -> np.ndarray:
    """(n, 2) height and width of what will be kept, before EXIF turns it, by the pictures' headers; 0, 0 where none is read."""
    shapes = np.zeros((len(paths), 2), np.int64)
    for number, path in enumerate(paths):
        found = _header(root / path)
        if found is not None:
            (height, width), jpeg = found
            by = form.reduction(height, width) if jpeg else 1
            shapes[number] = form.shape(-(-height // by), -(-width // by))  # rounded as libjpeg does
    return shapes


def _header(path: Path) -> tuple[tuple[int, int], bool] | None:
    """Height and width, and whether it is a JPEG, which is the usual case and is read in a third of the time."""
    from PIL import Image  # here: prediction, which needs no cache, needs no Pillow

    try:
        if irregular(path.stat()):
            return None
        with open(path, "rb") as file:
            size = jpeg_size(memoryview(file.read(65536)))
        if size is not None:
            return size, True
        with Image.open(path) as picture:  # not only others: a thumbnail may push a JPEG's frame header far back
            return picture.size[::-1], picture.format in ("JPEG", "MPO")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _too_large(total: int, free: int, home: Path) -> str:
    there = f"{free / 1e9:.1f} GB are free there" if free else "the disk is full"
    return f"data.cache: the pictures take {total / 1e9:.1f} GB in {home}, and {there}; make room, or --data.cache false"
