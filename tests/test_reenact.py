"""Somebody's fit on another body: the same angles, a way as long as the legs, feet on the floor, gaps filled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from miniature import CAMERA

from capture.errors import UserError
from fitting.body.model import BodyModel
from fitting.fit import BodyFit
from rendering.avatar import Shape
from rendering.captured import world_from_color
from rendering.motions import choose, fit_folder
from rendering.placed_clip import leg_length
from rendering.reenact import interpolated, of_fit, reenact
from rendering.retarget import Motion
from rendering.skeletons import find_roles

CAMERA_FROM_WORLD = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0.95], [0, 1, 0, 3.0], [0, 0, 0, 1]])
COUNT = 24


def tall(body: BodyModel, sign: float = 1.0) -> np.ndarray:
    shape = np.zeros(body.num_shape, np.float32)
    shape[0] = 1.5 * sign
    return shape


@pytest.fixture(scope="module")
def fit(body: BodyModel) -> BodyFit:
    """Somebody tall who raises an arm while he is carried to the left; two frames lost."""
    pose, placed = np.zeros((COUNT, body.num_joints, 3)), np.stack([CAMERA_FROM_WORLD] * COUNT)
    pose[:, body.joint_index("upperarm01.L"), 1] = -np.linspace(0, 1, COUNT)
    placed[:, 0, 3] += np.linspace(0, 0.5, COUNT)
    for lost in (10, 11):
        pose[lost], placed[lost] = np.nan, np.nan
    status = tuple("lost" if k in (10, 11) else "tracked" for k in range(COUNT))
    joints = np.stack([body.posed(tall(body), p, w)[1] for p, w in zip(pose, placed, strict=True)])
    nothing, bare = np.zeros(COUNT), np.zeros(len(body.template_m), np.float32)
    return BodyFit(
        tall(body), pose, placed, joints, body.joint_names, bare, nothing, nothing, nothing, status,
        ("",) * COUNT, np.zeros((COUNT, 4), bool), body, CAMERA, (), COUNT,
    )  # fmt: skip


def test_a_gap_is_filled_by_the_way_between_its_ends(body: BodyModel, fit: BodyFit) -> None:
    moved = of_fit(fit, np.arange(COUNT) / 30, "bob")
    assert len(moved) == COUNT and moved.frames_per_second == pytest.approx(30)
    assert np.isfinite(moved.pose).all()
    arm = moved.pose[:, body.joint_index("upperarm01.L"), 1]
    np.testing.assert_allclose(arm, -np.linspace(0, 1, COUNT), atol=1e-5)
    assert "2 of 24" in moved.notes[0]


def test_a_clip_of_sixty_frames_a_second_with_a_hole_in_time_keeps_its_duration(fit: BodyFit) -> None:
    times_s = np.arange(COUNT) / 60
    times_s[12:] += 0.5
    moved = of_fit(fit, times_s, "bob")
    assert moved.frames_per_second == pytest.approx(30.5, abs=0.6)
    assert (len(moved) - 1) / moved.frames_per_second == pytest.approx(times_s[-1], abs=0.04)


def test_on_the_same_body_the_movement_is_the_same(body: BodyModel, fit: BodyFit) -> None:
    moved = of_fit(fit, np.arange(COUNT) / 30, "bob")
    done = reenact(fit, moved, body, *body.shaped(fit.shape))
    for k in (0, COUNT - 1):
        before, after = (
            body.pose_vertices(*body.shaped(fit.shape), m.pose[k], m.world_from_body[k])[0] for m in (moved, done)
        )
        assert np.percentile(np.linalg.norm(before - after, axis=1), 95) < 0.02


def test_on_shorter_legs_the_way_is_shorter_and_soles_are_on_the_floor(body: BodyModel, fit: BodyFit) -> None:
    moved = of_fit(fit, np.arange(COUNT) / 30, "bob")
    rest = body.shaped(tall(body, -1))
    done = reenact(fit, moved, body, *rest)
    roles = find_roles(body.joint_names, tuple(int(p) for p in body.parents), "body")
    theirs, ours = leg_length(body.shaped(fit.shape)[1], roles), leg_length(rest[1], roles)
    assert ours < 0.95 * theirs
    skins = np.stack([body.pose_vertices(*rest, p, w)[0] for p, w in zip(done.pose, done.world_from_body, strict=True)])
    assert np.abs(skins[..., 2].min(1)).max() < 0.01
    head = skins[:, rest[0][:, 2].argmax(), 0]
    assert np.ptp(head) == pytest.approx(0.5 * ours / theirs, abs=0.03)
    wrist = body.joint_index("wrist.L")
    heights = [
        body.pose_vertices(*rest, p, w)[1][wrist, 2] for p, w in zip(done.pose, done.world_from_body, strict=True)
    ]
    assert heights[-1] > heights[0] + 0.2  # the arm is raised


def test_a_fit_of_another_skeleton_goes_by_the_limbs(body: BodyModel, fit: BodyFit) -> None:
    names = tuple(f"their_{name}" if "spine" in name else name for name in body.joint_names)
    other = replace(body, joint_names=names)
    foreign = replace(fit, body=other, joint_names=names)
    moved = of_fit(foreign, np.arange(COUNT) / 30, "bob")
    rest = body.shaped(tall(body, -1))
    done, same = reenact(foreign, moved, body, *rest), reenact(fit, moved, body, *rest)
    tips = [
        body.pose_vertices(*rest, m.pose[-1], m.world_from_body[-1])[1][body.joint_index("wrist.L")]
        for m in (done, same)
    ]
    assert np.linalg.norm(tips[0] - tips[1]) < 0.08


def test_turns_take_the_short_way() -> None:
    pose = np.array([[[0, 0, 3.0]], [[0, 0, -3.0]]])
    placed = np.stack([np.eye(4)] * 2)
    placed[1, 0, 3] = 1.0
    between, there = interpolated(pose, placed, np.array([0.0, 1.0]), np.array([0.5]))
    assert abs(abs(between[0, 0, 2]) - np.pi) < 1e-6 and there[0, 0, 3] == pytest.approx(0.5)


def test_a_name_a_folder_and_a_file_mean_the_same_fit(body: BodyModel, fit: BodyFit, tmp_path: Path) -> None:
    folder = tmp_path / "bob" / "03_fit"
    folder.mkdir(parents=True)
    fit.save(folder)
    for word in ("bob", "fit:bob", str(tmp_path / "bob"), str(folder), str(folder / "fit.npz")):
        assert fit_folder(word, tmp_path) == folder, word
    assert fit_folder("walk.bvh", tmp_path) is None and fit_folder("poses.npz", tmp_path) is None
    with pytest.raises(UserError, match="eve"):
        fit_folder("fit:eve", tmp_path)
    shape = Shape(body, tall(body, -1), np.zeros(len(body.template_m), np.float32))
    chosen = choose("bob", shape, tmp_path, "alice")
    assert len(chosen.motion) == COUNT and chosen.frame_indices is None
    assert "30 frames a second" in chosen.motion.notes[0]
    assert world_from_color(fit).shape == (4, 4) and isinstance(chosen.motion, Motion)
