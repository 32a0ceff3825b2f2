"""The loss of a batch: cross-entropy, focal, smoothed, weighed by class, over hard labels or mixed ones."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from src.config import TrainConfig

AUXILIARY = 0.3  # what an auxiliary classifier's loss counts (Szegedy et al. 2014, section 5)


@dataclass(frozen=True)
class Loss:
    """Mean over the images of the sum over classes of weight * -target * (1 - p) ** gamma * log p."""

    smoothing: float = 0.0
    gamma: float = 0.0  # 0: cross-entropy; above: focal (Lin et al. 2017)
    weights: torch.Tensor | None = None  # (classes,) float32, 1 on average over the training rows

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """logits (n, classes) float32; target (n,) int64, or (n, classes) float32 as mixup leaves it → scalar."""
        if not self.gamma and self.weights is None:
            return F.cross_entropy(logits, target, label_smoothing=self.smoothing if target.ndim == 1 else 0.0)
        if target.ndim == 1:
            classes = logits.shape[1]
            target = F.one_hot(target, classes) * (1 - self.smoothing) + self.smoothing / classes
        log_p = F.log_softmax(logits, dim=1)
        each = -target * log_p * (1 - log_p.exp()) ** self.gamma
        if self.weights is not None:
            each = each * self.weights
        return each.sum(dim=1).mean()

    def of(self, outputs: torch.Tensor | tuple[torch.Tensor, ...], target: torch.Tensor) -> torch.Tensor:
        """The loss of what a model gives in training: logits of any float type, or a tuple of them and auxiliary logits."""
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        return self(logits.float(), target) + AUXILIARY * sum(self(each.float(), target) for each in auxiliary)


def make_loss(config: TrainConfig, labels: np.ndarray, classes: int, device: torch.device) -> Loss:
    """labels: (rows,) int64, of the training rows."""
    weights = None
    if config.class_weights:
        of_class = np.zeros(classes)
        of_class[labels] = evened(labels, classes, config.class_weights)
        weights = torch.from_numpy(of_class).float().to(device)
    return Loss(config.label_smoothing, config.focal_gamma if config.loss == "focal" else 0.0, weights)


def evened(labels: np.ndarray, classes: int, power: float) -> np.ndarray:
    """(rows,) float64: each row's weight, its class's rows to the power of minus `power`; 1 on average.

    power 1: every class weighs the same; 0.5: halfway (Mahajan et al. 2018, for hashtags); 0: every row does.
    """
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    weights = counts[labels] ** -power
    return weights / weights.mean()
