"""A submission whose values can't be meant is found beside a run's predictions; one of another good model passes."""

import numpy as np
import pandas as pd
import pytest

from src import config as configuration
from src.competitions.predictions import Predictions
from src.config import CompetitionConfig
from src.inference import plausibility, submission

DOGS = configuration.built_in("dogs_vs_cats")
ORIGINAL = configuration.built_in("dogs_vs_cats_original")
DIGITS = configuration.built_in("digits")
EACH = DIGITS.model_copy(update={"submission_values": "probabilities", "submission_columns": (), "metric": "log_loss"})
KINDS = {"one probability": DOGS, "a label of two": ORIGINAL, "a label": DIGITS, "a probability a class": EACH}
ROWS = 400


def model(competition: CompetitionConfig, seed: int, sharpness: float = 4.0) -> Predictions:
    """Predictions of the same 400 rows by a model that is right of most of them; each seed errs in its own way."""
    truth = np.random.default_rng(0).integers(0, len(competition.classes), ROWS)
    noise = np.random.default_rng(seed).normal(size=(ROWS, len(competition.classes)))
    logits = sharpness * np.eye(len(competition.classes))[truth] + noise
    return Predictions(np.array([f"{i}" for i in range(ROWS)]), logits.astype(np.float32), competition.classes)


def faults(competition: CompetitionConfig, table: pd.DataFrame) -> list[str]:
    return plausibility.contradictions(table, competition, model(competition, 1), "runs/mine")


@pytest.mark.parametrize("kind", KINDS)
def test_a_models_own_submission_and_a_weaker_models_agree_with_it(kind: str):
    competition = KINDS[kind]
    for seed, sharpness in ((1, 4.0), (2, 4.0), (3, 1.5)):
        assert faults(competition, submission.make(competition, model(competition, seed, sharpness))) == []


@pytest.mark.parametrize("competition", [DOGS, ORIGINAL], ids=["probability", "label"])
def test_the_other_class_is_found_with_the_row_that_contradicts_most(competition: CompetitionConfig):
    own = model(competition, 1)
    table = submission.make(competition, Predictions(own.ids, own.logits[:, ::-1], own.classes))
    (fault,) = faults(competition, table)
    row = int(fault.split(",")[0].removeprefix("row ")) - 2
    theirs = submission.make(competition, own)
    assert fault.startswith(
        f"row {row + 2}, column 'label': {table['label'][row]} where runs/mine predicts {theirs['label'][row]}; "
    )
    assert fault.endswith("over 400 rows the correlation is -1.00: are the classes exchanged?")
    if competition is DOGS:
        apart = (table["label"].astype(float) - theirs["label"].astype(float)).abs()
        assert apart[row] == apart.max()


@pytest.mark.parametrize("kind", KINDS)
def test_values_in_another_order_than_their_ids_are_found(kind: str):
    competition = KINDS[kind]
    table = submission.make(competition, model(competition, 1))
    by_name = table.sort_values("id", ignore_index=True)  # 0, 1, 10, 100, …: a folder's order
    table.iloc[:, 1:] = by_name.iloc[:, 1:]
    (fault,) = faults(competition, table)
    assert fault.endswith("do the values stand in another order than the ids?")


@pytest.mark.parametrize("kind", ["a label", "a probability a class"])
def test_two_swapped_classes_are_found_among_ten(kind: str):
    competition = KINDS[kind]
    own = model(competition, 1)
    order = [0, 1, 2, 7, 4, 5, 6, 3, 8, 9]
    told = faults(competition, submission.make(competition, Predictions(own.ids, own.logits[:, order], own.classes)))
    assert len(told) == 2
    assert "'3' correlates with their '7'" in told[0]
    assert "'7' correlates with their '3'" in told[1]
    assert all(fault.startswith("row ") and ", column '" in fault for fault in told)


def test_classes_shifted_by_one_are_found():
    own = model(DIGITS, 1)
    told = faults(DIGITS, submission.make(DIGITS, Predictions(own.ids, np.roll(own.logits, 1, axis=1), own.classes)))
    assert told


def test_a_run_that_knows_none_of_the_rows_or_holds_one_value_says_nothing():
    table = submission.make(DOGS, model(DOGS, 1))
    for ids, logits in ((["a", "b"], [[0, 1], [1, 0]]), (table["id"], np.zeros((ROWS, 2)))):
        other = Predictions(np.array(ids), np.array(logits, np.float32), DOGS.classes)
        assert plausibility.contradictions(table, DOGS, other, "runs/mine") == []


def test_few_rows_that_happen_not_to_agree_are_no_fault():
    table = submission.make(DOGS, model(DOGS, 1)).head(12)
    table["label"] = np.roll(table["label"], 3)
    assert faults(DOGS, table) == []


def test_the_other_class_is_found_in_few_rows_too():
    own = model(DOGS, 1)
    table = submission.make(DOGS, Predictions(own.ids, own.logits[:, ::-1], own.classes)).head(30)
    assert faults(DOGS, table)[0].endswith("are the classes exchanged?")


def test_eight_of_a_hundred_rows_in_another_class_are_not_far():
    usual = np.repeat(np.eye(2), 5000, axis=0)
    table = pd.DataFrame({"id": [str(i) for i in range(5000)], "label": ["0"] * 2100 + ["1"] * 2900})
    assert plausibility.far_from(usual, table, ORIGINAL, ORIGINAL.classes) is None
    table["label"] = ["0"] * 1900 + ["1"] * 3100
    assert plausibility.far_from(usual, table, ORIGINAL, ORIGINAL.classes) == "'cat' has a share of 38.0%, but of 50.0% in"


def test_rows_that_all_hold_the_same_are_a_fault_from_twenty_on():
    table = pd.DataFrame({"id": [str(i) for i in range(20)], "label": "0.5"})
    assert plausibility.constant(table) == "rows 2 to 21, column 'label': all hold '0.5', which says nothing of the images"
    assert plausibility.constant(table.head(19)) is None
    assert plausibility.constant(submission.make(DOGS, model(DOGS, 1))) is None


def test_certainty_under_log_loss_is_a_warning_with_its_first_row():
    table = pd.DataFrame({"id": ["a", "b", "c"], "label": ["0.5", "1", "0"]})
    assert plausibility.certain(table, DOGS) == (
        "2 of 3 rows hold 0 or 1, the first is row 3, column 'label': a single wrong one costs 34.5 / 3 of log loss; clip them"
    )
    assert plausibility.certain(table.head(1), DOGS) is None
    assert plausibility.certain(table, ORIGINAL) is None
    each = pd.DataFrame({"id": ["a", "b"], "x": ["0.5", "0"], "y": ["0.5", "0.5"], "z": ["0", "0.5"]})
    assert plausibility.certain(each, EACH) is None, "of many classes some have no chance at all"


@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_other_rows_of_the_same_kind_are_not_far_and_those_of_one_class_are(kind: str):
    competition = KINDS[kind]
    usual = plausibility.numbers(submission.make(competition, model(competition, 2)), competition, competition.classes)
    table = submission.make(competition, model(competition, 1))
    assert plausibility.far_from(usual, table.head(60), competition, competition.classes) is None
    of_one = model(competition, 1).logits + 5 * np.eye(len(competition.classes), dtype=np.float32)[-1]
    shifted = submission.make(competition, Predictions(model(competition, 1).ids, of_one, competition.classes))
    told = plausibility.far_from(usual, shifted, competition, competition.classes)
    assert told is not None
    assert told.startswith(f"'{competition.classes[-1] if len(usual[0]) != 2 else 'cat'}' has a share of ")


def test_labels_are_held_as_a_submission_would_hold_them():
    labels = pd.Series(["dog", "cat", "dog"])
    assert plausibility.labelled(labels, DOGS, DOGS.classes).tolist() == [[1], [0], [1]]
    assert plausibility.labelled(labels, ORIGINAL, ORIGINAL.classes).tolist() == [[0, 1], [1, 0], [0, 1]]
