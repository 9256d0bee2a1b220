"""Bilinear reading and writing of a texture at covered pixels, and filling of what no pixel showed, on the CPU.

K covered pixels, T texels per side, C channels.  One pass over the pixels each way, in order: the same sums, hence the
same bytes, whatever the number of threads.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

DETAIL_STEP = 1 / 255  # of colour in [0, 1], of the int8 that detail (``rendering.detail``) is kept in


@njit(cache=True, nogil=True)
def read_texels(texels: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """texels (T, T, C), float32 or int8, at uv (K, 2) to (K, C) float32."""
    size, channels = texels.shape[1], texels.shape[2]
    values = np.empty((len(uv), channels), np.float32)
    for k in range(len(uv)):
        column, row, right, down = _corner(uv[k, 0], uv[k, 1], size)
        a, b = (1 - right) * (1 - down), right * (1 - down)
        c, d = (1 - right) * down, right * down
        for channel in range(channels):
            values[k, channel] = (
                a * texels[row, column, channel]
                + b * texels[row, column + 1, channel]
                + c * texels[row + 1, column, channel]
                + d * texels[row + 1, column + 1, channel]
            )
    return values


@njit(cache=True, nogil=True)
def add_texels(texels: np.ndarray, uv: np.ndarray, values: np.ndarray) -> None:
    """The transpose of ``read_texels``: add values (K, C) to texels (T, T, C), in place."""
    size, channels = texels.shape[1], texels.shape[2]
    for k in range(len(uv)):
        column, row, right, down = _corner(uv[k, 0], uv[k, 1], size)
        a, b = (1 - right) * (1 - down), right * (1 - down)
        c, d = (1 - right) * down, right * down
        for channel in range(channels):
            value = values[k, channel]
            texels[row, column, channel] += a * value
            texels[row, column + 1, channel] += b * value
            texels[row + 1, column, channel] += c * value
            texels[row + 1, column + 1, channel] += d * value


@njit(cache=True, nogil=True, inline="always")
def _corner(u, v, size):
    """Upper left of the four texels around (u, v), and the fractions right and down of it; float32 throughout."""
    last = np.float32(size - 1)
    x = min(max(u * np.float32(size) - np.float32(0.5), np.float32(0)), last)
    y = min(max(v * np.float32(size) - np.float32(0.5), np.float32(0)), last)
    column, row = min(int(x), size - 2), min(int(y), size - 2)
    return column, row, np.float32(x - np.float32(column)), np.float32(y - np.float32(row))


def halved(texels: np.ndarray) -> np.ndarray:
    """(D, D, C) int8 to (D / 2, D / 2, C) int8, means of four."""
    half = texels.shape[0] // 2
    four = texels[: 2 * half, : 2 * half].reshape(half, 2, half, 2, -1).astype(np.int16).sum(axis=(1, 3))
    return ((four + 2) // 4).astype(np.int8)


def push_pull(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(H, W, C) float32 known where weight (H, W) > 0, to (H, W, C) known everywhere."""
    height, width = weight.shape
    if min(height, width) <= 1 or (weight > 0).all():
        return values
    half_wh = ((width + 1) // 2, (height + 1) // 2)
    small_weight = cv2.resize(weight, half_wh, interpolation=cv2.INTER_AREA)
    small_values = cv2.resize(values * weight[..., None], half_wh, interpolation=cv2.INTER_AREA)
    small_values = small_values.reshape(*small_weight.shape, -1) / np.maximum(small_weight, 1e-6)[..., None]
    coarse = push_pull(small_values, np.minimum(small_weight * 4, 1))
    coarse = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).reshape(values.shape)
    share = np.minimum(weight, 1)[..., None]
    return values * share + coarse * (1 - share)
