"""Landmarks that OpenPose found: its JSON files become our 33.

N frames, P people in a file, K points of a body: 25 (BODY_25) or 18 (COCO).  The order of OpenPose's points is that of
its output format (github.com/CMU-Perceptual-Computing-Lab/openpose, doc/02_output.md); a point that was not found is
0, 0, 0 there and NaN with visibility 0 here.  OpenPose sees no depth: ``world_m`` is NaN.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capture.errors import UserError
from fitting.keypoints import LANDMARK_NAMES, NUM_LANDMARKS, Keypoints, resolve_sides

log = logging.getLogger(__name__)

_NAMED = {name: i for i, name in enumerate(LANDMARK_NAMES)}
_BODY_25 = (
    "nose", None, "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    None, "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
    "left_foot_index", None, "left_heel", "right_foot_index", None, "right_heel",  # big toes; small toes are not ours
)  # fmt: skip
_COCO_18 = (
    "nose", None, "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
_BODY = {25: _BODY_25, 18: _COCO_18}
# MediaPipe's hand landmarks on the body are the knuckles: the second of the thumb, the first of the others.
_HAND = {2: "{side}_thumb", 5: "{side}_index", 17: "{side}_pinky"}
# The corners that a body's points lack; its own nose and eyes are kept where it has them.
_FACE = {
    36: "right_eye_outer", 39: "right_eye_inner", 42: "left_eye_inner", 45: "left_eye_outer",
    48: "mouth_right", 54: "mouth_left", 30: "nose", 68: "right_eye", 69: "left_eye",
}  # fmt: skip
HAND_POINTS, FACE_POINTS = 21, 70

MIN_CONFIDENCE = 0.05  # OpenPose's own threshold for drawing a point
MIN_POINTS = 6  # fewer are a shadow, a poster or a stray hand
SAME_SHARE = 0.75  # of the best share inside the mask: who has this much may be the subject as well
MIN_SHARE = 0.3  # of the points inside the mask: below it, it is somebody else
MAX_JUMP = 0.5  # of the person's height between two frames: beyond it, it is somebody else
MAX_OUTSIDE = 0.2  # of all points outside of the picture: beyond it, OpenPose saw another picture size


@dataclass(frozen=True)
class Person:
    """One person of one file."""

    points_px: np.ndarray  # (33, 2) colour pixels, centres at +0.5; NaN = not found
    visibility: np.ndarray  # (33,) OpenPose's confidence in [0, 1]

    @property
    def height_px(self) -> float:
        """The longer side of the box around all points: does not shrink when an arm is lost."""
        return float(np.nanmax(np.nanmax(self.points_px, axis=0) - np.nanmin(self.points_px, axis=0)))


def read_openpose(
    paths: Sequence[Path | None], image_wh: tuple[int, int], mask: Callable[[int], np.ndarray]
) -> Keypoints:
    """The subject's landmarks in each of N files, None = no file.

    ``mask(i)`` is the subject's alpha (H, W) float32 of frame i.  Raises UserError for an unreadable file, and when the
    points do not fit pictures of ``image_wh``.
    """
    count = len(paths)
    points_px = np.full((count, NUM_LANDMARKS, 2), np.nan)
    visibility = np.zeros((count, NUM_LANDMARKS))
    before: Person | None = None
    crowded = 0
    for i, path in enumerate(paths):
        people = [] if path is None else read_people(path)
        crowded += len(people) > 1
        chosen = choose(people, mask(i) if people else None, before)
        if chosen is None:
            continue
        before = chosen
        points_px[i], visibility[i] = chosen.points_px, chosen.visibility
    _check_size(points_px, image_wh, next((path.parent for path in paths if path is not None), None))
    if crowded:
        log.info("OpenPose saw several people in %d of %d frames: the one in the mask is taken", crowded, count)
    world_m = np.full((count, NUM_LANDMARKS, 3), np.nan)
    return resolve_sides(Keypoints(points_px, visibility, world_m, np.zeros(count, bool)))


def read_people(path: Path) -> list[Person]:
    """Everybody in an OpenPose file with at least ``MIN_POINTS`` of our landmarks.

    Raises UserError when it is not OpenPose's, or of a body that is neither BODY_25 nor COCO.
    """
    try:
        people = json.loads(path.read_bytes())["people"]
        found = [_person(fields) for fields in people]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: not a file of OpenPose ({reason}); run OpenPose again with --write_json") from None
    return [person for person in found if np.isfinite(person.points_px[:, 0]).sum() >= MIN_POINTS]


def _person(fields: dict) -> Person:
    points_px = np.full((NUM_LANDMARKS, 2), np.nan)
    visibility = np.zeros(NUM_LANDMARKS)

    def put(name: str, point: np.ndarray) -> None:
        x, y, confidence = point
        index = _NAMED[name]
        if confidence >= MIN_CONFIDENCE and np.isfinite(point).all() and confidence > visibility[index]:
            # OpenPose puts the first pixel's centre at (0, 0), we at (0.5, 0.5).
            points_px[index] = x + 0.5, y + 0.5
            visibility[index] = min(confidence, 1.0)

    old_name = "pose_keypoints"  # until OpenPose 1.3
    body = _triples(fields[old_name] if old_name in fields else fields["pose_keypoints_2d"])
    if len(body) not in _BODY:
        raise ValueError(f"{len(body)} body points, only BODY_25 and COCO (18) are known")
    for name, point in zip(_BODY[len(body)], body, strict=True):
        if name is not None:
            put(name, point)
    for side in ("left", "right"):
        hand = _triples(fields.get(f"hand_{side}_keypoints_2d") or [])
        for k, name in _HAND.items() if len(hand) == HAND_POINTS else ():
            put(name.format(side=side), hand[k])
    face = _triples(fields.get("face_keypoints_2d") or [])
    for k, name in _FACE.items() if len(face) == FACE_POINTS else ():
        if visibility[_NAMED[name]] == 0:
            put(name, face[k])
    return Person(points_px, visibility)


def _triples(values: list) -> np.ndarray:
    """(K, 3) x, y, confidence."""
    return np.array(values, float).reshape(-1, 3)


def choose(people: Sequence[Person], mask: np.ndarray | None, before: Person | None) -> Person | None:
    """The subject among ``people``, None when nobody is.

    First who has the most of their points inside the subject's ``mask`` (all who come close to the best stay), then who
    is nearest to the person chosen ``before``, and without such a one who is largest in the picture.
    """
    candidates = list(people)
    if mask is not None and (mask > 0.5).any():
        shares = [_share_inside(person, mask) for person in candidates]
        least = max(MIN_SHARE, SAME_SHARE * max(shares, default=0))
        candidates = [person for person, share in zip(candidates, shares, strict=True) if share >= least]
    if before is not None and len(candidates) > 1:
        distances = [_distance(person, before) for person in candidates]
        if min(distances) < MAX_JUMP * before.height_px:
            return candidates[int(np.argmin(distances))]
    return max(candidates, key=lambda person: person.height_px, default=None)


def _share_inside(person: Person, mask: np.ndarray) -> float:
    """The part of a person's points that lie on the mask, or within 2 % of their height of it."""
    seen = np.isfinite(person.points_px[:, 0])
    reach = max(1, round(0.02 * person.height_px))
    inside = 0
    for x, y in np.floor(person.points_px[seen]).astype(int):
        patch = mask[max(0, y - reach) : max(0, y + reach + 1), max(0, x - reach) : max(0, x + reach + 1)]
        inside += bool((patch > 0.5).any())
    return inside / max(int(seen.sum()), 1)


def _distance(a: Person, b: Person) -> float:
    """Mean distance of the points that both have, pixels; infinite when they share none."""
    steps = np.linalg.norm(a.points_px - b.points_px, axis=1)
    return float(np.nanmean(steps)) if np.isfinite(steps).any() else float("inf")


def _check_size(points_px: np.ndarray, image_wh: tuple[int, int], folder: Path | None) -> None:
    points = points_px[np.isfinite(points_px[..., 0])]
    if not len(points):
        return
    if points.max() <= 2:
        raise UserError(
            f"{folder}: points between {points.min():.2g} and {points.max():.2g}; run OpenPose with "
            "--keypoint_scale 0, which writes pixels"
        )
    outside = ((points < 0) | (points > image_wh)).any(-1)
    if outside.mean() > MAX_OUTSIDE:
        reach = points.max(0)
        raise UserError(
            f"{folder}: points reach to ({reach[0]:.0f}, {reach[1]:.0f}), the pictures are "
            f"{image_wh[0]}x{image_wh[1]}; run OpenPose on pictures of this size"
        )
