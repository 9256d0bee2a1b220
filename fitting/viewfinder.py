"""What whoever films sees: the picture with what matters about it, in a window or as a line in the terminal.

H x W colour pixels, h x w pixels of the window.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Sequence
from types import TracebackType

import cv2
import numpy as np

from fitting.guide import SECTOR_DEG, SECTORS, Sides
from fitting.window import Window

log = logging.getLogger(__name__)

WIDTH_PX = 960
LOG_S = 5.0  # between two lines where the terminal cannot overwrite one
LIGHT, GOOD, BAD, DIM = (255, 255, 255), (60, 200, 90), (255, 120, 90), (110, 110, 110)
RADIUS_PX = 46


class Viewfinder:
    """Use as a context manager."""

    def __init__(self, in_window: bool) -> None:
        self._window = Window("record (q ends)") if in_window else None
        self._said_s = 0.0
        self._said = ""

    def show(self, color: np.ndarray | None, headline: str, lines: Sequence[str], sides: Sides | None) -> bool:
        """Show a picture (H, W, 3) uint8 with words, bad ones in ``lines``; False when the user has had enough."""
        if self._window is not None and color is not None:
            return self._window.show(drawn(color, headline, lines, sides))
        self._say("; ".join([headline, *lines]))
        return True

    def _say(self, words: str) -> None:
        now_s = time.monotonic()
        if sys.stderr.isatty():
            if now_s - self._said_s > 0.2:
                width = shutil.get_terminal_size().columns - 1
                sys.stderr.write("\r" + words[:width].ljust(width))
                sys.stderr.flush()
                self._said_s = now_s
        elif now_s - self._said_s > LOG_S:
            log.info("%s", words)
            self._said_s = now_s

    def __enter__(self) -> Viewfinder:
        if self._window is not None:
            self._window.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._window is not None:
            self._window.__exit__(kind, error, trace)
        elif sys.stderr.isatty():
            sys.stderr.write("\r\n")


def drawn(color: np.ndarray, headline: str, lines: Sequence[str], sides: Sides | None) -> np.ndarray:
    """The picture reduced to (h, w, 3) uint8 with words on a dark band and, with ``sides``, a ring of what was seen."""
    scale = WIDTH_PX / color.shape[1]
    picture = cv2.resize(color, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    band = 34 + 22 * len(lines)
    picture[:band] = picture[:band] // 3
    cv2.putText(picture, headline, (14, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, LIGHT, 1, cv2.LINE_AA)
    for k, line in enumerate(lines):
        cv2.putText(picture, line, (14, 48 + 22 * k), cv2.FONT_HERSHEY_SIMPLEX, 0.52, BAD, 1, cv2.LINE_AA)
    if sides is not None:
        _draw_ring(picture, sides)
    return picture


def _draw_ring(picture: np.ndarray, sides: Sides) -> None:
    """From above, the person in the middle, the camera below: the person's left is at the right, as in the picture."""
    centre = (picture.shape[1] - RADIUS_PX - 24, picture.shape[0] - RADIUS_PX - 30)
    axes = (RADIUS_PX, RADIUS_PX)
    for k, name in enumerate(SECTORS):
        middle = 90 - k * SECTOR_DEG  # OpenCV counts clockwise from the right: 90 is below
        tone = GOOD if name in sides.seen else DIM
        begin, end = middle - SECTOR_DEG / 2 + 3, middle + SECTOR_DEG / 2 - 3
        cv2.ellipse(picture, centre, axes, 0, begin, end, (20, 20, 20), 15, cv2.LINE_AA)
        cv2.ellipse(picture, centre, axes, 0, begin, end, tone, 10, cv2.LINE_AA)
    for words, place in (("front", (-18, RADIUS_PX + 22)), ("back", (-16, -RADIUS_PX - 12))):
        at = (centre[0] + place[0], centre[1] + place[1])
        cv2.putText(picture, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, LIGHT, 1, cv2.LINE_AA)
