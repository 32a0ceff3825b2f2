"""AlphaGo's policy network (Silver et al. 2016), lecture 001: to which of the 361 points of a Go board a player moves.

Convolutions without pooling, as it matters to the point where a stone lies. It reads 48 planes of a position, no pictures.
"""

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

default_cfgs = generate_default_cfgs(
    {
        "alphago_policy.untrained": {
            "url": "",
            "num_classes": 361,
            "input_size": (48, 19, 19),
            "mean": (0.0,),
            "std": (1.0,),
            "first_conv": "layers.0",
            "classifier": "point",
        }
    }
)


class AlphaGoPolicy(nn.Module):
    """(n, 48, 19, 19) float planes of a position → logits (n, 361), row by row over the board; softmax gives the probabilities.

    k: filters of each layer, 192 in the matches; the paper's table 3 has 128, 256 and 384 too.
    """

    def __init__(self, num_classes: int = 361, in_chans: int = 48, k: int = 192) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, k
        self.layers = nn.Sequential(
            nn.Conv2d(in_chans, k, kernel_size=5, padding=2), nn.ReLU(inplace=True)
        )  # padded to 23 × 23
        for _ in range(2, 13):
            self.layers.extend([nn.Conv2d(k, k, kernel_size=3, padding=1), nn.ReLU(inplace=True)])  # padded to 21 × 21
        self.point = nn.Conv2d(k, 1, kernel_size=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(num_classes))  # one for each point

    def forward_features(self, planes: torch.Tensor) -> torch.Tensor:
        """(n, k, 19, 19): the twelfth layer."""
        return self.layers(planes)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.point(self.forward_features(planes)), 1) + self.bias


@register_model
def alphago_policy(pretrained: bool = False, **kwargs) -> AlphaGoPolicy:
    """AlphaGo's policy network; k=128, 192, 256 or 384 filters."""
    return build_model_with_cfg(AlphaGoPolicy, "alphago_policy", pretrained, **kwargs)
