"""OpenPose's files: what they say is kept, what they do not say stays unknown, and the right person is followed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from test_keypoints import swap, turning_skeleton
from test_recording import COLOR, picture

from capture.camera import Rig
from capture.errors import UserError
from capture.files import read_gray
from capture.importers import ImportConfig, record
from capture.recording import Recording, RecordingWriter
from fitting.fit import BodyFit, FitConfig, fit
from fitting.keypoints import LANDMARK_NAMES, Keypoints, detect, resolve_sides
from fitting.landmarkers import in_words, landmarks
from fitting.openpose import _BODY_25, _COCO_18, Person, choose, read_openpose, read_people
from fitting.verdict import LOST

SHARED = Path(__file__).parents[2] / "shared"
WH = (640, 480)
BODY_25_LEFT_HEEL, BODY_25_NOSE = 21, 0


def standing(x: float = 300, y: float = 100, height: float = 300) -> np.ndarray:
    """(33, 2) made-up landmarks, every one at its own place."""
    rng = np.random.default_rng(5)
    return np.stack([x + rng.uniform(-0.2, 0.2, 33) * height, y + np.linspace(0, 1, 33) * height], axis=1)


def body(points_px: np.ndarray, names: tuple = _BODY_25, confidence: np.ndarray | float = 0.8) -> list[float]:
    """The flat list of OpenPose; what it does not know of ours is 0, 0, 0."""
    sure = np.broadcast_to(confidence, 33)
    rows: list[float] = []
    for name in names:
        k = LANDMARK_NAMES.index(name or "nose")
        is_found = name is not None and np.isfinite(points_px[k]).all()
        rows += [*(points_px[k] - 0.5).tolist(), float(sure[k])] if is_found else [0, 0, 0]
    return rows


def write(path: Path, *people: dict | list) -> Path:
    found = [person if isinstance(person, dict) else {"pose_keypoints_2d": person} for person in people]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": 1.3, "people": found}))
    return path


def person(x: float, height: float = 300, y: float = 100) -> Person:
    return Person(standing(x, y, height), np.ones(33))


def index(*names: str) -> list[int]:
    return [LANDMARK_NAMES.index(name) for name in names]


# --------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("names", [_BODY_25, _COCO_18], ids=["BODY_25", "COCO"])
def test_known_points_keep_their_place_and_the_others_are_nan(tmp_path, names):
    points = standing()
    (read,) = read_people(write(tmp_path / "a.json", body(points, names)))
    known = index(*(name for name in names if name))
    unknown = sorted(set(range(33)) - set(known))
    np.testing.assert_allclose(read.points_px[known], points[known], atol=1e-9)
    np.testing.assert_array_equal(read.visibility[known], 0.8)
    assert np.isnan(read.points_px[unknown]).all() and not read.visibility[unknown].any()


def test_left_is_left():
    # OpenPose's own numbers: 4 right wrist, 7 left wrist; 19 left big toe, 22 right big toe (BODY_25).
    assert (_BODY_25[4], _BODY_25[7], _BODY_25[19], _BODY_25[22], _BODY_25[24]) == (
        "right_wrist", "left_wrist", "left_foot_index", "right_foot_index", "right_heel"
    )  # fmt: skip
    assert (_COCO_18[4], _COCO_18[7], _COCO_18[8], _COCO_18[13], _COCO_18[17]) == (
        "right_wrist", "left_wrist", "right_hip", "left_ankle", "left_ear"
    )  # fmt: skip


def test_a_point_that_was_not_found_is_nan_and_never_the_corner(tmp_path):
    values = body(standing())
    values[3 * BODY_25_LEFT_HEEL : 3 * BODY_25_LEFT_HEEL + 3] = [0, 0, 0]
    (read,) = read_people(write(tmp_path / "a.json", values))
    assert np.isnan(read.points_px[index("left_heel")]).all() and read.visibility[index("left_heel")] == 0


def test_hands_and_face_give_what_the_body_lacks(tmp_path):
    hand = [v for k in range(21) for v in (400 + k, 200.0, 0.6)]
    face = [v for k in range(70) for v in (300.0, 100 + k, 0.9)]
    fields = {"pose_keypoints_2d": body(standing()), "hand_left_keypoints_2d": hand, "face_keypoints_2d": face}
    (read,) = read_people(write(tmp_path / "a.json", {**fields, "hand_right_keypoints_2d": [0.0] * 63}))
    # Knuckles: thumb 2, index 5, little finger 17.
    np.testing.assert_allclose(
        read.points_px[index("left_thumb", "left_index", "left_pinky"), 0], [402.5, 405.5, 417.5]
    )
    assert np.isnan(read.points_px[index("right_thumb", "right_index", "right_pinky")]).all()
    np.testing.assert_allclose(read.points_px[index("mouth_right", "mouth_left"), 1], [148.5, 154.5])
    np.testing.assert_allclose(read.points_px[index("nose")], standing()[index("nose")])  # the body's own


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "not a file of OpenPose"),
        ('{"people": [{}]}', "pose_keypoints_2d"),
        ('{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "1 body points"),
        ('{"people": [{"pose_keypoints_2d": [1, 2]}]}', "reshape"),
        ('{"people": [{"pose_keypoints_2d": "no"}]}', "not a file of OpenPose"),
        ('{"people": 5}', "not a file of OpenPose"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, content, reason):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_people(tmp_path / "a.json")
    assert "\n" not in str(caught.value) and "a.json" in str(caught.value)


def test_frames_without_a_file_or_a_person_have_no_landmarks(tmp_path):
    files = [write(tmp_path / "0.json", body(standing())), None, write(tmp_path / "2.json"), tmp_path / "0.json"]
    read = read_openpose(files, WH, lambda i: np.zeros((480, 640), np.float32))
    assert list(read.found) == [True, False, False, True]
    assert np.isnan(read.world_m).all() and not read.visibility[1:3].any()


@pytest.mark.parametrize(("scale", "remedy"), [(1 / 640, "keypoint_scale"), (3.0, "640x480")])
def test_points_of_another_picture_size_are_refused(tmp_path, scale, remedy):
    file = write(tmp_path / "0.json", body(standing() * scale))
    with pytest.raises(UserError, match=remedy):
        read_openpose([file], WH, lambda i: np.zeros((480, 640), np.float32))


# -------------------------------------------------------------------------------------------------------- choosing


def test_the_person_in_the_mask_is_the_subject_though_another_is_larger():
    small, large = person(150, 200), person(450, 350)
    mask = np.zeros((480, 640), np.float32)
    mask[90:310, 90:210] = 1
    assert choose([large, small], mask, None) is small
    assert choose([large], mask, None) is None  # somebody else is nobody


def test_without_a_mask_the_nearest_to_before_then_the_largest():
    left, right = person(150, 300), person(450, 350)
    assert choose([left, right], None, None) is right
    assert choose([right, left], None, person(160)) is left
    assert choose([], None, person(160)) is None


# --------------------------------------------------------------------------------------------- left and right in 2-D


@pytest.mark.parametrize("frames", [slice(3, 7), slice(27, 33)])
def test_sides_are_set_right_without_metres(frames):
    truth = turning_skeleton(60)
    flat = Keypoints(truth.points_px, truth.visibility, np.full_like(truth.world_m, np.nan), truth.swapped)
    np.testing.assert_array_equal(resolve_sides(flat).points_px, flat.points_px)
    np.testing.assert_array_equal(resolve_sides(swap(flat, frames)).points_px, flat.points_px)


def test_sides_are_set_right_though_points_are_missing():
    truth = turning_skeleton(60)
    points = truth.points_px.copy()
    points[::3, index("left_wrist", "nose", "right_hip")] = np.nan
    flat = Keypoints(points, truth.visibility, np.full_like(truth.world_m, np.nan), truth.swapped)
    np.testing.assert_array_equal(resolve_sides(swap(flat, slice(27, 33))).points_px, points)
    assert flat.found.all()


# ------------------------------------------------------------------------------------------------- fit.keypoints


def recording(folder: Path, count: int = 4, with_openpose: bool = True) -> Recording:
    writer = RecordingWriter(folder, Rig(COLOR), "a test")
    for i in range(count):
        writer.add(i / 30, picture(i))
        if with_openpose:
            data = {"people": [{"pose_keypoints_2d": body(standing(20, 3, 20))}]}
            writer.add_openpose(i, json.dumps(data).encode())
    writer.finish()
    return Recording.load(folder)


def nobody(index: int) -> np.ndarray:
    return np.zeros((30, 40), np.float32)


def test_auto_takes_what_the_recording_brought_along(tmp_path):
    with_files, without = recording(tmp_path / "a"), recording(tmp_path / "b", with_openpose=False)
    assert landmarks("auto", with_files, nobody).found.all()
    assert "OpenPose" in in_words("auto", with_files) and "MediaPipe" in in_words("auto", without)
    assert "MediaPipe" in in_words("mediapipe", with_files)


def test_a_folder_is_matched_by_the_numbers_in_its_names(tmp_path):
    clip = recording(tmp_path / "a", with_openpose=False)
    for i in (0, 1, 3):
        write(tmp_path / "op" / f"clip_{i:012d}_keypoints.json", body(standing(20, 3, 20)))
    assert list(landmarks(str(tmp_path / "op"), clip, nobody).found) == [True, True, False, True]
    assert "3 of 4 frames" in in_words(str(tmp_path / "op"), clip)


def test_choices_that_cannot_be_are_one_line(tmp_path):
    clip = recording(tmp_path / "a", with_openpose=False)
    write(tmp_path / "few" / "clip_000000000002_keypoints.json", body(standing()))
    for i in range(30):
        write(tmp_path / "many" / f"clip_{i:012d}_keypoints.json", body(standing()))
    (tmp_path / "none").mkdir()
    for choice, reason in (
        ("openpoze", "no such folder"),
        (str(tmp_path / "none"), "holds no OpenPose files"),
        (str(tmp_path / "few"), "only 1 of 4 frames"),
        (str(tmp_path / "many"), "numbers up to 29"),
    ):
        with pytest.raises(UserError, match=reason) as caught:
            landmarks(choice, clip, nobody)
        assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------- end to end


CASUAL = SHARED / "data" / "casual_rgbd"
JUDGE = SHARED / "tools" / "joint_error.py"


class TrueMasks:
    """Stands for capture.matting.Masks: the ground truth's."""

    def __init__(self, indices: list[int]) -> None:
        self._files = [sorted(CASUAL.glob("ground_truth/mask/*.png"))[i] for i in indices]

    def __getitem__(self, index: int) -> np.ndarray:
        return read_gray(self._files[index]).astype(np.float32) / 255


@pytest.mark.skipif(
    not (CASUAL.is_dir() and JUDGE.is_file()), reason="needs ../shared, test data that is not part of the project"
)
def test_a_fit_from_openpose_is_about_as_good_as_one_from_mediapipe(tmp_path, monkeypatch):
    """A clothed figure turns once in twelve frames; the same detections, once with metres and once as BODY_25."""
    spec = importlib.util.spec_from_file_location("joint_error", JUDGE)
    assert spec is not None and spec.loader is not None
    judge = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judge)
    record(ImportConfig(every=15, max_frames=12), tmp_path / "rec", CASUAL)
    clip, indices = Recording.load(tmp_path / "rec"), list(range(0, 180, 15))
    seen = detect((clip.color(i) for i in range(12)), 12)
    for i in range(12):
        sure = np.where(seen.visibility[i, :, None] > 0.5, seen.points_px[i], np.nan)
        write(tmp_path / "op" / f"c_{i:012d}_keypoints.json", body(sure, confidence=seen.visibility[i]))
    monkeypatch.setattr("fitting.fit.Masks.load", lambda folder: TrueMasks(indices))
    with np.load(CASUAL / "ground_truth" / "joints.npz") as file:
        truth_m, names = file["joints_cam_m"][indices], [str(name).split(":")[-1] for name in file["names"]]
    error = {}
    for choice in ("mediapipe", str(tmp_path / "op")):
        out = tmp_path / f"fit{len(error)}"
        out.mkdir()
        fit(FitConfig(keypoints=choice, overlay_frames=1), out, tmp_path / "rec", tmp_path)
        fitted = BodyFit.load(out)
        assert LOST not in fitted.status and fitted.notes[0].startswith("landmarks: ")
        error[choice] = judge.joint_error(fitted.joints_color_m, fitted.joint_names, truth_m, names)
    mediapipe, openpose = error.values()
    for figure, worse_by in (("raw_median_mm", 6), ("offset_removed_median_mm", 5), ("procrustes_median_mm", 6)):
        assert openpose[figure] < mediapipe[figure] + worse_by, (figure, error)
    assert openpose["raw_p95_mm"] < mediapipe["raw_p95_mm"] + 20, error
