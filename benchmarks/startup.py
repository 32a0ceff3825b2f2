"""From Return to something on the screen: each command's whole time where it is told off or asked for help, and to the first
step where it trains.

    python benchmarks/startup.py [--repeats 5]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
from record import record  # noqa: E402
from turns import show, take_turns  # noqa: E402

TRAIN = ["train.py", "--fold", "0", "--train.steps_per_epoch", "1", "--train.epochs", "1", "--tracking.mode", "disabled"]
COMMANDS = {
    "train.py --help": ["train.py", "--help"],
    "train.py --train.epoch 3, a typing error": ["train.py", "--train.epoch", "3"],
    "predict.py of a run that isn't there": ["predict.py", "runs/nothing"],
    "compare.py without runs": ["compare.py"],
    "train.py, one step on the digits, and its end": [*TRAIN, "--name", "timed", "--overwrite"],
    "the same with the medium recipe, which needs no albumentations": [
        *TRAIN,
        "--name",
        "plain",
        "--data.augmentation",
        "medium",
        "--overwrite",
    ],
    "python -c 'import torch, timm'": ["-c", "import torch, timm"],
}


def seconds(command: list[str], folder: str) -> float:
    started = time.perf_counter()
    given = command if command[0] == "-c" else [str(ROOT / command[0]), *command[1:]]
    subprocess.run([sys.executable, *given], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        taken = take_turns({name: partial(seconds, command, folder) for name, command in COMMANDS.items()}, asked.repeats)
    rows = [
        {"command": name, "seconds": f"{np.median(each):.2f}", "spread": f"{min(each):.2f} to {max(each):.2f}", "n": len(each)}
        for name, each in taken.items()
    ]
    record("startup", "Whole commands.", "python benchmarks/startup.py", rows)
    show(rows)


if __name__ == "__main__":
    main()
