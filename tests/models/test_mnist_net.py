"""Lecture 004's MNIST network, its printed layers and what its forward() left out."""

import timm
import torch
from torch import nn

from src.models import mnist_net  # noqa: F401  registers it


def test_it_has_1379557_parameters_in_the_slides_layers():
    """Lecture 004, "Creating CNN Model"."""
    model = timm.create_model("mnist_net")
    sizes = [tuple(weight.shape) for weight in model.parameters() if weight.ndim > 1]
    assert sizes == [(32, 1, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (625, 2048), (10, 625)]
    assert sum(p.numel() for p in model.parameters()) == 1_379_557


def test_its_maps_have_the_sizes_of_the_slides_comments():
    """28 → 14 → 7 → 4: the last pooling is padded by 1, or there would be 3×3 and not the slide's 4×4×128 = 2048."""
    model, maps, sizes = timm.create_model("mnist_net").eval(), torch.rand(2, 1, 28, 28), []
    for layer in (model.layer1, model.layer2, model.layer3):
        maps = layer(maps)
        sizes.append(tuple(maps.shape[1:]))
    assert sizes == [(32, 14, 14), (64, 7, 7), (128, 4, 4)]


def test_a_relu_stands_between_its_linear_layers_and_without_it_they_are_but_one():
    """The slide's forward() calls fc1 and fc2, not layer4 with its ReLU; two linear layers in a row are one."""
    model, features = timm.create_model("mnist_net").eval(), torch.randn(3, 128, 4, 4)
    with torch.inference_mode():
        slides = model.fc2(model.fc1(features.flatten(1)))
        one = nn.Linear(2048, 10)
        one.weight.copy_(model.fc2.weight @ model.fc1.weight)
        one.bias.copy_(model.fc2.weight @ model.fc1.bias + model.fc2.bias)
        torch.testing.assert_close(one(features.flatten(1)), slides, rtol=1e-4, atol=1e-5)
        assert (model.forward_head(features) - slides).abs().max() > 0.01
        assert model.forward_head(features, pre_logits=True).min() == 0


def test_its_linear_layers_start_as_the_slide_says():
    """xavier_uniform: within ± sqrt(6 / (in + out))."""
    model = timm.create_model("mnist_net")
    for layer in (model.fc1, model.fc2):
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.98 * bound < float(layer.weight.detach().abs().max()) <= bound


def test_dropout_is_the_slides_0_unless_asked_for_and_then_in_every_layer():
    rates = {name: [m.p for m in timm.create_model("mnist_net", **of).modules() if isinstance(m, nn.Dropout)]
             for name, of in (("slide", {}), ("asked", {"drop_rate": 0.3}))}  # fmt: skip
    assert rates == {"slide": [0.0] * 4, "asked": [0.3] * 4}
