"""The table of runs, from their folders alone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.table import Table

from src.competitions import metrics
from src.config import load_run
from src.errors import UserError
from src.inference.members import Member
from src.training.run import CrossValidation, cross_validation, or_dash


@dataclass(frozen=True)
class Row:
    """What is known of one run."""

    run: Member
    competition: str
    metric: str
    cv: CrossValidation | None
    tta: CrossValidation | None
    history: pd.DataFrame  # all epochs of all folds, with a column fold
    knobs: dict[str, object]
    recipe: str = ""  # how an ensemble was made

    @property
    def minutes(self) -> float:
        return float(self.history["seconds"].sum() / 60)


def read_rows(paths: list[Path], unfit: Callable[[str], None] | None = None) -> list[Row]:
    """The runs in these folders, the best of each competition first.

    unfit: is told of a folder that is no run, or damaged, which is then left out; none: it is a UserError.
    """
    rows = []
    for path in paths:
        try:
            rows.append(_read_row(Member(path)))
        except UserError as error:
            if unfit is None:
                raise
            unfit(str(error))

    def rank(row: Row) -> tuple[str, float, str]:
        cv = row.cv or row.tta  # an ensemble of predictions under TTA has these alone
        if cv is None:
            return (row.competition, float("inf"), row.run.name)
        return (row.competition, -cv.oof if metrics.HIGHER_IS_BETTER[row.metric] else cv.oof, row.run.name)

    return sorted(rows, key=rank)


def all_runs(folder: Path = Path("runs")) -> list[Path]:
    """Every run below `folder`. Raises UserError where there is none."""
    found = sorted(file.parent for file in folder.glob("*/config.yaml"))
    if not found:
        raise UserError(f"no runs in {folder.resolve()}; `python train.py --fold 0` makes one")
    return found


def table(rows: list[Row]) -> Table:
    """One line a run: CV ± sd, each fold, TTA, time, speed, memory."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    drawn.add_column("run", overflow="fold")
    for heading in ("metric", "OOF", "mean ± sd", "folds", "with TTA", "minutes", "img/s", "GB"):
        drawn.add_column(heading, justify="right" if heading != "folds" else "left")
    for row in rows:
        cv, history = row.cv, row.history
        each = " ".join(f"{value:.4f}" for value in cv.folds.values()) if cv else "—"
        spread = f"{cv.mean:.4f} ± {cv.sd:.4f}" if cv and len(cv.folds) > 1 else "—"
        drawn.add_row(
            row.run.name, row.metric, f"{cv.oof:.4f}" if cv else "—", spread, each,
            f"{row.tta.oof:.4f}" if row.tta else "—", f"{row.minutes:.1f}",
            or_dash(history["img_per_s"].median(), 0), or_dash(history["memory_gb"].max(), 1),
        )  # fmt: skip
    return drawn


def config_differences(rows: list[Row]) -> list[str]:
    """For each run, the knobs in which the runs of its competition differ: "run: train.lr 0.001, model.name resnet18".

    For an ensemble how it was made: "ensemble: mean of A, B; calibration: temperature 0.574".
    """
    lines = []
    for row in rows:
        if row.run.is_ensemble:
            lines.append(f"{row.run.name}: {row.recipe}")
            continue
        peers = [peer.knobs for peer in rows if peer.competition == row.competition and not peer.run.is_ensemble]
        differing = [key for key, value in row.knobs.items() if any(peer.get(key) != value for peer in peers)]
        if differing:
            lines.append(f"{row.run.name}: " + ", ".join(f"{key} {row.knobs[key]}" for key in differing))
    return lines


def _read_row(run: Member) -> Row:
    config = load_run(run.path)
    histories = [run.history(fold).assign(fold=fold) for fold in run.folds_with("history.csv")]
    history = (
        pd.concat(histories, ignore_index=True)
        if histories
        else pd.DataFrame(columns=["seconds", "img_per_s", "memory_gb", "fold"])
    )
    metric = config.competition.metric
    cv, tta = cross_validation(run, metric), cross_validation(run, metric, "oof_tta.npz")
    recipe = run.recipe() if run.is_ensemble else ""
    return Row(run, config.competition.name, metric, cv, tta, history, config.identity(), recipe)
