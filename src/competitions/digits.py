"""The embedded competition: scikit-learn's scans of handwritten digits, written once in a competition's layout.

The 1,797 scans (8x8 pixels, 17 grey levels; Alpaydin & Kaynak 1998) are split once into 1,437 training rows and 360
test rows with known labels, so that a submission can be scored at once.
"""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TEST_ROWS = 360


def write(root: Path) -> None:
    """train.csv, test.csv, sample_submission.csv, solution.csv and the PNG files; all of them or none."""
    digits = load_digits()
    ids = np.array([f"{i:04d}" for i in range(len(digits.target))])
    grey = (digits.images * (255 / 16)).round().astype(np.uint8)
    train, test = train_test_split(np.arange(len(ids)), test_size=TEST_ROWS, stratify=digits.target, random_state=0)
    partial = root.with_name(f".{root.name}.{os.getpid()}.partial")
    for part, rows in (("train", np.sort(train)), ("test", np.sort(test))):
        (partial / part).mkdir(parents=True)
        for row in rows:
            (partial / part / f"{ids[row]}.png").write_bytes(cv2.imencode(".png", grey[row])[1].tobytes())
        table = pd.DataFrame({"id": ids[rows], "label": digits.target[rows].astype(str)})
        table.to_csv(partial / ("train.csv" if part == "train" else "solution.csv"), index=False)
        if part == "test":
            table[["id"]].to_csv(partial / "test.csv", index=False)
            table.assign(label="0").to_csv(partial / "sample_submission.csv", index=False)
    if (root / "train.csv").is_file():  # another process was faster
        shutil.rmtree(partial)
    else:
        root.mkdir(parents=True, exist_ok=True)
        for entry in sorted(
            partial.iterdir(), key=lambda entry: entry.name == "train.csv"
        ):  # train.csv last: it says "complete"
            if (root / entry.name).is_dir():
                shutil.rmtree(root / entry.name)
            os.replace(entry, root / entry.name)
        partial.rmdir()
