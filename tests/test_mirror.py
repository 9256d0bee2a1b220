"""The other way a limb may point: joints allow it, the picture looks the same, and something else must tell."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pytest
from test_batch import clip_of, painted
from test_solve import observe_body, random_state

from capture.workers import Workers
from fitting import contest
from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import default_prior
from fitting.contest import APART_M, FIT, SURE, Frame, Settled, over_time
from fitting.evidence import Evidence
from fitting.limbs import ENDS
from fitting.mirror import REACHED_M, apart, margins, mirrored, turned, until_clear
from fitting.passes import returned
from fitting.solve import Prior, State, advance
from fitting.verdict import MIN_MARGIN

ARM, FRAME = list(ENDS).index("left arm"), 4


def ends_m(chain: Chain, state: State, limb: int) -> np.ndarray:
    """(2, 3) middle and end of a limb."""
    landmarks_m = chain.posed(state.pose, state.camera_from_body)[chain.num_vertices :]
    return landmarks_m[list(list(ENDS.values())[limb][1:])]


@pytest.fixture(scope="module")
def pointing(body: BodyModel, chain: Chain) -> State:
    """A standing person whose left arm points forward: far from the picture's plane."""
    state = random_state(chain, 3, 0.05)
    pose = state.pose.copy()
    pose[body.joint_index("upperarm01.L")] = (0.5, -0.6, 0.8)
    return State(pose, state.camera_from_body)


@pytest.fixture(scope="module")
def others(body: BodyModel, chain: Chain, pointing: State) -> list[State]:
    return [state for _, state in mirrored(chain, pointing, default_prior(body, chain), [ARM])]


def test_a_mirrored_limb_looks_the_same_and_is_elsewhere(chain: Chain, pointing: State, others: list[State]) -> None:
    assert others
    here_m = ends_m(chain, pointing, ARM)
    for state in others:
        there_m = ends_m(chain, state, ARM)
        across_m = (there_m[:, :2] / there_m[:, 2:] - here_m[:, :2] / here_m[:, 2:]) * here_m[:, 2:]
        assert np.abs(across_m).max() < REACHED_M
        rest = np.delete(np.arange(len(state.pose)), chain.limbs[ARM])
        np.testing.assert_allclose(state.pose[rest], pointing.pose[rest], atol=1e-6)
    assert max(np.linalg.norm(ends_m(chain, s, ARM) - here_m, axis=1).max() for s in others) > APART_M


def test_joints_that_do_not_bend_that_way_are_no_other_pose(body: BodyModel, chain: Chain, pointing: State) -> None:
    prior = default_prior(body, chain)
    own = np.isin(chain.free_joint, chain.limbs[ARM])
    dofs = chain.dofs(pointing.pose)
    stiff = Prior(
        prior.mean, prior.weight, np.where(own, dofs - 0.02, prior.lower), np.where(own, dofs + 0.02, prior.upper)
    )
    assert furthest_m(chain, pointing, stiff) < 0.6 * furthest_m(chain, pointing, prior)


def furthest_m(chain: Chain, state: State, prior: Prior) -> float:
    here_m = ends_m(chain, state, ARM)
    found = mirrored(chain, state, prior, [ARM])
    return max((np.linalg.norm(ends_m(chain, s, ARM) - here_m, axis=1).max() for _, s in found), default=0.0)


def scene(
    body: BodyModel, chain: Chain, truth: State, with_depth: bool, count: int = 9
) -> tuple[Any, dict[int, State]]:
    """Frames of a person who sways: the clip and the true states."""
    states = {}
    for k in range(count):
        step = np.zeros(chain.num_free + 6)
        step[chain.num_free + 1] = 0.02 * (k - FRAME)
        states[k] = advance(truth, step, chain)
    seen = [observe_body(body, chain, state, with_depth) for state in states.values()]
    return clip_of(seen, [painted(body, chain, state) for state in states.values()]), states


def margin_of(body: BodyModel, chain: Chain, clip: Any, states: dict[int, State], colors: dict[int, State]) -> float:
    evidence = Evidence.of(body, chain, clip, colors)
    asked = {i: ["left arm"] if i == FRAME else [] for i in states}
    return float(margins(evidence, states, len(states), asked)[0][FRAME, ARM])


def test_the_true_pose_has_a_margin_and_the_mirrored_one_a_debt(body, chain, pointing, others) -> None:
    clip, truth = scene(body, chain, pointing, with_depth=False)
    right = margin_of(body, chain, clip, truth, truth)
    here_m = ends_m(chain, pointing, ARM)
    other = max(others, key=lambda state: np.linalg.norm(ends_m(chain, state, ARM) - here_m, axis=1).max())
    wrong_states = truth | {FRAME: other}
    wrong = margin_of(body, chain, clip, wrong_states, truth)
    assert right > 0 > wrong


def test_a_limb_that_points_the_wrong_way_is_turned_back_and_a_right_one_is_left(body, chain, pointing, others) -> None:
    clip, truth = scene(body, chain, pointing, with_depth=False)
    asked = {i: ["left arm"] for i in truth}
    joints = chain.limbs[ARM]
    here_m = ends_m(chain, pointing, ARM)
    other = max(others, key=lambda state: np.linalg.norm(ends_m(chain, state, ARM) - here_m, axis=1).max())
    wrong = {}
    for i, state in truth.items():
        pose = state.pose.copy()
        pose[joints] = other.pose[joints]
        wrong[i] = State(pose, state.camera_from_body)
    evidence = Evidence.of(body, chain, clip, truth)
    turned_back, count = turned(evidence, wrong, len(truth), asked)
    before_m, after_m = (
        np.mean([np.linalg.norm(ends_m(chain, s[i], ARM) - ends_m(chain, truth[i], ARM), axis=1).max() for i in truth])
        for s in (wrong, turned_back)
    )
    assert count >= 5 and after_m < 0.5 * before_m
    assert turned(evidence, truth, len(truth), asked)[1] == 0


def with_arm_in_the_trunk(body: BodyModel, state: State, side: str = "L") -> State:
    pose = state.pose.copy()
    pose[body.joint_index(f"upperarm01.{side}")] += (0.0, 0.7, 0.5) if side == "L" else (0.0, -0.7, -0.5)
    return State(pose, state.camera_from_body)


def test_an_arm_that_the_second_tracking_lost_in_the_trunk_goes_back_to_where_the_first_had_it(body, chain) -> None:
    state = random_state(chain, 5, 0.02)
    clip, truth = scene(body, chain, state, with_depth=True)
    lost = {i: with_arm_in_the_trunk(body, right) for i, right in truth.items()}
    before = truth | {1: lost[1]}  # one frame was wrong before, too
    assert apart(chain, lost, before, 0.1)[FRAME] == ["left arm"] and apart(chain, lost, before, 0.1)[1] == []
    found = returned(body, chain, clip, lost, before)
    for i in set(truth) - {1}:
        assert np.linalg.norm(ends_m(chain, found[i], ARM) - ends_m(chain, truth[i], ARM), axis=1).max() < 0.1
    kept = returned(body, chain, clip, truth, lost)  # what was worse before is not returned to
    assert all(np.array_equal(kept[i].pose, truth[i].pose) for i in truth)


def test_depth_widens_the_margin(body, chain, pointing) -> None:
    flat, deep = (
        margin_of(body, chain, *(case := scene(body, chain, pointing, with_depth)), case[1])
        for with_depth in (False, True)
    )
    assert deep > flat or deep == SURE


def test_limbs_nobody_asks_for_are_sure(body, chain, pointing) -> None:
    clip, states = scene(body, chain, pointing, with_depth=False)
    found, others = margins(Evidence.of(body, chain, clip, states), states, 9, {i: [] for i in states})
    assert not others
    np.testing.assert_array_equal(found, np.full((9, 4), SURE))


@pytest.mark.parametrize("is_broken", [False, True])
def test_other_processes_find_the_very_same_poses_and_nothing_is_lost_with_them(
    body, chain, pointing, monkeypatch, is_broken
) -> None:
    clip, states = scene(body, chain, pointing, with_depth=True)
    evidence, asked = Evidence.of(body, chain, clip, states), {i: ["left arm", "right arm"] for i in states}
    found = [margins(evidence, states, 9, asked)]
    given, give, batches, map_all = [], Workers._give, [], Workers.map

    def noted(*work: Any) -> Any:
        given.append(work)
        return give(*work)

    def broken(*work: Any) -> Any:
        batches.append(work)
        if is_broken and len(batches) > 1:
            raise BrokenProcessPool
        return map_all(*work)

    for name, value in (("MANY", 2), ("AT_ONCE", 2), ("BATCH", 1), ("num_cores", lambda: 2)):
        monkeypatch.setattr(contest, name, value)
    monkeypatch.setattr(Workers, "_give", noted)
    monkeypatch.setattr(Workers, "map", broken)
    found.append(margins(evidence, states, 9, asked))
    assert given and len(batches) > 1  # to another process
    (here, others), (there, their_others) = found
    np.testing.assert_array_equal(here, there)
    assert others and others.keys() == their_others.keys()
    assert all(np.array_equal(state.pose, their_others[key].pose) for key, state in others.items())


def test_doubt_lasts_until_a_frame_is_clear() -> None:
    own = np.array([SURE, 8.0, 3.0, MIN_MARGIN - 0.1, MIN_MARGIN, 8.0, 8.5, 20.0, 8.0, -4.0, 8.0, SURE])
    held = until_clear(np.column_stack([own, np.full(len(own), SURE)]), 1.0)  # each frame by itself
    np.testing.assert_allclose(held[:, 0], [SURE, 3, 3, 3, MIN_MARGIN, 8, 8, 20, 0, -4, 0, SURE])
    np.testing.assert_array_equal(held[:, 1], SURE)


def test_a_frame_that_is_not_clear_itself_shares_the_doubt_of_those_beside_it() -> None:
    own = np.array([4.0, 4.0, 4.0, 6.0, 40.0, 40.0, 40.0])
    held = until_clear(np.tile(own[:, None], (1, 4)), 0.1)  # means of three frames: the fourth one's is clear
    np.testing.assert_allclose(held[:4, 0], 4.0)
    assert (held[4:, 0] > MIN_MARGIN).all()


def test_a_wrong_limb_is_no_reproach_to_the_others() -> None:
    """Turning the arm mends the frame; a pose of the leg that is cheaper than the frame as it was proves nothing."""
    here, elsewhere = np.zeros(len(ENDS)), 2 * APART_M * np.eye(len(ENDS))
    leg = list(ENDS).index("left leg")
    fit, turned_arm, lifted_leg = (State(np.zeros((1, 3)), np.eye(4)) for _ in range(3))
    frame = object.__new__(Frame)
    frame.settled = [
        Settled(FIT, fit, here, (100.0, 0.0)),
        Settled(ARM, turned_arm, elsewhere[ARM], (60.0, 0.0)),
        Settled(leg, lifted_leg, elsewhere[leg], (90.0, 0.0)),
    ]
    for limb, margin, state in ((ARM, -30.0, turned_arm), (leg, 30.0, lifted_leg), (1, SURE, None)):
        found = frame.margin(limb)
        assert found[0] == margin and found[1] is state


def test_margins_are_means_but_a_loud_frame_is_doubted() -> None:
    raw = np.full((40, len(ENDS)), 12.0)
    raw[20, ARM] = -6.0
    quick, slow = (until_clear(raw, step_s)[:, ARM] for step_s in (1 / 30, 1 / 15))  # means over nine and five frames
    assert [np.count_nonzero(m < 12) for m in (quick, slow)] == [9, 5]
    np.testing.assert_allclose([quick[20], slow[20]], [12 - 18 / 9, max(12 - 18 / 5, 0)])
    raw[20, ARM] = -30.0
    assert over_time(raw, 9)[20, ARM] > 0 and until_clear(raw, 1 / 30)[20, ARM] == -30.0
    raw[19:22, ARM] = SURE  # frames without another pose have no say
    np.testing.assert_allclose(over_time(raw, 9)[:19, ARM], 12.0)
