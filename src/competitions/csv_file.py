"""A CSV as strings, its rows numbered as an editor shows them: the header is row 1, and blank lines count.

What is no CSV, or a damaged one, is refused in one line, before anything large is made of it.
"""

import csv
import io
import re
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from src.competitions.names import quoted, shorten
from src.errors import UserError

WIDEST = 1 << 20  # bytes of a header: 100,000 columns of ten letters
csv.field_size_limit(1 << 26)  # characters; a run-length-encoded mask has more than the 131,072 that Python allows
SIGNATURES = {
    b"\xff\xfe": "is UTF-16; save it as UTF-8",
    b"\xfe\xff": "is UTF-16; save it as UTF-8",
    b"PK\x03\x04": "is a zip archive or an Excel workbook; save it as a plain CSV",
    b"\x1f\x8b": "is a gzip archive; unpack it",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook; save it as a plain CSV",
    b"PAR1": "is a Parquet file; save it as a plain CSV",
    b"\x28\xb5\x2f\xfd": "is a zstd archive; unpack it",
    b"7z\xbc\xaf": "is a 7z archive; unpack it",
    b"%PDF": "is a PDF",
}
TEXTS = {  # how other texts begin; asked only where a column is missing
    r"[{\[]": "is it JSON? Save it as a CSV",
    r"<(!doctype|html|\?xml)": "is it a web page, in place of the file?",
    r"version https://git-lfs": "it is a pointer of Git LFS: fetch the file itself",
    r"[^,]*;": "is it separated by semicolons? Save it with commas",
    r"[^,]*\t": "is it separated by tabs? Save it with commas",
}


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """All columns as strings, nothing taken for a missing value; the index, "row", is the editor's row.

    A row shorter than the header ends with empty fields. Raises UserError for a file that is absent or no CSV, with the row
    where there is one, and for a column that is absent or stands twice.
    """
    text = _text(path)
    header, rows, numbers = _parse(path, text, strict=True)
    _check_header(path, header, columns, text)
    for number, cells in zip(numbers, rows, strict=True):
        if len(cells) > len(header):
            fault = f"row {number} has {len(cells)} fields, and the header {len(header)}"
            raise UserError(f"{path}: not a readable CSV: {fault}: rows have more fields than the header")
    values = list(zip_longest(*rows, fillvalue=""))
    values += [("",) * len(rows)] * (len(header) - len(values))
    first = dict(reversed(list(zip(header, values, strict=True))))
    table = pd.DataFrame(first, index=pd.Index(numbers, name="row", dtype="int64"), dtype=str)
    return table[list(dict.fromkeys(header))]


def read_header(path: Path) -> tuple[str, ...]:
    """The names in row 1, those that stand twice too. Raises UserError for a file that is absent or no CSV."""
    return tuple(_parse(path, _text(path), strict=True)[0])


def _parse(path: Path, text: str, strict: bool) -> tuple[list[str], list[list[str]], list[int]]:
    """The header; each row that isn't blank, and where it begins. Quotes within quotes are read as well as they can be."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=strict)
    rows, numbers, start = [], [], 1
    try:
        for cells in reader:
            blank = not cells or (rows and len(cells) == 1 < len(rows[0]) and not cells[0].strip())
            if not blank:
                rows.append(cells)
                numbers.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        if "expected after" in str(error):
            return _parse(path, text, strict=False)
        open_quote = "unexpected end" in str(error) or "field limit" in str(error)
        hint = "is a quote left open there?" if open_quote else "can it be mended?"
        raise UserError(f"{path}: not a readable CSV: row {start}: {error}; {hint}") from None
    return rows[0], rows[1:], numbers[1:]


def _text(path: Path) -> str:
    """The file's text, once its beginning looks like a CSV's."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: can't be read: not a file")
    try:
        with open(path, "rb") as file:
            head = file.read(WIDEST)
            _check_beginning(path, head)
            raw = head + file.read()
    except OSError as error:
        said = "no such file" if isinstance(error, FileNotFoundError) else f"can't be read: {error.strerror or error}"
        raise UserError(f"{path}: {said}") from None
    if (nul := raw.find(0)) >= 0:
        raise UserError(f"{path}: not a readable CSV: row {_row(raw, nul)} holds a NUL character")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"row {_row(raw, error.start)}: byte {raw[error.start]:#04x} is not UTF-8"
        raise UserError(f"{path}: not a readable CSV: {where}; save it as UTF-8") from None


def _check_beginning(path: Path, head: bytes) -> None:
    for signature, said in SIGNATURES.items():
        if head.startswith(signature):
            raise UserError(f"{path}: not a readable CSV: it {said}")
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise UserError(f"{path}: not a readable CSV: the file is empty")
    if len(head) == WIDEST and not re.search(rb"[\r\n]", head):
        raise UserError(f"{path}: not a readable CSV: row 1, its header, is longer than {WIDEST:,} bytes{_other(head)}")


def _other(head: str | bytes) -> str:
    """What another kind of text begins so, as the end of a message; "" where none does."""
    start = head[:4096].decode(errors="replace") if isinstance(head, bytes) else head[:4096]
    start = start.lstrip("\ufeff \t\r\n").partition("\n")[0]
    return next((f"; {said}" for pattern, said in TEXTS.items() if re.match(pattern, start, re.IGNORECASE)), "")


def _row(raw: bytes, place: int) -> int:
    """The editor's row of a byte, whichever line ends the file has."""
    before = raw[:place].replace(b"\r\n", b"\n")
    return 1 + before.count(b"\n") + before.count(b"\r")


def _check_header(path: Path, header: list[str], columns: list[str], text: str) -> None:
    for column in columns:
        if header.count(column) > 1:
            raise UserError(f"{path}: column {quoted(column)} stands {header.count(column)} times in row 1, the header")
        if column not in header:
            has = shorten([quoted(name) for name in header], 12)
            raise UserError(f"{path}: column {quoted(column)} is missing; the file has {has}{_other(text)}")
