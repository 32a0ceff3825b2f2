"""The linear probe: scikit-learn's logistic regression as the model's head."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from conftest import write_dogs_vs_cats
from src.competitions.predictions import Predictions
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
    unit = features.astype(np.float64) / features.std()
    theirs = LogisticRegression(C=0.1, max_iter=1000, tol=1e-4).fit(unit, labels).predict_proba(unit)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_head_that_is_not_one_linear_layer_is_refused():
    with pytest.raises(UserError, match="one linear layer, not Sequential"):
        probe.linear_head(Headed(nn.Sequential(nn.Linear(3, 2))))


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
    from src.data.image import fit, read

    pictures = np.stack([fit(read(dogs / f"train/{id}.jpg"), 32, "squash") for id in oof.ids])
    logits = model(card.input.normalise(torch.from_numpy(pictures), True)).detach().numpy()
    np.testing.assert_allclose(logits, oof.logits, atol=1e-4)


def test_fine_tuning_starts_from_the_probe(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = Run(Path("runs/tuned"))
    train(run, tiny(dogs, train__head="probe", train__epochs=1, train__lr=1e-9))
    assert history(run)["epoch"].tolist() == [0, 1]
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
