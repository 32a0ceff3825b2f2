"""The linear probe: scikit-learn's logistic regression as the model's head."""

import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import nn

from conftest import write_dogs_vs_cats
from src.competitions.predictions import Predictions
from src.data.folds import make_folds
from src.data.image import fit, read
from src.errors import UserError
from src.inference.predict import predict_run
from src.models import backbone
from src.training import probe
from src.training.run import Run, cross_validation
from tiny_runs import history, tiny, train


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs_vs_cats(tmp_path_factory.mktemp("dogs"))


class Headed(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def get_classifier(self) -> nn.Module:
        return self.head


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_heads_probabilities_are_the_regressions(classes: int, scale: float):
    rng = np.random.default_rng(classes)
    labels = np.arange(60) % classes
    features = (scale * (rng.normal(size=(60, 7)) + labels[:, None] * rng.normal(size=7))).astype(np.float32)
    model = Headed(nn.Linear(7, classes))
    probe.fit_head(model, features, labels, classes, strength=0.1)
    ours = torch.softmax(model.head(torch.from_numpy(features)), dim=1).detach().numpy()
    unit = features - features.mean(axis=0, dtype=np.float64)
    unit /= unit.std()
    theirs = LogisticRegression(C=0.1, max_iter=1000, tol=1e-4).fit(unit, labels).predict_proba(unit)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), "Sequential with 2"),
        (nn.Conv2d(3, 2, 1), "Conv2d with 0"),
        (nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)]), "ModuleList with 2"),
    ],
)
def test_a_head_that_is_not_one_linear_layer_is_refused(own: nn.Module, told: str):
    with pytest.raises(UserError, match=rf"train\.head: .*{told} of them"):
        probe.linear_head(Headed(own))


def test_a_linear_layer_in_a_container_is_the_head():
    layer = nn.Linear(3, 2)
    assert probe.linear_head(Headed(nn.Sequential(nn.BatchNorm1d(3), layer))) is layer


def test_a_class_without_a_training_row_is_refused():
    with pytest.raises(UserError, match="2 of 3 are"):
        probe.fit_head(Headed(nn.Linear(4, 3)), np.random.default_rng(0).normal(size=(8, 4)), np.arange(8) % 2, 3, 1.0)


def test_features_are_computed_once_for_all_folds_and_the_model_gives_the_oof_that_was_written(
    dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    run = Run(Path("runs/probe"))
    config = tiny(dogs, train__head="probe", train__epochs=0)
    said = train(run, config, "all")
    assert sum("computed once" in line for line in said) == 1
    assert len(list((tmp_path / "runs/.features").glob("*.npy"))) == 1
    assert sum("computed once" in line for line in train(Run(Path("runs/again")), config)) == 0

    model, card = backbone.load(run.fold("0") / "model.safetensors", torch.device("cpu"))
    oof = Predictions.load(run.fold("0") / "oof.npz")
    pictures = np.stack([fit(read(dogs / f"train/{id}.jpg"), 32, "squash") for id in oof.ids])
    logits = model(card.input.normalise(torch.from_numpy(pictures), True)).detach().numpy()
    np.testing.assert_allclose(logits, oof.logits, atol=1e-4)


@pytest.fixture
def normed(tmp_path: Path) -> Path:
    """Weights of an efficientvit_m0 whose head's BatchNorm does something."""
    torch.manual_seed(5)
    model = timm.create_model("efficientvit_m0", num_classes=1000)
    for parameter in model.parameters():
        parameter.data.add_(0.01 * torch.randn_like(parameter))  # none is as a fresh model's
    norm = model.head.bn
    norm.running_mean.normal_(0, 1e-4)
    norm.running_var.uniform_(1e-9, 1e-7)
    norm.weight.data.uniform_(0.2, 3)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "normed.safetensors")
    return tmp_path / "normed.safetensors"


def test_features_are_taken_past_the_norm_in_a_head(dogs: Path, normed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run, more = Run(Path("runs/normed")), {"model.name": "efficientvit_m0", "model.image_size": 64, "train.probe_strength": 9}
    train(run, tiny(dogs, train__head="probe", train__epochs=0, model__weights=str(normed), **more))
    model, card = backbone.load(run.fold("0") / "model.safetensors", torch.device("cpu"))
    oof = Predictions.load(run.fold("0") / "oof.npz")
    pictures = np.stack([fit(read(dogs / f"train/{id}.jpg"), 64, "squash") for id in oof.ids])
    logits = model(card.input.normalise(torch.from_numpy(pictures), True)).detach().numpy()
    assert np.abs(oof.logits).max() > 0.1
    np.testing.assert_allclose(logits, oof.logits, rtol=0, atol=1e-2 * np.abs(oof.logits).max())


class Softcapped(timm.create_model("test_resnet").__class__):
    """A network that does something to its logits after its linear layer."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tanh(super().forward(images))


def test_a_model_that_changes_its_logits_after_its_head_is_refused():
    model = timm.create_model("test_resnet", num_classes=3).eval()
    images = torch.rand(2, 3, 64, 64)
    probe._check_head(model, model, images, "test_resnet")
    model.__class__ = Softcapped
    with pytest.raises(UserError, match=r"train\.head: .*test_resnet makes them otherwise"):
        probe._check_head(model, model, images, "test_resnet")


def probed(dogs: Path, run: str) -> tuple[list[str], np.ndarray]:
    """What was said by a linear probe of fold 0, and its OOF logits."""
    said = train(Run(Path(run)), tiny(dogs, train__head="probe", train__epochs=0, train__probe_strength=1.0))
    return said, Predictions.load(Run(Path(run)).fold("0") / "oof.npz").logits


def test_a_picture_replaced_by_one_of_its_size_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With its old times too: bitmaps of one shape have one size."""
    monkeypatch.chdir(tmp_path)
    dogs = write_dogs_vs_cats(tmp_path / "dogs")
    for path in (dogs / "train").iterdir():
        path.write_bytes(cv2.imencode(".bmp", cv2.imread(str(path)))[1].tobytes())  # still called .jpg
    _, before = probed(dogs, "runs/before")
    for path in (dogs / "train").iterdir():
        times = path.stat()
        path.write_bytes(cv2.imencode(".bmp", 255 - cv2.imread(str(path)))[1].tobytes())
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    said, after = probed(dogs, "runs/after")
    assert sum("computed once" in line for line in said) == 1
    assert not np.allclose(before, after, atol=1e-3)


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "another", "alone"])
def test_a_damaged_file_of_features_is_made_again(damage: str, dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    _, before = probed(dogs, "runs/before")
    (path,) = (tmp_path / "runs/.features").glob("*.npy")
    whole = path.read_bytes()
    if damage == "alone":
        path.with_suffix(".digest").unlink()
    elif damage == "another":
        np.save(path, np.zeros((3, 1, 7), np.float32))
    else:
        path.write_bytes({"cut": whole[:-5], "empty": b"", "changed": whole[:-9] + b"\x7f" + whole[-8:]}[damage])
    said, after = probed(dogs, "runs/after")
    assert sum("damaged" in line for line in said) == 1
    np.testing.assert_array_equal(after, before)
    assert path.read_bytes() == whole
    assert sum("computed once" in line for line in probed(dogs, "runs/again")[0]) == 0


def test_a_full_disk_costs_the_kept_features_alone(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(probe.np, "save", full)
    said, _ = probed(dogs, "runs/full")
    assert sum("No space left on device" in line for line in said) == 1
    assert list((tmp_path / "runs/.features").iterdir()) == []


# The strength


def noisy(rows: int, width: int, views: int = 1, classes: int = 2, signal: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Features (rows, views, width) float32 that tell a little about the labels (rows,)."""
    rng = np.random.default_rng(rows + width)
    labels = np.arange(rows) % classes
    centres = signal * rng.normal(size=(classes, width))
    return (centres[labels][:, None] + rng.normal(size=(rows, views, width))).astype(np.float32), labels


def table(labels: np.ndarray, group: list[str] | str = "") -> pd.DataFrame:
    ids = [str(number) for number in range(len(labels))]
    return pd.DataFrame({"id": ids, "label": labels.astype(str), "group": group})


@pytest.mark.parametrize("classes", [2, 3])
def test_the_strength_is_the_best_of_cross_validation(classes: int):
    features, labels = noisy(150, 20, classes=classes)
    said: list[str] = []
    best = probe.choose_strength(features, table(labels), labels, said.append)
    fold = make_folds(table(labels), 3, 0)["fold"].to_numpy()
    flat = features[:, 0].astype(np.float64)
    unit = (flat - flat.mean(axis=0)) / (flat - flat.mean(axis=0)).std()

    def loss(strength: float) -> float:
        chances = np.zeros((len(labels), classes))
        for number in range(3):
            out = fold == number
            chances[out] = LogisticRegression(C=strength, max_iter=1000).fit(unit[~out], labels[~out]).predict_proba(unit[out])
        return log_loss(labels, chances)

    assert loss(best) < min(loss(best / 4), loss(best * 4))
    assert f"probe strength {best:g}: " in said[0]
    told = dict(pair.split(": ") for pair in said[0].partition("(")[2].rstrip(")").split(", "))
    assert float(told[f"{best:g}"]) == pytest.approx(loss(best), abs=2e-4)


def test_the_search_goes_on_beyond_its_first_strengths():
    features, labels = noisy(120, 10, signal=3.0)
    assert probe.choose_strength(features, table(labels), labels, lambda _: None) > max(probe.STRENGTHS)
    contrary = np.repeat(features[::2], 2, axis=0)  # each picture is there with either label
    assert probe.choose_strength(contrary, table(labels), labels, lambda _: None) < min(probe.STRENGTHS)


def test_copies_of_a_row_stand_in_one_inner_fold():
    """Each row three times: whoever learned from its copy knows its label, and would choose hardly any penalty."""
    features, labels = noisy(60, 60, signal=0.0)
    tripled, truth = np.repeat(features, 3, axis=0), np.repeat(labels, 3)
    groups = [f"g{number}" for number in np.repeat(np.arange(60), 3)]
    leaking = probe.choose_strength(tripled, table(truth), truth, lambda _: None)
    assert probe.choose_strength(tripled, table(truth, groups), truth, lambda _: None) < 1e-2 < leaking


def test_views_of_a_row_stand_in_one_inner_fold():
    features, labels = noisy(60, 60, signal=0.0)
    assert probe.choose_strength(np.repeat(features, 3, axis=1), table(labels), labels, lambda _: None) < 1e-2


def test_a_class_too_rare_for_inner_folds_gives_the_fixed_strength():
    features, _ = noisy(40, 5)
    labels, said = np.array([0] * 20 + [1] * 18 + [2] * 2), []
    assert probe.choose_strength(features, table(labels), labels, said.append) == probe.STRENGTH == 4e-3
    assert "a class has too few rows" in said[0]


def test_a_probe_chooses_its_strength_and_keeps_it(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = Run(Path("runs/chosen"))
    said = train(run, tiny(dogs, train__head="probe", train__epochs=0))
    (line,) = [line for line in said if "probe strength" in line]
    assert f"probe strength {history(run)['probe_strength'].iloc[0]:g}: " in line


def test_fine_tuning_starts_from_the_probe(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = Run(Path("runs/tuned"))
    train(run, tiny(dogs, train__head="probe", train__epochs=1, train__lr=1e-9, train__probe_strength=0.5))
    assert history(run)["epoch"].tolist() == [0, 1]
    assert history(run)["probe_strength"].iloc[0] == 0.5
    first, second = history(run)["val_log_loss"]
    assert second == pytest.approx(first, abs=1e-4), "a tiny step from the probe"


def test_the_probes_oof_with_tta_is_the_one_that_predict_computes(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = Run(Path("runs/views"))
    config = tiny(dogs, train__head="probe", train__epochs=0)
    said = train(run, config, "all")
    assert f"OOF with TTA {cross_validation(run, 'log_loss', 'oof_tta.npz')}" in said
    ours = Predictions.load(run.fold("0") / "oof_tta.npz")
    predict_run(run, config, partial=False)
    theirs = Predictions.load(run.fold("0") / "oof_tta.npz")
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert (ours.views, ours.model) == (theirs.views, theirs.model)
    assert ours.views
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-4)
    assert not np.allclose(ours.logits, Predictions.load(run.fold("0") / "oof.npz").logits, atol=1e-4)


def test_without_tta_the_probe_keeps_one_view(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = Run(Path("runs/plain"))
    train(run, tiny(dogs, train__head="probe", train__epochs=0, predict__tta="none"))
    assert not (run.fold("0") / "oof_tta.npz").exists()
