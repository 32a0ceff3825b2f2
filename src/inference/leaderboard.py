"""The scores that Kaggle gave a run's submission, kept with the run and on its row of the dashboard."""

import json
import math
from collections.abc import Callable

from src.config import Config
from src.errors import UserError
from src.files import replacing
from src.training import tracking
from src.training.run import Run

BOARDS = ("public", "private")


def record(run: Run, config: Config, given: tuple[str, ...], said: Callable[[str], None] = print) -> None:
    """Add ("public=0.0612", "private=0.0598") to runs/NAME/leaderboard.json and to the experiment's W&B run.

    Raises UserError for another board or a value that is not a number.
    """
    scores = dict(_read(entry) for entry in given)
    path = run.path / "leaderboard.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    with replacing(path) as partial:
        partial.write_text(json.dumps(known | scores, indent=1))
    tracker = tracking.track(config, run.name, "cv", run.path, None, said)
    tracker.summarize(scores)
    tracker.finish()
    said(f"{path}: " + ", ".join(f"{board} {score:g}" for board, score in (known | scores).items()))


def _read(entry: str) -> tuple[str, float]:
    board, _, value = entry.partition("=")
    try:
        score = float(value)
    except ValueError:
        score = math.nan
    if board not in BOARDS or not math.isfinite(score):
        raise UserError(f"--record {entry}: expected public=SCORE or private=SCORE, as in --record public=0.0612")
    return board, score
