"""Stand-ins for the drivers of a Kinect V2, with the defects that the real ones are known for.

The device itself (``Device``) is one schedule of pictures for both drivers; a picture carries the time at which it was
taken, so that what was stored can be compared with what was there.  The factory set is a published one (libfreenect2,
issue 41); copies of it say p2 = 365.481, which is a print error.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from capture.camera import pixel_rays
from capture.kinect.calibration import TERMS, Calibration, ColorParams, IrParams
from capture.kinect.sensor import KinectSensor

IR = IrParams(365.481, 365.481, 257.346, 210.347, 0.089026, -0.271706, 0.0982151, 0.0, 0.0)
MX = (.000449294, 1.91656e-05, 4.82909e-05, .000353673, -2.44043e-05, -1.19426e-05, .000988431, .642474, .00500649,
      .142021)  # fmt: skip
MY = (4.42793e-06, .000724863, .000398557, 4.90383e-05, .000136024, .00107291, -1.75465e-05, -.00554263, .641807,
      .0180811)  # fmt: skip
COLOR = ColorParams(1081.37, 1081.37, 959.5, 539.5, 863.0, 52.0, MX, MY)
SIZE = 217_088
STEP_S = 0.004
E_PENDING, E_FAIL = -2147483638, -2147467259  # as comtypes gives them: signed


def color_params() -> SimpleNamespace:
    """As either binding of libfreenect2 has them."""
    terms = {f"{axis}_{term}": c for axis, cs in (("mx", MX), ("my", MY)) for term, c in zip(TERMS, cs, strict=True)}
    return SimpleNamespace(fx=1081.37, fy=1081.37, cx=959.5, cy=539.5, shift_d=863.0, shift_m=52.0, **terms)


@lru_cache
def rays() -> np.ndarray:
    """(h, w, 2) of every depth pixel, y down."""
    return pixel_rays(IR.camera())[..., :2]


@lru_cache
def seen_at(distance_mm: float) -> np.ndarray:
    """(h, w, 2) colour pixels of a wall, as libfreenect2 has them: pixel centres at whole numbers."""
    return COLOR.seen_at(rays() * (IR.fx, IR.fy), distance_mm) - 0.5


@dataclass
class Device:
    """When which camera takes a picture.  All times in the device's own seconds, ``pace`` of them per second of the
    host; or, in lock step with a reader, STEP_S whenever the driver asks and the reader has taken what was there: then
    a loaded machine does not decide what a test sees."""

    color_hz: float = 30.0
    depth_hz: float = 30.0
    depth_late_s: float = 0.0224  # measured: libfreenect2 issue 721
    epoch_s: float = 1234.0  # its own clock when it starts
    unplugged_s: tuple[float, float] = (float("inf"), float("inf"))  # from, until
    epoch_after_s: float = 0.0  # its clock's zero when it was plugged in again: the moment it was
    first_depth_s: float = 0.0
    pace: float = 0.25
    is_ready: Callable[[], bool] | None = None  # lock step
    stepped_s: float = 0.0
    began_s: float = field(default=-1.0)

    def start(self) -> None:
        if self.began_s < 0:
            self.began_s = time.monotonic()

    @property
    def now_s(self) -> float:
        return self.stepped_s if self.is_ready is not None else (time.monotonic() - self.began_s) * self.pace

    def tick(self) -> None:
        """The driver asks."""
        if self.is_ready is not None and self.is_ready():
            self.stepped_s += STEP_S

    def sensor(self, make_driver: Callable[[], Any]) -> KinectSensor:
        """The sensor on top of a driver of this device, in lock step with whoever reads it."""
        made = KinectSensor("", Path(), make_driver, lambda: self.now_s)

        def is_ready() -> bool:
            box, waiting = getattr(made, "_mailbox", None), getattr(made._driver, "_frames", None)
            return (box is None or box._items.empty()) and (waiting is None or waiting.empty())

        self.is_ready = is_ready
        return made

    @property
    def is_there(self) -> bool:
        return not self.unplugged_s[0] <= self.now_s < self.unplugged_s[1]

    def newest(self, stream: str) -> tuple[int, float] | None:
        """(count, its own time in seconds) of the last picture of a stream; None where there is none yet."""
        rate_hz, late_s = (self.color_hz, 0.0) if stream == "color" else (self.depth_hz, self.depth_late_s)
        now_s = self.now_s
        if self.unplugged_s[0] <= now_s < self.unplugged_s[1]:
            now_s = self.unplugged_s[0]
        count = int((now_s - late_s) * rate_hz)
        taken_s = count / rate_hz + late_s
        if self.unplugged_s[0] < taken_s < self.unplugged_s[1]:
            return None
        if now_s < late_s or (stream == "depth" and taken_s < self.first_depth_s):
            return None
        if taken_s >= self.unplugged_s[1]:
            return count, taken_s - self.unplugged_s[1] + self.epoch_after_s
        return count, taken_s + self.epoch_s


def color_image(time_s: float) -> np.ndarray:
    """(H, W, 4) uint8 BGRX whose stripes say when: 32 bits of the time in 0.1 ms, 60 columns each, left to right."""
    bits = np.array([round(time_s * 1e4) >> k & 1 for k in range(32)], np.uint8)
    row = np.repeat(bits * 200 + 20, 60)  # (1920,)
    image = np.empty((1080, 1920, 4), np.uint8)
    image[...] = row[None, :, None]
    image[:, :, 2] = 128  # red alike everywhere: it shows which channel is which
    return image


def color_time_s(upright: np.ndarray) -> float:
    """When a colour picture (H, W, 3) uint8 RGB was taken; also after JPEG."""
    middles = upright[540, ::-1][30::60, 2]
    return sum(int(value > 120) << k for k, value in enumerate(middles)) * 1e-4


def depth_image(time_s: float) -> np.ndarray:
    """(h, w) uint16 whose first two pixels say when, in 0.1 ms; the rest is a wall at 2 m."""
    image = np.full((424, 512), 2000, np.uint16)
    ticks = round(time_s * 1e4)
    image[0, :2] = ticks // 10_000 + 1, ticks % 10_000 + 1
    return image


def depth_time_s(upright: np.ndarray) -> float:
    """When a depth picture (h, w) was taken."""
    return ((int(upright[0, -1]) - 1) * 10_000 + int(upright[0, -2]) - 1) * 1e-4


# Windows ------------------------------------------------------------------------------------------------------------


class COMError(Exception):
    pass


class PointF(ctypes.Structure):
    _fields_ = [("x", ctypes.c_float), ("y", ctypes.c_float)]


class FakeWindows:
    """The SDK's objects as pykinect2 shows them.

    ``is_stuck``: the readers say for ever that their last picture is new, as pykinect2's own runtime does, also after
    the device was unplugged.  ``fails_every`` n-th call of a reader with an error that its runtime would swallow.
    """

    def __init__(
        self, device: Device, is_stuck: bool = False, fails_every: int = 0, knows_interval: bool = True
    ) -> None:
        self.device, self.is_stuck, self.fails_every, self.knows_interval = (
            device,
            is_stuck,
            fails_every,
            knows_interval,
        )
        self.calls, self.opened, self.closed, self.frames_held, self.fails_to_open = 0, 0, 0, 0, 0
        self.asked_before_depth = 0
        self.has_given_depth = False
        self.api = SimpleNamespace(COMError=COMError, _ColorSpacePoint=PointF)
        self.ColorFrameSource = SimpleNamespace(OpenReader=lambda: _Reader(self, "color"))
        self.DepthFrameSource = SimpleNamespace(OpenReader=lambda: _Reader(self, "depth"))
        self.CoordinateMapper = _Mapper(self)

    def Open(self) -> None:
        if self.fails_to_open:
            self.fails_to_open -= 1
            raise COMError(E_FAIL, None, None)
        self.opened += 1
        self.device.start()

    def Close(self) -> None:
        self.closed += 1

    @property
    def IsAvailable(self) -> bool:
        return self.device.is_there

    def driver(self) -> Any:
        from capture.kinect.windows import WindowsDriver

        return WindowsDriver(lambda: self.api, lambda api: self)


class _Reader:
    def __init__(self, kinect: FakeWindows, stream: str) -> None:
        self._kinect, self._stream, self._taken = kinect, stream, (-1, -1.0)

    def AcquireLatestFrame(self) -> _Frame:
        kinect = self._kinect
        kinect.calls += 1
        if self._stream == "depth":
            kinect.device.tick()
        if kinect.fails_every and kinect.calls % kinect.fails_every == 0:
            raise COMError(E_FAIL, None, None)
        if kinect.frames_held:
            raise COMError(E_PENDING, None, None)  # the last frame was not let go of: there is no room for another
        newest = kinect.device.newest(self._stream)
        if newest is None or (newest == self._taken and not kinect.is_stuck):
            raise COMError(E_PENDING, None, None)
        self._taken = newest
        if self._stream == "depth":
            kinect.has_given_depth = True
        return _Frame(kinect, self._stream, newest[1])


class _Frame:
    def __init__(self, kinect: FakeWindows, stream: str, time_s: float) -> None:
        self._kinect, self._stream, self._time_s = kinect, stream, time_s
        kinect.frames_held += 1

    def __del__(self) -> None:
        self._kinect.frames_held -= 1

    @property
    def RelativeTime(self) -> int:
        return round(self._time_s * 1e7)

    @property
    def ColorCameraSettings(self) -> SimpleNamespace:
        if not self._kinect.knows_interval:
            raise COMError(E_FAIL, None, None)
        return SimpleNamespace(FrameInterval=round(1e7 / self._kinect.device.color_hz))

    def CopyFrameDataToArray(self, capacity: int, pointer: Any) -> None:
        assert self._stream == "depth" and capacity == SIZE
        _copy(depth_image(self._time_s), pointer)

    def CopyConvertedFrameDataToArray(self, capacity: int, pointer: Any, format: int) -> None:
        assert self._stream == "color" and capacity == 1920 * 1080 * 4 and format == 3
        _copy(color_image(self._time_s), pointer)


class _Mapper:
    def __init__(self, kinect: FakeWindows) -> None:
        self._kinect = kinect

    def GetDepthCameraIntrinsics(self) -> SimpleNamespace:
        numbers = (IR.fx, IR.fy, IR.cx, IR.cy, IR.k1, IR.k2, IR.k3)
        if not self._kinect.has_given_depth:  # PyKinect2 issue 81
            self._kinect.asked_before_depth += 1
            numbers = (0.0,) * 7
        orders = ("Second", "Fourth", "Sixth")
        names = ["FocalLengthX", "FocalLengthY", "PrincipalPointX", "PrincipalPointY"]
        names += [f"RadialDistortion{order}Order" for order in orders]
        return SimpleNamespace(**dict(zip(names, numbers, strict=True)))

    def GetDepthFrameToCameraSpaceTable(self, count: Any) -> Any:
        count._obj.value = SIZE
        table = (rays() * (1, -1)).astype(np.float32)  # camera space: y up
        self._kept = table
        return table.ctypes.data_as(ctypes.POINTER(PointF))

    def MapDepthFrameToColorSpace(self, depths: int, depth: Any, points: int, out: Any) -> None:
        assert depths == points == SIZE
        depth_mm = np.ctypeslib.as_array(depth, (424, 512))
        assert (depth_mm == depth_mm[0, 0]).all()
        found = seen_at(float(depth_mm[0, 0])).astype(np.float32)  # a copy
        found[:3] = -np.inf  # not seen
        _copy(found, out)


def _copy(array: np.ndarray, pointer: Any) -> None:
    ctypes.memmove(ctypes.cast(pointer, ctypes.c_void_p), np.ascontiguousarray(array).ctypes.data, array.nbytes)


class FakeKinect(KinectSensor):
    """``--source kinect`` with the next of ``kinects`` plugged in."""

    kinects: ClassVar[list[FakeWindows]] = []

    def __init__(self, argument: str, workspace: Path) -> None:
        super().__init__(argument, workspace, FakeKinect.kinects.pop(0).driver)


# libfreenect2 -------------------------------------------------------------------------------------------------------


class FreenectFrame:
    """A frame of either binding.  Its memory is gone once it is let go of, as that of libfreenect2 is."""

    def __init__(self, stream: str, count: int, time_s: float, status: int = 0, is_rgb: bool = False) -> None:
        self.timestamp, self.sequence, self.status = round(time_s / 0.000125), count, status
        self.format = "RGBX" if is_rgb else "BGRX"
        if stream == "color":
            self._array = color_image(time_s)
            if is_rgb:
                self._array = np.ascontiguousarray(self._array[..., [2, 1, 0, 3]])
        else:
            self._array = depth_image(time_s).astype(np.float32)
            self._array[1, :4] = np.nan, np.inf, -1.0, 0.0

    def to_array(self) -> np.ndarray:
        return self._array

    asarray = to_array

    def __del__(self) -> None:
        self._array[...] = 7


def freenect2_module(device: Device, num_devices: int = 1, bad_every: int = 0, is_rgb: bool = False) -> ModuleType:
    """rjw57's freenect2 0.2.3: pictures by callback; looks for devices once per process."""
    module = ModuleType("freenect2")
    module.__spec__ = ModuleSpec("freenect2", None)
    state = SimpleNamespace(num_devices=num_devices, opened=0, closed=0)

    class NoDeviceError(RuntimeError):
        pass

    class Handle:
        def __init__(self) -> None:
            if module._FREENECT2_SINGLETON is None:  # type: ignore[attr-defined]
                module._FREENECT2_SINGLETON = state.num_devices  # type: ignore[attr-defined]
            if not module._FREENECT2_SINGLETON:  # type: ignore[attr-defined]
                raise NoDeviceError
            state.opened += 1
            self.ir_camera_params: Any = None
            self.color_camera_params: Any = None

        def start(self, listener: Callable[[str, FreenectFrame], None]) -> None:
            device.start()
            self._over = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
            self._thread.start()
            self.ir_camera_params, self.color_camera_params = IR, color_params()

        def _run(self, listener: Callable[[str, FreenectFrame], None]) -> None:
            given: dict[str, tuple[int, float] | None] = {"color": None, "depth": None}
            while not self._over.wait(0.002):
                device.tick()
                for stream in given:
                    newest = device.newest(stream)
                    if newest is not None and newest != given[stream] and device.is_there:
                        given[stream] = newest
                        status = int(bool(bad_every) and newest[0] % bad_every == 0)
                        listener(stream, FreenectFrame(stream, *newest, status, is_rgb))
                        if stream == "depth":
                            listener("ir", FreenectFrame("depth", *newest))

        def stop(self) -> None:
            self._over.set()
            self._thread.join(5)

        def close(self) -> None:
            state.closed += 1

    module.__dict__.update(
        _FREENECT2_SINGLETON=None, NoDeviceError=NoDeviceError, Device=Handle, state=state,
        FrameType=SimpleNamespace(Color="color", Depth="depth", Ir="ir"),
        FrameFormat=SimpleNamespace(BGRX="BGRX", RGBX="RGBX"),
    )  # fmt: skip
    return module


def pylibfreenect2_module(device: Device, num_devices: int = 1) -> ModuleType:
    """r9y9's pylibfreenect2 0.1.4: one listener keeps the newest picture of each of its streams."""
    module = ModuleType("pylibfreenect2")
    module.__spec__ = ModuleSpec("pylibfreenect2", None)
    state = SimpleNamespace(num_devices=num_devices, closed=0, held=0)

    class SyncMultiFrameListener:
        def __init__(self, types: int) -> None:
            self._stream = {1: "color", 4: "depth"}[types]
            self._taken: tuple[int, float] | None = None

        def hasNewFrame(self) -> bool:
            if self._stream == "depth":
                device.tick()
            return device.newest(self._stream) not in (None, self._taken) and device.is_there

        def waitForNewFrame(self) -> dict[str, FreenectFrame]:
            newest = device.newest(self._stream)
            assert newest is not None
            self._taken, state.held = newest, state.held + 1
            return {self._stream: FreenectFrame(self._stream, *newest)}

        def release(self, frames: dict[str, FreenectFrame]) -> None:
            state.held -= 1
            frames.clear()

    class Handle:
        def setColorFrameListener(self, listener: Any) -> None:
            assert listener._stream == "color"

        def setIrAndDepthFrameListener(self, listener: Any) -> None:
            assert listener._stream == "depth"

        def start(self) -> None:
            device.start()
            self.is_started = True

        def getIrCameraParams(self) -> Any:
            assert self.is_started  # they are read from the device then
            return IR

        def getColorCameraParams(self) -> Any:
            return color_params()

        def stop(self) -> None: ...

        def close(self) -> None:
            state.closed += 1

    class Freenect2:
        def enumerateDevices(self) -> int:
            return state.num_devices

        def openDefaultDevice(self) -> Handle:
            assert state.num_devices  # the real one hands over a null pointer, and the process ends at its first use
            return Handle()

    module.__dict__.update(
        Freenect2=Freenect2, SyncMultiFrameListener=SyncMultiFrameListener, state=state,
        FrameType=SimpleNamespace(Color=1, Ir=2, Depth=4),
    )  # fmt: skip
    return module


# What pykinect2's text finds on Windows -----------------------------------------------------------------------------

COMTYPES = """
import ctypes
class IUnknown(ctypes.Structure): pass
class GUID(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint32 * 4)]
    def __init__(self, text=""): super().__init__()
def COMMETHOD(*spec): return spec
helpstring, dispid = str, int
def _check_version(actual, mtime=None): raise ImportError("Wrong version")
"""


def pretend_windows(monkeypatch: Any, folder: Path) -> None:
    """As much of ctypes' Windows side, and of comtypes 1.4, as it takes to import pykinect2 with 64 bits."""
    (folder / "comtypes").mkdir()
    (folder / "comtypes" / "__init__.py").write_text(COMTYPES)
    (folder / "comtypes" / "hresult.py").write_text("")
    monkeypatch.syspath_prepend(str(folder))
    pair = type("Pair", (ctypes.Structure,), {"_fields_": [("low", ctypes.c_uint32), ("high", ctypes.c_uint32)]})
    large = type("Large", (ctypes.Union,), {"_fields_": [("whole", ctypes.c_int64), ("parts", pair)]})
    wintypes = ModuleType("ctypes.wintypes")
    wintypes.__dict__.update(_LARGE_INTEGER=large, _ULARGE_INTEGER=large, _FILETIME=pair)
    for name in ("comtypes", "comtypes.hresult"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "ctypes.wintypes", wintypes)
    monkeypatch.setattr(ctypes, "c_ulong", ctypes.c_uint32)  # four bytes there
    monkeypatch.setattr(ctypes, "HRESULT", ctypes.c_int32, raising=False)
    monkeypatch.setattr(ctypes, "WinDLL", lambda name: _Library(), raising=False)
    monkeypatch.setattr("_ctypes.COMError", COMError, raising=False)


class _Library:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__dict__[name] = SimpleNamespace()
        return self.__dict__[name]


def calibration_of_windows() -> Calibration:
    """By way of the SDK's tables."""
    kinect = FakeWindows(Device())
    kinect.has_given_depth = True
    driver = kinect.driver()
    driver.start()
    found = driver.calibration()
    assert found is not None
    return found
