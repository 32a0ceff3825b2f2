"""benchmarks/gpu.py can be tried out on a CPU, and says so where there is no GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import write_dogs_vs_cats

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/gpu.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_that_nothing_was_measured():
    ended = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "there is no CUDA GPU here: nothing was measured (--device cpu tries the script out)\n"


def test_it_runs_from_end_to_end_on_a_cpu_and_records_nothing(tmp_path: Path):
    write_dogs_vs_cats(tmp_path)
    results = SCRIPT.with_name("results.json")
    before = results.read_bytes() if results.is_file() else b""
    small = "--models test_resnet --size 32 --batch 4 --steps 1 --warm-up 1 --repeats 1 --device cpu --ways fp32 bf16"
    command = [sys.executable, str(SCRIPT), *small.split(), "--pictures", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for told in ("'way': 'fp32'", "'way': 'bf16'", "way: synthetic", "way: from the cache", "way: from the files"):
        assert told in ended.stdout
    assert (results.read_bytes() if results.is_file() else b"") == before
