"""Grey pictures: networks of one input channel take the three equal channels that the loader reads."""

import torch


def to_grey(images: torch.Tensor, channels: int) -> torch.Tensor:
    """(n, 3, H, W) → (n, 1, H, W), the channels' mean, for a network of one channel; as they are for any other."""
    return images.mean(dim=1, keepdim=True) if channels == 1 and images.shape[1] == 3 else images
