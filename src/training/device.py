"""Where and in which precision to compute, each with its reason, which the log prints."""

import ctypes
import os
import platform
import resource

import torch

from src.config import TrainConfig
from src.errors import UserError


def choose_device(wanted: str) -> torch.device:
    """auto: the first CUDA GPU, else Apple's, else the CPU. Raises UserError for a device that isn't there."""
    if wanted == "auto":
        gpu = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # torchrun gives each of a machine's processes its own
        wanted = gpu if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"train.device: {wanted!r} is not to be had here: {str(error).splitlines()[0]}") from None
    if device.type == "cpu":
        keep_freed_memory()
    return device


def choose_precision(config: TrainConfig, device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype of autocast and why. float32 means no autocast; float16 needs a gradient scaler."""
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    # The default argument says yes on a T4, which only emulates bf16, slowly.
    emulated = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    if config.precision != "auto":
        slow = ", though this GPU only emulates bf16: --train.precision fp16 is faster" if emulated else ""
        return named[config.precision], "as configured" + (slow if config.precision == "bf16" else "")
    if device.type != "cuda":
        return torch.float32, f"on {device.type} lower precision was measured slower or is not complete"
    if not emulated:
        return torch.bfloat16, "the GPU has native bf16, which needs no scaler"
    return torch.float16, "the GPU has no native bf16 (as Kaggle's T4 and P100)"


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context in which a forward pass computes in `dtype`; float32: as written."""
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def describe(device: torch.device) -> str:
    """The hardware in a few words, for the log and config.yaml."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GiB"
    return f"{device.type} ({platform.machine()}), {torch.get_num_threads()} threads"


def peak_memory(device: torch.device) -> float:
    """Peak memory of this process so far, in GiB: the GPU's where there is one, else the resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if platform.system() == "Darwin" else 1024  # ru_maxrss counts bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def keep_freed_memory() -> None:
    """Keep glibc's malloc from handing freed pages back after every step and faulting them in again.

    Two cores, MobileNetV2 at 224 pixels, batches of 32: training went from 12 to 24 img/s. Elsewhere than glibc: nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    m_trim_threshold, m_mmap_max = -1, -4
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(m_mmap_max, 0)  # the mmap threshold itself is capped at 32 MiB; no mmap at all has no cap
    libc.mallopt(m_trim_threshold, -1)  # never
