"""A window that shows pictures, where the machine can open one."""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType

import cv2
import numpy as np

TITLE = "track (q ends)"
PROBE = "import cv2; cv2.namedWindow('probe', cv2.WINDOW_AUTOSIZE); cv2.waitKey(1)"
END_KEYS = (ord("q"), 27)  # q, Escape


def why_not() -> str:
    """Why no window can be opened here, in words; empty where one can.

    OpenCV's toolkit ends the whole process when it finds no display, so another process tries it first.
    """
    if any(line.split() == ["GUI:", "NONE"] for line in cv2.getBuildInformation().splitlines()):
        return "this OpenCV was built without windows"
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        return "there is no display"
    try:
        tried = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, timeout=30)
    except subprocess.TimeoutExpired:
        return "the display does not answer"
    return "the display cannot be used" if tried.returncode else ""


class Window:
    """An open window.  Use as a context manager."""

    def __init__(self, title: str = TITLE) -> None:
        self._title = title
        cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)  # the picture, no toolbar

    def show(self, picture: np.ndarray) -> bool:
        """Show an (H, W, 3) uint8 RGB picture; False when the user has had enough."""
        cv2.imshow(self._title, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        return key not in END_KEYS and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1

    def __enter__(self) -> Window:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cv2.destroyAllWindows()
