"""A live source of frames: opened, read one by one, closed; and recordings played as if they were one.

Who adds a sensor writes a subclass of ``Sensor`` and names it in the SENSORS table of ``pipeline.py``: ``open_sensor``
finds it there by the word before the colon of ``--source``.
"""

from __future__ import annotations

import importlib
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np

from capture.camera import Rig
from capture.errors import UserError
from capture.recording import Frame
from capture.replay import Replay, newest

MAILBOX = 2  # frames a driver holds for a reader who is late; what comes then is lost
GONE_S = 5.0  # without a picture for so long a sensor is gone
FIRST_FRAME_S = 20.0  # how long a source may take to show its first picture


class Ended(Exception):
    """There will be no more frames: a replay has come to its end."""


class Silence(UserError):
    """No picture came in time; one may still come."""


class Sensor(ABC):
    """Frames as they come.  Use as a context manager, or call ``open`` and ``close``.

    ``Frame.index`` counts what the sensor took, so that gaps are frames that were lost before they could be read;
    ``Frame.time_s`` is its own clock.  A subclass starts in ``_start`` and lets go of everything in ``_stop``, which
    is also called when ``_start`` fails half-way, and may be called twice.
    """

    rig: Rig  # from ``open`` on
    focal_is_known: bool = True
    follows_instructions: bool = True  # False: who is in the picture cannot hear us
    factory: Mapping[str, np.ndarray] = MappingProxyType({})  # the device's own numbers about its cameras, if it tells

    def enter(self) -> None:  # noqa: B027  most sensors have nothing to do
        """Whoever is filmed is told to come into the picture now."""

    def remark(self) -> str:
        """What whoever films should change, as far as the sensor itself knows; empty where nothing."""
        return ""

    def open(self) -> None:
        """Start.  Raises UserError saying what to do; everything is let go of then, and it may be tried again."""
        try:
            self._start()
        except BaseException:
            self._stop()
            raise

    def close(self) -> None:
        """Let go of the device.  Nothing happens where it is closed already."""
        self._stop()

    @abstractmethod
    def read(self, timeout_s: float) -> Frame:
        """The next frame.  Raises ``Silence`` when none comes within ``timeout_s``, ``Ended`` after the last one, and
        UserError when none will come any more."""

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _stop(self) -> None: ...

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_sensor(source: str, sensors: Mapping[str, str], workspace: Path) -> Sensor:
    """The sensor that ``NAME`` or ``NAME:ARGUMENT`` means, not opened yet; ``sensors`` has the dotted paths.

    A class of the table is called with the argument and with the workspace, where it may keep what it needs.  Raises
    UserError for a sensor that is not there.
    """
    name, _, argument = source.partition(":")
    if name not in sensors:
        known = ", ".join(sorted(sensors))
        raise UserError(f"--source {source}: no sensor called {name!r} in this version; there are {known}")
    module, _, attribute = sensors[name].rpartition(".")
    made = getattr(importlib.import_module(module), attribute)(argument, workspace)
    assert isinstance(made, Sensor)
    return made


class Mailbox:
    """Hands frames from the thread that has them to the one that reads them; keeps few, like a driver."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._items: queue.Queue[Frame | BaseException] = queue.Queue(MAILBOX)

    def put(self, item: Frame | BaseException, is_over: Callable[[], bool] | None = None) -> None:
        """Leave a frame, or what ended the source.  ``is_over`` given: wait until there is room or it is true; without
        it a frame that finds no room is lost, as with a driver whose reader is late."""
        while is_over is None or not is_over():
            try:
                self._items.put(item, timeout=0.0 if is_over is None else 0.1, block=is_over is not None)
                return
            except queue.Full:
                if is_over is None:
                    return

    def get(self, timeout_s: float) -> Frame:
        """The oldest frame.  Raises ``Silence`` when none comes in time, and what ended the source."""
        try:
            item = self._items.get(timeout=timeout_s)
        except queue.Empty:
            raise Silence(f"{self._source}: no picture for {timeout_s:.1f} s; is it still connected?") from None
        if isinstance(item, BaseException):
            self._items.put(item)  # for whoever asks again
            raise item
        return item


class DeliveringSensor(Sensor):
    """A sensor whose device a thread of its own listens to: ``_deliver`` fills the mailbox until ``_is_over``.

    ``_start`` calls ``_launch`` when the device runs, ``_deliver`` sets ``_has_begun`` once ``rig`` is known, ``_stop``
    calls ``_halt`` before it lets go of the device.
    """

    _thread: threading.Thread | None = None

    def _launch(self, source: str, within_s: float) -> bool:
        """Begin to listen.  Returns whether it has begun ``within_s``; raises what kept it from it."""
        self._is_over, self._has_begun = threading.Event(), threading.Event()
        self._mailbox = Mailbox(source)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        has_begun = self._has_begun.wait(within_s)
        if self._failure is not None:
            raise self._failure
        return has_begun

    def _halt(self) -> None:
        if self._thread is not None:
            self._is_over.set()
            self._thread.join(10)
            self._thread = None

    def _listen(self) -> None:
        ended: BaseException = Ended()
        try:
            self._deliver()
        except BaseException as error:  # handed to whoever reads
            ended = self._failure = error
        self._mailbox.put(ended, self._is_over.is_set)
        self._has_begun.set()

    @abstractmethod
    def _deliver(self) -> None:
        """Runs in the thread.  What it raises ends the sensor."""


class ReplaySensor(Sensor):
    """Any recording or file that can be imported, played at its own speed, or as fast as it is read.

    In real time a late reader loses frames, as with a sensor; otherwise the source waits for him.  Time begins with the
    first ``read``.
    """

    follows_instructions = False

    def __init__(self, path: str, workspace: Path | None = None, is_realtime: bool = True) -> None:
        from capture.importers import ImportConfig, recognise

        if not path:
            raise UserError("--source replay: say what to play, with --source replay:PATH")
        self._source = Path(path)
        layout = recognise(self._source)
        self._produce = lambda folder: layout.importer(ImportConfig(), folder, self._source)
        self._is_realtime = is_realtime
        self._stack = ExitStack()

    def read(self, timeout_s: float) -> Frame:
        self._is_wanted.set()
        return self._mailbox.get(timeout_s)

    def _start(self) -> None:
        self._is_over, self._is_wanted = threading.Event(), threading.Event()
        self._mailbox = Mailbox(f"replay of {self._source}")
        self._replay = self._stack.enter_context(Replay(self._produce))
        self._has_begun = threading.Event()
        thread = threading.Thread(target=self._deliver, daemon=True)
        thread.start()
        self._stack.callback(thread.join, 10)
        self._stack.callback(self._is_wanted.set)
        self._stack.callback(self._is_over.set)
        if not self._has_begun.wait(FIRST_FRAME_S):
            raise UserError(f"{self._source}: not a single picture within {FIRST_FRAME_S:.0f} s; is it the right file?")
        if self._failure is not None:
            raise self._failure
        self.rig, self.focal_is_known = self._replay.rig, self._replay.focal_is_known

    def _stop(self) -> None:
        self._stack.close()

    def _deliver(self) -> None:
        self._failure: BaseException | None = None
        frames: Iterator[Frame] = self._replay.frames(self._is_over.is_set)
        try:
            first = next(frames, None)
            if first is not None:
                self._has_begun.set()
                self._is_wanted.wait()
                frames = chain([first], frames)
            for frame in newest(frames) if self._is_realtime else frames:
                self._mailbox.put(frame, None if self._is_realtime else self._is_over.is_set)
                if self._is_over.is_set():
                    return
            ended: BaseException = Ended()
            if not self._has_begun.is_set():
                self._failure = UserError(f"{self._source}: has not a single frame; is it the right file?")
        except BaseException as error:  # handed to whoever reads
            ended = self._failure = error
        self._mailbox.put(ended, self._is_over.is_set)
        self._has_begun.set()


class Pace:
    """A clock that ticks ``rate_hz`` times a second and says which tick is due."""

    def __init__(self, rate_hz: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_hz, self._clock = rate_hz, clock
        self._since_s = clock()

    def due(self) -> int:
        """The number of the newest tick."""
        return int((self._clock() - self._since_s) * self._rate_hz)

    def wait_s(self, tick: int) -> float:
        """Until that tick; not positive when it is past."""
        return self._since_s + tick / self._rate_hz - self._clock()
