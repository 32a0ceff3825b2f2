"""Pseudo-labels: test rows with the labels that a finished run gives them (Lee 2013), one teacher a fold.

Fold 3's student learns from fold 3's teacher alone. That teacher never saw fold 3's validation rows, so they stay unseen
in every generation; labels from the mean of all folds' models would carry them into training, and flatter OOF.
"""

import json

import pandas as pd

from src.competitions.predictions import Predictions
from src.config import Config
from src.data.prepare import Prepared
from src.errors import UserError, command
from src.files import sha256
from src.training.run import Run

PREFIX = "pseudo:"  # of their ids: Redux's test rows 1, 2, … must not meet training rows of the same name


def taught_rows(teacher: Run, config: Config, fold: str, prepared: Prepared, folds_sha256: str) -> pd.DataFrame:
    """id, path, label, group of the test rows of whose label the fold's teacher is sure enough; none of them validates.

    Raises UserError where the teacher has no such fold or no test predictions, or learned from other folds than these.
    """
    key = "train.pseudo_labels"
    file = teacher.fold(fold) / "test.npz"
    if not file.is_file():
        raise UserError(
            f"{key}: {file} is not there; train fold {fold} of that run, then {command('predict.py', teacher.path)}"
        )
    if sha256(teacher.folds_csv()) != folds_sha256:
        raise UserError(f"{key}: {teacher.path} has other folds: its models may have seen the rows that validate here")
    if prepared.test is None:
        raise UserError(f"{key}: {prepared.root} has no test rows")
    predicted = Predictions.load(file)
    if predicted.classes != prepared.classes:
        raise UserError(f"{key}: {teacher.path} has other classes, or another order of them")
    record = file.with_name("predicted.json")
    known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    unseen = prepared.test["id"].isin(known.get("unseen", []))  # test.npz may have the classes' shares for them: no label
    found = prepared.test[prepared.test["found"] & ~unseen].set_index("id")
    probabilities = predicted.of(found.index.to_numpy(dtype=str)).probabilities()
    sure = probabilities.max(axis=1) >= config.train.pseudo_confidence
    labels = [predicted.classes[guess] for guess in probabilities[sure].argmax(axis=1)]
    ids = PREFIX + found.index[sure].to_series()
    return pd.DataFrame({"id": ids.to_numpy(), "path": found["path"][sure].to_numpy(), "label": labels, "group": ""})
