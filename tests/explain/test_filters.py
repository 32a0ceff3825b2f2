"""Filters and feature maps as pictures."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from src.errors import UserError
from src.explain import filters


def tile(grid: np.ndarray, number: int, side: int) -> np.ndarray:
    """One picture of a grid with lines of 2 pixels, 8 in a row."""
    top, left = (2 + place * (side + 2) for place in divmod(number, 8))
    return grid[top : top + side, left : left + side]


def test_the_first_filters_stand_in_a_grid_with_grey_for_0():
    model = nn.Sequential(nn.Conv2d(3, 10, 4), nn.Conv2d(10, 2, 1))
    weight = torch.zeros(10, 3, 4, 4)
    weight[9, 0, 1, 2], weight[1, 2, 0, 0] = 4.0, -2.0
    model[0].weight.data = weight
    grid = filters.first_filters(model, enlarge=3)
    assert grid.dtype == np.uint8
    assert grid.shape == (2 + 2 * 14, 2 + 8 * 14, 3)
    assert (tile(grid, 0, 12) == 128).all()
    assert (tile(grid, 9, 12)[3:6, 6:9] == [255, 128, 128]).all()
    assert (tile(grid, 1, 12)[:3, :3] == [128, 128, 64]).all()
    assert (grid[:2] == 255).all()
    assert filters.first_filters(model, most=8, enlarge=3).shape == (16, 114, 3)


def test_grey_filters_and_vision_transformers_have_pictures_too():
    assert filters.first_filters(nn.Conv2d(1, 8, 3), enlarge=1).shape == (7, 42, 3)
    vit = timm.create_model("test_vit", num_classes=2)
    assert filters.first_filters(vit, enlarge=1).shape == (2 + 8 * 18, 2 + 8 * 18, 3)


def test_what_has_no_filters_to_show_is_told():
    with pytest.raises(UserError, match="Sequential has no convolutions"):
        filters.first_filters(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(UserError, match="0: filters of 48 channels can't be shown as pictures, only those of 1 or 3"):
        filters.first_filters(nn.Sequential(nn.Conv2d(48, 8, 5)))


def test_feature_maps_are_what_the_layer_gives(square_net: nn.Module, squares):
    images = squares(torch.tensor([[4, 4], [12, 20]]), torch.tensor([0, 1]))
    maps = filters.feature_maps(square_net, images, "features.2")
    assert maps.shape == (2, 16, 16, 16)
    torch.testing.assert_close(maps, square_net.features[:3](images).detach())
    assert filters.feature_maps(timm.create_model("test_vit"), torch.rand(1, 3, 160, 160), "blocks.1").shape == (1, 64, 10, 10)
    with pytest.raises(UserError, match=r"no layer 'conv9'; it has features, fc"):
        filters.feature_maps(square_net, images, "conv9")
    with pytest.raises(UserError, match=r"fc of SquareNet gives no maps"):
        filters.feature_maps(square_net, images, "fc")


def test_each_map_is_shown_from_its_least_to_its_most():
    maps = torch.stack([torch.arange(4.0).reshape(2, 2), torch.full((2, 2), 7.0), -100 * torch.eye(2)])
    grid = filters.map_grid(maps, enlarge=2)
    assert grid.shape == (8, 2 + 3 * 6, 3)
    assert tile(grid, 0, 4)[::2, ::2, 0].tolist() == [[0, 85], [170, 255]]
    assert (tile(grid, 1, 4) == 0).all()
    assert tile(grid, 2, 4)[::2, ::2, 1].tolist() == [[0, 255], [255, 0]]
    assert filters.map_grid(torch.rand(40, 5, 5)).shape == (2 + 4 * 7, 2 + 8 * 7, 3)


def test_each_filter_can_have_its_own_scale():
    model = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False))
    model[0].weight.data = torch.tensor([[1.0, -1.0, 0.5], [0.1, -0.1, 0.05]])[:, :, None, None]
    together, alone = (filters.first_filters(model, enlarge=1, each=each) for each in (False, True))
    assert together[2, 2].tolist() == alone[2, 2].tolist() == [255, 0, 191]
    assert together[2, 5].tolist() == [140, 115, 134]
    assert alone[2, 5].tolist() == [255, 0, 191]
    model[0].weight.data.zero_()
    assert (filters.first_filters(model, enlarge=1, each=True)[2, 2] == 128).all()


def test_drawn_weights_have_no_smoothness_and_edges_have_much():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 7))
    assert abs(filters.smoothness(model)) < 0.03
    model[0].weight.data = torch.linspace(-1, 1, 7).expand(64, 3, 7, 7) * torch.logspace(-3, 3, 64)[:, None, None, None]
    assert filters.smoothness(model) > 0.8
    with pytest.raises(UserError, match="1x1 have no neighbouring"):
        filters.smoothness(nn.Sequential(nn.Conv2d(3, 2, 1)))
