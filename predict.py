"""Predict the test rows with a run's models and write the submission: python predict.py runs/NAME"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from src import cli, config
from src.cli import FlagCreatePairsOff, Positional, arg
from src.errors import UserError, command

DEFAULT = "configs/digits/baseline.yaml"


@dataclass(frozen=True)
class Flags:
    """Predict the test rows with all trained folds of a run, with TTA, and write submissions/NAME.csv."""

    run: Positional[str] = ""
    """the run's folder, runs/NAME; before all options"""
    partial: FlagCreatePairsOff[bool] = False
    """where test images are missing or unreadable, write NAME.partial.csv with the other rows"""
    check: str | None = None
    """only check this submission file, with a run also against its predictions; exit status 1 and a line for each fault"""
    config: str | None = None
    """the configuration whose competition the checked file is for; none: the run's, or digits"""
    submit: FlagCreatePairsOff[bool] = False
    """only hand submissions/NAME.csv in, once it passed the check, by the kaggle client"""
    message: Annotated[str, arg(aliases=["-m"])] = ""
    """with --submit: what stands beside it on Kaggle; none: the run's name"""
    again: FlagCreatePairsOff[bool] = False
    """with --submit: even if the same content was handed in before"""
    record: tuple[str, ...] = ()
    """only note the scores that Kaggle gave, public=0.0612 private=0.0598, or ask for them: kaggle"""
    bundle: str | None = None
    """only make this folder: the models with the code that predicts, to upload to Kaggle"""
    kaggle_user: str | None = None
    """with --bundle: your name on Kaggle; none: KAGGLE_USERNAME or kaggle.json's"""


def main() -> None:
    argv = sys.argv[1:]
    named = next((token for token in argv[:1] if not token.startswith("-")), None)
    written = config.load_run(Path(named)) if named else config.load(cli.option(argv, "--config") or DEFAULT)
    flags, knobs = cli.parse(Flags, argv, written, Flags.__doc__, sections=("data", "train", "tracking", "predict"))
    _refuse(flags, named, written, knobs)

    from src.inference import check, leaderboard
    from src.inference.members import Member  # a run, or an ensemble, which has predictions too

    run = Member(Path(flags.run)) if flags.run else None
    if flags.check is not None:
        check.check_file(Path(flags.check), knobs, run)
    elif flags.submit:
        leaderboard.submit(run, knobs, flags.message, flags.again)
    elif flags.record:
        leaderboard.record(run, knobs, flags.record)
    else:
        from src.inference import bundle, predict  # here: they bring torch
        from src.training.run import Run

        if flags.bundle is not None:
            bundle.make(Run(run.path), knobs, Path(flags.bundle), flags.kaggle_user)
        else:
            predict.predict_run(Run(run.path), knobs, flags.partial)


def _refuse(flags: Flags, named: str | None, written: config.Config, knobs: config.Config) -> None:
    """What doesn't go together on the command line."""
    asked = [flag for flag in ("check", "submit", "record", "bundle") if getattr(flags, flag)]
    if changed := config.differences(written.identity(), knobs.identity()):
        raise UserError(f"command line: fixed when the run was trained: {'; '.join(changed)}")
    if flags.run and not named:
        raise UserError(f"the run's folder comes first, as in {command('predict.py', flags.run, '--check', 'FILE')}")
    if not flags.run and asked != ["check"]:
        raise UserError("name a run's folder, as in `python predict.py runs/NAME`, or a file to --check")
    if len(asked) > 1:
        raise UserError(f"--{' and --'.join(asked)}: one at a time; --submit checks by itself")
    if (flags.message or flags.again) and not flags.submit:
        raise UserError("--message and --again belong to --submit")
    if flags.run and flags.config and (other := config.load(flags.config).competition.name) != written.competition.name:
        raise UserError(f"{flags.run} is a run of {written.competition.name}, not of {other}")


if __name__ == "__main__":
    cli.run(main)
