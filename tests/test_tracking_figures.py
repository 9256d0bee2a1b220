"""The figures that judge tracking: each is made to see the mistake that it is there for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import tracking_figures as figures

from demo.character import Character
from demo.performer import MIXAMO, DemoConfig, camera_poses, play
from demo.undressed import skin_color_m, undress

# Left before right: hips, knees, ankles, shoulders, elbows, wrists of somebody who stands with the arms half out.
STANDING = np.array(
    [[0.1, 0, 0], [-0.1, 0, 0], [0.12, 0.45, 0], [-0.12, 0.45, 0], [0.14, 0.9, 0.02], [-0.14, 0.9, 0.02],
     [0.18, -0.5, 0], [-0.18, -0.5, 0], [0.35, -0.3, 0.05], [-0.35, -0.3, 0.05], [0.5, -0.1, -0.1], [-0.5, -0.1, -0.1]]
)  # fmt: skip


@pytest.fixture
def truth_m() -> np.ndarray:
    """(40, 12, 3): turning on the spot, three metres away."""
    angle = np.linspace(0, 2, 40)
    turn = np.zeros((40, 3, 3))
    turn[:, 0, 0] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 0, 2], turn[:, 2, 0] = np.sin(angle), -np.sin(angle)
    turn[:, 1, 1] = 1
    return np.einsum("nij,kj->nki", turn, STANDING) + np.array([0, 0, 3.0])


def offset(truth_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same motion by a skeleton whose joints sit elsewhere on the body."""
    return truth_m + np.einsum("nij,kj->nki", figures.trunk_frames(truth_m), rng.normal(0, 0.03, (12, 3)))


def test_an_offset_that_turns_with_the_trunk_is_no_error(truth_m):
    estimate_m = offset(truth_m, np.random.default_rng(0))
    assert np.linalg.norm(estimate_m - truth_m, axis=2).mean() > 0.02
    assert figures.offset_removed_m(estimate_m, truth_m).max() < 1e-9


def test_a_lost_frame_has_no_error_and_spoils_no_other(truth_m):
    estimate_m = truth_m.copy()
    estimate_m[7] = np.nan
    errors_m = figures.offset_removed_m(estimate_m, truth_m)
    assert np.isnan(errors_m[7]).all() and np.nanmax(errors_m) < 1e-9
    assert np.isnan(figures.procrustes_m(estimate_m, truth_m)[7]).all()
    assert not figures.right(errors_m)[7] and figures.right(errors_m).sum() == 39
    assert not figures.wrong(errors_m).any()


def test_what_colour_cannot_know_is_one_factor_about_the_camera(truth_m):
    estimate_m = truth_m / 1.07
    estimate_m[5] = np.nan
    assert figures.camera_scale(estimate_m, truth_m) == pytest.approx(1.07)
    assert np.nanmax(figures.offset_removed_m(1.07 * estimate_m, truth_m)) < 1e-9


def test_procrustes_forgives_place_size_and_turn_but_no_mirror_image(truth_m):
    assert figures.procrustes_m(1.3 * truth_m[:, :, [2, 0, 1]] + 0.4, truth_m).max() < 1e-9
    mirrored = truth_m * (1, 1, -1)
    mirrored[:, 10, 2] += 0.3  # nearly flat people are nearly their own mirror images: lift a wrist
    assert figures.procrustes_m(mirrored, truth_m).max() > 0.05


def test_flips_are_counted_whole_and_by_pairs_of_limbs(truth_m):
    rng = np.random.default_rng(1)
    estimate_m = offset(truth_m, rng) + np.array([0, 0, 0.4])  # too far away as a whole, which is no flip
    assert not figures.flipped(estimate_m, truth_m).any()
    estimate_m[3:6] = estimate_m[3:6][:, figures.OTHER_SIDE]
    legs = np.array(figures.LEGS)
    estimate_m[20, legs] = estimate_m[20, figures.OTHER_SIDE[legs]]
    estimate_m[30] = np.nan
    assert np.flatnonzero(figures.flipped(estimate_m, truth_m)).tolist() == [3, 4, 5]
    assert np.flatnonzero(figures.flipped(estimate_m, truth_m, figures.LEGS)).tolist() == [3, 4, 5, 20]
    assert np.flatnonzero(figures.flipped(estimate_m, truth_m, figures.ARMS)).tolist() == [3, 4, 5]


def test_one_joint_far_off_is_wrong_though_the_mean_is_right(truth_m):
    estimate_m = truth_m.copy()
    estimate_m[4, 11] += (0, 0.3, 0)
    estimate_m[5, 11] += (0, 0.2, 0)
    errors_m = figures.offset_removed_m(estimate_m, truth_m)
    assert np.flatnonzero(figures.wrong(errors_m)).tolist() == [4]
    assert figures.right(errors_m).all()
    estimate_m[6] += 0.06  # 104 mm, all joints: nothing is wildly wrong, and still it is not right
    errors_m = figures.offset_removed_m(estimate_m, truth_m)
    assert not figures.wrong(errors_m)[6] and not figures.right(errors_m)[6]


def test_stillness_is_a_passage_not_a_moment():
    points = np.zeros((30, 2, 3))
    points[10:, 0, 0] = np.arange(20) * 0.1  # point 0 walks away after frame 9
    points[4, 1], points[18:, 1] = 1, 2  # point 1 leaps at frame 4 and back, and again at frame 18
    is_still = figures.still(points, 0.01)
    # The first step of the walk has no length: frame 10 still belongs to the pause.
    assert np.flatnonzero(is_still[:, 0]).tolist() == list(range(11))
    assert np.flatnonzero(is_still[:, 1]).tolist() == [*range(5, 18), *range(18, 30)]


def test_jitter_is_that_of_still_points_alone():
    rng = np.random.default_rng(2)
    points = rng.normal(0, 0.01, (4000, 2, 3))
    points[:, 1] *= 100
    is_still = np.ones((4000, 2), bool)
    is_still[:, 1] = False
    # White noise of standard deviation s has second differences of variance 6 s^2 an axis.
    mean, median = figures.jitter(points, is_still)
    assert mean == pytest.approx(0.01 * np.sqrt(18), rel=0.03)
    points[100, 0] += 5  # one jump is all of the mean and nothing of the median
    assert figures.jitter(points, is_still)[0] > 3 * mean
    assert figures.jitter(points, is_still)[1] == pytest.approx(median, rel=0.01)
    steady = np.arange(50)[:, None, None] * np.ones((1, 2, 3))
    assert figures.jitter(steady, np.ones((50, 2), bool)) == (0, 0)
    assert np.isnan(figures.jitter(steady, np.zeros((50, 2), bool))).all()


def test_distances_to_a_triangle_reach_its_face_its_edges_and_its_corners():
    vertices = np.array([[0, 0, 0], [2.0, 0, 0], [0, 2, 0]])
    faces = np.array([[0, 1, 2]])
    points = np.array([[0.5, 0.5, 0.3], [-1, -1, 0], [3, 0, 0], [0, 5, 0], [1, -2, 0], [-0.5, 1, 0], [2, 2, 0]])
    expected = [0.3, np.sqrt(2), 1, 3, 2, 0.5, np.sqrt(2)]
    assert figures.to_surface_m(points, vertices, faces) == pytest.approx(expected)
    assert figures.border_vertices(faces).tolist() == [0, 1, 2]


def test_the_undressed_performer_stands_around_her_joints():
    character, config = Character.load(), DemoConfig(num_frames=3, frames_per_second=1.0)
    skin = undress(character)
    assert skin.height_m == pytest.approx(1.71, abs=0.005)
    skin_m = skin_color_m(config, character, skin)
    assert skin_m.shape == (3, len(skin.points_m), 3)
    color_from_world, _ = camera_poses()
    joint = character.joint(MIXAMO["LeftForeArm"])
    # An elbow lies inside the arm, four to five centimetres from its skin, and a clothed body holds the bare one.
    worlds, sub_steps, _ = play(config, character)
    elbow_m = (worlds[::sub_steps][:, joint] @ [0, 0, 0, 1]) @ color_from_world.T
    nearest = np.linalg.norm(skin_m - elbow_m[:, None, :3], axis=2).min(1)
    assert (nearest > 0.02).all() and (nearest < 0.06).all()
    dressed = character.vertices_m[character.layer == 1]
    shirt = np.isin(skin.vertices, np.flatnonzero(character.layer == 1))
    lower = figures.cKDTree(dressed).query(skin.points_m[shirt])[0]
    assert 0.008 < np.median(lower) < 0.05
