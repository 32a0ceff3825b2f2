"""src/competitions/kaggle.py: the real client without a token, and scripts in its place for what it may answer."""

import os
import socket
import subprocess
import sys

import pytest

from src.competitions import kaggle
from src.config import CompetitionConfig, built_in
from src.errors import UserError

SHOPEE = built_in("shopee")


def client(tmp_path, monkeypatch, script: str) -> None:
    """Put a shell script in the place of `python -m kaggle`."""
    path = tmp_path / "client"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def refusal(tmp_path) -> str:
    with pytest.raises(UserError) as error:
        kaggle.download(SHOPEE, tmp_path / "data")
    assert "\n" not in str(error.value), "a mistake is told in one line"
    return str(error.value)


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """Someone who has no Kaggle account; yields a socket at which any network access would show up."""
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield server


def test_without_a_token_the_real_client_leads_to_one_line_and_asks_no_server(stranger, tmp_path):
    assert refusal(tmp_path) == f"no Kaggle token: {kaggle.TOKEN}"
    with pytest.raises(BlockingIOError):
        stranger.accept()


def test_a_competition_that_is_not_on_kaggle_says_so(tmp_path):
    mine = CompetitionConfig(name="mine", train_csv="train.csv")
    with pytest.raises(UserError, match=r"mine is not on Kaggle \(no competition.slug\)"):
        kaggle.download(mine, tmp_path)


def test_the_client_is_called_with_the_slug_and_the_folder(tmp_path, monkeypatch):
    client(tmp_path, monkeypatch, 'shift 2; echo "$@" > "$(dirname "$0")/called"')
    kaggle.download(SHOPEE, tmp_path / "data")
    called = (tmp_path / "called").read_text().split()
    assert called == ["competitions", "download", "-c", SHOPEE.slug, "-p", str(tmp_path / "data")]
    assert (tmp_path / "data").is_dir()


@pytest.mark.parametrize(
    "arguments",
    [
        ["download", "-c", "shopee", "-p", "data"],
        ["submit", "-c", "shopee", "-f", "mine.csv", "-m", "mine"],
        ["submissions", "-c", "shopee", "--csv", "-q"],
    ],
)
def test_the_real_client_knows_these_arguments(arguments, stranger):
    run = subprocess.run([sys.executable, "-m", "kaggle", "competitions", *arguments], capture_output=True, text=True)
    assert "Authentication required" in run.stdout + run.stderr
    assert "usage:" not in run.stdout + run.stderr


def test_a_submission_is_handed_in_with_its_file_and_message(tmp_path, monkeypatch):
    client(tmp_path, monkeypatch, 'shift 2; printf "%s|" "$@" > "$(dirname "$0")/called"')
    kaggle.submit(SHOPEE, tmp_path / "mine.csv", "two words")
    called = (tmp_path / "called").read_text().split("|")[:-1]
    assert called == ["competitions", "submit", "-c", SHOPEE.slug, "-f", str(tmp_path / "mine.csv"), "-m", "two words"]


def test_an_upload_that_failed_is_refused_though_the_client_ends_with_status_0(tmp_path, monkeypatch):
    client(tmp_path, monkeypatch, "echo Could not submit to competition")
    with pytest.raises(UserError, match=r"mine\.csv was not handed in: Could not submit to competition"):
        kaggle.submit(SHOPEE, tmp_path / "mine.csv", "")


def test_submissions_are_read_below_whatever_warning_stands_above(tmp_path, monkeypatch):
    lines = ["Warning: outdated", "ref,fileName,description,publicScore", '7,a.csv,"two, words",0.5', "8,b.csv,,"]
    client(tmp_path, monkeypatch, "; ".join(f"echo '{line}'" for line in lines))
    assert kaggle.submissions(SHOPEE) == [
        {"ref": "7", "fileName": "a.csv", "description": "two, words", "publicScore": "0.5"},
        {"ref": "8", "fileName": "b.csv", "description": "", "publicScore": ""},
    ]
    client(tmp_path, monkeypatch, "echo No submissions found")
    assert kaggle.submissions(SHOPEE) == []


@pytest.mark.parametrize(
    "script, said",
    [
        ("echo 'Authentication required to call the Kaggle API.'; exit 1", "no Kaggle token: "),
        ("echo '401 Client Error: Unauthorized' >&2; exit 1", "no Kaggle token: "),
        ("echo '403 Client Error: Forbidden' >&2; exit 1", f"accept the rules at https://www.kaggle.com/c/{SHOPEE.slug}/rules"),
        ("echo 'No module named kaggle' >&2; exit 1", "the kaggle client is not installed: pip install -r requirements.txt"),
        ("echo trace; echo ' no route to host ' >&2; exit 3", "the kaggle client failed: no route to host"),
        ("exit 3", "the kaggle client failed: exit status 3"),
        (
            "echo '403 Client Error: Forbidden for url: x'; echo '403 - Forbidden - verify your phone'; exit 1",
            "verify your phone",
        ),
        (
            "echo 'requests.exceptions.HTTPError: 401 Client Error: x'; exit 1",
            "(Kaggle said: requests.exceptions.HTTPError: 401",
        ),
        ("echo 'You must accept this competition'\\''s rules'; exit 1", f"https://www.kaggle.com/c/{SHOPEE.slug}/rules"),
        (
            "echo 'Warning: outdated'; echo '404 Client Error: no such thing'; echo 'Warning: old' >&2; exit 1",
            "failed: 404 Client",
        ),
    ],
)
def test_what_the_client_answers_is_told_in_one_line_with_the_remedy(tmp_path, monkeypatch, script, said):
    client(tmp_path, monkeypatch, script)
    assert said in refusal(tmp_path)


@pytest.mark.parametrize(
    "last",
    [
        "OSError: [Errno 28] No space left on device",
        "requests.exceptions.ConnectionError: Max retries exceeded with url: /api/403/401",
        "FileNotFoundError: [Errno 2] No such file or directory: '/data/403 Client Error/401.zip'",
        "500 Server Error: Internal Server Error for url: https://x/401",
        "No module named 'requests'",
    ],
)
def test_401_and_403_elsewhere_are_no_status_of_kaggles(tmp_path, monkeypatch, last):
    trace = f'Traceback (most recent call last):\n  File "api.py", line 2403, in download, 401\n    403\n{last}\n'
    (tmp_path / "said").write_text(trace)
    client(tmp_path, monkeypatch, 'cat "$(dirname "$0")/said" >&2; exit 1')
    assert refusal(tmp_path) == f"the kaggle client failed: {last}"


def test_a_client_that_cannot_be_started_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    assert "can't be started" in refusal(tmp_path)
