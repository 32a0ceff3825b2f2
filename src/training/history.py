"""history.csv: one row per epoch, its scores, and how it reads on the terminal. The same names go to W&B."""

import math
import time
from pathlib import Path

import numpy as np
import pandas as pd

from src.competitions import metrics
from src.competitions.predictions import Predictions
from src.files import replacing
from src.training.device import peak_memory
from src.training.training import Training

Row = dict[str, float]
LONG_WAIT = 0.2  # of an epoch's time
LONG_SECONDS = 5.0
COLUMNS = ["epoch", "lr", "train_loss", "seconds", "img_per_s", "data_wait", "memory_gb"]  # before the scores


def epoch_row(training: Training, validating: float) -> Row:
    """The epoch's row without scores. `validating`: seconds that it took."""
    at = training.position
    return {
        "epoch": at.epoch + 1,
        "lr": training.optimizer.param_groups[-1]["lr"],
        "train_loss": at.losses / at.images,
        "seconds": round(at.seconds + validating, 3),
        "img_per_s": round(at.speed, 2),
        "data_wait": round(at.data_wait, 4),
        "memory_gb": round(peak_memory(training.device), 3),
    }


def probe_row(training: Training, seconds: float, strength: float) -> Row:
    """Epoch 0: the linear probe, for which nothing was trained step by step, and its C."""
    none = float("nan")
    row = dict.fromkeys(COLUMNS, none)
    spent = {"seconds": round(seconds, 3), "memory_gb": round(peak_memory(training.device), 3)}
    return row | spent | {"epoch": 0, "probe_strength": strength}


def scores(oof: Predictions | None, truth: np.ndarray, metric: str) -> Row:
    """val_log_loss, val_accuracy and the competition's own; nothing for a fold without validation rows."""
    if oof is None:
        return {}
    names = dict.fromkeys(("log_loss", "accuracy", metric))
    return {f"val_{name}": metrics.score(name, truth, oof.probabilities()) for name in names}


def better(score: float, than: float | None, metric: str) -> bool:
    """Whether the metric is better than before; anything is better than nothing and than NaN."""
    if than is None or math.isnan(than):
        return True
    return score > than if metrics.HIGHER_IS_BETTER[metric] else score < than


def line(row: Row) -> str:
    """An epoch on the terminal."""
    trained = row["epoch"] > 0
    shown = [f"loss {row['train_loss']:.4f}"] if trained else []
    shown += [f"{name} {value:.4f}" for name, value in row.items() if name.startswith("val_")]
    shown += [f"lr {row['lr']:.1e}", f"{row['img_per_s']:.0f} img/s", f"data {row['data_wait']:.0%}"] if trained else []
    return "  ".join([*shown, f"{row['memory_gb']:.1f} GB", time.strftime("%H:%M:%S", time.gmtime(row["seconds"]))])


def waiting(share: float, seconds: float, workers: int, cores: int, cached: bool) -> str:
    """What to do where a large share of an epoch's `seconds` waited for data; "" for little, or where no knob is left."""
    ways = [] if cached else ["--data.cache true"]
    ways += [f"--data.workers {cores} (now {workers})"] if workers < cores else []
    if share < LONG_WAIT or share * seconds < LONG_SECONDS or not ways:
        return ""
    return f"{share:.0%} of the time waited for data: {' or '.join(ways)} may help"


def write(rows: list[Row], path: Path) -> None:
    with replacing(path) as partial:
        pd.DataFrame(rows).to_csv(partial, index=False)
