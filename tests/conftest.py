"""What all tests share: the repository's commands run in a folder of their own, and tiny competitions on disk."""

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings

import commands

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"  # real competition data, where it is at hand

# Tiny models on busy cores: torch's threads would wait for each other ten times longer than they compute, in commands too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HOME"] = str(Path(tempfile.gettempdir()) / "no-hub")  # not what a developer's own cache and token would give

settings.register_profile("repository", deadline=None, max_examples=40)  # no deadline: shared cores stall now and then
settings.load_profile("repository")


@pytest.fixture
def command(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """command("train.py", "--fold", "0"): run a verb in tmp_path, without key, account or terminal.

    fresh: in a new interpreter, for what has to do with starting one; otherwise in a fork of one that has imported torch.
    """

    def run(
        verb: str, *arguments: object, cwd: Path = tmp_path, fresh: bool = False, **more: str
    ) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "KAGGLE_"))}
        called = (REPOSITORY / verb, list(map(str, arguments)), cwd, env | {"HOME": str(tmp_path)} | more)
        if fresh or not commands.FORKS:
            return commands.fresh(*called)
        return commands.forked(*called, tmp_path_factory.mktemp("streams"))

    return run


def write_image(path: Path, seed: int, height: int = 24, width: int = 32, hue: int | None = None) -> None:
    """A small JPEG or PNG of smooth noise; `hue` 0-179 tints it, so that classes can be learnt."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height))
    if hue is not None:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = hue
        hsv[..., 1] = np.maximum(hsv[..., 1], 120)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


def write_dogs_vs_cats(root: Path, rows: int = 20, test: int = 7) -> Path:
    """Dogs vs. Cats in Kaggle's layout: train/cat.0.jpg …, test/1.jpg …, sample_submission.csv."""
    for i in range(rows):
        write_image(root / "train" / f"cat.{i}.jpg", i, hue=20)
        write_image(root / "train" / f"dog.{i}.jpg", 1000 + i, hue=110)
    for i in range(1, test + 1):
        write_image(root / "test" / f"{i}.jpg", 2000 + i, hue=20 if i % 2 else 110)
    (root / "sample_submission.csv").write_text("id,label\n" + "".join(f"{i},0.5\n" for i in range(1, test + 1)))
    return root


def write_shopee(root: Path, rows: int = 3, test: int = 5, with_images: bool = True) -> Path:
    """Shopee in Kaggle's layout: 42 classes of `rows` images, a test.csv whose category is the placeholder 43."""
    classes = [f"{k:02d}" for k in range(42)]
    names = [(label, f"{label}{i:03d}abc.jpg") for label in classes for i in range(rows)]
    tests = [f"test{i:03d}.jpg" for i in range(test)]
    root.mkdir(parents=True, exist_ok=True)
    (root / "train.csv").write_text("filename,category\n" + "".join(f"{name},{label}\n" for label, name in names))
    (root / "test.csv").write_text("filename,category\n" + "".join(f"{name},43\n" for name in tests))
    if with_images:
        for i, (label, name) in enumerate(names):
            write_image(root / "train/train/train" / label / name, i, hue=int(label) * 4)
        for i, name in enumerate(tests):
            write_image(root / "test/test/test" / name, 5000 + i)
    return root


TINY_MODEL = ("--model.name", "cifar_net", "--model.weights", "none", "--model.image_size", "32")
