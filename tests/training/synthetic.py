"""A training on random images in memory, for the tests of its pieces."""

import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from src.config import ModelConfig, TrainConfig
from src.data.loader import ShuffledBatches, make_loader
from src.models import backbone
from src.training.training import Training, begin

CLASSES = 3


class Memory(Dataset):
    """Random images whose rows are known, and their labels."""

    def __init__(self, rows: int, seconds: float = 0.0) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8)
        self.labels = torch.from_numpy(rng.integers(0, CLASSES, rows))
        self.seconds = seconds

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, np.ndarray]:
        time.sleep(self.seconds)
        return key[1], self.images[key[1]]


def shuffled(data: Memory, config: TrainConfig) -> DataLoader:
    return make_loader(data, ShuffledBatches(len(data.images), config.batch_size, 0), 0, False)


def start(config: TrainConfig, rows: int, device: str = "cpu", dtype: torch.dtype = torch.float32, **model) -> Training:
    """A training of cifar_net, or of another model, about to begin."""
    made, fed = backbone.create(ModelConfig(**{"name": "cifar_net", "weights": "none", "image_size": 32, **model}), CLASSES)
    labels = Memory(rows).labels.numpy()
    return begin(config, made.to(device), fed, labels, CLASSES, rows // config.batch_size, torch.device(device), dtype)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().cpu().flatten() for parameter in model.parameters()])
