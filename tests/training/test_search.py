"""A search with a stand-in for train.py, which copies runs that lie ready: what is started, ranked, told, stopped, resumed."""

import csv
import io
import json
import os
import shlex
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from src.competitions.predictions import Predictions
from src.config import Config
from src.errors import UserError
from src.training import search as searches
from src.training.run import Run
from src.training.search import Search, visible_gpus
from src.training.sweep import Trial, plan, read
from sweep import understand

TABLE = pd.DataFrame(
    {"id": [f"{i:02d}" for i in range(20)], "label": ["0", "1"] * 10, "group": "", "fold": [0] * 10 + [1] * 10}
)

STAND_IN = """
import json, os, shutil, signal, sys, time
words = sys.argv[1:]
run = next(word.partition("=")[2] for word in words if word.startswith("--name="))
folds = next((word.partition("=")[2] for word in words if word.startswith("--fold=")), "0")
open("started.txt", "a").write(json.dumps([run, folds, {name: os.environ.get(name) for name in
    ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}, len(os.sched_getaffinity(0))]) + "\\n")
print("some line")
if os.path.exists("wait"):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    open("ready", "w")
    time.sleep(60)
if not os.path.exists(f"ready-made/{run}/fold-{folds}"):
    print("and one on stdout, not flushed before the end")
    sys.exit("error: no such run")
for part in ("config.yaml", "folds.csv"):
    os.makedirs(f"runs/{run}", exist_ok=True)
    shutil.copy(f"ready-made/{run}/{part}", f"runs/{run}/{part}.{os.getpid()}")  # two folds write, one may be read
    os.replace(f"runs/{run}/{part}.{os.getpid()}", f"runs/{run}/{part}")
shutil.copytree(f"ready-made/{run}/fold-{folds}", f"runs/{run}/fold-{folds}")
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, without data and without GPUs; polling often."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(searches, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(searches, "_prepare_data", lambda trials, said: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    Path("train.py").write_text(STAND_IN)


def make_search(parameters: dict[str, Any], *more: str, **top: Any) -> tuple[Search, list[str]]:
    tree = {"program": "train.py", "method": "grid", "parameters": {"train.epochs": {"value": 2}} | parameters} | top
    Path("my.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    said: list[str] = []
    sweep = read("my.yaml")
    trials = plan(sweep, None, 0, list(more), understand)
    return Search(sweep, trials, Path("runs/sweeps/my"), said.append, Path("train.py")), said


def lay_ready(trial: Trial, right: float, fold: str = "0", epochs: int = 2, folder: str = "ready-made") -> None:
    """What train.py would make of a trial: a run, of whose held-out rows the share `right` is predicted rightly."""
    run = Run(Path(folder) / trial.run.name)
    run.join(trial.config, TABLE, "a device")
    rows = TABLE[TABLE["fold"] == int(fold)]
    truth = rows["label"].astype(int).to_numpy()
    guessed = np.where(np.arange(len(rows)) < round(right * len(rows)), truth, 1 - truth)
    run.fold(fold).mkdir()
    Predictions(rows["id"].to_numpy(str), 5 * np.eye(2, dtype=np.float32)[guessed], ("0", "1")).save(run.fold(fold) / "oof.npz")
    (run.fold(fold) / "model.safetensors").touch()
    pd.DataFrame({"epoch": range(1, epochs + 1), "seconds": 30.0}).to_csv(run.fold(fold) / "history.csv", index=False)


def started() -> list[list[Any]]:
    return [json.loads(line) for line in Path("started.txt").read_text().splitlines()] if Path("started.txt").exists() else []


def table() -> list[dict[str, str]]:
    with open("runs/sweeps/my/trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_trial_is_trained_once_and_the_best_comes_first():
    search, said = make_search({"train.lr": {"values": [0.1, 0.2, 0.3]}})
    for trial, right in zip(search.trials, (0.6, 0.9, 0.7), strict=True):
        lay_ready(trial, right)
    assert search.run(slots=2) == 0
    assert sorted(run for run, *_ in started()) == sorted(trial.run.name for trial in search.trials)
    assert [(row["train.lr"], row["oof_accuracy"], row["folds"], row["minutes"], row["state"]) for row in table()] == [
        ("0.2", "0.9", "0", "1.0", "finished"), ("0.3", "0.7", "0", "1.0", "finished"), ("0.1", "0.6", "0", "1.0", "finished"),
    ]  # fmt: skip
    assert said[0] == "3 trials, 3 of them to train; logs in runs/sweeps/my"
    assert "trial 2 (train.lr=0.2) begins" in said
    assert "trial 2 (train.lr=0.2), 0.0 min: finished, accuracy 0.9000 (n=10; one fold)" in said
    assert Path("runs/sweeps/my/trial-003.log").read_text() == "some line\n"


def test_where_less_is_better_the_least_comes_first_and_the_table_shows_it():
    search, _ = make_search({"train.lr": {"values": [0.1, 0.2]}, "config": {"value": "configs/dogs_vs_cats/resnet50.yaml"}})
    for trial, right in zip(search.trials, (0.6, 0.9), strict=True):
        lay_ready(trial, right)
    search.run(slots=1)
    assert [row["train.lr"] for row in table()] == ["0.2", "0.1"]
    printed = io.StringIO()
    Console(file=printed, width=200).print(search.table())
    heading, first, _ = (line.split() for line in printed.getvalue().splitlines())
    assert heading == ["run", "lr", "oof_log_loss", "sd", "folds", "minutes", "state"]
    assert first[1:] == ["0.2", f"{float(table()[0]['oof_log_loss']):.4f}", "—", "0", "1.0", "finished"]


def test_folds_of_a_configuration_share_a_row_and_the_best_command_trains_all_of_them():
    search, _ = make_search({"fold": {"values": [0, 1]}, "train.lr": {"values": [0.1, 0.2]}})
    for trial, right in zip(search.trials, (0.6, 0.8, 0.9, 1.0), strict=True):
        lay_ready(trial, right, trial.folds[0])
    assert search.run(slots=2) == 0
    assert len(started()) == 4
    rows = table()
    assert [(row["train.lr"], row["oof_accuracy"], row["folds"]) for row in rows] == [
        ("0.2", "0.9", "0 1"),
        ("0.1", "0.75", "0 1"),
    ]
    assert float(rows[0]["sd"]) == pytest.approx(np.std([0.8, 1.0], ddof=1))
    assert list(rows[0]) == ["run", "train.lr", "oof_accuracy", "sd", "folds", "minutes", "state"]
    assert search.best() == (
        f"python train.py --train.epochs=2 --fold=all --train.lr=0.2 --name={search.trials[1].run.name} --resume"
    )


def test_a_failing_trial_does_not_end_the_search_and_is_told_with_the_last_line_of_its_log():
    search, said = make_search({"train.lr": {"values": [0.1, 0.2, 0.3]}})
    for trial in search.trials[1:]:
        lay_ready(trial, 0.5)
    assert search.run(slots=1) == 1
    assert [row["state"] for row in table()] == ["finished", "finished", "failed: error: no such run"]
    assert table()[2]["oof_accuracy"] == "nan"
    assert "trial 1 (train.lr=0.1), 0.0 min: failed: error: no such run" in said


def test_a_search_goes_on_where_it_was():
    search, _ = make_search({"train.lr": {"values": [0.1, 0.2, 0.3]}})
    for trial in search.trials[1:]:
        lay_ready(trial, 0.5)
    search.run(slots=1)
    lay_ready(search.trials[0], 1.0)
    Path("started.txt").unlink()
    again, said = make_search({"train.lr": {"values": [0.1, 0.2, 0.3]}})
    assert again.run(slots=3) == 0
    assert [run for run, *_ in started()] == [search.trials[0].run.name]
    assert said[0].startswith("3 trials, 1 of them to train")
    assert table()[0]["oof_accuracy"] == "1.0"
    assert make_search({"train.lr": {"values": [0.1, 0.2, 0.3]}}, "--overwrite")[0].states == {
        1: "waiting",
        2: "waiting",
        3: "waiting",
    }


def test_a_trial_out_of_time_is_unfinished_with_its_score_and_no_failure():
    search, _ = make_search({"train.lr": {"values": [0.1, 0.2]}})
    for trial, epochs in zip(search.trials, (1, 2), strict=True):
        lay_ready(trial, 0.5 * epochs, epochs=epochs)
    assert search.run(slots=1) == 0
    assert [(row["state"], row["oof_accuracy"]) for row in table()] == [("finished", "1.0"), ("unfinished", "0.5")]


def test_a_run_of_other_knobs_under_the_name_is_neither_finished_nor_scored():
    search, _ = make_search({"train.lr": {"values": [0.1]}})
    (trial,) = search.trials
    lay_ready(Trial(1, {}, (), trial.run, Config(), ("0",)), 1.0, folder="runs")
    assert not trial.is_finished()
    assert trial.cross_validation() is None


def test_no_score_no_best_command():
    search, _ = make_search({"train.lr": {"values": [0.1]}})
    assert search.run(slots=1) == 1
    assert search.best() is None


def test_the_best_command_can_be_pasted():
    search, _ = make_search({"model.mean": {"value": [0.5, 0.5, 0.5]}, "train.lr": {"values": [0.1, 0.2]}})
    lay_ready(search.trials[1], 1.0)
    search.run(slots=1)
    assert tuple(shlex.split(search.best())[2:]) == search.trials[1].words


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are shared out on Linux alone")
@pytest.mark.parametrize("threads", [None, "3"])
def test_each_slot_has_its_share_of_the_cores_and_a_gpu_of_its_own(monkeypatch, threads):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    search, _ = make_search({"train.lr": {"values": [0.1, 0.2]}})
    search.run(slots=9)
    cores = len(os.sched_getaffinity(0))
    share = max(1, cores // 2)
    assert {seen[0]: (seen[2], seen[3] in (share, share + 1, cores)) for seen in started()} == {
        trial.run.name: ({"OMP_NUM_THREADS": threads or str(share), "CUDA_VISIBLE_DEVICES": gpu}, True)
        for trial, gpu in zip(search.trials, ("4", "6"), strict=True)
    }


def test_gpus_are_those_that_are_visible(monkeypatch, tmp_path):
    assert visible_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, GPU-5ebe9f43")
    assert visible_gpus() == ["1", "GPU-5ebe9f43"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    (tmp_path / "nvidia-smi").write_text(
        "#!/bin/sh\necho 'GPU 0: Tesla T4 (UUID: GPU-1)'\necho '  MIG 1g'\necho 'GPU 1: Tesla T4'\n"
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert visible_gpus() == ["0", "1"]


def test_the_data_is_prepared_once_for_all_trials_that_share_it(monkeypatch):
    monkeypatch.undo()
    seen: list[Config] = []
    monkeypatch.setattr(searches.prepare, "prepare", lambda config, said: seen.append(config))
    monkeypatch.setattr(searches.prepare, "audited", lambda config, prepared, said: None)
    trials = [Trial(i, {}, (), Run(Path("r")), Config.model_validate({"train": {"seed": i}}), ("0",)) for i in range(3)]
    searches._prepare_data(trials, print)
    assert len(seen) == 1


def test_data_that_is_not_there_is_told_before_anything_is_started(monkeypatch):
    def absent(trials: list[Trial], said: Any) -> None:
        raise UserError("data/dogs_vs_cats: train/ not found")

    monkeypatch.setattr(searches, "_prepare_data", absent)
    search, _ = make_search({"train.lr": {"values": [0.1]}})
    with pytest.raises(UserError, match="not found"):
        search.run(slots=1)
    assert not Path("runs").exists()
    assert started() == []


def test_early_terminate_is_said_to_be_wandbs():
    search, said = make_search({"train.lr": {"values": [0.1]}}, early_terminate={"type": "hyperband"})
    search.run(slots=1)
    assert "early_terminate is for W&B's server: here every trial runs to its end" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_is_passed_on_to_the_trials_and_none_is_begun_after_it(number):
    Path("wait").touch()
    search, said = make_search({"train.lr": {"values": [0.1, 0.2]}})

    def ask() -> None:
        while not Path("ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=ask, daemon=True).start()
    before = signal.getsignal(number)
    assert search.run(slots=1) == 130
    assert signal.getsignal(number) is before
    assert said[2:] == [
        "stopping: the trials save their state; Ctrl-C again kills them",
        "trial 1 (train.lr=0.1), 0.0 min: stopped",
    ]
    assert [row["state"] for row in table()] == ["stopped", "waiting"]


def test_a_second_request_kills_trials_that_do_not_end():
    Path("train.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen('ready', 'w')\ntime.sleep(60)"
    )
    search, said = make_search({"train.lr": {"values": [0.1]}})

    def ask() -> None:
        while not Path("ready").exists():
            time.sleep(0.01)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    threading.Thread(target=ask, daemon=True).start()
    assert search.run(slots=1) == 130
    assert "killing the trials" in said


def test_a_trial_that_is_killed_says_by_what():
    Path("train.py").write_text("import os\nos.kill(os.getpid(), 9)")
    search, _ = make_search({"train.lr": {"values": [0.1]}})
    assert search.run(slots=1) == 1
    assert table()[0]["state"] == "failed: ended by SIGKILL"


def test_an_error_of_the_search_itself_leaves_no_trial_behind(monkeypatch):
    Path("wait").touch()
    search, _ = make_search({"train.lr": {"values": [0.1]}})
    processes: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(searches.subprocess, "Popen", lambda *a, **k: processes.append(popen(*a, **k)) or processes[-1])
    monkeypatch.setattr(search, "said", lambda line: 1 / 0 if "begins" in line else None)
    with pytest.raises(ZeroDivisionError):
        search.run(slots=1)
    assert processes[0].wait(10) != 0
