"""Grad-CAM: on the thing itself, on the class asked about, and gone when the model forgets."""

import numpy as np
import pytest
import timm
import torch
from scipy.stats import spearmanr
from torch import nn

from src.errors import UserError
from src.explain.cam import gradcam, overlay, randomised, rank_correlation
from src.models import backbone  # noqa: F401  registers the lectures' networks

RED, BLUE = torch.tensor([[4, 4], [20, 8], [8, 20]]), torch.tensor([[20, 20], [4, 16], [20, 4]])  # top left corners


def both(squares) -> torch.Tensor:
    """Three pictures with a red and a blue square each."""
    red, blue = squares(RED, torch.zeros(3, dtype=torch.int64)), squares(BLUE, torch.ones(3, dtype=torch.int64))
    return torch.where(blue.amax(dim=1, keepdim=True) == 1, blue, red)


def on(heat: torch.Tensor, corners: torch.Tensor) -> list[float]:
    """Which share of each map (8x8, of 32 pixels) lies on the 8x8 square with its border of 4 pixels."""
    shares = []
    for each, (top, left) in zip(heat, corners.tolist(), strict=True):
        rows, columns = (slice(max(0, round(at / 4) - 1), round(at / 4) + 3) for at in (top, left))
        shares.append(float(each[rows, columns].sum() / each.sum()))
    return shares


def test_the_map_lies_on_the_square_of_the_class_asked_about(square_net: nn.Module, squares):
    images = both(squares)
    for index, here, elsewhere in ((0, RED, BLUE), (1, BLUE, RED)):
        heat, logits = gradcam(square_net, images, torch.full((3,), index))
        assert heat.shape == (3, 8, 8)
        assert heat.dtype == torch.float32
        assert heat.amin() == 0
        assert heat.amax(dim=(1, 2)).tolist() == [1, 1, 1]
        assert min(on(heat, here)) > 0.9
        assert max(on(heat, elsewhere)) < 0.1
        assert torch.equal(logits, square_net(images))


def test_the_predicted_class_is_asked_about_unless_another_is_named(square_net: nn.Module, squares):
    images = squares(RED, torch.tensor([0, 1, 0]))
    own, other = gradcam(square_net, images)[0], gradcam(square_net, images, torch.tensor([1, 0, 1]))[0]
    assert min(on(own, RED)) > 0.9
    assert torch.equal(own, gradcam(square_net, images, torch.tensor([0, 1, 0]))[0])
    assert not torch.allclose(own, other)


def test_with_a_mean_and_one_linear_layer_it_is_zhou_2016s_class_activation_map(square_net: nn.Module, squares):
    """Selvaraju et al. 2017, section 3.1: Grad-CAM generalises CAM."""
    images = squares(RED, torch.tensor([0, 1, 0]))
    heat, logits = gradcam(square_net, images)
    cam = torch.einsum("nk,nkhw->nhw", square_net.fc.weight[logits.argmax(dim=1)], square_net.features(images)).relu()
    torch.testing.assert_close(heat, (cam / cam.amax(dim=(1, 2), keepdim=True)).detach())


class Weighing(nn.Module):
    """Two maps, the picture's red and green; the class adds them up, each place by its own weight."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = weights  # (2, h, w)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :2] * 1

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return (features * self.weights).sum(dim=(1, 2, 3))[:, None]


def test_a_map_counts_by_the_mean_of_its_gradients_over_all_places():
    """Selvaraju et al. 2017, equations 1 and 2."""
    weights = torch.tensor([[[4.0, 0.0], [0.0, 0.0]], [[-9.0, 1.0], [1.0, 3.0]]])  # means 1 and -1
    images = torch.tensor([[[0.0, 3.0], [1.0, 2.0]], [[2.0, 1.0], [0.0, 2.0]], [[7.0, 7.0], [7.0, 7.0]]])[None]
    heat, _ = gradcam(Weighing(weights), images)
    assert heat.tolist() == [[[0.0, 1.0], [0.5, 0.0]]]


def test_an_image_alone_has_the_map_that_it_has_in_a_batch(square_net: nn.Module, squares):
    images = both(squares)
    batch = gradcam(square_net, images)[0]
    for i in range(3):
        torch.testing.assert_close(gradcam(square_net, images[i : i + 1])[0][0], batch[i])


def test_an_earlier_layer_gives_a_finer_map_of_the_same_place(square_net: nn.Module, squares):
    heat, _ = gradcam(square_net, squares(RED, torch.zeros(3, dtype=torch.int64)), layer="features.2")
    assert heat.shape == (3, 16, 16)
    assert min(on(nn.functional.avg_pool2d(heat, 2), RED)) > 0.7


def test_the_map_is_gone_when_the_weights_are_randomised(square_net: nn.Module, squares):
    """Adebayo et al. 2018: a map that outlives the weights says nothing of what was learnt."""
    images, classes = both(squares), torch.zeros(3, dtype=torch.int64)
    heat = gradcam(square_net, images, classes)[0]
    before = {name: weight.clone() for name, weight in square_net.state_dict().items()}
    alike, hits = [], []
    for seed in range(8):
        other = gradcam(randomised(square_net, seed), images, classes)[0]
        alike += [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(heat, other, strict=True) if b.any()]
        hits += [hit for hit in on(other, RED) if hit == hit]
    assert abs(np.mean(alike)) < 0.5
    assert np.mean(hits) < 0.5 < 0.9 < min(on(heat, RED))
    assert all(torch.equal(weight, before[name]) for name, weight in square_net.state_dict().items())
    assert not torch.equal(randomised(square_net).fc.weight, square_net.fc.weight)
    assert torch.equal(randomised(square_net, 3).fc.weight, randomised(square_net, 3).fc.weight)


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [
        ("test_resnet", 160, 5), ("test_efficientnet", 160, 5), ("test_convnext", 160, 5), ("mobilenetv2_035", 96, 3),
        ("test_vit", 160, 10), ("test_vit3", 160, 10), ("test_maxvit", 160, 5), ("alexnet", 95, 2), ("cifar_net", 32, 5),
    ],
)  # fmt: skip
def test_any_model_of_timms_and_the_lectures(name: str, size: int, side: int):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).eval()
    heat, logits = gradcam(model, torch.randn(2, 3, size, size), torch.tensor([1, 3]))
    assert heat.shape == (2, side, side)
    assert logits.shape == (2, 5)
    assert heat.isfinite().all()
    assert heat.amax() == 1
    assert heat.std() > 0


def test_swin_whose_channels_come_last():
    """A patch made to speak for the class stands out where it lies, in its row and its column."""
    torch.manual_seed(0)
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=2, img_size=64, window_size=2, embed_dim=24,
                              depths=(1, 1), num_heads=(2, 2)).eval()  # fmt: skip
    heat, _ = gradcam(model, torch.randn(1, 3, 64, 64))
    assert heat.shape == (1, 8, 8)
    features = torch.zeros(1, 8, 8, 48)
    features[0, 2, 5] = 1
    model.forward_features = lambda images: features + 0 * images.mean()
    model.get_classifier().weight.data.fill_(1.0)
    assert gradcam(model, torch.randn(1, 3, 64, 64))[0].nonzero().tolist() == [[0, 2, 5]]


def test_a_frozen_model_has_maps_too(square_net: nn.Module, squares):
    images = both(squares)
    frozen = randomised(square_net)
    frozen.load_state_dict(square_net.state_dict())
    frozen.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(gradcam(frozen, images)[0], gradcam(square_net, images)[0])


@pytest.mark.parametrize(
    ("name", "layer", "told"),
    [
        ("test_resnet", "layer9", r"ResNet has no layer 'layer9'; it has conv1, .*, layer1, layer2"),
        ("test_resnet", "fc", r"fc of ResNet gives no maps \(shape \(1, 2\)\); take an earlier layer"),
        ("test_vit", "blocks.2.norm2", r"acts on the class by its class token alone; take an earlier layer"),
        ("test_vit", "norm", r"acts on the class by its class token alone"),
    ],
)
def test_a_layer_that_has_no_map_is_told_in_one_line(name: str, layer: str, told: str):
    model = timm.create_model(name, num_classes=2).eval()
    layer = layer.replace("blocks.2", f"blocks.{len(model.blocks) - 1}") if layer.startswith("blocks") else layer
    with pytest.raises(UserError, match=told) as error:
        gradcam(model, torch.randn(1, 3, 160, 160), layer=layer)
    assert "\n" not in str(error.value)


def test_the_overlay_is_red_where_the_map_is_1_and_blue_where_it_is_0():
    picture = np.full((40, 60, 3), 128, np.uint8)
    shown = overlay(picture, np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert shown.shape == picture.shape
    assert shown.dtype == np.uint8
    red, _, blue = shown[0, 0].astype(int)
    assert red > blue
    red, _, blue = shown[-1, -1].astype(int)
    assert blue > red


def test_rank_correlation_compares_the_order_of_places():
    maps = torch.tensor([[[0.0, 0.1], [0.2, 1.0]]]).repeat(3, 1, 1)
    others = torch.stack([maps[0] ** 3, 1 - maps[0], torch.zeros(2, 2)])
    np.testing.assert_allclose(rank_correlation(maps, others), [1, -1, np.nan])
