"""Train one fold of a run, from its rows to model.safetensors, oof.npz, history.csv and a line in W&B."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from src.competitions.predictions import Predictions
from src.competitions.tables import class_indices
from src.config import FULL, Config
from src.cores import cores
from src.data import prepare
from src.data.augmentation import Augmentation
from src.data.cache import Cache, open_cache
from src.data.image import Form
from src.data.loader import Images, Loader, ShuffledBatches, choose_workers, make_loader, ordered_loader
from src.errors import UserError
from src.files import locked, sha256
from src.models import backbone
from src.training import checkpoint, evaluation, history, probe, tracking
from src.training.clock import Clock, stop_on_signals
from src.training.device import choose_device, choose_precision
from src.training.history import Row
from src.training.loop import average_epoch, check_lone_image, progress, read_losses, train_epoch
from src.training.loss import evened
from src.training.processes import ALONE, Processes, synchronised
from src.training.run import Run
from src.training.training import Position, Training, begin
from src.views import described

PROGRESS_SECONDS = 60.0
WORST = 24  # held-out images shown on the dashboard
GO_ON, SAVE, END = 0, 1, 2  # what the processes agree on after every update


@dataclass(frozen=True)
class FoldData:
    """What a fold trains on and is validated on: id, path, label, group of each row; `held_out` is empty for fold full."""

    root: Path
    classes: tuple[str, ...]
    train: pd.DataFrame
    held_out: pd.DataFrame
    pictures: list[str]  # paths of the rows of all folds
    seen: str = ""  # digest of the pictures of `train` and `held_out`

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
    processes: Processes = ALONE,
    overwrite: bool = False,
) -> None:
    """Train `fold` of `run`, or go on from its last.pt. Ends with the fold's model and predictions in its folder.

    overwrite: anew; what is there stays until the new training has something to put in its place.
    `clock` counts the command's time over all its folds; none: from now on. Raises Interrupted after Ctrl-C and OutOfTime,
    when the state is saved; UserError for a loss that is not finite, an image that can't be read, a GPU whose memory is
    full, or a fold that another process is training, or has trained meanwhile.
    """
    training = _Fold(run, config, fold, data, folds_sha256, said, clock or Clock(config.train), processes)
    training.overwrites = overwrite
    try:
        if not processes.first:
            training.train(resume)
        else:
            with locked(run.fold(fold), patience=10):  # a killed process's loaders keep its lock for some seconds
                if run.has_begun(fold) and not (resume or overwrite):
                    raise UserError(f"fold {fold} of {run.path} was trained by another process meanwhile; --resume goes on")
                training.train(resume)
    except torch.OutOfMemoryError:
        raise UserError(_memory_is_full(config)) from None
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        why = str(error).strip().partition("\n")[0]
        raise UserError(f"train.compile: {config.model.name} can't be compiled here ({why}); --train.compile false") from None


def trial(
    run: Run, config: Config, fold: str, data: FoldData, said: Callable[[str], None]
) -> tuple[Training, Loader, torch.Tensor]:
    """A training to wear out and throw away, with its loader and labels (rows,) int64: nothing of it is written."""
    one = _Fold(run, config, fold, data, "", said, Clock(config.train), ALONE)
    if config.train.head == "probe":
        one._fit_probe()
    training = one._begin(None)
    labels = torch.from_numpy(data.labels(data.train))
    return training, one._loader(training.image_size(0, one.fed.size)), labels


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
        processes: Processes,
    ) -> None:
        self.run, self.config, self.fold, self.data, self.said, self.clock = run, config, fold, data, said, clock
        self.processes = processes
        self.number = config.data.folds if fold == FULL else int(fold)
        self.folder = run.fold(fold)
        self.device = choose_device(config.train.device)
        self.loaded: tuple[int, Loader] | None = None  # the training rows, at the size of the epoch before
        self.advised = False
        self.overwrites = False
        self.truth = data.labels(data.held_out)
        self.ids = data.held_out["id"].to_numpy(dtype=str)
        model, self.fed = backbone.create(config.model, len(data.classes), config.train.seed)
        self.seen = replace(self.fed, size=config.model.test_size or self.fed.size)  # at validation and prediction
        if config.train.grad_checkpointing:
            backbone.recompute_activations(model, config.model.name)
        memory = torch.channels_last if config.train.channels_last else torch.contiguous_format
        self.model, notes = synchronised(model.to(self.device, memory_format=memory), processes, self.device)
        for note in notes:
            said(note)
        self.card = backbone.Card(
            competition=config.competition.name, run=run.name, fold=fold, name=config.model.name,
            kwargs=config.model.kwargs, classes=data.classes, input=self.seen,
            resize=config.data.resize, folds_sha256=folds_sha256, epochs=0, scores={},
        )  # fmt: skip

    def train(self, resume: bool) -> None:
        """All epochs that are left, then the report."""
        state = self.processes.from_first(self._saved) if resume else None
        started = time.perf_counter()
        probed = self.processes.from_first(self._fit_probe) if self.config.train.head == "probe" and state is None else None
        self.processes.copy_first(self.model)
        training = self._begin(state)
        held_out = self._held_out_loader()
        if self.overwrites and self.processes.first:
            (self.folder / tracking.ID).unlink(missing_ok=True)  # a run of its own on the dashboard, too
        tracker = self._tracker()
        with stop_on_signals() as stop:
            if probed is not None:
                logits, strength = probed
                row = history.probe_row(training, time.perf_counter() - started, strength)
                self._end_epoch(training, row, self._predictions(logits[0]), tracker, f"fold {self.fold}  linear probe")
                self._keep_views(logits)
            while not (training.finished or self.processes.most(len(stop))):
                self._train_epoch(training, stop, held_out)
                if training.position.step < training.steps and self.processes.most(len(stop)):
                    raise Interrupted(f"fold {self.fold}")
                self._validate(training, held_out, tracker)
        if training.finished:
            self._report(tracker)
        tracker.finish()
        if self.processes.most(len(stop)):  # asked during validation: the epoch is over and saved
            raise Interrupted(f"fold {self.fold}")

    def _saved(self) -> dict[str, Any] | None:
        file = self.folder / "last.pt"
        if not file.is_file():
            return None
        state = checkpoint.load(file)
        checkpoint.check_owner(state, self._owner(), file)
        return state

    def _owner(self) -> dict[str, Any]:
        """What last.pt belongs to, wherever the run's folder is."""
        config = self.config.identity()
        return {"fold": self.fold, "folds_sha256": self.card.folds_sha256, "pictures": self.data.seen, "config": config}

    def _tracker(self) -> tracking.Tracker:
        if not self.processes.first:
            return tracking.Tracker(None, self.said)
        return tracking.track(self.config, self.run.name, "train", self.folder, self.fold, self.said)

    def _fit_probe(self) -> tuple[np.ndarray, float]:
        """Start from the linear probe: its logits of the held-out rows in each view, by their cached features, and its C."""
        return probe.start_head(self.model, self.seen, self.config, self.data, self.device, self.said)

    def _begin(self, state: dict[str, Any] | None) -> Training:
        """The training at its beginning, or where `state` says."""
        dtype, _ = choose_precision(self.config.train, self.device)
        labels = self.data.labels(self.data.train)
        order = self._order(labels)
        training = begin(
            self.config.train, self.model, self.fed, labels, len(self.data.classes), order.steps,
            self.device, dtype, self.number, self.processes,
        )  # fmt: skip
        if order.batch_size == 1 and not training.finished:
            check_lone_image(training)
        if self.config.train.compile:
            training.model.compile()
        if state is not None:
            training.load_state_dict(state)
            at = training.position
            if training.history and self.processes.first:
                self._write_history(training)  # the process may have died between last.pt and history.csv
            self.said(f"fold {self.fold}: goes on at epoch {at.epoch + 1}, step {at.step + 1}")
        return training

    def _order(self, labels: np.ndarray) -> ShuffledBatches:
        config = self.config.train
        seed = int(np.random.SeedSequence([config.seed, self.number]).generate_state(1)[0])
        weights = evened(labels, len(self.data.classes), config.balanced_sampling) if config.balanced_sampling else None
        even = bool(config.mixup or config.cutmix)
        return ShuffledBatches(
            len(labels), config.batch_size, seed, config.steps_per_epoch, even, weights, self.processes.share
        )

    def _loader(self, size: int) -> Loader:
        """Of the training rows, shuffled and augmented, at `size` pixels."""
        config, rows, how = self.config, self.data.train, self.config.data.resize
        recipe = Augmentation(config.data.augmentation, size, how, config.competition.label_preserving, config.train.seed)
        cache = self._cache(recipe.form)
        images = Images(self.data.root, rows["id"].tolist(), rows["path"].tolist(), recipe, cache)
        workers = choose_workers(config.data.workers, self.device)
        return make_loader(images, self._order(self.data.labels(rows)), workers, self.device.type == "cuda")

    def _held_out_loader(self) -> Loader | None:
        if self.data.held_out.empty:
            return None
        size, how = self.seen.size, self.config.data.resize
        rows, share, cache = self.data.held_out, self.processes.share, self._cache(Form(size, how))
        return ordered_loader(self.data.root, rows, size, how, self.config, self.device, share, cache)

    def _cache(self, form: Form) -> Cache | None:
        """The decoded pictures of all folds in this form, where data.cache asks for it."""
        if not self.config.data.cache:
            return None
        folder = prepare.beside(self.data.root, self.config.competition) / ".cache"
        return open_cache(self.data.root, self.data.pictures, form, folder, len(cores()), self.said)

    def _train_epoch(self, training: Training, stop: list[int], held_out: Loader | None) -> None:
        """To the end of the epoch, or to where the processes agree to stop; the state is saved when it is due.

        When the loader's workers have been given the epoch's last batches, those of `held_out` begin.
        """
        size = training.image_size(training.position.epoch, self.fed.size)
        if self.loaded is None or self.loaded[0] != size:
            self.loaded = size, self._loader(size)
            training.compiling = self.config.train.compile
        labels = torch.from_numpy(self.data.labels(self.data.train))
        title, said_at = self._title(training), time.monotonic()
        for _ in train_epoch(training, self.loaded[1], labels, title):
            said_at = _say_progress(training, title, said_at, self.said)
            if held_out is not None and training.steps - training.position.step <= self.loaded[1].ahead:
                held_out.begin()
            wanted = END if stop or self.clock.is_over() else SAVE if self.clock.checkpoint_is_due() else GO_ON
            agreed = self.processes.most(wanted)
            if agreed != GO_ON:
                self._save(training)
            if agreed == END:
                break

    def _validate(self, training: Training, held_out: Loader | None, tracker: tracking.Tracker) -> None:
        """Score the epoch and end it; where it was cut short by the clock, keep the model as it is and raise OutOfTime."""
        started, whole = time.perf_counter(), training.position.step == training.steps
        if whole and training.averages_now():
            average_epoch(training, self.loaded[1])
        self._begin_next(training)
        oof = self._oof(training, held_out) if held_out is not None else None
        row = history.epoch_row(training, time.perf_counter() - started)
        self._advise(row)
        if not whole:
            self._keep(training, row | history.scores(oof, self.truth, self.config.competition.metric), oof)
            raise OutOfTime(f"fold {self.fold}, epoch {int(row['epoch'])}")
        self._end_epoch(training, row, oof, tracker, self._title(training))
        self.clock.longest_ending = max(self.clock.longest_ending, time.perf_counter() - started)

    def _begin_next(self, training: Training) -> None:
        """Let the training rows' workers read on while the epoch is scored and saved."""
        (size, loader), epoch = self.loaded, training.position.epoch + 1
        goes_on = training.position.step == training.steps and epoch < self.config.train.epochs
        if goes_on and training.image_size(epoch, self.fed.size) == size:
            loader.batch_sampler.epoch, loader.batch_sampler.first = epoch, 0
            loader.begin()

    def _advise(self, row: Row) -> None:
        """Once, where much of the time waited for data: which knob helps."""
        workers = choose_workers(self.config.data.workers, self.device)
        hint = history.waiting(row["data_wait"], row["seconds"], workers, len(cores()), self.config.data.cache)
        if hint and not self.advised:
            self.said(f"fold {self.fold}: {hint}")
            self.advised = True

    def _oof(self, training: Training, held_out: Loader) -> Predictions:
        """The validation rows' logits by the weights to keep, as training sees them: no TTA."""
        logits = evaluation.predict(
            training.averaged(), held_out, self.seen, self.device, training.autocast(),
            self.config.train.channels_last, f"fold {self.fold}  validation", self.processes,
        )  # fmt: skip
        return self._predictions(logits)

    def _predictions(self, logits: np.ndarray) -> Predictions | None:
        return Predictions(self.ids, logits, self.data.classes) if len(self.ids) else None

    def _title(self, training: Training) -> str:
        return f"fold {self.fold}  epoch {training.position.epoch + 1}/{self.config.train.epochs}"

    def _end_epoch(self, training: Training, row: Row, oof: Predictions | None, tracker: tracking.Tracker, title: str) -> None:
        """Score, keep the model where it is due, then history.csv and last.pt, which says that the epoch is over."""
        metric = self.config.competition.metric
        row |= history.scores(oof, self.truth, metric)
        self.said(f"{title}  {history.line(row)}")
        score = row.get(f"val_{metric}")
        is_best = score is not None and history.better(score, training.best, metric)
        training.best = score if is_best else training.best
        is_last = row["epoch"] == self.config.train.epochs
        if is_last if self.config.train.keep == "last" or score is None else is_best:
            self._keep(training, row, oof)
        training.history.append(row)
        training.position = Position(epoch=int(row["epoch"]))
        self._save(training)
        if self.processes.first:
            self._write_history(training)  # last: it says that the epoch is over, to whoever looks at the folder
        tracker.log({name: value for name, value in row.items() if not math.isnan(value)})

    def _save(self, training: Training) -> None:
        read_losses(training)  # in every process, as they average them
        if self.processes.first:
            checkpoint.save(training.state_dict() | {"owner": self._owner()}, self.folder / "last.pt")
            self._drop_old("last.pt")
        self.clock.has_saved()

    def _write_history(self, training: Training) -> None:
        history.write(training.history, self.folder / "history.csv")

    def _keep(self, training: Training, row: Row, oof: Predictions | None) -> None:
        """The fold's model and its out-of-fold predictions."""
        if not self.processes.first:
            return
        for stale in ("predicted.json", "oof_tta.npz", "test.npz"):  # predict.py's, of the model before
            (self.folder / stale).unlink(missing_ok=True)
        self._drop_old("model.safetensors", "oof.npz")  # these two are about to be replaced
        if oof is not None:
            oof.save(self.folder / "oof.npz")
        scores = {name: value for name, value in row.items() if name.startswith("val_")}
        card = replace(self.card, epochs=int(row["epoch"]), scores=scores)
        backbone.save(training.averaged(), card, self.folder / "model.safetensors")

    def _drop_old(self, *but: str) -> None:
        """With --overwrite, once: what the training before left in the folder, now that something takes its place."""
        if self.overwrites:
            for file in self.folder.iterdir():
                if file.is_file() and file.name not in (*but, tracking.ID):
                    file.unlink()
        self.overwrites = False

    def _keep_views(self, probed: np.ndarray) -> None:
        """A probe that is the whole model has seen the held-out rows in all views already: their OOF with TTA costs nothing."""
        seen_so = self.config.views() == probe.views_of(self.config)
        if self.config.train.epochs == 0 and seen_so and len(self.ids) and self.processes.first:
            logits = evaluation.mean_view(probed, self.config.predict.tta_mean)
            views = described(self.config.views(), self.config.predict.tta_mean)
            model = sha256(self.folder / "model.safetensors")
            Predictions(self.ids, logits, self.data.classes, views, model).save(self.folder / "oof_tta.npz")

    def _report(self, tracker: tracking.Tracker) -> None:
        """The end of a fold on the dashboard: its scores, the confusion matrix, the worst images, model and predictions."""
        if not self.processes.first:
            return
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


def _say_progress(training: Training, title: str, said_at: float, said: Callable[[str], None]) -> float:
    """Where no terminal shows the bar (a kernel's log, a file), a line a minute."""
    if sys.stderr.isatty() or time.monotonic() - said_at < PROGRESS_SECONDS:
        return said_at
    said(f"{title}  step {training.position.step}/{training.steps}  {progress(training)}")
    return time.monotonic()


def _memory_is_full(config: Config) -> str:
    train, batch = config.train, config.train.batch_size
    ways = [f"--train.batch_size {max(1, batch // 2)} --train.accumulate {train.accumulate * 2} (the same step, in two halves)"]
    ways += [] if train.grad_checkpointing else ["--train.grad_checkpointing true"]
    ways += ["a smaller --model.image_size", "--find-batch, which finds the largest batch that fits"]
    return f"the GPU's memory is full with batches of {batch}: try {', '.join(ways)}"
