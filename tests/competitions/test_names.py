"""One name spelt in two ways is known as such, and only where that is sure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.competitions import names


@pytest.mark.parametrize(
    "labels, wanted, expected",
    [
        (["0.0", "1.0", "2.0"], ["0"], {"0.0": "0", "1.0": "1", "2.0": "2"}),
        (["0", "1", "10"], ["10.0"], {"0": "0.0", "1": "1.0", "10": "10.0"}),
        (["0.0", "1.0"], ["0", "1"], {"0.0": "0", "1.0": "1"}),
        (["0", "1"], ["0"], {}),
        (["0", "1"], ["43"], {}),
        (["00", "01"], ["0"], {}),
        (["0", "1"], ["00"], {}),
        (["0.0", "0", "1"], ["0"], {}),
        (["0.0", "0.5"], ["0"], {}),
        (["0.0", "1.0", "2.0"], ["0", "1.0"], {"0.0": "0", "1.0": "1", "2.0": "2"}),
        (["0.0", "cat"], ["0"], {}),
        (["1e999", "9" * 6000 + ".0"], ["9" * 6000], {}),
        ([], ["0"], {}),
    ],
)
def test_labels_take_the_wanted_style_only_where_all_differ_by_a_fraction_of_0(labels, wanted, expected):
    assert names.respelt(labels, wanted) == expected


@given(st.sets(st.integers(-50, 10**20), min_size=1), st.data())
def test_integers_that_pandas_made_floats_come_back(numbers, data):
    labels = [f"{number}.0" for number in numbers]
    wanted = data.draw(st.sampled_from(sorted(numbers)))
    assert names.respelt(labels, [str(wanted)]) == {f"{number}.0": str(number) for number in numbers}


@pytest.mark.parametrize(("name", "known"), [("0", "00"), (" Cat", "cat"), ("1.00", "1"), ("7", "7.0"), ("1e2", "100")])
def test_names_that_people_take_for_the_same_are_alike(name, known):
    assert names.alike([name], [known, "other"]) == {name: known}
    assert names.alike(["dog"], [known]) == {}


@given(st.text())
def test_a_shown_name_stays_on_a_line_of_bounded_length(name):
    for text in (names.shown(name * 40), names.quoted(name * 40), names.shorten([name * 40] * 9)):
        assert text.isprintable()
        assert len(text) < 6 * 10 * names.LONGEST * 2
