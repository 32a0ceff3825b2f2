"""The report's pictures as text within its HTML: curves as SVG in the page's own ink and type, photographs as JPEG."""

import base64
import io
import re
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import binomtest

from src.data.image import ImageError, read, resize

SIDE = 220  # longest side of a thumbnail, pixels: two stand side by side on a phone
QUALITY = 80  # of its JPEG: 8 to 12 KB, so 100 of them stay near 1 MB
_INK = "#010203"  # becomes currentColor, so that lines and words follow the page from light to dark
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")  # Okabe and Ito: told apart by the colour-blind
_LINES = ("-", "--", ":", "-.")  # a second round of the colours has another line
_STYLE = {
    "svg.fonttype": "none",  # words stay words, in the page's font
    "svg.hashsalt": "report",  # the same page for the same run
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def learning_curves(histories: dict[str, pd.DataFrame], columns: tuple[str, ...]) -> list[str]:
    """An SVG for each of `columns` of the folds' history.csv, one line a fold; none for one that no fold has twice."""
    return [_curve(drawn, column) for column in columns if (drawn := _with_a_course(histories, column))]


def reliability_diagram(table: pd.DataFrame) -> str:
    """An SVG: accuracy against confidence with 95 % intervals, and below how many rows there are.

    table: confidence, accuracy, rows of each bin, as src/inference/calibrate.py gives it.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure((4.4, 3.7), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color=_INK, alpha=0.4, linewidth=1, linestyle="--")
        low, high = _intervals(table).T
        errors = np.maximum(0, [table["accuracy"] - low, high - table["accuracy"]])
        above.errorbar(
            table["confidence"], table["accuracy"], yerr=errors, color=_COLOURS[0], marker="o", markersize=4, linewidth=1.4,
            elinewidth=1, capsize=2,
        )  # fmt: skip
        left = max(0.0, table["confidence"].min() - 0.05)
        above.set(ylabel="accuracy", ylim=(min(left, low.min()) - 0.02, 1.02), xlim=(left, 1.01))
        below.bar(table["confidence"], table["rows"], width=0.6 * (1 - left) / max(8, len(table)), color=_COLOURS[0], alpha=0.7)
        below.set(xlabel="confidence in the predicted class", ylabel="rows", yscale="log")
        for axes in (above, below):
            _grid(axes)
        return _svg(figure)


def thumbnail(path: Path) -> str | None:
    """The picture as a data URI, at most SIDE pixels wide and high; None where it can't be read."""
    try:
        return data_uri(shrunk(read(path)))
    except ImageError:
        return None


def shrunk(image: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) uint8 at most SIDE pixels wide and high, in its own shape; a smaller one as it is."""
    scale = min(1.0, SIDE / max(image.shape[:2]))
    return resize(image, *(max(1, round(side * scale)) for side in image.shape[:2])) if scale < 1 else image


def data_uri(image: np.ndarray) -> str:
    """The image (H, W, 3) RGB uint8 as a JPEG within the page's text."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"


def _with_a_course(histories: dict[str, pd.DataFrame], column: str) -> dict[str, pd.DataFrame]:
    known = {fold: table.dropna(subset=[column]) for fold, table in histories.items() if column in table}
    return {fold: table for fold, table in known.items() if len(table) > 1}


def _curve(histories: dict[str, pd.DataFrame], column: str) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure((4.4, 3.0), layout="constrained")
        axes = figure.add_subplot()
        for number, (fold, table) in enumerate(histories.items()):
            turn, colour = divmod(number, len(_COLOURS))
            axes.plot(
                table["epoch"], table[column], color=_COLOURS[colour], linestyle=_LINES[turn % len(_LINES)], linewidth=1.6,
                marker="o" if len(table) <= 20 else None, markersize=3, label=f"fold {fold}",
            )  # fmt: skip
        axes.set_title(column.replace("val_", "validation ").replace("_", " "), loc="left", fontsize=12)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=10, ncols=1 + len(histories) // 6)
        _grid(axes)
        return _svg(figure)


def _grid(axes: Axes) -> None:
    axes.grid(color=_INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)


def _intervals(table: pd.DataFrame) -> np.ndarray:
    """(bins, 2): Wilson's 95 % interval of each bin's accuracy; it stays within 0 and 1 and is right for few rows."""
    right = (table["accuracy"] * table["rows"]).round().astype(int)
    return np.array([binomtest(k, n).proportion_ci(method="wilson") for k, n in zip(right, table["rows"], strict=True)])


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element for the middle of a page: no header, and no names that a second one would repeat."""
    written = io.StringIO()
    figure.savefig(
        written, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    drawn = written.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*"', "<g", drawn).replace(_INK, "currentColor")
