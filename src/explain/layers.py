"""A network's layers by name, and what they give."""

import torch
from torch import nn

from src.errors import UserError


def find(model: nn.Module, name: str) -> nn.Module:
    """The layer of this dotted name, as in model.named_modules(). Raises UserError with those that exist at that place."""
    parent, found = "", model
    for part in name.split("."):
        children = dict(found.named_children())
        if part not in children:
            place = f"in {parent} there are" if parent else "it has"
            known = ", ".join(children) or "no layers within"
            raise UserError(f"{type(model).__name__} has no layer {name!r}; {place} {known}")
        parent, found = f"{parent}.{part}".lstrip("."), children[part]
    return found


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions by name, in their order. Raises UserError for a model that has none."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    if not found:
        raise UserError(f"{type(model).__name__} has no convolutions, so there are no filters to look at")
    return found


def run(model: nn.Module, images: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What the layer gives for images (n, channels, H, W), any shape, and the model's logits (n, classes), with their graph.

    Raises UserError for a layer that doesn't exist, is not used, or gives anything but one tensor a call.
    """
    kept: list[torch.Tensor] = []

    def keep(layer: nn.Module, given: tuple, output: torch.Tensor) -> torch.Tensor:
        kept.append(output)
        return output.clone() if isinstance(output, torch.Tensor) else output  # a ReLU in place must not change what is kept

    handle = find(model, name).register_forward_hook(keep)
    try:
        logits = model(images)
    finally:
        handle.remove()
    if len(kept) != 1 or not isinstance(kept[0], torch.Tensor):
        said = "is not used" if not kept else "is used more than once" if len(kept) > 1 else "gives more than one tensor"
        raise UserError(f"{name} {said} when {type(model).__name__} looks at an image; take another layer")
    return kept[0], logits


def as_maps(model: nn.Module, output: torch.Tensor, images: int, name: str) -> torch.Tensor:
    """A layer's output as maps (images, channels, h, w): (n, h, w, channels) as Swin's and the tokens (n, h * w, channels) of
    vision transformers are rearranged, their class token left out.

    Raises UserError for a layer whose output has no places, such as a linear one's.
    """
    if isinstance(output, torch.Tensor) and len(output) == images and output.ndim == 4:
        return output.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else output
    if isinstance(output, torch.Tensor) and len(output) == images and output.ndim == 3:
        for extra in (getattr(model, "num_prefix_tokens", 0), 0):  # CaiT's and XCiT's class token joins in the last blocks only
            tokens = output[:, extra:]
            side = round(tokens.shape[1] ** 0.5)
            if side**2 == tokens.shape[1]:
                return tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    gives = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
    raise UserError(f"{name} of {type(model).__name__} gives no maps ({gives}); take an earlier layer")
