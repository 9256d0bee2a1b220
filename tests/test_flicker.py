"""The measures of flicker: movement is none, a steady error is none, trembling is as much as it trembles."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from test_matting import figure as small_figure

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from flicker import believed, displacement, outline, true

SHIFT_PX = 3  # of the painted figure
SCALE = 3  # then its limbs are wider than the measures reach


def figure(shift_px: int = 0) -> np.ndarray:
    return cv2.resize(small_figure(shift_px), None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)


def soft(mask: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(mask, (0, 0), 0.7)


def grown(mask: np.ndarray, radius_px: int) -> np.ndarray:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(radius_px) + 1,) * 2)
    return cv2.dilate(mask, kernel) if radius_px > 0 else cv2.erode(mask, kernel)


TRUTHS = (soft(figure(0)), soft(figure(SHIFT_PX)))
FLOW_PX = np.tile(np.array([SCALE * SHIFT_PX, 0], np.float32), (*figure().shape, 1))


def test_displacement_is_how_far_the_outline_lies_outside():
    points, normals = outline(TRUTHS[0])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    for radius_px in (2, -1):
        moved_px = displacement(soft(grown(figure(0), radius_px)), TRUTHS[0], points, normals)
        assert abs(np.median(moved_px) - radius_px) < 0.3


def test_movement_and_a_steady_error_are_no_flicker():
    assert true(TRUTHS, TRUTHS, FLOW_PX) == 0
    steady = [soft(grown(figure(shift), 2)) for shift in (0, SHIFT_PX)]
    assert true(steady, TRUTHS, FLOW_PX) < 0.05
    wrong_flow_px = FLOW_PX + np.float32(1.5)  # snapped to the true outline
    assert true(steady, TRUTHS, wrong_flow_px) < 0.3


def test_trembling_is_flicker_as_large_as_it_is():
    torn = [soft(figure(0)), soft(grown(figure(SHIFT_PX), 2))]
    assert 1.4 < true(torn, TRUTHS, FLOW_PX) < 2.4
    assert 1.4 < believed(*torn, FLOW_PX, -FLOW_PX) < 2.4
    assert believed(*TRUTHS, FLOW_PX, -FLOW_PX) < 0.1
    assert np.isnan(believed(*TRUTHS, FLOW_PX, FLOW_PX))  # there and back leads elsewhere: nothing is believed
    assert np.isnan(true(torn, (TRUTHS[0], np.zeros_like(TRUTHS[0])), FLOW_PX))
