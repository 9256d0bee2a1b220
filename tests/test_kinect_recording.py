"""From a Kinect to a recording, by the commands: nothing twice, what was filmed is kept, and run goes on with it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_kinect import Device, FakeKinect, FakeWindows, color_time_s, depth_time_s

import captures
import pipeline
from capture.container import Container
from capture.convert import convert
from capture.errors import UserError
from capture.importers import ImportConfig
from capture.kinect.pairing import MAX_APART_S
from capture.live import LiveFrames
from capture.recorder import CaptureConfig, Recorder
from capture.recording import Frame, Recording, RecordingWriter
from capture.sensor import Ended, Sensor, Silence
from filming import Wishes, film_live

QUICK = ("capture.countdown_s=0", "capture.plate_frames=0")


@pytest.fixture(autouse=True)
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``--source kinect`` is the next of ``FakeKinect.kinects``."""
    monkeypatch.setitem(pipeline.SENSORS, "kinect", "fake_kinect.FakeKinect")
    FakeKinect.kinects.clear()
    yield
    FakeKinect.kinects.clear()


def film(workspace: Path, kinect: FakeWindows, seconds: float | None, *assignments: str) -> list[str]:
    FakeKinect.kinects.append(kinect)
    given = {"workspace": workspace, "source": "kinect", "preset": None, "no_depth": False}
    given["assignments"] = (*QUICK, *assignments)
    return list(film_live(pipeline.ATLAS, pipeline.SENSORS, "a", Wishes("kinect", seconds, False, False), given))


def command(*arguments: object) -> None:
    pipeline.cli.main([str(argument) for argument in arguments], standalone_mode=False)


def pull_out(device: Device, workspace: Path, seconds: float) -> None:
    """Unplug it, for so long, once some frames are in the file."""
    path = captures.folder_of(workspace / "a") / captures.FRAMES

    def wait() -> None:
        while not (path.is_file() and path.stat().st_size > 250_000):
            time.sleep(0.01)
        device.unplugged_s = device.now_s, device.now_s + seconds

    threading.Thread(target=wait, daemon=True).start()


def check(recording: Recording) -> tuple[int, float]:
    """(frames stored twice, largest distance between colour and depth in seconds)."""
    taken_s = [color_time_s(frame.color) for frame in recording]
    depths_s = [depth_time_s(depth) if (depth := frame.depth_mm) is not None else np.nan for frame in recording]
    known = [depth for depth in depths_s if np.isfinite(depth)]
    twice = len(taken_s) - len(set(taken_s)) + len(known) - len(set(known))
    return twice, float(np.nanmax(np.abs(np.array(depths_s) - taken_s)))


def test_a_mailbox_that_always_says_new_stores_nothing_twice(tmp_path: Path) -> None:
    lines = film(tmp_path, FakeWindows(Device(), is_stuck=True, fails_every=5), 1.5)
    recording = Recording.load(tmp_path / "a/01_recording")
    twice, apart_s = check(recording)
    assert twice == 0 and apart_s <= MAX_APART_S + 2e-4 and len(recording) >= 20
    assert lines[0].startswith(f"{len(recording)} frames") and recording.source == "live: kinect"
    assert recording.rig.depth is not None and recording.rig.depth.image_wh == (512, 424) and recording.focal_is_known
    factory = recording.factory()
    assert factory["depth_rays"].shape == (424, 512, 2) and factory["depth_intrinsics"][0] == pytest.approx(365.481)
    convert(ImportConfig(), tmp_path / "a/01_recording", tmp_path / "copy", "folder")
    assert np.array_equal(Recording.load(tmp_path / "copy").factory()["color_px"], factory["color_px"])


def test_an_unplugged_kinect_ends_the_recording_with_every_frame_and_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(pace=1.0)
    pull_out(device, tmp_path, float("inf"))
    with caplog.at_level(logging.WARNING), pytest.raises(UserError) as told:
        film(tmp_path, FakeWindows(device, is_stuck=True), None)
    words = str(told.value)
    assert words.startswith("the recording ended: kinect: no picture for ") and "check its power supply" in words
    assert "\n" not in words and "frames are kept" in words
    stalls = [record for record in caplog.records if record.getMessage().startswith("kinect: no picture for 1.")]
    assert len(stalls) == 1, "said once, as soon as it begins"
    recording = Recording.load(tmp_path / "a/01_recording")
    container = Container.open(tmp_path / "a/01_recording/frames.cap")
    assert container.is_finished and f"its {len(recording)} frames are kept" in words
    assert check(recording)[0] == 0 and any("ended early" in note for note in recording.notes)


def test_a_kinect_that_comes_back_leaves_a_gap_that_is_told(tmp_path: Path) -> None:
    device = Device(pace=1.0)
    pull_out(device, tmp_path, 2.0)
    lines = film(tmp_path, FakeWindows(device), 8.0)
    recording = Recording.load(tmp_path / "a/01_recording")
    assert check(recording)[0] == 0 and (np.diff(recording.times_s) > 0).all()
    assert np.diff(recording.times_s).max() > 1.5 and "longest gap" in lines[0]
    assert any("was silent for more than a second once" in note for note in recording.notes)


def test_dim_light_is_noted(tmp_path: Path) -> None:
    film(tmp_path, FakeWindows(Device(color_hz=15.0)), 2.0)
    recording = Recording.load(tmp_path / "a/01_recording")
    assert recording.frames_per_second == pytest.approx(15.0, rel=0.01)
    assert any("dim light" in note for note in recording.notes)


def test_run_films_first_and_goes_on_with_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ("run", "--subject", "a", "--source", "kinect", "--workspace", tmp_path, "--until", "record")
    command(*line, "--dry-run")
    assert "to be filmed with kinect" in capsys.readouterr().out and not (tmp_path / "a").exists()
    FakeKinect.kinects.append(FakeWindows(Device()))
    options = [word for setting in QUICK for word in ("--set", setting)]
    command(*line, "--seconds", 0.5, "--no-window", *options)
    assert len(Recording.load(tmp_path / "a/01_recording")) >= 5
    before = os.stat(tmp_path / "a/01_recording/frames.cap").st_mtime_ns
    command(*line)  # no Kinect is left: it must not be asked
    assert os.stat(tmp_path / "a/01_recording/frames.cap").st_mtime_ns == before
    with pytest.raises(UserError, match="was recorded from the sensor kinect, not from replay:x"):
        command("run", "--subject", "a", "--source", "replay:x", "--workspace", tmp_path)
    with pytest.raises(UserError, match="--source goes with one --subject"):
        command(
            "run", "--subject", "a", "--subject", "b", "--avatar", "c", "--source", "kinect", "--workspace", tmp_path
        )
    with pytest.raises(UserError, match="go with a source that is filmed live"):
        command("run", "--subject", "b", "--source", "demo", "--seconds", 3, "--workspace", tmp_path)


# A silence, and a sensor that is only looked at.


class Silent(Sensor):
    """Gives frames; where one is None it is silent for as long as it is asked to wait."""

    def __init__(self, frames: list[Frame | None]) -> None:
        self._frames, self.waited_s = frames, 0.0
        from fake_kinect import IR

        from capture.camera import Camera, Rig

        self.rig = Rig(Camera((32, 24), 40.0, 40.0, 16.0, 12.0), IR.camera(), np.eye(4))

    def read(self, timeout_s: float) -> Frame:
        if not self._frames:
            raise Ended
        if self._frames[0] is None:
            if timeout_s > 0:
                self._frames.pop(0)
                self.waited_s += timeout_s
            raise Silence(f"a test: no picture for {self.waited_s:.1f} s")
        found = self._frames.pop(0)
        assert found is not None
        return found

    def _start(self) -> None: ...

    def _stop(self) -> None: ...


def frame(index: int) -> Frame:
    return Frame(index, index / 30, np.zeros((24, 32, 3), np.uint8), None)


def test_a_silence_is_said_once_and_five_seconds_of_it_are_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sensor = Silent([frame(0), None, None, frame(90), None, frame(130), *[None] * 5, frame(400)])
    writer = RecordingWriter(tmp_path, sensor.rig, "a test")
    with caplog.at_level(logging.WARNING), Recorder(sensor, CaptureConfig()) as recorder:
        recorder.begin(writer)
        recorder.start()
        recorder._reader.join(30)
        tally = recorder.end()
    writer.finish()
    assert [r.getMessage() for r in caplog.records] == [f"a test: no picture for {s:.1f} s" for s in (1, 3, 4)]
    assert isinstance(recorder.failure, Silence) and str(recorder.failure) == "a test: no picture for 8.0 s"
    assert (tally.written, tally.stalls, tally.without_depth) == (3, 2, 3) and len(Recording.load(tmp_path)) == 3
    assert "3 without depth" in tally.summary(1.0) and "longest gap 3.0 s" in tally.summary(1.0)


def test_who_only_looks_sees_the_newest_frame_and_is_told_when_the_sensor_is_gone() -> None:
    source = LiveFrames(Silent([frame(7), frame(8), None, None, frame(12), frame(13), None, frame(20)]))
    with source:
        seen = [found.index for found in source.frames()]
    assert seen == [1, 6, 13] and not source.waits
    with pytest.raises(Silence), LiveFrames(Silent([frame(0), *[None] * 60])) as source:
        list(source.frames())
    with LiveFrames(Silent([frame(3), *[None] * 49, frame(4)])) as source:
        assert [found.index for found in source.frames()] == [0, 1]
