"""predict.py's refusals as people meet them. The chain that ends in a submission stands in test_train.py."""

from pathlib import Path


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
