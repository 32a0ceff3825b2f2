"""A sweep file of W&B's, read without W&B: the trials of a grid or of random draws. bayes needs W&B's server."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import Field, field_validator

from src import cli
from src.competitions.metrics import HIGHER_IS_BETTER
from src.config import Config, ConfigError, differences, find, load_run, nearest, read_yaml
from src.training import distributions
from src.training.distributions import MOST, Strict, Values, checked
from src.training.run import CrossValidation, Run, cross_validation

MACROS = ("${env}", "${interpreter}", "${program}", "${args}")


class Metric(Strict):
    """By which the sweep compares its trials; `name`: as train.py calls it in the experiment's W&B run."""

    name: str | None = None
    goal: Literal["maximize", "minimize"] = "minimize"
    target: float | None = None


class File(Strict):
    """The top keys. Those without a use here are W&B's."""

    program: str
    method: Literal["grid", "random", "bayes"]
    parameters: dict[str, dict[str, Any]] = Field(min_length=1)
    metric: Metric = Metric()
    command: list[str] = Field(list(MACROS))
    run_cap: int | None = Field(None, ge=1, le=MOST)
    early_terminate: Any = None
    name: str | None = None
    description: str | None = None
    project: str | None = None
    entity: str | None = None

    @field_validator("program")
    @classmethod
    def _trains(cls, program: str) -> str:
        if Path(program).name != "train.py":
            raise ValueError(f"must be train.py, not {program!r}")
        return program

    @field_validator("command")
    @classmethod
    def _understood(cls, command: list[str]) -> list[str]:
        odd = [word for word in command if word.startswith("${") and word not in MACROS]
        if odd or not {"${program}", "${args}"} <= set(command):
            raise ValueError(f"must hold ${{program}} and ${{args}}, and no macros but {' '.join(MACROS)}")
        return command


@dataclass(frozen=True)
class Sweep:
    """A sweep file. Its parameters are train.py's options: train.lr, fold, config."""

    path: Path
    file: File
    parameters: dict[str, Values]

    @property
    def varied(self) -> list[str]:
        """The parameters of more than one value."""
        return [name for name, values in self.parameters.items() if len(values.every() or "many") > 1]

    @property
    def words(self) -> list[str]:
        """What the file's command gives to train.py beside the parameters, as --resume."""
        after = self.file.command[self.file.command.index("${program}") + 1 :]
        return [word for word in after if word not in MACROS]

    def values(self, most: int | None, seed: int) -> list[dict[str, Any]]:
        """Each trial's values: the first `most` of the grid, whose last parameter changes fastest, or so many draws.

        A draw depends on nothing but the seed, the trial's index and the parameter. Raises ConfigError for random without end.
        """
        most = min((limit for limit in (most, self.file.run_cap) if limit is not None), default=None)
        if self.file.method == "grid":
            size = math.prod(len(values.every() or ()) for values in self.parameters.values())
            if most is None and size > MOST:
                raise ConfigError(f"{self.path}: method: grid has {size:,} trials; --trials N, or run_cap: N, sets how many")
            grid = itertools.product(*(values.every() for values in self.parameters.values()))
            size = size if most is None else min(most, size)
            return [dict(zip(self.parameters, chosen, strict=True)) for chosen in itertools.islice(grid, size)]
        if most is None:
            raise ConfigError(f"{self.path}: method: random has no end; --trials N, or run_cap: N in the file, sets one")
        return [
            {name: values.draw(Random(f"{seed} {trial} {name}")) for name, values in self.parameters.items()}
            for trial in range(most)
        ]


def read(path: str | Path) -> Sweep:
    """A sweep file. Raises ConfigError naming file and key for what is not in W&B's format, or needs W&B's server."""
    path = find(path)
    file = checked(File, read_yaml(path), f"{path}: ")
    if file.method == "bayes":
        raise ConfigError(f"{path}: method: bayes needs W&B's server (`wandb sweep {path}`); here set method: random")
    parameters = {name: distributions.read(f"{path}: {name}: ", given) for name, given in file.parameters.items()}
    endless = [name for name, values in parameters.items() if values.every() is None]
    if file.method == "grid" and endless:
        needs = f"a grid needs values, or at most {MOST:,} whole numbers from min to max"
        raise ConfigError(f"{path}: {endless[0]}: {needs}; or set method: random")
    return Sweep(path, file, parameters)


# Its trials


@dataclass(frozen=True)
class Trial:
    """One command line of train.py: some folds of one run."""

    number: int  # from 1
    values: dict[str, Any]  # of what the sweep varies
    words: tuple[str, ...]
    run: Run
    config: Config
    folds: tuple[str, ...]

    def has_begun(self) -> bool:
        """Whether there is such a run already, with these very knobs."""
        written = (self.run.path / "config.yaml").is_file()
        return written and not differences(load_run(self.run.path).identity(), self.config.identity())

    def is_finished(self) -> bool:
        """Whether the run holds these folds, trained to the last epoch."""
        return self.has_begun() and all(self.run.epochs_done(fold) >= self.config.train.epochs for fold in self.folds)

    def cross_validation(self) -> CrossValidation | None:
        """Of all the run's folds; None where there are none yet."""
        return cross_validation(self.run, self.config.competition.metric) if self.has_begun() else None

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.values.items()) or self.run.name


def plan(
    sweep: Sweep,
    most: int | None,
    seed: int,
    more: list[str],
    understand: Callable[[list[str]], tuple[str, Config, list[str]]],
    said: Callable[[str], Any] = print,
) -> list[Trial]:
    """The sweep's trials, at most `most`. A trial whose folds an earlier one trains already is left out, with a word.

    more: options for all of them; one that names a parameter takes its place. understand: a command line of train.py as
    its run's name, knobs and folds. Raises ConfigError naming the file for whatever train.py would refuse in any trial.
    """
    free = {name: values for name, values in sweep.parameters.items() if cli.option(more, f"--{name}") is None}
    sweep, trials = replace(sweep, parameters=free), []
    for number, values in enumerate(sweep.values(most, seed), 1):
        words = [*sweep.words, *(f"--{name}={value}" for name, value in values.items()), *more]
        try:
            name, config, folds = understand(words)
        except ConfigError as error:
            raise ConfigError(_placed(str(error), sweep.path, values)) from None
        ranking(sweep, config)
        words += [word for word in (f"--name={name}", "--resume") if word not in words]
        varied = {name: values[name] for name in sweep.varied}
        trial = Trial(number, varied, tuple(words), Run(Path("runs") / name), config, tuple(folds))
        if not _is_repeated(trial, trials, said):
            trials.append(trial)
    return trials


def _placed(error: str, path: Path, values: dict[str, Any]) -> str:
    """What train.py says of its command line, with the sweep's file in front where the option at fault comes from there."""
    fault = error.removeprefix("command line: ").removeprefix("--")
    at = fault.split(":")[0].split(" ")[0]  # an option, its section, or a file that should be there
    theirs = any(at in (knob, knob.partition(".")[0], str(value)) for knob, value in values.items())
    return f"{path}: {fault.replace('command line: ', '')}" if theirs else error


def _is_repeated(trial: Trial, earlier: list[Trial], said: Callable[[str], Any]) -> bool:
    """Whether an earlier trial trains the same. Raises ConfigError for one that needs another run of the same name."""
    for other in earlier:
        if other.run != trial.run:
            continue
        if changed := differences(other.config.identity(), trial.config.identity()):
            raise ConfigError(f"{trial.run.path} can't hold trials {other.number} and {trial.number}: {'; '.join(changed)}")
        if set(other.folds) & set(trial.folds):
            said(f"trial {trial.number} ({trial}) left out: trial {other.number} is the same folds of the same run")
            return True
    return False


def ranking(sweep: Sweep, config: Config) -> tuple[str, bool]:
    """The score's name, and whether more of it is better. Raises ConfigError for one that train.py doesn't record."""
    metric, asked = config.competition.metric, sweep.file.metric
    recorded = [key for key in CrossValidation(metric, {"0": 0.0, "1": 0.0}, 0.0, 0).summary() if metric in key]
    name = asked.name or recorded[0]
    if name not in recorded:
        raise ConfigError(
            f"{sweep.path}: metric: name: {name!r} is none of {', '.join(recorded)}, which train.py records"
            f"{nearest(name, recorded)}"
        )
    higher = HIGHER_IS_BETTER[metric] and not name.endswith("_sd")
    if asked.name is not None and (asked.goal == "maximize") != higher:
        raise ConfigError(f"{sweep.path}: metric: goal: must be {'maximize' if higher else 'minimize'} for {name}")
    return name, higher
