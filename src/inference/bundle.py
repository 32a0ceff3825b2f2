"""A run as one folder to upload to Kaggle: models, configuration, the code that predicts, checksums, card and notebook."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from string import Template

import timm
import yaml

from src import config as configuration
from src.competitions import kernels
from src.competitions.tables import shorten
from src.config import REPOSITORY, Config
from src.data import folds
from src.errors import UserError, command
from src.files import sha256
from src.inference import unseen
from src.inference.members import Member, read_predicted
from src.inference.predict import check_models
from src.models import backbone
from src.training.run import Run, cross_validation
from src.views import described

HERE = Path(__file__).resolve().parent
PREDICTOR = HERE / "kernel.py"
RECIPE = ("model", "data", "train")  # the knobs that the card lists where they differ from their defaults

INTRODUCTION = """
# $title

Predicts with the models of the dataset $dataset, without internet, and writes submission.csv.
"""
FIND = """
import subprocess
import sys
import tempfile
from pathlib import Path

INPUT = Path("/kaggle/input")
places = [INPUT / $slug, *INPUT.glob("datasets/*/" + $slug)]
bundle = next((place for place in places if (place / "predict.py").is_file()), None)
assert bundle, "add the dataset " + $dataset + " to this notebook's input"
"""
INSTALL = """
wheels = sorted((bundle / "wheels").glob("*.whl"))  # brought along where the image's packages are too old
if wheels:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *wheels], check=True)
"""
PREDICT = """
out = Path("/kaggle/working/submission.csv")
unpacked = tempfile.mkdtemp()  # where the competition's archives are unpacked, not among the kernel's output
subprocess.run([sys.executable, bundle / "predict.py", "--out", out], cwd=unpacked, check=True)
print(out.read_text()[:200])
"""


def make(run: Run, config: Config, folder: Path, user: str | None = None, said: Callable[[str], None] = print) -> None:
    """Write the bundle of all trained folds of `run`, which predicts as predict.py does with `config`, to `folder`.

    user: Kaggle's name of the user; none: found, or left to be filled in. An older bundle in `folder` is replaced.
    Raises UserError, before anything is written, for a run without models or with models that aren't its own.
    """
    config.views()
    trained = run.trained_folds()
    if not trained:
        what = "is an ensemble: bundle each of its members" if (run.path / "ensemble.json").is_file() else "has no trained fold"
        raise UserError(f"{run.path} {what}")
    check_models(run, config, trained)
    _check_predicted(run, trained)
    owner = kernels.username(user)
    with kernels.whole_folder(folder, "bundle", said) as partial:
        _write_code(partial)
        for fold in trained:
            (partial / f"fold-{fold}").mkdir()
            shutil.copyfile(run.fold(fold) / "model.safetensors", partial / f"fold-{fold}" / "model.safetensors")
        made_with = configuration.read_yaml(run.path / "config.yaml").get("made_with")
        made_with = made_with if isinstance(made_with, dict) else {}
        (partial / "config.yaml").write_text(configuration.dump(_elsewhere(config), made_with=made_with), encoding="utf-8")
        _write_prior(partial, run, trained)
        _write_for_kaggle(partial, run, config, owner)
        (partial / "README.md").write_text(_model_card(run, config, trained, made_with, owner), encoding="utf-8")
        kernels.write_checksums(partial)
        size = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
    predictor = shlex.join(["python", str(folder / "predict.py")])
    said(f"{folder}: {len(trained)} models, {size / 1e6:.1f} MB; `{predictor} --data FOLDER` predicts")
    if owner == kernels.UNKNOWN_USER:
        said(f"put your Kaggle name in place of {owner} in {' and '.join(kernels.METADATA)}, or name it with --kaggle_user")
    quoted = shlex.quote(str(folder))
    said(f"kaggle datasets create -p {quoted} --dir-mode zip && kaggle kernels push -p {quoted}")


def _check_predicted(run: Run, trained: list[str]) -> None:
    """The models are those that predict.py saw last: its score under TTA goes onto the card."""
    for fold in trained:
        record = run.fold(fold) / "predicted.json"
        model = run.fold(fold) / "model.safetensors"
        if record.is_file() and read_predicted(record)["model_sha256"] != sha256(model):
            raise UserError(
                f"{model} was altered after predict.py used it; {command('predict.py', run.path)} predicts with it anew"
            )


def _elsewhere(config: Config) -> Config:
    """The configuration without what belongs to this machine and account, the weights' folder among it."""
    model = config.model.model_copy(update={"weights": Path(config.model.weights).name})
    return kernels.elsewhere(config).model_copy(update={"model": model})


def _write_code(folder: Path) -> None:
    """predict.py, the files of src that it imports, and what these need."""
    shutil.copyfile(PREDICTOR, folder / "predict.py")
    for file in kernels.imported_files(PREDICTOR, within_functions=False):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / file, folder / file)
    shutil.copyfile(HERE / "kernel_requirements.txt", folder / "requirements.txt")
    shutil.copyfile(REPOSITORY / "LICENSE", folder / "LICENSE")


def _write_prior(folder: Path, run: Run, trained: list[str]) -> None:
    """prior.json, for predict.unreadable: each class's share of the training rows; folds.csv itself is the competition's."""
    classes = backbone.read_card(run.fold(trained[0]) / "model.safetensors").classes
    shares = unseen.shares(folds.read_folds(run.folds_csv())["label"], classes)
    told = dict(zip(classes, shares.tolist(), strict=True))
    (folder / "prior.json").write_text(kernels.as_json(told), encoding="utf-8")


def _write_for_kaggle(folder: Path, run: Run, config: Config, owner: str) -> None:
    """The notebook and both metadata files."""
    dataset = kernels.dataset_metadata(owner, kernels.title(run.name, "bundle"))
    title = kernels.title(run.name, "predict")
    told = {"title": kernels.markdown(title), "dataset": kernels.markdown_code(dataset["id"])}
    find = kernels.code(FIND, dataset=dataset["id"], slug=kernels.slug(dataset["title"]))
    introduction = ("markdown", Template(INTRODUCTION).substitute(told))
    notebook = kernels.notebook(introduction, find, kernels.code(INSTALL), kernels.code(PREDICT))
    kernel = kernels.kernel_metadata(owner, title, "predict.ipynb", config.competition.slug, (dataset["id"],))
    (folder / "predict.ipynb").write_text(notebook, encoding="utf-8")
    for name, tree in zip(kernels.METADATA, (dataset, kernel), strict=True):
        (folder / name).write_text(kernels.as_json(tree), encoding="utf-8")


def _model_card(run: Run, config: Config, trained: list[str], made_with: dict[str, str], owner: str) -> str:
    card = backbone.read_card(run.fold(trained[0]) / "model.safetensors")
    fill_in = f"\nPut your Kaggle name in place of {owner} in {' and '.join(kernels.METADATA)} first.\n"
    flattering = "\nThe best epoch was picked by these same rows (train.keep: best), which flatters the score.\n"
    return Template((HERE / "model_card.md").read_text(encoding="utf-8")).substitute(
        title=kernels.markdown(kernels.title(run.name, "bundle")),
        run=kernels.markdown_code(run.name),
        command=kernels.markdown_code(shlex.join(["python", "predict.py", f"runs/{run.name}", "--bundle", "FOLDER"])),
        competition=kernels.markdown(config.competition.name),
        fill_in=fill_in if owner == kernels.UNKNOWN_USER else "",
        backbone=kernels.markdown_code(card.name),
        input=f"{card.input.size}×{card.input.size} pixels, mean {card.input.mean}, std {card.input.std}, resize {card.resize}",
        classes=f"{len(card.classes)}: {kernels.markdown(shorten(card.classes, 10))}",
        folds=", ".join(trained),
        views=", ".join(map(str, config.views())),
        mean=config.predict.tta_mean,
        made_with=kernels.markdown(", ".join(f"{name} {version}" for name, version in made_with.items())) or "unknown",
        origin=_origin(config),
        recipe=_recipe(config),
        data=_data(run, config),
        metric=config.competition.metric,
        scores=_scores(run, config),
        per_fold=_per_fold(run, config.competition.metric),
        selection=flattering if config.train.keep == "best" else "",
        licence=_licence(config),
    )


def _origin(config: Config) -> str:
    name = Path(config.model.weights).name
    file = f"pretrained weights from the file {kernels.markdown_code(name)}"
    return {"none": "random weights", "hub": "timm's pretrained weights"}.get(name, file)


def _licence(config: Config) -> str:
    if config.model.weights == "none":
        return "and nothing else: they were trained from scratch."
    known = timm.get_pretrained_cfg(config.model.name)
    said = f": timm names {known.license} for this backbone's" if known is not None and known.license else ""
    return f"and so does the licence of the pretrained weights{said}."


def _recipe(config: Config) -> str:
    """The knobs that are not as by default, as YAML."""
    given, default = _elsewhere(config).model_dump(mode="json"), Config().model_dump(mode="json")
    changed = {
        section: {key: value for key, value in given[section].items() if value != default[section][key]} for section in RECIPE
    }
    tree = {section: knobs for section, knobs in changed.items() if knobs}
    return kernels.markdown_code(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120), "yaml\n")


def _data(run: Run, config: Config) -> str:
    table = folds.read_folds(run.folds_csv())
    competition = config.competition
    expected = competition.expected_train
    part = f" of Kaggle's {expected:,}" if expected not in (None, len(table)) else ""
    slug, name = competition.slug, kernels.markdown(competition.name)
    where = f"https://www.kaggle.com/c/{kernels.markdown(slug)}" if slug else f"the competition {name}"
    counts = table["label"].value_counts()
    return (
        f"{len(table):,}{part} labelled images of {where}, from {counts.min():,} to {counts.max():,} a class, "
        f"in {config.data.folds} folds; sha256 of folds.csv: `{sha256(run.folds_csv())}`."
    )


def _scores(run: Run, config: Config) -> str:
    """Rows of a Markdown table: without TTA and with it, where the out-of-fold rows were predicted under the bundle's views."""
    rows, member = [], Member(run.path)
    seen = {member.made_by(fold, "oof_tta.npz")[0] for fold in member.folds_with("oof_tta.npz")}
    alike = seen == {described(config.views(), config.predict.tta_mean)}
    for title, file in (("without TTA", "oof.npz"), ("with TTA", "oof_tta.npz")):
        cv = cross_validation(run, config.competition.metric, file) if alike or file == "oof.npz" else None
        if cv is None:
            rows.append(f"| {title} | not measured | |")
            continue
        spread = f"{cv.mean:.4f} ± {cv.sd:.4f} (n={len(cv.folds)})" if len(cv.folds) > 1 else "one fold"
        rows.append(f"| {title} | {cv.oof:.4f} (n={cv.rows:,}) | {spread} |")
    return "\n".join(rows)


def _per_fold(run: Run, metric: str) -> str:
    cv = cross_validation(run, metric)
    return ", ".join(f"fold {fold} {value:.4f}" for fold, value in cv.folds.items()) if cv else "no fold was held out"
