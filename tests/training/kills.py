"""Kill training at random moments, resume it, and compare with the run that was never stopped."""

import contextlib
import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

import commands
from src.competitions.predictions import Predictions
from src.config import Config
from src.models import backbone
from src.training.run import Run
from tiny_runs import CLOCK, history, tiny, train

# All that draws at random or is carried from step to step; a checkpoint after every update.
EVERYTHING = {
    "model__dropout": 0.3, "data__augmentation": "strong", "train__mixup": 0.4, "train__cutmix": 1.0, "train__ema": 0.5,
    "train__label_smoothing": 0.1, "train__clip_grad": 1.0, "train__accumulate": 2, "train__lr": 0.01, "train__epochs": 4,
    "train__checkpoint_minutes": 1e-6,
}  # fmt: skip


@dataclass
class Tally:
    kills: int = 0
    runs: int = 0
    before_first_save: int = 0  # kills that left nothing to resume from


def kill_and_compare(data: Path, folder: Path, kills: int, seed: int, **knobs: object) -> Tally:
    """Kill runs with SIGKILL until `kills` of them are done, resuming each until it ends; assert each ends the same.

    A run is killed up to three times, at moments uniform over the time that the uninterrupted one took.
    """
    config = tiny(data, **EVERYTHING | knobs)
    context = commands.server()
    whole, rng, tally = Run(folder / "whole"), random.Random(seed), Tally()
    _child(context, whole, config, None)  # the first one also waits for the imports
    started = time.monotonic()
    _child(context, Run(folder / "timed"), config, None)
    length = time.monotonic() - started
    while tally.kills < kills:
        run = Run(folder / f"run-{tally.runs}")
        for _ in range(min(3, kills - tally.kills)):
            if not _child(context, run, config, rng.uniform(0.1, 1.0) * length):
                break
            tally.kills += 1
            tally.before_first_save += not (run.fold("0") / "last.pt").exists()
        _child(context, run, config, None)
        assert_same(whole, run)
        tally.runs += 1
    return tally


def assert_same(one: Run, other: Run) -> None:
    """Bit for bit: last.pt (weights, moving average, optimiser, scaler, position, best), the model, OOF, history.csv."""
    states = [torch.load(run.fold("0") / "last.pt", weights_only=True) for run in (one, other)]
    _assert_equal(*states, "last.pt")
    models = [run.fold("0") / "model.safetensors" for run in (one, other)]
    _assert_equal(*map(load_file, models), "model.safetensors")
    cards = [replace(backbone.read_card(model), run="", digest="") for model in models]
    assert cards[0] == cards[1]
    ours, theirs = (Predictions.load(run.fold("0") / "oof.npz") for run in (one, other))
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert np.array_equal(ours.logits, theirs.logits)
    pd.testing.assert_frame_equal(history(one).drop(columns=CLOCK), history(other).drop(columns=CLOCK), check_exact=True)


def _assert_equal(one: object, other: object, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - {*CLOCK, "waited"}:
            _assert_equal(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            _assert_equal(*pair, f"{where}/{i}")
    else:
        assert one == other or (one != one and other != other), (where, one, other)


def _train(run: Run, config: Config) -> None:
    os.setpgid(0, 0)  # a group of its own: its loader's workers are killed with it
    multiprocessing.set_start_method("fork", force=True)  # as train.py's workers; it would hand on forkserver, and import torch
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        train(run, config, resume=True)


def _child(context: multiprocessing.context.BaseContext, run: Run, config: Config, killed_after: float | None) -> bool:
    """Train in a process of its own; True where it was killed before its end."""
    process = context.Process(target=_train, args=(run, config))
    process.start()
    process.join(killed_after)
    if process.exitcode is None and killed_after is not None:
        with contextlib.suppress(ProcessLookupError):  # it may not have come to its group yet
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        return True
    process.join()
    assert process.exitcode == 0, process.exitcode
    return False
