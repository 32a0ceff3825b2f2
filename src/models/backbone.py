"""Backbones: any of timm's models, and the lectures' own networks, by the same call.

Pretrained weights come from timm's hub, from a local .safetensors or .pth file (as kernels without internet need it), or
not at all. Input size, mean and std are the model's own unless the configuration says otherwise.
"""

import difflib
import hashlib
import json
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import timm
import torch
from huggingface_hub import constants as hub
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import nn

from src.config import ModelConfig
from src.errors import UserError
from src.files import parse_json, replacing
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
    weights,
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
    _check_kwargs(config)
    arguments = _arguments(config, classes)
    torch.manual_seed(seed)
    model, in_file = _build(config, arguments)
    if in_file is not None:
        torch.manual_seed(seed)
        untouched = timm.create_model(config.name, pretrained=False, **arguments)
        weights.check_loaded(config.weights, config.name, _below_head(model), untouched, in_file)
    if config.weights == "none" or model.pretrained_cfg["num_classes"] != classes:  # by which timm leaves a file's head out
        _start_small(model, classes)
    fed = _image_input(model, config)
    made = f"{config.name} with {', '.join(config.kwargs)}" if config.kwargs else config.name
    logits = check_size(
        model, made, fed.size, "model.kwargs" if config.kwargs and config.image_size is None else "model.image_size"
    )
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, classes):
        raise UserError(f"model.{'kwargs' if config.kwargs else 'name'}: {made} does not give one logit for each class")
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
    with torch.device("meta"):
        return timm.create_model(name, **_size_argument(name, size)).eval()


def check_size(model: nn.Module, name: str, size: int, key: str) -> torch.Tensor:
    """One black image of `size` pixels through the model, before data is touched: its logits (1, classes).

    Raises UserError naming the knob `key` where the model can't work with it.
    """
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            return model.eval()(torch.zeros(1, 3, size, size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"{key}: {name} can't work with {size} pixels: {_first_line(error)}") from None


def check_other_size(model: nn.Module, name: str, size: int, key: str) -> None:
    """The same for a size beside model.image_size: most vision transformers are made for one grid of patches.

    Others, as RepVGG, take a size and are the same model for all.
    """
    if _size_argument(name, size) and not _same_shapes(model, sketch(name, size)):
        raise UserError(f"{key}: {name} is made for one image size; use model.image_size alone")
    check_size(model, name, size, key)


def _same_shapes(model: nn.Module, other: nn.Module) -> bool:
    """Whether the weights below the head have the same shapes, as far as both models have them."""
    shapes = {name: weight.shape for name, weight in other.named_parameters()}
    return all(shapes.get(name, weight.shape) == weight.shape for name, weight in _below_head(model).items())


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
    digest: str = ""  # of the weights and of all else that stands here; models of old have none


def save(model: nn.Module, card: Card, path: Path) -> None:
    """Weights and card in one file, written to a temporary name and renamed."""
    tensors: dict[str, torch.Tensor] = {}
    written: set[int] = set()
    for name, tensor in model.state_dict().items():
        shared = tensor.untyped_storage().data_ptr() in written  # CoaT's layers share weights: each name gets its own copy
        written.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor.cpu().clone().contiguous() if shared else tensor.cpu().contiguous()
    card = replace(card, digest=_digest(tensors, card))
    # One metadata key: safetensors writes several in a random order, and equal models should be equal files.
    whole = serialize(tensors, metadata={"card": json.dumps(asdict(card), sort_keys=True)})
    with replacing(path) as partial:
        partial.write_bytes(whole)  # not by safetensors, whose error for a full disk is no OSError


def _digest(tensors: dict[str, torch.Tensor], card: Card) -> str:
    """Of the weights' bytes with their names and shapes, and of the card: 0.1 s for 100 MB."""
    digest = hashlib.blake2b(json.dumps(asdict(replace(card, digest="")), sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_card(path: Path) -> Card:
    """Raises UserError where the file is absent, damaged, or not written by train.py."""
    try:
        with safe_open(path, "pt") as file:
            return parse_json((file.metadata() or {})["card"], Card)
    except FileNotFoundError:
        raise UserError(f"{path}: no such model; train the fold first") from None
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path}: not a model that train.py wrote ({' '.join(str(error).split())})") from None


def load(path: Path, device: torch.device) -> tuple[nn.Module, Card]:
    """A fold's model in evaluation mode on `device`."""
    card = read_card(path)
    config = ModelConfig(name=card.name, weights="none", kwargs=card.kwargs, image_size=card.input.size)
    model = timm.create_model(card.name, pretrained=False, **_arguments(config, len(card.classes)))
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    if card.digest and card.digest != _digest(tensors, card):
        raise UserError(f"{path}: damaged after it was written: copy it again, or train the fold anew")
    model.load_state_dict(tensors)
    return model.eval().to(device), card


OURS = {  # arguments of timm.create_model that other knobs and the competition decide, and what to use instead
    "num_classes": "the competition's classes decide it",
    "in_chans": "images are always fed as RGB",
    "img_size": "use model.image_size",
    "drop_rate": "use model.dropout",
    "drop_path_rate": "use model.drop_path",
    **dict.fromkeys(("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"), "use model.weights"),
    **dict.fromkeys(("features_only", "out_indices"), "a classifier is trained, and needs its head"),
    **dict.fromkeys(("device", "dtype"), "use train.device and train.precision"),
}


def _check_kwargs(config: ModelConfig) -> None:
    """Raises UserError for an argument that is decided elsewhere. A card's kwargs aren't asked: older runs may have them."""
    for key in config.arguments():
        if key in OURS:
            raise UserError(f"model.kwargs: {key} can't be set here: {OURS[key]}")


def _arguments(config: ModelConfig, classes: int) -> dict[str, object]:
    arguments = {"num_classes": classes, **config.arguments()}
    if config.dropout:
        arguments["drop_rate"] = config.dropout
    if config.drop_path:
        arguments["drop_path_rate"] = config.drop_path
    return arguments | _size_argument(config.name, config.image_size)


@lru_cache
def _size_argument(name: str, size: int | None) -> dict[str, int]:
    """What makes a model for `size` pixels: vision transformers fix their grid when they are made, and take img_size.

    Tried without memory for weights, as no signature tells: many models pass img_size on through **kwargs.
    """
    if size is None:
        return {}
    try:
        with torch.device("meta"):
            timm.create_model(name, img_size=size)
    except TypeError:
        return {}
    except Exception:
        pass
    return {"img_size": size}


def _build(config: ModelConfig, arguments: dict[str, object]) -> tuple[nn.Module, Collection[str] | None]:
    """The model with its pretrained weights, and the names in their file, where they come from one."""
    if config.weights == "hub" and not weights.hub_answers():
        hub.HF_HUB_OFFLINE = True  # what is in the cache still loads; without this five retries take 47 s
    overlay = None
    try:
        if config.weights not in ("hub", "none"):
            with torch.device("meta"):
                names = timm.create_model(config.name, **arguments).state_dict().keys()
            overlay = {"state_dict": weights.read(config.weights, names)}
        model = timm.create_model(config.name, pretrained=config.weights != "none", pretrained_cfg_overlay=overlay, **arguments)
    except UserError:
        raise
    except Exception as error:  # safetensors, pickle, the hub and timm's models raise a dozen kinds
        raise UserError(_why_not_made(config, arguments, error)) from None
    model.pretrained_cfg["state_dict"] = None  # it has done its work, and would be in every copy of the model
    return model, overlay and overlay["state_dict"].keys()


def _why_not_made(config: ModelConfig, arguments: dict[str, object], error: Exception) -> str:
    """Which knob is to blame, in one line."""
    name, first = config.name, _first_line(error)
    said = f"{type(error).__name__}: {first}"
    if not _can_be_made(name, arguments):
        if config.image_size is not None and _can_be_made(name, arguments | {"img_size": None}):
            return f"model.image_size: {name} can't work with {config.image_size} pixels ({said})"
        if isinstance(error, TypeError):
            return f"model.kwargs: {name} does not take them: {first}"
        return f"model.kwargs: {name} can't be made with {', '.join(config.kwargs)} ({said})"
    if "No pretrained weights" in first:
        return f"{name} has no pretrained weights on timm's hub; use --model.weights none or a file"
    if config.weights != "hub" and "loading state_dict" in first:
        return f"model.weights: {config.weights} holds another architecture than {name}: {first}"
    if config.weights != "hub":
        return f"model.weights: {config.weights} is damaged, or not a file of {name}'s weights ({said})"
    if "loading state_dict" in first:
        changed = [*config.kwargs, *([f"image_size={config.image_size}"] if config.image_size is not None else [])]
        return (
            f"model.weights: {name}'s from the hub don't fit it with {', '.join(changed)} ({first}); use --model.weights none"
        )
    return (
        f"the pretrained weights of {name} are not in the cache and can't be fetched ({said}); "
        "name a file (--model.weights FILE.safetensors), or train from scratch (--model.weights none)"
    )


def _can_be_made(name: str, arguments: dict[str, object]) -> bool:
    try:
        timm.create_model(name, pretrained=False, **arguments)
    except Exception:  # whatever a model's own code raises for an argument that it can't use
        return False
    return True


def _below_head(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters but the head's, and those of GoogLeNet's auxiliary heads, which are made for the classes too."""
    own = {id(parameter) for parameter in head(model).parameters()}
    auxiliary = ("aux1.fc2.", "aux2.fc2.")
    named = model.named_parameters()
    return {name: parameter for name, parameter in named if id(parameter) not in own and not name.startswith(auxiliary)}


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


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__
