"""The page: one file that holds all it shows, says what it could not show, and is refused in one line."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import write_dogs_vs_cats
from src.errors import UserError
from src.report import attention, page
from src.training import tracking
from written_runs import write_run

ROWS = 20  # of each class
IDS = [f"{name}.{i}" for i in range(ROWS) for name in ("cat", "dog")]
LABELS = np.array([0, 1] * ROWS)
TEN = {"name": "ten", "classes": tuple("abcdefghij"), "metric": "accuracy", "submission_values": "label", "positive": None}


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_dogs_vs_cats(tmp_path_factory.mktemp("page") / "dogs", rows=ROWS, test=2)
    (root / "audit.csv").write_text(
        "part,id,path,kind,detail,twin,twin_path\ntrain,dog.3,train/dog.3.jpg,leak,same,1,test/1.jpg\n"
    )
    return root


def logits(wrong: dict[str, float], seed: int = 0) -> np.ndarray:
    """Right by 4 or so, but for the rows in `wrong`, which are wrong by that much."""
    lead = np.random.default_rng(seed).normal(4, 0.3, len(IDS))
    for id, much in wrong.items():
        lead[IDS.index(id)] = -much
    sign = np.where(LABELS == 1, lead, -lead)
    return np.column_stack([-sign / 2, sign / 2])


def run_of_dogs(path: Path, dogs: Path, wrong: dict[str, float], seed: int = 0, **knobs: dict) -> Path:
    return write_run(path, LABELS, logits(wrong, seed), ids=IDS, root=str(dogs), **knobs)


def written(*paths: Path) -> tuple[str, list[str], Path]:
    """The page, the lines that were said, and where the page lies."""
    said: list[str] = []
    path = page.write(list(paths), said.append)
    return path.read_text(encoding="utf-8"), said, path


def section(text: str, name: str) -> str:
    """What is read in a section, its pictures as [picture]."""
    part = re.search(rf'<h2 id="{name}">.*?(?=<h2|</body>)', text, re.DOTALL)[0]
    part = re.sub(r"<svg.*?</svg>", "", re.sub(r"<img [^>]*>", "[picture]", part), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", part)).split())


@pytest.fixture(scope="module")
def one(dogs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str], Path]:
    run = run_of_dogs(tmp_path_factory.mktemp("one") / "one", dogs, {"dog.3": 9, "cat.5": 6, "cat.7": 0.2}, train={"lr": 0.5})
    for fold in "01":
        epochs = pd.DataFrame({"epoch": [1, 2], "train_loss": [1, 0.5], "val_log_loss": [0.7, 0.6]})
        epochs.to_csv(run / f"fold-{fold}/history.csv", index=False)
    return written(run)


def test_the_page_lies_in_the_runs_folder_and_fetches_nothing(one):
    text, said, path = one
    assert path.name == "report.html"
    assert said == [f"{path}: {path.stat().st_size / 1e6:.1f} MB"]
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert "url(http" not in text
    assert "@import" not in text


def test_the_headline_has_score_accuracy_and_suspects(one):
    numbers = re.findall(r"<b>([^<]+)</b>", one[0].partition("<nav>")[0])
    assert numbers[1] == f"{37 / 40:.4f}"
    assert numbers[3] == "2"


def test_mistakes_stand_with_their_pictures_the_surest_first(one):
    shown = section(one[0], "mistakes")
    ids = re.findall(r"\[picture\] (\w+), taken for (\w+) ([\d.]+)\s% · (\S+)( leak)?", shown)
    assert [(label, other, id, flag) for label, other, _, id, flag in ids] == [
        ("dog", "cat", "dog.3", " leak"),
        ("cat", "dog", "cat.5", ""),
        ("cat", "dog", "cat.7", ""),
    ]
    assert float(ids[2][2]) == pytest.approx(100 / (1 + np.exp(-0.2)), abs=0.06)


def test_maps_stand_beside_the_mistakes_and_where_there_are_none_the_page_says_why(
    dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = run_of_dogs(tmp_path / "run", dogs, {"dog.3": 9, "cat.5": 6})
    asked = []

    def look(oof, album, rows):
        asked.append(oof.ids[rows].tolist())
        return {rows[0]: [("cat", "data:image/jpeg;base64,AAAA"), ("dog", None)]}, ["fold 0: its model is lost"]

    monkeypatch.setattr(attention, "look", look)
    shown = section(written(run)[0], "mistakes")
    assert asked == [["dog.3", "cat.5"]]  # no other row costs anything
    assert re.search(
        r"\[picture\] \[picture\] for cat nothing for dog dog, taken for cat [\d.]+\s% · dog\.3 leak \[picture\] cat,", shown
    )
    assert "Without maps: fold 0: its model is lost" in shown
    assert "Grad-CAM" in shown


def test_without_a_model_the_mistakes_stand_without_maps(one):
    shown = section(one[0], "mistakes")
    assert re.search(
        r"Without maps: fold 0: .*: no such model; .*; fold 1: .*one/fold-1/model\.safetensors: no such model; train", shown
    )
    assert "Grad-CAM" not in shown
    assert "wide" not in one[0].partition("</style>")[2]


def test_only_labels_contradicted_with_confidence_are_suspect(one):
    shown = section(one[0], "labels")
    assert re.findall(r"labelled (\w+); (\w+) \? [\d.]+\s% · (\S+)", shown) == [
        ("dog", "cat", "dog.3"),
        ("cat", "dog", "cat.5"),
    ]


def test_folds_classes_curves_audit_and_changed_knobs_are_shown(one):
    text = one[0]
    assert re.search(r"fold rows log loss accuracy 0 20 \d\.\d{4} \d\.\d{4} 1 20 ", section(text, "folds"))
    assert "95 %" in section(text, "folds")
    assert text.count("<svg") == 3  # two curves, the reliability diagram
    assert "cat 18 90.0 % 2 10.0 % dog 1 5.0 % 19 95.0 %" in section(text, "classes")
    assert "cat dog 2 10.0 % dog cat 1 5.0 %" in section(text, "classes")
    assert "leak 1 training image that is also a test image train/dog.3.jpg" in section(text, "audit")
    assert "train.lr 0.5 0.001" in section(text, "configuration")
    assert "competition" not in section(text, "configuration")


def test_predictions_under_tta_are_shown_beside_those_without(dogs: Path, tmp_path: Path):
    run = run_of_dogs(tmp_path / "run", dogs, {"cat.1": 2})
    assert "without TTA" in written(run)[0].partition("<nav>")[0]
    write_run(run, LABELS, logits({}), ids=IDS, root=str(dogs), file="oof_tta.npz")
    text = written(run)[0]
    assert "under TTA" in text.partition("<nav>")[0]
    assert "log loss without TTA accuracy" in section(text, "folds")
    assert "None: every row is right." in section(text, "mistakes")


def test_a_fold_without_its_plain_predictions_leaves_nothing_to_show_beside_those_under_tta(dogs: Path, tmp_path: Path):
    run = run_of_dogs(tmp_path / "run", dogs, {})
    write_run(run, LABELS, logits({}), ids=IDS, root=str(dogs), file="oof_tta.npz")
    (run / "fold-0/oof.npz").unlink()
    assert "without TTA" not in section(written(run)[0], "folds")


def test_without_the_data_the_page_has_no_pictures_and_says_why(tmp_path: Path):
    run = run_of_dogs(tmp_path / "run", tmp_path / "nowhere", {"dog.3": 9})
    text, said, _ = written(run)
    assert "<img" not in text
    assert "Without pictures:" in section(text, "mistakes")
    assert "no picture" in section(text, "mistakes")
    assert re.search(r"; without pictures: .*nowhere: train/ not found", said[0])


def test_a_picture_that_is_lost_leaves_a_gap(dogs: Path, tmp_path: Path):
    root = write_dogs_vs_cats(tmp_path / "dogs", rows=ROWS, test=2)
    (root / "train/dog.3.jpg").write_bytes(b"no picture")
    text, _, _ = written(run_of_dogs(tmp_path / "run", root, {"dog.3": 9, "cat.5": 6}))
    assert re.match(r".*no picture dog, taken for cat .* dog\.3 \[picture\] cat", section(text, "mistakes"))


def test_names_are_shown_as_they_are_and_never_run(tmp_path: Path):
    classes = ("<script>alert(1)</script>", "a&b")
    run = write_run(
        tmp_path / "run", [0, 1, 0, 1], np.eye(2)[[1, 1, 0, 0]], competition={"classes": classes, "positive": "a&b"}
    )
    text = written(run)[0]
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "a&b, taken for <script>alert(1)</script>" in section(text, "mistakes")


def test_many_classes_are_shown_in_per_cent_and_too_many_by_the_worst(tmp_path: Path):
    names = tuple(f"c{k:02d}" for k in range(60))
    competition = TEN | {"classes": names}
    labels = np.arange(600) % 60
    guesses = np.where((labels >= 50) & (np.arange(600) < 300), 59 - labels % 10, labels)
    text = written(write_run(tmp_path / "run", labels, np.eye(60)[guesses] * 9, competition=competition))[0]
    matrix = re.search(r'<table class="matrix dense">.*?</table>', text, re.DOTALL)[0]
    assert matrix.count("<tr>") == 1 + page.LARGEST
    assert all(f">c{k}<" in matrix for k in range(50, 60))
    assert f"The {page.LARGEST} of 60 classes with the most mistakes." in section(text, "classes")
    assert "c50 taken for c59: 5 of 10 rows (50.0\u00a0%)" in matrix


def test_a_page_of_ten_classes_and_many_pictures_stays_small(tmp_path: Path):
    """Noise is the hardest to compress."""
    import cv2

    labels = np.arange(200) % 10
    for i in range(200):
        path = tmp_path / f"data/train/{'abcdefghij'[i % 10]}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(i).integers(0, 256, (260, 260, 3), np.uint8))
    competition = TEN | {"train_images": "train/{label}/{id}.png", "sample_csv": None}
    run = write_run(
        tmp_path / "run", labels, np.eye(10)[np.where(np.arange(200) < 80, (labels + 1) % 10, labels)] * 9,
        ids=[str(i) for i in range(200)], competition=competition, root=str(tmp_path / "data"),
    )  # fmt: skip
    text, _, path = written(run)
    assert text.count("<img") == 2 * page.TILES
    assert path.stat().st_size < 5e6
    assert re.search(r"56 more .*id label suggested probability", section(text, "labels"))


def test_two_runs_are_compared_row_by_row(dogs: Path, tmp_path: Path):
    first = run_of_dogs(tmp_path / "a", dogs, {"dog.3": 3})
    second = run_of_dogs(tmp_path / "b", dogs, {"dog.3": 3, "cat.4": 5, "cat.6": 4}, train={"lr": 0.5})
    text, _, path = written(first, second)
    assert path == first / "report-vs-b.html"
    shown = section(text, "difference")
    assert "right where the other is wrong 2 0 +2" in shown
    assert "accuracy 0.9750 0.9250 +0.0500 p = 0.5" in shown
    assert re.search(r"log loss 0\.\d{4} 0\.\d{4} −0\.\d{4} −0\.\d{4} to [−+]0\.\d{4} ± 0\.\d{4}", shown)
    closer = section(text, "rows").partition("a is closer")[2].partition("b is closer")[0]
    assert re.findall(r"· (\S+)", closer)[:2] == ["cat.4", "cat.6"]
    assert closer.count("[picture]") == 2  # not the rows on which they agree
    turned = section(written(second, first)[0], "rows").partition("a is closer")[2]
    assert re.findall(r"(−[\d.]+) · (\S+)", turned) == [("−4.98", "cat.4"), ("−3.98", "cat.6")]
    assert "train.lr 0.001 → 0.5" in section(text, "configuration")


def test_an_ensemble_is_named_by_its_recipe(dogs: Path, tmp_path: Path):
    run = run_of_dogs(tmp_path / "both", dogs, {"dog.3": 3})
    record = {
        "members": [{"run": "runs/A", "files": {}}, {"run": "runs/B", "files": {}}],
        "blend": {"method": "mean", "weights": [0.5, 0.5]},
        "calibration": {"kind": "none", "temperature": 1.0, "prior": [], "floor": 0.0},
        "files": {},
    }
    (run / "ensemble.json").write_text(json.dumps(record))
    text = written(run)[0]
    assert "ensemble: mean of A, B; calibration: none" in text.partition("<nav>")[0]
    assert "An ensemble: mean of A, B" in section(text, "configuration")
    other = run_of_dogs(tmp_path / "other", dogs, {})
    assert "both is an ensemble: mean of A, B" in section(written(run, other)[0], "configuration")


def test_the_page_is_shown_on_the_experiments_dashboard(dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    class Recorded:
        def log_page(self, name: str, path: Path) -> None:
            calls.append((name, path.is_file()))

        def finish(self) -> None:
            calls.append("finished")

    def track(config, run, job_type, folder, fold, said):
        calls.append((run, job_type, folder))
        return Recorded()

    monkeypatch.setattr(tracking, "track", track)
    run = run_of_dogs(tmp_path / "run", dogs, {"dog.3": 3})
    page.write([run], lambda _: None)
    assert calls == [("run", "cv", run), ("report", True), "finished"]


def test_a_page_explains_one_run_or_two():
    for count in (0, 3):
        with pytest.raises(
            UserError, match=rf"explains one run or compares two, not {count}: python compare\.py runs/NAME --report"
        ):
            page.write([Path("runs/a")] * count)


def test_nothing_is_written_where_runs_can_not_be_compared(dogs: Path, tmp_path: Path):
    first = run_of_dogs(tmp_path / "a", dogs, {})
    other = write_run(tmp_path / "b", [0, 1], np.eye(2), competition={"name": "else"})
    with pytest.raises(UserError, match="they have no rows in common"):
        page.write([first, other])
    assert not list(first.glob("*.html"))
