"""LeNet-5, lecture 000's "LeNet", with the paper's shapes."""

import timm
import torch

from src.models import lenet5  # noqa: F401  registers it


def test_it_has_61706_parameters_as_layer_by_layer_in_the_paper():
    """LeCun et al. 1998, section II.B: C1 156, C5 48,120, F6 10,164; C3 has 2,416 where all of its maps are linked."""
    model = timm.create_model("lenet5")
    of_layer = {name: sum(p.numel() for p in layer.parameters()) for name, layer in model.named_children()}
    assert {name: count for name, count in of_layer.items() if count} == {
        "c1": 156, "c3": 2_416, "c5": 48_120, "f6": 10_164, "output": 850,
    }  # fmt: skip
    assert sum(of_layer.values()) == 61_706


def test_its_maps_have_the_papers_sizes():
    """C1 6@28×28, S2 6@14×14, C3 16@10×10, S4 16@5×5, C5 120, F6 84."""
    model, shapes = timm.create_model("lenet5").eval(), []
    for layer in (model.c1, model.s2, model.c3, model.s4, model.c5):
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    assert model.forward_features(torch.rand(1, 1, 32, 32)).shape == (1, 120, 1, 1)
    assert shapes == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1)]


def test_what_stands_before_its_head_is_squashed():
    model = timm.create_model("lenet5").eval()
    with torch.inference_mode():
        model.f6.weight.mul_(100)
        before_head = model.forward_head(model.forward_features(torch.rand(2, 1, 32, 32)), pre_logits=True)
    assert before_head.shape == (2, 84)
    assert 0.9 < before_head.abs().max() <= 1
