"""Brushes that skin and cloth are painted with.  H x W texels; colours are sRGB in 0..1."""

from __future__ import annotations

import cv2
import numpy as np


def noise(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> np.ndarray:
    """(H, W) smooth noise of about unit variance; features are ``cell`` texels wide."""
    coarse = rng.standard_normal((int(shape[0] / cell) + 3, int(shape[1] / cell) + 3)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def blob(points: np.ndarray, centre: tuple[float, ...], radius: tuple[float, ...], sharp: float = 2.0) -> np.ndarray:
    """Soft ellipsoid: 1 at the centre, 1/e at ``radius``."""
    return np.exp(-(np.sum(((points - centre) / radius) ** 2, axis=-1) ** (sharp / 2)))


def blend(picture: np.ndarray, color: tuple[float, ...], weight: np.ndarray) -> np.ndarray:
    return picture + (np.array(color) - picture) * weight[..., None].clip(0, 1)
