"""src/competitions/predictions.py: predictions carry ids through every reordering, file and mean."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from src.competitions.predictions import Predictions, concatenate, mean
from src.errors import UserError


def predictions(ids: list[str], classes: int = 3, seed: int = 0) -> Predictions:
    logits = np.random.default_rng(seed).normal(0, 3, (len(ids), classes)).astype(np.float32)
    return Predictions(np.array(ids, dtype=str), logits, tuple(f"{k:02d}" for k in range(classes)))


def same(a: Predictions, b: Predictions) -> bool:
    return a.ids.tolist() == b.ids.tolist() and np.array_equal(a.logits, b.logits) and a.classes == b.classes


names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=6)
some = st.lists(names, min_size=1, max_size=12, unique=True)


@given(some, st.randoms())
def test_reordered_and_back_again_they_are_the_same(ids, random):
    before = predictions(ids)
    shuffled = before.of(np.array(random.sample(ids, len(ids))))
    assert same(shuffled.of(before.ids), before)


@given(some, st.data())
def test_a_selection_keeps_every_id_with_its_own_logits(ids, data):
    before = predictions(ids)
    chosen = data.draw(st.lists(st.sampled_from(ids), unique=True))
    after = before.of(np.array(chosen, dtype=str))
    assert after.ids.tolist() == chosen
    for id, logits in zip(chosen, after.logits, strict=True):
        assert np.array_equal(logits, before.logits[ids.index(id)])


def test_ids_without_a_prediction_are_counted_and_named():
    with pytest.raises(UserError, match="2 of 3 rows have no prediction, the first is 'x'"):
        predictions(["a", "b"]).of(np.array(["a", "x", "y"]))


@given(some, st.integers(2, 5))
def test_saved_and_loaded_they_are_the_same(tmp_path_factory, ids, classes):
    path = tmp_path_factory.mktemp("npz") / "oof.npz"
    before = predictions(ids, classes)
    before.save(path)
    assert same(Predictions.load(path), before)
    assert [file.name for file in path.parent.iterdir()] == ["oof.npz"]


def test_a_file_is_replaced_only_when_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "oof.npz"
    before = predictions(["a"])
    before.save(path)

    def fill_the_disk(file, **_):
        file.write(b"half")
        raise OSError(28, "full")

    monkeypatch.setattr(np, "savez", fill_the_disk)
    with pytest.raises(OSError, match="full"):
        predictions(["b"]).save(path)
    assert same(Predictions.load(path), before)


def spoil(path: Path, **arrays: np.ndarray) -> None:
    given = {"ids": np.array(["a", "b"]), "logits": np.zeros((2, 2), np.float32), "classes": np.array(["x", "y"])} | arrays
    np.savez(path, **{name: array for name, array in given.items() if array is not None})


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({"logits": np.array([[0, 0], [0, np.nan]])}, "id 'b' holds NaN or infinity"),
        ({"logits": np.array([[0, np.inf], [0, 0]])}, "id 'a' holds NaN or infinity"),
        ({"logits": np.zeros((3, 2))}, "not a file of predictions"),
        ({"logits": None}, "not a file of predictions"),
        ({"ids": np.array(["a", "a"])}, "'a' stands twice among the ids"),
        ({"ids": np.array(["a", None], dtype=object)}, "not a file of predictions"),
        ({"classes": np.array(["x", "y", "z"])}, "not a file of predictions"),
    ],
)
def test_a_file_with_wrong_content_is_named(tmp_path, arrays, said):
    path = tmp_path / "oof.npz"
    spoil(path, **arrays)
    with pytest.raises(UserError, match=said) as error:
        Predictions.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.9])
def test_a_truncated_file_is_named(tmp_path, kept):
    path = tmp_path / "oof.npz"
    predictions(["a", "b"]).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(UserError, match=r"oof\.npz: not a file of predictions"):
        Predictions.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"oof\.npz: no such file"):
        Predictions.load(tmp_path / "oof.npz")


def test_probabilities_are_the_softmax_even_of_huge_logits():
    logits = np.array([[0, 0, 0], [1, 2, 3], [1000, 0, -1000]], np.float32)
    probabilities = Predictions(np.array(["a", "b", "c"]), logits, ("x", "y", "z")).probabilities()
    assert probabilities.dtype == np.float64
    assert np.allclose(probabilities, [[1 / 3] * 3, [0.09003057, 0.24472847, 0.66524096], [1, 0, 0]])


@pytest.mark.parametrize("ids, logits", [(["a", "a"], (2, 3)), (["a"], (2, 3)), (["a", "b"], (2, 2))])
def test_contradictory_arrays_are_a_bug(ids, logits):
    with pytest.raises(AssertionError):
        Predictions(np.array(ids), np.zeros(logits, np.float32), ("x", "y", "z"))


@given(some, st.integers(1, 4), st.randoms())
def test_a_mean_is_one_of_probabilities_matched_by_id(ids, count, random):
    parts = [predictions(ids, seed=seed) for seed in range(count)]
    shuffled = [parts[0]] + [part.of(np.array(random.sample(ids, len(ids)))) for part in parts[1:]]
    expected = np.mean([softmax(part.logits.astype(np.float64), axis=1) for part in parts], axis=0)
    assert np.allclose(mean(shuffled).probabilities(), expected, atol=1e-6)
    assert mean(shuffled).ids.tolist() == ids


def test_a_mean_with_a_certain_zero_stays_finite():
    sure = Predictions(np.array(["a"]), np.array([[0, -2000]], np.float32), ("x", "y"))
    assert np.isfinite(mean([sure, sure]).logits).all()


def test_folds_predictions_are_put_together_row_by_row():
    whole = concatenate([predictions(["a", "b"], seed=1), predictions(["c"], seed=2)])
    assert whole.ids.tolist() == ["a", "b", "c"]
    assert same(whole.of(np.array(["c"])), predictions(["c"], seed=2))


def test_folds_that_share_a_row_or_differ_in_their_classes_are_a_bug():
    with pytest.raises(AssertionError):
        concatenate([predictions(["a", "b"]), predictions(["b"])])
    with pytest.raises(AssertionError):
        concatenate([predictions(["a"], 2), predictions(["b"], 3)])
