"""A hidden limb is where it can be on its way from where it was seen to where it is seen again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_batch import clip_of, painted
from test_solve import observe_body, random_state

from fitting import passes
from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.hidden import BESIDE_FRAMES, MAX_GAP_S, MIN_GAP_S, bridged, gaps
from fitting.limbs import LIMBS, Limb
from fitting.solve import State

STEP_S, COUNT = 1 / 30, 40
SEEN = Limb("left arm", drawn=0.006, beyond=0.0, gap_mm=5.0, alone=0.006, seen=0.9)
HIDDEN = replace(SEEN, drawn=0.0, alone=0.0, seen=0.2, gap_mm=float("nan"))
ARM = list(LIMBS).index("left arm")


def limbs(first: int, frames: int) -> dict[int, Limb]:
    return {i: HIDDEN if first <= i < first + frames else SEEN for i in range(COUNT)}


@pytest.fixture
def states(chain: Chain) -> dict[int, State]:
    """Somebody who moves at random from frame to frame."""
    return {i: random_state(chain, i, 0.3) for i in range(COUNT)}


def bridged_by(chain: Chain, states: dict[int, State], own: dict[int, Limb], after: Limb | None = None):
    """What becomes of the states; ``after``: how the limb looks when it was moved."""

    def limbs_of(index: int, state: State) -> dict[str, Limb]:
        limb = own[index] if state is states[index] or after is None else after
        return {name: replace(limb if name == "left arm" else SEEN, name=name) for name in LIMBS}

    return bridged(chain, states, limbs_of, STEP_S)


def test_a_hidden_arm_turns_steadily_from_one_side_to_the_other(chain: Chain, states: dict[int, State]) -> None:
    own = limbs(10, 9)
    result, count = bridged_by(chain, states, own)
    assert count == 1
    first, last = 10 - BESIDE_FRAMES, 18 + BESIDE_FRAMES
    rest = np.delete(np.arange(len(states[0].pose)), chain.limbs[ARM])
    for i in range(COUNT):
        np.testing.assert_array_equal(result[i].pose[rest], states[i].pose[rest])
        np.testing.assert_array_equal(result[i].camera_from_body, states[i].camera_from_body)
        is_moved = not np.array_equal(result[i].pose, states[i].pose)
        assert is_moved == (first < i < last)
    for joint in chain.limbs[ARM]:
        turns = Rotation.from_rotvec([result[i].pose[joint] for i in range(first, last + 1)])
        steps_rad = (turns[:-1].inv() * turns[1:]).magnitude()
        np.testing.assert_allclose(steps_rad, steps_rad.mean(), atol=1e-6)


@pytest.mark.parametrize("frames", [int(MIN_GAP_S / STEP_S) - 1, int(MAX_GAP_S / STEP_S) + 1])
def test_short_gaps_and_long_ones_are_left_alone(frames: int) -> None:
    own = {i: HIDDEN if 10 <= i < 10 + frames else SEEN for i in range(100)}
    assert gaps(own, STEP_S) == []


def test_a_gap_at_the_end_of_the_clip_has_no_other_side() -> None:
    assert gaps(limbs(COUNT - 10, 10), STEP_S) == []
    assert gaps(limbs(0, 10), STEP_S) == []


def test_a_lost_frame_within_says_nothing_of_where_the_limb_went() -> None:
    own = limbs(10, 15)
    del own[17]
    assert gaps(own, STEP_S) == []


def test_a_limb_out_of_the_picture_is_not_hidden() -> None:
    own = {i: replace(limb, seen=float("nan")) for i, limb in limbs(10, 9).items()}
    assert gaps(own, STEP_S) == []


@pytest.mark.parametrize("between", [1, 2])
def test_what_shows_up_for_a_moment_between_two_gaps_is_no_side_of_either(
    chain: Chain, states: dict[int, State], between: int
) -> None:
    own = {i: HIDDEN if 10 <= i < 20 or 20 + between <= i < 30 + between else SEEN for i in range(COUNT)}
    assert gaps(own, STEP_S) == []
    result, count = bridged_by(chain, states, own)
    assert count == 0 and all(result[i] is states[i] for i in states)


def test_two_gaps_with_time_between_them_are_two() -> None:
    own = {i: HIDDEN if 8 <= i < 18 or 21 <= i < 30 else SEEN for i in range(COUNT)}
    assert gaps(own, STEP_S) == [(6, 19), (19, 31)]


@pytest.mark.parametrize(
    "now, is_moved",
    [({"gap_mm": 20.0}, True), ({"gap_mm": 60.0}, False), ({"off": 0.02}, True), ({"off": 0.05}, False)],
)
def test_beside_a_gap_an_arm_stays_where_it_is_seen(chain: Chain, states: dict[int, State], now, is_moved) -> None:
    own = limbs(10, 9)

    def limbs_of(index: int, state: State) -> dict[str, Limb]:
        limb = own[index]
        if limb is SEEN and state is not states[index]:
            limb = replace(SEEN, **now)
        return {name: replace(limb if name == "left arm" else SEEN, name=name) for name in LIMBS}

    assert bridged(chain, states, limbs_of, STEP_S)[1] == is_moved


@pytest.mark.parametrize("after", [replace(HIDDEN, beyond=0.0003), replace(SEEN, drawn=0.004)])
def test_a_way_on_which_the_arm_would_be_seen_is_none(chain: Chain, states: dict[int, State], after: Limb) -> None:
    result, count = bridged_by(chain, states, limbs(10, 9), after)
    assert count == 0
    assert all(result[i] is states[i] for i in states)


def test_the_fit_bridges_what_all_other_passes_left(body: BodyModel, chain: Chain, monkeypatch) -> None:
    state = random_state(chain, 3, 0.05)
    clip = clip_of([observe_body(body, chain, state, True)] * 5, [painted(body, chain, state)] * 5)
    asked: list[dict[str, Limb]] = []

    def shifted(chain: Chain, states: dict[int, State], limbs_of, step_s: float):
        assert step_s == clip.step_s
        asked.append(limbs_of(2, states[2]))
        moved = states[2].camera_from_body.copy()
        moved[0, 3] += 1.0
        return {**states, 2: State(states[2].pose, moved)}, 1

    monkeypatch.setattr(passes, "bridged", shifted)
    monkeypatch.setattr(passes, "find_floor", lambda clip, ankles_m: None)  # no room was filmed here
    found = passes.fit_clip(body, np.zeros(body.num_shape), clip, 0, False, False)
    assert list(asked[0]) == list(LIMBS)
    assert found.states[2].camera_from_body[0, 3] > found.states[1].camera_from_body[0, 3] + 0.5
