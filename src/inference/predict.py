"""From a run's models to a submission: every fold's model over the test rows, their mean, the file that Kaggle takes."""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from src.competitions.predictions import Predictions, mean
from src.competitions.tables import class_indices, shorten
from src.config import Config
from src.cores import cores
from src.data import folds, prepare
from src.data.digests import digests
from src.errors import UserError, command
from src.files import replacing, sha256
from src.inference import check, ledger, paired, plausibility, submission, tta, unseen
from src.inference.members import Member, read_predicted
from src.inference.tta import Tta
from src.inference.unseen import RowsToPredict
from src.models import backbone
from src.models.folding import load_folded
from src.training import pictures, tracking
from src.training.device import choose_device
from src.training.run import CrossValidation, Run, cross_validation
from src.views import IDENTITY

REMEDY = "--partial writes one of the other {:,}; --predict.unreadable prior hands in the classes' shares for them"


@dataclass(frozen=True)
class Plan:
    """What is predicted, and how."""

    run: Run
    config: Config
    prepared: prepare.Prepared
    test: RowsToPredict
    tta: Tta
    device: torch.device


def predict_run(run: Run, config: Config, partial: bool, said: Callable[[str], None] = print) -> Path:
    """Write test.npz and oof_tta.npz of every trained fold, and submissions/NAME.csv from their mean; returns its path.

    A fold that an earlier call predicted with the same model, views and test rows is not done again.
    partial: leave out test rows without an image that can be read, and say so in the file's name; otherwise
    predict.unreadable decides. Raises UserError where a model isn't the run's own, test images are missing or unreadable,
    or the submission would not be valid.
    """
    views = tta.choose(config)
    trained = run.trained_folds()
    if not trained and Member(run.path).is_ensemble:
        raise UserError(f"{run.path} is an ensemble, which ensemble.py makes and predicts: {Member(run.path).command()}")
    if not trained:
        raise UserError(
            f"{run.path} has no trained fold; {command('train.py', '--name', run.name, '--fold', 'all')} trains them"
        )
    check_models(run, config, trained)
    for fold in trained:
        if run.epochs_done(fold) < config.train.epochs:
            said(f"fold {fold} is not finished: {max(0, run.epochs_done(fold))} of {config.train.epochs} epochs")
    prepared = prepare.prepare(config, said)
    if prepared.test is None:
        raise UserError(f"{prepared.root}: no test rows to predict: {prepared.notes[-1]}")
    card = backbone.read_card(run.fold(trained[0]) / "model.safetensors")
    test = unseen.look(prepared.root, prepared.test, views.form(card), config, REMEDY, partial)
    names = ", ".join(map(str, views.views))
    said(f"{run.path}: folds {', '.join(trained)}; views: {names}; {len(test.seen):,} test rows")
    plan = Plan(run, config, prepared, test, views, choose_device(config.train.device))
    tested = mean([_predict_fold(plan, fold, said) for fold in trained])
    tested = submission.in_todays_terms(tested, prepared.classes)
    path = Path("submissions") / (f"{run.name}.partial.csv" if partial else f"{run.name}.csv")
    table = submission.make(config.competition, tested)
    submission.write(table, path, config.competition, tested.classes, tested.ids.tolist())
    cv = cross_validation(run, config.competition.metric, "oof_tta.npz")
    if not partial:
        _enter(plan, trained, table, path, cv, said)
    _say_scores(plan, tested, path, partial, cv, said)
    return path


def check_models(run: Run, config: Config, trained: list[str]) -> None:
    """The run's models are of this competition, agree on the classes, and belong to the run's folds.csv."""
    cards = {fold: backbone.read_card(run.fold(fold) / "model.safetensors") for fold in trained}
    digest = sha256(run.folds_csv()) if run.folds_csv().is_file() else "absent"
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


def _predict_fold(plan: Plan, fold: str, said: Callable[[str], None]) -> Predictions:
    """The fold's test rows; oof_tta.npz and test.npz are written, and last predicted.json, which says of what they are."""
    folder, config, rows = plan.run.fold(fold), plan.config, plan.test
    held_out = _held_out(plan, fold) if (folder / "oof.npz").is_file() else None
    made_of = _made_of(plan, fold)
    if _is_predicted(folder, made_of):
        said(f"fold {fold}: predicted already")
        return Predictions.load(folder / "test.npz")
    done = folder / "predicted.json"
    done.unlink(missing_ok=True)
    model, card = load_folded(folder / "model.safetensors", plan.device, config.train.channels_last)

    def over(rows: pd.DataFrame, title: str) -> np.ndarray:
        return plan.tta.over(model, card, config, plan.prepared.root, rows, plan.device, f"fold {fold}  {title}")

    def save(predictions: Predictions, name: str) -> Predictions:
        predictions = replace(predictions, views=str(plan.tta), model=made_of["model_sha256"])
        predictions.save(folder / name)
        return predictions

    scores: dict[str, float] = {}
    if held_out is not None and plan.tta.views == (IDENTITY,):
        save(Predictions.load(folder / "oof.npz"), "oof_tta.npz")
    elif held_out is not None:
        logits = over(held_out, "out-of-fold rows")
        save(plan.tta.averaged(held_out["id"].to_numpy(dtype=str), logits, card.classes), "oof_tta.npz")
        labels = class_indices(held_out["label"], card.classes)
        scores = tta.view_scores(plan.tta, config.competition.metric, labels, logits, card.classes)
    tested = plan.tta.averaged(rows.seen["id"].to_numpy(dtype=str), over(rows.seen, "test rows"), card.classes)
    shares = unseen.shares(folds.read_folds(plan.run.folds_csv())["label"], card.classes)
    tested = save(rows.complete(tested, shares), "test.npz")
    with replacing(done) as partial:
        partial.write_text(json.dumps(made_of | {"views": scores}, indent=1), encoding="utf-8")
    return tested


def _made_of(plan: Plan, fold: str) -> dict[str, Any]:
    """All that decides a fold's predictions: the model's bytes, the views, the rows with their images' bytes.

    unseen: ids of the test rows without a picture: the classes' shares stand for them in test.npz, or nothing does.
    """
    model = sha256(plan.run.fold(fold) / "model.safetensors")
    rows, seen = hashlib.sha256(), plan.test.seen
    folder = prepare.beside(plan.prepared.root, plan.config.competition)
    workers = len(cores()) if plan.config.data.workers is None else plan.config.data.workers
    held = digests(plan.prepared.root, seen["path"].tolist(), folder, workers)
    for id, path, digest in zip(seen["id"], seen["path"], held, strict=True):
        rows.update(f"{id}\0{path}\0{digest.decode()}\n".encode())
    rows.update("".join(f"{id}\0prior\n" for id in plan.test.prior).encode())
    unseen_ids = [*plan.test.prior.tolist(), *plan.test.left_out.tolist()]
    views = {"tta": ", ".join(map(str, plan.tta.views)), "mean": plan.tta.mean}
    return {"model_sha256": model, **views, "rows": rows.hexdigest(), "unseen": unseen_ids}


def _is_predicted(folder: Path, made_of: dict[str, Any]) -> bool:
    """Whether an earlier call predicted the fold from the very same, and all of its files are still there."""
    known = _read(folder / "predicted.json")
    wanted = ["test.npz", *(["oof_tta.npz"] if (folder / "oof.npz").is_file() else [])]
    return known == made_of | {"views": known.get("views")} and all((folder / name).is_file() for name in wanted)


def _read(path: Path) -> dict[str, Any]:
    return dict(read_predicted(path)) if path.is_file() else {}


def _held_out(plan: Plan, fold: str) -> pd.DataFrame:
    """id, path and label of the fold's validation rows, in the order of oof.npz."""
    ids = Predictions.load(plan.run.fold(fold) / "oof.npz").ids.tolist()
    known = plan.prepared.train.set_index("id")
    lost = [id for id in ids if id not in known.index or not known.at[id, "found"]]
    if lost:
        raise UserError(
            f"{plan.prepared.root}: {len(lost):,} of the {len(ids):,} validation rows of fold {fold} have no image, "
            f"the first is {lost[0]!r}"
        )
    rows = known.loc[ids, ["path", "label"]].reset_index()
    pictures.compare(plan.run, pictures.look(plan.prepared.root, plan.config.competition, rows))
    return rows


def _enter(
    plan: Plan, trained: list[str], table: pd.DataFrame, path: Path, cv: CrossValidation | None, said: Callable[[str], None]
) -> None:
    """The submission's row in the ledger, what it should score, and what is odd about it."""
    run, competition = plan.run, plan.config.competition
    views = f"; TTA {', '.join(map(str, plan.tta.views))}" if len(plan.tta.views) > 1 else ""
    prior = f"; {plan.test}" if str(plan.test) else ""
    ledger.enter(path, [run.name], f"mean of folds {', '.join(trained)}{views}{prior}", cv.oof if cv else None)
    if line := check.expectation(run, competition):
        said(line)
    for odd in filter(None, (plausibility.constant(table), plausibility.certain(table, competition))):
        said(f"warning: {odd}")


def _say_scores(
    plan: Plan, tested: Predictions, path: Path, partial: bool, cv: CrossValidation | None, said: Callable[[str], None]
) -> None:
    """OOF without and with TTA, the file, and where the solution is known the test score."""
    run, competition = plan.run, plan.config.competition
    metric = competition.metric
    before = cross_validation(run, metric)
    tracker = tracking.track(plan.config, run.name, "cv", run.path, None, said)
    if before is not None and cv is not None and before.covers(cv.folds.keys(), cv.rows):
        if len(plan.tta.views) > 1:
            _say_gain(plan, said)
            said(f"OOF without TTA {before}")
        said(f"OOF {cv}")
        tracker.summarize(before.summary() | {f"oof_tta_{metric}": cv.oof})
    share = "the test rows that have an image" if partial else submission.extent(competition, plan.prepared.root)
    share += f"; {plan.test}" if str(plan.test) else ""
    said(f"{path}: {len(tested.ids):,} rows, {share}{'; PARTIAL: Kaggle would refuse it' if partial else '; valid'}")
    tracker.log_artifact(f"{run.name}-submission", "submission", [path])
    if not partial and (scored := submission.score(competition, tested, plan.prepared.root)) is not None:
        value, rows = scored
        said(f"test {metric} {value:.4f} (n={rows})")
        tracker.summarize({f"test_{metric}": value})
    tracker.finish()


def _say_gain(plan: Plan, said: Callable[[str], None]) -> None:
    """What each view is worth alone, and the gain of their mean over the image as it is, with its paired error."""
    run, metric = plan.run, plan.config.competition.metric
    plain, with_tta = run.oof("oof.npz"), run.oof("oof_tta.npz")
    scores = {fold: _read(run.fold(fold) / "predicted.json").get("views", {}) for fold in with_tta}
    Console(width=None if sys.stdout.isatty() else 200).print(tta.table(metric, scores))
    before, after = (np.concatenate([fold.probabilities() for fold in parts.values()]) for parts in (plain, with_tta))
    labels = np.concatenate([run.labels(fold.ids, fold.classes) for fold in plain.values()])
    better, error = paired.gain(metric, labels, after, before)
    word = "better" if better >= 0 else "worse"
    said(f"TTA: {metric} {abs(better):.4f} ± {error:.4f} {word} on {len(labels):,} out-of-fold rows")
