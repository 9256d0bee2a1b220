"""Watch the body being tracked while a source plays: in a window, as an mp4, or both.

Frames of a ``Replay`` or of a sensor enter; pictures and a summary in words leave.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from capture.errors import UserError
from capture.films import check_out
from capture.interrupt import interruptible
from capture.live import Source
from capture.recording import Frame
from capture.replay import newest
from capture.video import VideoWriter
from fitting import verdict
from fitting.fit import BodyFit, FitConfig, load_body
from fitting.landmarkers import AUTO, MEDIAPIPE
from fitting.live import Known, LiveFit, LiveTracker
from fitting.overlay import draw_overlay
from fitting.settle import SETTLE_S, Beside, Here
from fitting.stream import Look, PoseStream
from fitting.window import TITLE, Window, why_not

log = logging.getLogger(__name__)

LONG_SIDE_PX = 720
RATE = 120.0  # a fine clock for sources of any rate; only real pictures are written
TONES = {verdict.TRACKED: (60, 200, 90), verdict.UNCERTAIN: (240, 180, 40), verdict.LOST: (235, 70, 60)}


@dataclass(frozen=True)
class Show:
    """What is to be seen, and how."""

    out: Path | None  # mp4 to write
    in_window: bool
    is_realtime: bool  # miss frames when late even without a window; with one the source never waits
    seconds: float | None = None  # of the source, from its beginning
    title: str = TITLE  # of the window

    def check(self) -> None:
        """Raises UserError for what cannot be shown here."""
        if self.out is not None and self.out.suffix.lower() != ".mp4":
            raise UserError(f"--out {self.out}: the film is an mp4; give a name that ends in .mp4")
        if self.out is not None:
            check_out(self.out)
        if self.seconds is not None and self.seconds <= 0:
            raise UserError(f"--seconds {self.seconds:g}: must be positive")
        if not self.in_window and self.out is None:
            raise UserError("--no-window leaves nothing to look at; add --out FILE.mp4")
        if self.in_window and self.out is None and (reason := why_not()):
            raise UserError(f"no window can be opened here ({reason}); add --out FILE.mp4")


@dataclass
class Tally:
    """What happened, for the line in the picture and the summary."""

    seen: int = 0
    dropped: int = 0
    words: str = ""  # about the body
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TONES, 0))
    timings_ms: dict[str, list[float]] = field(default_factory=dict)
    ended_s: deque[float] = field(default_factory=lambda: deque(maxlen=30))

    def add(self, fitted: LiveFit, index_before: int | None) -> None:
        self.seen += 1
        self.dropped += fitted.frame.index - (index_before if index_before is not None else -1) - 1
        self.counts[fitted.status] += 1
        for part, taken_ms in fitted.timings_ms.items():
            self.took(part, taken_ms)

    def took(self, part: str, taken_ms: float) -> None:
        self.timings_ms.setdefault(part, []).append(taken_ms)

    def tick(self) -> None:
        self.ended_s.append(time.monotonic())

    @property
    def frames_per_second(self) -> float:
        """Over the last frames; 0 before there are two."""
        if len(self.ended_s) < 2 or self.ended_s[-1] <= self.ended_s[0]:
            return 0.0
        return (len(self.ended_s) - 1) / (self.ended_s[-1] - self.ended_s[0])

    def summary(self) -> list[str]:
        """What to say at the end."""
        parts = {part: float(np.median(taken)) for part, taken in self.timings_ms.items() if part != "shape"}
        counted = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        lines = [f"frames: {self.seen} seen, {counted}, {self.dropped} dropped"]
        if parts:
            each = ", ".join(f"{part} {taken:.0f}" for part, taken in parts.items())
            lines.append(f"median ms per frame: {each}")
        return [*lines, self.words] if self.words else lines


def play(
    config: FitConfig,
    show: Show,
    source: Source,
    fitted_before: BodyFit | None = None,
    look: Callable[[np.ndarray], Look | None] | None = None,
    draw: Draw | None = None,
) -> list[str]:
    """Track ``source``'s frames and show them; returns the summary.  Ctrl-C, or q in the window, ends it well.

    ``fitted_before`` lends shape, clothes and camera.  ``draw`` makes the picture of a frame, by default ``overlay``.
    A source that does not wait misses frames in any case.  Raises UserError for one without frames.
    """
    show.check()
    if config.keypoints not in (AUTO, MEDIAPIPE):
        raise UserError(
            f"fit.keypoints = {config.keypoints}: live tracking looks with MediaPipe only; leave it at 'auto'"
        )
    in_window = show.in_window
    if in_window and (reason := why_not()):
        log.warning("no window can be opened here (%s): only %s is written", reason, show.out)
        in_window = False
    is_realtime = show.is_realtime or in_window or not source.waits
    body = fitted_before.body.tracked if fitted_before is not None else load_body(config.body)
    tally = Tally()
    with ExitStack() as stack:
        is_stopped = stack.enter_context(interruptible())
        stack.enter_context(source)
        if look is None:
            look = PoseStream()
            stack.callback(look.close)
        film = stack.enter_context(Film(show.out)) if show.out is not None else None
        window = stack.enter_context(Window(show.title)) if in_window else None
        measurer = stack.enter_context(Beside()) if is_realtime and fitted_before is None else Here()
        tracker: LiveTracker | None = None
        before: Frame | None = None
        for frame in _frames(source, is_realtime, show.seconds, is_stopped):
            if tracker is None:
                known = _known(fitted_before, source)
                tracker = LiveTracker(
                    config, body, source.rig, source.focal_is_known, look, known, is_realtime, measurer
                )
                log.info("%s", tracker.words)
                tally.words = tracker.words
            fitted = tracker.feed(frame)
            if tracker.words != tally.words:
                log.info("%s", tracker.words)
                tally.words = tracker.words
            tally.add(fitted, before.index if before is not None else None)
            before = frame
            started_s = time.perf_counter()
            picture = (draw or overlay)(tracker, fitted, tally)
            if film is not None:
                film.add(frame.time_s, picture)
            goes_on = window is None or window.show(picture)
            tally.took("picture", 1e3 * (time.perf_counter() - started_s))
            tally.tick()
            if not goes_on:
                break
        if before is None and not is_stopped():
            raise UserError("the source has not a single frame; is it the right file?")
    if tracker is not None and not tracker.is_settled:
        tally.words = f"body not measured (that takes {SETTLE_S:g} s in view): the mean adult was shown"
    return tally.summary()


def _known(fitted: BodyFit | None, source: Source) -> Known | None:
    """The body of an earlier fit, with its camera where the source is of that camera, as far as one can see."""
    if fitted is None:
        return None
    is_ours = fitted.camera.image_wh == source.rig.color.image_wh and not source.focal_is_known
    return Known(fitted.shape, fitted.vertex_offsets_m, fitted.camera if is_ours else None)


def _frames(
    source: Source, is_realtime: bool, seconds: float | None, is_stopped: Callable[[], bool]
) -> Iterator[Frame]:
    """The frames to track.  What breaks the source off after its first frame is said, not raised."""
    frames = source.frames(is_stopped)
    first_s: float | None = None
    try:
        for frame in newest(frames) if is_realtime and source.waits else frames:
            first_s = frame.time_s if first_s is None else first_s
            if seconds is not None and frame.time_s - first_s >= seconds:
                return
            yield frame
    except UserError as error:
        if first_s is None:
            raise
        log.warning("the source ends early: %s", error)


def overlay(tracker: LiveTracker, fitted: LiveFit, tally: Tally) -> np.ndarray:
    """The tracked body over one frame, with its status: (h, w, 3) uint8."""
    picture = draw_overlay(
        fitted.frame.color, fitted.camera, tracker.body, fitted.vertices_m, fitted.landmarks_px, "", LONG_SIDE_PX
    ).copy()
    return with_status(picture, fitted, tally)


def with_status(picture: np.ndarray, fitted: LiveFit, tally: Tally) -> np.ndarray:
    """``picture`` (h, w, 3) with what there is to say about the frame written into it."""
    rate = f"{tally.frames_per_second:.1f} frames/s  " if tally.frames_per_second else ""
    dropped = f"{tally.dropped} dropped  " if tally.dropped else ""
    measuring = "" if fitted.is_settled else "measuring the body"
    lines = [f"{fitted.frame.time_s:.1f} s  {rate}{dropped}{measuring}", f"{fitted.status}  {fitted.reason}"]
    picture[:46] //= 3  # light words on dark ground, whatever the picture
    cv2.circle(picture, (14, 35), 6, TONES[fitted.status], -1, cv2.LINE_AA)
    for k, line in enumerate(lines):
        place = (28, 18 + 20 * k)
        cv2.putText(picture, line.strip(), place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


Draw = Callable[[LiveTracker, LiveFit, Tally], np.ndarray]


class Film:
    """An mp4 in the source's own time: where frames were missed, the picture before them stays.  A context manager."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._writer: VideoWriter | None = None
        self._first_s, self._last_index = 0.0, -1

    def add(self, time_s: float, picture: np.ndarray) -> None:
        """Append a picture (h, w, 3) that was taken at ``time_s``."""
        if self._writer is None:
            self._writer = VideoWriter(self._path, RATE, crf=23).__enter__()
            self._first_s = time_s
        self._last_index = max(round((time_s - self._first_s) * RATE), self._last_index + 1)
        self._writer.add(picture, self._last_index)

    def __enter__(self) -> Film:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)
