"""The close-up of the head: its rasters, its training, and how it is laid into the person's picture."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import CAMERA, CAMERA_FROM_BODY, dance, doll
from small_workspace import LOST, NUM_FRAMES, NUM_TRAIN, RASTERS, make_recording, make_workspace
from test_avatar import make_avatar

from capture.camera import Camera, project
from capture.errors import UserError
from fitting.fit import BodyFit
from fitting.keyframes import Keyframes
from rendering.avatar import Avatar
from rendering.bake import baked_colors
from rendering.close_up import FOLDER, WORTH, head_vertices, inset, ramp
from rendering.layers import lay_in, lay_over
from rendering.networks import NeuralTexture
from rendering.pasting import Layer
from rendering.rasterize import rasterize as draw
from rendering.rasters import Filmed, Rasters, rasterize
from rendering.worn import between, dressed
from training.cast import HEAD
from training.close_up import as_close_up, train_avatar
from training.heads import WITH, WITHOUT, head, score_heads, summary, true_head, within
from training.score import Subject
from training.train import TrainConfig, train

NEAR = CAMERA_FROM_BODY - np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1.2], [0, 0, 0, 0]])
LARGE = Camera((480, 640), 600.0, 600.0, 240.0, 320.0)


@pytest.fixture(scope="module")
def subject_dir(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("close"), steps=30)


def red_head(avatar: Avatar) -> Avatar:
    """The avatar with a close-up that paints everything red."""
    (name,) = avatar.subjects
    red = torch.full_like(avatar.textures[name].texels, -1.0)
    red[..., 0] = 1.0
    settings = {**avatar.settings, "image_wh": [32, 32], "px_per_m": {name: (80.0, 300.0)}}
    close = replace(avatar, textures={name: NeuralTexture(red).requires_grad_(False)}, settings=settings)
    return replace(avatar, close_up=close)


# Rasters


def test_every_tracked_head_fills_its_crop_and_no_other_frame_has_one(subject_dir):
    fit, rasters = BodyFit.load(subject_dir / "03_fit"), Rasters.load(subject_dir / HEAD)
    assert rasters.image_wh == (RASTERS.close_up_px,) * 2 and len(rasters) == NUM_FRAMES
    assert len(rasters[LOST].pixel) == 0
    vertices = head_vertices(fit.body)
    for i in np.flatnonzero(fit.tracked):
        places = project(rasters.cameras[i], fit.vertices_color_m(i)[vertices])
        low, high = places.min(axis=0), places.max(axis=0)
        assert (low >= 0).all() and (high <= RASTERS.close_up_px).all()
        assert high[1] - low[1] == pytest.approx(RASTERS.close_up_px / 1.45, abs=1)  # margins of .3 and .15
        truth, found = draw(fit.body, fit.vertices_color_m(i), rasters.cameras[i]), rasters[i].dense()
        assert np.array_equal(truth.part, found.part)
        assert set(np.unique(found.part)) >= {0, 2}  # the head and what is around it


@pytest.mark.parametrize(
    ("change", "is_there"), [({}, True), ({"close_up_px": 0}, False), ({"height_px": 640, "width_px": 400}, False)]
)
def test_there_is_a_close_up_where_it_shows_more(subject_dir, tmp_path, change, is_there):
    config = replace(RASTERS, **change)
    rasterize(config, tmp_path, subject_dir / "01_recording", subject_dir / "03_fit")
    assert (tmp_path / FOLDER).is_dir() == is_there
    assert len(Rasters.load(tmp_path)) == NUM_FRAMES


def test_a_close_up_too_small_to_train_on_is_refused(subject_dir, tmp_path):
    with pytest.raises(UserError, match="close_up_px = 8: must be 0, for none, or 16"):
        rasterize(replace(RASTERS, close_up_px=8), tmp_path, subject_dir / "01_recording", subject_dir / "03_fit")


# One picture laid into another


def solid(color, alpha: float, wh: tuple[int, int], left: int = 0, top: int = 0) -> Layer:
    rgba = np.empty((wh[1], wh[0], 4), np.float32)
    rgba[..., :3], rgba[..., 3] = color, alpha
    return Layer(rgba, left, top, np.full((wh[1], wh[0]), 2.0, np.float32))


def test_a_close_up_stands_inside_its_box_and_nothing_shines_through_at_its_sides():
    whole, close = solid((0, 0, 1), 1.0, (60, 80)), solid((1, 0, 0), 1.0, (30, 30), 20, 10)
    mixed = inset(whole, close, (20.0, 10.0, 50.0, 40.0))
    assert np.allclose(mixed.rgba[..., 3], 1, atol=1e-6)
    assert np.allclose(mixed.rgba[25, 35, :3], (1, 0, 0)) and np.allclose(mixed.rgba[60, 35, :3], (0, 0, 1))
    ring = mixed.rgba[25, 20:25, 0]
    assert (np.diff(ring) > 0).all() and ring[0] < 0.1 and ring[-1] > 0.9
    assert np.array_equal(mixed.depth_m, whole.depth_m)
    assert np.array_equal(whole.rgba, solid((0, 0, 1), 1.0, (60, 80)).rgba)  # not changed


def test_a_close_up_of_the_same_picture_changes_nothing_soft_edges_included():
    rng = np.random.default_rng(0)
    rgba = rng.random((40, 40, 4), np.float32)
    whole = Layer(rgba, 5, 3)
    mixed = inset(whole, Layer(rgba[10:30, 10:30].copy(), 15, 13), (15.0, 13.0, 35.0, 33.0))
    assert (mixed.left, mixed.top) == (5, 3) and np.abs(mixed.rgba - rgba).max() < 1e-5


def test_hair_beyond_the_persons_own_layer_is_kept():
    mixed = inset(
        solid((0, 0, 1), 1.0, (10, 10), 10, 20), solid((1, 0, 0), 1.0, (20, 20), 5, 5), (5.0, 5.0, 25.0, 25.0)
    )
    assert (mixed.left, mixed.top, mixed.rgba.shape) == (5, 5, (25, 20, 4))
    assert mixed.rgba[10, 10, 3] == 1 and mixed.rgba[24, 2, 3] == 0
    assert mixed.depth_m is not None and mixed.depth_m[0, 0] == np.inf and mixed.depth_m[20, 8] == 2


def test_the_ramp_is_one_inside_and_nothing_beyond():
    weights = ramp(np.array([-1.0, 0, 7.5, 15, 50, 99.9, 101]), 0, 100)
    assert weights[[0, 1, 6]].max() == 0 and weights[3] == weights[4] == 1 and weights[2] == pytest.approx(0.5)


def test_the_live_view_mixes_as_films_do():
    rng = np.random.default_rng(1)
    behind = rng.integers(0, 256, (64, 48, 3), np.uint8)
    near, far = rng.random((32, 32, 4), np.float32), rng.random((64, 48, 4), np.float32)
    near[..., 3], far[..., 3] = 0.7, 0.4
    box = (8.0, 4.0, 40.0, 36.0)
    laid = lay_over(behind, far, (0.0, 0.0, 48.0, 64.0))
    found = lay_in(laid, behind, near, box).astype(int)
    truth = inset(Layer(far, 0, 0), Layer(near, 8, 4), box).over(behind / np.float32(255)) * 255
    assert np.abs(found - truth).max() < 3
    assert np.array_equal(found[40:], laid[40:])


# In the avatar


def test_a_near_camera_sees_the_close_up_and_only_on_the_head():
    avatar = red_head(make_avatar())
    pose, plain = dance(3)[0][2], replace(avatar, close_up=None)
    shown, without = (a.render("doll", pose, NEAR, LARGE) for a in (avatar, plain))
    points = project(LARGE, avatar.bodies["doll"].vertices_camera_m(pose, NEAR))
    column, row = points[head_vertices(doll())].mean(axis=0).astype(int)
    assert np.allclose(shown[row, column], (1, 0, 0, 1), atol=0.02)
    assert not np.allclose(without[row, column, :3], (1, 0, 0), atol=0.2)
    low = int(points[:, 1].min() + 0.5 * np.ptp(points[:, 1]))
    assert np.array_equal(shown[low:], without[low:])


def test_from_afar_and_of_somebody_without_one_there_is_no_close_up():
    avatar = red_head(make_avatar())
    pose, plain = dance(3)[0][2], replace(avatar, close_up=None)
    small = CAMERA.resize((30, 40))
    box = (0.0, 0.0, 30.0, 40.0 / WORTH * 1.2)
    assert (box[3] - box[1]) / avatar.image_wh[1] < WORTH
    assert np.array_equal(*(a.render("doll", pose, CAMERA_FROM_BODY, small, box) for a in (avatar, plain)))
    assert avatar.close_up is not None
    without = replace(avatar, close_up=avatar.close_up.without("doll"))
    assert np.array_equal(*(a.render("doll", pose, NEAR, LARGE) for a in (without, plain)))


def test_a_saved_avatar_opens_with_its_close_up(tmp_path):
    avatar = red_head(make_avatar())
    avatar.save(tmp_path)
    assert json.loads((tmp_path / FOLDER / "avatar.json").read_text())["image_wh"] == [32, 32]
    pose = dance(3)[0][2]
    assert np.array_equal(*(a.render("doll", pose, NEAR, LARGE) for a in (avatar, Avatar.load(tmp_path, "cpu"))))


def test_a_mesh_for_other_programs_has_the_head_of_the_close_up():
    avatar = red_head(make_avatar())
    shown, without = (baked_colors(a, "doll", 48).astype(int) for a in (avatar, replace(avatar, close_up=None)))
    head, chest = (slice(4, 20), slice(20, 28)), (slice(4, 20), slice(4, 12))  # charts: three columns, two rows
    assert np.abs(shown[head] - (255, 0, 0)).mean() < 8 < np.abs(without[head] - (255, 0, 0)).mean()
    assert np.array_equal(shown[chest], without[chest])


# Changed clothes


def cast_of_two() -> tuple[Avatar, NeuralTexture]:
    """Two dolls, each with a close-up; bob is blue by both."""
    one = red_head(make_avatar("ada"))
    assert one.close_up is not None
    texels = torch.full_like(one.textures["ada"].texels, -1.0)
    texels[..., 2] = 1.0
    blue = NeuralTexture(texels).requires_grad_(False)
    return one.with_subject("bob", blue, one.bodies["ada"]), blue


def test_clothes_change_in_the_close_up_too():
    avatar, blue = cast_of_two()
    assert avatar.close_up is not None and avatar.close_up.subjects == ("ada",)  # bob has none yet
    bare = dressed(avatar, "ada", {"torso": "bob"}).close_up
    assert bare is not None and bare.subjects == ()  # half a change would be worse
    avatar = avatar.with_subject("bob", blue, avatar.bodies["bob"], blue)
    changed = dressed(avatar, "ada", {"torso": "bob"})
    assert changed.close_up is not None and avatar.close_up is not None
    close, own = (a.textures["ada"].texels for a in (changed.close_up, avatar.close_up))
    chest, face = (8, 5), (8, 16)  # rows, columns of 32 texels: charts lie in three columns and two rows
    assert torch.equal(close[chest], blue.texels[chest]) and torch.equal(close[face], own[face])
    middle = between(avatar, "ada", "bob", 0.5).close_up
    assert middle is not None
    torch.testing.assert_close(middle.textures["ada"].texels, (own + blue.texels) / 2)


# Training


def test_the_close_up_is_trained_beside_the_person_and_takes_nothing_from_him(subject_dir, tmp_path):
    avatar = Avatar.load(subject_dir / "06_avatar", "cpu")
    close = avatar.close_up
    assert close is not None and close.image_wh == (32, 32) and close.subjects == ("doll",)
    assert close.settings["steps"] == 20 and as_close_up(TrainConfig(steps=30)).steps == 40
    assert as_close_up(TrainConfig(steps=30, pretrained="none")).steps == 20
    assert as_close_up(TrainConfig(steps=30, widths="8,16")).steps == 20  # for which there are no weights
    assert as_close_up(TrainConfig(steps=1, pretrained="none")).steps == 1
    assert torch.equal(close.textures["doll"].light, avatar.textures["doll"].light)
    assert not torch.equal(close.textures["doll"].texels, avatar.textures["doll"].texels)
    train(TrainConfig(**avatar.settings["train"]), tmp_path, {"doll": subject_dir})
    name = "renderer.safetensors"
    assert (tmp_path / name).read_bytes() == (subject_dir / "06_avatar" / name).read_bytes()
    assert torch.equal(Avatar.load(tmp_path, "cpu").textures["doll"].texels, avatar.textures["doll"].texels)


def test_a_recording_without_head_rasters_gets_an_avatar_without_a_close_up(tmp_path):
    subject = make_recording(tmp_path)
    for stage in ("05_rasters", "06_avatar"):
        (subject / stage).mkdir()
    config = replace(RASTERS, close_up_px=0)
    rasterize(config, subject / "05_rasters", subject / "01_recording", subject / "03_fit")
    small = TrainConfig(widths="8", steps=2, texture_px=32, feature=False)
    train_avatar(small, subject / "06_avatar", {"doll": subject})
    assert Avatar.load(subject / "06_avatar", "cpu").close_up is None


def test_a_head_that_only_heldout_frames_show_gets_no_close_up(subject_dir, tmp_path, caplog):
    folder = tmp_path / "doll"
    shutil.copytree(subject_dir, folder)
    split = Keyframes.load(folder / "04_keyframes")
    shown = [i for i in range(NUM_FRAMES) if len(Rasters.load(folder / HEAD)[i].pixel) and i not in split.train_indices]
    fit, rasters = BodyFit.load(folder / "03_fit"), Rasters.load(folder / HEAD)
    filmed = Filmed(fit.body, fit.camera, fit.vertices_color_m, fit.part_doubted)
    is_seen = np.isin(np.arange(NUM_FRAMES), shown)
    filmed.write(folder / HEAD, is_seen, rasters.boxes_px, rasters.image_wh, None)
    train_avatar(TrainConfig(widths="8", steps=2, texture_px=32, feature=False), tmp_path / "out", {"doll": folder})
    assert Avatar.load(tmp_path / "out", "cpu").close_up is None
    assert "no close-up of doll: no frame that trains shows the head" in caplog.messages


def test_heads_of_different_sizes_are_refused_before_anything_is_trained(subject_dir, tmp_path):
    other = make_recording(tmp_path, "other", look=1)
    (other / "05_rasters").mkdir()
    rasterize(replace(RASTERS, close_up_px=48), other / "05_rasters", other / "01_recording", other / "03_fit")
    with pytest.raises(UserError, match="other: its rasters of the head are 48 x 48, those of doll 32 x 32"):
        train_avatar(TrainConfig(steps=1), tmp_path / "out", {"doll": subject_dir, "other": other})
    assert not (tmp_path / "out").exists()


# Figures


def test_heads_are_measured_on_heldout_frames_as_they_are_shown(subject_dir, tmp_path):
    avatar, subject = Avatar.load(subject_dir / "06_avatar", "cpu"), Subject.load("doll", subject_dir, 320)
    rows, figures = score_heads(avatar, subject, tmp_path, 2)
    heldout = [i for i in range(NUM_TRAIN, NUM_FRAMES) if i != LOST]
    assert [row["frame"] for row in rows] == sorted(heldout * 2) and figures is not None
    assert figures["frames"] == len(heldout) and figures["size_px"] == 32
    assert figures == summary(rows, 32) and figures[WITH] != figures[WITHOUT]
    assert len(list(tmp_path.glob("head_*.jpg"))) == 2 * 3
    # What is scored is what a film shows there: the same part of the picture at the recording's own size.
    assert subject.close_up is not None
    index, wh = heldout[0], subject.close_up.image_wh
    box = subject.close_up.boxes_px[index]
    whole = subject.captured.fit.camera
    person_px = tuple(subject.rasters.boxes_px[index])
    rgba = avatar.render(
        "doll", subject.captured.fit.pose[index], subject.captured.fit.camera_from_body[index], whole, person_px
    )
    left, top, right, bottom = np.rint(box).astype(int)
    cut = rgba[max(top, 0) : bottom, left:right, 3].mean()
    assert head(avatar, subject, subject.close_up, index, wh).alpha.mean() == pytest.approx(cut, abs=0.03)


def test_the_truth_scores_perfectly(subject_dir):
    from training.heads import measured

    subject = Subject.load("doll", subject_dir, 320)
    assert subject.close_up is not None
    truth, is_filmed = true_head(subject, subject.close_up, NUM_TRAIN, (32, 32))
    figures = measured(truth, truth, is_filmed)
    assert figures["masked_psnr_db"] == 100 and figures["ssim"] == pytest.approx(1) and figures["mask_iou"] == 1
    assert figures["flip"] == 0


def test_without_a_close_up_there_are_no_figures_of_heads(subject_dir, tmp_path):
    avatar, subject = Avatar.load(subject_dir / "06_avatar", "cpu"), Subject.load("doll", subject_dir, 320)
    assert score_heads(replace(avatar, close_up=None), subject, tmp_path, 2) == ([], None)
    assert score_heads(avatar, replace(subject, close_up=None), tmp_path, 2) == ([], None)


def test_a_box_within_a_part_of_the_picture():
    assert within(np.array([10.0, 20, 30, 60]), np.array([20.0, 20, 30, 30]), (100, 50)) == (-100, 0, 100, 200)
