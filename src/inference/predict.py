"""From a run's models to a submission: every fold's model over the test rows, their mean, the file that Kaggle takes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from src.competitions.predictions import Predictions, mean
from src.competitions.tables import shorten
from src.config import Config
from src.data import folds, prepare
from src.data.loader import ordered_loader
from src.errors import UserError
from src.inference import submission
from src.models import backbone
from src.models.folding import fold_norms
from src.training import evaluation, tracking
from src.training.device import autocast, choose_device, choose_precision
from src.training.run import Run, cross_validation


def predict_run(run: Run, config: Config, partial: bool, said: Callable[[str], None] = print) -> Path:
    """Write test.npz and oof_tta.npz of every trained fold, and submissions/NAME.csv from their mean; returns its path.

    partial: leave out test rows without an image, instead of refusing, and say so in the file's name.
    Raises UserError where a model isn't the run's own, test images are missing, or the submission would not be valid.
    """
    trained = run.trained_folds()
    if not trained:
        raise UserError(f"{run.path} has no trained fold; `python train.py --name {run.name} --fold all` trains them")
    _check_models(run, config, trained)
    for fold in trained:
        if run.epochs_done(fold) < config.train.epochs:
            said(f"fold {fold} is not finished: {max(0, run.epochs_done(fold))} of {config.train.epochs} epochs")
    prepared = prepare.prepare(config, said)
    test = _test_rows(prepared, partial)
    views = views_of(config)
    said(f"{run.path}: folds {', '.join(trained)}; views: {', '.join(views)}; {len(test):,} test rows")
    device = choose_device(config.train.device)
    parts = [_predict_fold(run, config, fold, prepared, test, views, device) for fold in trained]
    tested = mean(parts)
    name = f"{run.name}.partial.csv" if partial else f"{run.name}.csv"
    path = Path("submissions") / name
    submission.write(submission.make(config.competition, tested), path, config.competition, tested.classes, test["id"].tolist())
    _say_scores(run, config, prepared, tested, path, partial, views, said)
    return path


def views_of(config: Config) -> tuple[str, ...]:
    """The picture itself, and under TTA the views that the competition declares label-preserving."""
    return ("identity", *(config.competition.label_preserving if config.predict.tta == "auto" else ()))


def _check_models(run: Run, config: Config, trained: list[str]) -> None:
    """The run's models are of this competition, agree on the classes, and belong to the run's folds.csv."""
    cards = {fold: backbone.read_card(run.fold(fold) / "model.safetensors") for fold in trained}
    digest = folds.sha256(run.folds_csv()) if run.folds_csv().is_file() else "absent"
    first = next(iter(cards.values()))
    for fold, card in cards.items():
        file = run.fold(fold) / "model.safetensors"
        if card.competition != config.competition.name:
            raise UserError(f"{file} was trained for {card.competition}, not {config.competition.name}")
        if card.classes != first.classes or (config.competition.classes and card.classes != config.competition.classes):
            raise UserError(f"{file} has other classes ({shorten(card.classes)}) than the run ({shorten(first.classes)})")
        if card.folds_sha256 != digest:
            raise UserError(
                f"{run.folds_csv()} was changed after fold {fold} was trained (sha256 {digest[:12]}, the model has "
                f"{card.folds_sha256[:12]}): its out-of-fold rows can't be trusted; restore the file, or train the fold anew"
            )


def _test_rows(prepared: prepare.Prepared, partial: bool) -> pd.DataFrame:
    if prepared.test is None:
        raise UserError(f"{prepared.root}: no test rows to predict: {prepared.notes[-1]}")
    found = prepared.test["found"]
    if not found.all() and not partial:
        first = prepared.test["path"][~found].iloc[0]
        raise UserError(
            f"{(~found).sum():,} of {len(found):,} test rows have no image, the first is {prepared.root / first}: "
            f"Kaggle would refuse a submission without them; --partial writes one of the {found.sum():,} that have"
        )
    if not found.any():
        raise UserError(f"{prepared.root}: none of the {len(found):,} test rows has an image")
    return prepared.test[found].reset_index(drop=True)


def _predict_fold(
    run: Run,
    config: Config,
    fold: str,
    prepared: prepare.Prepared,
    test: pd.DataFrame,
    views: tuple[str, ...],
    device: torch.device,
) -> Predictions:
    folder = run.fold(fold)
    model, card = backbone.load(folder / "model.safetensors", device)
    memory = torch.channels_last if config.train.channels_last else torch.contiguous_format
    model = fold_norms(model.to(memory_format=memory), card.input.size)
    dtype, _ = choose_precision(config.train, device)

    def over(rows: pd.DataFrame, title: str) -> Predictions:
        loader = ordered_loader(prepared.root, rows, card.input.size, card.resize, config, device)
        logits = evaluation.predict(
            model,
            loader,
            card.input,
            device,
            autocast(device, dtype),
            views,
            config.train.channels_last,
            f"fold {fold}  {title}",
        )
        return Predictions(rows["id"].to_numpy(dtype=str), logits, card.classes)

    if (folder / "oof.npz").is_file():
        if views == ("identity",):
            shutil.copyfile(folder / "oof.npz", folder / "oof_tta.npz")
        else:
            over(_held_out(run, fold, prepared), "out-of-fold rows").save(folder / "oof_tta.npz")
    tested = over(test, "test rows")
    tested.save(folder / "test.npz")
    return tested


def _held_out(run: Run, fold: str, prepared: prepare.Prepared) -> pd.DataFrame:
    """id and path of the fold's validation rows, in the order of oof.npz."""
    ids = Predictions.load(run.fold(fold) / "oof.npz").ids.tolist()
    known = prepared.train.set_index("id")
    lost = [id for id in ids if id not in known.index or not known.at[id, "found"]]
    if lost:
        raise UserError(
            f"{prepared.root}: {len(lost):,} of the {len(ids):,} validation rows of fold {fold} have no image, "
            f"the first is {lost[0]!r}"
        )
    return pd.DataFrame({"id": ids, "path": known["path"].reindex(ids).to_numpy()})


def _say_scores(
    run: Run,
    config: Config,
    prepared: prepare.Prepared,
    tested: Predictions,
    path: Path,
    partial: bool,
    views: tuple[str, ...],
    said: Callable[[str], None],
) -> None:
    metric = config.competition.metric
    before, cv = cross_validation(run, metric), cross_validation(run, metric, "oof_tta.npz")
    tracker = tracking.track(config, run.name, "cv", run.path, None, said)
    if before is not None and cv is not None:
        if len(views) > 1:
            said(f"OOF without TTA {before}")
        said(f"OOF {cv}")
        tracker.summarize(before.summary() | {f"oof_tta_{metric}": cv.oof})
    share = "the test rows that have an image" if partial else "every test row, in the sample's order"
    said(f"{path}: {len(tested.ids):,} rows, {share}{'; PARTIAL: Kaggle would refuse it' if partial else '; valid'}")
    tracker.log_artifact(f"{run.name}-submission", "submission", [path])
    solution = prepared.root / config.competition.solution_csv if config.competition.solution_csv else None
    if solution is not None and solution.is_file() and not partial:
        value, rows = submission.score(config.competition, tested, solution)
        said(f"test {metric} {value:.4f} (n={rows})")
        tracker.summarize({f"test_{metric}": value})
    tracker.finish()
