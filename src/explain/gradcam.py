"""Where a run's model looks: python -m src.explain.gradcam runs/NAME image.jpg --class dog"""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from src import cli
from src.errors import UserError
from src.files import replacing


def explain(run: Path, picture: Path, wanted: str | None = None, fold: str | None = None, layer: str | None = None) -> Path:
    """Write runs/NAME/gradcam/PICTURE.png: the picture as the model sees it, and its map for the predicted class.

    wanted: also for this class; fold: whose model, none: the first trained; layer: none: the last that has places.
    Returns the path. Raises UserError for a run without models, an unreadable picture, or a class or layer that isn't there.
    """
    import torch
    from matplotlib.figure import Figure

    from src.data import image
    from src.explain import cam
    from src.models import backbone
    from src.training.run import Run

    known = Run(run)
    trained = known.trained_folds()
    if (fold or (trained or ["0"])[0]) not in trained:
        raise UserError(
            f"{run} has no model of fold {fold}; there are {', '.join(trained)}" if trained else f"{run} has no model"
        )
    model, card = backbone.load(known.fold(fold or trained[0]) / "model.safetensors", torch.device("cpu"))
    if wanted is not None and wanted not in card.classes:
        raise UserError(f"--class {wanted}: {run} knows {', '.join(card.classes)}")
    seen = image.fit(image.read(picture), card.input.size, card.resize)
    fed = card.input.normalise(torch.from_numpy(seen)[None], channels_last=False)
    heat, logits = cam.gradcam(model, fed, layer=layer)
    chances = logits.softmax(dim=1)[0]
    panels = {int(logits.argmax()): heat[0].numpy()}
    if wanted is not None:
        index = card.classes.index(wanted)
        panels[index] = cam.gradcam(model, fed, torch.tensor([index]), layer)[0][0].numpy()
    figure = Figure((3.2 * (1 + len(panels)), 3.5), dpi=100, layout="constrained")
    axes = figure.subplots(1, 1 + len(panels))
    axes[0].imshow(seen)
    axes[0].set_title(picture.name)
    for place, (index, each) in zip(axes[1:], panels.items(), strict=True):
        place.imshow(cam.overlay(seen, each))
        place.set_title(f"{card.classes[index]}: {chances[index]:.1%}{'' if each.any() else ', nothing speaks for it'}")
    for place in axes:
        place.axis("off")
    path = run / "gradcam" / f"{picture.stem}{'' if wanted is None else f'-{wanted}'}.png"
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
    return path


class Parser(argparse.ArgumentParser):
    """argparse's, whose complaints are one line as every verb's are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"command line: {message}")


def main() -> None:
    parser = Parser(
        allow_abbrev=False,
        prog="python -m src.explain.gradcam",
        description="Write a picture of where a model looks (Grad-CAM).",
    )
    parser.add_argument("run", type=Path, help="the run's folder, runs/NAME")
    parser.add_argument("picture", type=Path, help="an image file")
    parser.add_argument("--class", dest="wanted", metavar="NAME", help="also the map for this class")
    parser.add_argument("--fold", help="whose model; none: the first trained")
    parser.add_argument("--layer", help="as in model.named_modules(); none: the last that has places")
    given = parser.parse_args(sys.argv[1:])
    print(explain(**vars(given)))


if __name__ == "__main__":
    cli.run(main)
