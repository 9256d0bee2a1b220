"""Stage 02: which pixels are the subject, with a soft edge.

A recording enters, N masks of H x W pixels leave.  A network finds the person in each picture (``finding``,
``matters``, ``segment``), neighbouring pictures steady it (``steady``), the empty room, learned from the clip
(``plate``), and depth say where the person ends (``parting``, ``likelihood``), and closed-form matting draws the edge
(``edges``).

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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from capture.edges import learn_plate, refined
from capture.errors import UserError
from capture.files import encode_jpeg, read_gray, read_image, write_atomically
from capture.finding import find, refuse_an_empty_film, tell_apart
from capture.mask_pictures import tile, write_film, write_sheets
from capture.matte_config import GIVEN, REMBG, MatteConfig
from capture.matte_job import (
    Job,
    extent_path,
    judged_path,
    leave,
    leave_map,
    mask_path,
    missing,
    no_plate_path,
    plate_path,
    raw_path,
    read_flow_gray,
    read_map,
    read_raw,
    small_path,
    tile_path,
)
from capture.matters import Matter, chosen, given_mask
from capture.plate import Plate
from capture.recording import Recording
from capture.segment import main_part
from capture.steady import steadied, unexplained
from capture.workers import Workers

log = logging.getLogger(__name__)

LEFT_BY_MASKS = (mask_path, small_path, extent_path, tile_path)
TILE_QUALITY = 92  # of the film's frames between the passes: nothing that x264 keeps is lost


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
        return read_gray(mask_path(self.folder, index)) * np.float32(1 / 255)

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
    with Workers(config.workers, works_along=True) as workers:
        job = Job(config, out_dir, recording_dir, workers)
        if matter.method == GIVEN:
            job.run(
                _given_chunk,
                [(i, None) for i in missing(out_dir, count, *LEFT_BY_MASKS)],
                "take the masks",
            )
            found = [bool(read_gray(mask_path(out_dir, i)).max() > 127) for i in range(count)]
            refuse_an_empty_film(found, f"the masks of {recording.source}")
        else:
            found = find(job, recording, notes)
            if config.learn_room:
                _learn_room(job, recording, matter, found, notes)
            found, places = tell_apart(job, recording, found)
            todo = [(i, places[i]) for i in missing(out_dir, count, *LEFT_BY_MASKS)]
            job.run(_refine_chunk, todo, "draw the edges")
        # The film is one stream, which one thread codes while the workers are busy with what is not.
        with ThreadPoolExecutor(1) as beside:
            tiles = (read_image(tile_path(out_dir, i)) for i in range(count))
            filmed = beside.submit(write_film, out_dir, tiles, recording.frames_per_second)
            job.run(_judge_chunk, [(i, None) for i in missing(out_dir, count, judged_path)], "compare neighbours")
            filmed.result()
    if not all(found):
        notes.append(f"nobody was found in {count - sum(found)} of {count} frames: their masks are empty")
    _finish(config, matter, out_dir, recording, notes)


def _learn_room(job: Job, recording: Recording, matter: Matter, found: list[bool], notes: list[str]) -> None:
    """Leave the plate in scratch/, for all workers, or that there is none: masks change when people are parted, and a
    run that goes on must not learn from others than the one that it goes on with."""
    path, none_path = plate_path(job.out_dir), no_plate_path(job.out_dir)
    if not path.is_file() and not none_path.is_file():
        log.info("learning what the room looks like without the person")
        plate = learn_plate(
            job.config,
            recording,
            lambda i: read_raw(job.out_dir, i).probability,
            [i for i, is_found in enumerate(found) if is_found],
        )
        plate = matter.room(plate, recording)
        if plate is None:
            leave(none_path, b"")
        else:
            plate.save(path)
    if none_path.is_file():
        notes.append("the person hides the room all the time: masks rest on the network alone")
    elif not Plate.load(path).is_still:
        notes.append("the camera moves: the room is learned from aligned pictures")


# -------------------------------------------------------------------------------------------------------- each frame


def _given_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    recording = Recording.load(recording_dir)
    for index, _ in frames:
        mask, gray = given_mask(config, recording, index), read_flow_gray(out_dir, recording, index)
        _leave_mask(out_dir, index, recording.color(index), mask, gray.shape)
    return len(frames)


def _refine_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    recording = Recording.load(recording_dir)
    gray = functools.lru_cache(maxsize=3)(lambda i: read_flow_gray(out_dir, recording, i))
    raw = functools.lru_cache(maxsize=3)(lambda i: read_raw(out_dir, i).probability)
    plate = Plate.load(plate_path(out_dir)) if plate_path(out_dir).is_file() else None
    for index, place in frames:
        probability, color = raw(index), recording.color(index)
        if config.steady and probability.any():
            around = [i for i in (index - 1, index + 1) if 0 <= i < len(recording)]
            probability = steadied(probability, gray(index), [(gray(i), raw(i)) for i in around])
        depth_mm = recording.depth_mm(index) if config.use_depth and recording.rig.depth is not None else None
        alpha = refined(config, recording, color, main_part(probability), depth_mm, plate, place)
        _leave_mask(out_dir, index, color, np.rint(alpha * 255).astype(np.uint8), gray(index).shape)
    return len(frames)


def _leave_mask(out_dir: Path, index: int, color: np.ndarray, mask: np.ndarray, shape: tuple[int, ...]) -> None:
    """Write the mask (H, W) uint8 of a picture, and first what later passes want of both, reduced to ``shape``."""
    small = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_AREA)
    leave_map(small_path(out_dir, index), small)
    leave(extent_path(out_dir, index), json.dumps(_extent(mask)).encode())
    leave(tile_path(out_dir, index), encode_jpeg(tile(color, mask), TILE_QUALITY))
    write_atomically(mask_path(out_dir, index), _encoded(mask))


def _extent(mask: np.ndarray) -> dict[str, Any]:
    """The box around a mask (H, W) uint8 and its mean alpha inside; both None where it is empty."""
    is_person = mask > 127
    rows, columns = np.flatnonzero(is_person.any(axis=1)), np.flatnonzero(is_person.any(axis=0))
    if not len(rows):
        return {"box_px": None, "alpha": None}
    box_px = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
    return {"box_px": box_px, "alpha": round(float(mask[is_person].mean()) / 255, 4)}


def _encoded(mask: np.ndarray) -> bytes:
    """A mask (H, W) uint8 as the bytes of a PNG file: coded by runs, a third of the time of looking for repetitions, of
    the pixels themselves: flat areas are shortest so."""
    ok, data = cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE])
    assert ok
    return data.tobytes()


def _judge_chunk(config: MatteConfig, out_dir: Path, recording_dir: Path, frames: Sequence[tuple]) -> int:
    """Write the doubt about each mask: pixels by which its outline differs from its neighbours' beyond what motion
    explains, the mean of both, plus the share of it on which the network disagrees."""
    recording = Recording.load(recording_dir)
    gray = functools.lru_cache(maxsize=3)(lambda i: read_flow_gray(out_dir, recording, i))
    small = functools.lru_cache(maxsize=3)(lambda i: read_map(small_path(out_dir, i)))
    change = functools.lru_cache(maxsize=2)(lambda i: unexplained(small(i), small(i + 1), gray(i), gray(i + 1)))
    for index, _ in frames:
        around = [change(i) for i in (index - 1, index) if 0 <= i < len(recording) - 1]
        believed = [pixels for pixels in around if np.isfinite(pixels)]
        doubt = float(np.mean(believed)) if believed else 0.0
        raw = read_raw(out_dir, index) if raw_path(out_dir, index).is_file() else None
        extent = json.loads(extent_path(out_dir, index).read_text())
        box_px, confidence = extent["box_px"], None
        if box_px is not None:
            confidence = round(extent["alpha"] if raw is None else raw.confidence, 4) or None
        if raw is not None and box_px is not None:
            shown = cv2.resize(raw.probability, small(index).shape[::-1], interpolation=cv2.INTER_AREA)
            doubt += _disagreement(small(index), main_part(shown))
        judged = {"box_px": box_px, "confidence": confidence, "doubt": round(doubt, 4) if confidence else None}
        leave(judged_path(out_dir, index), json.dumps(judged).encode())
    return len(frames)


def _disagreement(mask: np.ndarray, probability: np.ndarray) -> float:
    """The share of a mask (h, w) uint8 on which the network's probability (h, w) disagrees."""
    return float(((mask > 127) != (probability > 0.5)).sum() / max(1, (mask > 127).sum()))


# --------------------------------------------------------------------------------------------------------- the results


def _finish(config: MatteConfig, matter: Matter, out_dir: Path, recording: Recording, notes: list[str]) -> None:
    """Write masks.json, last, and the pictures."""
    frames: list[dict[str, Any]] = []
    num_clipped, count, height = 0, len(recording), recording.rig.color.image_wh[1]
    has_room = plate_path(out_dir).is_file()
    for index in range(count):
        judged = json.loads(judged_path(out_dir, index).read_text())
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
    write_sheets(out_dir, recording, lambda index: read_gray(mask_path(out_dir, index)), found, doubts)
    fields = {"settings": settings, "method": matter.method, "notes": notes, "frames": frames}
    write_atomically(out_dir / "masks.json", json.dumps(fields, indent=1).encode())


def _rests_on(config: MatteConfig, matter: Matter, recording: Recording, index: int, has_room: bool) -> str:
    """What the mask of a frame rests on, in words."""
    if matter.method == GIVEN:
        return matter.method
    has_depth = config.use_depth and recording.rig.depth is not None and bool(recording.has_depth[index])
    words = ["rembg" if matter.method == REMBG else "pose", *(["room"] if has_room else [])]
    return " + ".join([*words, *(["depth"] if has_depth else [])])
