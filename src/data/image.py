"""One decoder everywhere, cv2: it applies a photograph's EXIF rotation, which PIL and torchvision do not."""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from src.errors import UserError

DECODER = f"4 opencv {cv2.__version__}"  # what was kept of pictures that another one decoded is made anew
# cv2's flags beside IMREAD_COLOR_RGB, which makes them colour: those named so would ask for BGR as well.
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how such a file begins
REDUCED = {2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}


class ImageError(UserError):
    """An image can't be read. It stops the run: it is never replaced by a neighbour or by a black picture."""


@dataclass(frozen=True)
class Form:
    """What is needed of a picture: the square of `side` pixels that `resize` fits it to, or "shrunk": its shorter side."""

    side: int
    resize: str = "shrunk"

    def of(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 → (h, w, 3) uint8."""
        if self.resize != "shrunk":
            return fit(image, self.side, self.resize)
        height, width = self.shape(*image.shape[:2])
        return image if (height, width) == image.shape[:2] else resize(image, height, width)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Of a picture of this height and width in this form; one that is smaller is not grown to be shrunk."""
        if self.resize != "shrunk":
            return self.side, self.side
        scale = min(1.0, self.side / min(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def reduction(self, height: int, width: int) -> int:
        """1, 2, 4 or 8: by how much smaller a JPEG may be decoded and still be at least as large as this form."""
        decisive = (max if self.resize == "pad" else min)(height, width)
        return max(factor for factor in (1, *REDUCED) if factor == 1 or decisive // factor >= self.side)


DEPTHS = (8, 10, 12, 14, 16)  # bits that scanners and cameras have, whatever the file stores them in
LARGEST = 2**31 - 1  # bytes of a file: OpenCV counts them with 32 bits
TOO_LARGE = "CV_IO_MAX_IMAGE"  # OpenCV's words for a header that claims more than it may


def read(path: Path, form: Form | None = None) -> np.ndarray:
    """An image file as RGB uint8 (height, width, 3): grey is spread, alpha dropped, 16 bits scaled to 8, rotated by EXIF.

    form: what it will be used for. A JPEG at least twice as large is then decoded at 1/2, 1/4 or 1/8 of its size, by libjpeg
    from the low frequencies alone. Raises ImageError saying what is wrong with the file.
    """
    image = decode(path, form)
    return image if image.dtype == np.uint8 else eight_bits(image)


def decode(path: Path, form: Form | None = None) -> np.ndarray:
    """As `read`, but with the values that the file stores: uint8 or uint16."""
    encoded = _bytes(path)
    try:
        image = _in_rgb(encoded, _reduced(encoded, form))
    except cv2.error as error:
        raise ImageError(f"{path}: {_claim(path) if TOO_LARGE in error.err else error.err}") from None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        return _unsigned(path, encoded)
    return image


def _in_rgb(encoded: np.ndarray, reduced: int = 0) -> np.ndarray | None:
    """As stored, in any depth; None for what OpenCV can't decode. reduced: one of REDUCED, or 0.

    OpenCV 5.0.0 decodes a TIFF of 3 × 16 bits as BGR alone: asked for RGB, it gives what was in the memory before.
    """
    if encoded[:4].tobytes() not in TIFFS:
        return cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | reduced)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_BGR | cv2.IMREAD_ANYDEPTH)
    return None if image is None else np.ascontiguousarray(image[..., ::-1])


def eight_bits(image: np.ndarray) -> np.ndarray:
    """uint16 → uint8 of the same shape: the upper 8 of the bits that its values really use.

    A 12-bit scanner's picture in a 16-bit file would keep 16 of its 4,096 levels if the upper 8 of all 16 bits were taken. What
    was used is told by the highest value, rounded up to one of DEPTHS. To stretch each picture to its own maximum would lose
    how bright it is beside the others; rounded up, pictures of one scanner keep that, but for one whose highest value lies in
    the lowest quarter: the audit finds those (mixed_depth).
    """
    return (image >> (depth(image) - 8)).astype(np.uint8)


def depth(image: np.ndarray) -> int:
    """How many bits an image's values use, one of DEPTHS."""
    used = int(image.max()).bit_length()
    return next(bits for bits in DEPTHS if bits >= used)


def _bytes(path: Path) -> np.ndarray:
    """(n,) uint8. Only of a regular file: to open a pipe waits for ever, and a device may have no end."""
    try:
        refusal = irregular(os.stat(path))
        encoded = np.zeros(0, np.uint8) if refusal else np.fromfile(path, np.uint8)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"{str(path)!r}: {error}") from None
    if refusal or not len(encoded):
        raise ImageError(f"{path}: {refusal or 'the file is empty'}")
    return encoded


def irregular(state: os.stat_result) -> str:
    """Why a file of this state is not read at all, "" for one that is."""
    if stat.S_ISDIR(state.st_mode):
        return "Is a directory"
    if not stat.S_ISREG(state.st_mode):
        return "a pipe, socket or device, not a file"
    return f"{state.st_size / 1e9:.1f} GB, too large for a picture" if state.st_size > LARGEST else ""


def _unsigned(path: Path, encoded: np.ndarray) -> np.ndarray:
    """What OpenCV gives as no 8 or 16 bits: signed numbers without a negative one. Where black and white lie is not for us
    to guess: ImageError for all else, with the range of its values."""
    stored = None
    with suppress(cv2.error):
        stored = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise ImageError(f"{path}: not an image that OpenCV can decode ({len(encoded):,} bytes)")
    if stored.dtype in (np.int8, np.int16) and stored.min() >= 0:
        image = _in_rgb(encoded)
        return image.view(image.dtype.str.replace("i", "u"))
    raise ImageError(
        f"{path}: its values are {stored.dtype}, from {stored.min():g} to {stored.max():g}, and which of them are black and "
        f"white is not known; save it with 8 or 16 bits without a sign"
    )


def _claim(path: Path) -> str:
    """In words, what the header of a file that is too large to decode claims."""
    from PIL import Image  # here: prediction needs no Pillow, but for these words

    size, limit = "too many pixels", Image.MAX_IMAGE_PIXELS
    with suppress(Exception):  # PIL's plugins raise anything on damaged headers
        Image.MAX_IMAGE_PIXELS = None
        with Image.open(path) as header:
            size = f"{header.width:,} x {header.height:,} pixels"
    Image.MAX_IMAGE_PIXELS = limit
    most = os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS")
    return f"its header claims {size}, and {most} (OPENCV_IO_MAX_IMAGE_PIXELS), 2^20 a side, are the most; save it smaller"


def _reduced(encoded: np.ndarray, form: Form | None) -> int:
    size = None if form is None else jpeg_size(encoded.data)
    return 0 if size is None else REDUCED.get(form.reduction(*size), 0)


def jpeg_size(encoded: memoryview) -> tuple[int, int] | None:
    """Height and width by a JPEG's frame header, before EXIF turns it; None for what is none (ITU-R T.81, B.2.2)."""
    if encoded[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(encoded) and encoded[place] == 0xFF:
        marker = encoded[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(encoded[place + at : place + at + 2], "big") for at in (5, 7))
            return (height, width) if height and width else None
        filling = marker == 0xFF
        place += 1 if filling else 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
    return None


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
