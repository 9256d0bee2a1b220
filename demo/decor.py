"""What the room's faces are painted with.  T x T texels, K pictures; sRGB while painting, linear when done."""

from __future__ import annotations

import cv2
import numpy as np

TEXELS = 512


def paint(rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """(K, T, T, 3) float32 linear albedos and their names."""
    n = TEXELS
    v, u = (np.mgrid[0:n, 0:n] + 0.5) / n

    def grain(cells_v: int, cells_u: int) -> np.ndarray:
        return cv2.resize(rng.standard_normal((cells_v, cells_u)), (n, n), interpolation=cv2.INTER_CUBIC)

    def base(color: tuple[float, float, float]) -> np.ndarray:
        return np.ones((n, n, 3)) * color

    pictures = {"plain": base((0.86, 0.85, 0.82))}
    wall = base((0.70, 0.72, 0.69)) * (1 + 0.012 * grain(80, 80))[..., None]
    leaf = np.sin(u * 2 * np.pi * 8) * np.sin(v * 2 * np.pi * 4 + np.pi * np.floor(u * 8))
    pictures["wall"] = np.where((leaf > 0.72)[..., None], wall * (0.90, 0.93, 0.92), wall)
    plank = np.floor(u * 10)
    tone = rng.uniform(0.85, 1.1, 10)[plank.astype(int)]
    joint = (np.mod(u * 10, 1) < 0.025) | (np.mod(v * 1 + plank * 0.37, 1) < 0.004)
    floor = base((0.58, 0.43, 0.30)) * (tone * (1 + 0.07 * grain(6, 200)))[..., None]
    pictures["floor"] = np.where(joint[..., None], floor * 0.55, floor)
    pictures["wood"] = base((0.50, 0.36, 0.24)) * (1 + 0.09 * grain(200, 6))[..., None]
    drawers = base((0.52, 0.38, 0.26)) * (1 + 0.09 * grain(200, 6))[..., None]
    gap = (np.abs(np.mod(u * 3, 1) - 0.5) > 0.485) | (np.abs(np.mod(v * 2, 1) - 0.5) > 0.48)
    knob = np.hypot((np.mod(u * 3, 1) - 0.5) * 1.14, np.mod(v * 2, 1) - 0.5) < 0.045
    drawers[gap] *= 0.45
    drawers[knob] = (0.75, 0.72, 0.66)
    pictures["drawers"] = drawers
    pictures["crate"] = base((0.22, 0.42, 0.46)) * (1 + 0.15 * np.sin(v * 60))[..., None]
    shelf = np.searchsorted(np.sort(rng.uniform(0, 1, 13)), u)
    spines = np.array(
        [(0.60, 0.22, 0.17), (0.16, 0.27, 0.40), (0.82, 0.74, 0.58), (0.25, 0.38, 0.27), (0.30, 0.28, 0.27)]
    )
    pictures["books"] = spines[shelf % 5] * (1 - 0.35 * (np.abs(v - 0.2) < 0.03))[..., None]
    poster = base((0.93, 0.90, 0.82))
    for at, radius, color in (
        ((0.5, 0.36), 0.24, (0.84, 0.35, 0.20)),
        ((0.38, 0.60), 0.20, (0.15, 0.32, 0.45)),
        ((0.66, 0.66), 0.13, (0.90, 0.72, 0.28)),
    ):
        poster[np.hypot(u - at[0], (v - at[1]) * 1.22) < radius] = color
    poster[(np.abs(v - 0.90) < 0.018) & (np.abs(u - 0.5) < 0.32)] = (0.15, 0.15, 0.18)
    poster[(np.abs(u - 0.5) > 0.478) | (np.abs(v - 0.5) > 0.482)] = (0.12, 0.11, 0.10)
    pictures["poster"] = poster
    pictures["sofa"] = base((0.34, 0.38, 0.40)) * (1 + 0.06 * rng.standard_normal((n, n)))[..., None]
    window = base((0.95, 0.98, 1.0))
    window[(np.abs(np.mod(u * 2, 1) - 0.5) > 0.46) | (np.abs(np.mod(v * 2, 1) - 0.5) > 0.46)] = (0.85, 0.84, 0.80)
    pictures["window"] = window
    rug = base((0.55, 0.52, 0.47)) * (1 + 0.08 * rng.standard_normal((n, n)))[..., None]
    edge = np.minimum(np.minimum(u, 1 - u) * 3.0, np.minimum(v, 1 - v) * 2.55)
    rug[(edge > 0.10) & (edge < 0.16)] *= (0.45, 0.55, 0.70)
    diamond = np.mod(np.abs(u - 0.5) * 12 + np.abs(v - 0.5) * 10, 1) < 0.10
    rug[diamond & (edge > 0.22)] *= (0.72, 0.70, 0.72)
    pictures["rug"] = rug
    linear = np.stack([np.clip(p, 0, 1) ** 2.2 for p in pictures.values()])
    return linear.astype(np.float32), list(pictures)
