"""AlexNet as torchvision has it ("One weird trick", Krizhevsky 2014): lecture 000's layer table, 61,100,840 parameters.

Registered in timm, so that create_model("alexnet") with all that timm does (head reset, weights, layer decay) just works.
"""

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

default_cfgs = generate_default_cfgs(
    {
        "alexnet.tv_in1k": {
            # torchvision's ImageNet weights
            "url": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (6, 6),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "features.0",
            "classifier": "classifier.6",
        }
    }
)


class AlexNetHead(nn.Module):
    """What stands above AlexNet's convolutions: a pooling to 6×6, two hidden layers, the classes. They give 256 maps."""

    def add_head(self, drop_rate: float) -> None:
        """After the convolutions, so that the layers are made, and draw their weights, from the image upwards."""
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(drop_rate),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(drop_rate),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, self.num_classes) if self.num_classes else nn.Identity(),
        )

    def get_classifier(self) -> nn.Module:
        return self.classifier[6]

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.classifier[6] = nn.Linear(4096, num_classes) if num_classes else nn.Identity()

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        flat = torch.flatten(self.avgpool(features), 1)
        return self.classifier[:6](flat) if pre_logits else self.classifier(flat)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


class AlexNet(AlexNetHead):
    """(n, 3, H, W) float → logits (n, num_classes). H and W from 63 pixels up; 224 in the lecture."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.5) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, 256, 4096
        self.feature_info = [
            {"num_chs": 64, "reduction": 8, "module": "features.2"},
            {"num_chs": 192, "reduction": 16, "module": "features.5"},
            {"num_chs": 256, "reduction": 32, "module": "features.12"},
        ]
        self.features = nn.Sequential(
            nn.Conv2d(in_chans, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.add_head(drop_rate)
        self.apply(_he_normal)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """timm's layer decay: the convolutions' layers, then those of the classifier."""
        return {"stem": r"^features\.0", "blocks": r"^features\.(\d+)", "classifier": r"^classifier\.(\d+)"}

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 256, h, w): what the last pooling gives."""
        return self.features(images)


def _he_normal(module: nn.Module) -> None:
    """He et al. 2015: with torch's own weights a deviation of 1 in the picture is 0.008 before the last layer, with these 3."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


@register_model
def alexnet(pretrained: bool = False, **kwargs) -> AlexNet:
    """torchvision's AlexNet."""
    features = {"feature_cls": "hook", "out_indices": (0, 1, 2)}
    return build_model_with_cfg(AlexNet, "alexnet", pretrained, feature_cfg=features, **kwargs)
