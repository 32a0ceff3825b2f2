"""Networks of one channel read the loader's grey pictures of three equal ones."""

import pytest
import timm
import torch

from src.models import lenet5, mnist_net, mnist_small  # noqa: F401  registers them
from src.models.grey import to_grey


def test_grey_is_the_mean_of_the_channels_and_only_for_a_network_of_one():
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(to_grey(images, 1), (images[:, :1] + images[:, 1:2] + images[:, 2:]) / 3)
    assert to_grey(images, 3) is images
    single = images[:, :1]
    assert to_grey(single, 1) is single


@pytest.mark.parametrize("name", ["lenet5", "mnist_net", "mnist_small"])
def test_one_channel_and_three_equal_ones_give_the_same_logits_and_colours_can_be_asked_for(name: str):
    model = timm.create_model(name).eval()
    _, side, _ = model.pretrained_cfg["input_size"]
    image = torch.rand(2, 1, side, side)
    torch.testing.assert_close(model(image.expand(-1, 3, -1, -1)), model(image))
    coloured = timm.create_model(name, in_chans=3).eval()
    picture = torch.rand(2, 3, side, side)
    assert not torch.allclose(coloured(picture), coloured(picture.flip(1)))
