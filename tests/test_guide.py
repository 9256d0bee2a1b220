"""The guide: which side is seen, from which way to turn, what is out of the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from capture.camera import Camera, Rig
from capture.recording import Frame
from capture.segment import reduced
from fitting.guide import (
    ENOUGH_LOOKS,
    LANDMARK_NAMES,
    LOOK_EVERY_S,
    SECTORS,
    Guide,
    Sides,
    Sighting,
    azimuth_deg,
    outside_words,
    reduced_quickly,
    sighting,
    turn_deg,
    warnings,
)
from fitting.stream import Look
from fitting.viewfinder import drawn

COLOR = Camera((192, 108), 106.7, 106.7, 96.0, 54.0)
RIG = Rig(COLOR, COLOR, np.eye(4))


def standing(turned_left_deg: float) -> np.ndarray:
    """(33, 3) landmarks of somebody who faced the camera and turned to her left, seen from above counter-clockwise."""
    points = np.zeros((33, 3))
    place: dict[str, tuple[float, float, float]] = {"nose": (0, -0.65, -0.1)}
    for side, sign in (("left", 1), ("right", -1)):  # facing the camera, her left is at the picture's right: +x
        place |= {f"{side}_shoulder": (0.18 * sign, -0.45, 0), f"{side}_hip": (0.12 * sign, 0, 0)}
        place |= {f"{side}_ankle": (0.12 * sign, 0.85, 0), f"{side}_foot_index": (0.12 * sign, 0.9, -0.15)}
        place |= {f"{side}_wrist": (0.3 * sign, 0, 0), f"{side}_index": (0.3 * sign, 0.1, 0)}
        place |= {f"{side}_heel": (0.12 * sign, 0.9, 0.05)}
    for name, at in place.items():
        points[LANDMARK_NAMES.index(name)] = at
    for k in range(11):
        points[k] = place["nose"]
    # y points down, the camera looks along +z: who faces it (-z) and turns to her left comes to face +x.
    sine, cosine = np.sin(np.radians(turned_left_deg)), np.cos(np.radians(turned_left_deg))
    return points @ np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]]).T


def test_facing_the_camera_is_zero_and_turning_left_shows_the_right_side() -> None:
    assert azimuth_deg(standing(0)) == pytest.approx(0, abs=1e-6)
    ahead_x = np.cross([1.0, 0, 0], [0, -1.0, 0])
    assert ahead_x[2] == -1, "left x up points at the camera"
    assert azimuth_deg(standing(90)) == pytest.approx(-90)
    assert azimuth_deg(standing(-90)) == pytest.approx(90)
    assert abs(azimuth_deg(standing(180))) == pytest.approx(180)


def test_a_trunk_that_points_at_the_camera_faces_nowhere() -> None:
    lying = standing(0) @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T  # feet first, chest up
    assert np.isnan(azimuth_deg(lying)) or abs(azimuth_deg(lying)) > 0
    flat = standing(0)
    flat[:, 2] = 0
    assert azimuth_deg(flat) == pytest.approx(0, abs=1e-6)
    assert np.isnan(azimuth_deg(lying))


@pytest.mark.parametrize(("begin", "end", "way"), [(0, 90, 90), (0, -90, -90), (170, -170, 20), (-170, 170, -20)])
def test_the_shorter_way_round(begin: float, end: float, way: float) -> None:
    assert turn_deg(begin, end) == pytest.approx(way)


def test_advice_follows_the_turn_and_ends_when_all_was_seen() -> None:
    sides = Sides()
    assert sides.advice() == "", "nobody was there yet"
    turned = 0.0
    turns = 0
    sides.add(azimuth_deg(standing(turned)))
    while advice := sides.advice():
        assert not set(sides.seen) & set(advice.split(";")[0].removeprefix("not seen yet: ").split(", "))
        turned += 10.0 if advice.endswith("your left, slowly") else -10.0  # does as told
        sides.add(azimuth_deg(standing(turned)))
        turns += 1
        assert turns < 100, "advice leads round in less than three turns"
    assert sides.seen == SECTORS and sides.missing == ()


def test_a_glitch_is_not_a_side_that_was_seen() -> None:
    sides = Sides()
    for _ in range(ENOUGH_LOOKS - 1):
        sides.add(180.0)
    assert sides.seen == ()
    sides.add(-179.0)
    assert sides.seen == ("back",)


def pixels(shift: tuple[float, float] = (0, 0), scale: float = 45.0) -> np.ndarray:
    return standing(0)[:, :2] * scale + (96, 50) + np.array(shift)


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ((0, 0), ""),
        ((0, -40), "head out of the picture"),
        ((0, 30), "feet out of the picture"),
        ((88, 0), "hands out of the picture"),
    ],
)
def test_what_is_out_of_the_picture_is_said(shift: tuple[float, float], words: str) -> None:
    said = outside_words(pixels(shift), (192, 108))
    assert said.startswith(words) and bool(said) == bool(words)


def test_distance_is_that_of_the_chest_and_too_far_is_said() -> None:
    look = Look(pixels(), np.ones(33), standing(0), np.ones((4, 4), np.float32))
    depth_mm = np.full((108, 192), 6000, np.uint16)
    depth_mm[20:100, 84:108] = 2500
    depth_mm[40:44] = 0
    seen = sighting(RIG, 1.0, look, depth_mm)
    assert seen.is_there and seen.distance_m == pytest.approx(2.5) and warnings(seen) == []
    far = sighting(RIG, 1.0, look, np.full((108, 192), 5000, np.uint16))
    assert "nearer than 4.5 m" in warnings(far)[0]
    assert np.isnan(sighting(RIG, 1.0, look, None).distance_m)
    assert warnings(Sighting(1.0, False)) == ["nobody in the picture"]


def test_it_looks_in_another_process_and_survives_its_death() -> None:
    empty = Frame(0, 0.0, np.full((108, 192, 3), 120, np.uint8), None)
    with Guide(RIG) as guide:
        assert guide.wait(120.0)
        assert guide.offer(empty) and not guide.offer(empty), "one at a time"
        assert guide.wait(60.0)
        assert guide.latest is not None and guide.latest.time_s == 0.0 and not guide.latest.is_there
        assert not guide.offer(replace(empty, time_s=LOOK_EVERY_S / 2)), "it need not look at every frame"
        assert guide.offer(replace(empty, time_s=LOOK_EVERY_S)) and guide.wait(60.0)
        guide._process.kill()
        guide._process.join()
        assert not guide.offer(replace(empty, time_s=9.0)) and guide.poll() is guide.latest


@pytest.mark.parametrize("wh", [(1920, 1080), (1080, 1920), (960, 540), (3840, 2160), (640, 480)])
def test_a_picture_is_reduced_to_what_the_network_reads_and_stays_where_it_is(wh: tuple[int, int]) -> None:
    x, y = np.meshgrid(np.linspace(0, 255, wh[0]), np.linspace(0, 255, wh[1]))
    color = np.dstack([x, y, 128 + 100 * np.sin(x / 9)]).round().astype(np.uint8)
    small, slow = reduced_quickly(color), reduced(color)
    assert small.shape == slow.shape
    assert np.abs(small.astype(int) - slow).mean() < 2


def test_the_viewfinder_shows_what_was_seen() -> None:
    color = np.full((540, 960, 3), 90, np.uint8)
    sides = Sides()
    before = drawn(color, "recording", ["step back"], sides)
    for _ in range(ENOUGH_LOOKS):
        sides.add(180.0)
    after = drawn(color, "recording", ["step back"], sides)
    changed = np.argwhere((before != after).any(axis=2))
    assert before.shape == (540, 960, 3) and len(changed) > 100
    assert changed[:, 0].mean() < 540 - 70, "the back is at the far side of the ring"
    assert (color == 90).all()
