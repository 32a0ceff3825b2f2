"""GoogLeNet is torchvision's, with the auxiliary classifiers in training."""

import copy
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from src.config import ModelConfig
from src.models import backbone


def sketch(**arguments) -> nn.Module:
    """Its layers without memory for their weights."""
    with torch.device("meta"):
        return timm.create_model("googlenet", **arguments)


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(1234)
    return torchvision.models.googlenet(init_weights=True, aux_logits=True)


@pytest.fixture(scope="module")
def file(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "googlenet.pth"
    torch.save(theirs.state_dict(), path)
    return path


@pytest.mark.parametrize(("auxiliary", "parameters"), [(False, 6_624_904), (True, 13_004_888)])
def test_its_parameters(auxiliary: bool, parameters: int):
    """Lecture 002, "Google-Net Architecture", says > 7M: off for both, the network alone has 6.6 million."""
    assert sum(p.numel() for p in sketch(auxiliary=auxiliary).parameters()) == parameters


def test_it_has_the_slides_nine_inception_modules_and_two_auxiliary_classifiers():
    """Lecture 002, "Google-Net Architecture"; a global pooling and dropout stand before the FC layer."""
    children = [name for name, _ in sketch().named_children()]
    assert sum(name.startswith("inception") for name in children) == 9
    assert sum(name.startswith("aux") for name in children) == 2
    assert children[-3:] == ["avgpool", "dropout", "fc"]


def test_it_is_torchvisions_googlenet_in_evaluation_and_in_training(theirs: nn.Module):
    ours, theirs = sketch(), copy.deepcopy(theirs)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()), assign=True)
    for module in (*ours.modules(), *theirs.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the two draw in another order
    images = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))
        expected, outputs = theirs.train()(images), ours.train()(images)
    assert len(outputs) == 3
    for name, output in zip(("logits", "aux_logits2", "aux_logits1"), outputs, strict=True):
        assert torch.equal(output, getattr(expected, name))


def test_without_auxiliary_classifiers_training_gives_logits_alone():
    with torch.device("meta"):
        assert sketch(auxiliary=False).train()(torch.rand(2, 3, 64, 64)).shape == (2, 1000)


def test_all_three_heads_are_reset():
    model = sketch(num_classes=5).train()
    with torch.device("meta"):
        model.reset_classifier(7)
        assert [tuple(logits.shape) for logits in model(torch.rand(2, 3, 64, 64))] == [(2, 7)] * 3
        model.reset_classifier(0)
        assert model(torch.rand(2, 3, 64, 64)).shape == (2, 1024)


@pytest.mark.parametrize(("classes", "kwargs"), [(2, ()), (1000, ()), (2, ("auxiliary=False",)), (1000, ("auxiliary=False",))])
def test_torchvisions_weights_load_below_fresh_heads(classes: int, kwargs: tuple, file: Path, theirs: nn.Module):
    config = ModelConfig(name="googlenet", weights=str(file), image_size=64, kwargs=kwargs)
    model, fed = backbone.create(config, classes)
    assert fed.mean == fed.std == (0.5, 0.5, 0.5)
    ours, expected = model.state_dict(), theirs.state_dict()
    fresh = () if classes == 1000 else ("fc.", "aux1.fc2.", "aux2.fc2.")
    assert all(torch.equal(ours[name], expected[name]) for name in ours if not name.startswith(fresh))
    assert any(name.startswith("aux") for name in ours) == (not kwargs)


def test_its_input_normalised_to_one_half_is_what_torchvision_makes_of_imagenets(theirs: nn.Module):
    """The weights are TensorFlow's; torchvision's transform_input undoes ImageNet's mean and std."""
    image = torch.rand(1, 3, 8, 8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    theirs.transform_input = True
    torch.testing.assert_close(theirs._transform_input((image - mean) / std), (image - 0.5) / 0.5)
    theirs.transform_input = False


def test_other_channels_than_three_are_refused():
    with pytest.raises(ValueError, match="3 channels, not 1"):
        sketch(in_chans=1)
