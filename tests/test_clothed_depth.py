"""The orthographic pictures of ``benchmarks/clothed_depth.py``: there and back again."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import clothed_depth

from capture.camera import unproject

CENTRE_M, RADIUS_M = np.array([0.25, -0.2, 1.75]), 0.3


def ball() -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and faces (F, 3) of a ball."""
    around, down = np.meshgrid(np.linspace(0, 2 * np.pi, 181), np.linspace(0, np.pi, 91))
    unit = np.stack([np.sin(down) * np.cos(around), np.sin(down) * np.sin(around), np.cos(down)], axis=-1)
    index = np.arange(unit[..., 0].size).reshape(unit.shape[:2])
    corners = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], axis=-1).reshape(-1, 4)
    vertices_m = CENTRE_M + RADIUS_M * unit.reshape(-1, 3)
    return vertices_m, np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]])


def test_as_pinhole_keeps_the_seen_surface_in_place() -> None:
    depth_m = clothed_depth.orthographic_m(*ball(), from_behind=False)
    depth_m = np.where(np.isfinite(depth_m), depth_m, 0)
    color = np.full((*depth_m.shape, 3), 90, np.uint8)

    picture, depth_mm = clothed_depth.as_pinhole(color, depth_m)

    points_m = unproject(clothed_depth.PINHOLE, depth_mm)[depth_mm > 0]
    radius_m = np.linalg.norm(points_m - CENTRE_M, axis=1)
    assert len(points_m) > 8000
    assert np.abs(radius_m - RADIUS_M).max() < 0.003
    assert (picture[depth_mm > 0] == 90).all() and (picture[depth_mm == 0] == 0).all()


def test_views_from_before_and_behind_enclose_the_body() -> None:
    front_m = clothed_depth.orthographic_m(*ball(), from_behind=False)
    back_m = 2 * clothed_depth.PLANE_M - clothed_depth.orthographic_m(*ball(), from_behind=True)[:, ::-1]

    both = np.isfinite(front_m) & np.isfinite(back_m)
    assert both.sum() > 0.98 * np.isfinite(front_m).sum()
    assert abs((back_m - front_m)[both].max() - 2 * RADIUS_M) < 0.002
    assert np.abs((back_m[both] + front_m[both]) / 2 - CENTRE_M[2]).max() < 0.02
