"""Kaggle's zip archives, unpacked once: safe against paths that leave the folder, resumable, never half-unpacked."""

import json
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from src.errors import UserError

MARKER = ".unpacked.json"


def unpack_all(source: Path, root: Path, said: Callable[[str], None] = print) -> None:
    """Unpack into `root` every *.zip of `source` that is not unpacked yet, archives that came out of archives included."""
    done = _read_marker(root)
    while pending := [zip for zip in _archives(source, root) if done.get(zip.name) != _fingerprint(zip)]:
        for archive in pending:
            fingerprint = _fingerprint(archive)
            count = unpack(archive, root)
            said(f"{archive.name}: unpacked {count:,} files into {root}")
            done[archive.name] = fingerprint
            partial = root / f"{MARKER}.partial"
            partial.write_text(json.dumps(done, indent=1))
            os.replace(partial, root / MARKER)


def unpack(archive: Path, root: Path) -> int:
    """Unpack one archive into `root` and return its number of files.

    Files go to a folder beside the target and are moved in when all are there; a second call after an interruption
    takes up those that are complete. Raises UserError for a damaged archive, a path that leaves `root`, a full disk.
    """
    staging = root / f".{archive.name}.partial"
    try:
        with zipfile.ZipFile(archive) as zip:
            members = [member for member in zip.infolist() if not member.is_dir() and not _litter(member.filename)]
            for member in members:
                _check_path(archive, member)
            needed = sum(member.file_size for member in members)
            free = shutil.disk_usage(root).free + sum(file.stat().st_size for file in staging.rglob("*") if file.is_file())
            if needed > free:
                raise UserError(f"{archive}: needs {needed / 2**30:.1f} GiB, and {root} has {free / 2**30:.1f} GiB free")
            for member in members:
                _extract(zip, member, staging, root)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive}: not a complete zip archive ({error}); download it again") from None
    _move_in(staging, root)
    return len(members)


def _archives(source: Path, root: Path) -> list[Path]:
    """By name: where both folders have one of the same name, the source's."""
    by_name = {zip.name: zip for folder in (root, source) for zip in folder.glob("*.zip")}
    return [by_name[name] for name in sorted(by_name)]


def _extract(zip: zipfile.ZipFile, member: zipfile.ZipInfo, staging: Path, root: Path) -> None:
    target = staging / member.filename
    for complete in (target, root / member.filename):  # the second: moved in before an interruption
        if _holds(complete, member):
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    with zip.open(member) as source, open(partial, "wb") as file:  # reading to the end checks the CRC
        shutil.copyfileobj(source, file, 1 << 20)
    os.replace(partial, target)


def _holds(path: Path, member: zipfile.ZipInfo) -> bool:
    """Whether the file is the member, by size and CRC: another edition of a table may well be of the same size."""
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc == member.CRC


def _move_in(staging: Path, root: Path) -> None:
    """Rename whole folders where the target has none, single files where it has one."""
    if not staging.is_dir():
        return
    for entry in list(staging.iterdir()):
        target = root / entry.name
        if entry.is_dir() and target.is_dir():
            _move_in(entry, target)
        else:
            os.replace(entry, target)
    if staging.is_dir():
        staging.rmdir()


def _check_path(archive: Path, member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    drive = not path.parts or ":" in path.parts[0]
    if path.is_absolute() or drive or ".." in path.parts or stat.S_ISLNK(member.external_attr >> 16):
        raise UserError(f"{archive}: the member {member.filename!r} would leave the folder; the archive is not Kaggle's")


def _litter(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] in (".DS_Store", "Thumbs.db")


def _fingerprint(archive: Path) -> list[int]:
    status = archive.stat()
    return [status.st_size, int(status.st_mtime)]


def _read_marker(root: Path) -> dict[str, list[int]]:
    try:
        return json.loads((root / MARKER).read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # a damaged marker only costs another unpacking
        return {}
