"""What views are worth, on rows whose labels are known."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.special import softmax
from sklearn.metrics import log_loss

from src.config import ConfigError
from src.inference import tta
from src.inference.tta import Tta
from src.views import read_views
from tiny_runs import tiny

CLASSES = ("a", "b", "c")


def planted(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,), and logits (2, n, 3) of two views with noise of their own."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, rows)
    return labels, (2 * np.eye(3)[labels] + rng.normal(0, 1.5, (2, rows, 3))).astype(np.float32)


@pytest.mark.parametrize("how", ["probabilities", "logits"])
def test_two_noisy_views_are_worth_more_than_either(how: str):
    labels, logits = planted()
    scores = tta.view_scores(Tta(read_views("hflip"), how), "log_loss", labels, logits, CLASSES)
    assert list(scores) == ["identity", "hflip", "mean"]
    assert scores["hflip"] == pytest.approx(log_loss(labels, softmax(logits[1].astype(np.float64), axis=1)), rel=1e-5)
    assert scores["mean"] < min(scores["identity"], scores["hflip"]) - 0.05
    shown = Console(record=True, width=80)
    shown.print(tta.table("log_loss", {"0": scores, "1": scores}))
    assert f"{scores['mean']:.4f} ± 0.0000" in shown.export_text()


def test_views_are_those_that_the_competition_declares_or_the_configuration_asks_for(tmp_path: Path):
    def names(competition: str, **knobs: object) -> list[str]:
        return [str(view) for view in tta.choose(tiny(tmp_path, competition, **knobs)).views]

    assert names("dogs_vs_cats") == names("shopee") == ["identity", "hflip"]
    assert names("digits") == names("dogs_vs_cats", predict__tta="none") == ["identity"]
    assert names("digits", predict__tta="scales(1.0, 1.25)") == ["identity", "scale 1.25"]
    with pytest.raises(ConfigError, match="hflip may change the label: digits declares nothing label-preserving"):
        names("digits", predict__tta="hflip")
    with pytest.raises(ConfigError, match=r"predict\.tta: 'hflop' in 'hflop' is no view"):
        names("digits", predict__tta="hflop")
