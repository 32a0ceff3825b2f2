"""Work over many files, spread over processes: threads get in each other's way where a file takes half a millisecond."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from src.errors import UserError

Result = TypeVar("Result")
CHUNK = 64  # files a task: 0.1 s of small photographs, so that a bar moves and no process waits long at the end


def parts(count: int) -> list[slice]:
    """Of `count` files: which belong to each task."""
    return [slice(first, first + CHUNK) for first in range(0, count, CHUNK)]


def spread(work: Callable[..., Result], tasks: list[tuple], workers: int, what: str) -> Iterator[tuple[int, Result]]:
    """(place, work(*task)) of each task, as they end. Few tasks are done right here: starting processes takes longer.

    Raises UserError, which begins with `what`, where a process dies.
    """
    workers = min(workers, len(tasks))
    if workers < 2:
        yield from ((number, work(*task)) for number, task in enumerate(tasks))
        return
    pool = ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        places = {pool.submit(work, *task): number for number, task in enumerate(tasks)}
        for future in as_completed(places):
            yield places.pop(future), future.result()
    except BrokenProcessPool:
        raise UserError(
            f"{what}: a process died while reading images, most likely for want of memory; use fewer (--data.workers 1)"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
