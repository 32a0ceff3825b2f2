"""How long the audit takes, and how safe its near-duplicate threshold is on real pictures.

    python benchmarks/audit.py --config configs/dogs_vs_cats/alexnet.yaml --sheet /tmp/pairs.png

Prints wall and processor time of a pass with an empty cache and of a second one; every pair that passes for one picture; how
the pairs of close hashes correlate; and how many altered copies of 300 pictures are found again. The sheet shows the pairs
that passed and, below, the most alike of those that did not: look at it before believing a threshold.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import config
from src.competitions import tables
from src.data import facts as facts_module
from src.data import inventory
from src.data.audit import audit
from src.data.duplicates import BITS, CORRELATION, correlation, differing_bits, near_pairs
from src.data.image import read
from src.data.prepare import locate

WIDER = 12  # bits: as far as rejected pairs are looked at


def jpeg(image: np.ndarray, quality: int = 75) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def cropped(image: np.ndarray, share: float) -> np.ndarray:
    high, wide = (round(side * share) for side in image.shape[:2])
    return image[high : image.shape[0] - high, wide : image.shape[1] - wide]


def stamped(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.putText(image.copy(), "12/03/2005", (width // 2, height - 12), 0, width / 500, (0, 120, 255), 2)


ALTERED: dict[str, Callable[[np.ndarray], bytes]] = {
    "quality 90": lambda p: jpeg(p, 90),
    "quality 20": lambda p: jpeg(p, 20),
    "half as large": lambda p: jpeg(cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
    "twice as large": lambda p: jpeg(cv2.resize(p, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)),
    "squashed to 64 × 64": lambda p: jpeg(cv2.resize(p, (64, 64), interpolation=cv2.INTER_AREA)),
    "grey": lambda p: jpeg(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY)),
    "brighter by 10 levels": lambda p: jpeg(cv2.convertScaleAbs(p, beta=10)),
    "brighter by 10 %": lambda p: jpeg(cv2.convertScaleAbs(p, alpha=1.1)),
    "brighter by 30 %": lambda p: jpeg(cv2.convertScaleAbs(p, alpha=1.3)),
    "darker by 30 %": lambda p: jpeg(cv2.convertScaleAbs(p, alpha=0.7)),
    "blurred by 2 pixels": lambda p: jpeg(cv2.GaussianBlur(p, (0, 0), 2)),
    "noise of 10 levels": lambda p: jpeg(np.clip(p + np.random.default_rng(0).normal(0, 10, p.shape), 0, 255).astype(np.uint8)),
    "a stamped date": lambda p: jpeg(stamped(p)),
    "cropped by 1 % a side": lambda p: jpeg(cropped(p, 0.01)),
    "cropped by 2.5 % a side": lambda p: jpeg(cropped(p, 0.025)),
    "cropped by 5 % a side": lambda p: jpeg(cropped(p, 0.05)),
}


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def time_two_passes(root: Path, train: pd.DataFrame, test: pd.DataFrame, listed: set[str], workers: int) -> None:
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {workers} processes")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "audit.npz"
        for name in ("first", "second"):
            wall, used = time.perf_counter(), processor_seconds()
            found = audit(root, train, test, listed, cache, workers)
            wall, used = time.perf_counter() - wall, processor_seconds() - used
            print(f"{name} pass: {wall:.1f} s wall, {used:.1f} s processor; {found.images:,} images, {found.measured:,} read")
        size = cache.stat().st_size if cache.exists() else 0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"cache {size / 2**20:.1f} MiB; at most {memory:.0f} MiB of memory in the parent")
    print("\n".join(found.summary()))


def judge_pairs(paths: list[str], facts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Print the pairs that pass and a table of those that don't; (pairs that pass, the 24 most alike of the others)."""
    pairs = near_pairs(facts, np.arange(len(facts)), WIDER, -1)
    bits = differing_bits(facts["hash"][pairs[:, 0]], facts["hash"][pairs[:, 1]])
    alike = correlation(facts["thumb"][pairs[:, 0]], facts["thumb"][pairs[:, 1]])
    passed = (bits <= BITS) & (alike >= CORRELATION)
    for (i, j), b, c in sorted(zip(pairs[passed].tolist(), bits[passed], alike[passed], strict=True), key=lambda row: row[2]):
        print(f"  {paths[i]:24} {paths[j]:24} {b} bits, correlation {c:.4f}")
    print(f"{len(facts):,} pictures: {passed.sum()} pairs pass")
    for most in range(0, WIDER + 1, 2):
        here = bits == most
        best = (
            f", the most alike of those that fail correlates by {alike[here & ~passed].max():.3f}"
            if (here & ~passed).any()
            else ""
        )
        print(f"  {most:2} bits differ: {here.sum():4} pairs, {(here & passed).sum():3} pass{best}")
    others = np.flatnonzero(~passed)
    return pairs[passed], pairs[others[np.argsort(-alike[others])][:24]]


def find_altered_copies(root: Path, paths: list[str]) -> None:
    chosen = [paths[i] for i in np.random.default_rng(0).choice(len(paths), min(300, len(paths)), replace=False)]
    images = [cv2.cvtColor(read(root / path), cv2.COLOR_RGB2BGR) for path in chosen]
    zeros = np.zeros(len(chosen), np.int64)
    original = facts_module.examine(root, chosen, zeros, zeros)
    for how, alter in ALTERED.items():
        with tempfile.TemporaryDirectory() as folder:
            names = [f"{i}.jpg" for i in range(len(images))]
            for name, image in zip(names, images, strict=True):
                (Path(folder) / name).write_bytes(alter(image))
            copy = facts_module.examine(Path(folder), names, zeros, zeros)
        bits, alike = differing_bits(original["hash"], copy["hash"]), correlation(original["thumb"], copy["thumb"])
        found = (bits <= BITS) & (alike >= CORRELATION)
        print(f"  {how:24} {found.mean():6.1%} found; at most {bits.max():2} bits, correlation from {alike.min():.3f}")


def draw(root: Path, paths: list[str], parts: list[np.ndarray], path: Path, side: int = 150, columns: int = 4) -> None:
    rows = []
    for pairs in parts:
        tiles = []
        for pair in pairs:
            both = np.hstack([cv2.resize(read(root / paths[i]), (side, side)) for i in pair])
            tile = cv2.copyMakeBorder(both, 20, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))
            names = " ".join(Path(paths[i]).stem for i in pair)
            tiles.append(cv2.putText(tile, names, (4, 14), 0, 0.4, (0, 0, 0), 1, cv2.LINE_AA))
        blank = np.full((side + 24, 2 * side + 8, 3), 255, np.uint8)
        tiles += [blank] * (-len(tiles) % columns)
        rows += [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
        rows.append(np.zeros((6, columns * (2 * side + 8), 3), np.uint8))
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/dogs_vs_cats/alexnet.yaml", help="the experiment whose data are meant")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--sheet", type=Path, help="a PNG of the pairs, to look at")
    flags = parser.parse_args()
    loaded = config.load(flags.config)
    competition, root = loaded.competition, locate(loaded)
    train, test = tables.train_table(competition, root), tables.test_table(competition, root)
    listed = {path for pattern in (competition.train_images, competition.test_images) for path in tables.listing(root, pattern)}
    time_two_passes(root, train, test, listed, flags.workers)
    paths = sorted(listed)
    facts, _ = inventory.take(root, paths, None, flags.workers, print)
    passed, others = judge_pairs(paths, facts)
    if flags.sheet:
        draw(root, paths, [passed, others], flags.sheet)
    print("copies of 300 pictures, altered:")
    find_altered_copies(root, [path for path, fact in zip(paths, facts, strict=True) if fact["verdict"] == b"ok"])


if __name__ == "__main__":
    main()
