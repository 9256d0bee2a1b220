"""Surfaces in depth: whose is what, and how far the person is from frame to frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from capture.matte_job import leave, missing, raw_path
from capture.parting import ARM_SHARE, Whereabouts, somebody_else, steady_distances, surfaces

ALONE = Whereabouts(2.5, is_alone=True)


def test_surfaces_end_at_steps_in_depth_and_have_the_median_of_their_pixels() -> None:
    rng = np.random.default_rng(0)
    probability, depth_m = np.zeros((40, 60), np.float32), np.full((40, 60), np.nan, np.float32)
    probability[:, :50] = 1
    depth_m[:, :30], depth_m[:, 30:] = 2.0, 3.0
    depth_m += rng.normal(0, 0.004, depth_m.shape).astype(np.float32)
    depth_m[5, 5] = np.nan
    found = surfaces(probability, depth_m)
    assert len(found.median_m) == len(found.share) == found.labels.max() == 2
    assert not found.labels[:, 29:31].any() and not found.labels[:, 50:].any() and found.labels[5, 5] == 0
    for label, (median_m, share) in enumerate(zip(found.median_m, found.share, strict=True), start=1):
        inside = found.labels == label
        assert median_m == np.median(depth_m[inside]) and share == pytest.approx(inside.sum() / (2000 - 1))


def test_the_wall_beside_an_arm_is_nobody() -> None:
    probability, depth_m = np.ones((40, 60), np.float32), np.full((40, 60), 2.5, np.float32)
    room_m = np.full((40, 60), 4.3, np.float32)
    wall, passer, unknown = np.s_[5:20, 10:20], np.s_[5:35, 35:40], np.s_[25:35, 10:20]
    depth_m[wall], depth_m[passer], depth_m[unknown] = 4.26, 3.4, 4.26
    room_m[unknown] = np.nan
    assert sorted(surfaces(probability, depth_m).median_m.round(2)) == [2.5, 3.4, 4.26, 4.26]
    found = surfaces(probability, depth_m, room_m)
    assert sorted(found.median_m.round(2)) == [2.5, 3.4, 4.26]
    assert not found.labels[wall].any() and found.labels[unknown].any()


def test_what_stands_behind_the_room_is_seen_and_the_rooms_own_noise_is_not() -> None:
    probability, depth_m = np.ones((40, 60), np.float32), np.full((40, 60), 2.5, np.float32)
    room_m = np.full((40, 60), 4.3, np.float32)
    wall, doorway = np.s_[5:20, 10:20], np.s_[5:35, 35:45]
    depth_m[wall] = np.random.default_rng(0).uniform(4.15, 4.45, (15, 10))
    depth_m[doorway] = 5.5
    found = surfaces(probability, depth_m, room_m)
    assert sorted(found.median_m.round(2)) == [2.5, 5.5]
    assert found.labels[20, 40] and not found.labels[wall].any()
    assert found.is_elsewhere(2.5, 0.6).any()


def test_nobody_is_found_where_depth_says_nothing() -> None:
    probability, depth_m = np.ones((20, 20), np.float32), np.full((20, 20), np.nan, np.float32)
    assert len(surfaces(probability, depth_m).median_m) == 0
    assert not somebody_else(probability, depth_m, ALONE, 0.6).any()
    assert not somebody_else(probability, np.full_like(depth_m, 9.0), Whereabouts(float("nan"), True), 0.6).any()


def test_a_small_surface_may_be_as_far_as_an_arm_reaches() -> None:
    found = surfaces(np.ones((50, 50), np.float32), np.full((50, 50), 2.7, np.float32))
    assert found.share[0] > ARM_SHARE and found.is_elsewhere(2.0, 0.6).tolist() == [True]
    depth_m = np.full((50, 50), 2.0, np.float32)
    depth_m[:10, :10] = 2.7
    arm = surfaces(np.ones((50, 50), np.float32), depth_m)
    assert arm.share.min() < ARM_SHARE and not arm.is_elsewhere(2.0, 0.6).any() and arm.is_elsewhere(1.8, 0.6).any()


def test_who_passes_by_does_not_change_the_distance() -> None:
    alone_m = np.concatenate([np.linspace(2, 3, 40), np.full(5, 1.2), np.linspace(3, 3.2, 20)])
    steady_m = steady_distances(alone_m, 10)
    assert np.abs(np.diff(steady_m)).max() < 0.2 and steady_m[40:45].min() > 2.8
    assert np.isnan(steady_distances(np.full(5, np.nan), 2)).all()


def test_a_file_without_content_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    leave(raw_path(tmp_path, 0), b"there")
    raw_path(tmp_path, 1).touch()
    assert missing(tmp_path, 3, raw_path) == [1, 2]


def test_flying_pixels_do_not_overrule_what_is_sure():
    probability, depth_m = np.zeros((60, 100), np.float32), np.full((60, 100), 5.0, np.float32)
    body, spray, passer = np.s_[10:55, 20:35], np.s_[12:15, 30:35], np.s_[15:50, 60:72]
    probability[body], depth_m[body] = 0.95, 2.5
    depth_m[spray] = 3.6
    is_sure = probability > 0.9
    assert somebody_else(probability, depth_m, ALONE, 0.6)[spray].any()
    assert not somebody_else(probability, depth_m, ALONE, 0.6, is_sure).any()
    probability[passer], depth_m[passer] = 0.95, 3.6
    is_else = somebody_else(probability, depth_m, ALONE, 0.6, probability > 0.9)
    assert is_else[passer].all() and not is_else[spray].any()
    crowd = Whereabouts(2.5, is_alone=False)
    assert somebody_else(probability, depth_m, crowd, 0.6, is_sure)[spray].any()
    depth_m[spray] = 3.2  # as far as an arm reaches: whose arm?
    assert not somebody_else(probability, depth_m, ALONE, 0.6)[spray].any()
    assert somebody_else(probability, depth_m, crowd, 0.6)[spray].any()
