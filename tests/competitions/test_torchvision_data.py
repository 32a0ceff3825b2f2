"""src/competitions/torchvision_data.py: torchvision's files become folders of pictures, whole or not at all."""

import gzip
import hashlib
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from src.competitions import tables, torchvision_data
from src.config import built_in
from src.errors import UserError

MNIST, CIFAR = built_in("mnist"), built_in("cifar10")


def plant_mnist(root: Path, rows: int = 12) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The four idx files, packed, with random pictures: {"train": (pictures, labels), "t10k": …}."""
    rng, planted = np.random.default_rng(0), {}
    (root / "raw").mkdir(parents=True)
    for part in ("train", "t10k"):
        pictures, labels = rng.integers(0, 256, (rows, 28, 28), np.uint8), rng.permutation(rows).astype(np.uint8) % 10
        for name, magic, array in (("images-idx3", 2051, pictures), ("labels-idx1", 2049, labels)):
            header = np.array([magic, *array.shape], ">i4").tobytes()
            (root / f"raw/{part}-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
        planted[part] = pictures, labels
    return planted


def plant_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, rows: int = 10) -> dict[str, tuple[np.ndarray, list[int]]]:
    """torchvision's five batches and the test batch, with their own md5 in place of the real ones."""
    folder, rng, planted = root / CIFAR10.base_folder, np.random.default_rng(0), {}
    folder.mkdir(parents=True)

    def write(name: str, content: dict) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(name: str) -> list[str]:
        pictures, labels = rng.integers(0, 256, (rows, 32, 32, 3), np.uint8), rng.permutation(rows).tolist()
        planted[name] = pictures, labels
        flat = pictures.transpose(0, 3, 1, 2).reshape(rows, -1)
        return [name, write(name, {"data": flat, "labels": labels})]

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    names = {"label_names": list(CIFAR.classes)}
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": write("batches.meta", names)})
    return planted


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", refused)


def test_mnists_pictures_and_labels_are_those_of_the_raw_files(tmp_path: Path):
    planted = plant_mnist(tmp_path)
    assert torchvision_data.at_hand("mnist", tmp_path)
    torchvision_data.write("mnist", tmp_path)
    train, truth = tables.train_table(MNIST, tmp_path), tables.truth(MNIST, tmp_path, MNIST.classes)
    assert sorted(tables.test_table(MNIST, tmp_path)["id"]) == sorted(truth["id"])
    for part, (pictures, labels), table in (("train", planted["train"], train), ("test", planted["t10k"], truth)):
        assert len(table) == len(labels)
        for row in table.itertuples():
            number = int(row.id.partition("/")[2])
            assert row.label == str(labels[number])
            read = cv2.imread(str(tmp_path / part / f"{row.id}.png"), cv2.IMREAD_GRAYSCALE)
            assert np.array_equal(read, pictures[number])


def test_cifars_colours_are_right_and_its_batches_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    planted = plant_cifar(tmp_path, monkeypatch)
    assert torchvision_data.at_hand("cifar10", tmp_path)
    torchvision_data.write("cifar10", tmp_path)
    train = tables.train_table(CIFAR, tmp_path)
    assert len(train) == 50
    for row in train.itertuples():
        number = int(row.path.rpartition("/")[2].removesuffix(".png"))
        pictures, labels = planted[f"data_batch_{number // 10 + 1}"]
        assert row.label == CIFAR.classes[labels[number % 10]]
        assert np.array_equal(cv2.imread(str(tmp_path / row.path), cv2.IMREAD_COLOR_RGB), pictures[number % 10])
    assert len(tables.truth(CIFAR, tmp_path, CIFAR.classes)) == 10


def test_a_damaged_file_is_told_in_one_line_and_nothing_is_left_behind(tmp_path: Path, offline: None):
    plant_mnist(tmp_path)
    packed = tmp_path / "raw/train-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:-100])
    before = {path.name for path in tmp_path.rglob("*")}
    with pytest.raises(UserError, match=r"mnist's files are missing or damaged, and can't be fetched: \S") as told:
        torchvision_data.write("mnist", tmp_path)
    assert "\n" not in str(told.value)
    assert {path.name for path in tmp_path.rglob("*")} - before <= {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
                                                                   "train-labels-idx1-ubyte", ".filling.lock"}  # fmt: skip


def test_without_its_files_and_without_network_it_says_so(tmp_path: Path, offline: None):
    assert not torchvision_data.at_hand("cifar10", tmp_path)
    with pytest.raises(UserError, match="cifar10's files are missing or damaged, and can't be fetched: no network here"):
        torchvision_data.write("cifar10", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".filling.lock"]


def test_pictures_that_are_there_already_are_left_alone(tmp_path: Path):
    plant_mnist(tmp_path)
    (tmp_path / "train/7").mkdir(parents=True)
    (tmp_path / "train/7/mine.png").write_bytes(b"mine")
    torchvision_data.write("mnist", tmp_path)
    assert [path.name for path in (tmp_path / "train").rglob("*.png")] == ["mine.png"]
    assert len(list((tmp_path / "test").rglob("*.png"))) == 12


def test_no_other_competition_is_meant(tmp_path: Path):
    plant_mnist(tmp_path)
    assert not torchvision_data.at_hand("digits", tmp_path)
