"""Train folds of an experiment: python train.py --config configs/dogs_vs_cats/resnet50.yaml --fold 0"""

import sys
from dataclasses import dataclass
from pathlib import Path

from src import cli, config, files
from src.cli import FlagCreatePairsOff
from src.config import Config

DEFAULT = "configs/digits/baseline.yaml"


@dataclass(frozen=True)
class Flags:
    """Train folds of an experiment and print their cross-validation score."""

    config: str = DEFAULT
    """the experiment, a YAML file"""
    fold: tuple[str, ...] = ("0",)
    """which folds: 0, or 0 2, or all, or full (all rows, no validation: for a last submission)"""
    name: str | None = None
    """the run's folder under runs/; none: named after its configuration and what was overridden"""
    resume: FlagCreatePairsOff[bool] = False
    """go on where the folds stopped; folds not begun are begun"""
    overwrite: FlagCreatePairsOff[bool] = False
    """train folds anew that are there already"""
    debug: FlagCreatePairsOff[bool] = False
    """a few hundred rows, two epochs of two steps: the whole chain in seconds"""
    find_lr: FlagCreatePairsOff[bool] = False
    """instead of training: the loss at rising learning rates, as a picture, and a suggestion"""
    find_batch: FlagCreatePairsOff[bool] = False
    """instead of training: the largest batch that fits the GPU, and from which size on a larger one is no faster"""
    kernel: str | None = None
    """instead of training: write a notebook to this folder that trains on Kaggle's GPU, in sessions of train.max_minutes"""
    kaggle_user: str | None = None
    """with --kernel: your name on Kaggle; none: KAGGLE_USERNAME or kaggle.json's"""


def understand(argv: list[str], description: str | None = None) -> tuple[Flags, Path, Config, list[str]]:
    """A command line: its flags, the configuration's file, the knobs with what the command line changes, the folds wanted."""
    path = config.find(cli.option(argv, "--config") or DEFAULT)
    flags, knobs = cli.parse(Flags, argv, config.load(path), description)
    if flags.debug:
        knobs = config.shortened(knobs)
    if flags.name is not None:
        files.check_name(flags.name, "--name")
    return flags, path, knobs, config.wanted_folds(flags.fold, knobs.data.folds)


def main() -> None:
    flags, path, knobs, wanted = understand(sys.argv[1:], Flags.__doc__)

    from src.training import experiment, kernel  # torch takes seconds to import: not before the arguments are known to be good
    from src.training.fold import Interrupted, OutOfTime
    from src.training.processes import another_ended, end_of_job, is_first
    from src.training.run import Run, default_name

    run = Run(Path("runs") / (flags.name or default_name(path, knobs, flags.debug)))
    if flags.kernel is not None:
        return kernel.make(Path(flags.kernel), run.name, knobs, wanted, flags.kaggle_user)
    if flags.find_lr or flags.find_batch:
        (experiment.find_lr if flags.find_lr else experiment.find_batch)(run, knobs, wanted[0])
        return
    try:
        experiment.train(run, knobs, wanted, flags.resume, flags.overwrite)
        end_of_job()
    except OutOfTime as where:
        if is_first():
            print(f"{where}: train.max_minutes are over; the model is usable, and the same command with --resume goes on")
    except Interrupted as where:
        if is_first():
            print(f"{where}: stopped; the state is saved, and the same command with --resume goes on", file=sys.stderr)
        sys.exit(130)
    except RuntimeError as error:
        sys.exit(another_ended(error))


if __name__ == "__main__":
    cli.run(main)
