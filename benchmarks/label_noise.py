"""How many planted wrong labels the report's list of suspects finds, on real pictures.

    python benchmarks/label_noise.py runs/NAME [--share 0.03] [--seeds 3]

NAME: a linear probe (`train.epochs: 0`) whose features are still cached. Flips the labels of a share of the rows to another
class, fits the folds' heads anew on the wrong labels as train.py does, and asks for suspects among the held-out rows.
Prints precision and recall of the suspects, and for comparison how many of the rows with the largest loss were flipped. A
suspect that wasn't planted need not be a false alarm: labels that were wrong before count against precision here.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.config import Config
from src.data import folds, prepare
from src.models import backbone
from src.report import noise, oof
from src.training import probe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--share", type=float, default=0.03, help="of the labels to flip")
    parser.add_argument("--seeds", type=int, default=3, help="how often, with other rows flipped each time")
    arguments = parser.parse_args()
    held_out = oof.read(arguments.run)
    config, classes = held_out.config, held_out.classes
    prepared = prepare.prepare(config, lambda _: None)
    table = folds.read_folds(held_out.run.folds_csv())
    table["path"] = prepared.train.set_index("id")["path"].reindex(table["id"]).to_numpy()
    before = noise.suspects(held_out.labels, held_out.probabilities)
    print(f"{held_out.run.name}: {len(table):,} rows, accuracy {held_out.correct.mean():.4f}, {len(before)} suspects as it is")
    model, card = backbone.load(held_out.run.fold(held_out.folds[0]) / "model.safetensors", torch.device("cpu"))
    cached = probe.cached_features(model, card.input, config, prepared.root, table, torch.device("cpu"), probe.FEATURES, print)
    features = np.stack(cached.loc[table["id"]].to_list())
    labels = held_out.run.labels(table["id"].to_numpy(), classes)
    for seed in range(arguments.seeds):
        given, flipped = plant(labels, len(classes), arguments.share, seed)
        probabilities = predict(model, features, given, table, len(classes), config)
        print(f"seed {seed}: {judged(given, probabilities, flipped)}", flush=True)


def plant(labels: np.ndarray, classes: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is flipped to another class, drawn evenly, and which were: (n,) bool."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    given = labels.copy()
    given[rows] = (labels[rows] + rng.integers(1, classes, len(rows))) % classes
    return given, given != labels


def predict(
    model: torch.nn.Module, features: np.ndarray, labels: np.ndarray, table: pd.DataFrame, classes: int, config: Config
) -> np.ndarray:
    """(n, classes) out-of-fold probabilities of linear probes; features: (n, views, d), table: folds.csv."""
    views, fold = features.shape[1], table["fold"].to_numpy()
    probabilities = np.zeros((len(labels), classes))
    for number in np.unique(fold):
        train, valid = fold != number, fold == number
        seen = features[train].reshape(-1, features.shape[2])
        strength = config.train.probe_strength or probe.choose_strength(features[train], table[train], labels[train], print)
        probe.fit_head(model, seen, labels[train].repeat(views), classes, strength / views)
        with torch.inference_mode():
            logits = probe.linear_head(model)(torch.from_numpy(features[valid])).numpy()  # (n, views, classes)
        probabilities[valid] = softmax(logits.astype(np.float64), axis=2).mean(axis=1)
    return probabilities


def judged(labels: np.ndarray, probabilities: np.ndarray, flipped: np.ndarray) -> str:
    """Precision and recall of the suspects; precision of the first 100, and of as many rows as were flipped, by loss."""
    found = noise.suspects(labels, probabilities)
    hits, planted = flipped[found["row"]], int(flipped.sum())
    worst = np.argsort(probabilities[np.arange(len(labels)), labels], kind="stable")[:planted]
    return (
        f"{planted} planted, {len(found)} suspects, {hits.sum()} of them planted: precision {hits.mean():.3f}, "
        f"recall {hits.sum() / planted:.3f}; of the first 100 suspects {hits[:100].mean():.2f}; "
        f"of the {planted} rows with the largest loss {flipped[worst].mean():.3f}"
    )


if __name__ == "__main__":
    main()
