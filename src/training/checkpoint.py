"""last.pt: all that a resume needs. Written to a temporary name and renamed, so the one before stays until it is complete.

No random generator's state is in it, because none is carried from step to step: every step seeds torch, NumPy and Python
from (seed, fold, epoch, step) and its rank, and every sample's augmentation from (seed, epoch, row id).
"""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.errors import UserError


def save(state: dict[str, Any], path: Path) -> None:
    """Raises UserError where the disk is full; the checkpoint before is then still whole."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path}: can't be saved ({error}); the checkpoint before it is kept") from None


def load(path: Path) -> dict[str, Any]:
    """Raises UserError for a file that is truncated or not a checkpoint."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file, some without a word
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a complete checkpoint ({said}); --overwrite trains the fold anew") from None
    if not isinstance(state, dict) or "epoch" not in state:
        raise UserError(f"{path}: not a checkpoint of this repository; --overwrite trains the fold anew")
    return state


def seed_step(seed: int, fold: int, epoch: int, step: int, rank: int = 0) -> None:
    """Seed every global generator (dropout, stochastic depth, mixup) for one step; `rank`: of this process among several."""
    for_torch, for_numpy = np.random.SeedSequence([seed, fold, epoch, step, *([rank] if rank else [])]).generate_state(2)
    torch.manual_seed(int(for_torch))
    np.random.seed(int(for_numpy))
    random.seed(int(for_numpy))
