"""The commands tryon and morph: what they write, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from miniature import doll
from small_workspace import NUM_FRAMES, make_workspace
from test_avatar import make_avatar

import pipeline
from capture.errors import UserError
from fitting.body.model import BodyModel
from rendering import tryon
from rendering.avatar import Avatar, Shape
from rendering.networks import NeuralTexture


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Ada's recording, and an untrained avatar of her and Bob."""
    folder = tmp_path_factory.mktemp("tryon")
    make_workspace(folder, steps=1, name="ada")
    _cast(Shape(doll(), np.zeros(1, np.float32), None)).save(folder / "duo" / "06_avatar")
    return folder


def _cast(shape: Shape) -> Avatar:
    avatar = make_avatar("ada")
    other = NeuralTexture(NeuralTexture.shared_initial(32, 8, seed=1)).requires_grad_(False)
    settings = {**avatar.settings, "subjects": ["ada", "bob"]}
    own = {"ada": avatar.textures["ada"], "bob": other}
    return replace(avatar, textures=own, bodies={"ada": shape, "bob": shape}, settings=settings)


@pytest.fixture(scope="module")
def people() -> Avatar:
    body = BodyModel.default()
    return _cast(Shape(body, np.zeros(body.num_shape, np.float32), None))


def invoke(workspace: Path, *words: str) -> str:
    done = CliRunner().invoke(pipeline.cli, [*words, "--workspace", str(workspace)], catch_exceptions=False)
    return done.output


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_film_replays_the_bodys_own_recording_in_other_clothes(workspace, tmp_path):
    own, other = tmp_path / "own.mp4", tmp_path / "other.mp4"
    words = ("--avatar", "duo", "--motion", "recording", "--camera", "capture")
    said = invoke(
        workspace, "tryon", *words, "--body", "ada", "--wear", "bob", "--regions", "torso", "--out", str(other)
    )
    assert str(other) in said
    invoke(workspace, "render", *words, "--subject", "ada", "--out", str(own))
    shown, before = frames_of(other), frames_of(own)
    assert len(shown) == len(before) == NUM_FRAMES - 1  # one frame was lost
    changed = np.abs(np.stack(shown).astype(int) - np.stack(before)).max(axis=(0, 3)) > 60
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 200
    # The torso alone: arms reach wider, head and legs higher and lower.
    assert np.ptp(rows) < 140 and np.ptp(columns) < 140


def test_a_morph_is_a_film_from_one_to_the_other(people, tmp_path, monkeypatch):
    monkeypatch.setattr(tryon, "MORPH_S", 0.25)
    monkeypatch.setattr(tryon, "HOLD_S", 0.05)
    tryon.morph(people, "ada", "bob", tmp_path / "morph.mp4")
    pictures = frames_of(tmp_path / "morph.mp4")
    assert len(pictures) == 6 and pictures[0].shape == (800, 600, 3)


def test_the_sheet_shows_every_pair_from_two_sides(people, tmp_path):
    tryon.sheet(people, "torso", tmp_path / "sheet.jpg")
    sheet = cv2.imread(str(tmp_path / "sheet.jpg"))
    assert sheet is not None
    width, height = tryon.SHEET_WH
    assert sheet.shape == (2 * height + 3 * tryon.LABEL_PX, 2 * 2 * width, 3)
    top = tryon.LABEL_PX
    own, worn = sheet[top : top + height, :width], sheet[top : top + height, 2 * width : 3 * width]
    changed = np.abs(own.astype(int) - worn).max(axis=2) > 50
    assert changed.sum() > 100 and not changed[: height // 8].any()


def test_who_stands_at_ease_stands_on_the_floor(people):
    motion = tryon.standing(people.bodies["ada"], 3)
    vertices_m = people.bodies["ada"].vertices_camera_m(motion.pose[0], motion.world_from_body[0])
    assert vertices_m[:, 2].min() == pytest.approx(0, abs=1e-5) and len(motion) == 3


@pytest.mark.parametrize(
    "words, complaint",
    [
        (("tryon", "--body", "ada", "--wear", "dora"), "'dora' is not in this avatar; it has ada, bob"),
        (("tryon", "--body", "ada", "--wear", "bob", "--regions", "hat"), "region 'hat': this body has torso, head"),
        (("tryon", "--body", "ada", "--wear", "bob", "--regions", ","), "name some, for example torso"),
        (("tryon", "--body", "ada", "--wear", "ada"), "that is what --body ada has on; name another of ada, bob"),
        (("tryon", "--body", "ada"), "--body NAME --wear NAME, or --all"),
        (("tryon", "--all", "--wear", "bob"), "leave --body and --wear out"),
        (("tryon", "--all"), "the sheet is a JPEG; name it film.jpg"),
        (("tryon", "--body", "bob", "--wear", "ada"), "needs the recording of 'bob'"),
        (("morph", "--from", "ada", "--to", "dora"), "'dora' is not in this avatar; it has ada, bob"),
        (("morph", "--from", "ada", "--to", "ada"), "--to ada: name another"),
    ],
)
def test_mistakes_are_named(workspace, tmp_path, words, complaint):
    with pytest.raises(UserError) as caught:
        invoke(workspace, *words, "--avatar", "duo", "--out", str(tmp_path / "film.mp4"))
    assert complaint in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_avatar_of_one_has_nobody_to_change_clothes_with(workspace, tmp_path):
    for words in (
        ("tryon", "--body", "ada", "--wear", "bob"),
        ("tryon", "--all"),
        ("morph", "--from", "a", "--to", "b"),
    ):
        with pytest.raises(UserError, match="one subject, ada; train one of several"):
            invoke(workspace, *words, "--avatar", "ada", "--out", str(tmp_path / "film.mp4"))
