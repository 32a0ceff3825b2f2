"""Kaggle's kernels and datasets as folders that its client uploads: a notebook, metadata, the code it runs, checksums."""

import ast
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

from src.competitions.tables import shorten
from src.config import REPOSITORY, Config, TrackingConfig
from src.errors import UserError
from src.files import sha256

CHECKSUMS = "checksums.sha256"
MARK = ".written.json"  # of whole_folder: the files that it wrote, with their sha256
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


def code(source: str, **values: Any) -> tuple[str, str]:
    """A notebook's cell of code, each $name in it a Python literal: what a stranger's configuration says is never code."""
    return "code", Template(source).substitute({name: literal(value) for name, value in values.items()})


def literal(value: Any) -> str:
    """A Python expression that gives `value`; a text of many lines as one literal a line."""
    lines = value.splitlines(keepends=True) if isinstance(value, str) else []
    return "(\n" + "".join(f"    {line!r}\n" for line in lines) + ")" if len(lines) > 1 else repr(value)


def markdown(text: str) -> str:
    """Any text on one line of Markdown, in a table too, showing the very characters."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", " ".join(text.split()))


def markdown_code(text: str, between: str = "") -> str:
    """Any text as code in Markdown: within a line, or with `between` ("yaml\\n") as a block, whatever backticks it holds."""
    fence = "`" * max(3 if between else 1, 1 + max(map(len, re.findall("`+", text)), default=0))
    if between:
        return f"{fence}{between}{text}{fence}"
    text = " ".join(text.split())
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


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
def whole_folder(path: Path, kind: str, said: Callable[[str], None] = print) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `path` at the end; after an error `path` is as it was.

    MARK in it lists what was written. When a folder of the same `kind` is made again, only those files are replaced or
    removed, and only where nobody changed them; whatever else lies there stays, and is named. Raises UserError, with
    `path` untouched, where `path` is in use by something else, or another's file stands where one of ours belongs.
    """
    ours = _unchanged(path, kind)
    place = Path(os.path.realpath(path))  # resolve() would raise RuntimeError for a link to itself
    partial, old = (place.with_name(f".{place.name}.{os.getpid()}.{end}") for end in ("partial", "old"))
    try:
        partial.mkdir(parents=True)
        yield partial
        written = {file.relative_to(partial).as_posix(): sha256(file) for file in partial.rglob("*") if file.is_file()}
        _refuse_to_overwrite(path, ours, written)
        (partial / MARK).write_text(as_json({"kind": kind, "files": written}), encoding="utf-8")
        left = _keep_others(place, ours, partial)
        if place.exists():
            os.replace(place, old)
        os.replace(partial, place)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from None
    finally:
        if old.exists() and not place.exists():
            os.replace(old, place)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    if left:
        said(f"{path}: left as it was: {shorten(left)}")


def _unchanged(path: Path, kind: str) -> set[str]:
    """The files in `path` that an earlier call wrote and nobody changed since. Raises UserError for a folder in use."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: there is a file of this name; name a folder")
    present = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
    try:
        mark = json.loads((path / MARK).read_text(encoding="utf-8"))
        known, made = dict(mark["files"]), mark["kind"]
    except (OSError, ValueError, KeyError, TypeError):  # no such file, or not ours
        known, made = {}, None
    if present and made != kind:
        what = f"holds a {made}" if isinstance(made, str) else f"is not empty ({shorten(present)}), and {MARK} is not in it"
        raise UserError(
            f"{path}: the folder {what}: nothing in it is known to be an older {kind}; name an empty or a new folder, or move "
            "these files away"
        )
    return {name for name, digest in known.items() if _is_file(path / name) and sha256(path / name) == digest} | {MARK}


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _refuse_to_overwrite(path: Path, ours: set[str], written: dict[str, str]) -> None:
    """Raises UserError where something that is not ours stands in the way; a file of the very same bytes doesn't."""
    blocked = []
    for name, digest in written.items():
        file = path / name
        folders = [folder for folder in file.parents if folder != path and folder.is_relative_to(path)]
        amiss = [folder for folder in folders if folder.is_symlink() or (folder.exists() and not folder.is_dir())]
        if not amiss and os.path.lexists(file) and name not in ours and not (_is_file(file) and sha256(file) == digest):
            amiss = [file]
        blocked += [folder.relative_to(path).as_posix() for folder in amiss]
    if blocked:
        blocked = list(dict.fromkeys(blocked))
        raise UserError(
            f"{path}: {shorten(blocked)}: changed by hand, or not written by this command; move "
            f"{'it' if len(blocked) == 1 else 'them'} away, or name another folder"
        )


def _keep_others(place: Path, ours: set[str], partial: Path) -> list[str]:
    """Bring what is not ours from `place` into `partial`, by links, as wheels are large; returns what, by its first folder."""
    left = []
    for file in sorted(place.rglob("*")) if place.is_dir() else []:
        name = file.relative_to(place)
        if file.is_dir() and not file.is_symlink():
            if any(file.iterdir()):
                continue
            (partial / name).mkdir(parents=True, exist_ok=True)
        elif name.as_posix() not in ours and not (partial / name).exists():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            _link(file, partial / name)
        else:
            continue
        left.append(name.parts[0])
    return list(dict.fromkeys(left))


def _link(file: Path, to: Path) -> None:
    """The same file under another name, or where the disk has no such links, a copy."""
    try:
        os.link(file, to, follow_symlinks=False)
    except OSError:
        shutil.copy2(file, to, follow_symlinks=False)


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
