"""Work over many files, spread over processes: threads get in each other's way where a file takes half a millisecond."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from src.errors import UserError

Result = TypeVar("Result")
CHUNK = 64  # files a task: 0.1 s of small photographs, so that a bar moves and no process waits long at the end


def parts(count: int) -> list[slice]:
    """Of `count` files: which belong to each task."""
    return [slice(first, first + CHUNK) for first in range(0, count, CHUNK)]


def spread(work: Callable[..., Result], tasks: list[tuple], workers: int, what: str) -> Iterator[tuple[int, Result]]:
    """(place, work(*task)) of each task, as they end. Few tasks are done right here: starting processes takes longer.

    The processes end with this one, however it ends: after an error or Ctrl-C at once, whatever they are at. Raises
    UserError, which begins with `what`, where a process dies.
    """
    workers = min(workers, len(tasks))
    if workers < 2:
        yield from ((number, work(*task)) for number, task in enumerate(tasks))
        return
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(workers, initializer=_end_with_parent)
    try:
        with _interrupts_held_back():
            places = {pool.submit(work, *task): number for number, task in enumerate(tasks)}
        for future in as_completed(places):
            yield places.pop(future), future.result()
    except BrokenProcessPool:
        raise UserError(
            f"{what}: a process died while reading images, most likely for want of memory; use fewer (--data.workers 1)"
        ) from None
    except BaseException:
        for process in multiprocessing.active_children():
            if process not in others:
                process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """In a new process: leave Ctrl-C to the parent, and end when the parent is gone, even if it was killed.

    Without this a process waits for ever for its next task, with all that it had imported: 560 MB each.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C counts when the block has ended: amid the start of a pool it would leave processes that nobody ends."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C goes to the main thread
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asked:
            signal.raise_signal(signal.SIGINT)
