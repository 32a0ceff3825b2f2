"""The embedded competition: scikit-learn's scans of handwritten digits, written once in a competition's layout.

The 1,797 scans (8x8 pixels, 17 grey levels; Alpaydin & Kaynak 1998) are split once into 1,437 training rows and 360
test rows with known labels, so that a submission can be scored at once.
"""

import filecmp
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from src.competitions.archive import alone
from src.errors import UserError

TEST_ROWS = 360


def write(root: Path) -> None:
    """train.csv, test.csv, sample_submission.csv, solution.csv and the PNG files; all of them or none.

    Raises UserError where something else lies in the place of one of them; nothing is replaced.
    """
    if (root / "train.csv").is_file():  # it is moved in last: all is there
        return
    partial = root / ".digits.partial"
    with alone(root):
        if not (root / "train.csv").is_file():  # else another process was faster
            shutil.rmtree(partial, ignore_errors=True)  # of one that was interrupted
            try:
                _write(partial)
                _move_in(partial, root)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path) -> None:
    digits = load_digits()
    ids = np.array([f"{i:04d}" for i in range(len(digits.target))])
    grey = (digits.images * (255 / 16)).round().astype(np.uint8)
    train, test = train_test_split(np.arange(len(ids)), test_size=TEST_ROWS, stratify=digits.target, random_state=0)
    for part, rows in (("train", np.sort(train)), ("test", np.sort(test))):
        (folder / part).mkdir(parents=True)
        for row in rows:
            (folder / part / f"{ids[row]}.png").write_bytes(cv2.imencode(".png", grey[row])[1].tobytes())
        table = pd.DataFrame({"id": ids[rows], "label": digits.target[rows].astype(str)})
        table.to_csv(folder / ("train.csv" if part == "train" else "solution.csv"), index=False)
        if part == "test":
            table[["id"]].to_csv(folder / "test.csv", index=False)
            table.assign(label="0").to_csv(folder / "sample_submission.csv", index=False)


def _move_in(partial: Path, root: Path) -> None:
    entries = sorted(partial.iterdir(), key=lambda entry: entry.name == "train.csv")
    absent = [entry for entry in entries if not os.path.lexists(root / entry.name)]
    for entry in entries:
        if entry not in absent and not _same(entry, root / entry.name):
            raise UserError(f"{root / entry.name} is in the way of the digits' own {entry.name}; move it away")
    for entry in absent:
        os.replace(entry, root / entry.name)


def _same(one: Path, other: Path) -> bool:
    """Whether two files, or two folders of files, hold the same."""
    if one.is_file() or not other.is_dir():
        return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)
    names = sorted(entry.name for entry in one.iterdir())
    if names != sorted(entry.name for entry in other.iterdir()):
        return False
    return filecmp.cmpfiles(one, other, names, shallow=False)[0] == names
