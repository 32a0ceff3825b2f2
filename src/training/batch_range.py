"""The largest batch that fits into the GPU's memory, and how many images a second each smaller one trains: measured, not
guessed, on random images, so that loading them does not count.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from time import perf_counter
from typing import Any

import torch

from src.config import TrainConfig
from src.errors import UserError
from src.models.backbone import freeze, train_mode
from src.training.loop import step_forward, update
from src.training.training import Training

SPARE = 0.1  # of the free memory: fragments, and what other batches than these need
WARM_UP, TIMED = 3, 10  # steps; cuDNN chooses its kernels, and the optimiser makes its state, in the first
GAIN = 1.05  # a larger batch that is no faster than this is not worth it
LINEAR = ("sgd", "momentum", "nesterov", "lars", "larc")


@dataclass(frozen=True)
class Trial:
    """A batch size that fits."""

    size: int
    speed: float  # images a second

    def __str__(self) -> str:
        return f"batch {self.size:>6,}  {self.speed:>8,.0f} img/s"


def find_batch(training: Training, labels: torch.Tensor, said: Callable[[str], Any] = print) -> list[Trial]:
    """Train on ever larger batches until the GPU's memory is full, with SPARE of it left: those that fit, smallest first.

    From an eighth of train.batch_size on; as frozen, and at the largest image size, that the training comes to. `training` is
    worn out by it: throw it away. labels: (rows,) int64 on the device. Raises UserError where there is no CUDA GPU, or not
    even two images fit.
    """
    check_gpu(training.device)
    config = training.config
    training.position.epoch = max(0, config.epochs - 1)  # when all that ever learns does
    freeze(training.model, training.optimizer, training.frozen)
    train_mode(training.model, training.frozen)

    def speed(size: int) -> float | None:
        found = speed_or_none(training, labels, size)
        said(f"batch {size:>6,}  does not fit" if found is None else str(Trial(size, found)))
        return found

    with torch.cuda.device(training.device), _some_to_spare():
        return search(speed, first_size(config.batch_size), len(labels))


def check_gpu(device: torch.device) -> None:
    """Raises UserError for a device whose memory can't be filled; cheap, so that it can be asked before any data is touched."""
    if device.type != "cuda":
        raise UserError(
            f"--find-batch fills a CUDA GPU's memory, and the device is {device.type}: "
            "on a CPU 32 to 64 images are a good batch, and more are not faster"
        )


def search(speed: Callable[[int], float | None], start: int, limit: int) -> list[Trial]:
    """Double `start` while it fits, then try half as much again. speed: images a second at a size; None: it does not fit.

    Sizes are even and at most `limit`, the fold's rows. Where `start` does not fit, its halves are tried. Returns those that
    fit, smallest first. Raises UserError where none does.
    """
    size, trials = even(min(start, limit)), []
    while size >= 2 and (found := speed(size)) is None:
        size, limit = even(size // 2), size - 1
    if size < 2:
        raise UserError("not even two images fit into the GPU's memory: a smaller model.image_size or model is needed")
    while found is not None:
        trials.append(Trial(size, found))
        size *= 2
        found = speed(size) if size <= limit else None
    between = even(trials[-1].size * 3 // 2)
    if trials[-1].size < between <= limit and (found := speed(between)) is not None:
        trials.append(Trial(between, found))
    return trials


def first_size(configured: int) -> int:
    """Up to three halvings of the configured size, so that doubling meets it again: 64 → 8, 24 → 6."""
    size = even(configured)
    for _ in range(3):
        size = size // 2 if size % 4 == 0 else size
    return size


def even(size: int) -> int:
    """The next even number below, or the number itself: mixup mixes pairs."""
    return size - size % 2


def fast_enough(trials: list[Trial]) -> Trial:
    """The smallest batch than which no larger one is faster by GAIN."""
    best = max(trial.speed for trial in trials)
    return next(trial for trial in trials if trial.speed * GAIN >= best)


def scaled_lr(config: TrainConfig, size: int) -> tuple[float, str]:
    """train.lr for batches of `size` instead of the configured ones, and the rule's name.

    In proportion for SGD (Goyal et al. 2017), by the square root for Adam and its kin (Malladi et al. 2022).
    """
    ratio, linear = size / config.batch_size, any(name in config.optimizer.lower() for name in LINEAR)
    return config.lr * (ratio if linear else sqrt(ratio)), "linear" if linear else "square root"


def summary(trials: list[Trial], config: TrainConfig) -> str:
    """The finder's last line."""
    largest, enough = trials[-1], fast_enough(trials)
    lr, rule = scaled_lr(config, enough.size)
    said = (
        f"train.batch_size: {largest.size:,} is the largest that fits; "
        f"from {enough.size:,} on img/s rises by less than {GAIN - 1:.0%}; configured {config.batch_size:,}"
    )
    if enough.size == config.batch_size:
        return said
    return f"{said}. With {enough.size:,} scale train.lr {config.lr:.1e} → {lr:.1e} ({rule}, for {config.optimizer})"


# On the GPU


def speed_or_none(training: Training, labels: torch.Tensor, size: int) -> float | None:
    """Images a second with batches of `size`; None, and the memory freed, where it is not enough."""
    try:
        return measure(training, labels, size)
    except torch.OutOfMemoryError:
        pass  # the error holds the step's tensors, through its traceback, until this block is left
    training.optimizer.zero_grad(set_to_none=True)
    # Stopped between unscale_ and update, a scaler refuses the next unscale_.
    training.scaler = torch.amp.GradScaler(training.device.type, enabled=training.scaler.is_enabled())
    gc.collect()
    torch.cuda.empty_cache()
    return None


def measure(training: Training, labels: torch.Tensor, size: int) -> float:
    """Images a second over TIMED updates with batches of `size` random images, forward to moving average.

    Of the accumulated batches two count: from the second on the gradients stand beside the activations.
    """
    config, device = training.config, training.device
    pixels = max(config.image_sizes or (training.fed.size,))
    images = torch.randint(256, (size, pixels, pixels, 3), dtype=torch.uint8, device=device)
    target = labels[torch.arange(size) % len(labels)].to(device)
    parts, started = min(2, config.accumulate), 0.0
    for step in range(WARM_UP + TIMED):
        if step == WARM_UP:
            started = _now(device)
        for _ in range(parts):
            loss = step_forward(training, training.model, images, target)
            training.scaler.scale(loss / parts).backward()
        update(training)
    return size * parts * TIMED / (_now(device) - started)


def _now(device: torch.device) -> float:
    """Seconds, when all that was queued is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


@contextmanager
def _some_to_spare() -> Iterator[None]:
    """Let this process allocate all but SPARE of what is free on the current GPU: beyond it allocations fail as when full."""
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((1 - SPARE) * (free + torch.cuda.memory_reserved()) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
