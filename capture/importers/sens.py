"""ScanNet's .sens: one file of JPEG colour and zlib depth, two pinhole cameras.

Layout, little-endian (github.com/ScanNet/ScanNet, SensReader): version, sensor name, four 4x4 float32 matrices
(colour intrinsic and extrinsic, depth intrinsic and extrinsic), compressions, sizes, depth units per metre, then per
frame a pose, two times in microseconds, two lengths, colour, depth.  H x W colour pixels, h x w depth pixels.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from capture.camera import Camera, Rig, invert
from capture.errors import UserError
from capture.importers import ImportConfig, color_camera
from capture.importers.blob import Blob, CutShort, inflate, opened
from capture.importers.images import MAX_PIXELS, to_millimetres
from capture.importers.timed import Damaged, TimedSource, import_timed

VERSION = 4
MAX_NAME = 1000
PNG, JPEG, RAW_DEPTH, ZLIB_DEPTH = 1, 2, 0, 1
FRAME = "16f4Q"  # camera_to_world, time of colour and depth, bytes of colour and depth
MAX_BASELINE_M = 1.0


@dataclass(frozen=True)
class _Header:
    matrices: np.ndarray  # (4, 4, 4): colour intrinsic, colour extrinsic, depth intrinsic, depth extrinsic
    depth_compression: int
    color_wh: tuple[int, int]
    depth_wh: tuple[int, int]
    units_per_m: float
    num_frames: int
    name: str


def recognises(path: Path) -> bool:
    """Whether a file begins like a .sens: its version, and a name that is text."""
    try:
        with open(path, "rb") as file:
            head = file.read(12 + MAX_NAME)
    except OSError:
        return False
    if len(head) < 12 or struct.unpack_from("<I", head)[0] != VERSION:
        return False
    length = struct.unpack_from("<Q", head, 4)[0]
    return 0 < length <= MAX_NAME and head[12 : 12 + length].decode("latin-1").isprintable()


def describe(path: Path) -> str:
    """What a .sens holds, in words.  Raises UserError."""
    with opened(path) as blob:
        header = _header(path, blob)
    color, depth = ("x".join(map(str, wh)) for wh in (header.color_wh, header.depth_wh))
    return f"{header.name}, {header.num_frames} frames, colour {color}, depth {depth}"


def import_sens(config: ImportConfig, out_dir: Path, path: Path) -> None:
    """Import a .sens file.  Raises UserError for one that is damaged or of a kind that nothing writes any more."""
    with opened(path) as blob:
        header = _header(path, blob)
        places, breaks_off = _index(blob, header)
        times_s, notes = _times_s(config, places)
        width, height = header.depth_wh
        units_per_m = config.depth_units_per_m or header.units_per_m

        def read_color(index: int) -> bytes:
            return blob.read(places[index][2], places[index][3])

        def read_depth(index: int) -> np.ndarray:
            data = blob.read(places[index][4], places[index][5])
            if header.depth_compression == ZLIB_DEPTH:
                data = inflate(data, 2 * width * height)
            if len(data) != 2 * width * height:
                raise Damaged(f"{len(data)} bytes of depth")
            return to_millimetres(np.frombuffer(data, "<u2").reshape(height, width), units_per_m)

        def rig(color_wh: tuple[int, int], depth_wh: tuple[int, int] | None) -> tuple[Rig, bool, list[str]]:
            return _rig(config, path, header, color_wh, depth_wh)

        depth_times_s = times_s if width * height else np.empty(0)
        source = TimedSource(path, times_s, depth_times_s, read_color, read_depth, rig, notes, breaks_off)
        import_timed(config, out_dir, source)


def _header(path: Path, blob: Blob) -> _Header:
    version, length = blob.unpack("IQ")
    if version != VERSION or not 0 < length <= MAX_NAME:
        raise UserError(f"{path}: not a .sens of version {VERSION} (version {version}); convert it")
    name = blob.take(length).decode("latin-1")
    matrices = np.array(blob.unpack("64f"), float).reshape(4, 4, 4)
    color_kind, depth_kind, *sizes, units_per_m, num_frames = blob.unpack("ii4IfQ")
    if color_kind not in (PNG, JPEG):
        raise UserError(f"{path}: colour compression {color_kind} is not supported; write JPEG (2) or PNG (1)")
    if depth_kind not in (RAW_DEPTH, ZLIB_DEPTH):
        raise UserError(f"{path}: depth compression {depth_kind} is not supported; write zlib (1) or raw (0)")
    if max(sizes[0] * sizes[1], sizes[2] * sizes[3]) > MAX_PIXELS or not sizes[0] * sizes[1]:
        raise UserError(f"{path}: pictures of {sizes[0]}x{sizes[1]} and {sizes[2]}x{sizes[3]}; its header is damaged")
    if not (math.isfinite(units_per_m) and units_per_m > 0):
        raise UserError(f"{path}: {units_per_m} depth units per metre; its header is damaged: copy it again")
    return _Header(matrices, depth_kind, (sizes[0], sizes[1]), (sizes[2], sizes[3]), units_per_m, num_frames, name)


def _index(blob: Blob, header: _Header) -> tuple[list[tuple[int, ...]], str]:
    """(per frame: times of colour and depth, start and length of colour and of depth; what is missing, in words)."""
    places: list[tuple[int, ...]] = []
    try:
        while len(places) < header.num_frames:
            *_, color_us, depth_us, color_bytes, depth_bytes = blob.unpack(FRAME)
            if not color_bytes:
                raise CutShort  # no frame, as the zeros that a file system leaves where writing ended
            color_at, depth_at = blob.skip(color_bytes), blob.skip(depth_bytes)
            places.append((color_us, depth_us, color_at, color_bytes, depth_at, depth_bytes))
    except CutShort:
        return places, f"{len(places)} of {header.num_frames} frames are there"
    return places, ""


def _times_s(config: ImportConfig, places: list[tuple[int, ...]]) -> tuple[np.ndarray, list[str]]:
    """Seconds of each frame (N,); many files carry no times."""
    times_us = [place[0] for place in places]
    notes = ["ScanNet's poses are not used: the camera is taken to stand still"]
    if any(b <= a for a, b in pairwise(times_us)):
        notes.append(f"no times in the file: {config.frames_per_second:g} frames per second assumed")
        return np.arange(len(places)) / config.frames_per_second, notes
    return np.array([(time - times_us[0]) * 1e-6 for time in times_us]), notes


def _rig(
    config: ImportConfig, path: Path, header: _Header, color_wh: tuple[int, int], depth_wh: tuple[int, int] | None
) -> tuple[Rig, bool, list[str]]:
    color_k, color_from_common, depth_k, depth_from_common = header.matrices
    color, is_known, told = color_camera(config, _camera(path, color_k, header.color_wh), color_wh)
    notes = [told] if told else []
    if depth_wh is None:
        return Rig(color), is_known, notes
    for matrix in (color_from_common, depth_from_common):
        rotation = matrix[:3, :3]
        is_rigid = np.isfinite(matrix).all() and np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-2
        if not is_rigid or np.linalg.norm(matrix[:3, 3]) > MAX_BASELINE_M:
            raise UserError(f"{path}: an extrinsic matrix is {matrix.round(3).tolist()}; use --no-depth")
    depth_from_color = depth_from_common @ invert(color_from_common)
    return Rig(color, _camera(path, depth_k, depth_wh), depth_from_color), is_known, notes


def _camera(path: Path, intrinsic: np.ndarray, image_wh: tuple[int, int]) -> Camera:
    """OpenCV puts the first pixel's centre at (0, 0), we at (0.5, 0.5)."""
    if not np.isfinite(intrinsic).all():
        raise UserError(f"{path}: an intrinsic matrix is not finite; copy the file again")
    fx, fy, cx, cy = (float(intrinsic[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    try:
        return Camera(image_wh, fx, fy, cx + 0.5, cy + 0.5)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
