"""A source played as if it were live: every frame, or the newest, and an end in any case."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from capture.camera import Camera, Rig
from capture.errors import UserError
from capture.importers import ImportConfig, record
from capture.recording import Frame, Recording, RecordingWriter
from capture.replay import Replay, newest
from capture.video import write_video

CAMERA = Camera((32, 24), 40.0, 40.0, 16.0, 12.0)


def produce(folder: Path, count: int = 20) -> None:
    writer = RecordingWriter(folder, Rig(CAMERA, CAMERA, np.eye(4)), "a test", focal_is_known=False)
    for i in range(count):
        writer.add(i / 10, np.full((24, 32, 3), i, np.uint8), np.full((24, 32), i, np.uint16))
    writer.note("said")
    writer.add_openpose(0, b"{}")
    writer.finish()
    assert not list(folder.iterdir())


def test_every_frame_comes_and_nothing_is_written() -> None:
    with Replay(produce) as replay:
        frames = list(replay.frames())
        assert replay.rig.color == CAMERA and not replay.focal_is_known
    assert [frame.index for frame in frames] == list(range(20))
    assert frames[3].time_s == 0.3 and frames[3].color[0, 0, 0] == 3
    assert frames[3].depth_mm is not None and frames[3].depth_mm[0, 0] == 3


def test_a_recording_beside_a_replay_is_written_as_ever(tmp_path: Path) -> None:
    with Replay(produce) as replay:
        next(replay.frames())
        writer = RecordingWriter(tmp_path, Rig(CAMERA), "another")
        writer.add(0.0, np.zeros((24, 32, 3), np.uint8))
        writer.finish()
    assert len(Recording.load(tmp_path)) == 1


def test_leaving_ends_the_producer() -> None:
    threads = threading.active_count()
    with Replay(lambda folder: produce(folder, 10_000)) as replay:
        next(replay.frames())
    assert threading.active_count() == threads


def test_what_the_producer_raises_is_raised() -> None:
    def broken(folder: Path) -> None:
        produce(folder, 3)
        raise UserError("breaks off")

    with Replay(broken) as replay:
        frames = replay.frames()
        assert [next(frames).index for _ in range(3)] == [0, 1, 2]
        with pytest.raises(UserError, match="breaks off"):
            next(frames)


def test_a_stop_is_noticed_while_nothing_comes() -> None:
    is_asked = threading.Event()
    with Replay(lambda folder: time.sleep(1.0)) as replay:
        is_asked.set()
        assert list(replay.frames(is_asked.is_set)) == []


def test_whatever_is_imported_can_be_played(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write_video(path, [np.full((48, 64, 3), 9 * i, np.uint8) for i in range(12)], 25)
    with Replay(lambda folder: record(ImportConfig(every=2), folder, path)) as replay:
        assert [round(frame.time_s, 3) for frame in replay.frames()] == [0.0, 0.08, 0.16, 0.24, 0.32, 0.4]


# The clock.


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def frames_at(rate: float, count: int, clock: Clock, reading_s: float = 0.0):  # type: ignore[no-untyped-def]
    for i in range(count):
        clock.sleep(reading_s)
        yield Frame(i, i / rate, np.zeros((1, 1, 3), np.uint8), None)


@pytest.mark.parametrize("reading_s", [0.0, 0.2], ids=["a quick source", "a source that is slow to read"])
def test_who_keeps_up_misses_nothing_and_is_never_early(reading_s: float) -> None:
    clock = Clock()
    for frame in newest(frames_at(10, 20, clock, reading_s), clock, clock.sleep):
        assert clock.now_s >= 100.0 + frame.time_s - 1e-9
        clock.sleep(0.05)
        last = frame.index
    assert last == 19


def test_who_is_slow_sees_the_newest() -> None:
    clock = Clock()
    seen = []
    for frame in newest(frames_at(10, 30, clock), clock, clock.sleep):
        is_last = frame.index == 29  # nothing newer will come
        assert is_last or clock.now_s - 100.0 - frame.time_s < 0.1 + 1e-9, "an old frame"
        seen.append(frame.index)
        clock.sleep(0.37)
    assert seen == [0, 3, 7, 11, 14, 18, 22, 25, 29]


def test_no_frames_are_no_frames() -> None:
    assert list(newest(iter(()))) == []
