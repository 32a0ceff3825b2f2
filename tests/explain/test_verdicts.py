"""The homework's table: each model's predicted and assigned class for each picture, with their maps."""

import numpy as np
import pytest
import torch
from torch import nn

from src.errors import UserError
from src.explain import cam, verdicts
from src.explain.verdicts import Judge, drawn, imagenet_classes, judge, table
from src.models.backbone import ImageInput

CLASSES = ("red square", "blue square, azure one", "noise")
FED = ImageInput(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture
def judges(square_net: nn.Module) -> dict[str, Judge]:
    return {"trained": Judge(square_net, FED, CLASSES), "untrained": Judge(cam.randomised(square_net), FED, CLASSES)}


@pytest.fixture
def pictures(squares) -> dict[str, np.ndarray]:
    made = squares(torch.tensor([[4, 4], [20, 16]]), torch.tensor([0, 1]))
    return dict(zip(("red", "blue"), (made * 255).byte().permute(0, 2, 3, 1).numpy(), strict=True))


def test_a_row_for_each_picture_and_model_with_both_classes(judges: dict[str, Judge], pictures: dict[str, np.ndarray]):
    rows = table(judge(judges, pictures, {"red": "azure one", "blue": 2}))
    assert list(zip(rows["picture"], rows["model"], strict=True)) == [
        ("red", "trained"), ("red", "untrained"), ("blue", "trained"), ("blue", "untrained"),
    ]  # fmt: skip
    assert rows["assigned"].tolist() == [1, 1, 2, 2]
    assert rows["assigned_name"].tolist() == [CLASSES[1]] * 2 + [CLASSES[2]] * 2
    trained = rows[rows["model"] == "trained"]
    assert trained["predicted"].tolist() == [0, 1]
    assert trained["predicted_name"].tolist() == [CLASSES[0], CLASSES[1]]
    with torch.no_grad():
        fed = torch.from_numpy(np.stack(list(pictures.values()))).permute(0, 3, 1, 2) / 255
        chances = judges["trained"].model(fed).softmax(dim=1)
    np.testing.assert_allclose(trained["predicted_probability"], [chances[0, 0], chances[1, 1]], rtol=1e-4)
    np.testing.assert_allclose(trained["assigned_probability"], [chances[0, 1], chances[1, 2]], rtol=1e-3)


def test_the_maps_are_those_of_the_predicted_and_of_the_assigned_class(judges: dict[str, Judge], pictures: dict):
    (answer,) = judge({"trained": judges["trained"]}, {"red": pictures["red"]}, {"red": 1})
    fed = FED.normalise(torch.from_numpy(pictures["red"])[None], channels_last=False)
    for shown, index in ((answer.predicted_map, 0), (answer.assigned_map, 1)):
        expected = cam.gradcam(judges["trained"].model, fed, torch.tensor([index]))[0][0].numpy()
        np.testing.assert_allclose(shown, expected, atol=1e-5)
    assert answer.seen.shape == (224, 224, 3)
    assert answer.seen[:112, :112, 0].mean() > answer.seen[112:, 112:, 0].mean()


def test_each_model_sees_a_picture_at_its_own_size(pictures: dict[str, np.ndarray]):
    sizes = []

    class Noting(nn.Module):
        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(tuple(images.shape[2:]))
            return images * 1

        def forward_head(self, features: torch.Tensor) -> torch.Tensor:
            return features.mean(dim=(2, 3))

    many = {str(size): Judge(Noting(), ImageInput(size, FED.mean, FED.std), CLASSES) for size in (16, 48)}
    judge(many, {"red": pictures["red"]}, {"red": 0})
    assert sizes == [(16, 16)] * 2 + [(48, 48)] * 2


def test_the_figure_has_a_row_for_each_verdict_and_says_what_it_shows(judges: dict[str, Judge], pictures: dict):
    figure = drawn(judge(judges, pictures, {"red": 1, "blue": 0}))
    titles = [place.get_title() for place in figure.axes]
    assert len(titles) == 4 * 3
    assert titles[0] == "trained: red"
    assert titles[1].startswith(("predicted: red square 9", "predicted: red square 100"))
    assert titles[2].startswith("assigned: blue square 0.")
    assert "azure" not in "".join(titles)


def test_imagenets_classes_are_in_the_order_of_the_lectures_and_timms_models():
    names = imagenet_classes()
    assert len(names) == 1000
    assert (names[0], names[207], names[281]) == ("tench, Tinca tinca", "golden retriever", "tabby, tabby cat")
    assert verdicts._index(names, "tabby cat", "resnet18") == 281


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("blue squares", r"trained has no class 'blue squares'; did you mean blue square"),
        ("xyz", r"trained has no class 'xyz'; it knows red square, "),
        (3, r"trained has no class 3; they are numbered 0 to 2"),
        (-1, r"trained has no class -1"),
    ],
)
def test_a_class_that_a_model_does_not_know_is_told(judges: dict, pictures: dict, wanted: str | int, told: str):
    with pytest.raises(UserError, match=told):
        judge(judges, {"red": pictures["red"]}, {"red": wanted})
