"""When to save and when to stop."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from src.config import TrainConfig


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
    """A list that fills when Ctrl-C or SIGTERM asks to stop: the step is finished first. A second Ctrl-C stops at once."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
