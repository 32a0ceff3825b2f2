"""train.py as people run it, and the chain behind it: train, predict, check, compare, on tiny images of both competitions."""

import csv
import json
from pathlib import Path

import pytest

from conftest import REPOSITORY, TINY_MODEL, write_dogs_vs_cats, write_shopee
from src import config

DOGS = "configs/dogs_vs_cats/mobilenetv2.yaml"
SHOPEE = "configs/shopee/mobilenetv2.yaml"
QUICK = ("--train.epochs", "2", "--train.batch_size", "8", "--tracking.mode", "disabled", "--train.device", "cpu")


def test_dogs_vs_cats_from_files_to_a_valid_submission(command, tmp_path: Path):
    write_dogs_vs_cats(tmp_path / "data/dogs_vs_cats")
    arguments = ("--config", DOGS, "--data.folds", "2", "--name", "dogs", *TINY_MODEL, *QUICK)
    trained = command("train.py", "--fold", "0", *arguments, fresh=True)
    assert trained.returncode == 0, trained.stderr
    assert "40 training rows (in full 25,000)" in trained.stdout
    joined = command("train.py", "--fold", "1", *arguments)
    assert joined.returncode == 0, joined.stderr
    assert "over 2 folds" in joined.stdout
    for file in ("history.csv", "model.safetensors", "last.pt", "oof.npz"):
        assert (tmp_path / "runs/dogs/fold-1" / file).is_file()

    predicted = command("predict.py", "runs/dogs", "--tracking.mode", "disabled", fresh=True)
    assert predicted.returncode == 0, predicted.stderr
    rows = list(csv.reader((tmp_path / "submissions/dogs.csv").open()))
    assert rows[0] == ["id", "label"]
    assert [row[0] for row in rows[1:]] == [str(i) for i in range(1, 8)]
    assert all(0 <= float(row[1]) <= 1 for row in rows[1:])

    assert command("predict.py", "--check", "submissions/dogs.csv", "--config", DOGS).returncode == 0
    (tmp_path / "broken.csv").write_text((tmp_path / "submissions/dogs.csv").read_text().replace("\n3,", "\n3000,"))
    checked = command("predict.py", "--check", "broken.csv", "--config", DOGS)
    assert checked.returncode == 1
    assert "row 4, column 'id': id '3000' is not a test row" in checked.stdout

    compared = command("compare.py")
    assert compared.returncode == 0, compared.stderr
    assert "dogs" in compared.stdout
    assert "log_loss" in compared.stdout

    other = command("train.py", "--fold", "0", *arguments, "--train.lr", "0.5")
    assert other.returncode == 1
    assert f"train.lr: {config.load(DOGS).train.lr} → 0.5" in other.stderr


def test_shopee_with_missing_test_images_gives_only_a_partial_submission(command, tmp_path: Path):
    root = write_shopee(tmp_path / "data/shopee")
    arguments = ("--config", SHOPEE, "--fold", "0", "--data.folds", "3", "--name", "shopee", *TINY_MODEL, *QUICK)
    assert command("train.py", *arguments).returncode == 0
    (root / "test/test/test/test003.jpg").unlink()
    refused = command("predict.py", "runs/shopee", "--tracking.mode", "disabled")
    assert refused.returncode == 1
    assert "1 of 5 test rows have no image" in refused.stderr
    assert not (tmp_path / "submissions").exists()
    partial = command("predict.py", "runs/shopee", "--partial", "--tracking.mode", "disabled")
    assert partial.returncode == 0, partial.stderr
    assert "PARTIAL" in partial.stdout
    rows = list(csv.reader((tmp_path / "submissions/shopee.partial.csv").open()))
    assert rows[0] == ["filename", "category"]
    assert [row[0] for row in rows[1:]] == ["test000.jpg", "test001.jpg", "test002.jpg", "test004.jpg"]
    assert all(len(row[1]) == 2 and row[1].isdigit() for row in rows[1:])


def test_a_competition_by_a_yaml_file_alone(command, tmp_path: Path):
    """A CSV and a folder of images: columns, paths, metric and submission format come from the file."""
    from conftest import write_image

    with (tmp_path / "grades.csv").open("w") as file:
        file.write("image_id,grade\n")
        for i in range(24):
            file.write(f"scan{i:02d},{i % 3}\n")
            write_image(tmp_path / "scans" / f"scan{i:02d}.png", i, hue=i % 3 * 60)
    (tmp_path / "to_grade.csv").write_text("image_id\nscan20\nscan03\n")
    (tmp_path / "retina.yaml").write_text(
        """
competition:
  name: retina
  train_csv: grades.csv
  test_csv: to_grade.csv
  id_column: image_id
  label_column: grade
  train_images: scans/{image_id}.png
  test_images: scans/{image_id}.png
  metric: quadratic_kappa
  submission_columns: [image_id, severity]
model: {name: cifar_net, weights: none}
data: {root: ., folds: 2, augmentation: light}
train: {epochs: 2, batch_size: 4}
"""
    )
    trained = command("train.py", "--config", "retina.yaml", "--fold", "all", "--tracking.mode", "disabled")
    assert trained.returncode == 0, trained.stderr
    assert "quadratic_kappa" in trained.stdout
    predicted = command("predict.py", "runs/retina", "--tracking.mode", "disabled")
    assert predicted.returncode == 0, predicted.stderr
    rows = list(csv.reader((tmp_path / "submissions/retina.csv").open()))
    assert rows[0] == ["image_id", "severity"]
    assert [row[0] for row in rows[1:]] == ["scan20", "scan03"]
    assert {row[1] for row in rows[1:]} <= {"0", "1", "2"}


def test_debug_runs_the_digits_chain_in_a_run_of_its_own_and_tracks_it_offline(command, tmp_path: Path):
    trained = command("train.py", "--fold", "0", "--debug", "--data.workers", "0", fresh=True)
    assert trained.returncode == 0, trained.stderr
    (run,) = (tmp_path / "runs").glob("[!.]*")
    assert run.name.endswith("-debug")
    assert config.load(run / "config.yaml").train.steps_per_epoch == 2
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2, "one for the fold, one for the experiment"
    again = command("train.py", "--fold", "0", "--debug", "--data.workers", "0")
    assert again.returncode == 1
    assert "--resume" in again.stderr
    resumed = command("train.py", "--fold", "0", "--debug", "--data.workers", "0", "--resume", "--tracking.mode", "disabled")
    assert resumed.returncode == 0
    assert "fold 0: finished already" in resumed.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fold", "7"), "--fold 7: choose from 0, 1, 2, 3, 4, all, full"),
        (("--model.name", "resnet188"), "did you mean resnet18"),
        (("--model.weights", "absent.pth"), "absent.pth: no such file"),
        (("--config", DOGS, "--model.weights", "none"), "data/dogs_vs_cats: train/ not found"),
    ],
)
def test_what_needs_more_than_the_configuration_is_refused_in_one_line(command, arguments, said):
    run = command("train.py", *arguments, fresh="--model.name" in arguments)
    assert run.returncode == 1
    assert said in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1, run.stderr


@pytest.mark.parametrize("verb", ["train.py", "predict.py", "prepare.py", "compare.py", "sweep.py"])
def test_help_and_typos_answer_without_loading_torch(verb: str, command, tmp_path: Path):
    probe = f"""
import json, runpy, sys
sys.path.insert(0, {str(REPOSITORY)!r})
loaded = {{}}
for argument in ("--help", "--trian.epochs"):
    sys.argv = [{verb!r}, argument]
    try:
        runpy.run_path({str(REPOSITORY / verb)!r}, run_name="__main__")
    except SystemExit as exit:
        loaded[argument] = str(exit.code)
heavy = [name for name in ("torch", "timm", "pandas", "sklearn", "wandb", "cv2") if name in sys.modules]
print(json.dumps([loaded, heavy]))
"""
    (tmp_path / "probe.py").write_text(probe)
    run = command(str(tmp_path / "probe.py"), fresh=True)
    loaded, heavy = json.loads(run.stdout.splitlines()[-1])
    assert heavy == []
    assert loaded["--help"] == "0"
    assert "unknown option" in loaded["--trian.epochs"]
    assert ("did you mean --train.epochs?" in loaded["--trian.epochs"]) == (verb in ("train.py", "predict.py"))
