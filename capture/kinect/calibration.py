"""What the factory measured of a Kinect V2, as two ordinary cameras and where they stand.

K distances, h x w depth pixels, g x G of them on a grid.  The device says exactly what ray belongs to a depth pixel,
but of colour only where a depth pixel is seen in it: as a polynomial (libfreenect2) or through a function of the driver
(Windows).  A pinhole with radial distortion and a rigid movement are fitted to that.  For the published factory set
they leave 0.3 px in the median and 1.8 px in the worst corner, between 0.5 and 4.5 m.

All pictures in here are mirrored, as the device delivers them; ``Calibration.rig`` is of the upright ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from capture.camera import Camera, Rig, distort, invert, undistort
from capture.errors import UserError

COLOR_WH, DEPTH_WH = (1920, 1080), (512, 424)
DISTANCES_MM = (500, 800, 1300, 2500, 4500)  # evenly spread in what shifts colour against depth: 1 / distance
STEP_PX = 4  # of the grid of depth pixels at which the factory is asked, the rim among them
FIT_EVERY = 3  # of its rows and columns; all pixels change the fit by 0.01 px
GOOD_PX, BAD_PX = 0.5, 2.0  # median and largest distance of a usable fit
TYPICAL_FOCAL_PX, BASELINE_M = 1070.0, 0.052  # where the fit starts
# libfreenect2's registration.cpp: "these seem to be hardcoded in the original SDK"
DEPTH_UNIT, COLOR_UNIT = 0.01, 0.002199
TERMS = ("x3y0", "x0y3", "x2y1", "x1y2", "x2y0", "x0y2", "x1y1", "x1y0", "x0y1", "x0y0")


@dataclass(frozen=True)
class Calibration:
    """Both cameras, and how well they say what the factory said."""

    rig: Rig  # of upright pictures
    median_px: float  # between the factory's colour pixel and the rig's, over all depth pixels and DISTANCES_MM
    largest_px: float
    factory: Mapping[str, np.ndarray]  # the device's own numbers, as they were read

    @property
    def words(self) -> str:
        """One line for people."""
        words = f"depth to colour within {self.median_px:.2f} px of the factory's calibration, {self.largest_px:.1f} px"
        return f"{words} at most"

    @property
    def is_good(self) -> bool:
        """Whether depth lands where it belongs."""
        return self.median_px <= GOOD_PX and self.largest_px <= BAD_PX


@dataclass(frozen=True)
class IrParams:
    """libfreenect2's ``IrCameraParams``; pixel centres are at whole numbers there."""

    fx: float
    fy: float
    cx: float
    cy: float
    k1: float
    k2: float
    k3: float
    p1: float
    p2: float

    def camera(self) -> Camera:
        """The same lens, in our pixels.  Raises UserError for numbers that are no lens."""
        lens = (self.k1, self.k2, self.p1, self.p2, self.k3)
        return Camera(DEPTH_WH, self.fx, self.fy, self.cx + 0.5, self.cy + 0.5, lens)


@dataclass(frozen=True)
class ColorParams:
    """libfreenect2's ``ColorCameraParams``."""

    fx: float
    fy: float
    cx: float
    cy: float
    shift_d: float
    shift_m: float
    mx: tuple[float, ...]  # by TERMS
    my: tuple[float, ...]

    def seen_at(self, undistorted_px: np.ndarray, depth_mm: float) -> np.ndarray:
        """Where depth pixels (..., 2), distortion removed and counted from the principal point, are seen in colour at
        a distance: (..., 2) in our pixels.  libfreenect2's ``depth_to_color`` and ``apply``."""
        x, y = undistorted_px[..., 0] * DEPTH_UNIT, undistorted_px[..., 1] * DEPTH_UNIT
        powers = [x ** int(term[1]) * y ** int(term[3]) for term in TERMS]
        wx, wy = (sum(c * power for c, power in zip(mine, powers, strict=True)) for mine in (self.mx, self.my))
        rx = wx / (self.fx * COLOR_UNIT) - self.shift_m / self.shift_d + self.shift_m / depth_mm
        return np.stack([rx * self.fx + self.cx, wy / COLOR_UNIT + self.cy], axis=-1) + 0.5


def from_libfreenect2(ir: Any, color: Any) -> Calibration | None:
    """The cameras of libfreenect2's parameters (objects with its names); None where they are still empty.

    Raises UserError for numbers that are no cameras.
    """
    ir_params = IrParams(*(float(getattr(ir, name)) for name in IrParams.__annotations__))
    plain = ("fx", "fy", "cx", "cy", "shift_d", "shift_m")
    mx, my = (tuple(float(getattr(color, f"{axis}_{term}")) for term in TERMS) for axis in ("mx", "my"))
    color_params = ColorParams(**{name: float(getattr(color, name)) for name in plain}, mx=mx, my=my)
    if ir_params.fx == 0 or color_params.fx == 0:
        return None
    depth = ir_params.camera()
    undistorted_px = _rays(depth) * (ir_params.fx, ir_params.fy)
    color_px = np.stack([color_params.seen_at(undistorted_px, distance) for distance in DISTANCES_MM])
    factory = {
        "ir_params": np.array([getattr(ir_params, name) for name in IrParams.__annotations__]),
        "color_params": np.array(
            [*(getattr(color_params, name) for name in plain), *color_params.mx, *color_params.my]
        ),
    }
    return calibrated(depth, color_px, factory)


def from_rays(
    rays: np.ndarray, intrinsics: tuple[float, ...], color_px: np.ndarray, factory: Mapping[str, np.ndarray]
) -> Calibration:
    """The cameras of the Windows driver's tables.

    ``rays`` (h, w, 2) at depth 1, axes along the picture's; ``intrinsics`` fx, fy, cx, cy, k1, k2, k3, where the fit of
    the depth camera starts; ``color_px`` (K, g, G, 2) at DISTANCES_MM in our pixels, not finite where not seen, see
    ``on_grid``.  Raises UserError for tables that no camera explains.
    """
    from capture.importers.lens import camera_through

    fx, fy, cx, cy, *_ = intrinsics
    pixels = _pixels()[::FIT_EVERY, ::FIT_EVERY].reshape(-1, 2)
    thin = on_grid(rays)[::FIT_EVERY, ::FIT_EVERY].reshape(-1, 2)
    try:
        depth, error_px = camera_through(DEPTH_WH, (fx, fy, cx + 0.5, cy + 0.5), pixels, thin)
    except ValueError as error:
        raise UserError(f"the Kinect's table of depth rays is not that of a lens ({error}); plug it in again") from None
    if error_px > BAD_PX:
        raise UserError(f"the Kinect's table of depth rays is {error_px:.1f} px off any lens; plug it in again")
    return calibrated(depth, color_px, factory)


def calibrated(depth: Camera, color_px: np.ndarray, factory: Mapping[str, np.ndarray]) -> Calibration:
    """Fit the colour camera to where the factory sees the depth pixels: ``color_px`` (K, g, G, 2) at DISTANCES_MM.

    Raises UserError where hardly a pixel is seen.
    """
    from scipy.optimize import least_squares

    from capture.importers.upright import upright_rig

    rays = np.concatenate([_rays(depth), np.ones((*color_px.shape[1:3], 1))], axis=-1)  # (g, G, 3)
    points_m = rays * (np.array(DISTANCES_MM) / 1000)[:, None, None, None]  # (K, g, G, 3)
    is_seen = np.isfinite(color_px).all(axis=-1)
    is_used = np.zeros_like(is_seen)
    is_used[:, ::FIT_EVERY, ::FIT_EVERY] = is_seen[:, ::FIT_EVERY, ::FIT_EVERY]
    if is_used.sum() < 100:
        raise UserError("the Kinect's driver does not say where depth is seen in colour; plug it in again")

    def missed_px(numbers: np.ndarray) -> np.ndarray:
        return (_projected(numbers, points_m[is_used]) - color_px[is_used]).ravel()

    pinhole = [TYPICAL_FOCAL_PX, TYPICAL_FOCAL_PX, COLOR_WH[0] / 2, COLOR_WH[1] / 2]
    start = np.array([*pinhole, 0, 0, 0, BASELINE_M, 0, 0, 0, 0, 0], float)
    scale = np.array([1000] * 4 + [0.01] * 3 + [0.05] * 3 + [0.1] * 3, float)
    numbers = least_squares(missed_px, start, x_scale=scale).x
    apart_px = np.linalg.norm(_projected(numbers, points_m[is_seen]) - color_px[is_seen], axis=-1)
    fx, fy, cx, cy = map(float, numbers[:4])
    k1, k2, k3 = map(float, numbers[10:])
    color = Camera(COLOR_WH, fx, fy, cx, cy, (k1, k2, 0.0, 0.0, k3))
    rig = Rig(color, depth, invert(_color_from_depth(numbers)))
    return Calibration(upright_rig(rig, 0, True), float(np.median(apart_px)), float(apart_px.max()), factory)


def _color_from_depth(numbers: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_rotvec(numbers[4:7]).as_matrix(), numbers[7:10]
    return matrix


def _projected(numbers: np.ndarray, points_m: np.ndarray) -> np.ndarray:
    """Points (N, 3) of the depth camera's frame in colour pixels (N, 2), while the lens is still being looked for."""
    matrix = _color_from_depth(numbers)
    points_color_m = points_m @ matrix[:3, :3].T + matrix[:3, 3]
    k1, k2, k3 = numbers[10:]
    xy = distort(points_color_m[:, :2] / points_color_m[:, 2:], (k1, k2, 0.0, 0.0, k3))
    return xy * numbers[:2] + numbers[2:4]


def on_grid(image: np.ndarray) -> np.ndarray:
    """(h, w, ...) to (g, G, ...): every STEP_PX-th pixel and the rim."""
    rows, columns = (np.r_[0:size:STEP_PX, size - 1] for size in reversed(DEPTH_WH))
    return image[rows[:, None], columns]


def _pixels() -> np.ndarray:
    """(g, G, 2) centres of the grid's depth pixels."""
    u, v = np.meshgrid(np.arange(DEPTH_WH[0]) + 0.5, np.arange(DEPTH_WH[1]) + 0.5)
    return on_grid(np.stack([u, v], axis=-1))


def _rays(depth: Camera) -> np.ndarray:
    """(g, G, 2) at depth 1 through the grid's pixels."""
    return undistort((_pixels() - (depth.cx_px, depth.cy_px)) / (depth.fx_px, depth.fy_px), depth.distortion)
