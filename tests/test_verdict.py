"""Which frames are believed: every kind of wrongness is named, and what is right or merely fast is left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fitting import verdict
from fitting.body.model import BodyModel
from fitting.limbs import Limb, limb_figures, parts_of_limbs
from fitting.observe import Observation, observe
from fitting.verdict import (
    LOST,
    TRACKED,
    UNCERTAIN,
    Figures,
    Verdict,
    flip_frames,
    judge,
    judge_clip,
    jumps_m,
    trunk_ahead,
)

RIGHT = Figures(12.0, 600.0, 0.92, 6.0, 8.0, 0, 0.02)
ARM = Limb("left arm", 0.006, 0.0002, 9.0, 0.0, 0.99)
OTHER_ARM = replace(ARM, name="right arm")


def test_a_frame_that_is_right_is_tracked_without_a_word():
    judged = judge(replace(RIGHT, limbs=(ARM,)))
    assert judged == Verdict(TRACKED) and judged.is_sound and not judged.words


@pytest.mark.parametrize(
    ("wrong", "status", "words"),
    [
        ({"landmark_px": 84.0}, LOST, "landmarks 84 px off"),
        ({"landmark_px": 40.0}, UNCERTAIN, "landmarks 40 px off"),
        ({"silhouette_iou": 0.2}, LOST, "silhouette overlap only 0.20"),
        ({"silhouette_iou": 0.41}, UNCERTAIN, "silhouette overlap only 0.41"),
        ({"depth_mm": 60.0}, UNCERTAIN, "depth 60 mm off"),
        ({"facing_deg": 170.0}, UNCERTAIN, "faces 170 degrees away from what the picture says"),
        ({"flip_frames": 3}, UNCERTAIN, "facing changed for 3 frames only"),
        ({"flip_frames": 1}, UNCERTAIN, "facing changed for 1 frame only"),
        ({"jump_m": 0.5}, UNCERTAIN, "a joint jumps 50 cm and back"),
    ],
)
def test_each_wrongness_is_named(wrong, status, words):
    assert judge(replace(RIGHT, **wrong)) == Verdict(status, words)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"gap_mm": 300.0}, "300 mm off in depth"),
        ({"beyond": 0.005}, "is drawn beside the person"),
        ({"seen": 0.1}, "is hidden, its place a guess"),
        ({"off": 2.5 * verdict.MAX_OFF}, "is not where it is surely seen"),
        ({"jump_m": 0.4}, "jumps 40 cm and back"),
        ({"margin": 2.0}, "could as well point the other way"),
        ({"margin": -9.0}, "explains the picture better in another pose"),
    ],
)
def test_a_wrong_limb_is_named_and_leaves_the_frame_tracked(wrong, words):
    judged = judge(replace(RIGHT, limbs=(replace(ARM, **wrong), OTHER_ARM)))
    assert judged == Verdict(TRACKED, "", {"left arm": words})
    assert not judged.is_sound and judged.words == f"left arm {words}"


def test_a_frame_with_all_of_its_limbs_in_doubt_is_in_doubt_itself():
    limbs = [replace(ARM, name=name, gap_mm=300.0) for name in ("left arm", "right arm", "left leg", "right leg")]
    assert judge(replace(RIGHT, limbs=tuple(limbs[:3]))).status == TRACKED
    whole = judge(replace(RIGHT, limbs=tuple(limbs)))
    assert whole.status == UNCERTAIN and whole.reason.startswith("left arm 300 mm off in depth, right arm")


def test_what_was_not_measured_speaks_neither_for_nor_against():
    nan = float("nan")
    unmeasured = replace(RIGHT, depth_mm=nan, facing_deg=nan, jump_m=nan, limbs=(replace(ARM, gap_mm=nan, seen=nan),))
    assert judge(unmeasured).is_sound


def test_a_hidden_limb_that_is_hidden_in_the_fit_as_well_does_no_harm():
    assert judge(replace(RIGHT, limbs=(replace(ARM, seen=0.05, drawn=0.0),))).is_sound


def test_a_limb_that_the_outline_shows_needs_no_detector():
    assert judge(replace(RIGHT, limbs=(replace(ARM, seen=0.05, alone=0.004),))).is_sound


def test_the_outline_does_not_vouch_for_a_limb_that_sticks_out_of_it():
    # An arm behind the back, drawn on the wrong side: the little of it that the outline shows is the trunk's.
    astray = replace(ARM, seen=0.2, drawn=0.008, alone=0.002, beyond=0.002)
    assert judge(replace(RIGHT, limbs=(astray,))).limbs == {"left arm": "is hidden, its place a guess"}
    for harmless in ({"beyond": 0.0005}, {"alone": 0.005}, {"seen": 0.9}):
        assert judge(replace(RIGHT, limbs=(replace(astray, **harmless),))).is_sound


def test_a_limb_that_is_not_drawn_may_point_where_it_likes():
    assert judge(replace(RIGHT, limbs=(replace(ARM, margin=-9.0, drawn=0.0003),))).is_sound


@pytest.mark.parametrize(
    ("change", "is_sound"),
    [
        ({"off": 0.01}, True),  # a racket arm is faster than its mask; the detector sees it
        ({"off": 0.05}, False),
        ({"off": float("nan")}, False),
        ({"off": 0.01, "gap_mm": 200.0}, False),
    ],
)
def test_the_detector_vouches_for_a_limb_beside_the_mask_unless_depth_objects(change, is_sound):
    assert judge(replace(RIGHT, limbs=(replace(ARM, beyond=0.005, **change),))).is_sound == is_sound


@pytest.mark.parametrize(
    ("change", "is_vouched"),
    [
        ({}, True),  # most of it fills the outline on its own, and depth is there too
        ({"alone": 0.002}, False),
        ({"gap_mm": float("nan")}, False),
        ({"off": 0.05}, False),
        ({"drawn": 0.001, "alone": 0.001}, False),
    ],
)
def test_outline_and_depth_vouch_for_a_limb_unless_the_detector_objects(change, is_vouched):
    assert verdict.vouched(replace(ARM, **({"alone": 0.005} | change))) == is_vouched


def test_a_limb_is_in_question_where_it_is_drawn_and_no_depth_confirms_it():
    def asked(**change):
        return verdict.in_question(replace(RIGHT, limbs=(replace(ARM, **change),)))

    assert asked(gap_mm=float("nan")) == ["left arm"] and asked(gap_mm=300.0) == ["left arm"]
    assert not asked() and not asked(gap_mm=float("nan"), drawn=0.0001)


@pytest.mark.parametrize("step_deg", [0, 5, 24])
def test_turning_however_long_is_no_flip(step_deg):
    assert not flip_frames(facing(np.arange(60) * step_deg)).any()


@pytest.mark.parametrize("step_deg", [0.0, 4.0, 12.0])
def test_a_turn_there_and_back_in_a_moment_is_a_flip(step_deg):
    degrees = np.arange(80) * step_deg
    degrees[40:45] += 180
    assert np.flatnonzero(flip_frames(facing(degrees))).tolist() == [40, 41, 42, 43, 44]
    assert set(flip_frames(facing(degrees))[40:45]) == {5}


def test_a_leap_that_stays_is_no_excursion():
    """Nobody knows which side of it is wrong; the other figures must say."""
    degrees = np.where(np.arange(60) < 30, 0.0, 180.0)
    assert not flip_frames(facing(degrees)).any()


def test_steady_motion_never_jumps_and_a_spike_does():
    joints_m = np.linspace(0, 6, 31)[:, None, None] * np.ones((31, 4, 3)) / np.sqrt(3)  # 0.2 m a frame: a fast hand
    assert np.nanmax(jumps_m(joints_m)) < 1e-9
    joints_m[15, 2] += (0, 0.5, 0)
    assert np.argwhere(jumps_m(joints_m) > verdict.MAX_JUMP_M).tolist() == [[15, 2]]  # the neighbours are innocent
    assert np.isnan(jumps_m(joints_m)[[0, -1]]).all()


def test_a_clip_judges_each_frame_by_its_neighbours_too():
    count = 40
    joints_m, degrees = np.zeros((count, 3, 3)), np.zeros(count)
    joints_m[7], degrees[20:23] = 0.6, 180
    figures: list[Figures | None] = [RIGHT] * count
    figures[30], figures[33] = None, replace(RIGHT, landmark_px=200.0)
    verdicts = judge_clip(figures, facing(degrees), joints_m, {})
    assert {i: judged.words for i, judged in enumerate(verdicts) if judged.status == UNCERTAIN} == {
        7: "a joint jumps 104 cm and back",
        **dict.fromkeys((20, 21, 22), "facing changed for 3 frames only"),
        **dict.fromkeys((18, 19, 23, 24), "beside frames that are in doubt"),
    }
    assert [i for i, judged in enumerate(verdicts) if judged.status == LOST] == [30, 33]


def test_an_overlap_that_falls_far_below_the_usual_is_doubted_and_one_that_changes_slowly_is_not():
    overlaps = np.concatenate([np.full(40, 0.94), np.linspace(0.94, 0.80, 60)])
    overlaps[20:24] = 0.83  # somebody passes behind, and the mask takes her in
    figures: list[Figures | None] = [replace(RIGHT, silhouette_iou=float(v)) for v in overlaps]
    figures[30] = None
    verdicts = judge_clip(figures, facing(np.zeros(100)), np.zeros((100, 3, 3)), {})
    doubted = {i: judged.reason for i, judged in enumerate(verdicts) if judged.status == UNCERTAIN}
    assert set(doubted) == set(range(18, 26)) and doubted[21] == "silhouette overlap only 0.83, 0.94 around it"


@pytest.mark.parametrize(("off", "doubted"), [(0.01, {}), (0.05, {"left arm": "jumps 52 cm and back"})])
def test_a_jump_is_no_error_where_the_detector_sees_the_limb_there(off, doubted):
    joints_m = np.zeros((9, 3, 3))
    joints_m[4, 2] = 0.3
    figures: list[Figures | None] = [replace(RIGHT, limbs=(replace(ARM, off=off),))] * 9
    verdicts = judge_clip(figures, facing(np.zeros(9)), joints_m, {"left arm": np.array([2])})
    assert {judged.status for judged in verdicts} == {TRACKED} and verdicts[4].limbs == doubted
    joints_m[4, 1] = 0.3  # nobody vouches for the trunk
    trunk = judge_clip(figures, facing(np.zeros(9)), joints_m, {"left arm": np.array([2])})[4]
    assert (trunk.status, trunk.reason) == (UNCERTAIN, "a joint jumps 52 cm and back")


def facing(degrees: np.ndarray) -> np.ndarray:
    """(N, 3) from an angle about the vertical axis."""
    angle = np.radians(degrees)
    return np.stack([np.sin(angle), np.zeros(len(angle)), -np.cos(angle)], 1)


def posed(body: BodyModel, raise_left: float = 0.0, forward_left: float = 0.0) -> np.ndarray:
    """(V, 3) in front of a camera, 2.5 m away, facing it."""
    placed = np.eye(4)
    placed[:3, :3], placed[:3, 3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]], (0, 0.9, 2.5)
    pose = np.zeros((body.num_joints, 3))
    pose[body.joint_index("upperarm01.L")] = forward_left, -raise_left, 0
    return body.posed(None, pose, placed)[0].astype(float)


def seen(body: BodyModel, vertices_m: np.ndarray) -> Observation:
    """What an ideal sensor and detector report of posed vertices."""
    from capture.camera import Camera, Rig, project
    from fitting.zbuffer import rasterize_faces

    camera = Camera((240, 320), 300.0, 300.0, 120.0, 160.0)
    face_index, _, z_m = rasterize_faces(project(camera, vertices_m), vertices_m[:, 2], body.faces, camera.image_wh)
    depth_mm = np.where(face_index >= 0, np.nan_to_num(z_m, posinf=0) * 1000, 0).round().astype(np.uint16)
    landmarks_m = body.landmarks(vertices_m)
    observation = observe(
        camera, Rig(camera, camera, np.eye(4)), (face_index >= 0).astype(np.float32), depth_mm,
        project(camera, landmarks_m), np.ones(33), landmarks_m,
    )  # fmt: skip
    assert observation is not None
    return observation


def figures(body: BodyModel, observation: Observation, vertices_m: np.ndarray) -> tuple[Limb, ...]:
    return limb_figures(body, observation, vertices_m, body.landmarks(vertices_m), observation.height_px)


def judged_by_limbs(body: BodyModel, observation: Observation, vertices_m: np.ndarray) -> Verdict:
    return judge(replace(RIGHT, limbs=figures(body, observation, vertices_m)))


def test_limbs_where_they_are_raise_no_doubt(body):
    vertices_m = posed(body, 0.3)
    assert judged_by_limbs(body, seen(body, vertices_m), vertices_m).is_sound


def test_an_arm_beside_the_person_is_named(body):
    judged = judged_by_limbs(body, seen(body, posed(body)), posed(body, raise_left=1.0))
    assert judged == Verdict(TRACKED, "", {"left arm": "is drawn beside the person"})


def test_an_arm_off_in_depth_alone_is_named(body):
    """Towards the camera hardly anything moves in the picture; only depth can tell."""
    vertices_m = posed(body)
    wrong_m = vertices_m.copy()
    parts = [body.part_names.index(f"{part}.L") for part in ("lower_arm", "palm", "hand_back")]
    arm = np.unique(body.faces[np.isin(body.face_part, parts)])
    wrong_m[arm] *= 0.88  # along the rays: 300 mm nearer
    judged = judged_by_limbs(body, seen(body, vertices_m), wrong_m)
    assert set(judged.limbs) == {"left arm"} and judged.limbs["left arm"].endswith("mm off in depth")


def test_a_limb_is_made_of_its_own_parts_from_shoulder_or_hip_down(body):
    parts = parts_of_limbs(body)
    assert set(parts) == {"left arm", "right arm", "left leg", "right leg"}
    named = {name: {body.part_names[p] for p in own} for name, own in parts.items()}
    assert named["left arm"] == {"upper_arm.L", "lower_arm.L", "palm.L", "hand_back.L"}
    assert not named["left leg"] & named["right leg"] and len(set().union(*named.values())) == 16


def test_landmarks_vouch_for_limbs_and_not_for_crossed_ones(body):
    vertices_m = posed(body, 0.3)
    observation = seen(body, vertices_m)
    apart = {limb.name: limb.off for limb in figures(body, observation, vertices_m)}
    assert all(off < 0.01 for off in apart.values())
    moved = {limb.name: limb.off for limb in figures(body, observation, posed(body, raise_left=1.0))}
    assert moved["left arm"] > verdict.MAX_OFF and moved["right arm"] < 0.01
    crossed = observation.landmarks_px.copy()
    crossed[[13, 15]] = crossed[[14, 16]] + 1.0
    sides = replace(observation, landmarks_px=crossed)
    assert np.isnan(figures(body, sides, vertices_m)[1].off)


def test_the_chest_of_a_body_that_faces_the_camera_points_at_it(body):
    ahead = trunk_ahead(body.landmarks(posed(body)))
    assert ahead @ (0, 0, -1) > 0.9


def test_doubt_reaches_a_little_beyond_a_run_of_doubtful_frames_but_not_beyond_a_single_one():
    ok, doubt, lost = Verdict(TRACKED), Verdict(UNCERTAIN, "depth 60 mm off"), Verdict(LOST)

    def statuses(verdicts: list[Verdict]) -> list[str]:
        return [judged.status for judged in verdict.beside_doubt(verdicts)]

    alone = [ok] * 4 + [doubt] + [ok] * 4
    assert verdict.beside_doubt(alone) == alone
    dip = [ok] * 4 + [doubt, ok, doubt] + [ok] * 4
    assert statuses(dip) == [TRACKED] * 2 + [UNCERTAIN] * 7 + [TRACKED] * 2  # the dip is of a run of three
    run = [ok] * 5 + [doubt] * 2 + [lost] + [ok] + [doubt] * 3 + [ok] * 5
    assert statuses(run) == [TRACKED] * 3 + [UNCERTAIN] * 4 + [LOST] + [UNCERTAIN] * 6 + [TRACKED] * 3


def test_doubt_in_a_limb_reaches_as_far_and_stays_with_that_limb():
    def doubts(verdicts: list[Verdict]) -> list[list[str]]:
        judged = verdict.beside_doubt(verdicts)
        assert all(one.status == TRACKED for one in judged)
        return [sorted(one.limbs) for one in judged]

    ok, arm, leg = [], ["left arm"], ["right leg"]
    wrong = Verdict(TRACKED, "", {"left arm": "is drawn beside the person"})
    other = Verdict(TRACKED, "", {"right leg": "is drawn beside the person"})
    ambiguous = Verdict(TRACKED, "", {"left arm": verdict.AMBIGUOUS})
    believed = Verdict(TRACKED)
    assert doubts([believed] * 4 + [wrong] * 3 + [believed] * 4) == [ok] * 2 + [arm] * 7 + [ok] * 2
    dip = [believed] * 3 + [wrong, other, wrong] + [believed] * 3
    assert doubts(dip) == [ok] + [arm] * 3 + [arm + leg] + [arm] * 3 + [ok]
    alone = [believed] * 4 + [ambiguous] * 4 + [believed] * 4
    assert verdict.beside_doubt(alone) == alone
