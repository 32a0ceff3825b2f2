"""Results that may never move, and a run folder that every later version must read.

tests/golden/runs/digits was written by version 0.1 (commit in its config.yaml): folds 0 and 1 of three are trained and
predicted, fold 2 was stopped in its second epoch. tests/golden/values.json was recorded by the same code. Training is by
SGD, whose rounding differs between CPUs by less than 1e-4; AdamW's first steps would turn it into 4e-3.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import planted_runs
import pytest

from conftest import REPOSITORY, write_dogs_vs_cats

GOLDEN = REPOSITORY / "tests/golden"
OLD = GOLDEN / "runs/digits"
VALUES = json.loads((GOLDEN / "values.json").read_text())
TRAIN = (
    "--model.name=lenet5", "--train.batch_size=16", "--train.lr=0.1", "--train.optimizer=sgd", "--train.epochs=2",
    "--data.folds=3", "--data.workers=0", "--tracking.mode=disabled", "--train.device=cpu",
)  # fmt: skip
PROBE = (
    "--model.name=cifar_net", "--model.weights=none", "--model.image_size=32", "--train.head=probe", "--train.epochs=0",
    "--train.probe_strength=0.016", "--data.folds=2", "--data.workers=0", "--tracking.mode=disabled", "--train.device=cpu",
)  # fmt: skip
SCORES = ["train_loss", "val_log_loss", "val_accuracy"]


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def assert_same_predictions(now: Path, then: Path) -> None:
    """The same ids; logits that differ by at most 1e-4 of the largest."""
    mine, golden = arrays(now), arrays(then)
    np.testing.assert_array_equal(mine["ids"], golden["ids"])
    np.testing.assert_allclose(mine["logits"], golden["logits"], rtol=1e-4, atol=1e-4 * np.abs(golden["logits"]).max())


def assert_same_history(now: Path, then: Path) -> None:
    mine, golden = pd.read_csv(now), pd.read_csv(then)
    np.testing.assert_allclose(mine[SCORES], golden[SCORES], rtol=1e-4)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the old run, which the repository's commands in tmp_path know as runs/digits."""
    return Path(shutil.copytree(OLD, tmp_path / "runs/digits"))


def test_digits_train_and_predict_as_ever(command, tmp_path):
    done = command("train.py", "--name=new", "--fold", 0, 1, *TRAIN)
    assert done.returncode == 0, done.stderr
    done = command("predict.py", "runs/new")
    assert done.returncode == 0, done.stderr
    for fold in ("fold-0", "fold-1"):
        assert_same_history(tmp_path / "runs/new" / fold / "history.csv", OLD / fold / "history.csv")
        for file in ("oof.npz", "oof_tta.npz", "test.npz"):
            assert_same_predictions(tmp_path / "runs/new" / fold / file, OLD / fold / file)
    submission = pd.read_csv(tmp_path / "submissions/new.csv", dtype=str)
    then = pd.read_csv(GOLDEN / "submissions/digits.csv", dtype=str)
    assert submission["id"].tolist() == then["id"].tolist()
    assert (submission["label"] == then["label"]).mean() > 0.99  # two classes may be equally probable but for rounding


def test_a_probe_finds_the_head_that_it_always_found(command, tmp_path):
    write_dogs_vs_cats(tmp_path / "data/dogs_vs_cats")
    done = command("train.py", "--config=configs/dogs_vs_cats/mobilenetv2_probe.yaml", "--name=probe", "--fold=all", *PROBE)
    assert done.returncode == 0, done.stderr
    for fold, golden in VALUES["probe"].items():
        mine = arrays(tmp_path / "runs/probe" / f"fold-{fold}" / "oof.npz")
        assert mine["ids"].tolist() == golden["ids"]
        np.testing.assert_allclose(mine["logits"], golden["logits"], rtol=1e-4, atol=1e-4)


def test_a_blend_with_calibration_gives_the_probabilities_that_it_always_gave(command, tmp_path):
    truth = planted_runs.plant_competition(tmp_path)
    for name, options in (("a", {"scale": 3.0}), ("b", {"noise": 1.5}), ("c", {"noise": 2.0, "seed": 1})):
        planted_runs.plant_run(tmp_path, name, truth, **options)
    done = command("ensemble.py", "runs/a", "runs/b", "runs/c", "--name=blend", "--method=weights", "--calibrate=temperature")
    assert done.returncode == 0, done.stderr
    golden = VALUES["blend"]
    record = json.loads((tmp_path / "runs/blend/ensemble.json").read_text())
    np.testing.assert_allclose(record["blend"]["weights"], golden["weights"], atol=1e-4)
    np.testing.assert_allclose(record["calibration"]["temperature"], golden["temperature"], rtol=1e-4)
    submission = pd.read_csv(tmp_path / "submissions/blend.csv")
    assert submission["id"].tolist() == golden["ids"]
    np.testing.assert_allclose(submission["label"], golden["probabilities"], rtol=1e-3)  # written with 9 digits


def test_an_old_run_is_predicted_again(command, old, tmp_path):
    for file in ("fold-0/test.npz", "fold-1/predicted.json"):
        (old / file).unlink()
    done = command("predict.py", "runs/digits")
    assert done.returncode == 0, done.stderr
    for fold in ("fold-0", "fold-1"):
        assert_same_predictions(old / fold / "test.npz", OLD / fold / "test.npz")


def test_an_old_run_is_compared_and_blended_with_a_new_one(command, old, tmp_path):
    done = command("train.py", "--name=new", "--fold", 0, 1, *TRAIN, "--train.lr=0.03")
    assert done.returncode == 0, done.stderr
    assert command("predict.py", "runs/new").returncode == 0
    done = command("compare.py")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert {"digits", "new"} <= {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    done = command("compare.py", "runs/digits", "--report")
    assert done.returncode == 0, done.stderr
    done = command("ensemble.py", "runs/digits", "runs/new", "--name=both")
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(tmp_path / "submissions/both.csv")) == 360


def test_a_fold_that_an_old_version_stopped_is_resumed(command, old, tmp_path):
    done = command("train.py", "--name=digits", "--fold=2", "--resume", *TRAIN)
    assert done.returncode == 0, done.stderr
    mine = pd.read_csv(old / "fold-2/history.csv")
    np.testing.assert_allclose(mine[SCORES], np.array(VALUES["resumed"]), rtol=1e-4)
