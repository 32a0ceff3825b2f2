"""Copies are found however they were altered, different pictures are not; their rows are told, and grouped for the folds."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import SHARED
from pictures import encode, picture, test_table, train_table, write
from src.data import duplicates
from src.data.audit import Audit, audit
from src.data.duplicates import _close_hashes, components, correlation, near_pairs, same_picture
from src.data.facts import FACTS, examine
from src.data.folds import make_folds

ALTERED: dict[str, Callable[[np.ndarray], bytes]] = {
    "half as large": lambda p: encode(cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
    "twice as large": lambda p: encode(cv2.resize(p, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)),
    "squashed to a square": lambda p: encode(cv2.resize(p, (64, 64), interpolation=cv2.INTER_AREA)),
    "saved at quality 20": lambda p: encode(p, quality=20),
    "saved as PNG": lambda p: encode(p, "PNG"),
    "saved as progressive JPEG": lambda p: encode(p, progressive=True),
    "saved as WebP": lambda p: encode(p, "WEBP", quality=40),
    "brighter by 10 levels": lambda p: encode(cv2.add(p, (10, 10, 10, 0))),
    "brighter by a tenth": lambda p: encode(cv2.convertScaleAbs(p, alpha=1.1)),
    "darker by a fifth": lambda p: encode(cv2.convertScaleAbs(p, alpha=0.8)),
    "less contrast": lambda p: encode(cv2.convertScaleAbs(p, alpha=0.7, beta=40)),
    "without colour": lambda p: encode(p, mode="L"),
    "as CMYK": lambda p: encode(p, mode="CMYK"),
    "blurred": lambda p: encode(cv2.GaussianBlur(p, (0, 0), 2)),
    "noisy": lambda p: encode(
        np.clip(p + np.random.default_rng(0).normal(0, 8, p.shape), 0, 255).astype(np.uint8), quality=95
    ),
    "with bytes after its end": lambda p: encode(p) + b"more",
}  # fmt: skip


def look(root: Path, files: dict[str, bytes]) -> np.ndarray:
    write(root, files)
    return examine(root, list(files), np.zeros(len(files), int), np.zeros(len(files), int))


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_copy_is_the_same_picture(tmp_path: Path, how: str):
    files = {f"{i}.jpg": encode(picture(i)) for i in range(20)}
    facts = look(tmp_path, files | {f"copy{i}": ALTERED[how](picture(i)) for i in range(20)})
    number = same_picture(facts)
    np.testing.assert_array_equal(number[:20], number[20:])
    assert len(set(number)) == 20


def test_different_pictures_are_different(tmp_path: Path):
    number = same_picture(look(tmp_path, {f"{i}.png": encode(picture(i, 48, 64), "PNG") for i in range(300)}))
    assert len(set(number)) == 300


@pytest.mark.parametrize("image", [np.full((96, 96, 3), 200, np.uint8), cv2.resize(picture(3), (24, 24))], ids=["flat", "tiny"])
def test_what_a_hash_cannot_tell_apart_counts_only_with_equal_bytes(tmp_path: Path, image: np.ndarray):
    png, bmp = encode(image, "PNG"), encode(image, "BMP")
    number = same_picture(look(tmp_path, {"a.png": png, "b.png": png, "c.bmp": bmp}))
    assert number[0] == number[1] != number[2]


def test_what_cannot_be_decoded_is_no_duplicate(tmp_path: Path):
    broken = {"a.jpg": b"", "b.jpg": b"", "c.jpg": b"<html>", "d.jpg": b"<html>"}
    assert same_picture(look(tmp_path, broken)).tolist() == [-1] * 4


@pytest.mark.parametrize("at_once", [1, 50, 100_000])
@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), max_size=13)), max_size=30), st.integers(0, 12)
)
def test_each_pair_of_close_hashes_is_found_once(at_once: int, flipped: list[tuple[int, set[int]]], bits: int):
    hashes = [one for one, _ in flipped] + [one ^ sum(1 << place for place in places) for one, places in flipped]
    slow = {(i, j) for j in range(len(hashes)) for i in range(j) if (hashes[i] ^ hashes[j]).bit_count() <= bits}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_PAIRS_AT_ONCE", at_once)
        found = [tuple(sorted(pair)) for some in _close_hashes(np.array(hashes, np.uint64), bits) for pair in some.tolist()]
    assert len(found) == len(set(found))
    assert set(found) == slow


def test_thousands_of_copies_of_one_picture_stay_connected_in_little_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(duplicates, "_MOST", 2000)
    facts = np.zeros(600, FACTS)
    facts["height"] = facts["width"] = 100
    facts["thumb"] = np.random.default_rng(0).integers(0, 256, (2, 16, 16)).repeat(300, axis=0)
    facts["hash"] = np.uint64(7)
    pairs = near_pairs(facts, np.arange(600))
    assert len(pairs) < 60_000  # of 89,700
    number = components(600, pairs)
    assert [len(set(number[:300])), len(set(number[300:])), len(set(number))] == [1, 1, 2]


def test_correlation_is_that_of_numpy_and_ignores_brightness_and_contrast():
    thumbs = np.random.default_rng(0).integers(0, 100, (5, 16, 16), dtype=np.uint8)
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(thumbs, thumbs[::-1], strict=True)]
    np.testing.assert_allclose(correlation(thumbs, thumbs[::-1]), expected, atol=1e-6)
    np.testing.assert_allclose(correlation(thumbs, 2 * thumbs + 30), 1, atol=1e-6)
    assert correlation(thumbs, np.full_like(thumbs, 9)).tolist() == [0] * 5


# Rows


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    root = tmp_path_factory.mktemp("copies")
    p = [encode(picture(i)) for i in range(30)]

    def near(i: int, kind: str = "WEBP") -> bytes:
        return encode(picture(i), kind, quality=60)

    files = {f"{i}": p[i] for i in range(10)}
    files |= {"exact_of_0": p[0], "again_0": p[0], "near_1": near(1), "turned_2": encode(np.rot90(picture(2)), exif=_turned())}
    files |= {"dog_of_3": p[3], "dog_near_4": near(4)}
    train = train_table([f"train/{name}" for name in files], ["dog" if "dog" in name else "cat" for name in files])
    tests = {
        "t5": p[5],
        "t6": near(6),
        "t20": p[20],
        "t20b": p[20],
        "t21": p[21],
        "t21b": near(21),
        "t22": p[22],
        "t0": near(0),
    }
    write(root, {f"train/{name}": data for name, data in files.items()} | {f"test/{n}": d for n, d in tests.items()})
    return audit(root, train, test_table([f"test/{name}" for name in tests]))


def _turned() -> bytes:
    """EXIF that says: turn me by 90° to the right, as a phone held upright does."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def test_each_kind_of_duplicate_is_told_with_its_twin(copies: Audit):
    found = copies.findings
    assert {(k, i, t) for k, i, t in found[["kind", "id", "twin"]].itertuples(index=False) if k != "exif_rotated"} == {
        ("exact_duplicate", "exact_of_0", "0"),
        ("exact_duplicate", "again_0", "0"),
        ("near_duplicate", "near_1", "1"),
        ("near_duplicate", "turned_2", "2"),
        ("exact_duplicate", "dog_of_3", "3"),
        ("near_duplicate", "dog_near_4", "4"),
        ("label_conflict", "3", "dog_of_3"),
        ("label_conflict", "dog_of_3", "3"),
        ("label_conflict", "4", "dog_near_4"),
        ("label_conflict", "dog_near_4", "4"),
        ("leak", "5", "t5"),
        ("leak", "6", "t6"),
        ("leak", "0", "t0"),
        ("leak", "exact_of_0", "t0"),
        ("leak", "again_0", "t0"),
        ("exact_duplicate", "t20b", "t20"),
        ("near_duplicate", "t21b", "t21"),
    }


def test_details_and_twins_paths(copies: Audit):
    found = copies.findings.set_index(["kind", "id"])
    assert found["detail"]["exact_duplicate", "again_0"] == "the same bytes"
    assert found["detail"]["leak", "5"] == "the same bytes"
    assert found["detail"]["label_conflict", "3"] == "'cat' here, 'dog' there: the same bytes"
    near = found["detail"]["near_duplicate", "near_1"]
    assert re.fullmatch(r"[02] of 64 hash bits differ, correlation (0\.99\d|1\.000)", near)
    assert found["twin_path"]["leak", "6"] == "test/t6"
    assert found["part"]["exact_duplicate", "t20b"] == "test"


def test_groups_bind_the_training_rows_that_are_one_picture(copies: Audit):
    groups = copies.groups
    named = {name: set(members.index) for name, members in groups[groups != ""].groupby(groups)}
    order = [*(str(i) for i in range(10)), "exact_of_0", "again_0", "near_1", "turned_2", "dog_of_3", "dog_near_4"]
    assert {name: {order[i] for i in members} for name, members in named.items()} == {
        "duplicates of 0": {"0", "exact_of_0", "again_0"},
        "duplicates of 1": {"1", "near_1"},
        "duplicates of 2": {"2", "turned_2"},
        "duplicates of 3": {"3", "dog_of_3"},
        "duplicates of 4": {"4", "dog_near_4"},
    }


def test_folds_made_with_the_groups_never_part_duplicates(tmp_path: Path):
    write(tmp_path, {f"{label}{i}{c}": encode(picture(i + 50 * (label == "dog")), k) for label in ("cat", "dog")
                     for i in range(12) for c, k in (("a", "JPEG"), ("b", "PNG"))})  # fmt: skip
    paths = sorted(path.name for path in tmp_path.iterdir())
    train = train_table(paths, [path[:3] for path in paths])
    train["group"] = audit(tmp_path, train, None).groups
    folds = make_folds(train, 3, seed=0)
    assert (folds.groupby(folds["id"].str[:-1])["fold"].nunique() == 1).all()


def test_the_tables_own_groups_are_kept_and_joined_by_a_shared_picture(tmp_path: Path):
    files = {"a": 1, "b": 2, "c": 1, "d": 3, "e": 4, "f": 4, "g": 5, "h": 6}
    write(tmp_path, {name: encode(picture(seed)) for name, seed in files.items()})
    train = train_table(list(files), groups=["shop 1", "shop 1", "shop 2", "shop 2", "", "", "shop 3", ""])
    train.index = range(100, 108)  # rows are matched by the table's index, whatever it is
    groups = audit(tmp_path, train, None).groups
    assert groups.to_dict() == dict(
        zip(range(100, 108), ["shop 1"] * 4 + ["duplicates of e"] * 2 + ["shop 3", ""], strict=True)
    )


def test_two_rows_of_one_file_are_one_group_and_a_conflict_but_no_duplicate(tmp_path: Path):
    write(tmp_path, {"a.jpg": encode(picture(1)), "b.jpg": encode(picture(2))})
    train = train_table(["a.jpg", "a.jpg", "b.jpg"], ["cat", "dog", "dog"]).assign(id=["1", "2", "3"])
    result = audit(tmp_path, train, test_table(["b.jpg"]).assign(id="t"))
    assert result.counts == {"leak": 1, "label_conflict": 2, "shared_path": 2}
    assert result.groups.tolist() == ["duplicates of 1", "duplicates of 1", ""]
    assert set(result.findings["detail"]) >= {"the same file", "'cat' here, 'dog' there: the same file"}


@pytest.mark.skipif(not (SHARED / "data/mnist/raw").is_dir(), reason="MNIST is not at hand")
def test_digits_of_28_pixels_are_too_small_to_be_taken_for_one_another(tmp_path: Path):
    with gzip.open(SHARED / "data/mnist/raw/t10k-images-idx3-ubyte.gz") as file:
        raw = file.read(16 + 300 * 784)
    digits = np.frombuffer(raw[16:], np.uint8).reshape(-1, 28, 28)
    facts = look(tmp_path, {f"{i}.png": cv2.imencode(".png", digit)[1].tobytes() for i, digit in enumerate(digits)})
    assert len(set(same_picture(facts))) == 300
