"""Depth seen from the colour camera: geometry is exact, the foreground hides, nothing is invented."""

from __future__ import annotations

import numpy as np
import pytest

from capture.camera import Camera, Rig, pixel_rays, transform, unproject
from capture.errors import UserError
from capture.registration import depth_in_color

COLOR = Camera((240, 136), 135.0, 135.0, 120.0, 68.0, (0.0124, -0.0054, 0.0, 0.0, 0.0))
DEPTH = Camera((128, 106), 91.4, 91.4, 64.5, 52.7, (0.089, -0.272, 0.0, 0.0, 0.098))


def kinect() -> Rig:
    depth_from_color = np.eye(4)
    depth_from_color[0, 3] = 0.052
    return Rig(COLOR, DEPTH, depth_from_color)


def plane_depth_mm(normal_color: np.ndarray, offset_m: float, rig: Rig) -> np.ndarray:
    """What the depth camera measures of the plane normal . x = offset, given in the colour frame."""
    assert rig.depth is not None and rig.depth_from_color is not None
    normal_depth = rig.depth_from_color[:3, :3] @ normal_color
    distance_m = offset_m + normal_depth @ rig.depth_from_color[:3, 3]
    return np.rint(1000 * distance_m / (pixel_rays(rig.depth) @ normal_depth)).astype(np.uint16)


@pytest.mark.parametrize("camera", [COLOR, COLOR.crop((60, 20, 180, 120), (200, 160)), COLOR.resize((120, 68))])
def test_a_slanted_plane_is_where_it_is(camera):
    normal, offset_m = np.array([0.2, -0.1, 0.97]), 2.5
    depth_m = depth_in_color(kinect(), plane_depth_mm(normal, offset_m, kinect()), camera)
    truth_m = offset_m / (pixel_rays(camera) @ normal)
    is_seen = np.isfinite(depth_m)
    assert is_seen[20:-20, 30:-30].mean() > 0.99  # what both cameras see has no cracks
    np.testing.assert_allclose(depth_m[is_seen], truth_m[is_seen], rtol=0.008)


def test_the_foreground_hides_the_wall_behind_it():
    rig = kinect()
    assert rig.depth is not None
    depth_mm = np.full((106, 128), 3000, np.uint16)
    depth_mm[30:80, 50:80] = 1000
    depth_m = depth_in_color(rig, depth_mm)
    near = unproject(rig.depth, depth_mm)[30:80, 50:80]
    near_color = transform(np.linalg.inv(np.asarray(rig.depth_from_color)), near)
    u = COLOR.fx_px * near_color[..., 0] / near_color[..., 2] + COLOR.cx_px
    v = COLOR.fy_px * near_color[..., 1] / near_color[..., 2] + COLOR.cy_px
    inside = depth_m[int(v.min()) + 3 : int(v.max()) - 3, int(u.min()) + 3 : int(u.max()) - 3]
    np.testing.assert_allclose(inside, 1.0, atol=0.01)  # no wall shines through
    values = depth_m[np.isfinite(depth_m)]
    assert ((np.abs(values - 1) < 0.01) | (np.abs(values - 3) < 0.01)).all()  # and nothing between the two
    assert np.isnan(depth_m[40:90]).any()  # the shadow beside the foreground stays unknown


def test_registered_depth_is_only_resampled():
    rig = Rig(COLOR, COLOR.resize((120, 68)), np.eye(4))
    depth_mm = np.random.default_rng(0).integers(0, 5000, (68, 120)).astype(np.uint16)
    depth_m = depth_in_color(rig, depth_mm)
    expected = np.where(depth_mm == 0, np.nan, depth_mm / 1000).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(depth_m, expected, rtol=1e-6)
    crop = depth_in_color(rig, depth_mm, COLOR.crop((40, 20, 140, 120), (100, 100)))
    np.testing.assert_allclose(crop, expected[20:120, 40:140], rtol=1e-6)
    outside = depth_in_color(rig, depth_mm, COLOR.crop((-10, 0, 90, 100), (100, 100)))
    assert np.isnan(outside[:, :10]).all()


def test_no_depth_and_a_wrong_size_are_refused():
    with pytest.raises(UserError, match="no depth camera"):
        depth_in_color(Rig(COLOR), np.zeros((106, 128), np.uint16))
    with pytest.raises(UserError, match="10x5"):
        depth_in_color(kinect(), np.zeros((5, 10), np.uint16))
