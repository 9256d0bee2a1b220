"""Which part of a picture the networks paint, and at how many pixels: never larger or smaller than they know people.

In training a person of so many metres had so many pixels in the crop.  A camera that comes close asks for more: then
the crop is painted at the largest scale that the networks know and enlarged, a whole body at the size it was learned
from and cut by the picture's edge.  A pose as wide as it is high asks for less: then the crop gets more pixels.

V vertices, H x W pixels of the picture.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from capture.camera import Camera, project
from rendering.crops import person_boxes
from rendering.pasting import Box, times
from rendering.rasters import BODY_MARGINS, Margins

STEP = 64  # crops grow by so many pixels: few sizes, as each costs a GPU a recorded graph, and the networks halve often
MOST_LARGER = 2.0  # sides of a crop that grew; beyond, the figure is painted small after all
BEYOND = 1.4  # the scale of training may be left upwards by this: still clean, and sharper; at twice, texels show
SLACK = 1.05  # downwards: nobody sees so little
NEAR_M = 0.05  # of the rasteriser


class Frame(NamedTuple):
    """A part of the picture, and the size that it is painted in."""

    box_px: Box
    crop_wh: tuple[int, int]
    is_enlarged: bool = False  # painted smaller than the picture asks for

    @property
    def enlarged(self) -> float:
        """Pixels of the picture for one that is painted."""
        return times(self.box_px, self.crop_wh[1])


def person_box(
    vertices_camera_m: np.ndarray,
    camera: Camera,
    crop_wh: tuple[int, int],
    margins: Margins = BODY_MARGINS,
) -> Box | None:
    """(left, top, right, bottom) px around vertices (V, 3), framed like the rasters that the networks learned from.

    margins (left, top, right, bottom): fractions of the vertices' height in the picture.  None when nothing of them is
    in the picture.
    """
    points_px = project(camera, vertices_camera_m)
    points_px = points_px[np.isfinite(points_px).all(axis=1)]
    if not len(points_px):
        return None
    low, high = points_px.min(axis=0), points_px.max(axis=0)
    if (high <= 0).any() or (low >= camera.image_wh).any():
        return None
    extent_px = np.concatenate([low, high])[None]
    left, top, right, bottom = person_boxes(extent_px, camera.image_wh, crop_wh[0] / crop_wh[1], margins, 0)[0]
    return float(left), float(top), float(right), float(bottom)


def person_frame(
    vertices_camera_m: np.ndarray,
    camera: Camera,
    crop_wh: tuple[int, int],
    px_per_m: tuple[float, float],
    margins: Margins = BODY_MARGINS,
) -> Frame | None:
    """``person_box``, enlarged or given more pixels so that a metre of the person has about ``px_per_m`` of them, the
    least and the most of training."""
    box = person_box(vertices_camera_m, camera, crop_wh, margins)
    if box is None:
        return None
    depth_m = visible_depth(vertices_camera_m, camera)
    scale = crop_wh[1] / (box[3] - box[1]) * camera.fy_px / depth_m
    least, most = px_per_m
    if scale > most * BEYOND:
        grown = scale / (most * BEYOND)
        center = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        half = (box[2] - box[0]) / 2 * grown, (box[3] - box[1]) / 2 * grown
        return Frame(
            (center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1]), crop_wh, True
        )
    if scale * SLACK < least:
        times = min(least / scale, MOST_LARGER)
        height = math.ceil(crop_wh[1] * times / STEP) * STEP
        return Frame(box, (round(height * crop_wh[0] / crop_wh[1]), height))
    return Frame(box, crop_wh)


def visible_depth(vertices_camera_m: np.ndarray, camera: Camera) -> float:
    """Median distance, metres, of the vertices (V, 3) inside the picture; of all before the camera where none is."""
    depth_m = vertices_camera_m[:, 2]
    points_px = project(camera, vertices_camera_m)
    with np.errstate(invalid="ignore"):
        is_inside = ((points_px >= 0) & (points_px < camera.image_wh)).all(axis=1)
    inside = depth_m[is_inside & (depth_m > NEAR_M)]
    return float(np.median(inside if len(inside) else depth_m[depth_m > 0]))


def px_per_m_of(cameras_fy_px: np.ndarray, depths_m: np.ndarray) -> tuple[float, float]:
    """The scales that nine tenths of the frames show a person at: crops' focal lengths (N,), distances (N,)."""
    low, high = np.percentile(np.asarray(cameras_fy_px) / np.asarray(depths_m), (5, 95))
    return float(low), float(high)


def usual_px_per_m(height_m: float, crop_wh: tuple[int, int]) -> tuple[float, float]:
    """The same for avatars that do not say: somebody of this height, filmed whole, who crouches and spreads out."""
    standing = crop_wh[1] / (height_m * (1 + BODY_MARGINS[1] + BODY_MARGINS[3]))
    return 0.6 * standing, 1.5 * standing
