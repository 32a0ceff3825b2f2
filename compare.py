"""The table of runs: python compare.py, or python compare.py runs/A runs/B"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from src import cli
from src.config import Config


@dataclass(frozen=True)
class Flags:
    """Compare runs by their folders alone: CV ± sd, folds, time, speed, memory, and in which knobs they differ."""

    runs: Positional[tuple[str, ...]] = ()
    """the runs' folders; none: all in runs/"""


def main() -> None:
    flags, _ = cli.parse(Flags, sys.argv[1:], Config(), Flags.__doc__, sections=())

    from rich.console import Console

    from src.report import compare

    rows = compare.read_rows([Path(path) for path in flags.runs] or compare.all_runs())
    Console(width=None if sys.stdout.isatty() else 200).print(compare.table(rows))
    for line in compare.config_differences(rows):
        print(line)


if __name__ == "__main__":
    cli.run(main)
