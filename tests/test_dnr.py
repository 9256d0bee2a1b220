"""The DNR baseline: as large as the avatar's networks, depends on the view, starts from the same, resumes, scores."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from miniature import CAMERA, CAMERA_FROM_BODY, doll
from small_workspace import interrupted_after, make_workspace

import pipeline
from capture.camera import project
from capture.errors import UserError
from rendering.avatar import OURS, Avatar, body_from_pixel, surface_of
from rendering.networks import NeuralRenderer, SingleRenderer, Surface, num_parameters
from rendering.rasterize import rasterize_covered
from rendering.widths import parse_widths
from training import train as training
from training.baselines.dnr import CHANNELS, DNR, PyramidTexture, as_dnr, split_into_bands, view_harmonics
from training.baselines.single import TOLERANCE, equal_widths
from training.cast import Actor
from training.dataset import Augment
from training.rows import NO_NORMALS, SINGLE
from training.score import AVATAR, Subject, comparison, load_scene, predict
from training.train import TrainConfig, train

CPU = torch.device("cpu")
QUICK = TrainConfig(
    widths="8,16", texture_px=64, steps=8, feature=False, log_every=4, device="cpu", checkpoint_every_s=0.0
)


@pytest.fixture(scope="module")
def subject_dir(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("dnr"), steps=2)


@pytest.fixture(scope="module")
def trained(subject_dir, tmp_path_factory) -> Path:
    out_dir = tmp_path_factory.mktemp("trained")
    train(as_dnr(QUICK), out_dir, {"doll": subject_dir}, DNR)
    return out_dir


PRESET_WIDTHS = sorted({TrainConfig().widths, *(p.get("train.widths", "8,16,16") for p in pipeline.PRESETS.values())})


@pytest.mark.parametrize("widths", PRESET_WIDTHS)
@pytest.mark.parametrize(("own_channels", "sees_normals"), [(CHANNELS, False), (8, True)])
def test_one_network_has_the_parameters_of_two(widths, own_channels, sees_normals):
    with torch.device("meta"):
        ours = num_parameters(NeuralRenderer(8, 16, parse_widths(widths)))
        own = parse_widths(equal_widths(widths, 8, 16, True, own_channels, sees_normals))
        theirs = num_parameters(SingleRenderer(own_channels, own, True, sees_normals))
    assert abs(theirs - ours) < TOLERANCE * ours
    assert len(own) == len(parse_widths(widths))  # as deep, only wider
    assert all(1 <= mine / two <= 2 for mine, two in zip(own, parse_widths(widths), strict=True))


def test_a_texture_in_bands_starts_as_the_texture_it_was():
    initial = torch.rand(32, 32, CHANNELS, generator=torch.Generator().manual_seed(0)) * 2 - 1
    bands = split_into_bands(initial, 4)
    assert [band.shape[0] for band in bands] == [32, 16, 8, 4]
    centres = (torch.arange(32) + 0.5) / 32
    uv = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1).view(-1, 2)
    texture = PyramidTexture(initial)
    torch.testing.assert_close(texture.sample(uv), initial.view(-1, CHANNELS), atol=1e-5, rtol=1e-5)
    flat = split_into_bands(torch.full((32, 32, 3), 0.7), 4)
    assert flat[-1].mean() == pytest.approx(0.7) and all(band.abs().max() < 1e-6 for band in flat[:-1])


def test_sizes_that_cannot_be_halved_are_refused():
    with pytest.raises(UserError, match="texture_px = 36"):
        split_into_bands(torch.zeros(36, 36, 3), 4)
    with pytest.raises(UserError, match="needs 12"):
        PyramidTexture(torch.zeros(32, 32, 8))


def test_every_level_learns_and_fine_levels_fade_fastest():
    texture = PyramidTexture(torch.rand(32, 32, CHANNELS, generator=torch.Generator().manual_seed(0)))
    texture.sample(torch.rand(500, 2)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in texture.parameters())
    parameters, decays = zip(*texture.decays(), strict=True)
    assert [id(p) for p in parameters] == [id(p) for p in texture.parameters()]
    assert list(decays) == sorted(decays, reverse=True) and decays[-1] == 0 < decays[-2]


def test_harmonics_are_orthonormal():
    rng = np.random.default_rng(0)
    directions = F.normalize(torch.from_numpy(rng.normal(size=(200_000, 3))), dim=1)
    values = view_harmonics(directions).double()
    gram = 4 * np.pi * (values.T @ values) / len(values)
    torch.testing.assert_close(gram, torch.eye(9, dtype=torch.float64), atol=0.02, rtol=0)


def test_only_the_weighed_channels_depend_on_the_view():
    texture = PyramidTexture(torch.rand(32, 32, CHANNELS, generator=torch.Generator().manual_seed(0)))
    pixel, uv = torch.arange(6), torch.rand(6, 2)
    front, side = torch.eye(3)[None], torch.eye(3)[None].roll(1, 1)
    seen = [texture.features(Surface(pixel, uv, torch.zeros(6, 3), (1, 2, 3), rays)) for rays in (front, side)]
    changed = (seen[0] - seen[1]).abs().amax(dim=0) > 1e-6
    assert not changed[:3].any() and not changed[3] and not changed[12:].any()  # band 0 is constant
    assert changed[4:12].sum() >= 6


def test_rays_run_through_the_body_that_they_show():
    """A ray of the body's frame, from the camera's centre in that frame, hits the vertex that its pixel shows."""
    vertices_camera_m, _ = doll().posed(None, np.zeros((len(doll().joint_names), 3)), CAMERA_FROM_BODY)
    position_px = project(CAMERA, vertices_camera_m)
    rays = np.concatenate([position_px, np.ones((len(position_px), 1))], 1)
    rays = rays @ body_from_pixel(CAMERA, CAMERA_FROM_BODY).numpy().T
    rotation, offset_m = CAMERA_FROM_BODY[:3, :3], CAMERA_FROM_BODY[:3, 3]
    towards_m = doll().template_m + rotation.T @ offset_m
    cosine = (rays * towards_m).sum(1) / np.linalg.norm(rays, axis=1) / np.linalg.norm(towards_m, axis=1)
    assert cosine.min() > 1 - 1e-5


def test_an_augmented_crop_keeps_its_rays(subject_dir):
    """Wherever a covered pixel is moved by rescaling and shifting, it is still seen from where it was."""
    frames = Actor.load("doll", subject_dir, CPU, with_view=True).frames

    def view_of_texels(augment: Augment) -> dict[tuple[float, ...], np.ndarray]:
        rng, noise = torch.Generator().manual_seed(3), torch.Generator()
        surface = frames.batch(torch.tensor([4, 9]), augment, rng, noise).surface
        item = (surface.pixel // (surface.batch_hw[1] * surface.batch_hw[2])).tolist()
        keys = [(i, *uv) for i, uv in zip(item, surface.uv.tolist(), strict=True)]
        return dict(zip(keys, surface.view_body().numpy(), strict=True))

    plain, moved = view_of_texels(Augment()), view_of_texels(Augment(1.3, 1.3, 0.2))
    common = plain.keys() & moved.keys()
    assert len(common) > 300
    # The raster is looked up at the nearest pixel, and a pixel is 0.8 degrees here; the crop moves by ten times that.
    assert min(float(plain[key] @ moved[key]) for key in common) > np.cos(np.deg2rad(0.8))
    assert min(float(a @ b) for a, b in zip(plain.values(), list(plain.values())[::-1], strict=True)) < 0.99


def test_it_is_scored_and_rendered_like_any_avatar(subject_dir, trained):
    avatar, subject = Avatar.load(trained, "cpu", DNR), Subject.load("doll", subject_dir, 160)
    assert isinstance(avatar.textures["doll"], PyramidTexture) and avatar.needs_view
    guess = predict(avatar, subject, 0)[AVATAR]
    image, truth, *_ = comparison(load_scene(subject, int(subject.heldout[0])), guess)
    assert image.shape == truth.shape and np.isfinite(image).all()
    fit, index = subject.captured.fit, int(subject.heldout[0])
    box = tuple(subject.rasters.boxes_px[index])
    picture = avatar.render("doll", fit.pose[index], fit.camera_from_body[index], CAMERA, box)
    assert picture.shape == (CAMERA.image_wh[1], CAMERA.image_wh[0], 4) and picture[..., 3].max() > 0
    with pytest.raises(UserError, match="not a readable avatar"):
        Avatar.load(trained, "cpu", OURS)


def test_the_view_reaches_the_picture(subject_dir, trained):
    avatar, subject = Avatar.load(trained, "cpu", DNR), Subject.load("doll", subject_dir, 160)
    index = int(subject.heldout[0])
    fit, camera = subject.captured.fit, subject.rasters.cameras[index]
    vertices_m = avatar.bodies["doll"].vertices_camera_m(fit.pose[index], fit.camera_from_body[index])
    surface = surface_of(rasterize_covered(fit.body, vertices_m, camera))
    rays = body_from_pixel(camera, fit.camera_from_body[index])[None]
    here, there = (avatar.render_raster("doll", replace(surface, body_from_pixel=r))[0] for r in (rays, -rays.flip(1)))
    assert (here - there).abs().max() > 1e-3


def test_being_killed_changes_no_byte(subject_dir, trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training, "progress", interrupted_after(3))
        patch.setattr(training.Saver, "save_if_due", training.Saver.save)
        with pytest.raises(KeyboardInterrupt):
            train(as_dnr(QUICK), tmp_path, {"doll": subject_dir}, DNR)
    train(as_dnr(QUICK), tmp_path, {"doll": subject_dir}, DNR)
    for name in ("renderer.safetensors", "textures/doll.safetensors"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_it_learns(subject_dir, tmp_path):
    train(as_dnr(replace(QUICK, steps=60, log_every=10)), tmp_path, {"doll": subject_dir}, DNR)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert np.mean(losses[-2:]) < 0.7 * losses[0]


def test_the_optimiser_fades_the_levels_as_published(subject_dir):
    state = training.new_state(as_dnr(QUICK), [Actor.load("doll", subject_dir, CPU, with_view=True)], CPU, DNR)
    levels = list(state.textures.parameters())
    before = [level.detach().clone() for level in levels]
    for level in levels:
        level.grad = torch.zeros_like(level)
    state.apply_gradients(0.0, 0.5, 0.0)
    left = [float((level.detach() / was).median()) for level, was in zip(levels, before, strict=True)]
    assert left == pytest.approx([1 - 0.5 * decay for decay in (1e-2, 1e-3, 1e-4, 0)], abs=1e-6)


@pytest.mark.parametrize(
    ("parts", "sees_normals"), [(OURS, True), (SINGLE, True), (NO_NORMALS, False), (DNR, False)]
)  # fmt: skip
def test_only_some_renderers_see_the_normals(parts, sees_normals):
    torch.manual_seed(0)
    made = asdict(as_dnr(QUICK) if parts is DNR else QUICK)
    renderer = parts.renderer(made).eval()
    features = torch.rand(1, made["texture_channels"], 12, 8)
    flat, turned = (renderer(features, torch.full((1, 3, 12, 8), value)) for value in (0.0, 0.7))
    assert flat.image.shape == (1, 3, 12, 8) and flat.mask.shape == (1, 1, 12, 8)
    assert torch.equal(flat.image, turned.image) != sees_normals
    assert torch.equal(flat.rough, turned.rough)
