"""Left and right stay left and right over a clip."""

from pathlib import Path

import numpy as np
import pytest

from fitting.keypoints import LANDMARK_NAMES, MIRROR, Keypoints, detect, resolve_sides


def turning_skeleton(count: int) -> Keypoints:
    """A rigid 33-point figure that turns once about its vertical axis while an arm waves."""
    rng = np.random.default_rng(0)
    figure = rng.normal(0, 0.05, (33, 3))
    for i, name in enumerate(LANDMARK_NAMES):
        side = 1 if "left" in name else -1 if "right" in name else 0
        figure[i] += (0.2 * side, 0.04 * i - 0.5, 0.0)
    world = np.empty((count, 33, 3))
    for t in range(count):
        angle = 2 * np.pi * t / count
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        moved = figure.copy()
        moved[LANDMARK_NAMES.index("left_wrist"), 1] += 0.1 * np.sin(angle * 3)
        world[t] = moved @ turn.T
    return Keypoints(world[..., :2] * 300 + 500, np.ones((count, 33)), world, np.zeros(count, bool))


def swap(keypoints: Keypoints, frames: slice) -> Keypoints:
    points, world = keypoints.points_px.copy(), keypoints.world_m.copy()
    points[frames], world[frames] = points[frames][:, MIRROR], world[frames][:, MIRROR]
    return Keypoints(points, keypoints.visibility, world, keypoints.swapped)


@pytest.mark.parametrize("frames", [slice(20, 24), slice(30, 45), slice(57, 60)])
def test_swapped_stretch_is_set_right(frames: slice) -> None:
    truth = turning_skeleton(60)
    resolved = resolve_sides(swap(truth, frames))
    np.testing.assert_array_equal(resolved.points_px, truth.points_px)
    assert resolved.swapped.sum() == len(range(*frames.indices(60)))


def test_consistent_clip_is_left_alone() -> None:
    truth = turning_skeleton(60)
    resolved = resolve_sides(truth)
    np.testing.assert_array_equal(resolved.points_px, truth.points_px)
    assert not resolved.swapped.any()


def test_frames_without_anybody_stay_missing() -> None:
    truth = turning_skeleton(30)
    points, world = truth.points_px.copy(), truth.world_m.copy()
    points[10:14], world[10:14] = np.nan, np.nan
    resolved = resolve_sides(Keypoints(points, truth.visibility, world, truth.swapped))
    assert list(np.flatnonzero(~resolved.found)) == [10, 11, 12, 13]


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    truth = turning_skeleton(5)
    truth.save(tmp_path / "keypoints.npz")
    loaded = Keypoints.load(tmp_path / "keypoints.npz")
    np.testing.assert_array_equal(loaded.world_m, truth.world_m)
    np.testing.assert_array_equal(loaded.visibility, truth.visibility)


def test_an_empty_room_has_no_landmarks() -> None:
    rng = np.random.default_rng(0)
    walls = [
        np.full((240, 320, 3), 128, np.uint8) + rng.integers(0, 8, (240, 320, 3), dtype=np.uint8) for _ in range(2)
    ]
    keypoints = detect(walls, 2)
    assert not keypoints.found.any()
    assert np.isnan(keypoints.points_px).all()
