"""The sheet holds the pictures that it says it holds, whatever their files are like."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ImageFile

from pictures import encode, picture, test_table, train_table, write
from src.data.audit import audit
from src.data.sheet import picture_sheet
from src.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    red = encode(np.full((64, 64, 3), (250, 0, 0), np.uint8), "PNG")
    files = {"red.png": red, "again.png": red, "empty.jpg": b"", "text.jpg": b"no image", "cut.jpg": encode(picture(1))[:1200]}
    write(tmp_path, {f"train/{name}": data for name, data in files.items()})
    write(tmp_path, {f"train/few{i}.png": encode(picture(i, 4, 4), "PNG") for i in range(9)})
    write(tmp_path, {"test/red.png": red, "alone.jpg": encode(picture(3))})
    return tmp_path


def test_every_kind_is_drawn_and_twins_stand_side_by_side(root: Path, tmp_path: Path):
    train = train_table([f"train/{path.name}" for path in sorted((root / "train").iterdir())] + ["train/gone.jpg"])
    result = audit(root, train, test_table(["test/red.png"]), ["alone.jpg"])
    assert {"empty", "not_an_image", "truncated", "exact_duplicate", "leak", "one_colour", "missing", "orphan"} <= set(
        result.counts
    )
    picture_sheet(result.findings, root, tmp_path / "new/sheet.png", examples=3)
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "new/sheet.png")), cv2.COLOR_BGR2RGB)
    # red.png and again.png: twice each as leaks, once as a pair of duplicates, three of one colour
    red = (np.abs(sheet.astype(int) - (250, 0, 0)).max(axis=2) < 3).sum() / 150**2
    assert red == pytest.approx(2 * 2 + 2 + 3, rel=0.05)
    assert sheet.shape[1] < 2500
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_no_findings_give_a_sheet_that_says_so(root: Path, tmp_path: Path):
    result = audit(root, train_table(["alone.jpg"]), None)
    picture_sheet(result.findings, root, tmp_path / "sheet.png")
    assert cv2.imread(str(tmp_path / "sheet.png")).min() < 100


def test_a_sheet_that_cannot_be_written_is_told_in_one_line(root: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"sheet\.png: can't be written"):
        picture_sheet(audit(root, train_table(["alone.jpg"]), None).findings, root, tmp_path / "file/sheet.png")
