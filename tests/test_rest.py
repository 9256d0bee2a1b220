"""Feet that rest in the picture are held in space; feet that move, hide or leave the picture are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_batch import clip_of, turned
from test_solve import observe_body, random_state

from fitting.batch import refine
from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import default_prior
from fitting.keypoints import LANDMARK_NAMES
from fitting.rest import resting
from fitting.solve import advance
from fitting.steady import ANKLES, LANDMARKS, Steadiness, places

STEP_S, COUNT = 1 / 30, 16
LEFT_FOOT = [LANDMARK_NAMES.index(f"left_{name}") for name in ("ankle", "heel", "foot_index")]


class Landmarks:
    """A clip's landmarks and the height of the person on its grid; no pictures."""

    def __init__(self, clip: Any, points_px: np.ndarray, visibility: np.ndarray) -> None:
        self._clip, self.camera = clip, clip.camera
        self.keypoints = type("Words", (), {"points_px": points_px, "visibility": visibility})

    def __getitem__(self, index: int) -> Any:
        return self._clip[0]


@pytest.fixture(scope="module")
def standing(body: BodyModel, chain: Chain) -> tuple[Any, np.ndarray, np.ndarray]:
    """A clip, its landmarks (N, 33, 2) of somebody who stands still, and their visibility."""
    seen = observe_body(body, chain, random_state(chain, 0, spread_rad=0.0), with_depth=False)
    points_px = np.repeat(seen.landmarks_px[None], COUNT, axis=0)
    assert ((points_px[:, LEFT_FOOT] > 0) & (points_px[:, LEFT_FOOT] < seen.camera.image_wh)).all()
    return clip_of([seen]), points_px, np.ones((COUNT, 33))


def rests(standing: Any, points_px: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    clip: Any = Landmarks(standing[0], points_px, visibility)
    return resting(clip, list(range(COUNT)), STEP_S)


def test_feet_that_stand_rest_in_spite_of_the_detectors_scatter(standing: Any) -> None:
    clip, points_px, visibility = standing
    scatter_px = 0.002 * clip[0].standing_px
    noisy_px = points_px + np.random.default_rng(0).normal(0, scatter_px, points_px.shape)
    assert rests(standing, noisy_px, visibility).mean() > 0.9


def test_a_foot_that_swings_does_not_rest_and_the_other_one_does(standing: Any) -> None:
    clip, points_px, visibility = standing
    swing_px = points_px.copy()
    m_per_s = 0.5
    swing_px[:, LEFT_FOOT, 0] += (m_per_s * STEP_S / 1.7 * clip[0].standing_px * np.arange(COUNT))[:, None]
    found = rests(standing, swing_px, visibility)
    assert not found[:, 0].any() and found[:, 1].all()


@pytest.mark.parametrize("why", ["unseen", "missing", "out of the picture"])
def test_a_foot_that_nobody_sees_does_not_rest(standing: Any, why: str) -> None:
    _, points_px, visibility = (np.copy(a) if isinstance(a, np.ndarray) else a for a in standing)
    if why == "unseen":
        visibility[:, LEFT_FOOT] = 0.2
    elif why == "missing":
        points_px[:, LEFT_FOOT] = np.nan
    else:
        points_px[:, LEFT_FOOT, 0] = -3.0
    found = rests(standing, points_px, visibility)
    assert not found[:, 0].any() and found[:, 1].all()


def test_a_short_stop_is_no_rest(standing: Any) -> None:
    clip, points_px, visibility = standing
    swing_px = points_px.copy()
    way = np.abs(np.arange(COUNT) - COUNT // 2)  # there and back
    swing_px[:, LEFT_FOOT, 0] += (2.0 * STEP_S / 1.7 * clip[0].standing_px * way)[:, None]
    assert not rests(standing, swing_px, visibility)[:, 0].any()


def test_what_rests_is_part_of_the_energy_and_its_gradient(chain: Chain) -> None:
    state = random_state(chain, 3)
    states = [turned(chain, state, 0.04 * k) for k in range(5)]
    rest = np.zeros((4, 2), bool)
    rest[1, 0] = True
    plain, held = Steadiness.of(chain, states, STEP_S), Steadiness.of(chain, states, STEP_S, rest)
    step_m = np.diff(np.array([places(chain, s) for s in states]), axis=0)[1, ANKLES][0]
    weight = held.rest[1, ANKLES][0]
    assert weight > 0 and np.count_nonzero(held.rest) == 1 and len(LANDMARKS[ANKLES]) == 2
    np.testing.assert_allclose(held.energy(states) - plain.energy(states), weight * (step_m**2).sum(), rtol=1e-9)
    _, gradient = held.normal_equations(states)
    along = np.random.default_rng(0).normal(size=gradient.shape)
    ends = [held.energy([advance(s, h * a, chain) for s, a in zip(states, along, strict=True)]) for h in (-1e-6, 1e-6)]
    np.testing.assert_allclose((ends[1] - ends[0]) / 2e-6, 2 * (gradient * along).sum(), rtol=1e-4)


def test_feet_that_rest_hold_a_body_that_seems_to_drift(body: BodyModel, chain: Chain, monkeypatch: Any) -> None:
    """In some frames everything above the ankles looks as if it stood further away; the feet have not moved."""
    state = random_state(chain, 0, spread_rad=0.0)
    step = np.zeros(chain.num_free + 6)
    step[-1] = 0.3
    near, far = (observe_body(body, chain, s, with_depth=False) for s in (state, advance(state, step, chain)))
    to_near_px = far.landmarks_px.copy()
    feet = [
        k for k, name in enumerate(LANDMARK_NAMES) if name.split("_", 1)[1:] in (["ankle"], ["heel"], ["foot_index"])
    ]
    to_near_px[feet] = near.landmarks_px[feet]
    clip = clip_of([replace(far, landmarks_px=to_near_px) if 5 <= k < 11 else near for k in range(COUNT)])

    def drift_m() -> float:
        refined = refine(body, chain, clip, default_prior(body, chain), dict.fromkeys(range(COUNT), state), rounds=3)
        return float(np.ptp([places(chain, refined[k])[ANKLES, 2] for k in range(COUNT)], axis=0).max())

    held_m = drift_m()
    monkeypatch.setattr("fitting.batch.resting", lambda clip, frames, step_s: np.zeros((len(frames) - 1, 2), bool))
    assert held_m < 0.5 * drift_m()
