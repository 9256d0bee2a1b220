"""Stage 02: which pixels are the subject, with a soft edge.

A recording enters, N masks of H x W pixels leave.  A network finds the person in each picture (``matters``,
``segment``), neighbouring pictures steady it (``steady``), the empty room, learned from the clip (``plate``), and depth
say where the person ends, and closed-form matting draws the edge (``edges``).

    masks.json         per frame: confidence, the person's box, what the mask rests on, doubt; notes for people
    masks/000000.png   uint8 alpha, 255 = subject
    strip.jpg          some frames cut out over a chequered ground, to look at
    uncertain.jpg      the ten frames with the greatest doubt, with their numbers
    checker.mp4        all frames cut out
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from capture import matters
from capture.alpha import somebody_else, trunk_distance
from capture.edges import learn_plate, refined
from capture.errors import UserError
from capture.glance import glance
from capture.local_model import KNOWN, LocalModel
from capture.mask_pictures import write_film, write_sheets
from capture.matters import Matter, chosen, given_mask
from capture.plate import Plate
from capture.progress import progress
from capture.recording import Recording, encode_png, read_gray, write_atomically
from capture.registration import depth_in_color
from capture.segment import NETWORK_SIDE_PX, Segment, Segmenter, boxes_beside, main_part, scored, strangers, widened
from capture.steady import FLOW_SIDE_PX, flow_gray, steadied, unexplained
from capture.workers import Workers

log = logging.getLogger(__name__)

LEAST_CHUNK, MOST_CHUNK = 4, 24  # frames a worker takes at a time: neighbours share their decoded pictures
CHUNKS_PER_WORKER = 4  # so that none waits long for the last
DISTANCE_S = 1.0  # longer than somebody takes to walk past, shorter than a step back takes
MIN_SHARE_FOUND = 0.1  # a person in fewer frames is a false alarm, not a film of somebody


@dataclass(frozen=True)
class MatteConfig:
    """How masks are made."""

    method: str = matters.AUTO  # auto, embedded, rembg, plate, chroma or given: see matters
    model: str = field(default="u2net_human_seg", metadata={"file": True, "words": tuple(KNOWN)})  # rembg: or a file
    weights_sha256: str = ""  # rembg: what the weights must be; empty = what rembg publishes
    masks: str = field(default="", metadata={"file": True})  # given: a folder; empty = those of the recording
    background: str = field(default="", metadata={"file": True})  # plate: a picture; empty = that of the recording
    learn_room: bool = True  # off: what would the network and depth alone give?
    use_depth: bool = True  # off: what would colour alone give?
    steady: bool = True  # median with the neighbouring frames, moved along the optical flow
    edge_side_px: int = 512  # the edge is solved on a crop of this size; 640 takes twice the time for the same IoU
    band: float = 0.01  # half width of the uncertain rim, as a part of the crop's longer side
    trust: float = 0.01  # weight of network and depth against the colours inside the rim
    smoothness: float = 1e-5  # closed-form matting's epsilon: higher ignores weak colour edges and noise
    gate_m: float = 0.6  # arms reach this far out of the trunk's plane; beyond is somebody or something else
    workers: int = field(default=2, metadata={"cosmetic": True})  # processes

    def __post_init__(self) -> None:
        if self.method not in matters.METHODS:
            raise UserError(f"matte.method = {self.method}: there are {', '.join(matters.METHODS)}")
        for name in ("band", "trust", "smoothness", "gate_m"):
            if not getattr(self, name) > 0:
                raise UserError(f"matte.{name} = {getattr(self, name)}: must be positive")
        if self.edge_side_px < 64 or self.workers < 1:
            raise UserError(
                f"matte.edge_side_px = {self.edge_side_px}, matte.workers = {self.workers}: at least 64 and 1"
            )


@dataclass(frozen=True)
class Masks:
    """Lazy sequence of masks.  ``masks[i]`` decodes frame i: (H, W) float32, 1 = subject, all zero where nobody is."""

    folder: Path
    confidence: np.ndarray  # (N,) mean probability inside the person, NaN where nobody was found
    boxes_px: np.ndarray  # (N, 4) left, top, right, bottom, NaN where nobody was found
    notes: tuple[str, ...] = ()

    @staticmethod
    def load(folder: Path) -> Masks:
        """Open masks.  Raises UserError when the folder holds none."""
        try:
            fields = json.loads((folder / "masks.json").read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: no readable masks.json ({error}); run the matte stage again") from None
        frames = fields["frames"]
        return Masks(
            folder=folder,
            confidence=np.array([np.nan if f["confidence"] is None else f["confidence"] for f in frames], float),
            boxes_px=np.array([[np.nan] * 4 if f["box_px"] is None else f["box_px"] for f in frames], float).reshape(
                -1, 4
            ),
            notes=tuple(fields["notes"]),
        )

    def __len__(self) -> int:
        return len(self.confidence)

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return read_gray(_mask_path(self.folder, index)) * np.float32(1 / 255)

    @property
    def is_found(self) -> np.ndarray:
        """(N,) bool, frames with a person."""
        return np.isfinite(self.confidence)


def matte(config: MatteConfig, out_dir: Path, recording_dir: Path) -> None:
    """Make the masks of a recording.  Raises UserError when nobody is in it.

    What is finished is kept in ``out_dir``, so that an interrupted run goes on where it was.
    """
    recording = Recording.load(recording_dir)
    matter = chosen(config, recording)
    log.info("method %s%s", matter.method, f": {matter.note}" if matter.note else "")
    notes = [matter.note] if matter.note else []
    (out_dir / "scratch").mkdir(parents=True, exist_ok=True)
    (out_dir / "masks").mkdir(exist_ok=True)
    count = len(recording)
    with Workers(config.workers) as workers:
        job = Job(config, out_dir, recording_dir, workers)
        if matter.method == matters.GIVEN:
            job.run(_given_chunk, [(i, None) for i in _missing(_mask_path, out_dir, count)], "take the masks")
            found = [bool(read_gray(_mask_path(out_dir, i)).max() > 127) for i in range(count)]
            _refuse_an_empty_film(found, f"the masks of {recording.source}")
        else:
            found, distance_m = _find(job, recording, notes)
            if config.learn_room:
                _learn_room(job, recording, matter, found, notes)
            todo = [(i, distance_m[i]) for i in _missing(_mask_path, out_dir, count)]
            job.run(_refine_chunk, todo, "draw the edges")
        # The film is one stream, which one thread codes while the workers are busy with what is not.
        with ThreadPoolExecutor(1) as beside:
            filmed = beside.submit(write_film, out_dir, Recording.load(recording_dir), _mask_of(out_dir))
            job.run(_judge_chunk, [(i, None) for i in _missing(_judged_path, out_dir, count)], "compare neighbours")
            filmed.result()
    if not all(found):
        notes.append(f"nobody was found in {count - sum(found)} of {count} frames: their masks are empty")
    _finish(config, matter, out_dir, recording, notes)


@dataclass(frozen=True)
class Job:
    """One run of the stage: its folders and the processes that share its frames."""

    config: MatteConfig
    out_dir: Path
    recording_dir: Path
    workers: Workers

    def run(self, function: Callable[..., int], frames: Sequence[tuple], label: str) -> None:
        """Spread (index, what is known of it) of ``frames`` over the workers."""
        size = -(-len(frames) // (CHUNKS_PER_WORKER * self.config.workers))
        size = min(max(size, LEAST_CHUNK), MOST_CHUNK)
        chunks = [tuple(frames[k : k + size]) for k in range(0, len(frames), size)]
        tasks = [(self.config, self.out_dir, self.recording_dir, chunk) for chunk in chunks]
        done = (i for count in self.workers.map(function, tasks) for i in range(count))
        for _ in progress(done, label, total=len(frames)):
            pass


def _missing(path_of: Callable[[Path, int], Path], out_dir: Path, num_frames: int) -> list[int]:
    """Frames whose file an interrupted run has not left."""
    return [i for i in range(num_frames) if not path_of(out_dir, i).is_file()]


def _refuse_an_empty_film(found: list[bool], source: str) -> None:
    """Raises UserError when the first look found somebody in (nearly) no frame.  A second look, which believes the
    neighbouring frames, would make a film of one false alarm."""
    num_found = sum(found)
    if num_found < max(1, MIN_SHARE_FOUND * len(found)):
        seen = "no person found in any" if not num_found else f"a person found in only {num_found}"
        raise UserError(f"{seen} of {len(found)} frames of {source}; is somebody in view, and well lit?")


# ------------------------------------------------------------------------------------- first half: the network alone


def _find(job: Job, recording: Recording, notes: list[str]) -> tuple[list[bool], np.ndarray]:
    """The network's masks of all frames, of one person.  Returns where he was found, and his distance in metres (N,);
    adds to ``notes``."""
    out_dir, count = job.out_dir, len(recording)
    job.run(_segment_chunk, [(i, None) for i in _missing(_raw_path, out_dir, count)], "find the person")
    boxes = np.stack([_read(_raw_path(out_dir, i)).box() for i in range(count)])  # (N, 4)
    found = [bool(is_found) for is_found in np.isfinite(boxes[:, 0])]
    _refuse_an_empty_film(found, recording.source)
    notes += _follow_one_person(job, boxes)
    distance_m = _distances(job, recording)
    job.run(_part_chunk, [(i, distance_m[i]) for i in np.flatnonzero(np.isfinite(distance_m))], "part people")
    again = [_retry_path(out_dir, i) for i in range(count)]
    return [_read(path).is_found if path.is_file() else found[i] for i, path in enumerate(again)], distance_m


def _learn_room(job: Job, recording: Recording, matter: Matter, found: list[bool], notes: list[str]) -> None:
    """Leave the plate in scratch/, for all workers; without one nothing is left there."""
    path = _plate_path(job.out_dir)
    if not path.is_file():
        log.info("learning what the room looks like without the person")
        plate = learn_plate(
            job.config,
            recording,
            lambda i: _read_raw(job.out_dir, i).probability,
            [i for i, is_found in enumerate(found) if is_found],
        )
        plate = matter.room(plate, recording)
        if plate is None:
            notes.append("the person hides the room all the time: masks rest on the network alone")
            return
        plate.save(path)
    if not Plate.load(path).is_still:
        notes.append("the camera moves: the room is learned from aligned pictures")


def _distances(job: Job, recording: Recording) -> np.ndarray:
    """(N,) metres to the person: the median of the frames within DISTANCE_S, so that somebody who passes by, before or
    behind, is not taken for him; NaN where depth does not say."""
    count = len(recording)
    if not job.config.use_depth or recording.rig.depth is None:
        return np.full(count, np.nan)
    job.run(_measure_chunk, [(i, None) for i in _missing(_distance_path, job.out_dir, count)], "measure the distance")
    alone = np.array([float(_distance_path(job.out_dir, i).read_text()) for i in range(count)])
    reach = max(2, round(DISTANCE_S * recording.frames_per_second))
    padded = np.pad(alone, reach, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    distance_m, is_known = np.full(count, np.nan), np.isfinite(around).any(1)
    distance_m[is_known] = np.nanmedian(around[is_known], axis=1)
    return distance_m


def _measure_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    recording = Recording.load(recording_dir)
    for index, _ in frames:
        probability = main_part(_read_raw(out_dir, index).probability)
        depth_m = _depth_beside(recording, index, probability)
        distance_m = float("nan") if depth_m is None else trunk_distance(probability, depth_m)
        write_atomically(_distance_path(out_dir, index), f"{distance_m:.4f}".encode())
    return len(frames)


def _part_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    """Leave a second look where the first one took somebody else in: without whoever stands elsewhere."""
    recording = Recording.load(recording_dir)
    for index, distance_m in frames:
        probability = _read_raw(out_dir, index).probability
        depth_m = _depth_beside(recording, index, probability)
        if depth_m is None:
            continue
        is_else = somebody_else(probability, depth_m, distance_m, config.gate_m)
        if is_else.any():
            alone = np.where(is_else, 0, np.rint(255 * probability)).astype(np.uint8)
            write_atomically(_retry_path(out_dir, index), _png(alone))
    return len(frames)


def _depth_beside(recording: Recording, index: int, probability: np.ndarray) -> np.ndarray | None:
    """Metres (h, w), NaN = unknown, for each pixel of the network's picture; None where the frame has no depth."""
    depth_mm, (height, width) = recording.depth_mm(index), probability.shape
    if depth_mm is None:
        return None
    return depth_in_color(recording.rig, depth_mm, recording.rig.color.resize((width, height)))


@functools.cache
def _segmenter() -> Segmenter:
    return Segmenter()  # one per process: loading takes longer than a frame, and it keeps no state


def _segment_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    """Write the raw probability of each (index, box) frame; with a box, look inside it only."""
    recording = Recording.load(recording_dir)
    for index, box in frames:
        small = glance(recording, index, NETWORK_SIDE_PX)
        segment = _segmenter().segment(small, None if box is None else np.array(box))
        if config.method == matters.REMBG and segment.is_found:
            segment = outlined(segment, recording.color(index), _local_model(config.model, config.weights_sha256))
        path = _raw_path(out_dir, index) if box is None else _retry_path(out_dir, index)
        write_atomically(path, _png(np.rint(segment.probability * 255).astype(np.uint8)))
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
        empty = np.zeros_like(_read(_raw_path(out_dir, i)).probability, np.uint8)
        write_atomically(_retry_path(out_dir, i), _png(empty))
    todo = [(i, tuple(beside[i])) for i in again if not _retry_path(out_dir, i).is_file()]
    job.run(_segment_chunk, todo, "look again")
    return [f"somebody else was in {is_stranger.sum()} frames and is left out"] if is_stranger.any() else []


# ----------------------------------------------------------------------------------------- second half: the soft edge


def _given_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    recording = Recording.load(recording_dir)
    for index, _ in frames:
        write_atomically(_mask_path(out_dir, index), encode_png(given_mask(config, recording, index)))
    return len(frames)


def _judge_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    """Write the doubt about each mask: pixels by which its outline differs from its neighbours' beyond what motion
    explains, the mean of both, plus the share of it on which the network disagrees."""
    recording = Recording.load(recording_dir)
    gray = functools.lru_cache(maxsize=3)(lambda i: flow_gray(glance(recording, i, FLOW_SIDE_PX)))
    mask = functools.lru_cache(maxsize=3)(lambda i: read_gray(_mask_path(out_dir, i)))
    change = functools.lru_cache(maxsize=2)(lambda i: unexplained(mask(i), mask(i + 1), gray(i), gray(i + 1)))
    for index, _ in frames:
        around = [change(i) for i in (index - 1, index) if 0 <= i < len(recording) - 1]
        believed = [pixels for pixels in around if np.isfinite(pixels)]
        doubt = float(np.mean(believed)) if believed else 0.0
        raw = _read_raw(out_dir, index) if _raw_path(out_dir, index).is_file() else None
        judged = _judged(mask(index), raw)
        if raw is not None and judged["box_px"] is not None:
            rough = main_part(raw.probability)
            small = cv2.resize(mask(index), (rough.shape[1], rough.shape[0]), interpolation=cv2.INTER_AREA)
            doubt += float(((small > 127) != (rough > 0.5)).sum() / max(1, (small > 127).sum()))
        judged["doubt"] = round(doubt, 4) if judged["confidence"] is not None else None
        write_atomically(_judged_path(out_dir, index), json.dumps(judged).encode())
    return len(frames)


def _judged(mask: np.ndarray, raw: Segment | None) -> dict[str, Any]:
    """Box of a mask (H, W) uint8, and how sure the network, or the user's mask itself, is of the person in it."""
    is_person = mask > 127
    rows, columns = np.flatnonzero(is_person.any(axis=1)), np.flatnonzero(is_person.any(axis=0))
    if not len(rows):
        return {"box_px": None, "confidence": None}
    box_px = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
    confidence = float(mask[is_person].mean()) / 255 if raw is None else raw.confidence
    return {"box_px": box_px, "confidence": round(confidence, 4) if confidence else None}


def _refine_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    recording = Recording.load(recording_dir)
    color = functools.lru_cache(maxsize=3)(recording.color)
    gray = functools.lru_cache(maxsize=3)(lambda i: flow_gray(color(i)))
    raw = functools.lru_cache(maxsize=3)(lambda i: _read_raw(out_dir, i).probability)
    plate = Plate.load(_plate_path(out_dir)) if _plate_path(out_dir).is_file() else None
    for index, distance_m in frames:
        probability = raw(index)
        if config.steady and probability.any():
            around = [i for i in (index - 1, index + 1) if 0 <= i < len(recording)]
            probability = steadied(probability, gray(index), [(gray(i), raw(i)) for i in around])
        depth_mm = recording.depth_mm(index) if config.use_depth and recording.rig.depth is not None else None
        alpha = refined(config, recording, color(index), main_part(probability), depth_mm, plate, distance_m)
        write_atomically(_mask_path(out_dir, index), _png(np.rint(alpha * 255).astype(np.uint8)))
    return len(frames)


def _png(mask: np.ndarray) -> bytes:
    """A mask (H, W) uint8 as the bytes of a PNG file: coded by runs, a third of the time of looking for repetitions."""
    ok, data = cv2.imencode(".png", mask)
    assert ok
    return data.tobytes()


# --------------------------------------------------------------------------------------------------------- the results


def _finish(config: MatteConfig, matter: Matter, out_dir: Path, recording: Recording, notes: list[str]) -> None:
    """Write masks.json, last, and the pictures."""
    frames: list[dict[str, Any]] = []
    num_clipped, count, height = 0, len(recording), recording.rig.color.image_wh[1]
    has_room = _plate_path(out_dir).is_file()
    for index in range(count):
        judged = json.loads(_judged_path(out_dir, index).read_text())
        box_px, is_person = judged["box_px"], judged["confidence"] is not None
        num_clipped += box_px is not None and box_px[3] >= height - 1
        frames.append(
            {
                "confidence": judged["confidence"],
                "box_px": box_px if is_person else None,
                "method": _rests_on(config, matter, recording, index, has_room) if is_person else None,
                "doubt": judged["doubt"],
            }
        )
    if num_clipped:
        notes.append(
            f"the person touches the lower edge of the picture in {num_clipped} of {count} frames: feet may be cut"
        )
    for note in notes:
        log.info("%s", note)
    settings = {name: value for name, value in asdict(config).items() if name != "workers"}
    found = [i for i, frame in enumerate(frames) if frame["box_px"] is not None]
    doubts = [float(frame["doubt"] or 0) for frame in frames]
    write_sheets(out_dir, recording, _mask_of(out_dir), found, doubts)
    fields = {"settings": settings, "method": matter.method, "notes": notes, "frames": frames}
    write_atomically(out_dir / "masks.json", json.dumps(fields, indent=1).encode())


def _rests_on(config: MatteConfig, matter: Matter, recording: Recording, index: int, has_room: bool) -> str:
    """What the mask of a frame rests on, in words."""
    if matter.method == matters.GIVEN:
        return matter.method
    has_depth = config.use_depth and recording.rig.depth is not None and bool(recording.has_depth[index])
    words = ["rembg" if matter.method == matters.REMBG else "pose", *(["room"] if has_room else [])]
    return " + ".join([*words, *(["depth"] if has_depth else [])])


def _read(path: Path) -> Segment:
    return scored(read_gray(path) * np.float32(1 / 255))


def _read_raw(out_dir: Path, index: int) -> Segment:
    """What is believed of a frame: the second look where there was one."""
    retry = _retry_path(out_dir, index)
    return _read(retry if retry.is_file() else _raw_path(out_dir, index))


def _raw_path(out_dir: Path, index: int) -> Path:
    return out_dir / "scratch" / f"raw_{index:06d}.png"


def _retry_path(out_dir: Path, index: int) -> Path:
    return out_dir / "scratch" / f"again_{index:06d}.png"


def _judged_path(out_dir: Path, index: int) -> Path:
    return out_dir / "scratch" / f"judged_{index:06d}.json"


def _distance_path(out_dir: Path, index: int) -> Path:
    return out_dir / "scratch" / f"distance_{index:06d}.txt"


def _plate_path(out_dir: Path) -> Path:
    return out_dir / "scratch" / "plate.npz"


def _mask_of(folder: Path) -> Callable[[int], np.ndarray]:
    return lambda index: read_gray(_mask_path(folder, index))


def _mask_path(folder: Path, index: int) -> Path:
    return folder / "masks" / f"{index:06d}.png"
