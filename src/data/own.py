"""Files for people to look at, written beside the data: only where no file lies that someone else wrote, or changed since."""

import filecmp
import os
from collections.abc import Callable
from pathlib import Path

from src.data.digests import digest
from src.files import replacing


def write(path: Path, elsewhere: Path, writer: Callable[[Path], object]) -> Path:
    """Let `writer` write the file, and return where: at `path`, or in the folder `elsewhere` where `path` is not ours."""
    if path.parent == elsewhere or not os.path.lexists(path) or is_ours(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        writer(path)
        _mark(path)
        return path
    other = elsewhere / path.name
    other.parent.mkdir(parents=True, exist_ok=True)
    writer(other)
    if not path.is_file() or not filecmp.cmp(path, other, shallow=False):
        return other
    other.unlink()  # it is ours, of an older version, which left no mark
    _mark(path)
    return path


def is_ours(path: Path) -> bool:
    """Whether the file holds what was written here last."""
    try:
        return _note(path).read_bytes() == digest(path)
    except OSError:
        return False


def _mark(path: Path) -> None:
    with replacing(_note(path)) as partial:
        partial.write_bytes(digest(path))


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.ours")
