"""src/data/own.py: what someone else wrote, or changed, is never replaced."""

from pathlib import Path

import pytest

from src.data import own


def written(path: Path, elsewhere: Path, content: str) -> Path:
    return own.write(path, elsewhere, lambda place: place.write_text(content))


def test_our_own_file_is_replaced_until_someone_changes_it(tmp_path: Path):
    path, elsewhere = tmp_path / "data/a.csv", tmp_path / "runs"
    for content in ("1", "2"):
        assert written(path, elsewhere, content) == path
        assert path.read_text() == content
        assert own.is_ours(path)
    path.write_text("mine")
    assert written(path, elsewhere, "3") == elsewhere / "a.csv"
    assert (path.read_text(), (elsewhere / "a.csv").read_text()) == ("mine", "3")
    path.unlink()
    assert written(path, elsewhere, "4") == path


@pytest.mark.parametrize("kind", ["folder", "link to nothing", "copy with the mark of another"])
def test_whatever_lies_there_stays(tmp_path: Path, kind: str):
    path, elsewhere = tmp_path / "a.csv", tmp_path / "runs"
    if kind == "folder":
        path.mkdir()
    elif kind == "link to nothing":
        path.symlink_to("gone")
    else:
        path.write_text("mine")
        (tmp_path / ".a.csv.ours").write_text("f" * 32)
    assert written(path, elsewhere, "ours") == elsewhere / "a.csv"
    assert (elsewhere / "a.csv").read_text() == "ours"
    assert path.is_dir() or path.is_symlink() or path.read_text() == "mine"


def test_an_unmarked_file_with_the_same_content_becomes_ours(tmp_path: Path):
    (tmp_path / "a.csv").write_text("same")
    assert written(tmp_path / "a.csv", tmp_path / "runs", "same") == tmp_path / "a.csv"
    assert own.is_ours(tmp_path / "a.csv")
    assert not (tmp_path / "runs/a.csv").exists()
