"""Stage 02: which pixels are the subject, with a soft edge.

A recording enters, N masks of H x W pixels leave.  MediaPipe finds the person in each picture (``segment``),
neighbouring pictures steady it (``steady``), depth gates it and closed-form matting draws the edge (``alpha``).

    masks.json         per frame: confidence, the person's box, what the mask rests on; notes for people
    masks/000000.png   uint8 alpha, 255 = subject
    strip.jpg          some frames cut out over a chequered ground, to look at
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from capture.alpha import cleaned, enlarged, evidence, gated, matted
from capture.errors import UserError
from capture.likelihood import Room, posterior, rim_alpha, room_behind
from capture.plate import SAMPLES, Plate, learned
from capture.progress import progress
from capture.recording import Recording, encode_jpeg, encode_png, read_gray, write_atomically
from capture.registration import depth_in_color, is_registered
from capture.segment import Segment, Segmenter, boxes_beside, main_part, scored, strangers
from capture.steady import steadied
from capture.workers import Workers

log = logging.getLogger(__name__)

CHUNK = 12  # frames a worker takes at a time: neighbours share their decoded pictures
MIN_SHARE_FOUND = 0.1  # a person in fewer frames is a false alarm, not a film of somebody
NETWORK_MARGIN, OWN_MARGIN = 0.015, 0.004  # of the picture: how far a mask may miss the person, when learning the room
SURE = 0.9  # probability by the colour of the person and the room that depth's gate does not overrule
TRUST_READ = 10.0  # times more than the network, where alpha was read off known colours
BODY_MARGIN = 0.08  # of the person's longer side, around the crop the edge is drawn in


@dataclass(frozen=True)
class MatteConfig:
    """How masks are made."""

    use_depth: bool = True  # off: what would colour alone give?
    steady: bool = True  # median with the neighbouring frames, moved along the optical flow
    edge_side_px: int = 512  # the edge is solved on a crop of this size; 640 takes twice the time for the same IoU
    band: float = 0.01  # half width of the uncertain rim, as a part of the crop's longer side
    trust: float = 0.01  # weight of network and depth against the colours inside the rim
    smoothness: float = 1e-5  # closed-form matting's epsilon: higher ignores weak colour edges and noise
    gate_m: float = 0.6  # arms reach this far out of the trunk's plane; beyond is somebody or something else
    workers: int = field(default=2, metadata={"cosmetic": True})  # processes

    def __post_init__(self) -> None:
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
    (out_dir / "scratch").mkdir(parents=True, exist_ok=True)
    (out_dir / "masks").mkdir(exist_ok=True)
    with Workers(config.workers) as workers:
        job = Job(config, out_dir, recording_dir, workers)
        job.run(_segment_chunk, [(i, None) for i in _missing(_raw_path, out_dir, len(recording))], "find the person")
        _refuse_an_empty_film([_read(_raw_path(out_dir, i)) for i in range(len(recording))], recording.source)
        notes = _follow_one_person(job, len(recording))
        raw = [_read_raw(out_dir, i) for i in range(len(recording))]
        num_empty = sum(not segment.is_found for segment in raw)
        if num_empty:
            notes.append(f"nobody was found in {num_empty} of {len(raw)} frames: their masks are empty")
        job.run(_refine_chunk, [(i, None) for i in _missing(_mask_path, out_dir, len(recording))], "draw the edges")
    _finish(config, out_dir, recording, raw, notes)


@dataclass(frozen=True)
class Job:
    """One run of the stage: its folders and the processes that share its frames."""

    config: MatteConfig
    out_dir: Path
    recording_dir: Path
    workers: Workers

    def run(self, function: Callable[..., int], frames: Sequence[tuple], label: str) -> None:
        """Spread (index, box) of ``frames`` over the workers."""
        chunks = [tuple(frames[k : k + CHUNK]) for k in range(0, len(frames), CHUNK)]
        tasks = [(self.config, self.out_dir, self.recording_dir, chunk) for chunk in chunks]
        done = (i for count in self.workers.map(function, tasks) for i in range(count))
        for _ in progress(done, label, total=len(frames)):
            pass


def _missing(path_of: Callable[[Path, int], Path], out_dir: Path, num_frames: int) -> list[int]:
    """Frames whose file an interrupted run has not left."""
    return [i for i in range(num_frames) if not path_of(out_dir, i).is_file()]


def _refuse_an_empty_film(first: list[Segment], source: str) -> None:
    """Raises UserError when the first look found somebody in (nearly) no frame.  A second look, which believes the
    neighbouring frames, would make a film of one false alarm."""
    num_found = sum(segment.is_found for segment in first)
    if num_found < max(1, MIN_SHARE_FOUND * len(first)):
        seen = "no person found in any" if not num_found else f"a person found in only {num_found}"
        raise UserError(f"{seen} of {len(first)} frames of {source}; is somebody in view, and well lit?")


# ------------------------------------------------------------------------------------- first half: the network alone


@functools.cache
def _segmenter() -> Segmenter:
    return Segmenter()  # one per process: loading takes longer than a frame, and it keeps no state


def _segment_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    """Write the raw probability of each (index, box) frame; with a box, look inside it only."""
    recording = Recording.load(recording_dir)
    for index, box in frames:
        segment = _segmenter().segment(recording.color(index), None if box is None else np.array(box))
        path = _raw_path(out_dir, index) if box is None else _retry_path(out_dir, index)
        write_atomically(path, encode_png(np.rint(segment.probability * 255).astype(np.uint8)))
    return len(frames)


def _follow_one_person(job: Job, num_frames: int) -> list[str]:
    """Look again where nobody, or somebody else, was found: inside the neighbours' boxes.  Returns what to tell."""
    out_dir = job.out_dir
    boxes = np.stack([_read(_raw_path(out_dir, i)).box() for i in range(num_frames)])  # (N, 4)
    is_stranger = strangers(boxes)
    is_trusted = np.isfinite(boxes[:, 0]) & ~is_stranger
    beside = boxes_beside(boxes, is_trusted)
    again = [i for i in map(int, np.flatnonzero(~is_trusted)) if np.isfinite(beside[i, 0]) or is_stranger[i]]
    for i in [i for i in again if not np.isfinite(beside[i, 0])]:
        empty = np.zeros_like(_read(_raw_path(out_dir, i)).probability, np.uint8)
        write_atomically(_retry_path(out_dir, i), encode_png(empty))
    todo = [(i, tuple(beside[i])) for i in again if not _retry_path(out_dir, i).is_file()]
    job.run(_segment_chunk, todo, "look again")
    return [f"somebody else was in {is_stranger.sum()} frames and is left out"] if is_stranger.any() else []


# ----------------------------------------------------------------------------------------- second half: the soft edge


def _refine_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    recording = Recording.load(recording_dir)
    color = functools.lru_cache(maxsize=3)(recording.color)
    for index, _ in frames:
        probability = _read_raw(out_dir, index).probability
        if config.steady and probability.any():
            around = [i for i in (index - 1, index + 1) if 0 <= i < len(recording)]
            neighbours = [(color(i), _read_raw(out_dir, i).probability) for i in around]
            probability = steadied(probability, color(index), neighbours)
        depth_mm = recording.depth_mm(index) if config.use_depth and recording.rig.depth is not None else None
        alpha = refined(config, recording, color(index), main_part(probability), depth_mm)
        write_atomically(_mask_path(out_dir, index), encode_png(np.rint(alpha * 255).astype(np.uint8)))
    return len(frames)


def refined(
    config: MatteConfig,
    recording: Recording,
    color: np.ndarray,
    probability: np.ndarray,
    depth_mm: np.ndarray | None,
    plate: Plate | None = None,
) -> np.ndarray:
    """Alpha (H, W) float32 of a picture (H, W, 3) from its probability (h, w), its depth image and the empty room, if
    there are any."""
    crop = cut(config, recording, color, probability, depth_mm)
    if crop is None:
        return np.zeros(color.shape[:2], np.float32)
    prior, firm = crop.prior, np.zeros_like(crop.prior)
    is_read = is_sure = np.zeros(prior.shape, bool)
    room = None if plate is None else room_of(plate, crop, color, probability)
    if room is not None:
        prior = posterior(prior, crop.color, room, crop.depth_m)
        is_known = np.isfinite(room.color).all(axis=-1)
        firm, is_sure = is_known.astype(np.float32), is_known & (prior > SURE)
    if crop.depth_m is not None:
        prior, separation = gated(prior, crop.depth_m, config.gate_m, crop.footprint_px, is_sure)
        firm = np.maximum(firm, separation)
    if room is not None:
        prior, is_read = rim_alpha(prior, crop.color, room)
    known = evidence(prior, firm, max(2.0, config.band * max(prior.shape)), is_read)
    trust = np.where(is_read, TRUST_READ * config.trust, config.trust)
    solved = cleaned(matted(crop.color, known, trust, config.smoothness), prior)
    left, top, right, bottom = crop.box_px
    alpha = np.zeros(color.shape[:2], np.float32)
    alpha[top:bottom, left:right] = enlarged(solved, np.ascontiguousarray(color[top:bottom, left:right]))
    return alpha


@dataclass(frozen=True)
class Crop:
    """The surroundings of the person in one picture, at the size the edge is drawn at."""

    box_px: tuple[int, int, int, int]  # left, top, right, bottom in the picture
    color: np.ndarray  # (H, W, 3) uint8
    prior: np.ndarray  # (H, W) float32
    depth_m: np.ndarray | None  # (H, W) in the colour view, NaN = unknown
    footprint_px: float  # how far depth's edges may be off


def cut(
    config: MatteConfig,
    recording: Recording,
    color: np.ndarray,
    probability: np.ndarray,
    depth_mm: np.ndarray | None,
) -> Crop | None:
    """The crop around the person; None when there is nobody."""
    height, width = color.shape[:2]
    box_px = _crop_px(probability, (width, height))
    if box_px is None:
        return None
    left, top, right, bottom = box_px
    scale = min(1.0, config.edge_side_px / max(right - left, bottom - top))
    work_wh = (max(8, round((right - left) * scale)), max(8, round((bottom - top) * scale)))
    work = cv2.resize(color[top:bottom, left:right], work_wh, interpolation=cv2.INTER_AREA)
    prior = _sampled(probability, (width, height), box_px, work_wh)
    if depth_mm is None:
        return Crop(box_px, work, prior, None, 0.0)
    rig = recording.rig
    assert rig.depth is not None
    camera = rig.color.crop(box_px, work_wh)
    # Half a depth pixel, half a pixel of ours, and what two separate sensors disagree about.
    footprint_px = 0.5 * camera.fx_px / rig.depth.fx_px + (0.5 if is_registered(rig) else 1.0)
    return Crop(box_px, work, prior, depth_in_color(rig, depth_mm, camera), footprint_px)


def room_of(plate: Plate, crop: Crop, color: np.ndarray, probability: np.ndarray) -> Room | None:
    """The empty room behind a crop; None where this picture's camera could not be found."""
    frame_from_plate = plate.frame_from_plate(color, probability)
    if frame_from_plate is None:
        return None
    work_wh = (crop.prior.shape[1], crop.prior.shape[0])
    seen = plate.seen(frame_from_plate, crop.box_px, (color.shape[1], color.shape[0]), work_wh)
    return room_behind(seen, crop.color, crop.prior, plate.person_log)


def learn_plate(
    config: MatteConfig, recording: Recording, probability_of: Callable[[int], np.ndarray], found: Sequence[int]
) -> Plate | None:
    """The empty room of a clip, learned from frames ``found`` with the network's masks, then again with its own."""
    chosen = sorted({found[round(k * (len(found) - 1) / max(1, SAMPLES - 1))] for k in range(SAMPLES)})
    has_depth = config.use_depth and recording.rig.depth is not None and bool(recording.has_depth[chosen].all())

    def depth_of(i: int, wh: tuple[int, int]) -> np.ndarray:
        depth_mm = recording.depth_mm(i)
        assert depth_mm is not None
        return depth_in_color(recording.rig, depth_mm, recording.rig.color.resize(wh))

    rough = learned(recording, chosen, probability_of, depth_of if has_depth else None, NETWORK_MARGIN)
    if rough is None:
        return None

    @functools.cache
    def better(i: int) -> np.ndarray:
        color, probability = recording.color(i), main_part(probability_of(i))
        crop = cut(config, recording, color, probability, recording.depth_mm(i) if has_depth else None)
        room = None if crop is None else room_of(rough, crop, color, probability)
        if crop is None or room is None:
            return probability
        left, top, right, bottom = crop.box_px
        whole = np.zeros(color.shape[:2], np.float32)
        whole[top:bottom, left:right] = cv2.resize(
            posterior(crop.prior, crop.color, room, crop.depth_m), (right - left, bottom - top)
        )
        return whole

    return learned(recording, chosen, better, depth_of if has_depth else None, OWN_MARGIN)


def _crop_px(probability: np.ndarray, image_wh: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) of the person with a margin, in pixels of the picture; None when there is nobody."""
    rows, columns = np.nonzero(probability > 0.1)
    if not len(rows):
        return None
    scale_x, scale_y = image_wh[0] / probability.shape[1], image_wh[1] / probability.shape[0]
    left, right = columns.min() * scale_x, (columns.max() + 1) * scale_x
    top, bottom = rows.min() * scale_y, (rows.max() + 1) * scale_y
    margin = BODY_MARGIN * max(right - left, bottom - top) + 2
    return (
        max(0, int(left - margin)),
        max(0, int(top - margin)),
        min(image_wh[0], int(right + margin) + 1),
        min(image_wh[1], int(bottom + margin) + 1),
    )


def _sampled(
    probability: np.ndarray, image_wh: tuple[int, int], box_px: tuple[int, int, int, int], work_wh: tuple[int, int]
) -> np.ndarray:
    """The part ``box_px`` of a probability map (h, w) of the whole picture, resampled to ``work_wh``."""
    left, top, right, bottom = box_px
    x = (left + (np.arange(work_wh[0]) + 0.5) * (right - left) / work_wh[0]) * probability.shape[1] / image_wh[0] - 0.5
    y = (top + (np.arange(work_wh[1]) + 0.5) * (bottom - top) / work_wh[1]) * probability.shape[0] / image_wh[1] - 0.5
    map_x, map_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return cv2.remap(probability, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


# --------------------------------------------------------------------------------------------------------- the results


def _finish(config: MatteConfig, out_dir: Path, recording: Recording, raw: list[Segment], notes: list[str]) -> None:
    """Write masks.json, last, and the picture strip."""
    frames, num_clipped = [], 0
    for index, segment in enumerate(raw):
        mask = read_gray(_mask_path(out_dir, index))
        rows, columns = np.nonzero(mask > 127)
        box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1] if len(rows) else None
        has_depth = config.use_depth and recording.rig.depth is not None and bool(recording.has_depth[index])
        num_clipped += box is not None and box[3] >= mask.shape[0] - 1
        is_person = segment.is_found and box is not None
        frames.append(
            {
                "confidence": round(segment.confidence, 4) if is_person else None,
                "box_px": box if is_person else None,
                "method": ("pose + depth" if has_depth else "pose") if is_person else None,
            }
        )
    if num_clipped:
        notes.append(
            f"the person touches the lower edge of the picture in {num_clipped} of {len(raw)} frames: feet may be cut"
        )
    for note in notes:
        log.info("%s", note)
    settings = {name: value for name, value in asdict(config).items() if name != "workers"}
    found = [i for i, frame in enumerate(frames) if frame["box_px"] is not None]
    if found:
        write_atomically(out_dir / "strip.jpg", encode_jpeg(_strip(out_dir, recording, found), quality=88))
    fields = {"settings": settings, "notes": notes, "frames": frames}
    write_atomically(out_dir / "masks.json", json.dumps(fields, indent=1).encode())


def _strip(out_dir: Path, recording: Recording, found: list[int], count: int = 8, height_px: int = 400) -> np.ndarray:
    """(H, W, 3) cut-outs of ``count`` frames, spread over those with a person."""
    chosen = sorted({found[round(k * (len(found) - 1) / max(1, count - 1))] for k in range(count)})
    tiles = []
    for index in chosen:
        alpha = read_gray(_mask_path(out_dir, index))[..., None] / 255
        rows, columns = np.nonzero(alpha[..., 0] > 0.5)
        margin = round(0.05 * (rows.max() - rows.min())) + 2
        part = np.s_[
            max(0, rows.min() - margin) : rows.max() + margin, max(0, columns.min() - margin) : columns.max() + margin
        ]
        color = recording.color(index)[part]
        v, u = np.mgrid[: color.shape[0], : color.shape[1]] * height_px // color.shape[0] // 12
        ground = np.where((u + v) % 2 == 0, 235, 190)[..., None]
        tile = np.rint(color * alpha[part] + ground * (1 - alpha[part])).astype(np.uint8)
        wh = (max(1, round(tile.shape[1] * height_px / tile.shape[0])), height_px)
        tiles.append(cv2.resize(tile, wh, interpolation=cv2.INTER_AREA))
    return np.hstack(tiles)


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


def _mask_path(folder: Path, index: int) -> Path:
    return folder / "masks" / f"{index:06d}.png"
