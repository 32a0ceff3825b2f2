"""last.pt: whole or not at all, and the seeds that replace stored random states."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from src.errors import UserError
from src.training import checkpoint

STATE = {"epoch": 1, "step": 2, "model": {"w": torch.arange(3.0)}, "history": [{"epoch": 1, "lr": 0.1}], "best": None}


def test_what_is_saved_is_loaded(tmp_path: Path):
    checkpoint.save(STATE, tmp_path / "last.pt")
    loaded = checkpoint.load(tmp_path / "last.pt")
    assert torch.equal(loaded.pop("model")["w"], STATE["model"]["w"])
    assert loaded == {name: value for name, value in STATE.items() if name != "model"}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint.save(STATE, tmp_path / "last.pt")

    def fill(state: dict, file) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(UserError, match=r"last\.pt: can't be saved \(.*No space left.*\); the checkpoint before it is kept"):
        checkpoint.save(STATE | {"epoch": 2}, tmp_path / "last.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
    assert checkpoint.load(tmp_path / "last.pt")["epoch"] == 1


def test_a_truncated_checkpoint_is_refused_with_the_remedy(tmp_path: Path):
    path = tmp_path / "last.pt"
    checkpoint.save(STATE, path)
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole[: len(whole) // 2], b"text", b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"last\.pt: not a complete checkpoint .*--overwrite") as told:
            checkpoint.load(path)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("other", [{"model": {}}, [1, 2]])
def test_another_programs_checkpoint_is_refused(other: object, tmp_path: Path):
    torch.save(other, tmp_path / "last.pt")
    with pytest.raises(UserError, match="not a checkpoint of this repository; --overwrite"):
        checkpoint.load(tmp_path / "last.pt")


def draws() -> tuple[float, float, float]:
    return float(torch.rand(1)), float(np.random.rand()), random.random()


def test_every_generator_is_a_function_of_seed_fold_epoch_and_step():
    checkpoint.seed_step(1, 2, 3, 4)
    first = draws()
    checkpoint.seed_step(1, 2, 3, 4)
    assert draws() == first
    keys = [(0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0), (4, 3, 2, 1), (2**32 - 1, 0, 0, 0)]
    seen = [first]
    for key in keys:
        checkpoint.seed_step(*key)
        seen.append(draws())
    for generator in zip(*seen, strict=True):
        assert len(set(generator)) == len(seen)
