"""Legs that a detector exchanges for a while are named anew, others are left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from test_solve import observe_body, random_state

from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import default_prior
from fitting.keypoints import LANDMARK_NAMES, LEG_MIRROR, Keypoints
from fitting.legs import cheapest_path, follow_legs, passages, settle_legs
from fitting.observe import Observation
from fitting.solve import State

STEP_S = 1 / 30


@dataclass(frozen=True)
class Walk:
    """Stands for fitting.clip.Clip: what an ideal sensor sees, and landmarks that may be named wrongly."""

    seen: tuple[Observation, ...]
    keypoints: Keypoints
    step_s: float = STEP_S

    def __getitem__(self, index: int) -> Observation:
        words = self.keypoints
        return replace(
            self.seen[index],
            landmarks_px=words.points_px[index],
            visibility=words.visibility[index],
            confidence=words.visibility[index],
            world_m=words.world_m[index],
        )

    def with_legs_exchanged(self, frames: Sequence[int]) -> Walk:
        return replace(self, keypoints=self.keypoints.with_legs_exchanged(frames))


def striding(chain: Chain, phase_rad: float) -> State:
    """A person who faces the camera; the legs swing to and fro against each other, knees bent on the way forward."""
    still = random_state(chain, 0, spread_rad=0.0)
    pose = still.pose.copy()
    for side, leg in ((1, chain.limbs[2]), (-1, chain.limbs[3])):
        for joint, rad in ((leg[0], -0.45 * side * np.sin(phase_rad)), (leg[0] + 1, 0.0)):
            pose[joint, 0] += rad  # about the body's own left
    return State(pose, still.camera_from_body)


def walk_of(body: BodyModel, chain: Chain, states: list[State]) -> Any:
    seen = tuple(observe_body(body, chain, state, with_depth=True) for state in states)
    points_px, visibility, world_m = (
        np.array([getattr(o, name) for o in seen]) for name in ("landmarks_px", "visibility", "world_m")
    )
    return Walk(seen, Keypoints(points_px, visibility, world_m, np.zeros(len(seen), bool)))


def knees_m(chain: Chain, state: State) -> np.ndarray:
    rows = [LANDMARK_NAMES.index(f"{side}_{name}") for side in ("left", "right") for name in ("knee", "ankle")]
    return chain.posed(state.pose, state.camera_from_body)[chain.num_vertices :][rows]


@pytest.fixture(scope="module")
def truth(chain: Chain) -> list[State]:
    return [striding(chain, 0.9 + 0.08 * k) for k in range(14)]


def test_a_swing_moves_the_legs_apart(chain: Chain, truth: list[State]) -> None:
    _, left_ankle, _, right_ankle = knees_m(chain, truth[7])
    assert np.linalg.norm(left_ankle - right_ankle) > 0.4 and abs(left_ankle[2] - right_ankle[2]) > 0.3


def test_legs_exchanged_for_a_while_are_named_anew(body: BodyModel, chain: Chain, truth: list[State]) -> None:
    clip = walk_of(body, chain, truth)
    wrong = [6, 7, 8]
    misled = clip.with_legs_exchanged(wrong)
    # What a tracker makes of it that believes the names: the stride of the other foot.
    states = {i: striding(chain, -(0.9 + 0.08 * i)) if i in wrong else s for i, s in enumerate(truth)}
    settled_clip, settled = settle_legs(body, chain, misled, default_prior(body, chain), states)
    np.testing.assert_allclose(settled_clip.keypoints.points_px, clip.keypoints.points_px)
    np.testing.assert_allclose(settled_clip.keypoints.world_m, clip.keypoints.world_m)
    for i in wrong:
        assert np.abs(knees_m(chain, states[i]) - knees_m(chain, truth[i])).max() > 0.3
        assert np.abs(knees_m(chain, settled[i]) - knees_m(chain, truth[i])).max() < 0.06


def test_names_that_are_right_stay_where_a_pose_was_wrong(body: BodyModel, chain: Chain, truth: list[State]) -> None:
    clip = walk_of(body, chain, truth)
    states = {i: striding(chain, -1.4) if i == 7 else s for i, s in enumerate(truth)}
    settled_clip, settled = settle_legs(body, chain, clip, default_prior(body, chain), states)
    assert settled_clip is clip
    assert np.abs(knees_m(chain, settled[7]) - knees_m(chain, truth[7])).max() < 0.06


def test_where_nothing_leaps_nothing_is_asked(body: BodyModel, chain: Chain, truth: list[State]) -> None:
    clip = walk_of(body, chain, truth)
    states = dict(enumerate(truth))
    assert passages(chain, clip, states) == []
    settled_clip, settled = settle_legs(body, chain, clip, default_prior(body, chain), states)
    assert settled_clip is clip and settled == states


def test_a_passage_is_the_frames_around_a_leap_and_ends_at_a_gap(
    body: BodyModel, chain: Chain, truth: list[State]
) -> None:
    clip = walk_of(body, chain, truth)
    states = {i: striding(chain, -1.4) if i == 7 else s for i, s in enumerate(truth) if i != 10}
    assert passages(chain, clip, states) == [[3, 4, 5, 6, 7, 8, 9]]
    lonely = {i: states[i] for i in (5, 7, 9)}
    assert passages(chain, clip, lonely) == []


def test_legs_below_the_picture_are_not_asked_about(body: BodyModel, chain: Chain, truth: list[State]) -> None:
    clip = walk_of(body, chain, truth)
    states = {i: striding(chain, -1.4) if i == 7 else s for i, s in enumerate(truth)}
    assert passages(chain, clip, states)
    clip.keypoints.points_px[:, 25:] += (0, 10 * clip[0].camera.image_wh[1])
    assert passages(chain, clip, states) == []


def test_the_cheapest_path_is_the_cheapest_of_all() -> None:
    rng = np.random.default_rng(0)
    counts = (1, 3, 2, 4, 2, 1)
    shown = [rng.uniform(0, 30, k) for k in counts]
    places_m = [rng.normal(0, 0.1, (k, 4, 3)) for k in counts]

    def cost(path: tuple[int, ...]) -> float:
        p = np.array([places_m[i][k] for i, k in enumerate(path)])
        bends = p[2:] - 2 * p[1:-1] + p[:-2]
        return float(sum(shown[i][k] for i, k in enumerate(path)) + (bends**2).sum() / 0.05**2)

    paths = list(product(*(range(k) for k in counts)))
    assert tuple(cheapest_path(shown, places_m, 0.05)) == min(paths, key=cost)


def test_exchanging_legs_twice_changes_nothing_and_leaves_the_trunk(
    body: BodyModel, chain: Chain, truth: list[State]
) -> None:
    seen = observe_body(body, chain, truth[3], with_depth=False)
    once = seen.with_legs_exchanged()
    moved = np.flatnonzero((once.landmarks_px != seen.landmarks_px).any(1))
    assert {LANDMARK_NAMES[k].split("_", 1)[1] for k in moved} == {"knee", "ankle", "heel", "foot_index"}
    np.testing.assert_array_equal(once.with_legs_exchanged().landmarks_px, seen.landmarks_px)
    np.testing.assert_array_equal(LEG_MIRROR[LEG_MIRROR], np.arange(33))


def test_names_that_hop_are_followed_through_the_picture(body: BodyModel, chain: Chain, truth: list[State]) -> None:
    walk = walk_of(body, chain, truth)
    hopped = walk.with_legs_exchanged([5, 6, 7, 11])
    np.testing.assert_array_equal(follow_legs(hopped).keypoints.points_px, walk.keypoints.points_px)
    assert follow_legs(walk).keypoints is walk.keypoints


def test_legs_that_pass_each_other_keep_their_names(body: BodyModel, chain: Chain) -> None:
    """Seen from the side, knees and ankles meet in the picture and go on: that is no hop."""
    side = np.eye(4)
    side[:3, :3] = [[0, 0, -1], [0, 1, 0], [1, 0, 0]]
    states = []
    for k in range(14):
        state = striding(chain, -1.0 + 0.16 * k)
        root_m = state.camera_from_body[:3, 3]
        turn = np.eye(4)
        turn[:3, :3] = side[:3, :3] @ state.camera_from_body[:3, :3]
        turn[:3, 3] = root_m
        states.append(State(state.pose, turn))
    walk = walk_of(body, chain, states)
    apart_px = np.diff(walk.keypoints.points_px[:, [27, 28], 0], axis=1)[:, 0]
    assert apart_px.min() < -5 and apart_px.max() > 5  # they do pass
    assert follow_legs(walk).keypoints is walk.keypoints
