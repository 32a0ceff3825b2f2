"""A submission handed in by a client that stands in for Kaggle's, and Kaggle's scores kept with the run and in the ledger."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import write_dogs_vs_cats
from src.competitions.predictions import Predictions
from src.config import Config, TrackingConfig
from src.errors import UserError
from src.files import sha256
from src.inference import leaderboard, ledger, submission
from src.training.run import Run
from tiny_runs import tiny

CONFIG = Config(tracking=TrackingConfig(mode="disabled"))
HEADER = "ref,fileName,date,description,status,publicScore,privateScore"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submissions/ lies in the working folder; Kaggle is asked twice without a pause."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(leaderboard, "PAUSES", (0, 0))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = tiny(write_dogs_vs_cats(tmp_path / "data", rows=2, test=30))
    return config.model_copy(update={"competition": config.competition.model_copy(update={"expected_test": 30})})


@pytest.fixture
def run(tmp_path: Path, config: Config) -> Run:
    """runs/mine with a submission that the ledger knows."""
    (tmp_path / "runs/mine").mkdir(parents=True)
    logits = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    predicted = Predictions(np.array([str(i) for i in range(1, 31)]), logits, ("cat", "dog"))
    path = Path("submissions/mine.csv")
    competition = config.competition
    submission.write(submission.make(competition, predicted), path, competition, predicted.classes, predicted.ids.tolist())
    ledger.enter(path, ["mine"], "mean of folds", 0.1)
    return Run(Path("runs/mine"))


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """client(submit=…, list=…): shell lines in the place of `python -m kaggle competitions submit` and `submissions`."""

    def install(submit: str = "echo Successfully submitted", list: str = f"echo {HEADER}") -> None:
        path = tmp_path / "client"
        cases = f'case "$4" in\nsubmit) {submit};;\nsubmissions) {list};;\nesac'
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/calls\n{cases}\n')
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return install


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return path.read_text().splitlines() if path.is_file() else []


def rows() -> list[dict[str, str]]:
    with open("submissions/ledger.csv", newline="") as file:
        return list(csv.DictReader(file))


def listed(public: str = "", private: str = "", status: str = "COMPLETE") -> str:
    """The shell line that lists another's file and run's mine.csv, a warning above them."""
    tag = f"[sha256 {sha256(Path('submissions/mine.csv'))[:12]}]"
    rows = [
        "Warning: a newer version is available", HEADER, "2,mine.csv,2026,by hand,SubmissionStatus.COMPLETE,0.9,0.9",
        f'1,mine.csv,2026,"mobilenet, 5 folds {tag}",SubmissionStatus.{status},{public},{private}',
    ]  # fmt: skip
    return "; ".join(f"echo '{row}'" for row in rows)


# Handing in


def test_a_valid_file_is_handed_in_and_its_score_recorded_everywhere(run: Run, config: Config, client, tmp_path: Path):
    client(list=listed("0.0612"))
    said: list[str] = []
    leaderboard.submit(run, config, "mobilenet, 5 folds", False, said.append)
    digest = sha256(Path("submissions/mine.csv"))
    assert calls(tmp_path)[0] == (
        "-m kaggle competitions submit -c dogs-vs-cats-redux-kernels-edition -f submissions/mine.csv "
        f"-m mobilenet, 5 folds [sha256 {digest[:12]}]"
    )
    (row,) = rows()
    assert row["submitted"]
    assert (row["sha256"], row["public"], row["private"]) == (digest, "0.0612", "")
    assert json.loads((run.path / "leaderboard.json").read_text()) == {"public": 0.0612}
    assert said[1] == "submissions/mine.csv: handed in to dogs-vs-cats-redux-kernels-edition"


def test_the_same_content_is_handed_in_once_unless_asked_for_again(run: Run, config: Config, client, tmp_path: Path):
    client()
    leaderboard.submit(run, config, "", False, lambda _: None)
    with pytest.raises(UserError, match="was handed in on"):
        leaderboard.submit(run, config, "", False, lambda _: None)
    assert sum(" submit " in call for call in calls(tmp_path)) == 1
    leaderboard.submit(run, config, "", True, lambda _: None)
    assert sum(" submit " in call for call in calls(tmp_path)) == 2


def test_an_invalid_file_is_not_handed_in(run: Run, config: Config, client, tmp_path: Path):
    client()
    path = Path("submissions/mine.csv")
    path.write_text(path.read_text().replace("\n7,0", "\n7,3", 1))
    said: list[str] = []
    with pytest.raises(SystemExit) as ended:
        leaderboard.submit(run, config, "", False, said.append)
    assert ended.value.code == 1
    assert "row 8, column 'label': 3." in said[0]
    assert calls(tmp_path) == []


def test_a_part_of_kaggles_rows_is_not_handed_in(run: Run, config: Config, client, tmp_path: Path):
    client()
    whole = config.competition.model_copy(update={"expected_test": 12_500})
    with pytest.raises(UserError, match=r"mine\.csv is for the 30 test rows that are here; Kaggle wants all 12,500"):
        leaderboard.submit(run, config.model_copy(update={"competition": whole}), "", False, lambda _: None)
    assert calls(tmp_path) == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            "echo Authentication required to call the Kaggle API.; exit 1",
            r"no Kaggle token: make one at https://\S+ and save it",
        ),
        ("echo 403 Client Error: Forbidden >&2; exit 1", "accept the rules"),
        ("echo Could not submit to competition", "was not handed in: Could not submit to competition"),  # with status 0
    ],
)
def test_what_kaggle_refuses_is_told_and_may_be_tried_again(answer: str, said: str, run: Run, config: Config, client):
    client(submit=answer)
    with pytest.raises(UserError, match=said):
        leaderboard.submit(run, config, "", False, lambda _: None)
    assert [row["submitted"] for row in rows()] == [""]
    client()
    leaderboard.submit(run, config, "", False, lambda _: None)
    assert rows()[0]["submitted"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (f"echo {HEADER}", "Kaggle has no score for it yet; "),
        ("echo No submissions found", "Kaggle has no score for it yet; "),
        ("echo no route to host >&2; exit 1", "the kaggle client failed: no route to host; "),
    ],
)
def test_a_score_that_does_not_come_is_no_failure(answer: str, told: str, run: Run, config: Config, client):
    client(list=answer)
    said: list[str] = []
    leaderboard.submit(run, config, "", False, said.append)
    assert said[-1] == f"{told}`python predict.py runs/mine --record kaggle` asks again"
    assert rows()[0]["submitted"]


def test_a_run_without_a_submission_or_off_kaggle_is_told(config: Config):
    with pytest.raises(UserError, match=r"submissions/b\.csv: no such file; `python predict\.py runs/b` writes it"):
        leaderboard.submit(Run(Path("runs/b")), config, "", False, lambda _: None)
    with pytest.raises(UserError, match="digits is not on Kaggle"):
        leaderboard.submit(Run(Path("runs/b")), CONFIG, "", False, lambda _: None)


# Recording


def test_scores_are_added_to_those_already_known(run: Run):
    said: list[str] = []
    leaderboard.record(run, CONFIG, ("public=0.07",), said.append)
    leaderboard.record(run, CONFIG, ("public=0.06", "private=0.05"), said.append)
    assert json.loads((run.path / "leaderboard.json").read_text()) == {"public": 0.06, "private": 0.05}
    assert said[-2].endswith("public 0.06, private 0.05")
    assert [(row["public"], row["private"]) for row in rows()] == [("0.06", "0.05")]
    assert said[-1].startswith("submissions/ledger.csv: noted for mine.csv of 20")


def test_a_run_that_the_ledger_does_not_know_keeps_its_score_all_the_same(tmp_path: Path):
    said: list[str] = []
    leaderboard.record(Run(tmp_path), CONFIG, ("public=0.07",), said.append)
    assert json.loads((tmp_path / "leaderboard.json").read_text()) == {"public": 0.07}
    assert "which has no row for" in said[-1]


def test_scores_are_asked_from_kaggle_by_the_files_sha256(run: Run, config: Config, client):
    with pytest.raises(UserError, match=r"was not handed in by --submit.* --record public=SCORE notes a score"):
        leaderboard.record(run, config, ("kaggle",), lambda _: None)
    client()
    leaderboard.submit(run, config, "", False, lambda _: None)
    with pytest.raises(UserError, match=r"no score yet for submissions/mine\.csv"):
        leaderboard.record(run, config, ("kaggle",), lambda _: None)
    client(list=listed("0.0612", "0.0598"))
    leaderboard.record(run, config, ("kaggle",), lambda _: None)
    assert json.loads((run.path / "leaderboard.json").read_text()) == {"public": 0.0612, "private": 0.0598}
    client(list=listed(status="ERROR"))
    with pytest.raises(UserError, match=r"could not score mine\.csv: .*dogs-vs-cats-redux-kernels-edition/submissions"):
        leaderboard.record(run, config, ("kaggle",), lambda _: None)


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


@pytest.mark.parametrize(
    "entry", ["public", "public=", "public=inf", "public=1e999", "public=nan", "secret=1", "0.5", "public=good", "kaggle"]
)
def test_what_is_no_score_is_refused_and_nothing_is_written(entry: str, tmp_path: Path):
    with pytest.raises(UserError, match="expected public=SCORE"):
        leaderboard.record(Run(tmp_path), CONFIG, ("public=0.1", entry), lambda _: None)
    assert not (tmp_path / "leaderboard.json").exists()


def test_a_board_that_stands_there_twice_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"--record public=0\.1 public=0\.2: a board stands there twice"):
        leaderboard.record(Run(tmp_path), CONFIG, ("public=0.1", "public=0.2"), lambda _: None)
    assert not (tmp_path / "leaderboard.json").exists()
