"""Stage 04: lazy greedy equals naive greedy, splits do not leak, keyframes stay few."""

from __future__ import annotations

import numpy as np
import pytest
from test_rasterize import torus

from capture.camera import Camera
from capture.errors import UserError
from fitting.keyframes import (
    COVER_GAINS,
    KeyframeConfig,
    Keyframes,
    choose_greedily,
    choose_keyframes,
    choose_naively,
    facing_side,
    max_keyframes,
    seen_items,
    split,
)

CAMERA = Camera((320, 240), 260.0, 260.0, 160.0, 120.0)


def bitsets(rng: np.random.Generator, count: int, words: int, density: float) -> np.ndarray:
    return np.packbits(rng.random((count, words * 64)) < density, axis=1).view(np.uint64)


@pytest.mark.parametrize("density", [0.002, 0.05, 0.4])
def test_lazy_greedy_is_naive_greedy(density):
    rng = np.random.default_rng(int(density * 1000))
    seen = bitsets(rng, 120, 9, density)
    seen[60:80] = seen[20:40]  # ties
    np.testing.assert_array_equal(choose_greedily(seen, 60), choose_naively(seen, 60))


def test_ties_go_to_the_lowest_index_and_choice_ends_when_nothing_gains():
    one = np.array([[0b0011], [0b0011], [0b1100], [0]], np.uint64)
    assert choose_greedily(one, 10).tolist() == [0, 2, 1]  # once each, then a second showing; the empty frame never
    assert choose_greedily(np.repeat(one[:1], 9, 0), 9).tolist() == list(range(len(COVER_GAINS)))
    assert choose_greedily(np.zeros((5, 2), np.uint64), 3).tolist() == []


def test_greedy_reaches_its_guarantee_against_exhaustive_search():
    from itertools import combinations

    def value(bits: np.ndarray) -> int:
        return int(np.concatenate([[0], np.cumsum(COVER_GAINS)])[np.minimum(bits.sum(0), len(COVER_GAINS))].sum())

    for seed in range(5):
        seen = bitsets(np.random.default_rng(seed), 12, 1, 0.15)
        bits = np.unpackbits(seen.view(np.uint8), axis=1).astype(int)
        best = max(value(bits[list(chosen)]) for chosen in combinations(range(12), 3))
        assert value(bits[choose_greedily(seen, 3)]) >= (1 - 1 / np.e) * best


@pytest.mark.parametrize("num_train,expected", [(8, 1), (20, 1), (21, 2), (96, 9), (100, 9), (101, 10), (1500, 149)])
def test_keyframes_are_strictly_fewer_than_a_tenth(num_train, expected):
    assert max_keyframes(num_train, 0.1) == expected


def test_the_split_is_contiguous_and_skips_lost_frames():
    tracked = np.ones(50, bool)
    tracked[[0, 7, 8, 44]] = False
    train, heldout = split(KeyframeConfig(), tracked, 40)
    assert tracked[train].all() and tracked[heldout].all()
    assert train.max() == 39 and heldout.min() == 40 and len(train) == 37 and len(heldout) == 9
    train, heldout = split(KeyframeConfig(max_train_frames=12), tracked, 40)
    assert len(train) == 12 and train[[0, -1]].tolist() == [1, 39] and heldout.min() == 40
    assert set(np.diff(train)) <= {2, 3, 4, 5, 6}, "who turned around later shall have a back"
    train, heldout = split(KeyframeConfig(max_train_frames=12, spread=False), tracked, 40)
    assert train.tolist() == [1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14]  # the paper's
    assert heldout.min() == 40  # frames between them taught the fit: they cannot measure


@pytest.mark.parametrize(
    "config",
    [KeyframeConfig(max_keyframe_fraction=1.5), KeyframeConfig(max_train_frames=0), KeyframeConfig(image_px=4)],
)
def test_impossible_settings_are_user_errors(config):
    with pytest.raises(UserError, match="keyframes"):
        split(config, np.ones(50, bool), 40)


def test_too_few_tracked_frames_is_one_line():
    tracked = np.zeros(100, bool)
    tracked[:9] = True
    with pytest.raises(UserError, match="only 9 of 100") as error:
        split(KeyframeConfig(), tracked, 80)
    with pytest.raises(UserError, match="none of the 20 frames that train"):
        split(KeyframeConfig(), np.arange(100) >= 50, 20)
    assert "\n" not in str(error.value)


def turning(count: int):
    """A torus that first stands still, then shows its other side: one keyframe is not enough."""
    body, vertices = torus()
    center = vertices.mean(0)

    def vertices_color_m(i: int) -> np.ndarray:
        angle = np.pi * max(0, i - count // 2) / (count // 4)
        c, s = np.cos(angle), np.sin(angle)
        return (vertices - center) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) + center

    return body, vertices_color_m


def test_keyframes_show_all_sides_and_survive_a_round_trip(tmp_path):
    body, vertices_color_m = turning(40)
    doubted = np.zeros((40, len(body.part_names)), bool)
    found = choose_keyframes(
        KeyframeConfig(max_keyframe_fraction=0.2), body, CAMERA, np.ones(40, bool), 32, vertices_color_m, doubted
    )
    assert len(found.keyframe_indices) == 6 and set(found.keyframe_indices) <= set(found.train_indices)
    assert (found.keyframe_indices >= 20).sum() >= 4  # frames 0..20 are all the same
    assert found.coverage["items_covered"] > 0.85 * found.coverage["items_seen"]
    found.save(tmp_path)
    loaded = Keyframes.load(tmp_path)
    for name in ("train_indices", "keyframe_indices", "heldout_indices", "coverage"):
        np.testing.assert_equal(getattr(loaded, name), getattr(found, name))


def test_only_the_filmed_part_counts():
    body, vertices = torus()

    def count(offset: tuple[float, float, float]) -> int:
        return int(np.bitwise_count(seen_items(body, vertices + np.array(offset), CAMERA, 256)).sum())

    assert 0 < count((1.5, 0, 0)) < 0.8 * count((0, 0, 0)) and count((0, 0, -20)) == 0


def test_a_part_in_doubt_covers_nothing():
    body, vertices = torus()
    part = int(body.face_part[0])
    others = [p for p in range(1, len(body.part_names)) if p != part]

    def seen(doubted: list[int]) -> np.ndarray:
        return seen_items(body, vertices, CAMERA, 256, doubted)

    whole, without = seen([]), seen([part])
    assert np.bitwise_count(without).sum() < np.bitwise_count(whole).sum() and not (without & ~whole).any()
    assert not seen([part, *others]).any()


def test_the_side_is_where_a_face_tilts_to():
    normals = np.array([[0, 0, -1], [-1, 0, -0.3], [1, 0, -0.3], [0, -1, -0.3], [0, 1, -0.3]])
    vertices, faces = [], []
    for k, normal in enumerate(normals):
        across = np.cross(normal, [0.3, 0.5, 0.8])
        vertices += list(np.stack([0 * normal, across, np.cross(normal, across)]) + np.array([0, 0, 5]))
        faces.append([3 * k, 3 * k + 1, 3 * k + 2])
    assert facing_side(np.array(vertices, float), np.array(faces)).tolist() == [0, 1, 2, 3, 4]
