"""Pictures for the audit's tests: smooth noise, any two of which differ as two photographs do."""

import io
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image


def picture(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """RGB uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(image: np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    """A file's bytes, by PIL. A mode other than RGB is written as `mode="CMYK"`."""
    buffer = io.BytesIO()
    mode = options.pop("mode", None)
    pil = Image.fromarray(image)
    (pil.convert(mode) if mode else pil).save(buffer, kind, **options)
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def train_table(paths: list[str], labels: list[str] | None = None, groups: list[str] | None = None) -> pd.DataFrame:
    """Rows whose ids are the paths' stems."""
    ids = [Path(path).stem for path in paths]
    return pd.DataFrame(
        {"id": ids, "path": paths, "label": labels or ["cat"] * len(paths), "group": groups or [""] * len(paths)}, dtype=str
    )


def test_table(paths: list[str]) -> pd.DataFrame:
    return train_table(paths)[["id", "path"]]


test_table.__test__ = False  # not a test, whatever pytest thinks of its name
