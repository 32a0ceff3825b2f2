"""prepare.py as people run it."""

from pathlib import Path

import pytest

from conftest import SHARED, write_shopee


def test_digits_are_written_and_split_without_a_download(command, tmp_path: Path):
    run = command("prepare.py", fresh=True)
    assert run.returncode == 0, run.stderr
    assert "1,437 training rows, 360 test rows" in run.stdout
    assert (tmp_path / "data/digits/folds.csv").read_text().startswith("id,label,group,fold\n")


def test_absent_data_says_which_files_are_expected_and_the_two_ways_to_get_them(command):
    run = command("prepare.py", "--config", "configs/shopee/mobilenetv2.yaml", fresh=True)
    assert run.returncode == 1
    for part in (
        "data/shopee",
        "train.csv",
        "test.csv",
        "--download",
        "https://www.kaggle.com/c/shopee-product-detection-student",
    ):
        assert part in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_download_without_a_token_says_in_one_line_what_is_missing(command):
    run = command("prepare.py", "--config", "configs/shopee/mobilenetv2.yaml", "--download")
    assert run.returncode == 1
    assert "no Kaggle token" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_tables_without_images_are_counted_and_not_refused(command, tmp_path: Path):
    write_shopee(tmp_path / "data/shopee", with_images=False)
    run = command("prepare.py", "--config", "configs/shopee/mobilenetv2.yaml")
    assert run.returncode == 0, run.stderr
    assert "126 of 126 training rows have no image" in run.stdout
    assert "train.py will refuse this" in run.stdout


@pytest.mark.skipif(not (SHARED / "data/shopee-product-detection-student").is_dir(), reason="the real tables are not at hand")
def test_the_real_shopee_tables(command, tmp_path: Path):
    root = tmp_path / "data/shopee"
    root.mkdir(parents=True)
    for file in (SHARED / "data/shopee-product-detection-student").iterdir():
        (root / file.name).symlink_to(file)
    shopee = ("--config", "configs/shopee/mobilenetv2.yaml")
    run = command("prepare.py", *shopee)
    assert run.returncode == 0, run.stderr
    assert "105,266 of 105,392 training rows have no image" in run.stdout
    assert "12,186 of 12,186 test rows have no image" in run.stdout
    dropped = command("prepare.py", *shopee, "--data.missing", "drop", "--data.folds", "3")
    assert "126 rows in 3 folds of 42 42 42" in dropped.stdout
