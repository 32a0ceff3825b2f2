"""A run is a folder, readable years later without this code: runs/NAME with its configuration, folds and one folder a fold."""

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src import config as configuration
from src.competitions import metrics
from src.competitions.predictions import Predictions, concatenate
from src.competitions.tables import class_indices, shorten
from src.config import REPOSITORY, Config
from src.data import folds
from src.errors import UserError
from src.files import clean_name, locked, replacing, sha256

FOLD = re.compile(r"fold-(0|[1-9][0-9]?|full|mean)")  # mean: an ensemble's; "fold-0 (copy)" and "fold-00" are none of ours
HISTORY = ("seconds", "img_per_s", "memory_gb")  # what is read of history.csv beside the epoch
PACKAGES = ("torch", "torchvision", "timm", "albumentations", "opencv-python-headless", "scikit-learn", "numpy", "pandas")


@dataclass(frozen=True)
class Run:
    """runs/NAME. Nothing is created before `join`."""

    path: Path

    @property
    def name(self) -> str:
        return os.path.basename(os.path.abspath(self.path))  # of "." and "runs/A/..", too

    def fold(self, fold: str) -> Path:
        return self.path / f"fold-{fold}"

    def trained_folds(self) -> list[str]:
        """The folds that have a model: "0", "1", …, and "full" last."""
        return self.folds_with("model.safetensors")

    def folds_with(self, file: str) -> list[str]:
        """The folds that have this file: "0", "1", …, and "full" last."""
        found = [path.parent.name for path in self.path.glob(f"fold-*/{file}") if path.is_file()]
        folds = [name.removeprefix("fold-") for name in found if FOLD.fullmatch(name)]
        return sorted(folds, key=lambda fold: (not fold.isdigit(), fold.zfill(4)))

    def has_begun(self, fold: str) -> bool:
        return any((self.fold(fold) / file).exists() for file in ("last.pt", "model.safetensors"))

    def epochs_done(self, fold: str) -> int:
        """How many epochs of a fold are in its history.csv, where there is a model of them; -1: none."""
        if any(not (self.fold(fold) / file).is_file() for file in ("history.csv", "model.safetensors")):
            return -1
        return int(self.history(fold)["epoch"].max())

    def history(self, fold: str) -> pd.DataFrame:
        """A fold's history.csv, a row an epoch, all numbers. Raises UserError where it was damaged."""
        file = self.fold(fold) / "history.csv"
        remedy = "delete it, and `python train.py` with --resume writes it anew from last.pt"
        try:
            table = pd.read_csv(file)
            if "epoch" not in table.columns or table.empty:
                raise ValueError("it has no rows" if "epoch" in table.columns else "it has no column 'epoch'")
            more = [column for column in HISTORY if column not in table.columns]  # of another version: not known
            table = table.astype(float).assign(**dict.fromkeys(more, float("nan")))
            if not (np.isfinite(table["epoch"]) & (table["epoch"] >= 0) & (table["epoch"] % 1 == 0)).all():
                raise ValueError("an epoch is not a whole number")
        except (ValueError, RecursionError) as error:  # pandas' own for a damaged file are ValueErrors
            raise UserError(f"{file}: not a readable history ({' '.join(str(error).split())}); {remedy}") from None
        return table.astype({"epoch": np.int64})

    def folds_csv(self) -> Path:
        return self.path / "folds.csv"

    def join(self, config: Config, table: pd.DataFrame, device: str) -> str:
        """Create the run, or join it with a further fold; returns the sha256 of its folds.csv.

        Raises UserError where the run has another configuration, with the differences, or other rows and folds.
        """
        with locked(self.path, patience=60):  # folds that start at the same time, each in a process of its own
            return self._join(config, table, device)

    def _join(self, config: Config, table: pd.DataFrame, device: str) -> str:
        if not (self.path / "config.yaml").is_file():
            digest = folds.write_folds(table, self.folds_csv())
            _write(self.path / "config.yaml", configuration.dump(config, made_with=_made_with(device)))
            return digest
        changed = configuration.differences(configuration.load_run(self.path).identity(), config.identity())
        if changed:
            raise UserError(
                f"{self.path} was trained with another configuration ({'; '.join(changed)}); --name NAME starts another run"
            )
        was = folds.read_folds(self.folds_csv())
        if not was.equals(table[folds.COLUMNS]):
            same = was["id"].tolist() == table["id"].tolist()
            relabelled = same and not was["label"].equals(table["label"])
            what = (
                "rows have other labels, or the same spelt otherwise"
                if relabelled
                else "the rows are in other folds"
                if same
                else f"it has {len(was):,} rows, the data now {len(table):,}, or other ids"
            )
            raise UserError(f"{self.folds_csv()} is not what the data gives now: {what}; --name NAME starts another run")
        return sha256(self.folds_csv())

    def oof(self, file: str = "oof.npz") -> dict[str, Predictions]:
        """The out-of-fold predictions of every fold that has them, with its model. Raises UserError as `predictions`."""
        trained = set(self.trained_folds())
        return {fold: part for fold, part in self.predictions(file).items() if fold in trained}

    def predictions(self, file: str) -> dict[str, Predictions]:
        """Of each fold that has this file. Raises UserError for a damaged one, and for one that doesn't fit the others."""
        parts: dict[str, Predictions] = {}
        owner: dict[str, str] = {}  # of each id, the fold
        for fold in self.folds_with(file):
            part = parts[fold] = Predictions.load(path := self.fold(fold) / file)
            first = next(iter(parts))
            if part.classes != parts[first].classes:
                what = f"other classes ({shorten(part.classes)}) than fold {first} ({shorten(parts[first].classes)})"
                raise UserError(f"{path}: it has {what}; remove it and make it again")
            if file == "test.npz":
                continue
            if twice := [id for id in part.ids.tolist() if id in owner]:
                what = f"{twice[0]!r}, which fold {owner[twice[0]]} holds, too"
                raise UserError(f"{path}: it holds {what}; remove it and make it again")
            owner |= dict.fromkeys(part.ids.tolist(), fold)
        return parts

    def labels(self, ids: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
        """(n,) int64: the class indices of these ids in the run's folds.csv. Raises UserError for an id that is not in it."""
        known = folds.read_folds(self.folds_csv()).set_index("id")["label"].reindex(ids)
        if known.isna().any():
            raise UserError(
                f"{self.folds_csv()}: {known.isna().sum():,} of the {len(ids):,} predicted rows are not in it, the first is "
                f"{str(known.index[known.isna()][0])!r}: restore the file, or train the run anew"
            )
        return class_indices(known, classes, self.folds_csv())


@dataclass(frozen=True)
class CrossValidation:
    """A metric over the folds: of each fold, and of all out-of-fold rows together."""

    metric: str
    folds: dict[str, float]
    oof: float
    rows: int

    def covers(self, folds: Set[str], rows: int) -> bool:
        """Whether it may be compared with scores of these folds and so many rows: a fold may have lost its oof.npz."""
        return self.folds.keys() == folds and self.rows == rows

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.folds.values())))

    @property
    def sd(self) -> float:
        """Over folds, ddof 1; NaN for a single fold."""
        return float(np.std(list(self.folds.values()), ddof=1)) if len(self.folds) > 1 else float("nan")

    def summary(self) -> dict[str, float]:
        """The experiment's row on the dashboard, by which people compare."""
        values = {f"oof_{self.metric}": self.oof, f"cv_{self.metric}_mean": self.mean, f"cv_{self.metric}_sd": self.sd}
        return {name: value for name, value in values.items() if not np.isnan(value)} | {"folds": len(self.folds)}

    def __str__(self) -> str:
        spread = f"{self.mean:.4f} ± {self.sd:.4f} over {len(self.folds)} folds" if len(self.folds) > 1 else "one fold"
        return f"{self.metric} {self.oof:.4f} (n={self.rows:,}; {spread})"


def cross_validation(run: Run, metric: str, file: str = "oof.npz") -> CrossValidation | None:
    """The metric of a run's out-of-fold predictions; None where no fold has any, or the folds' are under different views."""
    parts = run.oof(file)
    if not parts or len({part.views for part in parts.values()}) > 1:
        return None
    every = concatenate(list(parts.values()))
    each = {fold: metrics.score(metric, run.labels(p.ids, p.classes), p.probabilities()) for fold, p in parts.items()}
    whole = metrics.score(metric, run.labels(every.ids, every.classes), every.probabilities())
    return CrossValidation(metric, each, whole, len(every.ids))


def or_dash(value: float, digits: int) -> str:
    """A table's cell: the number, or a dash where there is none."""
    return f"{value:.{digits}f}" if value == value else "—"


def default_name(config_path: Path, config: Config, debug: bool) -> str:
    """dogs_vs_cats-resnet50 for configs/dogs_vs_cats/resnet50.yaml, and a hash of what the command line changed."""
    parts = [config_path.parent.name, config_path.stem] if config_path.parent.parent.name == "configs" else [config_path.stem]
    if config_path.name == "config.yaml":  # a run's own: the run is repeated
        parts = [config_path.resolve().parent.name, "again"]
    digest = config.digest(configuration.load(config_path))
    return "-".join([clean_name("-".join(parts)[:80]), *([digest] if digest else []), *(["debug"] if debug else [])])


def _made_with(device: str) -> dict[str, str]:
    versions = {name: _version(name) for name in PACKAGES}
    return {"commit": _commit(), "device": device, "python": platform.python_version(), **versions}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # Kaggle's image has OpenCV under another name
        return "absent"


def _commit() -> str:
    """The checkout's commit, marked where files differ from it; "unknown" outside git."""
    try:
        git = ["git", "-C", str(REPOSITORY)]
        commit = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], text=True, capture_output=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], text=True, capture_output=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with changes" if dirty else commit


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
