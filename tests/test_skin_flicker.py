"""Flicker: a restless avatar scores worse than the video, a still one better, and neither by accident."""

from __future__ import annotations

import numpy as np
import pytest
from miniature import TUBES, Film, film, paint_doll

from rendering.rasters import CompactRaster
from training.flicker import LIMIT, Flicker
from training.sanity import true_crop

NUM_FRAMES = 10


@pytest.fixture(scope="module")
def movie() -> Film:
    return film(NUM_FRAMES)


def measured(movie: Film, paint, skip: tuple[int, ...] = ()):
    """The flicker of ``paint(index, raster, truth)`` (H, W, 3) over the doll's film."""
    rasters = [movie[index] for index in range(len(movie))]
    side = round(float(np.sqrt(np.mean([len(raster.pixel) for raster in rasters]))))
    flicker = Flicker(side, len(TUBES))
    for index, raster in enumerate(rasters):
        if index in skip:
            continue
        crop, _ = true_crop(movie.color(index), movie.alphas[index], movie.boxes_px[index], movie.image_wh)
        flicker.add(index, raster, paint(index, raster, crop.color), crop.color, crop.alpha > 0.5)
    return flicker.figures()


def still(index: int, raster: CompactRaster, truth: np.ndarray) -> np.ndarray:
    """The doll with one colour per part, however it moves."""
    picture = np.zeros_like(truth).reshape(-1, 3)
    picture[raster.pixel] = paint_doll(np.zeros((len(raster.part), 2)), raster.part)
    return picture.reshape(truth.shape)


def test_the_video_itself_flickers_like_the_video(movie):
    figures = measured(movie, lambda index, raster, truth: truth)
    assert figures["ratio"] == 1 and figures["video_rms"] > 0.01
    assert figures["pairs"] == NUM_FRAMES - 1


def test_a_still_avatar_flickers_less_and_a_flickering_one_more(movie):
    calm = measured(movie, still)
    assert calm["ratio"] < 0.5

    def blinking(index, raster, truth):
        return (truth + 0.15 * (-1) ** index).clip(0, 1)

    def boiling(index, raster, truth):
        return (truth + np.random.default_rng(index).normal(0, 0.25, truth.shape)).clip(0, 1)

    for restless in (blinking, boiling):
        assert measured(movie, restless)["ratio"] > LIMIT


def test_light_that_grows_steadily_is_no_flicker(movie):
    brighter = measured(movie, lambda index, raster, truth: still(index, raster, truth) * 0.5 + 0.02 * index)
    half = measured(movie, lambda index, raster, truth: still(index, raster, truth) * 0.5)
    assert brighter["ratio"] == pytest.approx(half["ratio"], rel=0.02)


def test_frames_that_are_no_neighbours_are_not_compared(movie):
    assert measured(movie, still, skip=(4,))["pairs"] == NUM_FRAMES - 3
    assert measured(movie, still, skip=tuple(range(1, NUM_FRAMES, 2))) is None


def test_what_the_video_does_not_show_does_not_count(movie):
    """A change beyond the matte is nothing that the video could be compared with."""

    def beside(index, raster, truth):
        crop, _ = true_crop(movie.color(index), movie.alphas[index], movie.boxes_px[index], movie.image_wh)
        return np.where(crop.alpha[..., None] > 0.5, truth, index % 2)

    assert measured(movie, beside)["ratio"] == 1
