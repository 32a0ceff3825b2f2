"""Kaggle's scores kept with the run."""

import json
from pathlib import Path

import pytest

from src.config import Config, TrackingConfig
from src.errors import UserError
from src.inference import leaderboard
from src.training.run import Run

CONFIG = Config(tracking=TrackingConfig(mode="disabled"))


def test_scores_are_added_to_those_already_known(tmp_path: Path):
    said: list[str] = []
    leaderboard.record(Run(tmp_path), CONFIG, ("public=0.07",), said.append)
    leaderboard.record(Run(tmp_path), CONFIG, ("public=0.06", "private=0.05"), said.append)
    assert json.loads((tmp_path / "leaderboard.json").read_text()) == {"public": 0.06, "private": 0.05}
    assert said[-1].endswith("public 0.06, private 0.05")


def test_scores_go_to_the_experiments_row_on_the_dashboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tracked = []

    class Recorder:
        def summarize(self, values: dict[str, float]) -> None:
            tracked.append(values)

        def finish(self) -> None:
            tracked.append("finished")

    monkeypatch.setattr(leaderboard.tracking, "track", lambda *arguments: tracked.append(arguments[1:3]) or Recorder())
    leaderboard.record(Run(tmp_path), CONFIG, ("private=1e-2",), lambda _: None)
    assert tracked == [(tmp_path.name, "cv"), {"private": 0.01}, "finished"]


@pytest.mark.parametrize("entry", ["public", "public=", "public=nan", "secret=1", "0.5", "public=good"])
def test_what_is_no_score_is_refused_and_nothing_is_written(entry: str, tmp_path: Path):
    with pytest.raises(UserError, match="expected public=SCORE"):
        leaderboard.record(Run(tmp_path), CONFIG, ("public=0.1", entry), lambda _: None)
    assert not (tmp_path / "leaderboard.json").exists()
