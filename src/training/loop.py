"""One epoch, top to bottom, in plain torch."""

import contextlib
import copy
import time
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader
from tqdm import tqdm

from src.data.loader import read_batches
from src.errors import UserError
from src.models.backbone import freeze, train_mode
from src.training.checkpoint import seed_step
from src.training.device import peak_memory
from src.training.feed import feed
from src.training.training import Training

READ_EVERY = {"cpu": 1}  # steps between two looks at the loss, by kind of device; 20 on the others
REFRESHED = 100  # batches over which BatchNorm's statistics of averaged weights are measured


def train_epoch(training: Training, loader: DataLoader, labels: torch.Tensor, title: str) -> Iterator[None]:
    """Train from the position to the end of its epoch. Yields after every update, where the state may be saved or left.

    labels: (rows,) int64 in main memory. Raises UserError where the loss is not finite, naming the step.
    """
    config, at, processes = training.config, training.position, training.processes
    freeze(training.model, training.optimizer, training.frozen)
    train_mode(training.model, training.frozen)
    model = processes.parallel(training.model)
    loader.batch_sampler.epoch, loader.batch_sampler.first = at.epoch, at.step
    every = READ_EVERY.get(training.device.type, 20)
    hidden = None if processes.first else True  # None: shown on a terminal
    with tqdm(
        total=training.steps, initial=at.step, desc=title, unit="step", leave=False, disable=hidden, mininterval=0.5
    ) as bar:
        for images, target, waited in feed(loader, labels, training.device):
            started = time.perf_counter()
            seed_step(config.seed, training.fold, at.epoch, at.step, processes.rank)
            updating = (at.step + 1) % config.accumulate == 0 or at.step + 1 == training.steps
            with contextlib.nullcontext() if updating else processes.no_sync(model):
                loss = step_forward(training, model, images, target)
                training.scaler.scale(loss / group_size(training, at.step)).backward()
            training.unread.append(loss.detach())
            at.step += 1
            at.images += len(target) * processes.count
            if len(training.unread) == every or at.step == training.steps:
                read_losses(training)
            if updating:
                update(training)
            if training.compiling:
                training.compiling, at.untimed = False, at.untimed + len(target) * processes.count
            else:
                at.waited += waited
                at.seconds += waited + time.perf_counter() - started
            bar.update()
            bar.set_postfix_str(progress(training), refresh=False)
            if updating:
                yield


def step_forward(training: Training, model: nn.Module, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean loss of a batch: images (n, H, W, 3) uint8, target (n,) int64 → scalar float32.

    model: training.model, or what averages its gradients over the processes.
    """
    pixels = training.fed.normalise(images.to(training.device, non_blocking=True), training.config.channels_last)
    if training.mixup is not None:
        pixels, target = training.mixup(pixels, target)  # now (n, classes), smoothed
    with training.autocast():
        outputs = model(pixels)
    return training.loss.of(outputs, target)


def check_lone_image(training: Training) -> None:
    """Raises UserError where the model can't be trained on batches of one image, as every batch of this training is.

    BatchNorm needs two values a channel, and a ResNet leaves one pixel of 32. Tried on a copy, whose statistics it changes.
    """
    config, model = training.config, copy.deepcopy(training.model)
    thaws = config.frozen_epochs is not None and config.frozen_epochs < config.epochs
    train_mode(model, "none" if thaws else config.freeze)
    size = min(config.image_sizes or (training.fed.size,))
    try:
        with torch.no_grad(), training.autocast():
            model(torch.zeros(1, 3, size, size, device=training.device))
    except ValueError as error:
        error = UserError(
            f"train.batch_size: this model's BatchNorm can't learn from one image at a time at {size} pixels ({error}): take "
            "at least 2, with train.accumulate for larger steps, or keep its statistics as they are with --train.freeze norm"
        )
        raise training.processes.told_once(error) from None


def update(training: Training) -> None:
    """One step of the optimiser with the gradients that were added up, at the schedule's learning rate."""
    config, at = training.config, training.position
    number = at.epoch * training.updates_per_epoch + -(-at.step // config.accumulate)
    training.scheduler.step_update(number)
    if config.clip_grad is not None:
        training.scaler.unscale_(training.optimizer)
        nn.utils.clip_grad_norm_(training.model.parameters(), config.clip_grad)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.optimizer.zero_grad(set_to_none=True)
    if training.ema is not None:
        training.ema.update(training.model, step=number)


@torch.no_grad()
def average_epoch(training: Training, loader: DataLoader) -> None:
    """Add the epoch's weights to the average of the last ones, and measure its BatchNorm statistics anew (SWA).

    Averaged weights have statistics of their own: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima".
    """
    average, at = training.average, training.position
    average.update_parameters(training.model)
    if training.frozen != "none":
        return  # its statistics are the pretrained ones, and stay
    loader.batch_sampler.epoch, loader.batch_sampler.first = at.epoch, max(0, training.steps - REFRESHED)
    batches = (images.to(training.device, non_blocking=True) for _, images in read_batches(loader))
    with training.autocast():
        update_bn((training.fed.normalise(images, training.config.channels_last) for images in batches), average.module)
    training.processes.copy_first(average.module)


def group_size(training: Training, step: int) -> int:
    """How many batches are added up in the update that this step belongs to; the last group may be smaller."""
    first = step - step % training.config.accumulate
    return min(training.config.accumulate, training.steps - first)


def read_losses(training: Training) -> None:
    """Add the last steps' losses to the position. Raises UserError naming the first step whose loss is NaN or infinite."""
    if not training.unread:
        return
    values = training.processes.mean(torch.stack(training.unread).cpu())
    bad = torch.nonzero(~torch.isfinite(values))
    if len(bad):
        at, rate = training.position, training.optimizer.param_groups[-1]["lr"]
        step = at.step - len(values) + int(bad[0]) + 1
        kept = "; last.pt holds the state before this epoch" if at.epoch else ""
        scale = f", loss scale {training.scaler.get_scale():g}" if training.scaler.is_enabled() else ""
        error = UserError(
            f"the loss is {values[bad[0]].item()} at step {step} of epoch {at.epoch + 1} "
            f"(learning rate {rate:.2e}{scale}){kept}. Try a lower --train.lr, --train.clip_grad 1 or --train.precision fp32"
        )
        raise training.processes.told_once(error)
    training.position.losses += float(values.sum()) * (training.position.images // training.position.step)  # images a batch
    training.unread.clear()


def progress(training: Training) -> str:
    at, rate = training.position, training.optimizer.param_groups[-1]["lr"]
    read = at.images - len(training.unread) * (at.images // max(1, at.step))
    return (
        f"loss {at.losses / max(1, read):.4f}  lr {rate:.1e}  {at.speed:.0f} img/s  "
        f"data {at.data_wait:.0%}  {peak_memory(training.device):.1f} GB"
    )
