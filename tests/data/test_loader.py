"""src/data/loader.py: every row once, the same batches for any number of workers, and an unreadable image stops it."""

import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import write_image
from src.data.augmentation import Augmentation
from src.data.image import Form, ImageError, fit, read
from src.data.loader import Images, OrderedBatches, Share, ShuffledBatches, choose_workers, make_loader, read_batches

ROWS, SIZE = 13, 24
SQUARE = Form(SIZE, "crop")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for i in range(ROWS):
        write_image(folder / f"{i}.png", i, height=20 + i, width=30)
    return folder


def images(root: Path, draw: Augmentation | Form = SQUARE, kind: type[Images] = Images) -> Images:
    return kind(root, [f"cat.{i}" for i in range(ROWS)], [f"{i}.png" for i in range(ROWS)], draw)


def epochs(root: Path, workers: int, recipe: str, count: int = 2) -> list[tuple[list[int], bytes]]:
    """The batches of some epochs, through one loader."""
    batches = ShuffledBatches(ROWS, 4, seed=0)
    loader = make_loader(images(root, Augmentation(recipe, SIZE, "crop", ("hflip",), 0)), batches, workers, pin=False)
    seen = []
    for batches.epoch in range(count):
        seen += [(rows.tolist(), pixels.numpy().tobytes()) for rows, pixels in read_batches(loader)]
    return seen


@pytest.fixture(scope="module")
def without_workers(root):
    return epochs(root, 0, "strong")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores are what is asked for here
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_batches(root, without_workers, workers):
    assert epochs(root, workers, "strong") == without_workers


class Noted(Images):
    """Leaves a file for each image that was read."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, np.ndarray | str]:
        (self.notes / f"{key[0]} {key[1]}").touch()
        return super().__getitem__(key)


def test_workers_that_have_begun_read_before_they_are_asked_and_give_the_same_batches(root, tmp_path, without_workers):
    batches = ShuffledBatches(ROWS, 4, seed=0)
    noted = images(root, Augmentation("strong", SIZE, "crop", ("hflip",), 0), Noted)
    noted.notes = tmp_path
    loader, seen = make_loader(noted, batches, 1, pin=False), []
    assert loader.ahead >= len(batches)
    for batches.epoch in range(2):
        loader.begin()
        loader.begin()  # again: nothing more
        until = time.monotonic() + 60
        while len(list(tmp_path.glob(f"{batches.epoch} *"))) < 12 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(list(tmp_path.glob(f"{batches.epoch} *"))) == 12
        seen += [(rows.tolist(), pixels.numpy().tobytes()) for rows, pixels in read_batches(loader)]
    assert seen == without_workers


def test_persistent_workers_draw_anew_in_every_epoch(root):
    pixels = {}
    batches = ShuffledBatches(ROWS, ROWS, seed=0)
    loader = make_loader(images(root, Augmentation("medium", SIZE, "crop", (), 0)), batches, 1, pin=False)
    for batches.epoch in range(3):
        rows, batch = next(iter(read_batches(loader)))
        pixels |= {(batches.epoch, int(row)): image.numpy().tobytes() for row, image in zip(rows, batch, strict=True)}
    assert len(pixels) == len(set(pixels.values())) == 3 * ROWS


def test_batches_are_bytes_of_the_images_with_their_rows(root):
    loader = make_loader(images(root), OrderedBatches(ROWS, 5), 0, pin=False)
    seen = list(read_batches(loader))
    assert [rows.tolist() for rows, _ in seen] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12]]
    assert all(pixels.dtype == torch.uint8 and pixels.shape[1:] == (SIZE, SIZE, 3) for _, pixels in seen)
    for rows, pixels in seen:
        for row, image in zip(rows, pixels, strict=True):
            assert np.array_equal(image.numpy(), fit(read(root / f"{row}.png"), SIZE, "crop"))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content, said", [(b"", "the file is empty"), (b"no image", "not an image"), (None, "No such file")])
def test_an_image_that_cannot_be_read_stops_with_its_path_row_and_id(tmp_path, workers, content, said):
    for i in range(6):
        write_image(tmp_path / f"{i}.png", i)
    (tmp_path / "4.png").unlink()
    if content is not None:
        (tmp_path / "4.png").write_bytes(content)
    given = Images(tmp_path, [f"cat.{i}" for i in range(6)], [f"{i}.png" for i in range(6)], SQUARE)
    rows, message = read_until_it_stops(given, workers)
    assert rows == [0, 1, 2, 3]
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}/4\.png: {said}.*; id 'cat\.4'", message)


def read_until_it_stops(given: Images, workers: int) -> tuple[list[int], str]:
    """The rows read before the error, and its message: a kept traceback would keep the workers for seconds."""
    rows: list[int] = []
    try:
        for batch, _ in read_batches(make_loader(given, OrderedBatches(len(given), 2), workers, pin=False)):
            rows += batch.tolist()
    except ImageError as error:
        return rows, str(error)
    return rows, "no error"


def test_a_bug_is_not_taken_for_an_unreadable_image(root):
    broken = images(root)
    broken.draw = "neither a recipe nor a form"
    with pytest.raises(TypeError):
        list(read_batches(make_loader(broken, OrderedBatches(ROWS, 2), 0, pin=False)))


# The order of rows

counts = st.integers(1, 40)


@given(counts, counts)
def test_ordered_batches_hold_every_row_once_in_order(rows, batch_size):
    batches = list(OrderedBatches(rows, batch_size))
    assert [key for batch in batches for key in batch] == [(0, row) for row in range(rows)]
    assert len(batches) == len(OrderedBatches(rows, batch_size))
    assert max(map(len, batches)) <= batch_size


@given(counts, counts, st.integers(0, 3), st.integers(0, 5))
def test_shuffled_batches_are_full_and_hold_no_row_twice(rows, batch_size, seed, epoch):
    sampler = ShuffledBatches(rows, batch_size, seed)
    sampler.epoch = epoch
    batches = list(sampler)
    assert len(batches) == len(sampler) >= 1
    assert {len(batch) for batch in batches} == {min(batch_size, rows)}
    drawn = [row for batch in batches for _, row in batch]
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(range(rows))
    assert len(drawn) > rows - batch_size, "at most a part of a batch waits for another epoch"
    assert {at for batch in batches for at, _ in batch} == {epoch}


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {}
    for seed in (0, 1):
        sampler = ShuffledBatches(40, 8, seed)
        for sampler.epoch in (0, 1, 2):
            orders[seed, sampler.epoch] = list(sampler)
            assert list(sampler) == orders[seed, sampler.epoch]
    rows = {tuple(row for batch in order for _, row in batch) for order in orders.values()}
    assert len(rows) == 6


@given(st.integers(2, 40), st.integers(1, 10), st.data())
def test_a_resumed_epoch_goes_on_where_it_stopped(rows, batch_size, data):
    sampler = ShuffledBatches(rows, batch_size, 0)
    whole = list(sampler)
    sampler.first = data.draw(st.integers(0, len(whole)))
    assert list(sampler) == whole[sampler.first :]
    assert len(sampler) == len(whole) - sampler.first


@given(st.integers(2, 40), st.integers(1, 20).map(lambda half: 2 * half))
def test_even_batches_stay_even_where_rows_are_few(rows, batch_size):
    assert {len(batch) % 2 for batch in ShuffledBatches(rows, batch_size, 0, even=True)} == {0}


def test_an_epoch_can_be_cut_after_some_steps():
    assert len(list(ShuffledBatches(40, 4, 0, steps=3))) == 3
    assert len(list(ShuffledBatches(40, 4, 0, steps=99))) == 10


# Workers


@pytest.mark.parametrize("workers", [0, 1, 7])
def test_a_configured_number_of_workers_is_taken(workers):
    assert choose_workers(workers, torch.device("cpu")) == workers


@pytest.mark.parametrize("cores, beside_cpu, beside_gpu", [(1, 0, 1), (2, 1, 2), (4, 2, 4), (64, 16, 16)])
def test_workers_are_chosen_from_the_cores_at_hand(monkeypatch, cores, beside_cpu, beside_gpu):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert choose_workers(None, torch.device("cpu")) == beside_cpu
    assert choose_workers(None, torch.device("cuda")) == beside_gpu


def test_opencv_starts_no_threads_of_its_own_beside_the_workers(root):
    cv2.setNumThreads(2)
    make_loader(images(root), OrderedBatches(ROWS, 5), 0, pin=False)
    assert cv2.getNumThreads() == 1


# Balanced sampling


@given(st.integers(2, 200), st.integers(0, 5), st.data())
def test_a_row_is_drawn_as_often_as_its_weight_says(rows: int, epoch: int, data):
    weights = np.array(data.draw(st.lists(st.floats(0.1, 10), min_size=rows, max_size=rows)))
    batches = ShuffledBatches(rows, 1, seed=1, weights=weights)
    batches.epoch = epoch
    drawn = np.bincount([row for [(_, row)] in batches], minlength=rows)
    expected = weights / weights.sum() * rows
    assert drawn.sum() == rows
    assert (drawn >= np.floor(expected - 1e-6)).all()
    assert (drawn <= np.ceil(expected + 1e-6)).all()


def test_even_weights_draw_every_row_once_in_another_order_each_epoch():
    batches = ShuffledBatches(50, 1, seed=1, weights=np.ones(50))
    orders = []
    for batches.epoch in (0, 1):
        orders.append([row for [(_, row)] in batches])
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] != orders[1]


def test_several_processes_validate_each_row_once():
    for count in (1, 2, 3, 5):
        parts = [[row for batch in OrderedBatches(11, 4, Share(n, count)) for _, row in batch] for n in range(count)]
        assert sorted(row for part in parts for row in part) == list(range(11))
        assert [len(OrderedBatches(11, 4, Share(n, count))) for n in range(count)] == [-(-len(part) // 4) for part in parts]
