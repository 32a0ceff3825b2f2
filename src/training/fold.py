"""Train one fold of a run, from its rows to model.safetensors, oof.npz, history.csv and a line in W&B."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch.utils.data import DataLoader

from src.competitions import metrics
from src.competitions.predictions import Predictions
from src.competitions.tables import class_indices
from src.config import FULL, Config
from src.data.augmentation import Augmentation
from src.data.loader import Images, ShuffledBatches, choose_workers, make_loader, ordered_loader
from src.files import replacing
from src.models import backbone
from src.training import checkpoint, probe, tracking
from src.training.clock import Clock
from src.training.device import choose_device, choose_precision, peak_memory
from src.training.loop import Position, Training, progress, train_epoch, validate
from src.training.optimizer import make_optimizer, make_scheduler
from src.training.run import Run

PROGRESS_SECONDS = 60.0
WORST = 24  # held-out images shown on the dashboard
COLUMNS = ["epoch", "lr", "train_loss", "seconds", "img_per_s", "data_wait", "memory_gb"]  # of history.csv, before the scores


@dataclass(frozen=True)
class FoldData:
    """What a fold trains on and is validated on: id, path, label, group of each row; `held_out` is empty for fold full."""

    root: Path
    classes: tuple[str, ...]
    train: pd.DataFrame
    held_out: pd.DataFrame

    def labels(self, rows: pd.DataFrame) -> np.ndarray:
        """(n,) int64: the class indices of `rows`."""
        return class_indices(rows["label"], self.classes)


class Interrupted(Exception):
    """Ctrl-C or SIGTERM: the state is saved."""


class OutOfTime(Exception):
    """train.max_minutes are over: the state is saved, and the model kept as it is."""


def train_fold(
    run: Run,
    config: Config,
    fold: str,
    data: FoldData,
    folds_sha256: str,
    resume: bool,
    said: Callable[[str], None],
    clock: Clock | None = None,
) -> None:
    """Train `fold` of `run`, or go on from its last.pt. Ends with the fold's model and predictions in its folder.

    `clock` counts the command's time over all its folds; none: from now on. Raises Interrupted after Ctrl-C and OutOfTime,
    when the state is saved; UserError for a loss that is not finite or an image that can't be read.
    """
    _Fold(run, config, fold, data, folds_sha256, said, clock or Clock(config.train)).train(resume)


class _Fold:
    """One fold while it trains."""

    def __init__(
        self,
        run: Run,
        config: Config,
        fold: str,
        data: FoldData,
        folds_sha256: str,
        said: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self.run, self.config, self.fold, self.data, self.said, self.clock = run, config, fold, data, said, clock
        self.number = config.data.folds if fold == FULL else int(fold)
        self.folder = run.fold(fold)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = choose_device(config.train.device)
        self.truth = data.labels(data.held_out)
        self.ids = data.held_out["id"].to_numpy(dtype=str)
        self.model, self.fed = backbone.create(config.model, len(data.classes), config.train.seed)
        backbone.freeze(self.model, config.train.freeze)
        memory = torch.channels_last if config.train.channels_last else torch.contiguous_format
        self.model = self.model.to(self.device, memory_format=memory)
        self.card = backbone.Card(
            competition=config.competition.name, run=run.name, fold=fold, name=config.model.name, kwargs=config.model.kwargs,
            classes=data.classes, input=self.fed, resize=config.data.resize, folds_sha256=folds_sha256, epochs=0, scores={},
        )  # fmt: skip

    def train(self, resume: bool) -> None:
        """All epochs that are left, then the report."""
        state = checkpoint.load(self.folder / "last.pt") if resume and (self.folder / "last.pt").is_file() else None
        first = self._fit_probe() if self.config.train.head == "probe" and state is None else None
        training = self._start(state)
        loader, held_out = self._loaders(training)
        labels = torch.from_numpy(self.data.labels(self.data.train)).to(self.device)
        tracker = tracking.track(self.config, self.run.name, "train", self.folder, self.fold, self.said)
        said_at = time.monotonic()
        with _stop_on_signals() as stop:
            if first is not None:
                self._end_epoch(training, *first, tracker, f"fold {self.fold}  linear probe")
            while not (training.finished or stop):
                title = f"fold {self.fold}  epoch {training.position.epoch + 1}/{self.config.train.epochs}"
                for _ in train_epoch(training, loader, labels, title):
                    said_at = _say_progress(training, title, said_at, self.said)
                    ending = bool(stop) or self.clock.is_over()  # asked once: what is not saved must not end
                    if ending or self.clock.checkpoint_is_due():
                        self._save(training)
                    if ending:
                        break
                if stop and training.position.step < training.steps:
                    raise Interrupted(f"fold {self.fold}")
                started = time.perf_counter()
                oof = self._validate(training, held_out) if held_out is not None else None
                row = _row(training, time.perf_counter() - started)
                if training.position.step < training.steps:
                    self._keep(training, row | _scores(oof, self.truth, self.config.competition.metric), oof)
                    raise OutOfTime(f"fold {self.fold}, epoch {int(row['epoch'])}")
                self._end_epoch(training, row, oof, tracker, title)
                self.clock.longest_ending = max(self.clock.longest_ending, time.perf_counter() - started)
        if training.finished:
            self._report(tracker)
        tracker.finish()
        if stop:  # asked during validation: the epoch is over and saved
            raise Interrupted(f"fold {self.fold}")

    def _fit_probe(self) -> tuple[dict[str, float], Predictions | None]:
        """Start from the linear probe: the row of epoch 0, and the held-out rows' predictions from their features."""
        started = time.perf_counter()
        logits = probe.start_head(self.model, self.fed, self.config, self.data, self.device, self.said)
        none = float("nan")
        row = {"epoch": 0, "lr": none, "train_loss": none, "seconds": round(time.perf_counter() - started, 3)}
        row |= {"img_per_s": none, "data_wait": none, "memory_gb": round(peak_memory(self.device), 3)}
        return row, Predictions(self.ids, logits, self.data.classes) if len(self.ids) else None

    def _start(self, state: dict[str, Any] | None) -> Training:
        """The training at its beginning, or where `state` says."""
        config, classes = self.config.train, len(self.data.classes)
        dtype, _ = choose_precision(config, self.device)
        optimizer = make_optimizer(self.model, config)
        steps = self._order().steps
        updates = -(-steps // config.accumulate) * config.epochs
        decay = 1 - 1 / max(1.0, config.ema * updates)
        smoothed = {"label_smoothing": config.label_smoothing, "num_classes": classes}
        # gamma and power 1: a plain mean of the first steps, until the decay takes over
        warmup = {"use_warmup": True, "warmup_gamma": 1.0, "warmup_power": 1.0}
        training = Training(
            config=config, fed=self.fed, device=self.device, dtype=dtype, fold=self.number, model=self.model,
            optimizer=optimizer,
            ema=ModelEmaV3(self.model, decay=decay, **warmup) if config.ema else None,
            scheduler=make_scheduler(optimizer, config, updates),
            scaler=torch.amp.GradScaler(self.device.type, enabled=dtype is torch.float16),
            mixup=Mixup(mixup_alpha=config.mixup, cutmix_alpha=config.cutmix, **smoothed) if self._mixes() else None,
            steps=steps,
        )  # fmt: skip
        if state is not None:
            training.load_state_dict(state)
            at = training.position
            if training.history:
                self._write_history(training)  # the process may have died between last.pt and history.csv
            self.said(f"fold {self.fold}: goes on at epoch {at.epoch + 1}, step {at.step + 1}")
        return training

    def _mixes(self) -> bool:
        return bool(self.config.train.mixup or self.config.train.cutmix)

    def _order(self) -> ShuffledBatches:
        config = self.config.train
        seed = int(np.random.SeedSequence([config.seed, self.number]).generate_state(1)[0])
        return ShuffledBatches(len(self.data.train), config.batch_size, seed, config.steps_per_epoch, self._mixes())

    def _loaders(self, training: Training) -> tuple[DataLoader, DataLoader | None]:
        """Of the training rows, shuffled and augmented, and of the held-out rows, where there are any."""
        config, size, how = self.config, self.fed.size, self.config.data.resize
        workers, pin = choose_workers(config.data.workers, self.device), self.device.type == "cuda"
        recipe = Augmentation(config.data.augmentation, size, how, config.competition.label_preserving, config.train.seed)
        train, held_out = self.data.train, self.data.held_out
        images = Images(self.data.root, train["id"].tolist(), train["path"].tolist(), size, how, recipe)
        loader = make_loader(images, self._order(), workers, pin)
        if held_out.empty:
            return loader, None
        return loader, ordered_loader(self.data.root, held_out, size, how, config, self.device)

    def _validate(self, training: Training, held_out: DataLoader) -> Predictions:
        return validate(training, held_out, self.ids, self.data.classes, f"fold {self.fold}  validation")

    def _end_epoch(
        self, training: Training, row: dict[str, float], oof: Predictions | None, tracker: tracking.Tracker, title: str
    ) -> None:
        """Score, keep the model where it is due, then history.csv and last.pt, which says that the epoch is over."""
        metric = self.config.competition.metric
        row |= _scores(oof, self.truth, metric)
        self.said(f"{title}  {_line(row)}")
        score = row.get(f"val_{metric}")
        is_best = score is not None and better(score, training.best, metric)
        training.best = score if is_best else training.best
        is_last = row["epoch"] == self.config.train.epochs
        if is_last if self.config.train.keep == "last" or score is None else is_best:
            self._keep(training, row, oof)
        training.history.append(row)
        training.position = Position(epoch=int(row["epoch"]))
        self._save(training)
        self._write_history(training)  # last: it says that the epoch is over, to whoever looks at the folder
        tracker.log({name: value for name, value in row.items() if not math.isnan(value)})

    def _save(self, training: Training) -> None:
        checkpoint.save(training.state_dict(), self.folder / "last.pt")
        self.clock.has_saved()

    def _write_history(self, training: Training) -> None:
        with replacing(self.folder / "history.csv") as partial:
            pd.DataFrame(training.history).to_csv(partial, index=False)

    def _keep(self, training: Training, row: dict[str, float], oof: Predictions | None) -> None:
        """The fold's model and its out-of-fold predictions."""
        if oof is not None:
            oof.save(self.folder / "oof.npz")
        scores = {name: value for name, value in row.items() if name.startswith("val_")}
        card = replace(self.card, epochs=int(row["epoch"]), scores=scores)
        backbone.save(training.averaged(), card, self.folder / "model.safetensors")

    def _report(self, tracker: tracking.Tracker) -> None:
        """The end of a fold on the dashboard: its scores, the confusion matrix, the worst images, model and predictions."""
        model, oof = self.folder / "model.safetensors", self.folder / "oof.npz"
        tracker.summarize(backbone.read_card(model).scores)
        if oof.is_file():
            probabilities = Predictions.load(oof).probabilities()
            guessed = probabilities.argmax(axis=1)
            tracker.log_confusion(self.truth, guessed, self.data.classes)
            tracker.log_worst(self._worst(probabilities, guessed))
            tracker.log_artifact(f"{self.run.name}-fold-{self.fold}-oof", "predictions", [oof])
        tracker.log_artifact(f"{self.run.name}-fold-{self.fold}", "model", [model])

    def _worst(self, probabilities: np.ndarray, guessed: np.ndarray) -> list[dict[str, Any]]:
        """The held-out rows of the largest loss."""
        losses = -np.log(np.maximum(probabilities[np.arange(len(self.truth)), self.truth], 1e-15))
        names, paths = self.data.classes, self.data.held_out["path"]
        return [
            {"id": self.ids[i], "path": self.data.root / paths.iloc[i], "loss": float(losses[i]),
             "label": names[self.truth[i]], "predicted": names[guessed[i]]}
            for i in np.argsort(-losses, kind="stable")[:WORST]
        ]  # fmt: skip


def better(score: float, than: float | None, metric: str) -> bool:
    """Whether the metric is better than before; anything is better than nothing and than NaN."""
    if than is None or math.isnan(than):
        return True
    return score > than if metrics.HIGHER_IS_BETTER[metric] else score < than


def _say_progress(training: Training, title: str, said_at: float, said: Callable[[str], None]) -> float:
    """Where no terminal shows the bar (a kernel's log, a file), a line a minute."""
    if sys.stderr.isatty() or time.monotonic() - said_at < PROGRESS_SECONDS:
        return said_at
    said(f"{title}  step {training.position.step}/{training.steps}  {progress(training)}")
    return time.monotonic()


def _row(training: Training, validating: float) -> dict[str, float]:
    """The epoch's row of history.csv, without scores; the same names go to W&B. `validating`: seconds that it took."""
    at = training.position
    return {
        "epoch": at.epoch + 1,
        "lr": training.optimizer.param_groups[-1]["lr"],
        "train_loss": at.losses / at.images,
        "seconds": round(at.seconds + validating, 3),
        "img_per_s": round(at.images / at.seconds, 2),
        "data_wait": round(at.waited / at.seconds, 4),
        "memory_gb": round(peak_memory(training.device), 3),
    }


def _scores(oof: Predictions | None, truth: np.ndarray, metric: str) -> dict[str, float]:
    if oof is None:
        return {}
    names = dict.fromkeys(("log_loss", "accuracy", metric))
    return {f"val_{name}": metrics.score(name, truth, oof.probabilities()) for name in names}


def _line(row: dict[str, float]) -> str:
    trained = row["epoch"] > 0
    shown = [f"loss {row['train_loss']:.4f}"] if trained else []
    shown += [f"{name} {value:.4f}" for name, value in row.items() if name.startswith("val_")]
    shown += [f"lr {row['lr']:.1e}", f"{row['img_per_s']:.0f} img/s", f"data {row['data_wait']:.0%}"] if trained else []
    return "  ".join([*shown, f"{row['memory_gb']:.1f} GB", time.strftime("%H:%M:%S", time.gmtime(row["seconds"]))])


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
