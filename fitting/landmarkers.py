"""Who says where the landmarks are: the choice behind ``fit.keypoints``.

auto          OpenPose's files where the recording brought some along, otherwise mediapipe
mediapipe     MediaPipe Pose with the model of its wheel
FOLDER        OpenPose's *_keypoints.json, their numbers (from 0) or names those of the recording's frames
FILE.task     MediaPipe Tasks with a PoseLandmarker of the user's
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from capture.errors import UserError
from capture.importers.openpose import MIN_SHARE, files_by_frame
from capture.recording import Recording
from capture.workers import in_threads
from fitting.keypoints import Keypoints, detect
from fitting.openpose import read_openpose
from fitting.tasks import detect_with_task

AUTO, MEDIAPIPE = "auto", "mediapipe"


def check_choice(choice: str) -> None:
    """Raises UserError for a word that is none of ours and no path; whether a path fits is seen when it is read."""
    path = Path(choice)
    if choice not in (AUTO, MEDIAPIPE) and path.name == choice and not path.suffix and not path.exists():
        raise _no_such(choice)


def _no_such(choice: str) -> UserError:
    return UserError(
        f"fit.keypoints = {choice}: no such folder; use 'auto', 'mediapipe', a folder of OpenPose's *_keypoints.json "
        "or a PoseLandmarker .task file"
    )


def landmarks(choice: str, recording: Recording, mask: Callable[[int], np.ndarray]) -> Keypoints:
    """The landmarks of a recording by the chosen landmarker; ``mask(i)`` is frame i's alpha (H, W) float32.

    Raises UserError for a choice that does not exist, or cannot be read, or does not fit the recording.
    """
    openpose = openpose_paths(choice, recording)
    if openpose is not None:
        return read_openpose(openpose, recording.rig.color.image_wh, mask)
    images = in_threads(recording.color, range(len(recording)), 1)
    if choice in (AUTO, MEDIAPIPE):
        return detect(images, len(recording))
    return detect_with_task(images, recording.times_s, Path(choice))


def in_words(choice: str, recording: Recording) -> str:
    """The landmarker that ``choice`` means for this recording, for people."""
    paths = openpose_paths(choice, recording)
    if paths is not None:
        where = "the source's own files" if choice == AUTO else Path(choice).name
        return f"landmarks: OpenPose ({where}), {sum(path is not None for path in paths)} of {len(paths)} frames"
    return "landmarks: MediaPipe" + ("" if choice in (AUTO, MEDIAPIPE) else f" Tasks ({Path(choice).name})")


def openpose_paths(choice: str, recording: Recording) -> list[Path | None] | None:
    """OpenPose's file of each frame, None where there is none; None when the choice is another landmarker.

    Raises UserError for a choice that does not exist and for files that do not fit the recording.
    """
    count = len(recording)
    if choice == MEDIAPIPE:
        return None
    if choice == AUTO:
        paths = [recording.openpose_path(i) for i in range(count)]
        return paths if any(paths) else None
    folder = Path(choice)
    if folder.is_dir():
        stems = [Path(name).stem for name in recording.color_names]
        by_frame = files_by_frame(folder, count, stems)
        paths = [by_frame.get(i) for i in range(count)]
        found = sum(path is not None for path in paths)
        if found < MIN_SHARE * count:
            raise UserError(
                f"fit.keypoints = {choice}: OpenPose files for only {found} of {count} frames; run OpenPose on every "
                "frame of the recording, or use 'mediapipe'"
            )
        return paths
    if folder.suffix != ".task":
        raise _no_such(choice)
    return None
