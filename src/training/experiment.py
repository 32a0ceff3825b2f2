"""train.py's work: prepare the data, split it, train the folds asked for, and sum them up."""

import shutil
from collections.abc import Callable

import pandas as pd
from rich.console import Console
from rich.table import Table

from src.competitions.tables import shorten
from src.config import FULL, Config
from src.data import folds, prepare
from src.errors import UserError
from src.models import backbone
from src.training import tracking
from src.training.clock import Clock
from src.training.device import choose_device, choose_precision, describe
from src.training.fold import FoldData, train_fold
from src.training.run import CrossValidation, Run, cross_validation, or_dash


def train(
    run: Run, config: Config, wanted: list[str], resume: bool, overwrite: bool, said: Callable[[str], None] = print
) -> None:
    """Train the folds `wanted` ("0", "2", "full") and print the run's table.

    Raises UserError before any data is touched for a model that can't be made or doesn't fit its images.
    """
    clock = Clock(config.train)
    device = choose_device(config.train.device)
    dtype, why = choose_precision(config.train, device)
    _check_model(config)
    prepared = prepare.audited(config, prepare.prepare(config, said), said)
    for note in prepared.notes:
        said(note)
    rows = prepare.training_rows(config, prepared)
    if len(rows) < len(prepared.train):
        said(f"training on {len(rows):,} of the {len(prepared.train):,} rows")
    table = folds.make_folds(rows, config.data.folds, config.data.seed)
    prepare.write_competition_folds(config, prepared, table)
    digest = run.join(config, table, describe(device))
    said(f"{run.path}: {config.model.name} on {describe(device)}; {str(dtype).removeprefix('torch.')}: {why}")
    for fold in _still_to_train(run, wanted, config, resume, overwrite, said):
        train_fold(run, config, fold, _fold_data(prepared, rows, table, fold), digest, resume, said, clock)
    _sum_up(run, config, said)


def _check_model(config: Config) -> None:
    """Make the model once, before any data is touched; where no classes are configured yet, with two of them."""
    backbone.create(config.model, len(config.competition.classes) or 2, config.train.seed)


def _fold_data(prepared: prepare.Prepared, rows: pd.DataFrame, table: pd.DataFrame, fold: str) -> FoldData:
    held_out = table["fold"].to_numpy() == (-1 if fold == FULL else int(fold))
    train, validation = rows[~held_out].reset_index(drop=True), rows[held_out].reset_index(drop=True)
    return FoldData(prepared.root, prepared.classes, train, validation)


def _still_to_train(
    run: Run, wanted: list[str], config: Config, resume: bool, overwrite: bool, said: Callable[[str], None]
) -> list[str]:
    """The folds left to train: with --resume those not finished; without it, none may have begun unless --overwrite."""
    begun = [
        fold for fold in wanted if (run.fold(fold) / "last.pt").exists() or (run.fold(fold) / "model.safetensors").exists()
    ]
    if overwrite:
        for fold in begun:
            shutil.rmtree(run.fold(fold))
        return wanted
    finished = [fold for fold in begun if run.epochs_done(fold) >= config.train.epochs]
    if begun and not resume:
        state = "trained already" if set(begun) == set(finished) else "begun"
        raise UserError(
            f"fold {shorten(begun)} of {run.path} is {state}: --resume goes on with what is unfinished, "
            "--overwrite trains anew, --name NAME starts another run"
        )
    for fold in finished:
        said(f"fold {fold}: finished already")
    return [fold for fold in wanted if fold not in finished]


def _sum_up(run: Run, config: Config, said: Callable[[str], None]) -> None:
    """The table of folds and the CV score, on the terminal and as the experiment's own row on the dashboard."""
    cv = cross_validation(run, config.competition.metric)
    if cv is None:
        said(f"{run.path}: trained on all rows, so there is no CV score; `python predict.py {run.path}` predicts the test rows")
        return
    _print_table(run, cv)
    said(f"OOF {cv}")
    tracker = tracking.track(config, run.name, "cv", run.path, None, said)
    tracker.summarize(cv.summary())
    tracker.finish()


def _print_table(run: Run, cv: CrossValidation) -> None:
    table = Table(title=run.name, title_justify="left")
    histories = {fold: pd.read_csv(run.fold(fold) / "history.csv") for fold in cv.folds}
    for heading in ("fold", cv.metric, "epochs", "minutes", "img/s", "GB"):
        table.add_column(heading, justify="right")
    for fold, value in cv.folds.items():
        history = histories[fold]
        table.add_row(
            fold, f"{value:.4f}", str(history["epoch"].max()), f"{history['seconds'].sum() / 60:.1f}",
            or_dash(history["img_per_s"].median(), 0), or_dash(history["memory_gb"].max(), 1),
        )  # fmt: skip
    Console(soft_wrap=True).print(table)
