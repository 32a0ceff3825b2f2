"""Folded BatchNorms: the same features in fewer layers, and never other ones."""

import pytest
import timm
import torch
from torch import nn

from src.models.folding import fold_norms


def random_norms(model: nn.Module) -> nn.Module:
    """The model with statistics as after training, which a fresh one's zeros and ones are not."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "left"), [("resnet18", 0), ("mobilenetv2_035", 0), ("densenet121", 62), ("efficientvim_m1", 0)]
)
def test_a_folded_model_gives_the_same_logits(name: str, left: int):
    model = random_norms(timm.create_model(name, num_classes=5))
    folded = fold_norms(model, 64)
    assert norms(model) > norms(folded) == left
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        own, ours = model(images), folded(images)
    torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-4 * float(own.abs().max()))


class Crossed(nn.Module):
    """Layers that are held in another order than they are used in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm_of_second, self.second, self.norm_of_first = (
            nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3),
        )  # fmt: skip

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm_of_second(self.second(self.norm_of_first(self.first(images)).relu()))


def test_a_model_whose_layers_follow_each_other_otherwise_comes_back_as_it_is():
    torch.manual_seed(0)
    model = random_norms(Crossed())
    assert fold_norms(model, 8) is model
    assert norms(model) == 2
