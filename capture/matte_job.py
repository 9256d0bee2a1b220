"""One run of stage 02: its folders, the processes that share its frames, and what its passes leave for each other.

What is finished is kept, so that an interrupted run goes on where it was.  Per frame, in ``scratch``:

    raw_000000.map       what the network said, uint8; again_000000.map: what is believed instead, after a second look
    gray_000000.map      the picture as optical flow is looked for in it
    distance_000000.json how far the person is, and the surfaces of what the network took for him
    small_000000.map     the mask, at the size of gray_
    extent_000000.json   the box around the mask, and its mean inside
    tile_000000.jpg      its frame of the film
    judged_000000.json   what masks.json says of it
    plate.npz            the empty room: one for all frames; no_plate instead where none could be learned
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capture.glance import glance
from capture.matte_config import MatteConfig
from capture.progress import progress
from capture.recording import Recording
from capture.segment import Segment, scored
from capture.steady import FLOW_SIDE_PX, flow_gray
from capture.workers import Workers

LEAST_CHUNK, MOST_CHUNK = 4, 24  # frames a worker takes at a time: neighbours share their decoded pictures
CHUNKS_PER_WORKER = 4  # so that none waits long for the last
MAP_HEAD = struct.Struct("<II")  # height, width


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


def missing(out_dir: Path, num_frames: int, *path_of: Callable[[Path, int], Path]) -> list[int]:
    """Frames of which an interrupted run has not left all of these files; one that lost its content with the power is
    not left."""
    return [i for i in range(num_frames) if not all(_has_content(path(out_dir, i)) for path in path_of)]


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def leave(path: Path, data: bytes) -> None:
    """Write a file of ``scratch`` so that a killed run never leaves a half of it.  Unlike results it is not waited for
    until it lies on the disk: six files a frame would take longer than the frame."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def leave_map(path: Path, image: np.ndarray) -> None:
    """``leave`` an image (h, w) uint8.  Maps are read several times each, and Zstandard is much faster than PNG."""
    import zstandard

    body = np.ascontiguousarray(image).tobytes()
    leave(path, MAP_HEAD.pack(*image.shape) + zstandard.ZstdCompressor(level=1).compress(body))


def read_map(path: Path) -> np.ndarray:
    """(h, w) uint8, read-only, what ``leave_map`` left."""
    import zstandard

    data = path.read_bytes()
    body = zstandard.ZstdDecompressor().decompress(data[MAP_HEAD.size :])
    return np.frombuffer(body, np.uint8).reshape(MAP_HEAD.unpack_from(data))


def read_segment(path: Path) -> Segment:
    """What was said about one frame."""
    return scored(read_map(path) * np.float32(1 / 255))


def read_raw(out_dir: Path, index: int) -> Segment:
    """What is believed of a frame: the second look where there was one."""
    retry = retry_path(out_dir, index)
    return read_segment(retry if retry.is_file() else raw_path(out_dir, index))


def read_flow_gray(out_dir: Path, recording: Recording, index: int) -> np.ndarray:
    """(h, w) uint8, the picture as flow is looked for in it; from the recording where no pass has left it."""
    path = gray_path(out_dir, index)
    return read_map(path) if path.is_file() else flow_gray(glance(recording, index, FLOW_SIDE_PX))


def _left(pattern: str) -> Callable[[Path, int], Path]:
    """Where a pass leaves what it found out about frame ``index`` of the masks in ``out_dir``."""

    def path(out_dir: Path, index: int) -> Path:
        return out_dir / "scratch" / pattern.format(index)

    return path


raw_path, retry_path = _left("raw_{:06d}.map"), _left("again_{:06d}.map")
gray_path, small_path = _left("gray_{:06d}.map"), _left("small_{:06d}.map")
distance_path, judged_path = _left("distance_{:06d}.json"), _left("judged_{:06d}.json")
extent_path = _left("extent_{:06d}.json")
tile_path = _left("tile_{:06d}.jpg")


def plate_path(out_dir: Path) -> Path:
    return out_dir / "scratch" / "plate.npz"


def no_plate_path(out_dir: Path) -> Path:
    return out_dir / "scratch" / "no_plate"


def mask_path(folder: Path, index: int) -> Path:
    return folder / "masks" / f"{index:06d}.png"
