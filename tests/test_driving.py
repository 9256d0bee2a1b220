"""Driving an avatar: it takes the pose, stands on the floor, and waits where nobody is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from test_avatar import make_avatar
from test_live import CAMERA, Shot, shoot, someone
from test_play import Told, producer

from capture.errors import UserError
from capture.replay import Replay
from fitting.body.model import BodyModel
from fitting.fit import FitConfig
from fitting.play import Show, play
from fitting.solve import State
from rendering.avatar import Avatar, Shape
from rendering.driving import Ground, Puppet, check_layout, check_same_skeleton, on_same_floor, skin
from rendering.standing import low_vertices

UP = np.array([0.0, -1.0, 0.0])


@pytest.fixture(scope="module")
def small_person(body: BodyModel) -> Avatar:
    """Much smaller than ``someone``."""
    shape = np.zeros(body.num_shape, np.float32)
    shape[:2] = -1.5, 0.5
    avatar = make_avatar("small")
    return replace(avatar, bodies={"small": Shape(body, shape, np.zeros(len(body.template_m), np.float32))})


@pytest.fixture(scope="module")
def shots(body: BodyModel) -> list[Shot]:
    return [shoot(body, index, someone(body)) for index in range(6)]


def test_soles_are_as_low_as_the_drivers_whatever_the_legs(body: BodyModel, small_person: Avatar) -> None:
    placed = np.array([[1.0, 0, 0, 0.1], [0, 0, -1, 0.9], [0, 1, 0, 2.5], [0, 0, 0, 1]])
    pose = np.zeros((body.num_joints, 3))
    pose[body.joint_index("upperleg01.L"), 0] = -0.6
    state, theirs = State(pose, placed), body.shaped(someone(body))
    ours = body.shaped(small_person.bodies["small"].shape)
    assert np.ptp(theirs[0][:, 2]) - np.ptp(ours[0][:, 2]) > 0.08
    soles_m = skin(body, theirs, state)[low_vertices(theirs[0])]
    moved = on_same_floor(body, ours, state, soles_m, UP)
    lowest = (skin(body, ours, moved)[low_vertices(ours[0])] @ UP).min()
    assert lowest == pytest.approx((soles_m @ UP).min(), abs=1e-5)
    assert np.array_equal(moved.pose, pose) and np.allclose(np.delete(moved.camera_from_body[:3, 3], 1), (0.1, 2.5))


def test_the_floor_stays_under_somebody_who_jumps(body: BodyModel) -> None:
    ground, theirs = Ground(), body.shaped(None)
    pose = np.zeros((body.num_joints, 3))
    heights = []
    for index in range(40):
        placed = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0.9], [0, 1, 0, 2.5], [0, 0, 0, 1]])
        placed[1, 3] -= 0.3 if 20 <= index < 28 else 0.0
        state = State(pose, placed)
        ground.see(placed, skin(body, theirs, state)[low_vertices(theirs[0])])
        heights.append(ground.floor_m)
    assert np.ptp(heights) < 0.12 and heights[0] == pytest.approx(-0.9, abs=0.02)
    assert abs(heights[-1] - heights[0]) < 0.02
    world = ground.camera_from_world()
    assert np.allclose(world[:3, :3] @ world[:3, :3].T, np.eye(3)) and np.linalg.det(world[:3, :3]) == pytest.approx(1)
    assert np.allclose(world[:3, 2], UP, atol=1e-6)


@pytest.mark.parametrize("layout", ["beside", "instead"])
def test_a_film_drives_the_avatar_into_a_film(
    shots: list[Shot], small_person: Avatar, tmp_path: Path, layout: str
) -> None:
    puppet = Puppet(small_person, "small", layout, "#20a040")
    show = Show(tmp_path / "a.mp4", False, False)
    lines = play(FitConfig(), show, Replay(producer(shots)), look=Told(shots), draw=puppet)
    assert lines[0].startswith("frames: 6 seen, 6 tracked")
    with av.open(str(tmp_path / "a.mp4")) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    width, height = CAMERA.image_wh
    scale = min(1, 720 / max(width, height))
    assert len(shown) == 6
    assert shown[0].shape[1] == pytest.approx(width * scale * (2 if layout == "beside" else 1), abs=4)
    last = shown[-1][60:, -round(width * scale) :].astype(int)
    is_wall = np.abs(last - (32, 160, 64)).max(-1) < 24
    assert 0.3 < is_wall.mean() < 0.99 and is_wall[:, :20].mean() > 0.9  # somebody stands before the wall


def test_while_nobody_is_seen_the_avatar_waits(shots: list[Shot], small_person: Avatar, tmp_path: Path) -> None:
    puppet = Puppet(small_person, "small", "instead", "#20a040")
    play(FitConfig(), Show(tmp_path / "a.mp4", False, False), Replay(producer(shots)), look=lambda c: None, draw=puppet)
    with av.open(str(tmp_path / "a.mp4")) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == 6 and shown[0][60:].std() < 4


def test_what_cannot_be_shown_live_is_refused(body: BodyModel) -> None:
    for layout, background, word in (("above", "studio", "above"), ("beside", "room", "room"), ("beside", "x", "x")):
        with pytest.raises(UserError, match=word):
            check_layout(layout, background)
    other = replace(body, joint_names=(*body.joint_names[:-1], "tail"))
    with pytest.raises(UserError, match=r"fit\.body"):
        check_same_skeleton(other, body)
