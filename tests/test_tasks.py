"""MediaPipe Tasks: a PoseLandmarker of the user's, and every way in which a file is none."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from capture.errors import UserError
from capture.recording import Recording
from demo.performer import DemoConfig, film
from fitting.keypoints import NUM_LANDMARKS, detect
from fitting.landmarkers import landmarks
from fitting.tasks import NETWORKS, detect_with_task, landmarks_of, milliseconds


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PoseLandmarker from the two networks of the wheel, the second with the metadata that Tasks asks for."""
    import mediapipe
    from mediapipe.tasks.python.metadata.metadata_writers.metadata_writer import MetadataWriter

    networks = Path(mediapipe.__file__).parent / "modules"
    landmarker = MetadataWriter(bytearray((networks / "pose_landmark/pose_landmark_full.tflite").read_bytes()))
    landmarker.add_image_input([0.0], [1.0])
    path = tmp_path_factory.mktemp("task") / "pose_landmarker_full.task"
    contents = (networks / "pose_detection/pose_detection.tflite").read_bytes(), bytes(landmarker.populate()[0])
    with zipfile.ZipFile(path, "w") as file:
        for name, content in zip(NETWORKS, contents, strict=True):
            file.writestr(name, content)
    return path


def test_a_task_file_of_the_wheels_networks_sees_what_the_wheel_sees(bundle: Path, tmp_path: Path) -> None:
    film(DemoConfig(num_frames=3, with_depth=False, num_workers=1), tmp_path / "rec")
    clip = Recording.load(tmp_path / "rec")
    ours = landmarks(str(bundle), clip, lambda i: np.zeros((1, 1), np.float32))
    wheels = detect((clip.color(i) for i in range(len(clip))), len(clip))
    assert ours.found.all() and np.isfinite(ours.world_m).all()
    limbs = slice(11, None)
    distance_px = np.linalg.norm(ours.points_px - wheels.points_px, axis=-1)[:, limbs]
    assert np.median(distance_px) < 0.02 * np.ptp(wheels.points_px[..., 1])
    assert np.median(np.linalg.norm(ours.world_m - wheels.world_m, axis=-1)[:, limbs]) < 0.06


def bad_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"no network")
    return path


def test_what_is_no_landmarker_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.task").write_text("not found")
    bad_zip(tmp_path / "hand.task", "hand_detector.tflite", "hand_landmarks_detector.tflite")
    bad_zip(tmp_path / "broken.task", *NETWORKS)
    for name, reason in (
        ("absent.task", "no such file"),
        ("text.task", "not a .task file"),
        ("hand.task", "hand_detector"),
        ("broken.task", "cannot run it"),
    ):
        with pytest.raises(UserError, match=reason) as caught:
            detect_with_task([], [], tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)


def test_frames_are_kept_in_place_and_nobody_is_nan() -> None:
    class Landmarker:
        """Sees somebody at (0.25, 0.5) in the second picture only."""

        times_ms: list[int] = []  # noqa: RUF012

        def detect_for_video(self, image: object, time_ms: int) -> SimpleNamespace:
            self.times_ms.append(time_ms)
            point = SimpleNamespace(x=0.25, y=0.5, z=0.1, visibility=0.7)
            people = [[point] * NUM_LANDMARKS] if len(self.times_ms) == 2 else []
            return SimpleNamespace(pose_landmarks=people, pose_world_landmarks=people)

    seen = landmarks_of(Landmarker(), [np.zeros((40, 80, 3), np.uint8)] * 3, [0.0, 1 / 30, 2 / 30])
    assert list(seen.found) == [False, True, False] and Landmarker.times_ms == [0, 33, 67]
    np.testing.assert_array_equal(seen.points_px[1], [[20, 20]] * NUM_LANDMARKS)
    np.testing.assert_array_equal(seen.world_m[1, 0], [0.25, 0.5, 0.1])


def test_times_rise_in_whole_milliseconds() -> None:
    assert milliseconds([0.0, 0.0001, 0.0002, 0.5, 0.5]) == [0, 1, 2, 500, 501]
