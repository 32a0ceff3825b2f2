"""Kaggle's zip archives, unpacked once: safe against paths that leave the folder, resumable, never half-unpacked.

What lies in the folder already is the user's, unless it still is what an earlier edition of the archive put there.
"""

import filecmp
import hashlib
import json
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from src.errors import UserError
from src.files import replacing

MARKER = ".unpacked.json"  # of each archive: its state, by which it is known without opening it, and its identity
HOURS = 3 * 3600.0  # as long as another process may take to unpack
WINDOWS = os.name == "nt"
_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep other processes from filling the folder at the same time; whoever waited finds it filled."""
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".filling.lock", timeout=HOURS):
            yield
    except Timeout:
        raise UserError(f"{root}: another process has been writing here for {HOURS / 3600:.0f} hours; end it") from None


def unpack_all(source: Path, root: Path, said: Callable[[str], None] = print) -> None:
    """Unpack into `root` every *.zip of `source` that is not unpacked yet, archives that came out of archives included.

    Raises UserError as `unpack` does.
    """
    if not _pending(source, root):
        return
    with alone(root):
        while pending := _pending(source, root):
            for archive in pending:
                count, kept = unpack(archive, root)
                said(f"{archive.name}: unpacked {count:,} files into {root}")
                if kept:
                    more = f" and {len(kept) - 1:,} more" if kept[1:] else ""
                    said(
                        f"{archive.name}: left {kept[0]}{more} in {root} as it is: it differs from the archive's, which comes "
                        f"if you move it and {MARKER} away"
                    )
                _mark(root, archive)


def unpack(archive: Path, root: Path) -> tuple[int, list[str]]:
    """Unpack one archive into `root`; (its number of files, those that were left as they lie there).

    Files go to a folder beside the target and are moved in when all are there; a second call after an interruption
    takes up those that are complete. A file that is there and differs is left, unless an earlier edition of this archive
    wrote it and nobody changed it since. Raises UserError for a damaged archive, a path that leaves `root`, a full disk.
    """
    staging, record = root / f".{archive.name}.partial", root / f".{archive.name}.files.json"
    try:
        with _opened(archive) as zip:
            members = _members(archive, zip, root)
            now = {name: [member.file_size, member.CRC] for name, member in members.items()}
            there = {name: _content(root / name) for name in members}
            before = _read_json(record)
            ours = {name: [*written, now.get(name)] for name, written in before.items() if isinstance(written, list)}
            todo = [name for name in members if there[name] != now[name] and there[name] in (None, *ours.get(name, ()))]
            _check_room(archive, root, sum(members[name].file_size for name in todo), staging)
            _clear(staging, set(todo))
            for name in todo:
                _extract(zip, members[name], staging / name)
        with replacing(record) as partial:  # before anything is moved in: what is moved is ours
            partial.write_text(json.dumps({name: [content] for name, content in now.items()} | ours))
        _move_in(staging, root)
    except OSError as error:
        raise UserError(f"{archive}: can't be unpacked into {root}: {error.strerror or error}") from None
    return len(members), sorted(name for name in members.keys() - set(todo) if there[name] != now[name])


def copy_tables(source: Path, root: Path, said: Callable[[str], None] = print) -> None:
    """Copy the *.csv of `source` into `root`. One that lies there stays, as the user's, and is told where it differs."""
    for table in filter(Path.is_file, sorted(source.glob("*.csv"))):
        own = root / table.name
        if not own.exists():
            with replacing(own) as partial:
                shutil.copyfile(table, partial)
        elif not filecmp.cmp(table, own, shallow=False):
            said(f"{own} is used; {table} is another")


def _pending(source: Path, root: Path) -> list[Path]:
    done = _read_json(root / MARKER)
    return [archive for archive in _archives(source, root) if not _is_done(archive, done.get(archive.name))]


def _archives(source: Path, root: Path) -> list[Path]:
    """By name: where both folders have one of the same name, the source's."""
    by_name = {zip.name: zip for folder in (root, source) for zip in folder.glob("*.zip") if zip.is_file()}
    return [by_name[name] for name in sorted(by_name)]


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as zip:
            yield zip
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        if isinstance(error, NotImplementedError):
            raise UserError(f"{archive}: can't be unpacked here ({error}); unpack it with another program") from None
        raise UserError(f"{archive}: not a complete zip archive ({error}); download it again") from None


# What an archive holds


def _members(archive: Path, zip: zipfile.ZipFile, root: Path) -> dict[str, zipfile.ZipInfo]:
    """Its files by their path below `root`. Of two with one name the last counts, as with every other program.

    Raises UserError for paths that leave the folder or can't be files there. An archive within itself is left out.
    """
    members = {}
    for member in zip.infolist():
        if not member.filename.endswith("/") and not _litter(member.filename):
            name = _path(archive, member)
            if member.flag_bits & 1:
                raise UserError(f"{archive}: {name} needs a password; unpack it with another program")
            if name != archive.name:
                members[name] = member
    _check_folders(archive, members, root)
    return members


def _path(archive: Path, member: zipfile.ZipInfo) -> str:
    """Where a member belongs. Archives from Windows may have backslashes between folders; elsewhere they are part of a name."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    drive = not path.parts or ":" in path.parts[0]
    if path.is_absolute() or drive or ".." in path.parts or stat.S_ISLNK(member.external_attr >> 16):
        raise UserError(f"{archive}: the member {member.filename!r} would leave the folder; the archive is not Kaggle's")
    if WINDOWS and (bad := next(filter(_NOT_ON_WINDOWS.search, path.parts), None)):
        raise UserError(
            f"{archive}: the member {member.filename!r} can't be a file on Windows, for {bad!r}; unpack it elsewhere"
        )
    made_on_windows = member.create_system == 0
    return path.as_posix() if made_on_windows else PurePosixPath(member.filename).as_posix()


def _check_folders(archive: Path, members: dict[str, zipfile.ZipInfo], root: Path) -> None:
    """Refuse a file where another member, or what lies there, has a folder, and names that the disk takes for one."""
    folders = {parent.as_posix() for name in members for parent in PurePosixPath(name).parents} - {"."}
    for name in members:
        if name in folders or (root / name).is_dir():
            raise UserError(f"{archive}: {name} is a file in it, and a folder {'in it too' if name in folders else 'here'}")
    for folder in folders:
        if (root / folder).exists() and not (root / folder).is_dir():
            raise UserError(f"{archive}: {folder} is a folder in it, and a file in {root}; move that away")
    seen: dict[str, str] = {}
    for name in members if _ignores_case(root) else ():
        if seen.setdefault(name.casefold(), name) != name:
            raise UserError(f"{archive}: {seen[name.casefold()]} and {name} are one file on this disk; unpack it elsewhere")


def _ignores_case(root: Path) -> bool:
    """Whether the folder's disk takes a.jpg and A.jpg for one file."""
    probe = root / f".Case.{os.getpid()}.partial"
    probe.touch()
    try:
        return probe.with_name(probe.name.lower()).exists()
    finally:
        probe.unlink()


def _litter(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] in (".DS_Store", "Thumbs.db", MARKER)


# Writing


def _content(path: Path) -> list[int] | None:
    """Size and CRC of a file, none where there is no file: another edition of a table may well be of the same size."""
    if not path.is_file():
        return None
    size = crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return [size, crc]


def _check_room(archive: Path, root: Path, needed: int, staging: Path) -> None:
    free = shutil.disk_usage(root).free + sum(file.stat().st_size for file in staging.rglob("*") if file.is_file())
    if needed > free:
        raise UserError(f"{archive}: needs {needed / 2**30:.1f} GiB, and {root} has {free / 2**30:.1f} GiB free")


def _clear(staging: Path, todo: Collection[str]) -> None:
    """Leave nothing there of another edition, whose unpacking was interrupted."""
    for file in list(staging.rglob("*")):
        if file.is_file() and file.relative_to(staging).as_posix() not in todo:
            file.unlink()


def _extract(zip: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if _content(target) == [member.file_size, member.CRC]:  # from before an interruption
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial, zip.open(member) as source, open(partial, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)  # reading to the end checks the CRC


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


# What was unpacked before


def _is_done(archive: Path, entry: dict | list | None) -> bool:
    """Whether it was unpacked: it is in the state that was noted, or else, copied or touched, holds the same."""
    if isinstance(entry, list):  # of an older version: size and time alone
        status = archive.stat()
        return entry == [status.st_size, int(status.st_mtime)]
    return isinstance(entry, dict) and (entry.get("state") == _state(archive) or entry.get("identity") == _identity(archive))


def _state(archive: Path) -> list[int]:
    """As digests.py knows a file: whatever copies or replaces it can't set its time of change back."""
    status = archive.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _identity(archive: Path) -> str:
    """A digest of its members' names, sizes and CRCs: 6 GB would take 10 s to read."""
    with _opened(archive) as zip:
        held = sorted((member.filename, member.file_size, member.CRC) for member in zip.infolist())
    return hashlib.blake2b(repr(held).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _mark(root: Path, archive: Path) -> None:
    done = _read_json(root / MARKER) | {archive.name: {"state": _state(archive), "identity": _identity(archive)}}
    with replacing(root / MARKER) as partial:
        partial.write_text(json.dumps(done, indent=1))


def _read_json(path: Path) -> dict:
    """{} where there is none, or a damaged one, which only costs another look at every file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
