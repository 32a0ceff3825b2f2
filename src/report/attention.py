"""Where a run looks when it errs: Grad-CAM (src/explain/cam.py) on out-of-fold rows, each by its own fold's model."""

import numpy as np
import torch

from src.data.image import fit
from src.errors import UserError
from src.explain import cam
from src.inference.predict import check_models
from src.models import backbone
from src.report import pictures
from src.report.album import Album
from src.report.oof import Oof
from src.training.device import choose_device

BATCH = 4  # images at once: little memory, also for vision transformers, whose graph begins at the image

Maps = dict[int, list[tuple[str, str | None]]]


def look(oof: Oof, album: Album, rows: np.ndarray) -> tuple[Maps, list[str]]:
    """What speaks for the predicted class of each of `rows`, and what for its label: {row: [(class, map over the picture), …]}.

    rows: (k,) int64, rows of `oof`. Maps are data URIs of JPEGs, None where nothing speaks for the class. A row whose picture
    can't be read has none; nor have a fold's rows where its model is absent, is not of this run's folds, or gives no maps:
    of these the second value says why, in a line each.
    """
    if oof.run.is_ensemble:
        return {}, [f"{oof.run.path} is an ensemble, which has no model of its own"]
    maps, reasons = {}, []
    for fold in sorted(set(oof.folds[rows])):
        try:
            maps |= _of_fold(oof, album, str(fold), rows[oof.folds[rows] == fold])
        except (UserError, RuntimeError) as error:  # RuntimeError: another version's weights, or too little memory
            first_line = str(error).partition("\n")[0]
            reasons.append(f"fold {fold}: {first_line}")
    return maps, reasons


def _of_fold(oof: Oof, album: Album, fold: str, rows: np.ndarray) -> Maps:
    check_models(oof.run, oof.config, [fold])
    device = choose_device("auto")
    model, card = backbone.load(oof.run.fold(fold) / "model.safetensors", device)
    maps: Maps = {}
    for first in range(0, len(rows), BATCH):
        batch = rows[first : first + BATCH]
        photographs = {row: picture for row in batch if (picture := album.photograph(oof.ids[row])) is not None}
        if not photographs:
            continue
        seen = [fit(picture, card.input.size, card.resize) for picture in photographs.values()]
        fed = card.input.normalise(torch.from_numpy(np.stack(seen)).to(device), channels_last=False)
        known = list(photographs)
        asked = [torch.from_numpy(classes[known]).to(device) for classes in (oof.predicted, oof.labels)]
        heats = [cam.gradcam(model, fed, classes)[0].cpu().numpy() for classes in asked]
        # Squashing cuts nothing off, so the map fits the photograph in its own shape.
        shown = photographs.values() if card.resize == "squash" else seen
        for row, picture, *of_row in zip(known, shown, *heats, strict=True):
            under, names = pictures.shrunk(picture), (oof.classes[k] for k in (oof.predicted[row], oof.labels[row]))
            drawn = (pictures.data_uri(cam.overlay(under, heat)) if heat.any() else None for heat in of_row)
            maps[int(row)] = list(zip(names, drawn, strict=True))
    return maps
