"""The ledger: a row for each content of a file, whole whatever happens, and told in one line where people damaged it."""

import csv
import hashlib
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from src.errors import UserError
from src.inference import ledger


def written(folder: Path, content: str = "id,label\n1,0.5\n", name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_text(content)
    return path


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "ledger.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_submission_has_a_row_with_its_sha256_runs_method_and_score(tmp_path: Path):
    ledger.enter(written(tmp_path), ["a", "b"], "weights", 0.03084999)
    (row,) = rows(tmp_path)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", row.pop("time"))
    assert row == {
        "file": "mine.csv", "sha256": hashlib.sha256(b"id,label\n1,0.5\n").hexdigest(), "runs": "a b", "method": "weights",
        "CV": "0.03085", "submitted": "", "public": "", "private": "",
    }  # fmt: skip


def test_each_content_has_one_row_in_the_order_of_writing(tmp_path: Path):
    for content in ("first", "second", "first"):
        ledger.enter(written(tmp_path, content), ["a"], "mean", None)
    assert [row["sha256"] for row in rows(tmp_path)] == [hashlib.sha256(c).hexdigest() for c in (b"first", b"second")]
    assert {row["CV"] for row in rows(tmp_path)} == {""}


def _enter(folder: str, number: int) -> None:
    ledger.enter(written(Path(folder), f"{number}", f"{number}.csv"), ["a"], "mean", None)


def test_processes_that_enter_at_the_same_time_lose_no_row(tmp_path: Path):
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_enter, [str(tmp_path)] * 12, range(12)))
    assert sorted(row["file"] for row in rows(tmp_path)) == sorted(f"{number}.csv" for number in range(12))


# Handing in


def test_handing_in_notes_the_time_and_refuses_the_same_content_under_any_name(tmp_path: Path):
    with ledger.handing_in(written(tmp_path), ["a"]):
        assert rows(tmp_path)[0]["submitted"], "noted before the upload: a killed process counts as handed in"
    ledger.record(tmp_path / "mine.csv", {"public": 0.06})
    copy = written(tmp_path, name="copy.csv")
    refused = pytest.raises(UserError, match=r"copy\.csv was handed in on 20\S+ as mine\.csv, public 0\.06 .*--again")
    with refused, ledger.handing_in(copy, ["a"]):
        raise AssertionError("uploaded twice")
    with ledger.handing_in(copy, ["a"], again=True):
        pass
    assert [bool(row["submitted"]) for row in rows(tmp_path)] == [True, True]


def test_a_refused_upload_leaves_the_row_as_it_was(tmp_path: Path):
    path = written(tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match="no token"), ledger.handing_in(path, ["a"]):
            raise UserError("no token")
        assert [row["submitted"] for row in rows(tmp_path)] == [""]
    assert ledger.handed_in(path) is None


def test_a_process_that_dies_during_the_upload_counts_as_handed_in(tmp_path: Path):
    path = written(tmp_path)
    with pytest.raises(KeyboardInterrupt), ledger.handing_in(path, ["a"]):
        raise KeyboardInterrupt
    with pytest.raises(UserError, match="was handed in"), ledger.handing_in(path, ["a"]):
        raise AssertionError("uploaded twice")


# Recording


def test_a_score_belongs_to_what_was_handed_in_though_the_file_was_written_anew(tmp_path: Path):
    path = written(tmp_path, "handed in")
    ledger.enter(path, ["a"], "mean", 0.1)
    with ledger.handing_in(path, ["a"]):
        pass
    ledger.enter(written(tmp_path, "written later"), ["a"], "mean", 0.2)
    assert ledger.record(path, {"public": 0.0612, "private": 0.05})["CV"] == "0.1"
    assert [(row["public"], row["private"]) for row in rows(tmp_path)] == [("0.0612", "0.05"), ("", "")]


def test_a_file_handed_in_by_other_means_is_known_by_its_content(tmp_path: Path):
    for content in ("first", "second"):
        ledger.enter(written(tmp_path, content), ["a"], "mean", None)
    ledger.record(written(tmp_path, "first"), {"public": 0.07})
    assert [row["public"] for row in rows(tmp_path)] == ["0.07", ""]


def test_without_a_row_nothing_is_recorded_nor_created(tmp_path: Path):
    assert ledger.record(tmp_path / "absent.csv", {"public": 1.0}) is None
    assert not (tmp_path / "ledger.csv").exists()


def test_a_file_changed_by_hand_is_told_with_both_sums(tmp_path: Path):
    path = written(tmp_path)
    assert ledger.altered(path) is None, "not in the ledger"
    ledger.enter(path, ["a"], "mean", None)
    assert ledger.altered(path) is None
    was, now = (hashlib.sha256(content).hexdigest()[:12] for content in (b"id,label\n1,0.5\n", b"other"))
    path.write_text("other")
    assert re.fullmatch(rf"changed since it was written on 20\S+: its sha256 was {was}, and is {now} now", ledger.altered(path))


# Edited by hand


def test_columns_and_rows_that_people_add_are_kept(tmp_path: Path):
    ledger.enter(written(tmp_path), ["a"], "mean", 0.1)
    path = tmp_path / "ledger.csv"
    header, row = path.read_text().splitlines()
    byhand = f'2026-01-31,old.csv,{"0" * 64},,,,,0.2,,"worse, but why"'
    path.write_text(f"\ufeff{header},note\r\n{row},\r\n\r\n{byhand}\r\n", newline="")  # as spreadsheets save it
    ledger.enter(written(tmp_path, "second"), ["b"], "mean", 0.1)
    assert [row["note"] for row in rows(tmp_path)] == ["", "worse, but why", ""]
    assert [row["file"] for row in rows(tmp_path)] == ["mine.csv", "old.csv", "mine.csv"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sha256,", "hash,", r"row 1: column 'sha256' is missing"),
        (",", ";", r"row 1: column 'time' is missing"),
        ("method", "runs", r"row 1: column 'method' is missing"),
        ("private\n", "private,public\n", r"row 1: a column stands twice"),
        (",mean,", ",mean,x,", r"row 3: 10 values, expected 9; mend the row, or delete it"),
        (",mean,", ",", r"row 3: 8 values, expected 9"),
        (",0.25,", ",a quarter,", r"row 3: column 'CV': 'a quarter' is not a number"),
        (",0.25,", ",nan,", r"row 3: column 'CV': 'nan' is not a number"),
        ("b.csv,", "b.csv,x", r"row 3: column 'sha256': 'x\w+' is not 64 hexadecimal digits"),
        (",0.25,,", ",0.25,yesterday,", r"row 3: column 'submitted': 'yesterday' is not a time"),
        (",mean,", ',"mean,', r"not a readable CSV"),
    ],
)
def test_a_damaged_ledger_is_told_by_its_row_and_left_alone(old: str, new: str, said: str, tmp_path: Path):
    ledger.enter(written(tmp_path, "a", "a.csv"), ["a"], "median", 0.5)
    ledger.enter(written(tmp_path, "b", "b.csv"), ["b"], "mean", 0.25)
    path = tmp_path / "ledger.csv"
    damaged = path.read_text().replace(old, new)
    path.write_text(damaged)
    with pytest.raises(UserError, match=rf"ledger\.csv: {said}") as told:
        ledger.enter(written(tmp_path, "c", "c.csv"), ["c"], "mean", 0.1)
    assert "\n" not in str(told.value)
    assert path.read_text() == damaged


def test_a_ledger_that_is_not_utf8_or_empty_is_told(tmp_path: Path):
    for content in (b"\xff\xfe\x00", b""):
        (tmp_path / "ledger.csv").write_bytes(content)
        with pytest.raises(UserError, match=r"ledger\.csv: .*not a readable CSV"):
            ledger.read(tmp_path / "ledger.csv")
