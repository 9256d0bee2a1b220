"""The simulated Kinect V2: what its two cameras make of light and distance.

H x W colour pixels, h x w depth pixels, s sub-samples along each axis of a depth pixel.  Calibration: published values
(libfreenect2 issue 41 and its registration polynomial fitted by ordinary cameras), pixel centres at +0.5.

Depth is time of flight.  A pixel sees the mean of what lies under it, weighted by returned infrared light: at an edge
that is a flying pixel between the two surfaces.  The driver then rejects pixels whose neighbourhood steps too far, or
that got too little light: holes.  The lamp stands EMITTER_M to the right of the lens, so near things cast a thin
shadow without returns to their left.  Measured by ``demo/depth_statistics.py`` on ten real frames of a Kinect V2 in
another room, and on ten frames of the demo (``benchmarks/depth_sensor.py``):

                                                   real   simulated
    noise, mm, 5 x 5 plane residual, 1.6 to 2.0 m   2.3         2.2
                                     2.0 to 2.5 m   2.7         2.5
                                     2.5 to 3.0 m   2.5         3.0
                                     3.0 to 3.5 m   3.2         3.3
    correlation of neighbours' residuals           0.33        0.30
    hole at a left edge, px, median / 90th pct.     2/10         2/4
    hole at a right edge                             2/4         2/4
    edges without a hole, left / right        .058/.044   .028/.121
    flying pixels per edge crossing                0.33        0.31
    lone holes in smooth surfaces                 .0002       .0004

The real room holds nearer things (their shadows are wider: 10 px) and more clutter than ours.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

from capture.camera import Camera, Rig

COLOR = Camera((1920, 1080), 1067.4, 1067.2, 960.0, 540.0, (0.0124, -0.0054, 0.0, 0.0, 0.0))
DEPTH = Camera((512, 424), 365.4028, 365.4028, 261.4255, 206.0946, (0.095575, -0.277055, 0.0, 0.0, 0.097539))
BASELINE_M = 0.052  # the colour camera sees the scene shifted to the right

DEPTH_SAMPLES = 3
EMITTER_M = 0.034
NOISE_M, NOISE_PER_M = 0.0019, 0.00032  # at a well-lit surface: constant, and per metre of distance
WELL_LIT = 0.06  # infrared albedo x cosine / distance^2 of such a surface
MIN_SIGNAL = 0.0065
EDGE_STEP = 0.03  # relative depth step that the driver takes for an edge
MIXED_PASS, NEXT_PASS = 0.24, 0.45  # share that it lets through: pixels that see both sides, and their neighbours
VIGNETTING = 3.2  # the lamp's light falls off towards the corners as cos^n


def rig() -> Rig:
    """Both cameras; a real unit's are not quite parallel."""
    depth_from_color = np.eye(4)
    for axis, angle in ((0, 0.0020), (1, -0.0032), (2, 0.0011)):
        turn = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        depth_from_color[:3, :3] = depth_from_color[:3, :3] @ turn
    depth_from_color[:3, 3] = (-BASELINE_M, 0.0004, -0.0011)
    return Rig(COLOR, DEPTH, depth_from_color)


# Colour -------------------------------------------------------------------------------------------------------------

EXPOSURE = 0.80
WHITE_BALANCE = np.array([1.02, 1.0, 0.97], np.float32)
NOISE_POOL = 1 << 22
READ_NOISE, SHOT_NOISE = 1.1, 1.0  # grey levels: in the dark, and more in the middle tones


def noise_pool(seed: int) -> np.ndarray:
    """(P,) int8 Gaussian noise of standard deviation 32 that all frames draw from at random offsets."""
    rng = np.random.default_rng([seed, 3])
    return (rng.standard_normal(NOISE_POOL, np.float32) * 32).clip(-127, 127).astype(np.int8)


def develop(light: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Linear light (H, W, 3) float32 to a picture (H, W, 3) uint8 sRGB: exposure, a soft shoulder, gamma, noise."""
    offsets = rng.integers(0, len(pool) - light.shape[1] * 3, light.shape[0])
    return _develop(light, EXPOSURE * WHITE_BALANCE, _tone_curve(), pool, offsets)


TONE_STEPS = 4096
TONE_MAX = 2.0


def _tone_curve() -> np.ndarray:
    x = np.arange(TONE_STEPS + 1) / TONE_STEPS * TONE_MAX
    shoulder = np.where(x < 0.7, x, 0.7 + 0.3 * (1 - np.exp(-(x - 0.7) / 0.3)))
    return (255 * shoulder ** (1 / 2.2)).astype(np.float32)


@njit(cache=True)
def _develop(light, gain, curve, pool, offsets):
    height, width = light.shape[:2]
    out = np.empty((height, width, 3), np.uint8)
    scale = TONE_STEPS / TONE_MAX
    for i in range(height):
        offset = offsets[i]
        for j in range(width):
            for k in range(3):
                x = min(max(light[i, j, k] * gain[k], 0.0), TONE_MAX - 1e-3) * scale
                step = int(x)
                value = curve[step] + (curve[step + 1] - curve[step]) * (x - step)
                mid = value * (255.0 - value) * (4.0 / 65025.0)
                value += pool[offset] * (READ_NOISE + SHOT_NOISE * mid) * 0.03125
                offset += 1
                out[i, j, k] = int(min(max(value + 0.5, 0.0), 255.0))
    return out


# Depth --------------------------------------------------------------------------------------------------------------


def vignette(camera: Camera, samples: int) -> np.ndarray:
    """(h*s, w*s) float32 share of the lamp's light."""
    width, height = camera.image_wh
    v, u = np.mgrid[0 : height * samples, 0 : width * samples]
    x = ((u + 0.5) / samples - camera.cx_px) / camera.fx_px
    y = ((v + 0.5) / samples - camera.cy_px) / camera.fy_px
    return ((1 + x * x + y * y) ** (-VIGNETTING / 2)).astype(np.float32)


def sense_depth(z_m: np.ndarray, reflect: np.ndarray, lamp: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(h*s, w*s) true depth and infrared reflectance x cosine to what the sensor reports: (h, w) uint16 mm."""
    samples = DEPTH_SAMPLES
    signal = reflect * lamp / (z_m * z_m)
    signal = np.where(_in_shadow(z_m, DEPTH.fx_px * samples * EMITTER_M), 0, signal).astype(np.float32)
    mean, total, near, far = _pool(z_m.astype(np.float32), signal, samples)
    kernel = np.ones((3, 3), np.uint8)
    chance = rng.random(mean.shape, np.float32)
    is_mixed = (far - near > EDGE_STEP * mean) & (chance > MIXED_PASS)
    is_next = (cv2.dilate(mean, kernel) - cv2.erode(mean, kernel) > EDGE_STEP * mean) & (chance > NEXT_PASS)
    sigma_m = (NOISE_M + NOISE_PER_M * mean) * np.sqrt(np.sqrt((WELL_LIT / np.maximum(total, 1e-4)).clip(0.5, 6)))
    white = rng.standard_normal(mean.shape, np.float32)
    # The driver's bilateral filter leaves noise that neighbours share; 2.45 restores the variance the blur takes.
    shared = cv2.GaussianBlur(white, (0, 0), 0.7) * 2.45
    depth_mm = (mean + sigma_m * shared) * 1000
    is_lit = total > MIN_SIGNAL * (1 + 0.15 * rng.standard_normal(mean.shape, np.float32))
    return np.where(is_lit & ~is_mixed & ~is_next, depth_mm, 0).clip(0, 8000).round().astype(np.uint16)


@njit(cache=True)
def _in_shadow(z, shift):
    """Sub-samples that the emitter, to the right of the lens, cannot see: something nearer stands in between."""
    out = np.zeros(z.shape, np.bool_)
    for i in range(z.shape[0]):
        nearest = 1e9
        for j in range(z.shape[1] - 1, -1, -1):
            place = j - shift / z[i, j]
            if place > nearest + 0.7:
                out[i, j] = True
            else:
                nearest = place
    return out


@njit(cache=True)
def _pool(z, signal, samples):
    """Per pixel: mean depth by signal and mean signal, over the pixel and one sub-sample around it (the lens blurs);
    nearest and farthest depth inside the pixel."""
    height, width = z.shape[0] // samples, z.shape[1] // samples
    mean, total = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    near, far = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    for i in range(height):
        for j in range(width):
            sum_w, sum_wz, low, high, count = 0.0, 0.0, 1e9, 0.0, 0
            for a in range(max(i * samples - 1, 0), min((i + 1) * samples + 1, z.shape[0])):
                for b in range(max(j * samples - 1, 0), min((j + 1) * samples + 1, z.shape[1])):
                    value, weight = z[a, b], signal[a, b]
                    sum_w += weight
                    sum_wz += weight * value
                    count += 1
                    low, high = min(low, value), max(high, value)
            mean[i, j] = sum_wz / sum_w if sum_w > 0 else high
            total[i, j] = sum_w / count
            near[i, j], far[i, j] = low, high
    return mean, total, near, far
