"""A CSV is read as it was written, its rows counted as an editor does; what is none is refused in one short line."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.competitions.csv_file import read_csv, read_header
from src.errors import UserError


def written(folder: Path, raw: bytes) -> Path:
    path = folder / "train.csv"
    path.write_bytes(raw)
    return path


def refusal(path: Path, columns: list[str]) -> str:
    with pytest.raises(UserError) as error:
        read_csv(path, columns)
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    assert said.isprintable(), "one line"
    assert len(said) < len(str(path)) + 1000
    return said


@pytest.mark.parametrize(
    "raw, rows, values",
    [
        (b"id,label\na,0\nb,1\n", [2, 3], [["a", "0"], ["b", "1"]]),
        (b"id,label\r\n\r\na,0\r\n  \r\nb,1", [3, 5], [["a", "0"], ["b", "1"]]),
        (b"id,label\ra,0\nb,1\r\n", [2, 3], [["a", "0"], ["b", "1"]]),
        (b'\n\nid,label\n"a\n\nb",0\nc,1\n', [4, 7], [["a\n\nb", "0"], ["c", "1"]]),
        (b"\xef\xbb\xbfid,label\na\nb,NA\n", [2, 3], [["a", ""], ["b", "NA"]]),
        (b'id,label\na,"say ""x"""\nb,"he \\"said\\" x"\n', [2, 3], None),
        (b"id,label,x,x\na,0,1,2\n", [2], None),
        (b"id,label\n", [], []),
    ],
)
def test_rows_are_numbered_as_an_editor_shows_them(tmp_path, raw, rows, values):
    table = read_csv(written(tmp_path, raw), ["id", "label"])
    assert table.index.tolist() == rows
    assert values is None or table.to_numpy().tolist() == values


@pytest.mark.parametrize(
    "raw, said",
    [
        (b"", "the file is empty"),
        (b"\n \r\n", "the file is empty"),
        (b"id,label\na,0\nb,1,2\n", "row 3 has 3 fields, and the header 2"),
        (b'id,label\n\n"a,0\nb,1\n', "row 3: unexpected end of data; is a quote left open there?"),
        (b"id,label\na,0\nb\0,1\n", "row 3 holds a NUL character"),
        (b"id,label\na,0\r\nb,caf\xe9\n", "row 3: byte 0xe9 is not UTF-8"),
        ("id,label\na,0\n".encode("utf-16"), "is UTF-16"),
        (b"id,label,id\na,0,b\n", "column 'id' stands 2 times in row 1"),
        (b"id;label\na;0\n", "separated by semicolons"),
        (b"id\tlabel\na\t0\n", "separated by tabs"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"PK\x03\x04rest", "zip archive or an Excel workbook"),
        (b"PAR1rest", "Parquet"),
        (json.dumps([{"id": i, "label": 0} for i in range(50_000)]).encode(), "is it JSON?"),
        (json.dumps([{"id": i, "label": 0} for i in range(5_000)]).encode(), "is it JSON?"),
        (json.dumps([{"id": 1}], indent=1).encode(), "is it JSON?"),
        (b"x" * 3_000_000, "row 1, its header, is longer than"),
        (",".join(f"pixel{i}" for i in range(5000)).encode(), "'pixel0', 'pixel1'"),
    ],
    ids=range(19),
)
def test_what_is_no_csv_is_refused_in_one_short_line(tmp_path, raw, said):
    assert said in refusal(written(tmp_path, raw), ["id", "label"])


def test_a_pipe_in_place_of_a_table_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train.csv")
    assert "can't be read: not a file" in refusal(tmp_path / "train.csv", ["id"])


def test_a_field_may_be_longer_than_pythons_own_limit(tmp_path):
    path = written(tmp_path, b"id,mask\na," + b"1 2 " * 100_000 + b"\n")
    assert len(read_csv(path, ["id"])["mask"].iloc[0]) == 400_000


def test_a_header_is_told_with_the_names_that_stand_twice(tmp_path):
    assert read_header(written(tmp_path, b"\xef\xbb\xbfid,label,label\na,0,1\n")) == ("id", "label", "label")


@given(raw=st.binary(max_size=60), start=st.sampled_from([b"", b"id,label\n", b'id,label\n"a', b"id,label\na,0\n"]))
def test_any_bytes_are_a_table_or_a_refusal(tmp_path_factory, raw, start):
    path = written(tmp_path_factory.mktemp("csv"), start + raw)
    try:
        table = read_csv(path, ["id", "label"])
    except UserError:
        refusal(path, ["id", "label"])
        return
    assert (table.index > 1).all()
    assert table.index.is_monotonic_increasing
