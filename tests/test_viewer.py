"""The live view without a browser: how it sees, what it paints, how it keeps pace, what hands do to a pose."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest
import torch
import viser
from bvh_files import random_frames, write_bvh
from click.testing import CliRunner
from miniature import doll
from small_workspace import NUM_TRAIN, make_recording
from untrained import COLORS, cast
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from viewer import Browser

from capture.camera import invert, project, transform
from capture.errors import UserError
from pipeline import cli
from rendering.browser import MAX_LONG_SIDE_PX, picture_wh, pose_of, view_of
from rendering.captured import Captured
from rendering.close_up import MARGINS, head_vertices
from rendering.framing import person_box
from rendering.layers import ALL, LAYERS, lay_over
from rendering.live_picture import ALONE, BESIDE, WIPE, Eye, Wanted, backdrop, picture
from rendering.networks import NeuralTexture
from rendering.origins import is_own
from rendering.outfits import PIECES, Outfits
from rendering.pacing import SCALES, Pace, Rate
from rendering.painter import Painter
from rendering.playback import Playback
from rendering.possible import beyond_range
from rendering.puppet import Pose, Puppet
from rendering.repertoire import FILMED, HELDOUT, STANDING, Act, Repertoire, standing
from rendering.retarget import Motion
from rendering.viewer import Viewer, check_port
from rendering.viewpoints import look_at, orbit
from rendering.visitor import Visitor
from rendering.worn import worn

PAGE_WH = (300, 240)


@pytest.fixture(scope="module")
def duo(body):
    return cast(body, "alice", "bob")


@pytest.fixture(scope="module")
def clothed(duo):
    """The same two; bob's clothes stand off."""
    shape = duo.bodies["bob"]._replace(
        vertex_offsets_m=np.full(len(duo.bodies["bob"].body.template_m), 0.03, np.float32)
    )
    return duo.with_subject("bob", duo.textures["bob"], shape)


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A workspace with the doll's recording, and an avatar of it."""
    workspace = tmp_path_factory.mktemp("filmed")
    make_recording(workspace, "alice")
    return cast(doll(), "alice"), workspace


def eye_at(view, page_wh=PAGE_WH) -> Eye:
    wxyz, position_m, fov_rad = pose_of(view)
    return Eye(wxyz, position_m, fov_rad, page_wh)


def front(avatar, azimuth=0.0, distance=1.0) -> tuple[Pose, Eye]:
    """The first of the cast standing, and an eye before her."""
    motion = standing(next(iter(avatar.bodies.values())))
    view = orbit(np.array([[0, 0, 0.85]]), np.array([azimuth]), 1.8, np.array([0.0, -1, 0]), PAGE_WH)[0]
    position_m = invert(view.camera_from_world)[:3, 3] * (distance, distance, 1)
    eye = eye_at(type(view)(view.camera, look_at(position_m, np.array([0, 0, 0.85]))))
    return Pose(motion.pose[0], motion.world_from_body[0]), eye


def wanted(avatar, pose, eye, **more) -> Wanted:
    name = avatar.subjects[0]
    return Wanted(avatar.bodies[name], avatar.textures[name], pose, **{"layer": "Avatar", "eye": eye, **more})


# Cameras


def test_a_browser_that_looks_along_y_sees_right_up_and_far_where_they_are():
    # Behind the person at y = -3, looking along +y: OpenCV's x is the world's x, its y is down, its z is +y.
    turn = cv2.Rodrigues(np.array([-np.pi / 2, 0, 0]))[0]  # world_from_camera
    assert np.allclose(turn @ (0, 0, 1), (0, 1, 0)) and np.allclose(turn @ (0, 1, 0), (0, 0, -1))
    wxyz = np.array([np.cos(np.pi / 4), -np.sin(np.pi / 4), 0, 0])
    view = view_of(wxyz, np.array([0.0, -3, 1]), np.radians(60), (400, 200))
    points_m = np.array([[0, 0, 1], [1, 0, 1], [0, 0, 2]])
    seen_px = project(view.camera, transform(view.camera_from_world, points_m.astype(float)))
    assert np.allclose(seen_px[0], (200, 100))
    assert seen_px[1, 0] > 200 and seen_px[1, 1] == pytest.approx(100)
    assert seen_px[2, 1] < 100 and seen_px[2, 0] == pytest.approx(200)
    # The field of view is vertical: half of it upwards ends at the upper edge.
    edge_m = np.array([0, 0, 1 + 3 * np.tan(np.radians(30))])
    assert project(view.camera, transform(view.camera_from_world, edge_m))[1] == pytest.approx(0, abs=1e-9)


def test_our_views_survive_the_way_to_the_browser_and_back():
    for azimuth in np.linspace(0, 6, 7):
        view = orbit(np.array([[0.3, -1, 0.9]]), np.array([azimuth]), 1.7, np.array([0.0, -1, 0]), (640, 480))[0]
        back = view_of(*pose_of(view), (640, 480))
        assert np.allclose(back.camera_from_world, view.camera_from_world, atol=1e-12)
        assert np.isclose(back.camera.fy_px, view.camera.fy_px) and back.camera.image_wh == view.camera.image_wh


def test_pictures_keep_the_aspect_of_the_page_and_stay_within_reason():
    assert picture_wh((1000, 500), 1.0) == (1000, 500)
    assert picture_wh((1000, 500), 0.4) == (400, 200)
    width, height = picture_wh((5120, 2880), 1.0)
    assert width == MAX_LONG_SIDE_PX and width / height == pytest.approx(16 / 9, rel=0.01)
    assert min(picture_wh((3, 900), 0.4)) >= 16


# Resolution


def simulated(fixed_s: float, full_s: float, pictures: int = 60, pace: Pace | None = None) -> list[float]:
    """The scales that are chosen on a machine where a picture takes a fixed time and one for its pixels."""
    pace = pace or Pace(0.1)
    chosen = []
    for _ in range(pictures):
        scale = pace.moving()
        pace.took(scale, fixed_s + full_s * scale**2)
        chosen.append(scale)
    return chosen


def test_a_fast_machine_gets_full_resolution_at_once():
    assert set(simulated(0.005, 0.02)[6:]) == {1.0}


@pytest.mark.parametrize("full_s", [0.12, 0.2, 0.4])
def test_a_slow_machine_gets_the_largest_picture_in_time_and_does_not_waver(full_s):
    largest = max(scale for scale in SCALES if 0.01 + full_s * scale**2 <= 0.1)
    chosen = simulated(0.01, full_s, 200)[10:]
    assert chosen.count(largest) > 0.9 * len(chosen)  # it looks now and then whether more has become possible


def test_fewer_pixels_are_not_given_for_nothing():
    chosen = simulated(0.5, 0.02, 200)[10:]  # late with or without them
    assert chosen.count(1.0) > 0.9 * len(chosen)


def test_the_pace_follows_a_neighbour_that_comes_and_goes():
    pace = Pace(0.1)
    assert simulated(0.005, 0.05, pace=pace)[-1] == 1.0
    assert simulated(0.005, 0.5, pace=pace)[5:12] == [0.4] * 7
    assert 1.0 in simulated(0.005, 0.05, 120, pace=pace)


def test_the_rate_counts_pictures_of_the_last_moments_only():
    rate = Rate(1.5)
    for k in range(30):
        rate.tick(k / 20)
    assert rate.per_second(1.45) == pytest.approx(20)
    assert rate.per_second(10) == 0


# Pictures


def test_every_layer_shows_the_person_where_it_stands_and_not_elsewhere(duo):
    pose, eye = front(duo)
    view = view_of(eye.wxyz, eye.position_m, eye.fov_rad, PAGE_WH)
    vertices_m = duo.bodies["alice"].vertices_camera_m(pose.joints, pose.world_from_body)
    behind = backdrop(view, vertices_m)
    inside = project(view.camera, transform(view.camera_from_world, np.array([0, -0.1, 1.15]))).astype(int)
    for name in LAYERS:
        seen = picture(duo, wanted(duo, pose, eye, layer=name), 1.0)
        assert seen.shape == (PAGE_WH[1], PAGE_WH[0], 3) and seen.dtype == np.uint8
        assert np.abs(seen[inside[1], inside[0]].astype(int) - behind[inside[1], inside[0]]).max() > 20, name
        assert np.array_equal(seen[:8, :8], behind[:8, :8]), name


def test_the_layers_are_what_they_are_called(duo):
    pose, eye = front(duo)
    seen = {name: picture(duo, wanted(duo, pose, eye, layer=name), 1.0) for name in LAYERS}
    y, x = PAGE_WH[1] // 2 - 20, PAGE_WH[0] // 2
    red = (np.array(COLORS["alice"]) + 1) / 2 * 255
    assert np.abs(seen["R1: rough image"][y, x] - red).max() < 60  # an untrained R1 passes its texture through
    assert np.ptp(seen["Mesh"][y, x]) < 12  # plaster has no colour
    assert np.ptp(seen["Mask"].astype(int), axis=2).max() == 0 or np.ptp(seen["Mask"][y, x]) == 0
    colours = np.unique(seen["IUV raster"].reshape(-1, 3), axis=0)
    assert len(colours) > 300  # texture coordinates vary over the body


def test_all_layers_fit_on_one_sheet_however_small(duo):
    pose, eye = front(duo)
    sheet = picture(duo, wanted(duo, pose, eye, layer=ALL), 1.0)
    assert sheet.shape == (PAGE_WH[1], PAGE_WH[0], 3)
    tiny = Eye(eye.wxyz, eye.position_m, eye.fov_rad, (20, 30))
    assert picture(duo, wanted(duo, pose, tiny, layer=ALL), 0.4).shape[2] == 3


def test_a_person_far_away_out_of_view_or_around_the_camera_makes_a_picture(duo):
    pose, near = front(duo)
    _, far = front(duo, distance=60.0)
    away = Eye(pose_of(orbit(np.array([[0, 90.0, 0.8]]), np.zeros(1), 1.8, np.array([0.0, -1, 0]), PAGE_WH)[0])[0],
               near.position_m, near.fov_rad, PAGE_WH)  # fmt: skip
    behind = Eye(np.array([np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4)]), near.position_m, near.fov_rad, PAGE_WH)
    within = Eye(near.wxyz, np.array([0.0, 0, 1.1]), near.fov_rad, PAGE_WH)
    for eye in (far, away, behind, within):
        for layer in (*LAYERS, ALL):
            assert picture(duo, wanted(duo, pose, eye, layer=layer), 0.55).std() < 128
    view = view_of(far.wxyz, far.position_m, far.fov_rad, PAGE_WH)
    vertices_m = duo.bodies["alice"].vertices_camera_m(pose.joints, pose.world_from_body)
    changed = (picture(duo, wanted(duo, pose, far, layer="Mesh"), 1.0) != backdrop(view, vertices_m)).any(2)
    assert 0 < changed.sum() < 60  # a speck


def test_laying_over_is_compositing(duo):
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    crop = np.dstack([np.full((12, 10, 3), 0.8), np.full((12, 10), 0.25)]).astype(np.float32)
    laid = lay_over(ground, crop, (20.0, 14.0, 30.0, 26.0))
    expected = ground[16:24, 22:28] * 0.75 + 0.8 * 255 * 0.25
    assert np.abs(laid[16:24, 22:28] - expected).max() <= 2
    assert np.array_equal(laid[:13], ground[:13]) and np.array_equal(laid[:, 32:], ground[:, 32:])
    assert np.array_equal(lay_over(ground, crop, (-90.0, 14.0, -80.0, 26.0)), ground)


# Clothes


def test_chosen_clothes_are_put_on_with_their_cut_and_taken_off_again(clothed, tmp_path):
    visitor = visitor_of(clothed, tmp_path)
    for clothes in ({"torso": "bob"}, {"torso": "bob", "legs": "bob"}):
        visitor.choose(clothes)
        visitor.change()
        texture, shape = worn(clothed, "alice", clothes)
        assert torch.equal(visitor.outfit.texture.texels, texture.texels)
        assert np.array_equal(visitor.outfit.shape.vertex_offsets_m, shape.vertex_offsets_m)
    assert visitor.wanted().shape.vertex_offsets_m.max() == pytest.approx(0.03)
    visitor.choose(dict.fromkeys(visitor.clothes, "alice"))
    visitor.change()
    assert visitor.outfit.texture is clothed.textures["alice"] and visitor.outfit.shape is clothed.bodies["alice"]
    visitor.choose({"torso": "bob"})
    visitor.dress("bob")  # somebody else, in his own
    visitor.change()
    assert visitor.clothes == {} and visitor.outfit.texture is clothed.textures["bob"]


def test_the_cut_of_the_clothes_is_seen(clothed, tmp_path):
    visitor = visitor_of(clothed, tmp_path)
    visitor.layer = "IUV raster"
    bare = picture(clothed, visitor.wanted(), 1.0)
    visitor.choose(dict.fromkeys(("torso", "legs"), "bob"))
    visitor.change()
    assert (picture(clothed, visitor.wanted(), 1.0) != bare).any(2).sum() > 200  # px: 30 mm more all round


def test_an_outfit_is_made_once_and_the_last_choice_wins(clothed, tmp_path):
    visitor = visitor_of(clothed, tmp_path)
    make = visitor.outfits.outfit
    assert make("alice", {"torso": "bob", "feet": "alice"}) is make("alice", {"torso": "bob"})

    def slow(subject, clothes):
        visitor.outfits.outfit = make
        visitor.choose({"legs": "bob"})  # while the first choice is being put on
        visitor.change()
        return make(subject, clothes)

    visitor.outfits.outfit = slow
    visitor.choose({"torso": "bob"})
    visitor.change()
    assert visitor.outfit.texture is make("alice", {"torso": "bob", "legs": "bob"})[0]


def test_clothes_are_offered_by_those_with_the_same_atlas(duo):
    outfits = Outfits(duo)
    assert outfits.wearers("bob") == ("bob", "alice")
    assert outfits.pieces("bob") == PIECES
    assert Outfits(cast(doll(), "alice", "bob")).pieces("alice") == {"Torso": "torso"}  # it has no such arms
    stranger = replace(duo, bodies={**duo.bodies, "bob": cast(doll(), "bob").bodies["bob"]})
    assert Outfits(stranger).wearers("alice") == ("alice",)


# Hands


def test_a_pulled_wrist_comes_to_the_pointer_where_it_can_and_no_joint_leaves_its_range(duo, body):
    puppet, (pose, _) = Puppet(duo.bodies["alice"]), front(duo)
    names = [handle.name for handle in puppet.handles]
    assert {"head", "chest", "hips", "left wrist", "right ankle"} <= set(names)
    rng = np.random.default_rng(2)
    index = names.index("left wrist")
    start_m = puppet.places(pose)[index]
    near = puppet.pulled(pose, puppet.handles[index], start_m + np.array([0.1, -0.25, 0.3]))
    assert np.linalg.norm(puppet.places(near)[index] - start_m - (0.1, -0.25, 0.3)) < 0.01
    for handle in puppet.handles:
        for _ in range(4):
            at_m = puppet.places(pose)[names.index(handle.name)]
            target_m = at_m + rng.normal(0, 0.8, 3)
            pulled = puppet.pulled(pose, handle, target_m)
            assert beyond_range(pulled.joints, body).max() < 1e-6
            left_m = np.linalg.norm(puppet.places(pulled)[names.index(handle.name)] - target_m)
            assert left_m < np.linalg.norm(at_m - target_m) + 1e-6  # never further away


def test_a_pull_moves_only_the_joints_above_the_handle(duo, body):
    puppet, (pose, _) = Puppet(duo.bodies["alice"]), front(duo)
    handle = next(handle for handle in puppet.handles if handle.name == "right knee")
    place_m = puppet.places(pose)[puppet.handles.index(handle)]
    pulled = puppet.pulled(pose, handle, place_m + np.array([0, -0.3, 0.2]))
    changed = np.flatnonzero(np.abs(pulled.joints - pose.joints).max(1) > 1e-9)
    assert set(changed) <= set(handle.movers) and len(changed)
    hips = puppet.handles[0]
    moved = puppet.pulled(pose, hips, puppet.places(pose)[0] + (0.2, 0, 0.1))
    assert np.allclose(puppet.places(moved), puppet.places(pose) + np.array([0.2, 0, 0.1]), atol=1e-6)


def test_a_turned_joint_turns_as_far_as_it_goes(duo, body):
    puppet, (pose, _) = Puppet(duo.bodies["alice"]), front(duo)
    head = next(handle for handle in puppet.handles if handle.name == "head")
    turn = puppet.turn(pose, head)
    little = cv2.Rodrigues(np.array([0, 0, 0.2]))[0] @ turn
    assert np.allclose(puppet.turn(puppet.turned(pose, head, little), head), little, atol=1e-6)
    wild = puppet.turned(pose, head, cv2.Rodrigues(np.array([0, 0, 2.5]))[0] @ turn)
    assert beyond_range(wild.joints, body).max() < 1e-6
    hips = puppet.handles[0]
    around = puppet.turned(pose, hips, cv2.Rodrigues(np.array([0, 0, 3.0]))[0] @ puppet.turn(pose, hips))
    assert np.allclose(puppet.places(around)[0], puppet.places(pose)[0], atol=0.06)  # about the root, where it stands


def test_bodies_of_unknown_joints_have_no_handles():
    assert Puppet(cast(doll(), "alice").bodies["alice"]).handles == ()


# Motions


def act_of(count: int) -> Act:
    pose = np.zeros((count, 3, 3), np.float32)
    pose[:, 0, 0] = np.arange(count)
    return Act(Motion("a", pose, np.tile(np.eye(4), (count, 1, 1)), 10.0), np.arange(100, 100 + count))


def test_a_motion_runs_by_the_clock_and_starts_over():
    playback = Playback(act_of(20))
    assert playback.frame(7.0) == 0 and not playback.is_playing
    playback.play(7.0)
    assert [playback.frame(7.0 + s) for s in (0, 0.55, 1.95, 2.05)] == [0, 5, 19, 0]
    playback.pause(7.55)
    assert playback.frame(99.0) == 5 and playback.frame_index(99.0) == 105
    playback.seek(12, 99.0)
    assert playback.frame(120.0) == 12
    playback.play(120.0)
    assert playback.frame(120.31) == 15


def test_a_pose_of_hands_is_held_until_the_motion_goes_on():
    playback = Playback(act_of(20))
    playback.play(0.0)
    mine = Pose(np.ones((3, 3)), np.eye(4))
    playback.change(mine, 1.0)
    assert playback.pose(50.0) is mine and not playback.is_playing and playback.frame(50.0) == 10
    playback.undo()
    assert playback.pose(50.0).joints[0, 0] == 10
    playback.change(mine, 51.0)
    playback.play(52.0)
    assert playback.pose(52.0).joints[0, 0] == 10


def test_a_motion_of_one_frame_does_not_run():
    playback = Playback(act_of(1))
    playback.play(0.0)
    assert not playback.is_playing


def test_who_was_not_filmed_here_can_stand_and_play_files(duo, tmp_path):
    path = write_bvh(tmp_path / "walk.bvh", random_frames())
    repertoire = Repertoire(duo, tmp_path, [path])
    assert repertoire.filmed("alice") is None
    assert repertoire.names("alice", {}) == (STANDING, "walk.bvh")
    assert repertoire.act("alice", "walk.bvh", {}) is repertoire.act("alice", "walk.bvh", {})
    assert repertoire.first == "walk.bvh"
    soles_m = duo.bodies["bob"].vertices_camera_m(*_pose_and_place(repertoire.act("bob", STANDING, {})))[:, 2]
    assert soles_m.min() == pytest.approx(0, abs=1e-5)


def _pose_and_place(act: Act):
    return act.motion.pose[0], act.motion.world_from_body[0]


def test_motion_files_that_do_not_fit_are_refused_before_anything_is_served(duo, tmp_path):
    (tmp_path / "broken.bvh").write_text("HIERARCHY nonsense")
    with pytest.raises(UserError, match=r"broken\.bvh"):
        Repertoire(duo, tmp_path, [tmp_path / "broken.bvh"])
    with pytest.raises(UserError, match="no such motion"):
        Repertoire(duo, tmp_path, [tmp_path / "none.bvh"])


# The recording


def test_the_recording_is_seen_as_it_was_filmed(filmed):
    avatar, workspace = filmed
    recorded = Repertoire(avatar, workspace).filmed("alice")
    camera = recorded.camera((200, 260))
    assert camera.fx_px == pytest.approx(camera.fy_px)
    whole, seen = recorded.captured.recording.color(4), recorded.frame(4, camera)
    # A point in space lands on the same colour in both.
    fit = recorded.captured.fit
    for vertex in fit.vertices_color_m(4)[::40].astype(float):
        x, y = np.floor(project(fit.camera, vertex)).astype(int)
        u, v = np.floor(project(camera, vertex)).astype(int)
        if 2 <= u < 198 and 2 <= v < 258:
            around = seen[v - 2 : v + 3, u - 2 : u + 3].reshape(-1, 3).astype(int)
            assert np.abs(around - whole[y, x]).max(1).min() < 50


def test_a_comparison_shows_the_recording_and_the_avatar_and_a_wipe_parts_them(filmed):
    avatar, workspace = filmed
    repertoire = Repertoire(avatar, workspace)
    act = repertoire.act("alice", HELDOUT, {})
    assert act.frame_indices[0] == NUM_TRAIN
    recorded, pose = repertoire.filmed("alice"), Pose(act.motion.pose[0], act.motion.world_from_body[0])
    more = {"filmed": recorded, "frame_index": int(act.frame_indices[0]), "layer": "Mesh"}
    _, eye = front(avatar)
    camera = recorded.camera(PAGE_WH)
    film = recorded.frame(more["frame_index"], camera)
    half = picture(avatar, wanted(avatar, pose, eye, compare=WIPE, wipe=0.5, **more), 1.0)
    left, right = slice(30, None), PAGE_WH[0] // 2
    assert np.array_equal(half[left, : right - 2], film[left, : right - 2])
    assert (half[left, right + 2 :] != film[left, right + 2 :]).mean() > 0.01
    full = picture(avatar, wanted(avatar, pose, eye, compare=WIPE, wipe=1.0, **more), 1.0)
    assert np.array_equal(full[30:, :-2], film[30:, :-2])
    both = picture(avatar, wanted(avatar, pose, eye, compare=BESIDE, **more), 1.0)
    assert both.shape == film.shape
    # The mesh stands where the person was filmed: plaster where the recorded mask is.
    ours = picture(avatar, wanted(avatar, pose, eye, compare=WIPE, wipe=0.0, **more), 1.0)
    empty = recorded.empty(more["frame_index"], camera)
    body = (np.abs(ours.astype(int) - empty).max(2) > 12)[30:]
    person = (np.abs(film.astype(int) - empty).max(2) > 12)[30:]
    assert (body & person).sum() > 0.6 * body.sum()


# One visitor


class FakeScene:
    def __init__(self) -> None:
        self.pictures: list[np.ndarray] = []

    def set_background_image(self, image, **_) -> None:
        self.pictures.append(image)


class FakeCamera:
    def __init__(self, eye: Eye) -> None:
        self.wxyz, self.position, self.fov = eye.wxyz, eye.position_m, eye.fov_rad
        self.image_width, self.image_height = eye.page_wh

    def on_update(self, react) -> None:
        self.react = react


class FakeClient:
    def __init__(self, eye: Eye) -> None:
        self.camera, self.scene, self.client_id = FakeCamera(eye), FakeScene(), 0

    def flush(self) -> None:
        pass


def visitor_of(avatar, workspace):
    repertoire, outfits = Repertoire(avatar, workspace), Outfits(avatar)
    client: Any = FakeClient(front(avatar)[1])
    return Visitor(client, avatar, repertoire, outfits, "alice", lambda: None)


@pytest.fixture
def visitor(filmed):
    avatar, workspace = filmed
    return visitor_of(avatar, workspace)


def test_at_rest_the_last_picture_is_the_full_one_and_then_nothing_is_painted(visitor):
    for scale in SCALES:
        visitor.pace.took(scale, 0.3 * scale**2)  # a slow machine
    visitor.touch()
    visitor.draw(1)
    assert visitor.shown.scale < 1 and visitor.client.scene.pictures[-1].shape[1] < PAGE_WH[0]
    time.sleep(0.3)
    assert visitor.due_in_s(time.monotonic()) == 0
    visitor.draw(1)
    assert visitor.shown.scale == 1 and visitor.client.scene.pictures[-1].shape[1] == PAGE_WH[0]
    assert visitor.due_in_s(time.monotonic()) == float("inf")


def test_comparing_starts_the_recording_and_another_motion_ends_it(visitor, duo, tmp_path):
    visitor.compare_with(WIPE)
    assert (visitor.act_name, visitor.compare) == (HELDOUT, WIPE) and visitor.playback.is_playing
    visitor.perform(FILMED)
    assert visitor.compare == WIPE
    visitor.perform(STANDING)
    assert visitor.compare == ALONE
    stranger = visitor_of(duo, tmp_path)
    with pytest.raises(UserError, match="not in this workspace"):
        stranger.compare_with(BESIDE)


@pytest.fixture
def lights(monkeypatch) -> list[np.ndarray | None]:
    """(3, 3) lit_from_camera of everybody that a live view paints from now on."""
    found, paint = [], Painter.paint

    def watched(painter, texture, surface):
        found.append(None if surface.lit_from_camera is None else surface.lit_from_camera[0].numpy())
        return paint(painter, texture, surface)

    monkeypatch.setattr(Painter, "paint", watched)
    return found


def test_the_light_of_a_motion_stays_where_it_is_while_the_browser_looks_around(visitor, filmed, lights):
    _, workspace = filmed
    fit = Captured.load(workspace / "alice").fit
    for name in (STANDING, HELDOUT):
        visitor.perform(name)
        visitor.playback.pause(time.monotonic())  # or a frame may end before its pose is asked for
        now = visitor.wanted()
        if name == STANDING:
            lit_from_world = visitor.view_from(0.0).camera_from_world[:3, :3]
        else:
            in_camera = fit.camera_from_body[now.frame_index][:3, :3]
            lit_from_world = in_camera @ now.pose.world_from_body[:3, :3].T
        assert np.allclose(now.lit_from_world, lit_from_world, atol=1e-6)
        for azimuth in (0.3, 2.0):
            view = visitor.view_from(azimuth)
            visitor.eye = eye_at(view)
            visitor.touch()
            visitor.draw(1)
            assert np.allclose(lights[-1], lit_from_world @ view.camera_from_world[:3, :3].T, atol=1e-6)
    visitor.compare_with(BESIDE)
    visitor.draw(1)
    assert lights[-1] is None  # seen from where it was filmed


# The port


def test_a_port_in_use_is_one_clear_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: in use"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", 0)
    with pytest.raises(UserError, match="--host"):
        check_port("192.0.2.1", 8080)


# Served


@pytest.mark.parametrize(
    ("host", "origin", "is_local", "expected"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", True, True),
        ("localhost:8080", "http://localhost:8080", True, True),
        ("[::1]:8080", "http://[::1]:8080", True, True),
        ("127.0.0.1:8080", None, True, True),  # a program
        ("127.0.0.1:8080", "https://evil.example", True, False),
        ("127.0.0.1:8080", "http://127.0.0.1:9090", True, False),  # another server here
        ("127.0.0.1:8080", "null", True, False),  # a file, a sandboxed frame
        ("evil.example:8080", "http://evil.example:8080", True, False),  # a foreign name that leads here
        ("evil.example:8080", None, True, False),
        ("alice.local:8080", "http://alice.local:8080", False, True),  # --host 0.0.0.0
        ("192.168.1.7:8080", "http://evil.example", False, False),
        ("", "null", False, False),
        ("[::1:8080", None, True, False),
    ],
)
def test_whose_page_may_talk_to_the_server(host, origin, is_local, expected):
    assert is_own(host, origin, is_local) == expected


def test_other_pages_of_the_browser_cannot_talk_to_the_viewer(duo, tmp_path):
    with Viewer(duo, Repertoire(duo, tmp_path), "alice", "127.0.0.1", 0) as viewer:
        address = viewer.url.replace("http", "ws", 1)
        protocols = [f"viser-v{viser.__version__}"]
        connect(address, subprotocols=protocols, origin=viewer.url).close()
        with pytest.raises(InvalidStatus, match="403"):
            connect(address, subprotocols=protocols, origin="https://evil.example")
        with pytest.raises(InvalidStatus, match="403"):
            connect(address, subprotocols=protocols, additional_headers={"Origin": "https://evil.example"}, origin=None)
        with urlopen(viewer.url) as page:
            assert page.status == 200
        with pytest.raises(HTTPError, match="403"):
            urlopen(Request(viewer.url, headers={"Host": "evil.example"}))


def decoded(jpeg: bytes | None) -> np.ndarray:
    assert jpeg is not None, "no picture came"
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def test_every_visitor_has_a_person_of_his_own_and_one_that_leaves_takes_nobody_along(duo, tmp_path):
    with Viewer(duo, Repertoire(duo, tmp_path), "alice", "127.0.0.1", 0) as viewer:
        first, second = Browser(viewer.url, (240, 200)), Browser(viewer.url, (120, 160))
        for browser, page_wh in ((first, (240, 200)), (second, (120, 160))):
            browser.look(0.0)
            image = decoded(browser.picture(60))
            assert image.shape[1] / image.shape[0] == pytest.approx(page_wh[0] / page_wh[1], rel=0.05)
            browser.rest()
        first.change("Layer", "Mask")
        plain = decoded(first.picture(60))
        assert np.ptp(plain.astype(int), axis=2)[100, 120] < 12  # grey where a red person was
        assert second.picture(0.3) is None  # nothing has changed for the other
        assert {visitor.layer for visitor in viewer.visitors} == {"Mask", "Avatar"}
        first.close()
        for _ in range(100):
            if len(viewer.visitors) == 1:
                break
            time.sleep(0.05)
        assert len(viewer.visitors) == 1
        second.change("Person", "bob")
        second.rest()
        second.look(1.0)
        image = decoded(second.picture(60)).astype(int)
        assert image[80, 60, 0] > image[80, 60, 2]  # blue, BGR
        second.close()


def test_ctrl_c_ends_it_well_while_somebody_looks(duo, tmp_path):
    duo.save(tmp_path / "duo" / "06_avatar")
    root = Path(__file__).parents[1]
    command = [sys.executable, "pipeline.py", "view", "--avatar", "duo", "--port", "0", "--workspace", str(tmp_path)]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    url = process.stdout.readline().split()[0]
    browser = Browser(url, (120, 160))
    browser.look(0.0)
    decoded(browser.picture(60))
    os.kill(process.pid, signal.SIGINT)
    printed, complaints = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in complaints and printed == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--avatar", "nobody"], "not made yet; run pipeline.py train --avatar nobody"),
        (["--avatar", "duo", "--subject", "carol"], "'carol' is not in this avatar; it has alice, bob"),
        (["--avatar", "duo", "--motion", "walk.txt"], "walk.txt: no such motion file"),
        (["--avatar", "duo", "--host", "192.0.2.1"], "no address of this machine"),
    ],
)
def test_what_cannot_be_viewed_is_said_in_one_line(duo, tmp_path, arguments, line):
    duo.save(tmp_path / "duo" / "06_avatar")
    result = CliRunner().invoke(cli, ["view", "--port", "0", "--workspace", str(tmp_path), *arguments])
    assert isinstance(result.exception, UserError) and line in str(result.exception)
    assert "\n" not in str(result.exception)


def test_the_live_view_shows_the_head_by_close_up_and_nothing_else_changes():
    avatar = cast(doll(), "alice")
    blue = torch.full_like(avatar.textures["alice"].texels, -1.0)
    blue[..., 2] = 1.0
    texture = NeuralTexture(blue).requires_grad_(False)
    close = replace(avatar, textures={"alice": texture}, settings={**avatar.settings, "image_wh": [32, 32]})
    shown = replace(avatar, close_up=close)
    pose, eye = front(avatar, distance=0.6)
    asked = wanted(shown, pose, eye, close_texture=texture)
    with_it, without = picture(shown, asked, 1.0), picture(avatar, asked, 1.0)
    differs = np.abs(with_it.astype(int) - without).max(axis=2) > 2
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    view = view_of(eye.wxyz, eye.position_m, eye.fov_rad, PAGE_WH)
    vertices_m = avatar.bodies["alice"].vertices_camera_m(pose.joints, view.camera_from_world @ pose.world_from_body)
    left, top, right, bottom = person_box(vertices_m[head_vertices(doll())], view.camera, (32, 32), MARGINS)
    assert len(rows) > 10 and top - 1 <= rows[0] and rows[-1] <= bottom + 1
    assert left - 1 <= columns[0] and columns[-1] <= right + 1
    for changed in (replace(asked, layer="Mask"), replace(asked, close_texture=None)):
        assert np.array_equal(picture(shown, changed, 1.0), picture(avatar, changed, 1.0))
