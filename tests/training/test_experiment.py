"""train.py's work: which folds are trained, which joined, refused or gone on with, and what is said at the end."""

from pathlib import Path

import numpy as np
import pytest

from conftest import write_dogs_vs_cats, write_shopee
from src.competitions.predictions import Predictions
from src.errors import UserError
from src.models import backbone
from src.training import experiment
from src.training.history import COLUMNS
from src.training.run import Run, cross_validation
from tiny_runs import history, tiny, train


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs_vs_cats(tmp_path_factory.mktemp("dogs"))


@pytest.fixture(scope="module")
def trained(dogs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[str]]:
    """All folds of a run, and what was said."""
    run = Run(tmp_path_factory.mktemp("trained") / "runs/dogs")
    return run, train(run, tiny(dogs), "all")


# Which folds


def test_all_trains_every_fold_and_full_none_of_them(trained: tuple[Run, list[str]], dogs: Path, tmp_path: Path):
    assert trained[0].trained_folds() == ["0", "1"]
    run = Run(tmp_path / "run")
    train(run, tiny(dogs), "full")
    assert run.trained_folds() == ["full"]


@pytest.mark.parametrize("fold", ["2", "-1", "fulll", "0,1", ""])
def test_a_fold_out_of_range_is_refused_before_anything_is_written(fold: str, dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=rf"--fold {fold}: choose from 0, 1, all, full \(data\.folds is 2\)"):
        train(run, tiny(dogs), "0", fold)
    assert list(tmp_path.iterdir()) == []


def test_a_fold_named_twice_is_trained_once(dogs: Path, tmp_path: Path):
    said = train(Run(tmp_path / "run"), tiny(dogs), "1", "1", "all")
    assert [line.split()[1] for line in said if "epoch 1/2" in line] == ["1", "0"]


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"model__name": "resnt18"}, r"model\.name: .*did you mean resnet18"),
        ({"model__image_size": 64}, r"model\.image_size: cifar_net can't work with 64 pixels"),
        ({"train__device": "gpu"}, r"train\.device: 'gpu' is not to be had here"),
    ],
)
def test_what_the_model_or_the_machine_refuses_is_said_before_any_data_is_touched(knobs: dict, said: str, tmp_path: Path):
    with pytest.raises(UserError, match=said):
        train(Run(tmp_path / "run"), tiny(tmp_path / "absent", **knobs))
    assert list(tmp_path.iterdir()) == []


def test_each_row_is_trained_on_or_validated_never_both(dogs: Path):
    config = tiny(dogs)
    prepared = experiment.prepare.prepare(config, lambda _: None)
    rows = experiment.prepare.training_rows(config, prepared)
    table = experiment.folds.make_folds(rows, 2, 0)
    plan = experiment.Plan(prepared, rows, table, "", ["0"])
    parts = {fold: experiment._fold_data(plan, config, fold, print) for fold in ("0", "1", "full")}
    for fold in ("0", "1"):
        train_ids, held_out = set(parts[fold].train["id"]), set(parts[fold].held_out["id"])
        assert held_out == set(table["id"][table["fold"] == int(fold)])
        assert train_ids == set(rows["id"]) - held_out
    assert parts["full"].train.equals(rows)
    assert parts["full"].held_out.empty


# What is said


def test_the_run_ends_with_its_table_and_its_score(trained: tuple[Run, list[str]], dogs: Path, tmp_path: Path, capsys):
    run, said = trained
    assert said[-1] == f"OOF {cross_validation(run, 'log_loss')}"
    assert "over 2 folds" in said[-1]
    train(run, tiny(dogs), "all", resume=True)
    printed = capsys.readouterr().out
    for fold in ("0", "1"):
        last = history(run, fold)["val_log_loss"].iloc[-1]
        assert any(line.split("│")[1:3] == [f" {fold:>4} ", f" {last:>8.4f} "] for line in printed.splitlines() if "│" in line)


def test_a_linear_probe_alone_has_a_score_and_no_speed(dogs: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run, config = Run(Path("runs/probe")), tiny(dogs, train__head="probe", train__epochs=0)
    train(run, config, "all")
    assert list(history(run)) == [*COLUMNS, "probe_strength", "val_log_loss", "val_accuracy"]
    assert history(run)["epoch"].tolist() == [0]
    assert capsys.readouterr().out.count("│      0 │     0.0 │     — │") == 2
    assert "fold 1: finished already" in train(run, config, "all", resume=True)


@pytest.mark.parametrize("recipe, builds", [("light", 1), ("medium", 2)])
def test_the_decoded_pictures_are_kept_once_for_all_folds_and_validation_sees_the_same_bits(
    recipe: str, builds: int, tmp_path: Path
):
    dogs = write_dogs_vs_cats(tmp_path / "dogs")
    plain, cached = Run(tmp_path / "plain"), Run(tmp_path / "cached")
    train(plain, tiny(dogs, data__augmentation=recipe), "all")
    said = train(cached, tiny(dogs, data__augmentation=recipe, data__cache=True), "all")
    assert sum(line.startswith("cache: 40 pictures") for line in said) == builds, "of both folds, and of none a second time"
    for fold in ("0", "1"):
        one, other = (Predictions.load(run.fold(fold) / "oof.npz") for run in (plain, cached))
        assert np.array_equal(one.logits, other.logits), "24x32 pictures are as small as the smallest crop needs"


def test_the_device_and_the_precisions_reason_are_said(trained: tuple[Run, list[str]]):
    run, said = trained
    line = next(line for line in said if line.startswith(f"{run.path}: "))
    assert "cifar_net on cpu" in line
    assert "float32: on cpu lower precision was measured slower" in line


def test_training_on_a_part_of_the_rows_is_stated(dogs: Path, tmp_path: Path):
    assert "training on 10 of the 40 rows" in train(Run(tmp_path / "run"), tiny(dogs, data__rows=10))


def test_rows_without_an_image_are_refused_by_default_and_left_out_where_asked_to(tmp_path: Path):
    root = write_shopee(tmp_path / "data", rows=3)
    (root / "train/train/train/07/07000abc.jpg").unlink()
    with pytest.raises(
        UserError, match=r"1 of 126 training rows have no image, the first is id '07000abc\.jpg'.*--data\.missing drop"
    ):
        train(Run(tmp_path / "run"), tiny(root, "shopee"))
    said = train(Run(tmp_path / "run"), tiny(root, "shopee", data__missing="drop", train__epochs=1))
    assert "training on 125 of the 126 rows" in said
    with pytest.raises(UserError, match=r"42 of 42 classes have fewer rows than the 5 folds: 00 \(3\)"):
        train(Run(tmp_path / "other"), tiny(root, "shopee", data__missing="drop", data__folds=5))
    assert not (tmp_path / "other").exists()


# Joining, refusing, going on


def test_a_further_fold_joins_the_run(dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    train(run, tiny(dogs))
    written = (run.path / "config.yaml").read_bytes(), (run.path / "folds.csv").read_bytes()
    model = (run.fold("0") / "model.safetensors").read_bytes()
    said = train(run, tiny(dogs, data__workers=1), "1")
    assert run.trained_folds() == ["0", "1"]
    assert "over 2 folds" in said[-1]
    assert ((run.path / "config.yaml").read_bytes(), (run.path / "folds.csv").read_bytes()) == written
    assert (run.fold("0") / "model.safetensors").read_bytes() == model
    assert len({backbone.read_card(run.fold(fold) / "model.safetensors").folds_sha256 for fold in ("0", "1")}) == 1


def test_a_different_configuration_under_an_existing_name_is_refused_with_the_differences(
    trained: tuple[Run, list[str]], dogs: Path
):
    with pytest.raises(
        UserError, match=r"another configuration \(model\.dropout: 0\.0 → 0\.5; train\.lr: 0\.001 → 0\.1\); --name"
    ):
        train(trained[0], tiny(dogs, train__lr=0.1, model__dropout=0.5), "1", overwrite=True)
    assert trained[0].trained_folds() == ["0", "1"]


def test_a_fold_that_is_trained_already_is_refused_without_resume_or_overwrite(trained: tuple[Run, list[str]], dogs: Path):
    before = (trained[0].fold("0") / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"fold 0, 1 of \S+ is trained already: --resume .*--overwrite .*--name NAME"):
        train(trained[0], tiny(dogs), "all")
    assert (trained[0].fold("0") / "model.safetensors").stat().st_mtime_ns == before


def test_a_finished_fold_with_resume_says_so_and_is_left_alone(
    trained: tuple[Run, list[str]], dogs: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(experiment, "train_fold", lambda *_: pytest.fail("it was trained again"))
    said = train(trained[0], tiny(dogs), "0", resume=True)
    assert "fold 0: finished already" in said
    assert said[-1].startswith("OOF log_loss")


def test_resume_begins_the_folds_that_were_not_begun(dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    train(run, tiny(dogs))
    said = train(run, tiny(dogs), "all", resume=True)
    assert "fold 0: finished already" in said
    assert run.trained_folds() == ["0", "1"]


def test_overwrite_trains_the_asked_folds_anew_and_no_other(dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    train(run, tiny(dogs), "all")
    for fold in ("0", "1"):
        (run.fold(fold) / "test.npz").write_text("of the model before")
    model = (run.fold("0") / "model.safetensors").read_bytes()
    train(run, tiny(dogs), "0", overwrite=True)
    assert (run.fold("0") / "model.safetensors").read_bytes() == model
    assert not (run.fold("0") / "test.npz").exists()
    assert (run.fold("1") / "test.npz").exists()


def test_a_fold_that_was_begun_is_refused_without_resume_and_a_damaged_state_names_the_remedy(dogs: Path, tmp_path: Path):
    run, config = Run(tmp_path / "run"), tiny(dogs)
    run.fold("0").mkdir(parents=True)
    (run.fold("0") / "last.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(UserError, match=r"fold 0 of \S+ is begun: --resume goes on"):
        train(run, config)
    with pytest.raises(UserError, match=r"last\.pt: not a complete checkpoint .*--overwrite trains the fold anew"):
        train(run, config, resume=True)
    train(run, config, overwrite=True)
    assert len(history(run)) == 2


def test_folds_csv_changed_after_training_is_refused(dogs: Path, tmp_path: Path):
    run = Run(tmp_path / "run")
    train(run, tiny(dogs))
    lines = run.folds_csv().read_text().splitlines()
    lines[1] = lines[1][:-1] + ("1" if lines[1][-1] == "0" else "0")
    run.folds_csv().write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"folds\.csv is not what the data gives now: the rows are in other folds"):
        train(run, tiny(dogs), "1")
    assert run.trained_folds() == ["0"]
