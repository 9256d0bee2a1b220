"""A source played as if it were live: frames come at their own times, and whoever is late misses some.

Whatever writes a recording (an importer, the demo's film) runs in a thread, and its RecordingWriter hands every frame
over instead of writing it.  So every source that can be imported can be played, with the same checks.
"""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from types import TracebackType

import numpy as np

from capture.camera import Rig
from capture.errors import UserError
from capture.files import decode_color
from capture.recording import Frame, taker

AHEAD = 8  # frames read before they are wanted
POLL_S = 0.1  # how soon a stop is noticed


class _Stopped(BaseException):
    """Ends a producer whose frames nobody wants any more; not an Exception, so that no importer mistakes it."""


class Replay:
    """Frames of a producer.  Use as a context manager: leaving it ends the producer.

    ``produce(folder)`` writes a recording into ``folder`` through a RecordingWriter.
    """

    waits = True  # for whoever asks for the next frame

    def __init__(self, produce: Callable[[Path], None]) -> None:
        self._produce = produce
        self._frames: queue.Queue[Frame | BaseException | None] = queue.Queue(AHEAD)
        self._is_over = threading.Event()
        self._count = 0
        self._camera: tuple[Rig, bool] | None = None
        # The thread inherits a copy of this context; that frames are taken is true in there only.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), daemon=True)

    @property
    def rig(self) -> Rig:
        """The cameras; known from the first frame on."""
        assert self._camera is not None
        return self._camera[0]

    @property
    def focal_is_known(self) -> bool:
        """Whether the colour focal length was measured and not guessed; known from the first frame on."""
        assert self._camera is not None
        return self._camera[1]

    def frames(self, is_stopped: Callable[[], bool] = lambda: False) -> Iterator[Frame]:
        """Every frame, until the source ends or ``is_stopped()``.  Raises what the producer raised."""
        while not is_stopped():
            try:
                item = self._frames.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            yield item

    def __enter__(self) -> Replay:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        taker.set(self._take)
        try:
            with tempfile.TemporaryDirectory(prefix="live_") as folder:
                self._produce(Path(folder))
            self._put(None)
        except _Stopped:
            pass
        except BaseException as error:  # handed to the thread that waits for frames
            if not self._is_over.is_set():
                self._put(error)

    def _take(
        self, rig: Rig, focal_is_known: bool, time_s: float, color: np.ndarray | bytes, depth_mm: np.ndarray | None
    ) -> None:
        self._camera = rig, focal_is_known
        picture = decode_color(color) if isinstance(color, bytes) else color
        if picture is None:
            raise UserError(f"frame {self._count} of the source is not a readable picture; copy it again")
        self._put(Frame(self._count, time_s, picture, depth_mm))
        self._count += 1

    def _put(self, item: Frame | BaseException | None) -> None:
        while not self._is_over.is_set():
            try:
                self._frames.put(item, timeout=POLL_S)
                return
            except queue.Full:
                continue
        raise _Stopped


def newest(
    frames: Iterator[Frame],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Frame]:
    """The frames that somebody sees who looks up whenever he is ready: never before a frame's time, and the newest one
    that is there.

    Time in which the source itself did not deliver does not pass: a slow file is a slow clock, not a lost frame.
    """
    pending = next(frames, None)
    if pending is None:
        return
    started_s = clock() - pending.time_s
    while pending is not None:
        asked_s = clock()
        following = next(frames, None)
        started_s += clock() - asked_s
        if following is not None and following.time_s <= clock() - started_s:
            pending = following
            continue
        wait_s = started_s + pending.time_s - clock()
        if wait_s > 0:
            sleep(wait_s)
        yield pending
        pending = following
