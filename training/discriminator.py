"""The multi-scale patch discriminator of pix2pixHD (Wang et al. 2018), the paper's [41].

B pictures, H x W pixels; each scale looks at the picture at half the size of the one before.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

MAX_WIDTH = 512


class PatchDiscriminator(nn.Sequential):
    """Four-by-four convolutions, three of stride two: a grid of scores, each for a 70-pixel patch."""

    def __init__(self, width: int, num_strided: int = 3) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=2), nn.LeakyReLU(0.2)]
        before = width
        for level in range(1, num_strided + 1):
            after = min(width * 2**level, MAX_WIDTH)
            stride = 2 if level < num_strided else 1
            layers += [
                nn.Conv2d(before, after, 4, stride=stride, padding=2, bias=False),
                nn.InstanceNorm2d(after),
                nn.LeakyReLU(0.2),
            ]
            before = after
        super().__init__(*layers, nn.Conv2d(before, 1, 4, padding=2))


class MultiScaleDiscriminator(nn.Module):
    """``num_scales`` independent patch discriminators on a pyramid of the same picture."""

    def __init__(self, width: int, num_scales: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(width) for _ in range(num_scales))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one (B, 1, h, w) grid of scores per scale."""
        scores = []
        for scale in self.scales:
            scores.append(scale(image))
            image = F.avg_pool2d(image, 3, stride=2, padding=1, count_include_pad=False)
        return scores
