"""What can't become the submission that the sample shows is refused before training, and its values are heeded."""

from pathlib import Path

import pandas as pd
import pytest

from src.competitions import sample, tables
from src.config import CompetitionConfig
from src.errors import UserError

EACH = {"submission_values": "probabilities"}
CATS = {"submission_values": "probability", "positive": "dog"}


def competition(**fields) -> CompetitionConfig:
    return CompetitionConfig(**{"name": "mine", "train_csv": "train.csv", "sample_csv": "sample.csv"} | fields)


@pytest.mark.parametrize(
    "header, fields, classes, said",
    [
        ("id,label", {}, "01", None),
        ("id,category", {}, "01", "competition.submission_columns"),
        ("label,id", {}, "01", "competition.submission_columns"),
        ("id,label,label", {}, "01", "'id,label,label'"),
        ("id,label,Usage", {}, "01", "'id,label,Usage'"),
        ("Id,Label", {"submission_columns": ("Id", "Label")}, "01", None),
        ("Id,Label", {"submission_columns": ("id", "label")}, "01", "'Id,Label'"),
        ("id,a,b,c", EACH, "abc", None),
        ("id,c,b,a", EACH, "abc", "competition.classes"),
        ("id,a,b", EACH, "abc", "competition.submission_columns"),
        (None, EACH | {"submission_columns": ("id", "a", "b")}, "abc", "3 columns, and 4 are needed"),
        (None, EACH | {"submission_columns": ("id", "b", "a", "c")}, "abc", "competition.classes"),
        (None, EACH | {"submission_columns": ("id", "B", "A", "C")}, "abc", "competition.classes"),
        (None, EACH | {"submission_columns": ("id", "p1", "p2", "p3")}, "abc", None),
        (None, EACH | {"id_column": "a"}, "abc", "a name twice"),
        (None, {"submission_labels": ("x",)}, "ab", "1 labels for the 2 classes"),
        (None, CATS, "ab", "'dog' is not among the 2 classes"),
    ],
)
def test_a_submission_that_would_not_be_the_samples_is_refused(tmp_path, header, fields, classes, said):
    if header:
        (tmp_path / "sample.csv").write_text(header + "\n")
    if said is None:
        return sample.check(competition(**fields), tmp_path, tuple(classes))
    with pytest.raises(UserError, match=said):
        sample.check(competition(**fields), tmp_path, tuple(classes))


@pytest.mark.parametrize("name", ["sample.csv", "solution.csv"])
@pytest.mark.parametrize(
    "labels, given, expected",
    [
        (["0.0", "1.0"], ["0"], ["0", "1"]),
        (["0", "1"], ["1.0"], ["0.0", "1.0"]),
        (["0", "1"], ["0"], ["0", "1"]),
        (["00", "01"], ["43"], ["00", "01"]),
        (["cat", "dog"], ["cat"], ["cat", "dog"]),
    ],
)
def test_labels_are_read_as_the_sample_or_the_solution_spells_them(tmp_path, name, labels, given, expected):
    rows = [f"{i},{label}" for i, label in enumerate(labels)]
    (tmp_path / "train.csv").write_text("\n".join(["id,label", *rows]))
    (tmp_path / name).write_text("\n".join(["id,label", *(f"{i},{label}" for i, label in enumerate(given))]))
    said = []
    table = tables.train_table(competition(solution_csv="solution.csv"), tmp_path, said.append)
    assert table["label"].tolist() == expected
    assert len(said) == (labels != expected)
    assert all(name in line for line in said)


@pytest.mark.parametrize(
    "fields, labels, expected",
    [
        ({"classes": ("0", "1")}, "0.0 1.0", ["0", "1"]),
        ({"classes": ("1.0", "0.0")}, "0 1", ["0.0", "1.0"]),
        ({"submission_values": "probability", "positive": "1"}, "0.0 1.0", ["0", "1"]),
        (EACH, "0.0 1.0", ["0", "1"]),
    ],
)
def test_labels_are_read_as_the_configuration_or_the_header_spells_them(tmp_path, fields, labels, expected):
    (tmp_path / "train.csv").write_text("id,label\n" + "".join(f"{i},{x}\n" for i, x in enumerate(labels.split())))
    (tmp_path / "sample.csv").write_text("id,0,1\n" if fields == EACH else "id,label\n")
    assert tables.train_table(competition(**fields), tmp_path)["label"].tolist() == expected


@pytest.mark.parametrize(
    "given, fields, classes, said",
    [
        ("0", {}, ("0", "1"), None),
        ("", {}, ("0", "1"), None),
        ("43", {}, ("00", "01"), "'43', which is no class"),
        ("0.5", {}, ("0", "1"), "submission_values"),
        ("0", {"classes": ("00", "01")}, ("00", "01"), "'0', which the submission will write as '00'"),
        ("0", {"submission_labels": ("0", "1")}, ("cat", "dog"), None),
    ],
)
def test_a_placeholder_in_the_sample_is_told_and_not_refused(tmp_path, given, fields, classes, said):
    (tmp_path / "sample.csv").write_text(f"id,label\na,{given}\n")
    told = sample.doubt(competition(**fields), tmp_path, classes)
    assert told is None if said is None else said in told


@pytest.mark.parametrize(("given", "classes"), [("0", ("00", "01")), ("00", ("0", "1")), ("cat", ("Cat", "Dog"))])
def test_a_class_spelt_otherwise_than_in_the_sample_is_refused(tmp_path, given, classes):
    (tmp_path / "sample.csv").write_text(f"id,label\na,{given}\n")
    with pytest.raises(UserError, match=r"sample\.csv: column 'label' holds .* competition\.submission_labels"):
        sample.doubt(competition(), tmp_path, classes)


def test_the_order_of_the_samples_columns_is_that_of_the_classes(tmp_path):
    (tmp_path / "sample.csv").write_text("id,dog,cat\n")
    train = pd.DataFrame({"label": ["cat", "dog"]})
    assert tables.class_names(competition(**EACH), train, tmp_path) == ("dog", "cat")
    assert tables.class_names(competition(), train, tmp_path) == ("cat", "dog")
    assert tables.class_names(competition(**EACH, classes=("cat", "dog")), train, tmp_path) == ("cat", "dog")


def samples(root: Path, test: list[str], given: list[str]) -> tuple[list[str], list[str]]:
    (root / "test.csv").write_text("id\n" + "".join(f"{id}\n" for id in test))
    (root / "sample.csv").write_text("id,label\n" + "".join(f"{id},0\n" for id in given))
    said = []
    return tables.test_table(competition(test_csv="test.csv"), root, said.append)["id"].tolist(), said


@pytest.mark.parametrize(
    "test, given, said",
    [
        ("abc", "cab", []),
        ("abcd", "ba", ["only its 2 rows are predicted: 2 of the 4 of test.csv"]),
        ("ab", "abz", ["1 of its 3 ids are not in test.csv, the first is 'z'"]),
        ("abc", "az", ["only its 2 rows", "1 of its 2 ids are not in test.csv"]),
        ("ab", "xy", ["none of its 2 ids is in test.csv: 'x' here, 'a' there"]),
    ],
)
def test_the_samples_rows_are_predicted_and_what_differs_is_told(tmp_path, test, given, said):
    ids, told = samples(tmp_path, list(test), list(given))
    assert ids == list(given)
    assert len(told) == len(said)
    assert all(part in line for part, line in zip(said, told, strict=True))
