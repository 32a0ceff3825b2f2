"""The repository's commands as processes: a new interpreter, or a fork of one that has imported torch and timm before."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SECONDS = 300  # that a command may take
PRELOAD = ["src.training.experiment"]  # which has all that training imports
FORKS = sys.platform == "linux" and sys.version_info < (3, 14)  # where a script's own loaders fork, too


def fresh(script: Path, arguments: list[str], cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """As from a shell without a terminal."""
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd, env=env, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS,
    )  # fmt: skip


def forked(
    script: Path, arguments: list[str], cwd: Path, env: Mapping[str, str], streams: Path
) -> subprocess.CompletedProcess[str]:
    """The same without the imports, which take longer than all else that a tiny run does. streams: a folder to write to.

    What a package reads of the environment or says when it is imported is the server's: `fresh` is for that.
    """
    process = server().Process(target=_run, args=(script, arguments, cwd, dict(env), streams))
    process.start()
    process.join(SECONDS)
    said = [path.read_text(encoding="utf-8") if path.is_file() else "" for path in (streams / "stdout", streams / "stderr")]
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{script.name} {' '.join(arguments)}: not over after {SECONDS} s; it said {said}")
    return subprocess.CompletedProcess([script.name, *arguments], process.exitcode, *said)


def server() -> multiprocessing.context.BaseContext:
    """Whose processes have all that training imports, where the tests run in the repository's folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _run(script: Path, arguments: list[str], cwd: Path, env: dict[str, str], streams: Path) -> None:
    """In the fork: become the command. Multiprocessing makes the exit status of what it raises."""
    multiprocessing.set_start_method("fork", force=True)  # for its loaders' workers, as in a new interpreter
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(streams / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [str(script), *arguments]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out
