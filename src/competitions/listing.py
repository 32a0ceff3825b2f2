"""Which files lie below a folder, and which of them a pattern like train/{label}/{id}.jpg makes rows of."""

import os
import re
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from src.competitions.names import natural, shown
from src.errors import UserError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
# Beside names that begin with a dot: what macOS' zip, a Synology and Windows leave beside pictures.
FOREIGN_FOLDERS = frozenset({"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"})


def prefix(pattern: str) -> str:
    """The folder that a pattern surely lies in: "train/train/{label}/{id}" → "train/train"."""
    return pattern.partition("{")[0].rpartition("/")[0]


def listing(root: Path, pattern: str, without: str = "") -> list[str]:
    """All image files below the fixed part of a pattern, relative to root with forward slashes, in natural order.

    An image has one of IMAGE_SUFFIXES, or the pattern's own. without: a folder to leave out, where it lies below that part.
    """
    suffixes = IMAGE_SUFFIXES | {_own_suffix(pattern)}
    return [path for path in _files(root, pattern, without) if _suffix(path) in suffixes and _is_text(path)]


def listed_table(root: Path, pattern: str, without: str = "", said: Callable[[str], None] = lambda _: None) -> pd.DataFrame:
    """id, path, label of the files that match; str. The id is what {id} matched, or all that the pattern leaves open: "cat.0".

    It is the latter, "cat/0001", too where one name stands in several folders, and `said` is told. Files count whatever their
    suffix, if the pattern names it. Raises UserError for a name that isn't UTF-8.
    """
    named = re.compile(_regex(pattern))
    everything = re.compile(f"{re.escape(pattern.partition('{')[0])}(.*){re.escape(pattern.rpartition('}')[2])}", re.DOTALL)
    rows = []
    for path in _files(root, pattern, without):
        match = named.fullmatch(path)
        if match and (_own_suffix(pattern) or _suffix(path) in IMAGE_SUFFIXES):
            if not _is_text(path):
                raise UserError(f"{root}: {os.fsencode(path)!r}: the file's name is not UTF-8; rename it")
            fields = match.groupdict()
            rows.append((fields.get("id"), everything.fullmatch(path)[1], path, fields.get("label", "")))
    table = pd.DataFrame(rows, columns=["id", "whole", "path", "label"], dtype=str)
    if "{id}" not in pattern or not table["id"].is_unique:
        if "{id}" in pattern:
            twice = table[table["id"].duplicated(keep=False)].iloc[0]
            why = f"{shown(twice['id'])} names several files"
            said(f"{root / prefix(pattern)}: {why}, so ids are all that {pattern} leaves open, as in {shown(twice['whole'])}")
        table["id"] = table["whole"]
    return table[["id", "path", "label"]]


def why_no_rows(root: Path, pattern: str, without: str = "") -> str:
    """Of a pattern that no file matches: what lies there instead, and what to do."""
    said, files = f"no file matches {pattern}", _files(root, pattern, without)
    if not files:
        return said
    suffix, count = Counter(os.path.splitext(path)[1] for path in files).most_common(1)[0]
    said += f"; {len(files):,} files lie there, the first is {shown(files[0])}"
    if suffix.lower() in IMAGE_SUFFIXES and suffix in ("", _own_suffix(pattern, fold=False)):
        return said
    if suffix.lower() in IMAGE_SUFFIXES or (suffix and _own_suffix(pattern)):
        return f"{said}; {count:,} of them have the suffix {suffix}, which the pattern must name"
    if suffix:
        return f"{said}; {count:,} of them have the suffix {suffix}: if it is a picture's, name it at the end of the pattern"
    return f"{said}; {count:,} of them have no suffix: if they are pictures, name them in a table (train_csv, test_csv)"


def _regex(pattern: str) -> str:
    named: set[str] = set()

    def group(match: re.Match) -> str:
        name = match[1]
        if name in named:
            return f"(?P={name})"
        named.add(name)
        return f"(?P<{name}>[^/]+?)"

    parts = re.split(r"(\{\w+\})", pattern)
    return "".join(re.sub(r"\{(\w+)\}", group, part) if part.startswith("{") else re.escape(part) for part in parts)


def _own_suffix(pattern: str, fold: bool = True) -> str:
    """The suffix that a pattern names: ".jpg" of "train/{id}.jpg", "" of "train/{id}" and "{number}.{suffix}"."""
    end = pattern.rpartition("}")[2]
    suffix = end[end.rindex(".") :] if "." in end else ""
    return suffix.lower() if fold else suffix


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _is_text(path: str) -> bool:
    return not re.search("[\ud800-\udfff]", path)


def _files(root: Path, pattern: str, without: str) -> list[str]:
    """Paths of all files below the pattern's fixed part that aren't hidden, in natural order.

    A link to a file is one; a link to nothing isn't, nor is a pipe. Each folder is entered once, however many links lead to
    it, and one that holds the pattern's never.
    """
    start, without = prefix(pattern), "" if without == prefix(pattern) else without
    entered = {_identity(folder) for folder in (root / start).absolute().parents}
    folders, files = deque([start]), []
    while folders:
        folder = folders.popleft()
        identity = _identity(root / folder)
        if identity is None or identity in entered:
            continue
        entered.add(identity)
        for entry in _entries(root / folder):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith(".") or path == without:
                continue
            if _is(entry.is_file):
                files.append(path)
            elif _is(entry.is_dir) and entry.name.casefold() not in FOREIGN_FOLDERS:
                (folders.append if entry.is_symlink() else folders.appendleft)(
                    path
                )  # a link's name only where there is no other
    return sorted(files, key=natural)


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:  # absent, or not ours to read: its rows are then without an image
        return []


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        state = os.stat(folder)
    except OSError:
        return None
    return state.st_dev, state.st_ino
