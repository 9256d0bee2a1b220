"""Arms stay outside the trunk, feet above the floor, soles where they stand; and where the floor is."""

import numpy as np
import pytest
from test_solve import observe_body, random_state

from fitting.body.model import BodyModel
from fitting.body.skinning import vertex_normals
from fitting.chain import Chain
from fitting.contact import Touch, floor_rows, inside_rows, standing_rows, standing_targets
from fitting.floor import Plane, plane_under
from fitting.solve import State, advance
from fitting.terms import residuals


@pytest.fixture(scope="module")
def touch(body: BodyModel) -> Touch:
    return Touch.of(body)


def posed(body: BodyModel, chain: Chain, state: State) -> tuple[np.ndarray, np.ndarray]:
    vertices_m = chain.posed(state.pose, state.camera_from_body)[: chain.num_vertices]
    return vertices_m, vertex_normals(vertices_m, body.faces).astype(float)


def with_hand_in_belly(body: BodyModel, chain: Chain) -> State:
    """Both forearms bent through the trunk, found by search: the wrists' distance to the spine is smallest there."""
    state = random_state(chain, 1, 0.0)
    rng = np.random.default_rng(0)
    arms = np.concatenate(chain.limbs[:2])
    spine = body.joint_names.index("spine03")
    wrists = [body.joint_names.index(f"wrist.{side}") for side in "LR"]
    best, nearest_m = state, np.inf
    for _ in range(400):
        dofs = chain.dofs(state.pose)
        free = np.isin(chain.free_joint, arms)
        dofs[free] = rng.normal(0, 0.8, free.sum())
        tried = State(chain.with_dofs(state.pose, dofs), state.camera_from_body)
        places = chain.transforms(tried.pose, tried.camera_from_body)[2]
        distance_m = np.linalg.norm(places[wrists] - places[spine], axis=1).min()
        if distance_m < nearest_m:
            best, nearest_m = tried, distance_m
    assert nearest_m < 0.12
    return best


def test_rest_pose_touches_nothing(body: BodyModel, chain: Chain, touch: Touch) -> None:
    assert len(inside_rows(touch, *posed(body, chain, random_state(chain, 1, 0.0))).point) == 0


def test_arm_in_the_trunk_is_pushed_out(body: BodyModel, chain: Chain, touch: Touch) -> None:
    vertices_m, normals = posed(body, chain, with_hand_in_belly(body, chain))
    rows = inside_rows(touch, vertices_m, normals)
    assert len(rows.point) > 3 and np.isin(rows.point, touch.arm).all()
    pushed = vertices_m.copy()
    # Each row's target plane is the trunk's surface: a vertex moved onto it along the row's direction is outside.
    reach = ((rows.target - vertices_m[rows.point]) * rows.direction).sum(1)
    assert (reach > 0).all()
    pushed[rows.point] += rows.direction * (reach + 1e-6)[:, None]
    assert len(inside_rows(touch, pushed, normals).point) < len(rows.point) / 4


def test_gradients_are_numerical(body: BodyModel, chain: Chain, touch: Touch) -> None:
    state = with_hand_in_belly(body, chain)
    vertices_m, normals = posed(body, chain, state)
    observation = observe_body(body, chain, random_state(chain, 3), with_depth=False)
    floor = Plane(np.array([0.0, -1.0, 0.0]), float(-vertices_m[:, 1].max() + 0.03))
    standing = {int(v): vertices_m[v] + 0.01 for v in touch.sole[0]}
    for rows in (
        inside_rows(touch, vertices_m, normals),
        floor_rows(touch, vertices_m, floor),
        standing_rows(standing),
    ):
        assert len(rows.point)
        points_m = chain.posed(state.pose, state.camera_from_body)
        _, by_point = residuals(rows, points_m, observation)
        analytic = chain.jacobian(state.pose, state.camera_from_body, rows.point, by_point)
        for d in (3, 20, 40, analytic.shape[1] - 5, analytic.shape[1] - 1):
            step = np.zeros(analytic.shape[1])
            step[d] = 1e-5
            ends = [advance(state, sign * step, chain) for sign in (1, -1)]
            plus, minus = (residuals(rows, chain.posed(s.pose, s.camera_from_body), observation)[0] for s in ends)
            np.testing.assert_allclose(
                analytic[:, d], (plus - minus) / 2e-5, atol=1e-4 * max(1, np.abs(analytic).max())
            )


def test_feet_under_the_floor_are_lifted_and_others_left_alone(body: BodyModel, chain: Chain, touch: Touch) -> None:
    vertices_m, _ = posed(body, chain, random_state(chain, 1, 0.0))
    lowest = vertices_m[np.concatenate(touch.sole), 1].max()
    up = np.array([0.0, -1.0, 0.0])
    assert len(floor_rows(touch, vertices_m, Plane(up, -(lowest + 0.001))).point) == 0
    sunk = floor_rows(touch, vertices_m, Plane(up, -(lowest - 0.05)))
    assert len(sunk.point) and np.isin(sunk.point, np.concatenate(touch.sole)).all()


def test_a_standing_sole_stays_and_a_stepping_one_is_free(body: BodyModel, chain: Chain, touch: Touch) -> None:
    vertices_m, _ = posed(body, chain, random_state(chain, 1, 0.0))
    rng = np.random.default_rng(0)
    frames = np.repeat(vertices_m[None], 20, axis=0)
    frames[:, touch.sole[0]] += rng.normal(0, 0.002, (20, 1, 3))  # jitter
    frames[:, touch.sole[1]] += np.arange(20)[:, None, None] * np.array([0.05, 0.0, 0.0])  # a stride
    targets = standing_targets(touch, (frames[:, touch.sole[0]], frames[:, touch.sole[1]]), None, 1 / 30)
    stood = [set(t) for t in targets]
    assert sum(touch.sole[0][0] in s for s in stood) > 12
    assert not any(touch.sole[1][0] in s for s in stood)
    places = np.array([t[int(touch.sole[0][0])] for t in targets if int(touch.sole[0][0]) in t])
    assert np.ptp(places, axis=0).max() < np.ptp(frames[:, touch.sole[0][0]], axis=0).max() / 2


def test_floor_is_found_among_walls_and_noise() -> None:
    rng = np.random.default_rng(0)
    tilt = 0.2
    normal = np.array([0.0, -np.cos(tilt), -np.sin(tilt)])
    ground = rng.uniform([-2, 0, 1.5], [2, 0, 4], (3000, 3))
    ground[:, 1] = (-1.1 - normal[2] * ground[:, 2]) / normal[1]
    wall = rng.uniform([-2, -2, 4.0], [2, 1, 4.02], (6000, 3))
    points_m = np.concatenate([ground, wall]) + rng.normal(0, 0.004, (9000, 3))
    feet_m = ground[:20] + 0.08 * normal
    floor = plane_under(points_m, feet_m)
    assert floor is not None
    assert np.degrees(np.arccos(floor.normal @ normal)) < 0.5
    assert abs(floor.height_m(ground)).max() < 0.01
    assert plane_under(wall, feet_m) is None
    assert plane_under(np.zeros((0, 3)), feet_m) is None


def test_floor_keeps_feet_up_in_a_solve(body: BodyModel, chain: Chain, touch: Touch) -> None:
    """A state a little under the floor comes up when only the floor speaks."""
    state = random_state(chain, 1, 0.0)
    vertices_m, _ = posed(body, chain, state)
    floor = Plane(np.array([0.0, -1.0, 0.0]), float(-vertices_m[:, 1].max() + 0.03))
    observation = observe_body(body, chain, state, with_depth=False)
    rows = floor_rows(touch, vertices_m, floor)
    points_m = chain.posed(state.pose, state.camera_from_body)
    r, by_point = residuals(rows, points_m, observation)
    jacobian = chain.jacobian(state.pose, state.camera_from_body, rows.point, by_point)
    step = -np.linalg.solve(jacobian.T @ jacobian + 1e-3 * np.eye(jacobian.shape[1]), jacobian.T @ r)
    lifted, _ = posed(body, chain, advance(state, step, chain))
    soles = np.concatenate(touch.sole)
    assert floor.height_m(lifted[soles]).min() > floor.height_m(vertices_m[soles]).min() + 0.02
