"""Runs that nobody trained: a folder with a configuration, folds and given out-of-fold predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src import config as configuration
from src.competitions.predictions import Predictions
from src.report import oof
from src.report.oof import Oof


def write_run(
    path: Path, labels: Sequence[int], logits: np.ndarray, ids: Sequence[str] | None = None, file: str = "oof.npz",
    folds: int = 2, competition: dict | None = None, root: str = "nowhere", **knobs: dict,
) -> Path:  # fmt: skip
    """runs/NAME of rows row0, row1, … in `folds` folds in turn; logits: (n, classes); competition: changes to dogs_vs_cats."""
    fields = configuration.built_in("dogs_vs_cats").model_dump() | (competition or {})
    tree = {"competition": fields, "data": {"root": root}, "tracking": {"mode": "disabled"}} | knobs
    config = configuration.validate(tree, {})
    classes = config.competition.classes
    names = np.array([f"row{i}" for i in range(len(labels))] if ids is None else ids)
    fold = np.arange(len(labels)) % folds
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(configuration.dump(config))
    table = pd.DataFrame({"id": names, "label": [classes[k] for k in labels], "group": "", "fold": fold})
    table.to_csv(path / "folds.csv", index=False)
    for k in range(folds):
        (path / f"fold-{k}").mkdir(exist_ok=True)
        Predictions(names[fold == k], np.asarray(logits, np.float32)[fold == k], classes).save(path / f"fold-{k}" / file)
    return path


def written(path: Path, labels: Sequence[int], logits: np.ndarray, **given: object) -> Oof:
    """The same, read back."""
    return oof.read(write_run(path, labels, logits, **given))
