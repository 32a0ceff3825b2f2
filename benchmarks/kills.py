"""Kill training at 100 random moments, resume it each time, and compare every run with one that was never stopped.

    python benchmarks/kills.py [--kills 100] [--seed 0]

Each configuration gets an equal share of the kills; a difference anywhere in last.pt, model.safetensors, oof.npz or
history.csv ends the script with an error.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "training")]

from conftest import write_dogs_vs_cats  # noqa: E402
from kills import kill_and_compare  # noqa: E402

CONFIGURATIONS = {
    "EMA, mixup, cutmix, accumulation": {},
    "two workers": {"data__workers": 2},
    "the last epochs averaged, growing images, best epoch kept": {
        "train__ema": 0.0, "train__average_epochs": 2, "train__image_sizes": (24, 32), "train__keep": "best",
        "model__name": "test_resnet",
    },
    "fp16, with the scaler's state": {"train__precision": "fp16"},
    "thawing, balanced sampling, focal loss": {
        "train__freeze": "backbone", "train__frozen_epochs": 2, "train__balanced_sampling": 1.0, "train__loss": "focal",
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="in all, at least one a configuration")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    each = max(1, -(-asked.kills // len(CONFIGURATIONS)))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        data = write_dogs_vs_cats(Path(folder) / "dogs")
        for number, (name, knobs) in enumerate(CONFIGURATIONS.items()):
            tally = kill_and_compare(data, Path(folder) / str(number), each, asked.seed + number, **knobs)
            told = f"{tally.kills} kills over {tally.runs} runs ({tally.before_first_save} before anything was saved)"
            print(f"{name}: {told}: all identical", flush=True)
    print(f"{each * len(CONFIGURATIONS)} kills in {time.monotonic() - started:.0f} s, torch {torch.__version__}")


if __name__ == "__main__":
    main()
