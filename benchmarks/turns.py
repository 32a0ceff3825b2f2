"""Ways of doing the same, timed in turn within one run: what the machine does meanwhile meets them all alike."""

from collections.abc import Callable

import numpy as np


def take_turns(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds an item of each way, `repeats` times; a round before, which isn't counted, warms everything up."""
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats):
        for name in sorted(ways, key=lambda name: (list(ways).index(name) + number) % len(ways)):  # each is first once
            taken[name].append(ways[name]())
    return taken


def table(taken: dict[str, list[float]], item: str) -> list[dict[str, object]]:
    """A row a way: its median rate with the spread, and the median of its times against the first way's in the same round."""
    first = np.array(next(iter(taken.values())))
    return [
        {
            "way": name,
            f"{item}/s": f"{1 / np.median(each):.3g}" if np.median(each) > 0.1 else f"{1 / np.median(each):.0f}",
            "spread": f"{1 / np.max(each):.4g} to {1 / np.min(each):.4g}",
            "time against the first": f"{np.median(np.array(each) / first):.2f}",
            "n": len(each),
        }
        for name, each in taken.items()
    ]


def show(rows: list[dict[str, object]]) -> None:
    for row in rows:
        print("  ".join(f"{key}: {value}" for key, value in row.items()))
