"""The memory that prediction takes, with few and with many test rows: images stay on disk until their batch is due.

    python benchmarks/predict_memory.py [--rows 1000 12000]

Trains a small model for a moment, then predicts each number of small test images, in a process of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from conftest import write_dogs_vs_cats  # noqa: E402

KNOBS = [
    "--model.name=cifar_net",
    "--model.weights=none",
    "--model.image_size=32",
    "--data.folds=2",
    "--tracking.mode=disabled",
]
CONFIG = "competition: dogs_vs_cats\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 12000])
    for rows in parser.parse_args().rows:
        with tempfile.TemporaryDirectory() as folder:
            write_dogs_vs_cats(Path(folder) / "data/dogs_vs_cats", test=rows)
            Path(folder, "tiny.yaml").write_text(CONFIG)
            verb(folder, "train.py", "--config", "tiny.yaml", "--name", "tiny", "--train.epochs=1", *KNOBS)
            gib = verb(folder, "predict.py", "runs/tiny")
            print(f"{rows:,} test rows: {gib:.3f} GiB at most")


def verb(folder: str, *command: str) -> float:
    """Run a verb; its peak resident memory in GiB, worker processes not counted."""
    process = subprocess.Popen([sys.executable, str(ROOT / command[0]), *command[1:]], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


if __name__ == "__main__":
    main()
