"""What a network's filters look like, and what they make of a picture: grids of small pictures."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.utils import make_grid

from src.errors import UserError
from src.explain import layers

COLUMNS = 8


def first_filters(model: nn.Module, most: int = 64, enlarge: int = 4, each: bool = False) -> np.ndarray:
    """The first convolution's filters as a grid, uint8 (H, W, 3): middle grey is weight 0, the largest weight is full colour.

    Only these can be shown as they are, as they alone work on colours (lectures 000 and 001, "Visualize filters in the 1st
    convolution layer", which take the largest weight to be 1). each: every filter's own largest weight is full colour, as
    suits a convolution before a BatchNorm, which takes its scale out. Raises UserError for a model without convolutions, and
    for one whose first has neither 1 nor 3 channels.
    """
    weight = _first(model)[:most]
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True) if each else weight.abs().max()
    return _grid(0.5 + weight / (2 * largest).clamp_min(torch.finfo(weight.dtype).tiny), enlarge)


def smoothness(model: nn.Module) -> float:
    """How alike neighbouring weights of the first convolution are, as a correlation: 0 for drawn numbers, towards 1 for edges
    and blobs of colour.

    Each filter counts the same, whatever its scale. Raises UserError as first_filters does, and for 1x1 filters.
    """
    weight = _first(model)
    if weight.shape[2:] == (1, 1):
        raise UserError("filters of 1x1 have no neighbouring weights")
    weight = weight / weight.std(dim=(1, 2, 3), keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    beside = (weight[..., :, :-1].flatten(), weight[..., :, 1:].flatten())
    below = (weight[..., :-1, :].flatten(), weight[..., 1:, :].flatten())
    pairs = torch.stack([torch.cat(both) for both in zip(beside, below, strict=True)])
    return float(torch.corrcoef(pairs)[0, 1])


def feature_maps(model: nn.Module, images: torch.Tensor, layer: str) -> torch.Tensor:
    """(n, filters, h, w) float: what a layer gives for normalised images (n, 3, H, W), vision transformers' tokens as maps.

    Raises UserError for a layer that doesn't exist, with those that do, or has no places.
    """
    with torch.inference_mode():
        return layers.as_maps(model, layers.run(model.eval(), images, layer)[0], len(images), layer)


def map_grid(maps: torch.Tensor, most: int = 32, enlarge: int = 1) -> np.ndarray:
    """The first `most` of one image's maps (filters, h, w) as a grey grid, uint8 (H, W, 3), each from its least to its most."""
    shown = maps[:most, None].float().cpu()
    low, high = shown.amin(dim=(1, 2, 3), keepdim=True), shown.amax(dim=(1, 2, 3), keepdim=True)
    return _grid((shown - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny), enlarge)


def _first(model: nn.Module) -> torch.Tensor:
    """The first convolution's weights (filters, 1 or 3, k, l) float32."""
    name, convolution = next(iter(layers.convolutions(model).items()))
    weight = convolution.weight.detach().float().cpu()
    if weight.shape[1] not in (1, 3):
        raise UserError(f"{name}: filters of {weight.shape[1]} channels can't be shown as pictures, only those of 1 or 3")
    return weight


def _grid(pictures: torch.Tensor, enlarge: int) -> np.ndarray:
    """(n, 1 or 3, h, w) in 0 … 1 → uint8 (H, W, 3), COLUMNS in a row, white lines between."""
    enlarged = F.interpolate(pictures, scale_factor=enlarge, mode="nearest")
    return (make_grid(enlarged, nrow=COLUMNS, pad_value=1.0) * 255).round().byte().permute(1, 2, 0).numpy()
