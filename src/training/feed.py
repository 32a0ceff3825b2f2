"""Batches on their way from the loader to the device. Nothing here waits for the device, so that its queue never runs dry."""

import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from src.data.loader import read_batches

Fed = tuple[torch.Tensor, torch.Tensor, float]  # images (n, H, W, 3) uint8, labels (n,) int64, seconds waited for the loader


def feed(loader: DataLoader, labels: torch.Tensor, device: torch.device) -> Iterator[Fed]:
    """Each batch on `device`. labels: (rows,) int64 in main memory: picking from them on a GPU would wait for its queue.

    On a CUDA GPU a batch is copied on a stream of its own while the step before computes.
    """
    fed = _timed(loader, labels)
    if device.type == "cuda":
        yield from _copied_ahead(fed, device)
    else:
        for images, target, waited in fed:
            yield images.to(device), target.to(device), waited


def _timed(loader: DataLoader, labels: torch.Tensor) -> Iterator[Fed]:
    started = time.perf_counter()
    for rows, images in read_batches(loader):
        target = labels[torch.from_numpy(rows)]
        yield images, target, time.perf_counter() - started
        started = time.perf_counter()


def _copied_ahead(fed: Iterator[Fed], device: torch.device) -> Iterator[Fed]:
    side, held = torch.cuda.Stream(device), None
    for images, target, waited in fed:
        with torch.cuda.stream(side):
            coming = images.to(device, non_blocking=True), target.pin_memory().to(device, non_blocking=True), waited
            copied = side.record_event()
        if held is not None:
            yield _arrived(*held)
        held = coming, copied
    if held is not None:
        yield _arrived(*held)


def _arrived(fed: Fed, copied: torch.cuda.Event) -> Fed:
    """For the stream that computes: it waits for the copy, and the memory isn't given away before it is done with it."""
    computing = torch.cuda.current_stream(fed[0].device)  # which need not be the current device
    computing.wait_event(copied)
    for tensor in fed[:2]:
        tensor.record_stream(computing)
    return fed
