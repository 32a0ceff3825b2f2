"""predict.py --check: what it says of a file, and how it ends."""

from pathlib import Path

import pytest

from conftest import write_dogs_vs_cats
from src.errors import UserError
from src.inference import check
from tiny_runs import tiny


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs_vs_cats(tmp_path_factory.mktemp("dogs"), rows=2, test=30)


def submission(path: Path, ids: range, value: str = "0.5") -> Path:
    path.write_text("id,label\n" + "".join(f"{id},{value}\n" for id in ids))
    return path


def test_a_valid_file_is_called_valid_with_its_rows(dogs: Path, tmp_path: Path):
    file, said = submission(tmp_path / "mine.csv", range(1, 31)), []
    check.check_file(file, tiny(dogs), said.append)
    assert said == [f"{file}: valid for dogs_vs_cats: 30 rows"]


def test_the_competitions_sample_is_valid(dogs: Path):
    said: list[str] = []
    check.check_file(dogs / "sample_submission.csv", tiny(dogs), said.append)
    assert "valid" in said[0]


def test_every_fault_is_a_line_and_the_exit_status_is_1(dogs: Path, tmp_path: Path):
    file, said = submission(tmp_path / "mine.csv", range(1, 30)), []
    file.write_text(file.read_text().replace("\n7,0.5", "\n7,7.5"))
    with pytest.raises(SystemExit) as ended:
        check.check_file(file, tiny(dogs), said.append)
    assert ended.value.code == 1
    assert said == [
        f"{file}: 1 of 30 test rows are missing, the first is '30'",
        f"{file}: row 8, column 'label': 7.5 is not a probability between 0 and 1",
    ]


def test_many_faults_are_counted_after_the_first_twenty(dogs: Path, tmp_path: Path):
    file, said = submission(tmp_path / "mine.csv", range(1, 31), "2"), []
    with pytest.raises(SystemExit):
        check.check_file(file, tiny(dogs), said.append)
    assert len(said) == 21
    assert said[-1] == f"{file}: and 10 more faults"


def test_a_file_that_is_not_there_is_named(dogs: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"absent\.csv: no such file"):
        check.check_file(tmp_path / "absent.csv", tiny(dogs))


def test_without_test_rows_there_is_nothing_to_check_against(tmp_path: Path):
    root = write_dogs_vs_cats(tmp_path / "data", rows=2, test=0)
    (root / "sample_submission.csv").unlink()
    with pytest.raises(UserError, match=r"no test rows to check against: no test rows: no file matches .*test/\{id\}\.jpg"):
        check.check_file(submission(tmp_path / "mine.csv", range(1, 3)), tiny(root))
