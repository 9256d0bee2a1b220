"""What a driver of the Kinect V2 hands over: single pictures of either camera, upright, with the device's own time.

H x W colour pixels, h x w depth pixels.  ``windows.py`` and ``libfreenect2.py`` have the drivers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from capture.kinect.calibration import Calibration

COLOR, DEPTH = "colour", "depth"  # streams


@dataclass(frozen=True)
class Shot:
    """One picture of one camera."""

    stream: str  # COLOR or DEPTH
    time_s: float  # of the device; starts anywhere, and anew when it is plugged in again
    image: np.ndarray  # (H, W, 3) uint8 RGB, or (h, w) uint16 millimetres, 0 = no return; upright
    number: int | None = None  # the device's count of this stream, where the driver tells
    period_s: float | None = None  # until its next picture, where the driver tells


class Driver(Protocol):
    """A way to a Kinect V2.  Used by one thread at a time."""

    name: str

    def check(self) -> None:
        """Raises UserError where software is missing; touches no device."""

    def start(self) -> None:
        """Claim the device.  Raises UserError saying what to do; ``stop`` is called then, too."""

    def wait(self, timeout_s: float) -> list[Shot]:
        """What has come, nothing after ``timeout_s`` without.  Raises UserError when nothing will come any more."""

    def calibration(self) -> Calibration | None:
        """The cameras; None as long as the device has not told: not before depth has come.  Raises UserError."""

    def trouble(self) -> str:
        """Why nothing may be coming, and what to do; always something."""

    def stop(self) -> None:
        """Let go of everything; may be called twice, and before ``start`` has done its work."""


def upright_color(mirrored: np.ndarray, is_rgb: bool = False) -> np.ndarray:
    """A mirrored (H, W, 4) uint8 BGRX picture, or RGBX with ``is_rgb``, to (H, W, 3) RGB."""
    color = cv2.cvtColor(mirrored, cv2.COLOR_RGBA2RGB if is_rgb else cv2.COLOR_BGRA2RGB)
    return cv2.flip(color, 1)


def upright_depth(mirrored_mm: np.ndarray) -> np.ndarray:
    """A mirrored (h, w) image in millimetres, float or integer, to uint16; what is no distance becomes 0."""
    if mirrored_mm.dtype != np.uint16:
        is_distance = (mirrored_mm > 0) & (mirrored_mm < 65535)  # false for NaN and infinity, too
        mirrored_mm = np.rint(np.where(is_distance, mirrored_mm, 0)).astype(np.uint16)
    return np.ascontiguousarray(mirrored_mm[:, ::-1])
