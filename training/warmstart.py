"""The true colours, averaged onto the texture: what the body would be painted with if no network were needed.

K covered pixels, T texels per side.
"""

from __future__ import annotations

import numpy as np
import torch

from rendering.texels import push_pull
from training.dataset import ALPHA, COLOR, VALID, SubjectFrames

MIN_ALPHA = 0.95  # a half-covered pixel shows background
NUM_CORNERS = 4


def back_projected(frames: SubjectFrames, positions: np.ndarray, texture_px: int) -> torch.Tensor:
    """(T, T, 3) float32 in [-1, 1]: colours of the frames at ``positions``, seen head-on rather than slanted.

    Texels that no frame shows are filled from their neighbours.
    """
    total = np.zeros((texture_px * texture_px, 4))
    for position in positions:
        own = frames.covered(position)
        planes = frames.planes[position].flatten(1).cpu().numpy()[:, frames.pixel[own].cpu().numpy()]  # (8, K)
        facing = np.maximum(-frames.normal(own)[:, 2].cpu().numpy(), 0)
        is_seen = (planes[ALPHA][0] >= MIN_ALPHA * 255) & (planes[VALID][0] > 0)
        weight = np.where(is_seen, facing**2, 0)
        values = np.concatenate([planes[COLOR].T / 127.5 - 1, np.ones((len(facing), 1))], axis=1)
        for corner, share in _corners(frames.uv(own).cpu().numpy(), texture_px):
            for channel in range(NUM_CORNERS):
                amount = values[:, channel] * weight * share
                total[:, channel] += np.bincount(corner, amount, minlength=len(total))
    seen = total[:, 3].astype(np.float32).reshape(texture_px, texture_px)
    colors = (total[:, :3] / np.maximum(total[:, 3:], 1e-9)).astype(np.float32).reshape(texture_px, texture_px, 3)
    return torch.from_numpy(push_pull(colors, (seen > 1e-3).astype(np.float32)))


def _corners(uv: np.ndarray, texture_px: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The four texels around each uv (K, 2), with their bilinear shares."""
    xy = np.clip(uv * texture_px - 0.5, 0, texture_px - 1)
    low = np.minimum(np.floor(xy), texture_px - 2).astype(np.int64)
    fraction = xy - low
    corners = []
    for right in (0, 1):
        for down in (0, 1):
            share = np.abs(1 - right - fraction[:, 0]) * np.abs(1 - down - fraction[:, 1])
            corners.append(((low[:, 1] + down) * texture_px + low[:, 0] + right, share))
    return corners


def warm_texture(initial: torch.Tensor, frames: SubjectFrames, positions: np.ndarray) -> torch.Tensor:
    """``initial`` (T, T, C) with its first three channels replaced by the back-projected colours."""
    warm = initial.clone()
    warm[..., :3] = back_projected(frames, positions, initial.shape[0])
    return warm
