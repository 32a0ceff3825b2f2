"""Kaggle's kernels and datasets as folders that its client uploads: a notebook, metadata, the code it runs, checksums."""

import ast
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.config import REPOSITORY, Config, TrackingConfig
from src.errors import UserError
from src.files import sha256

CHECKSUMS = "checksums.sha256"
METADATA = ("dataset-metadata.json", "kernel-metadata.json")  # read by the client, and not uploaded
UNKNOWN_USER = "USERNAME"  # to be filled in by hand
LONGEST_TITLE = 50  # and six at least: Kaggle's limits for a dataset's title and slug
GPU = "NvidiaTeslaT4"  # not Kaggle's default, the P100, which newer builds of torch no longer know


def elsewhere(config: Config) -> Config:
    """The configuration without what belongs to this machine and account."""
    data = config.data.model_copy(update={"root": None, "workers": None})
    train = config.train.model_copy(update={"device": "auto"})
    return config.model_copy(update={"data": data, "train": train, "tracking": TrackingConfig(mode="disabled")})


def username(given: str | None) -> str:
    """Kaggle's name of the user: as given, else KAGGLE_USERNAME, else kaggle.json's, else UNKNOWN_USER."""
    named = given or os.environ.get("KAGGLE_USERNAME") or _saved_username() or UNKNOWN_USER
    if not re.fullmatch(r"[A-Za-z0-9-]+", named):
        raise UserError(f"--kaggle_user {named}: Kaggle's user names are of letters, digits and hyphens")
    return named


def slug(title: str) -> str:
    """What stands in Kaggle's addresses for a title: "Dogs, my best" → "dogs-my-best"."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def title(name: str, what: str) -> str:
    """A run's name and what is uploaded of it, within Kaggle's limit."""
    return f"{name[: LONGEST_TITLE - len(what) - 1].rstrip('-_. ')} {what}"


def dataset_metadata(user: str, title: str) -> dict[str, Any]:
    """dataset-metadata.json. The licence is "other": weights stand under their data's and their pretrained weights' terms."""
    return {"title": title, "id": f"{user}/{slug(title)}", "licenses": [{"name": "other"}]}


def kernel_metadata(
    user: str, title: str, notebook: str, competition: str | None, datasets: tuple[str, ...] = (), internet: bool = False
) -> dict[str, Any]:
    """kernel-metadata.json of a private GPU notebook. competition: its slug; datasets: USER/SLUG of each."""
    return {
        "id": f"{user}/{slug(title)}", "title": title, "code_file": notebook, "language": "python",
        "kernel_type": "notebook", "is_private": True, "enable_gpu": True, "machine_shape": GPU, "enable_internet": internet,
        "competition_sources": [competition] if competition else [], "dataset_sources": list(datasets),
        "kernel_sources": [], "model_sources": [],
    }  # fmt: skip


def notebook(*cells: tuple[str, str]) -> str:
    """An .ipynb (nbformat 4.5) of cells ("markdown" or "code", source), not yet run."""
    written = []
    for number, (kind, source) in enumerate(cells):
        lines = source.strip("\n").splitlines(keepends=True)
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": lines}
        written.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return as_json({"cells": written, "metadata": {"kernelspec": kernelspec}, "nbformat": 4, "nbformat_minor": 5})


def as_json(tree: dict[str, Any]) -> str:
    return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"


def imported_files(entry: Path, within_functions: bool) -> list[Path]:
    """The repository's files that `entry` and what it imports need, itself left out; relative to the repository, sorted.

    within_functions: also what those files import only when a function of theirs is called; of `entry` this counts always.
    """
    found: set[Path] = set()
    pending = list(_imports(entry, everywhere=True))
    while pending:
        file = pending.pop()
        if file not in found:
            found.add(file)
            pending += _imports(file, within_functions)
    packages = {folder / "__init__.py" for file in found for folder in file.parents if (folder / "__init__.py").is_file()}
    return sorted(file.relative_to(REPOSITORY) for file in found | packages if file != entry)


def write_checksums(folder: Path) -> None:
    """CHECKSUMS: a line `sha256  path` for every file below `folder`, as sha256sum writes them; METADATA is left out."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name not in (CHECKSUMS, *METADATA))
    lines = [f"{sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


@contextmanager
def whole_folder(path: Path, mark: str) -> Iterator[Path]:
    """A new folder to fill, renamed to `path` at the end; after an error `path` is as it was.

    Raises UserError where `path` is in use: only an empty folder is replaced, or an older one of the same kind, which has
    a file `mark`.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: there is a file of this name; name a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / mark).is_file():
        raise UserError(f"{path}: the folder is not empty, and no older version of this; name another one")
    path = path.resolve()
    partial, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("partial", "old"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from None
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _saved_username() -> str | None:
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
    try:
        return json.loads((folder / "kaggle.json").read_text(encoding="utf-8")).get("username")
    except (OSError, ValueError, AttributeError):  # no such file, or not the client's
        return None


def _imports(file: Path, everywhere: bool) -> Iterator[Path]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:  # `if TYPE_CHECKING:` stands in the body as one piece
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in modules:
            path = REPOSITORY / f"{module.replace('.', '/')}.py"
            if module.startswith("src.") and path.is_file():
                yield path
