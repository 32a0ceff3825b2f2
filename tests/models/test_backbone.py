"""Any model by one call: its head, its input, its weights, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from src.config import ModelConfig
from src.errors import UserError
from src.models import backbone

SMALL = ModelConfig(name="test_resnet", weights="none", image_size=64)
CIFAR = ModelConfig(name="cifar_net", weights="none")
CPU = torch.device("cpu")


def same_weights(one: nn.Module, other: nn.Module, but: tuple[str, ...] = ()) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours if not name.startswith(but))


# Making a model


@pytest.mark.parametrize("name", ["cifar_net", "test_resnet", "test_vit"])
def test_the_head_is_made_for_the_competitions_classes(name: str):
    model, fed = backbone.create(ModelConfig(name=name, weights="none"), 7)
    assert backbone.head(model).weight.shape[0] == 7
    assert model(torch.zeros(2, 3, fed.size, fed.size)).shape == (2, 7)


def test_a_head_of_two_layers_counts_as_one():
    with torch.device("meta"):
        model = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3)
    assert {name for name, _ in backbone.head(model).named_parameters()} == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_the_seed_alone_decides_the_fresh_weights():
    torch.manual_seed(99)
    first, _ = backbone.create(SMALL, 3, seed=5)
    torch.manual_seed(100)
    again, _ = backbone.create(SMALL, 3, seed=5)
    other, _ = backbone.create(SMALL, 3, seed=6)
    assert same_weights(first, again)
    assert not torch.equal(first.conv1[0].weight, other.conv1[0].weight)


def test_dropout_and_further_arguments_reach_the_model():
    config = ModelConfig(name="test_resnet", weights="none", dropout=0.3, drop_path=0.2, kwargs=("global_pool=max",))
    model, _ = backbone.create(config, 2)
    assert model.drop_rate == 0.3
    assert model.global_pool.pool_type == "max"
    assert any(getattr(module, "drop_prob", 0) > 0 for module in model.modules())


def test_a_value_that_the_model_cannot_use_is_told_with_its_argument():
    with pytest.raises(UserError, match=r"resnet18 can't be made with norm_layer=nonsense \(KeyError: 'nonsense'"):
        backbone.create(ModelConfig(name="resnet18", weights="none", kwargs=("norm_layer=nonsense",)), 2)


@pytest.mark.parametrize("more", [{"kwargs": ("no_such=1",)}, {"drop_path": 0.1}])
def test_an_argument_that_the_model_does_not_take_is_refused(more: dict):
    with pytest.raises(UserError, match=r"model\.kwargs: cifar_net does not take them: .*unexpected keyword"):
        backbone.create(ModelConfig(name="cifar_net", weights="none", **more), 2)


@pytest.mark.parametrize(("name", "near"), [("resnt18", "resnet18"), ("cifarnet", "cifar_net"), ("alexnett", "alexnet")])
def test_an_unknown_model_names_the_nearest(name: str, near: str):
    with pytest.raises(UserError, match=rf"model\.name: '{name}' .*did you mean [^?]*\b{near}\b"):
        backbone.create(ModelConfig(name=name, weights="none"), 2)


@pytest.mark.parametrize(
    ("pair", "instead"),
    [
        ("num_classes=12", "classes"), ("in_chans=1", "RGB"), ("img_size=64", r"model\.image_size"),
        ("drop_rate=0.1", r"model\.dropout"), ("drop_path_rate=0.1", r"model\.drop_path"),
        ("pretrained=true", r"model\.weights"), ("checkpoint_path=a.pth", r"model\.weights"),
        ("features_only=true", "classifier"),
    ],
)  # fmt: skip
def test_an_argument_that_is_decided_elsewhere_is_refused(pair: str, instead: str):
    with pytest.raises(UserError, match=rf"model\.kwargs: {pair.partition('=')[0]} .*{instead}"):
        backbone.create(ModelConfig(name="test_resnet", weights="none", kwargs=(pair,)), 2)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_model_made_to_give_maps_is_refused(name: str):
    with pytest.raises(UserError, match=rf"model\.kwargs: {name} with global_pool='' (can't work|does not give)"):
        backbone.create(ModelConfig(name=name, weights="none", kwargs=("global_pool=''",)), 2)


def test_an_unknown_model_that_is_near_to_none_says_where_the_names_are():
    with pytest.raises(UserError, match="list_models"):
        backbone.create(ModelConfig(name="qqqqqqqqqqqq", weights="none"), 2)


# Its input


def test_size_mean_and_std_are_the_models_own():
    _, fed = backbone.create(ModelConfig(name="test_resnet", weights="none"), 2)
    own = timm.data.resolve_model_data_config(timm.create_model("test_resnet"))
    assert fed == backbone.ImageInput(own["input_size"][1], own["mean"], own["std"])
    _, fed = backbone.create(CIFAR, 2)
    assert fed == backbone.ImageInput(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_size_mean_and_std_can_be_overridden_one_by_one():
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    own = backbone.create(SMALL, 2)[1]
    assert backbone.create(SMALL.model_copy(update={"image_size": 48}), 2)[1] == replace(own, size=48)
    assert backbone.create(SMALL.model_copy(update={"mean": mean}), 2)[1] == replace(own, mean=mean)
    assert backbone.create(SMALL.model_copy(update={"std": std}), 2)[1] == replace(own, std=std)


def test_a_vision_transformer_is_made_for_the_image_size():
    model, fed = backbone.create(ModelConfig(name="test_vit", weights="none", image_size=96), 2)
    assert fed.size == 96
    assert model.patch_embed.img_size == (96, 96)


TAKES_A_SIZE = [
    "vit_tiny_patch16_224", "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224",
    "vit_tiny_r_s16_p8_224", "vitamin_small_224", "swin_tiny_patch4_window7_224", "mixer_s32_224", "botnet26t_256",
]  # fmt: skip


@pytest.mark.parametrize("name", [*TAKES_A_SIZE, "xcit_nano_12_p16_224", "resnet18"])
def test_every_model_is_made_for_the_size_asked_for(name: str):
    """Many pass img_size on through **kwargs, where no signature tells of it."""
    model = backbone.sketch(name, 96)
    assert model(torch.zeros(1, 3, 96, 96, device="meta")).shape == (1, model.num_classes)


@pytest.mark.parametrize("name", TAKES_A_SIZE)
def test_a_model_made_for_one_size_is_refused_another(name: str):
    with pytest.raises(UserError, match=rf"predict\.tta: {name} is made for one image size; use model\.image_size"):
        backbone.check_other_size(backbone.sketch(name, 96), name, 128, "predict.tta")


@pytest.mark.parametrize("name", ["resnet18", "repvgg_a0", "xcit_nano_12_p16_224"])
def test_a_model_that_is_the_same_for_every_size_takes_another(name: str):
    backbone.check_other_size(backbone.sketch(name, 96), name, 128, "predict.tta")


@pytest.mark.parametrize(("name", "size"), [("cifar_net", 64), ("test_vit", 100), ("test_convnext", 8)])
def test_an_image_size_that_does_not_fit_is_refused(name: str, size: int):
    with pytest.raises(UserError, match=rf"model\.image_size: {name} can't work with {size} pixels: \S"):
        backbone.create(ModelConfig(name=name, weights="none", image_size=size), 2)


@pytest.mark.parametrize("channels_last", [True, False])
def test_normalising_is_x_over_255_less_mean_over_std(channels_last: bool):
    fed = backbone.ImageInput(5, (0.1, 0.5, 0.7), (0.2, 0.3, 0.4))
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    pixels = fed.normalise(torch.from_numpy(images), channels_last)
    expected = (images.astype(np.float64) / 255 - fed.mean) / fed.std
    assert pixels.shape == (3, 3, 5, 7)
    assert pixels.dtype == torch.float32
    np.testing.assert_allclose(pixels.numpy(), expected.transpose(0, 3, 1, 2), atol=2e-6)
    assert pixels.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert pixels.is_contiguous() != channels_last


# A new head

FAMILIES = [
    "mobilenetv2_035", "mobilenetv3_small_050", "efficientnet_lite0", "tf_efficientnet_lite0", "test_efficientnet", "tinynet_e",
    "lcnet_035", "mnasnet_small", "mixnet_s", "hardcorenas_a", "fbnetc_100", "ghostnet_050", "resnet18", "test_vit",
    "test_convnext", "test_nfnet", "test_byobnet", "edgenext_xx_small", "efficientvit_m0", "efficientvit_b0", "shvit_s1",
    "levit_128s", "swiftformer_xs", "efficientformerv2_s0", "repvit_m1", "xcit_nano_12_p8_224", "regnetx_002", "dla46x_c",
    "dpn48b", "densenet121", "visformer_tiny", "cait_xxs24_224", "fastvit_t8", "inception_v3", "alexnet", "googlenet",
]  # fmt: skip
CLASSES = [(name, 2) for name in FAMILIES] + [("mobilenetv2_035", 42), ("dla46x_c", 42), ("levit_128s", 42), ("googlenet", 42)]


@pytest.mark.parametrize(("name", "classes"), CLASSES)
def test_a_new_head_knows_nothing_and_says_so(name: str, classes: int):
    """Before anything is trained the cross-entropy is about ln(classes): of EfficientNet's as timm draws it 13 for two."""
    sizes = {"inception_v3": 96, "alexnet": 63}
    model, fed = backbone.create(ModelConfig(name=name, weights="none", image_size=sizes.get(name, 64)), classes)
    images = torch.randn(4, 3, fed.size, fed.size, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        with torch.inference_mode():
            logits = model.train(training)(images)
        logits = logits[0] if isinstance(logits, tuple) else logits
        assert F.cross_entropy(logits, torch.arange(4) % classes) <= 1.2 * np.log(classes)


def test_a_head_that_averages_two_starts_both_at_zero():
    model, _ = backbone.create(ModelConfig(name="deit_tiny_distilled_patch16_224", weights="none", kwargs=("depth=1",)), 3)
    assert all((parameter == 0).all() for parameter in backbone.head(model).parameters())


@pytest.mark.parametrize("name", ["cifar_net", "mnist_net", "lenet5"])
def test_the_lectures_networks_start_as_they_say(name: str):
    torch.manual_seed(0)
    own = timm.create_model(name, num_classes=3).get_classifier().weight
    assert torch.equal(backbone.create(ModelConfig(name=name, weights="none"), 3, seed=0)[0].get_classifier().weight, own)


# What is frozen


def test_a_frozen_backbone_leaves_only_the_head_to_learn():
    model, _ = backbone.create(SMALL, 3)
    backbone.freeze(model, torch.optim.SGD(model.parameters(), 0.1), "backbone")
    backbone.train_mode(model, "backbone")
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}
    assert {name for name, module in model.named_modules() if module.training} == {"fc"}


def test_frozen_norms_keep_their_statistics_while_everything_learns():
    model, _ = backbone.create(SMALL, 3)
    backbone.freeze(model, torch.optim.SGD(model.parameters(), 0.1), "norm")
    backbone.train_mode(model, "norm")
    assert all(p.requires_grad for p in model.parameters())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(module.training for module in norms)
    assert model.training
    assert model.fc.training


def test_nothing_is_frozen_unless_asked_for():
    model, _ = backbone.create(SMALL, 3)
    backbone.freeze(model, torch.optim.SGD(model.parameters(), 0.1), "none")
    backbone.train_mode(model, "none")
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())


# On disk


def card_of(fed: backbone.ImageInput, **more) -> backbone.Card:
    fields = {
        "competition": "shopee", "run": "a", "fold": "0", "name": "test_resnet", "kwargs": (), "classes": ("00", "01"),
        "input": fed, "resize": "crop", "folds_sha256": "ab", "epochs": 3, "scores": {"val_log_loss": 0.1, "val_accuracy": 1.0},
    }  # fmt: skip
    return backbone.Card(**fields | more)


def test_a_saved_model_comes_back_with_equal_logits_and_card(tmp_path: Path):
    model, fed = backbone.create(SMALL.model_copy(update={"mean": (0.1, 0.2, 0.3)}), 2, seed=3)
    nn.init.normal_(model.fc.weight)  # as after training
    model(torch.rand(4, 3, fed.size, fed.size))
    model = model.to(memory_format=torch.channels_last)
    backbone.save(model, card_of(fed), tmp_path / "model.safetensors")
    loaded, card = backbone.load(tmp_path / "model.safetensors", CPU)
    assert card == replace(card_of(fed), digest=card.digest)
    assert not loaded.training
    images = torch.rand(2, 3, fed.size, fed.size)
    with torch.inference_mode():
        assert torch.equal(loaded(images), model.eval().to(memory_format=torch.contiguous_format)(images))
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_model_of_another_size_and_with_arguments_comes_back(tmp_path: Path):
    config = ModelConfig(name="test_vit", weights="none", image_size=96, kwargs=("depth=2",))
    model, fed = backbone.create(config, 2)
    nn.init.normal_(model.head.weight)
    backbone.save(model, card_of(fed, name="test_vit", kwargs=config.kwargs), tmp_path / "model.safetensors")
    loaded, _ = backbone.load(tmp_path / "model.safetensors", CPU)
    images = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(loaded(images), model.eval()(images))


@pytest.mark.parametrize("name", ["coat_lite_tiny", "test_resnet"])
def test_layers_that_share_weights_come_back_sharing_them(name: str, tmp_path: Path):
    """safetensors refuses tensors that share memory."""
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        model, fed = backbone.create(SMALL.model_copy(update={"name": name}), 2)
        with torch.no_grad():
            for number, weight in enumerate(model.parameters()):
                weight.add_(0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
        backbone.save(model, card_of(fed, name=name), file)
    loaded, _ = backbone.load(files[0], CPU)
    assert same_weights(loaded, model)
    assert len(list(loaded.parameters())) == len(list(model.parameters()))
    assert files[0].read_bytes() == files[1].read_bytes()


def test_equal_models_give_equal_bytes(tmp_path: Path):
    for name in ("one", "two"):
        model, fed = backbone.create(SMALL, 2, seed=8)
        backbone.save(model, card_of(fed), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_that_is_not_a_whole_model_of_ours_is_refused(tmp_path: Path):
    model, fed = backbone.create(CIFAR, 2)
    path = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=r"model\.safetensors: no such model; train the fold first"):
        backbone.read_card(path)
    backbone.save(model, card_of(fed), path)
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:20], b"", b"\0" * 1000):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"not a model that train\.py wrote"):
            backbone.load(path, CPU)
    for metadata in (None, {"card": "{"}, {"card": json.dumps({"run": "a"})}):
        save_file(model.state_dict(), path, metadata=metadata)
        with pytest.raises(UserError, match=r"not a model that train\.py wrote"):
            backbone.load(path, CPU)
