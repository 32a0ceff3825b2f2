"""Segmentation without pretrained weights: colours, from picture to overlay, and a file's weights in the real network."""

import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torchvision.models.segmentation import fcn_resnet101

from conftest import REPOSITORY
from src.data import image
from src.errors import UserError
from src.explain import segmentation
from src.explain.segmentation import (
    CLASSES,
    COLOURS,
    as_convolution,
    create,
    decode,
    drawn,
    overlay,
    segment,
    shares,
    transposed_side,
)

CAT, DOG = CLASSES.index("cat"), CLASSES.index("dog")


class ByColour(nn.Module):
    """A stand-in for the network, a 1x1 convolution: red is a cat, blue a dog, all else background."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen = images
        logits = torch.zeros(1, 21, *images.shape[2:])
        logits[:, CAT], logits[:, DOG] = images[:, 0] - images[:, 2] - 1, images[:, 2] - images[:, 0] - 1
        return {"out": logits}


def with_a_cat_and_a_dog(height: int = 60, width: int = 90) -> np.ndarray:
    picture = np.full((height, width, 3), 128, dtype=np.uint8)
    picture[: height // 2, : width // 3] = (255, 0, 0)
    picture[height // 2 :, width // 3 :] = (0, 0, 255)
    return picture


def test_the_colours_are_pascal_vocs():
    """Its development kit counts colours up by the bits of the class: bit 0 is red 128, bit 1 green 128, bit 2 blue 128, …"""
    bits = (np.arange(21)[:, None] >> np.arange(6)) & 1
    assert np.array_equal(COLOURS, 128 * bits[:, :3] + 64 * bits[:, 3:])


def test_the_classes_are_numbered_as_the_lecture_has_them():
    """Lecture 002, "Define the helper function": 0=background, 6=bus, 7=car, 8=cat, 9=chair, 10=cow, 12=dog, 15=person."""
    assert len(CLASSES) == 21
    assert [CLASSES[index] for index in (0, 6, 7, 8, 9, 10)] == ["background", "bus", "car", "cat", "chair", "cow"]
    assert [CLASSES[index] for index in (12, 13, 15, 20)] == ["dog", "horse", "person", "tvmonitor"]


def test_decoding_gives_each_pixel_its_classs_colour():
    colours = decode(np.array([[0, 8, 12], [15, 20, 1]]))
    assert colours.dtype == np.uint8
    assert colours.tolist() == [[[0, 0, 0], [64, 0, 0], [64, 0, 128]], [[192, 128, 128], [0, 64, 128], [128, 0, 0]]]


@pytest.mark.parametrize("wrong", [np.array([[0, 21]]), np.array([[-1, 0]]), np.array([[255]], np.uint8), np.zeros((2, 2))])
def test_what_is_no_class_has_no_colour(wrong: np.ndarray):
    with pytest.raises(UserError, match="whole numbers from 0 to 20; set VOC's borders, 255, to 0 first"):
        decode(wrong)


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (800, 1200), (6, 3), (2, 300)])
def test_the_map_has_the_pictures_size_and_the_classes_their_places(height: int, width: int):
    picture, model = with_a_cat_and_a_dog(height, width), ByColour()
    classes = segment(model, picture)
    assert classes.dtype == np.uint8
    assert classes.shape == (height, width)
    assert max(model.seen.shape[2:]) == 520
    expected = np.where(picture[..., 0] > picture[..., 2], CAT, np.where(picture[..., 2] > picture[..., 0], DOG, 0))
    assert (classes == expected).mean() > (0.97 if min(height, width) > 50 else 0.7)  # edges are blurred by enlarging
    assert classes[0, 0] == CAT
    assert classes[-1, -1] == DOG


def test_the_network_is_fed_as_it_was_trained():
    """Lecture 002, "Apply the transformations needed"; fed wrongly, it would see another picture's brightness."""
    model = ByColour()
    segment(model, np.broadcast_to(np.array([255, 0, 51], np.uint8), (10, 10, 3)))
    fed = torch.tensor([(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225])
    torch.testing.assert_close(model.seen[0].mean(dim=(1, 2)), fed, rtol=1e-4, atol=1e-4)


def test_grey_pictures_and_those_with_alpha_are_segmented_too():
    picture = with_a_cat_and_a_dog()
    alpha = np.dstack([picture, np.full(picture.shape[:2], 7, np.uint8)])
    assert np.array_equal(segment(ByColour(), alpha), segment(ByColour(), picture))
    assert segment(ByColour(), picture[..., 0]).tolist() == np.zeros((60, 90)).tolist()
    for wrong in (np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3)), np.zeros(5, np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(UserError, match="a picture is"):
            segment(ByColour(), wrong)


def test_shares_are_of_all_pixels_and_the_largest_comes_first():
    assert shares(np.array([[0, 0, 0, 0], [12, 12, 12, 8]])) == {"background": 0.5, "dog": 0.375, "cat": 0.125}
    assert shares(np.full((3, 3), 15)) == {"person": 1.0}


def test_the_overlay_colours_the_objects_and_leaves_the_background():
    picture, classes = np.full((2, 2, 3), 100, dtype=np.uint8), np.array([[0, 12], [0, 0]])
    seen = overlay(picture, classes)
    assert seen.dtype == np.uint8
    assert (seen[classes == 0] == 100).all()
    assert seen[0, 1].tolist() == [round(40 + 0.6 * 64), 40, round(40 + 0.6 * 128)]


def test_the_legend_names_the_classes_found_in_their_colours():
    classes = np.array([[0, 0], [12, 8]])
    legend = drawn(np.zeros((2, 2, 3), np.uint8), classes).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["background 50.0%", "cat 25.0%", "dog 25.0%"]
    colours = [to_rgb(patch.get_facecolor()) for patch in legend.get_patches()]
    np.testing.assert_allclose(colours, COLOURS[[0, 8, 12]] / 255)


# The network itself


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """What a file of fcn_resnet101's weights holds, all zeros but a last bias that finds dogs everywhere."""
    with torch.device("meta"):
        made = fcn_resnet101(weights=None, weights_backbone=None, aux_loss=True)
    zeros = {name: torch.zeros((), dtype=each.dtype).expand(each.shape) for name, each in made.state_dict().items()}
    return zeros | {"classifier.4.bias": F.one_hot(torch.tensor(DOG), 21).float()}


def small(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """torch.save keeps an expanded zero as one number; safetensors needs them all, so in one byte each."""
    return {name: each.to(torch.float8_e5m2).contiguous() for name, each in state.items()}


def test_torchvisions_fcn_takes_the_weights_of_a_file_without_its_auxiliary_classifier(state: dict, tmp_path: Path):
    torch.save(state, tmp_path / "fcn.pth")
    model = create(str(tmp_path / "fcn.pth"))
    assert not model.training
    assert not any(each.is_meta for each in [*model.parameters(), *model.buffers()])
    assert (segment(model, with_a_cat_and_a_dog()[::2, ::9]) == DOG).all()


def test_a_safetensors_file_does_too(state: dict, tmp_path: Path):
    save_file(small(state), tmp_path / "fcn.safetensors")
    model = create(str(tmp_path / "fcn.safetensors"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.classifier[4].bias.argmax() == DOG


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda state: {name: each for name, each in state.items() if "layer3.9" not in name},
            "another architecture .*Missing",
        ),
        (lambda state: state | {"classifier.5.weight": torch.zeros(1)}, "another architecture .*Unexpected"),
        (lambda state: state | {"classifier.4.bias": torch.zeros(2)}, "another architecture .*size mismatch"),
        (lambda state: {"model": state}, "another architecture"),
        (lambda state: {"classifier.4.bias": "none"}, "another architecture"),
        (lambda state: [1.0], "holds a list, not weights by their names"),
    ],
)
def test_another_networks_weights_are_refused(state: dict, change, told: str, tmp_path: Path):
    torch.save(change(state), tmp_path / "other.pth")
    with pytest.raises(UserError, match=told) as error:
        create(str(tmp_path / "other.pth"))
    assert "other.pth" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.jpg"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", None])
def test_files_that_are_no_weights_are_told_in_one_line(name: str, content: bytes | None, tmp_path: Path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="no such file" if content is None else "is damaged, or not a file of weights") as error:
        create(str(tmp_path / name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [URLError("Name or service not known"), RuntimeError("invalid hash value")])
def test_an_unreachable_hub_is_told_with_the_remedy(wrong: Exception, monkeypatch: pytest.MonkeyPatch, capsys):
    def fail(*given: object, **more: object) -> None:
        print("Downloading to a folder")
        raise wrong

    monkeypatch.setattr(type(segmentation.PRETRAINED), "get_state_dict", fail)
    with pytest.raises(UserError, match=r"can't be fetched .*download https://download\.pytorch\.org/.*\(--weights FILE\)"):
        create()
    assert capsys.readouterr() == ("", "")


# The command


def test_the_command_writes_a_picture_with_a_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    asked = []
    monkeypatch.setattr(segmentation, "create", lambda weights: asked.append(weights) or ByColour())
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("cat.1.png", with_a_cat_and_a_dog()[..., ::-1])
    monkeypatch.setattr(sys, "argv", ["segmentation", "cat.1.png", "--weights", "fcn.pth"])
    segmentation.main()
    found, written = capsys.readouterr().out.splitlines()
    classes = shares(segment(ByColour(), with_a_cat_and_a_dog()))
    assert found == ", ".join(f"{name} {share:.1%}" for name, share in classes.items())
    assert written == "cat.1-segmentation.png"
    assert image.read(tmp_path / written).shape == (360, 950, 3)
    monkeypatch.setattr(sys, "argv", ["segmentation", "cat.1.png", "--out", "new/map.png"])
    segmentation.main()
    assert (tmp_path / "new/map.png").read_bytes() == (tmp_path / written).read_bytes()
    assert asked == ["fcn.pth", "hub"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "command line: the following arguments are required: picture"),
        (("absent.jpg",), r"absent\.jpg: No such file or directory"),  # not the absent weights: the picture is read first
        (("README.md", "--weights", "absent.pth"), r"README\.md: not an image that OpenCV can decode"),
    ],
)
def test_what_is_wrong_is_told(arguments: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", ["segmentation", *arguments])
    with pytest.raises(UserError, match=told):
        segmentation.main()


def test_the_command_ends_with_one_line_and_status_1():
    done = subprocess.run(
        [sys.executable, "-m", "src.explain.segmentation", "docs/demo.svg", "--weights", "absent.pth"],
        cwd=REPOSITORY, text=True, capture_output=True, timeout=240,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: docs/demo.svg: not an image")


# Fully convolutional


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_as_a_convolution_gives_the_same_on_every_window(bias: bool):
    torch.manual_seed(0)
    linear, maps = nn.Linear(4 * 3 * 3, 5, bias=bias), torch.rand(2, 4, 6, 7)
    slid = as_convolution(linear, 3)(maps)
    assert slid.shape == (2, 5, 4, 5)
    for row, column in ((0, 0), (3, 4), (1, 2)):
        window = maps[:, :, row : row + 3, column : column + 3]
        torch.testing.assert_close(slid[:, :, row, column], linear(window.flatten(1)))


def test_under_average_pooling_the_maps_mean_is_the_classifiers_logit(square_net: nn.Module, squares):
    images = squares(torch.tensor([[4, 4], [20, 8]]), torch.tensor([0, 1]))
    maps = as_convolution(square_net.fc)(square_net.forward_features(images))
    torch.testing.assert_close(maps.mean(dim=(2, 3)), square_net(images))
    assert [int(each[index].argmax()) // 8 for each, index in zip(maps, (0, 1), strict=True)] in (
        [1, 5],
        [1, 6],
        [2, 5],
        [2, 6],
    )


def test_a_side_that_the_layer_can_not_have_is_refused():
    with pytest.raises(UserError, match="400 inputs are no maps of 6x6"):
        as_convolution(nn.Linear(400, 10), 6)


@pytest.mark.parametrize("side", [1, 4, 7])
@pytest.mark.parametrize(
    "how",
    [
        {"kernel_size": 2, "stride": 2}, {"kernel_size": 4, "stride": 2, "padding": 1}, {"kernel_size": 3, "stride": 1},
        {"kernel_size": 64, "stride": 32, "padding": 16}, {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
        {"kernel_size": 3, "stride": 3, "dilation": 2},
    ],
)  # fmt: skip
def test_the_side_after_a_transposed_convolution(side: int, how: dict[str, int]):
    with torch.no_grad():
        run = nn.ConvTranspose2d(1, 1, **how)(torch.zeros(1, 1, side, side)).shape[-1]
    assert (
        transposed_side(side, how["kernel_size"], **{name: value for name, value in how.items() if name != "kernel_size"})
        == run
    )
