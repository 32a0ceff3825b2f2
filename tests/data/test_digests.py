"""src/data/digests.py: a file's digest is that of its bytes now, and is taken again only where something may have changed."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from src.data import digests as module
from src.data.digests import KEPT, digest, digests

NAMES = ["a.bmp", "b.bmp", "deep/c d.bmp", "d\udcff.bmp"]  # the last: a name that is not UTF-8


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "TICK", -(10**12))  # the files here were written a moment ago
    (tmp_path / "deep").mkdir()
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(bytes([number]) * 1000)
    return tmp_path


def taken(root: Path, paths: list[str] = NAMES) -> list[bytes]:
    return digests(root, paths, root, workers=1).tolist()


def test_they_are_those_of_the_bytes_and_absent_files_have_none(root: Path):
    assert taken(root, [*NAMES, "absent", "nul\0"]) == [*(digest(root / name) for name in NAMES), b"", b""]
    assert len(set(taken(root))) == len(NAMES)
    assert taken(root, []) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among this system's files")
def test_a_pipe_and_a_device_have_none_and_are_never_waited_for(root: Path):
    os.mkfifo(root / "pipe")
    (root / "zero").symlink_to("/dev/zero")
    assert taken(root, ["pipe", "zero"]) == [b"", b""]


def test_what_is_known_is_not_read_again_in_any_order_or_part(root: Path, monkeypatch: pytest.MonkeyPatch):
    whole = taken(root)
    taken(root, NAMES[:1])
    monkeypatch.setattr(module, "digest", lambda path: pytest.fail(f"{path} was read"))
    assert taken(root, NAMES[::-1]) == whole[::-1]
    assert taken(root, NAMES[2:3]) == whole[2:3]


def test_other_bytes_of_the_same_size_and_time_are_noticed(root: Path):
    before = taken(root)
    state = (root / "b.bmp").stat()
    (root / "b.bmp").write_bytes(b"x" * 1000)
    os.utime(root / "b.bmp", ns=(state.st_atime_ns, state.st_mtime_ns))
    after = taken(root)
    assert after[1] != before[1]
    assert after[:1] + after[2:] == before[:1] + before[2:]


def test_a_file_changed_a_moment_ago_is_read_again(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TICK", 10**12)
    taken(root)
    read = []
    monkeypatch.setattr(module, "digest", lambda path: read.append(path.name) or b"")
    taken(root)
    assert len(read) == len(NAMES)


@pytest.mark.parametrize("content", [b"", b"no archive", "cut"])
def test_a_damaged_file_of_digests_is_made_again(content: bytes | str, root: Path):
    before = taken(root)
    kept = root / KEPT
    kept.write_bytes(kept.read_bytes()[:200] if content == "cut" else content)
    assert taken(root) == before
    with np.load(kept) as stored:
        assert len(stored["records"]) == len(NAMES)


def test_a_folder_that_cannot_be_written_to_costs_only_time(root: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(set(taken(root))) == len(NAMES)
    assert not list(root.glob(f"*{KEPT}*")), "nothing is left half-written"
