"""The cores at hand."""

import os


def cores() -> list[int]:
    """The numbers of the cores that this process may use, which may be fewer than the machine has."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
