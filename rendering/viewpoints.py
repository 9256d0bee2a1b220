"""Where the camera stands: around a person, where it was filmed from, or along a path from a file.

Frames: world (z up, floor at 0) and camera (OpenCV).  Distances in metres, angles in radians.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from capture.camera import Camera, invert
from capture.errors import UserError

VERTICAL_FOV = np.radians(28)  # a portrait lens from about four metres
ORBIT_ELEVATION = np.radians(7)  # slightly from above: the feet stand on a visible floor
FILL = 0.74  # of the picture's height is the person
EXPECTED = '{"camera": {"image_wh", "fx_px", ...}, "camera_from_world": [4x4, ...]}'


@dataclass(frozen=True)
class View:
    """A camera and where it stands."""

    camera: Camera
    camera_from_world: np.ndarray  # (4, 4)
    # (3, 3) how the camera that the people's light was learned by stands in this world; none: it goes with this one
    lit_from_world: np.ndarray | None = None

    @property
    def lit_from_camera(self) -> np.ndarray | None:
        """(3, 3) from this camera's axes to those."""
        return None if self.lit_from_world is None else self.lit_from_world @ self.camera_from_world[:3, :3].T


def look_at(position_m: np.ndarray, target_m: np.ndarray) -> np.ndarray:
    """camera_from_world (4, 4) of an upright camera at ``position_m`` that looks at ``target_m``."""
    forward = (target_m - position_m) / np.linalg.norm(target_m - position_m)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    world_from_camera[:3, 3] = position_m
    return invert(world_from_camera)


def orbit(
    targets_m: np.ndarray,
    azimuths: np.ndarray,
    height_m: float,
    facing: np.ndarray,
    image_wh: tuple[int, int],
    elevation: float = ORBIT_ELEVATION,
) -> list[View]:
    """Views around a person of ``height_m``: one per row of ``targets_m`` (N, 3) and ``azimuths`` (N,).

    Azimuth 0 looks the person in the face: ``facing`` (3,) is the horizontal direction of his gaze in the world.  From
    there he is lit as he was filmed; the light stays where it is.
    """
    width, height = image_wh
    focal_px = height / 2 / np.tan(VERTICAL_FOV / 2)
    camera = Camera(image_wh, focal_px, focal_px, width / 2, height / 2)
    widest_m = max(height_m, 0.8 * height_m * height / width)  # raised arms must fit as well
    distance_m = widest_m / FILL / 2 / np.tan(VERTICAL_FOV / 2)
    start = np.arctan2(facing[1], facing[0])
    views = []
    for target_m, azimuth in zip(targets_m, azimuths, strict=True):
        away = _away(start + azimuth, elevation)
        views.append(View(camera, look_at(target_m + distance_m * away, target_m)))
    return lit_as_from(views, in_front(facing))


def in_front(facing: np.ndarray) -> np.ndarray:
    """(3, 3) how an orbit's camera stands in the world that looks in the face of who looks along ``facing`` (3,)."""
    return look_at(_away(np.arctan2(facing[1], facing[0]), ORBIT_ELEVATION), np.zeros(3))[:3, :3]


def _away(angle: float, elevation: float) -> np.ndarray:
    """(3,) unit vector to a camera at an angle around the vertical, from x towards y, and above the horizon."""
    return np.array([*(np.cos(elevation) * np.array([np.cos(angle), np.sin(angle)])), np.sin(elevation)])


def load_views(path: Path) -> list[View]:
    """Read ``{"camera": Camera as in docs/formats.md, "camera_from_world": [4x4, ...]}``; one matrix stands still.

    Raises UserError when the file is not that.
    """
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a camera file ({type(error).__name__}: {error}); expected {EXPECTED}") from None
    return views_of(fields, path)


def views_of(fields: Any, path: Path) -> list[View]:
    """``load_views`` of a file that was read already; errors name ``path``."""
    try:
        camera = Camera.from_json(fields["camera"])
        matrices = np.array(fields["camera_from_world"], float).reshape(-1, 4, 4)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: not a camera file ({type(error).__name__}: {error}); expected {EXPECTED}") from None
    rotations = matrices[:, :3, :3]
    unit = np.abs(rotations @ np.swapaxes(rotations, 1, 2) - np.eye(3)).max() if len(matrices) else np.inf
    if not (np.isfinite(matrices).all() and unit < 1e-3):
        raise UserError(f"{path}: camera_from_world must be rigid 4x4 matrices, rotation and translation only")
    return [View(camera, matrix) for matrix in matrices]


def lit_as_from(views: Sequence[View], lit_from_world: np.ndarray) -> list[View]:
    """The views, their light standing still in the world as if it had been learned from a camera there, (3, 3)."""
    return [replace(view, lit_from_world=lit_from_world) for view in views]


def repeat_last(views: Sequence[View], count: int) -> list[View]:
    """Exactly ``count`` views: a longer path is cut, a shorter one stays at its end."""
    return [views[min(i, len(views) - 1)] for i in range(count)]
