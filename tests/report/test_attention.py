"""What speaks for the predicted class and the label of out-of-fold rows, to the model that did not train on them."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from conftest import write_dogs_vs_cats
from src.config import ModelConfig
from src.data import image
from src.errors import UserError
from src.explain import cam
from src.files import sha256
from src.models import backbone
from src.report import attention, oof
from src.report.album import open_album
from src.training.run import Run
from written_runs import write_run

IDS = ["cat.0", "dog.0", "cat.1", "dog.1", "cat.2", "dog.2"]  # folds 0 and 1 in turn: the cats in 0, the dogs in 1
LABELS = [0, 1] * 3
WRONG = np.array([[0, 1], [1, 0]] * 3)  # every cat taken for a dog, every dog for a cat


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs_vs_cats(tmp_path_factory.mktemp("attention") / "dogs", rows=3, test=2)


def run_of(path: Path, dogs: Path, resize: str = "squash", folds: str = "01", name: str = "cifar_net") -> Path:
    """A run with an untrained model in each of `folds`."""
    write_run(path, LABELS, WRONG * 3, ids=IDS, root=str(dogs))
    for fold in folds:
        model, fed = backbone.create(ModelConfig(name=name, weights="none"), 2, seed=int(fold))
        digest = sha256(path / "folds.csv")
        card = backbone.Card("dogs_vs_cats", path.name, fold, name, (), ("cat", "dog"), fed, resize, digest, 1, {})
        backbone.save(model, card, path / f"fold-{fold}/model.safetensors")
    return path


def look(run: Path, ids: list[str] = IDS) -> tuple[dict[str, list[tuple[str, str | None]]], list[str]]:
    """The maps by the rows' ids, and why there are none."""
    rows = oof.read(run)
    wanted = np.array([np.flatnonzero(rows.ids == id)[0] for id in ids])
    maps, reasons = attention.look(rows, open_album(rows.config), wanted)
    return {str(rows.ids[row]): each for row, each in maps.items()}, reasons


def decoded(uri: str) -> np.ndarray:
    encoded = np.frombuffer(base64.b64decode(uri.partition("base64,")[2]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[nn.Module, torch.Tensor, list[int]]]:
    """Every question to Grad-CAM: model, images, classes. Its answer: all at the left for cat, nothing at all for dog."""
    questions = []

    def answer(model, images, classes):
        questions.append((model, images, classes.tolist()))
        heat = torch.zeros(len(images), 4, 4)
        heat[:, :, 0] = (classes == 0).float()[:, None]
        return heat, torch.zeros(len(images), 2)

    monkeypatch.setattr(cam, "gradcam", answer)
    return questions


def test_each_mistake_has_a_map_for_what_it_is_taken_for_and_one_for_its_label(dogs: Path, tmp_path: Path):
    maps, reasons = look(run_of(tmp_path / "run", dogs))
    assert reasons == []
    assert {id: [name for name, _ in each] for id, each in maps.items()} == {
        id: ["dog", "cat"] if id.startswith("cat") else ["cat", "dog"] for id in IDS
    }
    drawn = [uri for each in maps.values() for _, uri in each if uri]
    assert len(set(drawn)) == len(drawn) > 0


def test_every_row_is_looked_at_by_its_own_folds_model_as_at_validation(dogs: Path, tmp_path: Path, asked: list):
    run = run_of(tmp_path / "run", dogs, "crop")
    look(run, ["dog.1", "cat.2", "dog.0"])
    assert [classes for _, _, classes in asked] == [[1], [0], [0, 0], [1, 1]]  # predicted, label; fold 0, then fold 1
    for fold, ids, (model, images, _) in (("0", ["cat.2"], asked[0]), ("1", ["dog.1", "dog.0"], asked[2])):
        own, card = backbone.load(Run(run).fold(fold) / "model.safetensors", torch.device("cpu"))
        seen = np.stack([image.fit(image.read(dogs / f"train/{id}.jpg"), card.input.size, "crop") for id in ids])
        assert torch.equal(images.cpu(), card.input.normalise(torch.from_numpy(seen), channels_last=False))
        assert all(torch.equal(a.cpu(), b) for a, b in zip(model.parameters(), own.parameters(), strict=True))


def test_a_map_lies_where_the_heat_is_and_nothing_is_told_as_nothing(dogs: Path, tmp_path: Path, asked: list):
    (taken, dog), (label, nothing) = look(run_of(tmp_path / "run", dogs), ["dog.1"])[0]["dog.1"]
    assert (taken, label, nothing) == ("cat", "dog", None)
    rise = decoded(dog).astype(float) - image.read(dogs / "train/dog.1.jpg")
    assert rise[:, :4, 0].mean() > rise[:, -4:, 0].mean() + 20  # red is added at the left


@pytest.mark.parametrize("resize, shape", [("squash", (24, 32, 3)), ("crop", (32, 32, 3)), ("pad", (32, 32, 3))])
def test_a_map_lies_on_the_photograph_or_on_the_part_of_it_that_the_model_sees(
    dogs: Path, tmp_path: Path, asked: list, resize: str, shape: tuple[int, ...]
):
    maps, _ = look(run_of(tmp_path / "run", dogs, resize), ["dog.1"])
    assert decoded(maps["dog.1"][0][1]).shape == shape


def test_more_rows_than_a_batch_all_have_their_own_maps(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = run_of(tmp_path / "run", dogs)
    whole = look(run)
    monkeypatch.setattr(attention, "BATCH", 2)
    parts = look(run)[0]
    for id in IDS:
        for (name, one), (same, other) in zip(whole[0][id], parts[id], strict=True):
            assert (name, one is None) == (same, other is None)
            assert one is None or np.abs(decoded(one).astype(int) - decoded(other)).mean() < 2


def test_a_row_without_a_readable_picture_has_no_map(tmp_path: Path):
    dogs = write_dogs_vs_cats(tmp_path / "dogs", rows=3, test=2)
    (dogs / "train/cat.1.jpg").write_bytes(b"no picture")
    run = run_of(tmp_path / "run", dogs)
    maps, reasons = look(run)
    assert (set(maps), reasons) == (set(IDS) - {"cat.1"}, [])
    assert look(run, ["cat.1"]) == ({}, [])


def test_a_fold_without_its_model_is_told_and_the_others_have_maps(dogs: Path, tmp_path: Path):
    run = run_of(tmp_path / "run", dogs)
    with_both, _ = look(run)
    maps, _ = look(run_of(tmp_path / "one", dogs, folds="1"))
    assert maps == {id: each for id, each in with_both.items() if id.startswith("dog")}
    _, reasons = look(tmp_path / "one")
    assert reasons == [f"fold 0: {tmp_path}/one/fold-0/model.safetensors: no such model; train the fold first"]


def test_a_model_that_may_have_trained_on_the_row_is_not_asked(dogs: Path, tmp_path: Path):
    run = run_of(tmp_path / "run", dogs)
    table = (run / "folds.csv").read_text()
    (run / "folds.csv").write_text(table + "more,cat,,0\n")
    maps, reasons = look(run)
    assert maps == {}
    assert [line.partition(": ")[0] for line in reasons] == ["fold 0", "fold 1"]
    assert all("folds.csv was changed after fold" in line for line in reasons)


def test_another_versions_weights_are_told_in_one_line(dogs: Path, tmp_path: Path):
    run = run_of(tmp_path / "run", dogs)
    for fold in "01":
        model, card = backbone.load(run / f"fold-{fold}/model.safetensors", torch.device("cpu"))
        model.fc4 = nn.Linear(2, 2)
        backbone.save(model, card, run / f"fold-{fold}/model.safetensors")
    maps, reasons = look(run)
    assert maps == {}
    assert len(reasons) == 2
    assert all("\n" not in line and "Error(s) in loading" in line for line in reasons)


def test_a_model_without_maps_is_told(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_):
        raise UserError("Mixer gives no maps")

    monkeypatch.setattr(cam, "gradcam", refuse)
    assert look(run_of(tmp_path / "run", dogs), ["cat.0"]) == ({}, ["fold 0: Mixer gives no maps"])


def test_an_ensemble_has_no_model_of_its_own(dogs: Path, tmp_path: Path):
    run = run_of(tmp_path / "run", dogs)
    (run / "ensemble.json").write_text("{}")
    assert look(run) == ({}, [f"{run} is an ensemble, which has no model of its own"])
