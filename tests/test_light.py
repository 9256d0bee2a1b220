"""The light in a clip is found, taken out of the texture, and put back where a picture is painted."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_avatar import make_avatar

from fitting.light import LIGHT_TERMS, MOST_LOG, found_light, light_terms
from rendering.avatar import Avatar
from rendering.light import gain, lit
from rendering.networks import NeuralTexture, Surface
from training import warmstart
from training.adapt import as_trained
from training.config import NONE
from training.dataset import NORMAL_SCALE, NUM_PLANES, UV_SCALE, UV_ZERO, SubjectFrames
from training.train import TrainConfig
from training.warmstart import back_projected, foretold_db, light_of, proven_light

HEIGHT, WIDTH = 48, 32
LAMP = torch.tensor(
    [[-0.5, -0.3, 0.4, 0.1, 0.0, -0.1, 0.0, 0.1], [-0.4, -0.3, 0.4, 0.1, 0.0, -0.1, 0.0, 0.1], [-0.3] + 7 * [0.0]]
).T.contiguous()


def albedo(uv: np.ndarray) -> np.ndarray:
    """(K, 3) in [0, 1]: smooth over the atlas."""
    return 0.35 + 0.15 * np.stack([np.sin(6 * uv[:, 0]), np.cos(5 * uv[:, 1]), np.sin(4 * uv.sum(axis=1))], axis=1)


def turning(
    num_frames: int,
    light: torch.Tensor,
    degrees: tuple[float, float],
    nod_deg: float = 20,
    exposure: list[float] | None = None,
) -> SubjectFrames:
    """Frames of a ball that turns about the vertical axis, nodding on the way; every pixel is covered."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-0.7 : 0.7 : HEIGHT * 1j, -0.7 : 0.7 : WIDTH * 1j]
    seen = np.stack([x, y, -np.sqrt(1 - x**2 - y**2)], axis=-1).reshape(-1, 3)
    planes, uvs = [], []
    exposure = exposure or [1.0] * num_frames
    turns = np.stack([np.linspace(*degrees, num_frames), nod_deg * np.sin(np.arange(num_frames))], axis=1)
    for turn, brightness in zip(turns, exposure, strict=True):
        on_ball = Rotation.from_euler("yx", turn, degrees=True).inv().apply(seen)
        longitude, latitude = np.arctan2(on_ball[:, 0], -on_ball[:, 2]), np.arcsin(on_ball[:, 1])
        uv = np.stack([longitude / (2 * np.pi) + 0.5, latitude / np.pi + 0.5], axis=1)
        colors = brightness * albedo(uv) * gain(torch.from_numpy(seen).float(), light).numpy()
        plane = np.full((NUM_PLANES, HEIGHT * WIDTH), 255, np.uint8)
        plane[:3] = np.rint(255 * (colors + rng.normal(0, 0.01, colors.shape)).T.clip(0, 1))
        planes.append(plane.reshape(NUM_PLANES, HEIGHT, WIDTH))
        uvs.append(uv)
    count, normal = HEIGHT * WIDTH, np.tile(seen, (num_frames, 1))
    uv_i16 = (np.rint(np.concatenate(uvs) * UV_SCALE).astype(np.int32) - UV_ZERO).astype(np.int16)
    return SubjectFrames(
        name="ball",
        frame_indices=np.arange(num_frames),
        planes=torch.from_numpy(np.stack(planes)),
        starts=np.arange(num_frames + 1) * count,
        pixel=torch.arange(count, dtype=torch.int32).repeat(num_frames),
        uv_i16=torch.from_numpy(uv_i16),
        normal_i8=torch.from_numpy(np.rint(normal * NORMAL_SCALE).astype(np.int8)),
    )


def directions() -> torch.Tensor:
    """Normals that a camera sees."""
    vectors = np.random.default_rng(1).normal(0, 1, (500, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return torch.from_numpy(np.where(vectors[:, 2:] > 0, -vectors, vectors)).float()


def test_the_light_and_the_colours_beneath_it_are_found():
    frames = turning(40, LAMP, (-120, 120))
    light = light_of(frames, np.arange(40))
    normals = directions()
    normals = normals[normals[:, 2] < -0.3]
    truth = gain(normals, LAMP).log()
    assert float((gain(normals, light).log() - truth).abs().mean()) < 0.3 * float(truth.abs().mean())
    uv = frames.uv(slice(0, int(frames.starts[-1]))).numpy()
    texel = (uv[(np.abs(uv - 0.5) < 0.15).all(axis=1)] * 64).astype(int)
    found, averaged = (
        (back_projected(frames, np.arange(40), 64, taken_out).numpy()[texel[:, 1], texel[:, 0]] + 1) / 2
        for taken_out in (light, None)
    )
    colors = albedo((texel + 0.5) / 64)
    assert np.abs(found - colors).mean() < 0.5 * np.abs(averaged - colors).mean()


def test_an_exposure_that_drifts_while_somebody_turns_is_not_light():
    drifting = turning(40, torch.zeros(LIGHT_TERMS, 3), (-120, 120), exposure=np.linspace(0.7, 1.3, 40).tolist())
    assert float(gain(directions(), light_of(drifting, np.arange(40))).log().abs().mean()) < 0.1


def test_it_shows_a_side_that_never_was_turned_that_way():
    """What a plain average cannot: filmed turning one way, shown turned the other."""
    filmed, shown = turning(40, LAMP, (-150, 0)), turning(1, LAMP, (40, 40))
    light = light_of(filmed, np.arange(40))
    truth = shown.planes[0, :3].flatten(1).T.float().numpy() / 127.5 - 1
    uv = shown.uv(shown.covered(0))
    was_seen = (uv[:, 0] < 0.5 + 40 / 360).numpy()  # where 40 degrees and more to the right were seen at 0 and before
    errors = []
    for taken_out in (None, light):
        texture = NeuralTexture(back_projected(filmed, np.arange(40), 64, taken_out), taken_out)
        surface = Surface(torch.arange(len(uv)), uv, shown.normal(shown.covered(0)), (1, HEIGHT, WIDTH))
        with torch.no_grad():
            errors.append(float(np.abs(texture.features(surface).numpy() - truth)[was_seen].mean()))
    assert was_seen.sum() > 300 and errors[1] < 0.4 * errors[0], errors


def test_no_light_is_invented():
    dark = light_of(turning(20, torch.zeros(LIGHT_TERMS, 3), (-120, 120)), np.arange(20))
    assert float(gain(directions(), dark).log().abs().mean()) < 0.05
    # A person who never turns: every texel has one normal, and colour and light cannot be told apart.
    still = light_of(turning(5, LAMP, (0, 0), nod_deg=0), np.arange(5))
    assert float(gain(directions(), still).log().abs().max()) < 0.2
    nobody = turning(3, LAMP, (-60, 60))
    nobody.planes[:, 6] = 0
    assert not light_of(nobody, np.arange(3)).any()


def test_a_light_is_kept_where_it_foretells_frames_and_left_out_where_it_foretells_them_worse():
    filmed = turning(40, LAMP, (-120, 120))
    found = proven_light(filmed, np.arange(40))
    assert found is not None and torch.equal(found, light_of(filmed, np.arange(40)))
    # In the first and the last fifth of the film the lamp stands on the other side: what is found holds in the middle.
    other = turning(40, -LAMP, (-120, 120))
    planes = filmed.planes.clone()
    planes[:8], planes[-8:] = other.planes[:8], other.planes[-8:]
    changed = replace(filmed, planes=planes)
    assert float(gain(directions(), light_of(changed, np.arange(40))).log().abs().mean()) > 0.05
    assert proven_light(changed, np.arange(40)) is None


@pytest.mark.parametrize(("gains_db", "is_kept"), [((0.5, -0.5), False), ((0.5, 0.3), True), ((2.0, -0.1), True)])
def test_a_light_that_one_end_gains_by_and_the_other_loses_by_as_much_is_not_proven(monkeypatch, gains_db, is_kept):
    gains = iter(gains_db)
    monkeypatch.setattr(
        warmstart, "foretold_db", lambda frames, known, unknown, light: 20.0 if light is None else 20.0 + next(gains)
    )
    assert (proven_light(turning(10, LAMP, (-60, 60)), np.arange(10)) is not None) == is_kept


def test_too_few_frames_prove_nothing_and_keep_the_light():
    filmed = turning(4, LAMP, (-60, 60))
    assert torch.equal(proven_light(filmed, np.arange(4)), light_of(filmed, np.arange(4)))


def test_colours_that_are_right_foretell_better():
    filmed, own = turning(20, LAMP, (-120, 120)), np.arange(20)
    light, dark = light_of(filmed, own), torch.zeros_like(LAMP)
    assert foretold_db(filmed, own[:16], own[16:], light) > foretold_db(filmed, own[:16], own[16:], None) + 1
    same = foretold_db(filmed, own[:16], own[16:], dark)
    assert same == pytest.approx(foretold_db(filmed, own[:16], own[16:], None), abs=0.3)


def test_what_faces_the_camera_keeps_its_colour_and_a_gain_has_bounds():
    head_on = torch.tensor([[0.0, 0.0, -1.0]])
    np.testing.assert_allclose(light_terms(head_on.numpy()), 0, atol=1e-7)
    colors = torch.tensor([[-1.0, 0.2, 0.7]])
    torch.testing.assert_close(lit(colors, head_on, 5 * LAMP), colors)
    assert float(gain(directions(), 50 * LAMP).log().abs().max()) == pytest.approx(MOST_LOG)
    assert torch.equal(lit(torch.full((500, 3), -1.0), directions(), LAMP), torch.full((500, 3), -1.0))  # black


def test_what_faces_away_is_as_bright_as_the_harmonics_go_on_to_and_grey():
    seen = directions()
    away = seen * torch.tensor([1.0, 1.0, -1.0])
    terms = torch.from_numpy(light_terms(torch.cat([seen, away]).numpy())).float()
    seen_goes_on, away_goes_on = (terms @ LAMP).split(len(seen))
    assert float(away_goes_on.abs().max()) < MOST_LOG  # or the bounds would be tested
    torch.testing.assert_close(gain(seen, LAMP).log(), seen_goes_on, atol=1e-5, rtol=0)
    found = gain(away, LAMP).log()
    torch.testing.assert_close(found.mean(dim=1), away_goes_on.mean(dim=1), atol=1e-5, rtol=0)

    def tint(logs: torch.Tensor) -> torch.Tensor:
        return logs - logs.mean(dim=1, keepdim=True)

    torch.testing.assert_close(tint(found), tint(away_goes_on) * (1 - away[:, 2:]), atol=1e-5, rtol=0)
    behind = gain(torch.tensor([[0.0, 0.0, 1.0]]), LAMP).log()
    assert float(tint(behind).abs().max()) < 1e-6 and float(behind.abs().min()) > 0.1
    side = torch.tensor([[0.6, 0.8, -1e-4], [0.6, 0.8, 1e-4]])  # no step at the rim
    before, after = gain(side / side.norm(dim=1, keepdim=True), LAMP).log()
    torch.testing.assert_close(before, after, atol=1e-3, rtol=0)


def test_a_light_is_kept_with_its_avatar_and_old_avatars_have_none(tmp_path):
    avatar = make_avatar()
    (name,) = avatar.subjects
    plain = avatar.textures[name]
    avatar = avatar.with_subject(name, NeuralTexture(plain.texels, LAMP).requires_grad_(False), avatar.bodies[name])
    surface = Surface(torch.arange(500), torch.rand(500, 2), directions(), (1, 20, 25))
    shown = avatar.textures[name].features(surface)
    assert torch.equal(shown[:, 3:], plain.features(surface)[:, 3:])
    torch.testing.assert_close(shown[:, :3], lit(plain.features(surface)[:, :3], surface.normal, LAMP))
    avatar.save(tmp_path / "lit")
    assert torch.equal(Avatar.load(tmp_path / "lit", "cpu").textures[name].features(surface), shown)
    avatar.with_subject(name, plain, avatar.bodies[name]).save(tmp_path / "old")
    assert Avatar.load(tmp_path / "old", "cpu").textures[name].light is None


def test_the_light_stays_when_the_camera_goes_around():
    texture = NeuralTexture(NeuralTexture.shared_initial(16, 8, seed=0), LAMP)
    there = Surface(torch.arange(500), torch.rand(500, 2), directions(), (2, 10, 25))
    turns = Rotation.random(2, rng=0).as_matrix().astype(np.float32)  # how each picture's camera has been turned
    which = torch.arange(500) // 250
    turned_normal = (torch.from_numpy(turns)[which] @ there.normal[..., None])[..., 0]
    back = torch.from_numpy(turns.transpose(0, 2, 1).copy())
    here = replace(there, normal=turned_normal, lit_from_camera=back)
    expected = texture.features(there)
    torch.testing.assert_close(texture.features(here), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(texture.features(here.to("cpu")), expected, atol=1e-5, rtol=0)
    goes_along = texture.features(replace(here, lit_from_camera=None))
    assert float((goes_along - expected).detach()[:, :3].abs().max()) > 0.2 and torch.equal(
        goes_along[:, 3:], expected[:, 3:]
    )


def test_autocast_does_not_round_it():
    texture = NeuralTexture(NeuralTexture.shared_initial(16, 8, seed=0), LAMP)
    surface = Surface(torch.arange(500), torch.rand(500, 2), directions(), (1, 20, 25))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = texture.features(surface)
    assert torch.equal(rounded, texture.features(surface))


def test_who_was_trained_before_there_was_a_light_is_trained_on_without():
    base = make_avatar()
    made = {key: value for key, value in asdict(TrainConfig()).items() if key not in ("light", "pretrained")}
    assert not as_trained(replace(base, settings={**base.settings, "train": made}), {}).light
    assert as_trained(replace(base, settings={**base.settings, "train": made}), {}).pretrained == NONE
    assert as_trained(replace(base, settings={**base.settings, "train": {**made, "light": True}}), {}).light


def test_what_never_faced_the_camera_is_as_dark_as_a_matt_surface_would_be(monkeypatch):
    """Somebody who turns little, before a lamp at the camera, in noise: his back is foretold better by a light of which
    a matt surface takes less the finer it is."""

    def off(weaker: float) -> float:
        monkeypatch.setattr("fitting.light.WEAKER", weaker)
        errors = []
        for seed in range(20):
            rng = np.random.default_rng(seed)
            owner, frame = (own.ravel() for own in np.meshgrid(np.arange(200), np.arange(10)))
            angle = rng.uniform(-1.1, 1.1, 200)[owner] + np.linspace(-0.4, 0.4, 10)[frame]
            lean = rng.uniform(-0.6, 0.6, 200)[owner]
            normals = np.stack([np.sin(angle) * np.cos(lean), np.sin(lean), -np.cos(angle) * np.cos(lean)], axis=1)
            true = np.zeros((LIGHT_TERMS, 3))
            true[1] = -0.4
            logs = (
                light_terms(normals) @ true
                + rng.normal(0, 0.2, (len(owner), 3))
                + rng.normal(-1, 0.3, 200)[owner, None]
            )
            found = found_light(owner, frame, np.maximum(-normals[:, 2], 0.01), light_terms(normals), np.exp(logs))
            back = light_terms(np.array([[0.0, 0, 1]]))
            errors.append(float(np.abs(back @ (found - true)).mean()))
        return float(np.median(errors))

    assert off(8 / 3) < 0.9 * off(1.0)
