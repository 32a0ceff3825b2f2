"""The device, the precision and its reason: the rule of DESIGN, tried for GPUs that are not here."""

import re
from pathlib import Path

import pytest
import torch

from src.config import TrainConfig
from src.errors import UserError
from src.training import device as devices

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    """gpu(native=True): as torch answers on an A100; native=False: on a T4, where bf16 is only emulated."""

    def pretend(native: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)

    return pretend


def test_a_gpu_with_native_bf16_gets_it(gpu):
    gpu(native=True)
    assert devices.choose_precision(TrainConfig(), CUDA) == (
        torch.bfloat16,
        "the GPU has native bf16, which needs no scaler",
    )


def test_a_t4_which_only_emulates_bf16_gets_fp16(gpu):
    gpu(native=False)
    dtype, why = devices.choose_precision(TrainConfig(), CUDA)
    assert dtype is torch.float16
    assert "no native bf16" in why


@pytest.mark.parametrize("device", [CPU, MPS])
def test_elsewhere_than_on_cuda_it_is_fp32_with_its_reason(device: torch.device):
    dtype, why = devices.choose_precision(TrainConfig(), device)
    assert dtype is torch.float32
    assert device.type in why
    assert "slower" in why


@pytest.mark.parametrize(("named", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_configured_precision_is_taken_whatever_the_gpu(named: str, dtype: torch.dtype, gpu):
    for native in (True, False):
        gpu(native)
        slow = (
            ", though this GPU only emulates bf16: --train.precision fp16 is faster" if named == "bf16" and not native else ""
        )
        assert devices.choose_precision(TrainConfig(precision=named), CUDA) == (dtype, "as configured" + slow)


@pytest.mark.parametrize("wanted", ["tpu0", "gpu", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused_in_one_line(wanted: str):
    with pytest.raises(UserError, match=rf"train\.device: '{wanted}' is not to be had here: \S") as told:
        devices.choose_device(wanted)
    assert "\n" not in str(told.value)


def test_auto_takes_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.choose_device("auto") == CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_auto_takes_the_gpu():
    assert devices.choose_device("auto").type == "cuda"
    assert "GiB" in devices.describe(CUDA)


def test_freed_memory_is_kept_on_the_cpu_only(monkeypatch: pytest.MonkeyPatch):
    kept = []
    monkeypatch.setattr(devices, "keep_freed_memory", lambda: kept.append(True))
    devices.choose_device("meta")
    assert kept == []
    devices.choose_device("cpu")
    assert kept == [True]


def test_the_cpu_is_described_with_its_threads():
    assert re.fullmatch(rf"cpu \(\w+\), {torch.get_num_threads()} threads", devices.describe(CPU))


def test_peak_memory_is_this_processs_high_water_mark_in_gib():
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs Linux's /proc")
    known = int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 2**20
    assert devices.peak_memory(CPU) == pytest.approx(known, rel=0.1)
