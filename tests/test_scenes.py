"""Several avatars in one picture: who is nearer is before the others, everywhere and softly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from bvh_files import random_frames, write_bvh
from miniature import CAMERA, TUBES, doll
from test_avatar import make_avatar
from test_render import frames_of

from capture.errors import UserError
from fitting.body.model import BodyModel
from rendering.avatar import Avatar, Shape
from rendering.motions import choose
from rendering.networks import NeuralTexture
from rendering.pasting import NOTHING, Layer, merged
from rendering.render import Wish
from rendering.scenes import Actor, Person, load_scene, pictures, render_scene
from rendering.viewpoints import View, look_at, orbit

RED, BLUE = (0.8, -0.8, -0.8), (-0.8, -0.8, 0.8)
VIEW = View(CAMERA, look_at(np.array([0.0, -4.0, 1.0]), np.array([0.0, 0.0, 0.9])))


def painted(color: tuple[float, float, float]) -> Avatar:
    """A doll of one colour."""
    avatar = make_avatar()
    texels = torch.zeros(32, 32, 8)
    texels[..., :3] = torch.tensor(color)
    return replace(avatar, textures={"doll": NeuralTexture(texels).requires_grad_(False)})


def crossing(count: int) -> tuple[Actor, Actor]:
    """Red walks to the right and away from the camera, blue to the left and nearer; they meet in the middle."""
    way = np.linspace(-1, 1, count)
    places = []
    for sign in (1, -1):
        placed = np.tile(np.eye(4), (count, 1, 1))
        placed[:, 0, 3], placed[:, 1, 3] = 0.06 * sign * way, 0.6 * sign * way
        places.append(placed)
    pose = np.zeros((count, len(TUBES), 3))
    red, blue = painted(RED), painted(BLUE)
    return Actor(red, "doll", pose, places[0]), Actor(blue, "doll", pose, places[1])


def test_who_crosses_behind_is_hidden_and_before_hides() -> None:
    red, blue = crossing(3)
    shown = list(pictures([red, blue], [VIEW] * 3, lambda moment: np.ones((320, 240, 3), np.float32)))
    for position, nearer in ((0, 0), (2, 2)):  # channel of who is nearer
        both = np.minimum(*(actor.layer(position, VIEW).picture(CAMERA.image_wh)[..., 3] for actor in (red, blue)))
        overlap = cv2.erode((both > 0.97).astype(np.uint8), np.ones((3, 3))) > 0
        assert overlap.sum() > 300
        other = 2 - nearer
        assert (shown[position][overlap][:, nearer] > shown[position][overlap][:, other].astype(int) + 80).mean() > 0.99
    again = list(pictures([blue, red], [VIEW] * 3, lambda moment: np.ones((320, 240, 3), np.float32)))
    assert np.abs(again[0].astype(int) - shown[0]).max() <= 1  # the order in the file does not matter


def test_a_soft_edge_lets_through_who_is_behind() -> None:
    rgba = np.zeros((4, 4, 4), np.float32)
    rgba[..., 3], rgba[..., 0] = 0.5, 1.0
    near = Layer(rgba, 2, 2, np.full((4, 4), 1.0, np.float32))
    behind = np.zeros((4, 4, 4), np.float32)
    behind[..., 3], behind[..., 2] = 1.0, 1.0
    far = Layer(behind, 2, 2, np.full((4, 4), 2.0, np.float32))
    for layers in ((near, far), (far, NOTHING, near)):
        picture = merged(layers, (8, 8))
        np.testing.assert_allclose(picture[3, 3], (0.5, 0, 0.5, 1), atol=1e-6)
        assert picture[0, 0, 3] == 0
    np.testing.assert_allclose(merged([near], (8, 8))[3, 3], (1, 0, 0, 0.5), atol=1e-6)
    assert merged([], (8, 8)).max() == 0


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, body = tmp_path_factory.mktemp("scene"), BodyModel.default()
    shape = Shape(body, np.zeros(body.num_shape, np.float32), np.zeros(len(body.template_m), np.float32))
    replace(make_avatar(), bodies={"doll": shape}).save(folder / "ann" / "06_avatar")
    (folder / "scenes").mkdir()
    write_bvh(folder / "scenes" / "walk.bvh", random_frames(4))
    return folder


def test_a_scene_file_becomes_a_film_as_long_as_its_longest_movement(workspace: Path, tmp_path: Path) -> None:
    people = [
        {"avatar": "ann", "motion": "walk.bvh", "x_m": -0.5},
        {"avatar": "ann", "subject": "doll", "motion": "walk.bvh", "x_m": 0.5, "turn_deg": 180, "start_s": 0.08},
    ]
    fields = {"people": people, "frames_per_second": 25, "background": "#20a040"}
    (workspace / "scenes" / "s.json").write_text(json.dumps(fields))
    wish = Wish("", image_wh=(160, 90))
    render_scene(workspace / "scenes" / "s.json", workspace, wish, tmp_path / "a.mp4")
    shown = frames_of(tmp_path / "a.mp4")
    assert len(shown) == 6 and shown[0].shape == (90, 160, 3)
    is_somebody = np.abs(shown[0].astype(int) - (32, 160, 64)).max(-1) > 40
    columns = np.flatnonzero(is_somebody.any(0))
    assert is_somebody[:, :80].sum() > 150 and is_somebody[:, 80:].sum() > 150
    assert columns[0] > 0 and columns[-1] < 159  # all of them fit


def test_a_name_of_ones_own_film_is_the_film_itself(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was recorded, what swings included; somebody else's name is a movement to be carried over."""
    asked = []

    class AskedError(Exception):
        pass

    def choose(word: str, shape: Shape, folder: Path, subject: str, captured: object) -> None:
        asked.append((word, captured))
        raise AskedError

    monkeypatch.setattr("rendering.scenes.choose", choose)
    monkeypatch.setattr("rendering.scenes.Captured.load", lambda folder: f"captured of {folder.name}")
    for name in ("doll", "eve"):
        (workspace / name / "03_fit").mkdir(parents=True, exist_ok=True)
        (workspace / name / "03_fit" / "fit.npz").touch()
        (workspace / "scenes" / "own.json").write_text(json.dumps({"people": [{"avatar": "ann", "motion": name}]}))
        with pytest.raises(AskedError):
            render_scene(workspace / "scenes" / "own.json", workspace, Wish("", image_wh=(64, 48)), workspace / "a.mp4")
    assert asked == [("doll", "captured of doll"), ("eve", None)]


@pytest.mark.parametrize("camera", ["front", "orbit", "camera.json", "in the scene"])
def test_everybody_in_a_scene_stands_in_the_same_light(
    workspace: Path, tmp_path: Path, painted: list, camera: str
) -> None:
    person = {"avatar": "ann", "motion": "walk.bvh"}
    fields: dict = {"people": [person, {**person, "x_m": 1.0, "turn_deg": 120}], "frames_per_second": 25}
    behind = look_at(np.array([1.0, 5.0, 1.5]), np.array([0.0, 0.0, 0.9])).tolist()
    seen_from = {"camera": CAMERA.to_json(), "camera_from_world": behind}
    (workspace / "scenes" / "camera.json").write_text(json.dumps(seen_from))
    fields |= seen_from if camera == "in the scene" else {"camera": camera}
    (workspace / "scenes" / "s.json").write_text(json.dumps(fields))
    render_scene(workspace / "scenes" / "s.json", workspace, Wish("", image_wh=(160, 90)), tmp_path / "a.mp4")
    shape = Avatar.load(workspace / "ann" / "06_avatar", "cpu").bodies["doll"]
    motion = choose(str(workspace / "scenes" / "walk.bvh"), shape, workspace, "doll").at_rate(25).motion
    places = [Person("ann", "walk.bvh", turn_deg=turn_deg).placed(motion) for turn_deg in (0, 120)]
    (front,) = orbit(np.zeros((1, 3)), np.zeros(1), 1.8, np.array([0.0, -1.0, 0.0]), (300, 400))
    assert len(painted) == 2 * len(motion)
    for number, (camera_from_body, light_from_body) in enumerate(painted):
        world_from_body = places[number % 2][number // 2][:3, :3]
        assert np.allclose(light_from_body @ world_from_body.T, front.camera_from_world[:3, :3], atol=1e-6)
        is_in_front = camera == "front" or (camera == "orbit" and number < 2)
        assert np.allclose(light_from_body, camera_from_body, atol=1e-6) == is_in_front


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"people": []}, "nobody"),
        ({"people": [{"motion": "walk.bvh"}]}, "avatar"),
        ({"people": [{"avatar": "bob", "motion": "walk.bvh"}]}, "bob"),
        ({"people": [{"avatar": "ann", "motion": "walk.bvh", "subject": "eve"}]}, "eve"),
        ({"people": [{"avatar": "ann", "motion": "jump.bvh"}]}, "jump.bvh"),
        ({"people": [{"avatar": "ann", "motion": "recording"}]}, "03_fit"),
        ({"people": [{"avatar": "ann", "motion": "walk.bvh", "x_m": "left"}]}, "not a scene"),
        ({"people": [{"avatar": "ann", "motion": "walk.bvh", "x": 1}]}, "no 'x', but"),
        ({"people": [{"avatar": 7, "motion": "walk.bvh"}]}, "avatar must be text"),
        ({"people": [{"avatar": "ann", "motion": "walk.bvh", "subject": ["doll"]}]}, "subject must be text"),
        ({"background": 3}, "background must be text"),
        ({"lamp": 1}, "lamp"),
        ({"camera": {"image_wh": [8, 8]}}, "camera"),
        ({"frames_per_second": 0}, "frames_per_second"),
        ({"background": "room"}, "room"),
    ],
)
def test_a_scene_that_cannot_be_is_refused_in_one_line(
    workspace: Path, tmp_path: Path, change: dict, word: str
) -> None:
    fields = {"people": [{"avatar": "ann", "motion": "walk.bvh"}]} | change
    path = workspace / "scenes" / "bad.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(UserError, match=word) as refused:
        render_scene(path, workspace, Wish("", image_wh=(64, 48), max_frames=1), tmp_path / "a.mp4")
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


def test_places_turn_before_they_move() -> None:
    fields = load_scene_of({"avatar": "a", "motion": "m", "x_m": 2.0, "y_m": 1.0, "turn_deg": 90})
    moved = np.tile(np.eye(4), (1, 1, 1))
    moved[0, 0, 3] = 0.5
    from rendering.retarget import Motion

    placed = fields.placed(Motion("m", np.zeros((1, 2, 3)), moved, 30.0))
    np.testing.assert_allclose(placed[0, :3, 3], (2.0, 1.5, 0), atol=1e-12)
    assert doll().num_joints == len(TUBES)


def load_scene_of(person: dict):  # type: ignore[no-untyped-def]
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.json"
        path.write_text(json.dumps({"people": [person]}))
        return load_scene(path)["people"][0]
