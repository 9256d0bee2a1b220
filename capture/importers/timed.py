"""A file of two timed streams, colour and depth, becomes a recording.

The format's module indexes the file (times, and how to read one picture); this one pairs, checks and writes.  N colour
and M depth pictures; H x W colour pixels, h x w depth pixels.

What is damaged stays out: a colour picture that cannot be decoded leaves a gap in the times, a frame whose depth cannot
be read has none.  What breaks off is refused like a video that does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.ndimage import median_filter

from capture.beside import openpose_folder
from capture.camera import Rig
from capture.errors import UserError
from capture.importers import ImportConfig, openpose
from capture.importers.images import MAX_PIXELS, decode
from capture.importers.tum import associate
from capture.importers.upright import open_writer
from capture.progress import progress
from capture.recording import RecordingWriter

log = logging.getLogger(__name__)

MAX_FRAME_BYTES = 4 * MAX_PIXELS  # no picture that we take is larger, whatever a header says
GAP = 1.5  # of the usual step: beyond, at least one frame was dropped
RATE_STEPS = 15  # around a step, whose median is usual there: half of them in a row are another rate
MAX_DAMAGED = 0.5  # of the frames: beyond, the copy is no good


class Damaged(Exception):
    """One picture of a stream cannot be read; the others may be fine."""


@dataclass(frozen=True)
class TimedSource:
    """A file as its format's module understood it.  ``rig`` is asked once the sizes are known."""

    path: Path
    color_times_s: Sequence[float] | np.ndarray  # (N,) one clock for both
    depth_times_s: Sequence[float] | np.ndarray  # (M,)
    read_color: Callable[[int], np.ndarray | bytes]  # (H, W, 3) uint8 RGB, or a JPEG or PNG file; raises Damaged
    read_depth: Callable[[int], np.ndarray]  # (h, w) uint16 millimetres; raises Damaged
    rig: Callable[[tuple[int, int], tuple[int, int] | None], tuple[Rig, bool, list[str]]]  # rig, focal known, notes
    notes: list[str] = field(default_factory=list)  # for the user
    breaks_off: str = ""  # what is missing at the end, in words


def import_timed(config: ImportConfig, out_dir: Path, source: TimedSource) -> None:
    """Write the wanted frames.  Raises UserError for a file that breaks off, is damaged, or holds no colour."""
    order, times_s, notes = _in_time(source, config)
    depth_of = _paired(config, source, times_s)
    indices = config.taken(len(order))
    if not indices:
        raise UserError(f"{source.path}: holds not a single colour picture; give a recording with colour")
    writer: RecordingWriter | None = None
    taken: list[int] = []
    damaged = [0, 0]
    has_depth = any(depth_of[i] is not None for i in indices)
    color_wh, depth_wh = (0, 0), None if not has_depth else _first_depth_wh(source, [depth_of[i] for i in indices])
    for i in progress(indices, f"import {source.path.name}"):
        color = _color(source, order[i])
        if color is None:
            damaged[0] += 1
            continue
        data, size_wh = color
        if writer is None:
            color_wh = size_wh
            rig, is_known, told = source.rig(color_wh, depth_wh)
            writer = open_writer(config, out_dir, rig, source.path.name, is_known)
            notes += told
        if size_wh != color_wh:
            raise UserError(
                f"{source.path}: the picture changes from {_by(color_wh)} to {_by(size_wh)} at frame {i}; split it"
            )
        depth_mm, is_lost = _depth(source, depth_of[i], depth_wh)  # after the rig, which may ask for other pixels
        damaged[1] += is_lost
        taken.append(i)
        writer.add(float(times_s[i] - times_s[0]), data, depth_mm)
    for count, what in zip(damaged, ("colour", "depth"), strict=True):
        if count > MAX_DAMAGED * len(indices):
            raise UserError(
                f"{source.path}: {count} of {len(indices)} {what} pictures are damaged; copy the file again"
            )
    assert writer is not None
    without = sum(depth_of[i] is None for i in taken)
    notes += _gaps(times_s[indices] if config.every == 1 else times_s)
    if damaged[0]:
        notes.append(f"{damaged[0]} of {len(indices)} frames are damaged and left out: the film has gaps there")
    if damaged[1]:
        notes.append(f"{damaged[1]} depth pictures are damaged: fitted there from colour alone")
    if has_depth and without:
        notes.append(f"{without} of {len(taken)} frames have no depth near their time: fitted from colour alone")
    for note in [*notes, *(["depth left out (--no-depth)"] if config.no_depth else [])]:
        writer.note(note)
        log.info("%s: %s", source.path, note)
    openpose.carry(writer, openpose_folder(source.path), taken, len(order))
    writer.finish()


def _in_time(source: TimedSource, config: ImportConfig) -> tuple[list[int], np.ndarray, list[str]]:
    """(order (N,) of the colour pictures, their times (N,), notes).  Raises UserError for a file that breaks off."""
    if source.breaks_off and not config.allow_truncated:
        raise UserError(
            f"{source.path}: breaks off, {source.breaks_off}; copy it again, or take what is there with "
            "--set recording.allow_truncated=true"
        )
    if not len(source.color_times_s):
        raise UserError(f"{source.path}: holds not a single colour picture; record colour and depth together")
    notes = [*source.notes, *([f"the file breaks off: {source.breaks_off}"] if source.breaks_off else [])]
    times_s = np.array(source.color_times_s, float)
    is_torn = _is_out_of_order(times_s)
    if is_torn.any():
        notes.append(f"{is_torn.sum()} colour pictures have a time that cannot be and are left out")
    order = [int(i) for i in np.argsort(times_s, kind="stable") if not is_torn[i]]
    times_s = times_s[order]
    if not np.isfinite(times_s).all() or times_s[-1] - times_s[0] > 1e6:
        raise UserError(f"{source.path}: its times run from {times_s[0]} to {times_s[-1]} s; copy it again")
    is_new = np.concatenate([[True], np.diff(times_s) > 0])
    if not is_new.all():
        notes.append(f"{(~is_new).sum()} colour pictures repeat the time of the one before and are left out")
        order, times_s = [i for i, new in zip(order, is_new, strict=True) if new], times_s[is_new]
    return order, times_s, notes


def _is_out_of_order(times_s: np.ndarray) -> np.ndarray:
    """(N,) whether a picture's time is not between its neighbours' though theirs rise: recorders write in time."""
    is_torn = np.zeros(len(times_s), bool)
    if len(times_s) > 2:
        before, here, after = times_s[:-2], times_s[1:-1], times_s[2:]
        is_torn[1:-1] = (before < after) & ((here < before) | (here > after))
    return is_torn


def _paired(config: ImportConfig, source: TimedSource, times_s: np.ndarray) -> list[int | None]:
    """For each colour picture the depth picture of its time, never one further than half a period, never a mixture."""
    depth_times_s = np.array([] if config.no_depth else source.depth_times_s, float)
    return associate(times_s, depth_times_s)


def _gaps(times_s: np.ndarray) -> list[str]:
    """What to say about frames that the recorder dropped, and about passages in which the camera exposed for two."""
    steps_s = np.diff(times_s)
    if len(steps_s) < 2:
        return []
    usual_s = median_filter(steps_s, RATE_STEPS, mode="nearest")  # the rate may change: a lone long step is a loss
    notes = []
    is_half = np.abs(usual_s / np.percentile(usual_s, 5) - 2) < 0.2
    if is_half.any():
        seconds, all_s = float(steps_s[is_half].sum()), float(times_s[-1] - times_s[0])
        notes.append(
            f"colour at half its rate for {seconds:.1f} of {all_s:.1f} s, as cameras film in dim light: more light "
            "gives twice the frames"
        )
    dropped = int(np.rint(np.where(steps_s > GAP * usual_s, steps_s / usual_s - 1, 0)).sum())
    return [
        *notes,
        *([f"about {dropped} frames were dropped while recording: the film has gaps there"] if dropped else []),
    ]


def _color(source: TimedSource, index: int) -> tuple[np.ndarray | bytes, tuple[int, int]] | None:
    """(picture, (width, height)); None for a damaged one."""
    try:
        data = source.read_color(index)
    except Damaged as error:
        log.debug("%s: colour picture %d: %s", source.path, index, error)
        return None
    image = decode(data) if isinstance(data, bytes) else data
    return None if image is None else (data, (image.shape[1], image.shape[0]))


def _depth(source: TimedSource, index: int | None, depth_wh: tuple[int, int] | None) -> tuple[np.ndarray | None, bool]:
    """(depth or None, whether it should be there and is damaged)."""
    if index is None:
        return None, False
    try:
        depth_mm = source.read_depth(index)
    except Damaged as error:
        log.debug("%s: depth picture %d: %s", source.path, index, error)
        return None, True
    return (depth_mm, False) if (depth_mm.shape[1], depth_mm.shape[0]) == depth_wh else (None, True)


def _first_depth_wh(source: TimedSource, indices: Sequence[int | None]) -> tuple[int, int]:
    for index in indices:
        if index is None:
            continue
        try:
            height, width = source.read_depth(index).shape
        except Damaged:
            continue
        return width, height
    raise UserError(f"{source.path}: not one depth picture can be read; copy it again, or use --no-depth")


def _by(image_wh: tuple[int, int]) -> str:
    return f"{image_wh[0]}x{image_wh[1]}"
