"""src/competitions/digits.py: real scans, written once in a competition's layout."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from src.competitions import digits, tables
from src.config import built_in
from src.errors import UserError

DIGITS = built_in("digits")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digits"
    digits.write(folder)
    return folder


def test_the_tables_have_the_sizes_that_the_competition_states(root):
    train, test = tables.train_table(DIGITS, root), tables.test_table(DIGITS, root)
    assert (len(train), len(test)) == (DIGITS.expected_train, DIGITS.expected_test) == (1437, 360)
    assert not set(train["id"]) & set(test["id"])
    assert len(set(train["id"]) | set(test["id"])) == 1797


def test_every_row_has_its_scan_with_its_own_label(root):
    scans = load_digits()
    train, test = tables.train_table(DIGITS, root), tables.test_table(DIGITS, root)
    solution = tables.read_csv(root / "solution.csv", ["id", "label"]).set_index("id")["label"]
    labels = pd.concat([train.set_index("id")["label"], solution])
    for row in pd.concat([train, test]).itertuples():
        image = cv2.imread(str(root / row.path), cv2.IMREAD_GRAYSCALE)
        assert image.shape == (8, 8)
        assert np.array_equal(image, np.round(scans.images[int(row.id)] * 255 / 16)), "0 is black, 16 is white"
        assert labels[row.id] == str(scans.target[int(row.id)])


def test_every_class_stands_in_train_and_test_in_proportion(root):
    train = tables.train_table(DIGITS, root)["label"].value_counts()
    solution = tables.read_csv(root / "solution.csv", ["label"])["label"].value_counts()
    assert set(train.index) == set(solution.index) == set(DIGITS.classes)
    assert solution.max() - solution.min() <= 2
    assert train.max() - train.min() <= 8


def test_test_sample_and_solution_name_the_same_rows_in_one_order(root):
    ids = [
        tables.read_csv(root / name, ["id"])["id"].tolist() for name in ("test.csv", "sample_submission.csv", "solution.csv")
    ]
    assert ids[0] == ids[1] == ids[2]
    assert tables.read_csv(root / "test.csv", ["id"]).columns.tolist() == ["id"], "the labels would give the answer away"


def test_nothing_is_left_beside_the_folder(root):
    assert [path.name for path in root.parent.iterdir()] == ["digits"]


def test_another_process_that_was_faster_is_not_overwritten(tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits/train.csv").write_text("theirs")
    digits.write(tmp_path / "digits")
    assert (tmp_path / "digits/train.csv").read_text() == "theirs"
    assert [path.name for path in tmp_path.rglob("*")] == ["digits", "train.csv"]


def files(folder):
    """All but what is hidden."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.mark.parametrize("already", [["train"], ["solution.csv", "test", "test.csv"]])
def test_a_folder_left_without_its_table_is_completed(root, tmp_path, already):
    for name in already:
        place = tmp_path / "digits" / name
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, ensured(place))
    (tmp_path / "digits/.digits.partial/test").mkdir(parents=True)  # of a process that was killed
    digits.write(tmp_path / "digits")
    assert files(tmp_path / "digits") == files(root)
    assert not (tmp_path / "digits/.digits.partial").exists()


def ensured(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("name", ["train/mine.png", "train/0000.png", "solution.csv", "test"])
def test_what_lies_in_its_place_is_the_users_and_nothing_is_written(tmp_path, name):
    ensured(tmp_path / "digits" / name).write_bytes(b"mine")
    with pytest.raises(UserError, match=f"{name.partition('/')[0]} is in the way"):
        digits.write(tmp_path / "digits")
    assert files(tmp_path).get(Path("digits") / name, b"mine") == b"mine"
    assert sorted(path.name for path in (tmp_path / "digits").iterdir()) == [".filling.lock", name.partition("/")[0]]
