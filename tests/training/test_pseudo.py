"""Pseudo-labels come from the fold's own teacher, for sure rows alone, and never validate."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import write_dogs_vs_cats
from src.competitions.predictions import Predictions
from src.data import prepare
from src.errors import UserError
from src.files import sha256
from src.training import pseudo
from src.training.run import Run
from tiny_runs import tiny, train


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs_vs_cats(tmp_path_factory.mktemp("dogs"))


@pytest.fixture(scope="module")
def teacher(dogs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two folds that are sure of different test rows: fold 0 of 1, 2 (dog) and 3 (cat), fold 1 of none."""
    run = Run(tmp_path_factory.mktemp("teachers") / "teacher")
    train(run, tiny(dogs, train__epochs=1), "0", "1")
    ids = np.array([str(i) for i in range(1, 8)])
    sure = np.zeros((7, 2), np.float32)
    sure[:3] = [[-9, 9], [-9, 9], [9, -9]]
    Predictions(ids, sure, ("cat", "dog")).save(run.fold("0") / "test.npz")
    Predictions(ids, sure * 0.01, ("cat", "dog")).save(run.fold("1") / "test.npz")
    return run


def test_sure_test_rows_join_the_training_rows_of_their_teachers_fold(teacher: Run, dogs: Path, tmp_path: Path, monkeypatch):
    from src.training import experiment

    seen = {}
    monkeypatch.setattr(experiment, "train_fold", lambda run, config, fold, data, *_: seen.update({fold: data}))
    said = train(Run(tmp_path / "student"), tiny(dogs, train__pseudo_labels=str(teacher.path)), "0", "1")
    plain = {}
    monkeypatch.setattr(experiment, "train_fold", lambda run, config, fold, data, *_: plain.update({fold: data}))
    train(Run(tmp_path / "plain"), tiny(dogs), "0", "1")
    assert seen["0"].train["id"].tolist()[-3:] == ["pseudo:1", "pseudo:2", "pseudo:3"]
    assert seen["0"].train["label"].tolist()[-3:] == ["dog", "dog", "cat"]
    assert seen["0"].train["path"].tolist()[-3:] == ["test/1.jpg", "test/2.jpg", "test/3.jpg"]
    assert len(seen["0"].train) == len(plain["0"].train) + 3
    assert "fold 0: 3 test rows with pseudo-labels join its 20 training rows" in said
    assert seen["1"].train.to_dict() == plain["1"].train.to_dict()
    for fold in ("0", "1"):
        pd.testing.assert_frame_equal(seen[fold].held_out, plain[fold].held_out)


def test_a_student_trains_on_them(teacher: Run, dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "student")
    train(run, tiny(dogs, train__pseudo_labels=str(teacher.path), train__epochs=1, train__batch_size=23))
    assert len(Predictions.load(run.fold("0") / "oof.npz").ids) == 20


@pytest.mark.parametrize(
    ("knobs", "fold", "message"),
    [
        ({"data__seed": 5}, "0", "has other folds: its models may have seen the rows that validate here"),
        ({}, "full", r"fold-full/test\.npz is not there; train fold full of that run, then `python predict\.py"),
    ],
)
def test_a_teacher_that_may_not_teach_is_refused(knobs, fold, message, teacher: Run, dogs: Path, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        train(Run(tmp_path / "student"), tiny(dogs, train__pseudo_labels=str(teacher.path), **knobs), fold)


def test_rows_without_a_picture_are_never_learned_from(teacher: Run, dogs: Path, tmp_path: Path):
    """predict.unreadable: prior gives them the classes' shares, of which a common class may look sure."""
    run = Run(Path(shutil.copytree(teacher.path, tmp_path / "teacher")))
    (run.fold("0") / "predicted.json").write_text(json.dumps({"unseen": ["1"]}))
    config = tiny(dogs, train__pseudo_labels=str(run.path))
    taught = pseudo.taught_rows(run, config, "0", prepare.prepare(config), sha256(run.folds_csv()))
    assert taught["id"].tolist() == ["pseudo:2", "pseudo:3"]
