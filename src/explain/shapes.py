"""The layer table of lectures 000 to 002 for any model: python -m src.explain.shapes alexnet --size 224

Kernel, stride, padding and dilation; the size of each layer's output by the formula and by running it; parameters,
multiply-adds and receptive field.
"""

import math
import sys
from dataclasses import dataclass
from fractions import Fraction

import pandas as pd
import torch
from rich import table as drawing
from rich.console import Console
from timm.layers import AvgPool2dSame, Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle
from tyro.conf import Positional

from src import cli
from src.config import Config
from src.errors import UserError
from src.models.backbone import check_name, sketch

Pair = tuple[int, int]  # (height, width)
CONVOLUTION_OR_POOLING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
KINDS = (*CONVOLUTION_OR_POOLING, nn.AdaptiveAvgPool2d, nn.Linear)
PADDED_AS_NEEDED = (Conv2dSame, MaxPool2dSame, AvgPool2dSame)  # TensorFlow's way, as some of timm's EfficientNets have it
ATTENTION = {"scaled_dot_product_attention", "matmul", "__matmul__", "bmm", "einsum"}
EVERYTHING = (math.inf, 1)


def output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, ceil: bool = False
) -> tuple[Fraction, int]:
    """Height or width after a convolution or pooling: what the formula gives, and the whole number it stands for.

    (size + 2 padding - dilation (kernel - 1) - 1) / stride + 1, torch's and lecture 003's; 55.25 → 55, as the pixels at the
    end that fill no stride are left out. ceil: a pooling's ceil_mode rounds up, but starts no window in the padding.
    Raises UserError where the kernel has no place in the padded image.
    """
    reach = dilation * (kernel - 1) + 1
    exact = Fraction(size + 2 * padding - reach, stride) + 1
    whole = math.ceil(exact) if ceil else math.floor(exact)
    if ceil and (whole - 1) * stride >= size + padding:
        whole -= 1
    if whole < 1:
        spread = f", spread over {reach} by its dilation," if dilation > 1 else ""
        raise UserError(
            f"a kernel of {kernel} pixels{spread} has no place in an image of {size} padded by {padding}: "
            f"take an image of at least {reach - 2 * padding} pixels, or a padding of at least {math.ceil((reach - size) / 2)}"
        )
    return exact, whole


@dataclass(frozen=True)
class Layer:
    """A row of the table. None: this kind of layer has no such thing, or (padding, formula) it depends on the image."""

    name: str
    kind: str
    kernel: Pair | None
    stride: Pair | None
    padding: Pair | None
    dilation: Pair | None
    formula: tuple[tuple[Fraction, int], ...] | None  # of height and of width, as output_size gives them
    output: tuple[int, ...]  # by running it, without the batch: (channels, height, width) for maps
    parameters: int
    macs: int
    receptive_field: float  # pixels of the image's height that a value of the output depends on; inf: no kernel bounds it
    depth: int  # convolutions and linear layers on the longest way from the image to the output


@dataclass(frozen=True)
class Shapes:
    """A model's layers in the order in which they run. The totals hold what has no row, too: norms, tokens, attention."""

    layers: list[Layer]
    parameters: int
    macs: int

    @property
    def depth(self) -> int:
        """Layers with weights, as the papers count them: 8 for AlexNet, 16 for VGG-16, 22 for GoogLeNet, 34 for ResNet-34."""
        return max(layer.depth for layer in self.layers)

    @property
    def receptive_field(self) -> float:
        """Pixels that a place of the last maps sees, before they are flattened or pooled to one value; 1: there are no maps."""
        of_maps = [layer.receptive_field for layer in self.layers if len(layer.output) == 3 and max(layer.output[1:]) > 1]
        return max(of_maps, default=1)


def measure(model: nn.Module, input_size: tuple[int, int, int]) -> Shapes:
    """What happens to one image of (channels, height, width) in `model`, which is in evaluation mode, on any device.

    On the meta device (see backbone.sketch) torch computes all shapes and no numbers. A multiply-add counts once. Receptive
    fields follow convolutions and poolings, the largest where branches meet; attention and linear layers over whole maps see
    everything, and the gates of squeeze-and-excitation are not counted. Raises UserError naming the layer that the image
    does not fit.
    """
    names = {module: name for name, module in model.named_modules() if isinstance(module, KINDS)}
    layers, running = [], "the input"

    def before(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal running
        running = names[module]
        _formula(module, inputs[0])

    def after(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        _see_further(module, inputs[0], output)
        output.depth = getattr(inputs[0], "depth", 0) + hasattr(module, "weight")
        layers.append(_layer(names[module], module, inputs[0], output))

    hooks: list[RemovableHandle] = [module.register_forward_pre_hook(before) for module in names]
    hooks += [module.register_forward_hook(after) for module in names]
    try:
        image = torch.zeros(1, *input_size, device=next(model.parameters()).device)
        image.sees, image.depth = (1, 1), 0
        with torch.no_grad(), FlopCounterMode(display=False) as flops, _PassOn():
            model(image)
    except UserError as error:
        raise UserError(f"{running}: {error}") from None
    except (RuntimeError, AssertionError, ValueError) as error:
        said = str(error).strip().partition("\n")[0]
        size = "×".join(map(str, input_size))
        raise UserError(f"{running}: an image of {size} does not fit here, or right after it: {said}") from None
    finally:
        for hook in hooks:
            hook.remove()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Shapes(layers, parameters, flops.get_total_flops() // 2)


def _layer(name: str, module: nn.Module, maps: torch.Tensor, output: torch.Tensor) -> Layer:
    placed = isinstance(module, CONVOLUTION_OR_POOLING)
    padding = getattr(module, "padding", None)
    known = placed and not isinstance(module, PADDED_AS_NEEDED) and not isinstance(padding, str)
    weight = getattr(module, "weight", None)
    return Layer(
        name=name,
        kind=type(module).__name__,
        kernel=_pair(module.kernel_size) if placed else None,
        stride=_pair(module.stride) if placed else None,
        padding=_pair(padding) if known else None,
        dilation=_pair(getattr(module, "dilation", 1)) if placed else None,
        formula=_formula(module, maps),
        output=tuple(output.shape[1:]),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        macs=0 if weight is None else output[0].numel() * weight[0].numel(),
        receptive_field=getattr(output, "sees", EVERYTHING)[0],
        depth=getattr(output, "depth", 0),
    )


def _formula(module: nn.Module, maps: torch.Tensor) -> tuple[tuple[Fraction, int], ...] | None:
    """output_size of height and width; None where there is no kernel, or the padding depends on the image."""
    if not isinstance(module, CONVOLUTION_OR_POOLING) or isinstance(module, PADDED_AS_NEEDED):
        return None
    if isinstance(module.padding, str):
        return None
    settings = (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
    of_sides = zip(maps.shape[-2:], *map(_pair, settings), strict=True)
    return tuple(output_size(*of_side, ceil=getattr(module, "ceil_mode", False)) for of_side in of_sides)


# Receptive fields and depth


class _PassOn(TorchFunctionMode):
    """Every result sees what the tensors do that it was computed from, and is as deep as the deepest of them.

    `sees`: pixels of the image, and those of a step; `depth`: layers with weights.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if hasattr(leaf, "sees")]
        for tensor in pytree.tree_leaves(result):
            if given and isinstance(tensor, torch.Tensor):
                tensor.sees = EVERYTHING if function.__name__ in ATTENTION else max(leaf.sees for leaf in given)
                tensor.depth = max(leaf.depth for leaf in given)
        return result


def _see_further(module: nn.Module, maps: torch.Tensor, output: torch.Tensor) -> None:
    """A kernel of k sees k - 1 steps more of the image than one value below it, and strides make the steps longer."""
    seen, step = getattr(maps, "sees", EVERYTHING)
    if isinstance(module, nn.Linear):
        if maps.ndim == 2:  # whole maps, flattened; otherwise one position of them, or one token
            output.sees = EVERYTHING
    elif isinstance(module, nn.AdaptiveAvgPool2d):
        stride = maps.shape[-2] // output.shape[-2]
        output.sees = (seen + (maps.shape[-2] - (output.shape[-2] - 1) * stride - 1) * step, step * stride)
    else:
        reach = _pair(getattr(module, "dilation", 1))[0] * (_pair(module.kernel_size)[0] - 1)
        output.sees = (seen + reach * step, step * _pair(module.stride)[0])


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else tuple(value)


# The table


def table(shapes: Shapes) -> pd.DataFrame:
    """The table as the lectures print it, a row a layer, all of it text: as the command prints it and notebooks show it."""
    return pd.DataFrame([_row(layer) for layer in shapes.layers])


def drawn(shapes: Shapes) -> drawing.Table:
    """The same for a terminal, with the totals."""
    rows = table(shapes)
    own = sum({layer.name: layer.parameters for layer in shapes.layers}.values())
    totals = {"layer": "total", "parameters": f"{shapes.parameters:,}", "multiply-adds": f"{shapes.macs:,}"}
    if shapes.parameters > own:
        totals["kind"] = f"{shapes.parameters - own:,} parameters have no line"
    found = drawing.Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    for heading in rows:
        text = heading in ("layer", "kind")
        found.add_column(heading, totals.get(heading, ""), justify="left" if text else "right", overflow="fold")
    for row in rows.itertuples(index=False):
        found.add_row(*row)
    return found


def _row(layer: Layer) -> dict[str, str]:
    return {
        "layer": layer.name,
        "kind": layer.kind,
        "kernel": _sides(layer.kernel),
        "stride": _sides(layer.stride),
        "padding": _sides(layer.padding),
        "dilation": _sides(layer.dilation),
        "by the formula": "–" if layer.formula is None else _sides(tuple(_rounded(*side) for side in layer.formula)),
        "output": "×".join(map(str, layer.output)),
        "parameters": f"{layer.parameters:,}",
        "multiply-adds": f"{layer.macs:,}",
        "sees": "all" if layer.receptive_field == math.inf else str(layer.receptive_field),
    }


def _sides(pair: tuple | None) -> str:
    """ "11" for (11, 11), "3×5" for (3, 5)."""
    if pair is None:
        return "–"
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}×{pair[1]}"


def _rounded(exact: Fraction, whole: int) -> str:
    return str(whole) if exact == whole else f"{float(exact):g} → {whole}"


@dataclass(frozen=True)
class Flags:
    """The layers of a model: kernels, the sizes of their outputs by the formula and by running them, what they cost."""

    model: Positional[str] = "alexnet"
    """any of timm's models, or this repository's"""
    size: int | None = None
    """pixels of the image's side; none: the model's own"""


def main() -> None:
    flags, _ = cli.parse(Flags, sys.argv[1:], Config(), Flags.__doc__, sections=())
    check_name(flags.model, "model")
    model = sketch(flags.model, flags.size)
    channels, *own = model.pretrained_cfg["input_size"]
    height, width = (flags.size, flags.size) if flags.size is not None else own
    shapes = measure(model, (channels, height, width))
    print(f"{flags.model}, an image of {channels}×{height}×{width}. A side after a convolution or pooling:")
    print("floor((side + 2 padding - dilation (kernel - 1) - 1) / stride + 1); sees: pixels of the image, receptive field\n")
    Console(width=None if sys.stdout.isatty() else 200).print(drawn(shapes))


if __name__ == "__main__":
    cli.run(main)
