"""AlexNet as lecture 002's table has it (Krizhevsky et al. 2012): 96/256/384/384/256 filters on 227×227, 62,378,344 parameters.

`net` holds each layer where the lecture's code looks for it: convolutions 2, 4 and 5 are net[4], net[10] and net[12].
"""

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from src.models.alexnet import AlexNetHead

default_cfgs = generate_default_cfgs(
    {
        "alexnet_paper.untrained": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 227, 227),
            "pool_size": (6, 6),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "net.0",
            "classifier": "classifier.6",
        }
    }
)


class AlexNetPaper(AlexNetHead):
    """(n, 3, 227, 227) float → logits (n, num_classes). Other sizes from 67 pixels up are pooled to the 6×6 of the paper.

    grouped: convolutions 2, 4 and 5 see only half of the maps, as on the paper's two GPUs: 60,965,224 parameters.
    lrn: local response normalisation after convolutions 1 and 2, the paper's section 3.3.
    """

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.5, grouped: bool = False, lrn: bool = False
    ) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, 256, 4096
        self.feature_info = [
            {"num_chs": 96, "reduction": 8, "module": "net.3"},
            {"num_chs": 256, "reduction": 16, "module": "net.7"},
            {"num_chs": 256, "reduction": 32, "module": "net.14"},
        ]
        groups = 2 if grouped else 1
        self.net = nn.Sequential(
            nn.Conv2d(in_chans, 96, kernel_size=11, stride=4),
            nn.ReLU(inplace=True),
            _response_norm() if lrn else nn.Identity(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=groups),
            nn.ReLU(inplace=True),
            _response_norm() if lrn else nn.Identity(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(256, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, kernel_size=3, padding=1, groups=groups),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1, groups=groups),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.add_head(drop_rate)
        self.apply(_normal)
        # "the ReLUs with positive inputs" (section 5): the lecture's three convolutions. Not the paper's hidden layers, whose
        # 4096 outputs near 1 let the logits swing under Adam (loss 0.71 over steps 170 to 220; 0.63 by step 140 without).
        for convolution in (self.net[4], self.net[10], self.net[12]):
            nn.init.ones_(convolution.bias)

    def reset_classifier(self, num_classes: int) -> None:
        super().reset_classifier(num_classes)
        _normal(self.classifier[6])

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """timm's layer decay: the convolutions' layers, then those of the classifier."""
        return {"stem": r"^net\.0", "blocks": r"^net\.(\d+)", "classifier": r"^classifier\.(\d+)"}

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 256, h, w): what the last pooling gives; 6×6 for 227 pixels."""
        return self.net(images)


def _response_norm() -> nn.LocalResponseNorm:
    """The paper's n = 5, k = 2, alpha = 1e-4, beta = 0.75; torch divides alpha by n, the paper doesn't."""
    return nn.LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2.0)


def _normal(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, mean=0.0, std=0.01)
        nn.init.zeros_(module.bias)


@register_model
def alexnet_paper(pretrained: bool = False, **kwargs) -> AlexNetPaper:
    """The AlexNet of the paper and of lecture 002."""
    features = {"feature_cls": "hook", "out_indices": (0, 1, 2)}
    return build_model_with_cfg(AlexNetPaper, "alexnet_paper", pretrained, feature_cfg=features, **kwargs)
