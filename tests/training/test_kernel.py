"""The training notebook, run as a script where Kaggle's folders would be: it trains, and goes on with its own output."""

import ast
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from src.config import Config
from src.errors import UserError
from src.training import kernel
from src.training.run import Run
from tiny_runs import tiny

DIGITS = {"predict__tta": "none", "data__rows": 100, "train__batch_size": 16}


def cells(folder: Path) -> list[str]:
    notebook = json.loads((folder / "train.ipynb").read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def configuration_in(folder: Path) -> dict:
    return yaml.safe_load(constant(cells(folder)[1], "CONFIG"))


def constant(cell: str, name: str) -> str:
    """What a cell assigns to a name, which must be a literal."""
    assigned = [node for node in ast.parse(cell).body if isinstance(node, ast.Assign) and node.targets[0].id == name]
    return ast.literal_eval(assigned[0].value)


def make(folder: Path, config: Config, *folds: str) -> list[str]:
    said: list[str] = []
    kernel.make(folder, "tiny", config, list(folds or ("0",)), "me", said.append)
    return said


def session(folder: Path, kaggle: Path) -> subprocess.CompletedProcess[str]:
    """A session on Kaggle: the notebook's cells as a script, without account or repository."""
    (kaggle / "cells.py").write_text("\n".join(cells(folder)).replace("/kaggle/", f"{kaggle}/"))
    (kaggle / "working").mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(kaggle), "OMP_NUM_THREADS": "1", "TMPDIR": str(kaggle)}
    command = [sys.executable, str(kaggle / "cells.py")]
    return subprocess.run(command, cwd=kaggle / "working", env=env, text=True, capture_output=True, timeout=300)


def test_a_session_goes_on_with_the_run_that_an_earlier_one_left_in_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    output = tmp_path / "input/notebooks/me/tiny-train"
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "short", tiny(Path("nowhere"), "digits", train__max_minutes=1e-4, train__epochs=3, **DIGITS))
    (tmp_path / "config.yaml").write_text(constant(cells(tmp_path / "short")[1], "CONFIG"))
    kernel.train(tmp_path / "config.yaml", "tiny", ["0"], given=tmp_path / "input", kept=output)
    assert "fold 0, epoch 1: not finished; add this notebook's output to its input" in capsys.readouterr().out
    assert Run(output / "runs/tiny").epochs_done("0") <= 1

    make(tmp_path / "out", tiny(Path("nowhere"), "digits", train__epochs=3, **DIGITS))
    later = session(tmp_path / "out", tmp_path)
    assert later.returncode == 0, later.stderr[-2000:]
    assert f"going on with {output}/runs/tiny" in later.stdout
    assert "fold 0: goes on at epoch 1, step 2" in later.stdout, later.stdout
    assert "not finished" not in later.stdout
    assert [entry.name for entry in (tmp_path / "working").iterdir()] == ["runs"]
    run = Run(tmp_path / "working/runs/tiny")
    assert pd.read_csv(run.fold("0") / "history.csv")["epoch"].tolist() == [1, 2, 3]
    assert run.oof()["0"].logits.shape == (50, 10)


def test_the_notebook_carries_the_folds_and_the_knobs_of_the_command_line(tmp_path: Path):
    make(tmp_path / "out", tiny(Path("nowhere"), train__lr=0.5), "0", "full")
    assert """kernel.train(Path("config.yaml"), 'tiny', ['0', 'full']""" in cells(tmp_path / "out")[2]
    assert configuration_in(tmp_path / "out")["train"]["lr"] == 0.5
    pytest.importorskip("nbformat").validate(json.loads((tmp_path / "out/train.ipynb").read_text()))


def test_time_data_device_and_account_are_kaggles(tmp_path: Path):
    make(tmp_path / "out", tiny(Path("/home/me/data")))
    tree = configuration_in(tmp_path / "out")
    assert (tree["data"]["root"], tree["data"]["workers"], tree["train"]["device"]) == (None, None, "auto")
    assert tree["train"]["max_minutes"] == kernel.MINUTES
    assert tree["tracking"]["mode"] == "disabled"
    assert "/home/me" not in (tmp_path / "out/train.ipynb").read_text()


def test_the_metadata_name_the_competition_and_switch_the_internet_off(tmp_path: Path):
    said = make(tmp_path / "out", tiny(Path("nowhere")))
    metadata = json.loads((tmp_path / "out/kernel-metadata.json").read_text())
    assert metadata["id"] == "me/tiny-train"
    assert metadata["code_file"] == "train.ipynb"
    assert metadata["competition_sources"] == ["dogs-vs-cats-redux-kernels-edition"]
    assert metadata["enable_internet"] is False
    assert said == [f"kaggle kernels push -p {tmp_path / 'out'}"]


def test_weights_of_the_hub_need_the_internet_and_it_says_so(tmp_path: Path):
    said = make(tmp_path / "out", tiny(Path("nowhere"), model__weights="hub"))
    assert json.loads((tmp_path / "out/kernel-metadata.json").read_text())["enable_internet"] is True
    assert any("--model.weights FILE brings them along" in line for line in said)


def test_a_file_of_weights_goes_along_as_a_dataset_and_is_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "net.safetensors").write_bytes(b"weights")
    said = make(tmp_path / "out", tiny(Path("nowhere"), model__weights=str(tmp_path / "net.safetensors")))
    dataset = json.loads((tmp_path / "out/weights/dataset-metadata.json").read_text())
    metadata = json.loads((tmp_path / "out/kernel-metadata.json").read_text())
    assert metadata["dataset_sources"] == [dataset["id"]] == ["me/net-weights"]
    assert metadata["enable_internet"] is False
    assert said[0].startswith(f"kaggle datasets create -p {tmp_path / 'out/weights'} && ")
    assert configuration_in(tmp_path / "out")["model"]["weights"] == "weights/net.safetensors"

    config = tiny(Path("nowhere"), model__weights="weights/net.safetensors")
    monkeypatch.chdir(tmp_path / "out/weights")
    with pytest.raises(UserError, match=r"net.safetensors is in no dataset below .*: add the dataset"):
        kernel._bring_weights(config, tmp_path / "input")
    (tmp_path / "input/datasets/me/net-weights").mkdir(parents=True)
    (tmp_path / "input/datasets/me/net-weights/net.safetensors").write_bytes(b"weights")
    kernel._bring_weights(config, tmp_path / "input")
    assert Path("weights/net.safetensors").read_bytes() == b"weights"


HOSTILE = [
    "'''\nimport os; os.system('touch pwned')\n'''", '"""', "it's", 'say "x"', "\\", "a\\'''", "$run ${config}", "\u2028",
    "</script>", "`rm -rf`", "[x](y)", "#", "\r\n# pwned", "{label}", "%s", "nl\n", "日本 🐶",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_configuration_says_is_never_code(text: str, tmp_path: Path):
    """Of names, columns and classes that a stranger's YAML holds: the cells parse, and give the values as they are."""
    config = tiny(Path("nowhere"))
    competition = {"label_column": text, "classes": (text, "other"), "slug": text, "train_images": f"{text}/{{id}}"}
    config = config.model_copy(update={"competition": config.competition.model_copy(update=competition)})
    said: list[str] = []
    out = tmp_path / "it's $HOME"
    kernel.make(out, text, config, ["0"], "me", said.append)
    _, configure, train = cells(out)
    read = yaml.safe_load(constant(configure, "CONFIG"))["competition"]
    assert [read[name] for name in competition] == [text, [text, "other"], text, f"{text}/{{id}}"]
    (*_, call) = ast.parse(train).body
    assert [ast.literal_eval(argument) for argument in call.value.args[1:]] == [text, ["0"]]
    assert [type(node) for node in ast.parse(configure).body] == [ast.Assign, ast.Expr]
    introduction = "".join(json.loads((out / "train.ipynb").read_text())["cells"][0]["source"])
    assert len(introduction.splitlines()) == 4, introduction
    assert shlex.split(said[-1])[-1] == str(out)


def test_the_same_configuration_gives_the_same_notebook_and_replaces_the_older(tmp_path: Path):
    make(tmp_path / "out", tiny(Path("nowhere")))
    before = (tmp_path / "out/train.ipynb").read_bytes()
    make(tmp_path / "out", tiny(Path("nowhere")))
    assert (tmp_path / "out/train.ipynb").read_bytes() == before


# What is refused


def test_more_time_than_a_session_has_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"train.max_minutes: 900 is longer than a kernel may run; at most 710"):
        make(tmp_path / "out", tiny(Path("nowhere"), train__max_minutes=900))
    assert not (tmp_path / "out").exists()


def test_pseudo_labels_of_a_run_here_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"train.pseudo_labels: runs/teacher can't be brought into a kernel"):
        make(tmp_path / "out", tiny(Path("nowhere"), train__pseudo_labels="runs/teacher"))


def test_weights_that_are_not_there_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"model.weights: gone.pth: no such file"):
        make(tmp_path / "out", tiny(Path("nowhere"), model__weights="gone.pth"))


def test_a_folder_in_use_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="the folder is not empty"):
        make(tmp_path, tiny(Path("nowhere")))
