"""Find, unpack and check a competition's data and write its folds: python prepare.py --config configs/shopee/resnet50.yaml"""

import sys
from dataclasses import dataclass

from src import cli, config
from src.cli import FlagCreatePairsOff

DEFAULT = "configs/digits/baseline.yaml"


@dataclass(frozen=True)
class Flags:
    """Find, unpack and check a competition's data; print what was found and write folds.csv."""

    config: str = DEFAULT
    """the experiment whose competition and folds are meant, a YAML file"""
    download: FlagCreatePairsOff[bool] = False
    """first fetch the files with the official kaggle client"""


def main() -> None:
    argv = sys.argv[1:]
    flags, knobs = cli.parse(
        Flags, argv, config.load(cli.option(argv, "--config") or DEFAULT), Flags.__doc__, sections=("data",)
    )

    from src.data.prepare import prepare_and_report

    prepare_and_report(knobs, flags.download)


if __name__ == "__main__":
    cli.run(main)
