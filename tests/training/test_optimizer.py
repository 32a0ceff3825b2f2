"""Learning rates by layer, weight decay where it belongs, and the schedule."""

import math

import pytest
import timm
import torch
from torch import nn

from src.config import TrainConfig
from src.errors import UserError
from src.models import backbone
from src.training.optimizer import make_optimizer, make_scheduler, parameter_groups

NAMES = ("cifar_net", "alexnet", "test_resnet", "test_vit")
SETTINGS = (TrainConfig(), TrainConfig(backbone_lr_scale=0.1), TrainConfig(backbone_lr_scale=0.1, layer_decay=0.5))


def sketch(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, num_classes=3)


def by_name(model: nn.Module, config: TrainConfig, what: str) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group[what] for group in parameter_groups(model, config) for p in group["params"]}


@pytest.mark.parametrize("config", SETTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_exactly_one_group(name: str, config: TrainConfig):
    model = sketch(name)
    given = [id(parameter) for group in parameter_groups(model, config) for parameter in group["params"]]
    assert len(given) == len(set(given))
    assert set(given) == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize("config", SETTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_weights_decay_but_biases_and_norms_do_not(name: str, config: TrainConfig):
    model = sketch(name)
    dims = {parameter: p.ndim for parameter, p in model.named_parameters()}
    decay = by_name(model, config, "weight_decay")
    assert {parameter for parameter, value in decay.items() if value == 0} == {p for p, ndim in dims.items() if ndim <= 1}
    assert set(decay.values()) == {0.0, config.weight_decay}


def test_the_backbone_learns_at_its_share_of_the_heads_rate():
    scale = by_name(sketch("test_resnet"), TrainConfig(backbone_lr_scale=0.1), "lr_scale")
    assert {value for name, value in scale.items() if name.startswith("fc.")} == {1.0}
    assert {value for name, value in scale.items() if not name.startswith("fc.")} == {0.1}


def test_each_layer_below_the_head_learns_at_its_share_of_the_one_above():
    scale = by_name(sketch("cifar_net"), TrainConfig(layer_decay=0.5, backbone_lr_scale=0.1), "lr_scale")
    layers = ("conv1", "conv2", "fc1", "fc2", "fc3")
    for kind in ("weight", "bias"):
        assert [scale[f"{layer}.{kind}"] for layer in layers] == pytest.approx([0.00625, 0.0125, 0.025, 0.05, 1.0])


def test_the_head_keeps_its_rate_under_layer_decay_in_a_vision_transformer():
    scale = by_name(sketch("test_vit"), TrainConfig(layer_decay=0.5), "lr_scale")
    blocks = [scale[f"blocks.{i}.mlp.fc1.weight"] for i in range(6)]
    assert blocks == sorted(blocks)
    assert len(set(blocks)) == 6
    assert scale["patch_embed.proj.weight"] < blocks[0]
    assert blocks[-1] < scale["head.weight"] == 1.0


@pytest.mark.parametrize("config", SETTINGS)
def test_the_last_group_is_the_heads_whose_rate_the_log_shows(config: TrainConfig):
    model = sketch("test_resnet")
    last = parameter_groups(model, config)[-1]
    assert last["lr_scale"] == 1.0
    assert {id(p) for p in last["params"]} <= {id(p) for p in backbone.head(model).parameters()}


def test_what_never_learns_is_in_no_group():
    model, _ = backbone.create(TINY_RESNET, 2)
    model.requires_grad_(False)
    backbone.head(model).requires_grad_(True)
    assert set(by_name(model, TrainConfig(), "lr_scale")) == {"fc.weight", "fc.bias"}
    assert set(by_name(model, TrainConfig(layer_decay=0.5), "lr_scale")) == {"fc.weight", "fc.bias"}


TINY_RESNET = backbone.ModelConfig(name="test_resnet", weights="none", image_size=32)


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_timms_optimisers_are_made_by_name(name: str, kind: type):
    optimizer = make_optimizer(nn_model(), TrainConfig(optimizer=name, momentum=0.8, lr=0.02))
    assert isinstance(optimizer, kind)
    assert {group["lr"] for group in optimizer.param_groups} == {0.02}
    if kind is torch.optim.SGD:
        assert {group["momentum"] for group in optimizer.param_groups} == {0.8}


def test_an_unknown_optimiser_names_those_near_it():
    with pytest.raises(UserError, match=r"train\.optimizer: timm has no 'adamww'; near it are .*\badamw\b"):
        make_optimizer(nn_model(), TrainConfig(optimizer="adamww"))
    with pytest.raises(UserError, match=r"timm has no 'qqq'; near it are adamw, sgd, lamb"):
        make_optimizer(nn_model(), TrainConfig(optimizer="qqq"))


def test_what_an_optimiser_refuses_is_told():
    with pytest.raises(UserError, match=r"train\.optimizer: sgd: Nesterov momentum requires a momentum"):
        make_optimizer(nn_model(), TrainConfig(optimizer="sgd", momentum=0.0))


def nn_model() -> nn.Module:
    return timm.create_model("cifar_net", num_classes=3)


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_the_rate_rises_linearly_and_falls_as_a_cosine_to_its_end_in_every_group(layer_decay: float):
    config = TrainConfig(lr=0.1, warmup=0.2, final_lr=0.05, layer_decay=layer_decay, backbone_lr_scale=0.5)
    optimizer = make_optimizer(nn_model(), config)
    scheduler = make_scheduler(optimizer, config, 50)
    for number in range(1, 51):
        scheduler.step_update(number)
        if number < 10:
            expected = 0.1 * number / 10
        else:
            expected = 0.005 + (0.1 - 0.005) * (1 + math.cos(math.pi * (number - 10) / 40)) / 2
        rates = [(group["lr"], expected * group["lr_scale"]) for group in optimizer.param_groups]
        assert all(rate == pytest.approx(wanted, rel=1e-6) for rate, wanted in rates), number
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(0.005)


def test_the_rate_is_a_function_of_the_step_alone():
    config = TrainConfig(warmup=0.3)
    there, straight = make_optimizer(nn_model(), config), make_optimizer(nn_model(), config)
    scheduler = make_scheduler(there, config, 20)
    for number in range(1, 14):
        scheduler.step_update(number)
    make_scheduler(straight, config, 20).step_update(13)
    assert [group["lr"] for group in there.param_groups] == [group["lr"] for group in straight.param_groups]


def test_without_a_warm_up_the_first_step_is_near_the_peak_and_one_update_is_enough():
    config = TrainConfig(lr=0.1, warmup=0.0, final_lr=0.0)
    optimizer = make_optimizer(nn_model(), config)
    scheduler = make_scheduler(optimizer, config, 100)
    scheduler.step_update(1)
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(0.1, rel=1e-3)
    make_scheduler(optimizer, config, 1).step_update(1)
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(0.0, abs=1e-9)
