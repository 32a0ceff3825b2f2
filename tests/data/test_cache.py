"""src/data/cache.py: the pictures are those that decoding gives, built once, and anew where anything about them changed."""

import errno
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import write_image
from src.data import augmentation, cache
from src.data.cache import Cache, Form, open_cache
from src.data.image import fit, read
from src.data.loader import Images
from src.errors import UserError

SQUARE = Form(20, "crop")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Seven pictures of different sizes, PNG and JPEG."""
    for i in range(7):
        write_image(tmp_path / f"{i}.{'png' if i % 2 else 'jpg'}", i, height=24 + 9 * i, width=32 + 5 * i)
    return tmp_path


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("*.*") if path.is_file() and not path.name.startswith("."))


def opened(root: Path, form: Form = SQUARE, paths: list[str] | None = None) -> tuple[Cache, list[str]]:
    said: list[str] = []
    return open_cache(root, paths or names(root), form, root / ".cache", 2, said.append), said


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("how", ["crop", "squash", "pad"])
def test_fitted_pictures_are_to_the_bit_what_decoding_and_fitting_gives(root: Path, how: str):
    form = Form(20, how)
    kept, said = opened(root, form)
    assert said == [f"cache: 7 pictures, 0.0 GB, in {root}/.cache/20-{how}: built once"]
    for name in names(root):
        assert np.array_equal(kept.read(name), form.of(read(root / name, form)))


def test_shrunk_pictures_keep_their_shape_and_small_ones_every_pixel(root: Path):
    kept, _ = opened(root, Form(40))
    for name in names(root):
        whole, stored = read(root / name), kept.read(name)
        if min(whole.shape[:2]) <= 40:
            assert np.array_equal(stored, whole)
        else:
            assert min(stored.shape[:2]) == 40
            assert stored.shape[0] / stored.shape[1] == pytest.approx(whole.shape[0] / whole.shape[1], rel=0.03)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(8, 600))
def test_the_shape_said_beforehand_never_grows_and_reaches_the_side(height: int, width: int, side: int):
    shape = Form(side).shape(height, width)
    assert shape == (height, width) if min(height, width) <= side else min(shape) == side
    assert all(0 < kept <= was for kept, was in zip(shape, (height, width), strict=True))


def test_what_was_built_is_used_again_and_a_part_of_it_too(root: Path):
    opened(root)
    before = (root / ".cache/20-crop/pixels.bin").stat().st_mtime_ns
    assert opened(root)[1] == []
    assert opened(root, paths=names(root)[2:5])[1] == []
    assert (root / ".cache/20-crop/pixels.bin").stat().st_mtime_ns == before


def test_a_replaced_picture_builds_it_anew(root: Path):
    opened(root)
    write_image(root / "3.png", 99, height=50, width=50)
    kept, said = opened(root)
    assert said[0].endswith(": 1 pictures have changed since the one there was built")
    assert np.array_equal(kept.read("3.png"), fit(read(root / "3.png"), 20, "crop"))


def test_other_times_change_nothing_and_other_bytes_of_the_same_size_build_it_anew(root: Path):
    opened(root)
    before = (root / ".cache/20-crop/pixels.bin").stat().st_mtime_ns
    for name in names(root):
        os.utime(root / name, (1, 1))  # as after a copy, or in another of Kaggle's sessions
    assert opened(root)[1] == []
    assert (root / ".cache/20-crop/pixels.bin").stat().st_mtime_ns == before
    data = bytearray((root / "3.png").read_bytes())
    data[-1] ^= 1  # the same size
    (root / "3.png").write_bytes(data)
    os.utime(root / "3.png", (1, 1))  # and the same time
    assert opened(root)[1][0].endswith(": 1 pictures have changed since the one there was built")


def test_further_pictures_build_it_anew(root: Path):
    opened(root, paths=names(root)[:5])
    assert opened(root)[1][0].endswith(": 2 of these pictures are not in the one there")


def test_another_version_or_a_damaged_one_is_built_anew(root: Path, monkeypatch: pytest.MonkeyPatch):
    opened(root)
    pixels, index = root / ".cache/20-crop/pixels.bin", root / ".cache/20-crop/index.npz"
    with open(pixels, "ab") as file:
        file.write(b"more")
    assert opened(root)[1][0].endswith(": the one there is damaged")
    index.write_bytes(index.read_bytes()[:100])
    assert ": the one there can't be read (" in opened(root)[1][0]
    monkeypatch.setattr(cache, "VERSION", "3 opencv 9")
    assert opened(root)[1][0].endswith(": the one there is another version's")


def test_a_build_that_was_cut_short_is_no_cache(root: Path, monkeypatch: pytest.MonkeyPatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    whole = cache._keep
    monkeypatch.setattr(cache, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        opened(root)
    monkeypatch.setattr(cache, "_keep", whole)
    kept, said = opened(root)
    assert said[0].endswith(": built once")
    assert np.array_equal(kept.read("0.jpg"), fit(read(root / "0.jpg"), 20, "crop"))


def test_too_little_room_is_said_before_anything_is_built(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, int(1e8)))
    with pytest.raises(UserError, match=r"data\.cache: the pictures take 0\.0 GB in \S+20-crop, and 0\.1 GB are free there"):
        opened(root)
    assert not list((root / ".cache/20-crop").iterdir())


@pytest.mark.parametrize("writes", [(os, "pwrite"), (np, "savez")], ids=["pixels", "index"])
def test_a_disk_that_fills_up_meanwhile_leaves_nothing_behind(writes: tuple, root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(*writes, full)
    with pytest.raises(UserError, match=r"and the disk is full; make room, or --data\.cache false"):
        opened(root)
    assert not (root / ".cache/20-crop").exists()


def test_a_picture_that_cannot_be_read_is_left_to_the_loader(root: Path):
    (root / "broken.jpg").write_bytes(b"no picture")
    kept, _ = opened(root)
    assert kept.read("broken.jpg") is None
    images = Images(root, ["a", "b"], ["broken.jpg", "0.jpg"], SQUARE, kept)
    assert "broken.jpg: not an image that OpenCV can decode" in images[0, 0][1]
    assert np.array_equal(images[0, 1][1], fit(read(root / "0.jpg"), 20, "crop"))


def test_a_photograph_on_its_side_is_kept_upright(root: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(cv2.resize(read(root / "6.jpg"), (90, 60))).save(root / "turned.jpg", exif=exif)
    kept, _ = opened(root, Form(48))
    assert kept.read("turned.jpg").shape == (72, 48, 3)


def test_a_worker_is_sent_the_index_and_not_the_pixels(root: Path):
    kept, _ = opened(root, Form(200, "squash"))
    kept.read("0.jpg")
    sent = pickle.dumps(kept)
    assert len(sent) < 2000 < (root / ".cache/200-squash/pixels.bin").stat().st_size
    assert np.array_equal(pickle.loads(sent).read("0.jpg"), kept.read("0.jpg"))


def _open(root: Path) -> list[str]:
    return opened(root)[1]


def test_two_processes_that_start_together_build_it_once(root: Path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        said = pool.map(_open, [root, root])
    assert sorted(map(len, said)) == [0, 1]


@pytest.mark.parametrize("recipe", ["none", "light", "medium", "strong"])
@pytest.mark.parametrize("how", ["crop", "squash"])
def test_with_the_cache_a_recipe_draws_the_same_and_fitted_ones_give_the_same_bits(root: Path, recipe: str, how: str):
    draw = augmentation.Augmentation(recipe, 16, how, ("hflip",), 0)
    kept, _ = opened(root, draw.form)
    ids = names(root)
    plain, cached = (Images(root, ids, ids, draw, each) for each in (None, kept))
    for row in range(len(ids)):
        one, other = plain[3, row][1].astype(int), cached[3, row][1].astype(int)
        if recipe in ("none", "light"):
            assert np.array_equal(one, other)
        else:
            assert np.abs(one - other).mean() < 12, "the same crop, from a picture shrunk beforehand"
