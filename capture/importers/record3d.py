"""Record3D's .r3d: a zip archive of an iPhone's or iPad's colour (JPEG) and depth (LZFSE), and its cameras.

Layout, as exported by the app: ``metadata`` (JSON: K column by column, w, h, dw, dh, fps, frameTimestamps,
perFrameIntrinsicCoeffs), ``rgbd/0.jpg``, ``rgbd/0.depth`` (float32 metres, or uint16 millimetres) and ``rgbd/0.conf``
(0 to 2).  Depth is registered to colour.  H x W colour pixels, h x w depth pixels.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from capture.camera import Camera, Rig
from capture.errors import UserError
from capture.importers import ImportConfig, color_camera
from capture.importers.blob import inflate
from capture.importers.images import to_millimetres
from capture.importers.realsense import metres_to_millimetres
from capture.importers.timed import Damaged, TimedSource, import_timed

FRAME = re.compile(r"rgbd/(\d{1,9})\.(jpg|depth|conf)")
METADATA = ("metadata", "metadata.json")
MAX_MEMBER = 64_000_000  # of anything in the archive: a picture of 12 megapixels has 10
MAX_DEPTH_PIXELS = 4_000_000
FOCUS_DRIFT = 0.02  # of the focal length: the lens moves as it focuses; beyond, it zoomed
ZIP = b"PK\x03\x04"
# What zipfile raises for damaged archives; NotImplementedError (methods it does not know) is a RuntimeError.
BROKEN = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def recognises(path: Path) -> bool:
    """Whether a file is an archive that holds ``rgbd/`` and ``metadata``."""
    try:
        with open(path, "rb") as file:
            if file.read(4) != ZIP:
                return False
            start = ZIP + file.read(4096)
        with zipfile.ZipFile(path) as archive:
            return any(name in METADATA or FRAME.fullmatch(name) for name in archive.namelist())
    except BROKEN:
        return b"rgbd/" in start or b"metadata" in start  # a broken one is one all the same


def describe(path: Path) -> str:
    """What an .r3d holds, in words.  Raises UserError."""
    with _opened(path) as archive:
        fields, frames = _metadata(path, archive), _frames(archive)
    depth = sum("depth" in parts for parts in frames.values())
    size = "x".join(str(fields.get(name)) for name in ("w", "h"))
    depth_size = "x".join(str(fields.get(name)) for name in ("dw", "dh"))
    return f"{len(frames)} frames, colour {size}, {depth} depth pictures {depth_size}"


def import_record3d(config: ImportConfig, out_dir: Path, path: Path) -> None:
    """Import an .r3d file.  Raises UserError for one that is damaged or lacks its cameras."""
    with _opened(path) as archive:
        fields, frames = _metadata(path, archive), _frames(archive)
        numbers = [number for number, parts in sorted(frames.items()) if "jpg" in parts]
        times_s, notes = _times_s(config, fields, numbers)
        with_depth = [i for i, number in enumerate(numbers) if "depth" in frames[number]]
        depth_wh = (_whole(fields, "dw"), _whole(fields, "dh"))
        if with_depth and not config.no_depth and not 0 < depth_wh[0] * depth_wh[1] <= MAX_DEPTH_PIXELS:
            raise UserError(f"{path}: depth of {depth_wh[0]}x{depth_wh[1]} in its metadata; use --no-depth")

        def read_color(index: int) -> bytes:
            return _member(archive, frames[numbers[index]]["jpg"])

        def read_depth(index: int) -> np.ndarray:
            parts = frames[numbers[with_depth[index]]]
            depth_mm = _depth(_member(archive, parts["depth"]), depth_wh, config.depth_units_per_m or 1000.0)
            if "conf" in parts:
                depth_mm = np.where(_confidence(_member(archive, parts["conf"]), depth_wh) == 0, 0, depth_mm)
            return depth_mm

        def rig(color_wh: tuple[int, int], wh: tuple[int, int] | None) -> tuple[Rig, bool, list[str]]:
            return _rig(config, path, fields, color_wh, wh)

        if any("conf" in frames[numbers[i]] for i in with_depth):
            notes.append("depth of low confidence is left out")
        depth_times_s = [times_s[i] for i in with_depth]
        import_timed(config, out_dir, TimedSource(path, times_s, depth_times_s, read_color, read_depth, rig, notes))


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except BROKEN as error:
        raise UserError(f"{path}: not a complete .r3d archive ({error}); copy it again") from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """One file of the archive; its checksum is checked.  Raises Damaged."""
    if info.file_size > MAX_MEMBER:
        raise Damaged(f"{info.file_size} bytes")
    try:
        return archive.read(info)
    except BROKEN as error:
        raise Damaged(str(error)) from None
    except MemoryError:
        raise Damaged("too large") from None


def _metadata(path: Path, archive: zipfile.ZipFile) -> Mapping[str, Any]:
    name = next((name for name in METADATA if name in archive.namelist()), None)
    if name is None:
        raise UserError(f"{path}: no metadata in the archive; export it again from Record3D")
    try:
        fields = json.loads(_member(archive, archive.getinfo(name)))
        if not isinstance(fields, dict):
            raise ValueError("no fields")
    except (Damaged, ValueError, RecursionError) as error:
        raise UserError(f"{path}: its metadata is damaged ({error}); copy it again") from None
    return fields


def _frames(archive: zipfile.ZipFile) -> dict[int, dict[str, zipfile.ZipInfo]]:
    """{frame number: {"jpg": member, "depth": member, "conf": member}}."""
    frames: dict[int, dict[str, zipfile.ZipInfo]] = {}
    for info in archive.infolist():
        match = FRAME.fullmatch(info.filename)
        if match is not None:
            frames.setdefault(int(match[1]), {})[match[2]] = info
    return frames


def _times_s(config: ImportConfig, fields: Mapping[str, Any], numbers: list[int]) -> tuple[list[float], list[str]]:
    """(seconds of the frames with these numbers, notes)."""
    stamps = fields.get("frameTimestamps")
    if isinstance(stamps, list) and numbers and len(stamps) > numbers[-1]:
        try:
            times_s = [float(stamps[number]) for number in numbers]
            if all(map(math.isfinite, times_s)) and all(a < b for a, b in pairwise(times_s)):
                return times_s, []
        except (TypeError, ValueError):
            pass
    rate, told = fields.get("fps"), "from the metadata"
    if not isinstance(rate, int | float) or not 1 <= rate <= 1000:
        rate, told = config.frames_per_second, "assumed"
    return [number / rate for number in numbers], [f"no times in the file: {rate:g} frames per second {told}"]


def _depth(data: bytes, depth_wh: tuple[int, int], units_per_m: float) -> np.ndarray:
    """(h, w) uint16 millimetres.  Raises Damaged."""
    width, height = depth_wh
    count = width * height
    raw = _unpacked(data, (4 * count, 2 * count))
    if len(raw) == 4 * count:
        return metres_to_millimetres(np.frombuffer(raw, "<f4").reshape(height, width))
    return to_millimetres(np.frombuffer(raw, "<u2").reshape(height, width), units_per_m)


def _confidence(data: bytes, depth_wh: tuple[int, int]) -> np.ndarray:
    width, height = depth_wh
    return np.frombuffer(_unpacked(data, (width * height,)), np.uint8).reshape(height, width)


def _unpacked(data: bytes, sizes: tuple[int, ...]) -> bytes:
    """The bytes, of one of the ``sizes``, of a plain, LZFSE or zlib file.  Raises Damaged."""
    if len(data) in sizes:
        return data
    reasons = []
    for size in sizes:
        try:
            if data[:3] == b"bvx":
                from capture.importers.lzfse import decompress

                return decompress(data, size)
            return inflate(data, size)
        except Damaged as error:
            reasons.append(str(error))
    raise Damaged("; ".join(reasons))


def _whole(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    return int(value) if isinstance(value, int | float) and math.isfinite(value) and 0 < value < 100_000 else 0


def _rig(
    config: ImportConfig,
    path: Path,
    fields: Mapping[str, Any],
    color_wh: tuple[int, int],
    depth_wh: tuple[int, int] | None,
) -> tuple[Rig, bool, list[str]]:
    try:
        said, notes = _camera(fields, color_wh)
    except (ValueError, TypeError, IndexError) as error:
        raise UserError(f"{path}: its metadata holds no camera ({error}); set recording.focal_px") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    color, is_known, told = color_camera(config, said, color_wh)
    notes += [told] if told else []
    if depth_wh is None:
        return Rig(color), is_known, notes
    if abs(depth_wh[0] * color_wh[1] - depth_wh[1] * color_wh[0]) > max(color_wh):
        raise UserError(
            f"{path}: depth of {depth_wh[0]}x{depth_wh[1]} and colour of {color_wh[0]}x{color_wh[1]} pixels have "
            "different shapes; use --no-depth"
        )
    return Rig(color, color.resize(depth_wh), np.eye(4)), is_known, notes


def _camera(fields: Mapping[str, Any], color_wh: tuple[int, int]) -> tuple[Camera | None, list[str]]:
    """(camera of the JPEG pictures, notes); None where only recording.focal_px or a guess can help."""
    size_wh = (_whole(fields, "w") or color_wh[0], _whole(fields, "h") or color_wh[1])
    if abs(size_wh[0] * color_wh[1] - size_wh[1] * color_wh[0]) > max(*size_wh, *color_wh):
        raise ValueError(f"of {size_wh[0]}x{size_wh[1]}, pictures of {color_wh[0]}x{color_wh[1]}")
    notes: list[str] = []
    per_frame = fields.get("perFrameIntrinsicCoeffs")
    if isinstance(per_frame, list) and per_frame:
        rows = np.array([row[:4] for row in per_frame], float)
        fx, fy, cx, cy = (float(value) for value in np.median(rows, axis=0))
        drift = float(np.ptp(rows[:, 0]) / fx) if fx > 0 else 0.0
        if drift > FOCUS_DRIFT:
            notes.append(f"the focal length changes by {100 * drift:.0f} % while filming; the middle one is used")
    elif "K" in fields:
        k = [float(value) for value in fields["K"]]
        if len(k) != 9:
            raise ValueError(f"K of {len(k)} numbers")
        # Column by column; some converters write rows.
        fx, fy, cx, cy = (k[0], k[4], k[6], k[7]) if k[6] or k[7] else (k[0], k[4], k[2], k[5])
    else:
        return None, notes
    if not all(map(math.isfinite, (fx, fy, cx, cy))):
        raise ValueError(f"fx, fy, cx, cy = {fx}, {fy}, {cx}, {cy}")
    # ARKit puts the first pixel's centre at (0, 0), we at (0.5, 0.5).
    return Camera(size_wh, fx, fy, cx + 0.5, cy + 0.5).resize(color_wh), notes
