"""Grad-CAM (Selvaraju et al. 2017): which places of a picture speak for a class.

A layer's maps are added up, each weighted by how much the class's logit rises with it, averaged over all places; what
speaks against the class is cut off.
"""

import copy

import cv2
import matplotlib as mpl
import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from src.errors import UserError
from src.explain import layers


def gradcam(
    model: nn.Module, images: torch.Tensor, classes: torch.Tensor | None = None, layer: str | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps (n, h, w) float32 in 0 … 1, as large as the layer's own, and logits (n, classes), of normalised images (n, 3, H, W).

    classes: (n,) int64, the class asked about; none: each image's predicted one. layer: a name as in model.named_modules();
    none: the last that has places. Raises UserError for a layer that doesn't exist, has no places, or doesn't act on the class.
    """
    model.eval()
    name = layer or _last_layer(model)
    with torch.enable_grad():
        if name is None:
            name = "forward_features"
            with torch.no_grad():  # the graph begins at the maps: nothing below them keeps its activations
                output = model.forward_features(images)
            layers.as_maps(model, output, len(images), name)
            logits = model.forward_head(output.requires_grad_())
        else:
            output, logits = layers.run(model, images.detach().requires_grad_(), name)  # so that a frozen backbone has a graph
        wanted = logits.argmax(dim=1) if classes is None else classes
        of_class = logits.gather(1, wanted[:, None]).sum()  # images don't see each other: a sum keeps their gradients apart
        gradient = torch.autograd.grad(of_class, output, allow_unused=True)[0]
    if gradient is None or not gradient.any():
        raise UserError(f"{name} of {type(model).__name__} doesn't act on the class; take another layer")
    maps, rises = (layers.as_maps(model, each, len(images), name) for each in (output.detach(), gradient))
    if not rises.any():
        raise UserError(f"{name} of {type(model).__name__} acts on the class by its class token alone; take an earlier layer")
    heat = (rises.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1).relu().float()
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny), logits.detach()


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) uint8 under the map (h, w) in 0 … 1, from blue to red; uint8 of the picture's size."""
    enlarged = cv2.resize(heat.astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    coloured = mpl.colormaps["turbo"](enlarged)[..., :3] * 255
    return (0.55 * picture + 0.45 * coloured).round().astype(np.uint8)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy whose layers have forgotten what they learnt: the sanity check of Adebayo et al. 2018.

    A map that stays the same under it shows the picture's edges, and nothing of what the model knows.
    """
    copied = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in copied.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return copied.eval()


def rank_correlation(maps: torch.Tensor, others: torch.Tensor) -> np.ndarray:
    """(n,) float64, Spearman's of each map with the other of the same picture, both (n, h, w): 1 where they rank places alike.

    nan where a map has the same value everywhere. Adebayo et al. 2018 measure their sanity check so.
    """
    pairs = zip(maps.flatten(1).cpu().numpy(), others.flatten(1).cpu().numpy(), strict=True)
    return np.array([spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else np.nan for a, b in pairs])


def _last_layer(model: nn.Module) -> str | None:
    """Where there is a class token, the last block's input, since after it the other tokens don't count; none: the features."""
    if getattr(model, "num_prefix_tokens", 0) and hasattr(model, "blocks"):
        return f"blocks.{len(model.blocks) - 1}.norm1"
    return None
