"""ensemble.py as people meet it; what it computes stands in inference/test_ensemble.py."""

from pathlib import Path

from planted_runs import plant_competition, plant_run


def test_the_whole_command_prints_the_table_and_writes_a_submission(command, tmp_path: Path):
    truth = plant_competition(tmp_path)
    for name in ("a", "b"):
        plant_run(tmp_path, name, truth, scale=2)
    run = command("ensemble.py", "runs/a", "runs/b", "--method", "mean")
    assert run.returncode == 0, run.stderr
    for part in ("mean of probabilities", "disagreement", "recommended: ", "calibration: temperature", "test log_loss"):
        assert part in run.stdout
    assert (tmp_path / "submissions/a+b-mean.csv").is_file()
    shown = command("compare.py")
    assert "a+b-mean: mean of a, b; calibration: temperature" in shown.stdout
    checked = command("predict.py", "--check", "submissions/a+b-mean.csv", "--config", "planted.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_without_runs_it_says_what_to_name(command):
    run = command("ensemble.py", fresh=True)
    assert run.returncode == 1
    assert "python ensemble.py runs/A runs/B" in run.stderr


def test_a_mistake_is_one_line(command, tmp_path: Path):
    plant_run(tmp_path, "a", plant_competition(tmp_path))
    run = command("ensemble.py", "runs/a", "--method", "stack")
    assert run.returncode == 1
    assert run.stderr.strip() == "error: --method stack: blending needs two runs or more; one run alone is only calibrated"


def test_an_unknown_method_is_told_with_those_that_there_are(command, tmp_path: Path):
    run = command("ensemble.py", "runs/a", "--method", "median")
    assert run.returncode == 1
    assert "greedy" in run.stderr
    assert "Traceback" not in run.stderr
