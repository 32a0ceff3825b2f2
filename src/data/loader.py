"""Batches of uint8 images. Workers ship (H, W, C) bytes, a quarter of float's traffic; normalising happens on the device."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from src.config import Config
from src.cores import cores
from src.data.cache import Cache
from src.data.image import Form, ImageError, read
from src.signals import deferred, leave_to_parent

if TYPE_CHECKING:
    from src.data.augmentation import Augmentation  # prediction doesn't need it, and a bundle has none

warnings.filterwarnings("ignore", "This DataLoader will create")  # train.py says it in our terms

Key = tuple[int, int]  # (epoch, row): persistent workers never see a changed dataset.epoch, so the sampler carries it
Batch = tuple[np.ndarray, torch.Tensor]  # rows (n,) int64, images (n, size, size, 3) uint8


class Images(Dataset):
    """Rows' images, augmented, or just brought to a form; from the cache what it has."""

    def __init__(
        self, root: Path, ids: list[str], paths: list[str], draw: "Augmentation | Form", cache: Cache | None = None
    ) -> None:
        self.root, self.ids, self.paths = root, np.array(ids, dtype=str), np.array(paths, dtype=str)
        self.draw, self.cache = draw, cache
        self.form = draw if isinstance(draw, Form) else draw.form

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: Key) -> tuple[int, np.ndarray | str]:
        """(row, image), or (row, message) where the image can't be read: an exception would lose its type in a worker."""
        epoch, row = key
        path = str(self.paths[row])
        try:
            image = self.cache.read(path) if self.cache is not None else None
            if image is None:
                image = read(self.root / path, self.form)
        except ImageError as error:
            return row, f"{error}; id {str(self.ids[row])!r}"
        if isinstance(self.draw, Form):
            return row, self.draw.of(image)
        return row, self.draw(image, epoch, str(self.ids[row]))


@dataclass(frozen=True)
class Share:
    """Which of `count` equal parts of every step's images (or of all batches) a process takes."""

    number: int = 0
    count: int = 1


WHOLE = Share()


class ShuffledBatches(Sampler):
    """Batches of (epoch, row) in an order that (seed, epoch) decide. Iterating starts at `first` of `epoch`.

    weights: (rows,) how often a row is drawn, in proportion; none: each once an epoch. Of several processes each takes
    its part of the step's images: together they see what one process would with a batch as large as theirs together.
    """

    def __init__(
        self, rows: int, batch_size: int, seed: int, steps: int | None = None, even: bool = False,
        weights: np.ndarray | None = None, share: Share = WHOLE,
    ) -> None:  # fmt: skip
        self.rows, self.seed, self.weights, self.share = rows, seed, weights, share
        most = max(1, rows // share.count)
        self.batch_size = min(batch_size, most - most % 2 if even else most)
        self.steps = min(steps or rows, rows // (self.batch_size * share.count))  # the odd rest waits for another epoch's order
        self.epoch, self.first = 0, 0

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[list[Key]]:
        order = self._order()
        for step in range(self.first, self.steps):
            start = (step * self.share.count + self.share.number) * self.batch_size
            yield [(self.epoch, int(row)) for row in order[start : start + self.batch_size]]

    def _order(self) -> np.ndarray:
        """(rows,) int64: every row once; with weights, as often as its weight says, to the next whole number."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.rows)
        if self.weights is None:
            return order
        ends = np.cumsum(self.weights[order]) / self.weights.sum() * self.rows
        picks = np.searchsorted(ends, np.arange(self.rows) + rng.random(), side="right")  # systematic: at equal distances
        return rng.permutation(order[np.minimum(picks, self.rows - 1)])


class OrderedBatches(Sampler):
    """Batches of all rows in their order, for validation and prediction; of several processes each takes every count-th."""

    def __init__(self, rows: int, batch_size: int, share: Share = WHOLE) -> None:
        self.rows, self.batch_size = rows, batch_size
        self.starts = range(share.number * batch_size, rows, share.count * batch_size)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[list[Key]]:
        for first in self.starts:
            yield [(0, row) for row in range(first, min(first + self.batch_size, self.rows))]


class Loader(DataLoader):
    """A DataLoader whose workers can begin before the first batch is asked for; `read_batches` makes Batches of its pairs."""

    begun: Iterator[tuple[torch.Tensor, torch.Tensor | str]] | None = None

    @property
    def ahead(self) -> int:
        """How many batches the workers read before they are asked for."""
        return self.num_workers * (self.prefetch_factor or 0)

    def begin(self) -> None:
        """Let the workers read the first batches of what the sampler stands at, where it must stand until somebody iterates."""
        if self.num_workers and self.begun is None:
            self.begun = self._start()

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | str]]:
        begun, self.begun = self.begun, None
        return self._start() if begun is None else begun

    def _start(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | str]]:
        with deferred():  # Ctrl-C in the middle of a fork would be lost
            return super().__iter__()


def make_loader(images: Images, batches: Sampler, workers: int, pin: bool) -> Loader:
    """A Loader. Raises ImageError, when its batches are read, with path and row of an image that can't be read."""
    cv2.setNumThreads(0)  # one thread an image: OpenCV's own pool only fights with the workers and torch
    return Loader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker if workers else None,
    )


def ordered_loader(
    root: Path, rows: pd.DataFrame, size: int, resize: str, config: Config, device: torch.device, share: Share = WHOLE,
    cache: Cache | None = None,
) -> Loader:  # fmt: skip
    """All of `rows` (id, path) in their order, fitted to their square and not augmented: to validate or predict."""
    images = Images(root, rows["id"].tolist(), rows["path"].tolist(), Form(size, resize), cache)
    batches = OrderedBatches(len(images), config.predict.batch_size, share)
    return make_loader(images, batches, choose_workers(config.data.workers, device), device.type == "cuda")


def read_batches(loader: DataLoader) -> Iterator[Batch]:
    """The loader's batches; an image that can't be read stops here."""
    for rows, images in loader:
        if isinstance(images, str):
            raise ImageError(images)
        yield rows.numpy(), images


def choose_workers(workers: int | None, device: torch.device) -> int:
    """As configured, or from the cores at hand: all of them beside a GPU (at most 16), half of them beside CPU training.

    Of several processes on a machine, which torchrun starts, each has its part of the cores.
    """
    mine = max(1, len(cores()) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return workers if workers is not None else min(16, mine if device.type != "cpu" else mine // 2)


def _collate(samples: list[tuple[int, np.ndarray | str]]) -> tuple[torch.Tensor, torch.Tensor | str]:
    rows = torch.tensor([row for row, _ in samples])
    for _, image in samples:
        if isinstance(image, str):
            return rows, image
    return rows, default_collate([_tensor(image) for _, image in samples])  # in a worker: into shared memory at once


def _tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image if image.flags.writeable else image.copy())  # what lies in the cache isn't


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    leave_to_parent()
