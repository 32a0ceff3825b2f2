"""The paper's AlexNet is the one of lecture 002, its table and its code."""

import pytest
import timm
import torch
from torch import nn

from src.models import alexnet_paper  # noqa: F401  registers it


def _sketch(**arguments) -> nn.Module:
    """Its layers without memory for their weights."""
    with torch.device("meta"):
        return timm.create_model("alexnet_paper", **arguments).eval()


@pytest.mark.parametrize(("grouped", "parameters"), [(False, 62_378_344), (True, 60_965_224)])
def test_it_has_the_parameters_of_the_table_and_grouped_those_of_the_paper(grouped: bool, parameters: int):
    """Lecture 002, "Details of each layer"; "AlexNet Architecture" says > 60M."""
    assert sum(p.numel() for p in _sketch(grouped=grouped).parameters()) == parameters > 60e6


def test_every_line_of_the_lectures_table_is_a_layer():
    """Lecture 002, "Details of each layer", but line 6: its 9216 is what the first FC layer reads, not what it gives."""
    model, maps, seen = _sketch(), torch.zeros(1, 3, 227, 227, device="meta"), []
    for layer in model.net:
        maps = layer(maps)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            size = layer.kernel_size if isinstance(layer.kernel_size, int) else layer.kernel_size[0]
            stride = layer.stride if isinstance(layer.stride, int) else layer.stride[0]
            seen.append((type(layer).__name__, *maps.shape[2:], maps.shape[1], size, stride))
    assert seen == [
        ("Conv2d", 55, 55, 96, 11, 4), ("MaxPool2d", 27, 27, 96, 3, 2),
        ("Conv2d", 27, 27, 256, 5, 1), ("MaxPool2d", 13, 13, 256, 3, 2),
        ("Conv2d", 13, 13, 384, 3, 1), ("Conv2d", 13, 13, 384, 3, 1), ("Conv2d", 13, 13, 256, 3, 1),
        ("MaxPool2d", 6, 6, 256, 3, 2),
    ]  # fmt: skip
    linear = [layer for layer in model.classifier if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [9216, 4096, 4096]
    assert [layer.out_features for layer in linear] == [4096, 4096, 1000]


@pytest.fixture(scope="module")
def real() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("alexnet_paper", num_classes=2).eval()


def test_the_lectures_code_finds_its_layers_and_they_start_as_it_says(real: nn.Module):
    """Lecture 002, "Define AlexNet": normal(0, 0.01), biases 1 in net[4], net[10], net[12] and 0 in the other convolutions."""
    convolutions = {i: layer for i, layer in enumerate(real.net) if isinstance(layer, nn.Conv2d)}
    assert {i: float(layer.bias.detach().unique()) for i, layer in convolutions.items()} == {0: 0, 4: 1, 8: 0, 10: 1, 12: 1}
    for layer in (*convolutions.values(), real.classifier[1], real.classifier[4]):
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
        assert abs(float(layer.weight.detach().mean())) < 2e-4
    assert real.classifier[6].bias.tolist() == [0, 0]


def test_its_weights_are_drawn_for_raw_pixels_less_their_mean(real: nn.Module):
    """Section 5's input is in -127 … 127. Fed with -1 … 1, the biases of 1 leave next to nothing of a picture."""
    images = torch.randn(4, 3, 131, 131, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)

    def told_apart(scale: float) -> float:
        """How far pictures differ before the head, as a share of what all of them have there."""
        with torch.inference_mode():
            before_head = real.forward_head(real.forward_features(scale * images), pre_logits=True)
        return float(before_head.std(dim=0).mean() / before_head.mean())

    assert told_apart(127.5) > 0.02
    assert told_apart(1.0) < 0.1 * told_apart(127.5)


def test_response_normalisation_is_the_papers_formula():
    """Krizhevsky et al. 2012, section 3.3: a / (2 + 1e-4 * sum of a² over 5 neighbouring maps) ** 0.75."""
    norm, maps = _sketch(lrn=True).net[2], 100 * torch.rand(1, 96, 2, 2)
    around = maps[:, 8:13].square().sum(dim=1)
    torch.testing.assert_close(norm(maps)[:, 10], maps[:, 10] / (2 + 1e-4 * around) ** 0.75)
    assert isinstance(_sketch().net[2], nn.Identity)
    assert [isinstance(layer, nn.LocalResponseNorm) for layer in _sketch(lrn=True).net].count(True) == 2
