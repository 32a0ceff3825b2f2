"""Five folds of one experiment beside five experiments of one fold: what sharing pictures, audit and start-up is worth.

    python benchmarks/folds.py --images data/dogs_vs_cats/train [--rows 3000] [--repeats 5]

Whole commands with the picture cache on: `train.py --fold all`, and `train.py --fold 0` to 4, each in a folder of its own as if
on five machines. The lectures' small network for 32 pixels, two epochs.
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

from accuracy import some_of, workplace  # noqa: E402
from record import record  # noqa: E402
from turns import show, table, take_turns  # noqa: E402

KNOBS = [
    "--data.root=dogs", "--data.cache=true", "--model.name=cifar_net", "--model.weights=none", "--model.image_size=32",
    "--train.epochs=2", "--tracking.mode=disabled",
]  # fmt: skip


def train(images: Path, fold: str) -> float:
    """Seconds of the whole command."""
    with workplace(images) as folder:
        command = [sys.executable, str(ROOT / "train.py"), "--config", "recipe.yaml", "--fold", fold, "--name", "timed", *KNOBS]
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder)
        some_of(asked.images, asked.rows, images)
        ways = {
            "five folds of one experiment": partial(train, images, "all"),
            "five experiments of one fold": lambda: sum(train(images, str(fold)) for fold in range(5)),
        }
        rows = table(take_turns(ways, asked.repeats, warm_up=False), "five folds")
    what = f"Five folds over {asked.rows:,} pictures: cifar_net, 32 pixels, two epochs, whole commands."
    record("folds", what, f"python benchmarks/folds.py --images data/dogs_vs_cats/train --rows {asked.rows}", rows)
    show(rows)


if __name__ == "__main__":
    main()
