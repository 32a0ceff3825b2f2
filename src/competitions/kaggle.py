"""The official kaggle client, called as a command: it asks for its token when imported, which would end the process."""

import subprocess
import sys
from pathlib import Path

from src.config import CompetitionConfig
from src.errors import UserError

TOKEN = "make one at https://www.kaggle.com/settings/api and save it as ~/.kaggle/access_token or in KAGGLE_API_TOKEN"


def download(competition: CompetitionConfig, root: Path) -> None:
    """Fetch the competition's files into `root`. Raises UserError in one line: no token, rules not accepted, no network."""
    if competition.slug is None:
        raise UserError(f"{competition.name} is not on Kaggle (no competition.slug), so there is nothing to download")
    root.mkdir(parents=True, exist_ok=True)
    _client(["competitions", "download", "-c", competition.slug, "-p", str(root)], competition.slug)


def _client(arguments: list[str], slug: str) -> None:
    try:
        run = subprocess.run(
            [sys.executable, "-m", "kaggle", *arguments], text=True, capture_output=True, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise UserError(f"the kaggle client can't be started: {error}") from None
    if run.returncode == 0:
        return
    said = f"{run.stdout}\n{run.stderr}"
    if "No module named" in said:
        raise UserError("the kaggle client is not installed: pip install -r requirements.txt")
    if "Authentication required" in said or "401" in said:
        raise UserError(f"no Kaggle token: {TOKEN}")
    if "403" in said:
        raise UserError(f"Kaggle refuses: accept the rules at https://www.kaggle.com/c/{slug}/rules with the token's account")
    last = [line for line in said.splitlines() if line.strip()]
    raise UserError(f"the kaggle client failed: {last[-1].strip() if last else f'exit status {run.returncode}'}")
