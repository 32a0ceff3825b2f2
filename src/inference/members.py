"""The members of an ensemble: runs, or ensembles, known by their predictions alone, and checked before they are trusted."""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from os.path import basename, realpath
from pathlib import Path
from typing import Annotated, NotRequired

import numpy as np
import pandas as pd
from annotated_types import MinLen
from pydantic import ConfigDict, FiniteFloat, PositiveFloat
from safetensors import safe_open
from typing_extensions import TypedDict

from src import config as configuration
from src.competitions import metrics
from src.competitions.predictions import Predictions, concatenate, mean
from src.competitions.tables import class_indices, shorten
from src.config import Config
from src.data import folds
from src.errors import UserError, command
from src.files import parse_json, read_json, sha256
from src.inference.calibrate import Calibration
from src.training.run import FOLD, Run
from src.views import IDENTITY

RECORD = "ensemble.json"  # how an ensemble was made; a run of train.py has none
OVER_FOLDS = "mean"  # stands for a fold where only the mean over a member's folds is known
VIEWS = {"oof_tta.npz": "under TTA", "oof.npz": "without TTA"}


class MissingTest(UserError):
    """A member has no test predictions: the ensemble can be scored, but not handed in."""


class Part(TypedDict):
    """A member of an ensemble in its record: the run's folder, and the sha256 of each file that was read."""

    run: str
    files: dict[str, str]


class BlendRecord(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")
    method: str
    weights: list[FiniteFloat]


class CalibrationRecord(TypedDict):
    kind: str
    temperature: PositiveFloat
    prior: list[FiniteFloat]
    floor: float


class Record(TypedDict):
    """What is read of ensemble.json."""

    members: Annotated[list[Part], MinLen(1)]
    blend: BlendRecord
    calibration: CalibrationRecord
    files: dict[str, str]
    asked: NotRequired[dict[str, str]]
    unseen: NotRequired[list[str]]


class CardScores(TypedDict):
    """What is read here of a model's card."""

    folds_sha256: str
    scores: dict[str, float]


class Predicted(TypedDict):
    """What is read of predicted.json."""

    __pydantic_config__ = ConfigDict(extra="allow")
    model_sha256: str
    views: NotRequired[dict[str, float]]
    tta: NotRequired[str]
    mean: NotRequired[str]
    unseen: NotRequired[list[str]]


def read_predicted(path: Path) -> Predicted:
    """predict.py's note of what it predicted a fold with. Raises UserError where it was damaged."""
    return read_json(path, Predicted, "delete it, and predict.py predicts the fold anew")


class Member(Run):
    """runs/NAME with predictions, and models or members."""

    @property
    def is_ensemble(self) -> bool:
        return (self.path / RECORD).is_file()

    @cached_property
    def config(self) -> Config:
        return configuration.load_run(self.path)

    def oof(self, file: str = "oof.npz") -> dict[str, Predictions]:
        """Of each fold that has this file, which for an ensemble needs no model."""
        return self.predictions(file)

    def predicted(self, fold: str) -> "Predicted | dict":
        """predict.py's record of what a fold's predictions were made of; empty where there is none."""
        record = self.fold(fold) / "predicted.json"
        return read_predicted(record) if record.is_file() else {}

    def made_by(self, fold: str, file: str) -> tuple[str, str]:
        """The views of a file of predictions and the sha256 of its model, "" where not known: as it says itself.

        Before it did, predict.py's record told, which was written last, when both files were complete.
        """
        if file == "oof.npz":
            return str(IDENTITY), sha256(self.fold(fold) / "model.safetensors")  # as training saw them
        made = Predictions.load(self.fold(fold) / file)
        known = self.predicted(fold)
        several = ", " in known.get("tta", "")
        told = known.get("tta", "") + (f"; mean of {known.get('mean')}" if several else "")
        return made.views or told, made.model or known.get("model_sha256", "")

    def unseen(self) -> set[str]:
        """Ids of the test rows without a picture that could be read: they have the classes' shares, or no prediction."""
        if self.is_ensemble:
            return set(self.record().get("unseen", []))
        return {id for fold in self.folds_with("test.npz") for id in self.predicted(fold).get("unseen", [])}

    def record(self) -> Record:
        """An ensemble's members, blend and calibration, as ensemble.py wrote them. Raises UserError where it was damaged."""
        return read_json(self.path / RECORD, Record, "make the ensemble anew with ensemble.py, or remove its folder")

    def recipe(self) -> str:
        """An ensemble in one line: "weights 0.36 0.64 of A, B; calibration: temperature 0.574"."""
        record = self.record()
        fitted = len(set(record["blend"]["weights"])) > 1
        weights = "".join(f" {weight:.2f}" for weight in record["blend"]["weights"]) if fitted else ""
        of = ", ".join(Path(member["run"]).name for member in record["members"])
        return f"{record['blend']['method']}{weights} of {of}; calibration: {Calibration.from_json(record['calibration'])}"

    def command(self) -> str:
        """What writes its predictions, under TTA and of the test rows."""
        if not self.is_ensemble:
            return command("predict.py", self.path)
        record = self.record()
        asked = [word for flag, what in record.get("asked", {}).items() if what != "auto" for word in (f"--{flag}", what)]
        return command("ensemble.py", *(part["run"] for part in record["members"]), "--name", self.name, *asked)

    def files(self) -> dict[str, str]:
        """sha256 of each file of predictions, and of folds.csv, by their path below the run's folder."""
        found = [path for path in sorted(self.path.glob("fold-*/*.npz")) if FOLD.fullmatch(path.parent.name)]
        found = [self.folds_csv(), *found]
        return {str(path.relative_to(self.path)): sha256(path) for path in found}


@dataclass(frozen=True)
class Rows:
    """The rows that are out-of-fold in all members: labels (n,) int, folds (n,) str, logits (members, n, classes) float32."""

    ids: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    logits: np.ndarray


def read(paths: list[Path]) -> tuple[list[Member], str]:
    """The members, and which file of out-of-fold predictions they are read from: under TTA where any has it.

    Raises UserError where a folder is no run, stands twice or was changed, or where the runs don't fit together.
    """
    twice = [path for path, count in Counter(map(realpath, paths)).items() if count > 1]
    if twice:
        raise UserError(f"{basename(twice[0])} is named twice: an ensemble of a run with itself is that run")
    members = [Member(path) for path in paths]
    first = members[0]
    for member in members:
        if member.config.competition.name != first.config.competition.name:
            raise UserError(
                f"{member.path} is a run of {member.config.competition.name}, {first.path} of {first.config.competition.name}"
            )
    file = _file_of_all(members)
    for member in members:
        _check(member, file)
    classes = {member.path: _classes(member, file) for member in members}
    for member in members:
        if classes[member.path] != classes[first.path]:
            raise UserError(
                f"{member.path} has the classes {shorten(classes[member.path])} in this order, "
                f"{first.path} {shorten(classes[first.path])}: they can't be blended; train with the same `classes`"
            )
    return members, file


def common_rows(members: list[Member], file: str) -> Rows:
    """The rows that every member has predicted out-of-fold, in the first member's order and folds.

    Raises UserError where there are none, or where two members have different labels for a row.
    """
    parts = members[0].predictions(file)
    whole = [concatenate(list(member.predictions(file).values())) for member in members]
    shared = set.intersection(*(set(each.ids.tolist()) for each in whole))
    if not shared:
        held = ", ".join(f"{member.path} folds {' '.join(member.folds_with(file))}" for member in members)
        raise UserError(f"no row is out-of-fold in all members ({held}): train a fold that they share")
    fold_of = np.repeat(list(parts), [len(part.ids) for part in parts.values()])
    kept = np.array([id in shared for id in whole[0].ids])
    ids = whole[0].ids[kept]
    labels = _labels(members[0], ids)
    for member in members[1:]:
        other = _labels(member, ids)
        if (differing := np.flatnonzero(labels != other)).size:
            row = differing[0]
            raise UserError(
                f"{differing.size:,} rows have another label in {member.folds_csv()} than in {members[0].folds_csv()}: "
                f"the first is id {str(ids[row])!r}, {other[row]!r} instead of {labels[row]!r}"
            )
    indices = class_indices(pd.Series(labels), whole[0].classes)
    return Rows(ids, indices, fold_of[kept], np.stack([each.of(ids).logits for each in whole]))


def tests_by_fold(members: list[Member]) -> dict[str, list[Predictions]]:
    """The members' test predictions, {fold: one of each member}, all with the same ids in the same order.

    Fold by fold where the members share them, so that what was fitted on OOF meets what it was fitted on; otherwise each
    member's own mean over its folds. Raises MissingTest where a test.npz is missing, with the command that writes it, and
    UserError where the members have different test rows.
    """
    each = [member.predictions("test.npz") for member in members]
    for member, parts in zip(members, each, strict=True):
        lost = sorted(set(member.trained_folds()) - set(parts))
        if lost or not parts:
            where = f" in fold {shorten(lost)}" if parts else ""
            raise MissingTest(f"{member.path} has no test.npz{where}; {member.command()} writes it")
    same_folds = len({sha256(member.folds_csv()) for member in members}) == 1
    if not same_folds or any(parts.keys() != each[0].keys() for parts in each):
        each = [{OVER_FOLDS: mean(list(parts.values()))} for parts in each]
    ids = next(iter(each[0].values())).ids
    for member, parts in zip(members, each, strict=True):
        for fold, part in parts.items():
            if len(part.ids) != len(ids) or set(part.ids.tolist()) != set(ids.tolist()):
                raise UserError(
                    f"{member.path}, fold {fold}: test.npz has {len(part.ids):,} rows, "
                    f"{members[0].path} {len(ids):,} or others; predict both again"
                )
    return {fold: [parts[fold].of(ids) for parts in each] for fold in each[0]}


def _file_of_all(members: list[Member]) -> str:
    """oof_tta.npz where any member has it, and then all must, in each of their folds; otherwise oof.npz."""
    for member in members:
        if not any(member.folds_with(file) for file in VIEWS):
            raise UserError(
                f"{member.path} has no out-of-fold predictions; "
                f"{command('train.py', '--config', member.path / 'config.yaml', '--name', member.name, '--fold', 0)} "
                "trains a fold that has them"
            )
    if not any(member.folds_with("oof_tta.npz") for member in members):
        return "oof.npz"
    with_tta = next(member for member in members if member.folds_with("oof_tta.npz"))
    for member in members:
        if lost := sorted(set(member.folds_with("oof.npz")) - set(member.folds_with("oof_tta.npz"))):
            raise UserError(
                f"{member.path} has no oof_tta.npz in fold {shorten(lost)}, {with_tta.path} has: predictions with and "
                f"without TTA are not mixed; {member.command()} writes it"
            )
    return "oof_tta.npz"


def _check(member: Member, file: str) -> None:
    if member.is_ensemble:
        _check_ensemble(member)
        return
    digest = sha256(member.folds_csv()) if member.folds_csv().is_file() else "absent"
    for fold in member.folds_with(file):
        _check_model(member, fold, digest)
    _check_views(member, file)


def _check_views(member: Member, file: str) -> None:
    """All that a member predicted was seen under the same views by the models that are there now.

    What is fitted on its OOF then meets test rows seen alike. Two members may have different views, as for a model of one
    size and one that takes any: no row's prediction mixes them before the blend, whose weights were fitted to just that.
    """
    first = ""
    for name in (file, "test.npz"):
        for fold in member.folds_with(name):
            path, model = member.fold(fold) / name, member.fold(fold) / "model.safetensors"
            if not model.is_file():
                raise UserError(f"{model}: no such model, but predictions beside it; train the fold anew")
            views, made_by = member.made_by(fold, name)
            if not (views and made_by):
                raise UserError(f"{path} doesn't say under which views it was predicted; {member.command()} makes it again")
            if made_by != sha256(model):
                raise UserError(f"{model} was changed after it had predicted; {member.command()} predicts anew")
            first = first or views
            if views != first:
                raise UserError(
                    f"{path} was predicted under other views ({views}) than the rest of {member.path} ({first}), as "
                    f"after predict.py was interrupted; {member.command()} predicts all under the same"
                )


def _check_model(member: Member, fold: str, folds_sha256: str) -> None:
    """The model still is the one whose card says how its out-of-fold rows scored, and of this folds.csv."""
    model = member.fold(fold) / "model.safetensors"
    try:
        with safe_open(model, "np") as opened:  # not backbone.read_card, which imports torch: 6 s
            card = parse_json(opened.metadata()["card"], CardScores)
    except FileNotFoundError:
        raise UserError(f"{model}: no such model, but predictions beside it; train the fold anew") from None
    except Exception as error:  # safetensors' own, KeyError, TypeError: a damaged file, or another program's
        raise UserError(f"{model}: not a model that train.py wrote ({error!r})") from None
    if card["folds_sha256"] != folds_sha256:
        raise UserError(
            f"{member.folds_csv()} was changed after fold {fold} was trained (sha256 {folds_sha256[:12]}, the model has "
            f"{card['folds_sha256'][:12]}): restore the file, or train the fold anew"
        )
    metric = member.config.competition.metric
    said, plain = card["scores"].get(f"val_{metric}"), member.fold(fold) / "oof.npz"
    if said is None or not plain.is_file():
        return
    oof = Predictions.load(plain)
    value = metrics.score(metric, member.labels(oof.ids, oof.classes), oof.probabilities())
    if not math.isclose(value, said, rel_tol=1e-5, abs_tol=1e-7):
        raise UserError(
            f"{model} says that its out-of-fold rows scored {metric} {said:.6f}, {plain.name} gives {value:.6f}: one of "
            "the two was changed after training; train the fold anew"
        )


def _check_ensemble(member: Member) -> None:
    """Its own files are as ensemble.py wrote them, and its members', where they are still there, as they were read."""
    record = member.record()
    for part in (record | {"run": str(member.path)}, *record["members"]):
        for name, digest in part["files"].items():
            file = Path(part["run"]) / name
            if file.is_file() and sha256(file) != digest:
                raise UserError(f"{file} was changed after {member.path} was made; {member.command()} makes it anew")


def _classes(member: Member, file: str) -> tuple[str, ...]:
    found = {part.classes for part in member.predictions(file).values()}
    if len(found) > 1:
        raise UserError(f"{member.path}: its folds have different classes; train them anew")
    return found.pop()


def _labels(member: Member, ids: np.ndarray) -> np.ndarray:
    """Class names of these ids in the member's folds.csv."""
    return folds.read_folds(member.folds_csv()).set_index("id")["label"].reindex(ids).to_numpy()
