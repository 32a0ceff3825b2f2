"""Which bytes a file holds, by digest: size and time are no identity, since pictures are replaced and folders are copied.

Digests are kept beside the data. A file is read again when its size, its time or its inode's time of change is another:
the last of these can't be set back, whatever copied or replaced the file.
"""

import hashlib
import os
import stat
import time
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from src.data.spread import parts, spread
from src.files import replacing

KEPT = ".digests.npz"
DIGEST = "S32"  # BLAKE2b, 128 bits, as hex digits
STATE = ["size", "mtime", "ctime"]  # bytes, ns since 1970
RECORD = np.dtype([*((name, np.int64) for name in STATE), ("digest", DIGEST)])
TICK = 50_000_000  # ns: a file changed this shortly ago may change again without its times moving (Linux: up to 10 ms)


def digests(root: Path, paths: Sequence[str], folder: Path, workers: int) -> np.ndarray:
    """(n,) S32: the hex digest of each file below `root`; b"" for one that can't be read.

    folder: where digests are kept (nothing is lost where it is read-only, but time). workers: processes that read.
    """
    now, records = time.time_ns(), _states(root, paths)
    names, kept = _read(folder / KEPT)
    place = {name: number for number, name in enumerate(names)}
    places = np.array([place.get(path, -1) for path in paths], np.int64)
    known = places >= 0
    known[known] = kept[STATE][places[known]] == records[STATE][known]
    records["digest"][known] = kept["digest"][places[known]]
    todo = np.flatnonzero(~known & (records["size"] >= 0))
    chunks = [todo[part] for part in parts(len(todo))]
    tasks = [(root, [paths[number] for number in chunk]) for chunk in chunks]
    for number, found in spread(_digests, tasks, workers, "digests"):
        records["digest"][chunks[number]] = found
    if len(todo):
        settled = np.flatnonzero((records["digest"] != b"") & (records["ctime"] < now - TICK))
        asked = set(paths)
        others = [number for number, name in enumerate(names) if name not in asked]
        kept_names = [names[number] for number in others] + [paths[number] for number in settled]
        with suppress(OSError):
            _write(folder / KEPT, kept_names, np.concatenate([kept[others], records[settled]]))
    return records["digest"].copy()


def digest(path: Path) -> bytes:
    """The hex digest of one file, as in `digests`."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest().encode()


def _digests(root: Path, paths: list[str]) -> np.ndarray:
    found = np.zeros(len(paths), DIGEST)
    for number, path in enumerate(paths):
        with suppress(OSError):
            found[number] = digest(root / path)
    return found


def _states(root: Path, paths: Sequence[str]) -> np.ndarray:
    """RECORDs without a digest; a size of -1 where there is no such file."""
    records = np.zeros(len(paths), RECORD)
    for number, path in enumerate(paths):
        try:
            state = os.stat(root / path)
            size = state.st_size if stat.S_ISREG(state.st_mode) else -1  # to open a pipe waits for ever
            records[number] = size, state.st_mtime_ns, state.st_ctime_ns, b""
        except (OSError, ValueError):  # ValueError: a NUL in the path
            records["size"][number] = -1
    return records


def _read(file: Path) -> tuple[list[str], np.ndarray]:
    """Paths and RECORDs as kept; none where the file is absent or damaged, which costs only time."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            names, records = os.fsdecode(stored["paths"].tobytes()).split("\0"), stored["records"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return [], np.zeros(0, RECORD)
    return (names, records) if records.dtype == RECORD and len(names) == len(records) else ([], np.zeros(0, RECORD))


def _write(file: Path, names: list[str], records: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial, open(partial, "wb") as stream:
        np.savez(stream, paths=np.frombuffer(os.fsencode("\0".join(names)), np.uint8), records=records)
