"""What can be known of an image file: size, digest, the decoder's verdict, hash, thumbnail. Measured once, then cached.

A measurement is a record of plain numbers, so that 120,000 of them are one array of 70 MB, and so that a changed threshold
needs no new pass over the images: what counts as tiny or as a near duplicate is decided in audit.py and duplicates.py.
"""

import hashlib
import io
import os
import re
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import imagehash
import numpy as np
from PIL import Image

from src import PIXELS
from src.data import image as decoder

OK, EMPTY, FOREIGN, UNREADABLE = "ok", "empty", "not_an_image", "unreadable"
TRUNCATED, GREY_TAIL, DAMAGED = "truncated", "grey_tail", "damaged"
THUMB = 16  # pixels; side of the grey thumbnail that confirms what the hash suspects
FLAT = 2.0  # grey levels of standard deviation in every channel; JPEG's noise on one colour stays below 1, photographs above 18
GREY, TOLERANCE = 128, 3  # libjpeg's filling for data that never came, and what re-encoding such a picture adds to it

FACTS = np.dtype([
    ("size", np.int64), ("mtime", np.int64),  # bytes and ns since 1970; -1 where the file could not be opened
    ("digest", np.uint64, 2),  # BLAKE2b of the bytes, 128 bits
    ("verdict", "S12"), ("detail", "S160"),  # UTF-8
    ("format", "S8"), ("cmyk", np.bool_), ("animated", np.bool_), ("orientation", np.uint8),
    ("depth", np.uint8), ("levels", np.uint16),  # of a file with 16 bits: those in use, and what is left in 8; 0 for others
    ("alpha_only", np.bool_),  # one colour, under an alpha channel that varies
    ("height", np.int32), ("width", np.int32),  # pixels, after EXIF rotation; 0 where it can't be decoded
    ("spread", np.float32),  # standard deviation of the most varied channel, grey levels
    ("grey_rows", np.int32),  # rows at the bottom that are nothing but mid-grey
    ("hash", np.uint64),  # ImageHash's phash, 64 bits
    ("thumb", np.uint8, (THUMB, THUMB)),
])  # fmt: skip

# What libjpeg says on stderr, and nowhere else, of a file that it decodes none the less. It notices few wrong bytes: of 300
# JPEGs with one byte changed 47. "extraneous bytes before marker 0xd9" is not among these: in front of the end marker they
# are filling, as in many of Microsoft's cats, and harm nothing.
_CUT = re.compile(r"Corrupt JPEG data: premature end of data segment")
_HURT = re.compile(
    r"Corrupt JPEG data: (bad Huffman code|.*extraneous bytes before marker 0xd[0-7]|found marker .* instead of RST.)"
)
_JPEG, _PNG, _JP2 = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\0\0\0\x0cjP  "
# Whatever else PIL opens stays closed: it would hand an EPS under an image's name to Ghostscript, which is a program in it.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG2000", "PPM", "ICO")
_SIGNATURES = (_JPEG, _PNG, _JP2, b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


def examine(root: Path, paths: list[str], sizes: np.ndarray, mtimes: np.ndarray) -> np.ndarray:
    """FACTS of files below root, one record a path. Never raises for what a file holds: that is its verdict."""
    cv2.setNumThreads(0)  # the audit's parallelism is processes; OpenCV's own threads would only fight with them
    Image.MAX_IMAGE_PIXELS = None  # or PIL would refuse to read a header; `load` has the limit
    facts = np.zeros(len(paths), FACTS)
    for fact, path, size, mtime in zip(facts, paths, sizes, mtimes, strict=True):
        fact["size"], fact["mtime"], fact["verdict"] = size, mtime, OK
        _examine(root / path, fact)
    return facts


def text(field: bytes) -> str:
    """A text field of FACTS as str; a character cut in two by the field's width is dropped."""
    return field.decode(errors="ignore")


def _examine(path: Path, fact: np.void) -> None:
    try:
        refusal = decoder.irregular(path.stat())
        data = b"" if refusal else path.read_bytes()
    except OSError as error:
        fact["size"] = -1  # not cached: the next pass asks again, as permissions change without the file's time
        _judge(fact, UNREADABLE, error.strerror or str(error))
        return
    if refusal:
        _judge(fact, UNREADABLE, refusal)
        return
    fact["digest"] = np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), np.uint64)
    if not data:
        _judge(fact, EMPTY, "0 bytes")
        return
    known = _read_header(data, fact)
    try:
        with overheard() as words:
            stored = decoder.decode(path)  # as training does: what it refuses is refused here
    except decoder.ImageError as error:
        _judge(fact, *_why(data, known, str(error).removeprefix(f"{path}: ")))
        return
    _measure(stored, fact)
    fact["alpha_only"] = fact["spread"] < FLAT and _alpha_varies(data)
    if _CUT.search(words()) or fact["grey_rows"]:
        rows = f"; the last {fact['grey_rows']} of {fact['height']} rows are grey" if fact["grey_rows"] else ""
        _judge(fact, GREY_TAIL, ("its data end early" if _CUT.search(words()) else "decodes without complaint") + rows)
    elif hurt := _HURT.search(words()):
        _judge(fact, DAMAGED, f"libjpeg: {hurt[1]}")


def _judge(fact: np.void, verdict: str, detail: str) -> None:
    fact["verdict"], fact["detail"] = verdict, " ".join(detail.split()).encode()[: FACTS["detail"].itemsize]


def _read_header(data: bytes, fact: np.void) -> bool:
    """Format, colour model, frames and orientation, as PIL reads them without decoding. Whether PIL knows the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = Image.open(io.BytesIO(data), formats=FORMATS)
            fact["format"] = header.format.encode()
            fact["cmyk"] = header.mode == "CMYK"
            # A phone's MPO holds a second view of one photograph, which no decoder here ever shows: not an animation.
            fact["animated"] = header.format != "MPO" and getattr(header, "is_animated", False)
            orientation = header.getexif().get(0x0112, 1)
            fact["orientation"] = orientation if orientation in range(2, 9) else 1
        except Exception:  # PIL's plugins raise anything from struct.error to ZeroDivisionError on damaged headers
            pass
    return bool(fact["format"])


def _measure(picture: np.ndarray, fact: np.void) -> None:
    """What the pixels tell; picture: RGB (height, width, 3), uint8 or uint16."""
    if picture.dtype == np.uint16:
        fact["depth"], picture = decoder.depth(picture), decoder.eight_bits(picture)
        fact["levels"] = np.count_nonzero(np.bincount(picture.ravel(), minlength=256))
    fact["height"], fact["width"] = picture.shape[:2]
    fact["spread"] = cv2.meanStdDev(picture)[1].max()
    fact["grey_rows"] = _grey_rows(picture)
    # Shrunk by area first: PIL's Lanczos filter inside phash would take longer than decoding, and finds its 32 × 32 done.
    small = decoder.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 32, 32)
    bits = np.packbits(imagehash.phash(Image.fromarray(small)).hash)
    fact["hash"] = bits.view(np.uint64)[0]
    fact["thumb"] = cv2.resize(small, (THUMB, THUMB), interpolation=cv2.INTER_AREA)


def _alpha_varies(data: bytes) -> bool:
    """Whether a file has an alpha channel with a picture in it. Asked only of those that are one colour without it."""
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.ndim != 3 or stored.shape[2] != 4:
        return False
    return float(cv2.meanStdDev(stored[..., 3])[1].max()) >= FLAT


def _grey_rows(picture: np.ndarray) -> int:
    """Rows at the bottom that hold nothing but mid-grey; 0 where the top does too, as that is a frame or an empty picture.

    A decoder fills what is missing of a JPEG with (128, 128, 128), and a tool that saves it makes a sound file of it. Of
    28,126 real pictures (Dogs vs. Cats, CIFAR-10, Shopee) exactly one, train/cat.6329.jpg, ends in even one such row
    within ±8: it has 8, and was cut. Fewer than 4 are not reported: a lost row of blocks is 8 or 16 high, half as large
    after shrinking to a half.
    """

    def grey(row: int) -> bool:
        return int(picture[row].min()) >= GREY - TOLERANCE and int(picture[row].max()) <= GREY + TOLERANCE

    height = len(picture)
    if not grey(height - 1) or grey(0):
        return 0
    rows = next(n for n in range(1, height) if not grey(height - 1 - n))
    return rows if rows >= 4 else 0


def _why(data: bytes, known: bool, refusal: str) -> tuple[str, str]:
    """(verdict, detail) of a file that OpenCV refuses. `refusal`: its words, used where PIL has no better ones."""
    if not known and not data.startswith(_SIGNATURES):
        start = "zeros" if not any(data[:4096]) else repr(data[:16])[1:]
        return FOREIGN, f"{len(data):,} bytes, beginning with {start}"
    reason = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load(data, draft=True)
        except Exception as error:  # see _read_header
            reason = str(error).partition("<_io")[0].strip() or type(error).__name__
    if "truncated" in reason.lower() or _lacks_its_end(data):
        return TRUNCATED, f"{len(data):,} bytes, and the end is missing"
    return UNREADABLE, reason or refusal


def load(data: bytes, draft: bool = False) -> Image.Image:
    """What PIL makes of a file that OpenCV refuses; raises anything. Its limit is OpenCV's: the two may read different sizes.

    draft: of a JPEG an eighth of its size: all of its data is read, little is computed.
    """
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    if picture.width * picture.height > PIXELS:
        raise ValueError(f"{picture.width:,} x {picture.height:,} pixels are too many")
    if draft:
        picture.draft("L", (1, 1))
    picture.load()
    return picture


def _lacks_its_end(data: bytes) -> bool:
    """Does the file stop before the place where its format says it ends?"""
    try:
        if data.startswith(_JPEG):
            return b"\xff\xd9" not in data
        if data.startswith(_PNG):
            return b"IEND" not in data
        if data.startswith(b"GIF8"):
            return not data.rstrip(b"\0").endswith(b";")
        if data.startswith(_JP2):
            return not data.endswith(b"\xff\xd9")
        if data.startswith(b"RIFF"):
            return struct.unpack_from("<I", data, 4)[0] + 8 > len(data)
        if data.startswith(b"BM"):
            return struct.unpack_from("<I", data, 2)[0] > len(data)
        if data.startswith((b"II*\0", b"MM\0*")):
            return struct.unpack_from("<I" if data[:1] == b"I" else ">I", data, 4)[0] >= len(data)
    except struct.error:  # shorter than its own header
        return True
    return False


@contextmanager
def overheard() -> Iterator[Callable[[], str]]:
    """What C libraries write to file descriptor 2 inside the block, kept off the terminal and told by the yielded function.

    libjpeg reports damage there and nowhere else, and OpenCV returns the picture as if nothing had happened. Costs 40 µs.
    """
    heard: list[bytes] = []
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: b"".join(heard).decode(errors="replace")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            if file.seek(0, os.SEEK_END):
                file.seek(0)
                heard.append(file.read())
