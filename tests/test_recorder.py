"""The recorder: a bounded queue, nothing twice, every loss counted, and an end in any case."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from capture.camera import Camera, Rig
from capture.errors import UserError
from capture.recorder import CaptureConfig, Recorder, exposure_words, plate_of
from capture.recording import Frame, Recording, RecordingWriter
from capture.sensor import Ended, Sensor

CAMERA = Camera((32, 24), 40.0, 40.0, 16.0, 12.0)
RIG = Rig(CAMERA, CAMERA, np.eye(4))


def frame(index: int, time_s: float | None = None) -> Frame:
    color = np.full((24, 32, 3), index % 250, np.uint8)
    return Frame(index, index / 30 if time_s is None else time_s, color, np.full((24, 32), index + 1, np.uint16))


class Scripted(Sensor):
    """Gives these frames, once ``go`` is set, then ends or raises."""

    def __init__(self, frames: list[Frame], error: BaseException | None = None) -> None:
        self._frames, self._error = iter(frames), error or Ended()
        self.go = threading.Event()
        self.rig = RIG

    def read(self, timeout_s: float) -> Frame:
        self.go.wait()
        found = next(self._frames, None)
        if found is None:
            raise self._error
        return found

    def _start(self) -> None: ...

    def _stop(self) -> None: ...


def take(sensor: Scripted, folder: Path, config: CaptureConfig, writer: RecordingWriter | None = None) -> Recorder:
    """Record all of it."""
    writer = RecordingWriter(folder, RIG, "a test") if writer is None else writer
    with Recorder(sensor, config) as recorder:
        recorder.begin(writer)
        recorder.start()
        sensor.go.set()
        while not recorder.is_over:
            time.sleep(0.005)
        recorder.end()
    if len(writer):
        writer.finish()
    return recorder


def test_every_frame_is_written_in_order_from_time_zero(tmp_path: Path) -> None:
    sensor = Scripted([frame(i, 7.0 + i / 30) for i in range(50)])
    recorder = take(sensor, tmp_path, CaptureConfig(lossless_color=True, queue_frames=50))
    recording = Recording.load(tmp_path)
    assert len(recording) == recorder.tally.written == 50 and recorder.tally.dropped == 0
    assert recording.times_s == pytest.approx(np.arange(50) / 30)
    for i, found in enumerate(recording):
        assert (found.color == i).all() and found.depth_mm is not None and (found.depth_mm == i + 1).all()


def test_what_comes_twice_is_kept_once_and_gaps_are_counted(tmp_path: Path) -> None:
    frames = [frame(0), frame(0), frame(1), frame(1), frame(2), frame(9), frame(10, 9 / 30), frame(11)]
    tally = take(Scripted(frames), tmp_path, CaptureConfig()).tally
    assert (tally.written, tally.repeated, tally.lost) == (5, 3, 7)
    assert tally.longest_gap_s == pytest.approx(7 / 30)
    assert "7 lost by the sensor, 3 came twice" in tally.summary(1.0)


class Slow(RecordingWriter):
    def add_encoded(self, time_s: float, color: bytes, depth: bytes = b"") -> None:
        time.sleep(0.05)
        super().add_encoded(time_s, color, depth)


def test_a_slow_disk_drops_frames_and_never_fills_memory(tmp_path: Path) -> None:
    writer = Slow(tmp_path, RIG, "a test")
    tally = take(Scripted([frame(i) for i in range(200)]), tmp_path, CaptureConfig(queue_frames=4), writer).tally
    assert tally.most_waiting <= 4 and tally.dropped > 100
    assert tally.written + tally.dropped == 200 == len(Recording.load(tmp_path)) + tally.dropped


class Full(RecordingWriter):
    def add_encoded(self, time_s: float, color: bytes, depth: bytes = b"") -> None:
        if len(self) == 7:
            raise OSError(28, "No space left on device")
        super().add_encoded(time_s, color, depth)


def test_a_full_disk_ends_the_recording_with_what_was_written(tmp_path: Path) -> None:
    recorder = take(Scripted([frame(i) for i in range(30)]), tmp_path, CaptureConfig(), Full(tmp_path, RIG, "a test"))
    assert isinstance(recorder.failure, OSError) and recorder.is_over
    assert len(Recording.load(tmp_path)) == recorder.tally.written == 7


def test_a_sensor_that_is_unplugged_ends_the_recording(tmp_path: Path) -> None:
    recorder = take(Scripted([frame(i) for i in range(5)], UserError("unplugged")), tmp_path, CaptureConfig())
    assert str(recorder.failure) == "unplugged" and len(Recording.load(tmp_path)) == 5


def test_seconds_are_those_of_the_sensor(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, RIG, "a test")
    sensor = Scripted([frame(i, 3.0 + i / 10) for i in range(40)])
    with Recorder(sensor, CaptureConfig()) as recorder:
        recorder.begin(writer, seconds=1.5)
        recorder.start()
        sensor.go.set()
        assert recorder.is_enough.wait(10.0)
        assert recorder.end().written == 15
    writer.finish()
    assert Recording.load(tmp_path).times_s[-1] == pytest.approx(1.4)


def test_depth_can_be_left_out(tmp_path: Path) -> None:
    take(Scripted([frame(i) for i in range(3)]), tmp_path, CaptureConfig(no_depth=True))
    assert not Recording.load(tmp_path).has_depth.any()


def test_impossible_settings_are_refused() -> None:
    for bad in ({"queue_frames": 0}, {"countdown_s": -1.0}, {"plate_frames": -1}, {"num_encoders": 0}):
        with pytest.raises(UserError, match=f"capture.{next(iter(bad))}"):
            CaptureConfig(**bad)  # type: ignore[arg-type]


# The light, and the empty room.


def test_light_is_judged() -> None:
    rng = np.random.default_rng(0)
    fine = rng.integers(40, 220, (240, 320, 3), dtype=np.uint8)
    assert exposure_words(fine) == ""
    assert "dark" in exposure_words((fine * 0.1).astype(np.uint8))
    bright = fine.copy()
    bright[:, :40] = 255
    assert "overexposed" in exposure_words(bright)


def test_the_empty_room_is_the_median_and_a_passing_hand_is_not_in_it() -> None:
    rng = np.random.default_rng(1)
    frames = []
    for i in range(9):
        color = np.clip(100 + rng.normal(0, 3, (150, 8, 3)), 0, 255).astype(np.uint8)
        depth_mm = (2000 + rng.normal(0, 3, (6, 8))).astype(np.uint16)
        if i < 3:  # somebody's hand
            color[:20], depth_mm[:2] = 250, 700
        depth_mm[5, : 7 if i < 4 else 2] = 0  # columns 0 and 1 never return, 2 to 6 five times in nine
        frames.append(Frame(i, i / 30, color, depth_mm))
    color, depth = plate_of(frames)
    assert color.dtype == np.uint8 and np.abs(color.astype(int) - 100).max() <= 8
    assert depth is not None and depth.dtype == np.uint16
    assert np.abs(depth[:5].astype(int) - 2000).max() < 12
    assert (depth[5, :2] == 0).all() and np.abs(depth[5, 2:].astype(int) - 2000).max() < 12
    assert plate_of([Frame(0, 0.0, frames[0].color, None)])[1] is None
