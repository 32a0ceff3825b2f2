"""AlexNet is torchvision's, layer for layer, so that torchvision's weights fit it."""

import timm
import torch
import torchvision
from timm.optim import param_groups_layer_decay

from src.models import alexnet


def _sketch(**arguments) -> alexnet.AlexNet:
    """Its layers without memory for their weights."""
    with torch.device("meta"):
        return timm.create_model("alexnet", **arguments)


def test_it_has_61100840_parameters():
    assert sum(p.numel() for p in _sketch().parameters()) == 61_100_840


def test_it_is_torchvisions_alexnet():
    theirs = torchvision.models.alexnet().eval()
    ours = _sketch().eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    images = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))


def test_its_head_is_the_last_layer_and_can_be_reset():
    model = _sketch(num_classes=2)
    assert model.get_classifier() is model.classifier[6]
    assert model.get_classifier().weight.shape == (2, 4096)
    with torch.device("meta"):
        model.reset_classifier(42)
        assert model(torch.rand(3, 3, 64, 64)).shape == (3, 42)
        assert model.forward_head(model.forward_features(torch.rand(3, 3, 64, 64)), pre_logits=True).shape == (3, 4096)
        model.reset_classifier(0)
    assert isinstance(model.get_classifier(), torch.nn.Identity)


def test_layer_decay_takes_its_layers_from_the_bottom_up():
    model = _sketch()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(model, weight_decay=0.0, layer_decay=0.5)
    scale = {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
    layers = [f"features.{i}" for i in (0, 3, 6, 8, 10)] + [f"classifier.{i}" for i in (1, 4, 6)]
    assert [scale[f"{layer}.weight"] for layer in layers] == [0.5 ** (7 - above) for above in range(8)]
    assert all(scale[f"{layer}.weight"] == scale[f"{layer}.bias"] for layer in layers)
