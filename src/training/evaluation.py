"""Logits of images: a model over all rows of a loader, in their order, in one or several views."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from src.data.loader import read_batches
from src.models.backbone import ImageInput
from src.training.processes import ALONE, Processes


@torch.inference_mode()
def predict(
    model: nn.Module, loader: DataLoader, fed: ImageInput, device: torch.device, autocast: torch.autocast,
    views: tuple[str, ...], channels_last: bool, title: str, processes: Processes = ALONE,
) -> np.ndarray:  # fmt: skip
    """(n, classes) float32 logits of the loader's rows in their order: log of the mean probability where there are views.

    views: "identity", "hflip"; the images are turned on the device. Of many processes each computes its loader's share,
    and all get every row.
    """
    model.eval()

    def mean_of_views(pixels: torch.Tensor) -> torch.Tensor:
        with autocast:
            logits = [model(seen).float() for seen in see(pixels, views)]
        return logits[0] if len(views) == 1 else mean_view(torch.stack(logits))

    return over_images(mean_of_views, loader, fed, device, channels_last, title, processes)


def over_images(
    compute: Callable[[torch.Tensor], torch.Tensor], loader: DataLoader, fed: ImageInput, device: torch.device,
    channels_last: bool, title: str, processes: Processes = ALONE,
) -> np.ndarray:  # fmt: skip
    """`compute` of every batch of normalised images (n, 3, H, W), put together in the order of the rows: (rows, …)."""
    parts, numbers = [], [np.zeros(0, np.int64)]
    hidden = None if processes.first else True  # None: shown on a terminal
    for rows, images in tqdm(read_batches(loader), desc=title, unit="batch", total=len(loader), leave=False, disable=hidden):
        parts.append(compute(fed.normalise(images.to(device, non_blocking=True), channels_last)))
        numbers.append(rows)
    values = torch.cat(parts).cpu().numpy() if parts else None  # more processes than batches
    return processes.gathered(np.concatenate(numbers), values)[1]


def see(pixels: torch.Tensor, views: tuple[str, ...]) -> Iterator[torch.Tensor]:
    """The batch (n, 3, H, W) in each view: as it is, or its mirror image."""
    for view in views:
        yield pixels.flip(3) if view == "hflip" else pixels


def mean_view(logits: torch.Tensor) -> torch.Tensor:
    """(views, n, classes) logits → (n, classes): log of the mean probability, exact also where one is tiny."""
    return torch.logsumexp(torch.log_softmax(logits, dim=-1), dim=0) - np.log(len(logits))
