"""Predict the test rows with a run's models and write the submission: python predict.py runs/NAME"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import FlagCreatePairsOff, Positional

from src import cli, config
from src.errors import UserError


@dataclass(frozen=True)
class Flags:
    """Predict the test rows with all trained folds of a run, with TTA, and write submissions/NAME.csv."""

    run: Positional[str] = ""
    """the run's folder, runs/NAME"""
    partial: FlagCreatePairsOff[bool] = False
    """where test images are missing, write NAME.partial.csv with the rows that have one"""
    check: str | None = None
    """only check this submission file; exit status 1 and a line for each fault"""
    config: str | None = None
    """the configuration whose competition the checked file is for; none: digits"""


def main() -> None:
    argv = sys.argv[1:]
    named = [token for token in argv[:1] if not token.startswith("-")]
    of_run = Path(named[0]) / "config.yaml" if named else None
    file = (
        of_run
        if of_run is not None and of_run.is_file()
        else config.find(cli.option(argv, "--config") or "configs/digits/baseline.yaml")
    )
    written = config.load(file)
    flags, knobs = cli.parse(Flags, argv, written, Flags.__doc__, sections=("data", "train", "tracking", "predict"))
    if changed := config.differences(written.identity(), knobs.identity()):
        raise UserError(f"command line: fixed when the run was trained: {'; '.join(changed)}")
    if flags.check is None and not flags.run:
        raise UserError("name a run's folder, as in `python predict.py runs/NAME`, or a file to --check")
    if flags.check is not None:
        from src.inference.check import check_file

        return check_file(Path(flags.check), knobs)

    from src.inference.predict import predict_run
    from src.training.run import Run

    run = Run(Path(flags.run))
    trained_for = run.config().competition.name
    if flags.config is not None and config.load(flags.config).competition.name != trained_for:
        raise UserError(f"{run.path} is a run of {trained_for}, not of {config.load(flags.config).competition.name}")
    predict_run(run, knobs, flags.partial)
    return None


if __name__ == "__main__":
    cli.run(main)
