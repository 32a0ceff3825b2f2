"""pictures.npz: which pictures a run learns from, by the digests of their bytes. All its folds must see the same ones."""

import zipfile
import zlib
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd

from src.config import CompetitionConfig
from src.cores import cores
from src.data import prepare
from src.data.digests import DIGEST, digests
from src.errors import UserError
from src.files import locked, replacing
from src.training.run import Run

FILE = "pictures.npz"


def look(root: Path, competition: CompetitionConfig, rows: pd.DataFrame) -> pd.Series:
    """The digest of each row's picture now (S32, b"" where there is none), by id. rows: id, path."""
    found = digests(root, rows["path"].tolist(), prepare.beside(root, competition), len(cores()))
    return pd.Series(found, index=rows["id"].to_numpy(dtype=str), dtype=object)


def join(run: Run, now: pd.Series, anew: bool, said: Callable[[str], None]) -> None:
    """Note the pictures that are to be trained on, or compare them with those noted before: some rows may be new.

    anew: every fold is trained anew, so that what was noted counts no more. Raises UserError as `compare`.
    """
    with locked(run.path, patience=60):
        noted = None if anew else read(run)
        if noted is None and not anew and (run.trained_folds() or run.folds_with("last.pt")):
            said(f"{run.path / FILE}: the run has none yet; from now on its folds must see the pictures that are there today")
        known = now.iloc[:0] if noted is None else noted
        _compare(run, known, now)
        more = now[~now.index.isin(known.index)]
        if noted is None or len(more):
            _write(run, pd.concat([known, more]))


def compare(run: Run, now: pd.Series) -> None:
    """Raises UserError where pictures are others than those that the run learnt from; a run of old has noted none."""
    noted = read(run)
    if noted is not None:
        _compare(run, noted, now)


def digest(now: pd.Series) -> str:
    """One digest of all these pictures, whatever their order."""
    return blake2b(b"\n".join(sorted(f"{id} ".encode() + found for id, found in now.items())), digest_size=16).hexdigest()


def read(run: Run) -> pd.Series | None:
    """The digests noted, by id; None where there are none. Raises UserError for a damaged file."""
    path = run.path / FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, noted = file["ids"], file["digests"]
        if ids.dtype.kind != "U" or noted.dtype != DIGEST or ids.shape != noted.shape or ids.ndim != 1:
            raise ValueError(f"ids are {ids.dtype} {ids.shape}, digests {noted.dtype} {noted.shape}")
        return pd.Series(noted, index=ids, dtype=object)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: can't be read ({' '.join(str(error).split())}); where the pictures are still those of the folds trained "
            "before, delete it, and train.py notes them anew"
        ) from None


def _compare(run: Run, noted: pd.Series, now: pd.Series) -> None:
    both = now.index.intersection(noted.index)
    changed = both[(noted[both] != now[both]).to_numpy()]
    if len(changed):
        raise UserError(
            f"{len(changed):,} of {len(now):,} pictures are not those that {run.path} learnt from, the first is that of id "
            f"{changed[0]!r}: put the old ones back, train all its folds anew (--fold … --overwrite), or start another run "
            "(--name NAME)"
        )


def _write(run: Run, noted: pd.Series) -> None:
    with replacing(run.path / FILE) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, ids=noted.index.to_numpy(dtype=str), digests=noted.to_numpy(dtype=DIGEST))
