"""Sensors: a failed start leaves nothing behind, late readers lose frames in real time and nothing otherwise."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from capture.camera import Camera, Rig
from capture.errors import UserError
from capture.recording import Frame, RecordingWriter
from capture.sensor import MAILBOX, Ended, Mailbox, Pace, ReplaySensor, Sensor, open_sensor
from demo.live import bounce

CAMERA = Camera((32, 24), 40.0, 40.0, 16.0, 12.0)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    writer = RecordingWriter(tmp_path / "r", Rig(CAMERA, CAMERA, np.eye(4)), "a test")
    for i in range(20):
        writer.add(i / 20, np.full((24, 32, 3), 10 * i, np.uint8), np.full((24, 32), 1000 + i, np.uint16))
    writer.finish()
    return tmp_path / "r"


def frame(index: int) -> Frame:
    return Frame(index, index / 30, np.zeros((2, 2, 3), np.uint8), None)


class Flaky(Sensor):
    """Fails to start as often as it is told to, with the device already claimed."""

    claims = 0

    def __init__(self, failures: int) -> None:
        self._failures = failures

    def read(self, timeout_s: float) -> Frame:
        return frame(0)

    def _start(self) -> None:
        self.claims += 1
        if self._failures:
            self._failures -= 1
            raise UserError("plug it in")

    def _stop(self) -> None:
        self.claims = 0


def test_a_failed_open_lets_go_and_may_be_tried_again() -> None:
    sensor = Flaky(2)
    for _ in range(2):
        with pytest.raises(UserError, match="plug it in"):
            sensor.open()
        assert sensor.claims == 0
    with sensor:
        assert sensor.claims == 1 and sensor.read(1.0).index == 0
    assert sensor.claims == 0
    sensor.close()


def test_a_replay_without_a_clock_gives_every_frame_to_a_slow_reader(recorded: Path) -> None:
    seen = []
    with ReplaySensor(str(recorded), is_realtime=False) as sensor:
        assert sensor.rig.color == CAMERA
        with pytest.raises(Ended):
            while True:
                seen.append(sensor.read(5.0))
                time.sleep(0.01)
        with pytest.raises(Ended):
            sensor.read(1.0)
    assert [f.index for f in seen] == list(range(20)) and seen[7].depth_mm is not None
    assert (seen[7].depth_mm == 1007).all()


def test_a_replay_in_real_time_takes_its_time_and_loses_what_nobody_reads(recorded: Path) -> None:
    with ReplaySensor(str(recorded)) as sensor:
        first, started_s = sensor.read(5.0), time.monotonic()
        time.sleep(0.6)
        rest = []
        with pytest.raises(Ended):
            while True:
                rest.append(sensor.read(5.0))
    assert first.index == 0 and time.monotonic() - started_s > 0.8
    assert 19 - len(rest) >= 12 - MAILBOX - 2, "about twelve frames went by"


def test_a_sensor_can_be_opened_twice_and_leaves_no_threads(recorded: Path) -> None:
    threads = threading.active_count()
    sensor = ReplaySensor(str(recorded), is_realtime=False)
    for _ in range(2):
        with sensor:
            assert sensor.read(5.0).index == 0
    assert threading.active_count() == threads


def test_what_cannot_be_played_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="replay:PATH"):
        open_sensor("replay", {"replay": "capture.sensor.ReplaySensor"}, tmp_path)
    with pytest.raises(UserError, match="no such file"):
        open_sensor("replay:nowhere", {"replay": "capture.sensor.ReplaySensor"}, tmp_path)
    with pytest.raises(UserError, match=r"no sensor called 'kinect'.*replay"):
        open_sensor("kinect", {"replay": "capture.sensor.ReplaySensor"}, tmp_path)
    with pytest.raises(UserError, match="takes no argument"):
        open_sensor("demo:x", {"demo": "demo.live.DemoSensor"}, tmp_path)
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match=r"film\.mp4"):
        open_sensor(f"replay:{tmp_path / 'film.mp4'}", {"replay": "capture.sensor.ReplaySensor"}, tmp_path).open()


def test_a_mailbox_keeps_few_and_says_when_nothing_comes() -> None:
    mailbox = Mailbox("a test")
    for i in range(5):
        mailbox.put(frame(i))
    assert [mailbox.get(0.1).index for _ in range(MAILBOX)] == [0, 1]
    with pytest.raises(UserError, match=r"a test: no picture for 0\.1 s"):
        mailbox.get(0.1)


def test_a_pace_is_kept_without_drift() -> None:
    now_s = [5.0]
    pace = Pace(30.0, lambda: now_s[0])
    assert pace.due() == 0
    now_s[0] = 5.5
    assert pace.due() == 15 and pace.wait_s(18) == pytest.approx(0.1)


def test_bouncing_has_no_seam() -> None:
    shown = [bounce(i, 5) for i in range(20)]
    assert shown[:10] == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1]
    assert all(abs(a - b) == 1 for a, b in pairwise(shown))
    assert [bounce(i, 1) for i in range(3)] == [0, 0, 0]
