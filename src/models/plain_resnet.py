"""ResNet-34 without its shortcuts: lecture 001's "34-layer plain" (He et al. 2015, figure 3), 21,623,848 parameters."""

from functools import partial

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

default_cfgs = generate_default_cfgs(
    {
        "plain34.untrained": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "conv1",
            "classifier": "fc",
        }
    }
)


class PlainBlock(BasicBlock):
    """Two 3×3 convolutions, each with its norm and ReLU, and nothing beside them: no projection, no sum."""

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, **more) -> None:
        super().__init__(inplanes, planes, stride, downsample=None, **more)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = self.act1(self.bn1(self.conv1(features)))
        return self.act2(self.bn2(self.conv2(hidden)))


@register_model
def plain34(pretrained: bool = False, **kwargs) -> ResNet:
    """The plain twin of timm's resnet34. Its last norms start at 1: at a residual block's 0 nothing would pass."""
    plain = partial(ResNet, block=PlainBlock, layers=(3, 4, 6, 3), zero_init_last=False)
    return build_model_with_cfg(plain, "plain34", pretrained, **kwargs)
