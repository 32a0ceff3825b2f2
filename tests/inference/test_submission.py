"""What is made is valid, whatever was predicted; and whatever is changed in it is found, with row and column."""

import csv
import gzip
import random
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from sklearn.metrics import accuracy_score

from src import config as configuration
from src.competitions import metrics
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


def faults(competition: CompetitionConfig, lines: list[str] | bytes, ids: list[str], file: Path) -> list[str]:
    file.write_bytes(lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode())
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


@pytest.mark.parametrize(
    "was, now, columns",
    [
        (("0.0", "1.0"), ("0", "1"), [0, 1]),
        (("cat", "dog"), ("dog", "cat"), [1, 0]),
        (("0.0", "1.0"), ("1", "0"), [1, 0]),
        (("a", "b"), ("a", "b", "c"), None),
    ],
)
def test_an_older_runs_predictions_are_handed_in_under_todays_names(was, now, columns):
    predicted = Predictions(np.array(["x", "y"]), np.array([[1, 2], [4, 3]], np.float32), was)
    today = submission.in_todays_terms(predicted, now)
    assert today.classes == (was if columns is None else now)
    np.testing.assert_array_equal(today.logits, predicted.logits if columns is None else predicted.logits[:, columns])


def test_the_rows_of_a_submission_are_the_samples_where_it_is_there(tmp_path: Path):
    assert submission.extent(DIGITS, tmp_path) == "every row of test.csv, in its order"
    (tmp_path / "sample_submission.csv").write_text("id,label\n")
    assert submission.extent(DIGITS, tmp_path) == "every row of sample_submission.csv, in its order"
    assert submission.extent(DOGS.model_copy(update={"sample_csv": None}), tmp_path) == "a row for every test image"


def test_a_solution_in_floats_is_scored_on_the_rows_that_are_predicted(tmp_path: Path):
    (tmp_path / "solution.csv").write_text("id,label\nx,7.0\ny,3\nother,1.0\n")
    predicted = Predictions(np.array(["y", "x"]), np.eye(10, dtype=np.float32)[[3, 7]], DIGITS.classes)
    assert submission.score(DIGITS, predicted, tmp_path) == (1.0, 2)
    (tmp_path / "solution.csv").write_text("id,label\nx,7\ny,10\n")
    with pytest.raises(UserError, match=r"solution\.csv: row 3, id 'y': label '10' is not among"):
        submission.score(DIGITS, predicted, tmp_path)


# What is refused


Change = Callable[[list[str], int, random.Random], tuple[list[str] | bytes, str]]


def break_value(value: str) -> Change:
    """A change that puts `value` into the second column of a row."""

    def change(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
        cells = lines[row].split(",")
        cells[1] = value
        name = lines[0].split(",")[1]
        return [*lines[:row], ",".join(cells), *lines[row + 1 :]], rf"^row {row + 1}, column '{name}': .*{re.escape(value)}"

    change.__name__ = f"value {value!r}"
    return change


def break_id(spell: str, why: str) -> Change:
    """A change that spells the id of a row in another way."""

    def change(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
        name, (id, rest) = lines[0].split(",")[0], lines[row].split(",", 1)
        changed = [*lines[:row], f"{spell.format(id)},{rest}", *lines[row + 1 :]]
        return changed, rf"^row {row + 1}, column '{name}': {why.format(id)}$"

    change.__name__ = f"id {spell}"
    return change


def break_bytes(change: Callable[[bytes], bytes], expected: str, name: str) -> Change:
    """A change to the file as a whole."""

    def changed(lines: list[str], row: int, rng: random.Random) -> tuple[bytes, str]:
        return change("".join(f"{line}\n" for line in lines).encode()), expected.format(last=len(lines))

    changed.__name__ = name
    return changed


def drop(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    id = lines[row].split(",")[0]
    return lines[:row] + lines[row + 1 :], rf"^1 of {len(lines) - 1} test rows are missing, the first is '{id}'$"


def double(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    at = rng.randint(row + 1, len(lines))
    name, id = lines[0].split(",")[0], lines[row].split(",")[0]
    expected = rf"^row {at + 1}, column '{name}': id '{id}' stands already in row {row + 1}$"
    return [*lines[:at], lines[row], *lines[at:]], expected


def swap(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    other = rng.choice([i for i in range(1, len(lines)) if i != row])
    first, last = min(row, other), max(row, other)
    changed = [*lines]
    changed[first], changed[last] = lines[last], lines[first]
    have, want = (line.split(",")[0] for line in (lines[last], lines[first]))
    name = lines[0].split(",")[0]
    return changed, rf"^row {first + 1}, column '{name}': id '{have}' stands where \S+\.csv has '{want}'; keep its order$"


def foreign(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    name = lines[0].split(",")[0]
    return [*lines[:row], "x" + lines[row], *lines[row + 1 :]], rf"^row {row + 1}, column '{name}': id 'x\S+ is not a test row$"


def more_values(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    width = len(lines[0].split(","))
    expected = rf"^row {row + 1}: {width + 1} values, expected {width}; is a comma part of a number\?$"
    return [*lines[:row], lines[row] + ",0", *lines[row + 1 :]], expected


def decimal_comma(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    id, rest = lines[row].split(",", 1)
    width = len(lines[0].split(","))
    expected = rf"^row {row + 1}: {width + 1} values, expected {width}; is a comma part of a number\?$"
    return [*lines[:row], f"{id},0,{rest}", *lines[row + 1 :]], expected


def fewer_values(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    width = len(lines[0].split(","))
    short = lines[row].rpartition(",")[0]
    return [*lines[:row], short, *lines[row + 1 :]], rf"^row {row + 1}: {width - 1} values, expected {width}$"


def semicolons(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return [line.replace(",", ";") for line in lines], rf"^row 1: the header is '{lines[0].replace(',', ';')}', expected '"


def one_semicolon(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    changed = [*lines[:row], lines[row].replace(",", ";"), *lines[row + 1 :]]
    return changed, rf"^row {row + 1}: 1 values, expected {len(lines[0].split(','))}$"


def quoted(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    id, rest = lines[row].split(",", 1)
    value, *others = rest.split(",")
    changed = ",".join([id, f'"{value}"', *others])
    expected = rf"^row {row + 1}, column '{lines[0].split(',')[1]}': quoted otherwise .* expected {re.escape(value)}$"
    return [*lines[:row], changed, *lines[row + 1 :]], expected


def open_quote(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return [
        *lines[:row],
        '"' + lines[row],
        *lines[row + 1 :],
    ], rf"^row {row + 1}: not readable as CSV: .* is a quote left open\?$"


def blank(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return [*lines[:row], "", *lines[row:]], rf"^row {row + 1}: an empty line$"


def blank_at_the_end(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return [*lines, ""], rf"^row {len(lines) + 1}: an empty line$"


def blank_at_the_top(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return ["", *lines], rf"^row 1: the header is '', expected '{lines[0]}'$"


def header_twice(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    name = lines[0].split(",")[0]
    return [*lines[:row], lines[0], *lines[row:]], rf"^row {row + 1}, column '{name}': id '{name}' is not a test row$"


def column_more(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return [f"{i}," + line for i, line in enumerate(lines)], r"^row 1: the header is '0,\w+,.*', expected '\w+,"


def other_header(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    cells = lines[0].split(",")
    rng.shuffle(cells)
    header = ",".join(cells if cells != lines[0].split(",") else [cell.upper() + "_" for cell in cells])
    return [header, *lines[1:]], rf"^row 1: the header is '{header}', expected '{lines[0]}'$"


def swapped_columns(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    changed = [",".join(reversed(line.split(","))) for line in lines]
    return changed, rf"^row 1: the header is '{changed[0]}', expected '{lines[0]}'$"


def quoted_header(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    header = '"' + lines[0].replace(",", '","') + '"'
    return [header, *lines[1:]], rf"^row 1: the header is '{header}', expected '{lines[0]}'$"


def blanks_in_the_header(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    header = lines[0].replace(",", ", ")
    return [header, *lines[1:]], rf"^row 1: the header is '{header}', expected '{lines[0]}'$"


def no_header(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return lines[1:], rf"^row 1: the header is '{re.escape(lines[1])}'"


def windows_line_end(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return [*lines[:row], lines[row] + "\r", *lines[row + 1 :]], rf"^row {row + 1}: has Windows line ends \(CRLF\)"


def nul(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return [*lines[:row], lines[row] + "\0", *lines[row + 1 :]], rf"^row {row + 1}: holds a NUL character$"


def byte_order_mark(lines: list[str], row: int, rng: random.Random) -> tuple[list[str], str]:
    return ["\ufeff" + lines[0], *lines[1:]], "^starts with a byte order mark"


FOREIGN = "id .* is not a test row; is '{}' meant\\?"
ALWAYS = [
    drop, double, swap, foreign, more_values, decimal_comma, fewer_values, semicolons, one_semicolon, quoted, open_quote,
    blank, blank_at_the_end, blank_at_the_top, header_twice, column_more, other_header, swapped_columns, quoted_header,
    blanks_in_the_header, no_header, windows_line_end, nul, byte_order_mark,
    break_id("0{}", FOREIGN), break_id("{}.0", FOREIGN), break_id("{}.jpg", FOREIGN), break_id(" {}", FOREIGN),
    break_id("{} ", FOREIGN), break_id("'{}'", FOREIGN), break_id('"{}"', "quoted otherwise than a CSV needs; expected {}"),
    break_id("", "id '' is not a test row"), break_id("-{}", "id '-{}' is not a test row"),
    break_bytes(lambda raw: raw[:-1], "^row {last}: the last row has no line end", "no final line end"),
    break_bytes(lambda raw: raw[:-2], "^row {last}: the last row has no line end", "cut off"),
    break_bytes(lambda raw: raw.replace(b"\n", b"\r\n"), r"^row 1: has Windows line ends", "all lines end with CRLF"),
    break_bytes(lambda raw: raw.replace(b"\n", b"\r"), r"^row 1: has Windows line ends", "all lines end with CR"),
    break_bytes(lambda raw: raw.decode().encode("utf-16"), "^is UTF-16", "UTF-16"),
    break_bytes(lambda raw: raw.replace(b"\n", b"\xa0\n", 1), "^row 1: not UTF-8: byte \\d+ is 0xa0", "Latin-1"),
    break_bytes(gzip.compress, "^is a gzip archive", "gzip"),
    break_bytes(lambda raw: b"PK\x03\x04" + raw, "^is a zip archive or an Excel workbook", "zip"),
    break_bytes(lambda raw: b"", "^the file is empty$", "empty file"),
    *map(break_value, ("", " ", "nan", "NaN", "NA", "null", "abc", "0.5.", "None", "\u0665", "?")),
]  # fmt: skip
NO_PROBABILITY = [
    "inf", "-inf", "Infinity", "1.0001", "-1e-9", "1e3", "1e400", "1e-400", "-1e-400", "1e-310", "0.000e0001e", "0_1", "1_000",
    "50%", "0x1", "1/2", "0.5f", " 0.5", "0.5 ", "0 5", ".", "e1", "--0.5", "\uff10.5", "True", "=0.5",
]  # fmt: skip
NO_CLASS = ["1.0", "-1", "+1", "42", "cat", "00000", " 1", "1 ", "1e0", "True", "\uff11"]
CHANGES = {
    "one probability": ALWAYS + [break_value(value) for value in NO_PROBABILITY],
    "a probability a class": ALWAYS + [break_value(value) for value in NO_PROBABILITY],
    "a label": ALWAYS + [break_value(value) for value in NO_CLASS],
    "a label with zeros": ALWAYS + [break_value(value) for value in [*NO_CLASS, "0", "7"]],
}
EVERY = [(kind, change) for kind, changes in CHANGES.items() for change in changes]


@pytest.mark.parametrize(("kind", "change"), EVERY, ids=[f"{kind}: {change.__name__}" for kind, change in EVERY])
def test_whatever_is_changed_in_it_is_found_and_named(kind: str, change: Change, file: Path):
    """Each change in three places of a valid submission: some fault names the row and the column that it touched."""
    competition = COMPETITIONS[kind]
    predicted = some(competition)
    lines = written(competition, predicted, file)
    for row, seed in ((1, 0), (5, 1), (9, 2)):
        changed, expected = change(lines, row, random.Random(seed))
        told = faults(competition, changed, predicted.ids.tolist(), file)
        assert any(re.search(expected, fault) for fault in told), (expected, told)


def test_each_kind_of_submission_is_changed_in_more_than_forty_ways():
    assert all(len({change.__name__ for change in changes}) >= 40 for changes in CHANGES.values())


@pytest.mark.parametrize("kind", COMPETITIONS)
@settings(QUIET, max_examples=100)
@given(data=st.data())
def test_one_changed_value_is_refused_or_the_same_in_another_spelling(kind: str, data: st.DataObject, file: Path):
    """Whatever stands in a cell: where the check takes it, a strict reader finds the same ids, and numbers from 0 to 1."""
    competition = COMPETITIONS[kind]
    predicted = some(competition)
    lines = written(competition, predicted, file)
    row, column = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 1))
    cells = lines[row].split(",")
    was = cells[column]
    spellings = [f"0{was}", f"{was}0", f"{was}e0", f"+{was}", f" {was}", f'"{was}"', was.upper()]
    cells[column] = data.draw(st.text("0123456789.eE+-, \"'_naif%\n", max_size=6) | st.sampled_from(spellings))
    told = faults(competition, [*lines[:row], ",".join(cells), *lines[row + 1 :]], predicted.ids.tolist(), file)
    found = list(csv.reader(file.read_text().splitlines()))
    if told:
        assert cells[column] != was
        return
    assert [row[0] for row in found[1:]] == predicted.ids.tolist()
    values = [value for row in found[1:] for value in row[1:]]
    if competition.submission_values == "label":
        assert set(values) <= set(competition.classes)
    else:
        assert all(0 <= Decimal(value) <= 1 and (float(value) > 0) == (Decimal(value) > 0) for value in values)


@pytest.mark.parametrize("value", ["5e-1", "0.50", ".5", "+0.5", "1", "1.", "1E0", "0", "-0", "0e-999", "3e-300"])
def test_a_number_may_be_spelt_in_any_of_its_ways(value: str, file: Path):
    assert faults(DOGS, ["id,label", f"7,{value}"], ["7"], file) == []


@QUIET
@given(order=st.permutations(range(9)))
def test_any_other_order_of_its_rows_is_refused(order: list[int], file: Path):
    predicted = some(DOGS)
    lines = written(DOGS, predicted, file)
    told = faults(DOGS, [lines[0], *(lines[1 + row] for row in order)], predicted.ids.tolist(), file)
    moved = [place for place, row in enumerate(order) if place != row]
    assert len(told) == bool(moved)
    assert not moved or told[0].startswith(f"row {moved[0] + 2}, column 'id': id ")


def test_a_class_that_lost_its_zero_is_told_so(file: Path):
    told = faults(SHOPEE, ["filename,category", "a.jpg,0", "b.jpg,7", "c.jpg,43"], ["a.jpg", "b.jpg", "c.jpg"], file)
    assert told == [
        "row 2, column 'category': '0' is not a class; is '00' meant?",
        "row 3, column 'category': '7' is not a class; is '07' meant?",
        "row 4, column 'category': '43' is not a class",
    ]


def test_ids_that_are_all_foreign_are_one_fault(file: Path):
    assert faults(DOGS, ["id,label", "01,0.1", "02,0.2"], ["1", "2"], file) == [
        "row 2, column 'id': id '01' is not a test row; is '1' meant? (nor is any other of its 2 ids: "
        "is it for another competition, --config?)"
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
        (b"", "the file is empty"),
        (b"id,label\n1,\xff\n", "row 2: not UTF-8: byte 11 is 0xff"),
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
    value, rows = submission.score(DIGITS, predicted, tmp_path)
    assert (value, rows) == (pytest.approx(accuracy_score(labels, guessed)), 9)


def test_a_probability_too_small_for_a_number_is_written_as_0(file: Path):
    predicted = Predictions(np.array(["1"]), np.array([[0, -720]], np.float32), DOGS.classes)  # e^-720 is subnormal
    assert written(DOGS, predicted, file) == ["id,label", "1,0"]


# The expected score


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "macro_f1"])
def test_the_expected_score_is_the_metric_within_an_interval_that_narrows_with_the_rows(metric: str):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 1600)
    probabilities = softmax(rng.normal(size=(1600, 3)) + 2 * np.eye(3)[labels], axis=1)
    few = submission.expected(metric, labels[:100], probabilities[:100])
    many = submission.expected(metric, labels, probabilities)
    for score, low, high in (few, many):
        assert low < score < high
    assert many[0] == metrics.score(metric, labels, probabilities)
    assert 0.15 < (many[2] - many[1]) / (few[2] - few[1]) < 0.5
    assert submission.expected(metric, labels[:100], probabilities[:100]) == few, "seeded"


def test_nineteen_of_twenty_intervals_hold_the_true_score():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        chance = rng.uniform(0.05, 0.95, 200)  # of class 1, told truly: the log loss is its entropy on average
        labels = (rng.uniform(size=200) < chance).astype(np.int64)
        _, low, high = submission.expected("log_loss", labels, np.column_stack([1 - chance, chance]))
        grid = np.linspace(0.05, 0.95, 10_001)
        held += low <= -np.mean(grid * np.log(grid) + (1 - grid) * np.log(1 - grid)) <= high
    assert 51 <= held <= 59


def test_an_undefined_draw_of_roc_auc_is_left_out():
    score, low, high = submission.expected(
        "roc_auc", np.array([0, 0, 0, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    )
    assert score == pytest.approx(2 / 3)
    assert 0 <= low <= high <= 1
