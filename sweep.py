"""Train a sweep's trials on this machine, without an account: python sweep.py configs/sweeps/digits.yaml --slots 2"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import train
from src import cli
from src.cli import Positional
from src.config import Config
from src.errors import UserError


@dataclass(frozen=True)
class Flags:
    """Train the trials of a W&B sweep file, several at a time. Options of train.py after -- are for all of them."""

    sweep: Positional[str] = ""
    """the sweep, a YAML file: method grid or random"""
    slots: int = 1
    """trials at a time; each has its share of the cores, and one of the GPUs"""
    trials: int | None = None
    """at most so many; none: the whole grid, or the file's run_cap"""
    seed: int = 0
    """of the random draws: trial 7 of a seed has always the same values"""


def main() -> None:
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    flags, _ = cli.parse(Flags, sys.argv[1:end], Config(), Flags.__doc__, sections=())
    if not flags.sweep:
        raise UserError("name a sweep's file, as in `python sweep.py configs/sweeps/digits.yaml`")
    for name in ("slots", "trials"):
        if getattr(flags, name) is not None and getattr(flags, name) < 1:
            raise UserError(f"--{name} {getattr(flags, name)}: must be 1 or more")

    from rich.console import Console

    from src.training import sweep as sweeps
    from src.training.search import Search

    said = partial(print, flush=True)
    sweep = sweeps.read(flags.sweep)
    trials = sweeps.plan(sweep, flags.trials, flags.seed, sys.argv[end + 1 :], understand, said)
    name = sweep.path.stem if flags.seed == 0 else f"{sweep.path.stem}-seed{flags.seed}"
    search = Search(sweep, trials, Path("runs/sweeps") / name, said)
    status = search.run(flags.slots)
    Console(width=None if sys.stdout.isatty() else 200).print(search.table())
    if status:
        said(f"{'stopped' if status == 130 else 'not all succeeded'}; the same command goes on with what is not finished")
    if best := search.best():
        said(f"best: {best}")
    sys.exit(status)


def understand(words: list[str]) -> tuple[str, Config, list[str]]:
    """A command line of train.py as train.py takes it: the run's name, knobs, folds."""
    from src.training.run import default_name

    flags, path, knobs, wanted = train.understand(words)
    return flags.name or default_name(path, knobs, flags.debug), knobs, wanted


if __name__ == "__main__":
    cli.run(main)
