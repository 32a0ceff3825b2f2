"""The rows' pictures and what the audit found of them."""

from pathlib import Path

import numpy as np
import pytest

from conftest import write_dogs_vs_cats
from src.data.image import read
from src.report.album import Album, open_album
from tiny_runs import tiny

AUDIT = """part,id,path,kind,detail,twin,twin_path
train,dog.0,train/dog.0.jpg,tiny,few pixels,,
train,cat.1,train/cat.1.jpg,leak,same,1,test/1.jpg
train,cat.2,train/cat.2.jpg,leak,same,2,test/2.jpg
test,1,test/1.jpg,leak,same,cat.1,train/cat.1.jpg
"""


@pytest.fixture
def album(tmp_path: Path) -> Album:
    root = write_dogs_vs_cats(tmp_path / "dogs", rows=3, test=2)
    (root / "audit.csv").write_text(AUDIT)
    return open_album(tiny(root))


def test_every_training_row_has_its_picture(album: Album):
    assert sorted(album.paths) == ["cat.0", "cat.1", "cat.2", "dog.0", "dog.1", "dog.2"]
    assert album.thumbnail("cat.0").startswith("data:image/jpeg;base64,")
    assert album.thumbnail("cat.0") != album.thumbnail("dog.0")
    assert album.thumbnail("cat.9") is None


def test_a_photograph_is_the_file_as_it_is_and_none_where_it_can_not_be_read(album: Album):
    assert album.photograph("cat.0").shape == (24, 32, 3)
    assert np.array_equal(album.photograph("cat.0"), read(album.paths["cat.0"]))
    album.paths["dog.0"].write_bytes(b"no picture")
    assert album.photograph("dog.0") is None
    assert album.photograph("cat.9") is None


def test_the_audits_findings_of_training_rows_are_summed_up_the_gravest_kind_first(album: Album):
    lines = album.summary().to_numpy().tolist()
    assert [(kind, rows, first) for kind, rows, _, first in lines] == [
        ("leak", 2, "train/cat.1.jpg"),
        ("tiny", 1, "train/dog.0.jpg"),
    ]
    assert album.kinds("cat.2") == ["leak"]
    assert album.kinds("cat.0") == []


def test_without_data_the_album_says_why_it_is_empty(tmp_path: Path):
    album = open_album(tiny(tmp_path / "nowhere"))
    assert album.absent.startswith(f"{tmp_path / 'nowhere'}: train/ not found")
    assert album.thumbnail("cat.0") is None
    assert album.summary().empty


def test_without_an_audit_there_are_no_findings(tmp_path: Path):
    album = open_album(tiny(write_dogs_vs_cats(tmp_path / "dogs", rows=2)))
    assert album.absent == ""
    assert album.summary().empty
