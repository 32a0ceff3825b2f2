"""Kaggle's leaderboard: a run's submission handed in, and its scores kept with the run, in the ledger and on the dashboard."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import FiniteFloat

from src.competitions import kaggle
from src.config import Config
from src.errors import UserError, command
from src.files import read_json, replacing, sha256
from src.inference import check, ledger
from src.training import tracking
from src.training.run import Run

BOARDS = ("public", "private")
ASK = "kaggle"  # instead of scores: ask for them
PAUSES = (2, 4, 8, 16, 30)  # seconds before each question for a score: most competitions have it within a minute


def submission_of(run: Run) -> Path:
    """submissions/NAME.csv, which predict.py and ensemble.py write for a run."""
    return Path("submissions") / f"{run.name}.csv"


def submit(run: Run, config: Config, message: str, again: bool, said: Callable[[str], None] = print) -> None:
    """Check the run's submission, hand it in by the kaggle client, and record the score if there is one within a minute.

    message: what stands beside it on Kaggle, "" for the run's name; the file's sha256 is added, by which it is found again.
    again: even if the same content was handed in before. Ends with status 1 and a line for each fault of the file.
    Raises UserError where there is no file, no token, or Kaggle refuses.
    """
    path, competition = submission_of(run), config.competition
    kaggle.slug_of(competition, "nothing can be handed in")
    if not path.is_file():
        raise UserError(f"{path}: no such file; {command('predict.py', run.path)} writes it")
    rows = check.check_file(path, config, run, said)
    if competition.expected_test not in (None, rows):
        raise UserError(f"{path} is for the {rows:,} test rows that are here; Kaggle wants all {competition.expected_test:,}")
    digest = sha256(path)
    with ledger.handing_in(path, [run.name], again):
        kaggle.submit(competition, path, f"{message or run.name} {_tag(digest)}")
    said(f"{path}: handed in to {competition.slug}")
    later = f"{command('predict.py', run.path, '--record', ASK)} asks again"
    try:
        for pause in PAUSES:
            time.sleep(pause)
            if scores := _scores(config, digest):
                return _keep(run, config, scores, said)
        said(f"Kaggle has no score for it yet; {later}")
    except UserError as error:  # it is handed in all the same
        said(f"{error}; {later}")
    return None


def record(run: Run, config: Config, given: tuple[str, ...], said: Callable[[str], None] = print) -> None:
    """Add ("public=0.0612", "private=0.0598") to runs/NAME/leaderboard.json, the ledger and the experiment's W&B run.

    ("kaggle",): the scores of what was last handed in by `submit`, asked from Kaggle.
    Raises UserError for another board, a value that is not a number, or where Kaggle has no score.
    """
    if given != (ASK,):
        scores = [_read(entry) for entry in given]
        if len(dict(scores)) < len(scores):
            raise UserError(f"--record {' '.join(given)}: a board stands there twice")
        return _keep(run, config, dict(scores), said)
    path = submission_of(run)
    row = ledger.handed_in(path)
    if row is None:
        raise UserError(
            f"{path} was not handed in by --submit, so it can't be found on Kaggle: --record public=SCORE notes a score"
        )
    if scores := _scores(config, row["sha256"]):
        return _keep(run, config, scores, said)
    raise UserError(f"Kaggle has no score yet for {path}, handed in on {row['submitted']}; ask again later")


def _keep(run: Run, config: Config, scores: dict[str, float], said: Callable[[str], None]) -> None:
    path = run.path / "leaderboard.json"
    remedy = "delete it, and note the scores anew (--record)"
    known = read_json(path, dict[str, FiniteFloat], remedy) if path.is_file() else {}
    row = ledger.record(submission_of(run), scores)
    with replacing(path) as partial:
        partial.write_text(json.dumps(known | scores, indent=1))
    tracker = tracking.track(config, run.name, "cv", run.path, None, said)
    tracker.summarize(scores)
    tracker.finish()
    said(f"{path}: " + ", ".join(f"{board} {score:g}" for board, score in (known | scores).items()))
    if row is None:
        said(f"not in submissions/ledger.csv, which has no row for {submission_of(run).name} as it is now")
    else:
        said(f"submissions/ledger.csv: noted for {row['file']} of {row['time']} (sha256 {row['sha256'][:12]})")


def _scores(config: Config, digest: str) -> dict[str, float]:
    """What Kaggle says of the file with this sha256: {"public": …}; nothing while it is being scored."""
    found = next((row for row in kaggle.submissions(config.competition) if _tag(digest) in row["description"]), None)
    if found is None:
        return {}
    if "ERROR" in found["status"].upper():
        url = f"https://www.kaggle.com/c/{config.competition.slug}/submissions"
        raise UserError(f"Kaggle could not score {found['fileName']}: the reason stands at {url}")
    return dict(_read(f"{board}={found[f'{board}Score']}") for board in BOARDS if found.get(f"{board}Score"))


def _tag(digest: str) -> str:
    return f"[sha256 {digest[:12]}]"


def _read(entry: str) -> tuple[str, float]:
    board, _, value = entry.partition("=")
    try:
        score = float(value)
    except ValueError:
        score = math.nan
    if board not in BOARDS or not math.isfinite(score):
        raise UserError(
            f"--record {entry}: expected public=SCORE or private=SCORE, as in --record public=0.0612, or {ASK} to ask for them"
        )
    return board, score
