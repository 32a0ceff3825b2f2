"""AlphaGo's policy network, lecture 001's "Use CNN in Alpha GO", on positions."""

import pytest
import timm
import torch
from torch import nn

from src.models import alphago  # noqa: F401  registers it

OWN, OTHERS, EMPTY, ONES = 0, 1, 2, 3  # the first of the 48 planes: stones, and the board (extended data table 2)


def position(*stones: tuple[int, int]) -> torch.Tensor:
    """(1, 48, 19, 19): stones laid in turns on (row, column), as the player to move sees them; no other features."""
    planes = torch.zeros(1, 48, 19, 19)
    planes[0, [EMPTY, ONES]] = 1
    for turn, (row, column) in enumerate(reversed(stones)):
        planes[0, OTHERS if turn % 2 == 0 else OWN, row, column] = 1
        planes[0, EMPTY, row, column] = 0
    return planes


def small() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("alphago_policy", k=16)


@pytest.mark.parametrize("k", [128, 192, 256, 384])
def test_it_is_the_slides_network(k: int):
    """19×19×48 in; k filters of 5×5, eleven times k of 3×3, one of 1×1, and a bias for each of the 361 positions."""
    with torch.device("meta"):
        model = timm.create_model("alphago_policy", k=k)
        maps, padded = torch.zeros(2, 48, 19, 19), []
        for layer in model.layers:
            if isinstance(layer, nn.Conv2d):
                padded.append(maps.shape[-1] + 2 * layer.padding[0])
            maps = layer(maps)
            assert maps.shape == (2, k, 19, 19)
        assert model(torch.zeros(2, 48, 19, 19)).shape == (2, 361)
    assert padded == [23] + [21] * 11
    weights = 48 * k * 25 + k + 11 * (k * k * 9 + k) + k
    assert sum(p.numel() for p in model.parameters()) == weights + 361
    assert not any(isinstance(module, nn.MaxPool2d | nn.AvgPool2d) for module in model.modules())


def test_softmax_over_its_logits_is_a_probability_of_each_point():
    with torch.inference_mode():
        chances = small()(torch.cat([position(), position((3, 3), (15, 16))])).softmax(dim=1)
    assert chances.shape == (2, 361)
    torch.testing.assert_close(chances.sum(dim=1), torch.ones(2))


def test_a_point_sees_the_stones_up_to_13_points_away():
    """5×5 and eleven times 3×3: 2 + 11 points to each side."""
    model, stone = small(), position((0, 9))
    with torch.inference_mode():
        changed = (model(stone) != model(position())).view(19, 19)
    assert changed[:14, 9].any()
    assert not changed[14:].any()


def test_each_point_has_a_bias_of_its_own():
    model, stones = small(), position((2, 5), (10, 11))
    with torch.inference_mode():
        model.bias[3 * 19 + 4] = 5.0
        before = small()(stones)
        after = model(stones)
    assert (after - before).flatten().nonzero().tolist() == [[3 * 19 + 4]]


def test_it_learns_the_answers_to_positions():
    """The corner that is still free."""
    corners = [(3, 3), (3, 15), (15, 3), (15, 15)]
    boards = torch.cat([position(*(other for other in corners if other != corner)) for corner in corners])
    moves = torch.tensor([19 * row + column for row, column in corners])
    model = small()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(boards), moves)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model(boards).argmax(dim=1).tolist() == moves.tolist()
