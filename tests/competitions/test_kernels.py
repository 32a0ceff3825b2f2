"""What Kaggle's client is given: metadata that it takes, notebooks, the code they need, checksums, whole folders."""

import ast
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


@given(st.text(), st.text(), st.lists(st.text()))
def test_a_cell_gives_the_very_values_that_were_put_in(one: str, other: str, many: list[str]):
    kind, source = kernels.code("a = $one\nb = [$other, $many]\n", one=one, other=other, many=many)
    cell = json.loads(kernels.notebook((kind, source)))["cells"][0]
    first, second = ast.parse("".join(cell["source"])).body
    assert ast.literal_eval(first.value) == one
    assert ast.literal_eval(second.value) == [other, many]


@given(st.text())
def test_any_text_is_one_line_of_markdown(text: str):
    for told in (kernels.markdown(text), kernels.markdown_code(text)):
        assert len(told.splitlines()) <= 1
    fence = kernels.markdown_code(text, "yaml\n").splitlines()[0]
    assert fence.endswith("yaml")
    assert fence.removesuffix("yaml") not in text


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


def fill(folder: Path, fail: bool = False, kind: str = "bundle", **texts: str) -> list[str]:
    """Write files, of names like notes or a__b for a/b, and return what was said."""
    said: list[str] = []
    with kernels.whole_folder(folder, kind, said.append) as partial:
        for name, text in texts.items():
            file = partial / name.replace("__", "/")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        if fail:
            raise RuntimeError("midway")
    return said


def content(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != kernels.MARK]
    return {file.relative_to(folder).as_posix(): file.read_text() for file in files}


def test_an_older_folder_of_the_same_kind_is_replaced_as_a_whole(tmp_path: Path):
    fill(tmp_path / "out", model="old", stale="old", fold__model="old")
    assert fill(tmp_path / "out", model="new") == []
    assert content(tmp_path / "out") == {"model": "new"}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out/fold").exists()


def test_what_others_put_into_the_folder_stays_and_is_named(tmp_path: Path):
    """Wheels, as the bundle's README asks for them, notes, links, an empty folder, and files of ours that were changed."""
    out = tmp_path / "out"
    fill(out, model="old", card="old", fold__model="old")
    for name in ("wheels/a.whl", "wheels/deep/b.whl", "notes.txt", "fold/mine"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    (out / "card").write_text("changed")
    (out / "empty").mkdir()
    (out / "link").symlink_to(tmp_path)
    (said,) = fill(out, model="new")
    assert content(out) == {"model": "new", "card": "changed"} | {
        name: name for name in ("wheels/a.whl", "wheels/deep/b.whl", "notes.txt", "fold/mine")
    }
    assert (out / "link").is_symlink()
    assert (out / "empty").is_dir()
    assert said == f"{out}: left as it was: card, empty, fold, link, notes.txt, wheels"
    assert fill(out, model="newer") == [said]
    assert content(out)["notes.txt"] == "notes.txt"


@pytest.mark.parametrize("blocked", ["changed", "foreign", "folder", "file for a folder", "link for a folder"])
def test_what_stands_in_the_way_is_refused_and_nothing_changed(blocked: str, tmp_path: Path):
    out, new = tmp_path / "out", {"a": "new", "b__c": "new"}
    fill(out, a="old", **({"b__c": "old"} if blocked == "changed" else {}))
    named = {"changed": "b/c", "foreign": "b/c", "folder": "b/c"}.get(blocked, "b")
    if blocked == "folder":
        (out / "b/c").mkdir(parents=True)
    elif blocked == "link for a folder":
        (tmp_path / "elsewhere").mkdir()
        (out / "b").symlink_to(tmp_path / "elsewhere")
    else:
        (out / named).parent.mkdir(exist_ok=True)
        (out / named).write_text("years")
    before = content(out)
    with pytest.raises(UserError, match=f"out: {named}: changed by hand, or not written by this command; move it away"):
        fill(out, **new)
    assert content(out) == before


def test_another_file_of_the_very_same_bytes_is_in_nobodys_way(tmp_path: Path):
    fill(tmp_path / "out", a="old")
    (tmp_path / "out/b").write_text("same")
    assert fill(tmp_path / "out", a="new", b="same") == []
    assert content(tmp_path / "out") == {"a": "new", "b": "same"}


def test_after_an_error_the_older_folder_is_as_it_was(tmp_path: Path):
    fill(tmp_path / "out", model="old")
    with pytest.raises(RuntimeError, match="midway"):
        fill(tmp_path / "out", model="new", fail=True)
    assert content(tmp_path / "out") == {"model": "old"}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_where_the_new_folder_cant_be_moved_in_the_older_one_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path / "out", model="old")
    (tmp_path / "out/notes.txt").write_text("mine")
    replace = kernels.os.replace

    def refuse(source: Path, target: Path) -> None:
        if str(source).endswith(".partial"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(kernels.os, "replace", refuse)
    with pytest.raises(UserError, match=r"out: can't be written: No space left on device"):
        fill(tmp_path / "out", model="new")
    assert content(tmp_path / "out") == {"model": "old", "notes.txt": "mine"}


@pytest.mark.parametrize("name", ["thesis.txt", "train.ipynb", "checksums.sha256", kernels.MARK])
def test_a_folder_that_this_did_not_write_is_refused_and_left_alone(name: str, tmp_path: Path):
    """Also one that an earlier version wrote: it left no list of its files."""
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=rf"the folder is not empty \({name}\), and \.written\.json is not in it.*move these"):
        fill(tmp_path, model="new")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_folder_of_another_kind_is_refused(tmp_path: Path):
    fill(tmp_path / "out", kind="kernel", notebook="mine")
    with pytest.raises(UserError, match="out: the folder holds a kernel"):
        fill(tmp_path / "out", kind="bundle", model="new")
    assert content(tmp_path / "out") == {"notebook": "mine"}


def test_a_file_of_the_folders_name_is_refused(tmp_path: Path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(UserError, match="there is a file of this name"):
        fill(tmp_path / "out", model="new")


def test_what_belongs_to_this_machine_and_account_stays_here():
    data = DataConfig(root="/mnt/disk", workers=3, folds=7)
    train = TrainConfig(device="cuda:1", epochs=2)
    away = kernels.elsewhere(Config(data=data, train=train, tracking=TrackingConfig(mode="online", entity="us")))
    assert away == Config(data=DataConfig(folds=7), train=TrainConfig(epochs=2), tracking=TrackingConfig(mode="disabled"))
