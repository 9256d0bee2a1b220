"""pipeline.py track: what a user sees, keeps, and is told."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from miniature import film as film_of_a_doll
from small_workspace import fit_of
from test_live import WITH_DEPTH, Shot, shoot, someone
from test_pipeline import command

from capture.errors import UserError
from capture.recording import RecordingWriter
from capture.replay import Replay
from capture.video import VideoWriter, write_video
from fitting import window
from fitting.body.model import BodyModel
from fitting.fit import FitConfig
from fitting.live import LiveFit, LiveTracker
from fitting.play import Film, Show, Tally, play
from fitting.stream import Look

RATE = 10


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    body = BodyModel.default()
    return [shoot(body, index, someone(body)) for index in range(12)]


class Told:
    """Stands for MediaPipe: knows every picture of the clip."""

    def __init__(self, shots: list[Shot], interrupt_at: int = -1) -> None:
        self._shots, self._interrupt_at, self.calls = shots, interrupt_at, 0

    def __call__(self, color: np.ndarray) -> Look | None:
        if self.calls == self._interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        self.calls += 1
        near = [np.abs(shot.frame.color.astype(int) - color).mean() for shot in self._shots]
        return self._shots[int(np.argmin(near))].look


def producer(shots: list[Shot]):  # type: ignore[no-untyped-def]
    def produce(folder: Path) -> None:
        writer = RecordingWriter(folder, WITH_DEPTH, "an ideal sensor")
        for shot in shots:
            writer.add(shot.frame.index / RATE, shot.frame.color, shot.frame.depth_mm)
        writer.finish()

    return produce


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [round(float(frame.time), 2) for frame in container.decode(video=0)]


def test_a_clip_becomes_a_film_and_a_summary(shots: list[Shot], tmp_path: Path) -> None:
    out = tmp_path / "new" / "a.mp4"
    lines = play(FitConfig(), Show(out, False, False), Replay(producer(shots)), look=Told(shots))
    assert lines[0].startswith("frames: 12 seen, ") and lines[0].endswith("0 lost, 0 dropped")
    assert all(part in lines[1] for part in ("landmarks", "mask", "evidence", "pose", "verdict", "picture"))
    assert lines[2].startswith("body not measured")
    assert times_of(out) == [round(i / RATE, 2) for i in range(12)]


def test_an_interrupt_leaves_a_film_that_plays(shots: list[Shot], tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    out = tmp_path / "a.mp4"
    lines = play(FitConfig(), Show(out, False, False), Replay(producer(shots)), look=Told(shots, interrupt_at=4))
    assert lines[0].startswith("frames: 5 seen")
    assert len(times_of(out)) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert signal.getsignal(signal.SIGINT) is before


def test_seconds_end_it_and_an_error_in_the_middle_is_said(
    shots: list[Shot], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "a.mp4"
    show = Show(out, False, False, seconds=0.3)
    assert play(FitConfig(), show, Replay(producer(shots)), look=Told(shots))[0].startswith("frames: 3 seen")

    def broken(folder: Path) -> None:
        producer(shots[:2])(folder)
        raise UserError("breaks off")

    lines = play(FitConfig(), Show(out, False, False), Replay(broken), look=Told(shots))
    assert lines[0].startswith("frames: 2 seen") and "ends early: breaks off" in caplog.text


def test_a_live_source_does_not_wait(shots: list[Shot], tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    lines = play(FitConfig(), Show(out, False, True), Replay(producer(shots)), look=Told(shots))
    words = lines[0].split()
    assert int(words[1]) + int(words[-2]) == 12
    assert times_of(out)[0] == 0.0


def test_nobody_in_view_is_a_result(shots: list[Shot], tmp_path: Path) -> None:
    lines = play(FitConfig(), Show(tmp_path / "a.mp4", False, False), Replay(producer(shots)), look=lambda color: None)
    assert lines[0] == "frames: 12 seen, 0 tracked, 0 uncertain, 12 lost, 0 dropped"


def test_no_frame_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a single frame"):
        play(FitConfig(), Show(tmp_path / "a.mp4", False, False), Replay(lambda folder: None), look=lambda color: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("show", "complaint"),
    [
        (Show(None, False, False), "add --out"),
        (Show(Path("a.avi"), False, False), "ends in .mp4"),
        (Show(Path("a.mp4"), False, False, seconds=0), "must be positive"),
        (Show(None, True, True), "there is no display"),
    ],
)
def test_what_cannot_be_shown_is_refused(show: Show, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(UserError, match=complaint):
        play(FitConfig(), show, Replay(lambda folder: None))


def test_a_display_that_is_not_there_does_not_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    assert window.why_not() in ("the display cannot be used", "this OpenCV was built without windows")


def test_without_a_display_every_frame_goes_to_the_film(
    shots: list[Shot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    lines = play(FitConfig(), Show(tmp_path / "a.mp4", True, False), Replay(producer(shots)), look=Told(shots))
    assert lines[0].startswith("frames: 12 seen") and lines[0].endswith("0 dropped")


def test_a_window_shows_what_the_film_keeps(shots: list[Shot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    class Screen(window.Window):
        def __init__(self, title: str = "") -> None:
            pass  # there is no display to open one on

        def show(self, picture: np.ndarray) -> bool:
            shown.append(picture)
            return len(shown) < 2  # then the user presses q

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("fitting.play.Window", Screen)
    monkeypatch.setattr("fitting.play.why_not", lambda: "")
    lines = play(FitConfig(), Show(tmp_path / "a.mp4", True, False), Replay(producer(shots)), look=Told(shots))
    assert lines[0].startswith("frames: 2 seen") and len(times_of(tmp_path / "a.mp4")) == 2


def test_pictures_of_a_film_are_shown_at_their_times(tmp_path: Path) -> None:
    with Film(tmp_path / "a.mp4") as film:
        for i, time_s in enumerate((5.0, 5.1, 5.5, 5.5)):
            film.add(time_s, np.full((32, 48, 3), 40 * i, np.uint8))
    assert times_of(tmp_path / "a.mp4") == [0.0, 0.1, 0.5, 0.51]
    with VideoWriter(tmp_path / "b.mp4", 10) as video:
        for _ in range(3):
            video.add(np.zeros((32, 48, 3), np.uint8))
    assert times_of(tmp_path / "b.mp4") == [0.0, 0.1, 0.2]


def test_a_skirt_is_tracked_to_its_hem(shots: list[Shot], tmp_path: Path) -> None:
    """Not with the room that its avatar has below."""
    body = BodyModel.default()
    roomy = replace(body, template_m=body.template_m - np.array([0, 0, 0.05], np.float32), under=body, hemmed=body)
    offsets_m = np.zeros(len(body.template_m))
    fitted = replace(fit_of(film_of_a_doll(24)), body=roomy, shape=someone(body), vertex_offsets_m=offsets_m)
    tracked = []

    def draw(tracker: LiveTracker, fitted: LiveFit, tally: Tally) -> np.ndarray:
        tracked.append(tracker.body)
        return fitted.frame.color

    show = Show(tmp_path / "a.mp4", False, False, seconds=0.1)
    play(FitConfig(), show, Replay(producer(shots)), fitted, look=Told(shots), draw=draw)
    assert tracked and np.array_equal(tracked[0].template_m, body.template_m)


# The command.


def test_track_on_an_empty_room(tmp_path: Path) -> None:
    source = tmp_path / "room.mp4"
    write_video(source, [np.full((120, 160, 3), 90 + i, np.uint8) for i in range(4)], 30)
    done = command("track", "--source", source, "--no-window", "--out", "a.mp4", cwd=tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "frames: 4 seen, 0 tracked, 0 uncertain, 4 lost, 0 dropped" in done.stdout
    assert done.stdout.splitlines()[-1] == "a.mp4" and len(times_of(tmp_path / "a.mp4")) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"room.mp4", "a.mp4"}


def test_track_with_the_body_of_a_fit(tmp_path: Path) -> None:
    folder = tmp_path / "workspace" / "doll" / "03_fit"
    folder.mkdir(parents=True)
    body = BodyModel.default()
    offsets_m = np.zeros(len(body.template_m))
    fitted = fit_of(film_of_a_doll(24))
    replace(fitted, body=body, shape=someone(body), vertex_offsets_m=offsets_m).save(folder)
    source = tmp_path / "room.mp4"
    write_video(source, [np.full((320, 240, 3), 90 + i, np.uint8) for i in range(3)], 30)
    line = ("track", "--source", source, "--subject", "doll", "--no-window", "--out", "a.mp4")
    done = command(*line, cwd=tmp_path)
    assert done.returncode == 0 and "body known" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--source", "no.mp4", "--out", "a.mp4"], "no such file"),
        (["--source", "kinect:xbox", "--out", "a.mp4"], "no such driver"),
        (["--source", "here", "--out", "a.mp4"], "the folder is empty"),
        (["--source", "text.mp4", "--no-window", "--out", "a.mp4"], "cannot be opened as a video"),
        (["--source", "text.mp4", "--no-window"], "add --out"),
        (["--source", "text.mp4", "--no-window", "--out", "a.mp4", "--subject", "who"], "not made yet"),
        (
            ["--source", "text.mp4", "--no-window", "--out", "a.mp4", "--set", "fit.keypoints=mediapie"],
            "no such folder",
        ),
        (["--out", "a.mp4"], "Missing option"),
        (["--source", "text.mp4", "--no-window", "--out", "text.mp4"], "lies in the source"),
        (["--source", "here", "--no-window", "--out", "here/a.mp4"], "lies in the source"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_one_line(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "text.mp4").write_text("this is not a video")
    done = command("track", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and complaint in errors[0]
    assert {path.name for path in tmp_path.iterdir()} == {"here", "text.mp4"}
