"""The live tracker on ideal pictures of the body that it tracks: what it finds, loses, finds again, and says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from test_keypoints import swap, turning_skeleton

from capture.camera import Camera, Rig, project
from capture.recording import Frame
from fitting import verdict
from fitting.body.model import BodyModel
from fitting.fit import FitConfig
from fitting.keypoints import resolve_sides
from fitting.live import FacingWatch, Known, LiveFit, LiveTracker
from fitting.stream import Look, SideStream, quick_alpha
from fitting.zbuffer import rasterize_faces

CAMERA = Camera((240, 320), 300.0, 300.0, 120.0, 160.0)
WITH_DEPTH, COLOR_ONLY = Rig(CAMERA, CAMERA, np.eye(4)), Rig(CAMERA)


@dataclass(frozen=True)
class Shot:
    """One ideal picture of the body, and the truth."""

    frame: Frame
    look: Look
    joints_m: np.ndarray  # (J, 3)


def someone(body: BodyModel) -> np.ndarray:
    """(S,) a tall, heavy person."""
    shape = np.zeros(body.num_shape)
    shape[:2] = 1.0, -1.0
    return shape


def shoot(body: BodyModel, index: int, shape: np.ndarray, turn_rad: float = 0.0) -> Shot:
    """A person who turns slowly and raises an arm."""
    angle = 0.04 * index + turn_rad
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    placed = np.eye(4)
    placed[:3, :3] = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ turn
    placed[:3, 3] = 0.05 * np.sin(angle), 0.9, 2.5
    pose = np.zeros((body.num_joints, 3))
    pose[body.joint_index("upperarm01.L")] = 0, -0.6 * np.sin(0.06 * index), 0
    vertices_m, joints_m = body.posed(shape, pose, placed)
    face_index, _, z_m = rasterize_faces(project(CAMERA, vertices_m), vertices_m[:, 2], body.faces, CAMERA.image_wh)
    mask = face_index >= 0
    depth_mm = np.where(mask, np.nan_to_num(z_m, posinf=0) * 1000, 0).round().astype(np.uint16)
    color = np.where(mask[..., None], (200, 120, 80), (60, 70, 90)).astype(np.uint8)
    landmarks_m = body.landmarks(vertices_m)
    look = Look(
        project(CAMERA, landmarks_m), np.ones(33), landmarks_m - landmarks_m[[23, 24]].mean(0), mask.astype(np.float32)
    )
    return Shot(Frame(index, index / 10, color, depth_mm), look, joints_m)


class Detector:
    """Says of each picture what it is told to."""

    def __init__(self) -> None:
        self.answer: Look | None = None

    def __call__(self, color: np.ndarray) -> Look | None:
        return self.answer


def feed(tracker: LiveTracker, detector: Detector, shot: Shot, is_seen: bool = True) -> LiveFit:
    detector.answer = shot.look if is_seen else None
    frame = shot.frame if tracker_has_depth(tracker) else replace(shot.frame, depth_mm=None)
    return tracker.feed(frame)


def tracker_has_depth(tracker: LiveTracker) -> bool:
    return tracker._rig.depth is not None


def joint_error_m(body: BodyModel, shape: np.ndarray, fitted: LiveFit, shot: Shot) -> float:
    """Median over the trunk's and limbs' joints."""
    assert fitted.state is not None
    _, joints_m = body.posed(shape, fitted.state.pose, fitted.state.camera_from_body)
    some = [i for i, n in enumerate(body.joint_names) if n.split(".")[0] in ("upperarm01", "lowerarm01", "foot")]
    return float(np.median(np.linalg.norm(joints_m - shot.joints_m, axis=-1)[some]))


@pytest.mark.parametrize("is_quick", [False, True], ids=["full", "quick"])
def test_a_known_body_is_followed_from_the_first_frame_on(body: BodyModel, is_quick: bool) -> None:
    shape, detector = someone(body), Detector()
    tracker = LiveTracker(FitConfig(), body, WITH_DEPTH, True, detector, Known(shape), is_quick)
    assert tracker.is_settled
    errors_m = []
    for index in (0, 1, 2, 3, 5, 6, 10):  # some are missed
        shot = shoot(body, index, shape)
        fitted = feed(tracker, detector, shot)
        assert (fitted.status, fitted.reason) == (verdict.TRACKED, "")
        assert fitted.vertices_m is not None and fitted.is_settled
        errors_m.append(joint_error_m(body, shape, fitted, shot))
    assert max(errors_m) < 0.015
    assert {"landmarks", "mask", "evidence", "pose", "verdict"} == set(fitted.timings_ms)


def test_who_is_lost_is_found_again(body: BodyModel) -> None:
    shape, detector = someone(body), Detector()
    tracker = LiveTracker(FitConfig(), body, WITH_DEPTH, True, detector, Known(shape))
    feed(tracker, detector, shoot(body, 0, shape))
    for index in (1, 2):
        gone = feed(tracker, detector, shoot(body, index, shape), is_seen=False)
        assert (gone.status, gone.reason) == (verdict.LOST, "no landmarks found")
        assert gone.state is None and gone.vertices_m is None
    shot = shoot(body, 3, shape, turn_rad=1.5)  # came back from another side
    back = feed(tracker, detector, shot)
    assert back.status == verdict.TRACKED and joint_error_m(body, shape, back, shot) < 0.02


def test_an_empty_mask_is_nobody(body: BodyModel) -> None:
    detector = Detector()
    tracker = LiveTracker(FitConfig(), body, COLOR_ONLY, True, detector, Known(someone(body)))
    shot = shoot(body, 0, someone(body))
    shot = replace(shot, look=replace(shot.look, probability=0 * shot.look.probability))
    fitted = feed(tracker, detector, shot)
    assert (fitted.status, fitted.reason) == (verdict.LOST, "empty mask")


def test_an_unknown_body_is_measured_in_the_first_seconds_and_kept(body: BodyModel) -> None:
    shape, detector = someone(body), Detector()
    truth_m = np.ptp(body.shaped(shape)[0][:, 2])
    tracker = LiveTracker(FitConfig(shape_rounds=3), body, WITH_DEPTH, True, detector)
    settled = []
    for index in range(19):  # 10 frames a second
        fitted = feed(tracker, detector, shoot(body, index, shape))
        settled.append(fitted.is_settled)
        assert fitted.status != verdict.LOST
    assert settled.index(True) == 15 and all(settled[15:])
    assert "body settled" in tracker.words and "from depth" in tracker.words
    assert fitted.status == verdict.TRACKED and fitted.vertices_m is not None
    assert abs(tracker._height_m - truth_m) < 0.03


def test_a_guessed_lens_is_estimated_with_the_body(body: BodyModel) -> None:
    detector = Detector()
    tracker = LiveTracker(FitConfig(shape_rounds=1), body, COLOR_ONLY, False, detector)
    for index in range(17):
        fitted = feed(tracker, detector, shoot(body, index, np.zeros(body.num_shape)))
    assert "focal length estimated" in tracker.words and "assumed adult" in tracker.words
    assert fitted.camera.fx_px != CAMERA.fx_px and fitted.status == verdict.TRACKED


# Left and right.


@pytest.mark.parametrize("frames", [slice(20, 24), slice(30, 38), slice(57, 60)])
def test_sides_from_the_past_are_those_of_the_whole_clip(frames: slice) -> None:
    seen = swap(turning_skeleton(60), frames)
    whole, stream = resolve_sides(seen), SideStream()
    live = [stream.is_swapped(i, seen.world_m[i]) for i in range(60)]
    np.testing.assert_array_equal(live, whole.swapped)


def test_a_detector_that_insists_is_believed() -> None:
    seen, stream = swap(turning_skeleton(60), slice(10, 60)), SideStream()
    live = [stream.is_swapped(i, seen.world_m[i]) for i in range(60)]
    assert live[10:15] == [True] * 5 and not any(live[30:])


def test_exchanged_sides_are_tracked_as_they_are(body: BodyModel) -> None:
    shape, detector = someone(body), Detector()
    tracker = LiveTracker(FitConfig(), body, WITH_DEPTH, True, detector, Known(shape))
    for index in range(6):
        shot = shoot(body, index, shape)
        seen = replace(shot, look=shot.look.with_sides_exchanged()) if index in (3, 4) else shot
        fitted = feed(tracker, detector, seen)
        assert fitted.status == verdict.TRACKED and joint_error_m(body, shape, fitted, shot) < 0.02
        assert fitted.landmarks_px is not None
        np.testing.assert_allclose(fitted.landmarks_px, shot.look.points_px)


# Verdict and mask.


def test_a_leap_of_the_facing_is_doubted_for_a_while() -> None:
    watch = FacingWatch()
    front, back = np.array([0.0, 0.0, -1.0]), np.array([0.0, 0.0, 1.0])
    doubts = []
    for index in range(30):
        ahead = back if 3 <= index < 5 or index >= 10 else front
        doubts.append(watch.leaps(index, ahead))
        watch.remember(index, ahead)
    assert [i for i, is_so in enumerate(doubts) if is_so] == [3, 4, *range(10, 10 + verdict.MAX_FLIP_FRAMES)]


def test_depth_takes_what_is_behind_out_of_the_mask(body: BodyModel) -> None:
    shot = shoot(body, 0, someone(body))
    person = shot.look.probability > 0.5
    blurred = shot.look.probability.copy()
    blurred[40:80, 150:200] = 0.9  # the network takes a piece of the wall for the person
    assert shot.frame.depth_mm is not None
    depth_mm = np.where(person, shot.frame.depth_mm, 4000).astype(np.uint16)
    alpha = quick_alpha(WITH_DEPTH, blurred, depth_mm)
    assert alpha.shape == (320, 240) and (alpha[45:75, 160:195][~person[45:75, 160:195]] < 0.5).all()
    both = (alpha > 0.5) & person
    assert both.sum() > 0.95 * person.sum()
