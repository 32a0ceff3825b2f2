"""Convolution by hand: the lectures' named kernels on real pictures, pooling, and why sharing weights needs so few of them.

What the slides and torch call convolution is cross-correlation: the kernel is slid, not turned round (lecture 003, "Kernel").
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from src.errors import UserError

_BINOMIAL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])  # sums to 256
_ONLY_CENTRE = np.pad([[1]], 2)

# Lectures 003 ("Convolutional Neural Networks: Kernel") and 004 ("Feature Extraction with Convolution")
KERNELS: dict[str, np.ndarray] = {
    "identity": np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    "corner": np.array([[1, 0, -1], [0, 0, 0], [-1, 0, 1]]),  # 004's first "edge detection": straight edges give 0
    "laplacian": np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),  # 004's second
    "ridge": np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]]),  # 003's: the laplacian with its sign turned
    "edge": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]),  # all three lectures': diagonals count too
    "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    "box_blur": np.ones((3, 3)) / 9,
    "gaussian_3": np.outer([1, 2, 1], [1, 2, 1]) / 16,
    "gaussian_5": _BINOMIAL / 256,
    "unsharp_mask": (512 * _ONLY_CENTRE - _BINOMIAL) / 256,  # the picture plus what the Gaussian 5x5 took away from it
}


def apply(picture: np.ndarray, name: str) -> np.ndarray:
    """A picture under the kernel of this name, its own size and type: (H, W), (H, W, 3) or (H, W, 4) uint8, alpha left alone.

    The border is mirrored, values are rounded and cut to 0 … 255, each channel by itself. Raises UserError for an unknown
    name, for what is no picture, and for a picture smaller than the kernel.
    """
    if name not in KERNELS:
        raise UserError(f"no kernel is called {name!r}; there are {', '.join(KERNELS)}")
    if picture.dtype != np.uint8 or picture.ndim < 2 or picture.shape[2:] not in ((), (3,), (4,)):
        raise UserError(f"a picture is (H, W), (H, W, 3) or (H, W, 4) uint8, not {picture.shape} {picture.dtype}")
    kernel = KERNELS[name].astype(np.float64)
    _check_fits(picture.shape[:2], kernel.shape)
    coloured = picture[..., :3] if picture.ndim == 3 else picture
    filtered = cv2.filter2D(np.ascontiguousarray(coloured), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return np.concatenate([filtered, picture[..., 3:]], axis=2) if picture.ndim == 3 else filtered


def convolve(image: np.ndarray, kernel: np.ndarray, stride: int = 1, padding: int = 0) -> np.ndarray:
    """(h, w): the kernel laid on every place of the image, multiplied element by element, summed. Types as numpy's.

    image: (H, W) or (channels, H, W); kernel: (k, l) or (channels, k, l), the channels are summed; padding: zeros on each
    side; h = floor((H + 2 padding - k) / stride) + 1. Raises UserError where channels differ or the kernel doesn't fit.
    """
    if image.ndim != kernel.ndim or image.shape[:-2] != kernel.shape[:-2]:
        raise UserError(f"a kernel of shape {kernel.shape} can't go over an image of shape {image.shape}: channels differ")
    image, kernel = (array.reshape(-1, *array.shape[-2:]) for array in (image, kernel))
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    _check_fits(padded.shape[1:], kernel.shape[1:])
    windows = sliding_window_view(padded, kernel.shape)[0, ::stride, ::stride]  # (h, w, channels, k, l)
    return (windows * kernel).sum(axis=(2, 3, 4))


def pool(image: np.ndarray, size: int = 2, stride: int | None = None, how: str = "max") -> np.ndarray:
    """(h, w): "max" or "mean" of each window of an image (H, W); stride: the size of the window where None.

    Rows and columns that fill no whole window are left out, as torch's pooling does. Raises UserError for another word, or
    a window that doesn't fit.
    """
    if how not in ("max", "mean"):
        raise UserError(f"pooling is by max or mean, not {how!r}")
    _check_fits(image.shape, (size, size), "window")
    step = stride or size
    return getattr(np, how)(sliding_window_view(image, (size, size))[::step, ::step], axis=(2, 3))


@dataclass(frozen=True)
class Weights:
    """How many weights map a picture to its feature map, biases left out."""

    dense: int  # every pixel to every output
    local: int  # each output sees its own window, through its own weights
    shared: int  # all outputs use the same: a convolution


def weights(size: int, kernel: int) -> Weights:
    """A picture of size x size under a kernel x kernel filter at stride 1: 576, 144 and 9 for the slides' 6 and 3.

    Lectures 000 ("Why convolution helps?") and 001 draw the three. Raises UserError where the kernel doesn't fit.
    """
    _check_fits((size, size), (kernel, kernel))
    outputs, window = (size - kernel + 1) ** 2, kernel**2
    return Weights(size**2 * outputs, window * outputs, window)


def _check_fits(image: tuple[int, ...], kernel: tuple[int, ...], what: str = "kernel") -> None:
    """Lecture 003's question: can a 5x5 kernel pass over a 4x4 image? No."""
    if any(side < least for side, least in zip(image, kernel, strict=True)):
        (height, width), (k, l) = image, kernel
        raise UserError(f"a picture of {height}x{width} pixels is smaller than the {what} of {k}x{l}: enlarge or pad it")
