"""What several models say of the same pictures, and where they look: lecture 001's fourth homework ("HW4").

Its table has a row for each network (AlexNet, VGG, ResNet-18) and a column each for the class predicted and one assigned, both
with their Grad-CAM maps.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from timm.data import ImageNetInfo
from torch import nn

from src.data import image
from src.errors import UserError
from src.explain import cam
from src.models.backbone import ImageInput

SIDE = 224  # of the pictures drawn, whatever side the models see


@dataclass(frozen=True)
class Judge:
    """A model with all that it takes to ask it about a picture: its input, its classes' names, how pictures become squares."""

    model: nn.Module
    fed: ImageInput
    classes: Sequence[str]
    resize: str = "crop"


@dataclass(frozen=True)
class Verdict:
    """What one model says of one picture: classes as indices and names, their probabilities, and the maps (h, w) in 0 … 1."""

    picture: str
    model: str
    predicted: int
    predicted_name: str
    predicted_probability: float
    assigned: int
    assigned_name: str
    assigned_probability: float
    seen: np.ndarray  # (SIDE, SIDE, 3) uint8
    predicted_map: np.ndarray
    assigned_map: np.ndarray


def imagenet_classes() -> list[str]:
    """The 1000 names of ImageNet's classes, in the order of every timm model that was pretrained on them."""
    return ImageNetInfo().label_descriptions()


def judge(judges: Mapping[str, Judge], pictures: Mapping[str, np.ndarray], assigned: Mapping[str, str | int]) -> list[Verdict]:
    """A verdict for each picture (H, W, 3) uint8 by each model, picture by picture.

    assigned: for each picture the class to ask about beside the predicted one, by name or index. Raises UserError for a class
    that a model doesn't know, with the nearest, and as cam.gradcam does.
    """
    return [
        _ask(each, model, name, picture, assigned[name]) for name, picture in pictures.items() for model, each in judges.items()
    ]


def table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The homework's table: a row for each picture and model; class indices, names and probabilities 0 … 1."""
    columns = ("picture", "model", "predicted", "predicted_name", "predicted_probability")
    columns += ("assigned", "assigned_name", "assigned_probability")
    return pd.DataFrame([{column: getattr(verdict, column) for column in columns} for verdict in verdicts], columns=columns)


def drawn(verdicts: Sequence[Verdict]) -> Figure:
    """A row for each verdict: what the model sees, the map of the predicted class, and that of the assigned one."""
    figure = Figure((6.6, 2.35 * len(verdicts)), layout="constrained")
    for row, verdict in zip(figure.subplots(len(verdicts), 3, squeeze=False), verdicts, strict=True):
        row[0].imshow(verdict.seen)
        row[0].set_title(f"{verdict.model}: {verdict.picture}", fontsize=9)
        for place, which in ((row[1], "predicted"), (row[2], "assigned")):
            heat = getattr(verdict, f"{which}_map")
            place.imshow(cam.overlay(verdict.seen, heat))
            name, chance = getattr(verdict, f"{which}_name"), getattr(verdict, f"{which}_probability")
            nothing = "" if heat.any() else "\nnothing speaks for it"
            place.set_title(f"{which}: {name.split(',')[0]} {chance:.1%}{nothing}", fontsize=9)
        for place in row:
            place.axis("off")
    return figure


def _ask(judge: Judge, model: str, name: str, picture: np.ndarray, wanted: str | int) -> Verdict:
    index = _index(judge.classes, wanted, model)
    seen = image.fit(picture, judge.fed.size, judge.resize)
    fed = judge.fed.normalise(torch.from_numpy(seen)[None], channels_last=False)
    (of_predicted,), logits = cam.gradcam(judge.model, fed)
    (of_assigned,), _ = cam.gradcam(judge.model, fed, torch.tensor([index]))
    chances, predicted = logits[0].softmax(dim=0), int(logits.argmax())
    return Verdict(
        name, model, predicted, judge.classes[predicted], float(chances[predicted]),
        index, judge.classes[index], float(chances[index]),
        image.resize(seen, SIDE, SIDE), of_predicted.cpu().numpy(), of_assigned.cpu().numpy(),
    )  # fmt: skip


def _index(classes: Sequence[str], wanted: str | int, model: str) -> int:
    """ "dog", or "dog, domestic dog", or 1, as an index into the classes."""
    if isinstance(wanted, str):
        found = [i for i, name in enumerate(classes) if wanted in (name, *name.split(", "))]
        if not found:
            near = difflib.get_close_matches(wanted, [word for name in classes for word in name.split(", ")], 3)
            hint = f"did you mean {', '.join(near)}?" if near else f"it knows {', '.join(classes[:5])} …"
            raise UserError(f"{model} has no class {wanted!r}; {hint}")
        return found[0]
    if not 0 <= wanted < len(classes):
        raise UserError(f"{model} has no class {wanted}; they are numbered 0 to {len(classes) - 1}")
    return wanted
