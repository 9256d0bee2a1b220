"""Colour and depth of one moment: at most 16 ms apart, nothing twice, every loss counted, whatever the clocks do."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from capture.kinect.driver import COLOR, DEPTH, Shot
from capture.kinect.pairing import MAX_APART_S, MOST_WAITING, PATIENCE_S, Pair, Pairing

NO_IMAGE = np.zeros((1, 1), np.uint16)


class Bench:
    """Feeds shots; the host's clock stands at the device's time of the newest one, unless told."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pairing = Pairing(lambda: self.now_s)
        self.pairs: list[Pair] = []

    def feed(self, shots: Iterable[Shot], host_offset_s: float = 0.0) -> list[Pair]:
        for shot in shots:
            self.now_s = max(self.now_s, shot.time_s + host_offset_s)
            self.pairs += self.pairing.add(shot)
        return self.pairs


def shots(
    stream: str, rate_hz: float, start_s: float, count: int, numbered: bool = False, period_s: float | None = None
) -> list[Shot]:
    return [
        Shot(stream, start_s + k / rate_hz, np.array([[k]], np.uint16), k if numbered else None, period_s)
        for k in range(count)
    ]


def merged(*streams: list[Shot]) -> list[Shot]:
    return sorted((shot for stream in streams for shot in stream), key=lambda shot: shot.time_s)


@pytest.mark.parametrize("late_s", [0.0, 0.005, 0.0155, 0.0180, 0.0224, 0.030])
@pytest.mark.parametrize("color_hz", [30.0, 15.0])
def test_each_picture_gets_the_depth_of_its_moment(late_s: float, color_hz: float) -> None:
    bench = Bench()
    pairs = bench.feed(merged(shots(COLOR, color_hz, 5.0, 60), shots(DEPTH, 30.0, 5.0 - 1 + late_s, 200)))
    assert [pair.index for pair in pairs] == list(range(len(pairs))) and len(pairs) >= 59
    assert all(abs(pair.apart_s) <= MAX_APART_S for pair in pairs)
    given = [int(pair.depth_mm[0, 0]) for pair in pairs if pair.depth_mm is not None]
    assert len(given) == len(set(given)) == len(pairs)
    assert bench.pairing.is_half_rate == (color_hz == 15.0)


def test_the_nearest_depth_is_taken_not_the_last() -> None:
    bench = Bench()
    depth = shots(DEPTH, 30.0, 0.0, 30)
    color = [Shot(COLOR, 0.5 + 0.012, NO_IMAGE)]
    (pair,) = bench.feed(merged(depth[:16], color, depth[16:]))
    assert pair.depth_mm is not None and pair.depth_mm[0, 0] == 15 and pair.apart_s == pytest.approx(-0.012)
    bench = Bench()
    (pair,) = bench.feed(merged(depth[:16], [Shot(COLOR, 0.5 + 0.025, NO_IMAGE)], depth[16:]))
    assert pair.depth_mm is not None and pair.depth_mm[0, 0] == 16


def test_a_moment_without_depth_has_none() -> None:
    depth = shots(DEPTH, 30.0, 0.005, 60)
    bench = Bench()
    pairs = bench.feed(merged(shots(COLOR, 30.0, 0.0, 60), depth[:20] + depth[40:]))
    without = [pair.index for pair in pairs if pair.depth_mm is None]
    assert without == list(range(20, 40)) and len(pairs) == 60


def test_depth_that_stops_is_noticed_after_a_second() -> None:
    bench = Bench()
    bench.feed(merged(shots(COLOR, 30.0, 0.0, 55), shots(DEPTH, 30.0, 0.0, 30)))
    assert not bench.pairing.is_depth_silent
    bench.feed(shots(COLOR, 30.0, 55 / 30, 10))
    assert bench.pairing.is_depth_silent
    bench.now_s += 2.0
    assert not bench.pairing.is_depth_silent, "both are silent: that is another trouble"


def test_without_depth_pictures_still_come_and_memory_is_bounded() -> None:
    bench = Bench()
    for shot in shots(COLOR, 30.0, 0.0, 90):
        bench.feed([shot])
        assert len(bench.pairing._colors) <= MOST_WAITING + 1
    bench.now_s += 2 * PATIENCE_S
    bench.pairs += bench.pairing.late()
    assert [pair.index for pair in bench.pairs] == list(range(90))
    assert all(pair.depth_mm is None for pair in bench.pairs)


def test_what_comes_twice_is_given_once() -> None:
    bench = Bench()
    stream = merged(shots(COLOR, 30.0, 0.0, 30), shots(DEPTH, 30.0, 0.004, 30))
    pairs = bench.feed(shot for shot in stream for _ in range(5))
    assert len(pairs) == 30 and bench.pairing.repeated == 4 * 60
    times = [pair.time_s for pair in pairs]
    assert len(set(times)) == 30 and times == sorted(times)


@pytest.mark.parametrize("numbered", [True, False])
def test_losses_are_gaps(numbered: bool) -> None:
    bench = Bench()
    color = shots(COLOR, 30.0, 0.0, 60, numbered)
    pairs = bench.feed(merged(color[:10] + color[13:40] + color[41:], shots(DEPTH, 30.0, 0.002, 60)))
    expected = [*range(10), *range(13, 40), *range(41, 60)]
    assert [pair.index for pair in pairs] == expected


@pytest.mark.parametrize("more", [{"numbered": True}, {"period_s": 1 / 30}], ids=["counted", "told"])
def test_a_machine_that_misses_every_second_picture_is_no_dim_light(more: dict) -> None:
    bench = Bench()
    pairs = bench.feed(merged(shots(COLOR, 30.0, 0.0, 80, **more)[::2], shots(DEPTH, 30.0, 0.002, 80)))
    assert np.diff([pair.index for pair in pairs]).tolist() == [2] * 39 and not bench.pairing.is_half_rate


def test_dim_light_is_no_loss() -> None:
    """Colour changes to half the rate and back, by the driver's word and without."""
    for numbered, told in ((True, False), (False, True)):
        color: list[Shot] = []
        for rate_hz, count in ((30.0, 20), (15.0, 30), (30.0, 20)):
            start_s = color[-1].time_s + 1 / rate_hz if color else 0.0
            for shot in shots(COLOR, rate_hz, start_s, count, period_s=1 / rate_hz if told else None):
                number = len(color) if numbered else None
                color.append(Shot(COLOR, shot.time_s, NO_IMAGE, number, shot.period_s))
        bench = Bench()
        pairs = bench.feed(merged(color, shots(DEPTH, 30.0, -0.5, 200)))
        assert pairs[-1].index - pairs[0].index + 1 - len(pairs) == 0


@pytest.mark.parametrize("epoch_s", [0.0, 3.0, 99_000.0])
def test_a_device_that_was_plugged_in_again_goes_on_in_time(epoch_s: float) -> None:
    """Its clock starts anew, anywhere; two seconds passed on the host's."""
    bench = Bench()
    bench.feed(merged(shots(COLOR, 30.0, 50.0, 30), shots(DEPTH, 30.0, 50.004, 30)))
    again = merged(shots(COLOR, 30.0, epoch_s, 30), shots(DEPTH, 30.0, epoch_s + 0.004, 30))
    pairs = bench.feed(again, host_offset_s=bench.now_s + 2.0 - epoch_s)
    assert len(pairs) == 60 and all(abs(pair.apart_s) <= MAX_APART_S for pair in pairs)
    steps = np.diff([pair.time_s for pair in pairs])
    assert steps.min() > 0.03 and np.sort(steps)[-1] == pytest.approx(2.0, abs=0.1) and np.sort(steps)[-2] < 0.05
    assert 55 <= pairs[30].index - pairs[29].index <= 65


def test_pictures_that_come_in_a_bunch_keep_their_times() -> None:
    bench = Bench()
    stream = merged(shots(COLOR, 30.0, 7.0, 45), shots(DEPTH, 30.0, 7.004, 45))
    bench.now_s = 100.0  # all of them at once
    pairs = [pair for shot in stream for pair in bench.pairing.add(shot)]
    assert np.diff([pair.time_s for pair in pairs]) == pytest.approx(np.full(44, 1 / 30))
