"""record from a sensor: what is published, what is refused, and that nothing filmed is ever lost."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import captures
import pipeline
from capture.camera import Camera, Rig
from capture.container import ContainerWriter
from capture.convert import convert
from capture.errors import UserError
from capture.files import read_depth
from capture.importers import ImportConfig
from capture.manifest import Manifest
from capture.recording import Recording, RecordingWriter
from commands import open_project
from demo.live import EMPTY_FRAMES, FILM, FOLDER, DemoSensor, RawFrames
from demo.performer import DemoConfig
from filming import Wishes, film_live
from stages import plan, run

ROOT = Path(__file__).parents[1]
CAMERA = Camera((320, 240), 300.0, 300.0, 160.0, 120.0)
RIG = Rig(CAMERA, CAMERA, np.eye(4))


def write(folder: Path, count: int = 40, rate_hz: float = 20.0, is_finished: bool = True) -> Path:
    rng = np.random.default_rng(0)
    writer = RecordingWriter(folder, RIG, "a test", focal_is_known=False)
    for i in range(count):
        color = rng.integers(60, 200, (240, 320, 3), dtype=np.uint8)
        writer.add(i / rate_hz, color, rng.integers(1000, 3000, (240, 320), dtype=np.uint16))
    if is_finished:
        writer.finish()
    else:
        writer.close()
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("source") / "r")


def command(workspace: Path, *arguments: object, limit_bytes: int = 0) -> subprocess.Popen:
    line = [sys.executable, ROOT / "pipeline.py", *arguments, "--workspace", workspace]
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes,) * 2)) if limit_bytes else None
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, line)), preexec_fn=limit, **pipes)  # type: ignore[call-overload]


def record(workspace: Path, source: Path, *more: object, limit_bytes: int = 0) -> subprocess.Popen:
    arguments = ("record", "--subject", "a", "--source", f"replay:{source}", "--no-window", *more)
    return command(workspace, *arguments, limit_bytes=limit_bytes)


def wait_for_frames(workspace: Path, num_bytes: int) -> None:
    path = captures.folder_of(workspace / "a") / captures.FRAMES
    end_s = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size > num_bytes):
        assert time.monotonic() < end_s
        time.sleep(0.05)


def project(workspace: Path):  # type: ignore[no-untyped-def]
    return open_project(pipeline.ATLAS, workspace, ["a"])


def test_a_recording_is_published_and_run_takes_it_as_it_is(tmp_path: Path, source: Path) -> None:
    done = record(tmp_path, source, "--seconds", 1)
    said, complaints = done.communicate(timeout=180)
    assert done.returncode == 0, complaints
    recording = Recording.load(tmp_path / "a/01_recording")
    assert 10 <= len(recording) <= 20 and said.splitlines()[0].startswith(f"{len(recording)} frames")
    assert recording.rig.to_json() == RIG.to_json() and not recording.focal_is_known and recording.has_depth.all()
    made = Manifest.load(tmp_path / "a/01_recording")
    assert made is not None and made.source == {"kind": "sensor", "name": f"replay:{source}"}
    assert not list((tmp_path / "a").glob(".*"))
    step = plan(project(tmp_path))[0]
    assert step.reasons == () and step.notes == ()
    before = (tmp_path / "a/01_recording/frames.cap").read_bytes()
    again = record(tmp_path, source)
    _, complaints = again.communicate(timeout=120)
    assert again.returncode == 2 and "there is a recording already" in complaints.splitlines()[-1]
    assert (tmp_path / "a/01_recording/frames.cap").read_bytes() == before
    with pytest.raises(UserError, match="was recorded from the sensor replay"):
        plan(open_project(pipeline.ATLAS, tmp_path, ["a"], source=str(source)))


def test_ctrl_c_ends_a_recording_well(tmp_path: Path, source: Path) -> None:
    slow = write(tmp_path / "slow", count=200, rate_hz=10.0)
    child = record(tmp_path / "w", slow)
    wait_for_frames(tmp_path / "w", 500_000)
    child.send_signal(signal.SIGINT)
    _, complaints = child.communicate(timeout=120)
    assert child.returncode == 0, complaints
    recording = Recording.load(tmp_path / "w/a/01_recording")
    assert recording.container is not None and recording.container.is_finished and 1 <= len(recording) < 200


def test_a_killed_recording_is_finished_by_the_next_run(tmp_path: Path) -> None:
    slow = write(tmp_path / "slow", count=200, rate_hz=10.0)
    workspace = tmp_path / "w"
    child = record(workspace, slow)
    wait_for_frames(workspace, 500_000)
    child.kill()
    child.communicate()
    left = Recording.load(captures.folder_of(workspace / "a"))
    first = left.color_bytes(0)
    assert "breaks off" in left.notes[-1]
    assert plan(project(workspace))[0].reasons == ("an interrupted recording waits to be finished",)
    assert run(project(workspace), only=pipeline.STAGES[0]) == []
    recording = Recording.load(workspace / "a/01_recording")
    assert len(recording) == len(left) > 0 and recording.color_bytes(0) == first
    assert recording.notes == (f"the recording was interrupted: it ends after {len(left)} frames",)
    assert plan(project(workspace))[0].reasons == () and not list((workspace / "a").glob(".*"))


def test_what_a_killed_replacement_filmed_is_kept_beside_the_recording(tmp_path: Path, source: Path) -> None:
    run(open_project(pipeline.ATLAS, tmp_path, ["a"], source=str(source)), only=pipeline.STAGES[0])
    before = (tmp_path / "a/01_recording/frames.cap").read_bytes()
    left = captures.begin(tmp_path / "a", "kinect")
    write(left, 5, is_finished=False)
    run(project(tmp_path), only=pipeline.STAGES[0])
    assert (tmp_path / "a/01_recording/frames.cap").read_bytes() == before
    assert len(Recording.load(tmp_path / "a/unfinished_recording_1")) == 5
    assert not captures.is_left(tmp_path / "a")


def test_what_was_killed_before_its_first_frame_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for content in (b"", b"ANRCAP1\nANRr"):
        (captures.begin(tmp_path / "a", "kinect") / captures.FRAMES).write_bytes(content)
        with pytest.raises(UserError, match="no recording yet"):
            run(project(tmp_path), only=pipeline.STAGES[0])
        assert not captures.folder_of(tmp_path / "a").exists()


def test_a_full_disk_is_one_line_and_every_frame_is_kept(tmp_path: Path, source: Path) -> None:
    done = record(tmp_path, source, limit_bytes=1_000_000)
    _, complaints = done.communicate(timeout=180)
    errors = [line for line in complaints.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and len(errors) == 1 and "Traceback" not in complaints
    assert "no room to write (File too large" in errors[0]
    count = int(errors[0].split("its ")[1].split()[0])
    kept = Recording.load(tmp_path / "a/01_recording")
    assert len(kept) == count > 3 and all(frame.color.shape == (240, 320, 3) for frame in kept)
    assert any("ended early" in note for note in kept.notes) and plan(project(tmp_path))[0].reasons == ()


def test_without_room_for_the_last_words_the_next_run_takes_the_frames(tmp_path, source, monkeypatch) -> None:
    def full(self, fields: dict) -> None:
        self.close()
        raise OSError(28, "No space left on device")

    wishes = Wishes(f"replay:{source}", None, False, False)
    given = {"workspace": tmp_path, "source": "", "preset": None, "no_depth": False, "assignments": ()}
    with monkeypatch.context() as patch:
        patch.setattr(ContainerWriter, "finish", full)
        with pytest.raises(UserError, match=r"No space left.*kept; pipeline.py run --subject a goes on") as told:
            list(film_live(pipeline.ATLAS, pipeline.SENSORS, "a", wishes, given))
    count = int(str(told.value).split("its ")[1].split()[0])
    assert captures.is_left(tmp_path / "a") and not (tmp_path / "a/01_recording").exists()
    run(project(tmp_path), only=pipeline.STAGES[0])
    assert len(Recording.load(tmp_path / "a/01_recording")) == count > 3


def test_options_of_filming_are_refused_for_files_and_a_missing_sensor_by_name(tmp_path: Path, source: Path) -> None:
    for arguments, words in (
        (("record", "--subject", "a", "--source", source, "--seconds", 3), "--seconds and --no-window go with"),
        (("record", "--subject", "a", "--source", "kinect:xbox"), "no such driver; there are kinect:windows"),
        (("record", "--subject", "a", "--source", "replay:nowhere"), "no such file"),
        (("record", "--subject", "a", "--source", f"replay:{source}", "--seconds", -1), "must be positive"),
        (("run", "--subject", "a", "--source", "replay:nowhere"), "no such file"),
        (("run", "--subject", "a", "--source", source, "--seconds", 3), "filmed live"),
    ):
        done = command(tmp_path / "w", *arguments)
        _, complaints = done.communicate(timeout=120)
        assert done.returncode == 2 and words in complaints, complaints
        assert not (tmp_path / "w").exists()


# The demo as a sensor, with a film that takes no minutes.


@pytest.fixture(scope="module")
def set_up(tmp_path_factory) -> Path:
    """A workspace whose demo was filmed already: noise instead of her."""
    folder = tmp_path_factory.mktemp("demo") / FOLDER
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("empty.raw", EMPTY_FRAMES), ("film.raw", 4)):
        for i in range(count):
            grey = np.full((1080, 1920, 3), 60 + 20 * i, np.uint8)
            grey[:, ::7] += rng.integers(0, 9, dtype=np.uint8)
            RawFrames(folder / name).append(grey, rng.integers(500, 4000, (424, 512), dtype=np.uint16))
    config = DemoConfig(num_frames=4, frames_per_second=30.0)
    (folder / "film.json").write_text('{"frames": 4, "rate_hz": 30.0, "seed": 0}')
    assert len(RawFrames(folder / "film.raw")) == 4 != FILM.num_frames
    with DemoSensor("", folder.parent, config) as sensor:
        sensor.read(10.0)
    return folder.parent


def test_the_demo_shows_the_empty_room_until_she_is_told_to_come(set_up: Path) -> None:
    with DemoSensor("", set_up, DemoConfig(num_frames=4, frames_per_second=30.0)) as sensor:
        empty = [sensor.read(10.0) for _ in range(3)]
        sensor.enter()
        for _ in range(6):
            frame = sensor.read(10.0)
    depth_mm = frame.depth_mm
    assert depth_mm is not None
    film, room = RawFrames(set_up / FOLDER / "film.raw"), RawFrames(set_up / FOLDER / "empty.raw")
    shown = [film[i] for i in range(4)]
    assert np.array_equal(empty[0].color, room[empty[0].index % EMPTY_FRAMES][0])
    assert any(np.array_equal(frame.color, color) and np.array_equal(depth_mm, z) for color, z in shown)
    assert frame.index > empty[-1].index and frame.time_s == pytest.approx(frame.index / 30)


def test_the_plate_is_saved_beside_the_recording(set_up: Path, tmp_path: Path, monkeypatch) -> None:
    config = DemoConfig(num_frames=4, frames_per_second=30.0)
    monkeypatch.setattr(DemoSensor.__init__, "__defaults__", (config,))
    wishes = Wishes("demo", 0.5, False, False)
    given = {
        "workspace": set_up,
        "source": "demo",
        "preset": None,
        "no_depth": False,
        "assignments": ("capture.countdown_s=0.1", "capture.plate_frames=3"),
    }
    lines = list(film_live(pipeline.ATLAS, pipeline.SENSORS, "b", wishes, given))
    made = set_up / "b/01_recording"
    assert lines[-1] == str(made)
    room = RawFrames(set_up / FOLDER / "empty.raw")
    levels = [room[i][0].mean() for i in range(len(room))]
    plate = Recording.load(made).plate()
    assert plate is not None and plate[1] is not None and plate[1].shape == (424, 512)
    assert plate[0].shape == (1080, 1920, 3) and min(levels) - 1 <= plate[0].mean() <= max(levels) + 1
    convert(ImportConfig(), made, tmp_path / "copy", "container")
    copied = Recording.load(tmp_path / "copy").plate()
    assert copied is not None and np.array_equal(copied[0], plate[0])
    manifest = Manifest.load(made)
    assert manifest is not None and manifest.settings["capture.plate_frames"] == 3
    assert {"plate/color.png", "plate/depth.png", "frames.cap"} <= set(manifest.files)


# Other layouts.


def test_there_and_back_is_the_same_file(tmp_path: Path, source: Path) -> None:
    convert(ImportConfig(), source, tmp_path / "folder", "folder")
    assert (tmp_path / "folder/recording.json").is_file() and len(list((tmp_path / "folder/depth").iterdir())) == 40
    convert(ImportConfig(), tmp_path / "folder", tmp_path / "back", "container")
    assert (tmp_path / "back/frames.cap").read_bytes() == (source / "frames.cap").read_bytes()
    convert(ImportConfig(), source / "frames.cap", tmp_path / "tum", "tum")
    convert(ImportConfig(), tmp_path / "tum", tmp_path / "from_tum", "container")
    first, again = Recording.load(source), Recording.load(tmp_path / "from_tum")
    assert again.rig.to_json() == first.rig.to_json() and np.array_equal(again.times_s, first.times_s)
    for i in (0, 7, 39):
        assert again.color_bytes(i) == first.color_bytes(i)
        seen, true = again.depth_mm(i), first.depth_mm(i)
        assert seen is not None and true is not None and np.array_equal(seen, true)


def test_tum_gets_depth_on_the_pixels_of_colour(tmp_path: Path) -> None:
    beside = np.eye(4)
    beside[0, 3] = -0.05
    wide = Camera((80, 60), 60.0, 60.0, 40.0, 30.0)
    writer = RecordingWriter(tmp_path / "r", Rig(CAMERA, wide, beside), "two cameras")
    writer.add(0.0, np.full((240, 320, 3), 90, np.uint8), np.full((60, 80), 2000, np.uint16))
    writer.add_factory({"ir_params": np.arange(9.0)})
    writer.finish()
    notes = convert(ImportConfig(), tmp_path / "r", tmp_path / "tum", "tum")
    assert any("no place for the device's own numbers: left out" in note for note in notes)
    assert any("moved to the colour camera's pixels" in note for note in notes)
    depth_mm = read_depth(tmp_path / "tum/depth/000000.png")
    assert depth_mm.shape == (240, 320) and (depth_mm[100:140, 100:220] == 2000).all()


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, source: Path) -> None:
    with pytest.raises(UserError, match="is there already"):
        convert(ImportConfig(), source, source, "tum")
    with pytest.raises(UserError, match="there are folder, tum, container"):
        convert(ImportConfig(), source, tmp_path / "x", "zip")
    damaged = tmp_path / "r"
    data = bytearray((source / "frames.cap").read_bytes())
    data[len(data) // 2] ^= 1
    damaged.mkdir()
    (damaged / "frames.cap").write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        convert(ImportConfig(), damaged, tmp_path / "x", "folder")
    assert sorted(os.listdir(tmp_path)) == ["r"]
