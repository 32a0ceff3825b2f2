"""The table of runs: python compare.py, or python compare.py runs/A runs/B; a page that explains one: … runs/A --report"""

import sys
from dataclasses import dataclass
from pathlib import Path

from src import cli
from src.cli import FlagCreatePairsOff, Positional
from src.config import Config


@dataclass(frozen=True)
class Flags:
    """Compare runs by their folders alone: CV ± sd, folds, time, speed, memory, and in which knobs they differ."""

    runs: Positional[tuple[str, ...]] = ()
    """the runs' folders; none: all in runs/"""
    report: FlagCreatePairsOff[bool] = False
    """write a page instead: the errors of one run (runs/A/report.html), or two runs row by row (runs/A/report-vs-B.html)"""


def main() -> None:
    flags, _ = cli.parse(Flags, sys.argv[1:], Config(), Flags.__doc__, sections=())

    if flags.report:
        from src.report import page

        page.write([Path(path) for path in flags.runs])
        return

    from rich.console import Console

    from src.report import compare

    named = [Path(path) for path in flags.runs]
    rows = compare.read_rows(named) if named else compare.read_rows(compare.all_runs(), left_out)
    Console(width=None if sys.stdout.isatty() else 200).print(compare.table(rows))
    for line in compare.config_differences(rows):
        print(line)


def left_out(why: str) -> None:
    print(f"left out: {why}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
