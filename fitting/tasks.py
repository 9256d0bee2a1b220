"""Landmarks by a model file of MediaPipe Tasks: the user's own PoseLandmarker (``pose_landmarker_*.task``).

N frames, 33 landmarks.  Such a file is a zip of two networks; the wheel ships none, but Google publishes three
(https://ai.google.dev/edge/mediapipe/solutions/vision/pose_landmarker).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capture.errors import UserError
from capture.progress import progress
from fitting.keypoints import NUM_LANDMARKS, Keypoints, resolve_sides

NETWORKS = ("pose_detector.tflite", "pose_landmarks_detector.tflite")  # what the bundle must hold


def detect_with_task(images: Iterable[np.ndarray], times_s: Sequence[float] | np.ndarray, model: Path) -> Keypoints:
    """Run a PoseLandmarker over (H, W, 3) uint8 RGB images of one clip, in order, in its video mode.

    ``times_s`` (N,) are their times.  Raises UserError when the file is missing or no PoseLandmarker.
    """
    check_bundle(model)
    os.environ.setdefault("GLOG_minloglevel", "2")
    with _open(model) as landmarker:
        return landmarks_of(landmarker, images, times_s)


def check_bundle(model: Path) -> None:
    """Raises UserError when ``model`` is not there or holds no PoseLandmarker."""
    try:
        with zipfile.ZipFile(model) as bundle:
            names = bundle.namelist()
    except FileNotFoundError:
        raise UserError(f"fit.keypoints = {model}: no such file; give a PoseLandmarker .task, or 'mediapipe'") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"fit.keypoints = {model}: not a .task file ({error}); download a PoseLandmarker again"
        ) from None
    missing = [name for name in NETWORKS if name not in names]
    if missing:
        raise UserError(
            f"fit.keypoints = {model}: holds {', '.join(names[:4]) or 'nothing'}, not {' and '.join(missing)}; "
            "give a PoseLandmarker, not another task"
        )


def landmarks_of(landmarker: Any, images: Iterable[np.ndarray], times_s: Sequence[float] | np.ndarray) -> Keypoints:
    """What an open landmarker in video mode sees, one person, as Keypoints."""
    import mediapipe as mp

    count = len(times_s)
    points_px = np.full((count, NUM_LANDMARKS, 2), np.nan)
    visibility = np.zeros((count, NUM_LANDMARKS))
    world_m = np.full((count, NUM_LANDMARKS, 3), np.nan)
    times_ms = milliseconds(times_s)
    for i, image in enumerate(progress(images, "landmarks", count)):
        picture = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        result = landmarker.detect_for_video(picture, times_ms[i])
        if not result.pose_landmarks:
            continue
        height, width = image.shape[:2]
        for k, point in enumerate(result.pose_landmarks[0]):
            points_px[i, k] = point.x * width, point.y * height
            visibility[i, k] = point.visibility
        for k, point in enumerate(result.pose_world_landmarks[0]):
            world_m[i, k] = point.x, point.y, point.z
    return resolve_sides(Keypoints(points_px, visibility, world_m, np.zeros(count, bool)))


def milliseconds(times_s: Sequence[float] | np.ndarray) -> list[int]:
    """Whole milliseconds (N,) that rise, as the video mode demands."""
    rising: list[int] = []
    for time_s in times_s:
        rising.append(max(round(1000 * float(time_s)), rising[-1] + 1 if rising else 0))
    return rising


def _open(model: Path) -> Any:
    """The landmarker.  Raises UserError for networks that MediaPipe cannot run."""
    from mediapipe.tasks.python import vision
    from mediapipe.tasks.python.core.base_options import BaseOptions

    options = vision.PoseLandmarkerOptions(
        # Its own loader takes paths for relative to the package on some systems; bytes are bytes.
        base_options=BaseOptions(model_asset_buffer=model.read_bytes()),
        running_mode=vision.RunningMode.VIDEO,
        min_pose_detection_confidence=0.3,  # as with the wheel's own model
    )
    try:
        return vision.PoseLandmarker.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].strip() if str(error).strip() else type(error).__name__
        raise UserError(f"fit.keypoints = {model}: MediaPipe cannot run it ({reason}); download it again") from None
