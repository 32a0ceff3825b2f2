"""src/training/feed.py: every batch once, with its own labels, where the model is."""

import time

import pytest
import torch

from src.config import TrainConfig
from src.training.feed import feed
from synthetic import Memory, shuffled

CPU = torch.device("cpu")
GPU = pytest.param(
    torch.device("cuda"), marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"), id="cuda"
)


@pytest.mark.parametrize("device", [pytest.param(CPU, id="cpu"), GPU])
def test_each_image_comes_once_with_its_own_label(device: torch.device):
    data = Memory(20)
    fed = list(feed(shuffled(data, TrainConfig(batch_size=4)), data.labels, device))
    labels = {image.tobytes(): int(label) for image, label in zip(data.images, data.labels, strict=True)}
    seen = [
        (image.cpu().numpy().tobytes(), int(label))
        for images, target, _ in fed
        for image, label in zip(images, target, strict=True)
    ]
    assert dict(seen) == labels
    assert len(seen) == 20
    assert {images.device.type for images, _, _ in fed} == {target.device.type for _, target, _ in fed} == {device.type}


@pytest.mark.parametrize("device", [pytest.param(CPU, id="cpu"), GPU])
def test_no_batches_feed_nothing(device: torch.device):
    data = Memory(4)
    loader = shuffled(data, TrainConfig(batch_size=4))
    loader.batch_sampler.first = 1
    assert list(feed(loader, data.labels, device)) == []


def test_the_seconds_waited_are_the_loader_s_and_not_the_step_s():
    data = Memory(12, seconds=0.01)
    waits = []
    for _, _, waited in feed(shuffled(data, TrainConfig(batch_size=4)), data.labels, CPU):
        waits.append(waited)
        time.sleep(0.2)
    assert len(waits) == 3
    assert all(0.04 <= waited < 0.2 for waited in waits)
