"""A run learns from one set of pictures: others of the same name are noticed, whatever their size and time."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from conftest import write_dogs_vs_cats
from src.errors import UserError
from src.files import locked
from src.models import backbone
from src.training import checkpoint
from src.training.fold import OutOfTime
from src.training.run import Run
from tiny_runs import tiny, train


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    return write_dogs_vs_cats(tmp_path / "dogs", rows=6)


def exchange(dogs: Path) -> None:
    """Give a training picture the bytes of another, and the times that it had."""
    one, other = sorted((dogs / "train").iterdir())[:2]
    state = one.stat()
    shutil.copyfile(other, one)
    os.utime(one, ns=(state.st_atime_ns, state.st_mtime_ns))


def begun(run: Run, dogs: Path, fold: str = "0", **knobs: object) -> None:
    """Train the first of three steps."""
    with pytest.raises(OutOfTime):
        train(run, tiny(dogs, train__batch_size=2, train__max_minutes=1e-5, **knobs), fold)


def test_pictures_exchanged_between_two_folds_are_refused_until_all_folds_are_trained_anew(dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    train(run, tiny(dogs))
    model = (run.fold("0") / "model.safetensors").read_bytes()
    exchange(dogs)
    for fold, overwrite in (("1", False), ("1", True)):
        with pytest.raises(UserError, match=r"1 of 12 pictures are not those that .*run learnt from"):
            train(run, tiny(dogs), fold, overwrite=overwrite)
    assert (run.trained_folds(), (run.fold("0") / "model.safetensors").read_bytes()) == (["0"], model)
    train(run, tiny(dogs), "all", overwrite=True)
    assert run.trained_folds() == ["0", "1"]


def test_pictures_exchanged_between_stop_and_resume_are_refused(dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    begun(run, dogs)
    assert run.has_begun("0")
    exchange(dogs)
    with pytest.raises(UserError, match="1 of 12 pictures are not those"):
        train(run, tiny(dogs, train__batch_size=2), resume=True)


def test_a_damaged_file_of_pictures_names_the_way_out(dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    train(run, tiny(dogs))
    (run.path / "pictures.npz").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match=r"pictures\.npz: can't be read .* delete it, and train\.py notes them anew"):
        train(run, tiny(dogs), "1")


@pytest.mark.parametrize(
    ("fold", "knobs", "what"), [("1", {}, r"fold: 1, not 0"), ("0", {"train__lr": 0.5}, r"train\.lr: 0\.5, not 0\.001")]
)
def test_the_state_of_another_training_is_refused(dogs: Path, tmp_path: Path, fold: str, knobs: dict, what: str):
    run, other = Run(tmp_path / "run"), Run(tmp_path / "other")
    begun(run, dogs)
    begun(other, dogs, fold, **knobs)
    shutil.copy(other.fold(fold) / "last.pt", run.fold("0") / "last.pt")
    with pytest.raises(UserError, match=rf"last\.pt: the state of another training \({what}\)"):
        train(run, tiny(dogs, train__batch_size=2), resume=True)


@pytest.mark.parametrize("file", ["last.pt", "model.safetensors"])
def test_one_changed_bit_of_weights_is_noticed(dogs: Path, tmp_path: Path, file: str):
    run = Run(tmp_path / "run")
    train(run, tiny(dogs))
    path = run.fold("0") / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=file.replace(".", r"\.")):
        checkpoint.load(path) if file == "last.pt" else backbone.load(path, torch.device("cpu"))


def test_overwrite_takes_the_lock_before_it_removes_anything(dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    train(run, tiny(dogs))
    before = {path.name: path.read_bytes() for path in run.fold("0").iterdir()}
    with locked(run.fold("0")), pytest.raises(UserError, match=r"another process .* is writing here"):
        train(run, tiny(dogs), overwrite=True)
    assert {path.name: path.read_bytes() for path in run.fold("0").iterdir()} == before
