"""Blend and calibrate runs: python ensemble.py runs/A runs/B"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from src import cli
from src.cli import Positional
from src.config import Config
from src.errors import UserError


@dataclass(frozen=True)
class Flags:
    """Blend runs by their out-of-fold predictions, calibrate the blend, write it as a run of its own and as a submission."""

    runs: Positional[tuple[str, ...]] = ()
    """folders of runs or ensembles of one competition; one alone is only calibrated"""
    method: Literal["auto", "single", "mean", "logits", "rank", "weights", "greedy", "stack"] = "auto"
    """auto: the simplest within one standard error of the best in nested cross-validation"""
    calibrate: Literal["auto", "none", "clip", "temperature", "temperature+clip", "prior", "prior+clip"] = "auto"
    """auto: where the metric is log loss and it helps by more than its standard error"""
    name: str | None = None
    """the ensemble's folder is runs/NAME; none: from its members"""


def main() -> None:
    flags, _ = cli.parse(Flags, sys.argv[1:], Config(), Flags.__doc__, sections=())
    if not flags.runs:
        raise UserError("name the runs to blend, as in `python ensemble.py runs/A runs/B`")

    from rich.console import Console
    from rich.table import Table

    from src.inference import ensemble

    console = Console(width=None if sys.stdout.isatty() else 200)

    def said(what: str | Table) -> None:
        console.print(what) if isinstance(what, Table) else print(what)

    ensemble.make([Path(run) for run in flags.runs], flags.method, flags.calibrate, flags.name, said)


if __name__ == "__main__":
    cli.run(main)
