"""Many processes do what one does: the same result, each row once, one voice, and a job that ends or goes on as a whole."""

import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import commands
from src.competitions.predictions import Predictions
from src.config import REPOSITORY
from src.data.loader import OrderedBatches, Share, ShuffledBatches
from src.errors import UserError
from src.training import processes
from src.training.processes import ALONE, Processes
from src.training.run import Run
from tiny_runs import history

forked = pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="needs forkserver")
KNOBS = ["--config", "configs/digits/ddp.yaml", "--train.steps_per_epoch", "7", "--data.audit", "False"]
KNOBS += ["--tracking.mode", "disabled", "--train.checkpoint_minutes", "1e-6"]
HALVES = ["--train.batch_size", "32", "--predict.batch_size", "100"]
DYING = """
import os, signal, sys
import train
from src import cli
from src.training import loop
real, calls = loop.update, []
def update(training):
    real(training)
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) == 10 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
loop.update = update
cli.run(train.main)
"""


def torchrun(folder: Path, program: str, *flags: str, restarts: int = 0, processes: int = 2) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [*command, f"--max-restarts={restarts}", program, *KNOBS, *flags],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def two(folder: Path) -> Run:
    """Two processes with batches of 32: 1,149 training rows in steps of 64, 288 validation rows in batches of 100."""
    done = torchrun(
        folder, str(REPOSITORY / "train.py"), "--train.batch_size", "32", "--predict.batch_size", "100", "--name", "two"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("epoch 3/3") == 1, "only one process logs"
    assert "in each of 2 processes" in done.stdout
    return Run(folder / "runs" / "two")


def test_two_processes_give_what_one_gives_with_the_same_global_batch(two: Run, folder: Path):
    one = subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), *KNOBS, "--name", "one"],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert one.returncode == 0, one.stderr
    ours, theirs = (Predictions.load(run.fold("0") / "oof.npz") for run in (two, Run(folder / "runs" / "one")))
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert len(ours.ids) == 288
    assert np.abs(theirs.logits).max() > 1, "it has learned something"
    np.testing.assert_allclose(ours.logits, theirs.logits, rtol=0, atol=1e-5)
    losses = [history(run)["train_loss"].to_numpy() for run in (two, Run(folder / "runs" / "one"))]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_process_that_dies_is_restarted_and_the_job_ends_like_one_that_did_not(two: Run, folder: Path):
    program = folder / "dying.py"
    program.write_text(DYING)
    done = torchrun(
        folder, str(program), "--train.batch_size", "32", "--predict.batch_size", "100", "--name", "risen", restarts=3
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "goes on at epoch 2" in done.stdout
    risen = Run(folder / "runs" / "risen")
    ours, theirs = (Predictions.load(run.fold("0") / "oof.npz") for run in (risen, two))
    np.testing.assert_array_equal(ours.logits, theirs.logits)
    assert history(risen)["epoch"].tolist() == [1, 2, 3]


def test_without_restarts_a_process_that_dies_ends_the_job(folder: Path):
    program = folder / "dying.py"
    program.write_text(DYING)
    done = torchrun(folder, str(program), *HALVES, "--name", "dead")
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr
    assert 'Traceback (most recent call last):\n  File "train.py' not in done.stderr
    assert not (folder / "runs" / "dead" / "fold-0" / "model.safetensors").exists()


# The pieces, in processes that are forked ready-made


def _member(rank: int, count: int, port: int, what: Callable[[Processes], object], answers: multiprocessing.Queue) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    try:
        answers.put((rank, what(processes.join(torch.device("cpu")))))
    except (UserError, SystemExit) as error:
        answers.put((rank, error))
    processes.end_of_job()


def together(what: Callable[[Processes], object], count: int = 3) -> list[object]:
    """What `what` gives in each of `count` processes."""
    context = commands.server()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers = context.Queue()
    members = [context.Process(target=_member, args=(rank, count, port, what, answers)) for rank in range(count)]
    for member in members:
        member.start()
    told = dict(answers.get(timeout=120) for _ in members)
    for member in members:
        member.join()
    return [told[rank] for rank in range(count)]


def _everything(group: Processes) -> dict[str, object]:
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, float(group.rank + 1))
    group.copy_first(model)
    batches = OrderedBatches(7, 2, group.share)  # four batches over three processes
    rows = np.array([row for batch in batches for _, row in batch], dtype=np.int64)
    few = rows if group.rank == 0 else np.zeros(0, np.int64)  # the others have none
    return {
        "from_first": group.from_first(lambda: group.rank + 10),
        "most": group.most(group.rank),
        "mean": group.mean(torch.tensor([1.0, float(group.rank)])).tolist(),
        "rows": [part.tolist() for part in group.gathered(rows, rows * 2.0)],
        "repeated": group.gathered(np.array([0, 1]), np.array([[5.0], [6.0]]))[0].tolist(),
        "few": group.gathered(few, few * 1.0 if len(few) else None)[0].tolist(),
        "weight": model.weight.tolist(),
    }


def _fails(group: Processes) -> None:
    def make() -> None:
        raise UserError("no data")

    group.from_first(make)


@forked
def test_what_processes_agree_on_share_and_gather():
    for answer in together(_everything):
        assert answer == {
            "from_first": 10, "most": 2, "mean": [1.0, 1.0],
            "rows": [[0, 1, 2, 3, 4, 5, 6], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]],
            "repeated": [0, 1], "few": [0, 1, 6], "weight": [[1.0, 1.0]],
        }  # fmt: skip


@forked
def test_a_mistake_that_the_first_process_finds_ends_all_and_is_told_once():
    first, *others = together(_fails)
    assert str(first) == "no data"
    assert all(isinstance(other, SystemExit) for other in others)


def test_alone_everything_is_as_it_was():
    model = nn.Linear(2, 1)
    assert processes.join(torch.device("cpu")) is ALONE
    assert ALONE.parallel(model) is model
    assert ALONE.from_first(lambda: 3) == 3
    assert ALONE.most(2) == 2
    assert ALONE.share == Share(0, 1)
    rows, values = ALONE.gathered(np.array([2, 0, 1]), np.array([20, 0, 10]))
    assert rows.tolist() == [0, 1, 2]
    assert values.tolist() == [0, 10, 20]


def test_together_processes_take_the_batch_that_one_would():
    whole = list(ShuffledBatches(21, 6, 3))
    parts = [list(ShuffledBatches(21, 2, 3, share=Share(number, 3))) for number in range(3)]
    assert [[key for part in step for key in part] for step in zip(*parts, strict=True)] == whole


def test_what_differs_from_one_process_is_said():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    same, notes = processes.synchronised(model, Processes(0, 2), torch.device("cpu"))
    assert same is model
    assert len(notes) == 2
    assert "BatchNorm sees each process's own images" in notes[0]
    assert processes.synchronised(model, ALONE, torch.device("cpu"))[1] == []
    changed, notes = processes.synchronised(model, Processes(0, 2), torch.device("cuda"))
    assert isinstance(changed[1], nn.SyncBatchNorm)
    assert "over all 2 processes" in notes[0]
