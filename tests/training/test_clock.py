"""When to save and when to stop, by a clock that the test turns."""

import os
import signal

import pytest

from src.config import TrainConfig
from src.signals import deferred
from src.training import clock
from src.training.clock import Clock, stop_on_signals


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [1000.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: time[0])
    return time


def test_a_checkpoint_is_due_after_its_minutes_and_again_after_each_save(now: list[float]):
    ours = Clock(TrainConfig(checkpoint_minutes=2))
    now[0] += 119
    assert not ours.checkpoint_is_due()
    now[0] += 1
    assert ours.checkpoint_is_due()
    ours.has_saved()
    assert not ours.checkpoint_is_due()


def test_without_a_limit_the_time_is_never_over(now: list[float]):
    ours = Clock(TrainConfig())
    now[0] += 1e9
    assert not ours.is_over()


def test_the_time_is_over_early_enough_to_validate_and_save(now: list[float]):
    ours = Clock(TrainConfig(max_minutes=10))
    ours.longest_ending = 40.0  # seconds
    now[0] += 600 - 61
    assert not ours.is_over()
    now[0] += 1
    assert ours.is_over()


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_asks_to_stop_and_the_step_is_finished_first(name: str):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with stop_on_signals() as asked:
        signal.raise_signal(number)
        assert asked == [number]
    assert signal.getsignal(number) == before


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_a_hang_up_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as asked:
            signal.raise_signal(signal.SIGHUP)
        assert asked == []
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_a_signal_that_comes_while_processes_start_is_dealt_with_afterwards():
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            assert heard == []
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
