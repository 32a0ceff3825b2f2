"""A linear probe: the head as the converged logistic regression on the frozen backbone's features.

With `train.epochs: 0` that is the whole model, five folds in minutes on a laptop, as the features are computed once for all
folds. With epochs it is where fine-tuning starts: a head that knows nothing distorts pretrained features while it learns
(Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features", LP-FT).
"""

import copy
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import nn

from src.config import Config
from src.cores import cores
from src.data import prepare
from src.data.digests import digest, digests
from src.data.folds import make_folds
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
STRENGTH = 4e-3  # where it can't be chosen
STRENGTHS = (1e-3, 4e-3, 1.6e-2, 6.4e-2)  # tried first; then on, by FACTOR, while the best of them is the last of them
FACTOR = 4
LIMITS = (1e-6, 1e3)
INNER_FOLDS = 3
MOST_ROWS = 12_000  # to choose by
TOLERANCE = 1e-2  # of the largest logit: TF32 rounds a convolution to 1e-3, another layer's logits are quite others


def start_head(
    model: nn.Module, fed: ImageInput, config: Config, data: "FoldData", device: torch.device, said: Callable[[str], None]
) -> tuple[np.ndarray, float]:
    """Fit the head on the fold's training rows in all views.

    Returns the held-out rows' logits (views, n, classes) float32, and the strength that was chosen or is configured.
    """
    layer = linear_head(model)
    every = pd.concat([data.train, data.held_out])
    features = cached_features(model, fed, config, data.root, every, device, FEATURES, said)
    seen, labels = np.stack(features.loc[data.train["id"]].to_list()), data.labels(data.train)
    strength = config.train.probe_strength or choose_strength(seen, data.train, labels, said)
    views = seen.shape[1]
    fit_head(model, seen.reshape(-1, seen.shape[2]), labels.repeat(views), len(data.classes), strength / views)
    if data.held_out.empty:
        return np.zeros((1, 0, len(data.classes)), np.float32), strength
    held_out = np.stack(features.loc[data.held_out["id"]].to_list(), axis=1)
    with torch.inference_mode():
        return layer(torch.from_numpy(held_out).to(device)).cpu().numpy(), strength


def choose_strength(features: np.ndarray, rows: pd.DataFrame, labels: np.ndarray, said: Callable[[str], None]) -> float:
    """The C of the least log loss in three folds of these rows, of which no group stands in two; STRENGTH for rare classes.

    features: (n, views, d) float32, all views of a row in one fold; rows: id, label, group; labels: (n,) int64. At most
    12,000 rows are looked at: with 1,280 features in two views that took 3 s on two cores, with 2,048 and 42 classes 11 s.
    """
    some = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST_ROWS])
    try:
        fold = make_folds(rows.iloc[some].reset_index(drop=True), INNER_FOLDS, seed=0)["fold"].to_numpy()
    except UserError:
        said(f"probe strength {STRENGTH:g}: a class has too few rows to choose it by {INNER_FOLDS} folds of the training rows")
        return STRENGTH
    mean, scale = _mean_and_scale(features.reshape(-1, features.shape[2]))
    unit, labels = ((features[some] - mean) / scale).astype(np.float32), labels[some]
    losses = {}
    fits = [LogisticRegression(max_iter=300, tol=1e-4, warm_start=True) for _ in range(INNER_FOLDS)]
    for strength in _strengths(losses):
        sums = [_held_out_loss(one, strength, unit, labels, fold == number) for number, one in enumerate(fits)]
        losses[strength] = sum(sums) / (len(labels) * unit.shape[1])
    tried = ", ".join(f"{strength:g}: {losses[strength]:.4f}" for strength in sorted(losses))
    best = min(losses, key=losses.get)
    said(f"probe strength {best:g}: least log loss in {INNER_FOLDS} folds of the training rows ({tried})")
    return best


def _strengths(losses: dict[float, float]) -> Iterator[float]:
    """STRENGTHS, then on beyond them for as long as the least of `losses`, which the caller fills, is at an end."""
    yield from STRENGTHS
    while True:
        best = min(losses, key=losses.get)
        further = best / FACTOR if best == min(losses) else best * FACTOR
        if min(losses) < best < max(losses) or not LIMITS[0] <= further <= LIMITS[1]:
            return
        yield further


def _held_out_loss(one: LogisticRegression, strength: float, unit: np.ndarray, labels: np.ndarray, out: np.ndarray) -> float:
    """Log loss, summed over the views of the rows `out` (n,) bool, of `one` fitted to the others: from its last fit on."""
    views, width = unit.shape[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # good enough to compare; the head's own fit goes on to its end
        one.set_params(C=strength / views).fit(unit[~out].reshape(-1, width), labels[~out].repeat(views))
    scores = one.decision_function(unit[out].reshape(-1, width)).astype(np.float64)
    logits = np.column_stack([-scores / 2, scores / 2]) if scores.ndim == 1 else scores
    truth = labels[out].repeat(views)
    return -log_softmax(logits, axis=1)[np.arange(len(truth)), truth].sum()


def fit_head(model: nn.Module, features: np.ndarray, labels: np.ndarray, classes: int, strength: float) -> None:
    """Set the model's head to the logistic regression of `labels` (n,) int64 on `features` (n, d) float32.

    Features are divided by their deviation from their means, one for all of them, so that `strength` (C, the inverse of the
    penalty) means about the same for every backbone. A deviation of each feature's own was worse on Dogs vs. Cats: log loss
    0.0364 against 0.0353. Raises UserError where the head is not one linear layer, or a class has no row.
    """
    layer = linear_head(model)
    mean, scale = _mean_and_scale(features)
    fitted = LogisticRegression(C=strength, max_iter=1000, tol=1e-4).fit((features - mean) / scale, labels)
    if list(fitted.classes_) != list(range(classes)):
        raise UserError(f"train.head: a probe needs every class in the training rows; {len(fitted.classes_)} of {classes} are")
    weights = fitted.coef_ / scale
    biases = fitted.intercept_ - weights @ mean
    if classes == 2:  # one row: the logit of the second class against the first
        weights, biases = np.vstack([-weights, weights]) / 2, np.array([-biases[0], biases[0]]) / 2
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(biases))


def _mean_and_scale(features: np.ndarray) -> tuple[np.ndarray, float]:
    """Of features (n, d): each one's mean (d,) float64, and the deviation of all from their means; 1 where nothing varies."""
    mean = features.mean(axis=0, dtype=np.float64)
    return mean, float(np.sqrt(features.var(axis=0, dtype=np.float64).mean())) or 1.0


def linear_head(model: nn.Module) -> nn.Linear:
    """The linear layer that gives the model's logits. Raises UserError where its head has not exactly one, with a bias."""
    own = head(model)
    layers = [module for module in own.modules() if isinstance(module, nn.Linear)]
    if len(layers) != 1 or layers[0].bias is None:
        raise UserError(
            f"train.head: a probe needs a model whose head is one linear layer with a bias; {type(model).__name__}'s is a "
            f"{type(own).__name__} with {len(layers)} of them; use --train.head random"
        )
    return layers[0]


def views_of(config: Config) -> tuple[View, ...]:
    """The views in which a probe sees its images: those that keep their label."""
    return keeping_views(config.competition.label_preserving)


def cached_features(
    model: nn.Module, fed: ImageInput, config: Config, root: Path, rows: pd.DataFrame, device: torch.device, folder: Path,
    said: Callable[[str], None],
) -> pd.Series:  # fmt: skip
    """Each id's features (views, d) float32: computed once and kept in `folder`, whatever the fold.

    The file is named after all that decides them: weights, input, rows, their pictures' bytes, views. rows: id, path, in any
    order. Raises UserError where the model's logits aren't those of its linear head.
    """
    rows = rows.sort_values("id")
    path = folder / f"{config.model.name}-{_key(model, fed, config, root, rows)}.npy"
    with locked(folder, patience=HOURS):  # another fold, in a process of its own, may be computing them
        features = _read(path)
        if features is None:
            damaged = " again, as that file is damaged" if path.is_file() else ""
            said(f"features of {len(rows):,} rows in {len(views_of(config))} views: computed once, kept in {path}{damaged}")
            features = _compute(model, fed, config, root, rows, device)
            _write(path, features, said)
    return pd.Series(list(features), index=rows["id"].to_numpy())


def _read(path: Path) -> np.ndarray | None:
    """The features in `path`; None where it is absent, or not what was written."""
    try:
        whole = digest(path) == path.with_suffix(".digest").read_bytes()
        return np.load(path, mmap_mode="r") if whole else None
    except (OSError, ValueError):
        return None


def _write(path: Path, features: np.ndarray, said: Callable[[str], None]) -> None:
    """The features, then the digest by which they are known to be whole."""
    try:
        with replacing(path) as partial, open(partial, "wb") as file:
            np.save(file, features)
        with replacing(path.with_suffix(".digest")) as partial:
            partial.write_bytes(digest(path))
    except OSError as error:
        said(f"the features can't be kept in {path}: {error}; the next fold computes them again")


@torch.inference_mode()
def _compute(
    model: nn.Module, fed: ImageInput, config: Config, root: Path, rows: pd.DataFrame, device: torch.device
) -> np.ndarray:
    """(rows, views, d) float32: what the head's linear layer is given."""
    views, checked = views_of(config), False
    folded = fold_norms(model, fed.size)
    loader = ordered_loader(root, rows, fed.size, config.data.resize, config, device)

    def before_head(pixels: torch.Tensor) -> torch.Tensor:
        nonlocal checked
        if not checked:
            _check_head(model, folded, pixels, config.model.name)
            checked = True
        return torch.stack([_at_head(folded, view) for view in see(pixels, views, fed.size)], dim=1)

    return over_images(before_head, loader, fed, device, config.train.channels_last, "features")


def _at_head(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """(n, d) float32: what the head's linear layer is given for a batch, after all that the model does before it."""
    given: list[torch.Tensor] = []
    hook = linear_head(model).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].float()))
    try:
        model(pixels)
    finally:
        hook.remove()
    return given[-1] if given else torch.empty(0)


@torch.inference_mode()
def _check_head(model: nn.Module, folded: nn.Module, pixels: torch.Tensor, name: str) -> None:
    """Raises UserError where `model` gives other logits of a batch than its linear head of the features that are taken."""
    drawn = copy.deepcopy(model)  # with a head of which something is to be seen: a new one gives zeros
    layer = linear_head(drawn)
    layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0)))
    logits, features = drawn(pixels), _at_head(folded, pixels)
    ours = layer(features) if features.ndim == 2 else features
    if ours.shape != logits.shape or not (ours - logits).abs().max() <= TOLERANCE * logits.abs().max():
        raise UserError(
            f"train.head: a probe needs a model whose logits are its last linear layer's; {name} makes them otherwise; "
            "use --train.head random"
        )


def _key(model: nn.Module, fed: ImageInput, config: Config, root: Path, rows: pd.DataFrame) -> str:
    decides = hashlib.sha256()
    own = {id(parameter) for parameter in linear_head(model).parameters()}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in own:
            decides.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    said = {
        "fed": asdict(fed),
        "resize": config.data.resize,
        "views": list(map(str, views_of(config))),
        "decoder": DECODER,
        "taken": "at the linear layer",  # before, what a head does above its pooling was left out
    }
    decides.update(json.dumps(said, sort_keys=True).encode())
    folder = prepare.beside(root, config.competition)
    pictures = digests(root, rows["path"].tolist(), folder, config.data.workers or len(cores()))
    for id_, picture in zip(rows["id"], pictures, strict=True):
        decides.update(id_.encode() + b"\0" + picture + b"\n")
    return decides.hexdigest()[:16]
