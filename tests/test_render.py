"""The render command: what is shown, from where, over what."""

from __future__ import annotations

import json
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
from miniature import CAMERA, doll
from PIL import Image
from small_workspace import LOST, NUM_FRAMES, NUM_TRAIN, make_workspace
from test_avatar import make_avatar
from test_motion import random_frames, write_bvh

from capture.camera import invert, project, transform
from capture.errors import UserError
from fitting.body.model import BodyModel
from rendering.avatar import Avatar, Shape
from rendering.captured import Captured, world_from_color
from rendering.framing import person_box
from rendering.motions import choose
from rendering.render import Wish, facing, render, turntable
from rendering.studio import Room, studio
from rendering.viewpoints import View, in_front, load_views, look_at, orbit


@pytest.fixture(scope="module")
def subject_dir(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("render"), steps=4)


@pytest.fixture(scope="module")
def person_dir(tmp_path_factory):
    """An untrained avatar of the shipped body: bones enough for motion capture."""
    folder = tmp_path_factory.mktemp("person")
    body = BodyModel.default()
    avatar = make_avatar()
    shape = Shape(body, np.zeros(body.num_shape, np.float32), np.zeros(len(body.template_m), np.float32))
    replace(avatar, bodies={"doll": shape}).save(folder)
    return folder


def frames_of(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_replay_shows_the_heldout_frames_over_their_own_background(subject_dir, tmp_path):
    render(subject_dir / "06_avatar", subject_dir.parent, "doll", Wish(camera="capture"), tmp_path / "a.mp4")
    shown = frames_of(tmp_path / "a.mp4")
    heldout = [i for i in range(NUM_TRAIN, NUM_FRAMES) if i != LOST]
    assert len(shown) == len(heldout)
    captured = Captured.load(subject_dir)
    for picture, index in zip(shown, heldout, strict=True):
        assert picture.shape == (320, 240, 3)
        box = person_box(captured.fit.vertices_color_m(index), captured.fit.camera, (40, 64))
        assert box is not None
        left, right = max(0, round(box[0]) - 2), round(box[2]) + 2
        truth = captured.recording.color(index).astype(float)
        error = np.abs(picture.astype(float) - truth)
        beside = np.concatenate([error[:, :left], error[:, right:]], axis=1)
        assert beside.size > 1000 and beside.mean() < 4  # what a video codec loses


def test_replay_from_all_sides_is_in_the_studio(subject_dir, tmp_path):
    wish = Wish(camera="orbit", max_frames=2)
    render(subject_dir / "06_avatar", subject_dir.parent, None, wish, tmp_path / "a.mp4")
    shown = frames_of(tmp_path / "a.mp4")
    assert len(shown) == 2 and shown[0].shape == (800, 600, 3)
    assert shown[0][:20].std(axis=1).max() < 12  # a calm backdrop, not the painted room


def a_way_around(folder) -> str:
    """A camera file: from the left, then from behind."""
    places = [look_at(np.array(place), np.array([0.0, 0.0, 0.9])) for place in ((4.0, -1.0, 1.2), (1.0, 4.0, 2.0))]
    fields = {"camera": CAMERA.to_json(), "camera_from_world": [place.tolist() for place in places]}
    (folder / "camera.json").write_text(json.dumps(fields))
    return str(folder / "camera.json")


@pytest.mark.parametrize("camera", ["orbit", "capture", "file"])
def test_what_was_filmed_stays_in_the_light_of_its_room(subject_dir, tmp_path, painted, camera):
    wish = Wish(camera=a_way_around(tmp_path) if camera == "file" else camera)
    render(subject_dir / "06_avatar", subject_dir.parent, "doll", wish, tmp_path / "a.mp4")
    fit = Captured.load(subject_dir).fit
    heldout = [i for i in range(NUM_TRAIN, NUM_FRAMES) if i != LOST]
    for (_, light_from_body), index in zip(painted, heldout, strict=True):
        assert np.allclose(light_from_body, fit.camera_from_body[index][:3, :3], atol=1e-6)


@pytest.mark.parametrize("camera", ["orbit", "file"])
def test_what_nobody_filmed_is_lit_as_if_from_in_front_of_its_start(person_dir, tmp_path, painted, camera):
    motion = write_bvh(tmp_path / "move.bvh", random_frames(8))
    wish = Wish(str(motion), a_way_around(tmp_path) if camera == "file" else camera)
    render(person_dir, None, "doll", wish, tmp_path / "a.mp4")
    moved = choose(str(motion), Avatar.load(person_dir, "cpu").bodies["doll"], None, "doll").motion
    (front,) = orbit(np.zeros((1, 3)), np.zeros(1), 1.8, facing(moved), (300, 400))
    for (_, light_from_body), world_from_body in zip(painted, moved.world_from_body, strict=True):
        light_from_world = light_from_body @ world_from_body[:3, :3].T
        assert np.allclose(light_from_world, front.camera_from_world[:3, :3], atol=1e-6)
    assert np.allclose(*painted[0], atol=1e-6) == (camera == "orbit")  # an orbit starts in front: as he was filmed
    assert not np.allclose(*painted[-1], atol=0.05)


def test_a_turntable_turns_the_camera_and_not_the_light(subject_dir, painted):
    avatar, captured = Avatar.load(subject_dir / "06_avatar", "cpu"), Captured.load(subject_dir)
    assert len(list(turntable(avatar, "doll", captured, 3, 4, (48, 64)))) == len(painted) == 4
    for camera_from_body, light_from_body in painted:
        assert np.allclose(light_from_body, captured.fit.camera_from_body[3][:3, :3], atol=1e-6)
        assert not np.allclose(light_from_body, camera_from_body, atol=0.05)


def test_a_doll_is_cut_out_over_a_colour_a_picture_and_nothing(subject_dir, tmp_path):
    def shown(background: str, out: str) -> np.ndarray:
        wish = Wish(background=background, image_wh=(120, 160), max_frames=1)
        render(subject_dir / "06_avatar", subject_dir.parent, "doll", wish, tmp_path / out)
        with Image.open(tmp_path / out / "000000.png") as image:
            return np.array(image)

    green = np.zeros((50, 100, 3), np.uint8) + np.array([10, 200, 30], np.uint8)
    cv2.imwrite(str(tmp_path / "wall.png"), green[..., ::-1])
    plain, wall = shown("#0ac81e", "plain"), shown(str(tmp_path / "wall.png"), "wall")
    assert plain.shape == (160, 120, 3) and np.array_equal(plain, wall)
    cut = shown("transparent", "cut")
    alpha = cut[..., 3:] / 255
    empty = cut[..., 3] == 0
    assert empty[0, 0] and alpha.max() > 0.5 and np.abs(plain[empty].astype(int) - (10, 200, 30)).max() <= 3
    again = cut[..., :3] * alpha + np.array([10, 200, 30]) * (1 - alpha)
    assert np.abs(again - plain).max() < 3


def test_the_truth_stands_beside_the_avatar(subject_dir, tmp_path):
    wish = Wish(is_side_by_side=True, max_frames=2)
    render(subject_dir / "06_avatar", subject_dir.parent, "doll", wish, tmp_path / "a.mp4")
    shown = frames_of(tmp_path / "a.mp4")[1]
    assert shown.shape == (320, 480, 3)
    truth = Captured.load(subject_dir).recording.color(NUM_TRAIN + 1)
    assert np.abs(shown[:, :240].astype(int) - truth).mean() < 4


def test_another_rate_keeps_the_duration(subject_dir, person_dir, tmp_path):
    render(
        subject_dir / "06_avatar", subject_dir.parent, "doll", Wish(frames_per_second=15, image_wh=(48, 64)),
        tmp_path / "a.mp4",
    )  # fmt: skip
    assert len(frames_of(tmp_path / "a.mp4")) == 2  # of five at 30
    motion = write_bvh(tmp_path / "m.bvh", random_frames(8))
    wish = Wish(str(motion), frames_per_second=50, image_wh=(48, 64))
    render(person_dir, None, "doll", wish, tmp_path / "b.mp4")
    assert len(frames_of(tmp_path / "b.mp4")) == 16  # of eight at 25


def test_a_doll_replays_its_own_fit_before_its_own_room(subject_dir, tmp_path):
    for word in ("fit:doll", "doll", str(subject_dir / "03_fit" / "fit.npz")):
        wish = Wish(word, image_wh=(48, 64), max_frames=0 if word == "doll" else 2)
        render(subject_dir / "06_avatar", subject_dir.parent, "doll", wish, tmp_path / "a.mp4")
        assert len(frames_of(tmp_path / "a.mp4")) == (NUM_FRAMES - 1 if word == "doll" else 2)


def test_a_bvh_moves_the_avatar_without_any_recording(person_dir, tmp_path):
    motion = write_bvh(tmp_path / "m.bvh", random_frames())
    render(person_dir, None, "doll", Wish(str(motion), max_frames=3), tmp_path / "a.mp4")
    shown = frames_of(tmp_path / "a.mp4")
    assert len(shown) == 3 and np.abs(shown[0].astype(int) - shown[2]).max() > 40


def test_a_camera_file_is_obeyed(person_dir, tmp_path):
    view = View(CAMERA, look_at(np.array([0.0, -4.0, 1.2]), np.array([0.0, 0.0, 0.9])))
    fields = {"camera": CAMERA.to_json(), "camera_from_world": [view.camera_from_world.tolist()]}
    (tmp_path / "camera.json").write_text(json.dumps(fields))
    motion = write_bvh(tmp_path / "m.bvh", random_frames())
    wish = Wish(str(motion), str(tmp_path / "camera.json"), max_frames=2)
    render(person_dir, None, "doll", wish, tmp_path / "a.mp4")
    assert frames_of(tmp_path / "a.mp4")[0].shape == (320, 240, 3)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"subject": "nobody"}, "nobody"),
        ({"motion": "nothing.bvh"}, "nothing.bvh"),
        ({"camera": "nothing.json"}, "nothing.json"),
        ({"out": "film.avi"}, ".mp4"),
        ({"background": "transparent"}, "film.mov"),
        ({"background": "purple"}, "purple"),
        ({"background": "room"}, "--camera capture"),
        ({"is_side_by_side": True}, "side-by-side"),
        ({"image_wh": (4, 4)}, "4x4"),
        ({"frames_per_second": 0.5}, "0.5"),
        ({"motion": "fit:nobody"}, "nobody"),
        ({"motion": "heldout"}, "recording"),
        ({"camera": "capture"}, "recording"),
    ],
)
def test_what_cannot_be_rendered_is_refused_in_one_line(person_dir, tmp_path, given, word):
    motion = write_bvh(tmp_path / "m.bvh", random_frames())
    wanted = {"subject": "doll", "motion": str(motion), "camera": "orbit", "out": "film.mp4"} | given
    out, subject = tmp_path / str(wanted.pop("out")), str(wanted.pop("subject"))
    with pytest.raises(UserError, match=word) as refused:
        render(person_dir, tmp_path, subject, Wish(**wanted), out)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.glob("film*"))


def test_a_camera_file_that_squeezes_space_is_refused(tmp_path):
    squeezed = np.diag([1.0, 0.5, 1, 1])
    (tmp_path / "c.json").write_text(json.dumps({"camera": CAMERA.to_json(), "camera_from_world": [squeezed.tolist()]}))
    with pytest.raises(UserError, match="rigid"):
        load_views(tmp_path / "c.json")


def test_the_orbit_starts_in_front_goes_around_the_left_and_keeps_the_target_centred():
    target = np.tile([1.0, 2.0, 0.9], (4, 1))
    views = orbit(target, np.arange(4) * np.pi / 2, 1.8, np.array([0.0, -1.0, 0.0]), (300, 400))
    places = [invert(view.camera_from_world)[:3, 3] - target[0] for view in views]
    assert places[0][1] < -2 and places[1][0] > 2 and places[2][1] > 2 and places[3][0] < -2
    for view in views:
        point = project(view.camera, transform(view.camera_from_world, target[0]))
        assert np.allclose(point, (150, 200), atol=1e-6)
        head = project(view.camera, transform(view.camera_from_world, target[0] + [0, 0, 0.9]))
        assert 0 < head[1] < 200  # up in the world is up in the picture, and inside it


@pytest.mark.parametrize("facing", [(0.6, -0.8, 0.0), (0.0, 0.5, -0.9), (0.0, 0.0, 1.0)])
def test_who_looks_up_is_lit_from_where_the_orbit_starts(facing):
    (view,) = orbit(np.zeros((1, 3)), np.zeros(1), 1.8, np.array(facing), (300, 400))
    lit_from_world = in_front(np.array(facing))
    assert np.isfinite(lit_from_world).all() and np.allclose(lit_from_world, view.camera_from_world[:3, :3], atol=1e-9)


def test_the_world_has_its_floor_under_the_soles_and_its_up_along_the_body(subject_dir):
    fit = Captured.load(subject_dir).fit
    placed = world_from_color(fit)
    assert np.allclose(placed[:3, :3] @ placed[:3, :3].T, np.eye(3), atol=1e-9)
    vertices = transform(placed, fit.vertices_color_m(0).astype(float))
    assert abs(vertices[:, 2].min()) < 0.06 and 1.5 < vertices[:, 2].max() < 2
    assert np.ptp(vertices[:, 2]) == pytest.approx(np.ptp(doll().template_m[:, 2]), abs=0.15)


def test_the_shadow_is_under_the_feet_and_fades_when_they_leave_the_floor():
    view = View(CAMERA, look_at(np.array([0.0, -4.0, 1.5]), np.array([0.0, 0.0, 0.8])))
    far_away = np.array([[50.0, 50, 0]])
    empty = studio(view, far_away)
    standing = np.concatenate([np.random.default_rng(0).normal(0, 0.05, (400, 2)), np.full((400, 1), 0.01)], axis=1)
    foot = project(CAMERA, transform(view.camera_from_world, np.zeros(3))).astype(int)
    darker = (empty - studio(view, standing)).mean(-1)
    assert darker[foot[1], foot[0]] > 0.15 and darker[:100].max() == 0
    jumping = (empty - studio(view, standing + np.array([0, 0, 0.5]))).mean(-1)
    assert jumping.max() < 0.6 * darker.max()


def test_the_empty_room_hides_the_person(subject_dir):
    captured = Captured.load(subject_dir)
    room = Room.of(captured.recording, captured.masks, (240, 320))
    color, alpha = captured.recording.color(2), captured.masks[2]
    behind = room.behind(color, alpha)
    outside = alpha == 0
    assert np.abs(behind * 255 - color)[outside].mean() < 4
    inside = alpha > 0.9
    assert np.abs(behind * 255 - color)[inside].mean() > 15  # the stripes of the doll are gone


def test_beside_the_person_the_picture_itself_is_seen():
    """Where the plate is a guess at once; where it was seen, mixed in with the distance: his shadow does not end."""
    wh = (240, 320)
    color = np.full((wh[1], wh[0], 3), 100, np.uint8)
    alpha = np.zeros((wh[1], wh[0]), np.float32)
    alpha[100:200, 60:120] = 1
    plate = np.full((wh[1], wh[0], 3), 100, np.float32)
    plate[:, 120:140] = 160  # his shadow, which the empty room has not
    guessed, known = (255 * Room(plate, np.full(alpha.shape, seen)).behind(color, alpha)[150] for seen in (False, True))
    assert (guessed[120] > 150).all() and np.allclose(guessed[121:], 100, atol=0.1)
    fading = known[120:130, 0]
    assert fading[0] > 150 and (np.diff(fading) <= 0.1).all() and abs(fading[-1] - 100) < 0.1
    assert 110 < fading[2] < 150
