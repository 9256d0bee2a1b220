"""Video-to-video synthesis (Wang et al. 2018) on our data: a film painted from stick figures, picture after picture.

Published: the generator sees the figures of three frames and its own two last pictures, hallucinates a picture, and
warps its last one by a flow of its own; a weight blends the two, and the loss asks the warped picture to be the truth
as well.  It learns on short stretches of film, after its own pictures, through which no gradient flows.  Ours: image
and flow branch are two U-Nets, with as many parameters as R1 and R2; a mask comes with the picture, so that it is
composited like the others; a film begins with nothing, not with a true picture; without a reference flow (theirs is
FlowNet2's) the flow learns from the pictures; of a stretch only the last frame is compared with the truth, after up to
LEAD frames of the generator's own; losses, crops and evaluator are the avatar's own, adversarial as its settings say,
without a discriminator of films.

B pictures in a batch, N frames in a row, S channels of the figure, M remembered pictures, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fitting.body.model import BodyModel
from rendering.avatar import Parts
from rendering.networks import RGB, NeuralTexture, Rendering, Surface, UNet, cropped, padded
from rendering.stick_figure import FigureRenderer, StickFigure, as_planes, by_itself, remember
from rendering.widths import parse_widths
from training.baselines.single import widths_like
from training.config import TrainConfig

REMEMBERED = 2  # pictures, as published: the figures of one frame more are seen
LEAD = 3  # frames that training paints before the one that it learns from, at most
FLOW_SCALE = 20 / 512  # of the picture's height, for a flow of 1; published as 20 pixels


class NoTexture(NeuralTexture):
    """vid2vid keeps a person's look in its network, and one network for everybody."""

    takes_light = False
    num_figures = LEAD + 1

    def __init__(self, initial: Tensor) -> None:
        super().__init__(initial[:0, :0])


class Sequential(FigureRenderer):
    """The generator: an image branch and a flow branch."""

    remembers = REMEMBERED

    def __init__(self, num_channels: int, widths: tuple[int, ...], norm: bool) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        seen = (REMEMBERED + 1) * num_channels + REMEMBERED * (RGB + 1)
        self.image = by_itself(UNet(seen, RGB + 1, widths, norm, direct_px=1))
        self.motion = by_itself(UNet(seen, 2 + 1, widths, norm, direct_px=1))

    def picture(self, texture: NeuralTexture, surface: Surface) -> Rendering:
        """The last of the surface's frames: after its history, or else after the frames before it, painted first."""
        figures, history = surface.figures, surface.history
        assert figures is not None
        if history is None:
            batch, length, height, width, _ = figures.shape
            history = torch.zeros(batch, REMEMBERED, RGB + 1, height, width, device=figures.device)
            with torch.no_grad():
                for last in range(length - 1):
                    is_there = figures[:, last].flatten(1).any(dim=1)
                    if is_there.any():
                        rendering = self._next(figures[:, : last + 1], history)
                        history = remember(history, rendering.image, rendering.mask * is_there[:, None, None, None])
        return self._next(figures, history)

    def _next(self, figures: Tensor, history: Tensor) -> Rendering:
        """The picture after ``history`` (B, M, 4, H, W), of the last of the figures (B, N, H, W, S) uint8."""
        height, width = figures.shape[2:4]
        shown = figures[:, -REMEMBERED - 1 :]
        missing = REMEMBERED + 1 - shown.shape[1]  # frames before the film began
        shown = torch.cat([*[torch.zeros_like(shown[:, :1])] * missing, shown], dim=1)
        remembered = history.flatten(1, 2).contiguous(memory_format=torch.channels_last)
        planes = as_planes(shown)
        planes = padded(torch.cat([planes, remembered.to(planes.dtype)], dim=1), self.multiple)
        raw, motion = (cropped(stage(planes), height, width).float() for stage in (self.image, self.motion))
        warped = warp(history[:, -1, :RGB], motion[:, :2] * (FLOW_SCALE * height))
        is_film = (history[:, -1, RGB:].flatten(1).amax(dim=1) > 0)[:, None, None, None]
        weight = torch.where(is_film, motion[:, 2:].sigmoid(), 1.0)
        image = weight * raw[:, :RGB] + (1 - weight) * warped
        # The pixel loss compares the rough image with the truth, too: the published loss of the warped picture.
        return Rendering(image, mask_logit=raw[:, RGB:], rough=torch.where(is_film, warped, raw[:, :RGB]))


def warp(image: Tensor, flow_px: Tensor) -> Tensor:
    """(B, 3, H, W) at every pixel as it is ``flow_px`` (B, 2, H, W), x and y, further on."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(*(torch.arange(n, device=image.device) + 0.5 for n in (height, width)), indexing="ij")
    grid = torch.stack([(x + flow_px[:, 0]) / width, (y + flow_px[:, 1]) / height], dim=-1) * 2 - 1
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


def vid2vid(body: BodyModel) -> Parts:
    """vid2vid for this body's stick figure; it opens with ``Avatar.load(folder, parts=vid2vid(body))``."""
    return Parts(partial(sequential, len(StickFigure.of(body).names)), NoTexture)


def sequential(num_channels: int, made: Mapping[str, Any]) -> Sequential:
    """The networks as ``made``; no closure, as ranks send one another what they are to train."""
    return Sequential(num_channels, parse_widths(made["widths"]), made["norm"])


def as_vid2vid(config: TrainConfig, body: BodyModel) -> TrainConfig:
    """The avatar's own settings where the methods agree: as many parameters; there is no texture to begin from."""
    num_channels = len(StickFigure.of(body).names)
    widths = widths_like(
        config.widths,
        config.texture_channels,
        config.latent_channels,
        config.norm,
        lambda levels: Sequential(num_channels, levels, config.norm),
        least=0.25,
    )
    return replace(config, widths=widths, split=False, warm_start=False, light=False, grid_noise=0.0)
