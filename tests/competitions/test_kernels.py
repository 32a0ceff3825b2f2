"""What Kaggle's client is given: metadata that it takes, notebooks, the code they need, checksums, whole folders."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import REPOSITORY
from src.competitions import kernels
from src.config import Config, DataConfig, TrackingConfig, TrainConfig
from src.errors import UserError


@given(
    st.text(alphabet=st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), min_size=1),
    st.sampled_from(["bundle", "predict"]),
)
def test_every_title_and_its_slug_are_within_kaggles_limits(name: str, what: str):
    title = kernels.title(name, what)
    assert 6 <= len(title) <= 50
    assert title.endswith(what)
    slug = kernels.dataset_metadata("me", title)["id"].removeprefix("me/")
    assert 6 <= len(slug) <= 50
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_kernel_metadata_is_a_private_gpu_notebook_without_internet():
    metadata = kernels.kernel_metadata("me", "Dogs, best predict", "predict.ipynb", "dogs", ("me/bundle",))
    assert metadata["id"] == "me/dogs-best-predict"
    assert metadata["competition_sources"] == ["dogs"]
    assert metadata["dataset_sources"] == ["me/bundle"]
    assert (metadata["is_private"], metadata["enable_gpu"], metadata["enable_internet"]) == (True, True, False)
    assert (metadata["code_file"], metadata["language"], metadata["kernel_type"]) == ("predict.ipynb", "python", "notebook")


def test_a_notebook_has_its_cells_as_they_were_written():
    tree = json.loads(kernels.notebook(("markdown", "\n# Title\n"), ("code", "\na = 1\nb = 2\n")))
    assert ["".join(cell["source"]) for cell in tree["cells"]] == ["# Title", "a = 1\nb = 2"]
    pytest.importorskip("nbformat").validate(tree)


def test_the_user_is_the_one_named_then_the_environments_then_the_clients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    assert kernels.username(None) == kernels.UNKNOWN_USER
    (tmp_path / "kaggle.json").write_text("[1]")
    assert kernels.username(None) == kernels.UNKNOWN_USER
    (tmp_path / "kaggle.json").write_text('{"username": "saved", "key": "secret"}')
    assert kernels.username(None) == "saved"
    monkeypatch.setenv("KAGGLE_USERNAME", "environment")
    assert kernels.username(None) == "environment"
    assert kernels.username("named") == "named"


def test_a_user_name_with_a_slash_is_refused():
    with pytest.raises(UserError, match=r"--kaggle_user me/you: .* letters, digits and hyphens"):
        kernels.username("me/you")


def test_imported_files_follow_imports_and_leave_those_within_functions_out():
    entry = REPOSITORY / "src/data/prepare.py"
    at_once = {str(file) for file in kernels.imported_files(entry, within_functions=False)}
    assert {"src/__init__.py", "src/data/__init__.py", "src/data/folds.py", "src/files.py", "src/config.py"} <= at_once
    assert "src/data/prepare.py" not in at_once
    late = {str(file) for file in kernels.imported_files(REPOSITORY / "src/training/experiment.py", within_functions=True)}
    assert "src/data/duplicates.py" in late  # experiment → prepare → in a function → audit → duplicates
    early = {str(file) for file in kernels.imported_files(REPOSITORY / "src/training/experiment.py", within_functions=False)}
    assert "src/data/duplicates.py" not in early


def test_checksums_are_those_of_sha256sum_without_what_the_client_keeps_back(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.txt").write_text("b")
    (tmp_path / "c d.txt").write_text("c")
    for name in kernels.METADATA:
        (tmp_path / name).write_text("{}")
    kernels.write_checksums(tmp_path)
    lines = (tmp_path / kernels.CHECKSUMS).read_text().splitlines()
    assert lines == [f"{hashlib.sha256(t.encode()).hexdigest()}  {n}" for n, t in (("a/b.txt", "b"), ("c d.txt", "c"))]
    subprocess.run(["sha256sum", "--check", "--strict", kernels.CHECKSUMS], cwd=tmp_path, check=True, capture_output=True)


def fill(folder: Path, text: str, fail: bool = False) -> None:
    with kernels.whole_folder(folder, mark="mark") as partial:
        (partial / "mark").write_text(text)
        if fail:
            raise RuntimeError("midway")


def test_an_older_folder_of_the_same_kind_is_replaced_as_a_whole(tmp_path: Path):
    fill(tmp_path / "out", "old")
    (tmp_path / "out/stale").write_text("x")
    fill(tmp_path / "out", "new")
    assert {file.name: file.read_text() for file in (tmp_path / "out").iterdir()} == {"mark": "new"}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_after_an_error_the_older_folder_is_as_it_was(tmp_path: Path):
    fill(tmp_path / "out", "old")
    with pytest.raises(RuntimeError, match="midway"):
        fill(tmp_path / "out", "new", fail=True)
    assert (tmp_path / "out/mark").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_where_the_new_folder_cant_be_moved_in_the_older_one_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path / "out", "old")
    replace = kernels.os.replace

    def refuse(source: Path, target: Path) -> None:
        if str(source).endswith(".partial"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(kernels.os, "replace", refuse)
    with pytest.raises(UserError, match=r"out: can't be written: No space left on device"):
        fill(tmp_path / "out", "new")
    assert (tmp_path / "out/mark").read_text() == "old"


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="the folder is not empty, and no older version of this"):
        fill(tmp_path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_of_the_folders_name_is_refused(tmp_path: Path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(UserError, match="there is a file of this name"):
        fill(tmp_path / "out", "new")


def test_what_belongs_to_this_machine_and_account_stays_here():
    data = DataConfig(root="/mnt/disk", workers=3, folds=7)
    train = TrainConfig(device="cuda:1", epochs=2)
    away = kernels.elsewhere(Config(data=data, train=train, tracking=TrackingConfig(mode="online", entity="us")))
    assert away == Config(data=DataConfig(folds=7), train=TrainConfig(epochs=2), tracking=TrackingConfig(mode="disabled"))
