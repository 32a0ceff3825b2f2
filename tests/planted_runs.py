"""Runs whose predictions are planted: no training, no images, and the truth known on the test rows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import save_file
from scipy.special import softmax

from src.competitions import metrics
from src.competitions.predictions import Predictions
from src.data import folds
from src.files import sha256

CLASSES = ("cat", "dog")
TEST = 300
VIEWS = "identity, hflip; mean of probabilities"


def plant_competition(root: Path, rows: int = 600, metric: str = "log_loss", seed: int = 0) -> np.ndarray:
    """Tables of a competition of two classes in root/data/planted, its YAML in root/planted.yaml; returns the true logits
    (rows + TEST, classes) from which the labels were drawn."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((rows + TEST, 2))
    truth[:, 1] = rng.normal(0, 2.5, rows + TEST)
    labels = np.array(CLASSES)[(rng.random(len(truth)) < softmax(truth, axis=1)[:, 1]).astype(int)]
    data = root / "data/planted"
    data.mkdir(parents=True)
    train = pd.DataFrame({"id": [f"{i:05d}" for i in range(rows)], "label": labels[:rows]})
    test = pd.DataFrame({"id": [f"t{i}" for i in np.random.default_rng(1).permutation(TEST)]})
    answer = dict(zip([f"t{i}" for i in range(TEST)], labels[rows:], strict=True))
    train.to_csv(data / "train.csv", index=False)
    test.to_csv(data / "test.csv", index=False)
    test.assign(label=test["id"].map(answer)).to_csv(data / "solution.csv", index=False)
    competition = {
        "name": "planted", "train_csv": "train.csv", "test_csv": "test.csv", "solution_csv": "solution.csv",
        "classes": list(CLASSES), "metric": metric, "submission_values": "probability", "positive": "dog",
    }  # fmt: skip
    (root / "planted.yaml").write_text(yaml.safe_dump({"competition": competition, "tracking": {"mode": "disabled"}}))
    return truth


def plant_run(
    root: Path,
    name: str,
    truth: np.ndarray,
    noise: float = 1.0,
    scale: float = 1.0,
    count: int = 3,
    trained: tuple[int, ...] | None = None,
    tta: bool = True,
    test: bool = True,
    split: int = 0,
    seed: int = 0,
    classes: tuple[str, ...] = CLASSES,
) -> Path:
    """runs/NAME over `count` folds (drawn by the seed `split`), as train.py and predict.py would leave it.

    A fold's model sees the truth with noise of its own, times `scale`. trained: the folds that are there.
    """
    rng = np.random.default_rng([seed, len(name), *name.encode()])
    run = root / "runs" / name
    run.mkdir(parents=True)
    (run / "config.yaml").write_text((root / "planted.yaml").read_text())
    table = pd.read_csv(root / "data/planted/train.csv", dtype=str)
    table = table.assign(group="", fold=np.random.default_rng(split).permutation(len(table)) % count)
    digest = folds.write_folds(table, run / "folds.csv")
    metric = yaml.safe_load((root / "planted.yaml").read_text())["competition"]["metric"]
    rows = len(table)
    for fold in range(count) if trained is None else trained:
        folder = run / f"fold-{fold}"
        folder.mkdir()
        seen = (scale * (truth + rng.normal(0, noise, truth.shape))).astype(np.float32)
        held = (table["fold"] == fold).to_numpy()
        oof = Predictions(table["id"].to_numpy(dtype=str)[held], seen[:rows][held], classes)
        oof.save(folder / "oof.npz")
        labels = (table["label"][held] == CLASSES[1]).to_numpy().astype(np.int64)
        score = metrics.score(metric, labels, oof.probabilities())
        card = {"folds_sha256": digest, "scores": {f"val_{metric}": score}}
        save_file({"w": np.full(4, fold)}, folder / "model.safetensors", metadata={"card": json.dumps(card)})
        made_by = {"views": VIEWS if tta else "identity", "model": sha256(folder / "model.safetensors")}
        if tta:
            replace(oof, **made_by).save(folder / "oof_tta.npz")
        if test:
            names = np.array([f"t{i}" for i in range(TEST)])
            Predictions(names, seen[rows:], classes, **made_by).save(folder / "test.npz")
    return run
