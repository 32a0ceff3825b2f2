"""python -m src.explain.gradcam: a picture of where a run's model looks, or one line that says what is wrong."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from conftest import REPOSITORY, write_image
from src.config import ModelConfig
from src.data import image
from src.errors import UserError
from src.explain import cam, gradcam
from src.explain.gradcam import explain
from src.models import backbone
from src.training.run import Run

CLASSES = ("cat", "dog")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with models of folds 1 and 3, untrained."""
    for fold in ("1", "3"):
        config = ModelConfig(name="cifar_net", weights="none")
        model, fed = backbone.create(config, 2, seed=int(fold))
        card = backbone.Card("dogs_vs_cats", "a", fold, "cifar_net", (), CLASSES, fed, "squash", "ab", 1, {})
        folder = Run(tmp_path / "a").fold(fold)
        folder.mkdir(parents=True)
        backbone.save(model, card, folder / "model.safetensors")
    write_image(tmp_path / "cat.1.jpg", 0, 60, 80)
    return tmp_path / "a"


def width_of(path: Path) -> int:
    return image.read(path).shape[1]


def test_the_picture_and_the_map_of_the_predicted_class_stand_side_by_side(run: Path):
    written = explain(run, run.parent / "cat.1.jpg")
    assert written == run / "gradcam" / "cat.1.png"
    assert image.read(written).shape == (350, 640, 3)
    assert [file.name for file in written.parent.iterdir()] == ["cat.1.png"]


def test_another_class_has_a_map_of_its_own_beside_it(run: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    own = cam.gradcam

    def noted(model, images, classes=None, layer=None):
        asked.append((None if classes is None else classes.tolist(), layer))
        return own(model, images, classes, layer)

    monkeypatch.setattr(cam, "gradcam", noted)
    written = [explain(run, run.parent / "cat.1.jpg", wanted, layer="conv2") for wanted in CLASSES]
    assert [path.name for path in written] == ["cat.1-cat.png", "cat.1-dog.png"]
    assert sorted(width_of(path) for path in written) == [640, 960]  # the predicted class isn't shown twice
    assert asked == [(None, "conv2"), ([0], "conv2"), (None, "conv2"), ([1], "conv2")]


def test_a_class_that_nothing_speaks_for_is_told_so(run: Path, monkeypatch: pytest.MonkeyPatch):
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda axes, title: titles.append(title))
    own = cam.gradcam
    monkeypatch.setattr(cam, "gradcam", lambda *given, **more: (0 * own(*given, **more)[0], torch.tensor([[2.0, 0.0]])))
    explain(run, run.parent / "cat.1.jpg", "dog")
    assert titles == ["cat.1.jpg", "cat: 88.1%, nothing speaks for it", "dog: 11.9%, nothing speaks for it"]


def test_the_fold_asked_for_is_the_one_that_looks(run: Path):
    shown = [explain(run, run.parent / "cat.1.jpg", fold=fold).read_bytes() for fold in (None, "1", "3")]
    assert shown[0] == shown[1] != shown[2]


@pytest.mark.parametrize("kind", ["grey", "alpha", "tiny"])
def test_grey_transparent_and_tiny_pictures_are_looked_at_too(run: Path, kind: str):
    rng = np.random.default_rng(0)
    shape = {"grey": (40, 50), "alpha": (40, 50, 4), "tiny": (2, 1, 3)}[kind]
    cv2.imwrite(str(run.parent / "odd.png"), rng.integers(0, 256, shape, dtype=np.uint8))
    assert width_of(explain(run, run.parent / "odd.png")) == 640


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"wanted": "bird"}, r"--class bird: .*a knows cat, dog"),
        ({"fold": "0"}, r"a has no model of fold 0; there are 1, 3"),
        ({"layer": "conv3"}, r"CifarNet has no layer 'conv3'; it has conv1, pool, conv2, .*fc3"),
        ({"layer": "fc1"}, r"fc1 of CifarNet gives no maps"),
        ({"layer": "pool"}, r"pool is used more than once"),
        ({"picture": Path("absent.jpg")}, r"absent\.jpg: No such file"),
        ({"run": Path("runs/absent")}, r"runs/absent has no model"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(run: Path, wrong: dict, told: str):
    with pytest.raises(UserError, match=told) as error:
        explain(**{"run": run, "picture": run.parent / "cat.1.jpg"} | wrong)
    assert "\n" not in str(error.value)
    assert not (run / "gradcam").exists()


def test_the_command_prints_where_the_picture_is(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    picture = run.parent / "cat.1.jpg"
    monkeypatch.setattr(sys, "argv", ["gradcam", str(run), str(picture), "--class", "dog", "--fold", "3", "--layer", "conv2"])
    gradcam.main()
    written = Path(capsys.readouterr().out.strip())
    assert written.read_bytes() == explain(run, picture, "dog", "3", "conv2").read_bytes()


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    told = [sys.executable, "-m", "src.explain.gradcam", *map(str, arguments)]
    return subprocess.run(told, cwd=REPOSITORY, text=True, capture_output=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--class", "dog"), "error: command line: the following arguments are required: run, picture\n"),
        (("runs/a", "x.jpg", "--class"), "error: command line: argument --class: expected one argument\n"),
        (("runs/a", "x.jpg", "--clas=dog", "--frob"), "error: command line: unrecognized arguments: --clas=dog --frob\n"),
    ],
)
def test_a_mistyped_command_is_told_in_one_line(arguments: tuple[str, ...], told: str):
    done = command(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_help_needs_no_torch():
    seen = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "src.explain.gradcam", "--help"],
        cwd=REPOSITORY, text=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert "--class NAME" in seen.stdout
    assert " torch\n" not in seen.stderr
