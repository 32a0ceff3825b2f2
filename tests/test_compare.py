"""compare.py as a user runs it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from written_runs import write_run


def test_the_table_and_the_page_of_a_run(command: Callable, tmp_path: Path):
    write_run(tmp_path / "runs/one", [0, 1, 1, 0], np.eye(2)[[0, 1, 0, 0]] * 2)
    table = command("compare.py", fresh=True)
    assert table.returncode == 0, table.stderr
    assert "one" in table.stdout
    done = command("compare.py", "runs/one", "--report")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("runs/one/report.html: ")
    assert (tmp_path / "runs/one/report.html").read_text().startswith("<!doctype html>")


def test_a_page_of_a_run_that_has_none_is_refused_in_one_line(command: Callable, tmp_path: Path):
    run = write_run(tmp_path / "runs/full", [0, 1], np.eye(2))
    for file in run.glob("fold-*/oof.npz"):
        file.unlink()
    done = command("compare.py", "runs/full", "--report")
    assert done.returncode == 1
    assert done.stderr.startswith("error: runs/full has no out-of-fold rows")
    assert done.stderr.count("\n") == 1
