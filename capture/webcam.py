"""``--source webcam``: any camera that the system knows, colour only, as the recorder and ``drive`` read a sensor.

One thread takes pictures (OpenCV's VideoCapture) and leaves them in a mailbox; H x W colour pixels.  A webcam does not
tell its focal length: the usual one of its kind stands in, and the fit refines it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from capture.camera import Rig
from capture.errors import UserError
from capture.importers import guessed_camera
from capture.recording import Frame
from capture.sensor import FIRST_FRAME_S, GONE_S, DeliveringSensor

WISHED_WH, WISHED_HZ = (1280, 720), 30  # what is asked for; a camera gives what it has
RETRY_S = 0.02  # after a read without a picture


def open_device(argument: str) -> Any:
    """OpenCV's capture of camera number ``argument`` (default 0) or of a device's path.  Raises UserError."""
    device: int | str = int(argument) if argument.isdecimal() else argument or 0
    if isinstance(device, str) and not Path(device).exists():
        raise UserError(f"--source webcam:{argument}: no such device; say its number, as in webcam:0")
    loud = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # of each way in which it finds no camera
    try:
        capture = cv2.VideoCapture(device)
    finally:
        cv2.utils.logging.setLogLevel(loud)
    if not capture.isOpened():
        capture.release()
        raise UserError(
            f"--source webcam{':' if argument else ''}{argument}: no camera answers there; is it plugged in, free, and "
            "is this program allowed to use it?"
        )
    return capture


class Webcam(DeliveringSensor):
    """Colour pictures with the time at which they came."""

    focal_is_known = False

    def __init__(
        self,
        argument: str,
        workspace: Path | None = None,
        open_device: Callable[[str], Any] = open_device,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._argument, self._open_device, self._clock = argument, open_device, clock
        self._device: Any = None

    def read(self, timeout_s: float) -> Frame:
        return self._mailbox.get(timeout_s)

    def _start(self) -> None:
        self._device = self._open_device(self._argument)
        for what, wish in (
            (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),  # raw pictures come at 10 Hz over USB 2
            (cv2.CAP_PROP_FRAME_WIDTH, WISHED_WH[0]),
            (cv2.CAP_PROP_FRAME_HEIGHT, WISHED_WH[1]),
            (cv2.CAP_PROP_FPS, WISHED_HZ),
        ):
            self._device.set(what, wish)
        if not self._launch("webcam", FIRST_FRAME_S):
            raise UserError(f"webcam: no picture within {FIRST_FRAME_S:.0f} s; does another program use it?")

    def _stop(self) -> None:
        self._halt()
        if self._device is not None:
            self._device.release()
            self._device = None

    def _deliver(self) -> None:
        index, heard_s = 0, self._clock()
        while not self._is_over.is_set():
            is_there, picture = self._device.read()
            now_s = self._clock()
            if not is_there:
                if now_s - heard_s > GONE_S:
                    raise UserError(f"webcam: no picture for {now_s - heard_s:.0f} s; is it still connected?")
                time.sleep(RETRY_S)
                continue
            heard_s = now_s
            if not self._has_begun.is_set():
                self.rig = Rig(guessed_camera((picture.shape[1], picture.shape[0])))
                self._has_begun.set()
            self._mailbox.put(Frame(index, now_s, np.ascontiguousarray(picture[..., ::-1]), None))
            index += 1
