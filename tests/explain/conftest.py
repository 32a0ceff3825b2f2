"""A network that has learnt something known: class 0 is a red square somewhere, class 1 a blue one, class 2 noise alone."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

SIDE, SQUARE = 32, 8


class SquareNet(nn.Module):
    """(n, 3, 32, 32) float → logits (n, 3), by maps of 8x8."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(inplace=True), nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.fc = nn.Linear(16, 3)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.features(images)

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return self.fc(features.mean(dim=(2, 3)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


def draw(places: torch.Tensor, colours: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """(n, 3, 32, 32) in 0 … 1: noise with a square at each of `places` (n, 2), red for colour 0, blue for 1, none for 2."""
    images = torch.rand(len(places), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 0.2
    for image, (top, left), colour in zip(images, places.tolist(), colours.tolist(), strict=True):
        if colour < 2:
            image[:, top : top + SQUARE, left : left + SQUARE] = torch.eye(3)[2 * colour, :, None, None]
    return images


@pytest.fixture(scope="session")
def squares() -> Callable[..., torch.Tensor]:
    return draw


@pytest.fixture(scope="session")
def square_net() -> nn.Module:
    """Trained on 64 pictures a step, two seconds on one core; right on all of 200 fresh ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SquareNet()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for step in range(60):
            places, colours = torch.randint(0, SIDE - SQUARE + 1, (64, 2)), torch.randint(0, 3, (64,))
            loss = F.cross_entropy(model(draw(places, colours, step)), colours)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        places, colours = torch.randint(0, SIDE - SQUARE + 1, (200, 2)), torch.randint(0, 3, (200,))
        assert torch.equal(model(draw(places, colours, 99)).argmax(dim=1), colours)
    model.zero_grad()
    return model.eval()
