"""A fold from its rows to its files: what is kept, the same result again, and stopping and going on."""

import io
import itertools
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, log_loss

from conftest import write_dogs_vs_cats
from src.competitions.predictions import Predictions
from src.cores import cores
from src.data.image import Form, ImageError
from src.data.loader import Loader, ShuffledBatches
from src.errors import UserError
from src.models import backbone
from src.training import checkpoint, clock, experiment, fold, loop
from src.training.run import Run
from src.training.training import Training
from tiny_runs import CLOCK, history, tiny, train

# All that draws at random or is carried from step to step: 10 updates in 2 epochs of 5 steps.
EVERYTHING = {
    "model__dropout": 0.3, "data__augmentation": "strong", "train__mixup": 0.4, "train__cutmix": 1.0, "train__ema": 0.5,
    "train__label_smoothing": 0.1, "train__clip_grad": 1.0, "train__accumulate": 2, "train__lr": 0.01,
}  # fmt: skip
UPDATES = 6


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs_vs_cats(tmp_path_factory.mktemp("dogs"))


@pytest.fixture(scope="module")
def whole(dogs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Fold 0 trained without a stop."""
    run = Run(tmp_path_factory.mktemp("whole") / "run")
    train(run, tiny(dogs, **EVERYTHING))
    return run


def assert_equal_folds(one: Run, other: Run) -> None:
    first, second = ((run.fold("0") / "model.safetensors").read_bytes() for run in (one, other))
    assert first == second
    ours, theirs = (Predictions.load(run.fold("0") / "oof.npz") for run in (one, other))
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert np.array_equal(ours.logits, theirs.logits)
    pd.testing.assert_frame_equal(history(one).drop(columns=CLOCK), history(other).drop(columns=CLOCK), check_exact=True)


# What is refused before the first epoch


def test_batches_of_one_image_under_batchnorm_are_refused(dogs: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"train\.batch_size"):
        train(Run(tmp_path / "run"), tiny(dogs, model__name="resnet10t", model__image_size=32, train__batch_size=1))
    assert not list((tmp_path / "run").rglob("last.pt"))


# What a fold leaves behind


def test_it_learns_to_tell_two_colours_apart(dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    train(run, tiny(dogs, train__epochs=4, train__lr=0.003))
    oof = Predictions.load(run.fold("0") / "oof.npz")
    assert oof.classes == ("cat", "dog")
    assert [oof.classes[k] for k in oof.logits.argmax(1)] == [id.partition(".")[0] for id in oof.ids]


def test_the_history_has_a_row_an_epoch_with_the_scores_of_all_validation_rows(whole: Run):
    rows = history(whole)
    assert rows["epoch"].tolist() == [1, 2]
    assert list(rows) == [
        "epoch", "lr", "train_loss", "seconds", "img_per_s", "data_wait", "memory_gb", "val_log_loss", "val_accuracy",
    ]  # fmt: skip
    oof = Predictions.load(whole.fold("0") / "oof.npz")
    truth = [int(id.startswith("dog")) for id in oof.ids]
    last = rows.iloc[-1]
    assert last["val_log_loss"] == pytest.approx(log_loss(truth, oof.probabilities()))
    assert last["val_accuracy"] == pytest.approx(accuracy_score(truth, oof.logits.argmax(1)))
    assert last["lr"] == pytest.approx(0.01 * 0.01)
    assert ((rows["data_wait"] >= 0) & (rows["data_wait"] <= 1)).all()
    assert (rows[["train_loss", "seconds", "img_per_s", "memory_gb"]] > 0).all(axis=None)


def test_the_out_of_fold_rows_are_the_folds_of_folds_csv(whole: Run):
    folds = pd.read_csv(whole.folds_csv())
    oof = Predictions.load(whole.fold("0") / "oof.npz")
    assert oof.ids.tolist() == folds["id"][folds["fold"] == 0].tolist()


def test_the_model_says_what_it_is(whole: Run):
    card = backbone.read_card(whole.fold("0") / "model.safetensors")
    assert (card.competition, card.run, card.fold, card.name) == ("dogs_vs_cats", "run", "0", "cifar_net")
    assert card.classes == ("cat", "dog")
    assert (card.input.size, card.resize, card.epochs) == (32, "squash", 2)
    scores = history(whole).iloc[-1][["val_log_loss", "val_accuracy"]].to_dict()
    assert card.scores == pytest.approx(scores)


def test_the_moving_average_is_what_is_saved_and_validated(whole: Run):
    saved = load_file(whole.fold("0") / "model.safetensors")
    state = checkpoint.load(whole.fold("0") / "last.pt")
    assert all(torch.equal(saved[name], state["ema"][name]) for name in saved)
    assert not any(torch.equal(saved[name], state["model"][name]) for name in saved)


def test_the_average_is_over_about_its_share_of_the_runs_updates(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Half of 10 updates: a plain mean of the first five, then each new one counts a fifth."""
    weights: list[torch.Tensor] = []
    real = loop.update
    monkeypatch.setattr(loop, "update", lambda t: real(t) or weights.append(t.model.conv1.weight.detach().clone()))
    run = Run(tmp_path / "run")
    train(run, tiny(dogs, train__ema=0.5, train__lr=0.01))
    expected = weights[0]
    for number, now in enumerate(weights[1:], 2):
        expected = expected + (now - expected) / min(number, 5)
    assert len(weights) == 10
    torch.testing.assert_close(load_file(run.fold("0") / "model.safetensors")["conv1.weight"], expected)


def test_without_an_average_the_last_weights_are_saved(dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    train(run, tiny(dogs))
    saved, state = load_file(run.fold("0") / "model.safetensors"), checkpoint.load(run.fold("0") / "last.pt")
    assert state["ema"] is None
    assert all(torch.equal(saved[name], state["model"][name]) for name in saved)


def test_the_saved_model_gives_the_out_of_fold_logits(whole: Run, dogs: Path):
    model, card = backbone.load(whole.fold("0") / "model.safetensors", torch.device("cpu"))
    oof = Predictions.load(whole.fold("0") / "oof.npz")
    images = fold.Images(dogs, oof.ids.tolist(), [f"train/{id}.jpg" for id in oof.ids], Form(32, card.resize))
    pixels = card.input.normalise(torch.from_numpy(np.stack([images[0, i][1] for i in range(len(images))])), True)
    with torch.inference_mode():
        np.testing.assert_allclose(model(pixels).numpy(), oof.logits, atol=1e-5)


@pytest.mark.parametrize(
    ("competition", "metric", "values", "best"),
    [
        ("dogs_vs_cats", "val_log_loss", [0.6, 0.4, 0.5], 2),
        ("dogs_vs_cats", "val_log_loss", [0.4, 0.5, 0.6], 1),
        ("dogs_vs_cats_original", "val_accuracy", [0.7, 0.9, 0.8], 2),
    ],
)
def test_keep_best_keeps_the_epoch_that_the_metric_likes_best(
    competition: str, metric: str, values: list[float], best: int, dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told, validated = iter(values), []
    monkeypatch.setattr(fold.history, "scores", lambda oof, *_: validated.append(oof.logits) or {metric: next(told)})
    run = Run(tmp_path / "run")
    said = train(run, tiny(dogs, competition, train__keep="best", train__epochs=3, train__lr=0.01))
    assert backbone.read_card(run.fold("0") / "model.safetensors").epochs == best
    assert np.array_equal(Predictions.load(run.fold("0") / "oof.npz").logits, validated[best - 1])
    assert not np.array_equal(validated[0], validated[1])
    assert len(history(run)) == 3
    assert said


def test_by_default_the_last_epoch_is_kept_though_another_was_better(
    dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    values = iter([0.1, 0.2])
    monkeypatch.setattr(fold.history, "scores", lambda *_: {"val_log_loss": next(values)})
    run = Run(tmp_path / "run")
    train(run, tiny(dogs))
    assert backbone.read_card(run.fold("0") / "model.safetensors").epochs == 2


@pytest.mark.parametrize("mixing", [{"train__mixup": 0.5}, {"train__cutmix": 1.0}])
def test_mixing_changes_the_loss_and_trains(mixing: dict, dogs: Path, tmp_path: Path):
    plain, mixed = Run(tmp_path / "plain"), Run(tmp_path / "mixed")
    train(plain, tiny(dogs))
    train(mixed, tiny(dogs, **mixing))
    assert np.isfinite(history(mixed)["train_loss"]).all()
    assert (history(mixed)["train_loss"] != history(plain)["train_loss"]).all()


def test_mixed_labels_are_smoothed_as_configured(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    real = loop.step_forward
    monkeypatch.setattr(loop, "step_forward", lambda t, *rest: seen.append(t.mixup) or real(t, *rest))
    train(Run(tmp_path / "run"), tiny(dogs, train__cutmix=1.0, train__label_smoothing=0.2))
    _, target = seen[0](torch.zeros(4, 3, 32, 32), torch.tensor([0, 0, 0, 0]))
    torch.testing.assert_close(target, torch.tensor([[0.9, 0.1]] * 4))


def test_fold_full_trains_on_all_rows_and_validates_none(dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    said = train(run, tiny(dogs, train__keep="best"), "full")
    files = {file.name for file in run.fold("full").iterdir()}
    assert files == {"history.csv", "last.pt", "model.safetensors"}
    assert not [column for column in history(run, "full") if column.startswith("val_")]
    assert backbone.read_card(run.fold("full") / "model.safetensors").fold == "full"
    assert checkpoint.load(run.fold("full") / "last.pt")["epoch"] == 2
    assert "no CV score" in said[-1]


def test_fold_full_takes_its_batches_from_every_row(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    real = loop.step_forward
    monkeypatch.setattr(loop, "step_forward", lambda *all: seen.append(len(all[2])) or real(*all))
    for name, rows in (("0", 20), ("full", 40)):
        seen.clear()
        train(Run(tmp_path / name), tiny(dogs, train__epochs=1), name)
        assert sum(seen) == rows


def test_an_image_that_cannot_be_read_stops_with_its_path_and_row(tmp_path: Path):
    root = write_dogs_vs_cats(tmp_path / "data")
    (root / "train/dog.7.jpg").write_bytes(b"not a JPEG")
    for workers in (0, 1):
        run = Run(tmp_path / f"run{workers}")
        with pytest.raises(ImageError, match=r"dog\.7\.jpg: not an image.*; id 'dog\.7'"):
            train(run, tiny(root, data__workers=workers), "all")
        assert not (run.fold("1") / "model.safetensors").exists()


def test_a_loss_that_is_not_finite_leaves_no_model(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, steps = loop.step_forward, itertools.count(1)
    monkeypatch.setattr(loop, "step_forward", lambda *all: real(*all) * (np.nan if next(steps) == 7 else 1))
    run = Run(tmp_path / "run")
    with pytest.raises(ValueError, match="the loss is nan at step 2 of epoch 2"):
        train(run, tiny(dogs))
    assert {file.name for file in run.fold("0").iterdir()} == {"history.csv", "last.pt"}
    assert checkpoint.load(run.fold("0") / "last.pt")["epoch"] == 1


def test_a_full_gpu_says_which_knobs_to_turn(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(loop, "step_forward", full)
    with pytest.raises(UserError, match=r"with batches of 4: try --train\.batch_size 2 --train\.accumulate 2") as told:
        train(Run(tmp_path / "full"), tiny(dogs))
    assert "--train.grad_checkpointing true" in str(told.value)
    assert "--model.image_size" in str(told.value)


def compiled_by(backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile without inductor, which takes half a minute to start."""
    real = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda model: real(model, backend=backend))


def test_a_compiled_model_trains_to_the_same_weights_and_its_first_step_is_not_timed(
    dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain, compiled, graphs = Run(tmp_path / "plain"), Run(tmp_path / "compiled"), []
    train(plain, tiny(dogs, train__ema=0.5))
    compiled_by(lambda graph, _: graphs.append(graph) or graph.forward, monkeypatch)
    real = fold.history.epoch_row
    untimed = []
    monkeypatch.setattr(fold.history, "epoch_row", lambda t, *rest: untimed.append(t.position.untimed) or real(t, *rest))
    train(compiled, tiny(dogs, train__ema=0.5, train__compile=True))
    assert graphs
    assert untimed == [4, 0]
    one, other = (load_file(run.fold("0") / "model.safetensors") for run in (plain, compiled))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, msg=name)


def test_a_model_that_cannot_be_compiled_is_one_line(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler here")

    compiled_by(broken, monkeypatch)
    with pytest.raises(UserError, match=r"^train\.compile: cifar_net can't be compiled here \(.*\); --train\.compile false$"):
        train(Run(tmp_path / "run"), tiny(dogs, train__compile=True))


def test_a_long_wait_for_data_is_said_once_with_the_knob(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fold.history, "LONG_WAIT", 0.0)
    monkeypatch.setattr(fold.history, "LONG_SECONDS", 0.0)
    said = train(Run(tmp_path / "run"), tiny(dogs))
    assert [line.partition(": ")[2].partition("% ")[2] for line in said if "waited for data" in line] == [
        f"of the time waited for data: --data.cache true or --data.workers {len(cores())} (now 0) may help"
    ]


def test_more_workers_than_cores_are_said(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(experiment, "cores", lambda: [0])
    said = train(Run(tmp_path / "run"), tiny(dogs, data__workers=2, train__epochs=1))
    assert "data.workers: 2 on 1 cores: they take turns, and load no faster than 1" in said


def test_what_an_earlier_model_predicted_goes_with_it(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run(tmp_path / "run")
    monkeypatch.setattr(clock.Clock, "is_over", lambda _: True)
    with pytest.raises(fold.OutOfTime):
        train(run, tiny(dogs))
    monkeypatch.undo()
    folder = run.fold("0")
    for name in ("oof_tta.npz", "test.npz"):  # as predict.py leaves them
        (folder / name).write_bytes((folder / "oof.npz").read_bytes())
    train(run, tiny(dogs), resume=True)
    assert [path.name for path in folder.glob("*.npz")] == ["oof.npz"]


def test_where_no_terminal_shows_the_bar_a_line_says_how_far_it_is(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fold, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    said = train(Run(tmp_path / "run"), tiny(dogs, train__epochs=1))
    steps = [line for line in said if "step" in line]
    assert [line.partition("step ")[2].split()[0] for line in steps] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert "img/s" in steps[0]
    assert "lr" in steps[0]


# The same again


@pytest.mark.parametrize("recipe", ["none", "light", "medium"])
def test_with_the_picture_cache_every_weight_loss_and_logit_is_the_same(recipe: str, tmp_path: Path):
    """For the cropping recipe too, as these pictures are no larger than its crops need."""
    data = write_dogs_vs_cats(tmp_path / "data")
    plain, cached = Run(tmp_path / "plain"), Run(tmp_path / "cached")
    knobs = EVERYTHING | {"data__augmentation": recipe}
    train(plain, tiny(data, **knobs))
    said = train(cached, tiny(data, data__cache=True, **knobs))
    assert [line for line in said if line.startswith("cache: ")]
    one, other = (load_file(run.fold("0") / "model.safetensors") for run in (plain, cached))
    assert all(torch.equal(other[name], tensor) for name, tensor in one.items())
    ours, theirs = (Predictions.load(run.fold("0") / "oof.npz").logits for run in (plain, cached))
    assert np.array_equal(ours, theirs)
    pd.testing.assert_frame_equal(history(plain).drop(columns=CLOCK), history(cached).drop(columns=CLOCK), check_exact=True)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_same_seed_gives_the_same_fold_bit_for_bit_with_any_number_of_workers(
    workers: int, whole: Run, dogs: Path, tmp_path: Path
):
    torch.manual_seed(workers)
    np.random.seed(workers)
    run = Run(tmp_path / "run")
    train(run, tiny(dogs, **EVERYTHING, data__workers=workers))
    assert_equal_folds(run, whole)


def test_validations_workers_begin_in_the_last_steps_and_the_next_epochs_while_it_is_scored(
    dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told, begin, update = [], Loader.begin, loop.update

    def began(loader: Loader) -> None:
        if loader.begun is None:
            told.append(
                f"epoch {loader.batch_sampler.epoch}" if isinstance(loader.batch_sampler, ShuffledBatches) else "held out"
            )
        begin(loader)

    def updated(training: Training) -> None:
        told.append("step")
        update(training)

    monkeypatch.setattr(Loader, "begin", began)
    monkeypatch.setattr(loop, "update", updated)
    knobs = {
        "train__epochs": 4,
        "model__name": "test_resnet",
        "train__image_sizes": (24, 24, 32, 32),
        "train__batch_size": 4,
        "data__workers": 1,
    }
    train(Run(tmp_path / "run"), tiny(dogs, **knobs))
    epoch = ["step", "held out", *["step"] * 4]  # a worker has four batches ready
    assert told == [*epoch, "epoch 1", *epoch, *epoch, "epoch 3", *epoch]  # not where the images grow, nor at the end


def test_another_seed_and_another_fold_give_another_model(whole: Run, dogs: Path, tmp_path: Path):
    seeded, folded = Run(tmp_path / "seeded"), Run(tmp_path / "folded")
    train(seeded, tiny(dogs, **EVERYTHING, train__seed=1))
    train(folded, tiny(dogs, **EVERYTHING), "1")
    ours = load_file(whole.fold("0") / "model.safetensors")["conv1.weight"]
    assert not torch.equal(load_file(seeded.fold("0") / "model.safetensors")["conv1.weight"], ours)
    assert not torch.equal(load_file(folded.fold("1") / "model.safetensors")["conv1.weight"], ours)


# Stopping and going on


def stop_after(updates: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT) -> None:
    """Ctrl-C right after this many updates, counted from now."""
    real, done = loop.update, itertools.count(1)

    def update(training: loop.Training) -> None:
        real(training)
        if next(done) == updates:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop, "update", update)


@pytest.mark.parametrize("updates", range(1, UPDATES + 1))
def test_a_fold_stopped_anywhere_and_resumed_ends_bit_for_bit_like_one_that_was_not(
    updates: int, whole: Run, dogs: Path, tmp_path: Path
):
    run, config = Run(tmp_path / "run"), tiny(dogs, **EVERYTHING)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(updates, patch)
        with pytest.raises(fold.Interrupted, match="0"):
            train(run, config)
    state = checkpoint.load(run.fold("0") / "last.pt")
    assert state["epoch"] * 5 + state["step"] == (2, 4, 5, 7, 9, 10)[updates - 1]
    said = train(run, config, resume=True)
    assert [line for line in said if line.startswith(("fold 0: goes on at epoch", "fold 0: finished already"))]
    assert_equal_folds(run, whole)


def test_a_fold_stopped_twice_ends_the_same_with_another_number_of_workers(whole: Run, dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    for workers, updates in ((1, 2), (0, 2)):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(updates, patch, signal.SIGTERM)
            with pytest.raises(fold.Interrupted):
                train(run, tiny(dogs, **EVERYTHING, data__workers=workers), resume=True)
    assert checkpoint.load(run.fold("0") / "last.pt")["epoch"] == 1
    train(run, tiny(dogs, **EVERYTHING), resume=True)
    assert_equal_folds(run, whole)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_stop_during_validation_saves_the_epoch_and_stops(epoch: int, whole: Run, dogs: Path, tmp_path: Path):
    run, config = Run(tmp_path / "run"), tiny(dogs, **EVERYTHING)
    real, done = fold.evaluation.predict, itertools.count(1)

    def validate(*arguments):
        if next(done) == epoch:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold.evaluation, "predict", validate)
        with pytest.raises(fold.Interrupted):
            train(run, config, "0", "1")
    state = checkpoint.load(run.fold("0") / "last.pt")
    assert (state["epoch"], state["step"]) == (epoch, 0)
    assert history(run)["epoch"].tolist() == [1, 2][:epoch]
    assert not run.fold("1").exists()
    said = train(run, config, resume=True)
    assert ("fold 0: finished already" in said) == (epoch == 2)
    assert_equal_folds(run, whole)


@pytest.mark.parametrize(
    ("file", "time"),
    [("oof.npz", 1), ("model.safetensors", 1), ("history.csv", 1), ("history.csv", 2), ("last.pt", 1), ("last.pt", 2)],
)
def test_a_crash_at_the_end_of_an_epoch_doubles_no_row(file: str, time: int, whole: Run, dogs: Path, tmp_path: Path):
    """Just before this file is put in its place for the first or second time."""
    run, config = Run(tmp_path / "run"), tiny(dogs, **EVERYTHING)
    real, done = os.replace, itertools.count(1)

    def replace(source: Path, target: Path) -> None:
        if target.name == file and next(done) == time:
            raise SystemError("power cut")
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(SystemError):
            train(run, config)
    train(run, config, resume=True)
    assert_equal_folds(run, whole)


def test_a_second_ctrl_c_stops_at_once_and_the_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with clock.stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
