"""Sources for whoever watches: a sensor, of which only the newest frame matters, or a ``Replay``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Protocol

from capture.camera import Rig
from capture.recording import Frame
from capture.sensor import GONE_S, Ended, Sensor, Silence

POLL_S = 0.1  # how soon a stop is noticed


class Source(Protocol):
    """Frames to watch.  A context manager; ``rig`` and ``focal_is_known`` are there from the first frame on."""

    waits: bool  # False: frames that are not asked for are lost

    @property
    def rig(self) -> Rig: ...

    @property
    def focal_is_known(self) -> bool: ...

    def frames(self, is_stopped: Callable[[], bool]) -> Iterator[Frame]:
        """The frames, until they end or ``is_stopped()``."""

    def __enter__(self) -> Source: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LiveFrames:
    """A sensor's newest frame, each time somebody is ready for it.  See ``Source``."""

    waits = False

    def __init__(self, sensor: Sensor) -> None:
        self._sensor = sensor

    @property
    def rig(self) -> Rig:
        """The sensor's cameras."""
        return self._sensor.rig

    @property
    def focal_is_known(self) -> bool:
        """Whether its colour focal length was measured."""
        return self._sensor.focal_is_known

    def frames(self, is_stopped: Callable[[], bool] = lambda: False) -> Iterator[Frame]:
        """The newest frame again and again.  Raises UserError when the sensor is gone."""
        silent_s, first = 0.0, -1
        while not is_stopped():
            try:
                frame = self._sensor.read(POLL_S)
            except Ended:
                return
            except Silence:
                silent_s += POLL_S
                if silent_s >= GONE_S:
                    raise
                continue
            silent_s = 0.0
            first = frame.index if first < 0 else first  # what came before anybody looked is not missed
            newest = self._newest(frame)
            yield replace(newest, index=newest.index - first)

    def _newest(self, frame: Frame) -> Frame:
        """``frame``, or what came after it while nobody was looking."""
        while True:
            try:
                frame = self._sensor.read(0.0)
            except (Silence, Ended):
                return frame

    def __enter__(self) -> LiveFrames:
        self._sensor.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sensor.close()
