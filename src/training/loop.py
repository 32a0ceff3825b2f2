"""One epoch, top to bottom, in plain torch. What is trained stands in `Training`; where it stands, in `Position`."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from src.competitions.predictions import Predictions
from src.config import TrainConfig
from src.data.loader import Batch, read_batches
from src.errors import UserError
from src.models.backbone import ImageInput, train_mode
from src.training.checkpoint import seed_step
from src.training.device import autocast, peak_memory

READ_EVERY = {"cpu": 1}  # steps between two looks at the loss, by kind of device; 20 on the others


@dataclass
class Position:
    """Where the training stands: `step` steps of `epoch` are done; what they added up to."""

    epoch: int = 0
    step: int = 0
    losses: float = 0.0  # sum over images
    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0  # of these, for data


@dataclass
class Training:
    """All that changes while a fold trains, and what is needed to change it."""

    config: TrainConfig
    fed: ImageInput
    device: torch.device
    dtype: torch.dtype  # of autocast; float32: no autocast
    fold: int  # seeds differ between folds
    model: nn.Module
    ema: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    scaler: torch.amp.GradScaler
    mixup: Mixup | None
    steps: int  # an epoch
    position: Position = field(default_factory=Position)
    history: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    unread: list[torch.Tensor] = field(default_factory=list)  # losses nobody waited for yet: reading one stops the GPU's queue

    @property
    def updates_per_epoch(self) -> int:
        return -(-self.steps // self.config.accumulate)

    @property
    def finished(self) -> bool:
        return self.position.epoch >= self.config.epochs

    def averaged(self) -> nn.Module:
        """The weights to validate and keep: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def autocast(self) -> torch.autocast:
        return autocast(self.device, self.dtype)

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs. Raises UserError instead where a loss was not finite."""
        read_losses(self)
        return {
            **asdict(self.position),
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = Position(**{name: state[name] for name in asdict(Position())})
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.history, self.best = state["history"], state["best"]


def train_epoch(training: Training, loader: DataLoader, labels: torch.Tensor, title: str) -> Iterator[None]:
    """Train from the position to the end of its epoch. Yields after every update, where the state may be saved or left.

    labels: (rows,) int64 on the device. Raises UserError where the loss is not finite, naming the step.
    """
    config, at = training.config, training.position
    train_mode(training.model, config.freeze)
    loader.batch_sampler.epoch, loader.batch_sampler.first = at.epoch, at.step
    every = READ_EVERY.get(training.device.type, 20)
    with tqdm(
        total=training.steps, initial=at.step, desc=title, unit="step", leave=False, disable=None, mininterval=0.5
    ) as bar:
        for rows, images, waited in timed(read_batches(loader)):
            started = time.perf_counter()
            seed_step(config.seed, training.fold, at.epoch, at.step)
            loss = step_forward(training, images, labels[torch.from_numpy(rows).to(labels.device)])
            training.scaler.scale(loss / group_size(training, at.step)).backward()
            training.unread.append(loss.detach())
            at.step += 1
            at.images += len(rows)
            updating = at.step % config.accumulate == 0 or at.step == training.steps
            if len(training.unread) == every or at.step == training.steps:
                read_losses(training)
            if updating:
                update(training)
            at.waited += waited
            at.seconds += waited + time.perf_counter() - started
            bar.update()
            bar.set_postfix_str(progress(training), refresh=False)
            if updating:
                yield


def step_forward(training: Training, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean loss of a batch: images (n, H, W, 3) uint8, target (n,) int64 → scalar float32."""
    config = training.config
    pixels = training.fed.normalise(images.to(training.device, non_blocking=True), config.channels_last)
    if training.mixup is not None:
        pixels, target = training.mixup(pixels, target)  # now (n, classes), smoothed
    with training.autocast():
        logits = training.model(pixels)
    smoothing = 0.0 if training.mixup is not None else config.label_smoothing
    return F.cross_entropy(logits.float(), target, label_smoothing=smoothing)


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


def group_size(training: Training, step: int) -> int:
    """How many batches are added up in the update that this step belongs to; the last group may be smaller."""
    first = step - step % training.config.accumulate
    return min(training.config.accumulate, training.steps - first)


def read_losses(training: Training) -> None:
    """Add the last steps' losses to the position. Raises UserError naming the first step whose loss is NaN or infinite."""
    if not training.unread:
        return
    values = torch.stack(training.unread).cpu()
    bad = torch.nonzero(~torch.isfinite(values))
    if len(bad):
        at, rate = training.position, training.optimizer.param_groups[-1]["lr"]
        step = at.step - len(values) + int(bad[0]) + 1
        kept = "; last.pt holds the state before this epoch" if at.epoch else ""
        scale = f", loss scale {training.scaler.get_scale():g}" if training.scaler.is_enabled() else ""
        raise UserError(
            f"the loss is {values[bad[0]].item()} at step {step} of epoch {at.epoch + 1} "
            f"(learning rate {rate:.2e}{scale}){kept}. Try a lower --train.lr, --train.clip_grad 1 or --train.precision fp32"
        )
    training.position.losses += float(values.sum()) * (training.position.images // training.position.step)  # images a batch
    training.unread.clear()


def progress(training: Training) -> str:
    at, rate = training.position, training.optimizer.param_groups[-1]["lr"]
    read = at.images - len(training.unread) * (at.images // max(1, at.step))
    return (
        f"loss {at.losses / max(1, read):.4f}  lr {rate:.1e}  {at.images / at.seconds:.0f} img/s  "
        f"data {at.waited / at.seconds:.0%}  {peak_memory(training.device):.1f} GB"
    )


def timed(batches: Iterator[Batch]) -> Iterator[tuple[np.ndarray, torch.Tensor, float]]:
    """Batches, each with the seconds that it was waited for."""
    started = time.perf_counter()
    for rows, images in batches:
        yield rows, images, time.perf_counter() - started
        started = time.perf_counter()


@torch.inference_mode()
def predict(
    model: nn.Module, loader: DataLoader, fed: ImageInput, device: torch.device, autocast: torch.autocast,
    views: tuple[str, ...], channels_last: bool, title: str,
) -> np.ndarray:  # fmt: skip
    """(n, classes) float32 logits of the loader's rows in their order: log of the mean probability where there are views.

    views: "identity", "hflip"; the images are turned on the device.
    """
    model.eval()

    def mean_of_views(pixels: torch.Tensor) -> torch.Tensor:
        with autocast:
            logits = [model(seen).float() for seen in see(pixels, views)]
        return logits[0] if len(views) == 1 else mean_view(torch.stack(logits))

    return over_images(mean_of_views, loader, fed, device, channels_last, title)


def over_images(
    compute: Callable[[torch.Tensor], torch.Tensor], loader: DataLoader, fed: ImageInput, device: torch.device,
    channels_last: bool, title: str,
) -> np.ndarray:  # fmt: skip
    """`compute` of every batch of normalised images (n, 3, H, W), put together in the order of the rows: (rows, …)."""
    parts, numbers = [], []
    for rows, images in tqdm(read_batches(loader), desc=title, unit="batch", total=len(loader), leave=False, disable=None):
        parts.append(compute(fed.normalise(images.to(device, non_blocking=True), channels_last)))
        numbers.append(rows)
    order = np.argsort(np.concatenate(numbers), kind="stable")
    return torch.cat(parts).cpu().numpy()[order]


def see(pixels: torch.Tensor, views: tuple[str, ...]) -> Iterator[torch.Tensor]:
    """The batch (n, 3, H, W) in each view: as it is, or its mirror image."""
    for view in views:
        yield pixels.flip(3) if view == "hflip" else pixels


def mean_view(logits: torch.Tensor) -> torch.Tensor:
    """(views, n, classes) logits → (n, classes): log of the mean probability, exact also where one is tiny."""
    return torch.logsumexp(torch.log_softmax(logits, dim=-1), dim=0) - np.log(len(logits))


def validate(training: Training, loader: DataLoader, ids: np.ndarray, classes: tuple[str, ...], title: str) -> Predictions:
    """The validation rows' logits by the weights to keep, as training sees them: no TTA."""
    logits = predict(
        training.averaged(), loader, training.fed, training.device, training.autocast(),
        ("identity",), training.config.channels_last, title,
    )  # fmt: skip
    return Predictions(ids, logits, classes)
