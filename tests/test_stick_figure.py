"""Stick figures: drawn where the pose is, told apart by limb, and moved by the augmentation as the raster is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from miniature import CAMERA, Film, doll, film
from small_workspace import fit_of

from fitting.body.model import BodyModel
from rendering.stick_figure import StickFigure, as_planes, remember
from training.dataset import Augment, SubjectFrames
from training.figures import Figures

IMAGE_WH = (80, 128)


class Cameras:
    """What ``Figures`` asks of the rasters."""

    def __init__(self, movie: Film) -> None:
        self.cameras = [CAMERA.crop(tuple(box), movie.image_wh) for box in movie.boxes_px]


@pytest.fixture(scope="module")
def movie() -> Film:
    return film(6, image_wh=IMAGE_WH)


def figures_of(movie: Film, frame_indices: list[int], length: int) -> Figures:
    return Figures.of(fit_of(movie), Cameras(movie), np.array(frame_indices), length)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def frames(movie) -> SubjectFrames:
    plain = SubjectFrames.load("doll", np.arange(4), movie, movie.alphas, movie)
    return replace(plain, figures=figures_of(movie, [0, 1, 2, 3], 3))


def generators(seed: int = 0) -> tuple[torch.Generator, torch.Generator]:
    return torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)


def test_the_shipped_body_has_the_published_number_of_channels():
    body = BodyModel.default()
    figure = StickFigure.of(body)
    assert len(figure.names) == 27 and {"upperarm.L", "upperarm.R", "lowerleg.L", "foot.R", "nose"} <= set(figure.names)
    drawn = {tuple(bone) for bone in figure.bones.tolist()}
    assert {(int(p), j) for j, p in enumerate(body.parents) if p >= 0} <= drawn  # every bone, and more
    weights = np.concatenate([figure.tip_weights, figure.face_weights])
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    sides = {figure.names[c][-1] for c, bone in zip(figure.channels, figure.bones, strict=True) if 6 in bone}
    assert body.joint_names[6] == "foot.L" and sides == {"L"}


def test_a_line_is_where_its_points_are():
    figure = replace(StickFigure.of(doll()), bones=np.array([[0, 1]]), channels=np.array([2]))
    planes = figure.draw(np.array([[[10.0, 20.0], [30.0, 20.0]]]), (64, 48))
    assert planes.shape == (1, 48, 64, len(figure.names)) and not np.delete(planes, 2, axis=3).any()
    rows, columns = np.nonzero(planes[0, :, :, 2])
    assert (columns.min(), columns.max()) == (9, 30) and set(rows) == {19, 20}  # pixel centres lie at halves
    assert (planes[0, :, :, 2][19] == planes[0, :, :, 2][20]).all() and planes[0, 19, 20, 2] > 150


def test_what_is_lost_or_beyond_the_picture_is_not_drawn():
    figure = StickFigure.of(doll())
    points_px = np.full((2, figure.bones.max() + 1, 2), np.nan)
    points_px[1] = (-500.0, 4000.0)
    assert not figure.draw(points_px, (40, 64)).any()


def test_the_figure_lies_in_the_body(movie, frames):
    """Without the tips, which may stand out of a rounded end."""
    figure = StickFigure.of(doll())
    assert figure.names == ("torso", "head", "arm.L", "arm.R", "leg.L", "leg.R")
    batch = frames.batch(torch.arange(4), Augment(0.85, 1.15, 0.05), *generators(2))
    covered = batch.surface.plane(torch.ones(len(batch.surface.pixel), 1))[:, 0] > 0
    lines = batch.surface.figures[:, -1].amax(dim=3) > 200
    assert lines.flatten(1).sum(dim=1).min() > 100
    assert float((lines & covered).sum() / lines.sum()) > 0.93
    assert float((lines.flip(2) & covered).sum() / lines.sum()) < 0.8  # a mirrored one would not


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.15, 0.03), (0.8, 0.1), (1.3, 0.0)])
def test_the_figure_moves_with_the_augmentation_exactly_as_the_raster_does(frames, scale, shift):
    """A dot on a covered pixel stays on the pixels that show this pixel's uv."""
    assert frames.figures is not None
    own = frames.covered(1)
    chosen = own.start + (own.stop - own.start) // 3
    pixel = int(frames.pixel[chosen])
    dot_px = np.array([pixel % 80 + 0.5, pixel // 80 + 0.5], np.float32)
    dot = replace(frames.figures.figure, bones=np.array([[0, 0]]), channels=np.array([0]))
    dotted = replace(frames, figures=Figures(dot, np.full((4, 1, 1, 2), dot_px, np.float32)))
    for seed in range(4):
        batch = dotted.batch(torch.tensor([1]), Augment(scale, scale, shift), *generators(seed))
        same = (batch.surface.uv == frames.uv(slice(chosen, chosen + 1))).all(dim=1)
        where = batch.surface.pixel[same]
        plane = batch.surface.figures[0, 0, :, :, 0].float()
        y, x = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(80) + 0.5, indexing="ij")
        seen = torch.stack([(plane * x).sum(), (plane * y).sum()]) / plane.sum()
        if len(where) == 0:  # shrunk away
            assert scale < 1
            continue
        expected = torch.stack([where % 80 + 0.5, where // 80 + 0.5], dim=1).float().mean(dim=0)
        assert (seen - expected).abs().max() < 0.55 * scale


def test_rows_are_consecutive_frames_and_end_where_one_is_lost(movie):
    fit = fit_of(movie)
    fit = replace(fit, status=("tracked",) * 3 + ("lost",) + ("tracked",) * 2)
    figures = Figures.of(fit, Cameras(movie), np.array([0, 1, 2, 4, 5]), 3)  # type: ignore[arg-type]
    there = np.isfinite(figures.points_px).all(axis=(2, 3))
    assert there.tolist() == [
        [False, False, True],
        [False, True, True],
        [True] * 3,
        [False, False, True],
        [False, True, True],
    ]
    np.testing.assert_array_equal(figures.points_px[2, 0], figures.points_px[0, 2])  # the oldest first
    camera = Cameras(movie).cameras[4]
    np.testing.assert_allclose(figures.points_px[4, 1], figures.figure.points_px(fit, 4, camera))


def test_of_a_long_film_the_frames_between_those_that_train_are_in_the_rows(movie):
    few, whole = figures_of(movie, [1, 5], 3), figures_of(movie, list(range(6)), 3)
    np.testing.assert_array_equal(few.points_px, whole.points_px[[1, 5]])
    assert np.isfinite(few.points_px[1]).all()


def test_beginnings_of_films_are_shown_too_and_by_the_seed(frames):
    lengths, again = (
        [int(frames.batch(torch.tensor([3]), Augment(), *generators(s)).surface.figures.flatten(2).any(dim=2).sum())
         for s in range(20)]
        for _ in range(2)
    )  # fmt: skip
    assert set(lengths) == {1, 2, 3} and lengths == again


def test_without_figures_a_batch_takes_the_random_numbers_that_it_took(frames):
    plain = replace(frames, figures=None)
    rngs = [generators(7), generators(7)]
    batches = [
        f.batch(torch.tensor([1, 3]), Augment(0.8, 1.2, 0.05), *r) for f, r in zip((plain, frames), rngs, strict=True)
    ]
    assert torch.equal(batches[0].target, batches[1].target) and batches[0].surface.figures is None


def test_planes_keep_frame_and_channel_apart():
    figures = torch.zeros(2, 3, 4, 5, 6, dtype=torch.uint8)
    figures[1, 2, 3, 4, 5] = 255
    planes = as_planes(figures)
    assert planes.shape == (2, 18, 4, 5) and planes[1, 2 * 6 + 5, 3, 4] == 1 and planes.sum() == 1


def test_the_last_pictures_are_remembered_the_newest_last():
    history = torch.zeros(1, 2, 4, 2, 2)
    for value in (0.1, 0.2, 0.3):
        history = remember(history, torch.full((1, 3, 2, 2), value), torch.full((1, 1, 2, 2), 0.5))
    torch.testing.assert_close(history[0, :, 0, 0, 0], torch.tensor([0.1, 0.15]))  # colours times the mask
    assert (history[:, :, 3] == 0.5).all()
