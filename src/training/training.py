"""All that changes while a fold trains, and what is needed to change it: made by `begin`, carried over by its state_dict."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from timm.data import Mixup
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel

from src.config import TrainConfig
from src.models.backbone import ImageInput
from src.training.device import autocast
from src.training.loss import Loss, make_loss
from src.training.optimizer import make_optimizer, make_scheduler
from src.training.processes import ALONE, Processes


@dataclass
class Position:
    """Where the training stands: `step` steps of `epoch` are done; what they added up to."""

    epoch: int = 0
    step: int = 0
    losses: float = 0.0  # sum over images, of all processes
    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0  # of these, for data
    untimed: int = 0  # images of steps that compiled the model, which are not in the seconds

    @property
    def speed(self) -> float:
        """Images a second."""
        return (self.images - self.untimed) / self.seconds if self.seconds else 0.0

    @property
    def data_wait(self) -> float:
        """Share of the time in which the loader was waited for."""
        return self.waited / self.seconds if self.seconds else 0.0


@dataclass
class Training:
    config: TrainConfig
    fed: ImageInput
    device: torch.device
    dtype: torch.dtype  # of autocast; float32: no autocast
    fold: int  # seeds differ between folds
    model: nn.Module
    loss: Loss
    ema: ModelEmaV3 | None
    average: AveragedModel | None  # of the last epochs
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    scaler: torch.amp.GradScaler
    mixup: Mixup | None
    steps: int  # an epoch
    processes: Processes = ALONE
    position: Position = field(default_factory=Position)
    history: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    compiling: bool = False  # whether the next step compiles the model
    unread: list[torch.Tensor] = field(default_factory=list)  # losses nobody waited for yet: reading one stops the GPU's queue

    @property
    def updates_per_epoch(self) -> int:
        return -(-self.steps // self.config.accumulate)

    @property
    def finished(self) -> bool:
        return self.position.epoch >= self.config.epochs

    @property
    def frozen(self) -> str:
        """What does not learn in this epoch: "none", "norm" or "backbone"."""
        config = self.config
        thawed = config.frozen_epochs is not None and self.position.epoch >= config.frozen_epochs
        return "none" if thawed else config.freeze

    def image_size(self, epoch: int, size: int) -> int:
        """Pixels to train at in `epoch`, from 0; `size`: the model's own, where no others are configured."""
        sizes = self.config.image_sizes or (size,)
        return sizes[min(len(sizes) - 1, epoch * len(sizes) // max(1, self.config.epochs))]

    def averages_now(self) -> bool:
        """Whether this epoch's weights are among those averaged."""
        return self.average is not None and self.position.epoch >= self.config.epochs - self.config.average_epochs

    def averaged(self) -> nn.Module:
        """The weights to validate and keep: the moving average, or that of the last epochs, where there is one."""
        if self.average is not None and self.average.n_averaged:
            return self.average.module
        return self.model if self.ema is None else self.ema.module

    def autocast(self) -> torch.autocast:
        return autocast(self.device, self.dtype)

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs, where every loss was read and is finite."""
        assert not self.unread
        return {
            **asdict(self.position),
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
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
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.history, self.best = state["history"], state["best"]


def begin(
    config: TrainConfig, model: nn.Module, fed: ImageInput, labels: np.ndarray, classes: int, steps: int,
    device: torch.device, dtype: torch.dtype, fold: int = 0, processes: Processes = ALONE,
) -> Training:  # fmt: skip
    """The training of `model`, on `device` already, at its beginning. labels: (rows,) int64, of the training rows."""
    optimizer = make_optimizer(model, config)
    updates = -(-steps // config.accumulate) * config.epochs
    return Training(
        config=config, fed=fed, device=device, dtype=dtype, fold=fold, model=model, steps=steps, processes=processes,
        loss=make_loss(config, labels, classes, device),
        ema=_moving_average(model, config, updates) if config.ema else None,
        average=AveragedModel(model) if config.average_epochs else None,
        optimizer=optimizer,
        scheduler=make_scheduler(optimizer, config, updates),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype is torch.float16),
        mixup=_mixup(config, classes),
    )  # fmt: skip


def _moving_average(model: nn.Module, config: TrainConfig, updates: int) -> ModelEmaV3:
    """The decay follows the run's length: 0.9999 would have a half-life of 6,931 steps, longer than many a fold."""
    decay = 1 - 1 / max(1.0, config.ema * updates)
    # gamma and power 1: a plain mean of the first steps, until the decay takes over
    return ModelEmaV3(model, decay=decay, use_warmup=True, warmup_gamma=1.0, warmup_power=1.0)


def _mixup(config: TrainConfig, classes: int) -> Mixup | None:
    if not (config.mixup or config.cutmix):
        return None
    return Mixup(
        mixup_alpha=config.mixup, cutmix_alpha=config.cutmix, label_smoothing=config.label_smoothing, num_classes=classes
    )
