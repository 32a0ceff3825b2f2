"""From a trained run to its submission: the folds' mean, the mirror image, and what is refused on the way."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import accuracy_score

from conftest import write_dogs_vs_cats, write_image
from src.competitions.predictions import Predictions, mean
from src.config import Config
from src.data.image import fit, read
from src.errors import UserError
from src.files import sha256
from src.inference import unseen
from src.inference.predict import predict_run
from src.inference.unseen import RowsToPredict
from src.models import backbone
from src.training.run import Run, cross_validation
from tiny_runs import tiny, train

TEST_ROWS = 11


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dogs vs. Cats whose sample is in an order of its own."""
    root = write_dogs_vs_cats(tmp_path_factory.mktemp("dogs"), test=TEST_ROWS)
    sample = root / "sample_submission.csv"
    header, *rows = sample.read_text().splitlines()
    sample.write_text("\n".join([header, *rows[::-1]]) + "\n")
    return root


@pytest.fixture(scope="module")
def trained(dogs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("trained") / "runs/tiny")
    train(run, tiny(dogs, train__epochs=3), "all")
    return run


@pytest.fixture
def run(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the trained run, in the folder to work in."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.path, "runs/tiny")
    return Run(Path("runs/tiny"))


def predict(run: Run, config: Config, partial: bool = False) -> tuple[Path, list[str]]:
    said: list[str] = []
    return predict_run(run, config, partial, said.append), said


# The whole way


def test_the_submission_is_the_folds_mean_in_the_samples_order(run: Run, dogs: Path):
    path, said = predict(run, tiny(dogs))
    assert path == Path("submissions/tiny.csv")
    table = pd.read_csv(path, dtype={"id": str})
    assert list(table) == ["id", "label"]
    assert table["id"].tolist() == [str(i) for i in range(TEST_ROWS, 0, -1)]
    parts = [Predictions.load(run.fold(fold) / "test.npz") for fold in ("0", "1")]
    expected = np.mean([part.of(table["id"].to_numpy()).probabilities()[:, 1] for part in parts], axis=0)
    np.testing.assert_allclose(table["label"], expected, rtol=1e-6)
    assert np.abs(parts[0].logits - parts[1].logits).max() > 1e-3
    assert said[-1] == f"submissions/tiny.csv: {TEST_ROWS} rows, every row of sample_submission.csv, in its order; valid"


def test_it_tells_the_colours_of_the_test_images_apart(run: Run, dogs: Path):
    table = pd.read_csv(predict(run, tiny(dogs))[0])
    odd_is_cat = table["label"][table["id"] % 2 == 1], table["label"][table["id"] % 2 == 0]
    assert odd_is_cat[0].max() < odd_is_cat[1].min()


def test_what_it_says_are_the_scores_without_and_with_tta(run: Run, dogs: Path):
    _, said = predict(run, tiny(dogs))
    assert said[0] == f"{run.path}: folds 0, 1; views: identity, hflip; {TEST_ROWS} test rows"
    assert f"OOF without TTA {cross_validation(run, 'log_loss')}" in said
    assert f"OOF {cross_validation(run, 'log_loss', 'oof_tta.npz')}" in said


def by_hand(run: Run, fold: str, files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the images and of their mirror images."""
    model, card = backbone.load(run.fold(fold) / "model.safetensors", torch.device("cpu"))
    images = np.stack([fit(read(file), 32, "squash") for file in files]).astype(np.float32)
    both = []
    for turned in (images, images[:, :, ::-1]):
        pixels = (turned / 255 - card.input.mean) / card.input.std
        with torch.inference_mode():
            both.append(softmax(model(torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float()).double().numpy(), axis=1))
    return both[0], both[1]


def test_under_tta_a_row_is_the_mean_of_the_image_and_its_mirror_image(run: Run, dogs: Path):
    predict(run, tiny(dogs))
    for fold in ("0", "1"):
        plain, under_tta, tested = (Predictions.load(run.fold(fold) / f"{name}.npz") for name in ("oof", "oof_tta", "test"))
        assert under_tta.ids.tolist() == plain.ids.tolist()
        one, mirrored = by_hand(run, fold, [dogs / f"train/{id}.jpg" for id in plain.ids])
        np.testing.assert_allclose(plain.probabilities(), one, rtol=1e-4)
        np.testing.assert_allclose(under_tta.probabilities(), (one + mirrored) / 2, rtol=1e-4)
        assert np.abs(plain.probabilities() - under_tta.probabilities()).max() > 1e-3
        one, mirrored = by_hand(run, fold, [dogs / f"test/{id}.jpg" for id in tested.ids])
        np.testing.assert_allclose(tested.probabilities(), (one + mirrored) / 2, rtol=1e-4)


def test_without_tta_the_out_of_fold_rows_are_as_training_saw_them(run: Run, dogs: Path):
    _, said = predict(run, tiny(dogs, predict__tta="none"))
    for fold in ("0", "1"):
        plain, under_tta = (Predictions.load(run.fold(fold) / name) for name in ("oof.npz", "oof_tta.npz"))
        assert np.array_equal(under_tta.logits, plain.logits)
        assert np.array_equal(under_tta.ids, plain.ids)
        tested = Predictions.load(run.fold(fold) / "test.npz")
        one, _ = by_hand(run, fold, [dogs / f"test/{id}.jpg" for id in tested.ids])
        np.testing.assert_allclose(tested.probabilities(), one, rtol=1e-4)
    assert not [line for line in said if "without TTA" in line]


def test_what_the_views_are_worth_is_said_view_by_view(run: Run, dogs: Path, capsys: pytest.CaptureFixture):
    _, said = predict(run, tiny(dogs))
    shown = capsys.readouterr().out
    before, after = cross_validation(run, "log_loss"), cross_validation(run, "log_loss", "oof_tta.npz")
    assert re.search(rf"│ identity +│ {before.mean:.4f} ± {before.sd:.4f} │", shown)
    assert re.search(rf"│ mean +│ {after.mean:.4f} ± {after.sd:.4f} │", shown)
    word = "better" if after.oof <= before.oof else "worse"
    line = next(line for line in said if line.startswith("TTA: "))
    assert line.startswith(f"TTA: log_loss {abs(after.oof - before.oof):.4f} ± 0.")
    assert line.endswith(f"{word} on 40 out-of-fold rows")


def already(said: list[str]) -> list[str]:
    return [line for line in said if "already" in line]


def test_a_fold_predicted_already_is_not_done_again(run: Run, dogs: Path):
    """As after an interruption between two folds; with another model, view or image it is."""
    plain = tiny(dogs, predict__tta="none")
    first, _ = predict(run, tiny(dogs))
    whole = first.read_bytes()
    (run.fold("1") / "predicted.json").unlink()
    (run.fold("1") / "test.npz").write_bytes(b"half a file")
    path, said = predict(run, tiny(dogs))
    assert already(said) == ["fold 0: predicted already"]
    assert path.read_bytes() == whole
    assert not already(predict(run, plain)[1])
    assert len(already(predict(run, plain)[1])) == 2
    (dogs / "test/3.jpg").touch()  # the same picture, copied
    assert len(already(predict(run, plain)[1])) == 2
    picture, times = (dogs / "test/3.jpg").read_bytes(), (dogs / "test/3.jpg").stat()
    write_image(dogs / "test/3.jpg", 77)
    replaced = (dogs / "test/3.jpg").read_bytes()
    (dogs / "test/3.jpg").write_bytes(replaced.ljust(len(picture), b"\0")[: max(len(replaced), len(picture))])
    os.utime(dogs / "test/3.jpg", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not already(predict(run, plain)[1])
    (dogs / "test/3.jpg").write_bytes(picture)
    assert not already(predict(run, plain)[1])
    model, card = backbone.load(run.fold("0") / "model.safetensors", torch.device("cpu"))
    backbone.save(model, replace(card, epochs=card.epochs + 1), run.fold("0") / "model.safetensors")
    assert already(predict(run, plain)[1]) == ["fold 1: predicted already"]


def test_views_that_the_competition_does_not_declare_are_refused(run: Run, dogs: Path):
    with pytest.raises(UserError, match=r"predict\.tta: turns may change the label: dogs_vs_cats declares hflip label-preserv"):
        predict(run, tiny(dogs, predict__tta="hflip * turns"))


def test_batches_and_workers_change_no_prediction(run: Run, dogs: Path):
    first = pd.read_csv(predict(run, tiny(dogs))[0])
    second = pd.read_csv(predict(run, tiny(dogs, predict__batch_size=3, data__workers=1))[0])
    pd.testing.assert_frame_equal(first, second, rtol=1e-5)


def test_a_model_of_all_rows_alone_is_predicted_without_a_score(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = Run(Path("runs/tiny"))
    train(run, tiny(dogs), "full")
    path, said = predict(run, tiny(dogs))
    assert not [line for line in said if "OOF" in line]
    assert len(pd.read_csv(path)) == TEST_ROWS
    assert {file.name for file in run.fold("full").iterdir()} == {
        "history.csv", "last.pt", "model.safetensors", "test.npz", "predicted.json",
    }  # fmt: skip


def test_digits_are_scored_on_their_360_test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run, config = Run(Path("runs/digits")), tiny(Path("data"), "digits", data__rows=60, train__lr=0.01)
    train(run, config)
    path, said = predict(run, config)
    table = pd.read_csv(path, dtype=str)
    truth = pd.read_csv("data/solution.csv", dtype=str)
    assert table["id"].tolist() == pd.read_csv("data/sample_submission.csv", dtype=str)["id"].tolist()
    accuracy = accuracy_score(truth["label"], table.set_index("id")["label"].reindex(truth["id"]))
    assert said[-1] == f"test accuracy {accuracy:.4f} (n=360)"
    assert said[0].startswith("digits: ") or "views: identity; 360 test rows" in said[0]
    plain, under_tta = (Predictions.load(run.fold("0") / name) for name in ("oof.npz", "oof_tta.npz"))
    assert np.array_equal(under_tta.logits, plain.logits)


# Missing test images


@pytest.fixture
def part(dogs: Path, tmp_path: Path) -> Path:
    """The data less two test images."""
    root = Path(shutil.copytree(dogs, tmp_path / "part"))
    for name in ("3", "10"):
        (root / f"test/{name}.jpg").unlink()
    return root


def test_missing_test_images_are_refused_with_counts(run: Run, part: Path):
    place = r"\(row 3 of sample_submission\.csv, id '10'\): .*--partial"
    with pytest.raises(UserError, match=rf"2 of {TEST_ROWS} test rows have no image, the first is \S+/test/10\.jpg {place}"):
        predict(run, tiny(part))
    assert not Path("submissions").exists()
    assert not list(run.path.glob("*/test.npz"))


def test_a_partial_submission_has_the_rows_that_have_an_image_and_says_that_it_is_partial(run: Run, part: Path):
    path, said = predict(run, tiny(part), partial=True)
    assert path == Path("submissions/tiny.partial.csv")
    assert pd.read_csv(path)["id"].tolist() == [i for i in range(TEST_ROWS, 0, -1) if i not in (3, 10)]
    assert said[-1].startswith(f"submissions/tiny.partial.csv: {TEST_ROWS - 2} rows, the test rows that have an image; PARTIAL")


def test_no_test_image_at_all_is_refused_even_where_a_part_is_asked_for(run: Run, part: Path):
    shutil.rmtree(part / "test")
    for partial in (True, False):
        with pytest.raises(UserError, match=r"none of the|no test rows|of 11 test rows have no image"):
            predict(run, tiny(part), partial)
    assert not Path("submissions").exists()


# Test images that can't be read


@pytest.fixture
def damaged(dogs: Path, tmp_path: Path) -> Path:
    """The data with an empty test image (id 10, row 3 of the sample), one cut off, and one missing."""
    root = Path(shutil.copytree(dogs, tmp_path / "damaged"))
    (root / "test/10.jpg").write_bytes(b"")
    (root / "test/4.jpg").write_bytes(b"not a picture")
    (root / "test/3.jpg").unlink()
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_test_images_are_refused_before_anything_is_predicted(workers: int, run: Run, damaged: Path):
    with pytest.raises(UserError) as error:
        predict(run, tiny(damaged, data__workers=workers))
    told = str(error.value)
    assert f"1 of {TEST_ROWS} test rows have no image, the first is {damaged}/test/3.jpg (row 10 of sample_subm" in told
    assert f"2 of {TEST_ROWS} test rows have an image that can't be read, the first is {damaged}/test/10.jpg (row 3 of" in told
    assert "id '10'): the file is empty" in told
    assert "--partial writes one of the other 8; --predict.unreadable prior" in told
    assert not list(run.path.glob("*/*_tta.npz"))


def test_a_partial_submission_leaves_out_what_cannot_be_read(run: Run, damaged: Path):
    path, _ = predict(run, tiny(damaged, predict__unreadable="prior"), partial=True)
    assert pd.read_csv(path)["id"].tolist() == [i for i in range(TEST_ROWS, 0, -1) if i not in (3, 4, 10)]
    assert json.loads((run.fold("0") / "predicted.json").read_text())["unseen"] == ["10", "4", "3"]


def test_rows_without_a_picture_get_the_classes_shares(run: Run, dogs: Path, damaged: Path):
    """In a submission of every row; the shares are those of folds.csv, here of 15 cats and 20 dogs."""
    whole = pd.read_csv(predict(run, tiny(dogs))[0]).set_index("id")["label"]
    table = pd.read_csv(run.folds_csv(), dtype=str, keep_default_na=False)
    table = table.drop(table.index[table["label"] == "cat"][:5])
    shares = unseen.shares(table["label"], ("cat", "dog"))
    np.testing.assert_allclose(shares, [15 / 35, 20 / 35])
    path, said = predict(run, tiny(damaged, predict__unreadable="prior"))
    found = pd.read_csv(path).set_index("id")["label"]
    assert found.index.tolist() == list(range(TEST_ROWS, 0, -1))
    np.testing.assert_allclose(found[[10, 4, 3]], 0.5)
    np.testing.assert_allclose(found.drop([10, 4, 3]), whole.drop([10, 4, 3]), rtol=1e-5)
    assert "; the classes' shares for 3 without a picture that can be read; valid" in said[-1]
    assert "the classes' shares for 3" in pd.read_csv("submissions/ledger.csv")["method"].iloc[-1]
    tested = Predictions.load(run.fold("1") / "test.npz")
    assert tested.ids.tolist() == [str(i) for i in range(TEST_ROWS, 0, -1)]
    assert len(already(predict(run, tiny(damaged, predict__unreadable="prior"))[1])) == 2


def test_a_label_is_the_most_frequent_class_where_no_picture_can_be_read():
    rows = RowsToPredict(np.array(["a", "b"]), pd.DataFrame({"id": ["b"], "path": ["b.jpg"]}), np.array(["a"]), np.array([]))
    predicted = Predictions(np.array(["b"]), np.array([[3.0, 0, 0]], np.float32), ("x", "y", "z"))
    whole = rows.complete(predicted, np.array([0.2, 0.8, 0.0]))
    assert whole.ids.tolist() == ["a", "b"]
    assert whole.probabilities()[0] == pytest.approx([0.2, 0.8, 0], abs=1e-6)
    assert np.isfinite(whole.logits).all()


def test_none_that_can_be_read_is_refused_whatever_is_asked_for(run: Run, damaged: Path):
    for file in (damaged / "test").glob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 11 test rows has an image that can be read"):
        predict(run, tiny(damaged, predict__unreadable="prior"))


def test_predictions_say_their_views_and_model(run: Run, dogs: Path):
    for tta, views in (("auto", "identity, hflip; mean of probabilities"), ("none", "identity")):
        predict(run, tiny(dogs, predict__tta=tta))
        for name in ("oof_tta.npz", "test.npz"):
            made = Predictions.load(run.fold("1") / name)
            assert (made.views, made.model) == (views, sha256(run.fold("1") / "model.safetensors"))


def test_a_fold_whose_oof_under_tta_is_gone_is_predicted_again(run: Run, dogs: Path):
    predict(run, tiny(dogs))
    (run.fold("0") / "oof_tta.npz").unlink()
    assert already(predict(run, tiny(dogs))[1]) == ["fold 1: predicted already"]
    assert (run.fold("0") / "oof_tta.npz").is_file()


# What is refused


def test_a_run_without_a_trained_fold_says_how_to_train_one(dogs: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"has no trained fold; `python train\.py --name empty --fold all`"):
        predict(Run(tmp_path / "empty"), tiny(dogs))


def test_a_submission_path_that_cannot_be_written_is_refused(run: Run, dogs: Path):
    Path("submissions").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"submissions/tiny\.csv: the submission can't be written: \S"):
        predict(run, tiny(dogs))
    assert Path("submissions").read_text() == "a file where the folder should be"


@pytest.mark.parametrize("change", ["moved", "a blank line", "gone"])
def test_folds_csv_changed_after_training_is_refused(change: str, run: Run, dogs: Path):
    text = run.folds_csv().read_text()
    if change == "gone":
        run.folds_csv().unlink()
    else:
        run.folds_csv().write_text(text + "\n" if change == "a blank line" else re.sub(",1\n", ",0\n", text, count=1))
    with pytest.raises(
        UserError, match=r"folds\.csv was changed after fold 0 was trained \(sha256 \w+, the model has \w{12}\)"
    ):
        predict(run, tiny(dogs))


def test_a_model_of_another_competition_is_refused(run: Run, dogs: Path):
    with pytest.raises(UserError, match=r"fold-0/model\.safetensors was trained for dogs_vs_cats, not dogs_vs_cats_original"):
        predict(run, tiny(dogs, "dogs_vs_cats_original"))


@pytest.mark.parametrize("known", [("cat", "dog"), ()])
def test_a_fold_with_classes_in_another_order_is_refused(known: tuple[str, ...], run: Run, dogs: Path):
    """Also where the configuration leaves the classes to the table."""
    config = tiny(dogs)
    config = config.model_copy(update={"competition": config.competition.model_copy(update={"classes": known})})
    file = run.fold("1") / "model.safetensors"
    model, card = backbone.load(file, torch.device("cpu"))
    backbone.save(model, replace(card, classes=("dog", "cat")), file)
    with pytest.raises(UserError, match=r"fold-1/model\.safetensors has other classes \(dog, cat\) than the run \(cat, dog\)"):
        predict(run, config)


def test_a_damaged_model_is_refused(run: Run, dogs: Path):
    (run.fold("1") / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"fold-1/model\.safetensors: not a model that train\.py wrote"):
        predict(run, tiny(dogs))


def test_a_validation_image_that_is_gone_is_named(run: Run, part: Path):
    lost = Predictions.load(run.fold("0") / "oof.npz").ids[3]
    (part / f"train/{lost}.jpg").unlink()
    with pytest.raises(UserError, match=rf"1 of the 20 validation rows of fold 0 have no image, the first is '{lost}'"):
        predict(run, tiny(part), partial=True)


# The mean


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1), parts=st.integers(1, 6), rows=st.integers(1, 8), scale=st.sampled_from([0.1, 3, 50]))
def test_the_mean_does_not_depend_on_the_order_of_folds_or_rows(seed: int, parts: int, rows: int, scale: float):
    rng = np.random.default_rng(seed)
    ids = rng.permutation([f"{i}" for i in range(rows)])
    folds = [Predictions(ids, rng.normal(0, scale, (rows, 3)).astype(np.float32), ("a", "b", "c")) for _ in range(parts)]
    shuffled = [fold.of(rng.permutation(ids)) for fold in rng.permutation(np.array(folds, dtype=object))]
    one, other = mean(folds), mean(shuffled)
    assert one.ids.tolist() == ids.tolist()
    np.testing.assert_allclose(other.of(ids).logits, one.logits, rtol=1e-5, atol=1e-5)
    expected = np.mean([fold.probabilities() for fold in folds], axis=0)
    np.testing.assert_allclose(one.probabilities(), expected, rtol=1e-4, atol=1e-30)
