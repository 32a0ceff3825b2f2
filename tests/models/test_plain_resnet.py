"""The 34-layer plain network is ResNet-34 without what makes it residual."""

import timm
import torch
from torch import nn

from src.models import plain_resnet  # noqa: F401  registers it


def sketch(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


def test_it_has_resnet34s_parameters_but_for_the_projections():
    """Lecture 001, "VGG and ResNet": the plain twin of 21,797,672 parameters has 21,623,848."""
    plain, residual = (dict(sketch(name).named_parameters()) for name in ("plain34", "resnet34"))
    assert {name for name in residual if name not in plain} == {name for name in residual if "downsample" in name}
    assert all(plain[name].shape == residual[name].shape for name in plain)
    assert sum(p.numel() for p in plain.values()) == 21_623_848
    assert sum(p.numel() for p in residual.values()) == 21_797_672


def test_it_has_34_layers_with_weights():
    """33 convolutions and the last layer."""
    layers = [module for module in sketch("plain34").modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 34


def test_a_block_passes_nothing_by():
    """With its convolutions at 0 a plain block gives 0; a residual one gives what it got."""
    features = torch.rand(1, 64, 8, 8)
    for name, expected in (("plain34", torch.zeros_like(features)), ("resnet34", features)):
        block = timm.create_model(name, num_classes=2).layer1[0].eval()
        with torch.inference_mode():
            for conv in (block.conv1, block.conv2):
                conv.weight.zero_()
            assert torch.equal(block(features), expected)


def test_a_fresh_one_lets_pictures_through():
    """timm starts a residual block's last norm at 0, which here would make every output the same."""
    torch.manual_seed(0)
    model = timm.create_model("plain34", num_classes=2).train()
    with torch.inference_mode():
        assert model.forward_features(torch.randn(4, 3, 64, 64)).std(dim=0).mean() > 0.1
