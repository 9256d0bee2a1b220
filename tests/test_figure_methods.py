"""TNA and vid2vid: as large as the avatar, from the figure alone, by their own rules, held-out pictures unseen."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from miniature import doll
from small_workspace import LOST, NUM_TRAIN, interrupted_after, make_workspace

import pipeline
from capture.matting import Masks
from capture.recording import Recording
from fitting.body.model import BodyModel
from rendering.avatar import Avatar, Parts
from rendering.networks import NeuralRenderer, Surface, num_parameters
from rendering.painter import Painter
from rendering.rasters import Rasters
from rendering.stick_figure import remember
from rendering.widths import parse_widths
from training import train as training
from training.baselines.single import TOLERANCE
from training.baselines.tna import LESSON, Charts, Placed, Placer, as_tna, sampled, tna
from training.baselines.vid2vid import LEAD, Sequential, as_vid2vid, vid2vid, warp
from training.cast import load_cast
from training.dataset import Augment
from training.score import Showing, Subject
from training.train import TrainConfig, fit_cast, train

CPU = torch.device("cpu")
QUICK = TrainConfig(
    widths="12,24", texture_px=64, steps=6, feature=False, log_every=2, device="cpu", checkpoint_every_s=0.0
)


class Method(NamedTuple):
    parts: Callable[[BodyModel], Parts]
    config: Callable[[TrainConfig, BodyModel], TrainConfig]

    def train(self, config: TrainConfig, out_dir: Path, subject_dir: Path) -> Path:
        out_dir.mkdir(exist_ok=True)
        train(self.config(config, doll()), out_dir, {"doll": subject_dir}, self.parts(doll()))
        return out_dir


METHODS = {"tna": Method(tna, as_tna), "vid2vid": Method(vid2vid, as_vid2vid)}


@pytest.fixture(scope="module")
def subject_dir(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("figures"), steps=2)


@pytest.fixture(scope="module", params=METHODS)
def method(request) -> Method:
    return METHODS[request.param]


@pytest.fixture(scope="module")
def trained(method, subject_dir, tmp_path_factory) -> Path:
    return method.train(QUICK, tmp_path_factory.mktemp("trained"), subject_dir)


PRESET_WIDTHS = sorted({TrainConfig().widths, *(p.get("train.widths", "8,16,16") for p in pipeline.PRESETS.values())})


@pytest.mark.parametrize("widths", PRESET_WIDTHS)
def test_as_many_parameters_as_the_avatar(method, widths):
    body = BodyModel.default()
    made = method.config(replace(QUICK, widths=widths), body)
    with torch.device("meta"):
        ours = num_parameters(NeuralRenderer(8, 16, parse_widths(widths)))
        theirs = num_parameters(method.parts(body).renderer(asdict(made)))
    assert abs(theirs - ours) < TOLERANCE * ours and len(parse_widths(made.widths)) == len(parse_widths(widths))


def test_it_learns(method, subject_dir, tmp_path):
    method.train(replace(QUICK, steps=60, log_every=10), tmp_path, subject_dir)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(lines[-1][name] < 0.8 * lines[0][name] for name in ("pixel", "mask"))
    assert ("own" in lines[0]) == (method is METHODS["tna"]) and "own" not in lines[-1]


def test_the_same_seed_the_same_bytes_interrupted_or_not(method, subject_dir, trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training, "progress", interrupted_after(2))
        patch.setattr(training.Saver, "save_if_due", training.Saver.save)
        with pytest.raises(KeyboardInterrupt):
            method.train(QUICK, tmp_path / "again", subject_dir)
    method.train(QUICK, tmp_path / "again", subject_dir)
    method.train(replace(QUICK, seed=1), tmp_path / "other", subject_dir)
    files = ("renderer.safetensors", "textures/doll.safetensors")
    assert all((tmp_path / "again" / name).read_bytes() == (trained / name).read_bytes() for name in files)
    assert (tmp_path / "other" / files[0]).read_bytes() != (trained / files[0]).read_bytes()


def test_saved_and_opened_again_it_paints_the_same(method, subject_dir, tmp_path):
    parts, config = method.parts(doll()), method.config(QUICK, doll())
    with training.reproducible(CPU):
        cast = load_cast({"doll": subject_dir}, CPU, False, num_figures=parts.texture.num_figures)
        state = fit_cast(config, tmp_path, cast, CPU, parts)
    surface = cast[0].frames.batch(torch.tensor([7]), Augment(), torch.Generator(), torch.Generator()).surface
    before = Painter(state.average_renderer, CPU).paint(next(iter(state.average_textures)), surface)
    after = Avatar.load(tmp_path, "cpu", parts).render_raster("doll", surface)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_held_out_pictures_are_never_read(method, subject_dir, trained, tmp_path, monkeypatch):
    asked: list[int] = []
    color, matte = Recording.color, Masks.__getitem__
    monkeypatch.setattr(Recording, "color", lambda self, index: asked.append(index) or color(self, index))
    monkeypatch.setattr(Masks, "__getitem__", lambda self, index: asked.append(index) or matte(self, index))
    method.train(replace(QUICK, steps=1), tmp_path, subject_dir)
    assert set(asked) == set(range(NUM_TRAIN))
    subject, avatar = Subject.load("doll", subject_dir, 160), Avatar.load(trained, "cpu", method.parts(doll()))
    asked.clear()
    show = Showing(avatar, subject)
    crops = [show(position) for position in range(len(subject.heldout))]
    assert not asked and all(np.isfinite(crop.color).all() and np.ptp(crop.alpha) >= 0 for crop in crops)


def test_it_sees_the_figure_and_not_the_raster(method, subject_dir, trained):
    avatar, subject = Avatar.load(trained, "cpu", method.parts(doll())), Subject.load("doll", subject_dir, 160)
    shown = []
    avatar_picture = avatar.render_raster

    def spied(name: str, surface: Surface):
        shown.append(surface)
        return avatar_picture(name, surface)

    object.__setattr__(avatar, "render_raster", spied)
    Showing(avatar, subject)(2)
    (surface,) = shown
    plain = avatar_picture("doll", surface)[0]
    assert torch.equal(plain, avatar_picture("doll", replace(surface, uv=surface.uv * 0, normal=surface.normal * 0))[0])
    moved = replace(surface, figures=surface.figures.roll(6, dims=2))
    assert (plain - avatar_picture("doll", moved)[0]).abs().max() > 1e-3


def test_charts_know_the_part_of_every_covered_pixel(subject_dir):
    charts, rasters = Charts.of(doll()), Rasters.load(subject_dir / "05_rasters")
    raster = rasters[3]
    found = charts.part_of(torch.from_numpy(raster.uv)) + 1
    assert float((found == torch.from_numpy(raster.part.astype(np.int64))).float().mean()) > 0.99
    inside = (torch.from_numpy(raster.uv) - charts.low[found - 1]) / charts.size[found - 1]
    assert inside.min() >= 0 and inside.max() <= 1


def placer_and_surface() -> tuple[Placer, Surface]:
    charts = Charts.of(BodyModel.default())
    torch.manual_seed(0)
    uv = charts.low[[4, 17]] + 0.5 * charts.size[[4, 17]]
    surface = Surface(torch.tensor([3, 20]), uv, torch.zeros(2, 3), (1, 4, 6))
    return Placer(27, charts, (4,), False), surface


def test_the_lesson_is_over_when_it_is_learned_and_after_its_time():
    placer, surface = placer_and_surface()
    part = placer.charts.part_of(surface.uv)
    logits, uv = torch.zeros(24, 20), torch.rand(24, 20, 2)
    places = torch.zeros(1)
    nothing = Placed(places, places, places, logits.view(1, 4, 6, 20), uv.view(1, 4, 6, 20, 2))
    logits = logits.clone()
    logits[surface.pixel, part] = 50.0
    uv = uv.clone()
    uv[surface.pixel, part] = surface.uv
    right = Placed(places, places, places, logits.view(1, 4, 6, 20), uv.view(1, 4, 6, 20, 2))
    early, late = (placer.own_loss(nothing, surface, done) for done in (0.0, LESSON / 2))
    assert early is not None and late is not None and float(early) == pytest.approx(2 * float(late)) and early > 1
    assert float(placer.own_loss(right, surface, 0.0)) == pytest.approx(0, abs=1e-5)  # type: ignore[arg-type]
    assert placer.own_loss(nothing, surface, LESSON) is None


def test_the_picture_is_the_parts_textures_weighed_by_their_shares():
    placer, surface = placer_and_surface()
    surface = replace(surface, figures=torch.randint(0, 255, (1, 1, 4, 6, 27), dtype=torch.uint8))
    texture = tna(BodyModel.default()).texture(torch.rand(32, 32, 3))
    rendering = placer.picture(texture, surface)
    assert isinstance(rendering, Placed)
    figure = surface.figures[:, 0].permute(0, 3, 1, 2) / 255  # type: ignore[index]
    shares = placer.network(figure)[:, :21].softmax(dim=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(rendering.mask[:, 0], 1 - shares[..., 0])
    colors = sampled(texture.texels, rendering.uv)  # (3, 1, 4, 6, 20)
    torch.testing.assert_close(rendering.image * rendering.mask, (colors * shares[..., 1:]).sum(4).transpose(0, 1))
    torch.testing.assert_close(colors[:, 0, 2, 3, 7], texture.sample(rendering.uv[0, 2, 3, 7][None])[0])
    rendering.image.sum().backward()
    assert texture.texels.grad is not None and texture.texels.grad.any()
    assert all(parameter.grad is not None for parameter in placer.parameters())


def test_a_film_goes_on_from_its_own_pictures_and_training_paints_the_same_way():
    """The stretch that training paints at once is what is painted frame by frame."""
    torch.manual_seed(3)
    renderer = Sequential(5, (6, 8), True).eval()
    texture = vid2vid(doll()).texture(torch.zeros(4, 4, 3))
    assert num_parameters(texture) == 0
    figures = torch.randint(0, 255, (1, LEAD + 1, 16, 12, 5), dtype=torch.uint8)
    none = torch.zeros(0, dtype=torch.int64)
    surface = Surface(none, torch.zeros(0, 2), torch.zeros(0, 3), (1, 16, 12), figures=figures)
    at_once = renderer.picture(texture, surface)
    history = torch.zeros(1, 2, 4, 16, 12)
    for last in range(LEAD + 1):
        shown = replace(surface, figures=figures[:, max(0, last - 2) : last + 1], history=history)
        painted = renderer.picture(texture, shown)
        history = remember(history, painted.image, painted.mask)
    torch.testing.assert_close(at_once.image, painted.image)
    alone = renderer.picture(texture, replace(shown, history=torch.zeros(1, 2, 4, 16, 12)))
    assert (alone.image - painted.image).abs().max() > 1e-3
    assert torch.equal(alone.image, alone.rough)  # nothing to warp: all of it is hallucinated
    short = figures.clone()
    short[:, :LEAD] = 0  # no frames before: begins with nothing
    first = renderer.picture(texture, replace(surface, figures=short))
    begun = replace(surface, figures=figures[:, -1:], history=torch.zeros(1, 2, 4, 16, 12))
    torch.testing.assert_close(first.image, renderer.picture(texture, begun).image)


def test_both_branches_learn_after_a_first_picture():
    torch.manual_seed(3)
    renderer = Sequential(5, (6, 8), True)
    figures = torch.randint(0, 255, (1, 2, 16, 12, 5), dtype=torch.uint8)
    none = torch.zeros(0, dtype=torch.int64)
    surface = Surface(none, torch.zeros(0, 2), torch.zeros(0, 3), (1, 16, 12), figures=figures)
    rendering = renderer.picture(vid2vid(doll()).texture(torch.zeros(4, 4, 3)), surface)
    (rendering.image.square().sum() + rendering.rough.square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in renderer.parameters())
    assert all(branch.up[0][0].weight.grad.any() for branch in (renderer.image, renderer.motion))


def test_a_warped_picture_is_shifted_by_the_flow():
    image = torch.rand(1, 3, 6, 8)
    flow_px = torch.zeros(1, 2, 6, 8)
    torch.testing.assert_close(warp(image, flow_px), image)
    flow_px[:, 0], flow_px[:, 1] = 2.0, -1.0
    torch.testing.assert_close(warp(image, flow_px)[..., 1:, :-2], image[..., :-1, 2:])


def test_held_out_frames_are_one_film_that_begins_anew_where_a_frame_is_lost(subject_dir, tmp_path):
    method = METHODS["vid2vid"]
    avatar = Avatar.load(method.train(QUICK, tmp_path, subject_dir), "cpu", vid2vid(doll()))
    subject = Subject.load("doll", subject_dir, 160)
    assert subject.heldout.tolist() == [18, 19, 21, 22, 23] and LOST == 20
    show = Showing(avatar, subject)
    film = [show(position).color for position in range(5)]
    fresh = [Showing(avatar, subject)(position).color for position in range(5)]
    same = [np.array_equal(one, other) for one, other in zip(film, fresh, strict=True)]
    assert same == [True, False, True, False, False]
    assert np.array_equal(show(1).color, fresh[1])  # asked for another than the next


@pytest.mark.parametrize("parts", [tna(BodyModel.default()), vid2vid(doll())], ids=["tna", "vid2vid"])
def test_ranks_can_tell_one_another_what_to_train(parts):
    again = pickle.loads(pickle.dumps(parts))
    made = {"widths": "8,16", "norm": True}
    shapes = [{name: value.shape for name, value in p.renderer(made).state_dict().items()} for p in (parts, again)]
    assert shapes[0] == shapes[1] and again.texture is parts.texture
