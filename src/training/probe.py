"""A linear probe: the head as the converged logistic regression on the frozen backbone's features.

With `train.epochs: 0` that is the whole model, five folds in minutes on a laptop, as the features are computed once for all
folds. With epochs it is where fine-tuning starts: a random head would first wash pretrained features away (Kumar et al.
2022, "Fine-Tuning can Distort Pretrained Features", LP-FT).
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from src.config import Config
from src.data.image import DECODER
from src.data.loader import ordered_loader
from src.errors import UserError
from src.files import locked, replacing
from src.models.backbone import ImageInput, head
from src.models.folding import fold_norms
from src.training.evaluation import over_images, see
from src.views import View, keeping_views

if TYPE_CHECKING:
    from src.training.fold import FoldData

FEATURES = Path("runs") / ".features"  # shared by all runs
HOURS = 3 * 3600.0


def start_head(
    model: nn.Module, fed: ImageInput, config: Config, data: "FoldData", device: torch.device, said: Callable[[str], None]
) -> np.ndarray:
    """Fit the head on the fold's training rows in all views; returns the held-out rows' logits (views, n, classes) float32."""
    linear_head(model)
    every = pd.concat([data.train, data.held_out])
    features = cached_features(model, fed, config, data.root, every, device, FEATURES, said)
    seen = np.concatenate(features.loc[data.train["id"]].to_list())
    views = len(seen) // len(data.train)
    labels = data.labels(data.train).repeat(views)
    fit_head(model, seen, labels, len(data.classes), config.train.probe_strength / views)
    if data.held_out.empty:
        return np.zeros((1, 0, len(data.classes)), np.float32)
    held_out = np.stack(features.loc[data.held_out["id"]].to_list(), axis=1)
    with torch.inference_mode():
        return head(model)(torch.from_numpy(held_out).to(device)).cpu().numpy()


def fit_head(model: nn.Module, features: np.ndarray, labels: np.ndarray, classes: int, strength: float) -> None:
    """Set the model's head to the logistic regression of `labels` (n,) int64 on `features` (n, d) float32.

    Features are divided by their overall deviation, so that `strength` (C, the inverse of the penalty) means about the same
    for every backbone. A deviation of each feature's own was worse on Dogs vs. Cats: log loss 0.0364 against 0.0353.
    Raises UserError where the head is not one linear layer, or a class has no row.
    """
    layer = linear_head(model)
    scale = float(features.std())
    fitted = LogisticRegression(C=strength, max_iter=1000, tol=1e-4).fit(features.astype(np.float64) / scale, labels)
    if list(fitted.classes_) != list(range(classes)):
        raise UserError(f"train.head: a probe needs every class in the training rows; {len(fitted.classes_)} of {classes} are")
    weights, biases = fitted.coef_ / scale, fitted.intercept_
    if classes == 2:  # one row: the logit of the second class against the first
        weights, biases = np.vstack([-weights, weights]) / 2, np.array([-biases[0], biases[0]]) / 2
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(biases))


def linear_head(model: nn.Module) -> nn.Linear:
    """The model's head. Raises UserError where it is not one linear layer with a bias."""
    layer = head(model)
    if not isinstance(layer, nn.Linear) or layer.bias is None:
        raise UserError(f"train.head: a probe needs a model whose head is one linear layer, not {type(layer).__name__}")
    return layer


def views_of(config: Config) -> tuple[View, ...]:
    """The views in which a probe sees its images: those that keep their label."""
    return keeping_views(config.competition.label_preserving)


def cached_features(
    model: nn.Module, fed: ImageInput, config: Config, root: Path, rows: pd.DataFrame, device: torch.device, folder: Path,
    said: Callable[[str], None],
) -> pd.Series:  # fmt: skip
    """Each id's features (views, d) float32: computed once and kept in `folder`, whatever the fold.

    The file is named after all that decides them: weights, input, rows, views. rows: id, path, in any order.
    """
    rows = rows.sort_values("id")
    views = views_of(config)
    path = folder / f"{config.model.name}-{_key(model, fed, config, root, rows, views)}.npy"
    with locked(folder, patience=HOURS):  # another fold, in a process of its own, may be computing them
        if path.is_file():
            features = np.load(path, mmap_mode="r")
        else:
            said(f"features of {len(rows):,} rows in {len(views)} views: computed once, kept in {path}")
            features = _compute(model, fed, config, root, rows, views, device)
            with replacing(path) as partial, open(partial, "wb") as file:
                np.save(file, features)
    return pd.Series(list(features), index=rows["id"].to_numpy())


@torch.inference_mode()
def _compute(
    model: nn.Module,
    fed: ImageInput,
    config: Config,
    root: Path,
    rows: pd.DataFrame,
    views: tuple[View, ...],
    device: torch.device,
) -> np.ndarray:
    """(rows, views, d) float32: what stands before the head."""
    folded = fold_norms(model, fed.size)
    loader = ordered_loader(root, rows, fed.size, config.data.resize, config, device)

    def before_head(pixels: torch.Tensor) -> torch.Tensor:
        seen = [
            folded.forward_head(folded.forward_features(view), pre_logits=True).float() for view in see(pixels, views, fed.size)
        ]
        return torch.stack(seen, dim=1)

    return over_images(before_head, loader, fed, device, config.train.channels_last, "features")


def _key(model: nn.Module, fed: ImageInput, config: Config, root: Path, rows: pd.DataFrame, views: tuple[View, ...]) -> str:
    digest = hashlib.sha256()
    own = {id(parameter) for parameter in head(model).parameters()}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in own:
            digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    said = {
        "fed": asdict(fed),
        "resize": config.data.resize,
        "views": list(map(str, views)),
        "root": str(root.resolve()),
        "decoder": DECODER,
    }
    digest.update(json.dumps(said, sort_keys=True).encode())
    for id_, path in zip(rows["id"], rows["path"], strict=True):
        digest.update(f"{id_}\0{path}\0{(root / path).stat().st_size}\n".encode())
    return digest.hexdigest()[:16]
