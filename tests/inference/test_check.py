"""predict.py --check: what it says of a file, and how it ends."""

from pathlib import Path

import numpy as np
import pytest

from conftest import write_dogs_vs_cats, write_shopee
from src.competitions.predictions import Predictions
from src.errors import UserError
from src.inference import check, ledger
from src.inference.members import Member
from src.training.run import Run
from tiny_runs import tiny


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs_vs_cats(tmp_path_factory.mktemp("dogs"), rows=2, test=30)


def values(rows: int) -> list[str]:
    """A probability a row, none like another."""
    return [f"{(row + 1) / (rows + 1):.4f}" for row in range(rows)]


def submission(path: Path, ids: range, given: list[str]) -> Path:
    path.write_text("id,label\n" + "".join(f"{id},{value}\n" for id, value in zip(ids, given, strict=True)))
    return path


def told(file: Path, root: Path, run: Run | None = None, **knobs: object) -> list[str]:
    """What is said of a file, without its name and without that these are not all of Kaggle's rows; "exit 1" at the end."""
    said: list[str] = []
    try:
        check.check_file(file, tiny(root, **knobs), run, said.append)
    except SystemExit as ended:
        said.append(f"exit {ended.code}")
    return [line.removeprefix(f"{file}: ") for line in said if "Kaggle has 12,500" not in line]


def trained(path: Path, test: dict[str, float], oof: list[float]) -> Run:
    """A run's folder with what it predicts, P(dog), of test rows and of cat.0, dog.0, cat.1, …"""
    fold = path / "fold-0"
    fold.mkdir(parents=True)
    (fold / "model.safetensors").write_bytes(b"")
    ids = [f"{('cat', 'dog')[i % 2]}.{i // 2}" for i in range(len(oof))]
    rows = "".join(f"{id},{id[:3]},,0\n" for id in ids)
    (path / "folds.csv").write_text("id,label,group,fold\n" + rows)
    for name, known in (("test.npz", test), ("oof.npz", dict(zip(ids, oof, strict=True)))):
        chance = np.array(list(known.values()))
        logits = np.log(np.column_stack([1 - chance, chance])).astype(np.float32)
        Predictions(np.array(list(known)), logits, ("cat", "dog")).save(fold / name)
    return Run(path)


def test_a_valid_file_is_called_valid_with_its_rows_and_their_order(dogs: Path, tmp_path: Path):
    file = submission(tmp_path / "mine.csv", range(1, 31), values(30))
    assert told(file, dogs) == ["valid for dogs_vs_cats: 30 rows in the order of sample_submission.csv"]


def test_rows_that_are_not_all_of_kaggles_are_told(dogs: Path, tmp_path: Path):
    said: list[str] = []
    file = submission(tmp_path / "mine.csv", range(1, 31), values(30))
    assert check.check_file(file, tiny(dogs), None, said.append) == 30
    assert said[0] == f"{file}: warning: checked against the 30 test rows in {dogs}; Kaggle has 12,500"


def test_shopees_rows_are_those_of_its_test_csv_in_that_order(tmp_path: Path):
    root = write_shopee(tmp_path / "shopee", rows=1, test=3, with_images=False)
    names = ["test000.jpg", "test001.jpg", "test002.jpg"]
    file = tmp_path / "mine.csv"
    file.write_text("filename,category\n" + "".join(f"{name},0{k}\n" for k, name in enumerate(names)))
    assert told(file, root, competition="shopee")[-1].endswith("valid for shopee: 3 rows in the order of test.csv")
    file.write_text("filename,category\n" + "".join(f"{name},0{k}\n" for k, name in enumerate(names[::-1])))
    assert told(file, root, competition="shopee")[0] == (
        "row 2, column 'filename': id 'test002.jpg' stands where test.csv has 'test000.jpg'; keep its order"
    )
    file.write_text("filename,category\n" + "".join(f"{name},{k}\n" for k, name in enumerate(names)))
    assert told(file, root, competition="shopee")[0] == "row 2, column 'category': '0' is not a class; is '00' meant?"


def test_the_competitions_sample_is_well_formed_but_constant(dogs: Path):
    assert told(dogs / "sample_submission.csv", dogs) == [
        "rows 2 to 31, column 'label': all hold '0.5', which says nothing of the images", "exit 1",
    ]  # fmt: skip


def test_every_fault_is_a_line_and_the_exit_status_is_1(dogs: Path, tmp_path: Path):
    file = submission(tmp_path / "mine.csv", range(1, 30), [*values(6), "7.5", *values(22)])
    assert told(file, dogs) == [
        "1 of 30 test rows are missing, the first is '30'",
        "row 8, column 'label': 7.5 is not a probability between 0 and 1",
        "exit 1",
    ]


def test_faults_are_counted_after_the_first_twenty(dogs: Path, tmp_path: Path):
    said = told(submission(tmp_path / "mine.csv", range(1, 31), ["2"] * 30), dogs)
    assert len(said) == 22
    assert said[20:] == ["and 10 more faults", "exit 1"]


def test_a_runs_own_submission_is_valid_and_its_expected_score_is_said(dogs: Path, tmp_path: Path):
    run = trained(tmp_path / "mine", dict(zip(map(str, range(1, 31)), map(float, values(30)), strict=True)), [0.1, 0.9] * 50)
    said = told(submission(tmp_path / "mine.csv", range(1, 31), values(30)), dogs, run)
    assert said[0].startswith("valid for dogs_vs_cats")
    assert said[1:] == [f"{run.path}: expected log_loss 0.1054 (95 %: 0.1054 to 0.1054; from 100 out-of-fold rows)"]


def test_an_ensemble_has_no_model_but_predictions_to_compare_with(dogs: Path, tmp_path: Path):
    known = dict(zip(map(str, range(1, 31)), map(float, values(30)), strict=True))
    fold = trained(tmp_path / "both", known, [0.1, 0.9] * 50).fold("0")
    (fold / "model.safetensors").unlink()
    (fold / "oof.npz").rename(fold / "oof_tta.npz")
    ensemble = Member(tmp_path / "both")
    assert "expected log_loss 0.1054" in told(submission(tmp_path / "a.csv", range(1, 31), values(30)), dogs, ensemble)[1]
    assert told(submission(tmp_path / "b.csv", range(1, 31), values(30)[::-1]), dogs, ensemble)[-1] == "exit 1"


def test_the_probability_of_the_other_class_contradicts_the_run(dogs: Path, tmp_path: Path):
    run = trained(tmp_path / "mine", dict(zip(map(str, range(1, 31)), map(float, values(30)), strict=True)), [0.1, 0.9] * 50)
    said = told(submission(tmp_path / "cats.csv", range(1, 31), values(30)[::-1]), dogs, run)
    assert said == [
        f"row 2, column 'label': 0.9677 where {run.path} predicts 0.0323000017; over 30 rows the correlation is -1.00: "
        "are the classes exchanged?",
        "exit 1",
    ]


def test_shares_far_from_the_out_of_fold_ones_are_a_warning(dogs: Path, tmp_path: Path):
    run = trained(tmp_path / "mine", {"1": 0.2, "2": 0.3}, [0.01, 0.03] * 500)
    said = told(submission(tmp_path / "mine.csv", range(1, 31), values(30)), dogs, run)
    assert said[0] == (f"warning: 'dog' has a share of 50.0%, but of 2.0% in the 1,000 out-of-fold predictions of {run.path}")
    assert said[1].startswith("valid for dogs_vs_cats")


def test_without_a_run_the_shares_are_compared_with_the_labels(tmp_path: Path):
    root = write_dogs_vs_cats(tmp_path / "data", rows=10, test=30)
    said = told(submission(tmp_path / "mine.csv", range(1, 31), [f"0.99{k:02d}" for k in range(30)]), root)
    assert said[0] == "warning: 'dog' has a share of 99.1%, but of 50.0% in the 20 training rows"
    assert said[1].startswith("valid")


def test_a_file_changed_since_it_was_written_is_told(dogs: Path, tmp_path: Path):
    file = submission(tmp_path / "mine.csv", range(1, 31), values(30))
    ledger.enter(file, ["mine"], "mean of folds", 0.1)
    assert "changed" not in told(file, dogs)[0]
    submission(file, range(1, 31), values(30)[::-1])
    assert told(file, dogs)[0].startswith("warning: changed since it was written on 20")


def test_a_file_that_is_not_there_is_named(dogs: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"absent\.csv: no such file"):
        check.check_file(tmp_path / "absent.csv", tiny(dogs))


def test_without_test_rows_there_is_nothing_to_check_against(tmp_path: Path):
    root = write_dogs_vs_cats(tmp_path / "data", rows=2, test=0)
    (root / "sample_submission.csv").unlink()
    with pytest.raises(UserError, match=r"no test rows to check against: no test rows: no file matches .*test/\{id\}\.jpg"):
        check.check_file(submission(tmp_path / "mine.csv", range(1, 3), ["0.1", "0.2"]), tiny(root))
