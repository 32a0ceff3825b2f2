"""Lecture 003's network: its size, its head, its one use of dropout."""

import timm
import torch

from src.models import cifar_net


def test_it_has_the_lectures_62006_parameters():
    model = timm.create_model("cifar_net")
    assert sum(p.numel() for p in model.parameters()) == 62_006
    sizes = [tuple(weight.shape) for weight in model.parameters() if weight.ndim > 1]
    assert sizes == [(6, 3, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]


def test_its_features_and_logits_have_the_lectures_shapes():
    model, images = timm.create_model("cifar_net").eval(), torch.rand(2, 3, 32, 32)
    features = model.forward_features(images)
    assert features.shape == (2, 16, 5, 5)
    assert model.forward_head(features, pre_logits=True).shape == (2, 84)
    assert model(images).shape == (2, 10)
    assert torch.equal(model.forward_head(features), model(images))


def test_its_head_is_the_last_layer_and_can_be_reset():
    model = timm.create_model("cifar_net")
    model.reset_classifier(3)
    assert model.get_classifier() is model.fc3
    assert model.fc3.weight.shape == (3, 84)
    assert model.num_classes == 3
    model.reset_classifier(0)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 84)


def test_dropout_acts_in_training_only_and_only_where_asked_for():
    images = torch.rand(2, 3, 32, 32)
    plain, dropping = timm.create_model("cifar_net").train(), timm.create_model("cifar_net", drop_rate=0.5).train()
    assert torch.equal(plain(images), plain(images))
    assert not torch.equal(dropping(images), dropping(images))
    assert torch.equal(dropping.eval()(images), dropping(images))


def test_it_is_the_class_that_timm_makes_by_name():
    assert isinstance(timm.create_model("cifar_net", num_classes=4), cifar_net.CifarNet)
    assert timm.create_model("cifar_net").pretrained_cfg["input_size"] == (3, 32, 32)


def test_normalisation_layers_are_an_option_that_leaves_the_lectures_network_as_it_is():
    plain, normed = timm.create_model("cifar_net"), timm.create_model("cifar_net", norm=True)
    assert not any("norm" in name for name in plain.state_dict())
    assert sum(p.numel() for p in normed.parameters()) - sum(p.numel() for p in plain.parameters()) == 2 * (6 + 16 + 120 + 84)
    seen: list[torch.Tensor] = []
    normed.norm1.register_forward_hook(lambda _, __, given: seen.append(given))
    normed.train()(torch.rand(64, 3, 32, 32))
    torch.testing.assert_close(seen[0].mean(dim=(0, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)
