"""src/inference/ensemble.py and members.py: what is written can be compared, checked and blended again; what can't be
trusted is refused in one line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted_runs import CLASSES, TEST, plant_competition, plant_run
from rich.table import Table
from scipy.special import softmax
from sklearn.metrics import log_loss

from src import config as configuration
from src.competitions.predictions import Predictions, concatenate, mean
from src.errors import UserError
from src.files import sha256
from src.inference import calibrate, ensemble
from src.inference.blend import Blend
from src.inference.calibrate import Calibration
from src.inference.members import Member
from src.report import compare
from src.training.run import cross_validation


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(
    *runs: Path | str, method: str = "auto", calibration: str = "auto", name: str | None = None
) -> tuple[Member, list[str]]:
    """The ensemble and what was said; tables as their cells, a line each."""
    said: list[str] = []

    def say(what: str | Table) -> None:
        said.append(what) if isinstance(what, str) else said.extend(lines(what))

    return Member(ensemble.make([Path(run) for run in runs], method, calibration, name, say)), said


def lines(table: Table) -> list[str]:
    return [" | ".join(map(str, row)) for row in zip(*(column.cells for column in table.columns), strict=True)]


def two_runs(root: Path, **more: object) -> tuple[Path, Path]:
    truth = plant_competition(root)
    return plant_run(root, "a", truth, **more), plant_run(root, "b", truth, **more)


# What is written


def test_an_ensemble_is_a_run_that_can_be_compared_and_handed_in(root: Path):
    run, said = make(*two_runs(root, scale=2), method="mean", name="a+b")
    assert run.path == Path("runs/a+b")
    record = json.loads((run.path / "ensemble.json").read_text())
    assert record["blend"]["method"] == "mean"
    assert record["calibration"]["kind"] == "temperature"
    assert [member["run"] for member in record["members"]] == [str(root / "runs/a"), str(root / "runs/b")]
    cv = cross_validation(run, "log_loss", "oof_tta.npz")
    assert cv.rows == 600
    assert f"OOF log_loss {cv.oof:.5f} (n=600, nested)" in " ".join(said)
    row = compare.read_rows([root / "runs/a", run.path, root / "runs/b"])[0]
    assert (row.run.name, row.tta) == ("a+b", cv)
    assert "a+b: mean of a, b; calibration: temperature" in " ".join(compare.config_differences([row]))
    table = pd.read_csv("submissions/a+b.csv", dtype={"id": str})
    assert table["id"].tolist() == pd.read_csv("data/planted/test.csv")["id"].tolist()
    solution = pd.read_csv("data/planted/solution.csv")["label"] == "dog"
    assert said[-1] == f"test log_loss {log_loss(solution, table['label']):.4f} (n={TEST})"
    ledger = pd.read_csv("submissions/ledger.csv", dtype=str)
    assert (ledger["file"][0], ledger["runs"][0].split()) == ("a+b.csv", ["a", "b"])


def test_each_folds_test_rows_are_blended_and_calibrated_by_themselves_and_averaged_last(root: Path):
    a, b = two_runs(root, scale=2)
    run, said = make(a, b, method="weights", calibration="temperature+clip")
    record = run.record()
    fitted, calibration = Blend(**record["blend"]), Calibration.from_json(record["calibration"])
    for fold in "012":
        parts = [Predictions.load(each / f"fold-{fold}/test.npz") for each in (a, b)]
        expected = calibration.log_probabilities(fitted.apply(np.stack([part.logits for part in parts])))
        assert np.allclose(Predictions.load(run.fold(fold) / "test.npz").logits, expected, atol=1e-5)
    written = pd.read_csv("submissions/a+b-weights-calibrate-temperature+clip.csv", dtype={"id": str})
    tested = mean(list(run.predictions("test.npz").values())).of(written["id"].to_numpy(dtype=str))
    assert np.allclose(written["label"], tested.probabilities()[:, 1], atol=1e-6)
    assert "test rows: blended and calibrated fold by fold (0, 1, 2), then averaged" in said


def test_the_oof_that_is_written_is_nested(root: Path):
    """Labels of fold 1 turned round change everything that was fitted, but not fold 1's own predictions."""
    a, b = two_runs(root)
    before = make(a, b, method="stack")[0].oof("oof_tta.npz")
    table = pd.read_csv(a / "folds.csv", dtype=str)
    turned = np.where(table["fold"] == "1", np.where(table["label"] == "cat", "dog", "cat"), table["label"])
    for run in (a, b):
        table.assign(label=turned).to_csv(run / "folds.csv", index=False)
        for model in run.glob("fold-*/model.safetensors"):
            trust(model, run)
    after = make(a, b, method="stack", name="again")[0].oof("oof_tta.npz")
    assert np.array_equal(before["1"].logits, after["1"].logits)
    assert not np.array_equal(before["0"].logits, after["0"].logits)


def trust(model: Path, run: Path) -> None:
    """Let a model's card agree with its folder again, as if it had been trained on it."""
    from safetensors.numpy import save_file

    card = {"folds_sha256": sha256(run / "folds.csv"), "scores": {}}
    save_file({"w": np.zeros(4)}, model, metadata={"card": json.dumps(card)})
    for file in ("oof_tta.npz", "test.npz"):
        if (model.parent / file).is_file():
            restamp(model.parent / file, model=sha256(model))


def test_an_ensemble_blends_again_with_a_run_or_an_ensemble(root: Path):
    a, b = two_runs(root)
    c = plant_run(root, "c", plant_truth(root))
    first, _ = make(a, b)
    second, said = make(first.path, c, method="mean", calibration="none")
    assert second.path == Path("runs/a+b+c-mean-calibrate-none")
    assert sorted(second.predictions("test.npz")) == ["0", "1", "2"]
    both = [concatenate(list(Member(path).oof("oof_tta.npz").values())) for path in (first.path, c)]
    expected = mean([both[0], both[1].of(both[0].ids)])
    got = concatenate(list(second.oof("oof_tta.npz").values())).of(expected.ids)
    assert np.allclose(got.probabilities(), expected.probabilities(), atol=1e-5)
    assert "the same folds" in said[0]


def plant_truth(root: Path) -> np.ndarray:
    """The truth of a competition that is planted already."""
    other = root / "other"
    other.mkdir()
    truth = plant_competition(other)
    shutil.rmtree(other)
    return truth


def test_made_again_it_replaces_what_was_there(root: Path):
    a, b = two_runs(root)
    run, _ = make(a, b, name="mine")
    shutil.rmtree(a / "fold-2")
    shutil.rmtree(b / "fold-2")
    again, _ = make(a, b, name="mine")
    assert again.path == run.path
    assert sorted(again.oof("oof_tta.npz")) == sorted(again.predictions("test.npz")) == ["0", "1"]


def test_one_run_is_calibrated_alone(root: Path):
    a, _ = two_runs(root, scale=3)
    run, said = make(a)
    assert run.path == Path("runs/a-calibrated")
    before, after = (cross_validation(Member(path), "log_loss", "oof_tta.npz").oof for path in (a, run.path))
    assert after < before - 0.1
    assert any(line.startswith("temperature | ") for line in said)
    assert not any("recommended:" in line for line in said)


def test_the_tables_show_members_methods_and_disagreement(root: Path):
    a, b = two_runs(root)
    _, said = make(a, b)
    starts = [line.split(" | ")[0] for line in said]
    for title in (str(a), str(b), "best single run", "mean of probabilities", "mean of logits", "weights", "greedy", "stack"):
        assert title in starts
    score = cross_validation(Member(a), "log_loss", "oof_tta.npz").oof
    assert said[starts.index(str(a))].split(" | ")[1] == f"{score:.5f}"
    guesses = [concatenate(list(Member(run).oof().values())) for run in (a, b)]
    differing = np.mean(guesses[0].logits.argmax(axis=1) != guesses[1].of(guesses[0].ids).logits.argmax(axis=1))
    assert f"{a} |  | {differing:.2%}" in said


# Members that differ


def test_runs_of_other_folds_are_blended_on_the_common_rows_and_by_their_own_means(root: Path):
    truth = plant_competition(root)
    a, b = plant_run(root, "a", truth, count=3), plant_run(root, "b", truth, count=4, split=7, trained=(0, 2))
    run, said = make(a, b, method="mean", calibration="none")
    rows = sum(len(part.ids) for part in Member(b).oof().values())
    assert said[0] == (
        f"2 runs, {rows} of 600 rows out-of-fold in all of them, under TTA; "
        "different folds, so those of a for the nested scores"
    )
    assert sorted(run.predictions("test.npz")) == ["mean"]
    expected = mean([mean(list(Member(path).predictions("test.npz").values())) for path in (a, b)])
    assert np.allclose(
        run.predictions("test.npz")["mean"].of(expected.ids).probabilities(), expected.probabilities(), atol=1e-5
    )
    assert cross_validation(run, "log_loss", "oof_tta.npz").rows == rows
    assert "test rows: each member's mean over its own folds, then blended and calibrated" in said


def test_folds_of_the_same_names_but_other_rows_are_not_taken_for_the_same(root: Path):
    truth = plant_competition(root)
    run, said = make(plant_run(root, "a", truth), plant_run(root, "b", truth, split=7))
    assert "600 rows out-of-fold in all of them, under TTA; different folds" in said[0]
    assert list(run.predictions("test.npz")) == ["mean"]


def test_a_single_fold_is_split_for_the_nested_scores(root: Path):
    a, b = two_runs(root, trained=(1,))
    run, said = make(a, b)
    assert said[0].startswith("2 runs, 200 rows out-of-fold in all of them")
    assert said[1] == "all rows are of fold 1: they are split into 5 parts for the nested scores"
    assert list(run.oof("oof_tta.npz")) == ["1"]


def test_without_tta_anywhere_the_plain_predictions_are_read(root: Path):
    run, said = make(*two_runs(root, tta=False))
    assert "without TTA" in said[0]
    assert cross_validation(run, "log_loss").rows == 600
    assert run.oof("oof_tta.npz") == {}


def test_without_test_predictions_the_oof_is_blended_and_the_command_named(root: Path):
    truth = plant_competition(root)
    run, said = make(plant_run(root, "a", truth), plant_run(root, "b", truth, test=False))
    assert cross_validation(run, "log_loss", "oof_tta.npz").rows == 600
    assert said[-1] == (
        f"no submission: {root}/runs/b has no test.npz; `python predict.py {root}/runs/b` writes it, "
        "then the same command again makes the submission"
    )
    assert not Path("submissions").exists()


def test_without_the_data_nothing_is_handed_in_unchecked(root: Path):
    runs = two_runs(root)
    shutil.rmtree("data")
    run, said = make(*runs)
    assert run.predictions("test.npz")
    assert said[-1].startswith("no submission: the test rows to check it against are not here: ")
    assert not Path("submissions").exists()


def test_partial_test_predictions_make_no_submission(root: Path):
    runs = two_runs(root)
    for path in root.glob("runs/*/fold-*/test.npz"):
        whole = Predictions.load(path)
        whole.of(whole.ids[:290]).save(path)
    _, said = make(*runs)
    assert said[-1].startswith("no submission: 10 of 300 test rows have no prediction")


def test_accuracy_is_not_calibrated_and_says_why(root: Path):
    truth = plant_competition(root, metric="accuracy")
    runs = plant_run(root, "a", truth), plant_run(root, "b", truth)
    run, said = make(*runs)
    assert run.record()["calibration"]["kind"] == "none"
    assert any(line.startswith("calibration: none, as accuracy looks at the class that stands first alone") for line in said)
    with pytest.raises(UserError, match="--calibrate temperature: it is fitted to log loss and would gain nothing"):
        make(*runs, calibration="temperature")


def test_ranks_are_blended_for_roc_auc(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ensemble.paired, "RESAMPLES", 4)
    truth = plant_competition(root, metric="roc_auc")
    run, _ = make(plant_run(root, "a", truth), plant_run(root, "b", truth), method="rank")
    assert run.record()["blend"]["method"] == "rank"
    assert cross_validation(run, "roc_auc", "oof_tta.npz").oof > 0.8
    assert Path("submissions/a+b-rank.csv").is_file()


# Refused, in one line, before anything is written


def refused(root: Path, said: str, *runs: Path | str, **options: str) -> None:
    before = sorted(path for path in root.rglob("*"))
    with pytest.raises(UserError, match=said) as error:
        make(*runs, **options)
    assert "\n" not in str(error.value)
    assert sorted(path for path in root.rglob("*")) == before


def test_runs_of_different_competitions(root: Path):
    a, b = two_runs(root)
    (b / "config.yaml").write_text("competition: dogs_vs_cats\n")
    refused(root, "runs/b is a run of dogs_vs_cats, .*runs/a of planted", a, b)


def test_classes_in_another_order(root: Path):
    truth = plant_competition(root)
    a, b = plant_run(root, "a", truth), plant_run(root, "b", truth, classes=CLASSES[::-1])
    for model in b.glob("fold-*/model.safetensors"):
        trust(model, b)
    refused(root, r"runs/b has the classes dog, cat in this order, .*runs/a cat, dog: they can't be blended", a, b)


def test_no_rows_in_common(root: Path):
    truth = plant_competition(root)
    a, b = plant_run(root, "a", truth, trained=(0,)), plant_run(root, "b", truth, trained=(1, 2))
    refused(root, r"no row is out-of-fold in all members \(.*a folds 0, .*b folds 1 2\): train a fold that they share", a, b)


def test_no_out_of_fold_predictions(root: Path):
    truth = plant_competition(root)
    a, b = plant_run(root, "a", truth), plant_run(root, "b", truth, trained=())
    refused(root, "runs/b has no out-of-fold predictions; `python train.py .* --name b --fold 0`", a, b)


def test_predictions_with_nan(root: Path):
    a, b = two_runs(root)
    oof = Predictions.load(b / "fold-1/oof_tta.npz")
    oof.logits[3, 0] = np.nan
    oof.save(b / "fold-1/oof_tta.npz")
    refused(root, r"b/fold-1/oof_tta\.npz: .*id '\d+' holds NaN or infinity", a, b)


def test_some_members_with_and_some_without_tta(root: Path):
    truth = plant_competition(root)
    a, b = plant_run(root, "a", truth), plant_run(root, "b", truth, tta=False)
    refused(root, "runs/b has no oof_tta.npz in fold 0, 1, 2, .*runs/a has: .* are not mixed; `python predict.py .*b`", a, b)
    (a / "fold-2/oof_tta.npz").unlink()
    refused(root, "runs/a has no oof_tta.npz in fold 2", a)


def test_a_run_with_itself(root: Path):
    a, _ = two_runs(root)
    refused(root, "a is named twice: an ensemble of a run with itself is that run", a, "runs/a")


def test_blending_one_run(root: Path):
    a, _ = two_runs(root)
    refused(root, "--method mean: blending needs two runs or more; one run alone is only calibrated", a, method="mean")


def test_a_folder_that_is_no_run(root: Path):
    a, _ = two_runs(root)
    refused(root, "runs/aa is not a run: it has no config.yaml", a, "runs/aa")


def test_a_model_that_is_not_the_one_whose_rows_these_are(root: Path):
    a, b = two_runs(root)
    shutil.copyfile(a / "fold-0/model.safetensors", a / "fold-1/model.safetensors")
    refused(
        root, r"fold-1/model\.safetensors says that its out-of-fold rows scored log_loss .*was changed after training", a, b
    )


def test_a_model_that_was_changed_after_it_had_predicted(root: Path):
    a, b = two_runs(root)
    digest = sha256(b / "fold-2/model.safetensors")
    (b / "fold-2/predicted.json").write_text(json.dumps({"model_sha256": digest}))
    make(a, b, name="sound")
    with open(b / "fold-2/model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    refused(root, r"fold-2/model\.safetensors was changed after it had predicted; `python predict\.py .*b` predicts anew", a, b)


def test_folds_that_were_changed_after_training(root: Path):
    a, b = two_runs(root)
    with open(a / "folds.csv", "a") as file:
        file.write("99999,cat,,0\n")
    refused(root, r"a/folds\.csv was changed after fold 0 was trained", a, b)


def test_a_row_with_two_labels(root: Path):
    a, b = two_runs(root)
    table = pd.read_csv(b / "folds.csv", dtype=str)
    table.loc[5, "label"] = was = "dog" if table["label"][5] == "cat" else "cat"
    table.to_csv(b / "folds.csv", index=False)
    for model in b.glob("fold-*/model.safetensors"):
        trust(model, b)
    refused(
        root, f"1 rows? ha[sv]e? another label in .*b/folds.csv than in .*a/folds.csv: the first is id '00005', '{was}'", a, b
    )


def test_an_ensemble_whose_members_were_changed_since(root: Path):
    a, b = two_runs(root)
    run, _ = make(a, b)
    oof = Predictions.load(b / "fold-1/oof_tta.npz")
    oof.logits[:] *= 2
    oof.save(b / "fold-1/oof_tta.npz")
    refused(
        root, r"b/fold-1/oof_tta\.npz was changed after runs/a\+b was made; `python ensemble.py .*a .*b --name a\+b`", run.path
    )


def test_other_test_rows(root: Path):
    a, b = two_runs(root)
    for path in b.glob("fold-*/test.npz"):
        whole = Predictions.load(path)
        whole.of(whole.ids[:299]).save(path)
    refused(root, r"runs/b, fold 0: test\.npz has 299 rows, .*runs/a 300 or others; predict both again", a, b)


def test_a_name_that_is_taken(root: Path):
    a, b = two_runs(root)
    plant_run(root, "c", plant_truth(root))
    refused(root, "--name c: runs/c is there already and is no ensemble; choose another name", a, b, name="c")
    refused(root, "--name a: runs/a is one of the members; choose another name", a, b, name="a")


def test_too_few_rows(root: Path):
    truth = plant_competition(root, rows=3)
    runs = plant_run(root, "a", truth), plant_run(root, "b", truth)
    refused(root, "too few to (blend|fit)", *runs)


# Views


def restamp(file: Path, **made_by: str) -> None:
    replace(Predictions.load(file), **made_by).save(file)


@pytest.mark.parametrize("name", ["fold-1/oof_tta.npz", "fold-0/test.npz", "fold-2/test.npz"])
def test_a_fold_or_test_rows_under_other_views_are_refused(name: str, root: Path):
    """As after predict.py was interrupted: what it wrote first is under the new views, the rest under the old ones."""
    a, b = two_runs(root)
    restamp(b / name, views="identity")
    refused(root, r"npz was predicted under other views \(\S+\).*runs/b .*`python predict\.py \S+/b` predicts all", a, b)


def test_predictions_that_do_not_say_their_views_are_refused(root: Path):
    a, b = two_runs(root)
    restamp(b / "fold-1/oof_tta.npz", views="", model="")
    refused(root, r"b/fold-1/oof_tta\.npz doesn't say under which views .*`python predict\.py \S+/b` makes it again", a, b)


def test_the_record_of_an_earlier_version_tells_the_views(root: Path):
    """It stood in predicted.json alone, written last, when both files were complete."""
    a, b = two_runs(root)
    for file in b.glob("fold-*/*_tta.npz"), b.glob("fold-*/test.npz"):
        for path in file:
            restamp(path, views="", model="")
    for model in b.glob("fold-*/model.safetensors"):
        told = {"model_sha256": sha256(model), "tta": "identity, hflip", "mean": "probabilities", "rows": "", "views": {}}
        (model.parent / "predicted.json").write_text(json.dumps(told))
    make(a, b, name="sound")
    (b / "fold-1/predicted.json").write_text(
        json.dumps(told | {"tta": "identity", "model_sha256": sha256(model.parents[1] / "fold-1/model.safetensors")})
    )
    refused(root, r"fold-1/oof_tta\.npz was predicted under other views \(identity\)", a, b)


def test_plain_oof_does_not_meet_test_rows_under_tta(root: Path):
    a, b = two_runs(root, tta=False)
    restamp(b / "fold-1/test.npz", views="identity, hflip; mean of probabilities")
    refused(root, r"b/fold-1/test\.npz was predicted under other views .* than the rest of \S+/b \(identity\)", a, b)


def test_members_may_each_have_views_of_their_own_and_it_is_said(root: Path):
    a, b = two_runs(root)
    for path in [*b.glob("fold-*/oof_tta.npz"), *b.glob("fold-*/test.npz")]:
        restamp(path, views="identity")
    _, said = make(a, b)
    (line,) = [line for line in said if "views differ" in line]
    assert line.endswith("a: identity, hflip; mean of probabilities; b: identity")


def test_predictions_of_another_model_are_refused(root: Path):
    a, b = two_runs(root)
    shutil.copyfile(a / "fold-1/test.npz", b / "fold-1/test.npz")
    refused(root, r"b/fold-1/model\.safetensors was changed after it had predicted", a, b)


# The same name again


def test_the_same_command_again_replaces_the_ensemble(root: Path):
    """With test predictions that were not there before; what they left is gone, what others wrote stays."""
    a, b = two_runs(root)
    run, _ = make(a, b, method="mean", name="mine")
    (run.path / "leaderboard.json").write_text("{}")
    for member in (a, b):
        shutil.rmtree(member / "fold-2")
    again, _ = make(b, a, method="mean", name="mine")
    assert sorted(again.predictions("test.npz")) == ["0", "1"]
    assert not (again.path / "fold-2/oof_tta.npz").exists()
    assert (again.path / "leaderboard.json").is_file()
    assert not (again.path / ".new").exists()


@pytest.mark.parametrize("change", ["members", "method", "calibration"])
def test_another_ensemble_under_the_same_name_is_refused(change: str, root: Path):
    a, b = two_runs(root)
    c = plant_run(root, "c", plant_truth(root))
    make(a, b, method="mean", calibration="none", name="mine")
    asked = {"method": "mean", "calibration": "none"} | (
        {change: "logits" if change == "method" else "auto"} if change != "members" else {}
    )
    command = r"`python ensemble\.py \S+/a \S+/b --name mine --method mean --calibrate none`"
    refused(
        root,
        rf"runs/mine is there already, mean of a, b; .*, by {command}; --name",
        a,
        c if change == "members" else b,
        name="mine",
        **asked,
    )


def test_an_ensemble_stays_as_it_was_where_the_disk_is_full(root: Path, monkeypatch: pytest.MonkeyPatch):
    a, b = two_runs(root)
    run, _ = make(a, b)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    monkeypatch.setattr(ensemble.json, "dumps", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        make(a, b)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_rows_without_a_picture_are_counted_in_the_blend_too(root: Path):
    a, b = two_runs(root)
    for model in b.glob("fold-*/model.safetensors"):
        (model.parent / "predicted.json").write_text(json.dumps({"model_sha256": sha256(model), "unseen": ["t3", "t5"]}))
    run, said = make(a, b)
    assert any("; the classes' shares for 2 without a picture that can be read; valid" in line for line in said)
    assert "the classes' shares for 2" in pd.read_csv("submissions/ledger.csv")["method"][0]
    assert run.unseen() == {"t3", "t5"}


# Names


def test_a_name_tells_the_members_and_stays_short(root: Path):
    some = [Member(Path("runs") / name) for name in ("a", "b")]
    assert ensemble.default_name(some, "auto", "auto") == "a+b"
    assert ensemble.default_name(some, "stack", "none") == "a+b-stack-calibrate-none"
    many = [Member(Path(f"runs/dogs_vs_cats-resnet50-seed{i}")) for i in range(9)]
    name = ensemble.default_name(many, "auto", "auto")
    assert name.startswith("dogs_vs_cats-resnet50-seed0+8-")
    assert len(name) < 60
    assert name != ensemble.default_name(many[::-1], "auto", "auto")


def test_the_configuration_of_an_ensemble_holds_the_competition(root: Path):
    runs = two_runs(root)
    run, _ = make(*runs)
    assert configuration.load_run(run.path).competition == Member(runs[0]).config.competition
    assert calibrate.Calibration.from_json(run.record()["calibration"])
    assert softmax(run.oof("oof_tta.npz")["0"].logits, axis=1).sum() == pytest.approx(200, abs=0.01)
