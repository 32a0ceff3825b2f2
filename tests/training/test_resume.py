"""A run killed at any moment and resumed ends bit for bit like the one that was never stopped."""

import multiprocessing
from pathlib import Path

import pytest

from conftest import write_dogs_vs_cats
from kills import kill_and_compare
from src.training import checkpoint

pytestmark = pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="needs forkserver")


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs_vs_cats(tmp_path_factory.mktemp("dogs"))


def test_twenty_kills_change_nothing(dogs: Path, tmp_path: Path):
    tally = kill_and_compare(dogs, tmp_path, kills=20, seed=0)
    assert tally.kills == 20
    assert tally.before_first_save < 15, "most kills must have had a state to resume from"


def test_with_two_workers(dogs: Path, tmp_path: Path):
    assert kill_and_compare(dogs, tmp_path, kills=4, seed=1, data__workers=2).kills == 4


def test_in_fp16_with_the_scalers_state(dogs: Path, tmp_path: Path):
    assert kill_and_compare(dogs, tmp_path, kills=4, seed=3, train__precision="fp16").kills == 4
    state = checkpoint.load(tmp_path / "whole/fold-0/last.pt")["scaler"]
    assert state["scale"] < 2.0**16 or state["_growth_tracker"] > 0


def test_with_the_best_epoch_kept(dogs: Path, tmp_path: Path):
    assert kill_and_compare(dogs, tmp_path, kills=4, seed=2, train__keep="best").kills == 4
