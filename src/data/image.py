"""One decoder everywhere, cv2: it applies a photograph's EXIF rotation, which PIL and torchvision do not."""

import os
from pathlib import Path

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**30))

import cv2
import numpy as np

from src.errors import UserError


class ImageError(UserError):
    """An image can't be read. It stops the run: it is never replaced by a neighbour or by a black picture."""


def read(path: Path) -> np.ndarray:
    """An image file as RGB uint8 (height, width, 3): grey is spread, alpha dropped, 16 bits scaled to 8, rotated by EXIF.

    Raises ImageError saying what is wrong with the file.
    """
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from None
    if not len(encoded):
        raise ImageError(f"{path}: the file is empty")
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ImageError(f"{path}: {error.err}") from None
    if image is None:
        raise ImageError(f"{path}: not an image that OpenCV can decode ({len(encoded):,} bytes)")
    return image


def fit(image: np.ndarray, size: int, how: str) -> np.ndarray:
    """The image on a square of `size` pixels: "crop" its middle, "squash" it, or "pad" it with black; uint8 RGB."""
    height, width = image.shape[:2]
    if how == "squash":
        return resize(image, size, size)
    scale = size / (min if how == "crop" else max)(height, width)
    image = resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
    height, width = image.shape[:2]
    if how == "crop":
        top, left = (height - size) // 2, (width - size) // 2
        return np.ascontiguousarray(image[top : top + size, left : left + size])
    top, left = (size - height) // 2, (size - width) // 2
    return cv2.copyMakeBorder(image, top, size - height - top, left, size - width - left, cv2.BORDER_CONSTANT)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area averaging when shrinking, which does not alias; bilinear when growing."""
    shrinking = height * width < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
