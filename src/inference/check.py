"""predict.py --check: is this file a submission that Kaggle would take?"""

import sys
from collections.abc import Callable
from pathlib import Path

from src.config import Config
from src.data import prepare
from src.errors import UserError
from src.inference import submission


def check_file(path: Path, config: Config, said: Callable[[str], None] = print) -> None:
    """Say that the file is valid, or end with status 1 and a line for each fault."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    prepared = prepare.prepare(config, lambda _: None)
    if prepared.test is None:
        raise UserError(f"{prepared.root}: no test rows to check against: {prepared.notes[-1]}")
    faults = submission.check(path, config.competition, prepared.classes, prepared.test["id"].tolist())
    for fault in faults[: submission.MOST_FAULTS]:
        said(f"{path}: {fault}")
    if len(faults) > submission.MOST_FAULTS:
        said(f"{path}: and {len(faults) - submission.MOST_FAULTS:,} more faults")
    if faults:
        sys.exit(1)
    said(f"{path}: valid for {config.competition.name}: {len(prepared.test):,} rows")
