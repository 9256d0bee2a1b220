"""--source kinect with real drivers' defects: nothing twice, pairs of one moment, a silence told, all let go of."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from fake_kinect import (
    IR,
    Device,
    FakeWindows,
    color_time_s,
    depth_time_s,
    freenect2_module,
    pylibfreenect2_module,
)

import doctor
from capture.errors import UserError
from capture.kinect import sensor as kinect_sensor
from capture.kinect import usb
from capture.kinect.libfreenect2 import libfreenect2_driver
from capture.kinect.pairing import MAX_APART_S
from capture.kinect.sensor import KinectSensor
from capture.recording import Frame
from capture.sensor import Silence, open_sensor

HERE = Path()
TENTH_MS = 1.01e-4  # what the pictures' own time is exact to


def sensor_of(kinect: FakeWindows) -> KinectSensor:
    return KinectSensor("", HERE, kinect.driver)


def watched(sensor: KinectSensor, seconds: float) -> list[Frame]:
    """What it gives for so long of its own time."""
    frames = [sensor.read(5.0)]
    while frames[-1].time_s - frames[0].time_s < seconds:
        frames.append(sensor.read(5.0))
    return frames


def check(frames: list[Frame], with_depth: float = 0.8) -> None:
    """Nothing twice, in order, each depth within 16 ms of its picture, times those of the device."""
    taken_s = [color_time_s(frame.color) for frame in frames]
    assert all(after > before for before, after in pairwise(taken_s))
    assert all(after.index > before.index and after.time_s > before.time_s for before, after in pairwise(frames))
    depths_s = [depth_time_s(frame.depth_mm) if frame.depth_mm is not None else np.nan for frame in frames]
    apart_s = np.abs(np.array(depths_s) - taken_s)
    assert not len(known := [d for d in depths_s if np.isfinite(d)]) or np.nanmax(apart_s) <= MAX_APART_S + 2 * TENTH_MS
    assert len(known) == len(set(known)) >= with_depth * len(frames)
    np.testing.assert_allclose(np.diff([frame.time_s for frame in frames]), np.diff(taken_s), atol=2 * TENTH_MS)


@pytest.mark.parametrize(
    "kinect",
    [
        FakeWindows(Device()),
        FakeWindows(Device(), is_stuck=True),
        FakeWindows(Device(depth_late_s=0.0157), fails_every=3),
        FakeWindows(Device(first_depth_s=0.6), knows_interval=False),
    ],
    ids=["plain", "a mailbox that always says new", "every third call fails", "depth comes late"],
)
def test_windows_gives_each_moment_once(kinect: FakeWindows) -> None:
    with kinect.device.sensor(kinect.driver) as sensor:
        frames = watched(sensor, 0.6)
        assert sensor.focal_is_known and sensor.calibration.is_good and "depth_rays" in sensor.factory
        assert sensor.rig.depth is not None and sensor.rig.depth.image_wh == (512, 424)
    check(frames)
    assert len(frames) >= 17 and frames[0].color.shape == (1080, 1920, 3)
    assert (frames[0].color[::90, ::90, 0] == 128).all(), "RGB, not BGR"
    assert kinect.opened == kinect.closed == 1 and not kinect.frames_held


def test_dim_light_halves_the_rate_and_is_said() -> None:
    kinect = FakeWindows(Device(color_hz=15.0))
    with kinect.device.sensor(kinect.driver) as sensor:
        frames = watched(sensor, 1.3)
        assert "dim light" in sensor.remark()
    check(frames)
    assert np.median(np.diff([frame.time_s for frame in frames])) == pytest.approx(1 / 15, abs=1e-3)
    assert frames[-1].index - frames[0].index + 1 == len(frames), "half the rate is no loss"


@pytest.mark.parametrize("is_stuck", [False, True])
def test_an_unplugged_sensor_is_silent_with_the_reason_and_goes_on_when_it_is_back(is_stuck: bool) -> None:
    device = Device(pace=1.0)
    with sensor_of(FakeWindows(device, is_stuck)) as sensor:
        before = watched(sensor, 0.3)
        device.unplugged_s = (device.now_s, device.now_s + 2.5)
        with pytest.raises(Silence) as told:
            while True:
                before.append(sensor.read(1.0))
        words = str(told.value)
        assert words.startswith("kinect: no picture for ") and "check its power supply" in words and "\n" not in words
        assert float(words.split()[4]) >= 1.0
        after = None
        while after is None:
            with suppress(Silence):
                after = sensor.read(1.0)
        assert 2.0 < after.time_s - before[-1].time_s < 20.0 and after.index > before[-1].index + 50
        assert color_time_s(after.color) < 20.0, "its clock has started anew"
        check([after, *watched(sensor, 0.3)], with_depth=0.0)
    check(before, with_depth=0.0)


def test_a_failed_open_lets_go_and_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinect_sensor, "SETTLE_S", 1.5)
    threads = threading.active_count()
    kinect = FakeWindows(Device(first_depth_s=3.0, pace=1.0))
    kinect.fails_to_open = 1
    sensor = sensor_of(kinect)
    with pytest.raises(UserError, match=r"refuses to open it \(0x80004005\)"):
        sensor.open()
    with pytest.raises(UserError, match=r"no depth within .* no pictures come: plug it into another USB 3 port"):
        sensor.open()
    assert threading.active_count() == threads and kinect.closed >= 1
    monkeypatch.setattr(kinect_sensor, "SETTLE_S", 20.0)
    with sensor:
        assert sensor.read(5.0).color.shape == (1080, 1920, 3)
    sensor.close()
    assert threading.active_count() == threads and kinect.closed == kinect.opened + 1


# libfreenect2, by either of its bindings.


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], ModuleType]:
    """Installs a binding; USB tells nothing."""
    monkeypatch.setattr(usb, "SYSFS", Path("/nowhere"))

    def install(module: ModuleType) -> ModuleType:
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module

    return install


@pytest.mark.parametrize("make", [freenect2_module, pylibfreenect2_module], ids=["freenect2", "pylibfreenect2"])
def test_libfreenect2_gives_each_moment_once(
    make: Callable[[Device], ModuleType], plug: Callable[[ModuleType], ModuleType]
) -> None:
    device = Device()
    module = plug(make(device))
    with device.sensor(libfreenect2_driver) as sensor:
        frames = watched(sensor, 0.6)
        assert sensor.calibration.is_good
        assert sensor.factory["ir_params"].tolist() == [*vars(IR).values()]
    check(frames)
    assert len(frames) >= 17 and (frames[0].color[::90, ::90, 0] == 128).all()
    depth_mm = next(frame.depth_mm for frame in frames if frame.depth_mm is not None)
    assert depth_mm.dtype == np.uint16 and (depth_mm[1, -4:] == 0).all() and (depth_mm[2:] == 2000).all()
    assert module.state.closed == 1


def test_damaged_pictures_stay_out_and_rgbx_is_understood(plug: Callable[[ModuleType], ModuleType]) -> None:
    device = Device()
    plug(freenect2_module(device, bad_every=4, is_rgb=True))
    with device.sensor(libfreenect2_driver) as sensor:
        frames = watched(sensor, 0.8)
    assert (frames[0].color[::90, ::90, 0] == 128).all()
    assert all(round((color_time_s(frame.color) - 1234.0) * 30) % 4 for frame in frames)
    gaps = np.diff([frame.index for frame in frames])
    assert sorted(set(gaps)) == [1, 2] and (gaps == 2).sum() >= 5, "they count as lost"


@pytest.mark.parametrize("make", [freenect2_module, pylibfreenect2_module], ids=["freenect2", "pylibfreenect2"])
def test_a_kinect_that_is_plugged_in_later_is_found(
    make: Callable[..., ModuleType], plug: Callable[[ModuleType], ModuleType]
) -> None:
    module = plug(make(Device(), num_devices=0))
    sensor = KinectSensor("libfreenect2", HERE)
    with pytest.raises(UserError, match="libfreenect2 finds no Kinect V2: check its power supply"):
        sensor.open()
    module.state.num_devices = 1
    with sensor:
        assert sensor.read(5.0).color.shape == (1080, 1920, 3)


def test_an_unplugged_libfreenect2_is_silent(plug: Callable[[ModuleType], ModuleType]) -> None:
    device = Device(pace=1.0)
    plug(pylibfreenect2_module(device))
    with KinectSensor("libfreenect2", HERE) as sensor:
        sensor.read(5.0)
        device.unplugged_s = (device.now_s, float("inf"))
        began_s = time.monotonic()
        with pytest.raises(Silence, match="another USB 3 port"):
            while time.monotonic() - began_s < 5:
                sensor.read(1.0)


# What is missing, and what to do about it.


def test_which_driver_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    sensors = {"kinect": "capture.kinect.sensor.KinectSensor"}
    with pytest.raises(UserError, match="there are kinect:windows, kinect:libfreenect2"):
        open_sensor("kinect:xbox", sensors, HERE)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(UserError, match="works on Windows only; use --source kinect:libfreenect2"):
        open_sensor("kinect:windows", sensors, HERE).open()
    for name in ("freenect2", "pylibfreenect2"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(UserError, match="no binding of libfreenect2 is installed; build libfreenect2"):
        open_sensor("kinect", sensors, HERE).open()
    monkeypatch.setattr(sys, "platform", "win32")
    assert kinect_sensor.driver_of("") is kinect_sensor.DRIVERS["windows"]


def bus(folder: Path, **values: str) -> Path:
    device = folder / "2-1"
    device.mkdir(parents=True)
    for name, value in {"idVendor": "045e", "idProduct": "02c4", "speed": "5000", **values}.items():
        (device / name).write_text(f"{value}\n")
    return folder


def test_usb_says_what_is_wrong_with_the_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usb.look(tmp_path / "none") is None
    (tmp_path / "empty").mkdir()
    nothing = usb.look(tmp_path / "empty")
    assert nothing is not None and not nothing.is_usable and "no Kinect V2 on USB" in nothing.words
    slow = usb.look(bus(tmp_path / "slow", speed="480"))
    assert slow is not None and not slow.is_usable and "480 Mbit/s: plug it into a USB 3 port" in slow.words
    other = usb.look(bus(tmp_path / "other", idProduct="02ad"))
    assert other is not None and "no Kinect V2 on USB" in other.words
    sysfs, node = bus(tmp_path / "fine", busnum="2", devnum="7"), tmp_path / "dev" / "002" / "007"
    node.parent.mkdir(parents=True)
    node.touch()
    fine = usb.look(sysfs, tmp_path / "dev")
    assert fine is not None and fine.is_usable and "5000 Mbit/s" in fine.words
    monkeypatch.setattr(usb.os, "access", lambda path, mode: path != node)
    forbidden = usb.look(sysfs, tmp_path / "dev")
    assert forbidden is not None and not forbidden.is_usable and "90-kinect2.rules" in forbidden.words


def test_a_port_that_is_too_slow_is_refused_before_libfreenect2_is_asked(
    tmp_path: Path, plug: Callable[[ModuleType], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = plug(freenect2_module(Device()))
    monkeypatch.setattr(usb, "SYSFS", bus(tmp_path, speed="480"))
    with pytest.raises(UserError, match="480 Mbit/s"):
        KinectSensor("libfreenect2", HERE).open()
    assert module.state.opened == 0


def test_doctor_films_for_a_moment(plug: Callable[[ModuleType], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    plug(freenect2_module(Device()))
    monkeypatch.setattr(doctor, "DOCTOR_LOOK_S", 0.5)
    found = {check.what: check for check in doctor.examine_kinect("libfreenect2")}
    assert found["package"].words == "freenect2" and found["cameras"].state == "ok"
    assert "a second" in found["pictures"].words and "% with depth" in found["pictures"].words
    plug(freenect2_module(Device(color_hz=15.0)))
    monkeypatch.setattr(doctor, "DOCTOR_LOOK_S", 1.8)
    found = {check.what: check for check in doctor.examine_kinect("libfreenect2")}
    assert found["pictures"].state == "note" and "dim light" in found["pictures"].words


def test_doctor_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(usb, "SYSFS", tmp_path / "empty")
    found = list(doctor.examine_kinect("libfreenect2"))
    assert [check.state for check in found] == ["missing", "missing"]
    assert "no Kinect V2 on USB" in found[0].words and "pip install freenect2" in found[1].words
