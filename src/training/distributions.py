"""Where a sweep's parameter takes its values from: W&B's distributions, by its names and to its definitions."""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from src.config import ConfigError, nearest, short

FAULTS = 3  # that are told at once
MOST = 10_000  # values of a parameter in a grid, and trials of a grid without a limit
DIGITS = 6  # significant ones of a random draw, so that its command can be read


class Strict(BaseModel):
    """A part of a sweep file: no key may be unknown, no text stand for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Values(Strict):
    """What the file says of one parameter."""

    def every(self) -> Sequence[Any] | None:
        """All values in the file's order; None where a grid can't hold them."""
        return None

    def draw(self, rng: Random) -> Any:
        """One of them by chance."""
        raise NotImplementedError


class Constant(Values):
    value: Any

    def every(self) -> Sequence[Any] | None:
        return [self.value]

    def draw(self, rng: Random) -> Any:
        return self.value


class Categorical(Values):
    values: list[Any] = Field(min_length=1)
    probabilities: list[float] | None = None

    @model_validator(mode="after")
    def _one_a_value(self) -> "Categorical":
        shares = self.probabilities
        if shares is not None and (len(shares) != len(self.values) or min(shares) < 0 or not 0 < sum(shares) < math.inf):
            raise ValueError("probabilities: must be one a value, and none below 0")
        return self

    def every(self) -> Sequence[Any] | None:
        return self.values if self.probabilities is None else None

    def draw(self, rng: Random) -> Any:
        return rng.choices(self.values, self.probabilities)[0]


class Uniform(Values):
    min: float
    max: float

    @model_validator(mode="after")
    def _in_order(self) -> "Uniform":
        if self.min > self.max:
            raise ValueError(f"min: {self.min:g} is above max: {self.max:g}")
        return self

    def draw(self, rng: Random) -> Any:
        return self._within(rng.uniform(self.min, self.max))

    def _within(self, value: float) -> float:
        """Rounded, but not beyond the bounds."""
        return min(max(_rounded(value), self.min), self.max)


class LogUniformValues(Uniform):
    min: float = Field(gt=0)

    def draw(self, rng: Random) -> Any:
        return self._within(math.exp(rng.uniform(math.log(self.min), math.log(self.max))))


class QUniform(Uniform):
    q: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _countable(self) -> "QUniform":
        if not math.isfinite(max(abs(self.min), abs(self.max)) / self.q):
            raise ValueError(f"q: {self.q:g} is too small for numbers up to {self.max:g}")
        return self

    def draw(self, rng: Random) -> Any:
        value = round(rng.uniform(self.min, self.max) / self.q) * self.q
        return int(value) if self.q.is_integer() else _rounded(value)


class IntUniform(Uniform):
    min: int
    max: int

    def every(self) -> Sequence[Any] | None:
        return range(self.min, self.max + 1) if self.max - self.min < MOST else None

    def draw(self, rng: Random) -> Any:
        return rng.randint(self.min, self.max)


class Normal(Values):
    mu: float = 0.0
    sigma: float = Field(1.0, ge=0)

    def draw(self, rng: Random) -> Any:
        return _rounded(rng.gauss(self.mu, self.sigma))


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


DISTRIBUTIONS: dict[str, type[Values]] = {
    "constant": Constant, "categorical": Categorical, "categorical_w_probabilities": Categorical, "int_uniform": IntUniform,
    "uniform": Uniform, "q_uniform": QUniform, "log_uniform_values": LogUniformValues, "normal": Normal,
}  # fmt: skip


def read(place: str, given: dict[str, Any]) -> Values:
    """One parameter of a sweep file. Raises ConfigError, which begins with `place`, for what is not in W&B's format."""
    if "parameters" in given:
        raise ConfigError(f"{place}nested parameters are written with a dot here, as in train.lr")
    given = dict(given)
    name = str(given.pop("distribution", _inferred(given)))
    if name not in DISTRIBUTIONS:
        known = list(DISTRIBUTIONS)
        raise ConfigError(f"{place}distribution: {short(name)} is not one of {', '.join(known)}{nearest(name, known)}")
    return checked(DISTRIBUTIONS[name], given, place)


def _inferred(given: dict[str, Any]) -> str:
    """The distribution where none is named, as W&B infers it."""
    if not {"min", "max"} & given.keys():
        return "constant" if "value" in given else "categorical"
    return "int_uniform" if type(given.get("min")) is type(given.get("max")) is int else "uniform"


def checked(kind: type[Any], given: dict[str, Any], place: str) -> Any:
    """`given` as an instance of `kind`. Raises ConfigError, in one line, for the first faults."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise ConfigError(place + "; ".join(_said(kind, finding) for finding in error.errors()[:FAULTS])) from None


def _said(kind: type[BaseModel], finding: Any) -> str:
    key = "".join(f"{part}: " for part in finding["loc"])
    if finding["type"] == "value_error":
        return f"{key}{finding['ctx']['error']}"
    if finding["type"] in ("missing", "too_short"):
        return f"{key}is {'missing' if finding['type'] == 'missing' else 'empty'}"
    if finding["type"] == "extra_forbidden":
        inner = kind.model_fields[finding["loc"][0]].annotation if len(finding["loc"]) > 1 else kind
        known = list(inner.model_fields)
        return f"{key}unknown key{nearest(str(finding['loc'][-1]), known) or '; known are ' + ', '.join(known)}"
    text = isinstance(finding["input"], str) and finding["type"] == "float_type"
    hint = "; YAML reads 1e-4 as text: write 1.0e-4" if text else ""
    return f"{key}{finding['msg'].lower().replace('input should be', 'must be')}, not {short(finding['input'])}{hint}"
