"""src/cores.py: only the cores that this process may use."""

import os

import pytest

from src.cores import cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system doesn't bind processes to cores")
def test_cores_that_the_process_is_not_allowed_are_not_counted():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(allowed)})
        assert cores() == [max(allowed)]
    finally:
        os.sched_setaffinity(0, allowed)
    assert set(cores()) == allowed
