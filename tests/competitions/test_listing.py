"""Which files are rows: not hidden ones, no folders of tools, each folder once; and the pattern says what a picture is."""

import os
from pathlib import Path

import pytest

from src.competitions.listing import listed_table, listing, why_no_rows


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


HIDDEN = (".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", "$RECYCLE.BIN")


def test_hidden_folders_and_files_are_neither_classes_nor_images(tmp_path):
    touch(tmp_path, "train/cat/1.jpg", "train/cat/._1.jpg", "train/cat/.ipynb_checkpoints/1.jpg")
    touch(tmp_path, *(f"train/{folder}/2.jpg" for folder in HIDDEN))
    assert listing(tmp_path, "train/{label}/{id}.jpg") == ["train/cat/1.jpg"]
    assert listed_table(tmp_path, "train/{label}/{id}.jpg")["label"].tolist() == ["cat"]
    assert listing(tmp_path / "train", ".git/{id}.jpg") == [".git/2.jpg"], "a hidden folder that the pattern names is meant"


def test_links_count_as_what_they_lead_to_and_pipes_do_not(tmp_path):
    touch(tmp_path, "train/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "train/link.jpg").symlink_to("a.jpg")
    (tmp_path / "train/dangling.jpg").symlink_to("absent.jpg")
    (tmp_path / "train/itself.jpg").symlink_to("itself.jpg")
    (tmp_path / "train/folder").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "train/pipe.jpg")
    assert listing(tmp_path, "train/{id}.jpg") == ["train/a.jpg", "train/folder/b.jpg", "train/link.jpg"]


def test_loops_of_links_end_and_each_folder_is_entered_once(tmp_path):
    touch(tmp_path, *(f"train/{i}/{i}.jpg" for i in range(9)), "top.jpg")
    for i in range(9):
        for other in range(9):
            (tmp_path / f"train/{i}/to{other}").symlink_to(tmp_path / f"train/{other}")
        (tmp_path / f"train/{i}/up").symlink_to(tmp_path)
    assert listing(tmp_path, "train/{id}.jpg") == [f"train/{i}/{i}.jpg" for i in range(9)]


def test_a_pattern_that_names_its_suffix_takes_files_of_it(tmp_path):
    touch(tmp_path, "train/a_1.npy", "train/b_2.npy", "train/notes.txt")
    assert listed_table(tmp_path, "train/{label}_{id}.npy")["id"].tolist() == ["1", "2"]
    assert listed_table(tmp_path, "train/{label}_{id}").empty
    assert listing(tmp_path, "train/{label}_{id}.npy") == ["train/a_1.npy", "train/b_2.npy"]


@pytest.mark.parametrize(
    "files, pattern, said",
    [
        (("train/a.xyz", "train/b.xyz"), "train/{id}", "2 of them have the suffix .xyz"),
        (("train/a.JPG",), "train/{id}.jpg", "suffix .JPG"),
        (("train/a.png",), "train/{id}.jpg", "suffix .png"),
        (("train/a",), "train/{id}", "1 of them have no suffix"),
        (("train/x/y/a.jpg",), "train/{id}.jpg", "the first is train/x/y/a.jpg"),
    ],
)
def test_where_no_file_matches_it_is_said_what_lies_there(tmp_path, files, pattern, said):
    touch(tmp_path, *files)
    assert listed_table(tmp_path, pattern).empty
    assert said in why_no_rows(tmp_path, pattern)


def test_a_folder_can_be_left_out_but_not_the_patterns_own(tmp_path):
    touch(tmp_path, "cat/1.jpg", "test/2.jpg", "test/deep/3.jpg")
    assert listing(tmp_path, "{label}/{id}.jpg", "test") == ["cat/1.jpg"]
    assert listing(tmp_path, "test/{id}.jpg", "test") == ["test/2.jpg", "test/deep/3.jpg"]
