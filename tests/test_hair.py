"""Hair hides how wide a head is, so the face says where it looks, not the outline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_solve import observe_body, random_state

from fitting.body.model import BodyModel
from fitting.chain import HAIR_M, Chain, head_vertices
from fitting.clip import EVERYTHING, default_prior
from fitting.shape import chain_of
from fitting.solve import State, solve_pose

THICK_M = 0.035


def twist_deg(body: BodyModel, pose: np.ndarray) -> float:
    """How far neck and head are turned about their own axes, together."""
    joints = [body.joint_index(name) for name in ("neck01", "neck03", "head")]
    return float(np.degrees(sum(body.joint_axes[j, :, 0] @ pose[j] for j in joints)))


def haired(body: BodyModel) -> Chain:
    """Somebody whose hair stands off beside and behind the face."""
    rest_m = np.asarray(body.template_m)
    head = head_vertices(body)
    middle_y = np.median(rest_m[head, 1])
    offsets_m = np.zeros(len(rest_m))
    offsets_m[head] = THICK_M * (rest_m[head, 1] > middle_y)
    return chain_of(body, np.zeros(body.num_shape), offsets_m)


def turned_head(body: BodyModel, state: State, deg: float) -> State:
    pose = state.pose.copy()
    for name in ("neck01", "neck03", "head"):
        joint = body.joint_index(name)
        pose[joint] = pose[joint] + np.radians(deg) / 3 * body.joint_axes[joint, :, 0]
    return State(pose, state.camera_from_body)


@pytest.mark.parametrize("start_deg", [-30.0, 30.0])
def test_a_head_with_hair_looks_where_its_face_looks(body: BodyModel, chain: Chain, start_deg: float) -> None:
    truth = random_state(chain, 2, 0.0)
    observation = observe_body(body, haired(body), truth, with_depth=False)
    start = turned_head(body, truth, start_deg)

    def error_deg(of: Chain) -> float:
        found, _ = solve_pose(of, body.faces, observation, start, default_prior(body, of), EVERYTHING)
        return abs(twist_deg(body, found.pose) - twist_deg(body, truth.pose))

    believing = replace(chain, hair_m=np.zeros_like(chain.hair_m))
    assert error_deg(chain) < 5
    assert error_deg(chain) < 0.5 * error_deg(believing)


def test_hair_grows_beside_the_face_and_hides_no_height(body: BodyModel, chain: Chain) -> None:
    head = np.isin(np.arange(len(body.template_m)), head_vertices(body))
    assert not chain.hair_m[~head].any()
    assert chain.hair_m.max() <= HAIR_M
    ears = head & (np.abs(body.template_m[:, 0]) > 0.95 * np.abs(body.template_m[head, 0]).max())
    crown = head & (body.template_m[:, 2] > body.template_m[:, 2].max() - 0.003)
    assert chain.hair_m[ears].min() > 0.5 * HAIR_M
    assert chain.hair_m[crown].max() < 0.5 * HAIR_M
