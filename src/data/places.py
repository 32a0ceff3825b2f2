"""Where the pictures of a table lie: each path is looked up on the disk as it is written, and then as it may be meant.

The same file may be written ./a.jpg, b//a.jpg, b/../a.jpg, b\\a.jpg, as an absolute path, or with é as one character or two:
these are found. A name with other capitals or another suffix is another name: it is only told.
"""

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from src.competitions.names import shown

UNTIDY = re.compile(r"^/|//|(^|/)\.\.?(/|$)|/$")
TEXTS = {".txt", ".xml", ".json", ".csv"}


class Places:
    """The files below a folder, each folder listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.homes = sorted({os.path.abspath(root), os.path.realpath(root)})
        self.folders: dict[str, _Folder] = {}

    def find(self, path: str) -> str | None:
        """The path of the file that is meant, relative to the folder where it lies below it; None where there is none.

        Hidden files, and those of any suffix, are found; a folder, a pipe or a link to nothing is not.
        """
        for spelling in dict.fromkeys((path, path.replace("\\", "/"))):
            inside = self._inside(spelling)
            found = self._walk(inside, _Folder.same) if inside is not None else None
            if found is not None:
                return found
        return path if os.path.isfile(os.path.join(self.root, path)) else None

    def near(self, path: str) -> str | None:
        """A file whose name differs from a path that isn't there by capitals, blanks at the ends or the suffix alone."""
        path = path.replace("\\", "/")
        inside = self._inside(path)
        if inside is not None:
            return self._walk(inside, _Folder.near)
        parts = path.strip("/").split("/")  # of a path on another machine the end may be here
        tails = ("/".join(parts[start:]) for start in range(len(parts)) if ".." not in parts[start:])
        return next((found for tail in tails if (found := self._walk(tail, _Folder.near))), None)

    def why(self, path: str) -> str:
        """What to say after the path of a picture that isn't there: the file that may be meant, or what lies there instead."""
        if near := self.near(path):
            return f", but {shown(near)} is there"
        full = os.path.join(self.root, path)
        if os.path.isdir(full):
            return ", which is a folder"
        return ", which is a link to nothing" if os.path.islink(full) else ""

    def _inside(self, path: str) -> str | None:
        """The path below the folder without ., .. and //; None where it leads out."""
        if not UNTIDY.search(path):
            return path
        full = posixpath.normpath(posixpath.join(self.homes[0], path))
        for home in self.homes:
            if full.startswith(home.rstrip("/") + "/"):
                return full[len(home.rstrip("/")) + 1 :]
        return None

    def _walk(self, path: str, match: Callable[["_Folder", str, bool], str | None]) -> str | None:
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent)
        found = match(folder, name, True)
        if found is None and parent and not folder.exists and (real := self._walk_folders(parent, match)) is not None:
            parent = real
            found = match(self._folder(parent), name, True)
        return found and (f"{parent}/{found}" if parent else found)

    def _walk_folders(self, path: str, match: Callable[["_Folder", str, bool], str | None]) -> str | None:
        found = ""
        for part in path.split("/"):
            name = match(self._folder(found), part, False)
            if name is None:
                return None
            found = f"{found}/{name}" if found else name
        return found

    def _folder(self, path: str) -> "_Folder":
        if path not in self.folders:
            self.folders[path] = _Folder(self.root / path)
        return self.folders[path]


class _Folder:
    """The names in a folder, {True: files, False: folders}, and which of them is meant by another."""

    def __init__(self, path: Path) -> None:
        self.names: dict[bool, set[str]] = {True: set(), False: set()}
        self.by_form: dict[tuple[Callable, bool], dict[str, set[str]]] = {}
        self.exists = True
        try:
            with os.scandir(path) as found:
                for entry in found:
                    with suppress(OSError):  # a link to itself
                        if entry.is_file() or entry.is_dir():
                            self.names[entry.is_file()].add(entry.name)
        except (OSError, ValueError):  # ValueError: a NUL
            self.exists = False

    def same(self, name: str, file: bool) -> str | None:
        """The name itself, or the one that differs from it by Unicode's form alone."""
        return name if name in self.names[file] else self._only(_composed, _composed(name), file)

    def near(self, name: str, file: bool) -> str | None:
        """The same, or the one that differs from it as `Places.near` says."""
        found = self.same(name, file) or self._only(_folded, _folded(name), file)
        if found or not file:
            return found
        forms = ((_stem, _stem(name)), (_stem, _folded(name)), (_folded, _stem(name)))
        return next((found for form, wanted in forms if (found := self._only(form, wanted, file))), None)

    def _only(self, form: Callable[[str], str], wanted: str, file: bool) -> str | None:
        """The name whose form is the one wanted, where there is exactly one."""
        if (form, file) not in self.by_form:
            by_form = self.by_form[form, file] = {}
            for name in self.names[file]:
                by_form.setdefault(form(name), set()).add(name)
        found = self.by_form[form, file].get(wanted, set())
        return next(iter(found)) if len(found) == 1 else None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(name).casefold().strip()


def _stem(name: str) -> str:
    """Without the suffix; a text that lies beside pictures under their names stays what it is."""
    stem, suffix = os.path.splitext(_folded(name))
    return name if suffix in TEXTS else stem
