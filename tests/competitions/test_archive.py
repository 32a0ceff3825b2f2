"""src/competitions/archive.py: unpacked once, wholly or not at all, and never outside the folder."""

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
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
    "",
]


@pytest.mark.parametrize("name", LEAVING)
def test_a_path_that_leaves_the_folder_is_refused_before_anything_is_written(tmp_path, name):
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    zipped(root / "bad.zip", {"good.jpg": b"good", zipfile.ZipInfo(name): b"evil"})
    with pytest.raises(UserError, match="would leave the folder") as error:
        unpack_all(root)
    assert "bad.zip" in str(error.value)
    assert repr(name) in str(error.value)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"bad.zip", ".filling.lock"}


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


# Whose a file is


OLD, NEW, MINE = b"id,label\na,0\n", b"id,label\na,1\n", b"id,label\na,7\n"


def moved(tmp_path: Path) -> Path:
    """The folder copied, as `cp -r` does: all times are new."""
    root = tmp_path / "copy"
    shutil.copytree(tmp_path / "data", root, copy_function=shutil.copyfile)
    return root


@pytest.mark.parametrize("hidden", [True, False], ids=["with the marker", "as cp -r data/* leaves it"])
def test_a_corrected_table_survives_a_copy(tmp_path, hidden):
    (tmp_path / "data").mkdir()
    zipped(tmp_path / "data/train.csv.zip", {"train.csv": OLD, "more.csv": OLD})
    unpack_all(tmp_path / "data")
    (tmp_path / "data/train.csv").write_bytes(MINE)
    root = moved(tmp_path)
    if not hidden:
        for file in root.glob(".*"):
            file.unlink()
    said = unpack_all(root)
    assert visible(root) == {"train.csv": MINE, "more.csv": OLD}
    assert said == [] if hidden else "left train.csv in" in said[1]
    assert unpack_all(root) == []


def test_a_new_edition_replaces_what_the_old_one_wrote_and_nothing_else(tmp_path):
    zipped(tmp_path / "all.zip", dict.fromkeys(("a.csv", "b.csv", "c.csv", "deep/d.csv"), OLD))
    unpack_all(tmp_path)
    (tmp_path / "b.csv").write_bytes(MINE)
    (tmp_path / "e.csv").write_bytes(MINE)
    zipped(tmp_path / "all.zip", dict.fromkeys(("a.csv", "b.csv", "deep/d.csv", "e.csv"), NEW))
    said = unpack_all(tmp_path)
    assert visible(tmp_path) == {"a.csv": NEW, "b.csv": MINE, "c.csv": OLD, "deep/d.csv": NEW, "e.csv": MINE}
    assert len(said) == 2
    assert "left b.csv and 1 more in" in said[1]


@pytest.mark.parametrize("after", range(8))
def test_a_new_edition_that_is_interrupted_anywhere_is_completed(tmp_path, monkeypatch, after):
    zipped(tmp_path / "all.zip", {f"{number}.csv": OLD for number in range(3)})
    unpack_all(tmp_path)
    zipped(tmp_path / "all.zip", {f"{number}.csv": NEW for number in range(3)})
    with interrupted(monkeypatch, os, "replace", after):
        unpack_all(tmp_path)
    assert len(unpack_all(tmp_path)) <= 1  # nothing is taken for the user's
    assert visible(tmp_path) == {f"{number}.csv": NEW for number in range(3)}


def test_an_edition_that_was_never_finished_leaves_nothing(tmp_path, monkeypatch):
    zipped(tmp_path / "all.zip", {"a.csv": OLD, "gone.csv": OLD, "b.csv": OLD})
    with interrupted(monkeypatch, shutil, "copyfileobj", after=2):
        unpack_all(tmp_path)
    (tmp_path / "a.csv").write_bytes(MINE)
    zipped(tmp_path / "all.zip", {"a.csv": NEW, "b.csv": NEW})
    unpack_all(tmp_path)
    assert visible(tmp_path) == {"a.csv": MINE, "b.csv": NEW}


def test_a_marker_of_an_older_version_is_understood(tmp_path):
    path = zipped(tmp_path / "all.zip", {"train.csv": OLD})
    state = path.stat()
    (tmp_path / archive.MARKER).write_text(json.dumps({"all.zip": [state.st_size, int(state.st_mtime)]}))
    assert unpack_all(tmp_path) == []
    os.utime(path, (1, 1))
    (tmp_path / "train.csv").write_bytes(MINE)
    unpack_all(tmp_path)
    assert visible(tmp_path) == {"train.csv": MINE}


def test_an_archive_within_itself_is_left_out(tmp_path):
    path = zipped(tmp_path / "self.zip", {"self.zip": b"not an archive", "other.zip": b"another", "1.jpg": b"1"})
    own = zipped(tmp_path / "other.zip", {"2.jpg": b"2"})
    contents = path.read_bytes(), own.read_bytes()
    unpack_all(tmp_path)
    assert (path.read_bytes(), own.read_bytes()) == contents
    assert visible(tmp_path) == {"1.jpg": b"1", "2.jpg": b"2"}


def test_tables_are_copied_and_the_users_own_kept(tmp_path):
    source, root, said = tmp_path / "input", tmp_path / "data", []
    source.mkdir()
    root.mkdir()
    for name in ("a.csv", "b.csv"):
        (source / name).write_bytes(OLD)
    (root / "b.csv").write_bytes(MINE)
    for _ in range(2):
        archive.copy_tables(source, root, said.append)
    assert visible(root) == {"a.csv": OLD, "b.csv": MINE}
    assert said == [f"{root / 'b.csv'} is used; {source / 'b.csv'} is another"] * 2


def test_two_processes_at_once_unpack_it_once(tmp_path):
    zipped(tmp_path / "all.zip", {f"train/{number}.jpg": os.urandom(5000) for number in range(600)})
    script = "import sys; from pathlib import Path; from src.competitions.archive import unpack_all; "
    script += "unpack_all(Path(sys.argv[1]), Path(sys.argv[1]))"
    command = [sys.executable, "-c", script, str(tmp_path)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    processes = [subprocess.Popen(command, text=True, **streams) for _ in range(4)]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert sum("unpacked 600 files" in words for words in said) == 1
    assert len(visible(tmp_path)) == 600


# What can't be files


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "a/b.jpg"], "a is a file in it, and a folder in it too"),
        (["there/1.jpg"], "there is a folder in it, and a file in"),
        (["deep"], "deep is a file in it, and a folder here"),
        (["x" * 300 + ".jpg"], "can't be unpacked into .*name too long"),
    ],
)
def test_a_name_that_cannot_be_written_is_told_in_one_line(tmp_path, names, said):
    (tmp_path / "there").write_bytes(MINE)
    (tmp_path / "deep").mkdir()
    zipped(tmp_path / "bad.zip", dict.fromkeys(names, b"1"))
    with pytest.raises(UserError, match=rf"bad\.zip: (?i:{said})"):
        unpack_all(tmp_path)
    assert visible(tmp_path) == {"there": MINE}


@pytest.mark.parametrize("name", ["con.jpg", "deep/nul", "a/COM1.txt", "a?.jpg", "b.", "train /1.jpg"])
def test_a_name_that_windows_lacks_is_refused_there(tmp_path, monkeypatch, name):
    path = zipped(tmp_path / "bad.zip", {name: b"1"})
    monkeypatch.setattr(archive, "WINDOWS", True)
    with pytest.raises(UserError, match="can't be a file on Windows"):
        archive.unpack(path, tmp_path)


def test_two_names_that_are_one_on_this_disk_are_refused(tmp_path, monkeypatch):
    path = zipped(tmp_path / "bad.zip", {"Train/1.jpg": b"1", "train/1.jpg": b"2"})
    monkeypatch.setattr(archive, "_ignores_case", lambda _: True)
    with pytest.raises(UserError, match=r"Train/1\.jpg and train/1\.jpg are one file"):
        archive.unpack(path, tmp_path)


def test_backslashes_of_an_archive_from_windows_are_folders(tmp_path):
    for system, name in ((0, "a.zip"), (3, "b.zip")):
        member = zipfile.ZipInfo(rf"train\{system}.jpg")
        member.create_system = system
        zipped(tmp_path / name, {member: b"1"})
    unpack_all(tmp_path)
    assert set(visible(tmp_path)) == {"train/0.jpg", "train\\3.jpg"}


def test_an_archive_may_not_bring_its_own_marker(tmp_path):
    zipped(tmp_path / "a.zip", {f"deep/{archive.MARKER}": b"{}", archive.MARKER: b'{"b.zip": {}}', "1.jpg": b"1"})
    unpack_all(tmp_path)
    assert set(json.loads((tmp_path / archive.MARKER).read_text())) == {"a.zip"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among this system's files")
def test_a_folder_or_a_pipe_called_zip_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    (tmp_path / "folder.zip").mkdir()
    zipped(tmp_path / "a.zip", {"1.jpg": b"1"})
    assert unpack_all(tmp_path) == [f"a.zip: unpacked 1 files into {tmp_path}"]
