"""src/data/prepare.py: find, unpack, check, count, split; and say what is there, what is not, and what to do."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from conftest import SHARED, write_dogs_vs_cats, write_image
from src import config as configuration
from src.competitions import torchvision_data
from src.config import CompetitionConfig, Config, DataConfig, built_in
from src.data import folds, own, prepare
from src.data.image import fit, read
from src.data.prepare import Prepared, audited, locate, prepare_and_report, training_rows
from src.errors import UserError

REAL_SHOPEE = SHARED / "data" / "shopee-product-detection-student"

# A competition by YAML alone: a CSV and a folder of images
RETINA = """
competition:
  name: retina
  train_csv: train.csv
  test_csv: test.csv
  sample_csv: sample.csv
  id_column: image_id
  label_column: diagnosis
  train_images: images/{image_id}.png
  test_images: test_images/{image_id}.png
  metric: quadratic_kappa
  expected_train: 30
"""


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and no Kaggle around it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prepare, "KAGGLE_INPUT", tmp_path / "kaggle" / "input")
    return tmp_path


def config(competition: str | CompetitionConfig = "dogs_vs_cats", **data) -> Config:
    given = built_in(competition) if isinstance(competition, str) else competition
    return Config(competition=given, data=DataConfig(**{"audit": False} | data))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"image")


def dogs_vs_cats(root: Path, rows: int = 6, test: int = 4) -> Path:
    touch(root, *(f"train/{label}.{i}.jpg" for label in ("cat", "dog") for i in range(rows)))
    touch(root, *(f"test/{i}.jpg" for i in range(1, test + 1)))
    (root / "sample_submission.csv").write_text("id,label\n" + "".join(f"{i},0.5\n" for i in range(test, 0, -1)))
    return root


def zipped(root: Path, *folders: str) -> None:
    """Put each folder into a zip archive of its name, as Kaggle does."""
    for folder in folders:
        with zipfile.ZipFile(root / f"{folder}.zip", "w") as zip:
            for path in sorted((root / folder).rglob("*.*")):
                zip.write(path, path.relative_to(root))
        shutil.rmtree(root / folder)


def read_only(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    access = os.access
    same = folder.resolve()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).resolve() != same and access(path, mode))


def prepared(given: Config) -> tuple[Prepared, list[str]]:
    said: list[str] = []
    return prepare.prepare(given, said.append), said


def reported(given: Config, download: bool = False) -> str:
    said: list[str] = []
    prepare_and_report(given, download, said.append)
    return "\n".join(said)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        act()
    assert "\n" not in str(error.value), "a mistake is told in one line"
    return str(error.value)


# Finding


def test_the_data_is_looked_for_in_the_root_given_then_below_data_then_in_kaggles_folder(workplace):
    slug = built_in("dogs_vs_cats").slug
    assert locate(config()) == Path("data/dogs_vs_cats"), "where it is to be put, when it is nowhere"
    touch(workplace / f"kaggle/input/competitions/{slug}", "train.zip")
    assert locate(config()) == workplace / f"kaggle/input/competitions/{slug}"
    touch(workplace / f"kaggle/input/{slug}", "train.zip")
    assert locate(config()) == workplace / f"kaggle/input/{slug}"
    (workplace / "data/dogs_vs_cats").mkdir(parents=True)
    assert locate(config()) == workplace / f"kaggle/input/{slug}", "an empty folder holds nothing"
    touch(workplace / "data/dogs_vs_cats", "train.zip")
    assert locate(config()) == Path("data/dogs_vs_cats")
    assert locate(config(root="elsewhere")) == Path("elsewhere")


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_or_absent_folder_says_what_is_expected_and_the_two_ways_to_get_it(workplace, exists):
    if exists:
        (workplace / "data/shopee").mkdir(parents=True)
    said = refusal(lambda: prepared(config("shopee")))
    assert said.startswith("data/shopee: train.csv not found. Expected there: train.csv, test.csv, train/train/train/")
    assert "`python prepare.py --config … --download`" in said
    assert "https://www.kaggle.com/c/shopee-product-detection-student/data" in said


def test_a_folder_of_images_that_is_not_there_is_named(workplace):
    (workplace / "sample_submission.csv").write_text("id,label\n1,0.5\n")
    assert ": train/ not found" in refusal(lambda: prepared(config(root=str(workplace))))


def test_a_competition_that_is_not_on_kaggle_is_not_offered_for_download():
    mine = CompetitionConfig(name="mine", train_csv="train.csv")
    said = refusal(lambda: prepared(config(mine)))
    assert "data/mine: train.csv not found" in said
    assert "--download" not in said


def test_a_pattern_without_a_fixed_folder_is_looked_for_in_the_root_itself(workplace):
    mine = CompetitionConfig(name="mine", train_images="{label}/{id}.jpg")
    assert "data/mine: ./ not found" in refusal(lambda: prepared(config(mine)))
    touch(workplace / "data/mine", "a/1.jpg", "b/2.jpg")
    assert prepared(config(mine))[0].train["label"].tolist() == ["a", "b"]


# Unpacking


def test_kaggles_archives_are_unpacked_once(workplace):
    root = dogs_vs_cats(workplace / "data/dogs_vs_cats")
    zipped(root, "train", "test")
    first, said = prepared(config())
    assert said == [
        f"{name}.zip: unpacked {count} files into data/dogs_vs_cats" for name, count in (("test", 4), ("train", 12))
    ]
    assert (len(first.train), first.train["found"].all(), first.test["found"].all()) == (12, True, True)
    assert prepared(config())[1] == []


def test_archives_in_a_read_only_folder_are_unpacked_below_data(workplace, monkeypatch):
    source = dogs_vs_cats(workplace / "kaggle/input/dogs-vs-cats-redux-kernels-edition")
    zipped(source, "train", "test")
    before = sorted(path.name for path in source.iterdir())
    read_only(monkeypatch, source)
    for count in (2, 0):
        found, said = prepared(config())
        assert len(said) == count
        assert found.root == Path("data/dogs_vs_cats")
        assert found.test["id"].tolist() == ["4", "3", "2", "1"], "the sample submission came along"
        assert found.train["found"].all()
    assert sorted(path.name for path in source.iterdir()) == before


@pytest.mark.parametrize("after", [0, 2, 5, 10])
def test_an_interrupted_unpacking_of_a_read_only_folder_is_resumed(workplace, monkeypatch, after):
    source = dogs_vs_cats(workplace / "kaggle/input/dogs-vs-cats-redux-kernels-edition")
    zipped(source, "train", "test")
    read_only(monkeypatch, source)
    copy, calls = shutil.copyfileobj, iter(range(after))

    def interrupted(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        copy(*args)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepared(config())
    found, _ = prepared(config())
    assert (len(found.train), len(found.test)) == (12, 4)
    assert found.train["found"].all()
    assert found.test["found"].all()


def test_unpacked_data_in_a_read_only_folder_are_read_where_they_lie(workplace, monkeypatch):
    source = dogs_vs_cats(workplace / "elsewhere")
    read_only(monkeypatch, source)
    report = reported(config(root=str(source)))
    assert f"{source} is read-only, so only each run keeps it" in report
    assert not list(workplace.rglob("folds.csv"))


def test_folds_that_cannot_be_written_beside_the_data_are_left_to_the_runs(workplace, monkeypatch):
    dogs_vs_cats(workplace / "data/dogs_vs_cats")

    def full(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(folds, "write_folds", full)  # a mount that access() takes for writable
    assert "is read-only, so only each run keeps it" in reported(config())


# Counting


def test_counts_are_stated_and_compared_with_kaggles(workplace):
    dogs_vs_cats(workplace / "data/dogs_vs_cats")
    found, _ = prepared(config())
    assert found.notes == (
        "dogs_vs_cats: 12 training rows (in full 25,000), 4 test rows (in full 12,500), in data/dogs_vs_cats",
        "classes: cat 6, dog 6",
    )
    assert found.classes == ("cat", "dog")


def test_counts_that_are_kaggles_need_no_remark(workplace):
    dogs_vs_cats(workplace / "data/mine")
    mine = built_in("dogs_vs_cats").model_copy(update={"name": "mine", "expected_train": 12, "expected_test": 4})
    assert prepared(config(mine))[0].notes[0] == "mine: 12 training rows, 4 test rows, in data/mine"


def shopee(root: Path) -> Path:
    """Three rows of two classes each; one training image lacks, one has no row; the same of the test images."""
    root.mkdir(parents=True)
    names = [(label, f"{label}{i}.jpg") for label in ("00", "01") for i in range(3)]
    (root / "train.csv").write_text("filename,category\n" + "".join(f"{name},{label}\n" for label, name in names))
    (root / "test.csv").write_text("filename,category\nt1.jpg,43\nt2.jpg,43\n")
    touch(root, *(f"train/train/train/{label}/{name}" for label, name in names[1:]), "train/train/train/01/stray.jpg")
    touch(root, "test/test/test/t1.jpg", "test/test/test/stray.jpg")
    return root


def test_rows_without_image_and_images_without_row_are_counted_and_named(workplace):
    shopee(workplace / "data/shopee")
    found, _ = prepared(config("shopee"))
    assert found.notes[2:] == (
        "1 of 6 training rows have no image, the first is train/train/train/00/000.jpg",
        "1 of 2 test rows have no image, the first is test/test/test/t2.jpg",
        "1 training images have no row in train.csv, the first is train/train/train/01/stray.jpg; they are not used",
        "1 test images have no row in test.csv, the first is test/test/test/stray.jpg; they are not used",
    )
    assert found.train["found"].tolist() == [False] + [True] * 5
    assert found.test["found"].tolist() == [True, False]
    assert set(found.train["label"]) == {"00", "01"}
    assert len(found.classes) == 42


def test_without_test_files_there_is_a_note_and_no_error(workplace):
    (shopee(workplace / "data/shopee") / "test.csv").unlink()
    found, _ = prepared(config("shopee"))
    assert found.test is None
    assert any(note.startswith("no test rows: data/shopee/test.csv is not there") for note in found.notes)

    shutil.rmtree(dogs_vs_cats(workplace / "data/dogs_vs_cats") / "test")
    (workplace / "data/dogs_vs_cats/sample_submission.csv").unlink()
    found, _ = prepared(config())
    assert found.test is None
    assert "no test rows: no file matches data/dogs_vs_cats/test/{id}.jpg" in found.notes


def test_a_sample_submission_without_images_says_that_they_lack(workplace):
    shutil.rmtree(dogs_vs_cats(workplace / "data/dogs_vs_cats") / "test")
    found, _ = prepared(config())
    assert found.test["id"].tolist() == ["4", "3", "2", "1"]
    assert "4 of 4 test rows have no image, the first is test/4.jpg" in found.notes


def test_a_single_class_cannot_be_learnt(workplace):
    (workplace / "train.csv").write_text("id,label\na,0\nb,0\n")
    mine = CompetitionConfig(name="mine", train_csv="train.csv")
    assert "all 2 training rows are of one class, '0'" in refusal(lambda: prepared(config(mine, root=str(workplace))))


# Rows to train on


def test_rows_without_image_are_refused_unless_they_are_to_be_dropped(workplace):
    root = shopee(workplace / "data/shopee")
    found, _ = prepared(config("shopee"))
    said = refusal(lambda: training_rows(config("shopee"), found))
    assert said == (
        "1 of 6 training rows have no image, the first is id '000.jpg': data/shopee/train/train/train/00/000.jpg; "
        "--data.missing drop leaves them out and uses the other 5"
    )
    kept = training_rows(config("shopee", missing="drop"), found)
    assert kept["id"].tolist() == ["001.jpg", "002.jpg", "010.jpg", "011.jpg", "012.jpg"]
    assert kept.index.tolist() == list(range(5))
    assert all((root / path).is_file() for path in kept["path"])


@pytest.mark.parametrize("named", ["000.JPG", "000.png", "000"])
def test_an_image_that_is_only_named_otherwise_is_not_to_be_dropped(workplace, named):
    root = shopee(workplace / "data/shopee")
    touch(root, f"train/train/train/00/{named}")
    said = refusal(lambda: training_rows(config("shopee"), prepared(config("shopee"))[0]))
    assert f"train/train/train/00/000.jpg, but train/train/train/00/{named} is there" in said
    assert "--data.missing" not in said


def test_tables_without_a_single_image_cannot_be_trained_on(workplace):
    shutil.rmtree(shopee(workplace / "data/shopee") / "train")
    found, _ = prepared(config("shopee"))
    said = refusal(lambda: training_rows(config("shopee", missing="drop"), found))
    assert said.startswith("6 of 6 training rows have no image, the first is id '000.jpg'")
    assert "--data.missing" not in said


@pytest.mark.parametrize("rows", [2, 5, 11])
def test_few_rows_are_drawn_evenly_by_class_the_same_for_the_same_seed(workplace, rows):
    dogs_vs_cats(workplace / "data/dogs_vs_cats", rows=20)
    found, _ = prepared(config())
    drawn = [training_rows(config(rows=rows, seed=seed), found)["id"].tolist() for seed in (0, 0, 1)]
    cats = sum(id.startswith("cat") for id in drawn[0])
    assert len(drawn[0]) == rows
    assert abs(2 * cats - rows) <= 1
    assert drawn[0] == drawn[1] != drawn[2]
    order = found.train["id"].tolist()
    assert drawn[0] == sorted(drawn[0], key=order.index), "in the table's order"


def test_more_rows_than_there_are_means_all_of_them(workplace):
    dogs_vs_cats(workplace / "data/dogs_vs_cats")
    found, _ = prepared(config())
    assert len(training_rows(config(rows=1000), found)) == 12


# The report


def test_the_report_ends_with_the_folds_and_where_they_are(workplace):
    dogs_vs_cats(workplace / "data/dogs_vs_cats")
    report = reported(config(folds=3)).splitlines()
    assert report[-1] == "folds.csv: 12 rows in 3 folds of 4 4 4; data/dogs_vs_cats/folds.csv"
    assert len(folds.read_folds(workplace / "data/dogs_vs_cats/folds.csv")) == 12


def test_the_report_says_that_and_why_training_would_be_refused(workplace):
    dogs_vs_cats(workplace / "data/dogs_vs_cats", rows=3)
    report = reported(config(folds=5)).splitlines()
    assert report[-1].startswith("train.py will refuse this: 2 of 2 classes have fewer rows than the 5 folds: cat (3), dog (3)")
    assert not (workplace / "data/dogs_vs_cats/folds.csv").exists()


def test_digits_are_written_when_they_are_first_asked_for(workplace):
    found, said = prepared(config("digits"))
    assert said == ["digits: written to data/digits"]
    assert found.notes[0] == "digits: 1,437 training rows, 360 test rows, in data/digits"
    assert found.train["found"].all()
    assert prepared(config("digits"))[1] == []


@pytest.mark.parametrize("name, file", [("mnist", "raw/train-images-idx3-ubyte.gz"), ("cifar10", "cifar-10-python.tar.gz")])
def test_the_lectures_data_are_written_from_torchvisions_files_or_asked_for(name, file, workplace, monkeypatch):
    said = refusal(lambda: prepared(config(name)))
    assert said.startswith(f"data/{name}: train/ not found")
    assert said.endswith(f"Or torchvision's {file}; `python prepare.py --config … --download` gets it")

    def write(name: str, root: Path) -> None:
        touch(
            root, *(f"{part}/{label}/{i}.png" for part in ("train", "test") for label in built_in(name).classes for i in (1, 2))
        )

    monkeypatch.setattr(torchvision_data, "write", write)
    touch(workplace / "data" / name, file)
    found, told = prepared(config(name))
    assert told == [f"{name}: written to data/{name}"]
    assert (len(found.train), len(found.test)) == (20, 20)
    shutil.rmtree(workplace / "data" / name)
    assert reported(config(name), download=True).startswith(f"{name}: 20 training rows (in full ")


# A competition by YAML alone


@pytest.fixture
def retina(workplace: Path) -> Config:
    root = workplace / "data/retina"
    for i in range(30):
        write_image(root / f"images/{i:04d}.png", i, height=20 + i, width=40)
    for i in range(3):
        write_image(root / f"test_images/t{i}.png", 100 + i)
    (root / "train.csv").write_text("\ufeffimage_id,diagnosis,age\n" + "".join(f"{i:04d},{i % 3},7\n" for i in range(30)))
    (root / "test.csv").write_text("image_id,age\nt0,7\nt1,7\nt2,7\n")
    (root / "sample.csv").write_text("image_id,diagnosis\nt2,0\nt0,0\nt1,0\n")
    (workplace / "retina.yaml").write_text(RETINA)
    return configuration.load(workplace / "retina.yaml")


def test_a_csv_and_a_folder_of_images_are_prepared_and_split_by_yaml_alone(retina):
    found, _ = prepared(retina)
    assert found.notes == ("retina: 30 training rows, 3 test rows, in data/retina", "classes: 0 10, 1 10, 2 10")
    assert found.classes == ("0", "1", "2")
    assert found.test["id"].tolist() == ["t2", "t0", "t1"]
    assert found.train["id"].tolist()[:2] == ["0000", "0001"]
    assert found.train["found"].all()
    assert found.test["found"].all()
    assert all(fit(read(found.root / path), 16, "crop").shape == (16, 16, 3) for path in found.train["path"])

    assert reported(retina).splitlines()[-1] == "folds.csv: 30 rows in 5 folds of 6 6 6 6 6; data/retina/folds.csv"
    table = folds.read_folds(found.root / "folds.csv")
    assert table["id"].tolist() == found.train["id"].tolist()
    assert (table.groupby(["fold", "label"]).size() == 2).all()


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("0003,0,7", "0002,0,7", "data/retina/train.csv: id '0002' stands 2 times, in rows 4, 5"),
        (
            "diagnosis",
            "diagnose",
            "data/retina/train.csv: column 'diagnosis' is missing; the file has 'image_id', 'diagnose', 'age'",
        ),
        ("0003,0,7", ",0,7", "data/retina/train.csv: row 5 has no id"),
        ("0003,0,7", "0003,,7", "data/retina/train.csv: row 5, id '0003': no label"),
    ],
)
def test_mistakes_in_such_a_competitions_table_are_told_with_file_and_row(retina, old, new, said):
    path = Path("data/retina/train.csv")
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert said in refusal(lambda: prepared(retina))


def test_labels_outside_the_classes_of_such_a_competition_are_refused(retina):
    tree = yaml.safe_load(RETINA) | {"data": {}}
    tree["competition"]["classes"] = ["0", "1"]
    two = configuration.validate(tree, {})
    assert "row 4, id '0002': label '2' is not among the 2 classes 0, 1 (10 such rows)" in refusal(lambda: prepared(two))


@pytest.mark.parametrize(
    "file, old, new, said",
    [
        ("sample.csv", "diagnosis", "label", "data/retina/sample.csv: its header is 'image_id,label'"),
        ("sample.csv", "diagnosis", "diagnosis,diagnosis", "competition.submission_columns"),
        ("sample.csv", "t2,0", "t2,00", "column 'diagnosis' holds '00', and the training rows have '0'"),
    ],
)
def test_a_sample_that_the_submission_would_not_match_is_refused_before_training(retina, file, old, new, said):
    path = Path("data/retina") / file
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert said in refusal(lambda: prepared(retina))


def test_paths_in_a_table_are_found_however_they_are_spelt(retina):
    spelt = retina.competition.model_copy(update={"train_images": "{path}"})
    spellings = [
        "images/{}.png",
        "./images//{}.png",
        "images/../images/{}.png",
        "images\\{}.png",
        os.path.abspath("data/retina/images/{}.png"),
    ]
    rows = [f"{i:04d},{i % 3},{spellings[i % 5].format(f'{i:04d}')}\n" for i in range(30)]
    Path("data/retina/train.csv").write_text("image_id,diagnosis,path\n" + "".join(rows))
    found = prepared(retina.model_copy(update={"competition": spelt}))[0]
    assert found.train["path"].tolist() == [f"images/{i:04d}.png" for i in range(30)]
    assert found.train["found"].all()


def test_a_format_that_the_decoder_does_not_know_is_named(retina):
    for path in Path("data/retina/images").glob("*.png"):
        path.with_suffix(".npy").write_bytes(b"\x93NUMPY" + path.read_bytes())
    arrays = retina.competition.model_copy(update={"train_images": "images/{image_id}.npy"})
    knobs = Config(competition=arrays, data=DataConfig(workers=0))
    said = refusal(lambda: training_rows(knobs, audited(knobs, prepared(knobs)[0])))
    assert "30 training rows are not_an_image" in said
    assert "OpenCV reads no .npy files" in said


# The real tables of Shopee


@pytest.fixture(scope="module")
def real_shopee(tmp_path_factory) -> Path:
    if not REAL_SHOPEE.is_dir():
        pytest.skip("the real Shopee tables are not here")
    root = tmp_path_factory.mktemp("shopee")
    for file in REAL_SHOPEE.iterdir():
        (root / file.name).symlink_to(file)
    return root


def test_real_shopee_tables_of_which_few_rows_have_images(real_shopee):
    found, said = prepared(config("shopee", root=str(real_shopee)))
    assert said in ([], [f"train.zip: unpacked 126 files into {real_shopee}"])
    assert found.notes[0] == f"shopee: 105,392 training rows, 12,186 test rows, in {real_shopee}"
    assert found.notes[1].startswith("42 classes, from 573 rows (")
    assert found.notes[2].startswith("105,266 of 105,392 training rows have no image, the first is train/train/train/")
    assert found.notes[3].startswith("12,186 of 12,186 test rows have no image, the first is test/test/test/")
    assert len(found.notes) == 4
    assert set(found.train["label"]) == set(built_in("shopee").classes)

    said = refusal(lambda: training_rows(config("shopee"), found))
    assert said.startswith("105,266 of 105,392 training rows have no image")
    assert said.endswith("--data.missing drop leaves them out and uses the other 126")

    rows = training_rows(config("shopee", missing="drop"), found)
    assert len(rows) == 126
    assert set(rows["label"].value_counts()) == {3}
    assert read(real_shopee / rows["path"][0]).ndim == 3
    said = refusal(lambda: folds.make_folds(rows, 5, 0))
    assert said.startswith("42 of 42 classes have fewer rows than the 5 folds: 00 (3), 01 (3), ")
    assert "41 (3); use --data.folds 3" in said
    assert folds.make_folds(rows, 3, 0)["fold"].value_counts().tolist() == [42, 42, 42]


# The audit in front of training


def pictured(root: Path, rows: int = 6) -> Path:
    """Dogs vs. Cats with real pictures, of which cat.1 is a copy of cat.0 and dog.0 can't be decoded."""
    write_dogs_vs_cats(root, rows=rows)
    shutil.copy(root / "train/cat.0.jpg", root / "train/cat.1.jpg")
    (root / "train/dog.0.jpg").write_bytes((root / "train/dog.0.jpg").read_bytes()[:100])
    return root


def test_what_cannot_be_decoded_is_refused_before_training_with_its_kind_and_the_remedy(workplace):
    pictured(workplace / "data/dogs_vs_cats")
    knobs = config(audit=True, workers=0)
    said = refusal(lambda: training_rows(knobs, audited(knobs, prepared(knobs)[0])))
    assert said.startswith("1 training rows are ")
    assert "id 'dog.0', train/dog.0.jpg" in said
    assert "=drop leaves them out" in said


@pytest.mark.parametrize(("policy", "left"), [((), 11), (("exact_duplicate=drop",), 10)])
def test_policies_drop_what_they_name_and_duplicates_share_a_fold(workplace, policy, left):
    pictured(workplace / "data/dogs_vs_cats")
    first = config(audit=True, workers=0)
    found = audited(first, prepared(first)[0])
    broken = found.audit.findings.query("id == 'dog.0'")["kind"].iloc[0]
    knobs = config(audit=True, workers=0, policy=(f"{broken}=drop", *policy))
    rows = training_rows(knobs, found)
    assert len(rows) == left
    assert "dog.0" not in rows["id"].tolist()
    groups = rows.set_index("id")["group"]
    assert (groups.get("cat.1") == groups["cat.0"]) == (policy == ())
    table = folds.make_folds(rows, 2, 0).set_index("id")["fold"]
    assert table.get("cat.1", table["cat.0"]) == table["cat.0"]


def test_the_report_writes_the_audit_beside_the_data_and_reads_each_image_once(workplace):
    root = pictured(workplace / "data/dogs_vs_cats")
    knobs = config(audit=True, workers=0, folds=2)
    report = reported(knobs)
    assert "audit: 19 images, 19 of them read anew" in report
    assert "exact_duplicate: 1" in report
    assert (root / "audit.csv").read_text().startswith("part,id,path,kind,detail,twin,twin_path\n")
    assert (root / "audit.png").stat().st_size > 1000
    assert "audit: 19 images, 0 of them read anew" in reported(knobs)


def test_training_too_leaves_what_the_audit_found_beside_the_data(workplace):
    root = pictured(workplace / "data/dogs_vs_cats")
    knobs = config(audit=True, workers=0)
    for _ in range(2):  # over its own
        found = audited(knobs, prepared(knobs)[0])
        assert (root / "audit.csv").read_text().count("\n") == 1 + len(found.audit.findings)
        (root / "train/cat.2.jpg").write_bytes(b"")


# Files of the user


@pytest.mark.parametrize("name", ["folds.csv", "audit.csv", "audit.png"])
def test_a_file_of_the_users_is_left_and_ours_is_named(workplace, name):
    root = pictured(workplace / "data/dogs_vs_cats")
    mine = "id,label,group,fold\n" if name == "folds.csv" else "mine"  # even one that looks like ours
    (root / name).write_text(mine)
    knobs = config(audit=True, workers=0, folds=2, policy=("unreadable=drop", "truncated=drop"))
    for _ in range(2):
        report = reported(knobs)
        assert (root / name).read_text() == mine
        assert f"runs/.audit/dogs_vs_cats/{name}" in report
    ours = {file.name for file in (workplace / "runs/.audit/dogs_vs_cats").iterdir() if not file.name.startswith(".")}
    assert ours == {name}


@pytest.mark.parametrize("name", ["folds.csv", "audit.csv"])
def test_a_file_of_ours_that_was_changed_is_the_users(workplace, name):
    root = pictured(workplace / "data/dogs_vs_cats")
    knobs = config(audit=True, workers=0, folds=2, policy=("unreadable=drop", "truncated=drop"))
    reported(knobs)
    (root / name).write_text(changed := (root / name).read_text() + "\n")
    reported(knobs)
    assert (root / name).read_text() == changed
    assert (workplace / "runs/.audit/dogs_vs_cats" / name).is_file()


def test_a_file_of_an_older_version_that_is_the_same_becomes_ours(workplace):
    root = dogs_vs_cats(workplace / "data/dogs_vs_cats")
    reported(config(folds=3))
    (root / ".folds.csv.ours").unlink()
    reported(config(folds=3))
    assert not (workplace / "runs/.audit/dogs_vs_cats/folds.csv").exists()
    assert reported(config(folds=2)).endswith("in 2 folds of 6 6; data/dogs_vs_cats/folds.csv")


@pytest.mark.parametrize("spelling", ["folds.csv", "./folds.csv", "absolute", "train.csv"])
def test_a_training_table_called_folds_csv_is_never_replaced(workplace, spelling):
    root = workplace / "data/x"
    for i in range(12):
        write_image(root / f"train/{i}.jpg", i)
    table = "".join(["id,label\n", *(f"{i},{'ab'[i % 2]}\n" for i in range(12))])
    (root / "folds.csv").write_text(table)
    own.write(root / "folds.csv", root, lambda path: path.write_text(table))  # as if an earlier run had written it
    (root / "train.csv").symlink_to("folds.csv")
    named = str(root / "folds.csv") if spelling == "absolute" else spelling
    tree = {"name": "x", "train_csv": named, "train_images": "train/{id}.jpg", "test_images": "test/{id}.jpg"}
    knobs = configuration.validate({"competition": tree, "data": {"folds": 2, "audit": False}}, {})
    assert "runs/.audit/x/folds.csv" in reported(knobs)
    assert (root / "folds.csv").read_text() == table


def test_a_table_that_is_a_link_to_itself_is_no_table(workplace):
    root = shopee(workplace / "data/shopee")
    (root / "test.csv").unlink()
    (root / "test.csv").symlink_to("test.csv")
    assert "6 training rows" in reported(config("shopee", folds=2))


def test_a_table_that_was_corrected_beside_a_read_only_folder_stays(workplace, monkeypatch):
    root = shopee(workplace / "input")
    kept = (root / "train.csv").read_text()
    zipped(root, "train")
    read_only(monkeypatch, root)
    knobs = config("shopee", root=str(root))
    prepared(knobs)
    corrected = kept.replace(",00\n", ",01\n", 1)
    (workplace / "data/shopee/train.csv").write_text(corrected)
    _, said = prepared(knobs)
    assert (workplace / "data/shopee/train.csv").read_text() == corrected
    assert any("data/shopee/train.csv is used" in line for line in said)
