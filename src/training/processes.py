"""One process or many: what the processes that torchrun started agree on, share and gather. Alone, nothing of it costs.

Only the first process prepares data, writes files and logs. Tensors of the GPU go by NCCL, everything else by gloo, so
agreeing on something never makes a GPU wait.
"""

import contextlib
import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from src.data.loader import Share
from src.errors import UserError

Made = TypeVar("Made")
CPU = torch.device("cpu")
PATIENCE = datetime.timedelta(hours=3)  # the others wait while the first audits, unpacks or computes features


@dataclass(frozen=True)
class Processes:
    """This process's place among `count`."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> Share:
        """This process's part of the images."""
        return Share(self.rank, self.count)

    def from_first(self, make: Callable[[], Made]) -> Made:
        """What `make` gives in the first process, in all of them. Its UserError ends them all, and is told once."""
        if self.count == 1:
            return make()
        parcel: list[Any] = [None]
        if self.first:
            try:
                parcel = [(make(), None)]
            except UserError as error:
                parcel = [(None, error)]
        dist.broadcast_object_list(parcel, src=0, device=CPU)
        made, error = parcel[0]
        if error is not None:
            raise self.told_once(error)
        return made

    @property
    def restarted(self) -> bool:
        """Whether torchrun started this job anew after a process died, on whichever machine: it goes on from last.pt."""
        return self.most(_restarts()) > 0

    def told_once(self, error: UserError) -> BaseException:
        """An error that meets all processes at once, for each to raise: the first tells it, the others just end."""
        return error if self.first else SystemExit(1)

    def most(self, level: int) -> int:
        """The largest of the processes' levels: one that must stop stops all."""
        if self.count == 1:
            return level
        levels = torch.tensor(level)
        dist.all_reduce(levels, dist.ReduceOp.MAX)
        return int(levels)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The processes' mean of a CPU tensor."""
        if self.count > 1:
            dist.all_reduce(values, dist.ReduceOp.SUM)
            values /= self.count
        return values

    def gathered(self, rows: np.ndarray, values: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """All processes' rows (n,) int64 with their values (n, …), each row once and in order, whoever computed it.

        values: None for a process that has no rows.
        """
        if self.count > 1:
            parcels: list[Any] = [None] * self.count
            dist.all_gather_object(parcels, (rows, values))
            rows, values = (np.concatenate(parts) for parts in zip(*[one for one in parcels if len(one[0])], strict=True))
        each, where = np.unique(rows, return_index=True)
        return each, values[where]

    def copy_first(self, model: nn.Module) -> None:
        """Give all processes the first one's weights and statistics."""
        if self.count > 1:
            for tensor in model.state_dict(keep_vars=True).values():
                dist.broadcast(tensor.detach(), src=0)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass also averages the gradients over the processes."""
        if self.count == 1:
            return model
        on_gpu = next(model.parameters()).is_cuda
        return DistributedDataParallel(model, device_ids=[torch.cuda.current_device()] if on_gpu else None)

    def no_sync(self, model: nn.Module) -> contextlib.AbstractContextManager:
        """Backward passes within don't average yet: more batches are added up first."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()


ALONE = Processes()


def join(device: torch.device) -> Processes:
    """This process among those of its torchrun job; ALONE without torchrun."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return ALONE
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        store, rank, _ = next(rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(backend, timeout=PATIENCE, store=_of_this_attempt(store), rank=rank, world_size=count)
    return Processes(dist.get_rank(), count)


def _of_this_attempt(store: dist.Store) -> dist.Store:
    """The store in which the processes find each other, without what a restarted job's ended processes left in it.

    torchrun keeps one store over its restarts (torch 2.15), so a process may read the address of one that has ended, and be
    refused. Machines count restarts each for itself: several need TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 instead.
    """
    one_machine = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return dist.PrefixStore(f"attempt {_restarts()}", store) if one_machine else store


def end_of_job() -> None:
    """Leave the other processes in order: without it torch complains on the way out."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the one that writes and logs, known before and after the others are met."""
    return os.environ.get("RANK", "0") == "0"


def _restarts() -> int:
    """How often torchrun (--max-restarts) has started this machine's processes anew after one died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def synchronised(model: nn.Module, processes: Processes, device: torch.device) -> tuple[nn.Module, list[str]]:
    """The model as many processes need it, and notes on what differs from one process with the same batch.

    On GPU BatchNorm takes its statistics from all processes' images (SyncBatchNorm, which torch has for GPUs alone).
    """
    if processes.count == 1:
        return model, []
    modules, notes = list(model.modules()), []
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules):
        if device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
            notes.append(f"BatchNorm's statistics are taken over all {processes.count} processes")
        else:
            notes.append(
                "BatchNorm sees each process's own images alone (SyncBatchNorm needs GPUs): results differ from one process"
            )
    if any(isinstance(module, nn.Dropout) and module.p > 0 for module in modules):
        notes.append("dropout draws other masks than in one process")
    return model, notes


def another_ended(error: RuntimeError) -> str:
    """What to say of an error that only tells that another process of the job ended; any other error is raised again."""
    signs = ("Connection closed by peer", "Connection reset by peer", "unexpected EOF")
    if not (dist.is_initialized() and any(sign in str(error) for sign in signs)):
        raise error
    return f"process {os.environ['RANK']}: stopped, as another process of the job ended; its own lines tell why"


def only_first(said: Callable[[str], None], processes: Processes) -> Callable[[str], None]:
    """`said` for the first process, silence for the others."""
    return said if processes.first else _unsaid


def _unsaid(_: str) -> None:
    """A line that another process says."""
