"""Results of the benchmarks side by side: benchmarks/results.json, and the same figures as tables in benchmarks/RESULTS.md."""

import importlib.metadata
import importlib.util
import json
import platform
import re
import sys
from pathlib import Path

import pandas as pd

from src.cores import cores

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "torchvision", "timm", "albumentations", "opencv-python-headless")
PEERS = ("fastai", "simplejpeg")  # where they are installed


def record(name: str, question: str, command: str, rows: list[dict[str, object]], folder: Path = HERE) -> None:
    """Put a benchmark's rows in the place of those of its last run, with hardware and versions, and write both files anew."""
    path = folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    results[name] = {"question": question, "command": command, "machine": machine(), "versions": versions(), "rows": rows}
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "RESULTS.md").write_text(page(results), encoding="utf-8")


def page(results: dict[str, dict]) -> str:
    """The results as Markdown, in the order of their names."""
    parts = ["# Results\n\nWritten by the scripts beside this file; the same figures are in `results.json`.\n"]
    for name, result in sorted(results.items()):
        table = pd.DataFrame(result["rows"]).fillna("")
        lines = [" | ".join(map(str, row)) for row in [tuple(table.columns), ("---",) * len(table.columns), *table.to_numpy()]]
        parts.append(
            f"## {name}\n\n{result['question']}\n\n`{result['command']}`, {result['machine']}; {result['versions']}\n\n"
            + "\n".join(f"| {line} |" for line in lines)
            + "\n"
        )
    return "\n".join(parts)


def machine() -> str:
    """Processor and the cores that this process may use; the GPU where there is one."""
    import torch

    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text(encoding="utf-8")) if info.is_file() else None
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{found[1] if found else platform.processor()}, {len(cores())} cores{gpu}"


def versions() -> str:
    peers = [name for name in PEERS if importlib.util.find_spec(name)]
    each = [f"{name} {importlib.metadata.version(name)}" for name in (*PACKAGES, *peers)]
    return ", ".join([f"Python {sys.version.split()[0]}", *each])
