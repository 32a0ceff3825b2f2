"""The facts of many files: looked up in the cache, or else measured by several processes, with progress on a terminal."""

import io
import json
import os
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import imagehash
import numpy as np
from tqdm import tqdm

from src.cores import cores
from src.data.facts import FACTS, examine
from src.data.image import DECODER
from src.data.spread import parts, spread

MISSING = "missing"
# A cache made with another decoder, hash or layout is made anew. Raise the number when facts.py measures anything else.
VERSION = f"3 decoder {DECODER} imagehash {imagehash.__version__} {FACTS.itemsize}"


def take(
    root: Path, paths: list[str], cache: Path | None, workers: int | None, said: Callable[[str], None]
) -> tuple[np.ndarray, int]:
    """((n,) FACTS of the files in their order, how many had to be measured). A file that isn't there is `missing`.

    cache: one file, keyed by path, size and modification time; none: everything is measured. workers: processes; none: one
    a core. Raises UserError where a process dies. What was measured until then, or until Ctrl-C, is kept in the cache.
    """
    facts = _states(root, paths)
    present = facts["verdict"] != MISSING.encode()
    known = _from_cache(cache, paths, facts, said) if cache else np.zeros(len(paths), bool)
    todo = np.flatnonzero(present & ~known)
    try:
        _measure(root, paths, facts, todo, workers)
    finally:
        if cache and len(todo):
            _write(cache, paths, facts, said)
    return facts, len(todo)


def _states(root: Path, paths: list[str]) -> np.ndarray:
    """FACTS with nothing but size and time, or `missing` and why. One listing a folder, not a question a file."""
    facts = np.zeros(len(paths), FACTS)
    places = defaultdict(list)
    for place, path in enumerate(paths):
        places[path.rpartition("/")[0]].append(place)
    for parent, inside in places.items():  # one by one: the listings of 100,000 files together would take 70 MB
        folder = _Folder(root / parent)
        for place in inside:
            state = folder.state(paths[place].rpartition("/")[2])
            if isinstance(state, str):
                facts["verdict"][place], facts["detail"][place] = MISSING, state.encode()[: FACTS["detail"].itemsize]
            else:
                facts["size"][place], facts["mtime"][place] = state.st_size, state.st_mtime_ns
    return facts


class _Folder:
    """What lies in a folder, listed once."""

    def __init__(self, path: Path) -> None:
        self.entries: dict[str, os.DirEntry] = {}
        self.alike: dict[str, str] | None = None  # names without regard to case, once a name is missing
        self.why = "not there"
        try:
            with os.scandir(path) as found:
                self.entries = {entry.name: entry for entry in found}
        except OSError as error:
            self.why = "its folder is not there" if isinstance(error, FileNotFoundError) else f"its folder: {error.strerror}"

    def state(self, name: str) -> os.stat_result | str:
        """The state of a file, links followed; or in words why there is none."""
        entry = self.entries.get(name)
        if entry is None:
            if self.alike is None:
                self.alike = {other.casefold(): other for other in self.entries}
            other = self.alike.get(name.casefold())
            return f"{self.why}, but {other} is" if other else self.why
        try:
            if entry.is_file():
                return entry.stat()
        except OSError as error:  # vanished since the listing
            return error.strerror
        return "a folder, not a file" if entry.is_dir() else "a link to nothing" if entry.is_symlink() else "not a file"


def _measure(root: Path, paths: list[str], facts: np.ndarray, todo: np.ndarray, workers: int | None) -> None:
    """Fill in facts[todo]. Few files are measured right here: starting processes takes longer."""
    chunks = [todo[part] for part in parts(len(todo))]
    workers = workers if workers is not None else _cores()
    arguments = [(root, [paths[i] for i in chunk], facts["size"][chunk], facts["mtime"][chunk]) for chunk in chunks]
    with tqdm(total=len(todo), desc="audit", unit=" images", disable=None) as bar:  # None: only on a terminal
        for number, measured in spread(examine, arguments, workers, "audit"):
            facts[chunks[number]] = measured
            bar.update(len(measured))


def _cores() -> int:
    return min(16, len(cores()))  # beyond that a disk is slower than the decoders


def _from_cache(cache: Path, paths: list[str], facts: np.ndarray, said: Callable[[str], None]) -> np.ndarray:
    """Fill in what the cache knows of files with an unchanged size and time; (n,) bool of those. Tells of a damaged cache."""
    known = np.zeros(len(paths), bool)
    if not cache.exists():
        return known
    try:
        stored_paths, stored = _read(cache)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        said(f"{cache}: can't be read ({str(error).splitlines()[0] if str(error) else type(error).__name__}); made anew")
        return known
    place = {path: i for i, path in enumerate(stored_paths)}
    places = np.array([place.get(path, -1) for path in paths], np.int64)
    asked = np.flatnonzero(places >= 0)
    candidates = stored[places[asked]]
    same = (candidates["size"] == facts["size"][asked]) & (candidates["mtime"] == facts["mtime"][asked])
    same &= facts["verdict"][asked] != MISSING.encode()
    facts[asked[same]] = candidates[same]
    known[asked[same]] = True
    return known


def _read(cache: Path) -> tuple[list[str], np.ndarray]:
    """Paths and FACTS as stored; empty where another version wrote them. Raises ValueError and its like for a damaged file."""
    with np.load(cache, allow_pickle=False) as stored:
        if str(stored["version"]) != VERSION:
            return [], np.zeros(0, FACTS)
        paths, facts = json.loads(stored["paths"].tobytes()), stored["facts"]
    if facts.dtype != FACTS or len(paths) != len(facts):
        raise ValueError(f"{len(paths)} paths, {len(facts)} records")
    return paths, facts


def _write(cache: Path, paths: list[str], facts: np.ndarray, said: Callable[[str], None]) -> None:
    """Everything measured so far, to a temporary name and then renamed. A folder that can't be written to costs only time."""
    done = np.flatnonzero((facts["verdict"] != b"") & (facts["verdict"] != MISSING.encode()) & (facts["size"] >= 0))
    buffer = io.BytesIO()
    names = np.frombuffer(json.dumps([paths[i] for i in done]).encode(), np.uint8)
    np.savez_compressed(buffer, version=np.array(VERSION), paths=names, facts=facts[done])
    partial = cache.with_name(f".{cache.name}.{os.getpid()}.partial")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(buffer.getbuffer())
        os.replace(partial, cache)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        said(f"{cache}: not written ({error.strerror}); the next audit reads every image again")
