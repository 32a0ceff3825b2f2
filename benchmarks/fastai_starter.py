"""The homework's starter, in fastai and in this repository, on the same small task: CPU seconds, log loss, accuracy.

    pip install fastai
    python benchmarks/fastai_starter.py [--pictures 600] [--size 64] [--epochs 1] [--seeds 3]

ResNet-18 from scratch, one cycle up to 1e-3, batches of 32, without augmentation or worker processes, on one
thread: some pictures of Dogs vs. Cats, a fifth of them to validate, the same fifth in both. What is timed is the whole call,
from the table of pictures to the score, in CPU seconds, which other work on the machine changes little. fastai's head is its
own (two linear layers, on mean and maximum), as `vision_learner` makes it.
"""

import argparse
import contextlib
import importlib.util
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src import config as configuration  # noqa: E402
from src.config import Config  # noqa: E402
from src.data import folds, prepare  # noqa: E402
from src.errors import UserError  # noqa: E402
from src.training import experiment  # noqa: E402
from src.training.run import Run  # noqa: E402

GREY = (0.5, 0.5, 0.5)
BATCH, PEAK = 32, 1e-3
Scores = tuple[float, float]  # log loss, accuracy of the validation pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--size", type=int, default=64, help="pixels, height and width")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3, help="how often, each time with other weights in another order")
    asked = parser.parse_args()
    if importlib.util.find_spec("fastai") is None:
        sys.exit("fastai is not installed: nothing to compare with; `pip install fastai`, which leaves torch as it is")
    torch.set_num_threads(1)
    try:
        dogs = prepare.prepare(Config(competition=configuration.built_in("dogs_vs_cats")), lambda _: None)
    except UserError as error:
        sys.exit(str(error))
    compare(dogs, asked.pictures, asked.size, asked.epochs, asked.seeds)


def compare(dogs: prepare.Prepared, pictures: int, size: int, epochs: int, seeds: int) -> None:
    """Both once to warm up, then in turns; prints each, and mean ± sd over the seeds."""
    drawn = [(dogs.root / path).resolve() for path in dogs.train["path"].sample(pictures, random_state=0)]
    measured: dict[str, list[tuple[float, float, float]]] = {"fastai": [], "this repository": []}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        data = Path("data")
        (data / "train").mkdir(parents=True)
        for path in drawn:
            (data / "train" / path.name).symlink_to(path)
        for seed in range(-1, seeds):
            run, ours = Run(Path(f"runs/seed{seed}")), knobs(data, size, epochs, max(seed, 0))
            took, scores = timed(lambda run=run, ours=ours: repository_starter(run, ours))
            split = folds.read_folds(run.folds_csv())
            fastai_took, fastai_scores = timed(
                lambda split=split, seed=seed: fastai_starter(data / "train", split, size, epochs, max(seed, 0))
            )
            if seed < 0:  # the first call of each pays for imports and for what is cached
                continue
            measured["this repository"].append((took, *scores))
            measured["fastai"].append((fastai_took, *fastai_scores))
            for name, each in measured.items():
                print(f"seed {seed}  {name:16s} {each[-1][0]:6.1f} s  log loss {each[-1][1]:.3f}  accuracy {each[-1][2]:.3f}")
    report(measured)


def knobs(data: Path, size: int, epochs: int, seed: int) -> Config:
    """The ten lines of this repository; a quarter of the steps to warm up is fastai's default too."""
    tree = {
        "competition": configuration.built_in("dogs_vs_cats"),
        "model": {"name": "resnet18", "weights": "none", "image_size": size, "mean": GREY, "std": GREY},
        "data": {"root": str(data), "resize": "squash", "augmentation": "none", "audit": False, "workers": 0},
        "train": {"epochs": epochs, "batch_size": BATCH, "lr": PEAK, "warmup": 0.25, "weight_decay": 0.01, "seed": seed},
        "tracking": {"mode": "disabled"},
    }
    return Config.model_validate(tree)


def repository_starter(run: Run, config: Config) -> Scores:
    with contextlib.redirect_stdout(None):  # its table of folds
        experiment.train(run, config, ["0"], resume=False, overwrite=False, said=lambda _: None)
    last = pd.read_csv(run.fold("0") / "history.csv").iloc[-1]
    return float(last["val_log_loss"]), float(last["val_accuracy"])


def fastai_starter(train: Path, split: pd.DataFrame, size: int, epochs: int, seed: int) -> Scores:
    """The starter as fastai's users write it; split: id, fold, of which fold 0 validates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)  # at import, of fastai's own
        from fastai.vision import all as fastai
    fastai.set_seed(seed)
    table = pd.DataFrame({"name": split["id"] + ".jpg", "label": split["label"], "valid": split["fold"] == 0})
    data = fastai.ImageDataLoaders.from_df(
        table, train, valid_col="valid", item_tfms=fastai.Resize(size, fastai.ResizeMethod.Squish),
        batch_tfms=fastai.Normalize.from_stats(GREY, GREY), bs=BATCH, num_workers=0,
    )  # fmt: skip
    learner = fastai.vision_learner(data, fastai.resnet18, pretrained=False, normalize=False, metrics=fastai.accuracy)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, PEAK)
    return tuple(learner.recorder.values[-1][1:])


def timed(call: Callable[[], Scores]) -> tuple[float, Scores]:
    """CPU seconds of this process, and what the call returned."""
    started = time.process_time()
    scores = call()
    return time.process_time() - started, scores


def report(measured: dict[str, list[tuple[float, float, float]]]) -> None:
    for name, runs in measured.items():
        columns = zip(np.mean(runs, axis=0), np.std(runs, axis=0, ddof=1), strict=True)
        seconds, loss, accuracy = (f"{mean:.3f} ± {sd:.3f}" for mean, sd in columns)
        print(f"{name:16s} {seconds} CPU seconds, log loss {loss}, accuracy {accuracy} (n = {len(runs)} seeds)")
    ratio = [theirs[0] / ours[0] for theirs, ours in zip(*measured.values(), strict=True)]
    print(f"fastai takes {np.mean(ratio):.2f} times as long (from {min(ratio):.2f} to {max(ratio):.2f})")


if __name__ == "__main__":
    main()
