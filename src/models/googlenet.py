"""GoogLeNet (Szegedy et al. 2014), lecture 002: torchvision's layers, and so its weights. 6,624,904 parameters, 13,004,888 with
the two auxiliary classifiers that help it to train.

torchvision's differs from the paper's: BatchNorm after each convolution, and 3×3 convolutions where the paper has 5×5.
"""

import torch
import torchvision
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

default_cfgs = generate_default_cfgs(
    {
        "googlenet.tv_in1k": {
            "url": "https://download.pytorch.org/models/googlenet-1378be20.pth",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),  # the weights are TensorFlow's; torchvision's transform_input comes down to this
            "std": (0.5, 0.5, 0.5),
            "first_conv": "conv1.conv",
            "classifier": ("fc", "aux1.fc2", "aux2.fc2"),
        }
    }
)


LAYERS = (
    "conv2", "conv3", "inception3a", "inception3b", "(?:inception4a|aux1)", "inception4b", "inception4c",
    "(?:inception4d|aux2)", "inception4e", "inception5a", "inception5b",
)  # fmt: skip


class GoogLeNet(torchvision.models.GoogLeNet):
    """(n, 3, H, W) float → logits (n, num_classes); in training a tuple: these, the logits of aux2 and those of aux1.

    auxiliary: whether there are classifiers after inception 4a (aux1) and 4d (aux2). Only training uses them:
    src/training/loss.py adds their losses to that of the logits.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.2, auxiliary: bool = True) -> None:
        if in_chans != 3:
            raise ValueError(f"googlenet takes pictures of 3 channels, not {in_chans}")
        super().__init__(num_classes, aux_logits=auxiliary, init_weights=True, dropout=drop_rate)
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, 1024, 1024
        self.feature_info = [
            {"num_chs": 64, "reduction": 2, "module": "conv1"},
            {"num_chs": 192, "reduction": 4, "module": "conv3"},
            {"num_chs": 480, "reduction": 8, "module": "inception3b"},
            {"num_chs": 832, "reduction": 16, "module": "inception4e"},
            {"num_chs": 1024, "reduction": 32, "module": "inception5b"},
        ]
        if not num_classes:
            self.reset_classifier(0)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """New last layers, those of the auxiliary classifiers too; 0: none, and no auxiliary classifiers."""
        self.num_classes, self.aux_logits = num_classes, self.aux_logits and num_classes > 0
        self.fc = nn.Linear(1024, num_classes) if num_classes else nn.Identity()
        if not self.aux_logits:
            self.aux1 = self.aux2 = None
        else:
            self.aux1.fc2, self.aux2.fc2 = nn.Linear(1024, num_classes), nn.Linear(1024, num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """timm's layer decay: an auxiliary classifier learns as fast as the layer that it stands on."""
        return {"stem": r"^conv1", "blocks": [(rf"^{layer}\.", (depth,)) for depth, layer in enumerate(LAYERS)]}

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 1024, h, w): what inception 5b gives."""
        return self._after_5b(self._after_4d(self._after_4a(images)))

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        flat = torch.flatten(self.avgpool(features), 1)
        return flat if pre_logits else self.fc(self.dropout(flat))

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        after_4a = self._after_4a(images)
        after_4d = self._after_4d(after_4a)
        logits = self.forward_head(self._after_5b(after_4d))
        if self.training and self.aux_logits:
            return logits, self.aux2(after_4d), self.aux1(after_4a)
        return logits

    def _after_4a(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.maxpool2(self.conv3(self.conv2(self.maxpool1(self.conv1(images)))))
        return self.inception4a(self.maxpool3(self.inception3b(self.inception3a(stem))))

    def _after_4d(self, maps: torch.Tensor) -> torch.Tensor:
        return self.inception4d(self.inception4c(self.inception4b(maps)))

    def _after_5b(self, maps: torch.Tensor) -> torch.Tensor:
        return self.inception5b(self.inception5a(self.maxpool4(self.inception4e(maps))))


def _without_absent(state: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """torchvision's file has auxiliary classifiers; a model without them loads the rest."""
    return {name: weight for name, weight in state.items() if model.aux_logits or not name.startswith("aux")}


@register_model
def googlenet(pretrained: bool = False, **kwargs) -> GoogLeNet:
    """GoogLeNet, or Inception v1."""
    features = {"feature_cls": "hook", "out_indices": (0, 1, 2, 3, 4)}
    return build_model_with_cfg(
        GoogLeNet, "googlenet", pretrained, pretrained_filter_fn=_without_absent, feature_cfg=features, **kwargs
    )
