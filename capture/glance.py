"""A recorded picture, only as large as it is needed.

A JPEG is stored as frequencies of blocks of 8 x 8 pixels; decoding it at a half or a quarter leaves the high ones out
and gives each pixel's mean over its footprint, in less time than the whole picture takes.
"""

from __future__ import annotations

import cv2
import numpy as np

from capture.recording import Recording

_REDUCED = ((4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))


def glance(recording: Recording, index: int, least_side_px: int) -> np.ndarray:
    """(h, w, 3) uint8 RGB of one frame, at 1/4, 1/2 or all of its size: the least that still has ``least_side_px`` on
    its longer side.  Raises UserError when the frame is damaged."""
    side_px = max(recording.rig.color.image_wh)
    if not recording.color_names[index].endswith(".jpg"):
        return _halved(recording.color(index), least_side_px)
    for part, flag in _REDUCED:
        if side_px >= part * least_side_px:
            data = np.frombuffer(recording.color_bytes(index), np.uint8)
            image = cv2.imdecode(data, flag | cv2.IMREAD_IGNORE_ORIENTATION)
            # A damaged file is refused by the one who reads it whole.
            return recording.color(index) if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return recording.color(index)


def _halved(color: np.ndarray, least_side_px: int) -> np.ndarray:
    for part, _ in _REDUCED:
        if max(color.shape[:2]) >= part * least_side_px:
            return cv2.resize(color, None, fx=1 / part, fy=1 / part, interpolation=cv2.INTER_AREA)
    return color
