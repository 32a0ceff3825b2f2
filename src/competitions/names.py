"""Names of ids, classes and files: their order, how messages show them, and which of them are one name spelt in two ways."""

import re
from collections import Counter
from collections.abc import Callable, Collection
from decimal import Decimal

import numpy as np

LONGEST = 80  # characters of a name that a message shows
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
WHOLE = re.compile(r"-?(0|[1-9]\d*)", re.ASCII)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key under which 2 comes before 10. No two names have the same: 01 and 1 stand in one order everywhere."""
    # Python reads no more than 4,300 digits as a number.
    parts = [
        (0, int(part), "") if part.isdecimal() and len(part) < 4000 else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]
    return [*parts, (-1, 0, name)]


def shorten(names: Collection[str] | np.ndarray, most: int = 6) -> str:
    """The first few names and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(str(name)) for name in names[:most]) + more


def shown(name: object) -> str:
    """A name or path as a message shows it: on one line, and not longer than a line."""
    text = str(name)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= LONGEST * 2 else f"{text[:LONGEST]}…"


def quoted(name: str, most: int = LONGEST) -> str:
    """A name in quotes, as Python writes it, and cut where it is very long."""
    return repr(name if len(name) <= most else f"{name[:most]}…")


def unfloated(name: str) -> str | None:
    """ "7" for "7.0", which pandas makes of it beside a missing value, and for "7" itself; None for any other name."""
    return name.removesuffix(".0") if WHOLE.fullmatch(name.removesuffix(".0")) else None


def same_numbers(names: Collection[str], known: Collection[str]) -> dict[str, str]:
    """{name: the one of `known` that is the same but for ".0"}, where exactly one is, and of no other of `names`."""
    twins = _twins(names, known, unfloated)
    claimed = Counter(twins.values())
    return {name: twin for name, twin in twins.items() if claimed[twin] == 1}


def respelt(labels: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """{label: the same in the style of `wanted`}, where they differ by ".0" alone: 0.0, 1.0, 2.0 are 0, 1, 2 where 0 is wanted.

    Empty where that isn't so of every label: whether zeros in front (00 beside 0) or capitals are meant, only people know.
    """
    bare = {label: unfloated(label) for label in labels}
    floats = {name.endswith(".0") for name in same_numbers(wanted, labels)}
    if None in bare.values() or len(set(bare.values())) < len(bare) or len(floats) != 1:
        return {}
    return {label: f"{name}.0" if True in floats else name for label, name in bare.items()}


def alike(names: Collection[str], known: Collection[str]) -> dict[str, str]:
    """{name: one of `known` that people would take for the same}: but for case, blanks, zeros in front or a fraction of 0."""
    return _twins(names, known, _plain)


def _plain(name: str) -> Decimal | str:
    bare = name.strip(" \t\"'")
    return Decimal(bare) if NUMBER.fullmatch(bare) else bare.casefold()


def _twins(names: Collection[str], known: Collection[str], form: Callable[[str], object]) -> dict[str, str]:
    by_form: dict[object, set[str]] = {}
    for name in known:
        by_form.setdefault(form(name), set()).add(name)
    by_form.pop(None, None)
    found = {name: by_form.get(form(name), set()) for name in set(names) - set(known)}
    return {name: next(iter(same)) for name, same in found.items() if len(same) == 1}
