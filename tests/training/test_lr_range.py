"""The learning-rate range test: what it does to a training, and whether its suggestion is worth following."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from src.config import TrainConfig
from src.errors import UserError
from src.training import loop, lr_range
from src.training.lr_curve import Curve, suggest
from src.training.lr_range import find_lr
from src.training.training import Position, Training
from synthetic import Memory, shuffled, start, weights


class Coloured(Memory):
    """Noise, a little brighter in one of its channels: which one is the label."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        for image, label in zip(self.images, self.labels, strict=True):
            image[..., label] = image[..., label] // 2 + 110


def run(config: TrainConfig, rows: int = 64, steps: int = 20, **more) -> Curve:
    training, data = start(config, rows), Coloured(rows)
    return find_lr(training, shuffled(data, config), data.labels, steps, **more)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_rate_rises_by_the_same_factor_in_every_group(accumulate: int, monkeypatch: pytest.MonkeyPatch):
    config = TrainConfig(epochs=1, batch_size=8, backbone_lr_scale=0.1, layer_decay=0.5, accumulate=accumulate)
    training, data, seen = start(config, 64), Coloured(64), []
    scales = [group["lr_scale"] for group in training.optimizer.param_groups]
    real = lr_range.update
    monkeypatch.setattr(lr_range, "update", lambda t: (real(t), seen.append([g["lr"] for g in t.optimizer.param_groups])))
    curve = find_lr(training, shuffled(data, config), data.labels, 5, 1e-6, 1e-2)
    assert curve.rates == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    assert len(set(scales)) > 3
    assert np.array(seen) == pytest.approx(np.outer(curve.rates, scales))
    assert curve.configured == config.lr


def test_a_loader_shorter_than_the_test_goes_on_into_further_epochs(monkeypatch: pytest.MonkeyPatch):
    config, keys = TrainConfig(epochs=1, batch_size=8), []
    real = Memory.__getitem__
    monkeypatch.setattr(Memory, "__getitem__", lambda self, key: keys.append(key) or real(self, key))
    run(config, rows=24, steps=7, highest=1e-3)
    assert [epoch for epoch, _ in keys] == [0] * 24 + [1] * 24 + [2] * 8
    assert sorted(row for _, row in keys[:24]) == sorted(row for _, row in keys[24:48]) == list(range(24))
    assert keys[:24] != [(0, row) for _, row in keys[24:48]]


def test_an_update_takes_as_many_batches_as_are_accumulated():
    halves = run(TrainConfig(epochs=1, batch_size=8, accumulate=2, optimizer="sgd"), steps=10, highest=0.1)
    whole = run(TrainConfig(epochs=1, batch_size=16, optimizer="sgd"), steps=10, highest=0.1)
    np.testing.assert_allclose(halves.losses, whole.losses, rtol=1e-4)


def test_the_same_seed_gives_the_same_curve_whatever_the_generators_held():
    config = TrainConfig(epochs=1, batch_size=8, mixup=0.5)
    curves = [
        torch.manual_seed(seed) and run(config.model_copy(update={"seed": own})) for seed, own in ((1, 0), (2, 0), (1, 1))
    ]
    assert np.array_equal(curves[0].losses, curves[1].losses)
    assert not np.array_equal(curves[0].losses, curves[2].losses)


def test_a_loss_is_that_of_its_update_before_the_step(monkeypatch: pytest.MonkeyPatch):
    """At the lowest rate nothing is learned yet: the first loss is the untrained model's."""
    config = TrainConfig(epochs=1, batch_size=64)
    training, data = start(config, 64), Coloured(64)
    expected = loop.step_forward(training, training.model, torch.from_numpy(data.images), data.labels)
    assert run(config, steps=2).losses[0] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_clipping_frozen_layers_and_the_average_are_respected():
    config = TrainConfig(
        epochs=1, batch_size=16, freeze="backbone", clip_grad=0.01, optimizer="momentum", weight_decay=0, ema=0.5
    )
    training, data = start(config, 64), Coloured(64)
    before, average = {k: v.clone() for k, v in training.model.state_dict().items()}, weights(training.ema.module)
    find_lr(training, shuffled(data, config), data.labels, 1, 0.1)
    changed = {name: value - before[name] for name, value in training.model.state_dict().items()}
    assert {name for name, by in changed.items() if by.any()} == {"fc3.weight", "fc3.bias"}
    assert math.sqrt(sum(float(by.square().sum()) for by in changed.values())) == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert torch.equal(weights(training.ema.module), average)
    assert training.position.step == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_test(bad: float, monkeypatch: pytest.MonkeyPatch):
    real, steps = lr_range.step_forward, iter([1, 1, 1, bad])
    monkeypatch.setattr(lr_range, "step_forward", lambda *all: real(*all) * next(steps))
    curve = run(TrainConfig(epochs=1, batch_size=8))
    assert len(curve.rates) == len(curve.losses) == 4
    assert np.isinf(curve.losses[3])
    assert np.isfinite(curve.losses[:3]).all()
    assert np.isfinite(curve.smoothed).all()
    assert suggest(curve).lr is None


def test_a_loss_that_is_never_finite_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lr_range, "step_forward", lambda t, *_: t.model.fc3.bias.sum() * math.nan)
    with pytest.raises(UserError, match=r"not finite even before the first update: try --train\.precision fp32"):
        run(TrainConfig(epochs=1, batch_size=8))


@pytest.mark.parametrize(
    ("losses", "after"),
    [
        ([1.0] * 50 + [100.0] * 50, 51),  # flies off
        ([1.0] * 50 + [0.2] * 25 + [1.9] * 25, 100),  # back to where it was, and not beyond twice that
        ([0.05, 0.001, 0.2, 0.1] * 25, 100),  # a head that starts from the probe
        ([1.0] * 50 + [3.0] * 50, 100),  # more than twice where it was, and less than 4 times the least
        ([1.0] * 100, 100),
    ],
)
def test_the_test_ends_where_the_loss_flies_off_and_not_where_it_varies(losses: list[float], after: int):
    told = [number for number in range(1, 101) if lr_range._is_over(losses[:number], 100)]
    assert (told[0] if told else 100) == after


@pytest.mark.parametrize(("name", "optimizer"), [("cifar_net", "adamw"), ("cifar_net", "sgd"), ("test_resnet", "sgd")])
def test_training_at_the_suggestion_beats_ten_times_less_and_ten_times_more(name: str, optimizer: str):
    config, data, losses = TrainConfig(epochs=4, batch_size=16, optimizer=optimizer, warmup=0.1), Coloured(256), []
    found = suggest(find_lr(start(config, 256, name=name), shuffled(data, config), data.labels))
    for factor in (0.1, 1, 10):
        training = start(config.model_copy(update={"lr": found.lr * factor}), 256, name=name)
        losses.append(trained_loss(training, data))
    assert losses[1] < min(losses[0], losses[2])
    assert losses[1] < 0.01


def trained_loss(training: Training, data: Coloured) -> float:
    """Of the training rows after all epochs; infinite where it was not finite on the way."""
    try:
        for epoch in range(training.config.epochs):
            training.position = Position(epoch)
            list(loop.train_epoch(training, shuffled(data, training.config), data.labels, ""))
    except UserError:
        return math.inf
    with torch.inference_mode():
        logits = training.model.eval()(training.fed.normalise(torch.from_numpy(data.images), True))
        return float(F.cross_entropy(logits, data.labels))
