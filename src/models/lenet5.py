"""LeNet-5 (LeCun et al. 1998), the first of lecture 000's families: 32×32 grey pixels, 61,706 parameters.

As it is built today. The paper's has trainable subsampling, links only some maps in its second convolution (60,000
parameters below the output) and compares with fixed codes at its output instead of taking a linear layer's logits.
"""

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from src.models.grey import to_grey

default_cfgs = generate_default_cfgs(
    {
        "lenet5.untrained": {
            "url": "",
            "num_classes": 10,
            "input_size": (1, 32, 32),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.1307, 0.1307, 0.1307),  # MNIST's training pictures, in each of the loader's three equal channels
            "std": (0.3081, 0.3081, 0.3081),
            "first_conv": "c1",
            "classifier": "output",
        }
    }
)


class LeNet5(nn.Module):
    """(n, 1 or 3, 32, 32) float → logits (n, num_classes). The layers have the paper's names."""

    def __init__(self, num_classes: int = 10, in_chans: int = 1, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.head_hidden_size, self.in_chans = num_classes, 120, 84, in_chans
        self.feature_info = [
            {"num_chs": 6, "reduction": 2, "module": "s2"},
            {"num_chs": 16, "reduction": 4, "module": "s4"},
        ]
        self.c1 = nn.Conv2d(in_chans, 6, kernel_size=5)
        self.s2 = nn.AvgPool2d(2)
        self.c3 = nn.Conv2d(6, 16, kernel_size=5)
        self.s4 = nn.AvgPool2d(2)
        self.c5 = nn.Conv2d(16, 120, kernel_size=5)
        self.f6 = nn.Linear(120, 84)
        self.drop = nn.Dropout(drop_rate)
        self.output = nn.Linear(84, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.output

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.output = nn.Linear(84, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        return {"stem": r"^c1", "blocks": [(r"^c3", (0,)), (r"^c5", (1,)), (r"^f6", (2,))]}

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 120, 1, 1)."""
        maps = self.s2(torch.tanh(self.c1(to_grey(images, self.in_chans))))
        maps = self.s4(torch.tanh(self.c3(maps)))
        return torch.tanh(self.c5(maps))

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        hidden = torch.tanh(self.f6(torch.flatten(features, 1)))
        return hidden if pre_logits else self.output(self.drop(hidden))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


@register_model
def lenet5(pretrained: bool = False, **kwargs) -> LeNet5:
    """LeNet-5."""
    features = {"feature_cls": "hook", "out_indices": (0, 1)}
    return build_model_with_cfg(LeNet5, "lenet5", pretrained, feature_cfg=features, **kwargs)
