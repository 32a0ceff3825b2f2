"""The table of runs, drawn from their folders alone."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from conftest import write_dogs_vs_cats
from src.errors import UserError
from src.inference.predict import predict_run
from src.report import compare
from src.training.run import Run, cross_validation
from tiny_runs import history, tiny, train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of Dogs vs. Cats: good, bad (two knobs differ, a single fold), all_rows; and one of the original competition."""
    folder = tmp_path_factory.mktemp("compare")
    dogs, runs = write_dogs_vs_cats(folder / "dogs"), folder / "runs"
    good = tiny(dogs, train__epochs=3, train__lr=0.003)
    train(Run(runs / "good"), good, "all")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        predict_run(Run(runs / "good"), good, False, lambda _: None)
    train(Run(runs / "bad"), tiny(dogs, train__epochs=3, train__lr=1e-6, model__dropout=0.5, data__workers=1))
    train(Run(runs / "all_rows"), tiny(dogs, train__epochs=3, train__lr=0.003), "full")
    train(Run(runs / "original"), tiny(dogs, "dogs_vs_cats_original", train__seed=7))
    shutil.rmtree(dogs)
    return runs


def cells(rows: list[compare.Row]) -> dict[str, list[str]]:
    """The table's lines by run, split where two spaces are."""
    printed = io.StringIO()
    Console(file=printed, width=240).print(compare.table(rows))
    lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in printed.getvalue().splitlines()]
    return {line[0]: line[1:] for line in lines if line}


def test_a_line_holds_the_runs_scores_and_costs(runs: Path):
    run = Run(runs / "good")
    cv, tta = cross_validation(run, "log_loss"), cross_validation(run, "log_loss", "oof_tta.npz")
    both = [history(run, fold) for fold in ("0", "1")]
    drawn = cells(compare.read_rows([run.path]))
    assert drawn["run"] == ["metric", "OOF", "mean ± sd", "folds", "with TTA", "minutes", "img/s", "GB"]
    assert drawn["good"] == [
        "log_loss",
        f"{cv.oof:.4f}",
        f"{cv.mean:.4f} ± {cv.sd:.4f}",
        f"{cv.folds['0']:.4f} {cv.folds['1']:.4f}",
        f"{tta.oof:.4f}",
        f"{sum(table['seconds'].sum() for table in both) / 60:.1f}",
        f"{np.median([*both[0]['img_per_s'], *both[1]['img_per_s']]):.0f}",
        f"{max(table['memory_gb'].max() for table in both):.1f}",
    ]


def test_what_a_run_does_not_have_is_a_dash(runs: Path):
    drawn = cells(compare.read_rows([runs / "bad", runs / "all_rows"]))
    assert drawn["bad"][2] == "—"
    assert drawn["bad"][4] == "—"
    assert "nan" not in " ".join(drawn["bad"])
    assert drawn["all_rows"][1:5] == ["—"] * 4


def test_a_run_that_has_just_begun_is_shown_too(runs: Path, tmp_path: Path):
    shutil.copytree(runs / "bad", tmp_path / "begun", ignore=shutil.ignore_patterns("fold-*"))
    assert cells(compare.read_rows([tmp_path / "begun"]))["begun"] == ["log_loss", "—", "—", "—", "—", "0.0", "—", "—"]


def test_the_best_run_of_each_competition_comes_first_and_those_without_a_score_last(runs: Path):
    rows = compare.read_rows([runs / name for name in ("all_rows", "bad", "original", "good")])
    assert [row.run.name for row in rows] == ["good", "bad", "all_rows", "original"]
    assert [row.competition for row in rows] == ["dogs_vs_cats"] * 3 + ["dogs_vs_cats_original"]


def test_where_higher_is_better_the_highest_comes_first(runs: Path, tmp_path: Path):
    for name in ("a", "b"):
        shutil.copytree(runs / "original", tmp_path / name)
    oof = tmp_path / "a/fold-0/oof.npz"
    predictions = Run(tmp_path / "a").oof()["0"]
    labels = Run(tmp_path / "a").labels(predictions.ids, predictions.classes)
    for name, sign in (("a", -1), ("b", 1)):
        predictions.logits[:] = sign * np.eye(2)[labels]
        predictions.save(tmp_path / name / "fold-0" / oof.name)
    rows = compare.read_rows([tmp_path / "a", tmp_path / "b"])
    assert [(row.run.name, row.cv.oof) for row in rows] == [("b", 1.0), ("a", 0.0)]


def test_the_knobs_in_which_runs_of_a_competition_differ_are_listed(runs: Path):
    rows = compare.read_rows([runs / "good", runs / "bad", runs / "original"])
    assert compare.config_differences(rows) == [
        "good: model.dropout 0.0, train.lr 0.003",
        "bad: model.dropout 0.5, train.lr 1e-06",
    ]


def test_runs_that_agree_in_all_knobs_have_no_difference(runs: Path):
    assert compare.config_differences(compare.read_rows([runs / "good", runs / "all_rows"])) == []
    assert compare.config_differences(compare.read_rows([runs / "good"])) == []


def test_all_runs_are_the_folders_with_a_configuration(runs: Path):
    (runs / "notes").mkdir(exist_ok=True)
    assert [path.name for path in compare.all_runs(runs)] == ["all_rows", "bad", "good", "original"]


def test_an_empty_runs_folder_says_how_to_make_a_run(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=rf"no runs in {folder}; `python train\.py --fold 0` makes one"):
            compare.all_runs(folder)


def test_a_folder_that_is_no_run_names_the_nearest(runs: Path):
    with pytest.raises(UserError, match=r"runs/goood is not a run: it has no config\.yaml; did you mean good\?"):
        compare.read_rows([runs / "goood"])
