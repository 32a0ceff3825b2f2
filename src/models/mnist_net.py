"""Lecture 004's MNIST network: three 3×3 convolutions and two linear layers on 28×28 grey pixels, 1,379,557 parameters.

The slide's forward() passes by layer4, and with it the ReLU between the linear layers, which without it are but one.
"""

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from src.models.grey import to_grey

default_cfgs = generate_default_cfgs(
    {
        "mnist_net.untrained": {
            "url": "",
            "num_classes": 10,
            "input_size": (1, 28, 28),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.1307, 0.1307, 0.1307),  # MNIST's training pictures, in each of the loader's three equal channels
            "std": (0.3081, 0.3081, 0.3081),
            "first_conv": "layer1.0",
            "classifier": "fc2",
        }
    }
)


class MnistNet(nn.Module):
    """(n, 1 or 3, 28, 28) float → logits (n, num_classes). drop_rate: the lecture's 1 - keep_prob, in every layer."""

    def __init__(self, num_classes: int = 10, in_chans: int = 1, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.head_hidden_size, self.in_chans = num_classes, 128, 625, in_chans
        self.feature_info = [
            {"num_chs": 32, "reduction": 2, "module": "layer1"},
            {"num_chs": 64, "reduction": 4, "module": "layer2"},
            {"num_chs": 128, "reduction": 8, "module": "layer3"},
        ]
        self.layer1 = _layer(in_chans, 32, drop_rate)
        self.layer2 = _layer(32, 64, drop_rate)
        self.layer3 = _layer(64, 128, drop_rate, padding=1)  # 7 × 7 → 4 × 4
        self.fc1 = nn.Linear(128 * 4 * 4, 625)
        self.drop = nn.Dropout(drop_rate)
        self.fc2 = nn.Linear(625, num_classes) if num_classes else nn.Identity()
        for linear in (self.fc1, self.fc2):
            _xavier(linear)

    def get_classifier(self) -> nn.Module:
        return self.fc2

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.fc2 = nn.Linear(625, num_classes) if num_classes else nn.Identity()
        _xavier(self.fc2)

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        return {"stem": r"^layer1", "blocks": [(r"^layer2", (0,)), (r"^layer3", (1,)), (r"^fc1", (2,))]}

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 128, 4, 4)."""
        return self.layer3(self.layer2(self.layer1(to_grey(images, self.in_chans))))

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        hidden = torch.relu(self.fc1(torch.flatten(features, 1)))
        return hidden if pre_logits else self.fc2(self.drop(hidden))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


def _layer(below: int, filters: int, drop_rate: float, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(below, filters, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=2, stride=2, padding=padding),
        nn.Dropout(drop_rate),
    )


def _xavier(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)


@register_model
def mnist_net(pretrained: bool = False, **kwargs) -> MnistNet:
    """Lecture 004's MNIST network."""
    features = {"feature_cls": "hook", "out_indices": (0, 1, 2)}
    return build_model_with_cfg(MnistNet, "mnist_net", pretrained, feature_cfg=features, **kwargs)
