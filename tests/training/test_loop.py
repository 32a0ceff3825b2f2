"""One epoch, in pieces: gradients, schedule, average, losses that are not finite, and prediction."""

import itertools
import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from src.config import TrainConfig
from src.data.loader import ShuffledBatches
from src.errors import UserError
from src.training import loop
from src.training.training import Training
from synthetic import CLASSES, Memory, shuffled, start, weights


def train(config: TrainConfig, rows: int = 64, **more) -> Training:
    """An epoch of it."""
    training, data = start(config, rows, **more), Memory(rows)
    for _ in loop.train_epoch(training, shuffled(data, config), data.labels.to(training.device), "a test"):
        pass
    return training


# Gradients


def test_two_batches_of_16_added_up_are_one_of_32():
    settings = {"epochs": 1, "optimizer": "sgd", "lr": 0.01, "warmup": 0.0}
    whole = train(TrainConfig(batch_size=32, **settings))
    halves = train(TrainConfig(batch_size=16, accumulate=2, **settings))
    torch.testing.assert_close(weights(halves.model), weights(whole.model), rtol=1e-4, atol=1e-6)
    assert halves.position.losses == pytest.approx(whole.position.losses, rel=1e-5)
    alone = train(TrainConfig(batch_size=16, **settings))
    assert (weights(alone.model) - weights(whole.model)).abs().max() > 1e-4


def test_the_last_group_of_batches_may_be_smaller():
    config = TrainConfig(epochs=1, batch_size=4, accumulate=2)
    training, data = start(config, 20), Memory(20)
    assert [loop.group_size(training, step) for step in range(5)] == [2, 2, 2, 2, 1]
    yields = list(loop.train_epoch(training, shuffled(data, config), data.labels, ""))
    assert len(yields) == training.updates_per_epoch == 3
    assert training.position.step == 5
    assert training.position.images == 20


def test_a_smaller_last_group_weighs_its_only_batch_fully():
    """A group's step is that of one batch with all its images: 4 + 4, then 4."""
    config = TrainConfig(epochs=1, batch_size=4, accumulate=2, optimizer="momentum", lr=0.1, warmup=0.0)
    grouped = train(config, rows=12)
    by_hand, data = start(config, 12), Memory(12)
    order = [[row for _, row in batch] for batch in ShuffledBatches(12, 4, 0)]
    for number, rows in enumerate((order[0] + order[1], order[2]), 1):
        by_hand.scheduler.step_update(number)
        loop.step_forward(by_hand, by_hand.model, torch.from_numpy(data.images[rows]), data.labels[rows]).backward()
        by_hand.optimizer.step()
        by_hand.optimizer.zero_grad()
    torch.testing.assert_close(weights(grouped.model), weights(by_hand.model), rtol=1e-4, atol=1e-6)


def test_the_gradient_is_clipped_to_its_largest_norm():
    config = TrainConfig(epochs=1, batch_size=32, optimizer="momentum", weight_decay=0.0, lr=0.1, warmup=0.0)
    before = weights(start(config, 32).model)
    for clip in (0.01, 0.02):
        clipped = train(config.model_copy(update={"clip_grad": clip, "final_lr": 1.0}), rows=32)
        assert float((weights(clipped.model) - before).norm()) == pytest.approx(0.1 * clip, rel=1e-3)
    free = train(config.model_copy(update={"final_lr": 1.0}), rows=32)
    assert float((weights(free.model) - before).norm()) > 0.1 * 0.1


def test_the_schedule_ends_with_the_last_update():
    config = TrainConfig(epochs=1, batch_size=4, accumulate=2, lr=0.1, final_lr=0.3, backbone_lr_scale=0.5)
    assert [group["lr"] for group in train(config, rows=20).optimizer.param_groups] == pytest.approx([0.015, 0.015, 0.03, 0.03])


# What is frozen


@pytest.mark.parametrize("freeze", ["none", "norm", "backbone"])
def test_what_is_frozen_stays_and_the_rest_learns(freeze: str):
    config = TrainConfig(epochs=1, batch_size=8, lr=0.01, freeze=freeze)
    before = start(config, 32, name="test_resnet").model.state_dict()
    after = train(config, 32, name="test_resnet").model.state_dict()  # head and last norms start at zero: all learn by step 3
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    head = {"fc.weight", "fc.bias"}
    assert statistics
    if freeze == "backbone":
        assert changed == head
    else:
        assert changed == set(before) - (statistics if freeze == "norm" else set())


# Batches of one image


@pytest.mark.parametrize(
    ("knobs", "size", "refused"),
    [
        ({}, 32, True),
        ({"freeze": "norm"}, 32, False),
        ({"freeze": "backbone"}, 32, False),
        ({"freeze": "norm", "frozen_epochs": 1}, 32, True),  # in its second epoch
        ({}, 64, False),  # four pixels are left
        ({"image_sizes": (32, 64)}, 64, True),
    ],
)
def test_one_image_at_a_time_is_refused_where_norms_cannot_learn(knobs: dict, size: int, refused: bool):
    config = TrainConfig(epochs=2, batch_size=1, accumulate=4, lr=0.01, **knobs)
    training = start(config, 8, name="resnet10t", image_size=size)
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    with pytest.raises(UserError, match=r"train\.batch_size.*train\.freeze norm") if refused else nullcontext():
        loop.check_lone_image(training)
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.model.state_dict().items())


# The moving average


def test_the_average_is_a_plain_mean_first_and_forgets_later():
    config = TrainConfig(epochs=1, batch_size=4, lr=0.01, ema=0.7)
    training, data = start(config, 24), Memory(24)
    expected = None
    for number, _ in enumerate(loop.train_epoch(training, shuffled(data, config), data.labels, ""), 1):
        keep = min((number - 1) / number, 1 - 1 / (0.7 * 6))
        now = weights(training.model)
        expected = now if expected is None else keep * expected + (1 - keep) * now
        torch.testing.assert_close(weights(training.averaged()), expected, rtol=1e-5, atol=1e-6)
    assert number == 6
    assert not torch.equal(weights(training.averaged()), weights(training.model))


def test_without_an_average_the_weights_themselves_are_kept():
    training = start(TrainConfig(), 64)
    assert training.averaged() is training.model


# The loss


def test_a_steps_loss_is_the_smoothed_cross_entropy_of_normalised_images():
    training, data = start(TrainConfig(label_smoothing=0.2), 64), Memory(6)
    training.model.eval()
    logits = training.model((torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    soft = F.one_hot(data.labels, CLASSES) * 0.8 + 0.2 / CLASSES
    expected = -(soft * torch.log_softmax(logits, 1)).sum(1).mean()
    loss = loop.step_forward(training, training.model, torch.from_numpy(data.images), data.labels)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_googlenets_auxiliary_classifiers_learn_by_their_part_of_the_loss():
    training, data = start(TrainConfig(), 64, name="googlenet", dropout=0.0), Memory(4)
    for module in training.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    training.model.train()
    loss = loop.step_forward(training, training.model, torch.from_numpy(data.images), data.labels)
    outputs = training.model((torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    losses = [float(F.cross_entropy(logits, data.labels)) for logits in outputs]
    assert float(loss.detach()) == pytest.approx(losses[0] + 0.3 * losses[1] + 0.3 * losses[2], rel=1e-4)
    loss.backward()
    assert all(parameter.grad is not None for parameter in training.model.parameters())


def test_an_epochs_loss_is_the_mean_over_its_images():
    losses = iter([1.0, 2.0, 3.0, 4.0])
    config = TrainConfig(epochs=1, batch_size=4)
    training, data = start(config, 16), Memory(16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "step_forward", lambda t, *_: next(losses) + 0 * t.model.fc3.bias.sum())
        list(loop.train_epoch(training, shuffled(data, config), data.labels, ""))
    assert training.position.losses / training.position.images == pytest.approx(2.5)


@pytest.mark.parametrize("every", [1, 3, 20])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_names_the_step(bad: float, every: int, monkeypatch: pytest.MonkeyPatch):
    real, steps = loop.step_forward, itertools.count(1)
    monkeypatch.setattr(loop, "step_forward", lambda *all: real(*all) * (bad if next(steps) == 4 else 1))
    monkeypatch.setattr(loop, "READ_EVERY", {"cpu": every})
    config = TrainConfig(epochs=2, batch_size=4)
    training, data = start(config, 40), Memory(40)
    training.position.epoch = 1
    with pytest.raises(UserError, match=rf"the loss is {bad} at step 4 of epoch 2 \(learning rate \d.*--train\.clip_grad 1"):
        list(loop.train_epoch(training, shuffled(data, config), data.labels, ""))
    if every == 1:
        assert all(torch.isfinite(p).all() for p in training.model.parameters())


def test_only_a_later_epoch_promises_the_state_before_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "step_forward", lambda t, *_: t.model.fc3.bias.sum() * math.nan)
    config = TrainConfig(epochs=2, batch_size=4)
    for epoch in (0, 1):
        training, data = start(config, 8), Memory(8)
        training.position.epoch = epoch
        with pytest.raises(UserError) as told:
            list(loop.train_epoch(training, shuffled(data, config), data.labels, ""))
        assert ("last.pt holds the state before this epoch" in str(told.value)) == (epoch == 1)


def test_losses_that_were_not_read_yet_are_in_the_state_that_is_saved(monkeypatch: pytest.MonkeyPatch):
    """On a GPU they are read every 20 steps; a fold that is stopped in between must not lose them."""
    config, data = TrainConfig(epochs=1, batch_size=4), Memory(40)
    sums = []
    for every in (1, 20):
        monkeypatch.setattr(loop, "READ_EVERY", {"cpu": every})
        training = start(config, 40)
        updates = loop.train_epoch(training, shuffled(data, config), data.labels, "")
        for _ in range(7):
            next(updates)
        assert f"loss {0 if every == 20 else training.position.losses / 28:.4f}" in loop.progress(training)
        loop.read_losses(training)
        sums.append(training.state_dict()["losses"])
        list(updates)
        sums.append(training.position.losses)
    assert sums[:2] == pytest.approx(sums[2:], rel=1e-6)


def test_a_state_with_a_loss_that_is_not_finite_is_not_saved(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "READ_EVERY", {"cpu": 20})
    monkeypatch.setattr(loop, "step_forward", lambda t, *_: t.model.fc3.bias.sum() * math.nan)
    config = TrainConfig(epochs=1, batch_size=4)
    training, data = start(config, 40), Memory(40)
    next(loop.train_epoch(training, shuffled(data, config), data.labels, ""))
    with pytest.raises(UserError, match="the loss is nan at step 1 of epoch 1"):
        loop.read_losses(training)
    with pytest.raises(AssertionError):
        training.state_dict()


def test_the_time_waited_for_data_is_counted():
    config = TrainConfig(epochs=1, batch_size=4)
    training, data = start(config, 12), Memory(12, seconds=0.005)
    list(loop.train_epoch(training, shuffled(data, config), data.labels, ""))
    assert 12 * 0.005 <= training.position.waited < training.position.seconds


def test_bf16_trains_on_the_cpu_with_a_loss_in_fp32():
    config = TrainConfig(epochs=1, batch_size=32, precision="bf16")
    training, data = start(config, 64, dtype=torch.bfloat16), Memory(4)
    assert loop.step_forward(training, training.model, torch.from_numpy(data.images), data.labels).dtype is torch.float32
    exact, rounded = train(config), train(config, dtype=torch.bfloat16)
    assert rounded.position.losses != exact.position.losses
    assert rounded.position.losses == pytest.approx(exact.position.losses, rel=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_precision_trains_on_a_gpu_like_the_cpu(dtype: torch.dtype):
    config = TrainConfig(epochs=1, batch_size=16, clip_grad=1.0, ema=0.5)
    here, there = train(config), train(config, device="cuda", dtype=dtype)
    assert there.position.losses == pytest.approx(here.position.losses, rel=0.01)
