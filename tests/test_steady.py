"""Joints at rest are held, joints that move are let go; the term's derivatives are its own."""

from __future__ import annotations

import numpy as np
from test_batch import noisy, turned
from test_solve import random_state

from fitting.chain import Chain
from fitting.solve import State, advance
from fitting.steady import LANDMARKS, Steadiness, places

STEP_S = 1 / 30


def trembling(chain: Chain, count: int = 5) -> list[State]:
    rng = np.random.default_rng(4)
    return [noisy(chain, turned(chain, random_state(chain, 3), 0.03 * k), rng, 0.05) for k in range(count)]


def test_the_places_are_those_of_the_landmarks(chain: Chain) -> None:
    state = random_state(chain, 5)
    points_m = chain.posed(state.pose, state.camera_from_body)[chain.num_vertices :]
    np.testing.assert_array_equal(places(chain, state), points_m[LANDMARKS])


def test_the_gradient_is_half_the_energys(chain: Chain) -> None:
    states = trembling(chain)
    steady = Steadiness.of(chain, states, STEP_S)
    _, gradient = steady.normal_equations(states)
    rng = np.random.default_rng(0)
    for _ in range(4):
        along = rng.normal(size=gradient.shape)
        ends = [
            steady.energy([advance(s, h * a, chain) for s, a in zip(states, along, strict=True)]) for h in (-1e-6, 1e-6)
        ]
        np.testing.assert_allclose((ends[1] - ends[0]) / 2e-6, 2 * (gradient * along).sum(), rtol=1e-4)


def test_the_blocks_are_the_energys_curvature(chain: Chain) -> None:
    """J^T W J with J by central differences of the bends."""
    states = trembling(chain)
    steady = Steadiness.of(chain, states, STEP_S)
    blocks, gradient = steady.normal_equations(states)
    count, size = gradient.shape
    rng = np.random.default_rng(1)
    along = rng.normal(size=(count, size))

    def bends_m(h: float) -> np.ndarray:
        moved = [advance(s, h * a, chain) for s, a in zip(states, along, strict=True)]
        return np.diff(np.array([places(chain, s) for s in moved]), 2, axis=0)

    slope = (bends_m(1e-6) - bends_m(-1e-6)) / 2e-6
    expected = float(((slope**2).sum(2) * steady.weight).sum())
    found = sum(along[i] @ blocks[0, i] @ along[i] for i in range(count))
    for apart in (1, 2):
        found += 2 * sum(along[i + apart] @ blocks[apart, i] @ along[i] for i in range(count - apart))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_joint_at_rest_is_stiffer_than_one_that_moves(chain: Chain) -> None:
    """Only the left elbow bends: its wrist may turn quickly, the ankles may not tremble."""
    still = random_state(chain, 3)
    elbow = chain.limbs[0][1]
    states = []
    for k in range(12):
        pose = still.pose.copy()
        pose[elbow] += 0.1 * k
        states.append(State(pose, still.camera_from_body))
    weight = Steadiness.of(chain, states, STEP_S).weight
    wrist, ankles = np.flatnonzero(LANDMARKS == 15), np.flatnonzero(LANDMARKS >= 27)
    assert weight[:, ankles].min() > 10 * weight[:, wrist].max()


def test_a_leap_there_and_back_is_no_speed(chain: Chain) -> None:
    still = random_state(chain, 3)
    aside = advance(still, np.concatenate([np.zeros(chain.num_free + 3), [0.2, 0, 0]]), chain)
    states = [aside if k == 10 else still for k in range(21)]
    steady = Steadiness.of(chain, states, STEP_S)
    assert steady.weight[9].min() == steady.weight.max()  # of the leap itself
    assert steady.energy(states) > 1000 > 1e-9 > steady.energy([still] * 21)
