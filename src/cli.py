"""The command line of every verb: its own flags, the knobs of the configuration, and errors in one line."""

import contextlib
import dataclasses
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg  # noqa: F401  for the verbs, which import `src` first

from src import config as configuration
from src import faults
from src.config import Config, ConfigError
from src.errors import UserError

SECTIONS = ("model", "data", "train", "tracking", "predict")  # the competition is chosen in the YAML file


def run(verb: Callable[[], None]) -> None:
    """Run a verb; end the process with status 1 and one line on stderr where the user made a mistake or the machine refused
    something, with status 130 after Ctrl-C."""
    try:
        with _noting_ctrl_c() as asked:
            _run(verb, asked)
    except BrokenPipeError:  # `python compare.py | head`
        pass
    finally:
        _flush()


def _run(verb: Callable[[], None], asked: list[int]) -> None:
    try:
        verb()
        sys.stdout.flush()
    except UserError as error:
        _fail(str(error))
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, Exception) as error:
        if asked or isinstance(error, KeyboardInterrupt):
            sys.stderr.write("stopped\n")
            sys.exit(130)
        said = faults.explain(error)
        if said is None:
            raise
        _fail(said)


def _fail(said: str) -> None:
    rank = os.environ.get("RANK", "0")  # torchrun's
    sys.exit(f"error: {said}" if rank == "0" else f"error in process {rank}: {said}")


@contextlib.contextmanager
def _noting_ctrl_c() -> Iterator[list[int]]:
    """A list that fills at Ctrl-C, beside the KeyboardInterrupt, which becomes an ImportError where it meets some imports."""
    asked: list[int] = []

    def interrupt(number: int, _: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None):  # as by shells in the background
        yield asked
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _flush() -> None:
    """Let go of what stdout can't take, a full disk or a closed pipe: on its way out Python would complain of it once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def option(argv: list[str], flag: str) -> str | None:
    """The value of one flag, read before everything else is parsed: --config decides the defaults of all knobs."""
    for i, token in enumerate(argv):
        if token.startswith(f"{flag}="):
            return token.partition("=")[2]
        if token == flag:
            if i + 1 == len(argv) or argv[i + 1].startswith("--"):
                raise ConfigError(f"command line: {flag}: a value is missing")
            return argv[i + 1]
    return None


def parse(
    flags: type, argv: list[str], config: Config, description: str | None, sections: tuple[str, ...] = SECTIONS
) -> tuple[Any, Config]:
    """A verb's flags (an instance of the dataclass `flags`) and the configuration with the command line's overrides.

    Raises ConfigError with the nearest flag or the allowed values for what can't be parsed. `--help` prints and exits.
    """
    fields = [(section, tyro.conf.FlagConversionOff[type(getattr(config, section))]) for section in sections]
    own = ("flags", Annotated[flags, tyro.conf.arg(name="")])
    arguments = dataclasses.make_dataclass("Arguments", [own, *fields])
    defaults = arguments(flags(), *(getattr(config, section) for section in sections))
    argv = _as_tyro_spells_it(argv)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed = tyro.cli(arguments, args=argv, default=defaults, description=description, use_underscores=True)
    except SystemExit as exit:
        if exit.code in (0, None):
            raise
        known = [field.name for field in dataclasses.fields(flags)]
        known += [key for key, _ in configuration.knobs() if key.partition(".")[0] in sections]
        _check_flags(argv, known)
        _check_values(argv, config)
        raise ConfigError(f"command line: {_flat(complaint.getvalue())}") from None
    overridden = {section: getattr(parsed, section) for section in sections}
    return parsed.flags, config.model_copy(update=overridden)


def _as_tyro_spells_it(argv: list[str]) -> list[str]:
    """true and false as YAML writes them; none, as the help does, for knobs that may be unset; lists as W&B's agent does."""
    optional = {key for key, field in configuration.knobs() if configuration.is_optional(field)}
    spelt, name = [], ""
    for token in argv:
        head, equals, value = token.partition("=") if token.startswith("--") else ("", "", token)
        name = head[2:].replace("-", "_") or name
        words = {"true": "True", "false": "False"} | ({"none": "None"} if name in optional else {})
        elements = _elements(value) if equals else None
        spelt += [head + equals + words.get(value, value)] if elements is None else [head, *elements]
    return spelt


def _elements(value: str) -> list[str] | None:
    """["0.5", "0.5"] for "[0.5, 0.5]"; None for what is no list."""
    read = configuration.read_value(value) if value.startswith("[") else None
    return [str(element) for element in read] if isinstance(read, list) else None


def _check_flags(argv: list[str], known: list[str]) -> None:
    for name, _ in _pairs(argv):
        if name.partition(".")[0] == "competition":
            raise ConfigError(f"command line: --{name}: the competition is chosen in the configuration's file (--config)")
        if name not in known:
            raise ConfigError(
                f"command line: --{name}: unknown option{configuration.nearest(name, known).replace('mean ', 'mean --')}"
            )


def _check_values(argv: list[str], config: Config) -> None:
    tree, fields = config.model_dump(), dict(configuration.knobs())
    given = {name: values for name, values in _pairs(argv) if name in fields}
    for name, values in given.items():
        section, key = name.split(".")
        read = [configuration.read_value(value) if value not in ("None", "") else None for value in values]
        many = "tuple" in str(fields[name].annotation) and read != [None]
        tree[section][key] = read if many or len(read) > 1 else read[0] if read else None
        if not values and not many:
            raise ConfigError(f"command line: --{name}: a value is missing ({fields[name].description})")
    configuration.validate(tree, dict.fromkeys(given, "command line"))


def _pairs(argv: list[str]) -> list[tuple[str, list[str]]]:
    """["--train.lr", "0.1", "--fold=2"] → [("train.lr", ["0.1"]), ("fold", ["2"])]."""
    pairs: list[tuple[str, list[str]]] = []
    for token in argv:
        if token.startswith("--"):
            name, equals, value = token[2:].partition("=")
            pairs.append((name.replace("-", "_"), [value] if equals else []))
        elif pairs:
            pairs[-1][1].append(token)
    return pairs


def _flat(box: str) -> str:
    """tyro's message box as one line."""
    words = box.translate({ord(c): " " for c in "╭╮╰╯│─"}).split("For full helptext")[0]
    return " ".join(words.split())
