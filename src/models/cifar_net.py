"""Lecture 003's baseline for CIFAR-10: two 5x5 convolutions and three linear layers on 32x32 pixels, 62,006 parameters."""

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

default_cfgs = generate_default_cfgs(
    {
        "cifar_net.untrained": {
            "url": "",
            "num_classes": 10,
            "input_size": (3, 32, 32),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "conv1",
            "classifier": "fc3",
        }
    }
)


class CifarNet(nn.Module):
    """(n, 3, 32, 32) float → logits (n, num_classes).

    norm: batch normalisation before each ReLU, which the lecture's has not: one of the improvements that its exercise asks for.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3, drop_rate: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, 16, 84
        self.feature_info = [
            {"num_chs": 6, "reduction": 1, "module": "conv1"},  # the pooling, used twice, has no place of its own
            {"num_chs": 16, "reduction": 2, "module": "conv2"},
        ]
        self.conv1 = nn.Conv2d(in_chans, 6, kernel_size=5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.norm1, self.norm2 = (nn.BatchNorm2d(maps) if norm else nn.Identity() for maps in (6, 16))
        self.norm3, self.norm4 = (nn.BatchNorm1d(width) if norm else nn.Identity() for width in (120, 84))
        self.drop = nn.Dropout(drop_rate)
        self.fc3 = nn.Linear(84, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.fc3

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.fc3 = nn.Linear(84, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        return {"stem": r"^conv1|^norm1", "blocks": [(r"^conv2|^norm2", (0,)), (r"^fc1|^norm3", (1,)), (r"^fc2|^norm4", (2,))]}

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 16, 5, 5)."""
        features = self.pool(F.relu(self.norm1(self.conv1(images))))
        return self.pool(F.relu(self.norm2(self.conv2(features))))

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        hidden = F.relu(self.norm3(self.fc1(torch.flatten(features, 1))))
        hidden = F.relu(self.norm4(self.fc2(hidden)))
        return hidden if pre_logits else self.fc3(self.drop(hidden))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


@register_model
def cifar_net(pretrained: bool = False, **kwargs) -> CifarNet:
    """Lecture 003's CIFAR-10 network."""
    features = {"feature_cls": "hook", "out_indices": (0, 1)}
    return build_model_with_cfg(CifarNet, "cifar_net", pretrained, feature_cfg=features, **kwargs)
