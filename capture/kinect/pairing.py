"""Which colour and which depth picture of a Kinect V2 belong together.

The two cameras expose when they like, by one clock: depth 30 times a second, colour as often or, in dim light, half as
often.  Shots enter as the driver hands them over, each stream in its own order; pairs leave in the order of colour.
A depth picture is given at most once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from capture.kinect.driver import COLOR, DEPTH, Shot

MAX_APART_S = 0.016  # of a pair: half of the 33 ms between two depth pictures; a hand at 2 m/s moves 3 cm
PATIENCE_S = 0.5  # a picture waits so long for depth, which a slow machine computes later than colour
MOST_WAITING = 16  # pictures: 100 MB
RESTART_S = 1.0  # a step of the device's clock beyond the host's by so much: it was plugged in anew
SILENT_S = 1.0  # without a picture of one stream while the other one comes
FULL_S, HALF_S = 1 / 30, 1 / 15  # between two colour pictures
BETWEEN_S = (FULL_S + HALF_S) / 2
RECENT = 15  # steps that say at which rate colour comes


@dataclass(frozen=True)
class Pair:
    """Colour, with the depth of the same moment where there was one."""

    index: int  # counts what the colour camera took: gaps were lost
    time_s: float  # of colour; goes on when the device's clock starts anew
    color: np.ndarray  # (H, W, 3) uint8
    depth_mm: np.ndarray | None  # (h, w) uint16
    apart_s: float  # depth's time minus colour's; NaN without depth


@dataclass(frozen=True)
class _Waiting:
    index: int
    time_s: float
    shot: Shot
    since_s: float  # host clock


class Pairing:
    """Takes shots in, gives pairs out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.repeated = 0  # shots that were no new ones
        self._last: dict[str, tuple[Shot, float]] = {}  # stream -> newest shot, and when it came
        self._colors: deque[_Waiting] = deque()
        self._depths: deque[Shot] = deque(maxlen=MOST_WAITING)
        self._index, self._time_s = -1, 0.0
        self._steps_s: deque[float] = deque(maxlen=RECENT)

    @property
    def is_half_rate(self) -> bool:
        """Whether colour comes 15 times a second, as in dim light."""
        return len(self._steps_s) == RECENT and float(np.median(self._steps_s)) > BETWEEN_S

    @property
    def is_depth_silent(self) -> bool:
        """Whether depth has stopped while colour still comes."""
        if DEPTH not in self._last or COLOR not in self._last:
            return False
        since_s = {stream: self._clock() - came_s for stream, (_, came_s) in self._last.items()}
        return since_s[DEPTH] > SILENT_S > since_s[COLOR]

    def add(self, shot: Shot) -> list[Pair]:
        """One more shot; returns the pairs that are complete by it."""
        now_s = self._clock()
        if shot.stream in self._last:
            step_s = shot.time_s - self._last[shot.stream][0].time_s
            if -RESTART_S < step_s <= 0:
                self.repeated += 1
                return []
        if shot.stream == COLOR:
            self._place(shot, now_s)
        else:
            if self._is_restart(shot, now_s):
                self._depths.clear()
            self._depths.append(shot)
        self._last[shot.stream] = shot, now_s
        return self._settled(now_s)

    def late(self) -> list[Pair]:
        """Pairs that have waited long enough for depth; call it when no shot comes."""
        return self._settled(self._clock())

    def _is_restart(self, shot: Shot, now_s: float) -> bool:
        if shot.stream not in self._last:
            return False
        last, came_s = self._last[shot.stream]
        step_s = shot.time_s - last.time_s
        return step_s < 0 or step_s > now_s - came_s + RESTART_S

    def _place(self, shot: Shot, now_s: float) -> None:
        """Give a colour picture its index and its time."""
        if COLOR not in self._last:
            self._index, self._time_s = 0, shot.time_s
        else:
            last, came_s = self._last[COLOR]
            step_s = shot.time_s - last.time_s
            is_step = not self._is_restart(shot, now_s)
            counted = None if shot.number is None or last.number is None else max(1, shot.number - last.number)
            own_s = shot.period_s or step_s / (counted or 1)  # what the camera does, whatever was missed of it
            if is_step and own_s < 2 * BETWEEN_S:
                self._steps_s.append(own_s)
            period_s = shot.period_s or self._usual_s()
            if not is_step:
                step_s, counted = max(now_s - came_s, period_s), None
                self._depths.clear()
            self._index += counted or max(1, round(step_s / period_s))
            self._time_s += step_s
        self._colors.append(_Waiting(self._index, self._time_s, shot, now_s))

    def _usual_s(self) -> float:
        """Between two colour pictures at present, where the driver does not tell: one long step may be a loss, two in a
        row are dim light."""
        return HALF_S if min(list(self._steps_s)[-2:], default=0.0) > BETWEEN_S else FULL_S

    def _settled(self, now_s: float) -> list[Pair]:
        pairs = []
        while self._colors:
            waiting = self._colors[0]
            apart_s = [depth.time_s - waiting.shot.time_s for depth in self._depths]
            nearest = int(np.argmin(np.abs(apart_s))) if apart_s else -1
            is_found = nearest >= 0 and abs(apart_s[nearest]) <= MAX_APART_S
            is_past = bool(apart_s) and apart_s[-1] > 0  # what comes later is further away
            is_late = now_s - waiting.since_s > PATIENCE_S or len(self._colors) > MOST_WAITING
            if not (is_found or is_past or is_late):
                break
            self._colors.popleft()
            found, apart = None, float("nan")
            if is_found:
                found, apart = self._depths[nearest].image, apart_s[nearest]
                for _ in range(nearest + 1):
                    self._depths.popleft()
            pairs.append(Pair(waiting.index, waiting.time_s, waiting.shot.image, found, apart))
        return pairs
