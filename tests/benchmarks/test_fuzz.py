"""benchmarks/fuzz.py: what it counts as a fault, that a number is always the same command, and a small part of it."""

import shutil
import sys
from pathlib import Path
from random import Random

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import fuzz
import spoilt

import commands

TRACEBACK = f"""Traceback (most recent call last):
  File "{fuzz.ROOT}/train.py", line 70, in main
  File "{fuzz.ROOT}/src/data/folds.py", line 12, in split
  File "/usr/lib/python3/site-packages/numpy/core.py", line 3, in stack
ValueError: need at least one array
"""


@pytest.mark.parametrize(
    ("status", "said", "complaint", "fault"),
    [
        (0, "done", "a warning", None),
        (1, "", "a warning\nerror: train.csv: no column label\n", None),
        (130, "", "", None),
        (1, "a.csv: row 3: no value", "", None),
        (None, "", "", ("hang", "not over after 60 s")),
        (1, "", TRACEBACK, ("traceback", "ValueError in split, src/data/folds.py:12")),
        (0, "", TRACEBACK, ("traceback", "ValueError in split, src/data/folds.py:12")),
        (-11, "", "", ("traceback", "exit status -11")),
        (3, "", "error: x", ("traceback", "exit status 3")),
        (1, "", "error: a\nb", ("message", "no line that begins with error: but 'b'")),
        (1, "", "", ("message", "no line that begins with error: but ''")),
        (1, "", "error: " + "x" * 2000, ("message", f"an error of 2,007 characters: {'error: ' + 'x' * 93!r}")),
    ],
)
def test_faults_are_told_from_clean_endings(status, said: str, complaint: str, fault: tuple[str, str] | None):
    assert fuzz.faults_of(status, said, complaint) == ([fault] if fault else [])


def test_what_is_left_changed_or_gone_is_found(tmp_path: Path):
    here = tmp_path / "here"
    for name in ("data/train.csv", "runs/a/folds.csv", "runs/a/config.yaml"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("as it was")
    before = fuzz.contents(here)
    assert fuzz.left_behind(tmp_path, before, refused=True) == []
    (here / "runs/a/folds.csv").write_text("other")
    assert fuzz.left_behind(tmp_path, before, refused=False) == []
    assert fuzz.left_behind(tmp_path, before, refused=True) == [("left behind", "runs/a/folds.csv is changed")]
    (here / "data/train.csv").unlink()
    (here / ".a.owner").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "here" / spoilt.CANARY).touch()
    told = fuzz.left_behind(tmp_path, before, refused=False)[0][1]
    assert told == ".a.owner is left; data/train.csv is gone; outside lies outside; code was executed"


@pytest.mark.parametrize("kind", ["tables", "yaml", "cli", "pictures", "archives"])
def test_a_number_is_always_the_same_command(kind: str, tmp_path: Path):
    spoilt.write_competition(tmp_path / "base")
    (tmp_path / "base/submissions").mkdir()
    (tmp_path / "base/submissions/a.csv").write_text("id,label\n")

    def drawn(number: int) -> tuple[list[str], dict[str, bytes]]:
        here = tmp_path / "here"
        shutil.copytree(tmp_path / "base", here)
        words = spoilt.KINDS[kind](Random(f"0 {number}"), here)
        files = {str(path.relative_to(here)): path.read_bytes() for path in here.rglob("*") if path.is_file()}
        shutil.rmtree(here)
        return words, files

    first = [drawn(number) for number in range(5)]
    assert first == [drawn(number) for number in range(5)]
    assert len({str(words) + str(files) for words, files in first}) > 1


@pytest.mark.skipif(not commands.FORKS, reason="needs forks of an interpreter that has imported torch")
def test_spoilt_inputs_are_refused_in_one_line_or_work(tmp_path: Path):
    results = list(fuzz.run(fuzz.numbers_of(25), seed=0, keep=tmp_path, at_once=1))
    assert len(results) == 25
    assert any(result.refused for result in results)
    assert not all(result.refused for result in results)
    assert [result for result in results if result.faults] == []
