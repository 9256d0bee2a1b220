"""Image files of foreign folders: colour kept as it is where possible, depth brought to millimetres.

H x W colour pixels, h x w depth pixels.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from capture.beside import openpose_folder
from capture.camera import Camera, Rig
from capture.errors import UserError
from capture.files import decode_color, encode_png, read_depth
from capture.importers import ImportConfig, color_camera, masks, openpose
from capture.importers.upright import open_writer
from capture.progress import progress
from capture.recording import RecordingWriter

log = logging.getLogger(__name__)

COLOR_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MAX_PIXELS = 100_000_000  # a picture that claims more is a mistake or an attack


@dataclass(frozen=True)
class SourceFrame:
    """Where one frame of a folder lies."""

    time_s: float
    color: Path
    depth: Path | None


@dataclass(frozen=True)
class SourceFolder:
    """A foreign folder as its format's module understood it; depth is registered to colour."""

    folder: Path
    frames: Sequence[SourceFrame]
    camera: Camera | None  # None = nothing is known
    depth_units_per_m: float = 1000.0
    notes: Sequence[str] = ()  # for the user


def import_folder(config: ImportConfig, out_dir: Path, source: SourceFolder) -> None:
    """Copy the wanted frames into a recording, one at a time.

    Raises UserError for unreadable pictures and for pictures that differ in size.
    """
    frames = source.frames
    units_per_m = config.depth_units_per_m or source.depth_units_per_m
    if not frames:
        raise UserError(f"{source.folder}: holds not a single colour picture; is the copy complete?")
    indices = config.taken(len(frames))
    wanted = [frames[i] for i in indices]
    has_depth = not config.no_depth and any(frame.depth is not None for frame in wanted)

    writer: RecordingWriter | None = None
    image_wh = depth_wh = (0, 0)
    for frame in progress(wanted, "import"):
        color, color_wh = read_color(frame.color, upright=not has_depth)
        depth_mm = None
        if has_depth and frame.depth is not None:
            depth_mm = to_millimetres(read_depth_picture(frame.depth), units_per_m)
            depth_wh = same_size(frame.depth, (depth_mm.shape[1], depth_mm.shape[0]), depth_wh)
        if writer is None:
            image_wh = color_wh
            first_depth_wh = _first_depth_wh(wanted) if has_depth else None
            writer = _open(config, out_dir, source, color_wh, first_depth_wh)
        same_size(frame.color, color_wh, image_wh)
        writer.add(frame.time_s, color, depth_mm)
    assert writer is not None
    without = sum(frame.depth is None for frame in wanted)
    if has_depth and without:
        writer.note(
            f"{without} of {len(wanted)} frames have no depth picture near their time: fitted from colour alone"
        )
    stems = [frame.color.stem for frame in frames]
    openpose.carry(writer, openpose_folder(source.folder), indices, len(frames), stems)
    masks.carry(writer, source.folder, indices, len(frames), stems)
    writer.finish()


def _open(
    config: ImportConfig,
    out_dir: Path,
    source: SourceFolder,
    image_wh: tuple[int, int],
    depth_wh: tuple[int, int] | None,
) -> RecordingWriter:
    color, is_known, told = color_camera(config, source.camera, image_wh)
    depth, depth_from_color = None, None
    if depth_wh is not None:
        if abs(depth_wh[0] * image_wh[1] - depth_wh[1] * image_wh[0]) > max(image_wh):
            raise UserError(
                f"{source.folder}: depth of {depth_wh[0]}x{depth_wh[1]} cannot be registered to colour of "
                f"{image_wh[0]}x{image_wh[1]} (another shape); register it first, or use --no-depth"
            )
        depth, depth_from_color = color.resize(depth_wh), np.eye(4)
    writer = open_writer(
        config, out_dir, Rig(color, depth, depth_from_color), source.folder.resolve().name, focal_is_known=is_known
    )
    for note in [
        *source.notes,
        *([told] if told else []),
        *(["depth left out (--no-depth)"] if config.no_depth else []),
    ]:
        writer.note(note)
        log.info("%s: %s", source.folder, note)
    return writer


def _first_depth_wh(frames: Sequence[SourceFrame]) -> tuple[int, int]:
    depth = read_depth_picture(next(frame.depth for frame in frames if frame.depth is not None))
    return depth.shape[1], depth.shape[0]


def same_size(path: Path, size_wh: tuple[int, int], expected_wh: tuple[int, int]) -> tuple[int, int]:
    """``size_wh``.  Raises UserError when it is not ``expected_wh``, where (0, 0) expects nothing."""
    if expected_wh != (0, 0) and size_wh != expected_wh:
        raise UserError(
            f"{path}: {size_wh[0]}x{size_wh[1]} pixels, the pictures before it {expected_wh[0]}x{expected_wh[1]}; "
            "all pictures of a recording have one size"
        )
    return size_wh


def read_color(path: Path, upright: bool) -> tuple[bytes, tuple[int, int]]:
    """Bytes of a JPEG or PNG file and its (width, height): the file as it is where that is possible.

    ``upright`` applies the rotation that a camera left in the EXIF block (not where depth is registered to the stored
    pixels).  Raises UserError when the file is no picture.
    """
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=["JPEG", "PNG", "BMP", "TIFF", "WEBP"]) as header:
            width, height = header.size
            kept_as_it_is = header.format in ("JPEG", "PNG") and (not upright or header.getexif().get(0x0112, 1) == 1)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "not a picture"
        raise UserError(f"{path}: cannot be read ({reason}); copy it again") from None
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{path}: {width}x{height} pixels are more than {MAX_PIXELS // 10**6} million; is it the right file?"
        )
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # a file that grew shorter under our hands, or that only begins like a picture
        image = None
    if image is None:
        raise UserError(f"{path}: not a readable picture; copy it again")
    if not kept_as_it_is:
        data = encode_png(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return data, (image.shape[1], image.shape[0])


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB as it is stored.  Raises UserError for what is no picture, and for one that is too large."""
    data, _ = read_color(path, upright=False)
    image = decode(data)
    if image is None:
        raise UserError(f"{path}: not a readable picture; copy it again")
    return image


def read_depth_picture(path: Path) -> np.ndarray:
    """(h, w) uint16 of a 16-bit picture.  Raises UserError for anything else, and for one that is too large."""
    try:
        with open(path, "rb") as file:
            head = file.read(24)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is the recording complete?") from None
    width, height = struct.unpack(">2I", head[16:24].ljust(8, b"\0")) if head.startswith(b"\x89PNG") else (0, 0)
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{path}: {width}x{height} pixels are more than {MAX_PIXELS // 10**6} million; is it the right file?"
        )
    try:
        return read_depth(path)
    except cv2.error:
        raise UserError(f"{path}: not a readable image; copy it again") from None


def decode(data: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB of the bytes of a JPEG or PNG file as stored; None for what is none, or too large."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as header:
            if header.size[0] * header.size[1] > MAX_PIXELS:
                return None
        return decode_color(data)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, cv2.error):
        return None


def to_millimetres(depth: np.ndarray, units_per_m: float) -> np.ndarray:
    """Depth values (h, w) uint16 in any unit to uint16 millimetres; 0 stays no return, what does not fit becomes it."""
    if units_per_m == 1000:
        return depth
    depth_mm = np.rint(depth * (1000.0 / units_per_m))
    return np.where(depth_mm > 65535, 0, depth_mm).astype(np.uint16)
