"""The factory's numbers as two cameras: within half a pixel of its own polynomial, upright, whichever driver tells."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from fake_kinect import COLOR, IR, Device, FakeWindows, calibration_of_windows, color_params, rays, seen_at

from capture.camera import Rig, invert, pixel_rays, project, transform
from capture.errors import UserError
from capture.importers.upright import upright_rig
from capture.kinect.calibration import Calibration, from_libfreenect2
from capture.registration import depth_in_color

OTHER_DISTANCES_MM = (650, 1000, 1900, 3300, 4400)  # none of those that the fit looks at


@pytest.fixture(scope="module")
def from_linux() -> Calibration:
    found = from_libfreenect2(IR, color_params())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def from_windows() -> Calibration:
    return calibration_of_windows()


def apart_px(rig: Rig, distance_mm: float) -> np.ndarray:
    """(h, w) between where libfreenect2 sees a depth pixel in colour and where the rig does, in mirrored pictures."""
    mirrored = upright_rig(rig, 0, True)
    assert mirrored.depth is not None and mirrored.depth_from_color is not None
    points_m = pixel_rays(mirrored.depth) * distance_mm / 1000
    seen_px = project(mirrored.color, transform(invert(mirrored.depth_from_color), points_m))
    return np.linalg.norm(seen_px - (seen_at(distance_mm) + 0.5), axis=-1)


@pytest.mark.parametrize("name", ["from_linux", "from_windows"])
def test_the_rig_is_within_half_a_pixel_of_the_factorys_polynomial(name: str, request: pytest.FixtureRequest) -> None:
    found: Calibration = request.getfixturevalue(name)
    apart = np.stack([apart_px(found.rig, distance) for distance in OTHER_DISTANCES_MM])
    assert np.median(apart) <= 0.5 and apart.max() <= 2.0, (np.median(apart), apart.max())
    assert found.is_good and abs(found.median_px - np.median(apart)) < 0.1
    assert "px of the factory's calibration" in found.words


def test_both_drivers_lead_to_the_same_cameras(from_linux: Calibration, from_windows: Calibration) -> None:
    mine, other = from_linux.rig, from_windows.rig
    assert mine.depth is not None and other.depth is not None
    np.testing.assert_allclose(pixel_rays(mine.depth), pixel_rays(other.depth), atol=2e-5)
    for distance in (0.7, 3.0):
        points_m = pixel_rays(mine.depth)[::20, ::20] * distance
        seen = [project(r.color, transform(invert(np.asarray(r.depth_from_color)), points_m)) for r in (mine, other)]
        assert np.abs(seen[0] - seen[1])[:, 2:-2].max() < 0.3


def test_the_polynomial_is_libfreenect2s() -> None:
    """registration.cpp by hand for one pixel: x = (100 - cx) / 100, y = (300 - cy) / 100, and 2 m."""
    x, y = (100 - IR.cx) * 0.01, (300 - IR.cy) * 0.01
    wx = 0.000449294 * x**3 + 1.91656e-05 * y**3 + 4.82909e-05 * x * x * y + 0.000353673 * x * y * y
    wx += -2.44043e-05 * x * x - 1.19426e-05 * y * y + 0.000988431 * x * y + 0.642474 * x + 0.00500649 * y + 0.142021
    rx = wx / (1081.37 * 0.002199) - 52 / 863 + 52 / 2000
    seen = COLOR.seen_at(np.array([100 - IR.cx, 300 - IR.cy]), 2000)
    assert seen[0] == pytest.approx(rx * 1081.37 + 959.5 + 0.5, abs=1e-9)


def test_left_is_left_and_the_baseline_is_that_of_the_device(from_linux: Calibration) -> None:
    rig = from_linux.rig
    assert rig.depth is not None and rig.depth_from_color is not None
    assert rig.depth_from_color[0, 3] == pytest.approx(0.0524, abs=0.002)  # turned back from mirrored
    assert np.abs(rig.depth_from_color[1:3, 3]).max() < 0.002
    assert rig.depth.cx_px == pytest.approx(512 - (IR.cx + 0.5))
    assert rig.depth.fx_px == IR.fx and rig.depth.distortion == (IR.k1, IR.k2, 0.0, 0.0, IR.k3)
    assert rig.color.image_wh == (1920, 1080) and 1060 < rig.color.fx_px < 1075


def test_a_wall_is_where_it_is_in_colour(from_linux: Calibration) -> None:
    depth_m = depth_in_color(from_linux.rig, np.full((424, 512), 2000, np.uint16))
    is_seen = np.isfinite(depth_m)
    assert is_seen[:, 300:-300].mean() > 0.97 and np.abs(depth_m[is_seen] - 2.0).max() < 0.03


def test_what_the_device_said_is_kept_as_it_said_it(from_linux: Calibration, from_windows: Calibration) -> None:
    assert from_linux.factory["ir_params"].tolist() == [*vars(IR).values()]
    assert from_linux.factory["color_params"].tolist() == [
        1081.37,
        1081.37,
        959.5,
        539.5,
        863,
        52,
        *COLOR.mx,
        *COLOR.my,
    ]
    table = from_windows.factory["depth_rays"]
    np.testing.assert_allclose(table * (1, -1), rays(), atol=1e-6)
    assert from_windows.factory["color_px"].shape == (5, 107, 129, 2)


def test_numbers_that_are_no_camera_are_refused_and_empty_ones_are_waited_for() -> None:
    misprint = SimpleNamespace(**{**vars(IR), "p2": 365.481})
    with pytest.raises(UserError, match=r"365\.481.*each within"):
        from_libfreenect2(misprint, color_params())
    empty = SimpleNamespace(**dict.fromkeys(vars(IR), 0.0))
    assert from_libfreenect2(empty, color_params()) is None


def test_intrinsics_are_zero_until_depth_has_come() -> None:
    kinect = FakeWindows(Device())
    driver = kinect.driver()
    driver.start()
    assert driver.calibration() is None and kinect.asked_before_depth == 1
    while not any(shot.stream == "depth" for shot in driver.wait(1.0)):
        pass
    assert driver.calibration() is not None
