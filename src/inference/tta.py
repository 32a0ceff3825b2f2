"""Test-time augmentation: a model's logits in all views, their mean, and what the views are worth on out-of-fold rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.table import Table
from torch import nn

from src.competitions import metrics
from src.competitions.predictions import Predictions
from src.config import Config
from src.data.image import Form
from src.data.loader import ordered_loader
from src.models.backbone import Card, check_other_size
from src.training import evaluation
from src.training.device import autocast, choose_precision
from src.views import View, described


@dataclass(frozen=True)
class Tta:
    """Over which views a prediction is averaged, and how: of logits, or of probabilities."""

    views: tuple[View, ...]
    mean: str

    def over(
        self, model: nn.Module, card: Card, config: Config, root: Path, rows: pd.DataFrame, device: torch.device, title: str
    ) -> np.ndarray:
        """(views, n, classes) float32 logits of `rows` (id, path) in their order. Images stay on disk until their batch is due.

        Raises UserError for an image that can't be read, or a model that is made for one size where a view has another.
        """
        size = evaluation.loaded_size(self.views, card.input.size)
        for side in {round(card.input.size * view.scale) for view in self.views} - {card.input.size}:
            check_other_size(model, card.name, side, "predict.tta")
        dtype, _ = choose_precision(config.train, device)
        return evaluation.predict_views(
            model, ordered_loader(root, rows, size, card.resize, config, device), card.input, device, autocast(device, dtype),
            self.views, config.train.channels_last, title,
        )  # fmt: skip

    def averaged(self, ids: np.ndarray, logits: np.ndarray, classes: tuple[str, ...]) -> Predictions:
        """The mean over the views of logits (views, n, classes)."""
        return Predictions(ids, evaluation.mean_view(logits, self.mean), classes)

    def form(self, card: Card) -> Form:
        """In which the pictures are read: at the size of the largest view."""
        return Form(evaluation.loaded_size(self.views, card.input.size), card.resize)

    def __str__(self) -> str:
        return described(self.views, self.mean)


def choose(config: Config) -> Tta:
    """As the configuration says. Raises ConfigError for a view that the competition doesn't declare label-preserving."""
    return Tta(config.views(), config.predict.tta_mean)


def view_scores(tta: Tta, metric: str, labels: np.ndarray, logits: np.ndarray, classes: tuple[str, ...]) -> dict[str, float]:
    """The metric of each view alone, and of their mean, for `labels` (n,) int64 and logits (views, n, classes)."""
    ids = np.arange(len(labels)).astype(str)
    each = {
        str(view): metrics.score(metric, labels, Predictions(ids, alone, classes).probabilities())
        for view, alone in zip(tta.views, logits, strict=True)
    }
    return each | {"mean": metrics.score(metric, labels, tta.averaged(ids, logits, classes).probabilities())}


def table(metric: str, folds: dict[str, dict[str, float]]) -> Table:
    """What each view is worth: its score, as the mean ± sd over the folds. folds: of each fold its view_scores."""
    drawn = Table()
    drawn.add_column("view of the out-of-fold rows")
    drawn.add_column(metric, justify="right")
    for view in next(iter(folds.values())):
        values = [scores[view] for scores in folds.values() if view in scores]
        spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        drawn.add_row(view, f"{np.mean(values):.4f}{spread}")
    return drawn
