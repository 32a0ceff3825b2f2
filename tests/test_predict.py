"""predict.py's refusals as people meet them. The chain that ends in a submission stands in test_train.py."""

import csv
from pathlib import Path

import pytest

from conftest import write_image


def test_a_folder_that_is_no_run_is_refused_in_one_line(command, tmp_path: Path):
    (tmp_path / "runs/empty").mkdir(parents=True)
    run = command("predict.py", "runs/empty")
    assert run.returncode == 1
    assert "runs/empty is not a run" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_knob_that_was_fixed_in_training_is_refused(command, tmp_path: Path):
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/config.yaml").write_text("competition: digits\n")
    run = command("predict.py", "runs/a", "--train.lr", "3")
    assert run.returncode == 1
    assert "fixed when the run was trained: train.lr: 0.001 → 3.0" in run.stderr


def test_a_run_of_another_competition_than_the_configuration_names_is_refused(command, tmp_path: Path):
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/config.yaml").write_text("competition: digits\n")
    run = command("predict.py", "runs/a", "--config", "configs/shopee/mobilenetv2.yaml")
    assert run.returncode == 1
    assert "runs/a is a run of digits, not of shopee" in run.stderr


def test_without_a_run_or_a_file_it_says_what_to_name(command):
    run = command("predict.py")
    assert run.returncode == 1
    assert "python predict.py runs/NAME" in run.stderr


def test_checking_a_file_that_is_not_there(command):
    run = command("predict.py", "--check", "nothing.csv")
    assert run.returncode == 1
    assert "nothing.csv: no such file" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--check", "mine.csv", "runs/a"], "the run's folder comes first, as in `python predict.py runs/a --check FILE`"),
        (["runs/a", "--check", "mine.csv", "--submit"], "one at a time"),
        (["runs/a", "--submit", "--record", "public=1"], "one at a time"),
        (["--submit"], "name a run's folder"),
        (["runs/a", "-m", "words"], "--message and --again belong to --submit"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: list[str], said: str, command, tmp_path: Path):
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/config.yaml").write_text("competition: digits\n")
    run = command("predict.py", *arguments)
    assert run.returncode == 1
    assert said in run.stderr
    assert run.stderr.count("\n") == 1


COMPETITION = """
competition:
  name: leaves
  slug: leaves-2026
  train_images: train/{label}.{number}.jpg
  test_images: test/{id}.jpg
  classes: [oak, elm]
tracking: {mode: disabled}
"""
CLIENT = """
import sys
sent = "sent.txt"
if "submit" in sys.argv:
    open(sent, "w").write(sys.argv[-1])
else:
    print("ref,fileName,date,description,status,publicScore,privateScore")
    print("1,a.csv,2026,%s,COMPLETE,0.75," % open(sent).read())
"""


@pytest.fixture
def leaves(tmp_path: Path) -> Path:
    """A competition, a run of it and its submission; the folder has a module in the place of the kaggle client."""
    for k, name in enumerate(("train/oak.1", "train/elm.2", "test/1", "test/2")):
        write_image(tmp_path / "data/leaves" / f"{name}.jpg", k)
    for folder in ("runs/a", "submissions", "kaggle"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "runs/a/config.yaml").write_text(COMPETITION)
    (tmp_path / "kaggle/__init__.py").write_text("")
    (tmp_path / "kaggle/__main__.py").write_text(CLIENT)
    (tmp_path / "submissions/a.csv").write_text("id,label\n1,oak\n2,elm\n")
    return tmp_path


def test_a_run_is_handed_in_once_and_its_score_is_in_the_ledger(leaves: Path, command):
    first = command("predict.py", "runs/a", "--submit", "-m", "oak or elm")
    assert first.returncode == 0, first.stderr
    assert "submissions/a.csv: valid for leaves: 2 rows" in first.stdout
    assert "handed in to leaves-2026" in first.stdout
    assert (leaves / "sent.txt").read_text().startswith("oak or elm [sha256 ")
    with open(leaves / "submissions/ledger.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["file"], row["runs"], row["public"]) == ("a.csv", "a", "0.75")
    again = command("predict.py", "runs/a", "--submit")
    assert again.returncode == 1
    assert "was handed in on" in again.stderr


def test_checking_a_file_ends_with_status_1_and_a_line_for_each_fault(leaves: Path, command):
    (leaves / "submissions/a.csv").write_text("id,label\n1,ash\n1,elm\n")
    run = command("predict.py", "runs/a", "--check", "submissions/a.csv")
    assert run.returncode == 1
    assert run.stdout.splitlines() == [
        "submissions/a.csv: row 3, column 'id': id '1' stands already in row 2",
        "submissions/a.csv: 1 of 2 test rows are missing, the first is '2'",
        "submissions/a.csv: row 2, column 'label': 'ash' is not a class",
    ]
