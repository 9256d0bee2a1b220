"""Training data: crops agree with their cameras, augmentation keeps picture and raster together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from miniature import CAMERA, Film, film

from capture.camera import project
from capture.errors import UserError
from training.dataset import Augment, SubjectFrames, crop_image, crop_planes, fill_background


@pytest.fixture(scope="module")
def movie() -> Film:
    return film(6, image_wh=(80, 128))


@pytest.fixture(scope="module")
def frames(movie) -> SubjectFrames:
    return SubjectFrames.load("doll", np.arange(4), movie, movie.alphas, movie)


def generators(seed: int = 0) -> tuple[torch.Generator, torch.Generator]:
    return torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)


def dense(batch) -> torch.Tensor:
    return batch.surface.plane(torch.ones(len(batch.surface.pixel), 1))


@pytest.mark.parametrize(
    "box", [(20.0, 30.0, 200.0, 318.0), (-30.5, 10.25, 149.5, 298.25), (100.0, 100.0, 150.0, 180.0)]
)
def test_a_crop_shows_a_point_where_its_camera_projects_it(box):
    crop_camera = CAMERA.crop(box, (80, 128))
    point_m = np.array([0.05, -0.02, 2.0])
    x, y = project(CAMERA, point_m)
    columns, rows = np.meshgrid(np.arange(240) + 0.5, np.arange(320) + 0.5)
    blob = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2)).astype(np.float32)
    crop = crop_image(blob, box, (80, 128), cv2.BORDER_CONSTANT)
    columns, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(128) + 0.5)
    centre = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum()
    np.testing.assert_allclose(centre, project(crop_camera, point_m), atol=0.1)


def test_shrinking_averages_instead_of_aliasing():
    stripes = np.zeros((320, 240), np.uint8)
    stripes[::2] = 255
    crop = crop_image(stripes, (0, 0, 240, 320), (30, 40), cv2.BORDER_REPLICATE)
    assert np.abs(crop[2:-2].astype(int) - 127).max() <= 4


def test_background_is_the_true_picture_outside_the_person_and_hides_him_inside(movie):
    picture, alpha = movie.color(0), movie.alphas[0]
    marked = np.where(alpha[..., None] > 0.02, np.array([255, 0, 255], np.uint8), picture)
    filled = fill_background(marked, alpha)
    far = cv2.dilate(alpha, np.ones((25, 25))) == 0
    assert np.array_equal(filled[far], picture[far])
    inside = filled[alpha > 0.5].astype(int)
    assert not ((inside[:, 0] > 240) & (inside[:, 1] < 15)).any()


def test_a_frame_that_is_all_person_has_a_grey_background():
    filled = fill_background(np.full((16, 12, 3), 9, np.uint8), np.ones((16, 12), np.float32))
    assert (filled == 128).all()


def test_beyond_the_picture_nothing_is_valid(movie):
    planes = crop_planes(movie.color(0), movie.alphas[0], (-60.0, 0.0, 180.0, 384.0), (40, 64))
    valid = planes[7] == 255
    assert not valid[:, :9].any() and valid[:50, 11:].all() and not valid[55:].any()
    assert (planes[6][~valid] == 0).all()


def test_without_augmentation_a_batch_is_what_was_stored(frames):
    batch = frames.batch(torch.tensor([2, 0]), Augment(), *generators())
    expected = frames.planes[[2, 0]].float() / 255
    torch.testing.assert_close(batch.target, expected[:, 0:3] * 2 - 1, atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.mask, expected[:, 6:7], atol=1e-5, rtol=0)
    own = frames.covered(2)
    first = batch.surface.pixel < 80 * 128
    assert torch.equal(batch.surface.pixel[first], frames.pixel[own].long())
    torch.testing.assert_close(batch.surface.uv[first], frames.uv(own))


def test_stored_rasters_keep_uv_and_normals(movie, frames):
    raster = movie[1]
    own = frames.covered(1)
    np.testing.assert_allclose(frames.uv(own).numpy(), raster.uv, atol=1e-4)
    np.testing.assert_allclose(frames.normal(own).numpy(), raster.normal, atol=1 / 127)


@pytest.mark.parametrize(("scale", "shift"), [(0.5, 0.0), (1.25, 0.0), (1.0, 0.1), (0.8, 0.2)])
def test_rescaled_and_shifted_pictures_stay_on_their_rasters(frames, scale, shift):
    batch = frames.batch(torch.arange(4), Augment(scale, scale, shift), *generators(3))
    covered, person = dense(batch) > 0, batch.mask > 0.5
    overlap = float((covered & person).sum() / (covered | person).sum())
    plain = frames.batch(torch.arange(4), Augment(), *generators())
    expected = float(((dense(plain) > 0) & (plain.mask > 0.5)).sum() / ((dense(plain) > 0) | (plain.mask > 0.5)).sum())
    assert overlap > expected - 0.04
    assert torch.equal(batch.target[batch.mask.expand_as(batch.target) == 0].isfinite().all(), torch.tensor(True))
    if shift == 0:
        area = float(person.sum() / (plain.mask > 0.5).sum())
        assert area == pytest.approx(scale**2, rel=0.15) or scale > 1


def test_grid_noise_stays_within_its_bound_and_is_used(frames):
    plain = frames.batch(torch.arange(4), Augment(), *generators())
    noisy = frames.batch(torch.arange(4), Augment(grid_noise=0.02), *generators())
    moved = (noisy.surface.uv - plain.surface.uv).abs()
    assert 0.009 < float(moved.max()) <= 0.01 + 1e-6  # 0.02 on [-1, 1] is 0.01 on [0, 1]
    assert noisy.surface.uv.min() >= 0 and noisy.surface.uv.max() <= 1


def test_equal_generators_give_equal_batches(frames):
    augment = Augment(0.8, 1.2, 0.05, 0.02)
    first, second = (frames.batch(torch.tensor([1, 3]), augment, *generators(5)) for _ in range(2))
    assert torch.equal(first.target, second.target) and torch.equal(first.surface.uv, second.surface.uv)


def lost(movie: Film, lost_indices: set[int]) -> Any:
    empty = SimpleNamespace(pixel=np.zeros(0, np.uint32))

    class Rasters:
        boxes_px, image_wh = movie.boxes_px, movie.image_wh

        def __getitem__(self, index: int):
            return empty if index in lost_indices else movie[index]

    return Rasters()


def test_lost_frames_are_left_out_and_indices_never_renumbered(movie):
    kept = SubjectFrames.load("doll", np.arange(4), movie, movie.alphas, lost(movie, {1}))
    assert kept.frame_indices.tolist() == [0, 2, 3]
    assert kept.positions_of(np.array([1, 2, 3, 5])).tolist() == [1, 2]


def test_a_subject_that_is_always_lost_is_refused(movie):
    with pytest.raises(UserError, match="none of 4 frames"):
        SubjectFrames.load("doll", np.arange(4), movie, movie.alphas, lost(movie, {0, 1, 2, 3}))
