"""Predict the test rows with a run's models and write the submission: python predict.py runs/NAME"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import FlagCreatePairsOff, Positional

from src import cli, config
from src.errors import UserError

DEFAULT = "configs/digits/baseline.yaml"


@dataclass(frozen=True)
class Flags:
    """Predict the test rows with all trained folds of a run, with TTA, and write submissions/NAME.csv."""

    run: Positional[str] = ""
    """the run's folder, runs/NAME"""
    partial: FlagCreatePairsOff[bool] = False
    """where test images are missing, write NAME.partial.csv with the rows that have one"""
    record: tuple[str, ...] = ()
    """only note the scores that Kaggle gave: public=0.0612 private=0.0598"""
    check: str | None = None
    """only check this submission file; exit status 1 and a line for each fault"""
    config: str | None = None
    """the configuration whose competition the checked file is for; none: digits"""


def main() -> None:
    argv = sys.argv[1:]
    named = next((token for token in argv[:1] if not token.startswith("-")), None)
    written = config.load_run(Path(named)) if named else config.load(cli.option(argv, "--config") or DEFAULT)
    flags, knobs = cli.parse(Flags, argv, written, Flags.__doc__, sections=("data", "train", "tracking", "predict"))
    if changed := config.differences(written.identity(), knobs.identity()):
        raise UserError(f"command line: fixed when the run was trained: {'; '.join(changed)}")
    if flags.check is None and not flags.run:
        raise UserError("name a run's folder, as in `python predict.py runs/NAME`, or a file to --check")
    if flags.run and flags.config and config.load(flags.config).competition.name != written.competition.name:
        other = config.load(flags.config).competition.name
        raise UserError(f"{flags.run} is a run of {written.competition.name}, not of {other}")
    if flags.check is not None:
        from src.inference.check import check_file

        return check_file(Path(flags.check), knobs)

    from src.training.run import Run

    if flags.record:
        from src.inference.leaderboard import record

        return record(Run(Path(flags.run)), knobs, flags.record)

    from src.inference.predict import predict_run

    predict_run(Run(Path(flags.run)), knobs, flags.partial)
    return None


if __name__ == "__main__":
    cli.run(main)
