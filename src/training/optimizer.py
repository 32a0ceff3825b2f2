"""timm's optimisers and cosine schedule, with learning rates for head, backbone and layers."""

import timm.optim
import torch
from timm.scheduler import CosineLRScheduler
from torch import nn

from src.config import TrainConfig
from src.errors import UserError
from src.models.backbone import head

FUSED = {
    "adam",
    "adamw",
    "sgd",
    "momentum",
}  # in one pass over the weights, AlexNet trains 1.27 times as fast on CPU


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Any of timm's optimisers over `parameter_groups`. Raises UserError for an unknown name, or values that it refuses."""
    fused = {"fused": True} if config.optimizer in FUSED and next(model.parameters()).device.type in ("cpu", "cuda") else {}
    try:
        return timm.optim.create_optimizer_v2(
            parameter_groups(model, config), opt=config.optimizer, lr=config.lr, momentum=config.momentum, **fused
        )
    except ValueError as error:
        if "Optimizer" not in str(error) and config.optimizer not in str(error):
            raise UserError(f"train.optimizer: {config.optimizer}: {error}") from None
        close = [name for name in timm.optim.list_optimizers() if name[:3] == config.optimizer[:3].lower()]
        raise UserError(
            f"train.optimizer: timm has no {config.optimizer!r}; near it are {', '.join(close or ['adamw', 'sgd', 'lamb'])}"
        ) from None


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict]:
    """Groups with weight_decay (0 for biases and norms) and lr_scale, which timm's schedulers multiply in.

    Below the head, lr_scale = layer_decay ** (layers above) * backbone_lr_scale. The head's groups come last: the log shows
    the learning rate of the last group.
    """
    if config.layer_decay < 1:
        groups = timm.optim.param_groups_layer_decay(model, config.weight_decay, layer_decay=config.layer_decay)
    else:
        groups = timm.optim.param_groups_weight_decay(model, config.weight_decay)
    own = {id(parameter) for parameter in head(model).parameters()}
    split = []
    for in_head in (False, True):
        for group in groups:
            factor = 1.0 if in_head else group.get("lr_scale", 1.0) * config.backbone_lr_scale
            parameters = [parameter for parameter in group["params"] if (id(parameter) in own) == in_head]
            if parameters:
                split.append({"params": parameters, "weight_decay": group["weight_decay"], "lr_scale": factor})
    return split


def make_scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig, updates: int) -> CosineLRScheduler:
    """Cosine over `updates` steps after a linear warm-up. A function of the step alone: `step_update(n)` needs no state."""
    warmup = round(config.warmup * updates)
    return CosineLRScheduler(
        optimizer,
        t_initial=max(1, updates - warmup),
        lr_min=config.lr * config.final_lr,
        warmup_t=warmup,
        warmup_lr_init=0.0,
        warmup_prefix=True,
        t_in_epochs=False,  # with epochs, step_update() would silently do nothing
    )
