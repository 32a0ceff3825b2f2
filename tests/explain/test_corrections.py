"""docs/corrections.md, line by line: what a slide says is not so, and what is right."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from conftest import REPOSITORY
from src.errors import UserError
from src.explain import slides
from src.explain.convolution import convolve
from src.models import alexnet_paper, alphago  # noqa: F401  registered in timm by being imported

PAGE = REPOSITORY / "docs" / "corrections.md"


def without_weights(build: Callable[..., nn.Module], **arguments: object) -> nn.Module:
    """torchvision's network on torch's "meta" device: shapes and counts, no memory, no time."""
    with torch.device("meta"):
        return build(weights=None, **arguments).eval()


def shape(layers: nn.Module, *size: int) -> tuple[int, ...]:
    return tuple(layers(torch.empty(1, *size, device="meta")).shape[1:])


def count(model: nn.Module, *kinds: type[nn.Module]) -> int:
    return sum(isinstance(module, kinds) for module in model.modules())


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def alexnet() -> nn.Module:
    return without_weights(torchvision.models.alexnet)


# AlexNet, lectures 000 and 001


def test_the_third_convolution_has_384_filters(alexnet: nn.Module):
    assert alexnet.features[6].out_channels == 384
    assert shape(alexnet.features[:7], 3, 224, 224) == (384, 13, 13)


def test_features_7_and_8_are_a_relu_and_the_fourth_convolution(alexnet: nn.Module):
    assert [type(layer) for layer in alexnet.features[7:9]] == [nn.ReLU, nn.Conv2d]
    assert shape(alexnet.features[7:9], 384, 13, 13) == (256, 13, 13)
    assert [i for i, layer in enumerate(alexnet.features) if isinstance(layer, nn.MaxPool2d)] == [2, 5, 12]


def test_pooling_has_padding_0(alexnet: nn.Module):
    assert alexnet.features[2].padding == 0
    assert (55 + 2 * 0 - 3) / 2 + 1 == 27
    assert (55 + 2 * 2 - 3) / 2 + 1 == 29
    assert shape(alexnet.features[2], 64, 55, 55) == (64, 27, 27)


def test_the_second_convolution_gives_27x27_only_after_pooling(alexnet: nn.Module):
    assert shape(alexnet.features[3], 64, 55, 55) == (192, 55, 55)
    assert shape(alexnet.features[3], 64, 27, 27) == (192, 27, 27)


def test_the_first_convolution_is_padded_by_2_and_all_have_biases(alexnet: nn.Module):
    assert alexnet.features[0].padding == (2, 2)
    assert shape(nn.Conv2d(3, 64, 11, 4, 0, device="meta"), 3, 224, 224) == (64, 54, 54)
    assert all(layer.bias is not None for layer in alexnet.features if isinstance(layer, nn.Conv2d))


def test_a_size_is_rounded_down(alexnet: nn.Module):
    assert (224 + 2 * 2 - 11) / 4 + 1 == 55.25
    assert shape(alexnet.features[0], 3, 224, 224) == (64, 55, 55)


def test_the_layers_are_in_features_with_an_s(alexnet: nn.Module):
    assert hasattr(alexnet, "features")
    assert not hasattr(alexnet, "feature")


def test_imagenet_weights_want_imagenets_mean_and_deviation():
    wanted = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.transforms()
    assert wanted.mean == [0.485, 0.456, 0.406]
    assert wanted.std == [0.229, 0.224, 0.225]
    # black and white as the weights know them, and as Normalize(0.5, 0.5) hands them over
    black, white = ((value - np.array(wanted.mean)) / wanted.std for value in (0, 1))
    assert white.max() == pytest.approx(2.64)
    assert black.min() == pytest.approx(-2.118, abs=1e-3)
    assert [(value - 0.5) / 0.5 for value in (0, 1)] == [-1, 1]


def test_pretrained_true_is_weights_now():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with torch.device("meta"):
            torchvision.models.alexnet(pretrained=False)
    assert any("'pretrained' is deprecated" in str(warning.message) for warning in told)


# The worked examples, lectures 001 and 004


def test_the_6x6_picture_has_six_columns():
    printed = np.insert(slides.PICTURE_6X6, 5, 0, axis=1)
    assert printed[0].tolist() == [1, 0, 0, 0, 0, 0, 1]
    assert convolve(printed, slides.FILTER_1).shape == (4, 5)
    assert convolve(slides.PICTURE_6X6, slides.FILTER_1).shape == slides.MAP_1.shape == (4, 4)


def test_the_6x6_picture_has_no_minus_1():
    printed = slides.PICTURE_6X6.copy()
    printed[1, 1] = -1
    assert convolve(printed, slides.FILTER_1)[0, 0] == 1
    assert convolve(slides.PICTURE_6X6, slides.FILTER_1)[0, 0] == slides.MAP_1[0, 0] == 3


def test_i_has_seven_columns():
    assert convolve(np.pad(slides.I, ((0, 0), (0, 1))), slides.K).shape == (5, 6)
    assert convolve(slides.I, slides.K).shape == slides.I_K.shape == (5, 5)


def test_i_convolved_with_k_is_no_matrix_product():
    with pytest.raises(ValueError, match="mismatch"):
        slides.I @ slides.K
    window = slides.I[:3, 1:4]
    assert (window * slides.K).sum() == slides.I_K[0, 1] == 4
    assert not np.array_equal(window @ slides.K, window * slides.K)


def test_the_block_headed_x1_is_the_rest_of_channel_0():
    printed = np.array([[0, 1, 0, 2, 2, 0, 0], [0, 2, 0, 0, 2, 0, 0], [0, 2, 1, 2, 2, 0, 0]])
    assert np.array_equal(slides.VOLUME[0, 3:6], printed)
    assert slides.VOLUME.shape == (3, 7, 7)
    as_headed = np.stack([slides.VOLUME[0, :3], printed, slides.VOLUME[1, :3]])
    assert convolve(as_headed, slides.W0, stride=2)[0].tolist() != slides.OUTPUT_VOLUME[0, 0].tolist()
    assert (convolve(slides.VOLUME[:, :3], slides.W0, stride=2) + slides.B0)[0].tolist() == [2, 3, 3]


# The networks of lecture 002


def test_alexnet_has_eight_layers_and_9216_numbers_go_into_the_first_linear_one():
    paper = torchvision.models.alexnet
    linear = [(m.in_features, m.out_features) for m in without_weights(paper).modules() if isinstance(m, nn.Linear)]
    assert linear == [(256 * 6 * 6, 4096), (4096, 4096), (4096, 1000)]
    assert linear[0][0] == 9216
    assert count(without_weights(paper), nn.Conv2d, nn.Linear) == 8


def test_biases_of_1_stand_in_the_lectures_three_convolutions_alone():
    net = timm.create_model("alexnet_paper", num_classes=2)
    assert [float(net.net[i].bias.detach().unique()) for i in (0, 4, 8, 10, 12)] == [0, 1, 0, 1, 1]
    assert [float(net.classifier[i].bias.detach().unique()) for i in (1, 4, 6)] == [0, 0, 0]
    assert [i for i, layer in enumerate(net.net) if isinstance(layer, nn.Conv2d)] == [0, 4, 8, 10, 12]
    assert isinstance(timm.create_model("alexnet_paper", num_classes=2, lrn=True).net[2], nn.LocalResponseNorm)


def test_vgg16_has_16_layers():
    vgg = without_weights(torchvision.models.vgg16)
    assert [count(vgg, kind) for kind in (nn.Conv2d, nn.MaxPool2d, nn.Linear)] == [13, 5, 3]
    assert parameters(vgg) == 138_357_544


def test_googlenet_has_22_layers_and_27_with_pooling():
    net = without_weights(torchvision.models.googlenet, init_weights=False, aux_logits=False)
    assert parameters(net) == 6_624_904
    assert parameters(without_weights(torchvision.models.googlenet, init_weights=False)) == 13_004_888
    modules = [name for name, _ in net.named_children() if name.startswith("inception")]
    assert len(modules) == 9
    outside = [m for name, m in net.named_children() if name not in modules]
    with_weights = sum(count(m, nn.Conv2d, nn.Linear) for m in outside)
    pools = sum(count(m, nn.MaxPool2d, nn.AdaptiveAvgPool2d) for m in outside)
    assert with_weights + 2 * len(modules) == 22  # an inception module is two convolutions deep
    assert with_weights + 2 * len(modules) + pools == 27
    assert count(net, nn.MaxPool2d, nn.AdaptiveAvgPool2d) == 14


def test_alphago_has_192_filters_unless_told_otherwise():
    with torch.device("meta"):
        assert timm.create_model("alphago_policy").layers[0].out_channels == 192
        assert timm.create_model("alphago_policy", k=256).layers[0].out_channels == 256


def test_resnet34_has_34_layers_and_no_dropout():
    net = without_weights(torchvision.models.resnet34)
    assert count(net, nn.Dropout) == 0
    layers = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "downsample" not in name]
    assert len(layers) == 34
    assert 21_000_000 < parameters(net) == 21_797_672


def test_torchvisions_fcn_enlarges_without_deconvolution_and_takes_any_size():
    fcn = without_weights(torchvision.models.segmentation.fcn_resnet101, weights_backbone=None)
    assert count(fcn, nn.ConvTranspose2d) == 0
    assert count(fcn, nn.MaxPool2d) == 1
    for height, width in ((224, 224), (160, 240)):
        images = torch.empty(1, 3, height, width, device="meta")
        assert fcn.backbone(images)["out"].shape == (1, 2048, height // 8, width // 8)
        assert fcn(images)["out"].shape == (1, 21, height, width)


# Lectures 003 and 004


def test_padding_same_keeps_the_size_at_stride_1_alone():
    assert shape(nn.Conv2d(3, 3, 5, padding="same", device="meta"), 3, 32, 32) == (3, 32, 32)
    with pytest.raises(ValueError, match="not supported for strided"):
        nn.Conv2d(3, 3, 5, stride=2, padding="same")


def test_flattened_features_are_numel_of_one_picture():
    maps = torch.empty(4, 16, 5, 5)
    assert maps.flatten(1).shape == (4, maps[0].numel()) == (4, 400)
    assert maps.numel() == 1600


def test_a_5x5_kernel_does_not_pass_over_a_4x4_image():
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        nn.Conv2d(1, 1, 5)(torch.zeros(1, 1, 4, 4))
    with pytest.raises(UserError, match="4x4 pixels is smaller than the kernel of 5x5"):
        convolve(np.zeros((4, 4)), np.zeros((5, 5)))


def test_two_linear_layers_without_a_relu_between_are_one():
    torch.manual_seed(0)
    first, second, features = nn.Linear(32, 24), nn.Linear(24, 10), torch.randn(5, 32)
    one = nn.Linear(32, 10)
    one.weight.data, one.bias.data = second.weight @ first.weight, second.weight @ first.bias + second.bias
    as_on_the_slide = second(first(features))
    torch.testing.assert_close(as_on_the_slide, one(features), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(second(first(features).relu()), as_on_the_slide, atol=1e-2)


def test_torch_puts_channels_before_height_and_width():
    first = nn.Sequential(nn.Conv2d(1, 32, kernel_size=3, stride=1, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    assert first(torch.zeros(5, 1, 28, 28)).shape == (5, 32, 14, 14)
    with pytest.raises(RuntimeError, match="to have 1 channels, but got 28 channels"):
        first(torch.zeros(5, 28, 28, 1))


# The page itself


def test_each_correction_names_a_test_that_exists():
    rows = [row for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| 00") or row.startswith("| the")]
    assert len(rows) >= 20
    for row in rows:
        cited = re.findall(r"`(?:(tests/[\w/]+\.py)::)?(test_\w+)`", row.rpartition(" | ")[2])
        assert cited, row
        for file, test in cited:
            path = REPOSITORY / file if file else Path(__file__)
            assert f"def {test}(" in path.read_text(encoding="utf-8"), f"{path}::{test}"


def test_each_test_of_this_file_stands_on_the_page():
    page = PAGE.read_text(encoding="utf-8")
    own = re.findall(r"^def (test_\w+)\(", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE)
    assert [test for test in own if test not in page and not test.startswith("test_each_")] == []
