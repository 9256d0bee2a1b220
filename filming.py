"""One live recording, from the command line to stage 01: the empty room, the countdown, the film, the last words.

While it films it only tells whoever is being filmed what to do; who reads, writes and keeps what is in
``capture.recorder`` and ``captures``.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attempt
import captures
import source as sources
from capture.errors import UserError
from capture.manifest import Manifest
from commands import Atlas, open_project
from project import Project
from stages import check_owner
from workspace import claim

if TYPE_CHECKING:
    import numpy as np

    from capture.recorder import CaptureConfig, Recorder
    from capture.recording import Frame, RecordingWriter
    from capture.sensor import Sensor
    from fitting.guide import Guide
    from fitting.viewfinder import Viewfinder

log = logging.getLogger(__name__)

LOOK_S = 1 / 15  # between two pictures of the viewfinder
GUIDE_READY_S = 60.0  # MediaPipe loads in seconds, on a busy machine in many


@dataclass(frozen=True)
class Wishes:
    """What the options of record ask for."""

    source: str
    seconds: float | None
    in_window: bool
    force: bool


def film_live(
    atlas: Atlas, sensors: Mapping[str, str], subject: str, wishes: Wishes, given: Mapping[str, Any]
) -> Iterator[str]:
    """Film ``subject`` and publish the recording; yields lines for people.

    Raises UserError when there is nothing to film with, when a recording exists already, and after a recording that
    something ended against anybody's wish: what was filmed until then is kept.
    """
    if wishes.seconds is not None and wishes.seconds <= 0:
        raise UserError(f"--seconds {wishes.seconds:g}: must be positive")
    given = {**given, "source": None, "subjects": [subject], "avatar": None}
    project = replace(open_project(atlas, **given), source=None)
    check_owner(project, project.stages[:1])
    if wishes.source.partition(":")[0] == sources.DEMO and not wishes.source.partition(":")[2]:
        _check_demo(project)
    from capture.sensor import open_sensor

    sensor = open_sensor(wishes.source, sensors, project.workspace)
    name = project.subjects[0]
    with claim(project.workspace, [name]):
        home = project.workspace / name
        attempt.recover(home)
        captures.recover(project, name)
        made = project.folder(project.stages[0], name)
        if made.exists() and not wishes.force:
            raise UserError(
                f"{made}: there is a recording already; choose another --subject, or replace it with --force"
            )
        with ExitStack() as stack:
            stack.enter_context(sensor)
            take = stack.enter_context(Take(project, name, sensor, wishes))
            yield from take.run()


def _check_demo(project: Project) -> None:
    """Raises UserError where something else is asked for than what the demo's sensor delivers."""
    settings = project.settings[project.subjects[0]]
    for name in settings.that_matter(("demo",)):
        if settings.is_explicit(name) and name != "demo.with_depth":  # --no-depth says it to every source
            raise UserError(
                f"{name}: the live demo is always the same performance; for another one: pipeline.py run --subject "
                f"{project.subjects[0]} --source demo --set {name}=..."
            )


def is_filmed(atlas: Atlas, source: str, given: Mapping[str, Any]) -> tuple[str, bool]:
    """(the one subject of a run, whether its recording from this sensor is there, or one that was interrupted).

    ``given`` are the options of the run; all of them are looked at before anybody has to stand before the camera.
    Raises UserError for options that cannot be, and for a recording from elsewhere.
    """
    project = open_project(atlas, **{**given, "source": None})
    if len(project.subjects) > 1:
        raise UserError("--source goes with one --subject; record the subjects one by one, then run them together")
    name = project.subjects[0]
    made = project.folder(project.stages[0], name)
    manifest = Manifest.load(made)
    if manifest is not None:
        before = manifest.source or {}
        named = str(before.get("name")) if before.get("kind") == sources.SENSOR else ""
        if source not in (named, named.partition(":")[0]):
            remedy = f"choose another --subject, or replace it with pipeline.py record --source {source} --force"
            raise UserError(f"{made}: was recorded from {sources.in_words(before)}, not from {source}; {remedy}")
    return name, made.exists() or captures.is_left(made.parent)


class Take:
    """One recording with everything around it.  A context manager: leaving it ends all helpers."""

    def __init__(self, project: Project, name: str, sensor: Sensor, wishes: Wishes) -> None:
        self._project, self._name, self._sensor, self._wishes = project, name, sensor, wishes
        self._config: CaptureConfig = project.settings[name].config("capture")
        self._stack = ExitStack()
        self._notes: list[str] = []
        self._remarks: dict[str, None] = {}  # of the sensor while filming, in order
        self._plate: tuple[np.ndarray, np.ndarray | None] | None = None

    def __enter__(self) -> Take:
        from capture.interrupt import interruptible
        from capture.recorder import Recorder
        from fitting.guide import Guide
        from fitting.viewfinder import Viewfinder
        from fitting.window import why_not

        in_window = self._wishes.in_window
        if in_window and (reason := why_not()):
            log.warning("no window can be opened here (%s): see this terminal", reason)
            in_window = False
        with self._stack as stack:
            self._is_stopped = stack.enter_context(interruptible())
            self._guide: Guide = stack.enter_context(Guide(self._sensor.rig))
            self._recorder: Recorder = stack.enter_context(Recorder(self._sensor, self._config))
            self._view: Viewfinder = stack.enter_context(Viewfinder(in_window))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def run(self) -> Iterator[str]:
        """Everything in its order; yields lines for people."""
        folder = captures.begin(self._project.workspace / self._name, self._wishes.source)
        try:
            with attempt.logged_to(folder / attempt.LOG_FILE), attempt.Meter() as meter:
                if self._sensor.follows_instructions:
                    self._recorder.start()
                self._until(lambda: self._guide.wait(0), "getting ready", GUIDE_READY_S)
                if self._sensor.follows_instructions:
                    if self._config.plate_frames:
                        self._film_empty_room()
                    self._sensor.enter()
                    self._count_down("step in, arms a little away from the body")
                writer = self._film(folder)
        except BaseException:
            if not captures.is_left(folder.parent):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        yield from self._finish(folder, writer, meter)

    def _film_empty_room(self) -> None:
        from capture.recorder import plate_of

        self._count_down("leave the picture: the empty room comes first")
        frames: list[Frame] = []
        since = self._recorder.latest.index if self._recorder.latest is not None else -1
        while len(frames) < self._config.plate_frames:
            frame = self._recorder.wait_for(frames[-1].index if frames else since, self._is_stopped)
            if frame is None:
                return
            frames.append(frame)
            self._guide.offer(frame)
            self._view.show(frame.color, f"the empty room: {len(frames)} of {self._config.plate_frames}", [], None)
        self._guide.wait(2.0)
        seen = self._guide.poll()
        if seen is not None and seen.is_there and seen.time_s >= frames[0].time_s:
            self._note("somebody was in the picture of the empty room: it is not kept")
            return
        color, depth_mm = plate_of(frames)
        self._plate = color, None if self._config.no_depth else depth_mm

    def _count_down(self, words: str) -> None:
        end_s = time.monotonic() + self._config.countdown_s
        self._until(lambda: time.monotonic() >= end_s, words, self._config.countdown_s, counts=True)

    def _film(self, folder: Path) -> RecordingWriter:
        from capture.camera import Rig
        from capture.recording import RecordingWriter

        if self._is_stopped():
            raise KeyboardInterrupt
        rig = Rig(self._sensor.rig.color) if self._config.no_depth else self._sensor.rig
        writer = RecordingWriter(folder, rig, f"live: {self._wishes.source}", self._sensor.focal_is_known)
        if self._plate is not None:
            writer.add_plate(*self._plate)
        writer.add_factory(self._sensor.factory)
        self._guide.count_sides()
        self._recorder.begin(writer, self._wishes.seconds)
        if not self._sensor.follows_instructions:
            self._recorder.start()  # not before: it would be over when the countdown is
        try:
            self._until(self._recorder.is_enough.is_set, "recording", float("inf"), True)
        finally:
            self._recorder.end()
        return writer

    def _until(
        self,
        is_enough: Callable[[], bool],
        words: str,
        timeout_s: float,
        is_filming: bool = False,
        counts: bool = False,
    ) -> None:
        """Show what the sensor sees until ``is_enough()``, or until somebody or something ends it."""
        end_s = time.monotonic() + timeout_s
        while not (is_enough() or self._is_stopped() or self._recorder.is_over or time.monotonic() > end_s):
            frame = self._recorder.latest
            headline = f"{words} in {end_s - time.monotonic():.0f} s" if counts else words
            lines: list[str] = []
            if frame is not None:
                self._guide.offer(frame)
                headline, lines = self._words(headline, frame, is_filming)
            sides = self._guide.sides if is_filming else None
            if not self._view.show(None if frame is None else frame.color, headline, lines, sides):
                break
            time.sleep(LOOK_S)

    def _words(self, headline: str, frame: Frame, is_filming: bool) -> tuple[str, list[str]]:
        """(what is going on, what should be different) for people."""
        from capture.recorder import exposure_words
        from fitting.guide import warnings

        recorder, lines = self._recorder, []
        if is_filming:
            tally = recorder.tally
            headline = (
                f"{headline} {recorder.seconds:.1f} s  {tally.written} frames  {recorder.frames_per_second:.0f}/s"
                f"  {tally.dropped + tally.lost} lost"
            )
        if recorder.trouble:
            lines.append(recorder.trouble)
        if (remark := self._sensor.remark()) != "":
            lines.append(remark)
            if is_filming:
                self._remarks[remark] = None
        if (light := exposure_words(frame.color)) != "":
            lines.append(light)
        if (seen := self._guide.poll()) is not None and is_filming:
            lines += warnings(seen)
            if (advice := self._guide.sides.advice()) != "":
                lines.append(advice)
            elif self._guide.sides.seen:
                headline += "  every side seen"
        return headline, lines

    def _finish(self, folder: Path, writer: RecordingWriter, meter: attempt.Meter) -> Iterator[str]:
        """Last words, index, manifest, rename."""
        recorder, failure = self._recorder, self._recorder.failure
        tally = recorder.tally
        if tally.dropped or tally.lost:
            self._note(f"{tally.dropped} frames dropped and {tally.lost} lost by the sensor while filming")
        if tally.stalls:
            times = "once" if tally.stalls == 1 else f"{tally.stalls} times"
            self._note(f"the sensor was silent for more than a second {times}, {tally.longest_gap_s:.1f} s at most")
        if tally.without_depth:
            self._note(f"{tally.without_depth} frames have no depth: the sensor had none of the same moment")
        for remark in self._remarks:
            self._note(f"while filming: {remark}")
        missing = self._guide.sides.missing
        if self._guide.latest is not None and missing:
            self._note(f"sides that were not seen while filming: {', '.join(missing)}")
        if failure is not None:
            self._note(f"the recording ended early: {failure}")
        for note in self._notes:
            writer.note(note)
        home = self._project.workspace / self._name
        made = None
        try:
            if not len(writer):
                writer.close()
                shutil.rmtree(folder)
                raise UserError(f"not a single frame was recorded{f' ({failure})' if failure is not None else ''}")
            writer.finish()
            made = captures.publish(self._project, self._name, meter)
        except OSError as error:
            failure = failure or error
        if failure is not None:
            raise self._told(failure, len(writer), made) from None
        yield tally.summary(recorder.seconds)
        yield f"{made}" if made is not None else f"{home}"

    def _told(self, failure: BaseException, count: int, made: Path | None) -> UserError:
        """One line about what ended the recording, and where it is now."""
        home = self._project.workspace / self._name
        kept = f"its {count} frames are kept"
        kept += f" in {made}" if made is not None else f"; pipeline.py run --subject {self._name} goes on with them"
        if attempt.disk_full(failure, home) is not None:
            free_mb = shutil.disk_usage(home).free / 2**20
            reason = f"{getattr(failure, 'strerror', None) or failure}, {free_mb:.0f} MB free"
            return UserError(f"{home}: no room to write ({reason}): the recording ended; {kept}")
        return UserError(f"the recording ended: {failure}; {kept}")

    def _note(self, text: str) -> None:
        log.warning("%s: %s", self._name, text)
        self._notes.append(text)
