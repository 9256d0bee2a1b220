"""Retargeted people keep to what people can do: ranges of joints, feet that stand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bvh_files import MOTIONS, REAL_FILES, random_frames, write_bvh
from scipy.optimize import lsq_linear

from rendering.motion import load_motion
from rendering.possible import beyond_range, bounded_step, within_range
from rendering.retarget import asked_of_us, retarget
from rendering.standing import soles, standing_shift

FPS = 25.0


def skin(body, motion):
    rest = body.shaped(None)
    return np.stack(
        [body.pose_vertices(*rest, p, w)[0] for p, w in zip(motion.pose, motion.world_from_body, strict=True)]
    )


def squat(count: int = 40) -> np.ndarray:
    """(count, 48) BVH channels: knees bend and stretch over feet that stand, the pelvis wanders by 2 units aside."""
    frames = np.zeros((count, 48))
    bend = 35 * (1 - np.cos(np.linspace(0, 4 * np.pi, count))) / 2
    rad = np.radians(bend)
    frames[:, 0] = np.sin(np.linspace(0, 2 * np.pi, count))
    frames[:, 1] = 2 + 20 * np.cos(rad) * 2
    for first in (30, 39):  # hip, knee, foot of each leg, three channels (Z, X, Y) each
        frames[:, first + 1], frames[:, first + 4], frames[:, first + 7] = -bend, 2 * bend, -bend
    return frames


def test_a_bounded_step_is_the_least_of_all_that_keep_the_ranges():
    rng = np.random.default_rng(0)
    for _ in range(50):
        root = rng.normal(size=(14, 10))
        lowest, highest = -rng.uniform(0, 0.4, 7), rng.uniform(0, 0.4, 7)
        target = rng.normal(size=14)
        step = bounded_step(root.T @ root, -root.T @ target, lowest, highest)
        bounds = np.append(lowest, [-np.inf] * 3), np.append(highest, [np.inf] * 3)
        best = lsq_linear(root, target, bounds, tol=1e-12)
        assert (step[:7] >= lowest - 1e-9).all() and (step[:7] <= highest + 1e-9).all()
        assert np.sum((root @ step - target) ** 2) <= 2 * best.cost * (1 + 1e-6) + 1e-9


def test_poses_within_their_ranges_stay_and_others_come_to_the_nearest_end(body):
    rng = np.random.default_rng(1)
    local = body.local_lower + rng.uniform(size=(5, *body.local_lower.shape)) * (body.local_upper - body.local_lower)
    inside = np.einsum("jik,njk->nji", body.joint_axes, local)
    assert np.allclose(within_range(inside, body), inside) and beyond_range(inside, body).max() < 1e-9
    outside = inside.copy()
    elbow = body.joint_index("lowerarm01.L")
    outside[:, elbow] += body.joint_axes[elbow][:, 1] * 3.0  # folds it by three radians more than it does
    assert (beyond_range(outside, body)[:, elbow, 1] > 0.3).all()
    held = np.einsum("ki,nk->ni", body.joint_axes[elbow], within_range(outside, body)[:, elbow])
    assert np.allclose(held[:, 1], body.local_upper[elbow, 1])
    assert np.allclose(np.delete(within_range(outside, body), elbow, 1), np.delete(inside, elbow, 1))


def test_no_joint_of_a_wild_clip_leaves_its_range(body, tmp_path):
    clip = load_motion(write_bvh(tmp_path / "a.bvh", random_frames()))
    rest = body.shaped(None)
    assert beyond_range(asked_of_us(clip, body, *rest).motion.pose, body).max() > np.radians(5)
    assert beyond_range(retarget(clip, body, *rest).pose, body).max() < 1e-6


def test_feet_that_stand_in_the_clip_stand_on_the_floor(body, tmp_path):
    clip = load_motion(write_bvh(tmp_path / "a.bvh", squat()))
    rest = body.shaped(None)
    asked = asked_of_us(clip, body, *rest)
    done = skin(body, retarget(clip, body, *rest))
    assert all(stance.is_in_contact.mean() > 0.9 for stance in asked.stances)
    before = skin(body, asked.motion)
    for stance in asked.stances:
        path_m = done[:, stance.vertices].mean(1)[stance.is_in_contact]
        assert np.ptp(path_m[:, :2], axis=0).max() < 0.008
        assert np.abs(done[stance.is_in_contact][:, stance.vertices, 2].min(1)).max() < 0.02
        assert np.ptp(before[:, stance.vertices, 0].mean(1)) > 0.01  # there was something to do
    knees = np.ptp(done[:, :, 2].max(1))
    assert knees == pytest.approx(np.ptp(before[:, :, 2].max(1)), rel=0.15)  # it still squats


def test_a_lifted_foot_goes_where_it_likes():
    """Two contacts with a step between: still in each, the shift fades in between and nothing jumps."""
    t = np.arange(60) / FPS
    stands = (t < 0.8) | (t > 1.6)
    path = np.where(t < 0.8, 0.05 * t, np.where(t > 1.6, 0.6 + 0.05 * t, 0.04 + (t - 0.8) * 0.75))
    piece = np.zeros((60, 4, 3))
    piece[:, :, 0] = path[:, None] + np.linspace(0, 0.06, 4)
    piece[:, :, 2] = 0.02 + np.where(stands, 0, 0.1)[:, None]
    shift, held = standing_shift(piece, stands, FPS)
    moved = piece + shift[:, None]
    for phase in (t < 0.8, t > 1.6):
        assert np.ptp(moved[phase][:, 0, 0]) < 1e-9 and np.allclose(moved[phase][:, :, 2], 0)
    assert (held[stands] == 1).all() and held[30] == 0 and np.allclose(shift[30], 0)
    assert np.abs(np.diff(shift[:, 0])).max() < 0.012


def test_who_kneels_has_no_heel_on_the_floor(body, tmp_path):
    """Shins level, ankles at rest and low: the soles look backwards, and are not pulled down."""
    frames = np.zeros((30, 48))
    frames[:, 1] = 21
    for first in (30, 39):
        frames[:, first + 4] = 88
    asked = asked_of_us(load_motion(write_bvh(tmp_path / "a.bvh", frames)), body, *body.shaped(None))
    assert not any(stance.is_in_contact.any() for stance in asked.stances[::2])


def test_soles_are_under_the_feet(body):
    vertices, _ = body.shaped(None)
    for side in "LR":
        heel, ball = soles(body, vertices, side)
        assert len(heel) >= 4 and len(ball) >= 4
        assert vertices[heel, 1].min() > vertices[ball, 1].max()  # the body faces -y
        assert (np.sign(vertices[np.append(heel, ball), 0]) == (1 if side == "L" else -1)).all()


def test_a_body_that_bends_its_toes_has_balls_under_its_feet(body):
    """As SMPL: the skin in front of the ankle hangs on a joint of its own, below the foot's."""
    vertices, _ = body.shaped(None)
    heel, ball = soles(body, vertices, "L")
    foot, toe = body.joint_index("foot.L"), body.num_joints
    weights = np.append(body.skin_weights, np.zeros((len(vertices), 1)), axis=1)
    weights[ball, toe], weights[ball, foot] = weights[ball, foot], 0
    bending = SimpleNamespace(
        skin_weights=weights, num_joints=toe + 1, parents=[*body.parents, foot], joint_index=body.joint_index
    )
    for piece, same in zip(soles(bending, vertices, "L"), (heel, ball), strict=True):
        assert np.array_equal(piece, same)


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_clips_neither_slide_nor_break(body, name):
    path: Path = MOTIONS / name
    if not path.is_file():
        pytest.skip("../shared/data/motion is absent")
    clip = load_motion(path)
    clip = replace(clip, positions=clip.positions[:300], rotations=clip.rotations[:300])  # 1900 would take a while
    rest = body.shaped(None)
    asked, motion = asked_of_us(clip, body, *rest), retarget(clip, body, *rest)
    skin_m = skin(body, motion)
    for stance in asked.stances:
        both = stance.is_in_contact[1:] & stance.is_in_contact[:-1]
        slide_m = np.linalg.norm(np.diff(skin_m[:, stance.vertices, :2].mean(1), axis=0), axis=1)[both]
        assert slide_m.max(initial=0) < 0.005
    assert beyond_range(motion.pose, body).max() < 1e-6
