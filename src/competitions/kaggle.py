"""The official kaggle client, called as a command: it asks for its token when imported, which would end the process."""

import csv
import io
import re
import subprocess
import sys
from pathlib import Path

from src.config import CompetitionConfig
from src.errors import UserError

# How the client tells an HTTP error: requests' status line, alone or at the end of a traceback, or Kaggle's own words below
# it. Only the start of a line counts: a traceback's line numbers, a url or a file's name may hold 401 or 403 as well.
STATUS = re.compile(r"^(?:[\w.]*HTTPError: )?(\d{3})(?: (?:Client|Server) Error\b| - )", re.MULTILINE)
STATUS_ALONE = re.compile(r"(?:[\w.]*HTTPError: )?\d{3} (?:Client|Server) Error\b.*")
TOKEN = "make one at https://www.kaggle.com/settings/api and save it as ~/.kaggle/access_token or in KAGGLE_API_TOKEN"


def download(competition: CompetitionConfig, root: Path) -> None:
    """Fetch the competition's files into `root`. Raises UserError in one line: no token, rules not accepted, no network."""
    slug = slug_of(competition, "there is nothing to download")
    root.mkdir(parents=True, exist_ok=True)
    _client(["competitions", "download", "-c", slug, "-p", str(root)], slug)


def submit(competition: CompetitionConfig, path: Path, message: str) -> None:
    """Hand in a submission file. Raises UserError as `download` does, and where Kaggle did not take it."""
    slug = slug_of(competition, "nothing can be handed in")
    told = _client(["competitions", "submit", "-c", slug, "-f", str(path), "-m", message], slug)
    if re.search("^Could not", told, re.MULTILINE):  # a failed upload, which the client ends with status 0
        raise UserError(f"{path} was not handed in: {_last_line(told)}")


def submissions(competition: CompetitionConfig) -> list[dict[str, str]]:
    """What was handed in last, newest first: fileName, description, status, publicScore, privateScore, "" where unknown.

    Raises UserError as `download` does.
    """
    slug = slug_of(competition, "it has no scores there")
    told = _client(["competitions", "submissions", "-c", slug, "--csv", "-q"], slug)
    lines = told.splitlines(keepends=True)
    header = next((i for i, line in enumerate(lines) if "publicScore" in line), len(lines))  # a warning may stand above
    return list(csv.DictReader(io.StringIO("".join(lines[header:]))))


def slug_of(competition: CompetitionConfig, consequence: str) -> str:
    """Kaggle's name of the competition. Raises UserError, with the consequence, for one that is not on Kaggle."""
    if competition.slug is None:
        raise UserError(f"{competition.name} is not on Kaggle (no competition.slug), so {consequence}")
    return competition.slug


def _client(arguments: list[str], slug: str) -> str:
    """What the client printed."""
    try:
        run = subprocess.run(
            [sys.executable, "-m", "kaggle", *arguments],
            text=True, errors="replace", capture_output=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"the kaggle client can't be started: {error}") from None
    if run.returncode == 0:
        return run.stdout
    raise UserError(_refusal(f"{run.stdout}\n{run.stderr}", slug) or f"the kaggle client failed: exit status {run.returncode}")


def _refusal(said: str, slug: str) -> str:
    """What the client said and what to do about it, in one line; "" where it said nothing."""
    last, statuses = _last_line(said), STATUS.findall(said)
    status = statuses[-1] if statuses else ""
    if re.search(r"No module named '?kaggle'?$", said, re.MULTILINE):
        return "the kaggle client is not installed: pip install -r requirements.txt"
    if re.search("^Authentication required", said, re.MULTILINE):
        return f"no Kaggle token: {TOKEN}"
    if status == "401":
        return f"no Kaggle token: {TOKEN} (Kaggle said: {last})"
    if (status == "403" and STATUS_ALONE.fullmatch(last)) or re.search(r"\baccept\b.*\brules\b", last):
        rules = f"https://www.kaggle.com/c/{slug}/rules"
        return f"Kaggle refuses: accept the rules at {rules} with the token's account (Kaggle said: {last})"
    if status == "403":
        return f"Kaggle refuses: {last}"
    return last and f"the kaggle client failed: {last}"


def _last_line(said: str) -> str:
    lines = (line.strip() for line in reversed(said.splitlines()))
    return next((line for line in lines if line and not line.startswith("Warning:")), "")
