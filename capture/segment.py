"""Which pixels MediaPipe takes for the person: stage 02's first, per-frame half.

H x W colour pixels, h x w pixels of the reduced picture the network reads.  Pose's segmentation head was
measured against Selfie segmentation (``benchmarks/mattes.py``): it crops to the person by itself, and keeps to one
person in a crowd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from capture.pose_network import PoseNetwork

NETWORK_SIDE_PX = 800  # the network works on 256 x 256 of the person; more only costs time
MIN_AREA = 0.001  # of the picture: less is a false alarm
PERSON = 0.5
# Visibility of the 12 clearest landmarks: people have 0.94 and more, a chair with a jacket has between 0.4 and 0.95;
# less will do where the neighbouring frames show somebody.
SURE_AT_FIRST, SURE_AGAIN = 0.9, 0.5


@dataclass(frozen=True)
class Segment:
    """What the network said about one frame."""

    probability: np.ndarray  # (h, w) float32, all zero when nobody was found
    confidence: float  # mean probability inside, 0 when nobody was found

    @property
    def is_found(self) -> bool:
        return self.confidence > 0

    def box(self) -> np.ndarray:
        """(left, top, right, bottom) of the person as fractions of width and height; NaN when nobody was found."""
        if not self.is_found:
            return np.full(4, np.nan)
        rows, columns = np.nonzero(self.probability > PERSON)
        height, width = self.probability.shape
        return np.array(
            [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]
        )


class Segmenter:
    """MediaPipe Pose with its segmentation head, one picture at a time: no state between frames, so that frames may be
    computed in any order and again."""

    def __init__(self) -> None:
        self._pose = PoseNetwork(static_image_mode=True, enable_segmentation=True)

    def segment(self, color: np.ndarray, within: np.ndarray | None = None) -> Segment:
        """Find the person in (H, W, 3) uint8 RGB; ``within`` = (left, top, right, bottom) in fractions: only there."""
        small = reduced(color)
        height, width = small.shape[:2]
        left, top, right, bottom = 0, 0, width, height
        if within is not None:
            left, top = (int(v) for v in np.floor(within[:2].clip(0, 1) * (width, height)))
            right, bottom = (int(v) for v in np.ceil(within[2:].clip(0, 1) * (width, height)))
        probability = np.zeros((height, width), np.float32)
        if right - left >= 16 and bottom - top >= 16:
            result = self._pose.process(np.ascontiguousarray(small[top:bottom, left:right]))
            sure = SURE_AT_FIRST if within is None else SURE_AGAIN
            if result.segmentation_mask is not None and _visibility(result) > sure:
                probability[top:bottom, left:right] = result.segmentation_mask
        return scored(probability)

    def close(self) -> None:
        self._pose.close()


def _visibility(result: Any) -> float:
    """Mean visibility of the twelve clearest landmarks: as many as a head and shoulders show."""
    return float(np.sort([landmark.visibility for landmark in result.pose_landmarks.landmark])[-12:].mean())


def reduced(color: np.ndarray) -> np.ndarray:
    """The picture as the network reads it: (h, w, 3), longer side at most NETWORK_SIDE_PX."""
    scale = NETWORK_SIDE_PX / max(color.shape[:2])
    if scale >= 1:
        return color
    return cv2.resize(color, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def scored(probability: np.ndarray) -> Segment:
    """A probability map (h, w) with its confidence; a map with hardly any person becomes one with none."""
    is_person = probability > PERSON
    if is_person.mean() < MIN_AREA:
        return Segment(np.zeros_like(probability), 0.0)
    return Segment(probability, float(probability[is_person].mean()))


def parts(mask: np.ndarray, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels (h, w) int32, areas (L,) in pixels) of what hangs together in a mask (h, w) uint8; label 0 is what is not
    in it.  Counting the labels takes a third of the time of OpenCV's own statistics."""
    count, labels = cv2.connectedComponents(mask, connectivity=connectivity)
    return labels, np.bincount(labels.ravel(), minlength=count)


def main_part(probability: np.ndarray) -> np.ndarray:
    """Keep the largest connected person (h, w) and parts close beside it (a hand behind a strap); drop the others."""
    is_person = (probability > PERSON).astype(np.uint8)
    labels, areas = parts(is_person, 8)
    count = len(areas)
    if count <= 2:
        return probability
    areas = areas[1:]
    main = 1 + int(areas.argmax())
    rows = np.flatnonzero((labels == main).any(axis=1))
    reach_px = 0.03 * (rows[-1] - rows[0] + 1)
    distance_px = cv2.distanceTransform((labels != main).astype(np.uint8), cv2.DIST_L2, 5)
    is_dropped = np.zeros(count, bool)
    for label in range(1, count):
        is_dropped[label] = label != main and distance_px[labels == label].min() > reach_px
    if not is_dropped.any():
        return probability
    # The soft rim goes with its part: each pixel belongs to the part nearest to it.
    _, nearest = cv2.distanceTransformWithLabels(1 - is_person, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    part_of = np.zeros(nearest.max() + 1, int)
    part_of[nearest[is_person > 0]] = labels[is_person > 0]
    return np.where(is_dropped[part_of[nearest]], 0, probability).astype(np.float32)


def strangers(boxes: np.ndarray) -> np.ndarray:
    """(N,) True for frames whose box (N, 4) does not continue the track of its neighbours: another person was found.

    A frame is compared with the median of the seven frames before and after it; NaN boxes are no strangers.
    """
    found = np.flatnonzero(np.isfinite(boxes[:, 0]))
    result = np.zeros(len(boxes), bool)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    sizes = boxes[:, 2:] - boxes[:, :2]
    for i in found:
        near = found[np.abs(found - i) <= 7]
        if len(near) < 5:
            continue
        center, size = np.median(centers[near], axis=0), np.median(sizes[near], axis=0)
        is_apart = bool((np.abs(centers[i] - center) > 0.75 * size.max()).any())
        result[i] = is_apart or not 0.4 < sizes[i].max() / size.max() < 2.5
    return result


def boxes_beside(boxes: np.ndarray, is_trusted: np.ndarray, reach: int = 15) -> np.ndarray:
    """(N, 4) for each frame the box to look for the person in: the trusted neighbours' boxes joined and widened; NaN
    where there is no trusted frame within ``reach``."""
    result = np.full_like(boxes, np.nan)
    trusted = np.flatnonzero(is_trusted)
    for i in range(len(boxes)):
        before, after = trusted[trusted < i][-1:], trusted[trusted > i][:1]
        near = [j for j in (*before, *after) if abs(j - i) <= reach]
        if near:
            result[i] = widened(np.concatenate([boxes[near, :2].min(axis=0), boxes[near, 2:].max(axis=0)]))
    return result


def widened(box: np.ndarray) -> np.ndarray:
    """(left, top, right, bottom) with a quarter of the size around it."""
    margin = 0.25 * (box[2:] - box[:2])
    return np.concatenate([box[:2] - margin, box[2:] + margin])
