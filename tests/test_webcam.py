"""A webcam as a sensor: what it shows comes in order, with time and colours right; what goes wrong is one line."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from capture import webcam
from capture.errors import UserError
from capture.live import LiveFrames
from capture.recording import Recording
from capture.sensor import Silence
from capture.webcam import Webcam
from pipeline import SENSORS


class Device:
    """Stands for cv2.VideoCapture: ``shown`` pictures of 64 x 48 in BGR, then none."""

    def __init__(self, shown: int, period_s: float = 0.01) -> None:
        self.shown, self.period_s, self.count, self.is_released = shown, period_s, 0, False
        self.wishes: dict[int, float] = {}

    def set(self, what: int, wish: float) -> bool:
        self.wishes[what] = wish
        return True

    def read(self):
        time.sleep(self.period_s)
        if self.count >= self.shown:
            return False, None
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[..., 2], picture[..., 0] = 200, self.count
        self.count += 1
        return True, picture

    def release(self) -> None:
        self.is_released = True


def test_pictures_come_in_order_with_their_time_and_colours():
    device = Device(1000)
    with Webcam("", open_device=lambda _: device) as sensor:
        frames = [sensor.read(1.0) for _ in range(5)]
        assert sensor.rig.depth is None and sensor.rig.color.image_wh == (64, 48) and not sensor.focal_is_known
    assert device.is_released and device.wishes[cv2.CAP_PROP_FRAME_WIDTH] == 1280
    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices)) and np.all(np.diff([frame.time_s for frame in frames]) > 0)
    for frame in frames:
        assert frame.color[0, 0].tolist() == [200, 0, frame.index % 256] and frame.depth_mm is None


def test_a_camera_that_is_pulled_out_is_told(monkeypatch):
    monkeypatch.setattr(webcam, "GONE_S", 0.2)
    with Webcam("0", open_device=lambda _: Device(3)) as sensor:
        end_s = time.monotonic() + 5
        with pytest.raises(UserError, match="still connected"):
            while time.monotonic() < end_s:
                try:
                    sensor.read(0.1)
                except Silence:
                    continue


def test_no_camera_and_no_picture_are_one_line(monkeypatch, tmp_path):
    for argument in ("17", str(tmp_path / "video9")):
        with pytest.raises(UserError, match=r"webcam:.*; (is it plugged in|say its number)") as caught:
            Webcam(argument).open()
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(webcam, "FIRST_FRAME_S", 0.2)
    device = Device(0)
    with pytest.raises(UserError, match="no picture within"):
        Webcam("", open_device=lambda _: device).open()
    assert device.is_released


def test_it_is_filmed_like_any_sensor(tmp_path, monkeypatch):
    from capture.recording import RecordingWriter

    assert SENSORS["webcam"] == "capture.webcam.Webcam"
    with LiveFrames(Webcam("", open_device=lambda _: Device(1000))) as live:
        writer = RecordingWriter(tmp_path, live.rig, "live: webcam", live.focal_is_known)
        for count, frame in enumerate(live.frames()):
            writer.add(frame.time_s, frame.color)
            if count == 4:
                break
        writer.finish()
    recording = Recording.load(tmp_path)
    assert len(recording) == 5 and recording.rig.depth is None and not recording.focal_is_known
