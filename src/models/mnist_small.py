"""The small MNIST network whose filters lecture 001 maximises: its second convolution gives 50 maps of 11×11.

28 → 26 → 13 → 11 → 5: Hung-yi Lee's machine learning lecture 10, from which lecture 001 takes these slides. 137,660 parameters.
"""

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from src.models.grey import to_grey

default_cfgs = generate_default_cfgs(
    {
        "mnist_small.untrained": {
            "url": "",
            "num_classes": 10,
            "input_size": (1, 28, 28),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.0, 0.0, 0.0),  # "no ink" is 0, so that the lecture's L1 penalty draws a picture towards it
            "std": (1.0, 1.0, 1.0),
            "first_conv": "conv1",
            "classifier": "fc2",
        }
    }
)


class MnistSmall(nn.Module):
    """(n, 1 or 3, 28, 28) float → logits (n, num_classes)."""

    def __init__(self, num_classes: int = 10, in_chans: int = 1, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.head_hidden_size, self.in_chans = num_classes, 50, 100, in_chans
        self.feature_info = [
            {"num_chs": 25, "reduction": 2, "module": "pool1"},
            {"num_chs": 50, "reduction": 4, "module": "pool2"},
        ]
        self.conv1 = nn.Conv2d(in_chans, 25, kernel_size=3)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(25, 50, kernel_size=3)
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(50 * 5 * 5, 100)
        self.drop = nn.Dropout(drop_rate)
        self.fc2 = nn.Linear(100, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.fc2

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.fc2 = nn.Linear(100, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        return {"stem": r"^conv1", "blocks": [(r"^conv2", (0,)), (r"^fc1", (1,))]}

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 50, 5, 5)."""
        maps = self.pool1(torch.relu(self.conv1(to_grey(images, self.in_chans))))
        return self.pool2(torch.relu(self.conv2(maps)))

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        hidden = torch.relu(self.fc1(torch.flatten(features, 1)))
        return hidden if pre_logits else self.fc2(self.drop(hidden))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


@register_model
def mnist_small(pretrained: bool = False, **kwargs) -> MnistSmall:
    """Lecture 001's small MNIST network."""
    features = {"feature_cls": "hook", "out_indices": (0, 1)}
    return build_model_with_cfg(MnistSmall, "mnist_small", pretrained, feature_cfg=features, **kwargs)
