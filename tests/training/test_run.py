"""A run's folder: what is written, what may join it, and the numbers that its folds add up to."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import torch
import yaml
from scipy.special import softmax

from src import config as configuration
from src.competitions.predictions import Predictions
from src.config import REPOSITORY, Config
from src.data import folds
from src.errors import UserError
from src.files import sha256
from src.training.run import Run, cross_validation, default_name
from tiny_runs import tiny

CLASSES = ("a", "b", "c")


def table(rows: int = 36) -> pd.DataFrame:
    """A folds.csv of three classes in three folds of the same size."""
    ids, labels = [f"{i:03d}" for i in range(rows)], [CLASSES[i % 3] for i in range(rows)]
    return pd.DataFrame({"id": ids, "label": labels, "group": ""}, dtype=str).assign(fold=[i // 3 % 3 for i in range(rows)])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "runs/mine")
    run.join(Config(), table(), "a device")
    return run


# Its files


def test_nothing_is_written_before_it_is_joined(tmp_path: Path):
    run = Run(tmp_path / "runs/mine")
    assert (run.name, run.fold("0")) == ("mine", tmp_path / "runs/mine/fold-0")
    assert run.trained_folds() == []
    assert list(tmp_path.iterdir()) == []


def test_joining_first_writes_the_configuration_and_the_folds(run: Run):
    assert {file.name for file in run.path.iterdir()} == {"config.yaml", "folds.csv"}
    assert folds.read_folds(run.folds_csv()).equals(table())
    assert run.join(Config(), table(), "another device") == sha256(run.folds_csv())


def test_the_configuration_says_with_what_it_was_made(run: Run):
    made = yaml.safe_load((run.path / "config.yaml").read_text())["made_with"]
    assert made["torch"] == torch.__version__.partition("+")[0]
    assert made["numpy"] == np.__version__
    assert made["device"] == "a device"
    assert {"commit", "python", "timm", "albumentations", "opencv-python-headless"} <= made.keys()


def test_the_configuration_is_written_out_in_full_and_a_run_can_be_repeated_from_it(tmp_path: Path):
    config = tiny(tmp_path, train__lr=3e-5, model__mean=(0.1, 0.2, 0.3), model__kwargs=("a=1",), train__clip_grad=0.5)
    run = Run(tmp_path / "runs/mine")
    run.join(config, table(), "a device")
    assert configuration.load(run.path / "config.yaml") == config
    written = configuration.flatten(yaml.safe_load((run.path / "config.yaml").read_text()))
    assert {key for key, _ in configuration.knobs()} <= written.keys()


def test_every_shipped_configuration_survives_being_written_and_read(tmp_path: Path):
    sweeps = {*(REPOSITORY / "configs/sweeps").iterdir()}
    for i, file in enumerate(sorted({*(REPOSITORY / "configs").rglob("*.yaml")} - sweeps)):
        config = configuration.load(file)
        run = Run(tmp_path / str(i))
        run.join(config, table(), "a device")
        assert configuration.load(run.path / "config.yaml") == config, file


# Joining it


def test_a_different_configuration_is_refused_with_every_difference(run: Run):
    other = tiny(Path("elsewhere"), "digits", train__lr=0.5)
    wanted = configuration.differences(Config().identity(), other.identity())
    assert "train.lr: 0.001 → 0.5" in wanted
    with pytest.raises(UserError) as told:
        run.join(other, table(), "a device")
    assert f"({'; '.join(wanted)}); --name NAME starts another run" in str(told.value)


def test_knobs_that_change_no_result_may_differ(run: Run):
    other = configuration.validate(
        {
            "data": {"workers": 3, "root": "elsewhere"},
            "train": {"device": "cpu"},
            "tracking": {"mode": "offline"},
            "predict": {"tta": "none"},
        },
        {},
    )
    assert run.join(other, table(), "a device") == sha256(run.folds_csv())


def test_rows_in_other_folds_are_refused(run: Run):
    moved = table()
    moved.loc[[0, 3], "fold"] = moved.loc[[3, 0], "fold"].to_numpy()
    with pytest.raises(UserError, match=r"folds\.csv is not what the data gives now: the rows are in other folds"):
        run.join(Config(), moved, "a device")


def test_another_number_of_rows_is_refused(run: Run):
    with pytest.raises(UserError, match=r"it has 36 rows, the data now 27, or other ids"):
        run.join(Config(), table(27), "a device")


def test_a_changed_folds_csv_is_refused(run: Run):
    run.folds_csv().write_text(run.folds_csv().read_text().replace("000,a,,0", "000,a,,1"))
    with pytest.raises(UserError, match=r"folds\.csv is not what the data gives now: the rows are in other folds"):
        run.join(Config(), table(), "a device")


@pytest.mark.parametrize(("prefix", "groups"), [("", [""] * 12), ("row ", list("abcdef") * 2)])
def test_ids_like_numbers_and_labels_with_zeros_and_groups_come_back_equal(prefix: str, groups: list[str], tmp_path: Path):
    """Else a second fold could never join."""
    rows = pd.DataFrame({"id": [f"{prefix}{i}" for i in range(12)], "label": ["00", "01"] * 6, "group": groups}, dtype=str)
    run, made = Run(tmp_path / "run"), folds.make_folds(rows, 2, 0)
    assert run.join(Config(), made, "") == run.join(Config(), folds.make_folds(rows, 2, 0), "")


# Its cross-validation


def oof_of(run: Run, fold: str, seed: int = 0, file: str = "oof.npz") -> Predictions:
    """Random predictions of a fold's rows, in an order of their own."""
    rng = np.random.default_rng([seed, int(fold)])
    rows = table()
    ids = rng.permutation(rows["id"][rows["fold"] == int(fold)].to_numpy(dtype=str))
    predictions = Predictions(ids, rng.normal(size=(len(ids), 3)).astype(np.float32), CLASSES)
    run.fold(fold).mkdir(exist_ok=True)
    (run.fold(fold) / "model.safetensors").touch()
    predictions.save(run.fold(fold) / file)
    return predictions


def by_hand(metric: str, parts: list[Predictions]) -> float:
    labels = table().set_index("id")["label"]
    truth = np.concatenate([[CLASSES.index(labels[id]) for id in part.ids] for part in parts])
    probabilities = softmax(np.concatenate([part.logits for part in parts]).astype(np.float64), axis=1)
    if metric == "log_loss":
        return sklearn.metrics.log_loss(truth, probabilities)
    return sklearn.metrics.accuracy_score(truth, probabilities.argmax(1))


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_the_score_is_the_metric_over_all_rows_and_the_spread_that_over_folds(metric: str, run: Run):
    parts = [oof_of(run, fold) for fold in ("0", "1", "2")]
    cv = cross_validation(run, metric)
    each = [by_hand(metric, [part]) for part in parts]
    assert list(cv.folds) == ["0", "1", "2"]
    assert list(cv.folds.values()) == pytest.approx(each)
    assert cv.oof == pytest.approx(by_hand(metric, parts))
    assert (cv.mean, cv.sd) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    assert cv.rows == 36
    assert str(cv) == f"{metric} {cv.oof:.4f} (n=36; {cv.mean:.4f} ± {cv.sd:.4f} over 3 folds)"
    assert cv.summary() == {f"oof_{metric}": cv.oof, f"cv_{metric}_mean": cv.mean, f"cv_{metric}_sd": cv.sd, "folds": 3}


def test_a_single_fold_has_no_spread(run: Run):
    oof_of(run, "1")
    cv = cross_validation(run, "log_loss")
    assert math.isnan(cv.sd)
    assert str(cv) == f"log_loss {cv.oof:.4f} (n=12; one fold)"
    assert "cv_log_loss_sd" not in cv.summary()


def test_the_score_under_tta_is_read_from_its_own_file(run: Run):
    oof_of(run, "0")
    assert cross_validation(run, "log_loss", "oof_tta.npz") is None
    other = oof_of(run, "0", seed=1, file="oof_tta.npz")
    assert cross_validation(run, "log_loss", "oof_tta.npz").oof == pytest.approx(by_hand("log_loss", [other]))


def test_folds_under_different_views_have_no_score_together(run: Run):
    """As after predict.py was interrupted."""
    for fold, views in (("0", "identity"), ("1", "identity, hflip; mean of probabilities")):
        replace(oof_of(run, fold), views=views).save(run.fold(fold) / "oof_tta.npz")
    assert cross_validation(run, "log_loss", "oof_tta.npz") is None
    assert cross_validation(run, "log_loss").rows == 24


def test_a_run_trained_on_all_rows_only_has_no_score(run: Run):
    run.fold("full").mkdir()
    (run.fold("full") / "model.safetensors").touch()
    assert cross_validation(run, "log_loss") is None


def test_trained_folds_stand_in_the_order_of_their_numbers_and_full_last(run: Run):
    for fold in ("full", "10", "2", "0"):
        run.fold(fold).mkdir()
        (run.fold(fold) / "model.safetensors").touch()
    run.fold("1").mkdir()
    assert run.trained_folds() == ["0", "2", "10", "full"]


# Its name


def test_a_run_is_named_after_its_configuration_and_what_was_overridden(tmp_path: Path):
    path = REPOSITORY / "configs/digits/baseline.yaml"
    config = configuration.load(path)
    assert default_name(path, config, False) == "digits-baseline"
    changed = config.model_copy(update={"train": config.train.model_copy(update={"lr": 0.5})})
    named = default_name(path, changed, False)
    assert named.startswith("digits-baseline-")
    assert len(named) == len("digits-baseline-") + 6
    assert default_name(path, changed, True) == f"{named}-debug"
    silent = config.model_copy(update={"tracking": config.tracking.model_copy(update={"mode": "disabled"})})
    assert default_name(path, silent, False) == "digits-baseline"
    (tmp_path / "mine.yaml").write_text("competition: digits\n")
    assert default_name(tmp_path / "mine.yaml", configuration.load(tmp_path / "mine.yaml"), False) == "mine"


def test_predicted_rows_that_folds_csv_has_lost_are_named(run: Run):
    folds.write_folds(table()[3:], run.folds_csv())
    with pytest.raises(UserError, match=r"folds\.csv: 2 of the 3 predicted rows are not in it, the first is '001'"):
        run.labels(np.array(["001", "002", "003"]), CLASSES)


def test_the_labels_of_rows_are_found_by_id(run: Run):
    ids = np.array(["004", "000", "002"])
    assert run.labels(ids, CLASSES).tolist() == [1, 0, 2]
    assert run.labels(ids, CLASSES[::-1]).tolist() == [1, 2, 0]


def test_a_repeated_run_is_named_after_the_one_it_repeats(tmp_path: Path):
    (tmp_path / "runs/first").mkdir(parents=True)
    path = tmp_path / "runs/first/config.yaml"
    path.write_text("competition: digits\n")
    assert default_name(path, configuration.load(path), debug=False) == "first-again"
