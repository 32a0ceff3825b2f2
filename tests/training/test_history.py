"""src/training/history.py: what a row of history.csv says."""

import pytest

from src.config import TrainConfig
from src.training import history
from src.training.training import Position
from synthetic import start


@pytest.mark.parametrize(
    ("share", "workers", "cores", "cached", "said"),
    [
        (0.5, 1, 4, False, "50% of the time waited for data: --data.cache true or --data.workers 4 (now 1) may help"),
        (0.5, 4, 4, False, "50% of the time waited for data: --data.cache true may help"),
        (0.5, 2, 4, True, "50% of the time waited for data: --data.workers 4 (now 2) may help"),
        (0.5, 4, 4, True, ""),
        (0.1, 1, 4, False, ""),
    ],
)
def test_a_long_wait_for_data_names_the_knobs_that_are_left(share, workers, cores, cached, said):
    assert history.waiting(share, 60.0, workers, cores, cached) == said
    assert history.waiting(share, 1.0, workers, cores, cached) == ""  # the epoch is over before one has read it


def test_images_whose_step_compiled_the_model_are_not_in_the_speed():
    training = start(TrainConfig(batch_size=4), 16)
    training.position = Position(step=4, losses=32.0, images=16, seconds=2.0, waited=0.5, untimed=4)
    row = history.epoch_row(training, validating=1.0)
    assert (row["img_per_s"], row["data_wait"], row["seconds"], row["train_loss"]) == (6.0, 0.25, 3.0, 2.0)


def test_an_epoch_of_which_nothing_was_timed_has_no_speed():
    assert Position(images=4, untimed=4).speed == 0.0
    assert Position(images=4, untimed=4).data_wait == 0.0
