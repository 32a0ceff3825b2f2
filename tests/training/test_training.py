"""What an epoch trains on and with: sizes, what is frozen, averages; and a run whose losses may not move."""

import numpy as np
import pytest
import torch
from torch import nn

from src.config import TrainConfig
from src.training import loop
from src.training.loop import average_epoch, train_epoch
from src.training.training import Training
from synthetic import Memory, shuffled, start, weights

# Losses of 20 steps of cifar_net on random images: a change of the code that moves them changes everybody's results.
# Recorded by this test with torch 2.15.0 on x86-64. SGD, as AdamW's first steps turn each CPU's own rounding into ± lr.
GOLDEN = [
    1.093907, 1.137713, 1.191336, 1.082030, 1.087281, 1.097945, 1.111163, 1.130458, 1.083962, 1.077905,
    1.036450, 1.087772, 1.049069, 1.103815, 1.199330, 1.107962, 1.131591, 1.036152, 1.043133, 1.137501,
]  # fmt: skip


def run(config: TrainConfig, rows: int = 16, **more) -> tuple[Training, list[torch.Tensor]]:
    """All epochs; the weights at the end of each."""
    training, data, ends = start(config, rows, **more), Memory(rows), []
    loader = shuffled(data, config)
    while not training.finished:
        for _ in train_epoch(training, loader, data.labels, ""):
            pass
        if training.averages_now():
            average_epoch(training, loader)
        ends.append(weights(training.model))
        training.position = type(training.position)(epoch=training.position.epoch + 1)
    return training, ends


def first_norm(model: nn.Module) -> nn.BatchNorm2d:
    return next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def test_twenty_steps_give_the_losses_that_they_always_gave():
    config = TrainConfig(
        epochs=2, batch_size=4, optimizer="sgd", lr=0.1, accumulate=2, clip_grad=1.0, ema=0.3, mixup=0.4, cutmix=1.0,
        label_smoothing=0.1, layer_decay=0.8, warmup=0.1,
    )  # fmt: skip
    training, data, losses = start(config, 40, dropout=0.2), Memory(40), []
    real = loop.step_forward

    def step_forward(*all):
        loss = real(*all)
        losses.append(float(loss.detach()))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "step_forward", step_forward)
        for training.position.epoch in (0, 1):
            training.position.step = 0
            for _ in train_epoch(training, shuffled(data, config), data.labels, ""):
                pass
    assert len(losses) == 20
    np.testing.assert_allclose(losses, GOLDEN, rtol=1e-4)


def test_images_grow_over_equal_shares_of_the_epochs():
    training = start(TrainConfig(epochs=7, image_sizes=(16, 24, 32)), 64)
    assert [training.image_size(epoch, 99) for epoch in range(7)] == [16, 16, 16, 24, 24, 32, 32]
    assert start(TrainConfig(epochs=7), 64).image_size(3, 99) == 99


def test_a_frozen_backbone_thaws_after_its_epochs():
    config = TrainConfig(epochs=3, batch_size=8, lr=0.01, freeze="backbone", frozen_epochs=2)
    before = weights(start(config, 16, name="test_resnet").model)
    training, (_, second, third) = run(config, name="test_resnet")
    head = sum(parameter.numel() for parameter in training.model.fc.parameters())
    assert torch.equal(before[:-head], second[:-head])
    assert not torch.equal(before[-head:], second[-head:])
    assert (second != third).float().mean() > 0.9


def test_the_last_epochs_are_averaged_with_statistics_of_their_own():
    config = TrainConfig(epochs=4, batch_size=8, lr=0.01, average_epochs=2, final_lr=1.0)
    training, ends = run(config, rows=32, name="test_resnet")
    averaged = training.averaged()
    torch.testing.assert_close(weights(averaged), (ends[2] + ends[3]) / 2)
    norm, its = first_norm(training.model), first_norm(averaged)
    assert not torch.equal(norm.running_mean, its.running_mean)
    assert its.num_batches_tracked == 4  # measured over one epoch's batches, from nothing
    data = Memory(32)
    pixels = training.fed.normalise(torch.from_numpy(data.images), True)
    seen = []
    its.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    averaged.eval()(pixels)
    torch.testing.assert_close(its.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_an_average_keeps_the_statistics_that_are_frozen():
    config = TrainConfig(epochs=2, batch_size=8, average_epochs=1, freeze="norm")
    training, _ = run(config, name="test_resnet")
    norm, its = first_norm(training.model), first_norm(training.averaged())
    assert torch.equal(norm.running_mean, its.running_mean)


def test_before_its_epochs_the_average_is_not_what_is_validated():
    training = start(TrainConfig(epochs=3, average_epochs=1), 64)
    assert training.averaged() is training.model
    assert [training.averages_now() for training.position.epoch in range(3)] == [False, False, True]
