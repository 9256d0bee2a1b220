"""Training begins with networks that have painted others, where they are of the same kind."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from miniature import film
from test_train import CPU, QUICK, actor

from capture.errors import UserError
from presets import PRESETS
from rendering.avatar import neural_renderer
from training import pretrained
from training.baselines.dnr import DNR, as_dnr
from training.cast import Actor
from training.close_up import as_close_up, train_avatar
from training.config import HEAD, NONE, PERSON, path_of
from training.dataset import Augment
from training.discriminator import MultiScaleDiscriminator
from training.pretrained import DISCRIMINATOR, RENDERER
from training.step import paint
from training.train import OURS, TrainConfig, fit_cast, is_pretrained, new_state


@pytest.fixture(scope="module")
def cast() -> list[Actor]:
    return [actor(film(30))]


def settings_of(preset: str) -> TrainConfig:
    own = {name.removeprefix("train."): value for name, value in PRESETS[preset].items() if name.startswith("train.")}
    return TrainConfig(**own)


def test_the_default_networks_begin_with_the_shipped_weights(cast: list[Actor]) -> None:
    config = TrainConfig(texture_px=32, precision="fp32")
    state, cold = new_state(config, cast, CPU), new_state(replace(config, pretrained=NONE), cast, CPU)
    shipped = neural_renderer(asdict(config))
    pretrained.begin(path_of(PERSON), shipped, RENDERER)
    for mine, theirs in zip(state.renderer.state_dict().values(), shipped.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    for average, theirs in zip(state.average_renderer.parameters(), shipped.parameters(), strict=True):
        assert torch.equal(average, theirs)
    pairs = zip(state.renderer.parameters(), cold.renderer.parameters(), strict=True)
    assert sum(not torch.equal(a, b) for a, b in pairs) > 10
    for mine, theirs in zip(state.textures.parameters(), cold.textures.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_default_discriminator_has_judged_others_before(cast: list[Actor]) -> None:
    config = TrainConfig(texture_px=32, precision="fp32")
    assert config.adversarial

    def scores(config: TrainConfig) -> list[float]:
        """Of true pictures and of rough ones."""
        judge = new_state(config, cast, CPU).discriminator
        assert judge is not None
        rng = torch.Generator().manual_seed(0)
        batch = cast[0].frames.batch(torch.arange(4), Augment(), rng, rng)
        rough = torch.nn.functional.avg_pool2d(batch.target, 5, stride=1, padding=2, count_include_pad=False)
        with torch.no_grad():
            return [float(sum(score.mean() for score in judge(picture))) for picture in (batch.target, rough)]

    true, rough = scores(config)
    unseen = [
        true - rough for true, rough in (scores(replace(config, pretrained=NONE, seed=seed)) for seed in range(3))
    ]
    assert true - rough > 0.05 > 3 * max(map(abs, unseen))  # a doll in a painted room is nobody that it knows
    shipped = MultiScaleDiscriminator(config.discriminator_width, config.discriminator_scales)
    pretrained.begin(path_of(PERSON), shipped, DISCRIMINATOR)
    begun = new_state(config, cast, CPU).discriminator
    assert begun is not None and new_state(replace(config, adversarial=False), cast, CPU).discriminator is None
    for mine, theirs in zip(begun.parameters(), shipped.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for other in (replace(config, pretrained=NONE), replace(config, discriminator_width=8)):
        fresh = new_state(other, cast, CPU).discriminator
        assert fresh is not None and not torch.equal(next(fresh.parameters())[:8], next(shipped.parameters())[:8])


@pytest.mark.parametrize("preset, begins", [("demo", True), ("cpu", True), ("paper", False), ("gpu", False)])
def test_presets_say_whether_there_are_weights_to_begin_with(preset: str, begins: bool) -> None:
    assert is_pretrained(settings_of(preset), OURS) == begins


def test_another_method_begins_with_noise() -> None:
    assert not is_pretrained(as_dnr(TrainConfig()), DNR)


@pytest.mark.parametrize(
    "config",
    [QUICK, TrainConfig(norm=False), TrainConfig(latent_channels=5), TrainConfig(texture_channels=9)],
    ids=["widths", "norm", "latent", "texture"],
)
def test_another_architecture_begins_with_noise(config: TrainConfig) -> None:
    assert not is_pretrained(config, OURS)


def test_statistics_that_thousands_of_pictures_taught_are_not_learned_anew(cast: list[Actor], tmp_path: Path) -> None:
    config = TrainConfig(texture_px=32, steps=2, precision="fp32", adversarial=False, feature=False)
    begun = fit_cast(config, tmp_path / "begun", cast, CPU)
    shipped = neural_renderer(asdict(config))
    pretrained.begin(path_of(PERSON), shipped, RENDERER)
    buffers = list(zip(begun.renderer.buffers(), shipped.buffers(), strict=True))
    assert buffers and all(torch.equal(mine, theirs) for mine, theirs in buffers)
    assert all(torch.equal(a, b) for a, b in zip(begun.average_renderer.buffers(), shipped.buffers(), strict=True))
    weights = zip(begun.renderer.parameters(), shipped.parameters(), strict=True)
    assert sum(not torch.equal(mine, theirs) for mine, theirs in weights) > 30
    noise = replace(config, pretrained=NONE)
    start, learned = new_state(noise, cast, CPU), fit_cast(noise, tmp_path / "noise", cast, CPU)
    pairs = zip(start.renderer.buffers(), learned.renderer.buffers(), strict=True)
    assert not any(torch.equal(before, after) for before, after in pairs)


def test_noise_in_the_place_of_shipped_weights_is_said(cast: list[Actor], caplog: pytest.LogCaptureFixture) -> None:
    config = TrainConfig(widths="8,16", texture_px=32)
    with caplog.at_level("WARNING"):
        new_state(replace(config, pretrained=NONE), cast, CPU)
        new_state(TrainConfig(texture_px=32), cast, CPU)
        new_state(replace(config, steps=900), cast, CPU)
        assert not caplog.messages
        new_state(config, cast, CPU)
    assert "train.steps=900" in caplog.text


def test_spaces_in_the_widths_make_no_other_network() -> None:
    assert is_pretrained(TrainConfig(widths=TrainConfig.widths.replace(",", ", ")), OURS)


def test_the_weights_of_heads_are_not_for_people(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.pretrained = head"):
        train_avatar(TrainConfig(pretrained=HEAD), tmp_path, {})


def test_heads_begin_with_weights_of_their_own() -> None:
    assert as_close_up(TrainConfig()).pretrained == HEAD
    assert as_close_up(TrainConfig(pretrained=NONE)).pretrained == NONE
    assert is_pretrained(as_close_up(TrainConfig()), OURS)


def test_an_unknown_name_is_one_clear_line() -> None:
    with pytest.raises(UserError, match=r'train\.pretrained "people": expected person or none'):
        TrainConfig(pretrained="people")


def test_what_is_saved_is_begun_with_to_half_precision(tmp_path: Path) -> None:
    made = asdict(replace(TrainConfig(), widths="8,16"))
    renderer, other = neural_renderer(made), neural_renderer(made)
    for buffer in renderer.buffers():
        buffer += 1e5 if buffer.is_floating_point() else 1  # beyond half precision
    path = tmp_path / "weights.safetensors"
    pretrained.save(path, {RENDERER: renderer.state_dict()}, made)
    assert pretrained.fits(path, made, RENDERER) and not pretrained.fits(path, made, DISCRIMINATOR)
    assert not pretrained.fits(path, {**made, "widths": "8,24"}, RENDERER)
    pretrained.begin(path, other, RENDERER)
    for mine, theirs in zip(other.state_dict().values(), renderer.state_dict().values(), strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)
    for mine, theirs in zip(other.buffers(), renderer.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_shipped_networks_paint_somebody_new_better_than_noise(cast: list[Actor]) -> None:
    """Before any training: what they know of edges and cloth is not the performers' own."""
    config = TrainConfig(texture_px=64, precision="fp32", light=False)

    def error(is_begun: bool) -> float:
        state = new_state(replace(config, pretrained=PERSON if is_begun else NONE), cast, CPU)
        rng = torch.Generator().manual_seed(0)
        batch = cast[0].frames.batch(torch.from_numpy(cast[0].train_positions[:2]), Augment(), rng, rng)
        with torch.no_grad():
            painted = paint(state, state.renderer.eval(), 0, batch, exposure=False)
        return float((painted.mask - batch.mask).abs().mean())

    assert error(True) < 0.7 * error(False)
