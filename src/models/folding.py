"""BatchNorm folded into the convolution before it, for inference: the same function in fewer steps."""

import copy
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from src.models.backbone import Card, load

TOLERANCE = 1e-3  # of the largest feature; float32 rounding gives about 1e-6, a wrongly folded pair changes everything


def load_folded(path: Path, device: torch.device, channels_last: bool) -> tuple[nn.Module, Card]:
    """A fold's model as it predicts: on `device`, in the memory format asked for, its BatchNorms folded."""
    model, card = load(path, device)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    return fold_norms(model.to(memory_format=memory), card.input.size), card


@torch.inference_mode()
def fold_norms(model: nn.Module, size: int) -> nn.Module:
    """A copy of `model`, in evaluation mode, for images of `size` pixels whose BatchNorms are folded where they can be.

    On two cores MobileNetV2 predicts half as fast again. Which layers follow each other is read off the order in which the
    model holds them, and then tried out: where its features differ from the model's own, the model itself comes back.
    """
    model.eval()
    folded = copy.deepcopy(model)
    for parent in folded.modules():
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and conv.out_channels == norm.num_features:
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, _after_norm(norm))
    device = next(model.parameters()).device
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    pairs = zip(_tensors(model.forward_features(image)), _tensors(folded.forward_features(image)), strict=True)
    same = all((own - ours).abs().max() <= TOLERANCE * own.abs().max() for own, ours in pairs)
    return folded if same else model


def _tensors(features: object) -> Iterator[torch.Tensor]:
    """Each of a model's features: CrossViT, CoaT and EfficientViM give several."""
    if isinstance(features, torch.Tensor):
        yield features
    else:
        for part in features.values() if isinstance(features, dict) else features:
            yield from _tensors(part)


def _after_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """What is left of a layer that is no norm any more: timm's BatchNormAct2d has dropout and activation in it."""
    return nn.Sequential(getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity()))
