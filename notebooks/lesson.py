"""What the notebooks share; `import lesson` comes first in each. It works in the repository's folder.

In the light form (LIGHT=1 in the environment) that is an empty temporary folder instead: no competition's data, no runs, and
nothing is asked of timm's hub, so that a notebook gives the same on every machine. LIGHT=FOLDER works in that folder, as the
tests do, so that the short runs on digits are trained once for all notebooks.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
LIGHT = os.environ.get("LIGHT", "0") != "0"
os.chdir(REPOSITORY if not LIGHT else os.environ["LIGHT"] if os.environ["LIGHT"] != "1" else tempfile.mkdtemp(prefix="lesson-"))
sys.path.insert(0, str(REPOSITORY))
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's wish for ipywidgets

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_sample_image
from torch import nn

from src import config as configuration
from src.config import Config, ModelConfig
from src.data import image, prepare
from src.errors import UserError
from src.models import backbone
from src.models.backbone import ImageInput
from src.training.run import Run

plt.rcParams.update({"figure.dpi": 80, "figure.facecolor": "white", "axes.spines.top": False, "axes.spines.right": False})


def competition(name: str) -> pd.DataFrame | None:
    """id, path, label of a built-in competition's training pictures that are there; none: its data is not at hand."""
    try:
        prepared = prepare.prepare(Config(competition=configuration.built_in(name)), said=lambda _: None)
    except UserError:
        return None
    rows = prepared.train[prepared.train["found"]]
    return rows.assign(path=[prepared.root / path for path in rows["path"]])[["id", "path", "label"]].reset_index(drop=True)


def photographs(count: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """Names and pictures, uint8 (H, W, 3): `count` of Dogs vs. Cats where its data is at hand, else scikit-learn's two."""
    rows = competition("dogs_vs_cats")
    if rows is None:
        return {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    drawn = rows.sample(count, random_state=seed)
    return {id: image.read(path) for id, path in zip(drawn["id"], drawn["path"], strict=True)}


def runs(competition: str) -> list[Run]:
    """The runs under runs/ that have a model for this competition, the newest first."""
    models = sorted(Path("runs").glob("*/fold-*/model.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = dict.fromkeys(path.parent.parent for path in models)
    return [Run(path) for path in found if configuration.load_run(path).competition.name == competition]


def digits() -> Run:
    """Fold 0 of the embedded competition as runs/lesson-digits, trained in seconds where it isn't there yet."""
    run = Run(Path("runs/lesson-digits"))
    if not run.trained_folds():
        command("train.py --fold 0 --name lesson-digits --train.epochs 4 --tracking.mode disabled --resume")
    return run


def model(name: str, classes: int = 1000) -> tuple[nn.Module, ImageInput, bool]:
    """A model in evaluation mode, its input, and whether it has pretrained weights: timm's, where hub or cache give them."""
    if not LIGHT:
        try:
            return *_ready(ModelConfig(name=name), classes), True
        except UserError:
            pass  # no hub, or no weights there: the caller is told by the False
    made, fed = _ready(ModelConfig(name=name, weights="none"), classes)
    for layer in backbone.head(made).modules():  # a new head is zero, and passes no gradient on
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return made, fed, False


def command(line: str) -> None:
    """Run a verb, as in command("train.py --fold 0"), and print what it says. Raises RuntimeError where it fails."""
    verb, *arguments = line.split()
    print(f"$ python {line}")
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / verb), *arguments],
        env=plain | {"TERM": "dumb"}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    print(done.stdout)
    if done.returncode:
        raise RuntimeError(f"{verb} ended with {done.returncode}")


def gallery(pictures: Sequence[np.ndarray], titles: Sequence[str] = (), columns: int = 4, width: float = 2.2) -> None:
    """Pictures (H, W) or (H, W, 3) in rows of `columns`, each `width` inches wide; grey ones from their least to their most."""
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, (width + 0.3) * rows), squeeze=False)
    for place in axes.flat:
        place.axis("off")
    for place, picture, title in zip(axes.flat, pictures, titles or [""] * len(pictures), strict=False):
        place.imshow(picture, cmap="gray")
        place.set_title(title, fontsize=9)
    figure.tight_layout()
    plt.show()


def _ready(config: ModelConfig, classes: int) -> tuple[nn.Module, ImageInput]:
    made, fed = backbone.create(config, classes)
    return made.eval(), fed
