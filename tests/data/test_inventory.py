"""Measuring many files: what the cache knows isn't read again, what changed is, and a damaged cache costs only time."""

import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from pictures import encode, picture, write
from src.data import inventory, spread
from src.data.facts import FACTS
from src.errors import UserError

PATHS = [f"train/{i}.jpg" for i in range(6)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "data", {path: encode(picture(i)) for i, path in enumerate(PATHS)})
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "caches/audit.npz"


def take(root: Path, cache: Path | None, paths: list[str] = PATHS, workers: int = 1) -> tuple[np.ndarray, int, list[str]]:
    said: list[str] = []
    facts, measured = inventory.take(root, paths, cache, workers, said.append)
    return facts, measured, said


def test_the_second_pass_reads_nothing_and_gives_the_same(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    first, measured, said = take(root, cache)
    assert (measured, said) == (6, [])
    monkeypatch.setattr(inventory, "examine", lambda *_: pytest.fail("read again"))
    before = cache.stat().st_mtime_ns
    second, measured, said = take(root, cache)
    assert (measured, said) == (0, [])
    assert second.tobytes() == first.tobytes()
    assert cache.stat().st_mtime_ns == before  # nothing new, nothing written
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_without_a_cache_everything_is_read_and_nothing_written(root: Path, tmp_path: Path):
    assert [take(root, None)[1] for _ in range(2)] == [6, 6]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("how", ["content", "time", "size"])
def test_a_changed_file_is_read_again(root: Path, cache: Path, how: str):
    first, _, _ = take(root, cache)
    file = root / PATHS[2]
    state = file.stat()
    if how == "content":
        file.write_bytes(encode(picture(77)))
    elif how == "time":
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    else:
        file.write_bytes(file.read_bytes() + b"x")
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    second, measured, _ = take(root, cache)
    assert measured == 1
    assert (second["digest"][2] == first["digest"][2]).all() == (how == "time")
    assert take(root, cache)[1] == 0


def test_new_and_gone_files_and_another_order(root: Path, cache: Path):
    first, _, _ = take(root, cache)
    write(root, {"train/new.jpg": encode(picture(50))})
    (root / PATHS[0]).unlink()
    facts, measured, _ = take(root, cache, ["train/new.jpg", *PATHS[::-1]])
    assert measured == 1
    assert facts["verdict"].tolist() == [b"ok"] * 6 + [b"missing"]
    np.testing.assert_array_equal(facts["hash"][1:6], first["hash"][:0:-1])
    (root / PATHS[0]).write_bytes(encode(picture(0)))
    assert take(root, cache)[1] == 1


BROKEN = {
    "empty": lambda _: b"",
    "text": lambda _: b"no archive at all",
    "header": lambda _: b"PK\x03\x04",
    "cut": lambda data: data[: len(data) // 2],
    "overwritten": lambda data: data[:200] + bytes(300) + data[500:],
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_damaged_cache_is_told_and_made_anew(root: Path, cache: Path, broken):
    first, _, _ = take(root, cache)
    cache.write_bytes(broken(cache.read_bytes()))
    second, measured, said = take(root, cache)
    assert measured == 6
    assert len(said) == 1
    assert str(cache) in said[0]
    assert "made anew" in said[0]
    assert "\n" not in said[0]
    assert second.tobytes() == first.tobytes()
    assert take(root, cache)[1:] == (0, [])


def test_a_cache_of_other_records_or_another_decoder_is_made_anew(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    take(root, cache)
    monkeypatch.setattr(inventory, "VERSION", inventory.VERSION + " newer")
    assert take(root, cache)[1:] == (6, [])
    cache.unlink()
    np.savez(cache, version=np.array(inventory.VERSION), paths=np.frombuffer(b'["a"]', np.uint8), facts=np.zeros(3, FACTS))
    assert "1 paths, 3 records" in take(root, cache)[2][0]


def test_a_cache_that_cannot_be_written_is_told_and_costs_only_time(root: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    _, measured, said = take(root, tmp_path / "file/audit.npz")
    assert measured == 6
    assert len(said) == 1
    assert "not written" in said[0]


def test_paths_of_any_spelling_are_kept_apart(tmp_path: Path, cache: Path):
    paths = ["a b.jpg", "é/ü.jpg", "e\u0301/ü.jpg", 'quote".jpg', "-rf.jpg", "a%20b.jpg"]
    write(tmp_path / "data", {path: encode(picture(i)) for i, path in enumerate(paths)})
    first, measured, _ = take(tmp_path / "data", cache, paths)
    assert measured == 6
    second, measured, _ = take(tmp_path / "data", cache, paths)
    assert measured == 0
    assert second.tobytes() == first.tobytes()
    assert len(set(first["hash"].tolist())) == 6


def test_processes_give_the_same_as_one(root: Path):
    write(root, {f"more/{i}.png": encode(picture(i, 40, 40), "PNG") for i in range(spread.CHUNK * 2 + 5)})
    paths = PATHS + [f"more/{i}.png" for i in range(spread.CHUNK * 2 + 5)]
    assert take(root, None, paths, workers=3)[0].tobytes() == take(root, None, paths, workers=1)[0].tobytes()


def test_an_interrupted_pass_keeps_what_it_measured(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spread, "CHUNK", 2)
    examine = inventory.examine

    def interrupted(*task):
        if PATHS[4] in task[1]:
            raise KeyboardInterrupt
        return examine(*task)

    monkeypatch.setattr(inventory, "examine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        take(root, cache)
    monkeypatch.setattr(inventory, "examine", examine)
    facts, measured, _ = take(root, cache)
    assert measured == 2
    assert (facts["verdict"] == b"ok").all()


def test_a_process_that_dies_ends_the_audit_with_one_line(root: Path, monkeypatch: pytest.MonkeyPatch):
    class Pool:
        def __init__(self, *_, **__): ...
        def submit(self, *_):
            raise BrokenProcessPool("a child was terminated abruptly")

        def shutdown(self, **_): ...

    monkeypatch.setattr(spread, "CHUNK", 1)
    monkeypatch.setattr(spread, "ProcessPoolExecutor", Pool)
    with pytest.raises(UserError, match="a process died") as caught:
        take(root, None, workers=2)
    assert "\n" not in str(caught.value)
