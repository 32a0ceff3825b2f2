"""What stands where in a picture (FCN-ResNet101): python -m src.explain.segmentation picture.jpg --weights FILE

Lecture 002, "Implementation of FCN with TorchVision": the network gives 21 logits for each pixel, Pascal VOC's 20 classes and
the background; the largest is the pixel's class, and each class has its colour.
"""

import contextlib
import io
import pickle
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision.models.segmentation import FCN_ResNet101_Weights, fcn_resnet101

from src import cli
from src.data import image
from src.errors import UserError
from src.explain.gradcam import Parser
from src.files import replacing
from src.models.backbone import ImageInput

PRETRAINED = FCN_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1
CLASSES = ("background", *PRETRAINED.meta["categories"][1:])

# Lecture 002, "Define the helper function": Pascal VOC's own colours
COLOURS = np.array(
    [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128),
        (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128),
        (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
    ],
    dtype=np.uint8,
)  # fmt: skip

FED = ImageInput(520, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # 520: the side that torchvision trained with


def create(weights: str = "hub") -> nn.Module:
    """fcn_resnet101 for CLASSES in evaluation mode. weights: "hub", or a .pth or .safetensors file of torchvision's weights.

    Raises UserError for a hub that can't be reached, and for a file that is absent, damaged, or another architecture's.
    """
    state = _of_hub() if weights == "hub" else _of_file(Path(weights))
    with torch.device("meta"):  # no memory, and no second spent on weights that the file replaces
        model = fcn_resnet101(weights=None, weights_backbone=None, num_classes=len(CLASSES), aux_loss=False)
    own = {name: tensor for name, tensor in state.items() if not name.startswith("aux_classifier.")}  # for training alone
    try:
        model.load_state_dict(own, assign=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        first = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise UserError(f"{weights} holds another architecture than fcn_resnet101 for 21 classes: {first[:120]}") from None
    return model.float().eval()


def segment(model: nn.Module, picture: np.ndarray) -> np.ndarray:
    """(H, W) uint8, a number into CLASSES for each pixel of a picture (H, W, 3) uint8, or grey (H, W), or with alpha (H, W, 4).

    model: as torchvision's, normalised images (1, 3, h, w) → {"out": logits (1, 21, h, w)}; it sees the picture with its
    longer side at 520 pixels, so that the time doesn't grow with the picture. Raises UserError for what is no picture.
    """
    colours = _colours(picture)
    height, width = colours.shape[:2]
    scale = FED.size / max(height, width)
    seen = image.resize(colours, max(1, round(height * scale)), max(1, round(width * scale)))
    with torch.inference_mode():
        logits = model.eval()(FED.normalise(torch.from_numpy(seen)[None], channels_last=False))["out"]
    classes = logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST)  # a class is no number to average


def decode(classes: np.ndarray) -> np.ndarray:
    """A class map (H, W) of integers as colours (H, W, 3) uint8: the lecture's decode_segmap.

    Raises UserError for a number beyond CLASSES, such as the 255 that Pascal VOC draws around its objects.
    """
    if classes.dtype.kind not in "iu" or (classes.size and not 0 <= classes.min() <= classes.max() < len(COLOURS)):
        raise UserError(f"a class map holds whole numbers from 0 to {len(COLOURS) - 1}; set VOC's borders, 255, to 0 first")
    return COLOURS[classes]


def shares(classes: np.ndarray) -> dict[str, float]:
    """The classes found in a map (H, W) and the part of its pixels that each covers, 0 … 1, the largest first."""
    counts = np.bincount(classes.ravel(), minlength=len(CLASSES)) / classes.size
    return {CLASSES[index]: float(counts[index]) for index in np.argsort(-counts, kind="stable") if counts[index]}


def overlay(picture: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) uint8 under the colours of its class map (H, W); the background stays as it is."""
    mixed = (0.4 * picture + 0.6 * decode(classes)).round().astype(np.uint8)
    return np.where(classes[..., None] == 0, picture, mixed)


def drawn(picture: np.ndarray, classes: np.ndarray) -> Figure:
    """The picture (H, W, 3) uint8, its class map over it, and a legend of the classes found with their shares."""
    figure = Figure((9.5, 3.6), dpi=100, layout="constrained")
    for place, shown in zip(figure.subplots(1, 2), (picture, overlay(picture, classes)), strict=True):
        place.imshow(shown)
        place.axis("off")
    handles = [
        Patch(facecolor=COLOURS[CLASSES.index(name)] / 255, edgecolor="black", label=f"{name} {share:.1%}")
        for name, share in shares(classes).items()
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    return figure


def as_convolution(linear: nn.Linear, kernel: int = 1) -> nn.Conv2d:
    """A linear layer as the convolution that gives the same on one window, and slides over larger maps (Long et al. 2015).

    kernel: side of the maps (channels, kernel, kernel) that were flattened into the layer; 1: they were averaged, or it follows
    another such convolution. Raises UserError for a side that can't be the layer's.
    """
    if linear.in_features % kernel**2:
        raise UserError(f"{linear.in_features} inputs are no maps of {kernel}x{kernel}")
    convolution = nn.Conv2d(linear.in_features // kernel**2, linear.out_features, kernel, bias=linear.bias is not None)
    convolution.weight = nn.Parameter(linear.weight.detach().reshape(convolution.weight.shape).clone())
    if linear.bias is not None:
        convolution.bias = nn.Parameter(linear.bias.detach().clone())
    return convolution


def transposed_side(
    side: int, kernel: int, stride: int = 1, padding: int = 0, output_padding: int = 0, dilation: int = 1
) -> int:
    """The side of what a transposed convolution gives: the convolution's formula solved for its input."""
    return (side - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1


def _colours(picture: np.ndarray) -> np.ndarray:
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,), (4,)) or not picture.size:
        raise UserError(f"a picture is (H, W), (H, W, 3) or (H, W, 4) uint8, not {picture.shape} {picture.dtype}")
    return np.ascontiguousarray(np.stack([picture] * 3, axis=2) if picture.ndim == 2 else picture[..., :3])


def _of_hub() -> dict[str, torch.Tensor]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # torch.hub's line with the cache's path, which comes in any case
            return PRETRAINED.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a file that arrived damaged
        raise UserError(
            f"the weights of fcn_resnet101 are not in the cache and can't be fetched ({error}); "
            f"download {PRETRAINED.url} elsewhere and name the file (--weights FILE)"
        ) from None


def _of_file(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (hub, or a .pth or .safetensors file of fcn_resnet101)") from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise UserError(f"{path} is damaged, or not a file of weights ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not weights by their names")
    return state


def main() -> None:
    parser = Parser(
        allow_abbrev=False,
        prog="python -m src.explain.segmentation",
        description="Write a picture of what stands where (FCN-ResNet101: Pascal VOC's 20 classes), with a legend.",
    )
    parser.add_argument("picture", type=Path, help="an image file")
    parser.add_argument("--weights", default="hub", help="hub (208 MB, once), or a .pth or .safetensors file of fcn_resnet101")
    parser.add_argument("--out", type=Path, help="the PNG to write; none: PICTURE-segmentation.png in the working folder")
    flags = parser.parse_args(sys.argv[1:])
    picture = image.read(flags.picture)  # before the weights: a mistyped path is told at once
    classes = segment(create(flags.weights), picture)
    path = flags.out or Path(f"{flags.picture.stem}-segmentation.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        drawn(picture, classes).savefig(partial, format="png")
    print(", ".join(f"{name} {share:.1%}" for name, share in shares(classes).items()))
    print(path)


if __name__ == "__main__":
    cli.run(main)
