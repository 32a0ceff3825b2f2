"""train.py --kernel: a notebook that trains on Kaggle's GPU and leaves a run that the next session goes on with.

The notebook holds all it needs: the code, packed, and the configuration. It calls `train` below, so nothing of the
command line is needed there.
"""

import base64
import glob
import io
import os
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from string import Template

from src import config as configuration
from src.competitions import kernels
from src.config import REPOSITORY, Config, ConfigError
from src.errors import UserError
from src.training.run import Run

MINUTES = 500.0  # where train.max_minutes says nothing: within 9 hours, and 12 are the most that a session may take
LONGEST = 710.0
NOTEBOOK = "train.ipynb"

INTRODUCTION = """
# $title

Trains the run $run on Kaggle's GPU, for $minutes minutes at most, and leaves it in $folder of the notebook's output.
To go on with what is unfinished, add this notebook's own output to its input and run it again.
"""
UNPACK = """
import base64
import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path

CODE = $code
work = Path(tempfile.mkdtemp())  # code and unpacked archives, not among the notebook's output
zipfile.ZipFile(io.BytesIO(base64.b64decode(CODE))).extractall(work)
os.chdir(work)
sys.path.insert(0, str(work))
"""
CONFIGURE = """
CONFIG = $config
Path("config.yaml").write_text(CONFIG, encoding="utf-8")
"""
TRAIN = """
from src.training import kernel

kernel.train(Path("config.yaml"), $run, $folds, given=Path("/kaggle/input"), kept=Path("/kaggle/working"))
"""


def make(
    folder: Path, name: str, config: Config, wanted: list[str], user: str | None = None, said: Callable[[str], None] = print
) -> None:
    """Write notebook and metadata that train the folds `wanted` of the run `name` to `folder`, and a dataset of the weights.

    user: Kaggle's name of the user; none: found, or left to be filled in. An older kernel in `folder` is replaced, and what
    else lies there kept. Raises UserError for what can't be done in a kernel, and where the folder is in use.
    """
    weights = _weights(config)
    owner = kernels.username(user)
    title = kernels.title(name, "train")
    dataset = kernels.dataset_metadata(owner, kernels.title(weights.stem, "weights")) if weights else None
    there = _there(config, weights)
    metadata = kernels.kernel_metadata(
        owner, title, NOTEBOOK, config.competition.slug, (dataset["id"],) if dataset else (), config.model.weights == "hub"
    )
    told = {
        "title": kernels.markdown(title), "run": kernels.markdown_code(name), "folder": kernels.markdown_code(f"runs/{name}"),
        "minutes": f"{there.train.max_minutes:g}",
    }  # fmt: skip
    cells = [
        ("markdown", Template(INTRODUCTION).substitute(told)),
        kernels.code(UNPACK, code=_packed_code()),
        kernels.code(CONFIGURE, config=configuration.dump(there)),
        kernels.code(TRAIN, run=name, folds=wanted),
    ]
    with kernels.whole_folder(folder, "kernel", said) as partial:
        (partial / NOTEBOOK).write_text(kernels.notebook(*cells), encoding="utf-8")
        (partial / "kernel-metadata.json").write_text(kernels.as_json(metadata), encoding="utf-8")
        if weights:
            (partial / "weights").mkdir()
            shutil.copyfile(weights, partial / "weights" / weights.name)
            (partial / "weights" / "dataset-metadata.json").write_text(kernels.as_json(dataset), encoding="utf-8")
    _say(folder, weights, config, owner, said)


def train(config_file: Path, name: str, folds: list[str], given: Path, kept: Path) -> None:
    """What the notebook calls: train the run kept/runs/name, going on with the furthest of that name below `given`.

    given: Kaggle's input, with the competition, the weights and, from the second session on, the notebook's own output.
    """
    from src.training import experiment
    from src.training.fold import Interrupted, OutOfTime

    config = configuration.load(config_file)
    _bring_weights(config, given)
    run = Run(kept / "runs" / name)
    found = [file for depth in ("*", "*/*/*") for file in given.glob(f"{depth}/runs/{glob.escape(name)}/config.yaml")]
    earlier = [Run(file.parent) for file in found]
    if earlier and not run.path.is_dir():
        furthest = max(earlier, key=lambda run: sum(run.epochs_done(fold) for fold in run.trained_folds()))
        print(f"going on with {furthest.path}")
        shutil.copytree(furthest.path, run.path, copy_function=shutil.copyfile)
    try:
        experiment.train(run, config, folds, resume=True, overwrite=False)
    except (OutOfTime, Interrupted) as where:
        print(f"{where}: not finished; add this notebook's output to its input and run it again")


def _weights(config: Config) -> Path | None:
    """The file of pretrained weights, where it is one."""
    if config.train.max_minutes is not None and config.train.max_minutes > LONGEST:
        raise ConfigError(
            f"train.max_minutes: {config.train.max_minutes:g} is longer than a kernel may run; at most {LONGEST:g}"
        )
    if config.train.pseudo_labels is not None:
        raise ConfigError(f"train.pseudo_labels: {config.train.pseudo_labels} can't be brought into a kernel; train this here")
    if config.model.weights in ("hub", "none"):
        return None
    if not Path(config.model.weights).is_file():
        raise UserError(f"model.weights: {config.model.weights}: no such file")
    return Path(config.model.weights)


def _there(config: Config, weights: Path | None) -> Config:
    """The configuration as it runs on Kaggle: its own data and device, in time, without an account."""
    model = config.model.model_copy(update={"weights": f"weights/{weights.name}"} if weights else {})
    there = kernels.elsewhere(config)
    train = there.train.model_copy(update={"max_minutes": config.train.max_minutes or MINUTES})
    return there.model_copy(update={"model": model, "train": train})


def _packed_code() -> str:
    """A zip of all files that training imports, base64. The same files give the same text."""
    here = Path(__file__).resolve()
    files = [here.relative_to(REPOSITORY), *kernels.imported_files(here, within_functions=True), Path("LICENSE")]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(file.as_posix()), (REPOSITORY / file).read_bytes(), zipfile.ZIP_DEFLATED)
    return base64.b64encode(packed.getvalue()).decode("ascii")


def _bring_weights(config: Config, given: Path) -> None:
    """Link the attached file of weights to where the configuration has it, wherever Kaggle mounted its dataset."""
    if config.model.weights in ("hub", "none") or Path(config.model.weights).exists():
        return
    wanted = Path(config.model.weights)
    found = next((file for depth in ("*", "*/*/*") for file in given.glob(f"{depth}/{glob.escape(wanted.name)}")), None)
    if found is None:
        raise UserError(f"{wanted.name} is in no dataset below {given}: add the dataset of the weights to the notebook's input")
    wanted.parent.mkdir(exist_ok=True)
    os.symlink(found, wanted)


def _say(folder: Path, weights: Path | None, config: Config, owner: str, said: Callable[[str], None]) -> None:
    commands = [shlex.join(["kaggle", "kernels", "push", "-p", str(folder)])]
    if weights:
        commands.insert(0, shlex.join(["kaggle", "datasets", "create", "-p", str(folder / "weights")]))
    if owner == kernels.UNKNOWN_USER:
        said(f"put your Kaggle name in place of {owner} in the metadata files, or name it with --kaggle_user")
    if config.model.weights == "hub":
        said("the pretrained weights come from the hub, so the kernel has internet; --model.weights FILE brings them along")
    if config.competition.slug is None and config.competition.name != "digits":
        said(f"{config.competition.name} has no competition.slug: add its data to the notebook's input yourself")
    said(" && ".join(commands))
