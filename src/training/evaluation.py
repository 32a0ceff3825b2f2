"""Logits of images: a model over all rows of a loader, in their order, in one or several views."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from src.data.loader import read_batches
from src.models.backbone import ImageInput
from src.training.processes import ALONE, Processes
from src.views import IDENTITY, View


def predict(
    model: nn.Module, loader: DataLoader, fed: ImageInput, device: torch.device, autocast: torch.autocast,
    channels_last: bool, title: str, processes: Processes = ALONE,
) -> np.ndarray:  # fmt: skip
    """(n, classes) float32 logits of the loader's rows in their order, each image as it is.

    Of many processes each computes its loader's share, and all get every row.
    """
    return predict_views(model, loader, fed, device, autocast, (IDENTITY,), channels_last, title, processes)[0]


@torch.inference_mode()
def predict_views(
    model: nn.Module, loader: DataLoader, fed: ImageInput, device: torch.device, autocast: torch.autocast,
    views: tuple[View, ...], channels_last: bool, title: str, processes: Processes = ALONE,
) -> np.ndarray:  # fmt: skip
    """(views, n, classes) float32 logits: the same in each view. The loader's images may be larger than `fed.size`."""
    model.eval()

    def each_view(pixels: torch.Tensor) -> torch.Tensor:
        with autocast:
            return torch.stack([model(seen).float() for seen in see(pixels, views, fed.size)], dim=1)

    return over_images(each_view, loader, fed, device, channels_last, title, processes).swapaxes(0, 1)


def over_images(
    compute: Callable[[torch.Tensor], torch.Tensor], loader: DataLoader, fed: ImageInput, device: torch.device,
    channels_last: bool, title: str, processes: Processes = ALONE,
) -> np.ndarray:  # fmt: skip
    """`compute` of every batch of normalised images (n, 3, H, W), put together in the order of the rows: (rows, …).

    Results go to one array, made beforehand: each kept by itself would stand in the hole that the batch's images left, and
    the next batch's find no room there. 11,000 images of 32 pixels took 130 MiB more so.
    """
    hidden = None if processes.first else True  # None: shown on a terminal
    batches = tqdm(read_batches(loader), desc=title, unit="batch", total=len(loader), leave=False, disable=hidden)
    results = (
        (numbers, compute(fed.normalise(images.to(device, non_blocking=True), channels_last))) for numbers, images in batches
    )
    rows, values, done = np.empty(len(loader) * loader.batch_sampler.batch_size, np.int64), None, 0
    for numbers, result in _fetched(results):
        values = np.empty((len(rows), *result.shape[1:]), result.dtype) if values is None else values
        rows[done : done + len(numbers)], values[done : done + len(numbers)] = numbers, result
        done += len(numbers)
    return processes.gathered(rows[:done], None if values is None else values[:done])[1]  # None: more processes than batches


def _fetched(results: Iterator[tuple[np.ndarray, torch.Tensor]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each result in main memory, one batch late: fetching waits for the GPU, which has the next batch in its queue by then."""
    held = None
    for numbers, result in results:
        if held is not None:
            yield held[0], held[1].cpu().numpy()
        held = numbers, result
    if held is not None:
        yield held[0], held[1].cpu().numpy()


def see(pixels: torch.Tensor, views: tuple[View, ...], size: int) -> Iterator[torch.Tensor]:
    """The batch (n, 3, H, H) in each view: scaled from as large as it was loaded, cut, mirrored, turned on its device.

    size: the model's own side in pixels, which a view of scale 1 gets.
    """
    for view in views:
        seen = _cut(_resized(pixels, round(size * view.scale * view.crop)), round(size * view.scale), view.corner)
        seen = seen.flip(3) if view.mirrored else seen
        yield seen.rot90(view.turns, (2, 3)) if view.turns else seen


def loaded_size(views: tuple[View, ...], size: int) -> int:
    """The side in pixels at which images are loaded for `views`: the largest that one of them looks at."""
    return max(round(size * view.scale * view.crop) for view in views)


def mean_view(logits: np.ndarray, how: str) -> np.ndarray:
    """(views, n, classes) float32 logits → (n, classes): their mean, or the log of their mean probability, exact also where
    one is tiny. how: logits, probabilities."""
    each = torch.from_numpy(logits).double()
    if how == "logits":
        return each.mean(dim=0).float().numpy()
    return (torch.logsumexp(torch.log_softmax(each, dim=-1), dim=0) - np.log(len(logits))).float().numpy()


def _resized(pixels: torch.Tensor, side: int) -> torch.Tensor:
    if pixels.shape[-1] == side:
        return pixels
    return functional.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def _cut(pixels: torch.Tensor, side: int, corner: str) -> torch.Tensor:
    left_over = pixels.shape[-1] - side
    top = left_over // 2 if corner == "centre" else left_over * ("bottom" in corner)
    left = left_over // 2 if corner == "centre" else left_over * ("right" in corner)
    return pixels[:, :, top : top + side, left : left + side]
