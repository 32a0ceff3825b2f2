"""The layer table: the lectures' shapes and exercises, and that the formula says what torch does."""

import math
import sys
from fractions import Fraction

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from src.errors import UserError
from src.explain import shapes
from src.models.backbone import sketch

ANY = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def measured(name: str, size: int | None = None) -> shapes.Shapes:
    model = sketch(name, size)
    channels, *own = model.pretrained_cfg["input_size"]
    return shapes.measure(model, (channels, *((size, size) if size else own)))


def by_name(found: shapes.Shapes) -> dict[str, shapes.Layer]:
    return {layer.name: layer for layer in found.layers}


# The formula


def test_the_slides_division_leaves_a_remainder_that_is_dropped():
    """Lectures 000, "Width and height of feature maps", and 001, "Feature map's size": 55.25, and the shape says 55."""
    assert shapes.output_size(224, kernel=11, stride=4, padding=2) == (Fraction(221, 4), 55)
    assert float(shapes.output_size(224, 11, 4, 2)[0]) == 55.25


@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "expected"), [
    (55, 3, 2, 0, 27),  # 000, "Max pooling": the slide's formula has the padding 2, with which it would be 29
    (27, 5, 1, 2, 27),  # 000, "2nd convolution"
    (27, 3, 2, 0, 13),  # 000, "Feature map after 2nd convolution"
    (13, 3, 1, 1, 13),  # 000, "3rd convolution"
    (32, 3, 1, 0, 30),  # 003, "Calculating Image Shapes"
    (256, 3, 1, 0, 254),  # 004, Conv2d(3, 28, 3) on 256 pixels
])  # fmt: skip
def test_the_slides_sizes(size: int, kernel: int, stride: int, padding: int, expected: int):
    assert shapes.output_size(size, kernel, stride, padding) == (expected, expected)


def test_the_slides_pooling_with_padding_2_would_not_be_27():
    """Lectures 000 and 001 write (55 + 2 × 2 - 3) / 2 + 1 = 27 for a pooling whose padding is 0."""
    assert shapes.output_size(55, 3, 2, padding=2)[1] == 29


def test_a_5_by_5_kernel_on_a_4_by_4_image_is_impossible():
    """Lecture 003's question, "Can you pass a 5x5 convolution kernel on a 4x4 image?": no; torch says it too."""
    with pytest.raises(UserError, match=r"kernel of 5 pixels has no place in an image of 4 padded by 0: .*at least 5 pixels"):
        shapes.output_size(4, 5)
    with pytest.raises(RuntimeError, match=r"padded input size per channel: \(4 x 4\)\. Kernel size: \(5 x 5\)"):
        nn.Conv2d(3, 3, kernel_size=5)(torch.zeros(1, 3, 4, 4))


@ANY
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5), st.integers(0, 4), st.integers(1, 3))
def test_the_formula_says_what_a_convolution_gives(size: int, kernel: int, stride: int, padding: int, dilation: int):
    image, weight = torch.zeros(1, 1, size, 30), torch.zeros(1, 1, kernel, 1)
    run = lambda: F.conv2d(image, weight, stride=stride, padding=(padding, 0), dilation=(dilation, 1))  # noqa: E731
    try:
        exact, whole = shapes.output_size(size, kernel, stride, padding, dilation)
    except UserError:
        with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
            run()
    else:
        assert run().shape[2] == whole == math.floor(exact)


@ANY
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 12), st.data())
def test_and_what_a_pooling_gives_that_rounds_up(size: int, kernel: int, stride: int, data: st.DataObject):
    padding = data.draw(st.integers(0, kernel // 2))
    run = lambda: F.max_pool1d(torch.zeros(1, 1, size), kernel, stride, padding, ceil_mode=True)  # noqa: E731
    try:
        _, whole = shapes.output_size(size, kernel, stride, padding, ceil=True)
    except UserError:
        with pytest.raises(RuntimeError):
            run()
    else:
        assert run().shape[2] == whole


@ANY
@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 3), st.integers(1, 3))
def test_the_remedies_that_are_named_are_enough_and_not_more(size: int, kernel: int, padding: int, dilation: int):
    try:
        shapes.output_size(size, kernel, 2, padding, dilation)
    except UserError as error:
        pixels, pad = (int(words.split()[0]) for words in str(error).split("at least ")[1:])
        assert shapes.output_size(pixels, kernel, 2, padding, dilation)[1] == 1
        assert shapes.output_size(size, kernel, 2, pad, dilation)[1] >= 1
        for less in ({"size": pixels - 1, "padding": padding}, {"size": size, "padding": pad - 1}):
            with pytest.raises(UserError):
                shapes.output_size(kernel=kernel, stride=2, dilation=dilation, **less)


# Tables


def test_alexnets_table_is_the_lectures():
    """Lectures 000 and 001, from "Width and height of feature maps" to "Flatten"."""
    found = measured("alexnet")
    maps = [(layer.name, *layer.output) for layer in found.layers if len(layer.output) == 3]
    assert maps == [
        ("features.0", 64, 55, 55), ("features.2", 64, 27, 27), ("features.3", 192, 27, 27), ("features.5", 192, 13, 13),
        ("features.6", 384, 13, 13), ("features.8", 256, 13, 13), ("features.10", 256, 13, 13), ("features.12", 256, 6, 6),
        ("avgpool", 256, 6, 6),
    ]  # fmt: skip
    first = by_name(found)["features.0"]
    assert (first.kernel, first.stride, first.padding, first.dilation) == ((11, 11), (4, 4), (2, 2), (1, 1))
    assert first.formula == ((Fraction(221, 4), 55),) * 2
    assert [layer.output for layer in found.layers[-3:]] == [(4096,), (4096,), (1000,)]
    assert by_name(found)["classifier.1"].parameters == 9216 * 4096 + 4096
    assert found.parameters == sum(layer.parameters for layer in found.layers) == 61_100_840


def test_the_394_filters_are_384():
    """Lectures 000 and 001, "3rd convolution": 394 in the text, 384 in the printed shape."""
    assert by_name(measured("alexnet"))["features.6"].output[0] == 384


def test_the_second_convolution_reads_27_by_27_maps():
    """Lecture 001, "2nd convolution", feeds it conv1_out, 55×55, and prints 27×27, which takes the pooling in between."""
    conv = sketch("alexnet").features[3]
    assert conv(torch.zeros(1, 64, 27, 27, device="meta")).shape == (1, 192, 27, 27)
    assert conv(torch.zeros(1, 64, 55, 55, device="meta")).shape == (1, 192, 55, 55)


def test_features_7_to_9_are_no_pooling():
    """Lectures 000 and 001 name model.features[7:9] conv3_pooling: it is a ReLU and the next convolution."""
    relu, conv = sketch("alexnet").features[7:9]
    assert isinstance(relu, nn.ReLU)
    assert isinstance(conv, nn.Conv2d)
    assert conv(torch.zeros(1, 384, 13, 13, device="meta")).shape == (1, 256, 13, 13)


# torchvision's documentation: 0.71, 15.47, 1.81, 3.66, 1.5 billion
@pytest.mark.parametrize(("name", "macs"), [
    ("alexnet", 714_188_480), ("vgg16", 15_470_264_320), ("resnet18", 1_814_073_344), ("resnet34", 3_663_761_408),
    ("googlenet", 1_498_376_192),
])  # fmt: skip
def test_multiply_adds_are_the_published_ones_and_the_lines_add_up(name: str, macs: int):
    found = measured(name)
    assert found.macs == sum(layer.macs for layer in found.layers) == macs


def test_attention_is_in_the_total():
    """ViT-Ti/16: 1.25 billion, 12 layers of 2 × 197² × 192 of which have no line."""
    found = measured("vit_tiny_patch16_224")
    assert found.macs - sum(layer.macs for layer in found.layers) == 12 * 2 * 197**2 * 192


@pytest.mark.parametrize("name", ["googlenet", "resnet18", "vgg16", "tf_efficientnet_b0", "mnist_net", "densenet121"])
def test_the_formula_agrees_with_the_run_in_every_line(name: str):
    found = measured(name)
    assert sum(layer.formula is not None for layer in found.layers) >= 6
    for layer in found.layers:
        if layer.formula is not None:
            assert tuple(whole for _, whole in layer.formula) == layer.output[1:]


def test_what_is_padded_as_the_image_needs_has_no_formula():
    stem = by_name(measured("tf_efficientnet_b0"))["conv_stem"]
    assert (stem.kernel, stem.padding, stem.formula) == ((3, 3), None, None)
    same = nn.Sequential(nn.Conv2d(3, 4, 5, padding="same"), nn.AvgPool2d(2))
    assert [layer.output for layer in shapes.measure(same, (3, 9, 9)).layers] == [(4, 9, 9), (4, 4, 4)]


def test_a_table_is_the_same_on_the_meta_device_and_in_numbers():
    real = timm.create_model("cifar_net").eval()
    found = shapes.measure(real, (3, 32, 32))
    assert found == measured("cifar_net")
    assert [layer.name for layer in found.layers] == ["conv1", "pool", "conv2", "pool", "fc1", "fc2", "fc3"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in real.modules())


# Receptive fields


@pytest.mark.parametrize(("name", "layer", "pixels"), [
    # Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks"
    ("alexnet", "features.12", 195), ("vgg16", "features.30", 212), ("resnet50", "layer4.2.conv3", 427),
    ("resnet18", "layer4.1.conv2", 435), ("resnet34", "layer4.2.conv2", 899),
])  # fmt: skip
def test_receptive_fields_are_the_published_ones(name: str, layer: str, pixels: int):
    assert by_name(measured(name))[layer].receptive_field == pixels


@ANY
@given(st.lists(st.tuples(st.sampled_from(["conv", "pool"]), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2)),
                min_size=1, max_size=3))  # fmt: skip
def test_a_receptive_field_is_where_the_gradient_goes(kinds: list[tuple]):
    made = [nn.Conv2d(1, 1, k, s, dilation=d) if kind == "conv" else nn.AvgPool2d(k, s) for kind, k, s, d in kinds]
    model = nn.Sequential(*made)
    for layer in made:
        for parameter in layer.parameters():
            nn.init.ones_(parameter)
    image = torch.zeros(1, 1, 90, 90, requires_grad=True)
    maps = model(image)
    maps[0, 0, 0, 0].backward()
    rows = image.grad[0, 0].abs().sum(dim=1).nonzero()
    reached = int(rows.max() - rows.min()) + 1
    parameter = nn.Conv2d(1, 1, 1)  # AvgPool2d alone has none to tell the device
    found = shapes.measure(nn.Sequential(parameter, model), (1, 90, 90))
    assert found.layers[-1].receptive_field == reached


def test_a_transformer_is_made_for_the_size_asked_for():
    assert by_name(measured("vit_tiny_patch16_224", 96))["patch_embed.proj"].output == (192, 6, 6)


def test_where_branches_meet_the_larger_field_counts():
    layers = by_name(measured("googlenet"))
    inputs = layers["inception3a.branch1.conv"].receptive_field
    assert layers["inception3a.branch2.1.conv"].receptive_field == inputs + 2 * 8
    assert layers["inception3b.branch1.conv"].receptive_field == inputs + 2 * 8


def test_a_linear_layer_over_whole_maps_and_attention_see_all():
    assert [layer.receptive_field for layer in measured("alexnet").layers[-3:]] == [math.inf] * 3
    vit = by_name(measured("vit_tiny_patch16_224"))
    assert vit["patch_embed.proj"].receptive_field == vit["blocks.0.attn.qkv"].receptive_field == 16
    assert vit["blocks.0.mlp.fc1"].receptive_field == math.inf
    convnext = by_name(measured("convnext_atto"))
    assert math.inf > convnext["stages.3.blocks.1.conv_dw"].receptive_field > 224


# Depth


# The number in the name, and lecture 002's "AlexNet Architecture" (8) and "Google-Net Architecture" (22)
@pytest.mark.parametrize(("name", "depth"), [
    ("alexnet", 8), ("alexnet_paper", 8), ("vgg16", 16), ("vgg19", 19), ("googlenet", 22), ("resnet18", 18),
    ("plain34", 34), ("resnet34", 34), ("resnet50", 50), ("resnet101", 101), ("densenet121", 121),
])  # fmt: skip
def test_depth_is_the_one_that_the_papers_count(name: str, depth: int):
    assert measured(name).depth == depth


def test_a_shortcut_is_not_added_to_the_way_beside_it():
    layers = by_name(measured("resnet18"))
    assert layers["layer2.0.conv2"].depth == layers["layer2.0.conv1"].depth + 1 == 7
    assert layers["layer2.0.downsample.0"].depth == 6
    assert layers["layer2.1.conv1"].depth == 8


def test_a_pooling_adds_no_depth():
    layers = by_name(measured("alexnet"))
    assert [layers[f"features.{i}"].depth for i in (0, 2, 3, 5, 6)] == [1, 1, 2, 2, 3]


def test_a_model_sees_what_its_last_maps_do():
    assert [measured(name).receptive_field for name in ("alexnet", "vgg16", "resnet34")] == [195, 212, 899]
    assert measured("lenet5").receptive_field == 16  # s4: c5, which sees all 32, leaves one place
    assert shapes.measure(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), (3, 4, 4)).receptive_field == 1


# The command


def test_the_table_is_text_a_row_a_layer():
    rows = shapes.table(measured("alexnet")).set_index("layer")
    assert rows.loc["features.0"].tolist() == [
        "Conv2d", "11", "4", "2", "1", "55.25 → 55", "64×55×55", "23,296", "70,276,800", "11"
    ]  # fmt: skip
    assert len(rows) == 12


def run(monkeypatch: pytest.MonkeyPatch, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", ["shapes", *argv])
    shapes.main()


def test_the_command_prints_a_line_a_layer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    run(monkeypatch, "alexnet", "--size", "224")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["features.0", "Conv2d", "11", "4", "2", "1", "55.25", "→", "55", "64×55×55", "23,296", "70,276,800", "11"] in lines
    assert ["classifier.6", "Linear", "–", "–", "–", "–", "–", "1000", "4,097,000", "4,096,000", "all"] in lines
    assert ["total", "61,100,840", "714,188,480"] in lines


def test_without_a_size_it_takes_the_models_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    run(monkeypatch, "lenet5")
    out = capsys.readouterr().out
    assert "an image of 1×32×32" in out
    assert "16×10×10" in out


def test_parameters_that_have_no_line_are_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    run(monkeypatch, "resnet18", "--size", "64")
    assert "9,600 parameters have no line" in capsys.readouterr().out  # BatchNorm's


@pytest.mark.parametrize(("argv", "said"), [
    (("alexnett",), r"model: 'alexnett' is not a model .* did you mean alexnet"),
    (("alexnet", "--size", "20"), r"^features\.5: a kernel of 3 pixels has no place in an image of 1 padded by 0: "),
    (("cifar_net", "--size", "64"), r"^fc1: an image of 3×64×64 does not fit here"),
    (("alexnet", "--size", "-1"), r"^the input: an image of 3×-1×-1 does not fit here"),
])  # fmt: skip
def test_what_does_not_fit_is_said_in_one_line(argv: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=said) as told:
        run(monkeypatch, *argv)
    assert "\n" not in str(told.value)
