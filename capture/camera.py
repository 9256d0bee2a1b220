"""Cameras: points in metres to pixels and back.

H x W pixels, N points.  A pixel's centre is at +0.5 (see ``capture``).  The lens model is OpenCV's:
k1, k2, p1, p2, k3 on normalised coordinates (OpenCV, "Camera Calibration and 3D Reconstruction").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from capture.errors import UserError

NO_DISTORTION = (0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with OpenCV lens distortion."""

    image_wh: tuple[int, int]
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    distortion: tuple[float, ...] = NO_DISTORTION  # k1, k2, p1, p2, k3

    def __post_init__(self) -> None:
        width, height = self.image_wh
        if width < 1 or height < 1 or not (self.fx_px > 0 and self.fy_px > 0):
            raise UserError(
                f"camera {self.image_wh} with focal length ({self.fx_px}, {self.fy_px}): both must be positive"
            )
        if len(self.distortion) != 5 or max(map(abs, self.distortion)) > 1:
            # A widely copied Kinect calibration carries p2 = 365.481, a print error.
            raise UserError(f"distortion {self.distortion}: expected five of k1, k2, p1, p2, k3, each within [-1, 1]")

    def crop(self, box_px: tuple[float, float, float, float], image_wh: tuple[int, int]) -> Camera:
        """The camera of the picture ``box_px`` = (left, top, right, bottom) resampled to ``image_wh``.

        The box may reach outside the image.  Exact: cropping and scaling are linear in pixels.
        """
        left, top, right, bottom = box_px
        scale_x, scale_y = image_wh[0] / (right - left), image_wh[1] / (bottom - top)
        return Camera(
            image_wh=image_wh,
            fx_px=self.fx_px * scale_x,
            fy_px=self.fy_px * scale_y,
            cx_px=(self.cx_px - left) * scale_x,
            cy_px=(self.cy_px - top) * scale_y,
            distortion=self.distortion,
        )

    def resize(self, image_wh: tuple[int, int]) -> Camera:
        """The same view at another resolution."""
        return self.crop((0, 0, *self.image_wh), image_wh)

    def with_focal(self, focal_px: float) -> Camera:
        """The same camera with another focal length, square pixels."""
        return replace(self, fx_px=focal_px, fy_px=focal_px)

    def to_json(self) -> dict:
        return {
            "image_wh": list(self.image_wh),
            "fx_px": self.fx_px,
            "fy_px": self.fy_px,
            "cx_px": self.cx_px,
            "cy_px": self.cy_px,
            "distortion": list(self.distortion),
        }

    @staticmethod
    def from_json(fields: dict) -> Camera:
        return Camera(
            image_wh=(int(fields["image_wh"][0]), int(fields["image_wh"][1])),
            fx_px=float(fields["fx_px"]),
            fy_px=float(fields["fy_px"]),
            cx_px=float(fields["cx_px"]),
            cy_px=float(fields["cy_px"]),
            distortion=tuple(float(k) for k in fields.get("distortion", NO_DISTORTION)),
        )


@dataclass(frozen=True)
class Rig:
    """The cameras of one recording; depth may be absent."""

    color: Camera
    depth: Camera | None = None
    depth_from_color: np.ndarray | None = None  # (4, 4), metres

    def to_json(self) -> dict:
        return {
            "color": self.color.to_json(),
            "depth": None if self.depth is None else self.depth.to_json(),
            "depth_from_color": None if self.depth_from_color is None else np.asarray(self.depth_from_color).tolist(),
        }

    @staticmethod
    def from_json(fields: dict) -> Rig:
        return Rig(
            color=Camera.from_json(fields["color"]),
            depth=None if fields["depth"] is None else Camera.from_json(fields["depth"]),
            depth_from_color=None
            if fields["depth_from_color"] is None
            else np.array(fields["depth_from_color"], float),
        )


def transform(to_from: np.ndarray, points_m: np.ndarray) -> np.ndarray:
    """Apply a rigid (4, 4) transform to points (..., 3)."""
    return points_m @ to_from[:3, :3].T + to_from[:3, 3]


def invert(to_from: np.ndarray) -> np.ndarray:
    """Inverse of a rigid (4, 4) transform."""
    rotation = to_from[:3, :3].T
    inverse = np.eye(4)
    inverse[:3, :3] = rotation
    inverse[:3, 3] = -rotation @ to_from[:3, 3]
    return inverse


def distort(xy: np.ndarray, distortion: tuple[float, ...]) -> np.ndarray:
    """Normalised image coordinates (..., 2), ideal to distorted: the Brown-Conrady model in OpenCV's order."""
    if not any(distortion):
        return xy
    k1, k2, p1, p2, k3 = distortion
    x, y = xy[..., 0], xy[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return np.stack(
        [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y],
        axis=-1,
    )


def undistort(xy: np.ndarray, distortion: tuple[float, ...]) -> np.ndarray:
    """Inverse of ``distort`` by fixed-point iteration; within 1e-7 for the lenses of consumer sensors."""
    if not any(distortion):
        return xy
    ideal = xy
    for _ in range(20):
        ideal = ideal - (distort(ideal, distortion) - xy)
    return ideal


def project(camera: Camera, points_m: np.ndarray) -> np.ndarray:
    """Points (..., 3) in the camera's frame, metres, to pixels (..., 2); NaN for points at or behind the camera."""
    z = points_m[..., 2:3]
    with np.errstate(divide="ignore", invalid="ignore"):
        xy = distort(np.where(z > 1e-6, points_m[..., :2] / z, np.nan), camera.distortion)
    return xy * (camera.fx_px, camera.fy_px) + (camera.cx_px, camera.cy_px)


def pixel_rays(camera: Camera) -> np.ndarray:
    """(H, W, 3) points at depth 1 through every pixel centre, lens distortion removed."""
    width, height = camera.image_wh
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    xy = np.stack([(u - camera.cx_px) / camera.fx_px, (v - camera.cy_px) / camera.fy_px], axis=-1)
    return np.concatenate([undistort(xy, camera.distortion), np.ones((height, width, 1))], axis=-1)


@lru_cache(maxsize=4)
def kept_rays(camera: Camera) -> np.ndarray:
    """``pixel_rays``, read-only and kept: removing lens distortion takes longer than everything else."""
    rays = pixel_rays(camera)
    rays.flags.writeable = False
    return rays


def unproject(camera: Camera, depth_mm: np.ndarray) -> np.ndarray:
    """A depth image (H, W) uint16 in millimetres to points (H, W, 3) in metres; NaN where there was no return."""
    return kept_rays(camera) * meters(depth_mm)[..., None]


def meters(depth_mm: np.ndarray) -> np.ndarray:
    """Raw depth, uint16 millimetres, to metres; NaN where there was no return."""
    return np.where(depth_mm == 0, np.nan, depth_mm * 1e-3)
