"""Layers by name, and their outputs as maps."""

import pytest
import timm
import torch
from torch import nn

from src.errors import UserError
from src.explain import layers


def test_a_layer_is_found_by_its_name(square_net: nn.Module):
    assert layers.find(square_net, "features.2") is square_net.features[2]
    assert list(layers.convolutions(square_net)) == ["features.0", "features.2", "features.4"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("layer9", r"SquareNet has no layer 'layer9'; it has features, fc"),
        ("features.7", r"no layer 'features\.7'; in features there are 0, 1, 2, 3, 4, 5"),
        ("fc.weight", r"no layer 'fc\.weight'; in fc there are no layers within"),
        ("", r"no layer ''; it has features, fc"),
    ],
)
def test_a_layer_that_does_not_exist_is_told_with_those_that_do(square_net: nn.Module, name: str, told: str):
    with pytest.raises(UserError, match=told):
        layers.find(square_net, name)


def test_a_model_without_convolutions_says_so():
    with pytest.raises(UserError, match="Sequential has no convolutions, so there are no filters to look at"):
        layers.convolutions(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_a_relu_in_place_does_not_change_what_a_layer_gave(square_net: nn.Module):
    images = torch.rand(2, 3, 32, 32)
    output, logits = layers.run(square_net, images, "features.0")
    assert torch.equal(output, square_net.features[0](images))
    assert output.min() < 0
    assert torch.equal(logits, square_net(images))
    assert not square_net.features[0]._forward_hooks


class Odd(nn.Module):
    """A layer that is not used, one that is used twice, and one that gives a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.twice, self.pair = nn.Identity(), nn.Identity(), nn.LSTM(4, 4, batch_first=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.pair(self.twice(self.twice(images)))[0]


@pytest.mark.parametrize(
    ("name", "told"),
    [("unused", "is not used"), ("twice", "is used more than once"), ("pair", "gives more than one tensor")],
)
def test_a_layer_without_an_output_of_its_own_is_refused(name: str, told: str):
    with pytest.raises(UserError, match=f"{name} {told} when Odd looks at an image"):
        layers.run(Odd(), torch.rand(1, 3, 4), name)


def test_tokens_become_maps_row_by_row_without_the_class_token():
    model = timm.create_model("test_vit", num_classes=2).eval()
    tokens = torch.arange(2 * 101 * 3.0).reshape(2, 101, 3)
    maps = layers.as_maps(model, tokens, 2, "blocks.0")
    assert maps.shape == (2, 3, 10, 10)
    assert torch.equal(maps[1, :, 0, 3], tokens[1, 1 + 3])
    assert torch.equal(maps[1, :, 4, 0], tokens[1, 1 + 40])
    assert torch.equal(layers.as_maps(model, tokens[:, 1:], 2, "patch_embed"), maps)


def test_channels_last_maps_of_swin_are_turned():
    model = nn.Module()
    model.output_fmt = "NHWC"
    output = torch.rand(2, 7, 5, 3)
    assert torch.equal(layers.as_maps(model, output, 2, "layers.3")[1, 2], output[1, :, :, 2])
    assert layers.as_maps(nn.Module(), output, 2, "layers.3") is output


@pytest.mark.parametrize("output", [torch.rand(2, 9), torch.rand(2, 8, 4), torch.rand(18, 9, 4), [torch.rand(2, 3, 4, 4)]])
def test_what_has_no_places_is_refused(output: torch.Tensor):
    with pytest.raises(UserError, match=r"fc of Module gives no maps \((shape|a list).*\); take an earlier layer"):
        layers.as_maps(nn.Module(), output, 2, "fc")
