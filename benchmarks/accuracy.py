"""Time to a validation accuracy on Dogs vs. Cats: train.py beside a plain script of the same recipe (notebook_style.py).

    python benchmarks/accuracy.py --images data/dogs_vs_cats/train --target 0.85 --model mobilenetv2_100 --weights FILE
    python benchmarks/accuracy.py --images data/dogs_vs_cats/train --target 0.71 --model cifar_net --size 32 --epochs 12

The clock runs from the command's start to the first epoch whose val_accuracy reaches the target: imports and the building of
train.py's picture cache are in it; its audit is left out, as the script has none (15,000 pictures: 15 s, the first time). Both
make their own split. A run that never gets there ends the script.
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
from record import record  # noqa: E402
from turns import ratio, show, take_turns  # noqa: E402

SCORE = re.compile(r"val_accuracy ([\d.]+)")


def seconds_to(target: float, command: list[str], folder: str) -> float:
    """From the start of `command` in `folder` to its first line with such a val_accuracy."""
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            found = SCORE.search(line)
            if found and float(found[1]) >= target:
                reached = time.perf_counter() - started
                process.terminate()
                process.stdout.read()
                return reached
    sys.exit(f"{' '.join(command)}: never came to {target}")


def ours(asked: argparse.Namespace, images: Path, seeds: Iterator[int]) -> float:
    """train.py, each time with another seed, as the script's are."""
    knobs = {
        "data.root": "dogs", "data.cache": "true", "data.audit": "false", "data.resize": "squash", "model.name": asked.model,
        "model.image_size": asked.size, "train.batch_size": asked.batch, "train.epochs": asked.epochs, "train.lr": asked.lr,
        "train.warmup": 0, "train.weight_decay": 0.05, "tracking.mode": "disabled",
    }  # fmt: skip
    knobs["train.seed"] = next(seeds)
    knobs["model.weights"] = Path(asked.weights).resolve() if asked.weights else "none"
    command = [sys.executable, ROOT / "train.py", "--config", "recipe.yaml", "--fold", "0", "--name", "timed"]
    command += ["--model.mean", ".5", ".5", ".5", "--model.std", ".5", ".5", ".5"]
    command += ["--model.kwargs", "pad_type=same"] if asked.weights else []
    with workplace(images) as folder:
        return seconds_to(asked.target, [*map(str, command), *(f"--{name}={value}" for name, value in knobs.items())], folder)


def theirs(asked: argparse.Namespace, images: Path) -> float:
    command = [sys.executable, ROOT / "benchmarks/notebook_style.py", "--images", images, "--model", asked.model]
    command += ["--weights", Path(asked.weights).resolve()] if asked.weights else []
    command += [part for name in ("size", "batch", "epochs", "lr") for part in (f"--{name}", getattr(asked, name))]
    return seconds_to(asked.target, list(map(str, command)), str(ROOT))


@contextmanager
def workplace(images: Path) -> Iterator[str]:
    """A folder for train.py, with `images` in dogs/train and a recipe.yaml: nothing is left there from a run before."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "dogs").mkdir()
        (Path(folder) / "dogs/train").symlink_to(images)
        Path(folder, "recipe.yaml").write_text("competition: dogs_vs_cats\n")
        yield folder


def some_of(images: Path, rows: int, folder: Path) -> None:
    """Links to so many of the pictures, in `folder`; 0: to all."""
    paths = sorted(images.resolve().glob("*.jpg"))
    for number in np.random.default_rng(0).permutation(len(paths))[: rows or None]:
        (folder / paths[number].name).symlink_to(paths[number])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--rows", type=int, default=0, help="only so many of the pictures")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        some_of(asked.images, asked.rows, Path(folder))
        ways = {
            "train.py": partial(ours, asked, Path(folder), itertools.count()),
            "a plain script": partial(theirs, asked, Path(folder)),
        }
        taken = take_turns(ways, asked.repeats, warm_up=False)
    first = np.array(taken["train.py"])
    rows = [
        {
            "way": name,
            "seconds": f"{np.median(each):.1f}",
            "spread": f"{min(each):.1f} to {max(each):.1f}",
            "time against the first": ratio(each, first),
            "n": len(each),
        }
        for name, each in taken.items()
    ]
    pictures = f"{asked.rows or 'all'} pictures of which a fifth is held out"
    what = (
        f"From the command's start to a validation accuracy of {asked.target}: {asked.model}, {asked.size} pixels, {pictures}."
    )
    options = "".join(
        f" --{name} {getattr(asked, name)}" for name in ("target", "model", "rows", "size", "batch", "epochs", "lr")
    )
    given = " --weights FILE" if asked.weights else ""
    command = f"python benchmarks/accuracy.py --images data/dogs_vs_cats/train{options}{given}"
    record(f"accuracy-{asked.model}", what, command, rows)
    show(rows)


if __name__ == "__main__":
    main()
