"""The report's pictures: well-formed SVG that follows the page's colours, and small JPEGs of photographs."""

import base64
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from conftest import write_image
from src.inference.calibrate import reliability
from src.report import pictures


def words(svg: str) -> list[str]:
    """The texts of an SVG, which must be well-formed."""
    return [
        "".join(element.itertext()).strip() for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    ]


def histories(folds: int, epochs: int = 4) -> dict[str, pd.DataFrame]:
    epoch = np.arange(1, epochs + 1)
    return {str(k): pd.DataFrame({"epoch": epoch, "train_loss": 1 / epoch, "val_accuracy": epoch / 10}) for k in range(folds)}


def test_a_curve_for_each_column_names_its_folds():
    loss, accuracy = pictures.learning_curves(histories(3), ("train_loss", "val_accuracy"))
    assert {"train loss", "epoch", "fold 0", "fold 1", "fold 2"} <= set(words(loss))
    assert "validation accuracy" in words(accuracy)


def test_no_two_of_ten_folds_look_alike():
    (svg,) = pictures.learning_curves(histories(10), ("train_loss",))
    drawn = re.findall(r'style="(fill: none; [^"]*stroke-width: 1\.6[^"]*)"', svg)
    assert len(set(drawn)) == 10


def test_what_has_no_course_has_no_curve():
    """A linear probe's history is one row without a training loss; a column that is absent is left out."""
    probe = pd.DataFrame({"epoch": [0], "train_loss": [np.nan], "val_accuracy": [0.9]})
    assert pictures.learning_curves({"0": probe}, ("train_loss", "val_accuracy", "val_log_loss")) == []
    (svg,) = pictures.learning_curves({"0": probe, **histories(2)} | {"5": probe}, ("val_accuracy",))
    assert "fold 5" not in words(svg)


def test_the_reliability_diagram_shows_perfect_bins_and_single_rows():
    for labels, probabilities in (
        (np.zeros(50, int), np.tile([1.0, 0.0], (50, 1))),
        (np.array([1]), np.array([[0.4, 0.6]])),
        (np.arange(60) % 3, np.random.default_rng(0).dirichlet([1, 1, 1], 60)),
    ):
        svg = pictures.reliability_diagram(reliability(labels, probabilities))
        assert {"accuracy", "rows", "confidence in the predicted class"} <= set(words(svg))


def test_pictures_take_the_pages_ink_and_repeat_no_name_but_those_of_the_same_thing():
    drawn = pictures.learning_curves(histories(2), ("train_loss", "val_accuracy"))
    assert all("currentColor" in svg and pictures._INK not in svg for svg in drawn)
    named = [dict(re.findall(r'<(?:path|clipPath) id="([^"]+)"(.*?)(?:/>|</clipPath>)', svg, re.DOTALL)) for svg in drawn]
    assert all(named[0][name] == named[1][name] for name in named[0].keys() & named[1].keys())
    assert not re.search(r'<g id="', drawn[0])
    assert drawn == pictures.learning_curves(histories(2), ("train_loss", "val_accuracy"))


@pytest.mark.parametrize("height, width, shown", [(600, 300, (220, 110)), (24, 32, (24, 32)), (1, 900, (1, 220))])
def test_a_thumbnail_keeps_the_pictures_shape_and_never_grows(tmp_path: Path, height: int, width: int, shown: tuple[int, int]):
    write_image(tmp_path / "a.png", 0, height, width)
    uri = pictures.thumbnail(tmp_path / "a.png")
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    assert cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR).shape[:2] == shown


def test_a_thumbnail_keeps_the_colours(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((300, 300, 3), (0, 0, 255), np.uint8))  # OpenCV's order: blue, green, red
    data = base64.b64decode(pictures.thumbnail(tmp_path / "red.png").partition(",")[2])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[100, 100].argmax() == 2


def test_a_file_that_can_not_be_read_has_no_thumbnail(tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    assert pictures.thumbnail(tmp_path / "broken.jpg") is None
    assert pictures.thumbnail(tmp_path / "absent.jpg") is None
