"""A sweep's trials on one machine: a process each, as many at a time as there are slots, and the table of their scores."""

import csv
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.table import Table

from src.config import REPOSITORY
from src.cores import cores
from src.data import prepare
from src.files import replacing
from src.training.run import or_dash
from src.training.sweep import Sweep, Trial, ranking

POLL_SECONDS = 0.2


class Search:
    """The trials while they are trained. `folder` gets a log of each, and trials.csv."""

    def __init__(
        self, sweep: Sweep, trials: list[Trial], folder: Path, said: Callable[[str], Any] = print,
        program: Path = REPOSITORY / "train.py",
    ) -> None:  # fmt: skip
        self.sweep, self.trials, self.folder, self.said, self.program = sweep, trials, folder, said, program
        self.score, self.higher = ranking(sweep, trials[0].config)
        anew = "--overwrite" in trials[0].words
        self.states = {trial.number: "finished" if trial.is_finished() and not anew else "waiting" for trial in trials}
        self.cv = {trial.run.name: trial.cross_validation() for trial in trials}
        self.running: dict[int, tuple[Trial, subprocess.Popen[bytes], float]] = {}  # by slot; the last: when it began

    def run(self, slots: int) -> int:
        """Train what is not finished. The exit status: 0; 1 where a trial failed; 130 after Ctrl-C."""
        waiting = [trial for trial in self.trials if self.states[trial.number] == "waiting"]
        self.said(f"{len(self.trials)} trials, {len(waiting)} of them to train; logs in {self.folder}")
        if self.sweep.file.early_terminate:
            self.said("early_terminate is for W&B's server: here every trial runs to its end")
        _prepare_data(waiting, self.said)
        self.folder.mkdir(parents=True, exist_ok=True)
        slots = max(1, min(slots, len(waiting)))
        try:
            with _signals() as asked:
                stopped = 0
                while self.running or (waiting and not asked):
                    for slot in range(slots):
                        if slot not in self.running and waiting and not asked:
                            self._start(waiting.pop(0), slot, slots)
                    if len(asked) > stopped:
                        stopped = len(asked)
                        self._stop(at_once=stopped > 1)
                    time.sleep(POLL_SECONDS)
                    for slot in [slot for slot, (_, process, _) in self.running.items() if process.poll() is not None]:
                        self._end(*self.running.pop(slot), bool(asked))
        finally:
            for _, process, _ in self.running.values():  # only after an error
                process.terminate()
        self._write()
        return 130 if asked else int(any(state.startswith("failed") for state in self.states.values()))

    def _start(self, trial: Trial, slot: int, slots: int) -> None:
        """A slot has its share of the cores, and one of the GPUs."""
        mine = cores()
        environment = {"OMP_NUM_THREADS": str(max(1, len(mine) // slots))} | os.environ | {"PYTHONUNBUFFERED": "1"}
        if gpus := visible_gpus():
            environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        with open(self._log(trial), "ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(self.program), *trial.words], env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,  # Ctrl-C at the terminal is for this process alone
            )  # fmt: skip
        if hasattr(os, "sched_setaffinity"):
            with suppress(ProcessLookupError):  # train.py also counts its loader's workers by this
                os.sched_setaffinity(process.pid, mine[slot % len(mine) :: slots])
        self.running[slot] = (trial, process, time.monotonic())
        self.states[trial.number] = "running"
        self.said(f"trial {trial.number} ({trial}) begins")

    def _end(self, trial: Trial, process: subprocess.Popen[bytes], began: float, asked_to_stop: bool) -> None:
        cv = self.cv[trial.run.name] = trial.cross_validation()
        if process.returncode == 0:
            state = "finished" if trial.is_finished() else "unfinished"  # train.max_minutes were over
        else:
            state = "stopped" if asked_to_stop else f"failed: {self._last_line(trial, process.returncode)}"
        self.states[trial.number] = state
        score = f", {cv}" if cv is not None and process.returncode == 0 else ""
        self.said(f"trial {trial.number} ({trial}), {(time.monotonic() - began) / 60:.1f} min: {state}{score}")
        self._write()

    def _stop(self, at_once: bool) -> None:
        self.said("killing the trials" if at_once else "stopping: the trials save their state; Ctrl-C again kills them")
        for _, process, _ in self.running.values():
            process.kill() if at_once else process.terminate()

    def _log(self, trial: Trial) -> Path:
        return self.folder / f"trial-{trial.number:03d}.log"

    def _last_line(self, trial: Trial, status: int) -> str:
        """What became of a trial: train.py ends with the user's mistake in one line."""
        if status < 0:
            return f"ended by {signal.Signals(-status).name}"
        lines = self._log(trial).read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {status}")

    # The table of runs

    def rows(self) -> list[dict[str, Any]]:
        """A row a run, with whatever folds it has: the best first, those without a score last."""
        rows = [self._row(run.name) for run in dict.fromkeys(trial.run for trial in self.trials)]
        sign = -1 if self.higher else 1
        return sorted(rows, key=lambda row: math.inf if math.isnan(row[self.score]) else sign * row[self.score])

    def _row(self, name: str) -> dict[str, Any]:
        own, cv = [trial for trial in self.trials if trial.run.name == name], self.cv[name]
        run = own[0].run
        seconds = [run.history(fold)["seconds"].sum() for fold in run.folds_with("history.csv")]
        return {
            "run": name,
            **{knob: str(value) for knob, value in own[0].values.items() if knob != "fold"},
            self.score: cv.summary().get(self.score, math.nan) if cv else math.nan,
            "sd": cv.sd if cv else math.nan,
            "folds": " ".join(cv.folds) if cv else "",
            "minutes": f"{sum(seconds) / 60:.1f}",
            "state": "; ".join(dict.fromkeys(self.states[trial.number] for trial in own)),
        }

    def table(self) -> Table:
        """The rows for a terminal."""
        rows = self.rows()
        drawn = Table(box=None, pad_edge=False, header_style="bold")
        for heading in rows[0]:
            right = heading in (self.score, "sd", "minutes")
            drawn.add_column(heading.rpartition(".")[2], justify="right" if right else "left", overflow="fold")
        for row in rows:
            drawn.add_row(*(or_dash(cell, 4) if isinstance(cell, float) else cell for cell in row.values()))
        return drawn

    def best(self) -> str | None:
        """The command of the best run, with all its folds where these were varied; None where no run has a score."""
        best = self.rows()[0]
        if math.isnan(best[self.score]):
            return None
        trial = next(trial for trial in self.trials if trial.run.name == best["run"])
        words = ["--fold=all" if "fold" in trial.values and word.startswith("--fold=") else word for word in trial.words]
        return shlex.join(["python", "train.py", *words])

    def _write(self) -> None:
        rows = self.rows()
        with replacing(self.folder / "trials.csv") as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES can be set to for one GPU each; empty where there are none."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu.strip() for gpu in given.split(",") if gpu.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], text=True, capture_output=True).stdout
    except OSError:
        return []
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def _prepare_data(trials: list[Trial], said: Callable[[str], Any]) -> None:
    """Unpack the trials' data and look at it once: processes that did so at the same time would be in each other's way."""
    configs = {(trial.config.competition, trial.config.data.root, trial.config.data.audit): trial.config for trial in trials}
    for config in configs.values():
        prepare.audited(config, prepare.prepare(config, said), said)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that fills with every request to end."""
    asked: list[int] = []
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # as under nohup
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in heeded}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
