"""Files are whole or not there, and a folder has one writer."""

import multiprocessing
from pathlib import Path

import pytest

from src.errors import UserError
from src.files import check_name, clean_name, locked, replacing, sha256


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(file) as partial:
        partial.write_text(f"half {1 / 0}")
    assert file.read_text() == "before"
    with replacing(file) as partial:
        partial.write_text("after")
        assert file.read_text() == "before"
    assert file.read_text() == "after"
    assert list(tmp_path.iterdir()) == [file]


def _hold(folder: Path, held, done) -> None:
    with locked(folder):
        held.set()
        done.wait(60)


def test_a_folder_has_one_writer_and_is_free_again_when_that_is_killed(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "fold-0", held, done))
    other.start()
    assert held.wait(60)
    with pytest.raises(UserError, match=rf"fold-0: another process \(process {other.pid} on .*\) is writing here"):
        locked(tmp_path / "fold-0").__enter__()
    other.kill()
    other.join()
    with locked(tmp_path / "fold-0"):
        assert list((tmp_path / "fold-0").iterdir()) == []


def test_a_files_digest_is_that_of_its_bytes(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/tmp/x", "a/x", "a\\x", "C:x", ".a", "a.", "a ", "-a", "con", "NUL.txt", "a\nb", "a?", "x" * 300],
)
def test_a_name_is_one_part_of_a_path_on_every_system(name: str):
    with pytest.raises(UserError, match=r"^--name '"):
        check_name(name, "--name")
    assert check_name(clean_name(name), "--name") == clean_name(name)


@pytest.mark.parametrize("name", ["resnet50-384", "a b", "größe", "a.b", "1"])
def test_a_plain_name_stays(name: str):
    assert check_name(name, "--name") == clean_name(name) == name
