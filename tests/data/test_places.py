"""A path is found however it is spelt, if it is the same path; and a name that is another is only told."""

import os
import unicodedata
from pathlib import Path

import pytest

from src.data.places import Places

COMPOSED, APART = (unicodedata.normalize(form, "train/café.jpg") for form in ("NFC", "NFD"))


def places(root: Path, *names: str) -> Places:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return Places(root)


@pytest.mark.parametrize(
    "there, written",
    [
        ("train/a.jpg", "train/a.jpg"),
        ("train/a.jpg", "./train/a.jpg"),
        ("train/a.jpg", "train//a.jpg"),
        ("train/a.jpg", "train/b/../a.jpg"),
        ("train/a.jpg", "train\\a.jpg"),
        ("train/a.jpg", ".\\train\\a.jpg"),
        ("train\\a.jpg", "train\\a.jpg"),
        ("train/.a", "train/.a"),
        ("train/a", "train/a"),
        ("train/a.npy", "train/a.npy"),
        (COMPOSED, APART),
        (APART, COMPOSED),
        (unicodedata.normalize("NFD", "é/a.jpg"), unicodedata.normalize("NFC", "é/a.jpg")),
    ],
)
def test_a_path_is_found_however_it_is_spelt(tmp_path, there, written):
    assert places(tmp_path, there).find(written) == there


def test_an_absolute_path_is_made_relative_inside_and_kept_outside(tmp_path):
    inside = places(tmp_path / "root", "train/a.jpg", "../b.jpg")
    assert inside.find(str(tmp_path / "root/train/a.jpg")) == "train/a.jpg"
    assert inside.find("../root/train/a.jpg") == "train/a.jpg"
    assert inside.find(str(tmp_path / "b.jpg")) == str(tmp_path / "b.jpg")
    assert inside.find("../b.jpg") == "../b.jpg"
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert Places(tmp_path / "link").find(str(tmp_path / "root/train/a.jpg")) == "train/a.jpg"


@pytest.mark.parametrize(
    "there, written",
    [
        ("train/a.JPG", "train/a.jpg"),
        ("Train/a.jpg", "train/a.jpg"),
        ("train/a.png", "train/a.jpg"),
        ("train/a.jpg", "train/a"),
        ("train/cat.0.jpg", "train/cat.0"),
        ("train/a.jpg", "train/a.jpg.jpg"),
        ("train/a.jpg", "train/a.jpg "),
        ("train/a.jpg", "/kaggle/input/x/train/a.jpg"),
    ],
)
def test_another_name_is_not_taken_but_told(tmp_path, there, written):
    found = places(tmp_path, there)
    assert found.find(written) is None
    assert found.near(written) == there
    assert there in found.why(written)


@pytest.mark.parametrize(
    "written", ["train/b.jpg", "train/a\0.jpg", "train/" + "x" * 5000, "", "train", "train/c.jpg", "../.."]
)
def test_what_is_not_there_is_neither_found_nor_guessed(tmp_path, written):
    found = places(tmp_path, "train/a.jpg", "train/c.txt")
    assert found.find(written) is None
    assert found.near(written) is None


def test_a_link_counts_as_what_it_leads_to_and_a_pipe_is_no_picture(tmp_path):
    found = places(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "c.jpg").symlink_to("absent.jpg")
    (tmp_path / "d.jpg").symlink_to("d.jpg")
    os.mkfifo(tmp_path / "e.jpg")
    (tmp_path / "f.jpg").mkdir()
    assert [found.find(f"{name}.jpg") for name in "abcdef"] == ["a.jpg", "b.jpg", None, None, None, None]
    assert "a link to nothing" in found.why("c.jpg")
    assert "a folder" in found.why("f.jpg")
