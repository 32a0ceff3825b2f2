"""A sweep file and the trials in it: order, draws that can be repeated, and every mistake told before anything is trained."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.config import REPOSITORY, ConfigError
from src.training import sweep as sweeps
from src.training.sweep import Sweep, Trial, plan, read
from sweep import understand

GRID = {"train.lr": {"values": [0.01, 0.1]}, "train.seed": {"min": 0, "max": 2}, "train.epochs": {"value": 1}}
RANDOM = {"train.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1}, "train.seed": {"min": 0, "max": 9}}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sweep(parameters: dict[str, Any] = GRID, method: str = "grid", **more: Any) -> Sweep:
    tree = {"program": "train.py", "method": method, "parameters": parameters} | more
    Path("my.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return read("my.yaml")


def trials(given: Sweep, most: int | None = None, seed: int = 0, *more: str) -> list[Trial]:
    return plan(given, most, seed, list(more), understand, lambda _: None)


def refusal(call: Any) -> str:
    with pytest.raises(ConfigError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


# Values


def test_a_grid_is_every_combination_in_the_files_order_the_last_changing_fastest():
    values = sweep().values(None, seed=7)
    assert [(chosen["train.lr"], chosen["train.seed"]) for chosen in values] == [
        (0.01, 0), (0.01, 1), (0.01, 2), (0.1, 0), (0.1, 1), (0.1, 2),
    ]  # fmt: skip
    assert all(chosen["train.epochs"] == 1 for chosen in values)


@pytest.mark.parametrize("most, cap, count", [(None, None, 6), (4, None, 4), (None, 5, 5), (4, 2, 2), (2, 4, 2), (99, None, 6)])
def test_the_first_trials_are_taken_where_they_are_limited(most, cap, count):
    given = sweep(run_cap=cap)
    assert given.values(most, 0) == sweep().values(None, 0)[:count]


def test_a_draw_depends_on_seed_index_and_name_alone():
    given = sweep(RANDOM, "random")
    five = given.values(5, seed=3)
    assert given.values(9, seed=3)[:5] == five
    assert given.values(5, seed=4) != five
    with_another = sweep({"train.ema": {"values": [0.0, 0.1]}} | RANDOM, "random").values(5, seed=3)
    assert [{name: chosen[name] for name in RANDOM} for chosen in with_another] == five
    assert five[0] == {"train.lr": 0.00161082, "train.seed": 1}, "a seed means other trials than it did"


def test_random_draws_need_a_number_of_trials():
    given = sweep(RANDOM, "random")
    assert refusal(lambda: given.values(None, 0)) == (
        "my.yaml: method: random has no end; --trials N, or run_cap: N in the file, sets one"
    )
    assert len(sweep(RANDOM, "random", run_cap=3).values(None, 0)) == 3


def test_what_is_varied_has_more_than_one_value():
    assert sweep().varied == ["train.lr", "train.seed"]
    assert sweep(RANDOM | {"train.ema": {"values": [0.1]}}, "random").varied == ["train.lr", "train.seed"]


# Trials


def test_a_trial_is_a_command_of_train_py_with_the_run_that_its_knobs_name():
    first, *_ = trials(sweep(command=["${env}", "python", "${program}", "--resume", "${args}"]))
    assert first.words == (
        "--resume", "--train.lr=0.01", "--train.seed=0", "--train.epochs=1", f"--name={first.run.name}"
    )  # fmt: skip
    assert (first.config.train.lr, first.config.train.epochs, first.folds) == (0.01, 1, ("0",))
    assert first.run.path == Path("runs") / understand(list(first.words[:-1]))[0], "the name that train.py itself would give"
    assert str(first) == "train.lr=0.01 train.seed=0"
    assert len({trial.run for trial in trials(sweep())}) == 6


def test_folds_of_one_configuration_are_one_run():
    planned = trials(sweep({"fold": {"values": [0, 1, "2"]}, "train.lr": {"values": [0.01, 0.1]}}))
    assert [trial.folds for trial in planned] == [("0",), ("0",), ("1",), ("1",), ("2",), ("2",)]
    assert len({trial.run for trial in planned}) == 2
    assert len({trial.run for trial in trials(sweep({"fold": {"values": [0, 1]}}), None, 0, "--name", "mine")}) == 1


def test_lists_truths_and_nothing_reach_train_py_as_wandbs_agent_writes_them():
    parameters = {
        "model.mean": {"values": [[0.5, 0.25, 0.5], None]},
        "data.policy": {"value": ["grey_tail=drop", "leak=keep"]},
        "train.channels_last": {"value": False},
        "train.clip_grad": {"value": None},
        "fold": {"value": [0, 2]},
    }
    first, second = trials(sweep(parameters))
    assert "--model.mean=[0.5, 0.25, 0.5]" in first.words
    assert (first.config.model.mean, second.config.model.mean) == ((0.5, 0.25, 0.5), None)
    assert first.config.data.policy == ("grey_tail=drop", "leak=keep")
    assert (first.config.train.channels_last, first.config.train.clip_grad) == (False, None)
    assert first.folds == ("0", "2")


def test_options_on_the_command_line_are_for_all_trials_and_take_a_parameters_place():
    planned = trials(sweep(), None, 0, "--train.lr", "0.5", "--data.folds=3", "--fold", "all")
    assert [trial.values for trial in planned] == [{"train.seed": seed} for seed in (0, 1, 2)]
    assert {trial.config.train.lr for trial in planned} == {0.5}
    assert {trial.folds for trial in planned} == {("0", "1", "2")}


def test_a_trial_that_would_train_the_same_again_is_left_out_with_a_word():
    said: list[str] = []
    given = sweep({"train.lr": {"values": [0.1]}, "data.workers": {"values": [0, 1]}})
    (only,) = plan(given, None, 0, [], understand, said.append)
    assert only.number == 1
    assert said == ["trial 2 (data.workers=1) left out: trial 1 is the same folds of the same run"]
    assert [trial.number for trial in trials(sweep({"train.seed": {"values": [0, 1]}}, "random"), 4)] == [1, 2]


def test_an_unstarted_trial_is_not_finished_and_has_no_score():
    first, *_ = trials(sweep())
    assert not first.is_finished()
    assert first.cross_validation() is None


# Mistakes


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"metod": "grid"}, "metod: unknown key; did you mean method?"),
        ({"method": "bayes"}, "method: bayes needs W&B's server (`wandb sweep my.yaml`); here set method: random"),
        ({"method": "sobol"}, "method: must be 'grid', 'random' or 'bayes', not 'sobol'"),
        ({"program": "predict.py"}, "program: must be train.py, not 'predict.py'"),
        ({"parameters": {}}, "parameters: is empty"),
        ({"parameters": {"train.lr": 0.1}}, "parameters: train.lr: must be a valid dictionary, not 0.1"),
        (
            {"parameters": {"train.seed": {"min": 0, "max": 2**62}}},
            "train.seed: a grid needs values, or at most 10,000 whole numbers from min to max; or set method: random",
        ),
        (
            {"parameters": {"train.lr": {"min": 0.0, "max": 1e308, "q": 1e-300, "distribution": "q_uniform"}}},
            "train.lr: q: 1e-300 is too small for numbers up to 1e+308",
        ),
        ({"run_cap": 10**9}, "run_cap: must be less than or equal to 10000, not 1000000000"),
        ({"run_cap": 0}, "run_cap: must be greater than or equal to 1, not 0"),
        ({"metric": {"nam": "x"}}, "metric: nam: unknown key; did you mean name?"),
        ({"metric": {"goal": "max"}}, "metric: goal: must be 'maximize' or 'minimize', not 'max'"),
        (
            {"command": ["${program}", "${args_no_boolean_flags}"]},
            "command: must hold ${program} and ${args}, and no macros but ${env} ${interpreter} ${program} ${args}",
        ),
        (
            {"parameters": {"train.lr": {"min": 0.1, "max": 0.2}}},
            "train.lr: a grid needs values, or at most 10,000 whole numbers from min to max; or set method: random",
        ),
        (
            {"parameters": {"train.lr": {"values": [1, 2], "probabilities": [1.0, 1.0]}}},
            "train.lr: a grid needs values, or at most 10,000 whole numbers from min to max; or set method: random",
        ),
    ],
)
def test_what_the_file_can_not_mean_is_refused_by_its_key(changed, said):
    assert refusal(lambda: sweep(**{"parameters": GRID} | changed)) == f"my.yaml: {said}"


def test_a_grid_of_millions_of_trials_needs_a_limit():
    many = {"values": list(range(200))}
    grid = sweep(parameters={"train.seed": many, "data.seed": many, "train.lr": {"values": [0.1, 0.2]}})
    with pytest.raises(ConfigError, match=r"my\.yaml: method: grid has 80,000 trials; --trials N"):
        grid.values(None, 0)
    assert len(grid.values(3, 0)) == 3


def test_wandbs_own_keys_are_taken():
    sweep(name="n", description="d", project="p", entity="e", early_terminate={"type": "hyperband", "min_iter": 3})


@pytest.mark.parametrize(
    "parameters, said",
    [
        ({"train.lrr": {"value": 1}}, "train.lrr: unknown option; did you mean --train.lr?"),
        ({"lr": {"value": 1}}, "lr: unknown option; did you mean --train.lr?"),
        (
            {"competition.metric": {"value": "log_loss"}},
            "competition.metric: the competition is chosen in the configuration's file",
        ),
        ({"train.lr": {"values": [0.1, -1]}}, "train.lr: must be greater than 0, not -1 (peak learning rate of the head)"),
        (
            {"data.augmentation": {"values": ["light", "ligt"]}},
            "data.augmentation: must be 'none', 'light', 'medium' or 'strong'",
        ),
        ({"train.epochs": {"value": 0}}, "train: epochs: 0 trains nothing; with head: probe it is the linear probe alone"),
        ({"fold": {"values": [0, 5]}}, "fold 5: choose from 0, 1, 2, 3, 4, all, full (data.folds is 5)"),
        ({"config": {"values": ["configs/digits/basline.yaml"]}}, "configs/digits/basline.yaml: no such configuration"),
    ],
)
def test_what_train_py_would_refuse_is_told_with_the_file_and_the_key(parameters, said):
    assert refusal(lambda: trials(sweep(parameters))).startswith(f"my.yaml: {said}")


def test_a_mistake_on_the_command_line_is_not_laid_at_the_files_door():
    assert refusal(lambda: trials(sweep(), None, 0, "--train.lrr", "1")) == (
        "command line: --train.lrr: unknown option; did you mean --train.lr?"
    )


def test_one_name_for_runs_that_differ_is_refused():
    said = refusal(lambda: trials(sweep(), None, 0, "--name", "mine"))
    assert said == "runs/mine can't hold trials 1 and 2: train.seed: 0 → 1"


@pytest.mark.parametrize(
    "metric, said",
    [
        (
            {"name": "oof_acuracy", "goal": "maximize"},
            "metric: name: 'oof_acuracy' is none of oof_accuracy, cv_accuracy_mean, cv_accuracy_sd, which train.py records; "
            "did you mean oof_accuracy?",
        ),
        ({"name": "oof_accuracy"}, "metric: goal: must be maximize for oof_accuracy"),
        ({"name": "cv_accuracy_sd", "goal": "maximize"}, "metric: goal: must be minimize for cv_accuracy_sd"),
    ],
)
def test_a_score_that_is_not_recorded_or_ranked_the_wrong_way_round_is_refused(metric, said):
    assert refusal(lambda: trials(sweep(metric=metric))) == f"my.yaml: {said}"


def test_without_a_metric_the_competitions_own_ranks():
    config = trials(sweep())[0].config
    assert sweeps.ranking(sweep(), config) == ("oof_accuracy", True)
    shopee = trials(sweep({"config": {"value": "configs/dogs_vs_cats/mobilenetv2.yaml"}}))[0].config
    assert sweeps.ranking(sweep(), shopee) == ("oof_log_loss", False)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs/sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_of_the_repository_is_valid(path):
    given = read(path)
    planned = trials(given)
    assert len(planned) == (given.file.run_cap or math.prod(len(values.every()) for values in given.parameters.values()))
    assert len({trial.run for trial in planned}) == (1 if given.varied == ["fold"] else len(planned))
    assert given.file.project == planned[0].config.competition.name, "predict.py adds to the sweep's run in this project"
    assert given.file.command[:3] == ["${env}", "python", "${program}"]
