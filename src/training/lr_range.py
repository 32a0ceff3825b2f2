"""Learning-rate range test (Smith 2017, "Cyclical Learning Rates for Training Neural Networks"): a few updates, each at a
higher learning rate than the one before. Where the loss begins to fall, and where it flies off, is seen within a minute.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from timm.scheduler.scheduler import Scheduler
from torch.utils.data import DataLoader
from tqdm import tqdm

from src.errors import UserError
from src.models.backbone import freeze, train_mode
from src.training.checkpoint import seed_step
from src.training.feed import Fed, feed
from src.training.loop import step_forward, update
from src.training.lr_curve import Curve
from src.training.training import Position, Training

STEPS, LOWEST, HIGHEST = 100, 1e-6, 10.0  # 14 updates a decade


class _Ramp(Scheduler):
    """The rate of each update, from 1, for the head; timm's base class multiplies each group's lr_scale in."""

    def __init__(self, optimizer: torch.optim.Optimizer, rates: np.ndarray) -> None:
        super().__init__(optimizer, "lr", t_in_epochs=False)
        self.rates = rates

    def _get_lr(self, t: int) -> list[float]:
        return [float(self.rates[t - 1])] * len(self.base_values)


def find_lr(
    training: Training, loader: DataLoader, labels: torch.Tensor,
    steps: int = STEPS, lowest: float = LOWEST, highest: float = HIGHEST,
) -> Curve:  # fmt: skip
    """Train for `steps` updates while the head's learning rate rises from `lowest` to `highest`, each by the same factor.

    `training` is worn out by it: throw it away. Accumulation, clipping, mixing and frozen layers are as configured. Ends
    early where the loss is not finite, or its average 4 times its minimum and twice where it began: a head that starts
    from the probe has batches whose losses differ fourfold. labels: (rows,) int64 in main memory. Raises UserError where
    the loss is not finite from the first update on.
    """
    rates, losses = np.geomspace(lowest, highest, steps), []
    training = replace(training, position=Position(), scheduler=_Ramp(training.optimizer, rates), ema=None)
    freeze(training.model, training.optimizer, training.frozen)
    train_mode(training.model, training.frozen)
    batches = _endless(loader, labels, training.device)
    with tqdm(total=steps, desc="learning rates", unit="update", leave=False, disable=None) as bar:
        for rate in rates:
            losses.append(_update(training, batches))
            bar.update()
            bar.set_postfix_str(f"loss {losses[-1]:.4f}  lr {rate:.1e}", refresh=False)
            if _is_over(losses, steps):
                break
    if not np.isfinite(losses[0]):
        raise UserError("the loss is not finite even before the first update: try --train.precision fp32")
    return Curve(rates[: len(losses)], np.array(losses), training.config.lr)


def _update(training: Training, batches: Iterator[Fed]) -> float:
    """One update on the next batches: their mean loss before it; inf where that is not finite."""
    config, at, total = training.config, training.position, 0.0
    for _ in range(config.accumulate):
        images, target, _ = next(batches)
        seed_step(config.seed, training.fold, at.epoch, at.step)
        loss = step_forward(training, training.model, images, target)
        training.scaler.scale(loss / config.accumulate).backward()
        at.step += 1
        total += loss.item() / config.accumulate
    update(training)
    return total if np.isfinite(total) else np.inf


def _endless(loader: DataLoader, labels: torch.Tensor, device: torch.device) -> Iterator[Fed]:
    """Epoch after epoch from the first on."""
    loader.batch_sampler.epoch, loader.batch_sampler.first = 0, 0
    while True:
        yield from feed(loader, labels, device)
        loader.batch_sampler.epoch += 1


def _is_over(losses: list[float], steps: int) -> bool:
    """Whether the loss has flown off: see `find_lr`."""
    if not np.isfinite(losses[-1]):
        return True
    average = pd.Series(losses).ewm(alpha=0.2).mean()[steps // 10 :]  # before, it is the average of too few
    return len(average) > 0 and average.iloc[-1] > max(4 * average.min(), 2 * average.iloc[0])
