"""Activation maximisation (Erhan et al. 2009): the picture that a filter, a neuron or a class responds to most.

Lecture 001: x* = arg max a(x), with a the sum of a filter's map, and x* = arg max (y(x) - sum |x|) for a class, so that most
pixels bear no ink. Smoothness by total variation (Mahendran and Vedaldi 2015), jitter as in Mordvintsev et al. 2015.
"""

import torch
from torch import nn

from src.errors import UserError
from src.explain import layers
from src.models.backbone import ImageInput


def activation(
    model: nn.Module, fed: ImageInput, pixels: torch.Tensor, index: int, layer: str | None = None, rectified: bool = False
) -> torch.Tensor:
    """(n,) float: how strongly pictures `pixels` (n, 3, H, W) in 0 … 1 activate filter, neuron or class `index`.

    layer: its filters, each map summed, or its neurons; none: the classes' logits. rectified: what a ReLU lets through, which
    can be told from 0 where the sum of a convolution's map is negative for most pictures; it has no way up from 0, so that the
    ascent is by the layer itself. Raises UserError for a layer that doesn't exist, with those that do, and for an index
    beyond it.
    """
    mean, std = (torch.tensor(each, device=pixels.device)[:, None, None] for each in (fed.mean, fed.std))
    images = (pixels - mean) / std
    output = model(images) if layer is None else layers.run(model, images, layer)[0]
    if rectified:
        output = output.relu()
    if output.ndim != 2:
        output = layers.as_maps(model, output, len(images), str(layer)).sum(dim=(2, 3))
    if not 0 <= index < output.shape[1]:
        raise UserError(f"{layer or 'the classes'}: there is no {index}; they are numbered 0 to {output.shape[1] - 1}")
    return output[:, index]


def noise(fed: ImageInput, count: int = 1, seed: int = 0) -> torch.Tensor:
    """(count, 3, size, size) float32 in 0 … 1: what the ascent starts from, and is measured against."""
    return torch.rand(count, 3, fed.size, fed.size, generator=torch.Generator().manual_seed(seed))


def over_noise(
    model: nn.Module, fed: ImageInput, picture: torch.Tensor, index: int, layer: str | None = None, count: int = 16
) -> tuple[float, float]:
    """The mean activation of `count` pictures of noise, and that of a picture (3, H, W) in 0 … 1, as `activation` has them.

    Filters and neurons are measured rectified, classes by their logits. Raises UserError as activation does.
    """
    with torch.inference_mode():
        usual, made = (
            float(activation(model.eval(), fed, pixels, index, layer, rectified=layer is not None).mean())
            for pixels in (noise(fed, count, seed=1), picture[None])
        )
    return usual, made


def maximise(
    model: nn.Module, fed: ImageInput, index: int, layer: str | None = None, *, start: torch.Tensor | None = None,
    steps: int = 200, rate: float = 0.02, l1: float = 0.0, variation: float = 0.0, jitter: int = 0,
    within: float = 1.0, seed: int = 0,
) -> torch.Tensor:  # fmt: skip
    """(3, H, W) float32 in 0 … 1: the picture that raises activation(index, layer) - l1 * sum |x| - variation * TV(x).

    start: (3, H, W) in 0 … 1, none: noise; within: how far a pixel may move from it, which shows how easily a net is fooled;
    rate: Adam's, in pixels' units; jitter: each step the picture is shifted by up to so many pixels, so that no detail can
    hang on one place; seed: of noise and jitter. Where a ReLU gives nothing for the start there is no way up: name the
    convolution before it. Raises UserError as activation does.
    """
    model.eval()
    origin = noise(fed, seed=seed)[0] if start is None else start
    pixels = origin.clone().requires_grad_()
    ascent = torch.optim.Adam([pixels], lr=rate, maximize=True)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for _ in range(steps):
            shifts = torch.randint(-jitter, jitter + 1, (2,), generator=generator).tolist()
            shifted = torch.roll(pixels, shifts, dims=(1, 2))
            goal = activation(model, fed, shifted[None], index, layer)[0]
            goal = goal - l1 * pixels.sum() - variation * total_variation(pixels)  # no pixel is below 0: |x| is x
            pixels.grad = torch.autograd.grad(goal, pixels)[0]
            ascent.step()
            with torch.no_grad():
                pixels.copy_(torch.clamp(pixels, origin - within, origin + within).clamp_(0, 1))
    return pixels.detach()


def total_variation(pixels: torch.Tensor) -> torch.Tensor:
    """The sum over a picture (3, H, W) of the differences between neighbours, across and down."""
    return pixels.diff(dim=1).abs().sum() + pixels.diff(dim=2).abs().sum()
