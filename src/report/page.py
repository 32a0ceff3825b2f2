"""compare.py --report: one HTML page that explains a run, or compares two, with nothing to fetch from elsewhere."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from src.competitions import metrics
from src.config import Config, differences
from src.errors import UserError
from src.files import replacing
from src.inference.calibrate import calibration_error, reliability
from src.inference.submission import expected
from src.report import noise, oof, paired, pictures, scores
from src.report.album import Album, open_album
from src.report.oof import Oof
from src.training import tracking
from src.training.run import CrossValidation, cross_validation

TILES = 24  # pictures of mistakes and of suspect labels each; thumbnails of 10 KB
LISTED = 200  # suspects named below the pictures
LARGEST = 45  # classes in the confusion matrix; of more, those with the most mistakes
WORST_CLASSES = 15  # whose scores stand open on the page
COUNTED = 12  # classes up to which its cells have room for the numbers of rows

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def signed(value: float, digits: int) -> str:
    """+0.12, −0.12, with the minus sign as long as the plus."""
    return f"{value:+,.{digits}f}".replace("-", "\u2212")


_templates.filters["signed"] = signed


class Tile(NamedTuple):
    """A row with its picture and what is said below it; other: the class beside the label; findings: the audit's.

    maps: a class, and the picture under what speaks for it, None where nothing does; empty where no map was made.
    """

    id: str
    picture: str | None
    label: str
    other: str
    figure: str
    findings: list[str]
    maps: Sequence[tuple[str, str | None]] = ()


class Cell(NamedTuple):
    """One of the confusion matrix. strength: of its colour, 0 to 100; percent: below the text, where there is room."""

    strength: int
    text: str
    percent: str
    title: str


def write(paths: list[Path], said: Callable[[str], None] = print) -> Path:
    """The page of one run (runs/A/report.html) or of two (runs/A/report-vs-B.html), shown on the first one's dashboard, too.

    Raises UserError for none or more than two runs, a run without out-of-fold rows, or two that can't be compared.
    """
    if len(paths) not in (1, 2):
        raise UserError(f"--report explains one run or compares two, not {len(paths)}: python compare.py runs/NAME --report")
    held_out = [oof.read(path) for path in paths]
    first = held_out[0]
    album = open_album(first.config)
    if len(held_out) == 1:
        path, html = first.run.path / "report.html", _templates.get_template("run.html").render(_of_run(first, album))
    else:
        other = held_out[1].run.name
        path = first.run.path / f"report-vs-{other}.html"
        html = _templates.get_template("pair.html").render(_of_pair(paired.pair(*held_out), album))
    with replacing(path) as partial:
        partial.write_text(html, encoding="utf-8")
    tracker = tracking.track(first.config, first.run.name, "cv", first.run.path, None, said)
    tracker.log_page(path.stem, path)
    tracker.finish()
    said(f"{path}: {path.stat().st_size / 1e6:.1f} MB" + (f"; without pictures: {album.absent}" if album.absent else ""))
    return path


def _of_run(oof: Oof, album: Album) -> dict[str, Any]:
    """What the page of one run shows."""
    suspects = noise.suspects(oof.labels, oof.probabilities)
    wrong = np.flatnonzero(~oof.correct)
    worst = wrong[np.argsort(-oof.probabilities[wrong, oof.predicted[wrong]], kind="stable")][:TILES]
    maps, without_maps = _maps(oof, album, worst)
    histories = _histories(oof)
    return {
        "oof": oof,
        "album": album,
        "card": _card(oof),
        "folds": scores.by_fold(oof),
        "plain": _plain(oof),
        "curves": [Markup(svg) for svg in pictures.learning_curves(histories, _curve_columns(oof.config))],
        "matrix": _matrix(oof),
        "pairs": scores.confused_pairs(oof),
        "classes": list(scores.by_class(oof).itertuples()),
        "worst_classes": WORST_CLASSES,
        "mistakes": [_tile(oof, album, row, oof.predicted[row], maps.get(row, ())) for row in worst],
        "without_maps": without_maps,
        "wrong": len(wrong),
        "suspects": [_tile(oof, album, row.row, row.suggested) for row in suspects.head(TILES).itertuples()],
        "listed": _listed(oof, suspects[TILES : TILES + LISTED]),
        "suspected": len(suspects),
        "audit": album.summary(),
        "knobs": [] if oof.run.is_ensemble else _knobs(oof.config),
    }


def _maps(oof: Oof, album: Album, rows: np.ndarray) -> tuple[dict[int, list[tuple[str, str | None]]], list[str]]:
    """As attention.look gives them; none where there are no pictures or no mistakes."""
    if not (album.paths and len(rows)):
        return {}, []
    from src.report import attention  # here: it imports torch, which takes seconds

    return attention.look(oof, album, rows)


def _of_pair(pair: paired.Paired, album: Album) -> dict[str, Any]:
    """What the page of two runs shows."""
    both = pair.first, pair.second
    recipes = [(oof.run.name, oof.run.recipe()) for oof in both if oof.run.is_ensemble]
    gains = pair.disagreements()
    for_first, for_second = gains[gains["gain"] > 0].head(TILES // 2), gains[gains["gain"] < 0][::-1].head(TILES // 2)
    return {
        "pair": pair,
        "album": album,
        "cards": [_card(oof) for oof in both],
        "better_first": [_tile_of_two(pair, album, row.row, row.gain) for row in for_first.itertuples()],
        "better_second": [_tile_of_two(pair, album, row.row, row.gain) for row in for_second.itertuples()],
        "knobs": [] if recipes else [line.split(": ", 1) for line in differences(*(oof.config.identity() for oof in both))],
        "recipes": recipes,
    }


def _plain(oof: Oof) -> CrossValidation | None:
    """The scores without TTA; None where there was none, or where they are not of the same rows."""
    plain = cross_validation(oof.run, oof.config.competition.metric) if oof.with_tta else None
    return plain if plain is not None and plain.covers(set(oof.folds), len(oof.ids)) else None


def _card(oof: Oof) -> dict[str, Any]:
    """A run's headline numbers."""
    metric = oof.config.competition.metric
    second = scores.second_metric(metric)
    score, low, high = expected(metric, oof.labels, oof.probabilities)
    return {
        "metric": metric.replace("_", " "),
        "score": score,
        "low": low,
        "high": high,
        "second_metric": second.replace("_", " "),
        "second": metrics.score(second, oof.labels, oof.probabilities),
        "calibration": calibration_error(oof.labels, oof.probabilities),
        "reliability": Markup(pictures.reliability_diagram(reliability(oof.labels, oof.probabilities))),
    }


def _histories(oof: Oof) -> dict[str, pd.DataFrame]:
    """history.csv of each fold; an ensemble has none."""
    there = oof.run.folds_with("history.csv")
    return {fold: oof.run.history(fold) for fold in dict.fromkeys(oof.folds) if fold in there}


def _curve_columns(config: Config) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("train_loss", "val_log_loss", f"val_{config.competition.metric}", "val_accuracy")))


def _knobs(config: Config) -> list[tuple[str, Any, Any]]:
    """Knob, value, default, of those that differ from the defaults; the competition's own are not choices."""
    defaults = Config(competition=config.competition).identity()
    return [(key, value, defaults[key]) for key, value in config.identity().items() if value != defaults[key]]


def _matrix(oof: Oof) -> dict[str, Any]:
    """The confusion matrix: names, and a line of cells for each of them."""
    counts = scores.confusion(oof)
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:LARGEST])
    totals = np.maximum(counts.sum(axis=1), 1)
    lines = [[_cell(counts[i, j], totals[i], oof.classes[i], oof.classes[j], len(shown)) for j in shown] for i in shown]
    return {"names": [oof.classes[i] for i in shown], "lines": lines, "dense": len(shown) > COUNTED, "all": len(counts)}


def _cell(rows: int, total: int, label: str, predicted: str, classes: int) -> Cell:
    share = rows / total
    percent = f"{100 * share:.0f}" if share >= 0.005 else "·" if rows else ""
    title = f"{label} taken for {predicted}: {rows:,} of {total:,} rows ({_percent(share)})"
    strength = round(100 * share**0.5)  # the root: one mistake in a hundred is to be seen
    return Cell(strength, percent if classes > COUNTED else f"{rows:,}", _percent(share), title)


def _tile(oof: Oof, album: Album, row: int, other: int, maps: Sequence[tuple[str, str | None]] = ()) -> Tile:
    id = str(oof.ids[row])
    figure = _percent(oof.probabilities[row, other])
    return Tile(id, album.thumbnail(id), oof.classes[oof.labels[row]], oof.classes[other], figure, album.kinds(id), maps)


def _tile_of_two(pair: paired.Paired, album: Album, row: int, gain: float) -> Tile:
    """The label's probability by both."""
    id, label = str(pair.first.ids[row]), pair.first.labels[row]
    ours, theirs = (oof.probabilities[row, label] for oof in (pair.first, pair.second))
    name = pair.first.classes[label]
    return Tile(id, album.thumbnail(id), name, f"{_percent(ours)} and {_percent(theirs)}", signed(gain, 2), album.kinds(id))


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f}\u00a0%"


def _listed(oof: Oof, suspects: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """id, label, suggested class, its probability, of the suspects that have no picture on the page."""
    return [
        (str(oof.ids[row]), oof.classes[oof.labels[row]], oof.classes[k], _percent(oof.probabilities[row, k]))
        for row, k in zip(suspects["row"], suspects["suggested"], strict=True)
    ]
