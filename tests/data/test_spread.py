"""src/data/spread.py: what processes give, in any order, and that none of them outlives the one that started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src.data import spread as module
from src.data.spread import parts, spread

SLOW = """
import os, sys, time
from src.data import spread

def work(number):
    os.write(1, b"at work\\n")  # whole lines, whichever process writes them
    time.sleep(600)

def interrupting(*arguments, **options):  # Ctrl-C while the processes start
    import signal
    signal.raise_signal(signal.SIGINT)
    return start(*arguments, **options)

if __name__ == "__main__":
    if "early" in sys.argv:
        start = spread.ProcessPoolExecutor.submit
        spread.ProcessPoolExecutor.submit = interrupting
    try:
        for _ in spread.spread(work, [(number,) for number in range(4)], 2, "x"):
            pass
    except KeyboardInterrupt:
        sys.exit(130)
"""


def started(tmp_path: Path, *words: str) -> subprocess.Popen:
    (tmp_path / "slow.py").write_text(SLOW)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(
        [sys.executable, tmp_path / "slow.py", *words], env=env, text=True, start_new_session=True, **streams
    )


def ended(process: subprocess.Popen) -> str:
    """What it printed, once it and all that it started are gone: the last of them closes the pipe."""
    try:
        return process.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("a process was left running")


@pytest.mark.skipif(os.name == "nt", reason="signals and groups of processes")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"])
def test_no_process_outlives_the_one_that_started_it(tmp_path: Path, name: str):
    process = started(tmp_path)
    assert process.stdout.readline() == "at work\n"
    number = getattr(signal, name)
    (os.killpg if name == "SIGINT" else os.kill)(process.pid, number)  # a terminal's Ctrl-C reaches the whole group
    assert "Traceback" not in ended(process)
    assert process.returncode == (130 if name == "SIGINT" else -number)


@pytest.mark.skipif(os.name == "nt", reason="signals and groups of processes")
def test_ctrl_c_while_processes_start_ends_them_all(tmp_path: Path):
    process = started(tmp_path, "early")
    assert "Traceback" not in ended(process)
    assert process.returncode == 130


def test_every_task_is_done_once_whatever_the_number_of_processes():
    for workers in (0, 1, 3):
        assert dict(spread(divmod, [(number, 7) for number in range(9)], workers, "x")) == {n: divmod(n, 7) for n in range(9)}


def test_an_error_in_a_process_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(spread(divmod, [(1, 1), (1, 0)], 2, "x"))


def test_parts_hold_every_file_once():
    assert [number for part in parts(150) for number in range(150)[part]] == list(range(150))
    assert len(range(150)[parts(150)[0]]) == module.CHUNK
