"""The empty room from elsewhere than the clip: a picture of it, or a green or blue screen.

H x W pixels of the recording's pictures, h x w of a plate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from capture.errors import UserError
from capture.files import read_image
from capture.plate import NOISE_GREY, Plate, gains, reduced_to
from capture.recording import Recording
from capture.registration import depth_in_color

BORDER = 0.05  # of the shorter side: where the screen is looked for
LEAST_SATURATION = 60  # of 255, median of the border: screens are strong colours
HUE_SPREAD = 10  # OpenCV's half degrees: within so much of the median hue a pixel is of the screen
GREEN, BLUE = (35, 90), (95, 130)  # OpenCV's hues
MIN_SHARE = 0.7  # of the border that is of the screen
SCREEN_SIGMA = 4.0  # grey levels: folds and wrinkles, on top of what the fitted surface leaves


def from_picture(plate: Plate, path: Path, recording: Recording) -> Plate:
    """The plate of a clip with the colours of a picture of the empty room, taken by the same camera from the same
    place; where it was filmed together with depth, that tells the distance of what the person always hides.  Raises
    UserError for a picture of another shape, and for a camera that moves."""
    picture = read_image(path)
    width, height = recording.rig.color.image_wh
    if (picture.shape[1], picture.shape[0]) != (width, height):
        raise UserError(
            f"{path}: {picture.shape[1]}x{picture.shape[0]} pixels, the recording has {width}x{height}; take the empty "
            "room with the same camera and settings"
        )
    if not plate.is_still:
        raise UserError(f"{path}: the camera moves in this recording; use matte.method=embedded")
    color = reduced_to(picture, plate.image_wh).astype(np.float32)
    is_both = np.isfinite(plate.sigma)
    color *= 1 / gains(color, plate.color, is_both)
    usual = float(np.median(plate.sigma[is_both])) if is_both.any() else 2 * NOISE_GREY
    # Somebody may have moved a chair since: the clip's own view says how far the picture can be believed.
    apart = np.where(is_both, np.abs(color - np.nan_to_num(plate.color)).max(axis=-1), 0)
    sigma = np.where(is_both, np.maximum(plate.sigma, apart / 3), usual)
    depth_m = plate.depth_m
    filmed = recording.plate() if path == recording.plate_path else None
    if filmed is not None and filmed[1] is not None:
        empty_m = depth_in_color(recording.rig, filmed[1], recording.rig.color.resize(plate.image_wh))
        depth_m = np.where(np.isnan(depth_m), empty_m, depth_m).astype(np.float32)
    return replace(plate, color=color, sigma=sigma.astype(np.float32), depth_m=depth_m)


def screen_hue(recording: Recording, indices: Sequence[int]) -> int | None:
    """OpenCV's hue of a green or blue screen around the person, None where the border shows none."""
    pixels = np.concatenate([_border(_hsv(recording.color(i))) for i in indices])
    is_strong = pixels[:, 1] > LEAST_SATURATION
    if is_strong.mean() < MIN_SHARE:
        return None
    hue = int(np.median(pixels[is_strong, 0]))
    is_screen = is_strong & (np.abs(pixels[:, 0].astype(int) - hue) < HUE_SPREAD)
    is_known = GREEN[0] <= hue <= GREEN[1] or BLUE[0] <= hue <= BLUE[1]
    return hue if is_known and is_screen.mean() > MIN_SHARE else None


def from_screen(plate: Plate, hue: int) -> Plate:
    """The plate with what the person always hid filled by the screen: a quadratic surface per channel through the
    pixels of the screen, which follows its lighting."""
    height, width = plate.color.shape[:2]
    is_known = np.isfinite(plate.sigma)
    hsv = _hsv(np.nan_to_num(plate.color).astype(np.uint8))
    is_screen = is_known & (np.abs(hsv[..., 0].astype(int) - hue) < HUE_SPREAD) & (hsv[..., 1] > LEAST_SATURATION)
    if is_screen.sum() < 100:
        return plate
    v, u = np.mgrid[:height, :width]
    x, y = u / width - 0.5, v / height - 0.5
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    rows = np.flatnonzero(is_screen)
    rows = rows[:: max(1, len(rows) // 20000)]
    weights, *_ = np.linalg.lstsq(terms.reshape(-1, 6)[rows], plate.color.reshape(-1, 3)[rows], rcond=None)
    surface = terms @ weights  # (h, w, 3)
    left = np.median(np.abs(surface.reshape(-1, 3)[rows] - plate.color.reshape(-1, 3)[rows])) * 1.48
    color = np.where(is_known[..., None], plate.color, surface).astype(np.float32)
    sigma = np.where(is_known, plate.sigma, np.hypot(left, SCREEN_SIGMA)).astype(np.float32)
    return replace(plate, color=color, sigma=sigma)


def _hsv(color: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(color, cv2.COLOR_RGB2HSV)


def _border(image: np.ndarray) -> np.ndarray:
    """(K, C) the pixels of the upper part of an image's rim: the floor in front of a screen is often bare."""
    height, width = image.shape[:2]
    wide = max(1, round(BORDER * min(height, width)))
    half = round(0.6 * height)
    parts = (image[:wide], image[:half, :wide], image[:half, -wide:])
    return np.concatenate([part.reshape(-1, image.shape[2]) for part in parts])
