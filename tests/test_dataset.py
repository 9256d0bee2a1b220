"""Training data: crops agree with their cameras, augmentation keeps picture and raster together."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from miniature import CAMERA, Film, film

from capture.camera import project
from capture.errors import UserError
from rendering.rasters import CompactRaster
from training.dataset import (
    ALPHA,
    VALID,
    Augment,
    SubjectFrames,
    crop_image,
    crop_planes,
    fill_background,
    in_doubt,
)
from training.warmstart import back_projected


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


def test_a_picture_of_the_empty_room_is_what_the_person_hides():
    """Behind him is what was there, at this frame's exposure; a picture from elsewhere changes nothing."""
    rng = np.random.default_rng(0)
    room = cv2.resize(rng.integers(40, 200, (16, 12, 3), dtype=np.uint8), (96, 128), interpolation=cv2.INTER_NEAREST)
    truth = np.clip(room * 1.1 + 4, 0, 255).astype(np.uint8)
    alpha = np.zeros((128, 96), np.float32)
    alpha[30:110, 30:66] = 1.0
    picture = np.where(alpha[..., None] > 0, np.uint8(250), truth)
    apart = [np.abs(fill_background(picture, alpha, r).astype(int) - truth)[alpha > 0].mean() for r in (None, room)]
    assert apart[1] < 5 < 20 < apart[0]
    elsewhere = np.ascontiguousarray(room[:, ::-1])
    assert np.array_equal(fill_background(picture, alpha, elsewhere), fill_background(picture, alpha))


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
        boxes_px, image_wh, part_doubted = movie.boxes_px, movie.image_wh, movie.part_doubted

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


def test_a_part_in_doubt_and_what_nothing_else_explains_do_not_teach(movie):
    raster = movie[0]
    part, width = int(raster.part[len(raster.part) // 2]), movie.image_wh[0]
    is_person = crop_planes(movie.color(0), movie.alphas[0], movie.boxes_px[0], movie.image_wh)[ALPHA][0] > 0
    assert not in_doubt(raster, np.array([], int), is_person).any()
    doubted = in_doubt(raster, np.array([part]), is_person)
    flat = doubted.ravel()
    assert flat[raster.pixel[raster.part == part]].all()
    rows, columns = np.divmod(raster.pixel[raster.part == part].astype(int), width)
    others = np.stack(np.divmod(raster.pixel[raster.part != part].astype(int), width), 1)
    away = np.hypot(*(others[:, None] - np.stack([rows, columns], 1)).transpose(2, 0, 1)).min(1)
    assert not flat[raster.pixel[raster.part != part][away > 5]].any() and (away > 5).any()
    # An arm that is filmed where the body has none: somewhere far from everything that is drawn.
    lonely = is_person.copy()
    lonely[:3, :3] = True
    assert in_doubt(raster, np.array([part]), lonely)[:3, :3].all() and not doubted[:3, :3].any()


def test_frames_with_a_limb_in_doubt_teach_with_the_rest(movie, frames):
    part = int(movie[1].part[len(movie[1].part) // 2])
    doubted = movie.part_doubted.copy()
    doubted[1, part] = True
    loaded = SubjectFrames.load("doll", np.arange(4), movie, movie.alphas, WithDoubt(movie, doubted))
    before, after = (f.planes[:, VALID].flatten(1) > 0 for f in (frames, loaded))
    assert (before[[0, 2, 3]] == after[[0, 2, 3]]).all()
    own = torch.from_numpy(movie[1].pixel.astype(np.int64))
    is_part = torch.from_numpy(movie[1].part == part)
    assert not after[1][own[is_part]].any() and after[1].sum() > 0.5 * before[1].sum()
    # What is not taught is not painted into the texture either.
    texture, without = (back_projected(f, np.array([1]), 64) for f in (frames, loaded))
    assert (texture != without).any()


@dataclass(frozen=True)
class WithDoubt:
    """The rasters of a film, parts of it in doubt."""

    film: Film
    part_doubted: np.ndarray

    def __getattr__(self, name: str) -> object:
        return getattr(self.film, name)

    def __getitem__(self, index: int) -> CompactRaster:
        return self.film[index]
