"""What a learning-rate range test's losses say (src/training/lr_range.py makes them): a suggestion, in words and drawn."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from scipy.ndimage import gaussian_filter1d, median_filter

from src.errors import UserError
from src.files import replacing

_BLUE, _RED, _INK, _PALE = "#1f5fa8", "#b3372f", "#222222", "#767676"


@dataclass(frozen=True)
class Curve:
    """The losses at rising learning rates, up to where they fly off."""

    rates: np.ndarray  # (updates,) of the head
    losses: np.ndarray  # (updates,) mean over the update's images, before it; inf: not finite
    configured: float  # train.lr

    @cached_property
    def start(self) -> float:
        """The loss before anything is learned: the median at the lowest rates."""
        return max(1e-6, float(np.median(self.losses[: max(5, len(self.losses) // 10)])))

    @cached_property
    def logs(self) -> np.ndarray:
        """(updates,) of the losses, of which a burst counts as 4 times the start. A head that starts badly loses 10, then 1."""
        return np.log(np.clip(self.losses, 1e-6, 4 * self.start))

    @cached_property
    def smoothed(self) -> np.ndarray:
        """(updates,) a running median of 5, then a Gaussian over about as many: no lag, and a single burst leaves no trace."""
        return np.exp(gaussian_filter1d(median_filter(self.logs, 5, mode="nearest"), sigma=1.5))

    @cached_property
    def noise(self) -> float:
        """Relative deviation of a loss from batch to batch: from neighbours' differences at the lower half of the rates."""
        differences = np.diff(self.logs[: max(5, len(self.logs) // 2)])
        return float(1.4826 * np.median(np.abs(differences)) / np.sqrt(2))  # the median: few of them hold a trend


@dataclass(frozen=True)
class Suggestion:
    """What a curve says. lr: None where it says nothing, for the reason `doubt`; diverges: None where it never does."""

    lr: float | None
    minimum: float  # the learning rate of the least loss
    diverges: float | None
    doubt: str = ""


def suggest(curve: Curve) -> Suggestion:
    """The learning rate at which half of the fall is done, but at most a tenth of the one from which the loss diverges.

    fastai suggests where the loss falls fastest, or a tenth of where it is least (Howard & Gugger 2020, "Deep Learning for
    Coders", chapter 5). A slope is mostly noise; half way down a falling S (of the loss's logarithm), where it is steepest,
    is not. Diverging is being back at that height. On the digits (cifar_net, test_resnet; AdamW, LAMB, Lion, SGD; 5 seeds)
    it scattered by a factor of 1.3 at most, fastai's "valley" by up to 1.9, and lay within a factor of 5 of the best of a
    grid, 6 epochs each. No suggestion where the fall is less than three times the noise, which alone gets there in one
    test of a hundred.
    """
    smoothed, rates = curve.smoothed, curve.rates
    lowest = int(smoothed.argmin())
    least = float(smoothed[lowest])
    falls = least < curve.start * np.exp(-3 * curve.noise)
    height = np.sqrt(curve.start * least) if falls else curve.start * np.exp(3 * curve.noise)
    after = np.flatnonzero(smoothed[lowest:] > height)
    diverges = float(rates[lowest + after[0]]) if len(after) else None
    if not falls:
        doubt = f"the loss gets from {curve.start:.3g} to {least:.3g} at best, and it varies by {curve.noise:.0%} anyway"
        return Suggestion(None, float(rates[lowest]), diverges, doubt)
    before = np.flatnonzero(smoothed[:lowest] > height)
    half = float(rates[before[-1] + 1]) if len(before) else float(rates[0])
    return Suggestion(half if diverges is None else min(half, diverges / 10), float(rates[lowest]), diverges)


def summary(curve: Curve, path: Path) -> str:
    """The finder's last line; path: the picture's."""
    found = suggest(curve)
    ends = f"diverges from {_short(found.diverges)}" if found.diverges else f"never diverges up to {_short(curve.rates[-1])}"
    if found.lr is None:
        said, about = f"no suggestion: {found.doubt}", f"it {ends}{'; a tenth of that is safe' if found.diverges else ''}"
    else:
        said = f"suggested {_short(found.lr)}"
        about = f"half of the fall is done there; the loss is least at {_short(found.minimum)} and {ends}"
    return f"train.lr: {said} ({about}; configured {_short(curve.configured)}); the curve is in {path}"


def draw(curve: Curve, path: Path) -> None:
    """Write a PNG of the curve with the suggested and the configured rate. Raises UserError where it can't be written."""
    found = suggest(curve)
    figure = Figure((9, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    finite = np.isfinite(curve.losses)
    axes.plot(curve.rates[finite], curve.losses[finite], color=_BLUE, alpha=0.3, linewidth=1, label="each update")
    axes.plot(curve.rates, curve.smoothed, color=_BLUE, linewidth=2.4, label="smoothed")
    _frame(axes, curve)
    title = "Learning-rate range test" + ("" if found.lr else ": no suggestion")
    axes.set_title(title, loc="left", pad=26, weight="bold")
    if found.diverges is not None:
        axes.axvspan(found.diverges, axes.get_xlim()[1], color=_RED, alpha=0.08, linewidth=0)
        words = f"diverges from {_short(found.diverges)}"
        axes.text(found.diverges * 1.08, 0.03, words, color=_RED, rotation=90, transform=axes.get_xaxis_transform())
    marks = [(curve.configured, f"configured {_short(curve.configured)}", _PALE, "--")]
    if found.lr is not None:
        marks.append((found.lr, f"suggested {_short(found.lr)}", _INK, "-"))
    for side, (rate, words, colour, line) in zip(("right", "left"), sorted(marks), strict=False):
        axes.axvline(rate, color=colour, linestyle=line, linewidth=1.4)
        axes.text(rate, 1.015, words, color=colour, ha=side, transform=axes.get_xaxis_transform(), weight="bold")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            figure.savefig(partial, format="png")
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from None


def _frame(axes: Axes, curve: Curve) -> None:
    """Scales, limits, labels. The limits are the smoothed curve's: bursts leave the picture."""
    shown = min(curve.rates[0], curve.configured / 1.6), max(curve.rates[-1], curve.configured) * 1.6
    low, high = min(0.6, np.exp(-2 * curve.noise)) * curve.smoothed.min(), max(1.5, np.exp(3 * curve.noise)) * curve.start
    axes.set(xscale="log", yscale="log", xlim=shown, ylim=(low, high))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("learning rate of the head")
    axes.set_ylabel("training loss")
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", frameon=False)


def _short(rate: float) -> str:
    """1.2e-3, 0.24: a number as YAML reads it."""
    return f"{rate:.1e}".replace("e-0", "e-") if rate < 0.1 else f"{rate:.2g}"
