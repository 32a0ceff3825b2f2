"""Files that are whole or not there: nothing that was already written is lost or half-written."""

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from src.errors import UserError

LONGEST_NAME = 200  # bytes; the files named after a run add up to 40, and most disks take 255
FORBIDDEN = '<>:"/\\|?*'  # by Windows
# Windows keeps these for itself, with any suffix.
DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_name(name: str, what: str) -> str:
    """`name`, where it is one part of a path on every system. Raises UserError, which begins with `what`, where it is not."""
    if fault := _fault(name):
        raise UserError(f"{what} {name!r}: {fault}; choose a plain name, as in resnet50-384")
    return name


def clean_name(name: str) -> str:
    """The nearest name that `check_name` takes: for names that are made from those of other files."""
    name = "".join(c if c.isprintable() and c not in FORBIDDEN else "_" for c in name)
    name = name.encode()[:LONGEST_NAME].decode(errors="ignore").rstrip(". ").lstrip(".- ") or "_"
    return f"_{name}" if DEVICES.fullmatch(name) else name


def _fault(name: str) -> str | None:
    if not name:
        return "a name can't be empty"
    if odd := next((c for c in name if not c.isprintable() or c in FORBIDDEN), None):
        return f"a name can't hold {odd!r}"
    if name[0] in ".- " or name[-1] in ". ":
        return "a name can't begin with a dot, a dash or a space, nor end with a dot or a space"
    if DEVICES.fullmatch(name):
        return "Windows keeps this name for a device"
    if (length := len(name.encode())) > LONGEST_NAME:
        return f"a name can't be longer than {LONGEST_NAME} bytes, and this has {length}"
    return None


def read_json(path: Path, kind: Any, remedy: str) -> Any:
    """What a JSON file holds, as the type `kind`. Raises UserError with the place of the fault, and what to do: `remedy`."""
    try:
        return parse_json(path.read_bytes(), kind)
    except ValueError as error:
        raise UserError(f"{path}: {error}; {remedy}") from None


def parse_json(text: str | bytes, kind: Any) -> Any:
    """JSON as the type `kind`, nothing converted. Raises ValueError with the first fault's place, in one line."""
    try:
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ValueError(": ".join([*filter(None, [".".join(map(str, fault["loc"]))]), fault["msg"]])) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to, renamed to `path` at the end; after an error `path` is as it was.

    An OSError, as of a full disk, names `path`.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename in (None, str(partial)):
            error.filename = str(path)
        with suppress(OSError):  # the first error is the one to tell
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
        who = owner.read_text(encoding="utf-8", errors="replace") if owner.is_file() else "unknown"
        raise UserError(f"{folder}: another process ({who}) is writing here; wait for it to end") from None
    try:
        with suppress(OSError):  # a full disk: the lock holds all the same
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()
