"""The slides' convolutions, number by number, and the kernels on pictures."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from conftest import SHARED, write_image
from src.data import image
from src.errors import UserError
from src.explain import slides
from src.explain.convolution import KERNELS, apply, convolve, pool, weights

SPOT = np.pad([[1]], 3)  # one bright pixel: a kernel gives itself back, turned round


# The slides' numbers


def test_filter_1_on_the_6x6_picture_at_stride_1():
    """Lectures 000, "Filter + Convolution to extract features", and 001, "Filter searches a particular pattern in …"."""
    assert np.array_equal(convolve(slides.PICTURE_6X6, slides.FILTER_1), slides.MAP_1)


def test_filter_1_on_the_6x6_picture_at_stride_2():
    """Lecture 001, "Stride determines how filter shifts": 3 and -3 are the first row."""
    assert convolve(slides.PICTURE_6X6, slides.FILTER_1, stride=2).tolist() == [[3, -3], [-3, 0]]


def test_filter_2_on_the_6x6_picture_finds_the_column_at_its_end():
    """Lectures 000 and 001, "Feature maps": the same is done for every filter."""
    assert convolve(slides.PICTURE_6X6, slides.FILTER_2).tolist() == [
        [-1, -1, -1, -1], [-1, -1, -2, 1], [-1, -1, -2, 1], [-1, 0, -4, 3]
    ]  # fmt: skip
    assert convolve(slides.PICTURE_6X6, slides.FILTER_2, stride=2).tolist() == [[-1, -1], [-1, -2]]


def test_i_convolved_with_k():
    """Lecture 001, "Filter searches a particular pattern in different regions": I * K."""
    assert np.array_equal(convolve(slides.I, slides.K), slides.I_K)


def test_the_5x5_picture_gives_4_3_4_2_4_3_2_3_4():
    """Lectures 001 and 004, "The Convolution Operation"."""
    assert np.array_equal(convolve(slides.PICTURE_5X5, slides.K), slides.MAP_5X5)


def test_the_7x7x3_volume_with_w0_and_w1():
    """Lecture 004, "CNNs for Classification": rows 0 to 2 of each channel, which the slide's text kept, give the first row."""
    for kernel, bias, output in zip((slides.W0, slides.W1), (slides.B0, slides.B1), slides.OUTPUT_VOLUME, strict=True):
        assert np.array_equal(convolve(slides.VOLUME, kernel, stride=2) + bias, output)
        assert np.array_equal(convolve(slides.VOLUME[:, :3], kernel, stride=2)[0] + bias, output[0])
    assert slides.OUTPUT_VOLUME[:, 0].tolist() == [[2, 3, 3], [-8, -8, -3]]


def test_the_parts_of_an_x_are_found_where_they_are():
    """Lecture 004, "Filters to Detect X Features": 9 of 9 pixels agree, on both arms and at the crossing."""
    found = {name: np.argwhere(convolve(slides.X, kernel) == 9).tolist() for name, kernel in slides.X_FILTERS.items()}
    assert found == {
        "falling": [[1, 1], [2, 2], [4, 4], [5, 5]],
        "crossing": [[3, 3]],
        "rising": [[1, 5], [2, 4], [4, 2], [5, 1]],
    }


def test_a_deformed_x_still_has_its_parts():
    """The same slide: the crossing is whole, 8 of 9 pixels of each arm agree, while the pictures differ in 16 of 81."""
    assert (slides.X != slides.DEFORMED_X).sum() == 16
    best = {name: int(convolve(slides.DEFORMED_X, kernel).max()) for name, kernel in slides.X_FILTERS.items()}
    assert best == {"falling": 7, "crossing": 9, "rising": 7}


def test_max_pooling_of_the_two_feature_maps():
    """Lectures 000 and 001, "Max pooling": 2x2 windows of the maps of filters 1 and 2."""
    assert pool(slides.MAP_1).tolist() == [[3, 0], [3, 1]]
    assert pool(convolve(slides.PICTURE_6X6, slides.FILTER_2)).tolist() == [[-1, 1], [0, 3]]


def test_average_pooling_and_global_average_pooling():
    """Lecture 004, "Average pooling" (kernel 2, stride 2) and "Global Average Pooling": the window is the whole map."""
    assert pool(slides.MAP_1, how="mean").tolist() == [[0, -1.75], [-1.25, -0.5]]
    assert pool(slides.MAP_1, 4, how="mean").tolist() == [[slides.MAP_1.sum() / 16]] == [[-0.875]]


def test_convolving_needs_fewer_weights():
    """Lectures 000 and 001, "Why convolution helps?": the 6x6 picture under a 3x3 filter."""
    counted = weights(6, 3)
    assert (counted.dense, counted.local, counted.shared) == (576, 144, 9)
    assert nn.Linear(36, 16, bias=False).weight.numel() == counted.dense
    assert nn.Conv2d(1, 1, 3, bias=False).weight.numel() == counted.shared
    with pytest.raises(UserError, match=r"4x4 pixels is smaller than the kernel of 5x5"):
        weights(4, 5)


@pytest.mark.parametrize(
    ("layer", "size", "output", "weight"),
    [
        (nn.Conv2d(3, 28, 3, stride=1, padding=0), (3, 256, 256), (28, 254, 254), (28, 3, 3, 3)),
        (nn.Conv2d(2, 28, 3, stride=1), (2, 50, 50), (28, 48, 48), (28, 2, 3, 3)),
        (nn.Conv2d(3, 33, 3, stride=2), (3, 50, 100), (33, 24, 49), (33, 3, 3, 3)),
        (nn.Conv2d(3, 33, (3, 4), stride=(3, 1), padding=(4, 2)), (3, 50, 100), (33, 19, 101), (33, 3, 3, 4)),
        (nn.Conv2d(3, 33, (3, 5), stride=(3, 1), padding=(4, 2), dilation=(3, 1)), (3, 50, 100), (33, 18, 100), (33, 3, 3, 5)),
    ],
)  # fmt: skip
def test_lecture_004s_conv2d_cases(layer: nn.Conv2d, size: tuple, output: tuple, weight: tuple):
    """The notebook's cells after "CNNs for Classification", then "PyTorch Conv2D" and "Other Examples of Conv2D"; the last
    three are written there without an input, so 50x100 pixels, as in torch's own documentation."""
    assert layer.to("meta")(torch.empty((20, *size), device="meta")).shape == (20, *output)
    assert layer.weight.shape == weight
    assert layer.bias.shape == weight[:1]


# Convolving


@given(
    st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_it_is_what_torch_computes(channels: int, height: int, width: int, k: int, stride: int, padding: int, seed: int):
    rng = np.random.default_rng(seed)
    picture, kernel = rng.normal(size=(channels, height, width)), rng.normal(size=(channels, k, k))
    if min(height, width) + 2 * padding < k:
        with pytest.raises(UserError, match="smaller than the kernel"):
            convolve(picture, kernel, stride, padding)
        return
    theirs = F.conv2d(torch.tensor(picture)[None], torch.tensor(kernel)[None], stride=stride, padding=padding)[0, 0]
    np.testing.assert_allclose(convolve(picture, kernel, stride, padding), theirs.numpy(), atol=1e-12)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_pooling_is_what_torch_computes(height: int, width: int, size: int, stride: int, seed: int):
    picture = np.random.default_rng(seed).normal(size=(height, width))
    for how, torchs in (("max", F.max_pool2d), ("mean", F.avg_pool2d)):
        if min(height, width) < size:
            with pytest.raises(UserError, match="smaller than the window"):
                pool(picture, size, stride, how)
        else:
            theirs = torchs(torch.tensor(picture)[None], size, stride)[0].numpy()
            np.testing.assert_allclose(pool(picture, size, stride, how), theirs, atol=1e-12)


def test_the_kernel_is_slid_and_not_turned_round():
    """Lecture 003, "Kernel": a cross-correlation."""
    kernel = np.arange(9).reshape(3, 3)
    assert np.array_equal(convolve(SPOT, kernel)[1:4, 1:4], kernel[::-1, ::-1])


def test_what_does_not_fit_is_told():
    with pytest.raises(UserError, match=r"a picture of 4x4 pixels is smaller than the kernel of 5x5: enlarge or pad it"):
        convolve(np.ones((4, 4)), np.ones((5, 5)))
    with pytest.raises(UserError, match=r"\(2, 3, 3\) can't go over an image of shape \(3, 6, 6\): channels differ"):
        convolve(np.ones((3, 6, 6)), np.ones((2, 3, 3)))
    with pytest.raises(UserError, match=r"by max or mean, not 'median'"):
        pool(np.ones((4, 4)), how="median")


# The named kernels


def test_every_kernel_of_the_slides_is_there_with_its_numbers():
    """Lectures 003, "Convolutional Neural Networks: Kernel", and 004, "Feature Extraction with Convolution"."""
    gaussian = [[1, 4, 6, 4, 1], [4, 16, 24, 16, 4], [6, 24, 36, 24, 6], [4, 16, 24, 16, 4], [1, 4, 6, 4, 1]]
    unsharp = [[1, 4, 6, 4, 1], [4, 16, 24, 16, 4], [6, 24, -476, 24, 6], [4, 16, 24, 16, 4], [1, 4, 6, 4, 1]]
    on_the_slides = {
        "identity": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
        "corner": [[1, 0, -1], [0, 0, 0], [-1, 0, 1]],
        "laplacian": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
        "ridge": [[0, -1, 0], [-1, 4, -1], [0, -1, 0]],
        "edge": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
        "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
        "box_blur": np.divide([[1, 1, 1], [1, 1, 1], [1, 1, 1]], 9),
        "gaussian_3": np.divide([[1, 2, 1], [2, 4, 2], [1, 2, 1]], 16),
        "gaussian_5": np.divide(gaussian, 256),
        "unsharp_mask": np.divide(unsharp, -256),
    }
    assert KERNELS.keys() == on_the_slides.keys()
    for name, numbers in on_the_slides.items():
        np.testing.assert_allclose(KERNELS[name], numbers, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", KERNELS)
def test_on_an_even_surface_blurring_and_sharpening_change_nothing_and_edges_are_black(name: str):
    even = np.full((8, 9, 3), 100, np.uint8)
    expected = {0: 0, 1: 100}[round(KERNELS[name].sum())]
    assert np.array_equal(apply(even, name), np.full_like(even, expected))


def test_a_straight_edge_shows_but_to_the_corner_kernel_which_sees_corners_alone():
    step = np.zeros((9, 9), np.uint8)
    step[:, 5:] = 20
    assert apply(step, "edge").max() == apply(step, "ridge").max() * 3 == 60
    assert apply(step, "corner").max() == 0
    step[:5] = 0
    assert np.argwhere(apply(step, "corner")).tolist() == [[4, 4], [4, 5], [5, 4], [5, 5]]


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """A real one where the competition's files are at hand, or else smooth noise."""
    real = sorted(SHARED.rglob("*.jpg"))[:1] if SHARED.is_dir() else []
    if not real:
        write_image(tmp_path_factory.mktemp("pictures") / "smooth.png", 0, 60, 80)
    return image.read(real[0] if real else next(tmp_path_factory.getbasetemp().rglob("smooth.png")))


def roughness(picture: np.ndarray) -> float:
    return float(np.abs(np.diff(picture.astype(float), axis=1)).mean())


def test_on_a_picture_blurring_smooths_and_sharpening_roughens(photograph: np.ndarray):
    rough = {name: roughness(apply(photograph, name)) for name in KERNELS}
    assert np.array_equal(apply(photograph, "identity"), photograph)
    assert rough["gaussian_5"] < rough["gaussian_3"] < rough["identity"] < rough["unsharp_mask"] < rough["sharpen"]
    assert rough["box_blur"] < rough["gaussian_3"]


def test_a_picture_is_filtered_as_convolve_does_it_channel_by_channel(photograph: np.ndarray):
    inner = np.stack([convolve(photograph[..., c], KERNELS["sharpen"]) for c in range(3)], axis=2)
    assert np.array_equal(apply(photograph, "sharpen")[1:-1, 1:-1], inner.clip(0, 255))


def test_grey_pictures_stay_grey_and_alpha_is_left_alone():
    rng = np.random.default_rng(0)
    grey, alpha = rng.integers(0, 256, (2, 8, 9), dtype=np.uint8)
    once = apply(grey, "box_blur")
    assert once.shape == (8, 9)
    blurred = apply(np.stack([grey, grey, grey, alpha], axis=2), "box_blur")
    assert all(np.array_equal(blurred[..., c], once) for c in range(3))
    assert np.array_equal(blurred[..., 3], alpha)


@pytest.mark.parametrize(
    ("picture", "name", "told"),
    [
        (np.zeros((8, 8), np.uint8), "blur", r"no kernel is called 'blur'; there are identity, corner, .*, unsharp_mask"),
        (np.zeros((4, 9, 3), np.uint8), "gaussian_5", r"4x9 pixels is smaller than the kernel of 5x5"),
        (np.zeros((8, 8)), "edge", r"not \(8, 8\) float64"),
        (np.zeros((8, 8, 2), np.uint8), "edge", r"not \(8, 8, 2\) uint8"),
        (np.zeros(8, np.uint8), "edge", r"not \(8,\) uint8"),
    ],
)
def test_what_is_no_picture_is_told_in_one_line(picture: np.ndarray, name: str, told: str):
    with pytest.raises(UserError, match=told):
        apply(picture, name)
