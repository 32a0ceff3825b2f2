"""When to save and when to stop."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from src.config import TrainConfig
from src.signals import ENDING


class Clock:
    """One command's time: checkpoints every so often, and an end before the kernel's own."""

    def __init__(self, config: TrainConfig) -> None:
        self.started = self.saved = time.monotonic()
        self.every = config.checkpoint_minutes * 60
        self.limit = None if config.max_minutes is None else config.max_minutes * 60
        self.longest_ending = 0.0  # seconds that validating and saving took, at most

    def checkpoint_is_due(self) -> bool:
        return time.monotonic() - self.saved >= self.every

    def is_over(self) -> bool:
        """Whether validating and saving now, by half longer than it ever took, would just fit."""
        return self.limit is not None and time.monotonic() - self.started + 1.5 * self.longest_ending >= self.limit

    def has_saved(self) -> None:
        self.saved = time.monotonic()


@contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """A list that fills when Ctrl-C, SIGTERM or a closed terminal asks to stop: the step is finished first, and saved.

    A second Ctrl-C stops at once. A hang-up that is ignored, as under nohup, stays so.
    """
    asked: list[int] = []
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def ask(number: int, _: object) -> None:
        if asked and number == signal.SIGINT:  # only that: `timeout` sends SIGTERM twice, a shell SIGHUP
            raise KeyboardInterrupt
        asked.append(number)
        if number == getattr(signal, "SIGHUP", None):
            _let_go(terminals)

    hears = [number for number in ENDING if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in hears}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_go(terminals: list[int]) -> None:
    """What is still said goes nowhere where the terminal is gone: writing to it would be an error, and end the training."""
    for stream in terminals:
        try:
            os.write(stream, b"\n")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
