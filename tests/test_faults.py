"""What the machine refuses is told in one line with a way out; anything else stays an error of ours."""

import errno
import os

import pytest

from src.faults import explain


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/oof.npz"), ("runs/a/oof.npz: ", "--resume")),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "runs"), ("runs: ", "can be written to")),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "runs"), ("runs: ", "permissions")),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), ("ulimit -n",)),
        (OSError("no number"), ("no number",)),
        (MemoryError(), ("--data.workers",)),
        (RecursionError(), ("nested too deeply",)),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), ("was killed", "--data.workers")),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>"), ("/dev/shm", "--shm-size")),
        (RuntimeError("can't start new thread"), ("ulimit -u",)),
    ],
)
def test_the_line_names_the_file_and_the_knob(error: BaseException, words: tuple[str, ...]):
    said = explain(error)
    assert "\n" not in said
    assert all(word in said for word in words), said


@pytest.mark.parametrize("error", [RuntimeError("shapes don't match"), ValueError("x"), KeyError("y")])
def test_an_error_of_ours_is_none_of_the_machines(error: Exception):
    assert explain(error) is None
