"""Out-of-fold rows as the report reads them: by id, with their fold, under TTA where every fold has it."""

from pathlib import Path

import numpy as np
import pytest

from src.competitions import metrics
from src.errors import UserError
from src.report import oof
from written_runs import write_run, written

LABELS = [0, 1, 1, 0, 1, 0]
PLAIN, TTA = np.eye(2)[LABELS] * 3, np.eye(2)[LABELS] * 5


def test_each_row_has_its_label_fold_and_probabilities_by_id(tmp_path: Path):
    read = written(tmp_path / "run", LABELS, PLAIN)
    by_id = dict(zip(read.ids, zip(read.folds, read.labels, read.probabilities[:, 1], strict=True), strict=True))
    right, wrong = 1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3))
    for i, label in enumerate(LABELS):
        assert by_id[f"row{i}"] == (str(i % 2), label, pytest.approx(right if label else wrong))
    assert read.correct.all()


def test_predictions_under_tta_are_read_where_every_fold_has_them(tmp_path: Path):
    write_run(tmp_path / "run", LABELS, PLAIN)
    write_run(tmp_path / "run", LABELS, TTA, file="oof_tta.npz")
    read = oof.read(tmp_path / "run")
    assert read.with_tta
    assert read.probabilities.max() == pytest.approx(1 / (1 + np.exp(-5)))
    (tmp_path / "run/fold-1/oof_tta.npz").unlink()
    read = oof.read(tmp_path / "run")
    assert not read.with_tta
    assert read.probabilities.max() == pytest.approx(1 / (1 + np.exp(-3)))
    assert len(read.ids) == 6


def test_an_ensemble_of_predictions_under_tta_has_these_alone(tmp_path: Path):
    assert written(tmp_path / "run", LABELS, TTA, file="oof_tta.npz").with_tta


def test_the_losses_mean_is_the_log_loss_even_where_a_probability_is_zero(tmp_path: Path):
    read = written(tmp_path / "run", LABELS, np.array([[-2000.0, 2000.0]] * 6))
    assert read.losses.mean() == pytest.approx(metrics.score("log_loss", read.labels, read.probabilities))


def test_a_run_without_out_of_fold_rows_is_refused_with_the_command_that_makes_some(tmp_path: Path):
    path = write_run(tmp_path / "all", LABELS, PLAIN)
    for file in path.glob("fold-*/oof.npz"):
        file.unlink()
    with pytest.raises(
        UserError, match=r"has no out-of-fold rows to look at; `python train\.py --config .*--name all --fold 0`"
    ):
        oof.read(path)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="is not a run"):
        oof.read(tmp_path / "absent")
