"""Motions, pictures of sticks and exports of somebody in a skirt on bones: the skeleton moves her, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bvh_files import random_frames, write_bvh
from test_reenact import COUNT, fit, tall

from fitting.body.bones import NUM_PANELS
from fitting.body.model import BodyModel
from fitting.fit import BodyFit
from fitting.skirt import Skirt
from rendering.avatar import Shape
from rendering.captured import world_from_color
from rendering.driving import check_same_skeleton
from rendering.gltf import glb
from rendering.motions import choose
from rendering.moves import moves
from rendering.reenact import of_fit, reenact
from rendering.repertoire import Repertoire
from rendering.retarget import Motion
from rendering.stick_figure import StickFigure
from training.sanity import nearest_frames

__all__ = ["fit"]  # a fixture


@pytest.fixture(scope="module")
def bare(body: BodyModel) -> Shape:
    return Shape(body, np.zeros(body.num_shape, np.float32), None)


@pytest.fixture(scope="module")
def skirted(body: BodyModel, bare: Shape) -> Shape:
    skirt = Skirt.of(body, bare.shape, 0.42, has_bones=True)
    assert skirt is not None
    return bare._replace(body=skirt.body)


@pytest.fixture(scope="module")
def swung_fit(fit: BodyFit, skirted: Shape) -> BodyFit:
    """The same movement in a skirt that flies."""
    count = skirted.body.num_joints - fit.pose.shape[1]
    swing = np.tile(0.3 * np.sin(np.arange(COUNT))[:, None, None], (1, count, 3))
    joints_m = np.concatenate([fit.joints_color_m, fit.joints_color_m[:, :1] + swing], axis=1)
    return replace(
        fit,
        body=skirted.body,
        pose=np.concatenate([fit.pose, swing], axis=1),
        joints_color_m=joints_m,
        joint_names=skirted.body.joint_names,
    )


def test_motion_capture_moves_her_as_it_moves_others(bare: Shape, skirted: Shape, tmp_path: Path) -> None:
    path = write_bvh(tmp_path / "walk.bvh", random_frames())
    ours, theirs = (choose(str(path), shape, None, "ann").motion for shape in (skirted, bare))
    np.testing.assert_array_equal(ours.pose, theirs.pose)
    np.testing.assert_array_equal(ours.world_from_body, theirs.world_from_body)


def test_what_the_live_page_plays_moves_her_as_it_moves_others(bare: Shape, skirted: Shape, tmp_path: Path) -> None:
    path = write_bvh(tmp_path / "walk.bvh", random_frames())
    found = []
    for shape in (skirted, bare):
        avatar = SimpleNamespace(bodies={"ann": shape}, subjects=("ann",))
        repertoire = Repertoire(avatar, tmp_path, [path])  # type: ignore[arg-type]
        found.append([repertoire.act("ann", name, {}).motion for name in repertoire.names("ann", {})])
    assert len(found[0]) == 2
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours.pose, theirs.pose)


def test_her_movement_on_somebody_else_leaves_the_skirt_behind(bare: Shape, fit: BodyFit, swung_fit: BodyFit) -> None:
    times_s = np.arange(COUNT) / 30
    ours, theirs = (reenact(own, of_fit(own, times_s, "ann"), *bare.skeleton()) for own in (swung_fit, fit))
    np.testing.assert_array_equal(ours.pose, theirs.pose)
    np.testing.assert_allclose(ours.world_from_body, theirs.world_from_body, atol=1e-6)


def test_exports_know_how_the_skirt_hangs(bare: Shape, skirted: Shape, tmp_path: Path) -> None:
    """Every motion has its bones, and the .glb turns them."""
    path = write_bvh(tmp_path / "walk.bvh", random_frames())
    avatar = SimpleNamespace(bodies={"ann": skirted}, subjects=("ann",))
    found = moves(avatar, "ann", tmp_path / "ann", [path])  # type: ignore[arg-type]
    assert {move.motion.pose.shape[1] for move in found} == {skirted.body.num_joints}
    steps = Motion("steps", np.zeros((2, bare.body.num_joints, 3), np.float32), np.stack([np.eye(4)] * 2), 30.0)
    steps.pose[1, bare.body.joint_index("upperleg01.L")] = -1, 0, 0
    whole = replace(steps, pose=skirted.whole(steps.pose))
    document = glb(skirted, "ann", np.zeros((8, 8, 3), np.uint8), [whole])
    assert b'"skirt.7"' in document
    turned = np.abs(whole.pose[1, bare.body.num_joints :]).max(1) > 0.05
    assert turned[0] and turned[1:].sum() >= 3 and len(turned) == 1 + NUM_PANELS


def test_she_can_be_driven_by_whoever_wears_none(bare: Shape, skirted: Shape) -> None:
    check_same_skeleton(bare.body, skirted.body)
    check_same_skeleton(skirted.body, bare.body)


def test_a_stick_figure_has_no_skirt(body: BodyModel, fit: BodyFit, swung_fit: BodyFit) -> None:
    ours, theirs = (StickFigure.of(own.body) for own in (swung_fit, fit))
    assert ours.names == theirs.names and np.array_equal(ours.bones, theirs.bones)
    points = [figure.points_px(own, 3, own.camera) for figure, own in ((ours, swung_fit), (theirs, fit))]
    np.testing.assert_allclose(points[0][: body.num_joints], points[1][: body.num_joints], atol=1e-3)
    assert len(points[0]) == len(points[1])


def test_the_nearest_frame_is_that_of_the_skeleton(fit: BodyFit, swung_fit: BodyFit) -> None:
    train, wanted = np.arange(0, 9), np.array([15, 20, 23])
    flying = replace(swung_fit, joints_color_m=swung_fit.joints_color_m.copy())
    flying.joints_color_m[8, fit.pose.shape[1] :] += 5
    assert np.array_equal(nearest_frames(flying, train, wanted), nearest_frames(fit, train, wanted))
    assert nearest_frames(flying, train, wanted).tolist() == [8, 8, 8]


def test_her_place_in_the_world_does_not_depend_on_it(fit: BodyFit, swung_fit: BodyFit, body: BodyModel) -> None:
    assert len(tall(body)) == body.num_shape
    np.testing.assert_allclose(world_from_color(swung_fit), world_from_color(fit), atol=1e-6)
