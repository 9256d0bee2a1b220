"""An arm that tracking lost is found again where the person has it at other times, and one that is right stays."""

from dataclasses import fields

import numpy as np
import pytest
from test_mirror import ARM, ends_m, scene, with_arm_in_the_trunk
from test_solve import random_state

from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.contest import Frame
from fitting.evidence import Evidence
from fitting.limbs import ENDS
from fitting.recall import USUAL, recalled, usual_frames
from fitting.solve import State

COUNT, LOST_FROM = 18, 8


@pytest.fixture(scope="module")
def clip_and_truth(body: BodyModel, chain: Chain):
    return scene(body, chain, random_state(chain, 5, 0.02), with_depth=True, count=COUNT)


def test_an_arm_lost_for_the_rest_of_a_clip_comes_back_from_before(body, chain, clip_and_truth) -> None:
    clip, truth = clip_and_truth
    states = {i: s if i < LOST_FROM else with_arm_in_the_trunk(body, s) for i, s in truth.items()}
    found, count = recalled(Evidence.of(body, chain, clip, states), states, states, COUNT)
    off_m = {i: np.linalg.norm(ends_m(chain, found[i], ARM) - ends_m(chain, right, ARM)) for i, right in truth.items()}
    assert max(off_m.values()) < 0.1 and count >= COUNT - LOST_FROM
    others = np.delete(np.arange(len(body.parents)), chain.limbs[ARM])
    for i in truth:
        np.testing.assert_array_equal(found[i].pose[others], states[i].pose[others])
        np.testing.assert_array_equal(found[i].camera_from_body, states[i].camera_from_body)


def test_both_arms_come_back_and_neither_takes_the_credit_for_the_other(body, chain, clip_and_truth) -> None:
    clip, truth = clip_and_truth
    lost = {i: with_arm_in_the_trunk(body, with_arm_in_the_trunk(body, s), "R") for i, s in truth.items()}
    states = {i: s if i < LOST_FROM else lost[i] for i, s in truth.items()}
    found, _ = recalled(Evidence.of(body, chain, clip, states), states, states, COUNT)
    for limb in (ARM, list(ENDS).index("right arm")):
        off_m = [np.linalg.norm(ends_m(chain, found[i], limb) - ends_m(chain, truth[i], limb)) for i in truth]
        assert max(off_m) < 0.1


def test_one_misleading_frame_moves_nothing(body, chain, clip_and_truth, monkeypatch) -> None:
    clip, truth = clip_and_truth
    elsewhere = with_arm_in_the_trunk(body, truth[0])
    monkeypatch.setattr(
        Frame, "margin", lambda frame, limb, than, apart_m: (-40.0 if frame.fit is truth[6] else 12.0, elsewhere)
    )
    assert recalled(Evidence.of(body, chain, clip, truth), truth, truth, COUNT)[1] == 0


def test_arms_that_are_right_stay_and_a_frame_gone_wrong_convinces_nobody(body, chain, clip_and_truth) -> None:
    clip, truth = clip_and_truth
    states = truth | {6: with_arm_in_the_trunk(body, truth[6])}  # one that competes everywhere
    found, _ = recalled(Evidence.of(body, chain, clip, truth), states, states, COUNT)
    assert all(found[i] is states[i] for i in states if i != 6)


@pytest.mark.parametrize("margin", [-3.0, -8.0])
def test_what_is_hardly_better_is_no_reason_to_move_an_arm(body, chain, clip_and_truth, monkeypatch, margin) -> None:
    clip, truth = clip_and_truth
    elsewhere = with_arm_in_the_trunk(body, truth[0])
    monkeypatch.setattr(Frame, "margin", lambda frame, limb, than, apart_m: (margin, elsewhere))
    _, count = recalled(Evidence.of(body, chain, clip, truth), truth, truth, COUNT)
    assert (count > 0) == (margin < -5)


class _GoingAstray(Evidence):
    """Each frame by itself leads away from whatever it begins with."""

    def settled(self, index: int, state: State) -> State:
        return super().settled(index, with_arm_in_the_trunk(self.body, state))


def test_poses_compete_as_they_are_where_a_frame_alone_leads_astray(body, chain, clip_and_truth) -> None:
    clip, truth = clip_and_truth
    states = {i: s if i < LOST_FROM else with_arm_in_the_trunk(body, s) for i, s in truth.items()}
    evidence = Evidence.of(body, chain, clip, states)
    astray = _GoingAstray(**{field.name: getattr(evidence, field.name) for field in fields(Evidence)})
    found, _ = recalled(astray, states, states, COUNT)
    off_m = {i: np.linalg.norm(ends_m(chain, found[i], ARM) - ends_m(chain, right, ARM)) for i, right in truth.items()}
    assert max(off_m.values()) < 0.1


def test_frames_without_a_pose_are_passed_over(body, chain, clip_and_truth) -> None:
    clip, truth = clip_and_truth
    states = {i: s if i < LOST_FROM else with_arm_in_the_trunk(body, s) for i, s in truth.items() if i not in (6, 12)}
    found, count = recalled(Evidence.of(body, chain, clip, states), states, states, COUNT)
    last = ends_m(chain, found[COUNT - 1], ARM) - ends_m(chain, truth[COUNT - 1], ARM)
    assert count and np.linalg.norm(last) < 0.1  # a run that begins with a wrong frame is asked there


def test_usual_poses_are_the_middles_of_groups_and_never_more_than_there_are(body: BodyModel, chain: Chain) -> None:
    state, joint = random_state(chain, 1, 0.0), body.joint_index("upperarm01.L")
    rng = np.random.default_rng(0)

    def lifted(by_rad: float) -> State:
        pose = state.pose.copy()
        pose[joint] += (0, 0, by_rad)
        return State(pose, state.camera_from_body)

    groups = np.repeat([0.0, -0.6, -1.2], [20, 6, 3])
    states = {10 + k: lifted(by + rng.normal(0, 0.01)) for k, by in enumerate(groups)}
    chosen = usual_frames(chain, states, ARM)
    assert sorted(groups[i - 10] for i in chosen) == [-1.2, -0.6, 0.0]
    assert len(usual_frames(chain, {i: lifted(-0.03 * i) for i in range(60)}, ARM)) == USUAL
    other = list(ENDS).index("right arm")
    assert len(usual_frames(chain, states, other)) == 1  # which did not move
    assert usual_frames(chain, {3: state}, ARM) == [3]
