"""Textured Neural Avatars (Shysheya et al. 2019) on our data: where on the body a pixel lies is learned from its pose.

A generator turns the stick figure into the share of every body part and of the background (a softmax), and for every
part a place on its texture: I = sum_k P_k T_k[uv_k], mask = 1 - P_0.  Published: this, a first lesson from known parts
and uv (theirs are DensePose's), a texture that starts from the colours projected back, then both together by losses on
the picture.  Ours: parts and uv of the lesson are the body raster's; the parts are our body's; their textures are the
charts of our atlas, as many texels as the avatar has; the generator is a U-Net with as many parameters as R1 and R2;
losses, crops and evaluator are the avatar's own.

P parts, B pictures in a batch, H x W pixels, K covered pixels, T texels per side of the atlas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from fitting.body.model import BodyModel
from rendering.avatar import Parts
from rendering.coverage import skin
from rendering.networks import RGB, NeuralTexture, Rendering, Surface, UNet, cropped, padded
from rendering.stick_figure import FigureRenderer, StickFigure, as_planes, by_itself
from rendering.widths import parse_widths
from training.baselines.single import widths_like
from training.config import TrainConfig

LESSON = 0.5  # of the run, after which the raster teaches nothing any more; its weight falls linearly to there
PART_WEIGHT, UV_WEIGHT = 1.0, 20.0
LABELS_PX = 512  # per side, of the picture that says which chart a uv lies in
MARGIN = 1 / 128  # of the atlas: interpolation at a chart's edge reads its neighbours


@dataclass(frozen=True)
class Charts:
    """Where on the atlas the parts lie."""

    low: Tensor  # (P, 2) the corner of each part's window, uv
    size: Tensor  # (P, 2)
    labels: Tensor  # (LABELS_PX, LABELS_PX) int64, the part from 0 on whose chart is nearest

    @staticmethod
    def of(body: BodyModel) -> Charts:
        """The charts of a body; a part without faces has the whole atlas."""
        low, high = np.zeros((len(body.part_names) - 1, 2)), np.ones((len(body.part_names) - 1, 2))
        for part in np.unique(body.face_part):
            corners = body.uv[body.face_uv[body.face_part == part]].reshape(-1, 2)
            low[part - 1], high[part - 1] = corners.min(axis=0) - MARGIN, corners.max(axis=0) + MARGIN
        low, high = low.clip(0, 1), high.clip(0, 1)
        part = skin(body, body.template_m, LABELS_PX)[0]
        row, column = distance_transform_edt(part == 0, return_distances=False, return_indices=True)
        labels = torch.from_numpy(part[row, column].astype(np.int64) - 1)
        return Charts(torch.from_numpy(low).float(), torch.from_numpy(high - low).float(), labels)

    def part_of(self, uv: Tensor) -> Tensor:
        """(K, 2) uv to (K,) parts from 0 on."""
        column, row = (uv * LABELS_PX).long().clamp(0, LABELS_PX - 1).unbind(1)
        return self.labels.to(uv.device)[row, column]


class ChartTexture(NeuralTexture):
    """One identity: the colours of every part, each in its own chart."""

    takes_light = False  # as published
    num_figures = 1


@dataclass(frozen=True)
class Placed(Rendering):
    """A rendering that says how it came about."""

    part_logits: Tensor  # (B, H, W, P)
    uv: Tensor  # (B, H, W, P, 2) on the atlas


class Placer(FigureRenderer):
    """The generator, and the sum over the parts."""

    def __init__(self, num_channels: int, charts: Charts, widths: tuple[int, ...], norm: bool) -> None:
        super().__init__()
        self.charts, self.multiple = charts, 2 ** len(widths)
        self.network = by_itself(UNet(num_channels, 1 + 3 * len(charts.low), widths, norm, direct_px=1))

    def picture(self, texture: NeuralTexture, surface: Surface) -> Rendering:
        assert surface.figures is not None
        height, width = surface.figures.shape[2:4]
        num_parts = len(self.charts.low)
        painted = self.network(padded(as_planes(surface.figures[:, -1:]), self.multiple)).float()
        behind, parts, places = painted.split([1, num_parts, 2 * num_parts], dim=1)
        # Transposed convolutions leave a checkerboard, which would tear the texture; the published ones enlarge first.
        places = F.interpolate(F.avg_pool2d(places, 2).sigmoid(), scale_factor=2.0, mode="bilinear")
        behind, parts, places = (cropped(p, height, width).permute(0, 2, 3, 1) for p in (behind, parts, places))
        low, size = (values.to(places.device) for values in (self.charts.low, self.charts.size))
        uv = low + places.unflatten(3, low.shape) * size  # (B, H, W, P, 2)
        # Shares within the person: what is behind him is for whoever composites.
        image = (sampled(texture.texels, uv) * parts.softmax(dim=3)).sum(dim=4).transpose(0, 1)
        image = image.contiguous(memory_format=torch.channels_last)
        mask_logit = (parts.logsumexp(dim=3, keepdim=True) - behind).permute(0, 3, 1, 2)  # of 1 - P_0
        return Placed(image, mask_logit, image, parts, uv)

    def own_loss(self, rendering: Rendering, surface: Surface, done: float) -> Tensor | None:
        """The first lesson: parts and uv of the covered pixels as the raster has them.

        What is person and what is background only the mask loss says: clothes and hair stand off the raster.
        """
        strength = 1 - done / LESSON
        if strength <= 0:
            return None
        assert isinstance(rendering, Placed)
        part = self.charts.part_of(surface.uv)  # (K,)
        logits = rendering.part_logits.flatten(0, 2)[surface.pixel]  # (K, P)
        places = rendering.uv.flatten(0, 2)[surface.pixel, part]  # (K, 2)
        apart = ((places - surface.uv) / self.charts.size.to(places.device)[part]).abs().mean()
        return strength * (PART_WEIGHT * F.cross_entropy(logits, part) + UV_WEIGHT * apart)


def sampled(texels: Tensor, uv: Tensor) -> Tensor:
    """(T, T, 3) at uv (B, H, W, P, 2), bilinear, differentiable by both: (3, B, H, W, P)."""
    batch, height, width, parts, _ = uv.shape
    grid = uv.reshape(1, batch * height, width * parts, 2) * 2 - 1
    colors = F.grid_sample(texels.permute(2, 0, 1)[None], grid, padding_mode="border", align_corners=False)
    return colors.view(RGB, batch, height, width, parts)


def tna(body: BodyModel) -> Parts:
    """TNA for this body; it opens with ``Avatar.load(folder, parts=tna(body))``."""
    return Parts(partial(placer, len(StickFigure.of(body).names), Charts.of(body)), ChartTexture)


def placer(num_channels: int, charts: Charts, made: Mapping[str, Any]) -> Placer:
    """The network as ``made``; no closure, as ranks send one another what they are to train."""
    return Placer(num_channels, charts, parse_widths(made["widths"]), made["norm"])


def as_tna(config: TrainConfig, body: BodyModel) -> TrainConfig:
    """The avatar's own settings where the methods agree: as many parameters, everything learned at once.

    Noise on the raster's uv is the avatar's own means: here it would only blur the lesson.
    """
    num_channels, charts = len(StickFigure.of(body).names), Charts.of(body)
    widths = widths_like(
        config.widths,
        config.texture_channels,
        config.latent_channels,
        config.norm,
        lambda levels: Placer(num_channels, charts, levels, config.norm),
        least=0.25,
    )
    return replace(config, widths=widths, texture_channels=RGB, split=False, grid_noise=0.0)
