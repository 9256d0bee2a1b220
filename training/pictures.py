"""Pictures to look at: truth beside avatar beside error, and strips of them.

H x W pixels; float32 in [0, 1] in, uint8 RGB out.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

ERROR_CEILING = 0.4  # mean absolute colour error that is drawn brightest
BAR_PX = 26  # of the caption above a picture
INK, PAPER = (235, 236, 240), (24, 26, 31)


def error_map(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: mean absolute error over the channels, black to bright, ERROR_CEILING and above brightest."""
    error = np.abs(image.astype(np.float32) - truth).mean(-1) / ERROR_CEILING
    heat = cv2.applyColorMap(np.rint(error.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(heat, cv2.COLOR_BGR2RGB)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[0, 1] to uint8."""
    return np.rint(np.asarray(image) * 255).clip(0, 255).astype(np.uint8)


def at_height(image: np.ndarray, height: int) -> np.ndarray:
    """(H, W, 3) uint8 resized to ``height`` pixels, width even; smooth both ways."""
    width = max(2, round(image.shape[1] * height / image.shape[0] / 2) * 2)
    if (width, height) == (image.shape[1], image.shape[0]):
        return image
    shrinks = height < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def captioned(image: np.ndarray, caption: str) -> np.ndarray:
    """The picture under a dark bar with its name."""
    bar = np.full((BAR_PX, image.shape[1], 3), PAPER, np.uint8)
    cv2.putText(bar, caption, (8, BAR_PX - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.48, INK, 1, cv2.LINE_AA)
    return np.concatenate([bar, image])


def side_by_side(images: Sequence[np.ndarray], captions: Sequence[str] = ()) -> np.ndarray:
    """Pictures of one height in a row, each under its caption."""
    named = [captioned(i, c) for i, c in zip(images, captions, strict=True)] if captions else list(images)
    return np.concatenate(named, axis=1)
