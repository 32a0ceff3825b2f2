"""The search for the largest batch that fits, what is read from it, and what a measured step does."""

import contextlib
import itertools
import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.config import TrainConfig
from src.errors import UserError
from src.training import batch_range
from src.training.batch_range import Trial, fast_enough, find_batch, first_size, scaled_lr, search, summary
from synthetic import Memory, start

THOROUGH = settings(max_examples=300, deadline=None, derandomize=True, database=None)
SIZES = st.integers(1, 5000)


def searched(room: int, first: int, limit: int) -> tuple[list[int], list[int]]:
    """The sizes found and those tried on a GPU with room for so many images."""
    tried: list[int] = []

    def speed(size: int) -> float | None:
        tried.append(size)
        return float(size) if size <= room else None

    return [trial.size for trial in search(speed, first, limit)], tried


# The search


@THOROUGH
@given(room=st.integers(2, 5000), first=st.integers(2, 600), limit=st.integers(2, 5000))
def test_the_search_ends_at_the_largest_doubling_that_fits_or_half_as_much_again(room: int, first: int, limit: int):
    found, tried = searched(room, first, limit)
    most = min(room, limit)
    doublings = [size for size in found if size == found[0] * 2 ** round(math.log2(size / found[0]))]
    assert doublings == [found[0] * 2**k for k in range(len(doublings))]
    assert doublings[-1] <= most < 2 * doublings[-1] + 2  # + 2: what is odd is rounded down
    between = doublings[-1] * 3 // 2 // 2 * 2
    assert found == doublings + ([between] if doublings[-1] < between <= most else [])
    assert all(size % 2 == 0 and 2 <= size <= limit for size in tried)
    assert len(tried) == len(set(tried))


@THOROUGH
@given(power=st.integers(1, 6), up=st.integers(0, 6), room=st.integers(2, 5000))
def test_from_a_power_of_two_the_largest_power_of_two_that_fits_is_among_those_found(power: int, up: int, room: int):
    found, _ = searched(room, 2**power, 2 ** (power + up))
    assert min(2 ** int(math.log2(room)), 2 ** (power + up)) in found


def test_a_first_size_that_is_too_large_is_halved_until_it_fits():
    found, tried = searched(room=10, first=64, limit=1000)
    assert found == [8]
    assert tried == [64, 32, 16, 8, 12]


@pytest.mark.parametrize(("room", "limit", "found"), [(100, 1000, [8, 16, 32, 64, 96]), (90, 1000, [8, 16, 32, 64])])
def test_half_as_much_again_is_tried_last(room: int, limit: int, found: list[int]):
    assert searched(room, 8, limit)[0] == found


def test_no_batch_is_larger_than_the_fold():
    assert searched(room=10**6, first=8, limit=45)[0] == [8, 16, 32]
    assert searched(room=10**6, first=64, limit=51)[0] == [50]


def test_where_not_even_two_images_fit_it_is_the_users_to_mend():
    for room, limit in ((1, 100), (100, 1)):
        with pytest.raises(UserError, match=r"not even two images fit .* model\.image_size"):
            searched(room, 16, limit)


@pytest.mark.parametrize(("configured", "first"), [(64, 8), (32, 4), (24, 6), (10, 10), (2, 2), (33, 4), (1, 0), (100, 50)])
def test_the_first_size_doubles_to_the_configured_one(configured: int, first: int):
    assert first_size(configured) == first
    if configured % 2 == 0:
        assert math.log2(configured / first).is_integer()


# Its reading


def trials(*speeds: float) -> list[Trial]:
    return [Trial(8 * 2**number, speed) for number, speed in enumerate(speeds)]


@pytest.mark.parametrize(
    ("speeds", "size"),
    [((100, 190, 350, 360, 362), 32), ((100, 90, 80), 8), ((100, 104, 108, 109), 16), ((100,), 8), ((100, 101, 200), 32)],
)
def test_from_the_fast_enough_size_on_nothing_is_5_percent_faster(speeds: tuple[float, ...], size: int):
    assert fast_enough(trials(*speeds)).size == size


def test_the_rate_is_scaled_in_proportion_for_sgd_and_by_the_root_for_adam():
    def scaled(optimizer: str) -> tuple[float, str]:
        return scaled_lr(TrainConfig(optimizer=optimizer, lr=1e-3, batch_size=32), 128)

    for optimizer in ("sgd", "momentum", "nesterovw", "sgdp", "lars", "nlarc"):
        assert scaled(optimizer) == (pytest.approx(4e-3), "linear")
    for optimizer in ("adamw", "lamb", "lion", "nadam", "radam", "rmsprop", "adafactor", "laprop"):
        assert scaled(optimizer) == (pytest.approx(2e-3), "square root")


def test_the_last_line_names_sizes_and_rate():
    config = TrainConfig(batch_size=16, lr=1e-3)
    assert summary(trials(100, 190, 350, 360, 1), config) == (
        "train.batch_size: 128 is the largest that fits; from 32 on img/s rises by less than 5%; configured 16. "
        "With 32 scale train.lr 1.0e-03 → 1.4e-03 (square root, for adamw)"
    )
    assert summary(trials(100, 190, 191), config).endswith("less than 5%; configured 16")


# What is measured


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_measured_step_is_a_whole_one_of_so_many_images_at_the_largest_size(accumulate: int, monkeypatch: pytest.MonkeyPatch):
    config = TrainConfig(epochs=2, image_sizes=(24, 40), mixup=0.4, ema=0.5, clip_grad=1.0, accumulate=accumulate)
    training, seen, ticks = start(config, 64, name="test_resnet"), [], itertools.count(0, 2)
    forward, update = batch_range.step_forward, batch_range.update

    def step_forward(training, model, images, target) -> torch.Tensor:
        seen.append((tuple(images.shape), images.dtype, len(target)))
        return forward(training, model, images, target)

    monkeypatch.setattr(batch_range, "step_forward", step_forward)
    monkeypatch.setattr(batch_range, "update", lambda t: seen.append("update") or update(t))
    monkeypatch.setattr(batch_range, "_now", lambda _: next(ticks))
    batches = min(2, accumulate)
    assert batch_range.measure(training, Memory(64).labels, 6) == 6 * batches * batch_range.TIMED / 2
    step = [((6, 40, 40, 3), torch.uint8, 6)] * batches + ["update"]
    assert seen == step * (batch_range.WARM_UP + batch_range.TIMED)


def test_more_images_than_rows_take_labels_again():
    assert batch_range.measure(start(TrainConfig(), 64), Memory(3).labels, 8) > 0


def test_a_size_that_does_not_fit_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    training, left = start(TrainConfig(clip_grad=1.0), 64), []

    def full(*_) -> float:
        activations = torch.zeros(8)
        activations.itself = activations  # a cycle, which only the collector ends
        left.append(weakref.ref(activations))
        training.model.fc3.weight.grad = torch.zeros_like(training.model.fc3.weight)
        raise torch.OutOfMemoryError("CUDA out of memory")

    emptied = []
    monkeypatch.setattr(batch_range, "measure", full)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(left[0]() is None))
    scaler = training.scaler
    assert batch_range.speed_or_none(training, Memory(64).labels, 8) is None
    assert emptied == [True]  # the step's tensors were gone before the cache was emptied
    assert all(parameter.grad is None for parameter in training.model.parameters())
    assert training.scaler is not scaler


def test_another_error_is_not_taken_for_a_full_memory(monkeypatch: pytest.MonkeyPatch):
    def broken(*_) -> float:
        raise RuntimeError("a bug")

    monkeypatch.setattr(batch_range, "measure", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        batch_range.speed_or_none(start(TrainConfig(), 64), Memory(64).labels, 8)


def test_on_the_cpu_it_is_told_what_to_take_instead():
    with pytest.raises(UserError, match=r"fills a CUDA GPU's memory, and the device is cpu: on a CPU 32 to 64 images"):
        find_batch(start(TrainConfig(), 64), Memory(64).labels)


def test_the_thawed_model_is_measured_and_every_size_is_told(monkeypatch: pytest.MonkeyPatch):
    training = start(TrainConfig(epochs=3, batch_size=16, freeze="backbone", frozen_epochs=1), 64)
    training.device, told, learning = torch.device("cuda"), [], set()

    def speed(training, labels, size: int) -> float | None:
        learning.update(name for name, parameter in training.model.named_parameters() if parameter.requires_grad)
        return 1000.0 * size if size < 40 else None

    monkeypatch.setattr(batch_range, "speed_or_none", speed)
    monkeypatch.setattr(batch_range, "_some_to_spare", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    found = find_batch(training, Memory(64).labels, told.append)
    assert [trial.size for trial in found] == [2, 4, 8, 16, 32]
    assert told[3:] == [
        "batch     16    16,000 img/s",
        "batch     32    32,000 img/s",
        "batch     64  does not fit",
        "batch     48  does not fit",
    ]
    assert "conv1.weight" in learning


def test_a_tenth_of_the_free_memory_is_spared_and_the_limit_lifted_again(monkeypatch: pytest.MonkeyPatch):
    fractions: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (60, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 20)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fractions.append)
    with pytest.raises(UserError), batch_range._some_to_spare():
        raise UserError("full")
    assert fractions == pytest.approx([0.72, 1.0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_gpu_a_full_memory_ends_the_search(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    """With almost nothing to spend, so that it is soon full."""
    training = start(TrainConfig(batch_size=64, clip_grad=1.0, ema=0.5), 64, "cuda", dtype, name="test_resnet")
    labels = torch.zeros(1 << 20, dtype=torch.int64, device="cuda")
    _, total = torch.cuda.mem_get_info()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, total))
    told: list[str] = []
    found = find_batch(training, labels, told.append)
    assert found[-1].size < len(labels)
    assert "does not fit" in "".join(told)
    assert batch_range.speed_or_none(training, labels, found[-1].size) is not None
