"""How large a live picture may be, so that the next one is not late: fewer pixels while things move, all at rest.

Enters: how long the last pictures took.  Leaves: the scale of the next one, a fraction of the full picture's sides.
"""

from __future__ import annotations

SCALES = (1.0, 0.75, 0.55, 0.4)  # each about half the pixels of the one before
TARGET_S = 0.1  # what a hand still takes as following
REST_S = 0.25  # without a change; then somebody looks instead of moving
MEMORY = 0.5  # weight of the latest picture: a neighbour on the machine is noticed within three
WORTH = 1.4  # a smaller picture must be faster by this: some of the time is not the pixels
RETRY = 40  # pictures after which a larger size that was too slow is tried again


class Pace:
    """The largest of ``SCALES`` whose pictures arrive in time.

    Every scale remembers what it took, so that two neighbours, one too slow and one fast enough, do not alternate.
    """

    def __init__(self, target_s: float = TARGET_S) -> None:
        self.target_s = target_s
        self._took_s: dict[float, float] = {}
        self._seen_at: dict[float, int] = {}
        self._count = 0
        self._last = SCALES[2]

    def took(self, scale: float, seconds: float) -> None:
        """A picture at ``scale`` took so long, from the wish to the last byte handed over."""
        before = self._took_s.get(scale, seconds)
        self._took_s[scale] = before + MEMORY * (seconds - before)
        self._count += 1
        self._seen_at[scale] = self._count
        self._last = scale

    def moving(self) -> float:
        """The scale of the next picture while something moves: the largest in time, or where none is the largest that
        is hardly slower than the smallest."""
        expected_s = {scale: self._expected_s(scale) for scale in SCALES}
        limit_s = self.target_s
        if min(expected_s.values()) > limit_s:
            limit_s = WORTH * expected_s[SCALES[-1]] if SCALES[-1] in self._known() else expected_s[SCALES[-1]]
        return next(scale for scale in SCALES if expected_s[scale] <= limit_s)

    def _known(self) -> list[float]:
        """Scales that were tried lately."""
        return [scale for scale, seen_at in self._seen_at.items() if self._count - seen_at < RETRY]

    def _expected_s(self, scale: float) -> float:
        """What a picture is expected to take: as it did, or by its pixels against the nearest size that is known.

        Hopeful downwards, so that smaller ones are tried; upwards from the two nearest sizes, where some of the time
        may turn out not to be the pixels'.
        """
        known = sorted(self._known(), key=lambda other: abs(SCALES.index(other) - SCALES.index(scale)))
        if not known:  # begin in the middle
            return 0.0 if scale <= self._last else float("inf")
        nearest, nearest_s = known[0], self._took_s[known[0]]
        if scale <= nearest or len(known) == 1:
            return nearest_s * (scale / nearest) ** 2
        slope_s = (nearest_s - self._took_s[known[1]]) / (nearest**2 - known[1] ** 2)
        return nearest_s + max(0.0, slope_s) * (scale**2 - nearest**2)


class Rate:
    """Pictures per second over the last second and a half."""

    def __init__(self, window_s: float = 1.5) -> None:
        self._window_s = window_s
        self._times_s: list[float] = []

    def tick(self, now_s: float) -> None:
        """A picture was handed over."""
        self._times_s = [time for time in self._times_s if now_s - time < self._window_s] + [now_s]

    def per_second(self, now_s: float) -> float:
        """0 without pictures."""
        recent = [time for time in self._times_s if now_s - time < self._window_s]
        if len(recent) < 2:
            return float(len(recent)) / self._window_s
        return (len(recent) - 1) / (recent[-1] - recent[0]) if recent[-1] > recent[0] else 0.0
