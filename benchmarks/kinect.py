"""Does a Kinect V2 deliver what a recording needs, whatever its drivers do?  On stand-ins with their known defects.

    python benchmarks/kinect.py [--seconds 10]

No device and no driver is needed: ``tests/fake_kinect.py`` has both, with the published factory set.  Its time goes on
when what was there has been taken, so that a loaded machine measures the code and not itself.  Prints one table.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fake_kinect import (  # noqa: E402
    IR,
    Device,
    FakeWindows,
    calibration_of_windows,
    color_params,
    color_time_s,
    depth_time_s,
    seen_at,
)

from capture.camera import invert, pixel_rays, project, transform  # noqa: E402
from capture.importers.upright import upright_rig  # noqa: E402
from capture.kinect.calibration import Calibration, from_libfreenect2  # noqa: E402
from capture.kinect.sensor import KinectSensor  # noqa: E402
from capture.recorder import CaptureConfig, Recorder  # noqa: E402
from capture.recording import Recording, RecordingWriter  # noqa: E402
from capture.sensor import Silence  # noqa: E402

Row = tuple[str, str]
DISTANCES_MM = np.linspace(500, 4500, 21)


def registration(name: str, calibrate: Callable[[], Calibration | None]) -> Iterator[Row]:
    """Between the factory's colour pixel and ours, over every depth pixel; CPU time."""
    started_s = time.process_time()
    found = calibrate()
    took_s = time.process_time() - started_s
    assert found is not None
    rig = upright_rig(found.rig, 0, True)  # as the factory sees it
    assert rig.depth is not None and rig.depth_from_color is not None
    all_px, visible_px = [], []
    for distance in DISTANCES_MM:
        points_m = pixel_rays(rig.depth) * distance / 1000
        true_px = seen_at(float(distance)) + 0.5
        apart_px = np.linalg.norm(
            project(rig.color, transform(invert(rig.depth_from_color), points_m)) - true_px, axis=-1
        )
        is_visible = ((true_px > 0) & (true_px < rig.color.image_wh)).all(axis=-1)
        all_px.append(apart_px)
        visible_px.append(apart_px[is_visible])
    every, visible = np.concatenate(all_px), np.concatenate(visible_px)
    words = f"median {np.median(every):.2f} px, 95 % {np.percentile(every, 95):.2f}, largest {every.max():.2f}"
    yield f"depth in colour, {name}", f"{words}; where colour sees it {np.median(visible):.2f}, {visible.max():.2f}"
    yield "  fit", f"{took_s:.1f} s of CPU time"


def recorded(folder: Path, kinect: FakeWindows, seconds: float) -> tuple[Recording, str, str]:
    """(what the recorder made of it in ``folder``, its summary, the sensor's remark)."""
    with kinect.device.sensor(kinect.driver) as sensor:
        writer = RecordingWriter(folder, sensor.rig, "a stand-in")
        with Recorder(sensor, CaptureConfig()) as recorder:
            is_taken = kinect.device.is_ready
            assert is_taken is not None
            kinect.device.is_ready = lambda: is_taken() and recorder._waiting < 8
            recorder.begin(writer, seconds)
            recorder.start()
            recorder.is_enough.wait()
            tally = recorder.end()
        writer.finish()
        return Recording.load(folder), tally.summary(recorder.seconds), sensor.remark()


def pairs(name: str, kinect: FakeWindows, seconds: float) -> Iterator[Row]:
    """What was stored, against what was there."""
    with tempfile.TemporaryDirectory() as folder:
        recording, summary, remark = recorded(Path(folder), kinect, seconds)
        taken_s = np.array([color_time_s(frame.color) for frame in recording])
        depths_s = np.array([depth_time_s(d) if (d := frame.depth_mm) is not None else np.nan for frame in recording])
    known_s = depths_s[np.isfinite(depths_s)]
    twice = len(taken_s) - len(set(taken_s.tolist())) + len(known_s) - len(set(known_s.tolist()))
    apart_ms = 1e3 * np.abs(depths_s - taken_s)
    words = f"{twice} stored twice; pairs {np.nanmedian(apart_ms):.1f} ms apart, {np.nanmax(apart_ms):.1f} at most"
    yield name, f"{words}, {len(taken_s) - len(known_s)} of {len(taken_s)} without depth"
    yield "  recorder", summary + (f"; said: {remark}" if remark else "")


def unplugged() -> Iterator[Row]:
    """How soon a silence is told, and with which words."""
    device = Device(pace=1.0)
    with KinectSensor("", Path(), FakeWindows(device, is_stuck=True).driver) as sensor:
        sensor.read(5.0)
        device.unplugged_s = (device.now_s, float("inf"))
        pulled_s = time.monotonic()
        try:
            while True:
                sensor.read(1.0)
        except Silence as error:
            yield "pulled out", f"told after {time.monotonic() - pulled_s:.2f} s: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description="What a Kinect V2 delivers, on stand-ins.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the device, per row")
    chosen = parser.parse_args()
    logging.disable(logging.INFO)

    rows = [
        *registration("libfreenect2", lambda: from_libfreenect2(IR, color_params())),
        *registration("Windows", calibration_of_windows),
        *pairs("a mailbox that always says new", FakeWindows(Device(), is_stuck=True), chosen.seconds),
        *pairs("every third call fails", FakeWindows(Device(), fails_every=3), chosen.seconds),
        *pairs("15 Hz colour", FakeWindows(Device(color_hz=15.0)), chosen.seconds),
        *pairs("no intervals told, 15 Hz", FakeWindows(Device(color_hz=15.0), knows_interval=False), chosen.seconds),
        *pairs("depth 15.9 ms later", FakeWindows(Device(depth_late_s=0.0159)), chosen.seconds),
        *unplugged(),
    ]
    for name, words in rows:
        print(f"{name:34}{words}")


if __name__ == "__main__":
    main()
