"""The close-up: the head painted a second time, larger, by networks of its own, and laid into the person's picture.

A person crop of 256 rows has thirty for the head, too few for eyes.  So the head has rasters of its own (stage 05), and
an avatar of its own is trained on them (stage 06); where a picture shows the head larger than the person's crop does,
that one paints it.  n x m pixels of the part of the picture that an avatar covers.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fitting.body.model import BodyModel
from rendering.pasting import Box, Layer

FOLDER = "close_up"  # in 05_rasters and in 06_avatar
REGION = "head"  # of the body model
MARGINS = (0.15, 0.3, 0.15, 0.15)  # left, top, right, bottom of the head's height: hair, and a little of the shoulders
RAMP = 0.15  # of the box's sides: there the close-up gives way to the person's own picture
WORTH = 1.15  # times: where the person's crop is enlarged by less, a close-up shows nothing more


def head_vertices(body: BodyModel) -> np.ndarray | None:
    """Indices of the vertices of the head; None for a body without one."""
    if REGION not in body.region_names:
        return None
    faces = body.faces[body.face_region == body.region_names.index(REGION)]
    return np.unique(faces) if len(faces) else None


def inset(whole: Layer, close: Layer, box_px: Box) -> Layer:
    """``whole`` with ``close`` in its place inside ``box_px``, mixed along the box's sides; the depth stays.

    Mixed with premultiplied alpha, so that soft edges of both add up to a soft edge.
    """
    top, left = min(whole.top, close.top), min(whole.left, close.left)
    bottom = max(layer.top + layer.rgba.shape[0] for layer in (whole, close))
    right = max(layer.left + layer.rgba.shape[1] for layer in (whole, close))
    rgba = _placed(whole, whole.rgba, left, top, (bottom - top, right - left), 0.0)
    depth_m = whole.depth_m
    if depth_m is not None:
        depth_m = _placed(whole, depth_m, left, top, (bottom - top, right - left), np.inf)
    columns = ramp(np.arange(close.left, close.left + close.rgba.shape[1]) + 0.5, box_px[0], box_px[2])
    rows = ramp(np.arange(close.top, close.top + close.rgba.shape[0]) + 0.5, box_px[1], box_px[3])
    window = rgba[close.top - top :, close.left - left :][: len(rows), : len(columns)]
    _mix(window, close.rgba, rows, columns)
    return Layer(rgba, left, top, depth_m)


def ramp(at_px: np.ndarray, low_px: float, high_px: float) -> np.ndarray:
    """(n,) float32: 1 inside, smoothly to 0 at both ends, 0 beyond."""
    inside = np.minimum(at_px - low_px, high_px - at_px) / ((high_px - low_px) * RAMP)
    inside = np.clip(inside, 0, 1)
    return (inside * inside * (3 - 2 * inside)).astype(np.float32)


def _placed(layer: Layer, plane: np.ndarray, left: int, top: int, hw: tuple[int, int], empty: float) -> np.ndarray:
    """A copy of the layer's ``plane`` in a larger one that begins at ``left``, ``top``."""
    larger = np.full((*hw, *plane.shape[2:]), empty, np.float32)
    rows, columns = plane.shape[:2]
    larger[layer.top - top :, layer.left - left :][:rows, :columns] = plane
    return larger


@njit(cache=True, nogil=True)
def _mix(under, over, rows, columns):
    """``over`` (n, m, 4) into ``under``, in place, by the product of the weights of row and column."""
    for row in range(over.shape[0]):
        for column in range(over.shape[1]):
            share = rows[row] * columns[column]
            if share <= 0:
                continue
            alpha_under, alpha_over = under[row, column, 3] * (1 - share), over[row, column, 3] * share
            alpha = alpha_under + alpha_over
            if alpha > np.float32(1e-4):
                for c in range(3):
                    mixed = under[row, column, c] * alpha_under + over[row, column, c] * alpha_over
                    under[row, column, c] = mixed / alpha
            under[row, column, 3] = alpha
