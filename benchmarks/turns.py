"""Ways of doing the same, timed in turn within one run: what the machine does meanwhile meets them all alike."""

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import numpy as np


class Apart:
    """A way in a process of its own, with its own malloc, threads and workers: nothing of one meets the others."""

    def __init__(self, make: Callable[..., Callable[[], float]], *given: object) -> None:
        """make(*given), called over there, gives what does one round and returns its seconds an item."""
        context = multiprocessing.get_context("spawn")
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, given))
        self.process.start()
        theirs.close()

    def __call__(self) -> float:
        self.ours.send(None)
        return self.ours.recv()

    def close(self) -> None:
        self.ours.close()
        self.process.join()


def _serve(asked: Connection, make: Callable[..., Callable[[], float]], given: tuple) -> None:
    multiprocessing.set_start_method("fork", force=True)  # for loaders' workers, as in a script on Linux
    way = make(*given)
    with suppress(EOFError):  # whoever asked is done
        while True:
            asked.recv()
            asked.send(way())


def take_turns(ways: dict[str, Callable[[], float]], repeats: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Seconds an item of each way, `repeats` times; a round before, which isn't counted, warms everything up."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for way in ways.values() if warm_up else ():
            way()
        for _ in range(repeats):
            for name, way in ways.items():
                taken[name].append(way())
    finally:
        for way in ways.values():
            if isinstance(way, Apart):
                way.close()
    return taken


def table(taken: dict[str, list[float]], item: str = "pictures") -> list[dict[str, object]]:
    """A row a way: its median rate with the spread, and the median of its times against the first way's in the same round."""
    first = np.array(next(iter(taken.values())))
    return [
        {
            "way": name,
            f"{item}/s": f"{1 / np.median(each):.4g}",
            "spread": f"{1 / np.max(each):.4g} to {1 / np.min(each):.4g}",
            "time against the first": ratio(each, first),
            "n": len(each),
        }
        for name, each in taken.items()
    ]


def ratio(times: list[float], against: np.ndarray) -> str:
    """The median of the rounds' ratios, and their spread."""
    ratios = np.array(times) / against
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def show(rows: list[dict[str, object]]) -> None:
    for row in rows:
        print("  ".join(f"{key}: {value}" for key, value in row.items()))
