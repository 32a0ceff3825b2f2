"""src/data/image.py: whatever the file holds becomes (height, width, 3) uint8 RGB, upright, or an error that names it."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from src.data.image import DEPTHS, Form, ImageError, depth, eight_bits, fit, jpeg_size, read, resize
from src.errors import UserError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
HOW = ["crop", "squash", "pad"]


def write(path: Path, image: np.ndarray, *options: int) -> Path:
    """As cv2 takes it: grey, BGR or BGRA."""
    path.write_bytes(cv2.imencode(path.suffix, image, options)[1].tobytes())
    return path


def rotated(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF block that holds this orientation and nothing else."""
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, orientation, 0)
    block = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


# Reading


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_colours_come_out_as_rgb(tmp_path, suffix):
    blue_in_bgr = np.full((16, 24, 3), BLUE[::-1], np.uint8)
    image = read(write(tmp_path / f"a{suffix}", blue_in_bgr))
    assert (image.shape, image.dtype) == ((16, 24, 3), np.uint8)
    assert np.abs(image.reshape(-1, 3).mean(axis=0) - BLUE).max() < 3


def test_grey_is_spread_over_three_channels(tmp_path):
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    assert np.array_equal(read(write(tmp_path / "a.png", grey)), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled_to_8_not_cut_off(tmp_path, channels, suffix):
    steps = np.linspace(0, 65535, 48 * channels, dtype=np.uint16).reshape(6, 8, channels)
    image = read(write(tmp_path / f"a{suffix}", steps.squeeze()))
    assert (image.shape, image.dtype) == ((6, 8, 3), np.uint8)
    in_rgb = np.broadcast_to(steps[..., ::-1], image.shape)  # `write` takes OpenCV's order
    assert np.abs(image.astype(int) - in_rgb / 257).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2", ".pgm"])
@pytest.mark.parametrize(("top", "levels"), [(200, 201), (255, 256), (1000, 251), (4095, 256), (16000, 251), (65535, 256)])
def test_fewer_bits_in_16_keep_their_levels(tmp_path, suffix, top, levels):
    steps = np.linspace(0, top, 4096).astype(np.uint16).reshape(64, 64)
    image = read(write(tmp_path / f"a{suffix}", steps))
    assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
    assert len(np.unique(image)) == levels
    assert np.array_equal(image[..., 0], steps >> (depth(steps) - 8))


@given(st.integers(0, 65535))
def test_the_highest_value_fills_at_least_a_quarter_of_the_range(top: int):
    image = np.array([[0, top]], np.uint16)
    assert depth(image) in DEPTHS
    assert top < 256 or eight_bits(image).max() >= 64


@pytest.mark.parametrize("kind", [np.int8, np.int16])
def test_signed_values_of_which_none_is_negative_are_read(tmp_path, kind):
    steps = np.linspace(0, 100, 48).astype(kind).reshape(6, 8)
    assert np.array_equal(read(write(tmp_path / "a.tif", steps))[..., 0], steps)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.float32, np.float64])
def test_values_without_a_known_black_and_white_are_refused(tmp_path, kind, channels):
    values = np.linspace(-100, 100, 48 * channels).astype(kind).reshape(6, 8, channels)
    with pytest.raises(ImageError, match=rf"a\.tif: .*{np.dtype(kind).name}, from -100 to 100.*save it"):
        read(write(tmp_path / "a.tif", values))


def test_alpha_is_dropped_and_the_colour_below_it_kept(tmp_path):
    bgra = np.full((6, 8, 4), (*GREEN, 0), np.uint8)  # wholly transparent
    assert np.array_equal(read(write(tmp_path / "a.png", bgra)), np.full((6, 8, 3), GREEN, np.uint8))


@pytest.mark.parametrize(
    "orientation, red", [(1, "top"), (3, "bottom"), (6, "right"), (8, "left")]
)  # 6: turn it 90° clockwise to see it upright
def test_a_photographs_exif_rotation_is_applied(tmp_path, orientation, red):
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16] = RED[::-1]
    path = write(tmp_path / "a.jpg", stored, cv2.IMWRITE_JPEG_QUALITY, 100)
    path.write_bytes(rotated(path.read_bytes(), orientation))
    image = read(path)
    height, width = image.shape[:2]
    assert (height, width) == ((32, 48) if orientation in (1, 3) else (48, 32))
    halves = {
        "top": image[: height // 2],
        "bottom": image[height // 2 :],
        "left": image[:, : width // 2],
        "right": image[:, width // 2 :],
    }
    assert max(halves, key=lambda half: halves[half][..., 0].mean()) == red


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "the file is empty"),
        (b"not an image", r"not an image that OpenCV can decode \(12 bytes\)"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
    ],
)
def test_an_unreadable_image_is_named_with_what_is_wrong(tmp_path, content, said):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=said) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_file_that_is_absent_or_a_folder_is_named(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        read(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="Is a directory"):
        read(tmp_path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side: int) -> bytes:
    """A PNG of 16-bit RGBA that claims a side, and has no pixels."""
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def claiming(suffix: str, side: int) -> bytes:
    """A small picture's file with another size in its header."""
    if suffix in (".pgm", ".png"):
        return b"P5\n%d %d\n255\n" % (side, side) if suffix == ".pgm" else png(side)
    data = bytearray(cv2.imencode(suffix, np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))[1])
    if suffix == ".jpg":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, side, side)
    elif suffix == ".jp2":
        for place in (data.index(b"ihdr") + 4, data.index(b"\xff\x51") + 6, data.index(b"\xff\x51") + 22):
            struct.pack_into(">II", data, place, side, side)
    else:
        struct.pack_into("<ii" if suffix == ".bmp" else "<HH", data, 18 if suffix == ".bmp" else 6, side, side)
    return bytes(data)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".jp2", ".pgm"])
@pytest.mark.parametrize("side", [17_000, 36_000])
def test_a_header_is_held_against_the_limit_before_decoding(tmp_path, suffix, side):
    (tmp_path / f"a{suffix}").write_bytes(claiming(suffix, side))
    script = f"""
import resource, sys
from pathlib import Path
from src.data.image import ImageError, read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read(Path({str(tmp_path / f"a{suffix}")!r}))
except ImageError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    grown, _, said = run.stdout.partition(" ")
    assert int(grown) * unit < 100e6
    assert f"{side:,} x {side:,} pixels" in said
    assert "268435456" in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among this system's files")
def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 2**40)
    for name, said in (("pipe", "not a file"), ("zero", "not a file"), ("loop", "symbolic links"), ("huge", "1099.5 GB")):
        with pytest.raises(ImageError, match=rf"{name}\.jpg: .*{said}"):
            read(tmp_path / f"{name}.jpg")
    with pytest.raises(ImageError, match="null"):
        read(Path("a\0b.jpg"))


def test_an_unreadable_image_is_the_users_to_mend():
    assert issubclass(ImageError, UserError)


# Fitting to the square

sides = st.integers(1, 90)


@pytest.mark.parametrize("how", HOW)
@example(height=1, width=90, size=8)
@example(height=90, width=1, size=8)
@given(sides, sides, st.integers(8, 48))
def test_any_shape_becomes_the_square(how, height, width, size):
    fitted = fit(np.full((height, width, 3), 200, np.uint8), size, how)
    assert (fitted.shape, fitted.dtype) == ((size, size, 3), np.uint8)
    assert fitted.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("size", [8, 24, 32])
def test_an_image_of_the_right_size_is_left_as_it_is(how, size):
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    assert np.array_equal(fit(image, size, how), image)


def striped() -> np.ndarray:
    """60 x 20: a red end, a green middle, a blue end."""
    return np.repeat(np.array([[RED], [GREEN], [BLUE]], np.uint8), 20, axis=0).repeat(20, axis=1)


def test_crop_keeps_the_middle():
    assert np.array_equal(fit(striped(), 20, "crop"), np.full((20, 20, 3), GREEN, np.uint8))


def test_squash_keeps_everything():
    squashed = fit(striped(), 30, "squash")
    assert [tuple(squashed[row, 15]) for row in (3, 15, 27)] == [RED, GREEN, BLUE]


@pytest.mark.parametrize("transposed", [False, True])
def test_pad_keeps_everything_and_the_aspect_between_black_bars(transposed):
    image = striped().transpose(1, 0, 2) if transposed else striped()
    padded = fit(image, 60, "pad")
    padded = padded.transpose(1, 0, 2) if transposed else padded
    assert [tuple(padded[row, 30]) for row in (5, 30, 55)] == [RED, GREEN, BLUE]
    assert not padded[:, :20].any()
    assert not padded[:, 40:].any()
    assert padded[:, 20:40].any(axis=2).all()


def test_shrinking_averages_instead_of_skipping_pixels():
    checkered = np.indices((64, 64)).sum(axis=0)[..., None].repeat(3, axis=2) % 2 * np.uint8(255)
    small = resize(checkered.astype(np.uint8), 8, 8)
    assert np.abs(small.astype(int) - 127.5).max() <= 1


# Reading what is needed alone


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8: soft shapes with some grain, as a camera's."""
    rng = np.random.default_rng(seed)
    soft = cv2.resize(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(soft + rng.normal(0, 4, soft.shape), 0, 255).astype(np.uint8)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(8, 600), st.sampled_from([*HOW, "shrunk"]))
def test_what_is_decoded_smaller_is_still_as_large_as_its_form(height: int, width: int, side: int, how: str):
    form = Form(side, how)
    reduction = form.reduction(height, width)
    decisive = max(height, width) if how == "pad" else min(height, width)
    assert reduction in (1, 2, 4, 8)
    assert reduction == 1 or decisive / reduction >= side
    assert reduction == 8 or decisive / (2 * reduction) < side + 1 / 2


@pytest.mark.parametrize("how", [*HOW, "shrunk"])
@pytest.mark.parametrize(("height", "width"), [(600, 800), (800, 640), (208, 192)])
def test_a_large_jpeg_decoded_smaller_looks_as_if_it_had_been_decoded_whole(tmp_path, how, height, width):
    path, form = write(tmp_path / "a.jpg", photograph(height, width), cv2.IMWRITE_JPEG_QUALITY, 92), Form(64, how)
    whole, smaller = read(path), read(path, form)
    reduction = form.reduction(height, width)
    assert smaller.shape == (-(-height // reduction), -(-width // reduction), 3)
    assert reduction > 1
    fitted, expected = form.of(smaller).astype(int), form.of(whole).astype(int)
    if fitted.shape == expected.shape:  # shrunk, a side may round to one pixel more
        assert np.abs(fitted - expected).mean() < 1.5


def test_a_jpeg_of_less_than_twice_the_size_is_decoded_whole_to_the_bit(tmp_path):
    path = write(tmp_path / "a.jpg", photograph(127, 140))
    assert np.array_equal(read(path, Form(64)), read(path))


def test_other_formats_are_decoded_whole(tmp_path):
    for suffix in (".png", ".webp", ".bmp", ".tif"):
        path = write(tmp_path / f"a{suffix}", photograph(300, 300))
        assert np.array_equal(read(path, Form(32)), read(path))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_what_is_decoded_smaller_too(tmp_path, orientation):
    jpeg = cv2.imencode(".jpg", photograph(300, 480))[1].tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(rotated(jpeg, orientation))
    form = Form(50, "squash")
    assert read(path, form).shape == ((75, 120, 3) if orientation < 5 else (120, 75, 3))
    assert np.abs(form.of(read(path, form)).astype(int) - form.of(read(path))).mean() < 1.5


@given(st.integers(1, 400), st.integers(1, 400), st.booleans(), st.booleans())
def test_a_jpeg_s_size_is_what_its_decoder_finds(height: int, width: int, progressive: bool, grey: bool):
    image = np.zeros((height, width) if grey else (height, width, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    assert jpeg_size(cv2.imencode(".jpg", image, options)[1].data) == (height, width)


@given(st.binary(max_size=64))
def test_a_damaged_header_has_no_size_and_ends(rest: bytes):
    found = jpeg_size(memoryview(b"\xff\xd8" + rest))
    assert found is None or (found[0] > 0 and found[1] > 0)


def test_what_is_no_jpeg_has_no_size():
    assert jpeg_size(memoryview(b"")) is None
    assert jpeg_size(memoryview(b"\x89PNG\r\n\x1a\n" + bytes(40))) is None
