"""Run seeded whole commands on damaged inputs: each must succeed, or refuse in one line and leave what was there as it was.

    python benchmarks/fuzz.py [--commands 1000] [--seed 0] [--only KIND] [--number N] [--keep DIR]

Command N of a seed is always the same, so `--number N` repeats one alone. The folders of commands that failed are kept.
What is damaged, kind by kind, stands in spoilt.py. Exit status 1 if any command failed.
"""

import argparse
import collections
import multiprocessing
import os
import re
import resource
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
sys.path.append(str(ROOT / "benchmarks"))  # last: the tests have a kills.py, too

from spoilt import CANARY, KINDS, VERBS, write_competition  # noqa: E402

import commands  # noqa: E402

SECONDS = 60  # a command that takes longer hangs
LONGEST = 1000  # characters of an error
MEMORY = 12 << 30  # bytes of address space; torch's libraries alone take four
CRASHES = ("Traceback (most recent call last)", "Error in sys.excepthook", "core dumped", "Segmentation fault")
IMMUTABLE = ("folds.csv", "config.yaml", "model.safetensors", "last.pt", "oof.npz")  # of a run, where a command refuses
OURS = {"folds.csv", "audit.csv"}  # what prepare.py writes beside the data
BASE = ("train a", "train b", "train stopped", "predict", "predict b", "blend both")  # the commands that made the runs at hand
MOULDS = ("traceback", "hang", "message", "left behind")  # of a fault


@dataclass(frozen=True)
class Result:
    """What became of one command. line: the last that it said; faults: what no command may do, as (kind of fault, words)."""

    number: int
    kind: str
    words: list[str]
    refused: bool
    line: str
    faults: list[tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(KINDS))
    parser.add_argument("--number", type=int, help="only this command of the seed")
    parser.add_argument("--at_once", type=int, default=2, help="commands at a time")
    parser.add_argument("--tell", action="store_true", help="also the last line of every command that did as it must")
    parser.add_argument("--keep", type=Path, help="folder for what failed; none: a new one in the temporary folder")
    asked = parser.parse_args()
    keep = asked.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    numbers = [asked.number] if asked.number is not None else numbers_of(asked.commands, asked.only)
    results = []
    for result in run(numbers, asked.seed, keep, asked.at_once):
        results.append(result)
        told = [f"{mould}: {fault}" for mould, fault in result.faults] or [result.line] * asked.tell
        for fault in told:
            print(f"{result.number} {result.kind}: {shlex.join(result.words)[:200]}: {fault}", flush=True)
    print(summary(results))
    if any(result.faults for result in results):
        sys.exit(f"some failed: their folders are in {keep}, and --seed {asked.seed} --number N repeats one")


def numbers_of(count: int, only: str | None = None) -> list[int]:
    """The first `count` commands, of all kinds in turn or of one."""
    kinds = list(KINDS)
    return [i * len(kinds) + kinds.index(only) if only else i for i in range(count)]


def run(numbers: Iterable[int], seed: int, keep: Path, at_once: int = 2) -> Iterable[Result]:
    """Run these commands of a seed, `at_once` at a time, and yield what became of each. keep: a folder for what failed."""
    base = keep / "base"
    if not base.exists():
        write_competition(base)
    context = multiprocessing.get_context("spawn")  # each needs a fork server of its own: neither threads nor this one's forks
    with ProcessPoolExecutor(at_once, context, initializer=_begin) as pool:
        pool.submit(_make_base, base).result()
        yield from pool.map(partial(one, seed=seed, base=base, keep=keep), numbers)


def _begin() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    commands.SECONDS = SECONDS
    commands.PRELOAD += ["src.cli", "src.report.page", "src.inference.ensemble", "src.inference.bundle", "src.data.audit"]


def _make_base(base: Path) -> None:
    """Train, predict and blend once what the commands then find."""
    for verb in BASE:
        if not (base / "streams" / verb).exists():
            (base / "streams" / verb).mkdir(parents=True)
            done = call(VERBS[verb], base, base / "streams" / verb)
            if done.returncode:
                raise RuntimeError(f"{verb}: {done.stderr}")


def call(words: list[str], folder: Path, streams: Path):
    """A command in `folder`, without key, account or network. Raises TimeoutError after SECONDS."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "KAGGLE_"))}
    env |= {"HOME": str(streams), "HF_HOME": str(streams / "no-hub")}
    return commands.forked(ROOT / words[0], words[1:], folder, env, streams)


def one(number: int, seed: int, base: Path, keep: Path) -> Result:
    """Spoil a copy of the base by the draws of (seed, number), run the command there, and look at what became of it."""
    rng, kind = Random(f"{seed} {number}"), list(KINDS)[number % len(KINDS)]
    place = keep / f"{seed}-{number}"
    shutil.rmtree(place, ignore_errors=True)
    folder, streams = place / "here", place / "streams"
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("streams"))
    streams.mkdir()
    words = KINDS[kind](rng, folder)
    (place / "command").write_text(shlex.join(words), encoding="utf-8", errors="surrogateescape")
    before = contents(folder)
    try:
        done = call(words, folder, streams)
        status, said, complaint = done.returncode, done.stdout, done.stderr
    except TimeoutError:
        status, said, complaint = None, *(read(streams / name) for name in ("stdout", "stderr"))
    except UnicodeDecodeError:
        status, said, complaint = 1, read(streams / "stdout"), "not UTF-8"
    said += "".join(read(log) for log in folder.glob("runs/sweeps/*/*.log"))
    faults = faults_of(status, said, complaint) + left_behind(place, before, refused=status != 0)
    if not faults:
        shutil.rmtree(place)
    line = (complaint.strip() or said.strip()).rpartition("\n")[2]
    return Result(number, kind, words, status != 0, line[:LONGEST], faults)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def faults_of(status: int | None, said: str, complaint: str) -> list[tuple[str, str]]:
    """What is wrong with how a command ended (status None: it didn't) and with what it said."""
    if status is None:
        return [("hang", f"not over after {SECONDS} s")]
    if any(crash in said + complaint for crash in CRASHES):
        return [("traceback", signature(said + complaint))]
    if status not in (0, 1, 2, 130):
        return [("traceback", f"exit status {status}")]
    line = complaint.strip("\n").rpartition("\n")[2]
    told = said.strip() and not complaint.strip()  # predict.py --check and sweep.py say their findings on stdout
    if status in (1, 2) and not (line.startswith("error:") or told):
        return [("message", f"no line that begins with error: but {line[:100]!r}")]
    if status in (1, 2) and len(line) >= LONGEST:
        return [("message", f"an error of {len(line):,} characters: {line[:100]!r}")]
    return []


def signature(output: str) -> str:
    """Exception and innermost frame of this repository, of the last traceback."""
    last = output.rpartition(CRASHES[0])[2]
    frames = re.findall(rf'File "{re.escape(str(ROOT))}/((?!tests|\.venv)[^"]+)", line (\d+), in (\S+)', last)
    kinds = re.findall(r"^([A-Za-z_][\w.]*)(?::.*)?$", last, re.MULTILINE)
    name = kinds[-1].rpartition(".")[2] if kinds else next((crash for crash in CRASHES if crash in output), "?")
    return f"{name} in {frames[-1][2]}, {frames[-1][0]}:{frames[-1][1]}" if frames else f"{name} outside the repository"


def contents(folder: Path) -> dict[Path, bytes]:
    """What must stay: the competition's files and what a run can't be without."""
    files = [path for path in (folder / "data").rglob("*") if path.name not in OURS and path.name[0] != "."]
    files += [path for name in IMMUTABLE for path in (folder / "runs").rglob(name)]
    return {path: path.read_bytes() for path in files if path.is_file()}


def left_behind(place: Path, before: dict[Path, bytes], refused: bool) -> list[tuple[str, str]]:
    """Files that are half-written, changed, gone, or where none may be."""
    here = place / "here"
    half = [path for path in here.rglob("*") if path.suffix in (".partial", ".owner") and path.is_file()]
    wrong = [f"{path.relative_to(here)} is left" for path in half]
    for path, data in before.items():
        inputs = (here / "data") in path.parents
        if (refused or inputs) and not (path.is_file() and path.read_bytes() == data):
            wrong.append(f"{path.relative_to(here)} is {'changed' if path.exists() else 'gone'}")
    wrong += [f"{path.name} lies outside" for path in place.iterdir() if path.name not in ("here", "streams", "command")]
    wrong += ["code was executed"] if any(place.rglob(CANARY)) else []
    return [("left behind", "; ".join(wrong))] if wrong else []


def summary(results: list[Result]) -> str:
    """A line a kind, and a line for each distinct fault with how often it came and the numbers that show it."""
    lines = [f"{'kind':<10}{'commands':>9}{'refused':>9}{'succeeded':>10}" + "".join(f"{mould:>12}" for mould in MOULDS)]
    for kind in [*KINDS, "all"]:
        own = [result for result in results if kind in (result.kind, "all")]
        good = [result for result in own if not result.faults]
        counts = [sum(mould == fault for result in own for fault, _ in result.faults) for mould in MOULDS]
        refused = sum(result.refused for result in good)
        lines.append(
            f"{kind:<10}{len(own):>9}{refused:>9}{len(good) - refused:>10}" + "".join(f"{count:>12}" for count in counts)
        )
    distinct = collections.defaultdict(list)
    for result in results:
        for fault in result.faults:
            distinct[fault].append(result.number)
    for (mould, fault), numbers in sorted(distinct.items(), key=lambda item: -len(item[1])):
        lines.append(f"{len(numbers):>4} x {mould}: {fault} (number {', '.join(map(str, numbers[:5]))})")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
