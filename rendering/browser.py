"""A browser's camera as one of ours, and one of ours as a browser's.

viser reports world_from_camera with OpenCV's axes (+x right, +y down, +z forward) as a quaternion (w, x, y, z) and a
position, and the vertical field of view; its principal point is the middle of the page.  World: z up, metres.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from capture.camera import Camera, invert
from rendering.viewpoints import View

MAX_LONG_SIDE_PX = 1280  # of a picture: the networks paint the person with far fewer
MIN_SIDE_PX = 16


def view_of(wxyz: np.ndarray, position_m: np.ndarray, fov_rad: float, image_wh: tuple[int, int]) -> View:
    """The view of a browser's camera in a picture of ``image_wh``: wxyz (4,), position_m (3,)."""
    width, height = image_wh
    focal_px = height / 2 / np.tan(fov_rad / 2)
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = Rotation.from_quat(np.asarray(wxyz, float), scalar_first=True).as_matrix()
    world_from_camera[:3, 3] = position_m
    return View(Camera(image_wh, focal_px, focal_px, width / 2, height / 2), invert(world_from_camera))


def pose_of(view: View) -> tuple[np.ndarray, np.ndarray, float]:
    """The inverse of ``view_of``: wxyz (4,), position_m (3,), vertical field of view in rad."""
    world_from_camera = invert(view.camera_from_world)
    wxyz = Rotation.from_matrix(world_from_camera[:3, :3]).as_quat(scalar_first=True)
    fov_rad = 2 * np.arctan(view.camera.image_wh[1] / 2 / view.camera.fy_px)
    return wxyz, world_from_camera[:3, 3], float(fov_rad)


def picture_wh(page_wh: tuple[int, int], scale: float) -> tuple[int, int]:
    """The size of a picture that fills a page of ``page_wh``, at ``scale`` of the largest that is ever made of it."""
    shrink = scale * min(1.0, MAX_LONG_SIDE_PX / max(*page_wh, 1))
    width, height = (max(MIN_SIDE_PX, round(side * shrink)) for side in page_wh)
    return width, height
