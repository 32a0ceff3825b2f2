"""Every notebook runs from its first cell to its last in its light form, and what is kept of its outputs is small and whole."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient

from conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
MOST_BYTES = 600_000


def test_the_lectures_have_their_ten_notebooks() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02d}" for number in range(1, 11)]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsyncKernelManager]:
    """One for many notebooks, each of which finds no names there: a kernel takes longer to import torch than some take to run.

    It works in a folder that is empty at first; what a notebook trains on the embedded digits is there for the next one.
    """
    workplace = str(tmp_path_factory.mktemp("lessons"))
    env = {name: value for name, value in os.environ.items() if name != "WANDB_API_KEY"}
    manager = AsyncKernelManager(kernel_name="python3")
    run_sync(manager.start_kernel)(cwd=str(NOTEBOOKS[0].parent), env=env | {"LIGHT": workplace, "HOME": workplace})
    yield manager
    run_sync(manager.shutdown_kernel)(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_without_data_network_or_account(path: Path, kernel: AsyncKernelManager) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert _code(notebook)[0]["source"].startswith("import lesson"), "which makes what comes after it importable"
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    NotebookClient(notebook, km=kernel, timeout=240, interrupt_on_timeout=True).execute()
    assert not any(output["output_type"] == "error" for cell in _code(notebook) for output in cell["outputs"])
    assert all(cell["execution_count"] for cell in _code(notebook))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_the_outputs_of_one_run_in_order(path: Path) -> None:
    code = _code(nbformat.read(path, as_version=4))
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert any(cell["outputs"] for cell in code)
    assert path.stat().st_size < MOST_BYTES
    kept = path.read_text()
    assert str(REPOSITORY) not in kept
    assert not re.search(r"/(tmp|home|root|Users)/\w", kept)
    assert os.environ.get("WANDB_API_KEY", "no key") not in kept


def _code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
