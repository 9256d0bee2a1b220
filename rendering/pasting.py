"""From the crop that the networks painted to the picture it belongs to.

h x w pixels of the crop, H x W of the picture, n x m of the part of the picture that a crop can reach.  RGBA is float32
in [0, 1]; "premultiplied" colours are those times alpha, everything else holds them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

Box = tuple[float, float, float, float]  # left, top, right, bottom, pixels
# By how much the contrast of a mask grows for each time that it is enlarged, and how often at most: an outline as soft
# as the crop's pixels are large would be a veil in a picture of three times as many.
CRISPER, MOST_TIMES = 0.25, 2.0


@dataclass(frozen=True)
class Layer:
    """What one avatar covers of a picture; outside of it there is nothing."""

    rgba: np.ndarray  # (n, m, 4) float32
    left: int
    top: int
    depth_m: np.ndarray | None = None  # (n, m) float32, inf where nobody is; None when nobody asked

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture."""
        rows, columns = self.rgba.shape[:2]
        return slice(self.top, self.top + rows), slice(self.left, self.left + columns)

    def picture(self, image_wh: tuple[int, int]) -> np.ndarray:
        """(H, W, 4) float32 RGBA of the whole picture."""
        whole = np.zeros((image_wh[1], image_wh[0], 4), np.float32)
        whole[self.window] = self.rgba
        return whole

    def over(self, background: np.ndarray) -> np.ndarray:
        """(H, W, 3) float32: this before a background (H, W, 3) in [0, 1]."""
        mixed = np.array(background, np.float32)
        alpha = self.rgba[..., 3:]
        mixed[self.window] += (self.rgba[..., :3] - mixed[self.window]) * alpha
        return mixed


def merged(layers: Sequence[Layer], image_wh: tuple[int, int]) -> np.ndarray:
    """(H, W, 4) float32 RGBA of several layers with depths, at every pixel the nearest before the others.

    Porter and Duff's "over" (1984), pixel by pixel from the front: what a soft edge lets through is behind it.
    """
    colour = np.zeros((image_wh[1], image_wh[0], 3), np.float32)  # premultiplied
    left = np.ones((image_wh[1], image_wh[0], 1), np.float32)  # of what is behind, still seen
    present = [layer for layer in layers if layer.rgba.size]
    if present:
        depths = np.full((len(present), image_wh[1], image_wh[0]), np.inf, np.float32)
        planes = np.stack([layer.picture(image_wh) for layer in present])  # (N, H, W, 4)
        for depth, layer in zip(depths, present, strict=True):
            assert layer.depth_m is not None, "a layer without depth is neither before nor behind"
            depth[layer.window] = layer.depth_m
        order = np.argsort(depths, axis=0, kind="stable")
        for rank in range(len(present)):
            nearest = np.take_along_axis(planes, order[rank][None, ..., None], axis=0)[0]
            colour += left * nearest[..., :3] * nearest[..., 3:]
            left *= 1 - nearest[..., 3:]
    alpha = 1 - left
    straight = np.divide(colour, alpha, out=np.zeros_like(colour), where=alpha > 1e-4)
    return np.concatenate([straight.clip(0, 1), alpha], axis=2)


NOTHING = Layer(np.zeros((0, 0, 4), np.float32), 0, 0, np.zeros((0, 0), np.float32))


def paste(
    rgba: np.ndarray,
    box_px: Box,
    image_wh: tuple[int, int],
    inverse_z: np.ndarray | None = None,
    is_smooth: bool = False,
) -> Layer:
    """A crop (h, w, 4) RGBA back to where it was cut, in the picture's pixels.

    Resampled with premultiplied alpha, so that the colour of empty pixels does not bleed in.  ``inverse_z`` (h, w),
    1 / metres and 0 where the body is not, becomes the layer's depth.  ``is_smooth`` is for crops that are much
    enlarged: bicubic, as bilinear interpolation would show its lattice.
    """
    left, top, right, bottom = box_px
    # Two crop pixels around the box interpolation still finds something.
    reach_x, reach_y = 2 * (right - left) / rgba.shape[1], 2 * (bottom - top) / rgba.shape[0]
    x0, y0 = max(0, int(np.floor(left - reach_x))), max(0, int(np.floor(top - reach_y)))
    x1 = min(image_wh[0], int(np.ceil(right + reach_x)))
    y1 = min(image_wh[1], int(np.ceil(bottom + reach_y)))
    if x1 <= x0 or y1 <= y0:
        return NOTHING
    premultiplied = _premultiplied(np.ascontiguousarray(rgba, np.float32))
    premultiplied, inverse_z = _shrunk(premultiplied, inverse_z, box_px)
    height, width = premultiplied.shape[:2]
    scale_x, scale_y = (right - left) / width, (bottom - top) / height
    to_window = np.array(
        [[scale_x, 0, left + scale_x / 2 - 0.5 - x0], [0, scale_y, top + scale_y / 2 - 0.5 - y0]], np.float64
    )
    wh = (x1 - x0, y1 - y0)
    way = cv2.INTER_CUBIC if is_smooth else cv2.INTER_LINEAR
    pasted = np.asarray(cv2.warpAffine(premultiplied, to_window, wh, flags=way), np.float32)
    _unpremultiply(pasted, crispness(box_px, rgba.shape[0]))
    if inverse_z is None:
        return Layer(pasted, x0, y0)
    near = cv2.warpAffine(inverse_z, to_window, wh, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    with np.errstate(divide="ignore"):
        return Layer(pasted, x0, y0, (1 / near).astype(np.float32))


def times(box_px: Box, height: int) -> float:
    """By how much a crop of ``height`` rows is enlarged in ``box_px``."""
    return (box_px[3] - box_px[1]) / height


def crispness(box_px: Box, height: int) -> float:
    """The contrast, about one half, of a mask of ``height`` rows that is put into ``box_px``; 1 leaves it."""
    return 1 + CRISPER * float(np.clip(times(box_px, height) - 1, 0, MOST_TIMES))


def _shrunk(rgba: np.ndarray, inverse_z: np.ndarray | None, box_px: Box) -> tuple[np.ndarray, np.ndarray | None]:
    """Means over the footprint of a picture's pixels, so that a small figure does not alias."""
    height, width = rgba.shape[:2]
    shrink = int(height // max(box_px[3] - box_px[1], 1))
    if shrink <= 1:
        return rgba, inverse_z
    wh = (max(width // shrink, 1), max(height // shrink, 1))
    rgba = np.asarray(cv2.resize(rgba, wh, interpolation=cv2.INTER_AREA), np.float32)
    return rgba, None if inverse_z is None else cv2.resize(inverse_z, wh, interpolation=cv2.INTER_NEAREST)


def resample(premultiplied: np.ndarray, box_px: Box, image_wh: tuple[int, int]) -> np.ndarray:
    """A crop (h, w, C) of floats or bytes in its place: (H, W, C), 0 outside ``box_px``."""
    height, width = premultiplied.shape[:2]
    left, top, right, bottom = box_px
    shrink = int(height // max(bottom - top, 1))
    if shrink > 1:  # mean over the footprint, so that a small figure does not alias
        width, height = max(1, width // shrink), max(1, height // shrink)
        premultiplied = np.asarray(cv2.resize(premultiplied, (width, height), interpolation=cv2.INTER_AREA))
    scale_x, scale_y = (right - left) / width, (bottom - top) / height
    image_from_crop = np.array([[scale_x, 0, left + scale_x / 2 - 0.5], [0, scale_y, top + scale_y / 2 - 0.5]])
    return np.asarray(cv2.warpAffine(premultiplied, image_from_crop, image_wh, flags=cv2.INTER_LINEAR))


def spread(inverse_z: np.ndarray) -> np.ndarray:
    """(h, w) 1 / metres, 0 where the body is not: there that of the nearest pixel where it is."""
    is_empty = (inverse_z <= 0).astype(np.uint8)
    if is_empty.all():
        return inverse_z
    _, labels = cv2.distanceTransformWithLabels(is_empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    known = np.zeros(int(labels.max()) + 1, np.float32)
    known[labels[is_empty == 0]] = inverse_z[is_empty == 0]
    return known[labels]


@njit(cache=True, nogil=True)
def _premultiplied(rgba):
    out = np.empty_like(rgba)
    for row in range(rgba.shape[0]):
        for column in range(rgba.shape[1]):
            alpha = rgba[row, column, 3]
            for c in range(3):
                out[row, column, c] = rgba[row, column, c] * alpha
            out[row, column, 3] = alpha
    return out


@njit(cache=True, nogil=True)
def _unpremultiply(rgba, contrast):
    """In place; colours of what is as good as empty become 0, and alpha gets the contrast."""
    for row in range(rgba.shape[0]):
        for column in range(rgba.shape[1]):
            alpha = rgba[row, column, 3]
            scale = np.float32(1) / alpha if alpha > np.float32(1e-4) else np.float32(0)
            for c in range(3):
                rgba[row, column, c] = min(max(rgba[row, column, c] * scale, np.float32(0)), np.float32(1))
            alpha = np.float32((alpha - 0.5) * contrast + 0.5)
            rgba[row, column, 3] = min(max(alpha, np.float32(0)), np.float32(1))
