"""ensemble.py's work: score each way to blend the members, take the simplest of the best, calibrate it, write it as a run."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.table import Table
from sklearn.model_selection import GroupKFold

from src.competitions import metrics
from src.competitions.predictions import Predictions, mean
from src.data import folds, prepare
from src.errors import UserError
from src.files import check_name, clean_name, locked, sha256
from src.inference import blend, calibrate, ledger, paired, submission, unseen
from src.inference.blend import Blend
from src.inference.calibrate import Calibration
from src.inference.members import OVER_FOLDS, RECORD, VIEWS, Member, MissingTest, Rows, common_rows, read, tests_by_fold

PARTS = 5  # into which the rows of a single fold are split, for nested scores all the same
LONGEST_NAME = 60
TITLES = {"single": "best single run", "mean": "mean of probabilities", "logits": "mean of logits", "rank": "mean of ranks"}

Said = Callable[[str | Table], None]
Line = tuple[str, np.ndarray, np.ndarray, tuple[float, ...]]  # of the table of blends


@dataclass(frozen=True)
class Made:
    """What was fitted: on all rows for the test set, and nested for the score."""

    blend: Blend
    calibration: Calibration
    oof: np.ndarray  # (n, classes) float64 probabilities: each fold's rows by blend and calibration fitted without them


def make(paths: list[Path], method: str, calibration: str, name: str | None, said: Said = print) -> Path:
    """Blend and calibrate these runs, write runs/NAME and, where all have test predictions, submissions/NAME.csv.

    method: auto or one of blend.SIMPLEST_FIRST; calibration: auto or one of calibrate.SIMPLEST_FIRST; name: none: from the
    members. Returns runs/NAME. Raises UserError, before anything is written, for runs that don't fit together or were
    changed, and for a method or calibration that the metric has no use for.
    """
    members, file = read(paths)
    metric = members[0].config.competition.metric
    if method != "auto":
        blend.check_method(method, metric, len(members))
    calibrate.check_kind(calibration, metric)
    asked = {"method": method, "calibrate": calibration}
    run = _own_folder(members, name or default_name(members, method, calibration), asked)
    rows = common_rows(members, file)
    said(_describe_rows(members, rows, file))
    if len(views := _views(members, file)) > 1:
        said(f"the members' views differ, each the same for its out-of-fold and its test rows: {'; '.join(views)}")
    nest = _nest(rows, members[0], said)
    chosen = _choose_blend(method, calibration, metric, members, rows, nest, said)
    made = _choose_calibration(calibration, chosen, metric, rows, nest, said)
    tests, why_not = _test_predictions(members, made)
    score = metrics.score(metric, rows.labels, made.oof)
    with locked(run.path):
        _write(run, members, asked, file, rows, made, tests)
    said(f"{run.path}: {run.recipe()}; OOF {metric} {score:.5f} (n={len(rows.ids):,}, nested)")
    if tests:
        said(
            "test rows: each member's mean over its own folds, then blended and calibrated"
            if OVER_FOLDS in tests
            else f"test rows: blended and calibrated fold by fold ({', '.join(tests)}), then averaged"
        )
        why_not = _submit(run, members, mean(list(tests.values())), score, said)
    if why_not:
        said(f"no submission: {why_not}")
    return run.path


def default_name(members: list[Member], method: str, calibration: str) -> str:
    """A+B for runs/A and runs/B, A-calibrated for one alone; many or long names end in a count and a hash of them."""
    names = [member.name for member in members]
    joined = "+".join(names)
    if len(joined) > LONGEST_NAME:
        joined = f"{names[0][:LONGEST_NAME]}+{len(names) - 1}-{hashlib.sha256(joined.encode()).hexdigest()[:6]}"
    asked = ([] if method == "auto" else [method]) + ([] if calibration == "auto" else [f"calibrate-{calibration}"])
    return "-".join([clean_name(joined), *(["calibrated"] if len(members) == 1 else []), *asked])


def _own_folder(members: list[Member], name: str, asked: dict[str, str]) -> Member:
    """Where the ensemble is written. The same command again replaces it, as when a member's test rows were predicted since."""
    run = Member(Path("runs") / check_name(name, "--name"))
    if any(realpath(run.path) == realpath(member.path) for member in members):
        raise UserError(f"--name {name}: {run.path} is one of the members; choose another name")
    if (run.path / "config.yaml").is_file() and not run.is_ensemble:
        raise UserError(f"--name {name}: {run.path} is there already and is no ensemble; choose another name")
    if run.is_ensemble:
        record = run.record()
        known, now = {realpath(part["run"]) for part in record["members"]}, {realpath(member.path) for member in members}
        # Earlier versions didn't keep what was asked for.
        if known != now or record.get("asked", asked) != asked:
            raise UserError(
                f"{run.path} is there already, {run.recipe()}, by {run.command()}; --name gives this one another name"
            )
    return run


def _views(members: list[Member], file: str) -> list[str]:
    """Under which views each run's rows were seen, where there are any two ways."""
    runs = [member for member in members if not member.is_ensemble]
    views = {member.name: member.made_by(member.folds_with(file)[0], file)[0] for member in runs}
    return [f"{name}: {each}" for name, each in views.items()] if len(set(views.values())) > 1 else []


def _describe_rows(members: list[Member], rows: Rows, file: str) -> str:
    most = max(sum(len(part.ids) for part in member.predictions(file).values()) for member in members)
    count = f"{len(rows.ids):,}" if len(rows.ids) == most else f"{len(rows.ids):,} of {most:,}"
    if len(members) == 1:
        return f"{members[0].path}: {count} out-of-fold rows {VIEWS[file]}"
    same = len({sha256(member.folds_csv()) for member in members}) == 1
    split = "the same folds" if same else f"different folds, so those of {members[0].name} for the nested scores"
    return f"{len(members)} runs, {count} rows out-of-fold in all of them, {VIEWS[file]}; {split}"


def _nest(rows: Rows, first: Member, said: Said) -> np.ndarray:
    """(n,) the part of each row, for nested scores: its fold, or where there is one fold only a fifth of it by group."""
    parts = rows.folds
    if len(np.unique(parts)) == 1:
        group = folds.read_folds(first.folds_csv()).set_index("id")["group"].reindex(rows.ids).to_numpy()
        units = np.where(group != "", group, np.char.add("row ", rows.ids))
        count = min(PARTS, len(np.unique(units)))
        if count < 2:
            raise UserError(f"{len(rows.ids)} row or group of rows in common: too few to fit or to score anything")
        said(f"all rows are of fold {parts[0]}: they are split into {count} parts for the nested scores")
        parts = np.empty(len(rows.ids), dtype=np.int64)
        for part, (_, held) in enumerate(GroupKFold(count, shuffle=True, random_state=0).split(rows.ids, groups=units)):
            parts[held] = part
    for part in np.unique(parts):
        if len(np.unique(rows.labels[parts != part])) < 2:
            raise UserError(f"the {len(rows.ids):,} common rows without fold {part} are all of one class: too few to blend")
    return parts


def _nested(fitted: dict[Any, Blend], kind: str, rows: Rows, nest: np.ndarray) -> np.ndarray:
    """(n, classes) float64 probabilities: each part's rows by a blend and a calibration fitted on all other parts."""
    probabilities = np.empty(rows.logits.shape[1:], dtype=np.float64)
    for part, fitted_without in fitted.items():
        blended = fitted_without.apply(rows.logits)
        probabilities[nest == part] = np.exp(calibrate.held_out(kind, rows.labels, blended, nest == part))
    return probabilities


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).astype(np.float32)


def _choose_blend(
    method: str, calibration: str, metric: str, members: list[Member], rows: Rows, nest: np.ndarray, said: Said
) -> str:
    """The method to take, after showing all of them.

    For log loss the methods are compared with a temperature each: a mean is flatter than its members, and a stack, which
    has a temperature built in, would win by that alone.
    """
    if len(members) == 1:
        return "single"
    kind = "none" if metric != "log_loss" else "temperature" if calibration == "auto" else calibration
    lines: list[Line] = [
        (str(member.path), *(np.exp(calibrate.nested(each, rows.labels, logits, nest)) for each in ("none", kind)), ())
        for member, logits in zip(members, rows.logits, strict=True)
    ]
    candidates = {}
    for each in blend.methods_for(metric, len(members)):
        fitted = blend.fit_without(each, metric, rows.labels, rows.logits, nest)
        candidates[each] = _nested(fitted, kind, rows, nest)
        weights = blend.fit(each, metric, rows.labels, rows.logits).weights
        lines.append((_title(each), _nested(fitted, "none", rows, nest), candidates[each], weights))
    said(_blend_table(metric, kind, rows.labels, lines, candidates["mean"]))
    said("disagreement: above the diagonal rows given another class, below it correlation of log-probabilities")
    said(_disagreement_table([str(member.path) for member in members], rows.logits))
    simplest, best = (pick(metric, rows.labels, candidates) for pick in (paired.simplest, paired.best))
    ahead, error = paired.gain(metric, rows.labels, candidates[best], candidates[simplest])
    because = "it scores best" if simplest == best else f"{_title(best)} is ahead by {ahead:.5f} ± {error:.5f} only"
    said(f"recommended: {_title(simplest)}, the simplest within one standard error of the best: {because}")
    if method not in ("auto", simplest):
        said(f"taken as asked: {_title(method)}")
    return simplest if method == "auto" else method


def _blend_table(
    metric: str,
    kind: str,
    labels: np.ndarray,
    lines: list[Line],
    equal: np.ndarray,
) -> Table:
    """Each member, then each method, nested; the gain is over equal weights, ± one standard error paired over rows.

    lines: title, probabilities (n, classes) as they are, and after the calibration `kind`, weights; equal: the latter of
    equal weights.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    headings = [metric, *([f"with {kind}"] if kind != "none" else []), "gain over equal weights"]
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("weights")
    for title, plain, probabilities, weights in lines:
        scores = [plain, *([probabilities] if kind != "none" else [])]
        ahead, error = paired.gain(metric, labels, probabilities, equal)
        table.add_row(
            title, *(f"{metrics.score(metric, labels, each):.5f}" for each in scores),
            f"{ahead:+.5f} ± {error:.5f}" if probabilities is not equal else "",
            " ".join(f"{weight:.2f}" for weight in weights),
        )  # fmt: skip
    return table


def _disagreement_table(names: list[str], logits: np.ndarray) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for i, (name, row) in enumerate(zip(names, blend.disagreement(logits), strict=True)):
        table.add_row(name, *(f"{value:.2%}" if j > i else f"{value:.3f}" if j < i else "" for j, value in enumerate(row)))
    return table


def _title(method: str) -> str:
    return TITLES.get(method, method)


def _choose_calibration(asked: str, method: str, metric: str, rows: Rows, nest: np.ndarray, said: Said) -> Made:
    """The blend with the calibration to take, after showing all of them."""
    fitted = blend.fit_without(method, metric, rows.labels, rows.logits, nest)
    whole = blend.fit(method, metric, rows.labels, rows.logits)
    if asked == "none" or metric != "log_loss":
        said(f"calibration: none, {'as asked' if asked == 'none' else calibrate.no_use(metric)}")
        return Made(whole, Calibration(), _nested(fitted, "none", rows, nest))
    blended = whole.apply(rows.logits)
    tried = {kind: _nested(fitted, kind, rows, nest) for kind in calibrate.SIMPLEST_FIRST}
    on_all = {kind: calibrate.fit(kind, rows.labels, blended) for kind in tried}
    said(_calibration_table(rows.labels, tried, on_all))
    recommended = paired.simplest(metric, rows.labels, tried)
    kind = recommended if asked == "auto" else asked
    why = "the simplest within one standard error of the best" if asked == "auto" else f"as asked; recommended: {recommended}"
    said(f"calibration: {kind}, {why}")
    return Made(whole, on_all[kind], tried[kind])


def _calibration_table(labels: np.ndarray, tried: dict[str, np.ndarray], on_all: dict[str, Calibration]) -> Table:
    """Each kind's nested log loss, its gain over none ± one standard error paired over rows, its calibration error."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("calibration", "log_loss", "gain", "calibration error", "fitted on all rows"):
        table.add_column(heading, justify="left" if heading in ("calibration", "fitted on all rows") else "right")
    for kind, probabilities in tried.items():
        ahead, error = paired.gain("log_loss", labels, probabilities, tried["none"])
        table.add_row(
            kind, f"{metrics.score('log_loss', labels, probabilities):.5f}",
            f"{ahead:+.5f} ± {error:.5f}" if kind != "none" else "",
            f"{calibrate.calibration_error(labels, probabilities):.4f}",
            str(on_all[kind]) if kind != "none" else "",
        )  # fmt: skip
    return table


def _test_predictions(members: list[Member], made: Made) -> tuple[dict[str, Predictions], str]:
    """Each fold's test predictions, blended and calibrated by themselves; or none, and why not."""
    try:
        parts = tests_by_fold(members)
    except MissingTest as missing:
        return {}, f"{missing}, then the same command again makes the submission"
    blended = {
        fold: Predictions(each[0].ids, made.blend.apply(np.stack([part.logits for part in each])), each[0].classes)
        for fold, each in parts.items()
    }
    return {fold: made.calibration.apply(predictions) for fold, predictions in blended.items()}, ""


def _write(
    run: Member, members: list[Member], asked: dict[str, str], file: str, rows: Rows, made: Made, tests: dict[str, Predictions]
) -> None:
    """runs/NAME as train.py and predict.py lay out theirs, but for the models; ensemble.json says how it was made.

    All is written into a folder of its own first: after a full disk the ensemble that was there is as it was.
    """
    new = Member(run.path / ".new")
    shutil.rmtree(new.path, ignore_errors=True)  # of a process that was killed
    try:
        new.path.mkdir()
        _fill(new, members, asked, file, rows, made, tests)
        written = [path.relative_to(new.path) for path in new.path.rglob("*") if path.is_file()]
        written.sort(key=lambda path: path.name == "config.yaml")  # last: a folder with it is a run
        for path in written:
            (run.path / path).parent.mkdir(exist_ok=True)
            os.replace(new.path / path, run.path / path)
        for stale in {path.relative_to(run.path) for path in run.path.glob("fold-*/*.npz")} - set(written):
            (run.path / stale).unlink()
    finally:
        shutil.rmtree(new.path, ignore_errors=True)


def _fill(
    run: Member, members: list[Member], asked: dict[str, str], file: str, rows: Rows, made: Made, tests: dict[str, Predictions]
) -> None:
    first = members[0].config
    classes = next(iter(members[0].predictions(file).values())).classes
    oof = {
        fold: Predictions(rows.ids[rows.folds == fold], _log(made.oof[rows.folds == fold]), classes)
        for fold in np.unique(rows.folds).tolist()
    }
    for name, parts in ((file, oof), ("test.npz", tests)):
        for fold, predictions in parts.items():
            run.fold(fold).mkdir(exist_ok=True)
            predictions.save(run.fold(fold) / name)
    shutil.copyfile(members[0].folds_csv(), run.folds_csv())
    record = {
        "members": [{"run": str(member.path), "files": member.files()} for member in members],
        "asked": asked,
        "blend": made.blend.as_json(),
        "calibration": made.calibration.as_json(),
        "unseen": sorted(set().union(*(member.unseen() for member in members))),
        "files": run.files(),
    }
    (run.path / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    tree = {"competition": first.competition.model_dump(mode="json"), "data": {"root": first.data.root}}
    told = f"# An ensemble: {RECORD} has its members, weights and calibration.\n"
    text = told + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    (run.path / "config.yaml").write_text(text, encoding="utf-8")


def _submit(run: Member, members: list[Member], tested: Predictions, score: float, said: Said) -> str:
    """submissions/NAME.csv in the sample's order, and its row in the ledger; returns why there is none, or ""."""
    config = members[0].config
    try:
        prepared = prepare.prepare(config, lambda _: None)
    except UserError as error:
        return f"the test rows to check it against are not here: {error}"
    wanted = prepared.test["id"].to_numpy(dtype=str) if prepared.test is not None else tested.ids[:0]
    absent = len(set(wanted.tolist()) - set(tested.ids.tolist()))
    if absent or not len(wanted):
        return f"{absent:,} of {len(wanted):,} test rows have no prediction; predict.py without --partial makes them"
    path = Path("submissions") / f"{run.name}.csv"
    tested = submission.in_todays_terms(tested.of(wanted), prepared.classes)
    submission.write(submission.make(config.competition, tested), path, config.competition, tested.classes, wanted.tolist())
    filled = unseen.told(len(run.unseen() & set(wanted.tolist())))
    prior = f"; {filled}" if filled else ""
    said(f"{path}: {len(wanted):,} rows, {submission.extent(config.competition, prepared.root)}{prior}; valid")
    ledger.enter(path, [member.name for member in members], f"{run.recipe()}{prior}", score)
    if (scored := submission.score(config.competition, tested, prepared.root)) is not None:
        value, count = scored
        said(f"test {config.competition.metric} {value:.4f} (n={count})")
    return ""
