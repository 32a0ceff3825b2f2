"""What is wrong with a competition's images and tables: one finding a row for audit.csv, counts, and groups for the folds.

Nothing is dropped or mended here: the configuration says what becomes of each kind, and prepare.py does it.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.data import inventory
from src.data.duplicates import Finding, duplicate_findings, merged_groups, same_picture
from src.data.facts import DAMAGED, EMPTY, FLAT, FOREIGN, GREY_TAIL, TRUNCATED, UNREADABLE, text
from src.data.inventory import MISSING
from src.errors import UserError

# The gravest first: what training would stop at, then what flatters or blurs a score, then what is merely unusual.
KINDS = {
    "missing": "row without an image",
    "empty": "file of zero bytes",
    "not_an_image": "file of another kind under an image's name",
    "unreadable": "image that can't be decoded",
    "truncated": "image that can't be decoded, as its end is missing",
    "grey_tail": "image whose end is missing; it decodes, with a grey tail",
    "damaged": "image whose data are damaged inside; it decodes with wrong blocks",
    "alpha_only": "picture in the alpha channel alone, which is dropped: one colour is left; flatten it on a background",
    "mixed_depth": "16-bit file whose values use more or fewer bits than most: its brightness is scaled by another number",
    "leak": "training image that is also a test image",
    "label_conflict": "one picture under different labels",
    "exact_duplicate": "the same bytes as another row of its part",
    "near_duplicate": "the same picture as another row of its part, resized, re-encoded or toned",
    "shared_path": "two rows with one image file",
    "label_spelling": "labels that differ only by case, blanks, leading zeros or Unicode form",
    "id_spelling": "id with blanks or invisible characters at its ends, or two ids that only look the same",
    "outside_root": "path that leads out of the competition's folder",
    "one_colour": "nothing but one colour",
    "tiny": "very few pixels",
    "extreme_aspect": "very long and narrow",
    "cmyk": "CMYK colours, which decoders turn into RGB each in its own way",
    "sixteen_bit": "16 bits a channel; the upper 8 of those in use are taken",
    "animated": "several frames; only the first is used",
    "exif_rotated": "stored turned or mirrored; upright only where EXIF is heeded",
    "wrong_suffix": "a suffix of another format",
    "orphan": "image without a row",
}
COLUMNS = ["part", "id", "path", "kind", "detail", "twin", "twin_path"]

TINY = 32  # pixels of the shorter side: below it hardly a class is told from another. Where images are small by nature
TINY_SHARE = 0.5  # (digits: 8, MNIST: 28, CIFAR: 32) it is this share of their median. Dogs vs. Cats has none below 41
LONGEST = 4.0  # times the shorter side: cropped or squashed to a square, 3/4 are lost. Dogs vs. Cats ends at 2.6
_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif"}
SUFFIXES = {
    "JPEG": _JPEG, "MPO": _JPEG, "PNG": {".png"}, "GIF": {".gif"}, "BMP": {".bmp"}, "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"}, "JPEG2000": {".jp2", ".j2k", ".jpx"},
}  # fmt: skip


@dataclass(frozen=True)
class Audit:
    """findings: COLUMNS, all str, one finding a row, the gravest kind first, within a kind in the tables' order.

    groups: for the training table's index, str: rows with one name must stay in one fold; "" stands alone.
    """

    findings: pd.DataFrame
    groups: pd.Series
    images: int  # files looked at
    measured: int  # of them not in the cache

    @property
    def counts(self) -> dict[str, int]:
        """Findings by kind, the gravest first; only kinds that occur."""
        counts = self.findings["kind"].value_counts()
        return {kind: int(counts[kind]) for kind in KINDS if kind in counts}

    def summary(self) -> list[str]:
        """One line a kind: how many, what it means, and the first."""
        lines = [f"audit: {self.images:,} images, {self.measured:,} of them read anew; {len(self.findings):,} findings"]
        for kind, count in self.counts.items():
            first = self.findings[self.findings["kind"] == kind].iloc[0]
            twin = f" and {first['twin_path']}" if first["twin_path"] not in ("", first["path"]) else ""
            lines.append(f"  {kind}: {count:,} ({KINDS[kind]}), the first is {first['path']}{twin}: {first['detail']}")
        return lines

    def write(self, path: Path) -> None:
        """audit.csv, under a temporary name and then renamed. Raises UserError where it can't be written."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.findings.to_csv(partial, index=False, lineterminator="\n")
            os.replace(partial, path)
        except OSError as error:
            raise UserError(f"{path}: can't be written: {error.strerror or error}") from None


def audit(
    root: Path,
    train: pd.DataFrame,
    test: pd.DataFrame | None,
    listed: Collection[str] = (),
    cache: Path | None = None,
    workers: int | None = None,
    said: Callable[[str], None] = print,
) -> Audit:
    """Look at every row and every image.

    train: id, path, label, group; test: id, path; all str, paths relative to root, further columns are ignored. listed: the
    image files that lie there, to find those without a row. cache: file that keeps what was measured. workers: processes;
    none: one a core. said: told of a cache that can't be read or written. Raises UserError where a process dies.
    """
    rows = _rows(train, test)
    files, paths = pd.factorize(rows["path"])
    rows["file"] = files
    facts, measured = inventory.take(root, list(paths), cache, workers, said)
    pictures = same_picture(facts)
    found = [*_table_findings(rows), *_image_findings(rows, facts, paths), *duplicate_findings(rows, facts, pictures)]
    findings = pd.concat([_as_table(rows, found), _orphans(listed, paths)], ignore_index=True)
    rank = findings["kind"].map({kind: rank for rank, kind in enumerate(KINDS)})
    findings = findings.loc[rank.sort_values(kind="stable").index].reset_index(drop=True)
    training = rows[rows["part"] == "train"]
    groups = pd.Series(merged_groups(training, pictures), train.index, dtype=str, name="group")
    return Audit(findings, groups, int((facts["verdict"] != MISSING.encode()).sum()), measured)


def _rows(train: pd.DataFrame, test: pd.DataFrame | None) -> pd.DataFrame:
    """Both tables in one: part, id, path, label, group; numbered through, training first."""
    parts = [train[["id", "path", "label", "group"]].assign(part="train")]
    if test is not None:
        parts.append(test[["id", "path"]].assign(part="test", label="", group=""))
    return pd.concat(parts, ignore_index=True)


def _as_table(rows: pd.DataFrame, found: list[Finding]) -> pd.DataFrame:
    """Findings as COLUMNS, each kind in the rows' order."""
    found = sorted(found, key=lambda finding: finding[0])
    row, twin = np.array([[finding[0], finding[3]] for finding in found], np.int64).reshape(-1, 2).T
    table = rows.iloc[row][["part", "id", "path"]].reset_index(drop=True)
    table["kind"], table["detail"] = [finding[1] for finding in found], [finding[2] for finding in found]
    for column, source in (("twin", "id"), ("twin_path", "path")):
        table[column] = np.where(twin >= 0, rows[source].to_numpy(object)[twin], "")
    return table[COLUMNS].astype(str)


def _orphans(listed: Collection[str], paths: Collection[str]) -> pd.DataFrame:
    """Listed files that no row names."""
    left = sorted(set(listed) - set(paths))
    return pd.DataFrame({"part": "folder", "id": "", "path": left, "kind": "orphan", "detail": "no row names it"}).reindex(
        columns=COLUMNS, fill_value=""
    )


# Images


def _image_findings(rows: pd.DataFrame, facts: np.ndarray, paths: Collection[str]) -> Iterator[Finding]:
    file = rows["file"].to_numpy()
    for kind, wrong, describe in _checks(facts, paths):
        for row in np.flatnonzero(wrong[file]):
            yield int(row), kind, describe(facts[file[row]]), -1


def _checks(facts: np.ndarray, paths: Collection[str]) -> Iterator[tuple[str, np.ndarray, Callable[[np.void], str]]]:
    """(kind, (n,) bool of the files that are so, what to say of one)."""
    for verdict in (MISSING, EMPTY, FOREIGN, UNREADABLE, TRUNCATED, GREY_TAIL, DAMAGED):
        yield verdict, facts["verdict"] == verdict.encode(), lambda fact: text(fact["detail"])
    readable = facts["height"] > 0
    short, long = np.minimum(facts["height"], facts["width"]), np.maximum(facts["height"], facts["width"])
    fewest = min(TINY, TINY_SHARE * np.median(short[readable])) if readable.any() else 0

    def size(fact: np.void) -> str:
        return f"{fact['width']} x {fact['height']} pixels"

    yield "tiny", readable & (short < fewest), size
    yield "extreme_aspect", readable & (long > LONGEST * short), size
    one_colour = readable & (facts["spread"] < FLAT) & ~facts["alpha_only"]
    yield "one_colour", one_colour, lambda fact: f"{size(fact)}, all of about one colour"
    yield "alpha_only", facts["alpha_only"], lambda fact: f"{size(fact)}, one colour under a varying alpha channel"
    yield "cmyk", facts["cmyk"], lambda fact: f"CMYK {text(fact['format'])}"
    deep = facts["depth"] > 0
    usual = int(np.bincount(facts["depth"][deep], minlength=1).argmax())
    yield "sixteen_bit", deep, lambda fact: f"{fact['depth']} of 16 bits in use, {fact['levels']} levels left"
    yield "mixed_depth", deep & (facts["depth"] != usual), lambda fact: f"scaled from {fact['depth']} bits, most from {usual}"
    yield "animated", facts["animated"], lambda fact: f"{text(fact['format'])} of several frames"
    yield "exif_rotated", facts["orientation"] > 1, lambda fact: f"EXIF orientation {fact['orientation']}"
    suffixes = [os.path.splitext(path)[1].lower() for path in paths]
    formats = [text(name) for name in facts["format"]]
    wrong = [bool(s) and f in SUFFIXES and s not in SUFFIXES[f] for s, f in zip(suffixes, formats, strict=True)]
    yield "wrong_suffix", np.array(wrong, bool), lambda fact: f"the file is a {text(fact['format'])}"


# Tables. An empty or doubled id, an absent column and a label outside the classes are refused earlier, by tables.py.


def _table_findings(rows: pd.DataFrame) -> Iterator[Finding]:
    yield from _shared_paths(rows)
    outside = rows["path"].str.contains(r"^[/\\]|^[A-Za-z]:|(?:^|/)\.\.(?:/|$)")
    yield from ((int(row), "outside_root", "leads out of the folder", -1) for row in np.flatnonzero(outside))
    training = rows[rows["part"] == "train"]
    yield from _label_spellings(training)
    for _, part in rows.groupby("part", sort=False):
        yield from _id_spellings(part)


def _shared_paths(rows: pd.DataFrame) -> Iterator[Finding]:
    first = rows.drop_duplicates("file").set_index("file").index
    owner = pd.Series(rows.index[~rows["file"].duplicated()], first)
    for row in rows.index[rows["file"].duplicated()]:
        twin = int(owner[rows["file"][row]])
        where = "the test row" if rows["part"][row] == "test" else "the row"
        yield int(row), "shared_path", f"{where} {rows['id'][row]!r} and {rows['id'][twin]!r} name one file", twin


def _label_spellings(training: pd.DataFrame) -> Iterator[Finding]:
    """Rows of every spelling of a label but its most frequent one."""
    counts = training["label"].value_counts()
    usual: dict[str, str] = {}
    for label in counts.index:  # from the most frequent down
        same = usual.setdefault(_plain_label(label), label)
        if same != label:
            said = f"{label!r} ({counts[label]:,} rows) beside {same!r} ({counts[same]:,})"
            yield from ((int(row), "label_spelling", said, -1) for row in training.index[training["label"] == label])


def _plain_label(label: str) -> str:
    plain = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    return plain.lstrip("0") or "0" if plain.isdecimal() else plain


def _id_spellings(part: pd.DataFrame) -> Iterator[Finding]:
    """Ids are matched letter by letter, so one with a blank at its end matches nothing. Case may tell two of them apart."""
    seen: dict[str, int] = {}
    for row, id in zip(part.index, part["id"], strict=True):
        plain = re.sub(r"^[\s\u200b\ufeff]+|[\s\u200b\ufeff]+$", "", unicodedata.normalize("NFC", id))
        twin = seen.setdefault(plain, row)
        if twin != row:
            yield int(row), "id_spelling", f"{id!r} looks like {part['id'][twin]!r}", int(twin)
        elif plain != unicodedata.normalize("NFC", id):
            yield int(row), "id_spelling", f"{id!r} has blanks at its ends", -1
