"""Detail: found in the frames that trained, kept on the texture, added where a picture shows somebody larger."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from miniature import CAMERA, CAMERA_FROM_BODY, dance, doll
from small_workspace import NUM_TRAIN, RASTERS, make_recording, make_workspace
from test_avatar import make_avatar

from capture.camera import Camera
from fitting.light import LIGHT_TERMS
from rendering.avatar import Avatar
from rendering.bake import baked_colors
from rendering.close_up import WORTH
from rendering.detail import as_stored, lay_detail, texels_per_m, with_detail
from rendering.layers import AVATAR
from rendering.live_picture import Eye, Wanted, picture
from rendering.networks import NeuralTexture
from rendering.pasting import Layer, paste
from rendering.poses import standing
from rendering.puppet import Pose
from rendering.rasterize import rasterize
from rendering.rasters import rasterize as rasterize_stage
from rendering.texels import DETAIL_STEP
from rendering.worn import between, dressed
from training import detail as module
from training.adapt import adapt, finetune
from training.close_up import train_avatar
from training.config import AdaptConfig, FinetuneConfig
from training.detail import LEAST_FRAMES, Samples, add_detail, averaged, found_detail, laid_on, without_detail
from training.heads import measured
from training.sanity import Crop, true_crop
from training.score import Subject, seen_by
from training.train import TrainConfig

D = 128
NEAR = Camera((480, 640), 600.0, 600.0, 240.0, 320.0)  # twice the crop's pixels, and more
POSE = dance(3)[0][2]


def stripes(period: int = 8) -> np.ndarray:
    """(D, D, 3) colours about 0."""
    row, column = np.indices((D, D))
    wave = 0.2 * np.sign(np.sin(2 * np.pi * (row + 0.3) / period) * np.sin(2 * np.pi * (column + 0.3) / period))
    return np.stack([wave, -wave, 0.5 * wave], axis=2).astype(np.float32)


def detailed(avatar: Avatar, detail: np.ndarray | None, light: torch.Tensor | None = None) -> Avatar:
    """The avatar with this detail for all of its cast."""

    def texture_of(texture: NeuralTexture) -> NeuralTexture:
        tensors = {"texels": texture.texels} | ({} if detail is None else {"detail": as_stored(detail)})
        tensors |= {} if light is None else {"light": light}
        return NeuralTexture.of(tensors).requires_grad_(False)

    return replace(avatar, textures={name: texture_of(texture) for name, texture in avatar.textures.items()})


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    return make_avatar()


@pytest.fixture(scope="module")
def subject_dir(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("detail"), steps=60)


def grey(height: int, width: int, alpha: float = 1.0) -> Layer:
    rgba = np.full((height, width, 4), 0.5, np.float32)
    rgba[..., 3] = alpha
    return Layer(rgba, 0, 0)


def posed(avatar: Avatar) -> np.ndarray:
    return avatar.bodies["doll"].vertices_camera_m(POSE, CAMERA_FROM_BODY)


# Showing it


def test_what_is_enlarged_shows_its_detail_where_the_body_is_and_nowhere_else(avatar):
    plain = np.full((D, D, 3), (0.2, 0.0, -0.1), np.float32)
    texture, shape, vertices_m = detailed(avatar, plain).textures["doll"], avatar.bodies["doll"], posed(avatar)
    before = grey(640, 480)
    after = with_detail(before, texture, shape, vertices_m, NEAR, 2.0)
    body = rasterize(shape.body, vertices_m, NEAR).mask
    assert np.abs(after.rgba[body, :3] - (0.7, 0.5, 0.4)).max() < DETAIL_STEP
    assert np.array_equal(after.rgba[~body], before.rgba[~body]) and (before.rgba == np.float32([0.5] * 3 + [1])).all()
    assert np.array_equal(after.rgba[..., 3], before.rgba[..., 3])


@pytest.mark.parametrize(("detail", "enlarged"), [(None, 3.0), (stripes(), WORTH - 0.01)])
def test_without_detail_and_where_hardly_enlarged_nothing_changes(avatar, detail, enlarged):
    texture, layer = detailed(avatar, detail).textures["doll"], grey(640, 480)
    assert with_detail(layer, texture, avatar.bodies["doll"], posed(avatar), NEAR, enlarged) is layer


def test_a_layer_that_is_a_part_of_the_picture_gets_its_own_part(avatar):
    texture, shape, vertices_m = detailed(avatar, stripes()).textures["doll"], avatar.bodies["doll"], posed(avatar)
    whole = with_detail(grey(640, 480), texture, shape, vertices_m, NEAR, 2.0)
    part = Layer(grey(200, 150).rgba, 170, 60)
    found = with_detail(part, texture, shape, vertices_m, NEAR, 2.0)
    assert np.array_equal(found.rgba, whole.rgba[60:260, 170:320]) and found.rgba[..., :3].std() > 0.05


def test_detail_is_lit_as_the_texture_is(avatar):
    light = torch.zeros(LIGHT_TERMS, 3)
    light[2] = torch.tensor([0.8, -0.4, 0.0])  # from one side
    plain = np.full((D, D, 3), 0.2, np.float32)
    shape, vertices_m = avatar.bodies["doll"], posed(avatar)
    texture = detailed(avatar, plain, light).textures["doll"]
    raster = rasterize(shape.body, vertices_m, NEAR)
    seen = raster.mask & (raster.normal[..., 2] < 0)  # light on what faces away is another matter
    added = with_detail(grey(640, 480), texture, shape, vertices_m, NEAR, 2.0).rgba[seen, :3] - 0.5
    sideways = raster.normal[seen][:, 0]
    assert np.allclose(added / 0.2, np.exp(np.outer(0.48860251 * sideways, [0.8, -0.4, 0])), atol=0.01)
    turned = np.diag([-1.0, 1.0, -1.0])
    mirrored = with_detail(grey(640, 480), texture, shape, vertices_m, NEAR, 2.0, turned).rgba[seen, :3] - 0.5
    assert np.corrcoef(mirrored[:, 0], sideways)[0, 1] < -0.8 < 0.8 < np.corrcoef(added[:, 0], sideways)[0, 1]


def test_what_is_finer_than_the_pictures_pixels_fades_instead_of_flickering(avatar):
    shape = avatar.bodies["doll"]
    texture = detailed(avatar, stripes(2)).textures["doll"]
    # stripes of one texel each: seen from so far that a pixel has four of them, nothing of them may be left
    per_m = texels_per_m(shape, D)
    for away, least, most in ((1.0, 0.05, 0.3), (8.0, 0.0, 0.02)):
        placed = CAMERA_FROM_BODY.copy()
        placed[2, 3] = away * 600 / per_m
        vertices_m = shape.vertices_camera_m(POSE, placed)
        camera = Camera((1200, 1200), 600.0, 600.0, 600.0, 600.0)
        seen = with_detail(grey(1200, 1200), texture, shape, vertices_m, camera, 2.0).rgba
        assert least <= seen[rasterize(shape.body, vertices_m, camera).mask, 0].std() <= most


def test_it_comes_little_by_little_as_somebody_comes_nearer(avatar):
    """Whoever breathes at the distance where it begins does not blink."""
    texture, shape = detailed(avatar, stripes(4)).textures["doll"], avatar.bodies["doll"]
    vertices_m = posed(avatar)
    body = rasterize(shape.body, vertices_m, NEAR).mask

    def contrast(enlarged: float) -> float:
        return float(with_detail(grey(640, 480), texture, shape, vertices_m, NEAR, enlarged).rgba[body, 0].std())

    steps = np.diff([contrast(enlarged) for enlarged in np.linspace(WORTH - 0.02, WORTH + 0.4, 22)])
    assert (steps > -1e-6).all() and 0 < steps.max() < 0.1 * contrast(3.0)
    assert contrast(WORTH + 0.4) == contrast(3.0)
    seen = []
    for focal_px in np.geomspace(100, 1200, 60):  # from one level of it to the next
        camera = Camera((480, 640), focal_px, focal_px, 240.0, 320.0)
        inside = rasterize(shape.body, vertices_m, camera).mask
        seen.append(with_detail(grey(640, 480), texture, shape, vertices_m, camera, 3.0).rgba[inside, 0].std())
    assert np.abs(np.diff(seen)).max() < 0.1 * max(seen) and max(seen) > 2 * min(seen)


def test_many_may_ask_for_its_levels_at_once(avatar):
    for _ in range(20):
        texture = detailed(avatar, stripes()).textures["doll"]
        meeting = Barrier(4)

        def asked(level: int, texture: NeuralTexture = texture, meeting: Barrier = meeting) -> int:
            meeting.wait()
            return len(texture.detail_level(level))

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(asked, [1, 0, 1, 0])) == [D // 2, D, D // 2, D]
        assert len(texture.detail_level(1)) == D // 2


def test_texels_per_metre_are_those_of_the_surface(avatar):
    shape = avatar.bodies["doll"]
    body = shape.body
    rest_m, _ = body.shaped(shape.shape)
    edges_m = np.linalg.norm(rest_m[body.faces[:, 0]] - rest_m[body.faces[:, 1]], axis=1)
    edges_px = np.linalg.norm(body.uv[body.face_uv[:, 0]] - body.uv[body.face_uv[:, 1]], axis=1) * D
    stretched = np.median(edges_px / np.maximum(edges_m, 1e-6))
    assert 0.3 * stretched < texels_per_m(shape, D) < 3 * stretched
    assert texels_per_m(shape, 2 * D) == pytest.approx(2 * texels_per_m(shape, D))


def test_an_avatar_paints_it_in_large_pictures_and_not_at_its_own_size(avatar):
    plain, fine = detailed(avatar, None), detailed(avatar, stripes())
    assert np.array_equal(*(a.render("doll", POSE, CAMERA_FROM_BODY, CAMERA.resize((40, 64))) for a in (plain, fine)))
    first, second = (a.render("doll", POSE, CAMERA_FROM_BODY, NEAR) for a in (plain, fine))
    body = rasterize(doll(), posed(avatar), NEAR).mask
    assert np.abs(second - first)[body, :3].mean() > 0.1 and np.array_equal(second[~body], first[~body])


def test_a_live_picture_shows_it_as_a_film_does(avatar):
    texture, shape, vertices_m = detailed(avatar, stripes()).textures["doll"], avatar.bodies["doll"], posed(avatar)
    mask = cv2.GaussianBlur(np.pad(np.ones((44, 24), np.float32), ((10, 10), (8, 8))), (0, 0), 4)
    box = (60.0, 40.0, 420.0, 616.0)
    picture = np.full((640, 480, 3), 100, np.uint8)
    lay_detail(picture, mask, box, texture, shape, vertices_m, NEAR)
    full = with_detail(grey(640, 480), texture, shape, vertices_m, NEAR, 9.0).rgba[..., :3] - 0.5
    alpha = paste(np.dstack([np.zeros((64, 40, 3), np.float32), mask]), box, (480, 640)).picture((480, 640))[..., 3]
    assert np.abs(picture - (100 + 255 * full * alpha[..., None])).max() < 2.5 and picture.std() > 5
    small = np.full((640, 480, 3), 100, np.uint8)
    lay_detail(small, np.ones((640, 480), np.float32), (0.0, 0.0, 480.0, 640.0), texture, shape, vertices_m, NEAR)
    assert (small == 100).all()  # nothing was enlarged


def test_it_is_saved_with_the_texture_and_baked_onto_the_skin(avatar, tmp_path):
    fine = detailed(avatar, stripes())
    fine.save(tmp_path)
    opened = Avatar.load(tmp_path, "cpu").textures["doll"].detail
    assert opened is not None and torch.equal(opened, as_stored(stripes()))
    plain, baked = (baked_colors(a, "doll", D).astype(float) / 255 for a in (detailed(avatar, None), fine))
    inside = (plain > 0.25).all(axis=2) & (plain < 0.75).all(axis=2)
    assert inside.mean() > 0.02 and np.abs(baked - plain - stripes())[inside].max() < 0.01


def test_detail_changes_hands_with_the_clothes():
    one, other = make_avatar("doll"), make_avatar("other")
    fine, coarse = stripes(), stripes()[::2, ::2]
    textures = {**detailed(one, fine).textures, **detailed(other, coarse).textures}
    cast = replace(one, textures=textures, bodies={**one.bodies, **other.bodies}, settings={"train": {}})
    parts = ("torso", "head", "arm.L", "arm.R", "leg.L", "leg.R")
    mixed = dressed(cast, "doll", {"torso": "other"}).textures["doll"].detail
    assert mixed is not None and mixed.shape == (D, D, 3)
    theirs = as_stored(cv2.resize(coarse, (D, D)))
    torso, leg = (slice(20, 44), slice(10, 32)), (slice(84, 108), slice(52, 74))  # the middle of their charts
    for chart, owner in ((torso, theirs), (leg, as_stored(fine))):
        assert (mixed[chart].int() - owner[chart].int()).abs().max() <= 1
    assert between(cast, "doll", "other", 0.0).textures["doll"].detail is not None
    bare = replace(cast, textures={name: without_detail(texture) for name, texture in textures.items()})
    assert dressed(bare, "doll", dict.fromkeys(parts, "other")).textures["doll"].detail is None


# Finding it


def samples(colors: np.ndarray, frames: int, noise: float, seed: int = 0) -> list[Samples]:
    """Every texel seen once by every frame, which are noisy."""
    rng = np.random.default_rng(seed)
    flat = colors.reshape(-1, 3)
    ones = np.ones(len(flat), np.float32)
    return [
        Samples(np.arange(len(flat)), (flat + rng.normal(0, noise, flat.shape)).astype(np.float32), ones)
        for _ in range(frames)
    ]


def test_what_all_frames_say_is_kept_and_what_differs_is_not():
    wide = stripes(32)
    kept = averaged(samples(wide, 12, 0.05), D)
    middle = np.abs(cv2.GaussianBlur(wide, (0, 0), 2)[..., 0]) > 0.15  # away from the edges that the splat softens
    assert np.abs(kept - wide)[middle].mean() < 0.03
    noise = averaged(samples(np.zeros_like(wide), 12, 0.2), D)
    assert np.abs(noise).mean() < 0.01 and (noise == 0).all(axis=2).mean() > 0.3


def test_a_frame_that_says_something_else_does_not_count():
    wide = stripes(32)
    wrong = [frame._replace(colors=-frame.colors) for frame in samples(wide, 3, 0.0)]
    clean, found = averaged(samples(wide, 12, 0.0), D), averaged(samples(wide, 12, 0.0) + wrong, D)
    plain_mean = 9 / 15 * clean
    assert np.abs(found - clean).mean() < 0.5 * np.abs(plain_mean - clean).mean()


def test_nothing_is_claimed_of_what_few_frames_saw():
    few = averaged(samples(stripes(32), LEAST_FRAMES - 1, 0.0), D)
    assert (few == 0).all()
    half = samples(stripes(32), 8, 0.0)
    half = [Samples(*(column[len(column) // 2 :] for column in frame)) for frame in half]
    found = averaged(half, D)
    assert (found[: D // 2 - 4] == 0).all() and np.abs(found[D // 2 + 8 :]).mean() > 0.05


def print_found(subject_dir: Path, monkeypatch, away_px: float) -> float:
    """How like a print what is found of it is, in a recording of what the avatar itself paints, with a print that it
    does not know, every second frame ``away_px`` aside of its pose."""
    plain = Avatar.load(subject_dir / "06_avatar", "cpu")
    plain = replace(plain, textures={"doll": without_detail(plain.textures["doll"])}, close_up=None)
    true = stripes(16)
    # in the light that detail is asked for in
    lit = NeuralTexture.of({**plain.textures["doll"].state_dict(), "detail": as_stored(true)}).requires_grad_(False)
    painter = replace(plain, textures={"doll": lit})

    class Filmed:
        def __init__(self, captured: Any, rasters: Any) -> None:
            self.captured, self.rasters = captured, rasters

        def color(self, index: int) -> np.ndarray:
            fit, box = self.captured.fit, self.rasters.boxes_px[index]
            rgba = painter.render("doll", fit.pose[index], fit.camera_from_body[index], fit.camera, tuple(box))
            aside = np.array([[1, 0, away_px * (1 if index % 2 else -1)], [0, 1, 0]], np.float32)
            color = cv2.warpAffine(rgba[..., :3], aside, fit.camera.image_wh, borderMode=cv2.BORDER_REPLICATE)
            return np.rint(color * 255).clip(0, 255).astype(np.uint8)

    load = module.Captured.load

    def loaded(folder: Path) -> Any:
        captured, rasters = load(folder), module.Rasters.load(folder / "05_rasters")
        filmed: Any = Filmed(captured, rasters)
        return replace(captured, recording=filmed)

    monkeypatch.setattr(module.Captured, "load", loaded)
    found = found_detail(plain, "doll", subject_dir)
    assert found is not None and found.shape[0] == 256
    small = cv2.resize(found.numpy().astype(np.float32), (D, D), interpolation=cv2.INTER_AREA) * DETAIL_STEP
    said = np.abs(small).max(axis=2) > 0.02
    assert said.mean() > 0.1
    return float(np.corrcoef(small[said].ravel(), true[said].ravel())[0, 1])


@pytest.mark.parametrize("away_px", [0.0, 3.0])
def test_a_print_too_fine_for_the_networks_is_found_in_the_film(subject_dir, monkeypatch, away_px):
    """Not laid onto the painting, frames that are 3 pixels off have .72 of it."""
    assert print_found(subject_dir, monkeypatch, away_px) > 0.83


def test_a_frame_is_laid_onto_the_painting_whatever_stands_behind_and_however_bright_it_is():
    rng = np.random.default_rng(0)
    painted = cv2.GaussianBlur(rng.uniform(size=(256, 160, 3)).astype(np.float32), (0, 0), 4)
    painted = (painted - 0.5) * 4 + 0.5
    matte = np.zeros((256, 160), np.float32)
    cv2.ellipse(matte, (80, 128), (50, 100), 0, 0, 360, 1, -1)
    aside = np.array([[1, 0, 3], [0, 1, -2]], np.float32)
    wh = matte.shape[::-1]
    filmed, there = (cv2.warpAffine(a, aside, wh, borderMode=cv2.BORDER_REPLICATE) for a in (painted, matte))
    elsewhere = np.where(there[..., None] > 0.5, 0.8 * filmed + 0.05, rng.uniform(size=filmed.shape)).astype(np.float32)
    inside = cv2.erode(matte, np.ones((21, 21))) > 0
    shown = np.dstack([painted, matte])
    for true, gain, more in ((filmed, 1.0, 0.0), (elsewhere, 0.8, 0.05)):
        laid, its_matte = laid_on(shown, true, there, 8.0)
        before, after = (np.abs(a - (gain * painted + more))[inside].mean() for a in (true, laid))
        assert after < 0.2 * before, f"{after / before:.2f} of the difference is left"
        assert np.abs(its_matte - matte).mean() < 0.5 * np.abs(there - matte).mean()


@pytest.mark.parametrize("wh", [(18, 23), (19, 24), (16, 16)])
def test_a_picture_too_small_for_flow_stays_where_it_is(wh):
    true, shown = (np.random.default_rng(k).uniform(size=(wh[1], wh[0], 3 + k)).astype(np.float32) for k in (0, 1))
    shown[..., 3] = 1
    laid, matte = laid_on(shown, true, np.ones((wh[1], wh[0]), np.float32), 4.0)
    assert laid.shape == true.shape and matte.shape == true.shape[:2] and np.isfinite(laid).all()
    assert np.array_equal(laid, true) == (max(wh) < 24)


def seen_otherwise(monkeypatch, **changes: Any) -> None:
    """Recording or masks as ``changes``, functions of what is there, make them."""
    load = module.Captured.load

    def loaded(folder: Path) -> Any:
        captured = load(folder)
        return replace(captured, **{name: change(getattr(captured, name)) for name, change in changes.items()})

    monkeypatch.setattr(module.Captured, "load", loaded)


class Brighter:
    def __init__(self, recording: Any) -> None:
        self.recording = recording

    def color(self, index: int) -> np.ndarray:
        return (self.recording.color(index).astype(int) + 20).clip(0, 255).astype(np.uint8)


class Nobody:
    def __init__(self, masks: Any) -> None:
        self.masks = masks

    def __getitem__(self, index: int) -> np.ndarray:
        return np.zeros_like(self.masks[index])


def without_any(subject_dir: Path) -> Avatar:
    avatar = Avatar.load(subject_dir / "06_avatar", "cpu")
    return replace(avatar, textures={"doll": without_detail(avatar.textures["doll"])})


def test_a_film_that_is_brighter_throughout_lacks_the_same(subject_dir, monkeypatch):
    usual = found_detail(without_any(subject_dir), "doll", subject_dir)
    seen_otherwise(monkeypatch, recording=Brighter)
    brighter = found_detail(without_any(subject_dir), "doll", subject_dir)
    assert usual is not None and brighter is not None
    apart, all_of_it = (brighter.float() - usual.float()).abs().mean(), usual.float().abs().mean()
    assert apart < 0.3 * all_of_it


def test_what_the_matte_does_not_have_teaches_nothing(subject_dir, monkeypatch):
    seen_otherwise(monkeypatch, masks=Nobody)
    found = found_detail(without_any(subject_dir), "doll", subject_dir)
    assert found is not None and not found.any()


def test_training_ends_with_detail_and_held_out_frames_gain(subject_dir):
    avatar = Avatar.load(subject_dir / "06_avatar", "cpu")
    assert avatar.textures["doll"].detail is not None
    plain = replace(avatar, textures={"doll": without_detail(avatar.textures["doll"])})
    subject, wh, gains = Subject.load("doll", subject_dir, 320), (160, 256), []
    for index in subject.heldout.tolist():
        box = subject.rasters.boxes_px[index]
        truth, is_filmed = true_crop(subject.captured.recording.color(index), subject.captured.masks[index], box, wh)
        camera = subject.rasters.camera.crop(tuple(box), wh)
        figures = []
        for painter in (plain, avatar):
            rgba = seen_by(painter, subject, index, camera, (0.0, 0.0, 160.0, 256.0))
            figures.append(measured(Crop(rgba[..., :3], rgba[..., 3]), truth, is_filmed)["masked_psnr_db"])
        gains.append(figures[1] - figures[0])
    assert np.mean(gains) > 0.1


def test_finding_it_again_finds_the_same(subject_dir, tmp_path):
    folder = tmp_path / "06_avatar"
    shutil.copytree(subject_dir / "06_avatar", folder)
    before = (folder / "textures" / "doll.safetensors").read_bytes()
    add_detail(folder, {"doll": subject_dir}, "cpu")
    assert (folder / "textures" / "doll.safetensors").read_bytes() == before


@pytest.mark.parametrize(("most_rows", "rows"), [(1024, 320), (280, 270)])
def test_a_recording_looked_at_no_finer_than_the_crops_has_none(subject_dir, monkeypatch, most_rows, rows):
    monkeypatch.setattr(module, "MOST_ROWS", most_rows)
    avatar = Avatar.load(subject_dir / "06_avatar", "cpu")
    coarse = replace(avatar, settings={**avatar.settings, "image_wh": [rows * 5 // 8, rows]})
    assert found_detail(coarse, "doll", subject_dir) is None


def test_frames_from_far_away_say_nothing(subject_dir, monkeypatch):
    looked: list[int] = []

    def at(self: Any, frames: np.ndarray, detail_px: int) -> Any:
        looked.extend(frames.tolist())
        return iter(())

    load = module.Rasters.load

    def with_far_ones(folder: Path) -> Any:
        rasters = load(folder)
        boxes_px = rasters.boxes_px.copy()
        boxes_px[2:6, 3] = boxes_px[2:6, 1] + 60
        return replace(rasters, boxes_px=boxes_px)

    monkeypatch.setattr(module.Looked, "at", at)
    monkeypatch.setattr(module.Rasters, "load", with_far_ones)
    found_detail(Avatar.load(subject_dir / "06_avatar", "cpu"), "doll", subject_dir)
    assert looked and not set(looked) & {2, 3, 4, 5} and max(looked) < NUM_TRAIN  # nor do held-out ones


def test_it_can_be_left_out(subject_dir, tmp_path):
    settings = TrainConfig(widths="8,16", steps=2, texture_px=64, feature=False, detail=False)
    train_avatar(settings, tmp_path, {"doll": subject_dir})
    assert Avatar.load(tmp_path, "cpu").textures["doll"].detail is None


def detail_of(folder: Path, name: str = "doll") -> torch.Tensor | None:
    return Avatar.load(folder, "cpu").textures[name].detail


def test_who_is_adapted_or_tuned_gets_his_own_anew(subject_dir, tmp_path):
    trained = subject_dir / "06_avatar"
    other = make_recording(tmp_path, "other", look=1)
    (other / "05_rasters").mkdir()
    rasterize_stage(RASTERS, other / "05_rasters", other / "01_recording", other / "03_fit")
    adapt(AdaptConfig(20), {}, tmp_path / "adapted", trained, "other", other)
    first, second = detail_of(tmp_path / "adapted"), detail_of(tmp_path / "adapted", "other")
    before = detail_of(trained)
    assert first is not None and second is not None and before is not None
    assert torch.equal(first, before) and not torch.equal(second, before)
    finetune(FinetuneConfig(3), {}, tmp_path / "tuned", trained, "doll", subject_dir)
    tuned = detail_of(tmp_path / "tuned")
    assert tuned is not None and not torch.equal(tuned, before)
    finetune(FinetuneConfig(3), {"detail": False}, tmp_path / "plain", trained, "doll", subject_dir)
    assert detail_of(tmp_path / "plain") is None


def test_the_live_view_shows_it_on_the_avatar_and_on_no_other_layer(avatar):
    fine = detailed(avatar, stripes())
    pose, world_from_body = standing(fine.bodies["doll"])
    eye = Eye(np.array([0.7071068, -0.7071068, 0, 0]), np.array([0.0, -2.4, 0.9]), 0.8, (400, 600))
    pictures = {}
    for layer in (AVATAR, "R2: image"):
        for kind, one in (("plain", detailed(avatar, None)), ("fine", fine)):
            wanted = Wanted(one.bodies["doll"], one.textures["doll"], Pose(pose, world_from_body), layer, eye)
            pictures[layer, kind] = picture(one, wanted, 1.0).astype(int)
    changed = np.abs(pictures[AVATAR, "fine"] - pictures[AVATAR, "plain"]).max(axis=2) > 8
    assert 0.02 < changed.mean() < 0.5
    assert np.array_equal(pictures["R2: image", "fine"], pictures["R2: image", "plain"])
