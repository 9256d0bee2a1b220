"""Loose clothes must not inflate the body: people in garments of known form, against the same people naked.

Garments hang on joints at rest: profiles of radius over height, turned about an axis.  V vertices, F faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_solve import observe_body, random_state

from fitting.body.model import BodyModel
from fitting.body.skinning import rotations, vertex_normals
from fitting.chain import Chain
from fitting.shape import body_height_m, chain_of, solve_shape
from fitting.solve import State, render_view
from fitting.terms import depth_rows, outline_rows, residuals, robust_energy

TRUE_SHAPE = np.array([0.4, 0.8, -0.5, 0.3, 0, 0, 0, 0, 0, 0])  # taller and slimmer than the mean
VIEWS = 6
AROUND = 32
LEG = ("upperleg", "lowerleg")


@dataclass(frozen=True)
class Garment:
    """A surface at rest that follows one joint rigidly."""

    joint: str
    points_m: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)


def turned_about(joint: str, axis_xy: Any, profile: list[tuple[float, float]]) -> Garment:
    """(height, radius) pairs from top to hem, turned about a vertical axis; both sides of the sheet are drawn."""
    heights, radii = (
        np.interp(np.linspace(0, len(profile) - 1, 24), range(len(profile)), p) for p in np.transpose(profile)
    )
    angle = 2 * np.pi * np.arange(AROUND) / AROUND
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    xy = np.asarray(axis_xy) + radii[:, None, None] * ring
    points = np.concatenate([xy, np.broadcast_to(heights[:, None, None], (*xy.shape[:2], 1))], axis=2).reshape(-1, 3)
    row, step = (part.ravel() for part in np.mgrid[:23, :AROUND])
    a, b = row * AROUND + step, row * AROUND + (step + 1) % AROUND
    faces = np.concatenate([np.stack([a, b, b + AROUND], 1), np.stack([a, b + AROUND, a + AROUND], 1)])
    return Garment(joint, points, np.concatenate([faces, faces[:, ::-1]]))


def garments(kind: str, body: BodyModel, chain: Chain) -> list[Garment]:
    joints = {name: chain.joints_m[i] for i, name in enumerate(body.joint_names)}
    hip, knee = joints["upperleg01.L"], joints["lowerleg01.L"]
    if kind == "skirt":  # to below the knee, 30 cm wide there
        return [turned_about("root", (0, -0.02), [(hip[2] + 0.12, 0.16), (hip[2], 0.20), (knee[2] - 0.08, 0.34)])]
    if kind == "trousers":  # a tube of 13 cm about each leg, flared to 15 at the ankle
        made = []
        for side in (".L", ".R"):
            hip, knee, foot = (joints[name + side] for name in ("upperleg01", "lowerleg01", "foot"))
            for joint, top, bottom, wide in (("upperleg01", hip, knee, 0.13), ("lowerleg01", knee, foot, 0.15)):
                made.append(tube(joint + side, top, bottom, 0.13, wide))
        return made
    if kind == "hair":  # to the chest, all round but the face, which the head's own surface breaks through
        head = joints["head"]
        return [
            turned_about("head", (0, 0.03), [(head[2] + 0.17, 0.02), (head[2] + 0.12, 0.12), (head[2] - 0.2, 0.16)])
        ]
    return []


def tube(joint: str, top_m: np.ndarray, bottom_m: np.ndarray, top_radius_m: float, bottom_radius_m: float) -> Garment:
    """A cone between two points, its rings level."""
    cone = turned_about(joint, (0, 0), [(top_m[2], top_radius_m), (bottom_m[2], bottom_radius_m)])
    share = (cone.points_m[:, 2:] - top_m[2]) / (bottom_m[2] - top_m[2])
    along = top_m[:2] + share * (bottom_m[:2] - top_m[:2])
    return Garment(joint, cone.points_m + np.pad(along, ((0, 0), (0, 1))), cone.faces)


def dressed(kind: str, body: BodyModel, chain: Chain, state: State) -> list[tuple[np.ndarray, np.ndarray]]:
    """Posed points and faces of everything that is worn."""
    turn, shift, _ = chain.transforms(state.pose, state.camera_from_body)
    worn = []
    for garment in garments(kind, body, chain):
        joint = body.joint_index(garment.joint)
        worn.append((garment.points_m @ turn[joint].T + shift[joint], garment.faces))
    return worn


class FakeClip(list):  # type: ignore[type-arg]
    """Observations of a recording with depth."""

    recording = SimpleNamespace(has_depth=np.ones(VIEWS, bool))


def filmed(kind: str, body: BodyModel) -> Any:
    """A person who turns once and bends arms and legs a little."""
    chain = chain_of(body, TRUE_SHAPE)
    rng = np.random.default_rng(7)
    clip = FakeClip()
    for k in range(VIEWS):
        placed = np.eye(4)
        upright = np.array([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]])
        placed[:3, :3] = upright @ rotations(np.array([[0, 0, 2 * np.pi * k / VIEWS]]))[0]
        placed[:3, 3] = 0, 0.85, 2.4
        dofs = rng.normal(0, 0.12, chain.num_free)
        state = State(chain.with_dofs(np.zeros((body.num_joints, 3)), dofs), placed)
        clip.append(observe_body(body, chain, state, True, dressed(kind, body, chain, state)))
    return clip


def off_mm(body: BodyModel, shape: np.ndarray, of: tuple[str, ...] = ()) -> float:
    """How far the body at rest stands out of the true one: mean over the vertices that follow joints ``of``."""
    true_m, joints_m = body.shaped(TRUE_SHAPE)
    found_m, found_joints_m = body.shaped(shape)
    owner = np.asarray(body.skin_weights).argmax(axis=1)
    moved = (found_m - found_joints_m[owner]) - (true_m - joints_m[owner])  # girth, without length
    picked = np.array([body.joint_names[j].startswith(of) for j in owner]) if of else np.ones(len(owner), bool)
    return float(1e3 * (moved * vertex_normals(true_m, body.faces)).sum(axis=1)[picked].mean())


@pytest.mark.parametrize("kind", ["naked", "skirt", "trousers", "hair"])
def test_shape_under_loose_clothes_is_that_of_the_naked_person(body: BodyModel, kind: str) -> None:
    clip = filmed(kind, body)

    shape, _ = solve_shape(body, clip, list(range(VIEWS)), None, 5)

    assert abs(off_mm(body, shape, LEG)) < 3
    assert abs(off_mm(body, shape, ("spine",))) < 4
    if kind != "trousers":  # they hide the feet, so that nothing shows where she stands
        assert abs(body_height_m(body, shape) - body_height_m(body, TRUE_SHAPE)) < 0.015


def test_a_garment_hides_the_legs_and_stands_off_them(body: BodyModel) -> None:
    """What the test above relies on: at half the height of the thigh the seen surface is far before the skin."""
    naked, skirt = filmed("naked", body)[0], filmed("skirt", body)[0]
    before_m = naked.surface_m[..., 2] - skirt.surface_m[..., 2]
    standing_off = before_m > 0.03
    assert standing_off.sum() > 0.05 * np.isfinite(naked.surface_m[..., 2]).sum()
    assert 0.04 < np.median(before_m[standing_off]) < 0.3
    assert skirt.mask.sum() > 1.2 * naked.mask.sum()


def test_a_surface_before_the_body_loses_its_say_and_one_behind_it_does_not(body: BodyModel, chain: Chain) -> None:
    state = random_state(chain, 3)
    observation = observe_body(body, chain, state, with_depth=True)

    def pull(z_m: float, stands_off: bool) -> float:
        """Per row, with the body moved away from the camera."""
        points_m = chain.posed(state.pose, state.camera_from_body) + np.array([0, 0, z_m])
        view = render_view(observation, points_m[: chain.num_vertices], body.faces)
        rows = depth_rows(observation, points_m, view.normals, view.visible, 0.1, chain.looseness_m, stands_off)
        r, _ = residuals(rows, points_m, observation)
        return float(np.abs(robust_energy(r, rows.scale)[1] * r * rows.weight).mean())

    assert pull(0.06, True) < 0.15 * pull(-0.06, True)  # cloth may hang there
    assert 0.6 < pull(0.06, False) / pull(-0.06, False) < 1.6
    assert pull(0.006, True) > 0.3 * pull(0.006, False)  # tight clothes and skin still hold the body


def test_an_outline_outside_the_body_pulls_less_than_one_inside(body: BodyModel, chain: Chain) -> None:
    state = random_state(chain, 3)
    observation = observe_body(body, chain, state, with_depth=False)
    small, large = (chain_of(body, np.eye(body.num_shape)[1] * size) for size in (2.0, -2.0))  # slim, heavy

    def pull(other: Chain, stands_off: bool) -> float:
        points_m = other.posed(state.pose, state.camera_from_body)
        view = render_view(observation, points_m[: chain.num_vertices], body.faces)
        rows = outline_rows(
            observation, view.outline, view.outline_vertex, points_m, 0.05, chain.looseness_m, stands_off
        )
        r, _ = residuals(rows, points_m, observation)
        return float(np.abs(robust_energy(r, rows.scale)[1] * r).sum())

    assert pull(small, True) < 0.95 * pull(small, False)
    assert pull(large, True) > 0.95 * pull(large, False)
