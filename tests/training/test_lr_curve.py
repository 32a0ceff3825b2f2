"""What is read from the losses at rising learning rates, and the picture of them."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.errors import UserError
from src.training.lr_curve import Curve, draw, suggest, summary

RATES = np.geomspace(1e-6, 10, 100)
THOROUGH = settings(max_examples=100, deadline=None, derandomize=True, database=None)


def well(
    fall: float = 3.0, at: float = 1e-3, diverges: float = 0.3, noise: float = 0.0, seed: int = 0, first: float = 2.0
) -> Curve:
    """A loss that falls by a factor around `at` and comes back around `diverges`."""
    down = 1 / (1 + (RATES / at) ** -2)
    up = 1 / (1 + (RATES / diverges) ** -4)
    drift = np.random.default_rng(seed).normal(0, noise, len(RATES)) if noise else 0.0
    return Curve(RATES, first * np.exp(math.log(fall) * (2 * up - down) + drift), 1e-3)


@pytest.mark.parametrize("at", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_the_suggestion_is_half_way_down(at: float, noise: float):
    found = suggest(well(at=at, diverges=1.0, noise=noise))
    assert found.lr == pytest.approx(at, rel=0.3)
    assert 3 * at < found.minimum < found.diverges / 2
    assert found.diverges == pytest.approx(0.8, rel=0.3)


def test_next_to_a_cliff_the_suggestion_keeps_a_tenth_away_from_it():
    found = suggest(well(at=0.1, diverges=0.5))
    assert found.diverges == pytest.approx(0.5, rel=0.5)
    assert found.lr == pytest.approx(found.diverges / 10)


def test_without_divergence_the_suggestion_is_half_way_down_all_the_same():
    found = suggest(well(at=1e-3, diverges=1e6))
    assert found.diverges is None
    assert found.lr == pytest.approx(1e-3, rel=0.3)


@THOROUGH
@given(st.floats(0.01, 0.06), st.sampled_from(["normal", "laplace", "exponential"]), st.integers(0, 10**6))
def test_noise_alone_gives_no_suggestion(size: float, kind: str, seed: int):
    """Deterministic draws: of a hundred, the share that the docstring admits."""
    noise = getattr(np.random.default_rng(seed), kind)(size=len(RATES))
    assert suggest(Curve(RATES, 2.3 * np.exp(size * noise), 1e-3)).lr is None


@THOROUGH
@given(
    st.floats(1.5, 20), st.floats(1e-4, 1e-1), st.floats(0.2, 5), st.floats(0, 0.03), st.integers(0, 99), st.floats(0.01, 100)
)
def test_a_suggestion_lies_below_the_minimum_and_does_not_depend_on_the_losss_unit(
    fall: float, at: float, diverges: float, noise: float, seed: int, unit: float
):
    curve = well(fall, at, diverges, noise, seed)
    found, scaled = suggest(curve), suggest(Curve(curve.rates, curve.losses * unit, 1e-3))
    assert found == scaled
    if found.lr is not None:
        assert RATES[0] / 10 <= found.lr <= found.minimum
        assert found.diverges is None or found.lr <= found.diverges / 10 * 1.001


@pytest.mark.parametrize("burst", [50.0, math.inf])
def test_a_single_burst_changes_nothing(burst: float):
    curve = well()
    losses = curve.losses.copy()
    losses[55] = burst
    assert suggest(Curve(RATES, losses, 1e-3)) == suggest(curve)


def test_a_cliff_is_seen_where_it_is():
    losses = np.where(np.arange(100) < 80, 2.0 / np.maximum(1, np.arange(100) - 60), math.inf)
    found = suggest(Curve(RATES, losses, 1e-3))
    assert RATES[76] <= found.minimum < found.diverges <= RATES[80]


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_short_curve_is_read_without_a_suggestion(count: int):
    assert suggest(Curve(RATES[:count], np.array([2.0] * (count - 1) + [9.0]), 1e-3)).lr is None


# What is printed and drawn


def test_the_last_line_names_the_rates():
    assert summary(well(at=1e-3, diverges=0.5), Path("runs/a/lr.png")) == (
        "train.lr: suggested 1.1e-3 (half of the fall is done there; the loss is least at 4.6e-2 and diverges from 0.39; "
        "configured 1.0e-3); the curve is in runs/a/lr.png"
    )
    assert "and never diverges up to 10; configured" in summary(well(diverges=1e6), Path("a"))


def test_the_last_line_says_why_there_is_no_suggestion():
    noise = 2.0 * np.exp(0.1 * np.random.default_rng(0).normal(size=100))
    assert summary(Curve(RATES, noise, 1e-3), Path("a")) == (
        "train.lr: no suggestion: the loss gets from 2.02 to 1.78 at best, and it varies by 7% anyway "
        "(it never diverges up to 10; configured 1.0e-3); the curve is in a"
    )
    worse = noise * np.where(RATES > 0.05, 5, 1)
    assert "(it diverges from 3.9e-2; a tenth of that is safe; configured" in summary(Curve(RATES, worse, 1e-3), Path("a"))


@pytest.mark.parametrize(
    "curve",
    [
        well(noise=0.03),
        well(diverges=1e6),
        Curve(RATES, np.full(100, 2.3), 100.0),
        Curve(RATES, np.zeros(100), 1e-9),
        Curve(RATES[:3], np.array([2.0, 2.0, math.inf]), 1e-3),
    ],
)
@pytest.mark.filterwarnings("error")
def test_every_curve_is_drawn_whole(curve: Curve, tmp_path: Path):
    draw(curve, tmp_path / "new" / "lr.png")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["lr.png"]
    with Image.open(tmp_path / "new" / "lr.png") as picture:
        assert picture.size == (1350, 750)
        assert len(picture.convert("RGB").getcolors(10**6)) > 50


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"lr\.png: can't be written"):
        draw(well(), tmp_path / "file" / "lr.png")
