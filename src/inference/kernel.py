"""Predict a competition's test rows with a bundle's models, without network: python predict.py --data FOLDER

`predict.py runs/NAME --bundle FOLDER` copies this file into the bundle as its predict.py; the bundle is also a run's
folder, with config.yaml and fold-K/model.safetensors. Nothing beside the standard library is imported before the bundle's
files are known to be as they were made.
"""

import argparse
import hashlib
import importlib.metadata
import json
import sys
from pathlib import Path

BUNDLE = Path(__file__).resolve().parent
REMEDY = "make the bundle with --predict.unreadable prior, which hands in the classes' shares for them"
OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")


def main() -> None:
    parser = argparse.ArgumentParser(description="Predict the test rows with the bundle's models and write the submission.")
    parser.add_argument("--data", type=Path, help="the competition's folder; none: data/NAME, then Kaggle's /kaggle/input/SLUG")
    parser.add_argument("--out", type=Path, default=Path("submission.csv"), help="the file to write (%(default)s)")
    arguments = parser.parse_args()
    sys.dont_write_bytecode = True  # leave the bundle as it is
    if faults := altered(BUNDLE) or too_old(BUNDLE / "requirements.txt"):
        sys.exit(f"error: {'; '.join(faults[:3])}{f' and {len(faults) - 3} more' if len(faults) > 3 else ''}")
    from src.errors import UserError

    try:
        predict(BUNDLE, arguments.data, arguments.out)
    except UserError as error:
        sys.exit(f"error: {error}")


def altered(bundle: Path) -> list[str]:
    """A line for each file that is not what checksums.sha256 says."""
    try:
        lines = (bundle / "checksums.sha256").read_text(encoding="utf-8").splitlines()
    except OSError:
        return [f"{bundle / 'checksums.sha256'} is missing: the bundle is not complete"]
    faults = []
    for digest, _, name in (line.partition("  ") for line in lines):
        try:
            with open(bundle / name, "rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == digest
        except OSError:
            faults.append(f"{bundle / name} is missing: upload the bundle again")
            continue
        if not same:
            faults.append(f"{bundle / name} was altered after the bundle was made: its sha256 differs; upload the bundle again")
    return faults


def too_old(requirements: Path) -> list[str]:
    """A line for each package that is absent or older than `requirements` says."""
    from packaging.requirements import Requirement

    faults = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        wanted = Requirement(line)
        found = _version(wanted.name)
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            have = f"{wanted.name} {found}" if found else f"no {wanted.name}"
            faults.append(f"{have} here, {line} is needed; README.md says how to bring a wheel")
    return faults


def predict(bundle: Path, data: Path | None, out: Path) -> None:
    """Write the submission: the mean over the folds' models, each under the configuration's views, as predict.py makes it.

    data: the competition's folder; none: where prepare.py would look. Raises UserError where test rows are missing, or
    pictures, and predict.unreadable refuses that.
    """
    import numpy as np

    from src import config as configuration
    from src.competitions.predictions import mean
    from src.data import prepare
    from src.inference import submission, tta, unseen
    from src.models import backbone
    from src.models.folding import load_folded
    from src.training.device import choose_device, describe
    from src.training.run import Run

    run, config = Run(bundle), configuration.load_run(bundle)
    if data is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"root": str(data)})})
    root, test = prepare.rows_to_predict(config)
    device, views = choose_device(config.train.device), tta.choose(config)
    form = views.form(backbone.read_card(run.fold(run.trained_folds()[0]) / "model.safetensors"))
    rows = unseen.look(root, test, form, config, REMEDY)
    names = ", ".join(map(str, views.views))
    print(f"{config.competition.name}: {len(rows.seen):,} test rows in {root}; views: {names}; {describe(device)}", flush=True)
    parts = []
    for fold in run.trained_folds():
        model, card = load_folded(run.fold(fold) / "model.safetensors", device, config.train.channels_last)
        logits = views.over(model, card, config, root, rows.seen, device, f"fold {fold}")
        parts.append(views.averaged(rows.seen["id"].to_numpy(dtype=str), logits, card.classes))
        print(f"fold {fold}: predicted", flush=True)
    tested = mean(parts)
    shares = json.loads((bundle / "prior.json").read_text(encoding="utf-8"))
    tested = rows.complete(tested, np.array([shares[name] for name in tested.classes]))
    table = submission.make(config.competition, tested)
    submission.write(table, out, config.competition, tested.classes, rows.ids.tolist())
    print(f"{out}: {len(table):,} rows, {f'{rows}; ' if str(rows) else ''}valid")


def _version(name: str) -> str | None:
    """The installed version; OpenCV has one of four names."""
    for each in OPENCV if name in OPENCV else (name,):
        try:
            return importlib.metadata.version(each)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


if __name__ == "__main__":
    main()
