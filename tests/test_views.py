"""Views as the configuration writes them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.views import IDENTITY, View, forbidden, keeping_views, read_views


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("identity", ["identity"]),
        ("hflip", ["identity", "hflip"]),
        (" hflip*scales(1.0, 1.15) ", ["identity", "scale 1.15", "hflip", "scale 1.15 hflip"]),
        ("scales(1.25)", ["scale 1.25"]),
        ("turns", ["identity", "turn 90", "turn 180", "turn 270"]),
        ("hflip * vflip", ["identity", "vflip", "hflip", "turn 180"]),
        ("crops(1.2)", [f"crop 1.2 {at}" for at in ("centre", "top left", "top right", "bottom left", "bottom right")]),
        ("hflip * hflip", ["identity", "hflip"]),
    ],
)
def test_an_expression_is_every_combination_of_its_factors_each_once(expression: str, names: list[str]):
    assert [str(view) for view in read_views(expression)] == names


def test_mirrors_and_quarter_turns_are_the_eight_positions_of_a_square():
    assert len(read_views("turns * hflip * vflip * turns")) == 8
    assert set(read_views("turns * hflip")) == set(read_views("vflip * turns"))


@given(st.lists(st.sampled_from(["flip", "turn"]), max_size=12))
def test_a_view_undoes_itself(moves: list[str]):
    """Four turns, or two flips, after whatever came before, lead back there."""
    view = IDENTITY
    for move in moves:
        view = view.flipped() if move == "flip" else view.turned(1)
    assert view.turned(4) == view.flipped().flipped() == view
    assert view.flipped().turned(1).flipped().turned(1) == view


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("hflop", "'hflop' in 'hflop' is no view; there are hflip, vflip, turns, scales"),
        ("hflip + vflip", "'hflip + vflip' in"),
        ("hflip *", "can't be read; write it as in hflip"),
        ("scales()", "'scales()' in"),
        ("scales(hflip)", "0.25 to 4"),
        ("scales(0.1)", "0.25 to 4"),
        ("scales(1.0)", "more than 1.0 alone"),
        ("scales(1.0, a=2)", "is no view"),
        ("crops(0.8)", "1 to 4"),
        ("crops(1.1, 1.2)", "is no view"),
        ("hflip * __import__('os')", "is no view"),
        ("scales(True)", "0.25 to 4"),
    ],
)
def test_what_is_no_view_is_refused_with_what_is(expression: str, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        read_views(expression)


def test_what_turns_or_mirrors_needs_the_competitions_word():
    assert forbidden("hflip * turns * scales(1.0, 1.1)", ()) == ["hflip", "turns"]
    assert forbidden("hflip * turns * scales(1.0, 1.1)", ("hflip", "turns")) == []
    assert forbidden("crops(1.2)", ()) == []
    assert str(View(scale=1.5, mirrored=True)) == "scale 1.5 hflip"


def test_what_keeps_a_label_is_looked_at_in_every_combination_the_image_as_it_is_first():
    assert keeping_views(()) == (View(),)
    assert keeping_views(("hflip",)) == (View(), View(mirrored=True))
    assert len(set(keeping_views(("hflip", "turns")))) == 8
