"""Deferred Neural Rendering (Thies, Zollhoefer and Niessner 2019) on our data: the strongest baseline of the paper.

One U-Net, a neural texture with four levels of detail whose samples are summed, and channels that the view weighs by
spherical harmonics; texture and network are optimised together, on all frames.  Losses, crops and evaluator are the
avatar's own, the feature loss included, "for a fairer comparison" (paper, section 4.2).

K covered pixels, T texels per side of the finest level, C channels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capture.errors import UserError
from fitting.light import harmonics
from rendering.avatar import Parts
from rendering.networks import RGB, NeuralTexture, Surface
from training.baselines.single import equal_widths, without_normals
from training.config import TrainConfig

CHANNELS = 16  # as published; three for colour, nine that the view weighs, four plain ones
# Published weight decay per level, the finest first: detail has to be earned.  Decoupled from the gradient (AdamW), for
# added to it, as Adam's own decay is, it outweighs the gradient of any loss that is a mean over a picture: the finest
# level would be zero, and the baseline a strawman.
LEVEL_DECAYS = (1e-2, 1e-3, 1e-4, 0.0)
NUM_HARMONICS = 9  # bands 0 to 2


class PyramidTexture(NeuralTexture):
    """One identity: levels of T, T/2, T/4 and T/8 texels, each of C channels, summed where they are sampled."""

    needs_view = True
    takes_light = False  # as published: its harmonics are of the view

    def __init__(self, initial: Tensor) -> None:
        """Starts as ``initial`` (T, T, C), split into bands: their sum at every texel is what it was."""
        if initial.shape[2] < RGB + NUM_HARMONICS:
            raise UserError(f"{initial.shape[2]} texture channels: DNR needs {RGB + NUM_HARMONICS} or more")
        finest, *coarser = split_into_bands(initial, len(LEVEL_DECAYS))
        super().__init__(finest)
        self.coarser = nn.ModuleList(NeuralTexture(level) for level in coarser)

    def decays(self) -> list[tuple[nn.Parameter, float]]:
        levels = [self.texels, *self.coarser.parameters()]
        return list(zip(levels, LEVEL_DECAYS, strict=True))

    def sample(self, uv: Tensor) -> Tensor:
        """(K, 2) uv to (K, C) features before the view weighs them."""
        total = super().sample(uv)
        for level in self.coarser:
            assert isinstance(level, NeuralTexture)
            total = total + level.sample(uv)
        return total

    def features(self, surface: Surface) -> Tensor:
        plain = self.sample(surface.uv)
        weights = torch.ones_like(plain)
        weights[:, RGB : RGB + NUM_HARMONICS] = view_harmonics(surface.view_body())
        return plain * weights


def view_harmonics(directions: Tensor) -> Tensor:
    """The nine real spherical harmonics of bands 0 to 2 of unit directions (K, 3), orthonormal: (K, 9)."""
    x, y, z = directions.unbind(dim=1)
    return torch.stack([torch.full_like(x, 0.28209479), *harmonics(x, y, z)], dim=1)


def split_into_bands(texels: Tensor, num_levels: int) -> list[Tensor]:
    """(T, T, C) to ``num_levels`` textures, the finest first, each with half the texels per side of the one before.

    Every level holds what the coarser ones, sampled bilinearly, lack of the picture at its size.  Raises UserError
    when T cannot be halved so often.
    """
    size = texels.shape[0]
    if size % 2 ** (num_levels - 1):
        raise UserError(f"train.texture_px = {size}: DNR's {num_levels} levels need a multiple of {2**num_levels // 2}")
    picture = texels.permute(2, 0, 1)[None]
    bands: list[Tensor] = []
    for level in reversed(range(num_levels)):
        band = F.avg_pool2d(picture, 2**level)
        for coarser in bands:
            band = band - F.interpolate(coarser, size=band.shape[-2:], mode="bilinear", align_corners=False)
        bands.append(band)
    return [band[0].permute(1, 2, 0).contiguous() for band in reversed(bands)]


def as_dnr(config: TrainConfig) -> TrainConfig:
    """The avatar's own settings where the methods agree: as many parameters, everything learned at once."""
    widths = equal_widths(
        config.widths, config.texture_channels, config.latent_channels, config.norm, CHANNELS, sees_normals=False
    )
    return replace(config, widths=widths, texture_channels=CHANNELS, split=False)


DNR = Parts(without_normals, PyramidTexture)  # it opens with ``Avatar.load(folder, parts=DNR)``
