"""The stick figures of the training frames, drawn for every batch as it is cut: lines stay thin at any scale.

F frames of one subject, N figures in a row, Q points, S channels, B pictures in a batch, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rendering.rasters import Rasters
from rendering.stick_figure import StickFigure


@dataclass(frozen=True)
class Figures:
    """Every training frame's figure and those of the frames before it, without a gap."""

    figure: StickFigure
    # (F, N, Q, 2) float32, each in pixels of its own frame's crop, the oldest first; NaN where the row is shorter
    points_px: np.ndarray

    @staticmethod
    def of(fit: Any, rasters: Rasters, frame_indices: np.ndarray, length: int) -> Figures:
        """The figures of frames (F,) of a ``BodyFit``, and of those before them that are tracked, ``length`` each: what
        comes before a training frame is no held-out one, and of a long film not every frame trains."""
        figure, tracked = StickFigure.of(fit.body), np.asarray(fit.tracked)
        rows = [[int(i)] for i in frame_indices]
        for row in rows:
            while len(row) < length and row[0] > 0 and tracked[row[0] - 1]:
                row.insert(0, row[0] - 1)
        points_px = {i: figure.points_px(fit, i, rasters.cameras[i]) for i in sorted({i for row in rows for i in row})}
        shape = (len(rows), length, *next(iter(points_px.values())).shape)
        planes = np.full(shape, np.nan, np.float32)
        for own, row in zip(planes, rows, strict=True):
            own[length - len(row) :] = [points_px[i] for i in row]
        return Figures(figure, planes)

    def planes(
        self, positions: Tensor, origin: Tensor, scale: Tensor, image_wh: tuple[int, int], rng: torch.Generator
    ) -> Tensor:
        """(B, N, H, W, S) uint8 of the frames at ``positions`` (B,), where the batch shows its pictures.

        Target pixel = (source pixel - ``origin`` (B, 2)) * ``scale`` (B,).  How many of the figures before the picture
        are there is drawn from ``rng``, so that beginnings of films are learned too.
        """
        length = self.points_px.shape[1]
        place, factor = origin.numpy()[:, None, None], scale.numpy()[:, None, None, None]
        points_px = (self.points_px[positions.numpy()] - place) * factor  # (B, N, Q, 2)
        if length > 1:
            missing = torch.randint(length, (len(positions),), generator=rng).numpy()
            points_px[np.arange(length) < missing[:, None]] = np.nan
        planes = self.figure.draw(points_px.reshape(-1, *points_px.shape[2:]).astype(np.float32), image_wh)
        return torch.from_numpy(planes.reshape(len(positions), length, *planes.shape[1:]))
