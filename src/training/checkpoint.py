"""last.pt: all that a resume needs. Written to a temporary name and renamed, so the one before stays until it is complete.

No random generator's state is in it, because none is carried from step to step: every step seeds torch, NumPy and Python
from (seed, fold, epoch, step) and its rank, and every sample's augmentation from (seed, epoch, row id).
"""

import io
import os
import random
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.errors import UserError


class _File(io.BufferedWriter):
    """A file that keeps the reason why it could not be written, of which torch.save tells nothing."""

    fault: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.fault = error
            raise


def save(state: dict[str, Any], path: Path) -> None:
    """Raises UserError where the disk is full; the checkpoint before is then still whole."""
    partial = path.with_name(f".{path.name}.partial")
    file = None
    try:
        with _File(io.FileIO(partial, "wb")) as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) or file is None or file.fault is None else file.fault
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        kept = "the checkpoint before it is kept" if path.is_file() else "there is none before it"
        raise UserError(f"{path}: can't be saved ({reason}); {kept}: make room, and --resume goes on") from None


def load(path: Path) -> dict[str, Any]:
    """Raises UserError for a file that is damaged, by as little as one bit, or not a checkpoint."""
    try:
        with zipfile.ZipFile(path) as members:  # torch writes checksums, and doesn't look at them (2.15): 1 GB takes 0.7 s
            damaged = members.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file, some without a word
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a complete checkpoint ({said}); --overwrite trains the fold anew") from None
    if not isinstance(state, dict) or "epoch" not in state:
        raise UserError(f"{path}: not a checkpoint of this repository; --overwrite trains the fold anew")
    return state


def check_owner(state: dict[str, Any], owner: dict[str, Any], path: Path) -> None:
    """Raises UserError where the state is of another fold, of other folds, pictures or knobs. One of old says less of itself.

    owner: fold, folds_sha256, pictures, config (flat; knobs that only one of the two knows are not compared).
    """
    said = state.get("owner", {})
    known, now = said.get("config", {}), owner["config"]
    differing = [key for key in owner.keys() - {"config"} if said.get(key, owner[key]) != owner[key]]
    differing += [key for key in known.keys() & now.keys() if known[key] != now[key]]
    if differing:
        key = min(differing)
        was, wanted = {**known, **said}[key], {**now, **owner}[key]
        what = f"another training ({key}: {was}, not {wanted})"
        raise UserError(f"{path}: the state of {what}; put the right file back, or --overwrite trains the fold anew")


def seed_step(seed: int, fold: int, epoch: int, step: int, rank: int = 0) -> None:
    """Seed every global generator (dropout, stochastic depth, mixup) for one step; `rank`: of this process among several."""
    for_torch, for_numpy = np.random.SeedSequence([seed, fold, epoch, step, *([rank] if rank else [])]).generate_state(2)
    torch.manual_seed(int(for_torch))
    np.random.seed(int(for_numpy))
    random.seed(int(for_numpy))
