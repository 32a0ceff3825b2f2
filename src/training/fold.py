"""Train one fold of a run, from its rows to model.safetensors, oof.npz, history.csv and a line in W&B."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch.utils.data import DataLoader

from src.competitions import metrics
from src.competitions.predictions import Predictions
from src.config import FULL, Config
from src.data.augmentation import Augmentation
from src.data.loader import Images, OrderedBatches, ShuffledBatches, choose_workers, make_loader
from src.models import backbone
from src.training import checkpoint, probe, tracking
from src.training.device import choose_device, choose_precision, peak_memory
from src.training.loop import Training, progress, train_epoch, validate
from src.training.optimizer import make_optimizer, make_scheduler
from src.training.run import Run

PROGRESS_SECONDS = 60.0


@dataclass(frozen=True)
class FoldData:
    """What a fold trains on and is validated on: id, path, label, group of each row; `held_out` is empty for fold full."""

    root: Path
    classes: tuple[str, ...]
    train: pd.DataFrame
    held_out: pd.DataFrame

    def labels(self, rows: pd.DataFrame) -> np.ndarray:
        """(n,) int64: the class indices of `rows`."""
        index = {name: i for i, name in enumerate(self.classes)}
        return rows["label"].map(index).to_numpy(dtype=np.int64, copy=True)


class Interrupted(Exception):
    """Ctrl-C or SIGTERM: the state is saved."""


def train_fold(
    run: Run, config: Config, fold: str, data: FoldData, folds_sha256: str, resume: bool, said: Callable[[str], None]
) -> None:
    """Train `fold` of `run`, or go on from its last.pt. Ends with the fold's model and predictions in its folder.

    Raises Interrupted after Ctrl-C, when the state is saved; UserError for a loss that is not finite or an image that
    can't be read.
    """
    folder = run.fold(fold)
    folder.mkdir(parents=True, exist_ok=True)
    device = choose_device(config.train.device)
    workers = choose_workers(config.data.workers, device)
    begun = resume and (folder / "last.pt").is_file()
    started = time.perf_counter()
    training, card = _prepare(run, config, fold, data, folds_sha256, device, begun, said)
    if begun:
        training.load_state_dict(checkpoint.load(folder / "last.pt"))
        said(f"fold {fold}: goes on at epoch {training.position.epoch + 1}, step {training.position.step + 1}")
    loader, held_out = _loaders(config, data, training, workers)
    labels = torch.from_numpy(data.labels(data.train)).to(device)
    truth = data.labels(data.held_out)
    ids = data.held_out["id"].to_numpy(dtype=str)
    tracker = tracking.track(config, run.name, "train", folder, fold, said)
    said_at = time.monotonic()

    def end_epoch(row: dict[str, float], title: str) -> None:
        oof, started = None, time.perf_counter()
        if held_out is not None:
            oof = validate(training, held_out, ids, data.classes, f"fold {fold}  validation")
            row |= _scores(oof, truth, config.competition.metric)
        row["seconds"] = round(row["seconds"] + time.perf_counter() - started, 3)
        said(f"{title}  {_line(row)}")
        _end_epoch(training, row, oof, card, folder, config)
        tracker.log(row)

    with _stop_on_signals() as stop:
        if config.train.head == "probe" and not training.history:
            end_epoch({"epoch": 0, "seconds": time.perf_counter() - started}, f"fold {fold}  linear probe")
        while not (training.finished or stop):
            epoch = training.position.epoch + 1
            title = f"fold {fold}  epoch {epoch}/{config.train.epochs}"
            for _ in train_epoch(training, loader, labels, title):
                said_at = _say_progress(training, title, said_at, said)
                if stop:
                    checkpoint.save(training.state_dict(), folder / "last.pt")
                    raise Interrupted(fold)
            end_epoch(_row(training), title)
    if training.finished:
        _report(tracker, run, fold, data, truth, folder)
    tracker.finish()
    if stop:  # asked during validation: the epoch is over and saved
        raise Interrupted(fold)


def _prepare(
    run: Run,
    config: Config,
    fold: str,
    data: FoldData,
    folds_sha256: str,
    device: torch.device,
    begun: bool,
    said: Callable[[str], None],
) -> tuple[Training, backbone.Card]:
    train = config.train
    dtype, _ = choose_precision(train, device)
    model, fed = backbone.create(config.model, len(data.classes), train.seed)
    backbone.freeze(model, train.freeze)
    memory = torch.channels_last if train.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=memory)
    if train.head == "probe" and not begun:
        probe.start_head(
            model, fed, config, data.root, data.train, data.labels(data.train), data.held_out, len(data.classes), device, said
        )
    optimizer = make_optimizer(model, train)
    smoothed = {"label_smoothing": train.label_smoothing, "num_classes": len(data.classes)}
    mixed = bool(train.mixup or train.cutmix)
    batches = ShuffledBatches(len(data.train), train.batch_size, 0, train.steps_per_epoch, mixed)
    updates = -(-batches.steps // train.accumulate) * train.epochs
    decay = 1 - 1 / max(1.0, train.ema * updates)
    training = Training(
        config=train, fed=fed, device=device, dtype=dtype, model=model, optimizer=optimizer,
        fold=config.data.folds if fold == FULL else int(fold),
        # gamma and power 1: a plain mean of the first steps, until the decay takes over
        ema=ModelEmaV3(model, decay=decay, use_warmup=True, warmup_gamma=1.0, warmup_power=1.0) if train.ema else None,
        scheduler=make_scheduler(optimizer, train, updates),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype is torch.float16),
        mixup=Mixup(mixup_alpha=train.mixup, cutmix_alpha=train.cutmix, **smoothed) if mixed else None,
        steps=batches.steps,
    )  # fmt: skip
    card = backbone.Card(
        competition=config.competition.name, run=run.name, fold=fold, name=config.model.name, kwargs=config.model.kwargs,
        classes=data.classes, input=fed, resize=config.data.resize, folds_sha256=folds_sha256, epochs=0, scores={},
    )  # fmt: skip
    return training, card


def _loaders(config: Config, data: FoldData, training: Training, workers: int) -> tuple[DataLoader, DataLoader | None]:
    size, how, pin = training.fed.size, config.data.resize, training.device.type == "cuda"
    train = config.train
    recipe = Augmentation(config.data.augmentation, size, how, config.competition.label_preserving, train.seed)
    seed = int(np.random.SeedSequence([train.seed, training.fold]).generate_state(1)[0])
    order = ShuffledBatches(len(data.train), train.batch_size, seed, train.steps_per_epoch, training.mixup is not None)
    images = Images(data.root, data.train["id"].tolist(), data.train["path"].tolist(), size, how, recipe)
    loader = make_loader(images, order, workers, pin)
    if data.held_out.empty:
        return loader, None
    images = Images(data.root, data.held_out["id"].tolist(), data.held_out["path"].tolist(), size, how, None)
    return loader, make_loader(images, OrderedBatches(len(images), config.predict.batch_size), workers, pin)


def _say_progress(training: Training, title: str, said_at: float, said: Callable[[str], None]) -> float:
    """Where no terminal shows the bar (a kernel's log, a file), a line a minute."""
    if sys.stderr.isatty() or time.monotonic() - said_at < PROGRESS_SECONDS:
        return said_at
    said(f"{title}  step {training.position.step}/{training.steps}  {progress(training)}")
    return time.monotonic()


def _row(training: Training) -> dict[str, float]:
    """The epoch's row of history.csv, without scores; the same names go to W&B."""
    at = training.position
    return {
        "epoch": at.epoch + 1,
        "lr": training.optimizer.param_groups[-1]["lr"],
        "train_loss": at.losses / at.images,
        "seconds": round(at.seconds, 3),
        "img_per_s": round(at.images / at.seconds, 2),
        "data_wait": round(at.waited / at.seconds, 4),
        "memory_gb": round(peak_memory(training.device), 3),
    }


def _scores(oof: Predictions, truth: np.ndarray, metric: str) -> dict[str, float]:
    names = dict.fromkeys(("log_loss", "accuracy", metric))
    return {f"val_{name}": metrics.score(name, truth, oof.probabilities()) for name in names}


def _line(row: dict[str, float]) -> str:
    shown = [f"loss {row['train_loss']:.4f}"] if "train_loss" in row else []
    shown += [f"{name} {value:.4f}" for name, value in row.items() if name.startswith("val_")]
    if "img_per_s" in row:
        shown += [
            f"lr {row['lr']:.1e}",
            f"{row['img_per_s']:.0f} img/s",
            f"data {row['data_wait']:.0%}",
            f"{row['memory_gb']:.1f} GB",
        ]
    return "  ".join([*shown, time.strftime("%H:%M:%S", time.gmtime(row["seconds"]))])


def _end_epoch(
    training: Training, row: dict[str, float], oof: Predictions | None, card: backbone.Card, folder: Path, config: Config
) -> None:
    """Keep the model where it is due, then history.csv and last.pt, which says that the epoch is over."""
    score = row.get(f"val_{config.competition.metric}")
    higher = metrics.HIGHER_IS_BETTER[config.competition.metric]
    better = score is not None and (training.best is None or (score > training.best if higher else score < training.best))
    training.best = score if better else training.best
    last = row["epoch"] == config.train.epochs
    if last if config.train.keep == "last" or score is None else better:
        scores = {name: value for name, value in row.items() if name.startswith("val_")}
        if oof is not None:
            oof.save(folder / "oof.npz")
        kept = backbone.Card(**{**card.__dict__, "epochs": int(row["epoch"]), "scores": scores})
        backbone.save(training.averaged(), kept, folder / "model.safetensors")
    training.history.append(row)
    training.position = type(training.position)(epoch=int(row["epoch"]))
    partial = folder / ".history.csv.partial"
    pd.DataFrame(training.history).to_csv(partial, index=False)
    os.replace(partial, folder / "history.csv")
    checkpoint.save(training.state_dict(), folder / "last.pt")


def _report(tracker: tracking.Tracker, run: Run, fold: str, data: FoldData, truth: np.ndarray, folder: Path) -> None:
    """The end of a fold on the dashboard: its scores, the confusion matrix, the worst images, model and predictions."""
    files = [folder / "model.safetensors"]
    tracker.summarize(backbone.read_card(files[0]).scores)
    if (folder / "oof.npz").is_file():
        oof = Predictions.load(folder / "oof.npz")
        probabilities = oof.probabilities()
        guessed = probabilities.argmax(axis=1)
        loss = -np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-15))
        tracker.log_confusion(truth, guessed, data.classes)
        worst = np.argsort(-loss, kind="stable")[:24]
        tracker.log_worst([
            {"id": oof.ids[i], "path": data.root / data.held_out["path"].iloc[i], "loss": float(loss[i]),
             "label": data.classes[truth[i]], "predicted": data.classes[guessed[i]]}
            for i in worst
        ])  # fmt: skip
        files.append(folder / "oof.npz")
    tracker.log_artifact(f"{run.name}-fold-{fold}", "model", files[:1])
    if files[1:]:
        tracker.log_artifact(f"{run.name}-fold-{fold}-oof", "predictions", files[1:])


@contextmanager
def _stop_on_signals() -> Iterator[list[int]]:
    """A list that fills when Ctrl-C or SIGTERM asks to stop: the step is finished first. A second Ctrl-C stops at once."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
