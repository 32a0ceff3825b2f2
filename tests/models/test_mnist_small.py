"""Lecture 001's small MNIST network: the one with 11×11 maps."""

import timm
import torch

from src.models import mnist_small  # noqa: F401  registers it


def test_a_filter_of_its_second_convolution_gives_an_11_by_11_matrix():
    """Lecture 001: "The output of the k-th filter is a 11×11 matrix"."""
    model, shapes = timm.create_model("mnist_small").eval(), []
    for layer in (model.conv1, model.pool1, model.conv2, model.pool2):
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert shapes == [(25, 26, 26), (25, 13, 13), (50, 11, 11), (50, 5, 5)]


def test_its_filters_have_9_and_225_weights():
    model = timm.create_model("mnist_small")
    assert [conv.weight[0].numel() for conv in (model.conv1, model.conv2)] == [9, 225]
    assert model.fc1.in_features == 1250
    assert sum(p.numel() for p in model.parameters()) == 137_660


def test_no_ink_is_zero():
    """Lecture 001's L1 penalty forces pixels to 0, which must be black."""
    assert timm.create_model("mnist_small").pretrained_cfg["mean"] == (0.0, 0.0, 0.0)
