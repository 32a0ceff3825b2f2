"""src/competitions/tables.py: ids and classes stay strings, and a wrong table is told with its file and row."""

import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.competitions import tables
from src.config import CompetitionConfig, built_in
from src.errors import UserError


def competition(**fields) -> CompetitionConfig:
    return CompetitionConfig(**{"name": "mine", "train_csv": "train.csv", "test_csv": "test.csv"} | fields)


LISTED = competition(train_csv=None, test_csv=None, train_images="train/{label}/{id}.jpg", test_images="test/{id}.jpg")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def train(root: Path, text: str, **fields) -> pd.DataFrame:
    (root / "train.csv").write_text(text, encoding="utf-8")
    return tables.train_table(competition(**fields), root)


def refusal(root: Path, text: str, **fields) -> str:
    with pytest.raises(UserError) as error:
        train(root, text, **fields)
    assert str(error.value).startswith(f"{root / 'train.csv'}: ")
    return str(error.value)


# Tables from a CSV


def test_a_csv_gives_ids_paths_labels_and_groups_as_strings(tmp_path):
    text = "patient,id,label\n7,001,00\n7,002,01\n,1e3,NA\n"
    table = train(tmp_path, text, group_column="patient")
    assert table.to_dict("list") == {
        "id": ["001", "002", "1e3"],
        "path": ["train/001.jpg", "train/002.jpg", "train/1e3.jpg"],
        "label": ["00", "01", "NA"],
        "group": ["7", "7", ""],
    }


def test_leading_zeros_of_shopees_classes_survive(tmp_path):
    (tmp_path / "train.csv").write_text("filename,category\na.jpg,00\nb.jpg,09\n")
    table = tables.train_table(built_in("shopee"), tmp_path)
    assert table["label"].tolist() == ["00", "09"]
    assert table["path"].tolist() == ["train/train/train/00/a.jpg", "train/train/train/09/b.jpg"]


@pytest.mark.parametrize("start", ["\ufeff", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_marks_and_windows_line_ends_are_understood(tmp_path, start, end):
    (tmp_path / "train.csv").write_bytes((start + end.join(["id,label", "a,0", "b,1", ""])).encode())
    assert tables.train_table(competition(), tmp_path)[["id", "label"]].to_numpy().tolist() == [["a", "0"], ["b", "1"]]


@pytest.mark.parametrize(
    "pattern, path",
    [
        ("train/{id}.jpg", "train/a.jpg"),
        ("{label}/{id}", "x/a"),
        ("{site}/{visit}/{id}_{visit}.png", "s1/v2/a_v2.png"),
        ("100%/{id}%s.png", "100%/a%s.png"),
    ],
)
def test_a_path_pattern_takes_any_column(tmp_path, pattern, path):
    table = train(tmp_path, "id,label,site,visit\na,x,s1,v2\n", train_images=pattern)
    assert table["path"].tolist() == [path]


def test_id_and_label_in_a_pattern_mean_the_columns_of_these_roles(tmp_path):
    fields = {"id_column": "image_id", "label_column": "diagnosis", "train_images": "{label}/{id}-{image_id}.png"}
    assert train(tmp_path, "image_id,diagnosis\na,2\n", **fields)["path"].tolist() == ["2/a-a.png"]


@pytest.mark.parametrize(
    "text, fields, said",
    [
        ("id,klass\na,0\n", {}, "column 'label' is missing; the file has 'id', 'klass'"),
        ("id;label\na;0\n", {}, "column 'id' is missing; the file has 'id;label'"),
        ("id,label\na,0\n", {"group_column": "patient"}, "column 'patient' is missing"),
        ("id,label\na,0\n", {"train_images": "{site}/{id}"}, "column 'site', which the path {site}/{id} needs, is missing"),
        ("id,label\na,0\nb,1\na,0\nb,1\nb,1\n", {}, "id 'a' stands 2 times, in rows 2, 4 (2 ids are doubled)"),
        ("id,label\na,0\n,1\n,1\n", {}, "row 3 has no id (2 such rows)"),
        ("id,label\na,0\nb,\nc,\n", {}, "row 3, id 'b': no label (2 such rows)"),
        ("id,label\na\n", {}, "row 2, id 'a': no label (1 such rows)"),
        ("id,label\na,0\nb,2\nc,3\n", {"classes": ("0", "1")}, "row 3, id 'b': label '2' is not among the 2 classes 0, 1 (2"),
        ("id,label\na,0\n", {"classes": ("00", "01")}, "label '0' is not among"),
        ("id,label\n", {}, "no training rows"),
        ("", {}, "not a readable CSV"),
        ('id,label\n"a,0\nb,1\n', {}, "not a readable CSV"),
        ("id,label\na,0\nb,1,2\n", {}, "not a readable CSV"),
        ("id,label\na,0,\nb,1,\n", {}, "rows have more fields than the header"),
    ],
)
def test_a_wrong_table_is_told_with_its_file_and_row(tmp_path, text, fields, said):
    assert said in refusal(tmp_path, text, **fields)


def test_a_table_that_is_no_text_or_no_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"train\.csv: no such file"):
        tables.train_table(competition(), tmp_path)
    (tmp_path / "train.csv").write_bytes(b"id,label\n\xff\xfe,0\n")
    with pytest.raises(UserError, match=r"train\.csv: not a readable CSV"):
        tables.train_table(competition(), tmp_path)
    (tmp_path / "train.csv").unlink()
    (tmp_path / "train.csv").mkdir()
    with pytest.raises(UserError, match=r"train\.csv: can't be read"):
        tables.train_table(competition(), tmp_path)


field = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufeff"), min_size=1, max_size=6)


@given(st.lists(st.tuples(field, field), min_size=1, max_size=8, unique_by=lambda row: row[0]))
def test_whatever_a_csv_holds_is_read_as_it_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "train.csv"
    pd.DataFrame(rows, columns=["id", "label"]).to_csv(path, index=False)
    assert [tuple(row) for row in tables.read_csv(path, ["id"]).to_numpy()] == rows


# Tables from the files alone


def test_dogs_vs_cats_rows_come_from_the_names_in_natural_order(tmp_path):
    touch(
        tmp_path, *(f"train/{label}.{i}.jpg" for label in ("dog", "cat") for i in (10, 2, 0)), "train/readme.txt", "train/x.jpg"
    )
    table = tables.train_table(built_in("dogs_vs_cats"), tmp_path)
    assert table["id"].tolist() == ["cat.0", "cat.2", "cat.10", "dog.0", "dog.2", "dog.10"]
    assert table["label"].tolist() == ["cat"] * 3 + ["dog"] * 3
    assert table["path"].tolist() == [f"train/{id}.jpg" for id in table["id"]]
    assert set(table["group"]) == {""}


def test_the_id_of_a_listed_row_is_what_stands_for_id_in_the_pattern(tmp_path):
    touch(tmp_path, "train/00/a.jpg", "train/00/b.jpg", "train/1/c.jpg", "train/loose.jpg", "train/1/deep/d.jpg")
    table = tables.train_table(LISTED, tmp_path)
    assert list(zip(table["id"], table["label"], strict=True)) == [("a", "00"), ("b", "00"), ("c", "1")]


def test_a_placeholder_that_stands_twice_must_match_twice(tmp_path):
    touch(tmp_path, "train/cat/cat_1.jpg", "train/dog/cat_2.jpg")
    twice = LISTED.model_copy(update={"train_images": "train/{label}/{label}_{id}.jpg"})
    assert tables.train_table(twice, tmp_path)["id"].tolist() == ["1"]


@pytest.mark.parametrize("files", [(), ("train/notes.txt",), ("train/deep/er/1.jpg",)])
def test_a_folder_without_a_matching_image_is_named_with_the_pattern(tmp_path, files):
    touch(tmp_path, *files)
    with pytest.raises(UserError) as error:
        tables.train_table(LISTED, tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'train'}: no training images: no file matches train/{{label}}/{{id}}.jpg")
    assert " row" not in str(error.value)


def test_one_name_in_two_class_folders_makes_ids_of_all_that_is_open(tmp_path):
    touch(tmp_path, "train/cat/0001.jpg", "train/dog/0001.jpg", "train/dog/2.jpg")
    said = []
    table = tables.train_table(LISTED, tmp_path, said.append)
    assert table["id"].tolist() == ["cat/0001", "dog/0001", "dog/2"]
    assert len(said) == 1
    assert "cat/0001" in said[0]
    assert " row" not in said[0]
    once = LISTED.model_copy(update={"train_images": "train/{label}_{id}.jpg"})
    touch(tmp_path, "train/a_1.jpg", "train/b_1.jpg")
    assert tables.train_table(once, tmp_path)["id"].tolist() == ["a_1", "b_1"]


def test_a_folder_that_is_no_class_is_refused(tmp_path):
    touch(tmp_path, "train/cat/1.jpg", "train/bird/2.jpg")
    with pytest.raises(UserError, match="id '2': label 'bird' is not among the 2 classes cat, dog"):
        tables.train_table(LISTED.model_copy(update={"classes": ("cat", "dog")}), tmp_path)


def test_the_test_images_folder_beside_the_classes_is_no_class(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg", "test/3.jpg")
    beside = LISTED.model_copy(update={"train_images": "{label}/{id}.jpg"})
    assert tables.train_table(beside, tmp_path)["label"].tolist() == ["cat", "dog"]
    assert tables.test_table(beside, tmp_path)["id"].tolist() == ["3"]


@pytest.mark.parametrize("name", ["test", "Test", "testing", "test1", "test_images", "val", "validation"])
def test_another_folder_of_test_images_is_refused_unless_it_is_a_class(tmp_path, name):
    touch(tmp_path, "train/cat/1.jpg", f"train/{name}/3.jpg")
    with pytest.raises(UserError, match=rf"{name} would be a class, of 1 images: .*competition\.test_images"):
        tables.train_table(LISTED, tmp_path)
    configured = LISTED.model_copy(update={"classes": ("cat", name)})
    assert set(tables.train_table(configured, tmp_path)["label"]) == {"cat", name}


def test_ids_and_labels_with_line_breaks_are_refused(tmp_path):
    assert "row 2, id 'a\\nb' holds a line break" in refusal(tmp_path, 'id,label\n"a\nb",0\nc,1\n')
    assert "row 3, id 'b': a line break in its label" in refusal(tmp_path, 'id,label\na,1\nb,"0\n1"\n')


def test_rows_are_counted_as_an_editor_does_past_blank_lines_and_line_breaks(tmp_path):
    assert "row 6, id 'b': no label" in refusal(tmp_path, 'id,label,text\n\na,0,"x\ny"\n\nb,,\n')
    assert "in rows 3, 6" in refusal(tmp_path, "id,label\n\na,0\n\nb,1\na,0\n")


# Test tables and the sample's order


def test_test_rows_follow_the_sample_submission_not_the_folder(tmp_path):
    touch(tmp_path, *(f"test/{i}.jpg" for i in range(1, 12)))
    (tmp_path / "sample_submission.csv").write_text("id,label\n" + "".join(f"{i},0.5\n" for i in (3, 11, 1, 2)))
    table = tables.test_table(built_in("dogs_vs_cats"), tmp_path)
    assert table["id"].tolist() == ["3", "11", "1", "2"]
    assert table["path"].tolist() == ["test/3.jpg", "test/11.jpg", "test/1.jpg", "test/2.jpg"]


def test_without_a_sample_listed_test_rows_count_1_2_10_not_1_10_2(tmp_path):
    touch(tmp_path, *(f"test/{i}.jpg" for i in range(1, 12)))
    assert tables.test_table(built_in("dogs_vs_cats"), tmp_path)["id"].tolist() == [str(i) for i in range(1, 12)]


@pytest.mark.parametrize("pattern", ["test/{id}.png", "test/{image_id}.png"])
def test_a_sample_row_that_the_table_lacks_still_gets_its_path(tmp_path, pattern):
    (tmp_path / "test.csv").write_text("image_id\na\n")
    (tmp_path / "sample.csv").write_text("image_id,label\nz,0\na,0\n")
    table = tables.test_table(competition(id_column="image_id", test_images=pattern, sample_csv="sample.csv"), tmp_path)
    assert table.to_numpy().tolist() == [["z", "test/z.png"], ["a", "test/a.png"]]


def test_a_sample_row_keeps_the_path_that_its_table_gives(tmp_path):
    (tmp_path / "test.csv").write_text("id,site\na,s1\nb,s2\n")
    (tmp_path / "sample.csv").write_text("id,label\nb,0\na,0\n")
    table = tables.test_table(competition(test_images="{site}/{id}.png", sample_csv="sample.csv"), tmp_path)
    assert table["path"].tolist() == ["s2/b.png", "s1/a.png"]


@pytest.mark.parametrize(
    "sample, said",
    [
        ("id,label\n1,0\n1,0\n", "sample_submission.csv: id '1' stands 2 times"),
        ("id,label\n,0\n", "sample_submission.csv: row 2 has no id"),
    ],
)
def test_a_wrong_sample_submission_is_named(tmp_path, sample, said):
    touch(tmp_path, "test/1.jpg")
    (tmp_path / "sample_submission.csv").write_text(sample)
    with pytest.raises(UserError, match=re.escape(said)):
        tables.test_table(built_in("dogs_vs_cats"), tmp_path)


def test_shopees_placeholder_category_of_the_test_rows_is_not_taken_for_a_class(tmp_path):
    (tmp_path / "test.csv").write_text("filename,category\nb.jpg,43\na.jpg,43\n")
    assert tables.test_table(built_in("shopee"), tmp_path)["id"].tolist() == ["b.jpg", "a.jpg"]


@pytest.mark.parametrize(
    "text, fields, said",
    [
        ("id,label\n1,7.0\n2,8\n", {}, ["7", "8"]),
        ("id,label\n1,07\n", {}, "row 2, id '1': label '07' is not among"),
        ("id,label\n1,7\n\n2,9\n", {}, "row 4, id '2': label '9' is not among"),
        ("id,label\n1,b\n2,a\n", {"submission_labels": ("a", "b")}, ["8", "7"]),
        ("id,label\n1,7\n1,8\n", {}, "id '1' stands 2 times, in rows 2, 3"),
    ],
)
def test_the_solutions_labels_are_classes_or_refused(tmp_path, text, fields, said):
    (tmp_path / "solution.csv").write_text(text)
    solved = competition(solution_csv="solution.csv", **fields)
    if isinstance(said, list):
        assert tables.truth(solved, tmp_path, ("7", "8"))["label"].tolist() == said
        return
    with pytest.raises(UserError, match=re.escape(said)):
        tables.truth(solved, tmp_path, ("7", "8"))


def test_test_folders_that_are_no_classes_are_not_scored(tmp_path):
    touch(tmp_path, "test/unknown/1.jpg")
    listed = competition(test_csv=None, test_images="test/{label}/{number}.jpg")
    assert tables.truth(listed, tmp_path, ("cat", "dog")) is None
    assert "unknown, which is no class" in tables.unscored(listed, tmp_path, ("cat", "dog"))


# Names and order


def test_known_test_labels_come_from_the_solution_or_from_the_test_rows_own_paths(tmp_path):
    (tmp_path / "solution.csv").write_text("id,label,usage\n07,cat,Public\n1,dog,Private\n")
    solved = competition(test_csv="test.csv", solution_csv="solution.csv")
    assert tables.truth(solved, tmp_path, ("cat", "dog")).to_dict("list") == {"id": ["07", "1"], "label": ["cat", "dog"]}
    touch(tmp_path, "test/dog/2.jpg", "test/cat/10.jpg", "test/cat/3.jpg")
    listed = competition(test_csv=None, test_images="test/{label}/{number}.jpg")
    truth = tables.truth(listed, tmp_path, ("cat", "dog"))
    assert dict(zip(truth["id"], truth["label"], strict=True)) == {"cat/3": "cat", "cat/10": "cat", "dog/2": "dog"}
    assert truth["id"].tolist() == tables.test_table(listed, tmp_path)["id"].tolist()


@pytest.mark.parametrize("fields", [{"test_csv": "test.csv"}, {"test_csv": "test.csv", "solution_csv": "absent.csv"}])
def test_where_kaggle_alone_knows_the_test_labels_there_is_no_truth(tmp_path, fields):
    assert tables.truth(competition(**fields), tmp_path, ("0", "1")) is None


@pytest.mark.parametrize(
    "labels, classes",
    [(["10", "2", "1", "2"], ("1", "2", "10")), (["b", "a"], ("a", "b")), (["1", "01", "00"], ("00", "01", "1"))],
)
def test_classes_not_configured_are_the_sorted_labels(labels, classes):
    assert tables.class_names(competition(), pd.DataFrame({"label": labels})) == classes


def test_configured_classes_keep_their_order_and_those_that_do_not_occur():
    assert tables.class_names(competition(classes=("dog", "cat")), pd.DataFrame({"label": ["cat"]})) == ("dog", "cat")


def test_a_label_that_is_no_class_never_becomes_another_ones_index():
    labels = pd.Series(["b", "a", "c"], index=["x", "y", "z"])
    with pytest.raises(UserError, match=r"folds\.csv: id 'z': label 'c' is not among the 2 classes a, b \(1 such rows\)"):
        tables.class_indices(labels, ("a", "b"), "folds.csv")
    assert tables.class_indices(pd.Series(["1.0", "0"]), ("0", "1")).tolist() == [1, 0]
    assert tables.class_indices(pd.Series([], dtype=str), ("0", "1")).tolist() == []
    with pytest.raises(UserError, match="label '01'"):
        tables.class_indices(pd.Series(["01"]), ("0", "1"))


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_names_that_differ_in_a_number_are_sorted_by_that_number(numbers):
    names = [f"cat.{number}.jpg" for number in numbers]
    assert sorted(names, key=tables.natural) == [f"cat.{number}.jpg" for number in sorted(numbers)]


@given(st.lists(st.text("01a²٣", max_size=3), unique=True), st.randoms())
def test_the_natural_order_of_any_names_does_not_depend_on_how_they_came(names, random):
    shuffled = random.sample(names, len(names))
    assert sorted(shuffled, key=tables.natural) == sorted(names, key=tables.natural)


@pytest.mark.parametrize(
    "pattern, folder", [("train/{id}.jpg", "train"), ("a/b/{x}/{id}", "a/b"), ("{id}.jpg", ""), ("a/b_{id}", "a")]
)
def test_the_fixed_folder_of_a_pattern(pattern, folder):
    assert tables.prefix(pattern) == folder


def test_a_listing_holds_images_alone_relative_to_the_root(tmp_path):
    touch(tmp_path, "a/10.JPG", "a/2.png", "a/b/1.webp", "a/notes.txt", "a/no_suffix", "elsewhere/1.jpg")
    assert tables.listing(tmp_path, "a/{id}.jpg") == ["a/2.png", "a/10.JPG", "a/b/1.webp"]
    assert tables.listing(tmp_path, "{id}.jpg") == ["a/2.png", "a/10.JPG", "a/b/1.webp", "elsewhere/1.jpg"]
    assert tables.listing(tmp_path, "nowhere/{id}.jpg") == []


@pytest.mark.parametrize(
    "fields, classes, header",
    [
        ({}, (), ("id", "label")),
        ({"id_column": "image_id", "label_column": "diagnosis"}, (), ("image_id", "diagnosis")),
        ({"submission_columns": ("a", "b")}, (), ("a", "b")),
        ({"submission_values": "probabilities"}, ("cat", "dog"), ("id", "cat", "dog")),
    ],
)
def test_the_submissions_header(fields, classes, header):
    assert tables.submission_columns(competition(**fields), classes) == header


@pytest.mark.parametrize("count, said", [(2, "0, 1"), (6, "0, 1, 2, 3, 4, 5"), (8, "0, 1, 2, 3, 4, 5 and 2 more")])
def test_long_lists_are_shortened(count, said):
    assert tables.shorten([str(i) for i in range(count)]) == said
