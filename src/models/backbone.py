"""Backbones: any of timm's models, and the lectures' own networks, by the same call.

Pretrained weights come from timm's hub, from a local .safetensors or .pth file (as kernels without internet need it), or
not at all. Input size, mean and std are the model's own unless the configuration says otherwise.
"""

import difflib
import inspect
import json
import logging
import os
import re
import socket
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import constants as hub
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from src.config import ModelConfig
from src.errors import UserError
from src.files import replacing
from src.models import (  # noqa: F401  registered in timm by being imported
    alexnet,
    alexnet_paper,
    alphago,
    cifar_net,
    googlenet,
    lenet5,
    mnist_net,
    mnist_small,
    plain_resnet,
)

logging.getLogger("timm").setLevel(logging.ERROR)


@dataclass(frozen=True)
class ImageInput:
    """What a model is fed: a square of `size` pixels, (value / 255 - mean) / std per RGB channel."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalise(self, images: torch.Tensor, channels_last: bool) -> torch.Tensor:
        """(n, H, W, 3) uint8 on any device → (n, 3, H, W) float32 there, in the memory format asked for."""
        count, height, width, channels = images.shape
        pixels = images.reshape(count, height, width * channels).float()
        scale, shift = _row_of(self, width, images.device)
        torch.addcmul(shift, pixels, scale, out=pixels)
        pixels = pixels.reshape(images.shape).permute(0, 3, 1, 2)  # a view: NHWC bytes are channels_last already
        return pixels.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@lru_cache
def _row_of(fed: ImageInput, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift (width * 3,) float32, by which a row of bytes is normalised.

    Whole rows at a time: channel by channel, CPU can't use its vector units and takes six times as long. Kept, as making them
    on a GPU would wait for its queue.
    """
    mean, std = torch.tensor(fed.mean), torch.tensor(fed.std)
    return (1 / (255 * std)).repeat(width).to(device), (-mean / std).repeat(width).to(device)


def create(config: ModelConfig, classes: int, seed: int = 0) -> tuple[nn.Module, ImageInput]:
    """The model with a fresh head for `classes`, and its input. `seed` decides the weights that are not pretrained.

    Raises UserError for an unknown name (with the nearest), weights of another architecture, an unreachable hub, an
    argument that the model doesn't take, or an image size that it can't work with.
    """
    check_name(config.name, "model.name")
    if config.weights not in ("hub", "none") and not Path(config.weights).is_file():
        raise UserError(f"model.weights: {config.weights}: no such file (hub, none, or a .safetensors or .pth file)")
    arguments = _arguments(config, classes)
    torch.manual_seed(seed)
    model = _build(config, arguments)
    if config.weights not in ("hub", "none"):
        torch.manual_seed(seed)
        _check_all_loaded(model, timm.create_model(config.name, pretrained=False, **arguments), config)
    if config.weights == "none" or model.pretrained_cfg["num_classes"] != classes:  # by which timm leaves a file's head out
        _start_small(model, classes)
    fed = _image_input(model, config)
    check_size(model, config.name, fed.size, "model.image_size")
    return model, fed


def check_name(name: str, key: str) -> None:
    """Raises UserError naming the nearest models, and the knob or argument `key`, where there is none of this name."""
    if timm.is_model(name):
        return
    close = difflib.get_close_matches(name, timm.list_models(), 3, 0.6)
    hint = f"did you mean {', '.join(close)}?" if close else "`python -c 'import timm; print(timm.list_models())'` lists them"
    raise UserError(f"{key}: {name!r} is not a model that timm or this repository knows; {hint}")


def sketch(name: str, size: int | None = None) -> nn.Module:
    """A model in evaluation mode, for `size` pixels or its own, without memory for its weights: made in milliseconds."""
    arguments = {"img_size": size} if size is not None and "img_size" in _accepted(name) else {}
    with torch.device("meta"):
        return timm.create_model(name, **arguments).eval()


def check_size(model: nn.Module, name: str, size: int, key: str) -> None:
    """One black image of `size` pixels through the model, before data is touched. Raises UserError naming the knob `key`."""
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, size, size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"{key}: {name} can't work with {size} pixels: {_first_line(error)}") from None


def check_other_size(model: nn.Module, name: str, size: int, key: str) -> None:
    """The same for a size beside model.image_size: vision transformers are made for one grid of patches."""
    if "img_size" in _accepted(name):
        raise UserError(f"{key}: {name} is made for one image size; use model.image_size alone")
    check_size(model, name, size, key)


def recompute_activations(model: nn.Module, name: str) -> None:
    """Gradient checkpointing: less memory for more time. Raises UserError for a model that doesn't offer it."""
    try:
        model.set_grad_checkpointing(True)
    except (AttributeError, AssertionError):
        raise UserError(f"train.grad_checkpointing: {name} doesn't offer it") from None


def freeze(model: nn.Module, optimizer: torch.optim.Optimizer, what: str) -> None:
    """Let the optimiser's parameters learn, but for "backbone" those below the head ("norm" has statistics, no parameters)."""
    in_head = {id(parameter) for parameter in head(model).parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(what != "backbone" or id(parameter) in in_head)


def train_mode(model: nn.Module, frozen: str) -> None:
    """model.train(), except for what is frozen: BatchNorm then uses its running statistics and leaves them alone."""
    model.train(frozen != "backbone")
    head(model).train()
    if frozen == "norm":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def head(model: nn.Module) -> nn.Module:
    """The last layer, which maps features to classes."""
    classifier = model.get_classifier()
    return nn.ModuleList(classifier) if isinstance(classifier, (tuple, list)) else classifier


# A fold's model on disk


@dataclass(frozen=True)
class Card:
    """What model.safetensors says of itself in its metadata: enough to predict with it, and where it came from."""

    competition: str
    run: str
    fold: str
    name: str
    kwargs: tuple[str, ...]
    classes: tuple[str, ...]
    input: ImageInput
    resize: str
    folds_sha256: str
    epochs: int
    scores: dict[str, float]


def save(model: nn.Module, card: Card, path: Path) -> None:
    """Weights and card in one file, written to a temporary name and renamed."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    # One metadata key: safetensors writes several in a random order, and equal models should be equal files.
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"card": json.dumps(asdict(card), sort_keys=True)})


def read_card(path: Path) -> Card:
    """Raises UserError where the file is absent, damaged, or not written by train.py."""
    try:
        with safe_open(path, "pt") as file:
            fields = json.loads((file.metadata() or {})["card"])
        fed = fields["input"]
        fields["input"] = ImageInput(fed["size"], tuple(fed["mean"]), tuple(fed["std"]))
        return Card(**fields | {"kwargs": tuple(fields["kwargs"]), "classes": tuple(fields["classes"])})
    except FileNotFoundError:
        raise UserError(f"{path}: no such model; train the fold first") from None
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path}: not a model that train.py wrote ({error!r})") from None


def load(path: Path, device: torch.device) -> tuple[nn.Module, Card]:
    """A fold's model in evaluation mode on `device`."""
    card = read_card(path)
    config = ModelConfig(name=card.name, weights="none", kwargs=card.kwargs, image_size=card.input.size)
    model = timm.create_model(card.name, pretrained=False, **_arguments(config, len(card.classes)))
    with safe_open(path, "pt") as file:
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  not a dict
    return model.eval().to(device), card


def _arguments(config: ModelConfig, classes: int) -> dict[str, object]:
    arguments = {"num_classes": classes, **config.arguments()}
    if config.dropout:
        arguments["drop_rate"] = config.dropout
    if config.drop_path:
        arguments["drop_path_rate"] = config.drop_path
    if config.image_size is not None and "img_size" in _accepted(config.name):
        arguments["img_size"] = config.image_size  # vision transformers fix their grid when they are made
    return arguments


def _accepted(name: str) -> set[str]:
    """Arguments of the class behind a timm model, as far as they can be seen: Swin and ViT take img_size."""
    module = inspect.getmodule(timm.model_entrypoint(name))
    classes = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, nn.Module)]
    own = [kind for kind in classes if kind.__module__ == module.__name__ and hasattr(kind, "forward_head")]
    return {parameter for kind in own for parameter in inspect.signature(kind.__init__).parameters}


def _build(config: ModelConfig, arguments: dict[str, object]) -> nn.Module:
    overlay = {"file": config.weights} if config.weights not in ("hub", "none") else None
    if config.weights == "hub" and not _hub_answers():
        hub.HF_HUB_OFFLINE = True  # what is in the cache still loads; without this five retries take 47 s
    try:
        return timm.create_model(config.name, pretrained=config.weights != "none", pretrained_cfg_overlay=overlay, **arguments)
    except TypeError as error:
        raise UserError(f"model.kwargs: {config.name} does not take them: {error}") from None
    except OSError as error:  # the hub's, urllib's and requests' errors all are
        raise UserError(
            f"the pretrained weights of {config.name} are not in the cache and can't be fetched ({_first_line(error)}); "
            "name a file (--model.weights FILE.safetensors), or train from scratch (--model.weights none)"
        ) from None
    except Exception as error:  # for a damaged file safetensors, pickle and timm's converters raise half a dozen kinds
        said = f"{type(error).__name__}: {_first_line(error)}"
        if config.kwargs and not _can_be_made(config.name, arguments):
            said = f"model.kwargs: {config.name} can't be made with {', '.join(config.kwargs)} ({said})"
        elif "No pretrained weights" in said:
            said = f"{config.name} has no pretrained weights on timm's hub; use --model.weights none or a file"
        elif "loading state_dict" in said:
            said = f"model.weights: {config.weights} holds another architecture than {config.name}: {_first_line(error)}"
        elif overlay is not None:
            said = f"model.weights: {config.weights} is damaged, or not a file of {config.name}'s weights ({said})"
        else:
            raise
        raise UserError(said) from None


def _can_be_made(name: str, arguments: dict[str, object]) -> bool:
    try:
        timm.create_model(name, pretrained=False, **arguments)
    except Exception:  # whatever a model's own code raises for an argument that it can't use
        return False
    return True


def _check_all_loaded(model: nn.Module, untouched: nn.Module, config: ModelConfig) -> None:
    """Every weight below the head must have come from the file, and every layer in the file must have found its place.

    timm takes a file that shares no layer with the model, or a ResNet-34's for a ResNet-18, without a word.
    """
    own = {id(parameter) for parameter in head(model).parameters()}
    auxiliary = ("aux1.fc2.", "aux2.fc2.")  # GoogLeNet's, made for the classes as its head is
    before = dict(untouched.named_parameters())
    weights = {
        name: weight
        for name, weight in model.named_parameters()
        if weight.ndim > 1 and id(weight) not in own and not name.startswith(auxiliary)
    }
    absent = [name for name, weight in weights.items() if torch.equal(weight, before[name])]
    if absent:
        raise UserError(
            f"model.weights: {config.weights} holds another architecture than {config.name}: "
            f"{len(absent)} of its {len(weights)} layers are not in the file, the first is {absent[0]}"
        )
    in_file = timm.models.load_state_dict(config.weights).keys()
    if not weights.keys() <= in_file:
        return  # timm renamed them on the way: there is nothing to compare
    kinds = {re.sub(r"\d+", "#", name) for name in weights}
    surplus = [name for name in in_file if name not in before and re.sub(r"\d+", "#", name) in kinds]
    if surplus:
        raise UserError(
            f"model.weights: {config.weights} holds a larger architecture than {config.name}: "
            f"{len(surplus)} layers of the file have no place in it, the first is {surplus[0]}"
        )


def _start_small(model: nn.Module, classes: int) -> None:
    """A new head starts at zero, so that every class is as likely as the next, as ViT and BiT are fine-tuned.

    timm's families draw theirs each in its own way. EfficientNet's and MobileNet's, from ± 1/√classes, began at a cross-entropy
    of 13 for two classes, and two epochs on 1,000 pictures ended at 1.49 instead of 0.29. Zero, not merely small: features can
    be of any size, and LAMB lets a small head grow by small steps only. The lectures' own networks start as the lectures say;
    AlexNet and GoogLeNet are torchvision's, and AlexNet's loss began at ten times ln(classes).
    """
    of_lectures = type(model).__module__.startswith("src.models.")
    if of_lectures and not isinstance(model, alexnet.AlexNet | googlenet.GoogLeNet):
        return
    for layer in head(model).modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and len(layer.weight) == classes:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)


def _image_input(model: nn.Module, config: ModelConfig) -> ImageInput:
    own = timm.data.resolve_model_data_config(model)
    return ImageInput(
        config.image_size or own["input_size"][1], config.mean or tuple(own["mean"]), config.std or tuple(own["std"])
    )


def _hub_answers() -> bool:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # only the proxy knows
    try:
        socket.create_connection((urlparse(hub.ENDPOINT).hostname, 443), timeout=5).close()
    except OSError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__
