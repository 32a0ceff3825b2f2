"""The bundle: it predicts in an empty folder without network as predict.py does, and refuses what was altered."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from conftest import REPOSITORY, write_dogs_vs_cats
from src.competitions import kernels
from src.errors import UserError
from src.inference import bundle, kernel
from src.inference.predict import predict_run
from src.training.run import Run, cross_validation
from tiny_runs import tiny, train

NAMES = {"cv2": "opencv-python-headless", "sklearn": "scikit-learn", "yaml": "PyYAML", "huggingface_hub": "huggingface-hub"}
TRAINING_ONLY = ("albumentations", "src.training.loop", "src.training.optimizer", "src.training.experiment")


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs_vs_cats(tmp_path_factory.mktemp("dogs"), test=11)


@pytest.fixture(scope="module")
def predicted(dogs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/tiny, trained on both folds and predicted, and its submission."""
    folder = tmp_path_factory.mktemp("predicted")
    here = Path.cwd()
    os.chdir(folder)
    train(Run(Path("runs/tiny")), tiny(dogs), "all")
    predict_run(Run(Path("runs/tiny")), tiny(dogs), False, lambda _: None)
    os.chdir(here)
    return folder


@pytest.fixture
def run(predicted: Path, tmp_path: Path) -> Run:
    shutil.copytree(predicted / "runs", tmp_path / "runs")
    return Run(tmp_path / "runs/tiny")


@pytest.fixture(scope="module")
def made(predicted: Path, dogs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle alone, in a folder of its own."""
    folder = tmp_path_factory.mktemp("made") / "out"
    bundle.make(Run(predicted / "runs/tiny"), tiny(dogs), folder, "me", lambda _: None)
    return folder


def without_network() -> list[str]:
    """The prefix of a command that finds no network; nothing where the kernel of this machine doesn't permit it."""
    unshare = ["unshare", "-rn"]
    permitted = shutil.which("unshare") and subprocess.run([*unshare, "true"], capture_output=True).returncode == 0
    return unshare if permitted else []


def start(folder: Path, cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The bundle's predict.py as a clean process: nothing of this environment, `cwd` as the only other folder known."""
    command = [*without_network(), sys.executable, "-X", "importtime", str(folder / "predict.py"), *map(str, arguments)]
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, timeout=300)


def test_in_an_empty_folder_without_network_it_writes_predict_pys_submission_to_the_byte(
    made: Path, predicted: Path, dogs: Path, tmp_path: Path
):
    data, empty = tmp_path / "data", tmp_path / "empty"
    shutil.copytree(dogs / "test", data / "test")  # no training rows: it must not ask for them
    shutil.copy(dogs / "sample_submission.csv", data)
    empty.mkdir()
    before = {file: file.stat().st_mtime_ns for file in made.rglob("*")}
    run = start(made, empty, "--data", data)
    assert run.returncode == 0, run.stderr[-2000:]
    assert (empty / "submission.csv").read_bytes() == (predicted / "submissions/tiny.csv").read_bytes()
    assert [file.name for file in empty.iterdir()] == ["submission.csv"]
    assert {file: file.stat().st_mtime_ns for file in made.rglob("*")} == before
    assert "views: identity, hflip" in run.stdout
    imported = set(re.findall(r"\|\s+([\w.]+)$", run.stderr, re.MULTILINE))
    assert "src.inference.tta" in imported
    assert not imported & set(TRAINING_ONLY)


def test_no_code_of_training_is_in_it(made: Path):
    files = {file.relative_to(made).as_posix() for file in made.rglob("*.py")}
    assert {"predict.py", "src/config.py", "src/inference/tta.py"} <= files
    assert not files & {f"{name.replace('.', '/')}.py" for name in TRAINING_ONLY}
    assert "src/training/tracking.py" not in files
    assert "src/data/augmentation.py" not in files


def test_an_altered_model_is_refused_before_anything_is_imported(made: Path, dogs: Path, tmp_path: Path):
    altered = shutil.copytree(made, tmp_path / "altered")
    model = altered / "fold-1/model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    run = start(altered, tmp_path, "--data", dogs)
    assert run.returncode == 1
    assert f"error: {model} was altered after the bundle was made" in run.stderr
    assert "Traceback" not in run.stderr
    assert not re.search(r"\|\s+(torch|src)$", run.stderr, re.MULTILINE)


def test_missing_test_images_are_refused(made: Path, dogs: Path, tmp_path: Path):
    shutil.copytree(dogs / "test", tmp_path / "data/test")
    shutil.copy(dogs / "sample_submission.csv", tmp_path / "data")
    (tmp_path / "data/test/3.jpg").unlink()
    with pytest.raises(
        UserError, match=r"1 of 11 test rows have no image, the first is \S+test/3.jpg.*--predict.unreadable prior"
    ):
        kernel.predict(made, tmp_path / "data", tmp_path / "submission.csv")
    assert not (tmp_path / "submission.csv").exists()


def test_a_bundle_hands_in_the_classes_shares_where_it_was_made_to(
    run: Run, dogs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """For a test image that is missing, and for one that can't be read: Kaggle wants every row."""
    shutil.copytree(dogs / "test", tmp_path / "data/test")
    shutil.copy(dogs / "sample_submission.csv", tmp_path / "data")
    (tmp_path / "data/test/3.jpg").unlink()
    (tmp_path / "data/test/5.jpg").write_bytes(b"")
    bundle.make(run, tiny(dogs, predict__unreadable="prior"), tmp_path / "out", "me", lambda _: None)
    assert json.loads((tmp_path / "out/prior.json").read_text()) == {"cat": 0.5, "dog": 0.5}
    kernel.predict(tmp_path / "out", tmp_path / "data", tmp_path / "submission.csv")
    lines = dict(line.split(",") for line in (tmp_path / "submission.csv").read_text().splitlines())
    assert (len(lines), lines["3"], lines["5"]) == (12, "0.5", "0.5")
    assert "the classes' shares for 2 without a picture that can be read; valid" in capsys.readouterr().out


def test_wheels_put_beside_the_models_survive_another_making(run: Run, dogs: Path, tmp_path: Path):
    bundle.make(run, tiny(dogs), tmp_path / "out", "me", lambda _: None)
    (tmp_path / "out/wheels").mkdir()
    (tmp_path / "out/wheels/timm.whl").write_text("wheel")
    said: list[str] = []
    bundle.make(run, tiny(dogs), tmp_path / "out", "me", said.append)
    assert (tmp_path / "out/wheels/timm.whl").read_text() == "wheel"
    assert said[0] == f"{tmp_path / 'out'}: left as it was: wheels"


def test_without_a_sample_the_images_are_the_rows_and_it_says_so(
    made: Path, dogs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    shutil.copytree(dogs / "test", tmp_path / "test")
    kernel.predict(made, tmp_path, tmp_path / "submission.csv")
    ids = [line.partition(",")[0] for line in (tmp_path / "submission.csv").read_text().splitlines()]
    assert ids == ["id", *map(str, range(1, 12))]
    told = capsys.readouterr().out
    assert "sample_submission.csv is not there: the rows are those of the test images" in told
    assert "11 test rows (in full 12,500)" in told


def test_a_folder_without_the_competition_is_refused_with_what_is_expected(made: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"test/ not found\. Expected there: .*test/\{id\}\.jpg"):
        kernel.predict(made, tmp_path, tmp_path / "submission.csv")


def test_the_notebook_finds_the_dataset_wherever_it_is_mounted(made: Path, tmp_path: Path):
    notebook = json.loads((made / "predict.ipynb").read_text())
    pytest.importorskip("nbformat").validate(notebook)
    script = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    told = "import sys, pathlib; pathlib.Path(sys.argv[2]).write_text('id,label\\n')"
    for mounted in ("tiny-bundle", "datasets/me/tiny-bundle"):
        for part in ("input", "working"):
            shutil.rmtree(tmp_path / part, ignore_errors=True)
        (tmp_path / "input" / mounted).mkdir(parents=True)
        (tmp_path / "working").mkdir()
        (tmp_path / "input" / mounted / "predict.py").write_text(told)
        run = subprocess.run([sys.executable, "-c", script.replace("/kaggle", str(tmp_path))], text=True, capture_output=True)
        assert run.returncode == 0, run.stderr
        assert run.stdout == "id,label\n\n"


def test_the_metadata_name_dataset_notebook_and_competition(made: Path):
    dataset, kernel = (json.loads((made / name).read_text()) for name in kernels.METADATA)
    assert dataset["id"] == "me/tiny-bundle"
    assert len(dataset["licenses"]) == 1
    assert kernel["id"] == "me/tiny-predict"
    assert kernel["dataset_sources"] == ["me/tiny-bundle"]
    assert kernel["competition_sources"] == ["dogs-vs-cats-redux-kernels-edition"]
    assert kernel["enable_internet"] is False
    assert (made / kernel["code_file"]).is_file()


def test_the_configuration_is_the_runs_without_this_machines_places(made: Path, dogs: Path):
    text = (made / "config.yaml").read_text()
    assert str(dogs) not in text
    tree = yaml.safe_load(text)
    assert tree["train"]["device"] == "auto"
    assert tree["predict"] == tiny(dogs).predict.model_dump()
    assert tree["made_with"]["torch"]


def test_the_views_asked_for_at_the_making_are_the_bundles(run: Run, dogs: Path, tmp_path: Path):
    bundle.make(run, tiny(dogs, predict__tta="none"), tmp_path / "out", "me", lambda _: None)
    assert yaml.safe_load((tmp_path / "out/config.yaml").read_text())["predict"]["tta"] == "none"
    card = (tmp_path / "out/README.md").read_text()
    assert "| views at prediction | identity; mean of probabilities |" in card
    assert "| with TTA | not measured | |" in card, "the run was predicted under other views"


def test_the_card_has_the_scores_without_and_with_tta(made: Path, predicted: Path):
    card = (made / "README.md").read_text()
    for title, file in (("without TTA", "oof.npz"), ("with TTA", "oof_tta.npz")):
        cv = cross_validation(Run(predicted / "runs/tiny"), "log_loss", file)
        assert f"| {title} | {cv.oof:.4f} (n=40) | {cv.mean:.4f} ± {cv.sd:.4f} (n=2) |" in card
    assert "40 of Kaggle's 25,000 labelled images" in card
    assert "cifar_net" in card
    assert "$" not in card


def test_every_package_that_it_imports_is_required_with_a_bound_that_the_tests_packages_meet(made: Path):
    bounds = {r.name: r for r in map(Requirement, read_requirements(made / "requirements.txt"))}
    pinned = {r.name: str(r.specifier)[2:] for r in map(Requirement, read_requirements(REPOSITORY / "requirements.txt"))}
    imported = set()
    for file in made.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None)]
            imported |= {name.partition(".")[0] for name in names if name}
    needed = {NAMES.get(name, name) for name in imported - {"src", *sys.stdlib_module_names}}
    assert {"torch", "timm", "opencv-python-headless", "PyYAML"} <= needed
    assert not needed & {"albumentations", "wandb", "tyro"}  # timm imports wandb, but only where it is installed
    assert needed <= bounds.keys()
    for name in needed & pinned.keys():
        assert [s.operator for s in bounds[name].specifier] == [">="]
        assert bounds[name].specifier.contains(pinned[name])


def read_requirements(file: Path) -> list[str]:
    return [line.partition("#")[0].strip() for line in file.read_text().splitlines() if line.partition("#")[0].strip()]


# What is refused


def test_a_run_without_models_is_refused(dogs: Path, tmp_path: Path):
    with pytest.raises(UserError, match="runs/none has no trained fold"):
        bundle.make(Run(tmp_path / "runs/none"), tiny(dogs), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_ensemble_is_refused_by_its_name(dogs: Path, tmp_path: Path):
    (tmp_path / "runs/both").mkdir(parents=True)
    (tmp_path / "runs/both/ensemble.json").write_text("{}")
    with pytest.raises(UserError, match="runs/both is an ensemble: bundle each of its members"):
        bundle.make(Run(tmp_path / "runs/both"), tiny(dogs), tmp_path / "out")


def test_a_model_that_was_altered_after_it_predicted_is_refused(run: Run, dogs: Path, tmp_path: Path):
    file = run.fold("1") / "model.safetensors"
    with safe_open(file, "pt") as opened:
        card = opened.metadata()
    tensors = load_file(file)
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, file, metadata=card)
    with pytest.raises(UserError, match=r"fold-1/model.safetensors was altered after predict.py used it"):
        bundle.make(run, tiny(dogs), tmp_path / "out")


def test_a_folder_in_use_is_refused_and_an_older_bundle_replaced(run: Run, dogs: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    with pytest.raises(UserError, match="mine: the folder is not empty"):
        bundle.make(run, tiny(dogs), tmp_path / "mine")
    bundle.make(run, tiny(dogs), tmp_path / "out", "me", lambda _: None)
    shutil.rmtree(run.fold("1"))
    bundle.make(run, tiny(dogs), tmp_path / "out", "me", lambda _: None)
    assert [folder.name for folder in (tmp_path / "out").glob("fold-*")] == ["fold-0"]


def test_without_a_user_it_says_what_to_fill_in(run: Run, dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    said: list[str] = []
    bundle.make(run, tiny(dogs), tmp_path / "out", None, said.append)
    assert any("put your Kaggle name in place of USERNAME" in line for line in said)
    assert "USERNAME" in (tmp_path / "out/README.md").read_text()
