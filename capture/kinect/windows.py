"""The Kinect V2 under Windows: Microsoft's SDK 2.0 through the interfaces of pykinect2.

The package's own runtime is not used: it keeps one picture without its time, says for ever that it is new, and swallows
every error.  Here each picture is taken from the SDK's reader once, with ``RelativeTime``; what the driver answers
besides "nothing yet" is kept, for the line that says why nothing comes.

The SDK's calls (MSDN, "Kinect for Windows SDK 2.0"): ``AcquireLatestFrame`` fails with E_PENDING when there is nothing
new; intrinsics are zero until depth has arrived; a depth pixel that is not seen in colour is at minus infinity.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from capture.errors import UserError
from capture.kinect.calibration import COLOR_WH, DEPTH_WH, DISTANCES_MM, Calibration, from_rays, on_grid
from capture.kinect.driver import COLOR, DEPTH, Shot, upright_color, upright_depth
from capture.kinect.released import SDK, load

TICK_S = 1e-7
E_PENDING = 0x8000000A
BGRA = 3  # ColorImageFormat_Bgra
POLL_S = 0.003  # a picture stays in the driver's mailbox for 33 ms
INTERVALS_S = (0.02, 0.1)  # a frame interval outside of these is none
NUM_DEPTH = DEPTH_WH[0] * DEPTH_WH[1]
INTRINSICS = (
    "FocalLengthX", "FocalLengthY", "PrincipalPointX", "PrincipalPointY",
    "RadialDistortionSecondOrder", "RadialDistortionFourthOrder", "RadialDistortionSixthOrder",
)  # fmt: skip


def default_sensor(api: Any) -> Any:
    """The SDK's sensor object; there is one whether or not a Kinect is plugged in.  Raises UserError."""
    sensor = ctypes.POINTER(api.IKinectSensor)()
    code = ctypes.WinDLL("Kinect20").GetDefaultKinectSensor(ctypes.byref(sensor))  # type: ignore[attr-defined]
    if code != 0 or not sensor:
        raise UserError(f"--source kinect: the driver gives no sensor (0x{code & 0xFFFFFFFF:08X}); {SDK}")
    return sensor


class WindowsDriver:
    """Takes pictures from the SDK's two readers.  See ``capture.kinect.driver.Driver``."""

    name = "pykinect2"

    def __init__(self, load_api: Callable[[], Any] = load, open_default: Callable[[Any], Any] = default_sensor) -> None:
        self._load_api, self._open_default = load_api, open_default
        self._sensor: Any = None
        self._readers: dict[str, Any] = {}
        self._last_ticks: dict[str, int] = {}
        self._error: int | None = None

    def check(self) -> None:
        self._load_api()

    def start(self) -> None:
        self._api = self._load_api()
        try:
            self._sensor = self._open_default(self._api)
            self._sensor.Open()
            self._readers[DEPTH] = self._sensor.DepthFrameSource.OpenReader()
            self._readers[COLOR] = self._sensor.ColorFrameSource.OpenReader()
            self._mapper = self._sensor.CoordinateMapper
        except self._api.COMError as error:
            raise UserError(f"--source kinect: the driver refuses to open it (0x{_code(error):08X}); {SDK}") from None

    def wait(self, timeout_s: float) -> list[Shot]:
        end_s = time.monotonic() + timeout_s
        while True:
            taken = (self._depth(), self._color())
            shots = [shot for shot in taken if shot is not None]
            if shots or time.monotonic() >= end_s:
                return shots
            time.sleep(POLL_S)

    def calibration(self) -> Calibration | None:
        try:
            found = self._mapper.GetDepthCameraIntrinsics()
            intrinsics = tuple(float(getattr(found, name)) for name in INTRINSICS)
            if intrinsics[0] <= 0 or intrinsics[1] <= 0:
                return None
            rays = self._rays()
            color_px = np.stack([on_grid(self._seen_at(distance)) for distance in DISTANCES_MM])
        except self._api.COMError as error:
            self._note(error)
            return None
        if not rays.any():
            return None
        factory = {
            "depth_intrinsics": np.array(intrinsics),
            "depth_rays": rays.astype(np.float32),
            "color_px": color_px.astype(np.float32),
            "color_px_depth_mm": np.array(DISTANCES_MM, np.uint16),
        }
        return from_rays(_along_the_picture(rays), intrinsics, color_px, factory)

    def trouble(self) -> str:
        try:
            is_available = bool(self._sensor.IsAvailable) if self._sensor is not None else False
        except self._api.COMError as error:
            self._note(error)
            is_available = False
        said = f"; its driver said 0x{self._error:08X}" if self._error is not None else ""
        if not is_available:
            return f"Windows sees no Kinect V2: check its power supply, and plug it into a USB 3 port{said}"
        return f"Windows sees the Kinect V2, but no pictures come: plug it into another USB 3 port{said}"

    def stop(self) -> None:
        sensor, self._sensor = self._sensor, None
        self._readers.clear()  # a reader ends with its last reference
        self._mapper = None
        self._last_ticks.clear()
        if sensor is not None:
            with suppress(self._api.COMError):
                sensor.Close()

    def _acquire(self, stream: str) -> tuple[Any, int] | None:
        """(frame, its time in ticks); None where there is nothing new.  A frame must be let go of at once: the driver
        has no other place for the next one."""
        try:
            frame = self._readers[stream].AcquireLatestFrame()
            if not frame:
                return None
            ticks = int(frame.RelativeTime)
        except self._api.COMError as error:
            self._note(error)
            return None
        if ticks == self._last_ticks.get(stream):
            return None
        return frame, ticks

    def _depth(self) -> Shot | None:
        found = self._acquire(DEPTH)
        if found is None:
            return None
        frame, ticks = found
        data = np.empty((DEPTH_WH[1], DEPTH_WH[0]), np.uint16)
        try:
            frame.CopyFrameDataToArray(NUM_DEPTH, data.ctypes.data_as(ctypes.POINTER(ctypes.c_ushort)))
        except self._api.COMError as error:
            self._note(error)
            return None
        self._last_ticks[DEPTH] = ticks
        return Shot(DEPTH, ticks * TICK_S, upright_depth(data))

    def _color(self) -> Shot | None:
        found = self._acquire(COLOR)
        if found is None:
            return None
        frame, ticks = found
        data = np.empty((COLOR_WH[1], COLOR_WH[0], 4), np.uint8)
        try:
            pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_ubyte))
            frame.CopyConvertedFrameDataToArray(data.nbytes, pointer, BGRA)
        except self._api.COMError as error:
            self._note(error)
            return None
        self._last_ticks[COLOR] = ticks
        period_s = self._period_s(frame)
        del frame, found  # before the picture is turned, which takes milliseconds
        return Shot(COLOR, ticks * TICK_S, upright_color(data), period_s=period_s)

    def _period_s(self, frame: Any) -> float | None:
        """Until the next colour picture; None where the driver does not say."""
        try:
            period_s = float(frame.ColorCameraSettings.FrameInterval * TICK_S)
        except self._api.COMError as error:
            self._note(error)
            return None
        return period_s if INTERVALS_S[0] < period_s < INTERVALS_S[1] else None

    def _rays(self) -> np.ndarray:
        """(h, w, 2) the driver's x / z and y / z of each depth pixel, in its camera space: y points up."""
        count = ctypes.c_uint()
        table = self._mapper.GetDepthFrameToCameraSpaceTable(ctypes.byref(count))
        if not table or count.value != NUM_DEPTH:
            return np.zeros((DEPTH_WH[1], DEPTH_WH[0], 2))
        pairs = ctypes.cast(table, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pairs, (DEPTH_WH[1], DEPTH_WH[0], 2)).astype(float)

    def _seen_at(self, distance_mm: int) -> np.ndarray:
        """(h, w, 2) colour pixels of a wall at one distance, in our pixels; not finite where it is not seen."""
        depth = np.full(NUM_DEPTH, distance_mm, np.uint16)
        points = np.empty((NUM_DEPTH, 2), np.float32)
        kind = ctypes.POINTER(self._api._ColorSpacePoint)
        self._mapper.MapDepthFrameToColorSpace(
            NUM_DEPTH, depth.ctypes.data_as(ctypes.POINTER(ctypes.c_ushort)), NUM_DEPTH, points.ctypes.data_as(kind)
        )
        return points.reshape(DEPTH_WH[1], DEPTH_WH[0], 2).astype(float) + 0.5  # its pixel centres are whole numbers

    def _note(self, error: Any) -> None:
        code = _code(error)
        if code != E_PENDING:
            self._error = code


def _code(error: Any) -> int:
    return int(error.args[0] if error.args else 0) & 0xFFFFFFFF


def _along_the_picture(rays: np.ndarray) -> np.ndarray:
    """(h, w, 2) rays whose x grows to the right of the picture and whose y grows downwards."""
    signs = np.sign([np.nanmean(np.diff(rays[..., 0], axis=1)), np.nanmean(np.diff(rays[..., 1], axis=0))])
    return rays * signs
