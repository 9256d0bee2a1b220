"""Detail: what a person's crop is too coarse for, kept on the texture, added where a picture shows the person larger.

The networks paint somebody of 256 rows, and a camera saw three times as many.  What an enlarged painting lacks of the
truth, on average over the frames that taught it (``training.detail``), is a second texture, finer and of colours alone;
it lies on the body as the first one does, and is lit like it.

D x D detail texels, K covered pixels, H x W pixels of a picture.  Colours in [0, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numba import njit

from capture.camera import Camera
from rendering.close_up import WORTH
from rendering.framing import visible_depth
from rendering.light import gains
from rendering.networks import NeuralTexture
from rendering.pasting import Box, Layer, crispness, times
from rendering.rasterize import Covered, rasterize_covered
from rendering.texels import DETAIL_STEP, read_texels

if TYPE_CHECKING:
    from rendering.avatar import Shape

MOST_PX = 1024  # detail texels per side
FADE = 0.25  # of being enlarged: from WORTH on, in which detail comes


def as_stored(detail: np.ndarray) -> torch.Tensor:
    """(D, D, 3) colours, about 0, as the int8 that a ``NeuralTexture`` keeps."""
    return torch.from_numpy(np.rint(detail / DETAIL_STEP).clip(-127, 127).astype(np.int8))


def texels_per_m(shape: Shape, detail_px: int) -> float:
    """How many of ``detail_px`` texels per side lie on a metre of somebody's body, on average."""
    body = shape.body
    rest_m, _ = body.shaped(shape.shape)
    a, b, c = (rest_m[body.faces[:, k]] for k in range(3))
    area_m2 = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    u, v, w = (body.uv[body.face_uv[:, k]].astype(float) for k in range(3))
    (first, second), (third, fourth) = (v - u).T, (w - u).T
    share = np.abs(first * fourth - second * third).sum() / 2
    return float(detail_px * np.sqrt(share / area_m2))


def with_detail(
    layer: Layer,
    texture: NeuralTexture,
    shape: Shape,
    vertices_m: np.ndarray,
    camera: Camera,
    enlarged: float,
    lit_from_camera: np.ndarray | None = None,
) -> Layer:
    """The layer of somebody, painted ``enlarged`` times smaller than the picture shows him, with his detail.

    vertices_m (V, 3) in the camera's frame; lit_from_camera (3, 3) as ``View.lit_from_camera``.  The layer itself where
    there is no detail, or where the painting is hardly enlarged.
    """
    if texture.detail is None or enlarged < WORTH:
        return layer
    covered, added = _added(texture, shape, vertices_m, camera, enlarged, lit_from_camera)
    rgba = layer.rgba.copy()
    _add(rgba, layer.left, layer.top, camera.image_wh[0], covered.pixel, added)
    return Layer(rgba, layer.left, layer.top, layer.depth_m)


def lay_detail(
    picture: np.ndarray,
    mask: np.ndarray,
    box_px: Box,
    texture: NeuralTexture,
    shape: Shape,
    vertices_m: np.ndarray,
    camera: Camera,
    lit_from_camera: np.ndarray | None = None,
) -> None:
    """The same on a picture (H, W, 3) uint8, in place, that somebody has been laid over: his painting's mask (h, w) in
    [0, 1] was put into ``box_px`` (left, top, right, bottom)."""
    enlarged = times(box_px, mask.shape[0])
    if texture.detail is None or enlarged < WORTH:
        return
    covered, added = _added(texture, shape, vertices_m, camera, enlarged, lit_from_camera)
    contrast = crispness(box_px, mask.shape[0])
    _lay(picture.reshape(-1, 3), picture.shape[1], covered.pixel, added, mask, np.array(box_px), contrast)


def _added(
    texture: NeuralTexture,
    shape: Shape,
    vertices_m: np.ndarray,
    camera: Camera,
    enlarged: float,
    lit_from_camera: np.ndarray | None,
) -> tuple[Covered, np.ndarray]:
    """The picture's pixels that show the body, and what to add to their colours, (K, 3).

    Nothing comes at once: neither detail as somebody comes nearer, nor its next finer level."""
    assert texture.detail is not None
    covered = rasterize_covered(shape.body, vertices_m, camera)
    px_per_m = camera.fy_px / visible_depth(vertices_m, camera)
    too_fine = texels_per_m(shape, texture.detail.shape[0]) / px_per_m
    level, coarser = divmod(float(np.log2(max(too_fine, 1))), 1)
    added = read_texels(texture.detail_level(int(level)), covered.uv)
    if coarser:
        added += np.float32(coarser) * (read_texels(texture.detail_level(int(level) + 1), covered.uv) - added)
    added *= np.float32(DETAIL_STEP * min((enlarged - WORTH) / FADE, 1))
    normal = covered.normal
    if lit_from_camera is not None:
        normal = (normal @ np.asarray(lit_from_camera, np.float32).T).astype(np.float32)
    if texture.light is not None:
        added *= gains(normal, texture.light)
    return covered, added


@njit(cache=True, nogil=True)
def _add(rgba, left, top, width, pixel, added):
    """added (K, 3) to the colours of a layer (n, m, 4), in place; pixels are of the whole picture."""
    for k in range(len(pixel)):
        row, column = pixel[k] // width - top, pixel[k] % width - left
        if 0 <= row < rgba.shape[0] and 0 <= column < rgba.shape[1]:
            for c in range(3):
                rgba[row, column, c] = min(max(rgba[row, column, c] + added[k, c], np.float32(0)), np.float32(1))


@njit(cache=True, nogil=True)
def _lay(picture, width, pixel, added, mask, box, contrast):
    """255 times added (K, 3) to the pixels of a picture (H * W, 3) uint8, in place, as far as the mask (h, w) in its
    box, with that contrast about one half, lets through."""
    height, across = mask.shape
    for k in range(len(pixel)):
        row = (pixel[k] // width + 0.5 - box[1]) / (box[3] - box[1]) * height - 0.5
        column = (pixel[k] % width + 0.5 - box[0]) / (box[2] - box[0]) * across - 0.5
        if not (-0.5 <= row <= height - 0.5 and -0.5 <= column <= across - 0.5):
            continue
        row, column = min(max(row, 0.0), height - 1.0), min(max(column, 0.0), across - 1.0)
        r, c = min(int(row), height - 2), min(int(column), across - 2)
        down, right = row - r, column - c
        upper = mask[r, c] * (1 - right) + mask[r, c + 1] * right
        lower = mask[r + 1, c] * (1 - right) + mask[r + 1, c + 1] * right
        alpha = (upper * (1 - down) + lower * down - 0.5) * contrast + 0.5
        share = 255 * min(max(alpha, 0.0), 1.0)
        for channel in range(3):
            value = picture[pixel[k], channel] + added[k, channel] * share + 0.5
            picture[pixel[k], channel] = np.uint8(min(max(value, 0.0), 255.0))
