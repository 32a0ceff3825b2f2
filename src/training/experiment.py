"""train.py's work: prepare the data, split it, train the folds asked for, and sum them up."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from src.competitions.tables import shorten
from src.config import FULL, Config
from src.cores import cores
from src.data import folds, prepare
from src.errors import UserError
from src.models import backbone
from src.training import batch_range, pictures, pseudo, tracking
from src.training.clock import Clock
from src.training.device import choose_device, choose_precision, describe
from src.training.fold import FoldData, train_fold, trial
from src.training.processes import join, only_first
from src.training.run import CrossValidation, Run, cross_validation, or_dash
from src.training.training import Training


@dataclass(frozen=True)
class Plan:
    """What the first process found, for all of them: the data, its folds, and which of them are to be trained."""

    prepared: prepare.Prepared
    rows: pd.DataFrame
    table: pd.DataFrame
    folds_sha256: str
    wanted: list[str]
    seen: pd.Series = field(default_factory=lambda: pd.Series(dtype=object))  # digest of each row's picture, by id


def train(
    run: Run, config: Config, wanted: list[str], resume: bool, overwrite: bool, said: Callable[[str], None] = print
) -> None:
    """Train the folds `wanted` ("0", "2", "full") and print the run's table; under torchrun, in all its processes.

    Raises UserError before any data is touched for a model that can't be made or doesn't fit its images.
    """
    clock = Clock(config.train)
    device = choose_device(config.train.device)
    dtype, why = choose_precision(config.train, device)
    processes = join(device)
    if processes.restarted:
        resume, overwrite = True, False
    said = only_first(said, processes)
    plan = processes.from_first(lambda: _plan(run, config, wanted, resume, overwrite, device, said))
    many = f" in each of {processes.count} processes" if processes.count > 1 else ""
    said(f"{run.path}: {config.model.name} on {describe(device)}{many}; {str(dtype).removeprefix('torch.')}: {why}")
    workers, at_hand = config.data.workers or 0, len(cores())
    if workers > at_hand:
        said(f"data.workers: {workers} on {at_hand} cores: they take turns, and load no faster than {at_hand}")
    for fold in plan.wanted:
        data = _fold_data(plan, config, fold, said)
        train_fold(run, config, fold, data, plan.folds_sha256, resume, said, clock, processes, overwrite)
    if processes.first:
        _sum_up(run, config, said)


def find_lr(run: Run, config: Config, fold: str, said: Callable[[str], None] = print) -> None:
    """--find-lr: the loss at rising learning rates as a picture in the run's folder, and what it suggests."""
    from src.training import lr_curve, lr_range  # matplotlib takes most of a second to import

    training, loader, labels = _trial(run, config, fold, said)
    curve = lr_range.find_lr(training, loader, labels)
    lr_curve.draw(curve, run.path / "lr.png")
    said(lr_curve.summary(curve, run.path / "lr.png"))


def find_batch(run: Run, config: Config, fold: str, said: Callable[[str], None] = print) -> None:
    """--find-batch: the largest batch that fits the GPU, and from which size on a larger one is no faster."""
    batch_range.check_gpu(choose_device(config.train.device))
    training, _, labels = _trial(run, config, fold, said)
    said(batch_range.summary(batch_range.find_batch(training, labels, said), config.train))


def _trial(run: Run, config: Config, fold: str, said: Callable[[str], None]) -> tuple[Training, DataLoader, torch.Tensor]:
    if config.train.epochs == 0:
        raise UserError("train.epochs: 0 trains nothing, so there is no learning rate and no batch to find")
    _check_model(config)
    prepared = prepare.audited(config, prepare.prepare(config, said), said)
    rows = prepare.training_rows(config, prepared)
    table = folds.make_folds(rows, config.data.folds, config.data.seed)
    return trial(
        run,
        config,
        fold,
        _fold_data(Plan(prepared, rows, table, "", [fold]), config, fold, said),
        said,
    )


def _plan(
    run: Run,
    config: Config,
    wanted: list[str],
    resume: bool,
    overwrite: bool,
    device: torch.device,
    said: Callable[[str], None],
) -> Plan:
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
    still = _still_to_train(run, wanted, config, resume, overwrite, said)
    anew = overwrite and all(fold in wanted for fold in run.trained_folds() + run.folds_with("last.pt"))
    seen = pictures.look(prepared.root, config.competition, _all_rows(config, prepared, rows))
    pictures.join(run, seen, anew, said)
    return Plan(prepared, rows, table, digest, still, seen)


def _all_rows(config: Config, prepared: prepare.Prepared, rows: pd.DataFrame) -> pd.DataFrame:
    """id and path of all that any fold may learn from: with pseudo-labels the test rows, too."""
    if config.train.pseudo_labels is None or prepared.test is None:
        return rows
    test = prepared.test[prepared.test["found"]]
    return pd.concat([rows, test.assign(id=pseudo.PREFIX + test["id"])], ignore_index=True)


def _check_model(config: Config) -> None:
    """Make the model once, before any data is touched; where no classes are configured yet, with two of them."""
    config.views()
    model, _ = backbone.create(config.model, len(config.competition.classes) or 2, config.train.seed)
    for size in config.train.image_sizes:
        backbone.check_other_size(model, config.model.name, size, "train.image_sizes")
    if config.model.test_size is not None:
        backbone.check_other_size(model, config.model.name, config.model.test_size, "model.test_size")


def _fold_data(plan: Plan, config: Config, fold: str, said: Callable[[str], None]) -> FoldData:
    held_out = plan.table["fold"].to_numpy() == (-1 if fold == FULL else int(fold))
    train, validation = plan.rows[~held_out].reset_index(drop=True), plan.rows[held_out].reset_index(drop=True)
    if config.train.pseudo_labels is not None:
        taught = pseudo.taught_rows(Run(Path(config.train.pseudo_labels)), config, fold, plan.prepared, plan.folds_sha256)
        said(f"fold {fold}: {len(taught):,} test rows with pseudo-labels join its {len(train):,} training rows")
        train = pd.concat([train, taught], ignore_index=True)
    ids = pd.concat([train["id"], validation["id"]])
    seen = pictures.digest(plan.seen.reindex(ids, fill_value=b""))
    return FoldData(plan.prepared.root, plan.prepared.classes, train, validation, plan.rows["path"].tolist(), seen)


def _still_to_train(
    run: Run, wanted: list[str], config: Config, resume: bool, overwrite: bool, said: Callable[[str], None]
) -> list[str]:
    """The folds left to train: with --resume those not finished; without it, none may have begun unless --overwrite."""
    if overwrite:
        return wanted
    begun = [fold for fold in wanted if run.has_begun(fold)]
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
    with_tta = cross_validation(run, config.competition.metric, "oof_tta.npz")
    if with_tta is not None and with_tta.rows == cv.rows:
        said(f"OOF with TTA {with_tta}")
    tracker = tracking.track(config, run.name, "cv", run.path, None, said)
    tracker.summarize(cv.summary())
    tracker.finish()


def _print_table(run: Run, cv: CrossValidation) -> None:
    table = Table(title=run.name, title_justify="left")
    histories = {fold: run.history(fold) for fold in cv.folds}
    for heading in ("fold", cv.metric, "epochs", "minutes", "img/s", "GB"):
        table.add_column(heading, justify="right")
    for fold, value in cv.folds.items():
        history = histories[fold]
        table.add_row(
            fold, f"{value:.4f}", str(history["epoch"].max()), f"{history['seconds'].sum() / 60:.1f}",
            or_dash(history["img_per_s"].median(), 0), or_dash(history["memory_gb"].max(), 1),
        )  # fmt: skip
    Console(soft_wrap=True).print(table)
