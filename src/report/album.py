"""The training pictures of a competition by row, and what the audit said of them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from src.competitions.tables import read_csv
from src.config import Config
from src.data import audit, prepare
from src.data.image import ImageError, read
from src.errors import UserError
from src.report import pictures


@dataclass(frozen=True)
class Album:
    """paths: each row's picture; absent: why there are none, else ""; findings: audit.csv's training rows."""

    paths: dict[str, Path] = field(default_factory=dict)
    absent: str = ""
    findings: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=audit.COLUMNS))

    def thumbnail(self, id: str) -> str | None:
        """The row's picture as a data URI; None where there is none that can be read."""
        return pictures.thumbnail(self.paths[id]) if id in self.paths else None

    def photograph(self, id: str) -> np.ndarray | None:
        """The row's picture (H, W, 3) RGB uint8; None where there is none that can be read."""
        try:
            return read(self.paths[id]) if id in self.paths else None
        except ImageError:
            return None

    def kinds(self, id: str) -> list[str]:
        """What the audit found of this row."""
        return self.findings["kind"][self.findings["id"] == id].tolist()

    def summary(self) -> pd.DataFrame:
        """One line a kind of finding, the gravest first: kind, rows, meaning, first (path of the first)."""
        grouped = self.findings.groupby("kind", sort=False)["path"].agg(["size", "first"])
        present = [kind for kind in audit.KINDS if kind in grouped.index]
        lines = [(kind, grouped.at[kind, "size"], audit.KINDS[kind], grouped.at[kind, "first"]) for kind in present]
        return pd.DataFrame(lines, columns=["kind", "rows", "meaning", "first"])


def open_album(config: Config) -> Album:
    """The album of a configuration's data; where they are not at hand, an empty one that says why."""
    try:
        prepared = prepare.prepare(config, lambda _: None)
    except UserError as error:
        return Album(absent=str(error))
    rows = prepared.train[prepared.train["found"]]
    paths = {id: prepared.root / path for id, path in zip(rows["id"], rows["path"], strict=True)}
    absent = "" if paths else f"{prepared.root} has the table, but no training image"
    written = prepare.own_file(config.competition, prepared.root, "audit.csv")
    if not written.is_file():
        return Album(paths, absent)
    with open(written, encoding="utf-8", errors="replace") as file:
        if file.readline().strip() != ",".join(audit.COLUMNS):  # the user's own
            return Album(paths, absent)
    findings = read_csv(written, audit.COLUMNS)
    return Album(paths, absent, findings[findings["part"] == "train"])
