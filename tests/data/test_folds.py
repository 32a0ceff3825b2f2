"""src/data/folds.py: each row once, every class in every fold, no group in two folds, the same bytes for the same seed."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from src.data.folds import COLUMNS, check_folds, make_folds, read_folds, write_folds
from src.errors import UserError
from src.files import sha256


def rows(counts: dict[str, int], groups: list[str] | None = None) -> pd.DataFrame:
    """So many rows of each class; alone, or in groups."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    ids = [f"{i:03d}" for i in range(len(labels))]
    return pd.DataFrame({"id": ids, "label": labels, "group": groups or [""] * len(labels)})


counts = st.dictionaries(st.sampled_from(["00", "01", "cat", "x,y", 'a"b']), st.integers(1, 25), min_size=2)
seeds = st.integers(0, 2**32 - 1)


@given(counts, st.integers(2, 6), seeds)
def test_each_row_stands_once_and_every_class_in_every_fold_in_proportion(counts, folds, seed):
    assume(min(counts.values()) >= folds)
    given = rows(counts)
    table = make_folds(given, folds, seed)
    assert table.columns.tolist() == COLUMNS
    assert table[["id", "label", "group"]].equals(given)
    assert table["fold"].dtype == np.int64
    assert set(table["fold"]) == set(range(folds))
    of_class = pd.crosstab(table["label"], table["fold"])
    assert (of_class.to_numpy() >= 1).all()
    assert (of_class.max(axis=1) - of_class.min(axis=1)).max() <= 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), min_size=4, max_size=50), st.integers(2, 4), seeds)
def test_no_group_is_split_and_where_that_cannot_be_the_classes_are_named(drawn, folds, seed):
    labels, numbers = zip(*drawn, strict=True)
    ids = [str(i) for i in range(len(drawn))]
    given = pd.DataFrame({"id": ids, "label": labels, "group": [f"g{number}" if number else "" for number in numbers]})
    refusal = None
    try:
        made = make_folds(given, folds, seed)
    except UserError as error:
        refusal = str(error)
    if refusal is None:
        assert (made[made["group"] != ""].groupby("group")["fold"].nunique() == 1).all()
        assert (pd.crosstab(made["label"], made["fold"]).to_numpy() >= 1).all()
    else:
        assert "classes" in refusal
        assert "a (" in refusal or "b (" in refusal


def test_groups_are_kept_together_and_rows_without_one_stand_alone():
    groups = [f"patient {i // 3}" for i in range(60)] + [""] * 60
    table = make_folds(rows({"a": 60, "b": 60}, groups), 5, 0)
    assert table[table["group"] != ""].groupby("group")["fold"].nunique().max() == 1
    alone = table[table["group"] == ""]["fold"].value_counts()
    assert alone.min() > 5, "rows without a group are spread, not taken for one large group"


@given(counts, seeds)
def test_the_same_seed_gives_the_same_bytes(tmp_path_factory, counts, seed):
    assume(min(counts.values()) >= 2)
    folder = tmp_path_factory.mktemp("folds")
    first, second = (write_folds(make_folds(rows(counts), 2, seed), folder / name) for name in ("1.csv", "2.csv"))
    assert (folder / "1.csv").read_bytes() == (folder / "2.csv").read_bytes()
    assert first == second == hashlib.sha256((folder / "1.csv").read_bytes()).hexdigest()


def test_another_seed_gives_other_folds():
    given = rows({"a": 30, "b": 30})
    assert not make_folds(given, 5, 0)["fold"].equals(make_folds(given, 5, 1)["fold"])


@pytest.mark.parametrize(
    "counts, folds, said",
    [
        ({"00": 3, "01": 9, "02": 4}, 5, "2 of 3 classes have fewer rows than the 5 folds: 00 (3), 02 (4); use --data.folds 3"),
        ({"00": 1, "01": 9}, 5, "1 of 2 classes have fewer rows than the 5 folds: 00 (1); a class with a single row"),
    ],
)
def test_classes_with_fewer_rows_than_folds_are_named_with_what_to_do(counts, folds, said):
    with pytest.raises(UserError) as error:
        make_folds(rows(counts), folds, 0)
    assert str(error.value).startswith(said)


def test_a_class_with_fewer_groups_than_folds_is_named():
    groups = ["one"] * 10 + [f"g{i}" for i in range(10)]
    with pytest.raises(UserError, match=r"1 of 2 classes have fewer groups than the 3 folds: a \(1\)"):
        make_folds(rows({"a": 10, "b": 10}, groups), 3, 0)


def test_folds_suggested_for_rare_classes_are_accepted():
    given = rows({"00": 3, "01": 9, "02": 4})
    assert make_folds(given, 3, 0)["fold"].nunique() == 3


@pytest.mark.parametrize(
    "change, said",
    [
        ({"id": ["a", "b", "c", "a"]}, "id 'a' stands twice"),
        ({"fold": [0, 0, 0, 0]}, "expected the folds 0 to 1, found 0"),
        ({"fold": [0, 1, 0, 2]}, "expected the folds 0 to 1, found 0, 1, 2"),
        ({"fold": [0, 0, 1, 1]}, r"2 classes are not in every fold: x \(not in fold 1\), y \(not in fold 0\)"),
        ({"group": ["g", "g", "", ""]}, "the group 'g' stands in 2 folds"),
    ],
)
def test_folds_that_break_an_invariant_are_refused(change, said):
    table = pd.DataFrame({"id": list("abcd"), "label": list("xxyy"), "group": "", "fold": [0, 1, 0, 1]})
    check_folds(table, 2)
    with pytest.raises(UserError, match=said):
        check_folds(table.assign(**change), 2)


text = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufeff"), min_size=1, max_size=5)


row = st.tuples(text, text, st.one_of(st.just(""), text), st.integers(0, 99))


@given(st.lists(row, min_size=1, max_size=6, unique_by=lambda drawn: drawn[0]))
def test_a_written_table_is_read_back_as_it_was(tmp_path_factory, drawn):
    path = tmp_path_factory.mktemp("folds") / "deep" / "folds.csv"
    table = pd.DataFrame(drawn, columns=COLUMNS).astype({"id": object, "label": object, "group": object})
    write_folds(table, path)
    assert read_folds(path).to_numpy().tolist() == table.to_numpy().tolist()
    assert [file.name for file in path.parent.iterdir()] == ["folds.csv"]


def test_leading_zeros_survive_the_file(tmp_path):
    write_folds(make_folds(rows({"00": 2, "01": 2}), 2, 0), tmp_path / "folds.csv")
    table = read_folds(tmp_path / "folds.csv")
    assert table["label"].tolist() == ["00", "00", "01", "01"]
    assert table["id"].tolist() == ["000", "001", "002", "003"]
    assert table["fold"].dtype == np.int64


@pytest.mark.parametrize(
    "content, said",
    [
        ("id,label,fold\na,0,0\n", "column 'group' is missing"),
        ("id,label,group,fold\na,0,,0\nb,0,,x\n", "row 3: fold 'x' is not a number"),
        ("id,label,group,fold\na,0,,-1\n", "row 2: fold '-1' is not a number"),
        ("id,label,group,fold\na,0,,1.0\n", "row 2: fold '1.0' is not a number"),
        ("", "not a readable CSV"),
    ],
)
def test_a_wrong_folds_file_is_named_with_its_row(tmp_path, content, said):
    path = tmp_path / "folds.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=said) as error:
        read_folds(path)
    assert str(path) in str(error.value)


def test_any_changed_byte_changes_the_digest(tmp_path):
    path = tmp_path / "folds.csv"
    digest = write_folds(make_folds(rows({"a": 2, "b": 2}), 2, 0), path)
    assert sha256(path) == digest
    path.write_bytes(path.read_bytes().replace(b"0\n", b"1\n", 1))
    assert sha256(path) != digest
