"""Pictures made by gradient ascent: they activate what was asked for, and a net is fooled by them."""

import pytest
import timm
import torch
from torch import nn

from src.errors import UserError
from src.explain.maximise import activation, maximise, noise, over_noise, total_variation
from src.models.backbone import ImageInput

FED = ImageInput(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
RED_AT = torch.tensor([[4, 4], [20, 8], [8, 20]])


def of_noise(model: nn.Module, index: int, layer: str | None = None) -> float:
    with torch.no_grad():
        return float(activation(model, FED, noise(FED, 64, seed=9), index, layer).mean())


def reached(model: nn.Module, index: int, layer: str | None = None, **how: object) -> float:
    picture = maximise(model, FED, index, layer, **{"steps": 60, "rate": 0.05} | how)
    assert picture.shape == (3, 32, 32)
    assert 0 <= picture.min() <= picture.max() <= 1
    with torch.no_grad():
        return float(activation(model, FED, picture[None], index, layer))


def test_a_filters_activation_rises_at_least_tenfold_over_noise(square_net: nn.Module):
    """Lecture 001: the degree of a filter's activation is the sum of its map."""
    raised = 0
    for index in range(16):
        usual = of_noise(square_net, index, "features.3")
        if usual > 1:  # not those that noise leaves silent
            assert reached(square_net, index, "features.3") > 10 * usual
            raised += 1
    assert raised >= 10


def test_a_classs_and_a_neurons_activation_rise_at_least_tenfold_over_noise(square_net: nn.Module):
    for layer in (None, "fc"):  # a linear layer's neurons are found by its name, the classes without one
        for index in (0, 1):
            assert reached(square_net, index, layer) > 10 * abs(of_noise(square_net, index, layer)) + 10


def test_the_activation_of_a_filter_is_the_sum_of_its_map_and_of_a_class_its_logit(square_net: nn.Module, squares):
    pixels = squares(RED_AT, torch.tensor([0, 1, 2]))
    fed = ImageInput(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    images = (pixels - torch.tensor(fed.mean)[:, None, None]) / torch.tensor(fed.std)[:, None, None]
    torch.testing.assert_close(
        activation(square_net, fed, pixels, 3, "features.2"), square_net.features[:3](images)[:, 3].sum(dim=(1, 2))
    )
    torch.testing.assert_close(activation(square_net, fed, pixels, 1), square_net(images)[:, 1])


def test_what_maximises_red_squares_is_red_and_blue_blue(square_net: nn.Module):
    for index, channel in ((0, 0), (1, 2)):
        of_channel = maximise(square_net, FED, index, steps=60, rate=0.05).mean(dim=(1, 2))
        assert of_channel.argmax() == channel
        assert of_channel[channel] > 0.9


def one_neuron(weight: torch.Tensor) -> nn.Module:
    """The sum of a picture (3, 32, 32) times `weight`."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.numel(), 1, bias=False))
    model[1].weight.data = weight.flatten()[None]
    return model


def test_l1_leaves_ink_only_where_it_is_worth_more_than_it_costs():
    """Lecture 001, "Adding regularization to the objective function to force most pixels be NO INK"."""
    weight = torch.linspace(-1, 1, 3 * 32 * 32).reshape(3, 32, 32)
    for l1 in (0.0, 0.5):
        assert torch.equal(maximise(one_neuron(weight), FED, 0, l1=l1), (weight > l1).float())


def test_total_variation_makes_pictures_smooth(square_net: nn.Module):
    rough, smooth = (maximise(square_net, FED, 2, steps=40, variation=variation) for variation in (0.0, 1.0))
    assert total_variation(smooth) < 0.5 * total_variation(rough)


def test_total_variation_counts_steps_across_and_down():
    pixels = torch.zeros(3, 4, 4)
    pixels[0, 1:3, 1:3] = 0.5
    assert total_variation(pixels) == 8 * 0.5
    assert total_variation(torch.full((3, 4, 4), 0.7)) == 0


def test_jitter_takes_the_place_out_of_a_picture():
    """A neuron that sees one pixel alone: under jitter its neighbours light up too."""
    weight = torch.zeros(3, 32, 32)
    weight[0, 16, 16] = 1
    dark = torch.zeros(3, 32, 32)
    alone, spread = (maximise(one_neuron(weight), FED, 0, start=dark, jitter=jitter).nonzero() for jitter in (0, 2))
    assert alone.tolist() == [[0, 16, 16]]
    assert {(row, column) for _, row, column in spread.tolist()} == {(i, j) for i in range(14, 19) for j in range(14, 19)}


def test_the_net_is_easily_fooled(square_net: nn.Module, squares):
    """Lecture 001, "If we watch the output layer node, it is easy to see that CNN is easily fooled": pictures of no square at
    all are surely red ones, and a small change to each pixel turns a red square into a blue one."""
    no_square = maximise(square_net, FED, 0, steps=60, rate=0.05)
    assert total_variation(no_square) < 0.2 * total_variation(squares(RED_AT, torch.tensor([0, 0, 0]))[0])
    assert square_net(no_square[None]).softmax(dim=1)[0, 0] > 0.99
    red = squares(RED_AT, torch.tensor([0, 0, 0]))[1]
    fooling = maximise(square_net, FED, 1, start=red, within=0.25, steps=40)
    assert square_net(red[None]).argmax() == 0
    assert square_net(fooling[None]).softmax(dim=1)[0, 1] > 0.9
    assert (fooling - red).abs().max() <= 0.25 + 1e-6
    assert not torch.equal(fooling, red)


def test_the_same_seed_makes_the_same_picture_and_weights_stay(square_net: nn.Module):
    before = {name: weight.clone() for name, weight in square_net.state_dict().items()}
    once, again, other = (maximise(square_net, FED, 0, steps=3, jitter=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert all(torch.equal(weight, before[name]) for name, weight in square_net.state_dict().items())
    assert all(weight.grad is None for weight in square_net.parameters())


def test_vision_transformers_tokens_are_summed_too():
    model = timm.create_model("test_vit", num_classes=2).eval()
    fed = ImageInput(160, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    start = noise(fed)[0]
    picture = maximise(model, fed, 5, "blocks.0", start=start, steps=5)
    with torch.no_grad():
        before, after = activation(model, fed, torch.stack([start, picture]), 5, "blocks.0")
    assert after > before


def test_what_is_not_there_is_told(square_net: nn.Module):
    with pytest.raises(UserError, match=r"no layer 'conv'; it has features, fc"):
        maximise(square_net, FED, 0, "conv")
    with pytest.raises(UserError, match=r"features\.0: there is no 8; they are numbered 0 to 7"):
        maximise(square_net, FED, 8, "features.0")
    with pytest.raises(UserError, match=r"the classes: there is no -1; they are numbered 0 to 2"):
        maximise(square_net, FED, -1)


def test_rectified_counts_what_a_relu_lets_through(square_net: nn.Module, squares):
    pixels = squares(RED_AT, torch.tensor([0, 1, 2]))
    maps = square_net.features[:5](pixels)[:, 3]
    torch.testing.assert_close(
        activation(square_net, FED, pixels, 3, "features.4", rectified=True), maps.clamp_min(0).sum(dim=(1, 2))
    )
    assert not torch.allclose(maps.sum(dim=(1, 2)), maps.clamp_min(0).sum(dim=(1, 2)))


def test_a_picture_is_measured_against_the_mean_of_noise_classes_by_their_logits(square_net: nn.Module, squares):
    red = squares(RED_AT, torch.tensor([0, 0, 0]))[0]
    for layer, rectified in ((None, False), ("features.4", True)):
        with torch.no_grad():
            usual = activation(square_net, FED, noise(FED, 16, seed=1), 0, layer, rectified).mean()
            made = activation(square_net, FED, red[None], 0, layer, rectified)[0]
        assert over_noise(square_net, FED, red, 0, layer) == (pytest.approx(float(usual)), pytest.approx(float(made)))
