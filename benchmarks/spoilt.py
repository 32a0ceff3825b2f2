"""What fuzz.py does to a tiny competition before a command: one function a kind, over lists of small damages.

A kind's function takes the draws and the folder, spoils something in it, and returns the command's words.
"""

import contextlib
import csv
import dataclasses
import importlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import yaml
from PIL import Image

from src import config as configuration

CANARY = "canary"  # the file that any code in the inputs would write
TRAIN = "train.py --config fuzz.yaml"
COMMANDS = {
    "prepare": "prepare.py --config fuzz.yaml",
    "train": f"{TRAIN} --name new",
    "train a": f"{TRAIN} --name a --fold all",
    "train b": f"{TRAIN} --name b --fold all --train.seed 1",
    "train stopped": f"{TRAIN} --name stopped --train.epochs 3 --train.max_minutes 0.00001",
    "resume": f"{TRAIN} --name a --fold all --resume",
    "resume stopped": f"{TRAIN} --name stopped --train.epochs 3 --resume",
    "predict": "predict.py runs/a",
    "predict b": "predict.py runs/b",
    "check": "predict.py --check submissions/a.csv --config fuzz.yaml",
    "check a": "predict.py runs/a --check submissions/a.csv",
    "record": "predict.py runs/a --record public=0.5",
    "bundle": "predict.py runs/a --bundle bundle",
    "blend": "ensemble.py runs/a runs/b --name new",
    "blend both": "ensemble.py runs/a runs/b --name both",
    "compare": "compare.py",
    "report": "compare.py runs/a --report",
    "report both": "compare.py runs/both --report",
    "report of two": "compare.py runs/a runs/b --report",
    "sweep": "sweep.py sweep.yaml --trials 1",
}
VERBS = {name: line.split() for name, line in COMMANDS.items()}
COMPETITION = {
    "name": "tiny", "train_csv": "train.csv", "test_csv": "test.csv", "sample_csv": "sample_submission.csv",
    "solution_csv": "solution.csv", "train_images": "train/{id}.png", "test_images": "test/{id}.png",
    "classes": ["cat", "dog"], "metric": "log_loss", "submission_values": "probability", "positive": "dog",
    "label_preserving": ["hflip"],
}  # fmt: skip
TREE = {
    "competition": COMPETITION,
    "model": {"name": "cifar_net", "weights": "none", "image_size": 32},
    "data": {"folds": 2, "workers": 0, "resize": "squash"},
    "train": {"epochs": 1, "batch_size": 4, "device": "cpu"},
    "tracking": {"mode": "disabled"},
}
FORMS = (  # of the submission
    {},
    {"metric": "accuracy", "submission_values": "label"},
    {"metric": "macro_f1", "submission_values": "label", "classes": []},
    {"submission_values": "probabilities", "submission_columns": ["id", "cat", "dog"]},
    {"metric": "roc_auc", "train_csv": None, "train_images": "train/{label}/{id}.png"},
    {"group_column": "label", "solution_csv": None},
)
SWEEP = {
    "program": "train.py", "method": "random", "run_cap": 1, "metric": {"name": "oof_log_loss", "goal": "minimize"},
    "parameters": {
        "config": {"value": "fuzz.yaml"}, "debug": {"value": True}, "fold": {"value": 0},
        "train.lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1},
        "train.ema": {"values": [0.0, 0.1]},
    },
    "command": ["${env}", "python", "${program}", "${args}"],
}  # fmt: skip
TEXTS = [
    "", " ", "NaN", "inf", "-1", "0", "1e999", "0.0", "007", "7.0", "2020-01-01", "None", "null", "cat ", "CAT", "birds", "é",
    "e\u0301", "日本", "🐱", "\u202e", "x" * 5000, 'a"b', "a'b", "a\nb", "a\rb", "a,b", "../x", "/etc/passwd", "a\\b", "a/b",
    "con", ".", "..", "~", "*", "?", "{id}", "%s", "{0}", "=1+1", "$(touch canary)", "\0", "\x1b[31m", "[bold", "-", "--",
]  # fmt: skip
TOKENS = [  # YAML's values
    *(json.dumps(text) for text in TEXTS),
    "0", "3", "-1", "1e308", ".inf", "-.inf", ".nan", str(10**30), "1" * 5000, "0x1F", "0o17", "1_000", "12:30:45", "true", "~",
    "[]", "{}", "[1, 2]", "[[1]]", "{a: 1}", "{1: 2}", "? x", "2001-12-14", "2001-99-99", "2001-12-14t21:59:43.1-05:00",
    "[2001-12-14]", "!!int abc", "!!float x", "!!timestamp x", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!bool maybe",
    "!thing x", "!!python/object/apply:os.system ['touch canary']", "!!python/name:os.system", "*nothing", "&a [*a]",
    "&a {b: *a}", "<<: 1", "{<<: [1]}", "|\n  two\n  lines", "@x", "`x`", "%x", "\t1", "'", '"',
    "[" * 3000, "[" * 400 + "]" * 400,
    "{a: " * 3000, "- 1", "cat", "none", "hub", "auto", "[cat, dog]", "[0.5, 0.5, 0.5]", "[cat]", "[.nan, 1, 1]",
]  # fmt: skip
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
DOCUMENTS = [  # in place of a YAML file, or beside its text
    BOMB, f"{BOMB}model: *a8\n", "- a\n- b\n", "text\n", "a: 1\n---\nb: 2\n", "train: {lr: 1}\ntrain: {lr: 2}\n", "\0", "a: \0",
    "\ttrain: 1\n", "1: 2\n", "null: null\n", "? [a, b]\n: c\n", "? {a: b}\n: c\n", "<<: 1\n", "train:\n", "train: &t [*t]\n",
    "&t train: *t\n", "train: &t {lr: *t}\n", "competition: &c {base: *c}\n", "competition: {base: ../../x}\n",
    "competition: tiny\n", "competition: [shopee]\n", "competition: {base: {a: 1}}\n", "made_with: 1\n", "{" * 5000,
    "a: " * 500, "\ufeff", "%YAML 9.9\n---\na: 1\n", "2001-12-14: 1\n", "true: 1\n", "'train.lr': 1\n",
    *(f"base: {base}\n" for base in ("fuzz.yaml", "other.yaml", "[1]", "{a: b}", "data", "/dev/null", "2001-12-14")),
]  # fmt: skip
JSONS = [None, True, 0, -1, 1e999, float("nan"), "", "x", [], {}, [1], [[]], {"a": 1}, {"": {}}, 10**40, "é" * 2000, [None]]
WORDS = [  # of a command line
    *(text for text in TEXTS if "\0" not in text), "1", "2", "3", "0.1", "1e-3", "none", "true", "False", "all", "full", "data",
    "runs", "runs/a", "runs/a/config.yaml", "data/tiny", "submissions", "fuzz.yaml", "sweep.yaml", "a", "b", "both",
    "../outside", "a/x", "NUL", "con.txt", "x.", "x ", "-x", "[1, 2]", "[1", "{a: 1}", "1" * 5000, "\udcff", "x=y", "public=x",
    "public=1e999", "private=-1", "kaggle", "hflip * scales(0, 9)", "hflip * hflip", "crops(", "cifar_net", "resnet10t",
    "num_classes=12", "in_chans=1", "grey_tail=drop",
]  # fmt: skip


class Code:
    """Pickled: a command that writes the canary when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {CANARY}",)


# Bytes and places

Bytes = Callable[[Random, bytes], bytes]


def flipped(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 30)) if data else 0):
        changed[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(changed)


DAMAGES: list[Bytes] = [
    flipped, flipped, flipped,
    lambda rng, data: data[: rng.randrange(len(data) + 1)],
    lambda rng, data: data[rng.randrange(len(data) + 1) :],
    lambda rng, data: data[: len(data) - 1],
    lambda rng, data: b"",
    lambda rng, data: data + data,
    lambda rng, data: data + rng.randbytes(50),
    lambda rng, data: rng.randbytes(300),
    lambda rng, data: bytes(len(data)),
    lambda rng, data: json.dumps(rng.choice(JSONS)).encode(),
    lambda rng, data: b"<!DOCTYPE html><html><body>403 Forbidden</body></html>\n",
    lambda rng, data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
    lambda rng, data: packed([("xl/workbook.xml", b"<workbook/>"), ("[Content_Types].xml", b"<Types/>")]),
    lambda rng, data: pickle.dumps(Code()),
    lambda rng, data: b"\x1f\x8b" + data,
]  # fmt: skip


def damage(rng: Random, path: Path) -> None:
    """Other bytes; a folder or what is no file stays."""
    if path.is_file():
        path.write_bytes(rng.choice(DAMAGES)(rng, path.read_bytes()))


def misplace(rng: Random, path: Path) -> None:
    """Nothing, a folder, a FIFO, a link to nothing, to itself or to the folder above where the file was."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    how = rng.randrange(6)
    if how == 1:
        path.mkdir()
    elif how == 2:
        os.mkfifo(path)
    elif how > 2:
        path.symlink_to(("nothing", path.name, "..")[how - 3])


def pick(rng: Random, *verbs: str) -> list[str]:
    return list(VERBS[rng.choice(verbs)])


# The competition


def picture(seed: int, side: int = 32) -> np.ndarray:
    """RGB uint8 (side, side, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side)))


def encoded(image: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    """A file's bytes, by PIL."""
    buffer, pil = io.BytesIO(), Image.fromarray(image)
    (pil.convert(mode) if mode else pil).save(buffer, kind, **options)
    return buffer.getvalue()


def configure(folder: Path, **competition: object) -> None:
    """Write fuzz.yaml, with changes to the competition."""
    tree = TREE | {"competition": COMPETITION | competition}
    (folder / "fuzz.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def write_competition(folder: Path) -> None:
    """fuzz.yaml, sweep.yaml and data/tiny: 14 training and 6 test pictures of 32 pixels, and their tables."""
    data = folder / "data/tiny"
    rows = [[f"{part}{i}", ("cat", "dog")[i % 2]] for part, count in (("train", 14), ("test", 6)) for i in range(count)]
    for number, (name, _) in enumerate(rows):
        path = data / ("train" if number < 14 else "test") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(number)))
    header, train, test = ["id", "label"], rows[:14], rows[14:]
    write_table(data / "train.csv", [header, *train])
    write_table(data / "test.csv", [["id"], *([name] for name, _ in test)])
    write_table(data / "solution.csv", [header, *test])
    write_table(data / "sample_submission.csv", [header, *([name, "0.5"] for name, _ in test)])
    configure(folder)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP, sort_keys=False))


# Tables


def write_table(path: Path, rows: list, **how: str) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file, lineterminator="\n", **how).writerows(rows)


def at(rng: Random, rows: list) -> tuple[list, int]:
    row = rng.choice(rows)
    return row, rng.randrange(len(row))


def put(rng: Random, rows: list, text: str) -> None:
    row, column = at(rng, rows)
    row[column] = text


def column_of(rng: Random, rows: list, change: Callable[[str], str]) -> None:
    """Change a whole column below the header."""
    _, column = at(rng, rows[:1])
    for row in rows[1:]:
        if column < len(row):
            row[column] = change(row[column])


EDITS: list[Callable[[Random, list[list[str]]], None]] = [
    *[lambda rng, rows: put(rng, rows[1:] or rows, rng.choice(TEXTS))] * 4,
    *[lambda rng, rows: put(rng, rows[:1], rng.choice(TEXTS))] * 2,
    lambda rng, rows: column_of(rng, rows, partial(max, rng.choice(TEXTS))),  # one text in many or all rows
    lambda rng, rows: column_of(rng, rows, lambda cell: f"{cell}.0"),
    lambda rng, rows: column_of(rng, rows, lambda cell: {"cat": "0", "dog": "1.0"}.get(cell, cell.removeprefix("test"))),
    lambda rng, rows: column_of(rng, rows, lambda cell: f"00{cell}"),
    lambda rng, rows: column_of(rng, rows, lambda cell: rng.choice(TEXTS)),
    lambda rng, rows: [row.append(row[0]) for row in rows],
    lambda rng, rows: [row.pop(0) for row in rows if len(row) > 1],
    lambda rng, rows: [row.reverse() for row in rows],
    lambda rng, rows: [row.insert(0, str(i)) for i, row in enumerate(rows)],
    lambda rng, rows: rows.append(list(rng.choice(rows))),
    lambda rng, rows: rows.pop(rng.randrange(len(rows))),
    lambda rng, rows: rows.pop(0),
    lambda rng, rows: rng.shuffle(rows),
    lambda rng, rows: rows.__delitem__(slice(rng.choice((0, 1, 2, 3)), None)),
    lambda rng, rows: rows.extend([list(row) for row in rows[1:]]),
    lambda rng, rows: rng.choice(rows).append("more"),
    lambda rng, rows: rng.choice(rows).pop(),
    lambda rng, rows: rows.insert(rng.randrange(len(rows)), []),
]  # fmt: skip
RECODINGS: list[Callable[[str], bytes]] = [
    lambda text: text.encode("utf-16"),
    lambda text: text.encode("utf-32"),
    lambda text: text.replace("cat", "cét").encode("latin-1", "replace"),
    lambda text: text.encode("utf-8-sig"),
    lambda text: ("\ufeff" * 2 + text).encode(),
    lambda text: text.replace(",", ";").encode(),
    lambda text: text.replace(",", "\t").encode(),
    lambda text: text.replace(",", ", ").encode(),
    lambda text: text.replace("\n", "\r\n").encode(),
    lambda text: text.replace("\n", "\r").encode(),
    lambda text: text.replace("\n", "\n\n").encode(),
    lambda text: text.replace("\n", " ").encode(),
    lambda text: text.replace(",", ',"', 3).encode(),
    lambda text: ("# a comment\n" + text).encode(),
    lambda text: json.dumps([line.split(",") for line in text.splitlines()]).encode(),
    lambda text: json.dumps([{"id": line} for line in text.splitlines()] * 2000).encode(),
    lambda text: text.upper().encode(),
]  # fmt: skip


def edit_table(rng: Random, path: Path) -> None:
    """Change cells, columns or rows of a CSV file, or how it is written."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if rng.random() < 0.3:
        path.write_bytes(rng.choice(RECODINGS)(text))
        return
    rows = [row for row in csv.reader(io.StringIO(text.replace("\0", ""))) if row]
    for _ in range(rng.choice((1, 1, 2))):
        with contextlib.suppress(IndexError, ValueError):  # nothing is left to change
            rng.choice(EDITS)(rng, rows)
    write_table(path, rows)


def tables(rng: Random, folder: Path) -> list[str]:
    configure(folder, **rng.choice((*FORMS, {}, {})))
    data = folder / "data/tiny"
    names = ("train", "test", "sample_submission", "solution", "../../submissions/a")
    files = [data / f"{name}.csv" for name in names]
    for path in rng.sample(files, rng.choice((1, 1, 2))):
        rng.choice((edit_table, edit_table, edit_table, damage, misplace))(rng, path)
    return pick(rng, "prepare", "train", "train", "predict", "check", "check a")


# YAML and the command line


def fitting(rng: Random, field) -> str:
    """A value of the knob's own type, as YAML: what the types let through has to be refused or to work further down."""
    kind = str(field.annotation).replace("<class '", "").replace("'>", "")
    options = [json.dumps(text) for text in re.findall(r"'([^']*)'", kind)]
    if "str" in kind and not options:
        options = [json.dumps(rng.choice((*TEXTS, *WORDS[len(TEXTS) :]))) for _ in range(3)]
    if "int" in kind or "float" in kind:
        options = ["0", "1", "2", "3", "8", *["0.5", "1e-30", "1.0e+30"] * ("float" in kind)]
    options = options or ["true", "false"]
    return f"[{', '.join(rng.choices(options, k=rng.choice((0, 1, 2, 3))))}]" if "tuple" in kind else rng.choice(options)


def tokens(rng: Random, tree: dict, keys: list[str]) -> str:
    """The tree as YAML, some dotted keys of which hold one of TOKENS."""
    tree, marks, known = json.loads(json.dumps(tree)), {}, dict(configuration.knobs())
    for key in rng.sample(keys, min(len(keys), rng.choice((1, 1, 1, 2, 3)))):
        *above, leaf = key.split("/" if "/" in key else ".")
        node, mark = tree, f"mark{len(marks)}mark"
        for name in above:
            node = node.setdefault(name, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict):
            fits = key in known and rng.random() < 0.5
            node[leaf], marks[mark] = mark, fitting(rng, known[key]) if fits else rng.choice(TOKENS)
    text = yaml.safe_dump(tree, sort_keys=False)
    for mark, token in marks.items():
        text = text.replace(mark, token)
    return text


def document(rng: Random, text: str) -> bytes:
    """A YAML file with something foreign in it."""
    lines, line = text.splitlines(), rng.choice(DOCUMENTS)
    how = rng.randrange(5)
    if how == 0:
        return line.encode()
    if how == 1:
        return f"{line}\n{text}".encode()
    if how == 2:
        return f"{text}{line}".encode()
    if how == 3:
        lines.insert(rng.randrange(len(lines)), rng.choice(("\t", "  ", "- ", "x: ", "")) + rng.choice(TOKENS))
        return "\n".join(lines).encode()
    return rng.choice((flipped, lambda rng, data: data.decode().encode("utf-16"), *DAMAGES[3:]))(rng, text.encode())


def yamls(rng: Random, folder: Path) -> list[str]:
    sweeps = rng.random() < 0.12
    knobs = [key for key, _ in configuration.knobs()] + list(configuration.Config.model_fields) + ["base", "train.no_knob"]
    inner = [f"parameters/train.lr/{name}" for name in ("distribution", "min", "max", "q", "mu", "values", "value")]
    keys = [*SWEEP, "metric.name", "metric.goal", *inner, "parameters/x", "parameters/train.lr"] if sweeps else knobs
    path = folder / ("sweep.yaml" if sweeps else "fuzz.yaml")
    text = path.read_text()
    (folder / "other.yaml").write_text("base: fuzz.yaml\n")
    new = tokens(rng, SWEEP if sweeps else TREE, keys).encode() if rng.random() < 0.75 else document(rng, text)
    path.write_bytes(new.replace(b"epochs: 3", b"epochs: 1"))
    words = pick(rng, "sweep") if sweeps else pick(rng, "train", "train", "prepare", "check")
    return words + ["--debug"] * (words[0] == "train.py")


def cli(rng: Random, folder: Path) -> list[str]:
    script, *words = pick(rng, *VERBS)
    flags = [field.name for field in dataclasses.fields(importlib.import_module(script[:-3]).Flags)]
    sections = {"train.py": ("model", "data", "train", "predict"), "prepare.py": ("data",), "predict.py": ("data", "predict")}
    knobs = {key: field for key, field in configuration.knobs() if key.startswith(sections.get(script, ()))}
    names = [name for name in flags if name != "find_batch"] * 3 + list(knobs) + ["train.lr"]
    values = [*WORDS, str(folder.parent / "absolute"), *("0", "1", "2", "0.5", "true", "none", "auto", "new") * 4]
    for _ in range(rng.choice((1, 1, 2, 3))):
        place, how = rng.choice((len(words), len(words), rng.randrange(len(words) + 1))), rng.randrange(8)
        key = rng.choice(names)
        name, value = f"--{key}", rng.choice(values)
        if key in knobs and rng.random() < 0.6:
            value = fitting(rng, knobs[key]).replace("\\u0000", "").strip('"')
        if how < 4:
            words[place:place] = [name, value] if how < 3 else [f"{name}={value}"]
        elif how == 4:
            words[place:place] = [rng.choice((name, f"{name}x", name.upper(), f"-{name[2]}", "--", "-h", rng.choice(values)))]
        elif words:
            place = rng.randrange(len(words))
            words[place : place + 1] = ([], [words[place]] * 2, [rng.choice(values)])[how - 5]
    return [script, *words, *["--debug"] * (script == "train.py")]


# A run's files


def edit_json(rng: Random, path: Path) -> None:
    """Another value in place of the whole, or of one value in it."""
    path.write_text(json.dumps(replaced(rng, json.loads(path.read_text())), allow_nan=True))


def replaced(rng: Random, tree: object) -> object:
    if not isinstance(tree, (dict, list)) or not tree or rng.random() < 0.2:
        return rng.choice(JSONS)
    key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
    if rng.random() < 0.2:
        tree.pop(key)
    else:
        tree[key] = replaced(rng, tree[key])
    return tree


ARRAYS: list[Callable[[Random, np.ndarray], object]] = [
    lambda rng, array: array[:0],
    lambda rng, array: array[:-1],
    lambda rng, array: array[::-1],
    lambda rng, array: np.concatenate([array, array[:1]]),
    lambda rng, array: np.concatenate([array, array]),
    lambda rng, array: array[None],
    lambda rng, array: array.ravel(),
    lambda rng, array: np.concatenate([array, array], -1),
    lambda rng, array: array.astype(str),
    lambda rng, array: array.astype("S"),
    lambda rng, array: array.astype(object),
    lambda rng, array: np.array([Code()], dtype=object),
    lambda rng, array: np.full(array.shape, rng.choice((np.nan, np.inf, 1e300, 0, -1))),
    lambda rng, array: np.full(array.shape, rng.choice(TEXTS).replace("\0", "") or "x"),
    lambda rng, array: np.zeros(array.shape, rng.choice(("complex128", "int64", "bool", "float16", "datetime64[s]", "V8"))),
    lambda rng, array: np.array(rng.choice((0, "x", np.nan))),
    lambda rng, array: np.array([]),
]  # fmt: skip


def edit_arrays(rng: Random, path: Path) -> None:
    """Other keys, shapes, dtypes or values in an .npz."""
    arrays = dict(np.load(path, allow_pickle=False))
    name, how = rng.choice(list(arrays)), rng.randrange(6)
    if how == 0:
        del arrays[name]
    elif how == 1:
        arrays[f"{name}s"] = arrays.pop(name)
    else:
        arrays[name] = rng.choice(ARRAYS)(rng, np.atleast_1d(arrays[name]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.savez(path, **arrays)


def edit_yaml(rng: Random, path: Path) -> None:
    lines = path.read_text().splitlines()
    place = rng.randrange(len(lines))
    lines[place] = lines[place].partition(":")[0] + ": " + rng.choice(TOKENS)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")


def edit_weights(rng: Random, path: Path) -> None:
    """Other tensors, or another card, in a .safetensors; another object in a .pt."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    if path.suffix == ".pt":
        state = torch.load(path, weights_only=True, map_location="cpu")
        torch.save(rng.choice((lambda: replaced(rng, state), lambda: rng.choice(JSONS), Code))(), path)
        return
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    if rng.random() < 0.6 and metadata:
        key = rng.choice(list(metadata))
        other = {key: json.dumps(replaced(rng, json.loads(metadata[key])))}
        metadata = rng.choice(({}, other, other, {key: "x"}, {"x": metadata[key]}))
    else:
        tensors = other_tensors(rng, tensors)
    save_file(tensors, path, metadata)


def other_tensors(rng: Random, tensors: dict) -> dict:
    import torch

    name = rng.choice(list(tensors))
    other = rng.choice((
        torch.zeros(0), torch.zeros(1), torch.full_like(tensors[name], float("nan")), tensors[name].double(),
        tensors[name].flatten().clone(), torch.zeros(tensors[name].shape, dtype=torch.int64), tensors[name][None].clone(),
    ))  # fmt: skip
    without = {key: tensor for key, tensor in tensors.items() if key != name}
    prefix = rng.choice(("module.", "model.", "_orig_mod.", "net.backbone.", "x"))
    prefixed = {prefix + key: tensor for key, tensor in tensors.items()}
    return rng.choice(({}, without, tensors | {name: other}, tensors | {"more": other}, prefixed))


EDITORS = {
    ".npz": edit_arrays, ".json": edit_json, ".csv": edit_table, ".yaml": edit_yaml, ".safetensors": edit_weights,
    ".pt": edit_weights,
}  # fmt: skip
FOLDS = ("fold-0 (copy)", "fold-x", "fold-99", "fold--1", "fold-", "fold-01", "fold-full", ".fold-0", "Fold-0", "fold-0.5")


def add_folder(rng: Random, folder: Path) -> None:
    """A folder beside those of the folds or runs, empty or a copy."""
    name = rng.choice(FOLDS)
    place = folder / "runs" / rng.choice((f"a/{name}", f"both/{name}", "a (copy)", "sweeps", ".a"))
    source = folder / "runs/a" / ("fold-0" if "fold" in place.name.lower() else "")
    shutil.copytree(source, place) if rng.random() < 0.7 else place.mkdir()


def run(rng: Random, folder: Path) -> list[str]:
    looks = ("compare", "report", "report of two", "report both")
    words = pick(rng, "resume", "resume stopped", "predict", "check a", "record", "bundle", "blend", *looks)
    named = [name for name in ("a", "b", "both", "stopped") if {name, f"runs/{name}"} & set(words)]
    tops = [f"runs/{name}" for name in named] or ["runs", "submissions"]
    files = [path for top in tops for path in sorted((folder / top).rglob("*")) if path.is_file()]
    files += [folder / "submissions/ledger.csv", folder / "submissions/a.csv"] * ("predict.py" in words)
    for path in rng.sample(files, rng.choice((1, 1, 1, 2))):
        how = rng.randrange(10)
        if how < 5 and path.suffix in EDITORS:
            EDITORS[path.suffix](rng, path)
        elif how < 8:
            damage(rng, path)
        elif how == 8:
            rng.choice((misplace, lambda _, path: path.unlink(), lambda _, path: path.unlink()))(rng, path)
        else:
            shutil.copyfile(rng.choice(files), folder / "copied")
            (folder / "copied").replace(path)
    if rng.random() < 0.12:
        add_folder(rng, folder)
    return words


# Pictures


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def claim(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that says it has so many pixels, and hasn't."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def claiming_jpeg(side: int) -> bytes:
    data = encoded(picture(1), "JPEG")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", side, side) + data[at + 9 :]


def sixteen(most: int) -> bytes:
    """A grey PNG of 16 bits with values up to `most`."""
    return encoded((np.arange(32 * 32).reshape(32, 32) % (most + 1)).astype(np.uint16))


PICTURES: list[Callable[[Random], bytes]] = [
    lambda rng: claim(*rng.choice(((36000, 36000), (36000, 36000, 16, 6), (2**31 - 1, 2**31 - 1), (0, 0), (1, 10**6)))),
    lambda rng: claiming_jpeg(rng.choice((65500, 0))),
    lambda rng: b"BM" + struct.pack("<IIIIiiHH", 99, 0, 54, 40, 36000, -36000, 1, 24) + bytes(30),
    lambda rng: sixteen(rng.choice((3, 255, 65535))),
    lambda rng: encoded(picture(2), rng.choice(("JPEG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "PPM", "TGA", "JPEG2000", "PDF"))),
    lambda rng: encoded(picture(2), rng.choice(("JPEG", "TIFF")), "CMYK"),
    lambda rng: encoded(picture(2), "PNG", rng.choice(("RGBA", "LA", "L", "1", "P"))),
    lambda rng: encoded(picture(2), "TIFF", rng.choice(("F", "I", "LAB", "YCbCr", "1"))),
    lambda rng: encoded(picture(2), "JPEG", exif=b"Exif\0\0" + rng.randbytes(200)),
    lambda rng: encoded(picture(2), "PNG", exif=b"Exif\0\0II*\0" + rng.randbytes(50)),
    lambda rng: encoded(picture(2), "GIF", save_all=True, append_images=[Image.fromarray(picture(3))]),
    lambda rng: encoded(picture(2)[: rng.choice((1, 32)), : rng.choice((1, 32))]),
    lambda rng: encoded(np.zeros((32, 32, rng.choice((3, 4))), np.uint8)),
    lambda rng: rng.choice((b"<svg/>", b"\x93NUMPY\x01\0", bytes(128) + b"DICM", b"II*\0\x08\0\0\0\xff")),
]  # fmt: skip
HIDDEN = (
    ".ipynb_checkpoints/test0.png", "._test0.png", "Thumbs.db", ".DS_Store", "x.txt", "other/x.png", "train/cat/x.png",
    "a\nb.png", "é.png", "\udcff.png", "%s{0}.png", "test0.PNG", "loop",
)  # fmt: skip
LEFT_OUT = "--data.policy unreadable=drop not_an_image=drop empty=drop truncated=drop"


def pictures(rng: Random, folder: Path) -> list[str]:
    data = folder / "data/tiny"
    if rng.random() < 0.35:  # the class stands in the path, and the rows are what lies there
        tables = dict.fromkeys(("train_csv", "test_csv", "sample_csv", "solution_csv"))
        configure(folder, train_images="train/{label}/{id}.png", **tables)
        for i, path in enumerate(sorted((data / "train").iterdir())):
            (data / "train" / ("cat", "dog")[i % 2]).mkdir(exist_ok=True)
            path.rename(path.parent / ("cat", "dog")[i % 2] / path.name)
        hidden = data / rng.choice(("train", "test", "train/cat")) / rng.choice(HIDDEN)
        hidden.parent.mkdir(exist_ok=True, parents=True)
        hidden.symlink_to("..") if hidden.name == "loop" else hidden.write_bytes(encoded(picture(9)))
    files = sorted(path for path in data.rglob("*.png") if path.is_file())
    for path in rng.sample(files, rng.choice((1, 1, 2, 4))):
        how = rng.randrange(8)
        if how < 5:
            path.write_bytes(rng.choice(PICTURES)(rng))
        elif how < 7:
            damage(rng, path)
        else:
            misplace(rng, path)
    words = pick(rng, "prepare", "train", "train", "predict")
    option = rng.choice(("", "", "--data.audit false", "--data.cache true", "--data.missing drop", LEFT_OUT))
    return words + (option.split() if words[0] != "predict.py" else [])


# Archives


def packed(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as file:
        warnings.simplefilter("ignore")  # of names that stand there twice
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name), data, method)  # of 1980: the same bytes whenever it is made
    return buffer.getvalue()


def patched(data: bytes, central: int, local: int | None, value: bytes) -> bytes:
    """Other bytes at an offset of the first entry of the central directory, and of its local header."""
    changed, at = bytearray(data), data.index(b"PK\x01\x02") + central
    changed[at : at + len(value)] = value
    if local is not None:
        changed[local : local + len(value)] = value
    return bytes(changed)


def link(name: str, target: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o120777 << 16
        file.writestr(info, target)
    return buffer.getvalue()


NAMES = (
    "../x.png", "/x.png", "C:\\x.png", "a\\b.png", "..\\x.png", "train/con.png", f"train/{'x' * 300}.png",
    f"{'d/' * 2000}x.png", "train//0.png", "./train/0.png", "train", "train/", "train/train0.png/x.png", "é.png", "e\u0301.png",
    "TRAIN/train0.png", "train/TRAIN0.PNG", "", ".", "a\nb", "folds.csv", ".unpacked.json",
    "train.zip", "new.zip.partials", "~/x", "train/train0.png ",
    "__MACOSX/x", "train/.DS_Store", "..", "x/../../y",
)  # fmt: skip
ARCHIVES: list[Callable[[Random, list], bytes]] = [
    *[lambda rng, members: rng.choice(DAMAGES)(rng, packed(members))] * 3,
    *[lambda rng, members: packed([*members, (rng.choice(NAMES), b"x")])] * 3,
    lambda rng, members: packed([(rng.choice(NAMES), b"x"), *members]),
    lambda rng, members: packed([("train.zip", packed(members))]),
    lambda rng, members: packed([("train.zip", packed(members)), *members]),
    lambda rng, members: packed([("inner.zip", packed([("train.zip", b"PK")])), *members]),
    lambda rng, members: packed([("inner.zip", rng.randbytes(99)), *members]),
    lambda rng, members: packed([*members, members[0]]),
    lambda rng, members: packed([*members, (members[0][0], b"other")]),
    lambda rng, members: packed([*members, (members[0][0].upper(), b"other")]),
    lambda rng, members: packed([("bomb.bin", bytes(50 << 20)), *members]),
    lambda rng, members: packed(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))),
    lambda rng, members: patched(packed(members), 8, 6, b"\1\0"),  # encrypted
    lambda rng, members: patched(packed(members), 10, 8, b"\x63\0"),  # a method that nobody knows
    lambda rng, members: patched(packed(members), 24, None, b"\xf0\xff\xff\xff"),  # 4 GiB, it says
    lambda rng, members: patched(packed(members), 24, 22, b"\1\0\0\0"),  # one byte, it says
    lambda rng, members: patched(packed(members), 16, 14, b"\0\0\0\0"),  # another checksum
    lambda rng, members: patched(packed(members), 12, 10, b"\xff\xff\xff\xff"),  # no date
    lambda rng, members: patched(packed(members), 42, None, b"\xff\xff\xff\x7f"),  # beyond the end
    lambda rng, members: link("train/train0.png", "/etc/passwd"),
    lambda rng, members: link("train", ".."),
    lambda rng, members: packed([]),
]  # fmt: skip


def archives(rng: Random, folder: Path) -> list[str]:
    """The pictures come in train.zip and test.zip, one of which is spoilt."""
    data, spoilt = folder / "data/tiny", rng.choice(("train", "train", "test"))
    for part in ("train", "test"):
        members = [(f"{part}/{path.name}", path.read_bytes()) for path in sorted((data / part).iterdir())]
        (data / f"{part}.zip").write_bytes(rng.choice(ARCHIVES)(rng, members) if part == spoilt else packed(members))
        if part != spoilt or rng.random() < 0.9:
            shutil.rmtree(data / part)
    if rng.random() < 0.06:
        misplace(rng, data / f"{spoilt}.zip")
    return pick(rng, "prepare", "train")


# Weights


def weights(rng: Random, folder: Path) -> list[str]:
    """A file of weights, as those of the run at hand, spoilt."""
    import torch
    from safetensors.torch import load_file

    source = folder / "runs/a/fold-0/model.safetensors"
    path = folder / rng.choice(("w.safetensors", "w.safetensors", "w.pth", "w.pth", "w.pt", "w.bin", "w.txt", "w"))
    state, how = load_file(source), rng.randrange(8)
    if how < 3 or path.suffix in (".safetensors", ".txt", ""):
        shutil.copyfile(source, path)
        (edit_weights if path.suffix == ".safetensors" and rng.random() < 0.5 else damage)(rng, path)
    elif how == 3:
        path.write_bytes(pickle.dumps(rng.choice((Code(), {"state_dict": Code()}, [1]))))
    else:
        other = other_tensors(rng, state)
        odd = ({"model": {"x": 1}}, rng.choice(JSONS), Code(), {"w": Code()}, list(other))
        torch.save(rng.choice((state, other, {"state_dict": other}, *odd)), path)
        if rng.random() < 0.3:
            damage(rng, path)
    if rng.random() < 0.05:
        misplace(rng, path)
    if rng.random() < 0.15:
        (folder / "runs/a/fold-0/model.safetensors").write_bytes(path.read_bytes() if path.is_file() else b"")
        return pick(rng, "predict", "bundle", "report")
    return [*pick(rng, "train"), "--model.weights", path.name, "--debug"]


KINDS: dict[str, Callable[[Random, Path], list[str]]] = {
    "tables": tables, "yaml": yamls, "cli": cli, "run": run, "pictures": pictures, "archives": archives, "weights": weights,
}  # fmt: skip
