"""Time a row, and memory, as the number of rows grows: audit, folds, cache, prediction.

    python benchmarks/growth.py [--rows 1000 10000 100000] [--repeats 5]

On JPEGs of 48 × 48 pixels, written beforehand, all different. Each measurement is a process of its own, after a run that warms
it up; work of less than two seconds is done several times there, and the median taken. What a run of 200 rows takes, mostly
the start of processes, is subtracted, and shown as the start. Memory is the process's peak, its workers not counted.
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, set_start_method
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from record import record  # noqa: E402
from turns import show  # noqa: E402

FEW = 200
SIDE = 48


def write(folder: Path, count: int) -> None:
    """count pictures, each with shapes of its own, a thousand a folder."""
    for number in range(count):
        if number % 1000 == 0:
            (folder / f"{number // 1000}").mkdir()
        rng = np.random.default_rng(number)
        image = cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / path(number)), image)


def path(number: int) -> str:
    return f"{number // 1000}/{number}.jpg"


def table(rows: int) -> pd.DataFrame:
    numbers = range(rows)
    labels = [("cat", "dog")[number % 2] for number in numbers]
    return pd.DataFrame({"id": list(map(str, numbers)), "path": list(map(path, numbers)), "label": labels, "group": ""})


def audited(root: Path, rows: int) -> None:
    from src.data.audit import audit

    audit(root, table(rows), None)


def split(root: Path, rows: int) -> None:
    from src.data.folds import make_folds

    make_folds(table(rows), 5, 0)


def cached(root: Path, rows: int) -> None:
    from src.data.cache import open_cache
    from src.data.image import Form

    with tempfile.TemporaryDirectory() as folder:
        open_cache(root, table(rows)["path"].tolist(), Form(32, "squash"), Path(folder), 2, lambda _: None)


def predicted(root: Path, rows: int) -> None:
    import torch

    from src import config as configuration
    from src.config import ModelConfig
    from src.data.loader import ordered_loader
    from src.models import backbone
    from src.training import evaluation
    from src.training.device import autocast, choose_device

    device = choose_device("cpu")
    config = configuration.validate({"competition": configuration.built_in("dogs_vs_cats").model_dump()}, {})
    model, fed = backbone.create(ModelConfig(name="cifar_net", weights="none", image_size=32), 2)
    loader = ordered_loader(root, table(rows), 32, "squash", config, device)
    evaluation.predict(model, loader, fed, device, autocast(device, torch.float32), True, "prediction")


WORK: dict[str, Callable[[Path, int], None]] = {"audit": audited, "folds": split, "cache": cached, "prediction": predicted}


def measure(name: str, root: Path, rows: int) -> tuple[float, float, float]:
    """Seconds of the start and of each further row, and the peak of this process in MiB."""
    set_start_method("fork", force=True)  # for loaders' workers, as in a script on Linux
    work = WORK[name]
    work(root, FEW)
    start = seconds(work, root, FEW)
    each = (seconds(work, root, rows) - start) / (rows - FEW)
    return start, each, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seconds(work: Callable[[Path, int], None], root: Path, rows: int) -> float:
    """The median of as many runs as fit into two seconds, and of one at least."""
    taken = []
    while sum(taken) < 2:
        started = time.perf_counter()
        work(root, rows)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def apart(name: str, root: Path, rows: int) -> tuple[float, float, float]:
    """`measure` in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, name, root, rows).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp())
    try:
        write(root, max(asked.rows))
        taken = {(name, rows): [] for name in WORK for rows in asked.rows}
        for _ in range(asked.repeats):
            for name, rows in taken:
                taken[name, rows].append(apart(name, root, rows))
    finally:
        shutil.rmtree(root)
    lines = []
    for (name, rows), each in taken.items():
        starts, times, memory = np.array(each).T
        fewest = np.median([time for _, time, _ in taken[name, asked.rows[0]]])
        lines.append(
            {
                "work": name,
                "rows": f"{rows:,}",
                "start, s": f"{np.median(starts):.2f}",
                "µs a row": f"{np.median(times) * 1e6:.4g}",
                "spread": f"{times.min() * 1e6:.4g} to {times.max() * 1e6:.4g}",
                "against the fewest": f"{np.median(times) / fewest:.2f}",
                "MiB": f"{np.median(memory):,.0f}",
                "n": len(each),
            }
        )
    command = f"python benchmarks/growth.py --rows {' '.join(map(str, asked.rows))}"
    record("growth", f"Time a row, and memory, on JPEGs of {SIDE} × {SIDE} pixels.", command, lines)
    show(lines)


if __name__ == "__main__":
    main()
