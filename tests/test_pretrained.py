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
from training.close_up import as_close_up
from training.dataset import Augment
from training.pretrained import HEAD, NONE, PERSON
from training.step import paint
from training.train import OURS, TrainConfig, is_pretrained, new_state


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
    pretrained.begin(pretrained.path_of(PERSON), shipped)
    for mine, theirs in zip(state.renderer.state_dict().values(), shipped.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    for average, theirs in zip(state.average_renderer.parameters(), shipped.parameters(), strict=True):
        assert torch.equal(average, theirs)
    pairs = zip(state.renderer.parameters(), cold.renderer.parameters(), strict=True)
    assert sum(not torch.equal(a, b) for a, b in pairs) > 10
    for mine, theirs in zip(state.textures.parameters(), cold.textures.parameters(), strict=True):
        assert torch.equal(mine, theirs)


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


def test_heads_begin_with_weights_of_their_own() -> None:
    assert as_close_up(TrainConfig()).pretrained == HEAD
    assert as_close_up(TrainConfig(pretrained=NONE)).pretrained == NONE
    assert is_pretrained(as_close_up(TrainConfig()), OURS)


def test_an_unknown_name_is_one_clear_line() -> None:
    with pytest.raises(UserError, match=r'train\.pretrained "people": expected person, head or none'):
        TrainConfig(pretrained="people")


def test_what_is_saved_is_begun_with_to_half_precision(tmp_path: Path) -> None:
    made = asdict(replace(TrainConfig(), widths="8,16"))
    renderer, other = neural_renderer(made), neural_renderer(made)
    path = tmp_path / "weights.safetensors"
    pretrained.save(path, renderer, made)
    assert pretrained.fits(path, made)
    assert not pretrained.fits(path, {**made, "widths": "8,24"})
    pretrained.begin(path, other)
    for mine, theirs in zip(other.state_dict().values(), renderer.state_dict().values(), strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


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
