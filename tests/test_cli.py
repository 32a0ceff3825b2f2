"""src/cli.py: flags and knobs on the command line, and the user's mistakes in one line."""

import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tyro.conf import FlagCreatePairsOff

from src import cli
from src.config import REPOSITORY, Config, ConfigError, TrainConfig, flatten
from src.errors import UserError


@dataclass(frozen=True)
class Flags:
    """A verb's own flags."""

    config: str = "mine.yaml"
    """the experiment"""
    fold: tuple[str, ...] = ("0",)
    """which folds"""
    debug: FlagCreatePairsOff[bool] = False
    """in seconds"""


def parse(*argv: str, config: Config | None = None) -> tuple[Flags, Config]:
    return cli.parse(Flags, list(argv), config or Config(), "A verb.")


def refusal(*argv: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse(*argv)
    assert "\n" not in str(error.value), "a mistake is told in one line"
    assert str(error.value).startswith("command line: ")
    return str(error.value)


def changed(config: Config) -> dict[str, object]:
    before = flatten(Config().model_dump())
    return {key: value for key, value in flatten(config.model_dump()).items() if value != before[key]}


def test_without_arguments_the_files_configuration_stands():
    config = Config(train=TrainConfig(epochs=3))
    assert parse(config=config) == (Flags(), config)


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["--train.epochs", "3"], {"train.epochs": 3}),
        (["--train.epochs=3"], {"train.epochs": 3}),
        (["--train.epochs", "3", "--train.epochs", "4"], {"train.epochs": 4}),
        (["--train.batch-size", "8"], {"train.batch_size": 8}),
        (["--train.lr", "1e-2", "--data.folds", "3"], {"train.lr": 0.01, "data.folds": 3}),
        (["--train.channels_last", "false"], {"train.channels_last": False}),
        (["--train.channels_last", "False"], {"train.channels_last": False}),
        (["--model.mean=[0.5, 0.25, 1e-1]"], {"model.mean": (0.5, 0.25, 0.1)}),
        (["--data.policy=['leak=drop', 'tiny=keep']"], {"data.policy": ("leak=drop", "tiny=keep")}),
        (["--data.policy=[]"], {}),
        (["--data.root=[a: b: c]"], {"data.root": "[a: b: c]"}),
        (["--train.channels_last=false"], {"train.channels_last": False}),
        (["--model.mean", "0.5", "0.4", "0.3"], {"model.mean": (0.5, 0.4, 0.3)}),
        (["--model.kwargs", "a=1", "b=true"], {"model.kwargs": ("a=1", "b=true")}),
        (["--model.weights", "none", "--data.augmentation", "none"], {"model.weights": "none", "data.augmentation": "none"}),
        (["--data.root", "my data/here"], {"data.root": "my data/here"}),
        (["--data.root", "123"], {"data.root": "123"}),
        (["--data.missing", "drop", "--fold", "all"], {"data.missing": "drop"}),
    ],
)
def test_a_knob_on_the_command_line_overrides_that_knob_and_no_other(argv, expected):
    _, config = parse(*argv)
    assert changed(config) == expected


@pytest.mark.parametrize("word", ["none", "None"])
@pytest.mark.parametrize("form", ["{} {}", "{}={}"])
@pytest.mark.parametrize("knob, value", [("train.clip_grad", 1.0), ("model.image_size", 64), ("data.root", "x")])
def test_none_takes_back_a_knob_that_the_file_sets(knob, value, form, word):
    section, key = knob.split(".")
    base = Config()
    base = base.model_copy(update={section: getattr(base, section).model_copy(update={key: value})})
    _, config = parse(*form.format(f"--{knob}", word).split(), config=base)
    assert config == Config()


@settings(max_examples=6)
@given(st.floats(1e-9, 100), st.integers(2, 100), st.booleans())
def test_numbers_arrive_as_they_were_written(lr, folds, flag):
    _, config = parse("--train.lr", repr(lr), "--data.folds", str(folds), "--train.channels_last", str(flag).lower())
    assert (config.train.lr, config.data.folds, config.train.channels_last) == (lr, folds, flag)


@pytest.mark.parametrize(
    "argv, flags",
    [
        (["--fold", "0", "2"], Flags(fold=("0", "2"))),
        (["--fold=all"], Flags(fold=("all",))),
        (["--debug", "--train.epochs", "3"], Flags(debug=True)),
        (["--config", "other.yaml"], Flags(config="other.yaml")),
    ],
)
def test_a_verbs_own_flags_are_read(argv, flags):
    assert parse(*argv)[0] == flags


@pytest.mark.parametrize(
    "flag, nearest",
    [
        ("--train.epoch", "--train.epochs"),
        ("--epochs", "--train.epochs"),
        ("--lr", "--train.lr"),
        ("--batch_size", "--train.batch_size"),
        ("--data.augmentations", "--data.augmentation"),
        ("--trian.epochs", "--train.epochs"),
        ("--Train.epochs", "--train.epochs"),
        ("--debg", "--debug"),
        ("--folds", "--data.folds"),
        ("--foldd", "--fold"),
    ],
)
def test_a_misspelt_flag_names_the_nearest_one(flag, nearest):
    assert refusal(flag, "3") == f"command line: {flag}: unknown option; did you mean {nearest}?"


def test_a_flag_that_resembles_nothing_is_named():
    assert refusal("--zzzzzz=1") == "command line: --zzzzzz: unknown option"


def test_a_misspelt_flag_is_told_before_a_bad_value_elsewhere():
    assert "--train.epoch: unknown option" in refusal("--data.folds", "x", "--train.epoch", "3")


@pytest.mark.parametrize(
    "argv, key, allowed",
    [
        (["--data.resize", "cut"], "data.resize", "'crop', 'squash' or 'pad', not 'cut'"),
        (["--data.folds", "1"], "data.folds", "greater than or equal to 2, not 1"),
        (["--data.folds", "3", "4"], "data.folds", "valid integer, not [3, 4]"),
        (["--data.workers", "-1"], "data.workers", "greater than or equal to 0, not -1"),
        (["--train.epochs", "three"], "train.epochs", "valid integer"),
        (["--train.epochs=three"], "train.epochs", "valid integer"),
        (["--train.epochs", "-1"], "train.epochs", "greater than or equal to 0, not -1 (passes over"),
        (["--train.epochs"], "--train.epochs", "a value is missing (passes over"),
        (["--train.lr", "nan"], "train.lr", "finite number"),
        (["--train.lr", "0,1"], "train.lr", "valid number"),
        (["--train.mixup", "0.2", "--train.batch_size", "7"], "train", "must be even, not 7"),
        (["--train.channels_last", "no"], "--train.channels_last", "'True', 'False'"),
        (["--model.mean", "0.5", "0.5"], "model.mean", "wrong number of values (per channel"),
        (["--model.std", "0", "1", "1"], "model.std", "above 0"),
        (["--model.kwargs", "pad_type"], "model.kwargs", "not of the form key=value"),
        (["stray"], "stray", "nrecognized"),
        (["--debug", "stray"], "stray", "nrecognized"),
    ],
)
def test_a_bad_value_names_the_knob_and_what_is_allowed(argv, key, allowed):
    said = refusal(*argv)
    assert key in said
    assert allowed in said


@pytest.mark.parametrize("argv", [["--competition", "shopee"], ["--competition.metric=accuracy"]])
def test_the_competition_is_chosen_in_the_file_alone(argv):
    assert "the competition is chosen in the configuration's file (--config)" in refusal(*argv)


def test_sections_that_a_verb_does_not_take_are_unknown_to_it():
    with pytest.raises(ConfigError, match=r"--train\.epochs: unknown option"):
        cli.parse(Flags, ["--train.epochs", "3"], Config(), "A verb.", sections=("data",))


@pytest.mark.parametrize(
    "argv, value",
    [(["--config", "a.yaml"], "a.yaml"), (["--x", "--config=a=b.yaml"], "a=b.yaml"), (["--configs", "a"], None), ([], None)],
)
def test_a_single_option_is_found_before_the_rest_is_parsed(argv, value):
    assert cli.option(argv, "--config") == value


@pytest.mark.parametrize("argv", [["--config"], ["--config", "--fold"]])
def test_a_single_option_without_its_value_is_refused(argv):
    with pytest.raises(ConfigError, match="--config: a value is missing"):
        cli.option(argv, "--config")


# Running a verb


def test_the_users_mistake_ends_a_verb_with_one_line():
    def verb() -> None:
        raise UserError("train.csv: row 3 is wrong")

    with pytest.raises(SystemExit, match=r"^error: train\.csv: row 3 is wrong$"):  # sys.exit("text") means status 1
        cli.run(verb)


def test_a_bug_is_not_disguised_as_the_users_mistake():
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: print(1 / 0))


def test_ctrl_c_ends_a_verb_with_status_130():
    def verb() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit:
        cli.run(verb)
    assert exit.value.code == 130


def test_a_typo_ends_a_verb_with_status_1_and_one_line_on_stderr(command):
    run = command("prepare.py", "--data.fold", "3")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "error: command line: --data.fold: unknown option; did you mean --data.folds?\n"


def test_help_lists_every_knob_with_its_line_and_nothing_heavy_is_imported_for_it():
    heavy = {"torch", "timm", "cv2", "albumentations", "pandas", "numpy", "sklearn", "wandb"}
    code = (
        "import dataclasses, sys\n"
        "from src import cli, config\n"
        "Flags = dataclasses.make_dataclass('Flags', [('name', str, 'x')])\n"
        "try: cli.parse(Flags, ['--help'], config.Config(), 'A verb.')\n"
        f"finally: print('HEAVY', sorted(set(sys.modules) & {heavy}))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "HEAVY []" in run.stdout
    for knob in ("--train.epochs", "--data.workers", "--tracking.mode", "--model.image_size", "--predict.tta"):
        assert knob in run.stdout
    assert "passes over the training rows" in run.stdout
