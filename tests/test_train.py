"""The training loop: it learns, it learns only what it should, and being interrupted changes nothing."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from miniature import Film, doll, film

from capture.errors import UserError
from fitting.body.model import BodyModel
from rendering.avatar import Avatar, Shape
from rendering.worn import nearest_vertices, spread
from training import step as steps
from training import train as training
from training.config import LOSSES
from training.dataset import VALID, Augment, SubjectFrames
from training.train import Actor, TrainConfig, decayed, fit_cast, masked_psnr_db, truncate_log
from training.unseen import continued

CPU = torch.device("cpu")
QUICK = TrainConfig(
    widths="8,16,16",
    texture_px=64,
    steps=12,
    batch_size=2,
    split=True,
    feature_width=4,
    feature_blocks=2,
    adversarial=False,
    discriminator_width=4,
    log_every=2,
    device="cpu",
)


def actor(movie: Any, name: str = "doll", num_train: int = 24) -> Actor:
    frames = SubjectFrames.load(name, np.arange(num_train), movie, movie.alphas, movie)
    return Actor(frames, np.arange(num_train), np.arange(0, num_train, 6), Shape(doll(), np.zeros(1, np.float32), None))


@pytest.fixture(scope="module")
def movie() -> Film:
    return film(30)


@pytest.fixture(scope="module")
def cast(movie) -> list[Actor]:
    return [actor(movie)]


def run(config: TrainConfig, out_dir: Path, cast: list[Actor]):
    out_dir.mkdir(exist_ok=True)
    with training.reproducible(CPU):
        return fit_cast(config, out_dir, cast, CPU)


def digests(folder: Path) -> dict[str, bytes]:
    """Every file's bytes; how fast it went is left out of the log."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return files | {"log.jsonl": re.sub(rb'"steps_per_s": [^}]*', b"", files["log.jsonl"])}


def stop_after(steps: int):
    """A progress bar behind which the process dies after so many steps."""

    def interrupted(items, label, note):
        for count, item in enumerate(items):
            if count == steps:
                raise KeyboardInterrupt
            yield item

    return interrupted


@pytest.mark.parametrize("adversarial", [False, True])
def test_being_killed_at_any_step_changes_no_byte(cast, tmp_path, monkeypatch, adversarial):
    config = replace(QUICK, adversarial=adversarial, checkpoint_every_s=0.0)
    run(config, tmp_path / "whole", cast)
    whole = digests(tmp_path / "whole")
    assert "checkpoints/last.safetensors" in whole and "log.jsonl" in whole
    for cuts in ([1], [4], [7], [11], [2, 3, 5]):
        out_dir = tmp_path / "cut"
        for cut in cuts:
            with monkeypatch.context() as patch:
                patch.setattr(training, "progress", stop_after(cut))
                patch.setattr(training.Saver, "save_if_due", training.Saver.save)
                with pytest.raises(KeyboardInterrupt):
                    run(config, out_dir, cast)
        run(config, out_dir, cast)
        assert digests(out_dir) == whole, cuts
        shutil.rmtree(out_dir)


def test_how_often_it_saves_has_no_influence(cast, tmp_path):
    run(replace(QUICK, checkpoint_every_s=0.0), tmp_path / "often", cast)
    run(replace(QUICK, checkpoint_every_s=1e9), tmp_path / "never", cast)
    often, never = digests(tmp_path / "often"), digests(tmp_path / "never")
    for settings in (often, never):
        assert settings.pop("avatar.json")  # echoes the setting itself
    assert often == never


def test_a_lost_checkpoint_only_costs_time(cast, tmp_path, monkeypatch):
    config = replace(QUICK, checkpoint_every_s=0.0)
    run(config, tmp_path / "whole", cast)
    with monkeypatch.context() as patch:
        patch.setattr(training, "progress", stop_after(5))
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "cut", cast)
    checkpoint = tmp_path / "cut" / "checkpoints" / "last.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    run(config, tmp_path / "cut", cast)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_what_a_gpu_began_a_cpu_goes_on_with(cast):
    state = training.new_state(QUICK, cast, CPU)
    saved = state.state_dict() | {"noise_rng": torch.zeros(16, dtype=torch.uint8)}  # as a generator of CUDA's says it
    state.load_state_dict(saved)
    assert torch.equal(state.rng.get_state(), saved["rng"])


def test_split_steps_change_the_renderer_or_the_texture_never_both(cast, tmp_path, monkeypatch):
    seen: list[tuple[bool, bool]] = []
    original = training.TrainState.apply_gradients

    def spy(state, *rates):
        before = [p.detach().clone() for p in (*state.renderer.parameters(), *state.textures.parameters())]
        original(state, *rates)
        after = [*state.renderer.parameters(), *state.textures.parameters()]
        changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        seen.append((any(changed[:-1]), changed[-1]))

    monkeypatch.setattr(training.TrainState, "apply_gradients", spy)
    run(replace(QUICK, steps=6), tmp_path / "split", cast)
    assert seen == [(True, False), (False, True)] * 3
    seen.clear()
    run(replace(QUICK, steps=3, split=False), tmp_path / "joint", cast)
    assert seen == [(True, True)] * 3


def test_texture_steps_see_keyframes_only(cast, tmp_path, monkeypatch):
    asked: list[set[int]] = []
    original = SubjectFrames.batch

    def spy(frames, positions, *rest):
        asked.append(set(positions.tolist()))
        return original(frames, positions, *rest)

    monkeypatch.setattr(SubjectFrames, "batch", spy)
    run(replace(QUICK, steps=40, shards=1, feature=False), tmp_path, cast)
    keyframes = set(cast[0].keyframe_positions.tolist())
    assert set.union(*asked[1:40:2]) <= keyframes
    assert not set.union(*asked[0:40:2]) <= keyframes


def test_it_learns_and_the_lesson_holds_for_frames_it_never_saw(movie, cast, tmp_path):
    config = replace(QUICK, widths="16,32,32", steps=160, batch_size=4, precision="fp32", split=False)
    state = run(config, tmp_path, cast)
    ticks = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert ticks[-1]["loss"] < 0.5 * ticks[0]["loss"]
    avatar = Avatar.load(tmp_path, device="cpu")
    heldout = SubjectFrames.load("doll", np.arange(24, 30), movie, movie.alphas, movie)
    batch = heldout.batch(torch.arange(6), Augment(), torch.Generator(), torch.Generator())
    image, mask, rough = avatar.render_raster("doll", batch.surface)
    person = batch.mask > 0.5
    iou = float(((mask > 0.5) & person).sum() / ((mask > 0.5) | person).sum())
    assert iou > 0.85
    mean_color = (batch.target * person).sum((0, 2, 3), keepdim=True) / person.sum()
    trained = float(masked_psnr_db(image, batch.target, batch.mask))
    assert trained > float(masked_psnr_db(mean_color.expand_as(image), batch.target, batch.mask)) + 4
    assert float(masked_psnr_db(rough, batch.target, batch.mask)) > trained - 4
    assert state.step == 160


def test_a_warm_texture_carries_the_true_colours(movie, cast):
    state = training.new_state(replace(QUICK, texture_px=128), cast, CPU)
    frames = cast[0].frames
    own = frames.covered(0)
    truth = frames.planes[0, :3].flatten(1).T[frames.pixel[own].long()].float() / 127.5 - 1
    with torch.no_grad():
        sampled = state.textures[0].sample(frames.uv(own))
    assert float((sampled[:, :3] - truth).abs().mean()) < 0.5 * float((truth.mean(0) - truth).abs().mean())
    cold = training.new_state(replace(QUICK, texture_px=128, warm_start=False), cast, CPU)
    assert torch.equal(state.textures[0].texels[..., 3:], cold.textures[0].texels[..., 3:])


def test_two_people_share_the_renderer_and_keep_their_own_textures(movie, tmp_path):
    cast = [actor(movie, "ada"), actor(film(24, seed=5), "bob")]
    state = run(replace(QUICK, steps=16, warm_start=False), tmp_path, cast)
    start = training.new_state(replace(QUICK, warm_start=False), cast, CPU)
    assert torch.equal(start.textures[0].texels, start.textures[1].texels)
    for index in range(2):
        assert not torch.equal(state.textures[index].texels, start.textures[index].texels)
    assert not torch.equal(state.textures[0].texels, state.textures[1].texels)
    avatar = Avatar.load(tmp_path, device="cpu")
    assert avatar.subjects == ("ada", "bob")


@pytest.mark.parametrize("term", ["pixel", "mask", "feature", "tv", "adversarial"])
def test_every_loss_has_an_off_switch(cast, tmp_path, term):
    on = replace(QUICK, steps=1, adversarial=True)
    run(on, tmp_path / "on", cast)
    run(replace(on, **{term: False}), tmp_path / "off", cast)
    ticks = [json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[0]) for name in ("on", "off")]
    assert term in ticks[0] and term not in ticks[1]


def test_the_discriminator_judges_the_person_alone(cast):
    config = replace(QUICK, adversarial=True, exposure=False)
    state = training.new_state(config, cast, CPU)
    features, _ = training.load_features(4, 2, 0, "random")
    batch = cast[0].frames.batch(torch.arange(2), training.Augment(), torch.Generator(), torch.Generator())
    outcome = steps.compare(config, state, state.renderer, 0, batch, features)
    true, painted = outcome.judged
    beside = (batch.mask * batch.valid == 0).expand_as(true)
    assert 0.2 < beside.float().mean() < 1 and torch.equal(true[beside], painted[beside])
    assert float((true - painted)[~beside].abs().mean().detach()) > 0.01
    whole = (batch.mask * batch.valid > 0.99).expand_as(true)  # untrained, it paints half of him: half of him is judged
    assert float((true - outcome.truth)[whole].abs().mean().detach()) > 0.01
    # The outline is not its business: no gradient reaches what makes the mask alone.
    last = state.renderer.second.direct.weight
    (gradient,) = torch.autograd.grad(outcome.losses["adversarial"], last)
    assert not gradient[3].any() and gradient[:3].any()


@pytest.mark.parametrize("split", [False, True])
def test_the_discriminator_learns_every_so_many_steps(cast, split):
    config = replace(QUICK, adversarial=True, discriminator_every=3, discriminator_width=4, split=split)
    state = training.new_state(config, cast, CPU)
    features, _ = training.load_features(4, 2, 0, "random")
    changed = []
    for step in range(24):
        before = [parameter.clone() for parameter in state.discriminator.parameters()]
        one, two = (
            cast[0].frames.batch(torch.tensor([i]), training.Augment(), torch.Generator(), torch.Generator())
            for i in range(2)
        )
        training.train_step(config, state, 0, [one, two], features, split and step % 2 == 1, 1.0)
        pairs = zip(before, state.discriminator.parameters(), strict=True)
        changed.append(any(not torch.equal(a, b) for a, b in pairs))
    assert [step for step, has in enumerate(changed) if has] == list(range(0, 24, 6 if split else 3))


def test_the_avatar_says_what_made_it(cast, tmp_path):
    run(replace(QUICK, steps=2), tmp_path, cast)
    settings = json.loads((tmp_path / "avatar.json").read_text())
    assert "SSIM" in settings["features"] or "VGG19" in settings["features"]
    assert settings["steps"] == 2 and settings["train"]["widths"] == QUICK.widths
    assert settings["frames"]["doll"] == {"train": 24, "keyframes": 4}


def test_exposures_follow_the_frames_and_average_to_none(cast, tmp_path):
    state = run(replace(QUICK, steps=20, exposure_lr=0.05), tmp_path, cast)
    gain = state.gain(0, torch.arange(24))
    assert float(gain.log().mean().abs()) < 1e-5
    assert float(gain.std()) > 0.001


def test_rates_are_constant_then_fall_to_zero():
    rates = [decayed(step, 100, 0.5) for step in range(100)]
    assert rates[:51] == [1.0] * 51
    assert rates[75] == pytest.approx(0.5) and 0 < rates[99] <= 0.02


def test_log_lines_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(5)) + '{"step": 5, "lo')
    truncate_log(path, 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2]


def test_an_unknown_precision_is_refused(cast, tmp_path):
    with pytest.raises(UserError, match="precision"):
        run(replace(QUICK, precision="fp8"), tmp_path, cast)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"texture_px": 0}, r"train\.texture_px = 0: must be from 8 to 16384"),
        ({"texture_channels": 2}, "must be at least 3"),
        ({"seed": -1}, "must be at least 0"),
        ({"weight_decay": -1.0}, "must be at least 0"),
        ({"feature_blocks": 6}, "must be from 1 to 5"),
        ({"discriminator_scales": 8}, "must be from 1 to 4"),
        ({"rescale_min": 2.0}, r"must not exceed rescale_max 1\.15"),
        ({"device": "gpu"}, "expected auto, cpu, cuda"),
        ({"widths": "8,zwei"}, "positive whole numbers"),
        (dict.fromkeys(LOSSES, False), "every loss is off"),
    ],
)
def test_settings_that_cannot_be_are_one_line(change, complaint):
    with pytest.raises(UserError, match=complaint) as refused:
        replace(QUICK, **change)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(cast, tmp_path):
    with pytest.raises(UserError, match="finds no GPU here; use auto or cpu"):
        training.train(replace(QUICK, device="cuda"), tmp_path, {})


def test_what_was_never_seen_keeps_the_colours_it_began_with(movie, tmp_path):
    """Next to what is seen it has a trace of a gradient, of which Adam would make whole steps."""
    config = replace(QUICK, split=False, steps=10, exposure=False, grid_noise=0.0)
    seen = actor(movie)
    height = seen.frames.planes.shape[2]
    seen.frames.planes[:, VALID, height // 2 :] = 0  # the picture ends at the hips
    start = training.new_state(config, [seen], CPU).textures[0].texels.detach()
    state = run(config, tmp_path, [seen])
    moved = (state.textures[0].texels.detach() - start).abs().amax(dim=2) > 0
    upper, lower = (texels_of(seen, rows, config.texture_px) for rows in (slice(0, height // 2), slice(-20, None)))
    assert moved[upper & ~lower].float().mean() > 0.5
    assert not moved[lower & ~upper].any()


def texels_of(actor: Actor, rows: slice, texture_px: int) -> torch.Tensor:
    """(T, T) bool: the texels that crops of any scale and shift may read for these rows."""
    frames, found = actor.frames, torch.zeros(texture_px, texture_px, dtype=torch.bool)
    height, width = frames.planes.shape[2:]
    row = torch.div(frames.pixel.long(), width, rounding_mode="floor")
    start, stop, _ = rows.indices(height)
    uv = frames.uv(slice(None))[(row >= start) & (row < stop)]
    column, line = (uv * texture_px).long().clamp(0, texture_px - 1).T
    found[line, column] = True
    return found


def surface(size: int) -> tuple[Shape, np.ndarray, np.ndarray, np.ndarray]:
    """The mean body, and of its texels (T, T) the places at rest (T, T, 3), their regions, and which there are."""
    body = BodyModel.default()
    shape = Shape(body, np.zeros(body.num_shape, np.float32), None)
    rest_m, _ = body.shaped(shape.shape)
    vertex, is_body = nearest_vertices(body, size)
    region = np.zeros(len(rest_m), np.int64)
    region[body.faces] = body.face_region[:, None]
    return shape, spread(body, np.asarray(rest_m), size), np.array(body.region_names)[region[vertex]], is_body


def texels_m2(places: np.ndarray) -> np.ndarray:
    """(T, T) how much of the body a texel covers, by the places of its neighbours."""
    return np.linalg.norm(np.cross(np.gradient(places, axis=0), np.gradient(places, axis=1)), axis=2)


def test_what_was_never_seen_goes_on_from_the_last_that_was():
    """Along the body, not in the atlas, where the neighbour of a hip may be a hand."""
    size = 128
    shape, places, _, is_body = surface(size)
    is_above = is_body & (places[..., 2] > 0.8)  # the knees are below
    colors = np.where(places[..., :1] > 0, np.float32([1, 0, 0]), np.float32([0, 0, 1]))  # red is left, blue is right
    filled, known = continued(colors, is_above.astype(np.float32), shape)
    assert np.array_equal(filled[is_above], colors[is_above]) and known[is_body].all()
    low = is_body & (places[..., 2] < 0.35)
    for side, channel in ((places[..., 0] > 0.05, 0), (places[..., 0] < -0.05, 2)):
        own, other = filled[low & side][:, channel], filled[low & side][:, 2 - channel]
        assert len(own) and (own > 0.75).all() and (own + other > 0.99).all()
    nothing = np.zeros((size, size), np.float32)
    assert not continued(colors, nothing, shape)[1].any()


def test_clothes_that_were_seen_from_the_front_end_behind_where_they_end_in_front():
    size, hem_m, sleeve_m = 128, 0.86, 0.3
    shape, places, region, is_body = surface(size)
    is_bare = (region == "arms") & (np.abs(places[..., 0]) > sleeve_m)
    colors = np.where(places[..., 2:] > hem_m, np.float32([1, 1, 1]), np.float32([0, 0, 1]))
    colors[is_bare], colors[region == "head"], colors[region == "feet"] = (1, 0, 0), (0, 0, 0), (0, 1, 0)
    middle_m = np.where(region == "arms", -0.05, 0.0)  # of the body's depth; arms hang before its middle
    filled, _ = continued(colors, (is_body & (places[..., 1] < middle_m)).astype(np.float32), shape)
    behind = is_body & (places[..., 1] > middle_m + 0.02)
    for where, far_m, most in (
        (np.isin(region, ["torso", "legs"]), np.abs(places[..., 2] - hem_m), 0.018),
        ((region == "arms") & (places[..., 1] > 0), np.abs(np.abs(places[..., 0]) - sleeve_m), 0.055),
        (region == "head", places[..., 2] - 1.5, 0.01),  # collars are no hair
        (region == "feet", 0.1 - places[..., 2], 0.022),
    ):
        chosen = behind & where & (far_m > 0.03)
        assert chosen.sum() > 30
        assert np.abs(filled - colors)[chosen].mean() < most


def test_a_hand_at_the_edge_of_what_was_seen_does_not_colour_the_trousers():
    """Most of what is around the beginning of legs that were never seen decides, not its mean."""
    size = 256
    shape, places, _, is_body = surface(size)
    is_hand = (np.abs(places[..., 0]) < 0.08) & (places[..., 1] < 0) & (places[..., 2] < 0.94)
    colors = np.where(is_hand[..., None], np.float32([1, 0.5, 0.5]), np.float32([-0.8, -0.8, -0.8]))
    seen = is_body & (places[..., 2] > 0.88)
    assert (is_hand & seen).sum() > 30
    filled, _ = continued(colors, seen.astype(np.float32), shape)
    legs = is_body & (places[..., 2] < 0.7)
    assert np.abs(filled[legs] + 0.8).max() < 0.04


def test_the_back_of_a_hand_is_like_its_palm_and_not_like_the_sleeve():
    """Seen as well as all else, but by texels that are smaller on the body."""
    size = 128
    shape, places, region, is_body = surface(size)
    texel_m2 = texels_m2(places)
    is_hand = region == "hands"
    colors = np.where(is_hand[..., None], np.float32([1, 0.5, 0.5]), np.float32([-0.8, -0.8, -0.8]))
    seen = np.where(is_body & (~is_hand | (places[..., 1] < np.median(places[is_hand][:, 1]))), texel_m2, 0)
    unseen = is_body & is_hand & (seen == 0)
    assert np.median(texel_m2[is_hand]) < 0.5 * np.median(texel_m2[is_body]) and unseen.sum() > 50
    filled, _ = continued(colors, seen.astype(np.float32), shape)
    assert np.median(filled[unseen][:, 0]) > 0.95 and (filled[unseen][:, 0] > 0.5).mean() > 0.8


def test_shoes_of_which_only_the_tips_were_seen_do_not_go_on_as_trousers():
    size = 128
    shape, places, region, is_body = surface(size)
    is_foot = region == "feet"
    colors = np.where(is_foot[..., None], np.float32([1, 0, 0]), np.float32([0, 0, 1]))
    seen = np.where(is_body & (~is_foot | (places[..., 1] < -0.12)), texels_m2(places), 0)
    filled, _ = continued(colors, seen.astype(np.float32), shape)
    assert np.abs(filled - colors)[is_body & is_foot & (seen == 0)].mean() < 0.15


def test_rims_that_show_what_was_behind_do_not_go_on():
    size = 128
    shape, places, region, is_body = surface(size)
    before_m = places[..., 1] - np.where(region == "arms", -0.05, 0.0)
    is_rim = is_body & (before_m < 0) & (before_m > -0.02)
    colors = np.where(is_rim[..., None], np.float32([-1, -1, -1]), np.float32([1, 1, 1]))
    seen = np.where(is_body & (before_m < 0), texels_m2(places), 0) * np.where(is_rim, 0.3, 1)
    filled, _ = continued(colors, seen.astype(np.float32), shape)
    assert is_rim.sum() > 500 and filled[is_body & (before_m > 0.01)].mean() > 0.9


def test_what_was_only_glimpsed_is_what_is_around_it_too():
    size = 128
    shape, places, _, is_body = surface(size)
    seen, colors = is_body.astype(np.float32), np.zeros((size, size, 3), np.float32)
    spot = is_body & (np.linalg.norm(places - [0, 0.11, 1.2], axis=2) < 0.06)  # on the back
    colors[spot], seen[spot] = 1, 0.02
    filled, _ = continued(colors, seen, shape)
    assert spot.any() and filled[spot].max() < 0.3 and np.array_equal(filled[is_body & ~spot], colors[is_body & ~spot])
    seen[spot] = 0.5  # half as often as the rest: it was there
    assert np.array_equal(continued(colors, seen, shape)[0][spot], colors[spot])
