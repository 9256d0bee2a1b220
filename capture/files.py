"""Pictures as files, and files that are never half there.

H x W colour pixels, h x w depth pixels.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from capture.errors import UserError

JPEG_QUALITY = 95  # about 15 MB/s at 1080p30, visually lossless


def encode_jpeg(color: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """(H, W, 3) uint8 RGB to the bytes of a JPEG file."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(color, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return data.tobytes()


def encode_png(image: np.ndarray) -> bytes:
    """(H, W) uint8 or uint16, or (H, W, 3) or (H, W, 4) uint8 RGB(A), to the bytes of a PNG file."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert ok
    return data.tobytes()


def decode_color(data: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB of the bytes of a JPEG or PNG file; None when they are none."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB.  Raises UserError when the file is missing or broken."""
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_gray(path: Path) -> np.ndarray:
    """(H, W) uint8.  Raises UserError when the file is missing or broken."""
    return _decode(path, cv2.IMREAD_GRAYSCALE)


def read_depth(path: Path) -> np.ndarray:
    """(h, w) uint16.  Raises UserError when the file is missing, broken or not a 16-bit image."""
    depth = _decode(path, cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise UserError(f"{path}: {depth.dtype} with shape {depth.shape} is not a 16-bit depth image")
    return depth


def _decode(path: Path, flags: int) -> np.ndarray:
    data = read_bytes(path)
    image = (
        cv2.imdecode(
            np.frombuffer(data, np.uint8),
            flags if flags == cv2.IMREAD_UNCHANGED else flags | cv2.IMREAD_IGNORE_ORIENTATION,
        )
        if data
        else None
    )
    if image is None:
        raise UserError(f"{path}: not a readable image; copy it again")
    return image


def read_bytes(path: Path) -> bytes:
    """Raises UserError when the file is missing or cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is the recording complete?") from None


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is never seen half-written: temporary name, fsync, rename."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
