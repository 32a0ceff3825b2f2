"""What train.py's loop costs beside a bare torch loop over the same steps, with the input in memory.

    python benchmarks/epoch.py [--model resnet18] [--size 112] [--batch 32] [--steps 12] [--repeats 7]

Both take the same uint8 batches, normalise them, and use the same fused AdamW, memory format and malloc. Ours also seeds each
step, follows its schedule, reads the loss, counts, and draws its progress.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from record import record  # noqa: E402
from turns import show, table, take_turns  # noqa: E402

from src.config import ModelConfig, TrainConfig  # noqa: E402
from src.models import backbone  # noqa: E402
from src.training.device import choose_device, choose_precision  # noqa: E402
from src.training.loop import train_epoch  # noqa: E402
from src.training.training import Position, Training, begin  # noqa: E402

CLASSES = 10


class InMemory:
    """Batches that are there already, with what train_epoch asks of a loader."""

    class Order:
        epoch = first = 0

    def __init__(self, batches: list[torch.Tensor]) -> None:
        self.batches, self.batch_sampler = batches, self.Order()

    def __iter__(self):
        count = len(self.batches[0])
        return ((torch.arange(count) + i * count, images) for i, images in enumerate(self.batches))


def bare(training: Training, batches: list[torch.Tensor], labels: torch.Tensor) -> float:
    """Seconds an image."""
    started, size = time.perf_counter(), len(batches[0])
    training.model.train()
    for i, images in enumerate(batches):
        pixels = training.fed.normalise(images.to(training.device, non_blocking=True), channels_last=True)
        target = labels[i * size : (i + 1) * size].to(training.device, non_blocking=True)
        with training.autocast():
            loss = F.cross_entropy(training.model(pixels), target)
        training.scaler.scale(loss).backward()
        training.scaler.step(training.optimizer)
        training.scaler.update()
        training.optimizer.zero_grad(set_to_none=True)
    return ended(training, started) / (size * len(batches))


def ours(training: Training, batches: list[torch.Tensor], labels: torch.Tensor) -> float:
    training.position, started = Position(), time.perf_counter()
    for _ in train_epoch(training, InMemory(batches), labels, "epoch"):
        pass
    return ended(training, started) / (len(batches[0]) * len(batches))


def ended(training: Training, started: float) -> float:
    if training.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    device = choose_device("auto")
    generator = torch.Generator().manual_seed(0)
    shape = (asked.batch, asked.size, asked.size, 3)
    batches = [torch.randint(256, shape, dtype=torch.uint8, generator=generator) for _ in range(asked.steps)]
    labels = torch.randint(CLASSES, (asked.steps * asked.batch,), generator=generator)

    def started(ema: float) -> Training:
        config = TrainConfig(batch_size=asked.batch, epochs=1, ema=ema)
        made, fed = backbone.create(ModelConfig(name=asked.model, weights="none", image_size=asked.size), CLASSES)
        made = made.to(device, memory_format=torch.channels_last)
        return begin(config, made, fed, labels.numpy(), CLASSES, asked.steps, device, choose_precision(config, device)[0])

    def timed(loop: Callable, ema: float = 0.0) -> Callable[[], float]:
        return partial(loop, started(ema), batches, labels)

    ways = {"a bare torch loop": timed(bare), "train.py's": timed(ours), "train.py's, with EMA": timed(ours, 0.1)}
    rows = table(take_turns(ways, asked.repeats))
    what = f"An epoch of {asked.steps} steps of {asked.batch} pictures in memory: {asked.model}, {asked.size} pixels."
    record("epoch", what, f"python benchmarks/epoch.py --model {asked.model} --size {asked.size}", rows)
    show(rows)


if __name__ == "__main__":
    main()
