"""src/competitions/archive.py: unpacked once, wholly or not at all, and never outside the folder."""

import contextlib
import os
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.competitions import archive
from src.errors import UserError

FILES = {f"train/{label}/{i}.jpg": f"{label}{i}".encode() * 300 for label in ("cat", "dog") for i in range(3)}
FILES["train.csv"] = b"id,label\n"


def zipped(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as zip:
        for name, content in files.items():
            zip.writestr(name, content)
    return path


def visible(root: Path) -> dict[str, bytes]:
    """All files that someone who reads the folder would take for data."""
    return {
        name: path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not (name := path.relative_to(root).as_posix()).startswith(".") and path.suffix != ".zip"
    }


def unpack_all(root: Path) -> list[str]:
    said: list[str] = []
    archive.unpack_all(root, root, said.append)
    return said


@contextlib.contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, after: int) -> Iterator[None]:
    """The function works `after` times; then the user presses Ctrl-C."""
    function: Callable = getattr(owner, name)
    calls = iter(range(after))

    def once_too_often(*args, **kwargs):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, once_too_often)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_an_archives_files_land_in_the_folder(tmp_path):
    zipped(tmp_path / "all.zip", FILES)
    assert unpack_all(tmp_path) == [f"all.zip: unpacked 7 files into {tmp_path}"]
    assert visible(tmp_path) == FILES


def test_archives_that_come_out_of_archives_are_unpacked_too(tmp_path):
    inner = zipped(tmp_path / "inner", FILES).read_bytes()
    (tmp_path / "inner").unlink()
    zipped(tmp_path / "outer.zip", {"train.zip": inner, "sample_submission.csv": b"id\n"})
    assert len(unpack_all(tmp_path)) == 2
    assert visible(tmp_path) == FILES | {"sample_submission.csv": b"id\n"}
    assert unpack_all(tmp_path) == []


def test_what_macos_and_windows_leave_in_archives_is_not_data(tmp_path):
    zipped(tmp_path / "a.zip", {"__MACOSX/train/._1.jpg": b"x", "train/.DS_Store": b"x", "train/1.jpg": b"1"})
    unpack_all(tmp_path)
    assert visible(tmp_path) == {"train/1.jpg": b"1"}


def test_an_archive_is_unpacked_only_once(tmp_path):
    zipped(tmp_path / "all.zip", FILES)
    unpack_all(tmp_path)
    (tmp_path / "train/cat/0.jpg").unlink()  # the user's own doing
    assert unpack_all(tmp_path) == []
    assert not (tmp_path / "train/cat/0.jpg").exists()


def test_an_archive_that_was_downloaded_anew_is_unpacked_again(tmp_path):
    zipped(tmp_path / "all.zip", FILES)
    unpack_all(tmp_path)
    more = FILES | {"train/cat/99.jpg": b"new"}
    zipped(tmp_path / "all.zip", more)
    unpack_all(tmp_path)
    assert visible(tmp_path) == more


def test_another_edition_of_a_file_replaces_one_of_the_same_size(tmp_path):
    zipped(tmp_path / "all.zip", {"train.csv": b"id,label\na,0\n"})
    unpack_all(tmp_path)
    corrected = zipped(tmp_path / "all.zip", {"train.csv": b"id,label\na,1\n"})
    os.utime(corrected, (1, 1))
    unpack_all(tmp_path)
    assert visible(tmp_path) == {"train.csv": b"id,label\na,1\n"}


def test_a_second_archive_is_unpacked_beside_the_first(tmp_path):
    zipped(tmp_path / "train.zip", {"images/1.jpg": b"1"})
    unpack_all(tmp_path)
    zipped(tmp_path / "test.zip", {"images/2.jpg": b"2", "images/deeper/3.jpg": b"3"})
    assert unpack_all(tmp_path) == [f"test.zip: unpacked 2 files into {tmp_path}"]
    assert visible(tmp_path) == {"images/1.jpg": b"1", "images/2.jpg": b"2", "images/deeper/3.jpg": b"3"}


def test_a_damaged_marker_only_costs_another_unpacking(tmp_path):
    zipped(tmp_path / "all.zip", FILES)
    unpack_all(tmp_path)
    (tmp_path / archive.MARKER).write_text('{"all.zip": [1')
    (tmp_path / "train.csv").unlink()
    unpack_all(tmp_path)
    assert visible(tmp_path) == FILES


def test_archives_of_another_folder_are_unpacked_here_and_left_there(tmp_path):
    source, root = tmp_path / "source", tmp_path / "root"
    source.mkdir()
    root.mkdir()
    zipped(source / "all.zip", FILES)
    archive.unpack_all(source, root, lambda _: None)
    assert visible(root) == FILES
    assert [path.name for path in source.iterdir()] == ["all.zip"]


def test_two_folders_with_archives_of_one_name_come_to_an_end(tmp_path):
    source, root = tmp_path / "source", tmp_path / "root"
    for folder, content in ((source, b"theirs"), (root, b"mine")):
        folder.mkdir()
        zipped(folder / "all.zip", {"1.jpg": content})
    said: list[str] = []
    for _ in range(2):
        archive.unpack_all(source, root, said.append)
    assert len(said) == 1
    assert visible(root) == {"1.jpg": b"theirs"}


# Paths that leave the folder


LEAVING = [
    "../evil",
    "train/../../evil",
    "/evil",
    "//evil",
    "..",
    ".",
    "..\\evil",
    "a\\..\\..\\evil",
    "\\evil",
    "C:\\evil",
    "C:evil",
]


@pytest.mark.parametrize("name", LEAVING)
def test_a_path_that_leaves_the_folder_is_refused_before_anything_is_written(tmp_path, name):
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    zipped(root / "bad.zip", {"good.jpg": b"good", name: b"evil"})
    with pytest.raises(UserError, match="would leave the folder") as error:
        unpack_all(root)
    assert "bad.zip" in str(error.value)
    assert repr(name) in str(error.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [root / "bad.zip"]


def test_a_symbolic_link_in_an_archive_is_refused(tmp_path):
    link = zipfile.ZipInfo("train/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    zipped(tmp_path / "bad.zip", {link: b"/etc"})
    with pytest.raises(UserError, match="'train/link' would leave the folder"):
        unpack_all(tmp_path)
    assert not (tmp_path / "train").exists()


@given(
    name=st.lists(st.sampled_from(["..", ".", "a", "b", "", "C:", "..\\..", "\\", "a\\b"]), min_size=1, max_size=4)
    .map("/".join)
    .filter(bool)
)
def test_no_name_whatever_writes_outside_the_folder(tmp_path_factory, name):
    outer = tmp_path_factory.mktemp("outer")
    root = outer / "deep" / "root"
    root.mkdir(parents=True)
    zipped(root / "bad.zip", {name: b"evil"})
    with contextlib.suppress(UserError):
        unpack_all(root)
    outside = [path for path in outer.rglob("*") if path.is_file() and not path.is_relative_to(root)]
    assert outside == []


# Interruptions and damage


def test_an_interrupted_unpacking_shows_nothing_and_is_resumed(tmp_path, monkeypatch):
    zipped(tmp_path / "all.zip", FILES)
    with interrupted(monkeypatch, shutil, "copyfileobj", after=4):
        unpack_all(tmp_path)
    assert visible(tmp_path) == {}, "a folder that is half unpacked looks like a small one"

    written = []
    copy = shutil.copyfileobj
    monkeypatch.setattr(shutil, "copyfileobj", lambda *args: (written.append(args), copy(*args)))
    unpack_all(tmp_path)
    assert len(written) == len(FILES) - 4, "complete files are not unpacked again"
    assert visible(tmp_path) == FILES
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize("after", range(15))
def test_wherever_a_renaming_is_interrupted_a_second_call_completes_it(tmp_path, monkeypatch, after):
    zipped(tmp_path / "all.zip", FILES | {"train/cat/3.jpg": b"3"})
    (tmp_path / "train/cat").mkdir(parents=True)  # there already: files are moved in one by one
    with interrupted(monkeypatch, os, "replace", after):
        unpack_all(tmp_path)
    unpack_all(tmp_path)
    assert visible(tmp_path) == FILES | {"train/cat/3.jpg": b"3"}
    assert not list(tmp_path.glob(".*.partial"))


def test_a_file_that_was_half_written_is_written_anew(tmp_path):
    zipped(tmp_path / "all.zip", FILES)
    staging = tmp_path / ".all.zip.partial" / "train" / "cat"
    staging.mkdir(parents=True)
    (staging / "0.jpg.partial").write_bytes(b"ca")
    (staging / "1.jpg").write_bytes(b"short")  # a full disk
    (staging / "2.jpg").write_bytes(bytes(len(FILES["train/cat/2.jpg"])))  # a crash that lost the content
    unpack_all(tmp_path)
    assert visible(tmp_path) == FILES


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_archive_is_named_and_leaves_nothing_then_the_whole_one_works(tmp_path, kept):
    path = zipped(tmp_path / "all.zip", FILES)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    with pytest.raises(UserError, match=r"all\.zip: not a complete zip archive .*download it again"):
        unpack_all(tmp_path)
    assert visible(tmp_path) == {}
    path.write_bytes(whole)
    unpack_all(tmp_path)
    assert visible(tmp_path) == FILES


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_with_flipped_bits_is_refused(tmp_path, compression):
    content = os.urandom(500) + b"abc" * 500
    path = zipped(tmp_path / "all.zip", {"1.jpg": content}, compression)
    damaged = bytearray(path.read_bytes())
    for i in range(200, 260):
        damaged[i] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="not a complete zip archive"):
        unpack_all(tmp_path)
    assert visible(tmp_path) == {}


def test_an_archive_that_needs_a_password_is_refused(tmp_path):
    path = zipped(tmp_path / "all.zip", {"1.jpg": b"1"})
    content = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="password"):
        unpack_all(tmp_path)


def test_a_disk_too_small_is_told_before_anything_is_written(tmp_path, monkeypatch):
    zipped(tmp_path / "all.zip", FILES)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match="GiB free"):
        unpack_all(tmp_path)
    assert visible(tmp_path) == {}
