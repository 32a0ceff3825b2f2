"""A sweep's parameters: what W&B's format allows, and that every draw keeps to it."""

import math
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from src.config import ConfigError
from src.training.distributions import DISTRIBUTIONS, read

numbers = st.floats(-1e6, 1e6)
seeds = st.integers(0, 10**9)


def draw(seed: int, **entry: Any) -> Any:
    return read("", entry).draw(Random(seed))


def draws(count: int = 2000, **entry: Any) -> list[Any]:
    return [draw(seed, **entry) for seed in range(count)]


@pytest.mark.parametrize(
    "entry, name",
    [
        ({"value": None}, "constant"),
        ({"values": [1]}, "categorical"),
        ({"values": [1, 2], "probabilities": [0.5, 0.5]}, "categorical"),
        ({"min": 1, "max": 3}, "int_uniform"),
        ({"min": 1.0, "max": 3.0}, "uniform"),
        ({"min": 1, "max": 3.5}, "uniform"),
        ({"distribution": "categorical_w_probabilities", "values": [1], "probabilities": [1.0]}, "categorical"),
        ({"distribution": "normal"}, "normal"),
    ],
)
def test_the_distribution_is_named_or_inferred_as_wandb_does(entry, name):
    assert type(read("", entry)) is DISTRIBUTIONS[name]


def test_a_grid_has_the_values_in_their_order_and_none_where_there_is_no_end_of_them():
    assert list(read("", {"values": ["b", "a", None]}).every()) == ["b", "a", None]
    assert list(read("", {"value": [1, 2]}).every()) == [[1, 2]]
    assert list(read("", {"min": -1, "max": 2}).every()) == [-1, 0, 1, 2]
    for endless in ({"min": 0.0, "max": 1.0}, {"distribution": "normal"}, {"values": [1, 2], "probabilities": [1, 3]}):
        assert read("", endless).every() is None


@given(numbers, numbers, seeds)
def test_uniform_draws_stay_within_their_bounds(a, b, seed):
    low, high = sorted((a, b))
    assert low <= draw(seed, min=low, max=high, distribution="uniform") <= high


@given(st.floats(1e-12, 1e6), st.floats(1e-12, 1e6), seeds)
def test_log_uniform_draws_stay_within_their_bounds(a, b, seed):
    low, high = sorted((a, b))
    assert low <= draw(seed, min=low, max=high, distribution="log_uniform_values") <= high


@given(st.integers(-1000, 1000), st.integers(0, 1000), seeds)
def test_whole_numbers_stay_whole_and_within_their_bounds(low, span, seed):
    drawn = draw(seed, min=low, max=low + span)
    assert type(drawn) is int
    assert low <= drawn <= low + span


@given(st.floats(0, 1000), st.floats(0, 1000), st.floats(0.01, 100), seeds)
def test_quantised_draws_are_multiples_at_most_half_a_step_outside(a, b, q, seed):
    low, high = sorted((a, b))
    drawn = draw(seed, min=low, max=high, q=q, distribution="q_uniform")
    assert drawn / q == pytest.approx(round(drawn / q), abs=1e-2)
    assert low - 0.51 * q <= drawn <= high + 0.51 * q


def test_steps_of_whole_numbers_give_whole_numbers():
    assert set(draws(200, min=16, max=64, q=16, distribution="q_uniform")) == {16, 32, 48, 64}
    assert all(type(drawn) is int for drawn in draws(10, min=1, max=5, distribution="q_uniform"))


@given(st.lists(st.integers(), min_size=1, max_size=5), st.data(), seeds)
def test_a_value_without_probability_is_never_drawn(values, data, seed):
    shares = data.draw(st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=len(values), max_size=len(values)))
    assume(sum(shares))
    possible = [value for value, share in zip(values, shares, strict=True) if share]
    assert draw(seed, values=values, probabilities=shares) in possible


@given(numbers, st.floats(0, 1e3), seeds)
def test_a_draw_is_the_same_for_the_same_seed_and_has_at_most_six_digits(mu, sigma, seed):
    first, again = (draw(seed, distribution="normal", mu=mu, sigma=sigma) for _ in range(2))
    assert first == again == float(f"{first:.6g}")


def test_draws_are_spread_as_their_names_say():
    assert sum(draws(min=0.0, max=1.0)) / 2000 == pytest.approx(0.5, abs=0.03)
    logs = [math.log10(drawn) for drawn in draws(min=1e-4, max=1e-2, distribution="log_uniform_values")]
    assert sum(logs) / 2000 == pytest.approx(-3, abs=0.06)
    normal = draws(distribution="normal", mu=3, sigma=2)
    assert sum(normal) / 2000 == pytest.approx(3, abs=0.2)
    assert draws(values=["a", "b"], probabilities=[0.9, 0.1]).count("a") / 2000 == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    "entry, said",
    [
        ({}, "values: is missing"),
        ({"min": 1}, "max: is missing"),
        ({"values": []}, "values: is empty"),
        ({"vales": [1]}, "values: is missing; vales: unknown key; did you mean values?"),
        ({"value": 1, "max": 2}, "min: is missing; value: unknown key; known are min, max"),
        (
            {"min": "1e-4", "max": 1.0},
            "min: must be a valid number, not '1e-4'; YAML reads 1e-4 as text: write 1.0e-4",
        ),
        ({"min": 2.0, "max": 1.0}, "min: 2 is above max: 1"),
        ({"min": 0, "max": 1, "distribution": "log_uniform_values"}, "min: must be greater than 0, not 0"),
        ({"min": 1.5, "max": 3, "distribution": "int_uniform"}, "min: must be a valid integer, not 1.5"),
        ({"min": 1, "max": 2, "q": 0, "distribution": "q_uniform"}, "q: must be greater than 0, not 0"),
        ({"distribution": "normal", "sigma": -1.0}, "sigma: must be greater than or equal to 0, not -1.0"),
        ({"values": [1, 2], "probabilities": [1.0]}, "probabilities: must be one a value, and none below 0"),
        ({"values": [1, 2], "probabilities": [0.0, 0.0]}, "probabilities: must be one a value, and none below 0"),
        ({"parameters": {"lr": {"value": 1}}}, "nested parameters are written with a dot here, as in train.lr"),
        (
            {"distribution": "unifrom", "min": 0, "max": 1},
            f"distribution: 'unifrom' is not one of {', '.join(DISTRIBUTIONS)}; did you mean uniform?",
        ),
    ],
)
def test_what_is_not_wandbs_format_is_refused_by_its_key(entry, said):
    with pytest.raises(ConfigError) as error:
        read("my.yaml: train.lr: ", entry)
    assert str(error.value) == f"my.yaml: train.lr: {said}"
