"""A video file, colour only, decoded by PyAV (FFmpeg).  H x W pixels after rotation.

True timestamps are kept, so a variable frame rate stays what it was.  The display matrix of phones is applied, and
pixels that are not square are made square.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from capture.beside import openpose_folder
from capture.camera import Rig
from capture.errors import UserError
from capture.importers import ImportConfig, color_camera, masks, openpose
from capture.importers.upright import open_writer
from capture.progress import progress
from capture.recording import RecordingWriter

log = logging.getLogger(__name__)

QUICK_PER_S = 45  # 30 a second are enough, and 15 nearly (docs/results.md, "Faster movement")
MAX_PIXELS = 40_000_000  # a film of 8K has 33 million
STILLS = ("tty", "image2", "_pipe", "ico")  # FFmpeg demuxers that take text and single pictures for films
FULL_FRAME_DIAGONAL_MM = math.hypot(36, 24)  # what a "35 mm equivalent" focal length refers to


@dataclass
class _Progress:
    """How far decoding came: pictures decoded, and why it stopped early, if it did."""

    decoded: int = 0
    last_end_s: float = 0.0
    is_complete: bool = False  # the file was read to its end
    broken: str = ""


def import_video(config: ImportConfig, out_dir: Path, path: Path) -> None:
    """Import a video.  Raises UserError for what is no video, has no frames, or breaks off."""
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        _import(config, out_dir, path, container, stream)


def describe(path: Path) -> str:
    """Size, length and rate of a video, in words, from its header.  Raises UserError for what is no video."""
    with _opened(path) as (_, stream):
        frames = f"{stream.frames} frames" if stream.frames else "of unknown length"
        rate = f", {float(stream.average_rate):.4g} per second" if stream.average_rate else ""
        return f"{stream.width}x{stream.height}, {frames}{rate}"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A video's container and its best picture stream.  Raises UserError for what is no video."""
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = (
            "it breaks off before its index (moov atom): copy it again" if _lacks_index(path) else "give a video file"
        )
        raise UserError(f"{path}: cannot be opened as a video ({_plain(error)}); {reason}") from None
    with container:
        stream = container.streams.best("video")
        if stream is None or any(word in container.format.name for word in STILLS):
            raise UserError(f"{path}: holds no film (recognised as {container.format.name}); give a video file")
        assert isinstance(stream, av.VideoStream)
        if getattr(stream, "codec_context", None) is None:
            raise UserError(f"{path}: no decoder knows its pictures; convert it to H.264, or copy it again")
        if stream.width * stream.height > MAX_PIXELS:
            raise UserError(f"{path}: pictures of {stream.width}x{stream.height}; its header is damaged: copy it again")
        yield container, stream


def _import(
    config: ImportConfig, out_dir: Path, path: Path, container: av.container.InputContainer, stream: av.VideoStream
) -> None:
    state, writer, image_wh = _Progress(), None, (0, 0)
    times_s: list[float] = []
    corrupt = 0
    total = sum(map(config.takes, range(stream.frames))) or None
    for frame in progress(_frames(config, container, stream, state), f"import {path.name}", total):
        image = upright(frame, stream)
        size_wh = (image.shape[1], image.shape[0])
        if writer is None:
            image_wh = size_wh
            writer = _open(config, out_dir, path, container, stream, image_wh)
        if size_wh != image_wh:
            raise UserError(
                f"{path}: the picture changes from {image_wh[0]}x{image_wh[1]} to {size_wh[0]}x{size_wh[1]} at frame "
                f"{state.decoded - 1}; cut the video there"
            )
        corrupt += bool(frame.is_corrupt)
        times_s.append(_time_s(frame, stream, times_s))
        writer.add(times_s[-1], image)
        alpha = masks.alpha_of(frame)
        if alpha is not None and alpha.min() < 255:
            writer.add_mask(len(writer) - 1, turned(cv2.resize(alpha, _shown_wh(frame, stream)), frame))
    if not state.decoded:
        raise UserError(
            f"{path}: not a single frame could be decoded ({state.broken or 'the stream is empty'}); copy it again"
        )
    missing = _missing(state, stream)
    if missing and not config.allow_truncated:
        raise UserError(
            f"{path}: breaks off, {missing}; copy it again, or take what is there with "
            "--set recording.allow_truncated=true"
        )
    if writer is None:
        raise UserError(f"recording.start = {config.start}: {path} has only {state.decoded} frames; start earlier")
    if missing:
        writer.note(f"the file breaks off: {missing}")
    if corrupt:
        writer.note(f"{corrupt} of {len(times_s)} frames were damaged and decoded as well as possible")
    steps_s = np.diff(times_s)
    if len(steps_s) and steps_s.max() > 1.5 * np.median(steps_s) * 1.0001:
        writer.note(f"variable frame rate: {1000 * steps_s.min():.0f} to {1000 * steps_s.max():.0f} ms between frames")
    num_frames = state.decoded if state.is_complete else stream.frames
    taken = [i for i in range(state.decoded) if config.takes(i)]
    openpose.carry(writer, openpose_folder(path), taken, num_frames)
    masks.carry(writer, path, taken, num_frames)
    writer.finish()


def _frames(
    config: ImportConfig, container: av.container.InputContainer, stream: av.VideoStream, state: _Progress
) -> Iterator[av.VideoFrame]:
    """Decode one packet after the other and yield the wanted frames; ``state`` says what happened."""
    try:
        for packet in container.demux(stream):
            for frame in packet.decode():
                index, state.decoded = state.decoded, state.decoded + 1
                if frame.pts is not None and frame.time_base is not None:
                    step_s = float(1 / stream.average_rate) if stream.average_rate else 1 / 30
                    state.last_end_s = max(state.last_end_s, float(frame.pts * frame.time_base) + step_s)
                if config.ends_before(index):
                    return
                if config.takes(index):
                    yield frame
        state.is_complete = True
    except av.FFmpegError as error:
        state.broken, state.is_complete = _plain(error), True


def _missing(state: _Progress, stream: av.VideoStream) -> str:
    """What the index promised and the stream did not hold, in words; empty when all is there.

    Edit lists may leave out frames on purpose, so a lower count alone is no proof: the time must be short as well.
    """
    if not state.is_complete:
        return ""
    if state.broken:
        return f"{state.decoded} frames of {stream.frames or 'an unknown number'} could be read ({state.broken})"
    if stream.duration is None or stream.time_base is None:
        return ""
    start = stream.start_time or 0
    promised_end_s = float((start + stream.duration) * stream.time_base)
    step_s = float(1 / stream.average_rate) if stream.average_rate else 1 / 30
    is_short = state.last_end_s < promised_end_s - max(2 * step_s, 0.1)
    if is_short and (not stream.frames or state.decoded < stream.frames):
        return f"{state.decoded} frames of {stream.frames or round(promised_end_s / step_s)} could be read"
    return ""


def _open(
    config: ImportConfig, out_dir: Path, path: Path,
    container: av.container.InputContainer, stream: av.VideoStream, image_wh: tuple[int, int],
) -> RecordingWriter:  # fmt: skip
    said = _focal_from_metadata({**container.metadata, **stream.metadata}, image_wh)
    camera, is_known, told = color_camera(config, None, image_wh)
    if said is not None and not is_known:
        camera = camera.with_focal(said)
        told = f"focal length {said:.0f} px from the video's metadata, the fit refines it"  # stabilisation crops
    writer = open_writer(config, out_dir, Rig(camera), path.name, focal_is_known=is_known)
    notes = [told, "a video has no depth: fitted from colour alone"]
    if len([s for s in container.streams.video if s.duration != 0]) > 1:
        notes.append(f"{len(container.streams.video)} video tracks: only track {stream.index} is used")
    rate = float(stream.average_rate or 0)
    if config.every == 1 and rate > QUICK_PER_S:
        enough = round(rate / 30)
        notes.append(
            f"{rate:.3g} frames per second: an avatar needs no more than {rate / enough:.3g}, and each takes its "
            f"time; --set recording.every={enough}"
        )
    for note in notes:
        writer.note(note)
        log.info("%s: %s", path, note)
    return writer


def _focal_from_metadata(metadata: dict[str, str], image_wh: tuple[int, int]) -> float | None:
    """Focal length in pixels from a 35 mm equivalent, as some phones write it; None where nothing is said."""
    for key, value in metadata.items():
        if "focal" in key.lower() and "35" in key:
            try:
                focal_mm = float(value)
            except ValueError:
                return None
            focal_px = focal_mm / FULL_FRAME_DIAGONAL_MM * math.hypot(*image_wh)
            return focal_px if 0.3 < focal_px / max(image_wh) < 20 else None
    return None


def upright(frame: av.VideoFrame, stream: av.VideoStream) -> np.ndarray:
    """(H, W, 3) uint8 RGB as a player shows it: square pixels, the display matrix' quarter turns applied."""
    width, height = _shown_wh(frame, stream)
    return turned(frame.reformat(width=width, height=height, format="rgb24").to_ndarray(), frame)


def _shown_wh(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """Width and height with square pixels, before turning."""
    ratio = stream.sample_aspect_ratio
    width = frame.width
    if ratio and ratio > 0 and ratio != 1:
        width = max(1, round(frame.width * float(ratio)))
    return width, frame.height


def turned(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """An image with the display matrix' quarter turns applied."""
    # PyAV: degrees counter-clockwise by which the display matrix turns the stored picture.
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns))


def _time_s(frame: av.VideoFrame, stream: av.VideoStream, times_s: list[float]) -> float:
    """When the frame is shown, from the stream's start; strictly after the one before it."""
    step_s = float(1 / stream.average_rate) if stream.average_rate else 1 / 30
    if frame.pts is None or frame.time_base is None:
        return times_s[-1] + step_s if times_s else 0.0
    time_s = float((frame.pts - (stream.start_time or 0)) * frame.time_base)
    return max(time_s, times_s[-1] + 1e-4) if times_s else time_s


def _lacks_index(path: Path) -> bool:
    """Whether an MP4 or QuickTime file begins like one but has no moov box."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            offset = 0
            while offset + 8 <= size:
                file.seek(offset)
                header = file.read(16)
                length, kind = int.from_bytes(header[:4], "big"), header[4:8]
                if offset == 0 and kind not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
                    return False
                if kind == b"moov":
                    return offset + length > size
                if length == 1 and len(header) == 16:
                    length = int.from_bytes(header[8:], "big")
                if length < 8:
                    return True
                offset += length
            return size > 8
    except OSError:
        return False


def _plain(error: Exception) -> str:
    """The reason without FFmpeg's number and the path, which the line already names."""
    return str(getattr(error, "strerror", None) or error).split(":")[0].strip()
