"""Files that are whole or not there: nothing that was already written is lost or half-written."""

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from src.errors import UserError


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to, renamed to `path` at the end; after an error `path` is as it was."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keep other processes out of a folder, which is created. The lock, a file beside it, ends with the process.

    patience: seconds to wait for another process. Raises UserError naming it where that was not enough.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder.with_name(f".{folder.name}.lock")), folder.with_name(f".{folder.name}.owner")
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        who = owner.read_text(encoding="utf-8") if owner.is_file() else "unknown"
        raise UserError(f"{folder}: another process ({who}) is writing here; wait for it to end") from None
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
