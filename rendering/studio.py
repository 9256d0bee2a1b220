"""What stands behind the avatar: a neutral studio with a contact shadow, or the room it was filmed in.

H x W pixels, colours float32 in [0, 1] here, uint8 where a recording is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from rendering.viewpoints import View

WALL_TOP, WALL_LOW, FLOOR_NEAR = (0.80, 0.81, 0.83), (0.93, 0.93, 0.94), (0.86, 0.86, 0.87)
SHADOW_DARKNESS = 0.42
SHADOW_REACH_M = 0.10  # height at which a part's shadow has faded to a third: contact, not a sun
SHADOW_SIZE_M, SHADOW_CELLS = 3.0, 192
PLATE_FRAMES = 15  # enough for a median over a moving person
MATTE_MARGIN = 0.015  # of the picture's long side: the true edge is softer than any matte


def studio(view: View, vertices_world_m: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]: a seamless backdrop, and the shadow of vertices (V, 3) on the floor."""
    width, height = view.camera.image_wh
    horizon = _horizon(view)
    rows = (np.arange(height) + 0.5) / height
    stops = (0.0, float(np.clip(horizon, 0.3, 0.9)), 1.0)
    gradient = np.stack([np.interp(rows, stops, [WALL_TOP[c], WALL_LOW[c], FLOOR_NEAR[c]]) for c in range(3)], axis=1)
    picture = np.repeat(gradient[:, None], width, axis=1).astype(np.float32)
    x = (np.arange(width) + 0.5) / width - 0.5
    picture *= (1 - 0.22 * x**2 / 0.25 * 0.35)[None, :, None].astype(np.float32)  # a lamp in the middle
    return shaded(picture, view, vertices_world_m)


def shaded(picture: np.ndarray, view: View, vertices_world_m: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) of an empty place with the shadow of vertices (V, 3) on its floor."""
    return picture * (1 - SHADOW_DARKNESS * _shadow(view, vertices_world_m)[..., None])


def _horizon(view: View) -> float:
    """Where the floor meets the wall, as a fraction of the picture's height, six metres behind the camera's target."""
    world_from_camera = view.camera_from_world[:3, :3].T
    forward = world_from_camera[:, 2]
    far = -view.camera_from_world[:3, :3].T @ view.camera_from_world[:3, 3]
    point = np.array([far[0] + forward[0] * 9, far[1] + forward[1] * 9, 0.0])
    camera_m = view.camera_from_world[:3, :3] @ point + view.camera_from_world[:3, 3]
    if camera_m[2] <= 0.1:
        return 1.0
    return float((camera_m[1] / camera_m[2] * view.camera.fy_px + view.camera.cy_px) / view.camera.image_wh[1])


def _shadow(view: View, vertices_world_m: np.ndarray) -> np.ndarray:
    """(H, W) float32 in [0, 1]: how much of the lamp the body takes away, strongest where it touches the floor."""
    middle = np.median(vertices_world_m[:, :2], axis=0)
    cells_per_m = SHADOW_CELLS / SHADOW_SIZE_M
    cells = np.floor((vertices_world_m[:, :2] - middle + SHADOW_SIZE_M / 2) * cells_per_m).astype(int)
    inside = ((cells >= 0) & (cells < SHADOW_CELLS)).all(1)
    near = np.exp(-np.maximum(vertices_world_m[:, 2], 0) / SHADOW_REACH_M).astype(np.float32)
    contact = np.zeros((SHADOW_CELLS, SHADOW_CELLS), np.float32)
    np.maximum.at(contact, (cells[inside, 1], cells[inside, 0]), near[inside])
    soft = cv2.GaussianBlur(cv2.dilate(contact, np.ones((3, 3), np.uint8)), (0, 0), 0.045 * cells_per_m)
    outline = np.zeros_like(contact)
    outline[cells[inside, 1], cells[inside, 0]] = 1
    solid = cv2.morphologyEx(outline, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    wide = cv2.GaussianBlur(solid, (0, 0), 0.16 * cells_per_m)
    floor = np.minimum(1.0, soft * 1.1 + 0.45 * wide)
    # The floor is a plane: its picture is a homography of the grid.
    camera, extrinsic = view.camera, view.camera_from_world
    intrinsic = np.array([[camera.fx_px, 0, camera.cx_px - 0.5], [0, camera.fy_px, camera.cy_px - 0.5], [0, 0, 1]])
    corner = middle - SHADOW_SIZE_M / 2 + 0.5 / cells_per_m
    world_from_grid = np.array([[1 / cells_per_m, 0, corner[0]], [0, 1 / cells_per_m, corner[1]], [0, 0, 1]])
    image_from_grid = (
        intrinsic @ np.column_stack([extrinsic[:3, 0], extrinsic[:3, 1], extrinsic[:3, 3]]) @ world_from_grid
    )
    return cv2.warpPerspective(floor, image_from_grid, camera.image_wh, flags=cv2.INTER_LINEAR).clip(0, 1)


@dataclass(frozen=True)
class Room:
    """The place a recording was made in, as seen when nobody stands there."""

    plate: np.ndarray  # (H, W, 3) float32 in [0, 255]

    @staticmethod
    def of(recording: Any, masks: Any, image_wh: tuple[int, int]) -> Room:
        """Median of the pixels outside the matte over the recording; what was never seen is painted in."""
        chosen = np.unique(np.linspace(0, len(recording) - 1, PLATE_FRAMES).round().astype(int))
        frames = np.stack([_shrink(recording.color(int(i)), image_wh) for i in chosen]).astype(np.float32)
        hidden = np.stack([_widened(masks[int(i)], image_wh) for i in chosen])
        frames[hidden] = np.inf  # sorts last, so that the median of the others is a matter of counting
        frames.sort(axis=0)
        seen = (~hidden).sum(0)
        never = seen == 0
        middle = np.maximum(seen - 1, 0) // 2
        plate = np.take_along_axis(frames, middle[None, ..., None], axis=0)[0]
        plate[never] = 0
        if never.any():
            rounded = np.rint(plate).clip(0, 255).astype(np.uint8)
            plate = cv2.inpaint(rounded, np.asarray(never, np.uint8), 5, cv2.INPAINT_TELEA).astype(np.float32)
        return Room(plate.astype(np.float32))

    def behind(self, color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """The true picture (H, W, 3) uint8, the person replaced by the empty room: (H, W, 3) float32 in [0, 1]."""
        image_wh = (self.plate.shape[1], self.plate.shape[0])
        picture = _shrink(color, image_wh).astype(np.float32)
        hidden = _widened(alpha, image_wh)
        if hidden.all():
            return self.plate / 255
        # Exposure drifts over a clip: bring the plate to this frame's brightness.
        gain = picture[~hidden].mean(0) / np.maximum(self.plate[~hidden].mean(0), 1)
        return np.where(hidden[..., None], self.plate * gain, picture).clip(0, 255).astype(np.float32) / 255


def _shrink(image: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
    if (image.shape[1], image.shape[0]) == image_wh:
        return image
    return cv2.resize(image, image_wh, interpolation=cv2.INTER_AREA)


def _widened(alpha: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the matte and a margin around it."""
    radius = max(1, round(MATTE_MARGIN * max(image_wh)))
    person = (_shrink(np.ascontiguousarray(alpha, np.float32), image_wh) > 0.02).astype(np.uint8)
    return cv2.dilate(person, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)) > 0
