"""Every network of the lectures does what timm's own models do, and what training asks of them."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from src.config import ModelConfig
from src.models import backbone
from src.training.probe import linear_head

NAMES = ["alexnet", "alexnet_paper", "googlenet", "plain34", "lenet5", "cifar_net", "mnist_net", "mnist_small"]


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return backbone.sketch(request.param)


def image_for(model: nn.Module, images: int = 2) -> torch.Tensor:
    """What the loader ships: three channels, whatever the model's own."""
    return torch.rand(images, 3, *model.pretrained_cfg["input_size"][1:], device="meta")


def test_features_and_head_make_up_the_forward(model: nn.Module):
    features = model.forward_features(image_for(model))
    assert features.shape[:2] == (2, model.num_features)
    assert model.forward_head(features).shape == model(image_for(model)).shape == (2, model.num_classes)
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)


def test_the_head_can_be_reset_and_probed(model: nn.Module):
    with torch.device("meta"):
        model.reset_classifier(3)
    assert linear_head(model).weight.shape == (3, model.head_hidden_size)
    assert model(image_for(model)).shape == (2, model.num_classes) == (2, 3)
    model.reset_classifier(0)
    assert model(image_for(model)).shape == (2, model.head_hidden_size)


def test_it_can_be_made_without_a_head(model: nn.Module):
    with torch.device("meta"):
        headless = timm.create_model(model.pretrained_cfg["architecture"], num_classes=0)
        assert headless(image_for(model)).shape == (2, model.head_hidden_size)


def test_features_of_several_depths_can_be_extracted(model: nn.Module):
    with torch.device("meta"):
        extractor = timm.create_model(model.pretrained_cfg["architecture"], features_only=True)
        maps = extractor(image_for(model))
    assert len(maps) >= 2
    assert [tuple(m.shape[1:2]) for m in maps] == [(channels,) for channels in extractor.feature_info.channels()]
    side = model.pretrained_cfg["input_size"][1]
    for found, reduction in zip(maps, extractor.feature_info.reduction(), strict=True):
        assert found.shape[-1] == pytest.approx(side / reduction, abs=6)  # without padding a 5×5 kernel takes 4


def test_layer_decay_learns_faster_the_nearer_to_the_head(model: nn.Module):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(model, weight_decay=0.0, layer_decay=0.5)
    scale = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert scale.keys() == set(names.values())
    main = [name for name in scale if name.endswith("weight") and not name.startswith("aux") and ".bn" not in name]
    scales = [scale[name] for name in sorted(main, key=list(names.values()).index)]
    assert scales == sorted(scales)
    assert len(set(scales)) >= 4
    assert scales[-1] == 1


@pytest.mark.parametrize("name", ["lenet5", "mnist_net", "mnist_small", "cifar_net"])
def test_dropout_before_the_head_acts_in_training_alone(name: str):
    dropping = timm.create_model(name, drop_rate=0.5).train()
    features = dropping.eval().forward_features(torch.rand(2, 3, *dropping.pretrained_cfg["input_size"][1:]))
    assert torch.equal(dropping.forward_head(features), dropping.forward_head(features))
    dropping.train()
    assert not torch.equal(dropping.forward_head(features), dropping.forward_head(features))


@pytest.mark.parametrize("name", ["lenet5", "mnist_net", "mnist_small", "cifar_net"])
def test_it_is_made_for_a_competition_at_its_own_size(name: str):
    made, fed = backbone.create(ModelConfig(name=name, weights="none"), 7)
    assert fed.size == made.pretrained_cfg["input_size"][1]
    assert len(fed.mean) == len(fed.std) == 3
    images = torch.randint(0, 256, (2, fed.size, fed.size, 3), dtype=torch.uint8)
    assert made(fed.normalise(images, channels_last=True)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vgg16", 138_357_544), ("vgg19", 143_667_240), ("resnet18", 11_689_512), ("resnet34", 21_797_672),
     ("resnet50", 25_557_032), ("resnet101", 44_549_160)],
)  # fmt: skip
def test_timms_own_have_the_lectures_parameters(name: str, parameters: int):
    """Lecture 002, "VGG16 Architecture" (> 138M) and "ResNet-34 Architecture" (> 21M)."""
    assert sum(p.numel() for p in backbone.sketch(name).parameters()) == parameters


def test_vgg16_has_16_layers_where_the_slide_says_8():
    """Lecture 002, "VGG16 Architecture": 13 convolutions and 3 FC layers, 5 poolings. timm writes two FC as convolutions."""
    model = backbone.sketch("vgg16")
    assert sum(isinstance(module, nn.Conv2d) for module in model.features) == 13
    assert sum(isinstance(module, nn.MaxPool2d) for module in model.features) == 5
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == 16


def test_resnet34_has_no_dropout_where_the_slide_says_so():
    """Lecture 002, "ResNet-34 Architecture": "1 FC layer (includes dropout)"; the paper uses none."""
    model = backbone.sketch("resnet34")
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())
    assert model.drop_rate == 0
    assert [layer[-1].conv2.out_channels for layer in (model.layer1, model.layer2, model.layer3, model.layer4)] == [
        64,
        128,
        256,
        512,
    ]
