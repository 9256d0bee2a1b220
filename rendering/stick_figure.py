"""The pose as a drawing: the fit's joints as lines, the input of methods that know no body mesh.

Q points of a figure (J joints, then tips and face), E bones between them, S channels, H x W pixels, V vertices.

One channel a limb and side, so that left and right, front and back are told apart; the shipped body has 27, as many as
Textured Neural Avatars draws (Shysheya et al. 2019).  What a joint alone does not show, where a foot points and where a
face looks, is drawn as lines to tips and face, which the published figures have as key points of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from capture.camera import Camera, project
from fitting.body.model import BodyModel
from rendering.networks import Renderer, UNet

LINE_WIDTH = 4 / 512  # of the picture's height, as published
LEAST_WIDTH_PX = 1.5  # thinner lines fall between pixels
FACE = ("nose", "left_ear", "right_ear")  # landmarks, where the body has them, a channel each: from behind, ears swap
OWN = 0.5  # skin weight from which on a vertex moves with a joint


class FigureRenderer(Renderer):
    """What paints from a surface's stick figures (``Surface.figures``), not from a rasterised texture."""

    remembers = 0  # how many of its own last pictures it asks for (``Surface.history``), one figure more


def by_itself(network: UNet) -> UNet:
    """The network with instance norms in place of batch norms: a picture is painted as it was in training, where it was
    alone.  The mean of all pictures' statistics fits no first picture of a film, which has nothing before it."""
    for layer in [*network.down, *network.up]:
        assert isinstance(layer, nn.Sequential)
        if len(layer) == 2:
            layer[1] = nn.InstanceNorm2d(cast(nn.BatchNorm2d, layer[1]).num_features, affine=True)
    return network


def as_planes(figures: Tensor) -> Tensor:
    """(B, N, H, W, S) uint8 to (B, N * S, H, W) in [0, 1], channels last in memory, in the networks' precision."""
    where = figures.device.type
    dtype = torch.get_autocast_dtype(where) if torch.is_autocast_enabled(where) else torch.float32
    planes = torch.cat([frame.permute(0, 3, 1, 2).to(dtype) for frame in figures.unbind(1)], dim=1)
    return planes.div_(255)


def remember(history: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """(B, M, 4, H, W) after one more picture (B, 3, H, W) in [-1, 1] with its mask (B, 1, H, W)."""
    newest = torch.cat([image.clamp(-1, 1) * mask, mask], dim=1)
    return torch.cat([history[:, 1:], newest[:, None]], dim=1)


@dataclass(frozen=True)
class StickFigure:
    """What is drawn of a body."""

    names: tuple[str, ...]  # (S,)
    bones: np.ndarray  # (E, 2) int64, points that a line joins
    channels: np.ndarray  # (E,) int64
    leaves: np.ndarray  # (X,) joints that nothing hangs on
    tip_weights: np.ndarray  # (X, V): of the vertices that each of them moves
    face_weights: np.ndarray  # (Y, V)

    @staticmethod
    def of(body: BodyModel) -> StickFigure:
        """The figure of a body: every bone in the channel of the limb that its upper joint is named after; none of a
        skirt's."""
        body = body.bare
        limbs = [re.sub(r"[\d-]+", "", name).replace("metacarpal", "wrist") for name in body.joint_names]
        num_joints = len(limbs)
        lines = [(int(parent), j, limbs[parent]) for j, parent in enumerate(body.parents) if parent >= 0]
        owned = np.where(body.skin_weights > OWN, body.skin_weights, 0).T  # (J, V)
        is_leaf = ~np.isin(np.arange(num_joints), body.parents) & owned.any(axis=1)
        leaves = np.flatnonzero(is_leaf)
        lines += [(int(j), num_joints + k, limbs[j]) for k, j in enumerate(leaves)]
        face = [name for name in FACE if name in body.landmark_names]
        head, first = body.joint_names.index("head") if "head" in body.joint_names else 0, num_joints + len(leaves)
        lines += [(head, first + k, name) for k, name in enumerate(face)]
        names = tuple(dict.fromkeys(name for *_, name in lines))
        return StickFigure(
            names=names,
            bones=np.array([line[:2] for line in lines], np.int64).reshape(-1, 2),
            channels=np.array([names.index(line[2]) for line in lines], np.int64),
            leaves=leaves,
            tip_weights=owned[leaves] / owned[leaves].sum(axis=1, keepdims=True),
            face_weights=body.landmark_weights[[body.landmark_names.index(name) for name in face]],
        )

    def points_px(self, fit: Any, index: int, camera: Camera) -> np.ndarray:
        """(Q, 2) float32 pixels of ``camera`` where the ``BodyFit`` has one frame's points; NaN where it was lost."""
        joints_m, vertices_m = fit.joints_color_m[index][: fit.body.bare.num_joints], fit.vertices_color_m(index)
        # Twice as far as the middle of what a joint moves: where that ends.
        tips_m = 2 * (self.tip_weights @ vertices_m) - joints_m[self.leaves]
        return project(camera, np.concatenate([joints_m, tips_m, self.face_weights @ vertices_m])).astype(np.float32)

    def draw(self, points_px: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
        """Figures (N, Q, 2) as (N, H, W, S) uint8, 255 on the lines; a line to a point that is NaN is left out."""
        width, height = image_wh
        planes = np.zeros((len(points_px), height, width, len(self.names)), np.uint8)
        reach_px = max(LEAST_WIDTH_PX, LINE_WIDTH * height) / 2
        _draw(planes, np.asarray(points_px, np.float32), self.bones, self.channels, np.float32(reach_px))
        return planes


@njit(cache=True, nogil=True)
def _draw(planes, points, bones, channels, reach):
    """Every bone as a line that fades out over one pixel at ``reach`` from its middle."""
    height, width = planes.shape[1], planes.shape[2]
    for frame in range(len(planes)):
        for bone in range(len(bones)):
            ax, ay = points[frame, bones[bone, 0]]
            bx, by = points[frame, bones[bone, 1]]
            if not (np.isfinite(ax) and np.isfinite(ay) and np.isfinite(bx) and np.isfinite(by)):
                continue
            plane = planes[frame, :, :, channels[bone]]
            dx, dy = bx - ax, by - ay
            squared = max(dx * dx + dy * dy, np.float32(1e-12))
            first_row, last_row = max(min(ay, by) - reach - 1, 0), min(max(ay, by) + reach + 1, height)
            first_column, last_column = max(min(ax, bx) - reach - 1, 0), min(max(ax, bx) + reach + 1, width)
            for row in range(int(first_row), int(np.ceil(last_row))):
                for column in range(int(first_column), int(np.ceil(last_column))):
                    x, y = column + np.float32(0.5) - ax, row + np.float32(0.5) - ay
                    along = min(max((x * dx + y * dy) / squared, np.float32(0)), np.float32(1))
                    off = np.sqrt((x - along * dx) ** 2 + (y - along * dy) ** 2)
                    value = np.uint8(255 * min(max(reach + np.float32(0.5) - off, np.float32(0)), np.float32(1)))
                    plane[row, column] = max(plane[row, column], value)
