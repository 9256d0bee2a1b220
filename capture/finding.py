"""Stage 02's first half: the one person of the film, roughly: by the network, and by depth where others are in it.

N frames.  A recording enters, and before people are told apart the empty room (``capture.plate``) where it was learned;
per frame a probability map (``raw_``, ``again_`` of ``capture.matte_job``), where he was found and how far away he
stands leave.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from capture.errors import UserError
from capture.glance import glance
from capture.local_model import LocalModel
from capture.matte_config import REMBG, MatteConfig
from capture.matte_job import (
    Job,
    distance_path,
    gray_path,
    leave,
    leave_map,
    missing,
    plate_path,
    raw_path,
    read_raw,
    read_segment,
    retry_path,
)
from capture.parting import (
    NOBODY_SHARE,
    Surfaces,
    Whereabouts,
    somebody_else,
    steady_distances,
    surfaces,
    trunk_distance,
)
from capture.plate import Plate
from capture.recording import Recording
from capture.registration import depth_in_color
from capture.segment import NETWORK_SIDE_PX, Segment, Segmenter, boxes_beside, main_part, scored, strangers, widened
from capture.steady import flow_gray

DISTANCE_S = 1.0  # longer than somebody takes to walk past, shorter than a step back takes
MEASURED_STEP = 2  # every other pixel of the network's picture: as fine as a Kinect's depth
MIN_SHARE_FOUND = 0.1  # a person in fewer frames is a false alarm, not a film of somebody


def find(job: Job, recording: Recording, notes: list[str]) -> list[bool]:
    """The network's masks of all frames, of one person as far as pictures tell.  Returns where somebody was found; adds
    to ``notes``."""
    out_dir, count = job.out_dir, len(recording)
    job.run(_segment_chunk, [(i, None) for i in missing(out_dir, count, raw_path, gray_path)], "find the person")
    boxes = np.stack([read_segment(raw_path(out_dir, i)).box() for i in range(count)])  # (N, 4)
    found = [bool(is_found) for is_found in np.isfinite(boxes[:, 0])]
    refuse_an_empty_film(found, recording.source)
    notes += _follow_one_person(job, boxes)
    return _with_second_looks(out_dir, found)


def tell_apart(job: Job, recording: Recording, found: list[bool]) -> tuple[list[bool], list[Whereabouts]]:
    """Leave out whoever stands elsewhere than the person.  Returns where the person was found, and what depth says of
    where he is.  Beside the masks of ``find`` it wants the empty room, where there is one."""
    distance_m, todo = _distances(job, recording)
    job.run(_part_chunk, todo, "part people")
    is_near = np.zeros(len(recording), bool)
    reach = _reach(recording)
    for index, _ in todo:
        is_near[max(0, index - reach) : index + reach + 1] = True
    places = [Whereabouts(float(m), not near) for m, near in zip(distance_m, is_near, strict=True)]
    return _with_second_looks(job.out_dir, found), places


def _with_second_looks(out_dir: Path, found: list[bool]) -> list[bool]:
    again = [retry_path(out_dir, i) for i in range(len(found))]
    return [read_segment(path).is_found if path.is_file() else found[i] for i, path in enumerate(again)]


def refuse_an_empty_film(found: list[bool], source: str) -> None:
    """Raises UserError when the first look found somebody in (nearly) no frame.  A second look, which believes the
    neighbouring frames, would make a film of one false alarm."""
    num_found = sum(found)
    if num_found < max(1, MIN_SHARE_FOUND * len(found)):
        seen = "no person found in any" if not num_found else f"a person found in only {num_found}"
        raise UserError(f"{seen} of {len(found)} frames of {source}; is somebody in view, and well lit?")


@functools.cache
def _segmenter() -> Segmenter:
    return Segmenter()  # one per process: loading takes longer than a frame, and it keeps no state


def _segment_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    """Write the raw probability of each (index, box) frame; with a box, look inside it only."""
    recording = Recording.load(recording_dir)
    for index, box in frames:
        small = glance(recording, index, NETWORK_SIDE_PX)
        segment = _segmenter().segment(small, None if box is None else np.array(box))
        if config.method == REMBG and segment.is_found:
            segment = outlined(segment, recording.color(index), _local_model(config.model, config.weights_sha256))
        if box is None:
            leave_map(gray_path(out_dir, index), flow_gray(small))
        path = raw_path(out_dir, index) if box is None else retry_path(out_dir, index)
        leave_map(path, np.rint(segment.probability * 255).astype(np.uint8))
    return len(frames)


@functools.cache
def _local_model(model: str, sha256: str) -> LocalModel:
    return LocalModel(model, sha256)


def outlined(segment: Segment, color: np.ndarray, model: LocalModel) -> Segment:
    """The person MediaPipe found, as a network of rembg sees what is inside the widened box.  It takes whatever stands
    out for its subject, so MediaPipe says whether there is somebody, and where."""
    height, width = segment.probability.shape
    left, top, right, bottom = (widened(segment.box()).clip(0, 1) * (width, height, width, height)).round().astype(int)
    scale_x, scale_y = color.shape[1] / width, color.shape[0] / height
    part = color[round(top * scale_y) : round(bottom * scale_y), round(left * scale_x) : round(right * scale_x)]
    probability = np.zeros((height, width), np.float32)
    probability[top:bottom, left:right] = cv2.resize(
        model.probability(np.ascontiguousarray(part)), (right - left, bottom - top), interpolation=cv2.INTER_AREA
    )
    return scored(probability)


def _follow_one_person(job: Job, boxes: np.ndarray) -> list[str]:
    """Look again where ``boxes`` (N, 4) have nobody, or somebody else: inside the neighbours' boxes.  Returns what to
    tell."""
    out_dir = job.out_dir
    is_stranger = strangers(boxes)
    is_trusted = np.isfinite(boxes[:, 0]) & ~is_stranger
    beside = boxes_beside(boxes, is_trusted)
    again = [i for i in map(int, np.flatnonzero(~is_trusted)) if np.isfinite(beside[i, 0]) or is_stranger[i]]
    for i in [i for i in again if not np.isfinite(beside[i, 0])]:
        empty = np.zeros_like(read_segment(raw_path(out_dir, i)).probability, np.uint8)
        leave_map(retry_path(out_dir, i), empty)
    todo = [(i, tuple(beside[i])) for i in again if not retry_path(out_dir, i).is_file()]
    job.run(_segment_chunk, todo, "look again")
    return [f"somebody else was in {is_stranger.sum()} frames and is left out"] if is_stranger.any() else []


def _distances(job: Job, recording: Recording) -> tuple[np.ndarray, list[tuple]]:
    """((N,) metres to the person, NaN where depth does not say; (index, metres) of the frames with somebody else in
    them)."""
    count = len(recording)
    if not job.config.use_depth or recording.rig.depth is None:
        return np.full(count, np.nan), []
    todo = [(i, None) for i in missing(job.out_dir, count, distance_path)]
    job.run(_measure_chunk, todo, "measure the distance")
    measured = [json.loads(distance_path(job.out_dir, i).read_text()) for i in range(count)]
    alone_m = np.array([np.nan if m["distance_m"] is None else m["distance_m"] for m in measured])
    distance_m = steady_distances(alone_m, _reach(recording))
    crowded = []
    for index, (metres, fields) in enumerate(zip(distance_m, measured, strict=True)):
        found = Surfaces(np.empty((0, 0)), np.array(fields["surfaces_m"]), np.array(fields["share"]))
        if found.is_elsewhere(metres, job.config.gate_m).any():  # never, where the distance is NaN
            crowded.append((index, metres))
    return distance_m, crowded


def _reach(recording: Recording) -> int:
    """Frames."""
    return max(2, round(DISTANCE_S * recording.frames_per_second))


def _measure_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    """Write how far the person is, and how far each surface is that is large enough to be somebody."""
    recording, room_m = Recording.load(recording_dir), _room_depth(out_dir)
    for index, _ in frames:
        probability = read_raw(out_dir, index).probability[::MEASURED_STEP, ::MEASURED_STEP]
        depth_m = _depth_beside(recording, index, probability)
        distance_m, found = float("nan"), Surfaces(np.empty((0, 0)), np.empty(0), np.empty(0))
        if depth_m is not None:
            distance_m = trunk_distance(main_part(probability), depth_m)
            room_here_m = None
            if room_m is not None:
                room_here_m = cv2.resize(room_m, probability.shape[::-1], interpolation=cv2.INTER_NEAREST)
            found = surfaces(probability, depth_m, room_here_m)
        is_large = found.share > NOBODY_SHARE
        fields = {
            "distance_m": round(distance_m, 4) if np.isfinite(distance_m) else None,
            "surfaces_m": found.median_m[is_large].round(4).tolist(),
            "share": found.share[is_large].round(4).tolist(),
        }
        leave(distance_path(out_dir, index), json.dumps(fields).encode())
    return len(frames)


def _part_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    """Leave a second look where the first one took somebody else in: without whoever stands elsewhere."""
    recording = Recording.load(recording_dir)
    for index, distance_m in frames:
        probability = read_raw(out_dir, index).probability
        depth_m = _depth_beside(recording, index, probability)
        assert depth_m is not None
        is_else = somebody_else(probability, depth_m, Whereabouts(distance_m, is_alone=False), config.gate_m)
        alone = np.where(is_else, 0, np.rint(255 * probability)).astype(np.uint8)
        leave_map(retry_path(out_dir, index), alone)
    return len(frames)


def _room_depth(out_dir: Path) -> np.ndarray | None:
    """(h, w) metres to the empty room, NaN = unknown; None where it was not learned or does not stand still."""
    plate = Plate.load(plate_path(out_dir)) if plate_path(out_dir).is_file() else None
    return plate.depth_m if plate is not None and plate.is_still else None


def _depth_beside(recording: Recording, index: int, probability: np.ndarray) -> np.ndarray | None:
    """Metres (h, w), NaN = unknown, for each pixel of the network's picture; None where the frame has no depth."""
    depth_mm, (height, width) = recording.depth_mm(index), probability.shape
    if depth_mm is None:
        return None
    return depth_in_color(recording.rig, depth_mm, recording.rig.color.resize((width, height)))
