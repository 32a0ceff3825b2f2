"""src/data/augmentation.py: what is drawn is a function of (seed, epoch, row id) alone."""

import pickle
import random
import subprocess
import sys
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.config import DataConfig
from src.data import augmentation
from src.data.augmentation import Augmentation
from src.data.image import fit

RECIPES = ["none", "light", "medium", "strong"]
DRAWING = RECIPES[1:]
IMAGE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
# Dark on the left, bright on the right: which way it slopes tells whether it was flipped.
SLOPE = np.linspace(40, 215, 40).astype(np.uint8)[None, :, None].repeat(30, axis=0).repeat(3, axis=2)


def make(recipe: str, flips: bool = False, seed: int = 0, size: int = 32, resize: str = "crop") -> Augmentation:
    return Augmentation(recipe, size, resize, ("hflip",) if flips else (), seed)


def flipped(image: np.ndarray) -> bool:
    columns = np.broadcast_to(np.arange(image.shape[1]), image.shape[:2])
    grey = image.mean(axis=2)
    seen = grey > 0  # holes that a recipe punches are black
    return np.polyfit(columns[seen], grey[seen], 1)[0] < 0


def test_every_recipe_that_can_be_configured_exists():
    for recipe in RECIPES:
        make(recipe)
        DataConfig(augmentation=recipe)


@pytest.mark.parametrize("recipe", RECIPES)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(8, 40), st.sampled_from(["crop", "squash", "pad"]))
def test_any_shape_becomes_the_square(recipe, height, width, size, how):
    image = np.full((height, width, 3), 128, np.uint8)
    augmented = make(recipe, True, size=size, resize=how)(image, 0, "row")
    assert (augmented.shape, augmented.dtype) == ((size, size, 3), np.uint8)


@pytest.mark.parametrize("recipe", DRAWING)
def test_the_same_seed_epoch_and_row_draw_the_same_whatever_was_drawn_before(recipe):
    rows = [f"cat.{i}" for i in range(12)]
    one, other = make(recipe, True), make(recipe, True)
    expected = {row: one(IMAGE, 3, row) for row in rows}
    for row in random.Random(0).sample(rows, 12):  # in another order, with other draws and other global states between
        np.random.seed(hash(row) % 2**32)
        random.seed(row)
        other(IMAGE, 1, "dog.0")
        assert np.array_equal(other(IMAGE, 3, row), expected[row])


@pytest.mark.parametrize("recipe", ["medium", "strong"])
def test_rows_epochs_and_seeds_each_draw_their_own(recipe):
    augment, other_seed = make(recipe), make(recipe, seed=1)
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)  # on few pixels, draws coincide
    drawn = [augment(image, epoch, f"row{row}").tobytes() for epoch in range(6) for row in range(16)]
    drawn += [other_seed(image, 0, f"row{row}").tobytes() for row in range(16)]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_can_be_sent_to_a_worker_that_is_not_forked(recipe):
    augment = Augmentation(recipe, 32, "crop", ("hflip", "vflip", "turns"), 0)
    sent = pickle.loads(pickle.dumps(augment))
    for row in "abcdefgh":
        assert np.array_equal(sent(IMAGE, 0, row), augment(IMAGE, 0, row))


def test_drawing_leaves_the_global_generators_alone():
    np.random.seed(0)
    random.seed(0)
    before = np.random.get_state()[1].copy(), random.getstate()
    make("strong", True)(IMAGE, 0, "row")
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]


def test_the_image_itself_is_not_changed():
    before = IMAGE.copy()
    for recipe in RECIPES:
        make(recipe, True)(IMAGE, 0, "row")
    assert np.array_equal(IMAGE, before)


@pytest.mark.parametrize("recipe", DRAWING)
def test_images_are_flipped_only_where_the_competition_declares_that_a_flip_keeps_the_label(recipe):
    turned = {flips: sum(flipped(make(recipe, flips)(SLOPE, 0, f"row{i}")) for i in range(60)) for flips in (False, True)}
    assert turned[False] == 0
    assert 15 < turned[True] < 45


@pytest.mark.parametrize("how", ["crop", "squash", "pad"])
def test_the_recipe_none_only_fits_the_image(how):
    augment = make("none", True, resize=how)
    for epoch in range(8):
        assert np.array_equal(augment(IMAGE, epoch, "row"), fit(IMAGE, 32, how))


@pytest.mark.parametrize("wrong", [lambda: A.CoarseDropout(max_holes=8), lambda: A.HorizontalFlip(probability=0.5)])
def test_an_argument_that_albumentations_does_not_know_is_an_error(monkeypatch, wrong):
    monkeypatch.setattr(A, "Affine", lambda **_: wrong())
    with pytest.raises(UserWarning, match="not valid"):
        make("light")


@pytest.mark.parametrize("name", ["hflip", "vflip", "turns"])
def test_turns_are_all_drawn_and_rearrange_the_pixels_alone(name):
    square = np.random.default_rng(1).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    choices = augmentation.TURNS[name]
    seen = {(square if turn is None else turn(square)).tobytes() for turn in choices}
    expected = {
        "hflip": [square, square[:, ::-1]],
        "vflip": [square, square[::-1]],
        "turns": [np.rot90(square, k) for k in range(4)],
    }
    assert seen == {image.tobytes() for image in expected[name]}
    assert len(seen) == len(choices)


def test_recipes_without_albumentations_do_not_import_it():
    code = (
        "import sys; from src.data.augmentation import Augmentation; Augmentation('medium', 32, 'crop', ('hflip',), 0); "
        "sys.exit('albumentations' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(augmentation.__file__).parents[2])


@pytest.mark.parametrize("recipe", RECIPES)
@given(size=st.integers(8, 400))
def test_the_smallest_square_crop_of_a_picture_in_its_form_has_the_model_s_pixels(recipe, size):
    augment = make(recipe, size=size)
    smallest = augment.recipe.smallest_crop
    assert augment.form.side >= size
    if smallest is not None:
        assert augment.form.side * smallest**0.5 >= size
