"""What stands behind the avatar: a neutral studio with a contact shadow, or the room it was filmed in.

H x W pixels, colours float32 in [0, 1] here, uint8 where a recording is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from capture.sampling import evenly
from rendering.viewpoints import View

WALL_TOP, WALL_LOW, FLOOR_NEAR = (0.80, 0.81, 0.83), (0.93, 0.93, 0.94), (0.86, 0.86, 0.87)
SHADOW_DARKNESS = 0.42
SHADOW_REACH_M = 0.10  # height at which a part's shadow has faded to a third: contact, not a sun
SHADOW_SIZE_M, SHADOW_CELLS = 3.0, 192
PLATE_FRAMES, MORE_FRAMES = 15, 60  # enough for a median over a moving person; for what those do not show
# Of the picture's long side, from the matte: so far his edge reaches, which is softer than any matte; and so far what
# he does to the room, shadows and reflections, is mixed into the plate.
MATTE_NEAR, MATTE_FAR = 0.005, 0.015


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
    is_seen: np.ndarray  # (H, W) bool; the rest is painted in

    @staticmethod
    def of(recording: Any, masks: Any, image_wh: tuple[int, int]) -> Room:
        """Median of the pixels away from the matte over the recording; where none is, of those just beside it in more
        frames; what was never seen is painted in."""
        chosen = evenly(range(len(recording)), PLATE_FRAMES).tolist()
        frames = np.stack([_shrink(recording.color(i), image_wh) for i in chosen])
        plate, is_seen = _median(frames, np.stack([_away_px(masks[i], image_wh) > _far_px(image_wh) for i in chosen]))
        del frames
        if not is_seen.all():
            missing, parts, is_clear = ~is_seen, [], []
            for i in evenly(range(len(recording)), MORE_FRAMES).tolist():
                parts.append(_shrink(recording.color(i), image_wh)[missing])
                is_clear.append((_away_px(masks[i], image_wh) > _near_px(image_wh))[missing])
            plate[missing], is_seen[missing] = _median(np.stack(parts), np.stack(is_clear))
        if not is_seen.all():
            rounded = np.rint(plate).clip(0, 255).astype(np.uint8)
            plate = cv2.inpaint(rounded, np.asarray(~is_seen, np.uint8), 5, cv2.INPAINT_TELEA)
        return Room(plate.astype(np.float32), is_seen)

    def behind(self, color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """The true picture (H, W, 3) uint8, the person replaced by the empty room: (H, W, 3) float32 in [0, 1].

        Beside the person the picture is mixed in, so that what lies around him goes on into the plate; where the plate
        is a guess, everything that this picture shows is taken.
        """
        image_wh = (self.plate.shape[1], self.plate.shape[0])
        picture = _shrink(color, image_wh).astype(np.float32)
        away_px, near_px, far_px = _away_px(alpha, image_wh), _near_px(image_wh), _far_px(image_wh)
        is_clear = away_px > far_px
        if not is_clear.any():
            return self.plate / 255
        # Exposure drifts over a clip: bring the plate to this frame's brightness.
        gain = picture[is_clear].mean(0) / np.maximum(self.plate[is_clear].mean(0), 1)
        share = ((away_px - near_px) / (far_px - near_px)).clip(0, 1)
        share = np.where(self.is_seen, share * share * (3 - 2 * share), away_px > near_px)[..., None]
        mixed = self.plate * gain * (1 - share) + picture * share
        return mixed.clip(0, 255).astype(np.float32) / 255


def _median(values: np.ndarray, is_valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Over the first axis of values (N, ..., 3) uint8 the median of the valid (N, ...) ones, 0 without any, and whether
    there are some.  Sorts ``values``."""
    count = is_valid.sum(axis=0)
    values[~is_valid] = 255  # sorts last, beside what is as bright: a matter of counting
    values.sort(axis=0)
    middle = np.maximum(count - 1, 0) // 2
    found = np.take_along_axis(values, middle[None, ..., None], axis=0)[0].astype(np.float32)
    return np.where((count > 0)[..., None], found, np.float32(0)), count > 0


def _shrink(image: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
    if (image.shape[1], image.shape[0]) == image_wh:
        return image
    return cv2.resize(image, image_wh, interpolation=cv2.INTER_AREA)


def _away_px(alpha: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
    """(H, W) float32: how far each pixel is from the matte, 0 on it."""
    is_person = _shrink(np.ascontiguousarray(alpha, np.float32), image_wh) > 0.02
    if not is_person.any():
        return np.full(is_person.shape, np.inf, np.float32)
    return cv2.distanceTransform((~is_person).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _near_px(image_wh: tuple[int, int]) -> float:
    return max(1.0, MATTE_NEAR * max(image_wh))


def _far_px(image_wh: tuple[int, int]) -> float:
    return max(2.0, MATTE_FAR * max(image_wh))
