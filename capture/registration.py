"""Depth seen from the colour camera.

H x W pixels of the picture asked for, h x w depth pixels.  The two sensors of a Kinect stand 52 mm apart, so a depth
image is moved point by point; what the depth camera sees past the colour camera's foreground is hidden again
(z-buffer), what it does not see stays missing.
"""

from __future__ import annotations

import cv2
import numpy as np

from capture.camera import Camera, Rig, invert, project, transform, unproject
from capture.errors import UserError

SURFACE_JUMP = 0.02  # of depth: neighbours further apart lie on two surfaces


def depth_in_color(rig: Rig, depth_mm: np.ndarray, camera: Camera | None = None) -> np.ndarray:
    """Depth (h, w) uint16 millimetres to (H, W) float32 metres along z in the colour frame, NaN where nothing was seen.

    ``camera`` is ``rig.color`` or any crop or resize of it.  Raises UserError when the rig has no depth camera or the
    image is not of its size.
    """
    if rig.depth is None or rig.depth_from_color is None:
        raise UserError("the recording's rig has no depth camera; use --no-depth")
    if (depth_mm.shape[1], depth_mm.shape[0]) != rig.depth.image_wh:
        raise UserError(
            f"depth image of {depth_mm.shape[1]}x{depth_mm.shape[0]}, rig says {rig.depth.image_wh}; import again"
        )
    camera = rig.color if camera is None else camera
    if is_registered(rig):
        return _resampled(rig.depth, depth_mm, camera)
    points_color_m = transform(invert(rig.depth_from_color), unproject(rig.depth, depth_mm))  # (h, w, 3)
    points_px = project(camera, points_color_m)
    footprint_px = camera.fx_px / rig.depth.fx_px
    moved_m = _splatted(points_px.reshape(-1, 2), points_color_m[..., 2].ravel(), camera.image_wh, footprint_px)
    return _closed(moved_m)


def is_registered(rig: Rig) -> bool:
    """Whether depth already lies on the colour camera's rays."""
    assert rig.depth is not None and rig.depth_from_color is not None
    at_color = np.array_equal(rig.depth_from_color, np.eye(4)) and rig.depth.distortion == rig.color.distortion
    return at_color and np.allclose(_pinhole(rig.color.resize(rig.depth.image_wh)), _pinhole(rig.depth), rtol=1e-4)


def _pinhole(camera: Camera) -> tuple[float, float, float, float]:
    return camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px


def _resampled(depth_camera: Camera, depth_mm: np.ndarray, camera: Camera) -> np.ndarray:
    """Nearest depth pixel of each pixel centre: depth must never be averaged over an edge."""
    width, height = camera.image_wh
    x = (np.arange(width) + 0.5 - camera.cx_px) / camera.fx_px * depth_camera.fx_px + depth_camera.cx_px
    y = (np.arange(height) + 0.5 - camera.cy_px) / camera.fy_px * depth_camera.fy_px + depth_camera.cy_px
    columns, rows = np.floor(x + 1e-6).astype(int), np.floor(y + 1e-6).astype(int)
    is_inside = ((rows >= 0) & (rows < depth_mm.shape[0]))[:, None] & ((columns >= 0) & (columns < depth_mm.shape[1]))
    taken = depth_mm[rows.clip(0, depth_mm.shape[0] - 1)][:, columns.clip(0, depth_mm.shape[1] - 1)]  # (H, W)
    return np.where(is_inside & (taken > 0), taken * np.float32(1e-3), np.float32(np.nan)).astype(np.float32)


def _splatted(points_px: np.ndarray, z_m: np.ndarray, image_wh: tuple[int, int], footprint_px: float) -> np.ndarray:
    """(H, W) nearest of the points (N, 2) that cover each pixel, each a square of ``footprint_px``; NaN where none."""
    width, height = image_wh
    is_valid = np.isfinite(points_px).all(axis=1) & np.isfinite(z_m)
    is_valid &= (np.abs(np.nan_to_num(points_px)) < 1e6).all(axis=1)
    first = np.rint(points_px[is_valid] - footprint_px / 2).astype(np.int64)  # covered: first .. first + size - 1
    z_m = z_m[is_valid].astype(np.float32)
    nearest = np.full(width * height, np.inf, np.float32)
    size = max(1, int(np.ceil(footprint_px)))
    for dy in range(size):
        for dx in range(size):
            x, y = first[:, 0] + dx, first[:, 1] + dy
            is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            np.minimum.at(nearest, y[is_inside] * width + x[is_inside], z_m[is_inside])
    return np.where(np.isinf(nearest), np.nan, nearest).reshape(height, width).astype(np.float32)


def _closed(depth_m: np.ndarray) -> np.ndarray:
    """Fill the cracks of splatting: a missing pixel between pixels of one surface takes their mean; real shadows and
    holes, which are wider or lie at an edge, stay missing."""
    is_missing = np.isnan(depth_m)
    kernel = np.ones((3, 3), np.uint8)
    far = cv2.dilate(np.where(is_missing, 0, depth_m).astype(np.float32), kernel)
    near = cv2.erode(np.where(is_missing, np.float32(1e6), depth_m).astype(np.float32), kernel)
    count = cv2.boxFilter((~is_missing).astype(np.float32), -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    is_crack = is_missing & (count >= 5) & (far - near < SURFACE_JUMP * far)
    return np.where(is_crack, (far + near) / 2, depth_m).astype(np.float32)
