"""sweep.py as people run it: folds of one configuration at the same time, and a search that is over already."""

import csv
from pathlib import Path

import yaml

from tiny_runs import TINY

FOLDS = {
    "program": "train.py",
    "method": "grid",
    "metric": {"name": "oof_accuracy", "goal": "maximize"},
    "parameters": {"fold": {"values": [0, 1]}} | {name: {"value": value} for name, value in TINY.items()},
}


def test_folds_trained_at_the_same_time_fill_one_run_which_is_not_trained_again(command, tmp_path: Path):
    (tmp_path / "folds.yaml").write_text(yaml.safe_dump(FOLDS, sort_keys=False))
    arguments = ("folds.yaml", "--slots", "2", "--", "--data.rows", "60")
    done = command("sweep.py", *arguments)
    logs = "".join(log.read_text() for log in tmp_path.glob("runs/sweeps/folds/*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    (row,) = csv.DictReader((tmp_path / "runs/sweeps/folds/trials.csv").open())
    (run,) = [path.name for path in tmp_path.glob("runs/*") if (path / "config.yaml").is_file()]
    assert (row["run"], row["folds"], row["state"]) == (run, "0 1", "finished")
    assert done.stdout.splitlines()[-1].startswith("best: python train.py --fold=all --model.name=cifar_net ")

    trained = (tmp_path / f"runs/{run}/fold-1/model.safetensors").stat().st_mtime_ns
    again = command("sweep.py", *arguments)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("2 trials, 0 of them to train")
    assert (tmp_path / f"runs/{run}/fold-1/model.safetensors").stat().st_mtime_ns == trained


def test_mistakes_are_told_in_one_line(command, tmp_path: Path):
    (tmp_path / "typo.yaml").write_text(yaml.safe_dump(FOLDS | {"parameters": {"train.lrr": {"values": [1, 2]}}}))
    done = command("sweep.py", "typo.yaml", fresh=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: typo.yaml: train.lrr: unknown option; did you mean --train.lr?\n"
    assert not (tmp_path / "runs").exists()
