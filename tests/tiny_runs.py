"""Runs small enough for a test: cifar_net on a few 32x32 pictures, trained in a fraction of a second."""

from pathlib import Path

import pandas as pd

from src import config as configuration
from src.config import Config
from src.training import experiment
from src.training.run import Run

TINY = {
    "model.name": "cifar_net",
    "model.weights": "none",
    "model.image_size": 32,
    "data.folds": 2,
    "data.workers": 0,
    "data.resize": "squash",
    "data.audit": False,
    "train.epochs": 2,
    "train.batch_size": 4,
    "train.device": "cpu",
    "tracking.mode": "disabled",
}
CLOCK = ["seconds", "img_per_s", "data_wait", "memory_gb"]  # what differs between two runs that are otherwise the same


def tiny(root: Path, competition: str = "dogs_vs_cats", **knobs: object) -> Config:
    """A configuration over the data in `root`; tiny(root, train__lr=0.1) sets a further knob."""
    tree: dict[str, dict] = {}
    given = {name.replace("__", "."): value for name, value in knobs.items()}
    for name, value in (TINY | {"data.root": str(root)} | given).items():
        section, _, key = name.partition(".")
        tree.setdefault(section, {})[key] = value
    return configuration.validate(tree | {"competition": configuration.built_in(competition).model_dump()}, {})


def train(run: Run, config: Config, *folds: str, resume: bool = False, overwrite: bool = False) -> list[str]:
    """Train and return the lines that were said."""
    said: list[str] = []
    wanted = configuration.wanted_folds(folds or ("0",), config.data.folds)
    experiment.train(run, config, wanted, resume, overwrite, said.append)
    return said


def history(run: Run, fold: str = "0") -> pd.DataFrame:
    return pd.read_csv(run.fold(fold) / "history.csv")
