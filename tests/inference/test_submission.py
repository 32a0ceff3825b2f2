"""What is made is valid, whatever was predicted; and whatever is changed in it is found, with row and column."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score

from src import config as configuration
from src.competitions.predictions import Predictions
from src.config import CompetitionConfig
from src.errors import UserError
from src.inference import submission

DOGS = configuration.built_in("dogs_vs_cats")
SHOPEE = configuration.built_in("shopee")
DIGITS = configuration.built_in("digits")
EACH = DIGITS.model_copy(update={"submission_values": "probabilities", "submission_columns": ()})
COMPETITIONS = {"one probability": DOGS, "a label with zeros": SHOPEE, "a label": DIGITS, "a probability a class": EACH}
QUIET = settings(max_examples=40, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("submissions") / "mine.csv"


@st.composite
def predictions(draw: st.DrawFn, competition: CompetitionConfig, least: int = 1) -> Predictions:
    """Any finite logits of any ids, ids that look like numbers and like file names."""
    rows = draw(st.integers(least, 12))
    numbers = draw(st.lists(st.integers(0, 10**6), min_size=rows, max_size=rows, unique=True))
    pattern = draw(st.sampled_from(["{}", "{:07d}", "{}.jpg", "a b{}", 'q"{}']))
    finite = st.floats(-1e4, 1e4, width=32)
    logits = draw(arrays(np.float32, (rows, len(competition.classes)), elements=finite))
    return Predictions(np.array([pattern.format(number) for number in numbers]), logits, competition.classes)


def written(competition: CompetitionConfig, predicted: Predictions, file: Path) -> list[str]:
    """The lines of the valid submission in `file`."""
    table = submission.make(competition, predicted)
    submission.write(table, file, competition, competition.classes, predicted.ids.tolist())
    return file.read_text().splitlines()


def faults(competition: CompetitionConfig, lines: list[str], ids: list[str], file: Path) -> list[str]:
    file.write_text("\n".join(lines) + "\n")
    return submission.check(file, competition, competition.classes, ids)


def some(competition: CompetitionConfig, rows: int = 9) -> Predictions:
    """Random predictions of the rows 0 … 8, in an order of their own."""
    rng = np.random.default_rng(rows)
    logits = rng.normal(size=(rows, len(competition.classes))).astype(np.float32)
    return Predictions(rng.permutation([str(i) for i in range(rows)]), logits, competition.classes)


# What is made


@pytest.mark.parametrize("kind", COMPETITIONS)
@QUIET
@given(data=st.data())
def test_a_submission_of_any_predictions_is_valid(kind: str, data: st.DataObject, file: Path):
    competition = COMPETITIONS[kind]
    predicted = data.draw(predictions(competition))
    written(competition, predicted, file)
    assert submission.check(file, competition, competition.classes, predicted.ids.tolist()) == []
    assert pd.read_csv(file, dtype=str, keep_default_na=False).iloc[:, 0].tolist() == predicted.ids.tolist()


def test_a_probability_is_that_of_the_positive_class_with_all_its_digits(file: Path):
    cat_and_dog = np.array([[3, 1], [1, 6], [1, 1e-7]], np.float32)
    lines = written(DOGS, Predictions(np.array(["7", "2", "3"]), np.log(cat_and_dog), ("cat", "dog")), file)
    assert lines[0] == "id,label"
    assert [line.split(",")[0] for line in lines[1:]] == ["7", "2", "3"]
    assert [float(line.split(",")[1]) for line in lines[1:]] == pytest.approx([1 / 4, 6 / 7, 1e-7], rel=1e-6)


def test_a_label_keeps_its_two_digits(file: Path):
    logits = np.zeros((2, 42), np.float32)
    logits[0, 3], logits[1, 41] = 1, 1
    assert written(SHOPEE, Predictions(np.array(["b.jpg", "a.jpg"]), logits, SHOPEE.classes), file) == [
        "filename,category", "b.jpg,03", "a.jpg,41",
    ]  # fmt: skip


def test_another_name_is_written_for_a_class_where_the_competition_wants_one(file: Path):
    original = configuration.built_in("dogs_vs_cats_original")
    predicted = Predictions(np.array(["1", "2"]), np.eye(2, dtype=np.float32), ("cat", "dog"))
    assert written(original, predicted, file) == ["id,label", "1,0", "2,1"]


def test_a_probability_a_class_has_the_classes_as_its_header(file: Path):
    predicted = some(EACH)
    table = written(EACH, predicted, file)
    assert table[0] == "id,0,1,2,3,4,5,6,7,8,9"
    numbers = pd.read_csv(file).iloc[:, 1:].to_numpy()
    np.testing.assert_allclose(numbers, predicted.probabilities(), rtol=1e-8)


# What is refused


def break_value(value: str) -> Callable:
    """A change that puts `value` into the second column of a row."""

    def change(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
        cells = lines[row].split(",")
        cells[1] = value
        name = lines[0].split(",")[1]
        return [*lines[:row], ",".join(cells), *lines[row + 1 :]], rf"row {row + 1}, column '{name}': .*{re.escape(value)}"

    return change


def drop(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    id = lines[row].split(",")[0]
    return lines[:row] + lines[row + 1 :], rf"^1 of {len(lines) - 1} test rows are missing, the first is '{id}'$"


def double(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    at = rng.randint(row + 1, len(lines))
    id = lines[row].split(",")[0]
    return [*lines[:at], lines[row], *lines[at:]], rf"^row {at + 1}: id '{id}' stands already in row {row + 1}$"


def swap(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    other = rng.choice([i for i in range(1, len(lines)) if i != row])
    first, last = min(row, other), max(row, other)
    changed = [*lines]
    changed[first], changed[last] = lines[last], lines[first]
    have, want = (line.split(",")[0] for line in (lines[last], lines[first]))
    return changed, rf"^row {first + 1}: id '{have}' stands where the sample has '{want}'; keep the sample's order$"


def foreign(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return [*lines[:row], "x" + lines[row], *lines[row + 1 :]], rf"^row {row + 1}: id 'x\S+ is not a test row$"


def more_values(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    width = len(lines[0].split(","))
    return [*lines[:row], lines[row] + ",0", *lines[row + 1 :]], rf"^row {row + 1}: {width + 1} values, expected {width}$"


def fewer_values(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    width = len(lines[0].split(","))
    short = lines[row].rpartition(",")[0]
    return [*lines[:row], short, *lines[row + 1 :]], rf"^row {row + 1}: {width - 1} values, expected {width}$"


def blank(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return [*lines[:row], "", *lines[row:]], rf"^row {row + 1}: id '' is not a test row$"


def column_more(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return [f"{i}," + line for i, line in enumerate(lines)], r"^row 1: the header is '0,\w+,.*', expected '\w+,"


def other_header(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    cells = lines[0].split(",")
    rng.shuffle(cells)
    header = ",".join(cells if cells != lines[0].split(",") else [cell.upper() for cell in cells])
    return [header, *lines[1:]], rf"^row 1: the header is '{header}', expected '{lines[0]}'$"


def no_header(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return lines[1:], rf"^row 1: the header is '{re.escape(lines[1])}'"


def windows_line_ends(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return [*lines[:row], lines[row] + "\r", *lines[row + 1 :]], r"Windows line ends \(CRLF\)"


def byte_order_mark(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return ["\ufeff" + lines[0], *lines[1:]], "byte order mark"


ALWAYS = [
    drop, double, swap, foreign, more_values, fewer_values, blank, column_more, other_header, no_header,
    windows_line_ends, byte_order_mark, *map(break_value, ("", "nan", "abc", "0.5.", "None")),
]  # fmt: skip
NO_PROBABILITY = ["inf", "-inf", "NaN", "1.0001", "-1e-9", "1e3", "0_1", "50%", "0x1"]
NO_CLASS = ["1.0", "-1", "42", "cat", "00000", " 1", "1 "]
CHANGES = {
    "one probability": ALWAYS + [break_value(value) for value in NO_PROBABILITY],
    "a probability a class": ALWAYS + [break_value(value) for value in NO_PROBABILITY],
    "a label": ALWAYS + [break_value(value) for value in NO_CLASS],
    "a label with zeros": ALWAYS + [break_value(value) for value in [*NO_CLASS, "0", "7"]],
}


@pytest.mark.parametrize("kind", COMPETITIONS)
@settings(QUIET, max_examples=150)
@given(data=st.data())
def test_whatever_is_changed_in_it_is_found_and_named(kind: str, data: st.DataObject, file: Path):
    competition = COMPETITIONS[kind]
    predicted = some(competition)
    lines = written(competition, predicted, file)
    change = data.draw(st.sampled_from(CHANGES[kind]))
    changed, expected = change(lines, data.draw(st.integers(1, 9)), random.Random(data.draw(st.integers(0, 999))))
    told = faults(competition, changed, predicted.ids.tolist(), file)
    assert any(re.search(expected, fault) for fault in told), (expected, told)


@QUIET
@given(order=st.permutations(range(9)))
def test_any_other_order_of_its_rows_is_refused(order: list[int], file: Path):
    predicted = some(DOGS)
    lines = written(DOGS, predicted, file)
    told = faults(DOGS, [lines[0], *(lines[1 + row] for row in order)], predicted.ids.tolist(), file)
    moved = [place for place, row in enumerate(order) if place != row]
    assert len(told) == bool(moved)
    assert not moved or told[0].startswith(f"row {moved[0] + 2}: id ")


def test_a_class_that_lost_its_zero_is_told_so(file: Path):
    told = faults(SHOPEE, ["filename,category", "a.jpg,0", "b.jpg,7", "c.jpg,43"], ["a.jpg", "b.jpg", "c.jpg"], file)
    assert told == [
        "row 2, column 'category': '0' is not a class; did it lose its zero? '00' is one",
        "row 3, column 'category': '7' is not a class; did it lose its zero? '07' is one",
        "row 4, column 'category': '43' is not a class",
    ]


def test_probabilities_that_do_not_add_up_are_refused_with_their_row(file: Path):
    told = faults(EACH, ["id,0,1,2,3,4,5,6,7,8,9", "a,1,0,0,0,0,0,0,0,0,0", "b,1,0,0,0.5,0,0,0,0,0,0"], ["a", "b"], file)
    assert told == ["row 3: the probabilities add up to 1.5, not 1"]


def test_a_quote_left_open_in_a_long_file_is_a_fault_and_no_crash(file: Path):
    ids = [str(i) for i in range(20_000)]
    lines = ["id,label", *(f"{id},0.5" for id in ids)]
    lines[3] = '2,"0.5'
    assert faults(DOGS, lines, ids, file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "row 1: the header is 'absent'"),
        (b"id,label\n1,\xff\n", "not UTF-8: byte 11 is 0xff"),
        (b"\n", "row 1: the header"),
    ],
)
def test_a_file_that_is_no_table_is_refused(content: bytes, said: str, file: Path):
    file.write_bytes(content)
    assert submission.check(file, DOGS, DOGS.classes, ["1"])[0].startswith(said)


def test_a_header_alone_lacks_every_row(file: Path):
    assert faults(DOGS, ["id,label"], ["1", "10", "2"], file) == ["3 of 3 test rows are missing, the first is '1'"]


# Writing


def test_an_invalid_submission_is_not_written_and_keeps_the_one_before(tmp_path: Path):
    path = tmp_path / "submissions/mine.csv"
    lines = written(DOGS, some(DOGS), path)
    table = submission.make(DOGS, some(DOGS))
    table.loc[2, "label"] = "1.5"
    table.loc[[4, 5, 6], "label"] = "nan"
    with pytest.raises(
        submission.SubmissionError, match=r"mine\.csv is not a valid submission: row 4, column 'label': 1\.5"
    ) as told:
        submission.write(table, path, DOGS, DOGS.classes, some(DOGS).ids.tolist())
    assert len(told.value.faults) == 4
    assert str(told.value).endswith("and 1 more faults")
    assert path.read_text().splitlines() == lines
    assert [file.name for file in path.parent.iterdir()] == ["mine.csv"]


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "submissions").write_text("a file where the folder should be")
    (tmp_path / "taken.csv").mkdir()
    for path in (tmp_path / "submissions/mine.csv", tmp_path / "taken.csv"):
        with pytest.raises(UserError, match=rf"{path.name}: the submission can't be written: \S"):
            written(DOGS, some(DOGS), path)
    assert {file.name for file in tmp_path.iterdir()} == {"submissions", "taken.csv"}


def test_it_is_scored_by_the_competitions_metric_matched_by_id(tmp_path: Path):
    predicted = some(DIGITS)
    labels = np.random.default_rng(0).integers(0, 10, 9)
    solution = pd.DataFrame({"id": [str(i) for i in range(9)], "label": labels.astype(str)})
    solution.to_csv(tmp_path / "solution.csv", index=False)
    guessed = [predicted.logits[predicted.ids.tolist().index(str(i))].argmax() for i in range(9)]
    value, rows = submission.score(DIGITS, predicted, tmp_path / "solution.csv")
    assert (value, rows) == (pytest.approx(accuracy_score(labels, guessed)), 9)
