"""The Kinect V2 under Linux and macOS: libfreenect2 through whichever of its two Python bindings is installed.

    freenect2        hands over each picture in a callback, in a thread of libfreenect2
    pylibfreenect2   keeps the newest picture of each listener until it is asked; one listener per stream, as a common
                     one would pair whatever came last

Depth arrives as float millimetres, colour as BGRX or RGBX; time in 1/8 ms (libfreenect2 issue 849) with a count of each
stream.  The calibration is read from the device when the streams start.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import queue
import time
from contextlib import suppress
from types import ModuleType
from typing import Any

from capture.errors import UserError
from capture.kinect import usb
from capture.kinect.calibration import Calibration, from_libfreenect2
from capture.kinect.driver import COLOR, DEPTH, Driver, Shot, upright_color, upright_depth

TICK_S = 0.000125
BINDINGS = ("freenect2", "pylibfreenect2")
REMEDY = (
    "build libfreenect2 (github.com/OpenKinect/libfreenect2), then run .venv/bin/pip install freenect2 "
    "(or pylibfreenect2)"
)
POLL_S = 0.003
MOST_WAITING = 8  # pictures that nobody has taken yet: the oldest go first


def installed() -> str | None:
    """The binding that will be used; None where there is none."""
    return next((name for name in BINDINGS if importlib.util.find_spec(name) is not None), None)


def libfreenect2_driver() -> Driver:
    """A driver through the installed binding.  Raises UserError where there is none."""
    name = installed()
    if name is None:
        raise UserError(f"--source kinect: no binding of libfreenect2 is installed; {REMEDY}")
    return CallbackDriver() if name == "freenect2" else ListenerDriver()


def _loaded(name: str) -> ModuleType:
    """A binding, with a quiet libfreenect2.  Raises UserError."""
    os.environ.setdefault("LIBFREENECT2_LOGGER_LEVEL", "error")
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, AttributeError) as error:
        raise UserError(f"--source kinect: {name} is installed but does not load ({error}); {REMEDY}") from None


def _check_usb() -> None:
    finding = usb.look()
    if finding is not None and not finding.is_usable:
        raise UserError(f"--source kinect: {finding.words}")


def _trouble() -> str:
    finding = usb.look()
    if finding is not None and not finding.is_usable:
        return finding.words
    return "check its power supply, and plug it into another USB 3 port (not one of an ASMedia controller)"


def _shot(stream: str, frame: Any, array: Any, is_rgb: bool) -> Shot:
    image = upright_color(array, is_rgb) if stream == COLOR else upright_depth(array)
    return Shot(stream, int(frame.timestamp) * TICK_S, image, int(frame.sequence))


class CallbackDriver:
    """Through freenect2.  See ``capture.kinect.driver.Driver``."""

    name = "freenect2"

    def __init__(self) -> None:
        self._device: Any = None
        self._api: Any = None
        self._frames: queue.Queue[tuple[str, Any]] = queue.Queue(MOST_WAITING)

    def check(self) -> None:
        _loaded(self.name)

    def start(self) -> None:
        self._api = _loaded(self.name)
        _check_usb()
        try:
            self._device = self._api.Device()
        except self._api.NoDeviceError:
            raise UserError(f"--source kinect: libfreenect2 finds no Kinect V2: {_trouble()}") from None
        self._device.start(self._take)

    def wait(self, timeout_s: float) -> list[Shot]:
        try:
            stream, frame = self._frames.get(timeout=timeout_s)
        except queue.Empty:
            return []
        # Its memory is freed with ``frame``: the array is used up before.
        return [_shot(stream, frame, frame.to_array(), frame.format == self._api.FrameFormat.RGBX)]

    def calibration(self) -> Calibration | None:
        ir, color = self._device.ir_camera_params, self._device.color_camera_params
        return None if ir is None or color is None else from_libfreenect2(ir, color)

    def trouble(self) -> str:
        return _trouble()

    def stop(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.stop()
            device.close()
        if self._api is not None and hasattr(self._api, "_FREENECT2_SINGLETON"):
            self._api._FREENECT2_SINGLETON = None  # it looks for devices once, and would not see one plugged in later
        while not self._frames.empty():
            with suppress(queue.Empty):
                self._frames.get_nowait()

    def _take(self, kind: Any, frame: Any) -> None:
        """Called by libfreenect2's own threads; what is raised here would be lost."""
        streams = {self._api.FrameType.Color: COLOR, self._api.FrameType.Depth: DEPTH}
        if kind not in streams or frame.status != 0:
            return
        while True:
            try:
                self._frames.put_nowait((streams[kind], frame))
                return
            except queue.Full:
                with suppress(queue.Empty):
                    self._frames.get_nowait()


class ListenerDriver:
    """Through pylibfreenect2.  See ``capture.kinect.driver.Driver``."""

    name = "pylibfreenect2"

    def __init__(self) -> None:
        self._context: Any = None
        self._device: Any = None
        self._listeners: dict[str, Any] = {}

    def check(self) -> None:
        _loaded(self.name)

    def start(self) -> None:
        api = _loaded(self.name)
        _check_usb()
        self._context = api.Freenect2()
        if self._context.enumerateDevices() == 0:
            raise UserError(f"--source kinect: libfreenect2 finds no Kinect V2: {_trouble()}")
        self._device = self._context.openDefaultDevice()
        self._listeners = {
            DEPTH: api.SyncMultiFrameListener(api.FrameType.Depth),
            COLOR: api.SyncMultiFrameListener(api.FrameType.Color),
        }
        self._device.setColorFrameListener(self._listeners[COLOR])
        self._device.setIrAndDepthFrameListener(self._listeners[DEPTH])
        self._device.start()

    def wait(self, timeout_s: float) -> list[Shot]:
        end_s = time.monotonic() + timeout_s
        while True:
            shots = [self._newest(stream) for stream, listener in self._listeners.items() if listener.hasNewFrame()]
            if shots or time.monotonic() >= end_s:
                return shots
            time.sleep(POLL_S)  # its own way of waiting has no limit in older versions

    def calibration(self) -> Calibration | None:
        return from_libfreenect2(self._device.getIrCameraParams(), self._device.getColorCameraParams())

    def trouble(self) -> str:
        return _trouble()

    def stop(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.stop()
            device.close()
        self._listeners.clear()  # after the device, which writes into them
        self._context = None

    def _newest(self, stream: str) -> Shot:
        listener = self._listeners[stream]
        frames = listener.waitForNewFrame()
        try:
            frame = frames["color" if stream == COLOR else "depth"]
            return _shot(stream, frame, frame.asarray(), is_rgb=False)
        finally:
            listener.release(frames)
