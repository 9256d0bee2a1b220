"""The avatar on disk and in a picture."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from miniature import CAMERA, CAMERA_FROM_BODY, dance, doll
from small_workspace import make_workspace

from capture.errors import UserError
from fitting.fit import BodyFit
from rendering.avatar import Avatar, Shape, surface_of
from rendering.framing import person_box, person_frame, visible_depth
from rendering.layers import lay_over
from rendering.networks import NeuralRenderer, NeuralTexture
from rendering.painter import HAZE, Painter
from rendering.pasting import Box, crispness, paste
from rendering.rasterize import rasterize, rasterize_covered
from rendering.rasters import RasterConfig
from rendering.rasters import rasterize as rasterize_stage
from training.train import TrainConfig, train

SETTINGS = {"texture_channels": 8, "latent_channels": 16, "widths": "8,16", "norm": True}


def make_avatar(name: str = "doll") -> Avatar:
    """Untrained, but made to show its texture: colour passes straight through, and the mask is open."""
    torch.manual_seed(0)
    renderer = NeuralRenderer(8, 16, (8, 16)).eval().requires_grad_(False)
    stages: Any = (renderer.first, renderer.second)
    for stage in stages:
        stage.up[0][0].weight.zero_()
        stage.up[0][0].bias.zero_()
    renderer.second.direct.weight[3, 16:, 1, 1] = torch.tensor([0.0, 0.0, -40.0])  # normals that face the camera
    texture = NeuralTexture(NeuralTexture.shared_initial(32, 8, seed=0)).requires_grad_(False)
    shape = Shape(doll(), np.array([0.5], np.float32), np.full(len(doll().template_m), 0.01, np.float32))
    settings = {"subjects": [name], "image_wh": [40, 64], "train": SETTINGS}
    return Avatar(renderer, {name: texture}, {name: shape}, settings)


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    return make_avatar()


def test_a_saved_avatar_opens_and_paints_the_same_picture(avatar, tmp_path):
    avatar.save(tmp_path)
    pose = dance(3)[0][2]
    opened = Avatar.load(tmp_path, device="cpu")
    first, second = (a.render("doll", pose, CAMERA_FROM_BODY, CAMERA) for a in (avatar, opened))
    assert np.array_equal(first, second)
    assert opened.subjects == ("doll",)


def test_saving_twice_gives_the_same_bytes(avatar, tmp_path):
    for name in "ab":
        avatar.save(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_the_picture_shows_the_person_where_the_body_projects(avatar):
    rgba = avatar.render("doll", np.zeros((6, 3)), CAMERA_FROM_BODY, CAMERA)
    assert rgba.shape == (320, 240, 4) and rgba.dtype == np.float32
    assert rgba.min() >= 0 and rgba.max() <= 1

    vertices_m = avatar.bodies["doll"].vertices_camera_m(np.zeros((6, 3)), CAMERA_FROM_BODY)
    facing = rasterize(doll(), vertices_m, CAMERA)
    inside = facing.mask & (facing.normal[..., 2] < -0.3)
    shown = rgba[..., 3] > 0.75  # the mask of an empty pixel is sigmoid(0)
    assert (shown & inside).sum() / inside.sum() > 0.95
    assert (shown & ~facing.mask).sum() / facing.mask.sum() < 0.15


def test_the_crop_does_not_move_the_person(avatar):
    pose = np.zeros((6, 3))
    box = person_box(avatar.bodies["doll"].vertices_camera_m(pose, CAMERA_FROM_BODY), CAMERA, avatar.image_wh)
    assert box is not None
    wide = (box[0] - 20, box[1] - 32, box[2] + 20, box[3] + 32)
    tight, loose = (avatar.render("doll", pose, CAMERA_FROM_BODY, CAMERA, b)[..., 3] > 0.6 for b in (box, wide))
    assert (tight & loose).sum() / (tight | loose).sum() > 0.85
    np.testing.assert_allclose(np.argwhere(tight).mean(0), np.argwhere(loose).mean(0), atol=2)  # a crop pixel is 4.3


def test_an_unknown_subject_is_refused_by_name(avatar):
    with pytest.raises(UserError, match=r"nobody.*doll"):
        avatar.render("nobody", np.zeros((6, 3)), CAMERA_FROM_BODY, CAMERA)


@pytest.mark.parametrize("place", [(0, 2, -3), (2, 50)])
def test_somebody_who_is_not_in_the_picture_leaves_it_empty(avatar, place):
    away = CAMERA_FROM_BODY.copy()
    away[2 if len(place) == 3 else 0, 3] = place[-1]
    assert avatar.render("doll", np.zeros((6, 3)), away, CAMERA).max() == 0


def test_painting_in_float32_and_in_the_machines_own_precision_agree(avatar):
    surface_rgba = avatar.render("doll", np.zeros((6, 3)), CAMERA_FROM_BODY, CAMERA)
    exact = make_avatar()
    exact.painter.dtype = torch.float32
    exact.painter.renderer.float()
    expected = exact.render("doll", np.zeros((6, 3)), CAMERA_FROM_BODY, CAMERA)
    assert np.abs(surface_rgba - expected)[..., :3][expected[..., 3] > 0.75].mean() < 0.01


def test_pasting_puts_pixels_back_and_does_not_bleed():
    rgba = np.zeros((64, 40, 4), np.float32)
    rgba[16:48, 10:30] = (1, 0, 0, 1)
    rgba[:16, :, 2] = 1  # blue, but fully transparent
    picture = paste(rgba, (50.0, 40.0, 130.0, 168.0), (240, 320)).picture((240, 320))
    solid = picture[..., 3] > 0.99
    rows, columns = np.nonzero(solid)
    assert (rows.min(), columns.min()) == pytest.approx((72, 70), abs=2)
    assert (rows.max(), columns.max()) == pytest.approx((135, 109), abs=2)
    seen = picture[picture[..., 3] > 0.05]
    assert seen[:, 0].min() > 0.98 and seen[:, 2].max() < 0.02


def test_the_box_has_the_proportions_of_the_crop_and_holds_the_person():
    vertices_m, _ = doll().posed(None, np.zeros((6, 3)), CAMERA_FROM_BODY)
    left, top, right, bottom = person_box(vertices_m, CAMERA, (40, 64))
    assert (right - left) / (bottom - top) == pytest.approx(40 / 64)
    points = vertices_m[:, :2] / vertices_m[:, 2:] * 300 + (120, 160)
    assert left < points[:, 0].min() and right > points[:, 0].max()
    assert top < points[:, 1].min() and bottom > points[:, 1].max()


@pytest.mark.parametrize(
    "damage", ["avatar.json", "renderer.safetensors", "textures/doll.safetensors", "bodies/doll.npz"]
)
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_avatar_is_refused_in_one_line(avatar, tmp_path, damage, how):
    avatar.save(tmp_path)
    path = tmp_path / damage
    if how == "cut":
        path.write_bytes(path.read_bytes()[:25])
    else:
        path.unlink()
    with pytest.raises(UserError) as error:
        Avatar.load(tmp_path, device="cpu")
    assert "\n" not in str(error.value)


def test_an_avatar_of_other_widths_is_refused(avatar, tmp_path):
    avatar.save(tmp_path)
    settings = json.loads((tmp_path / "avatar.json").read_text())
    settings["train"]["widths"] = "8,32"
    (tmp_path / "avatar.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="train it again"):
        Avatar.load(tmp_path, device="cpu")


def test_far_from_the_person_the_picture_is_exactly_empty(avatar):
    surface = surface_of(rasterize_covered(doll(), doll().posed(None, np.zeros((6, 3)), CAMERA_FROM_BODY)[0], CAMERA))
    far = make_avatar()
    far.renderer.second.up[0][0].bias[3] = -4.5  # a mask of 1 % everywhere
    _, mask, _ = far.render_raster("doll", surface)
    assert mask[0, 0, 0, 0] == 0 and mask.max() == 1


def paste_over_everything(rgba: np.ndarray, box_px: Box, image_wh: tuple[int, int]) -> np.ndarray:
    """The plainest way to paste: every pixel of the picture is resampled and divided."""
    height, width = rgba.shape[:2]
    left, top, right, bottom = box_px
    premultiplied = rgba.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:]
    scale_x, scale_y = (right - left) / width, (bottom - top) / height
    image_from_crop = np.array([[scale_x, 0, left + scale_x / 2 - 0.5], [0, scale_y, top + scale_y / 2 - 0.5]])
    pasted = cv2.warpAffine(premultiplied, image_from_crop, image_wh, flags=cv2.INTER_LINEAR)
    alpha = pasted[..., 3:]
    pasted[..., :3] = np.divide(pasted[..., :3], alpha, out=np.zeros_like(pasted[..., :3]), where=alpha > 1e-4)
    return np.clip(pasted, 0, 1).astype(np.float32)


@pytest.mark.parametrize("box", [(50.3, 40.0, 120.0, 152.0), (-30.0, -10.5, 49.0, 116.0), (100.0, 100.0, 110.0, 116.0)])
def test_pasting_resamples_the_window_as_it_would_the_whole_picture(box):
    rgba = np.random.default_rng(0).random((64, 40, 4), np.float32)
    whole = paste_over_everything(rgba, box, (240, 320))
    whole[..., 3] = ((whole[..., 3] - 0.5) * crispness(box, 64) + 0.5).clip(0, 1)
    picture = paste(rgba, box, (240, 320)).picture((240, 320))
    if box[2] - box[0] > 40:  # smaller ones are averaged first
        np.testing.assert_allclose(picture[..., 3], whole[..., 3], atol=1e-3)
        np.testing.assert_allclose((picture * picture[..., 3:])[..., :3], (whole * whole[..., 3:])[..., :3], atol=1e-3)
    assert picture[..., 3].sum() == pytest.approx(whole[..., 3].sum(), rel=0.1)


def test_an_outline_that_is_enlarged_is_as_long_and_less_soft():
    """Where it lies stays, and a mask that is not enlarged is left as it is."""
    rgba = np.zeros((64, 40, 4), np.float32)
    rgba[..., 3] = np.clip((np.arange(40) - 17) / 6, 0, 1)  # half at 20
    reach_px = {}
    for times in (1, 2, 3, 6):
        alpha = paste(rgba, (0.0, 0.0, 40.0 * times, 64.0 * times), (40 * times, 64 * times)).rgba[32 * times, :, 3]
        edge = float(np.interp(0.5, alpha, np.arange(len(alpha)) + 0.5)) / times
        assert edge == pytest.approx(20.5, abs=0.05)
        reach_px[times] = ((alpha > 0.02) & (alpha < 0.98)).sum() / times
    assert reach_px[1] >= 5 and reach_px[3] == pytest.approx(reach_px[1] / 1.5, abs=0.7)
    assert reach_px[6] == pytest.approx(reach_px[3], abs=0.4)  # not without end
    assert crispness((0.0, 0.0, 40.0, 64.0), 64) == 1 == crispness((0.0, 0.0, 20.0, 32.0), 64)


def test_a_live_pictures_outline_is_as_crisp_as_a_films():
    rng = np.random.default_rng(1)
    rgba = cv2.GaussianBlur(rng.random((64, 40, 4), np.float32), (0, 0), 3)
    rgba[..., 3] = ((rgba[..., 3] - 0.45) * 8).clip(0, 1)
    behind, box = np.full((200, 160, 3), 90, np.uint8), (-5.0, 4.0, 115.0, 196.0)
    live = lay_over(behind, rgba, box)
    film = 255 * paste(rgba, box, (160, 200)).over(behind / np.float32(255))
    assert np.abs(live - film)[8:190, 4:110].max() < 3 and live.std() > 10


def test_the_quick_way_to_rgba_says_what_the_networks_say(avatar):
    vertices_m = avatar.bodies["doll"].vertices_camera_m(dance(3)[0][2], CAMERA_FROM_BODY)
    surface = surface_of(rasterize_covered(doll(), vertices_m, CAMERA))
    image, mask, _ = avatar.render_raster("doll", surface)
    rgba = avatar.painter.rgba(avatar.textures["doll"], surface)
    np.testing.assert_allclose(rgba[..., :3], (image[0].permute(1, 2, 0) + 1) / 2, atol=1e-6)
    np.testing.assert_allclose(rgba[..., 3], mask[0, 0], atol=1e-5)


def test_a_textures_outline_is_added_to_the_masks_logit_and_to_nothing_else(avatar):
    texture, renderer = avatar.textures["doll"], NeuralRenderer(8, 16, (8, 16)).eval()  # masks of about one half
    wide = NeuralTexture.of({**texture.state_dict(), "outline": torch.tensor([0.4])}).requires_grad_(False)
    vertices_m = avatar.bodies["doll"].vertices_camera_m(dance(3)[0][2], CAMERA_FROM_BODY)
    surface = surface_of(rasterize_covered(doll(), vertices_m, CAMERA))
    painter = Painter(renderer, torch.device("cpu"), dtype=torch.float32)
    usual, wider = painter.paint(texture, surface), painter.paint(wide, surface)
    learned = renderer.picture(wide, surface)
    assert torch.equal(usual[0], wider[0]) and torch.equal(usual[2], wider[2])
    torch.testing.assert_close(
        learned.mask_logit - renderer.picture(texture, surface).mask_logit, torch.full_like(wider[1], 0.4)
    )
    torch.testing.assert_close(wider[1], ((learned.mask - HAZE) / (1 - 2 * HAZE)).clamp(0, 1))
    assert (wider[1] - usual[1]).mean() > 0.05
    np.testing.assert_allclose(painter.rgba(wide, surface)[..., 3], wider[1][0, 0], atol=1e-5)


def test_a_layers_depth_is_the_bodys_and_beside_it_the_nearest_pixels(avatar):
    layer = avatar.layer("doll", np.zeros((6, 3)), CAMERA_FROM_BODY, CAMERA, with_depth=True)
    vertices_m = avatar.bodies["doll"].vertices_camera_m(np.zeros((6, 3)), CAMERA_FROM_BODY)
    true_m = rasterize(doll(), vertices_m, CAMERA).depth_m[layer.window]
    inside = np.isfinite(true_m)
    assert np.median(np.abs(layer.depth_m - true_m)[inside]) < 0.02
    assert np.isfinite(layer.depth_m).all()
    assert vertices_m[:, 2].min() - 0.01 < layer.depth_m.min() and layer.depth_m.max() < vertices_m[:, 2].max() + 0.01


@pytest.mark.parametrize("near_m", [0.8, 2.7, 30.0])
def test_however_near_the_camera_a_metre_has_the_pixels_that_the_networks_know(avatar, near_m):
    place = CAMERA_FROM_BODY.copy()
    place[2, 3] = near_m
    vertices_m = avatar.bodies["doll"].vertices_camera_m(np.zeros((6, 3)), place)
    frame = person_frame(vertices_m, CAMERA, (40, 64), (20.0, 28.0))
    assert frame is not None and frame.crop_wh == (40, 64)
    scale = CAMERA.crop(frame.box_px, frame.crop_wh).fy_px / visible_depth(vertices_m, CAMERA)
    assert 19 < scale < 1.45 * 28
    if near_m == 0.8:  # without the limit
        box = person_box(vertices_m, CAMERA, (40, 64))
        assert box is not None and CAMERA.crop(box, (40, 64)).fy_px / near_m > 50


def test_somebody_as_wide_as_high_gets_more_pixels_instead_of_being_painted_small(avatar):
    lying = CAMERA_FROM_BODY.copy()
    lying[:3, :3] = np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]])
    lying[0, 3] = -0.9
    vertices_m = avatar.bodies["doll"].vertices_camera_m(np.zeros((6, 3)), lying)
    frame = person_frame(vertices_m, CAMERA.resize((480, 320)), (40, 64), (20.0, 28.0))
    assert frame is not None and frame.crop_wh[1] > 64 and frame.crop_wh[1] % 64 == 0
    assert avatar.render("doll", np.zeros((6, 3)), lying, CAMERA)[..., 3].max() > 0.9


def test_crops_have_the_room_that_training_saw(tmp_path):
    """Somebody with a hat, whose rasters were made with more of it."""
    make_workspace(tmp_path, steps=1)
    subject = tmp_path / "doll"
    usual, wide = RasterConfig(height_px=64, width_px=40), RasterConfig(height_px=64, width_px=40, margin_top=0.5)
    seen, asked = [], []
    for config in (usual, wide):
        rasterize_stage(
            replace(config, close_up_px=0), subject / "05_rasters", subject / "01_recording", subject / "03_fit"
        )
        fields = json.loads((subject / "05_rasters" / "rasters.json").read_text())
        assert fields.get("margins") == (None if config is usual else [0.07, 0.5, 0.07, 0.07])
        out = tmp_path / f"avatar{config.margin_top}"
        train(TrainConfig(widths="8,16", steps=1, texture_px=64, feature=False, device="cpu"), out, {"doll": subject})
        avatar = Avatar.load(out, "cpu")
        fit = BodyFit.load(subject / "03_fit")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rendering.avatar.person_frame", lambda *given: asked.append(given[4]))
            avatar.render("doll", fit.pose[0], fit.camera_from_body[0], fit.camera)
        assert asked.pop() == config.margins
        seen.append(avatar.margins("doll"))
    assert seen == [usual.margins, wide.margins]
