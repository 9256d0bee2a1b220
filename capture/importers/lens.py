"""Foreign lens models become ours: five coefficients of Brown and Conrady.

Factory calibrations of depth cameras use a ratio of two polynomials (Azure Kinect, ROS) or a polynomial from the
picture to the ray (RealSense).  Ours is fitted to rays through a grid of pixels, and what the fit leaves is said in
pixels.  N pixels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from capture.camera import Camera, distort
from capture.errors import UserError

log = logging.getLogger(__name__)

GRID = 25  # pixels per side: more change the fit by less than a hundredth of a pixel
ENOUGH_PX = 2.0  # beyond, a straightened picture is better; factory lenses of 75 degrees leave 1 px in the corners
WIDEST_RAY = 1.2  # of a straightened picture at depth 1, from its centre: a field of 100 degrees


def fitted(
    image_wh: tuple[int, int], pinhole_px: tuple[float, float, float, float], ideal: Callable[[np.ndarray], np.ndarray]
) -> tuple[Camera, float]:
    """(camera in our pixels, largest distance in pixels) closest to another lens.

    ``pinhole_px`` are fx, fy, cx, cy in our pixels; ``ideal`` takes distorted normalised coordinates (N, 2) to those
    without distortion.
    """
    width, height = image_wh
    u, v = np.meshgrid(np.linspace(0.5, width - 0.5, GRID), np.linspace(0.5, height - 0.5, GRID))
    pixels = np.stack([u.ravel(), v.ravel()], axis=-1)  # (N, 2)
    fx, fy, cx, cy = pinhole_px
    return camera_through(image_wh, pinhole_px, pixels, ideal((pixels - (cx, cy)) / (fx, fy)))


def camera_through(
    image_wh: tuple[int, int], pinhole_px: tuple[float, float, float, float], pixels: np.ndarray, rays: np.ndarray
) -> tuple[Camera, float]:
    """(camera in our pixels, largest distance in pixels) that sees rays (N, 2), at depth 1, closest to pixels (N, 2).

    The search starts at ``pinhole_px``: fx, fy, cx, cy.  Raises ValueError where most of the rays are none.
    """
    from scipy.optimize import least_squares

    width, height = image_wh
    fx, fy, cx, cy = pinhole_px
    is_real = np.isfinite(rays).all(axis=1) & (np.abs(rays).max(axis=1) < 5)
    if is_real.sum() < len(pixels) / 2 or not is_real.any():
        raise ValueError("its lens bends most of the picture away")

    def missed_px(parameters: np.ndarray) -> np.ndarray:
        projected = distort(rays[is_real], tuple(parameters[4:])) * parameters[:2] + parameters[2:4]
        return (projected - pixels[is_real]).ravel()

    start = np.array([fx, fy, cx, cy, 0, 0, 0, 0, 0], float)
    bounds = [(0.5 * fx, 2 * fx), (0.5 * fy, 2 * fy), (cx - width, cx + width), (cy - height, cy + height)]
    low, high = zip(*bounds, *[(-1.0, 1.0)] * 5, strict=True)
    found = least_squares(missed_px, start, bounds=(low, high), x_scale=np.maximum(np.abs(start), 0.1), max_nfev=200)
    error_px = float(np.linalg.norm(found.fun.reshape(-1, 2), axis=1).max())
    numbers = [float(number) for number in found.x]
    fx, fy, cx, cy, *distortion = numbers
    return Camera(image_wh, fx, fy, cx, cy, tuple(distortion)), error_px


def rational(coefficients: Sequence[float]) -> Callable[[np.ndarray], np.ndarray]:
    """``ideal`` of OpenCV's k1, k2, p1, p2, k3, k4, k5, k6, undone by iteration."""
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-9)
    values = np.array(coefficients, float)

    def ideal(xy: np.ndarray) -> np.ndarray:
        return cv2.undistortPoints(xy[:, None], np.eye(3), values, criteria=criteria)[:, 0]

    return ideal


def inverse_brown(coefficients: Sequence[float]) -> Callable[[np.ndarray], np.ndarray]:
    """``ideal`` of RealSense's "inverse Brown-Conrady": k1, k2, p1, p2, k3 lead from the picture to the ray."""
    return lambda xy: distort(xy, tuple(coefficients))


def camera(
    image_wh: tuple[int, int],
    pinhole_px: tuple[float, float, float, float],
    coefficients: Sequence[float],
    is_inverse: bool = False,
) -> tuple[Camera, float]:
    """(camera in our pixels, largest error in pixels, 0 = exact) of k1, k2, p1, p2, k3 [, k4, k5, k6].

    Raises UserError for numbers that are no lens.
    """
    values = [*map(float, coefficients)]
    values += [0.0] * (5 - len(values))
    if not all(map(math.isfinite, [*pinhole_px, *values])):
        raise UserError(f"camera {pinhole_px} with distortion {values}: its numbers must be finite")
    checked = Camera(image_wh, *pinhole_px)  # refuses what is not positive
    if not any(values):
        return checked, 0.0
    if len(values) == 5 and not is_inverse:
        return Camera(image_wh, *pinhole_px, tuple(values)), 0.0
    try:
        return fitted(image_wh, pinhole_px, inverse_brown(values) if is_inverse else rational(values))
    except (ValueError, cv2.error) as error:
        raise UserError(f"distortion {values}: is not that of a lens ({error})") from None


def words(error_px: float) -> str:
    """What to tell the user about a fit; nothing where it is exact."""
    return f"lens model brought to five coefficients, within {error_px:.2f} pixels" if error_px else ""


def straightened(
    image_wh: tuple[int, int],
    pinhole_px: tuple[float, float, float, float],
    coefficients: Sequence[float],
) -> tuple[Camera, np.ndarray]:
    """(pinhole camera, (h, w) int32 flat index of the source pixel or -1) for a lens too wide for five coefficients.

    Each pixel of the new picture takes the nearest source pixel: depth must never be averaged.
    """
    width, height = image_wh
    widest = [min(WIDEST_RAY, size / 2 / focal) for size, focal in zip(image_wh, pinhole_px[:2], strict=True)]
    focal_x, focal_y = width / 2 / widest[0], height / 2 / widest[1]
    pinhole = Camera(image_wh, focal_x, focal_y, width / 2, height / 2)
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(u - width / 2) / focal_x, (v - height / 2) / focal_y, np.ones_like(u)], axis=-1).reshape(-1, 3)
    fx, fy, cx, cy = pinhole_px
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], float)
    source_px = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, np.array(coefficients, float))[0][:, 0]
    x, y = np.floor(source_px).T
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = np.where(is_inside, np.clip(y, 0, height - 1) * width + np.clip(x, 0, width - 1), -1)
    return pinhole, index.astype(np.int32).reshape(height, width)


def take(image: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The (h, w) picture whose pixels are ``index`` (h, w) of ``image``, 0 where that is -1."""
    return np.where(index >= 0, image.ravel()[index.clip(0)], 0).astype(image.dtype)
