"""Azure Kinect's .mkv (also Orbbec's Femto): colour as MJPEG, NV12, YUY2 or BGRA, depth as big-endian millimetres.

Layout: the Sensor SDK's "Recording file format"; tracks COLOR and DEPTH with a BITMAPINFOHEADER, and the factory's
calibration.json as an attachment.  H x W colour pixels, h x w depth pixels.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from capture.camera import Camera, Rig, invert
from capture.errors import UserError
from capture.importers import ImportConfig, color_camera, lens
from capture.importers.blob import Blob, CutShort, begins_with, opened
from capture.importers.images import MAX_PIXELS, to_millimetres
from capture.importers.matroska import Matroska, Track, read
from capture.importers.timed import Damaged, TimedSource, import_timed

MAGIC = b"\x1a\x45\xdf\xa3"
SIGNS = (b"K4A_", b"Azure Kinect", b"b16g")  # in the first bytes of every such file
HEAD_BYTES = 65536
CALIBRATION = "calibration.json"
COLOR_FORMATS = {"MJPG": 0.0, "NV12": 1.5, "YUY2": 2.0, "BGRA": 4.0}  # bytes per pixel
# Depth mode by picture size: side of the whole calibrated sensor at its binning, and where the picture is cut out.
DEPTH_MODES = {
    (640, 576): (1024, (192, 180)),
    (320, 288): (512, (96, 90)),
    (512, 512): (512, (0, 0)),
    (1024, 1024): (1024, (0, 0)),
}
MAX_BASELINE_M = 1.0


def recognises(path: Path) -> bool:
    """Whether a Matroska file is one of a depth sensor."""
    if not begins_with(path, MAGIC):
        return False
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    return any(sign in head for sign in SIGNS)


def describe(path: Path) -> str:
    """What such a file holds, in words.  Raises UserError."""
    with opened(path) as blob:
        found = _read(path, blob)
    words = [f"{t.name.lower()} {_by(t.image_wh)} {_fourcc(t)}, {len(t.ticks)} frames" for t in found.tracks.values()]
    absent = "" if CALIBRATION in found.attachments else f"; no {CALIBRATION}"
    return "; ".join(w for w in words if w.startswith(("color", "depth"))) + absent + _troubles(found)


def import_azure(config: ImportConfig, out_dir: Path, path: Path) -> None:
    """Import such a file.  Raises UserError for one without colour or calibration, and for one that breaks off."""
    with opened(path) as blob:
        found = _read(path, blob)
        color, depth = (_track(path, found, name) for name in ("COLOR", "DEPTH"))
        if color is None:
            raise UserError(f"{path}: holds no colour track; record with the colour camera on")
        kind = _fourcc(color)
        if kind not in COLOR_FORMATS:
            raise UserError(f"{path}: colour as {kind!r} is not supported; record MJPG, NV12, YUY2 or BGRA")
        straight: list[np.ndarray] = []  # of a wide depth mode: which source pixel each pixel takes

        def read_color(index: int) -> np.ndarray | bytes:
            return _color(_payload(blob, color, index), kind, color.image_wh)

        def read_depth(index: int) -> np.ndarray:
            assert depth is not None
            width, height = depth.image_wh
            data = _payload(blob, depth, index)
            if len(data) != 2 * width * height:
                raise Damaged(f"{len(data)} bytes of depth")
            image = np.frombuffer(data, ">u2").reshape(height, width).astype(np.uint16)
            image = to_millimetres(image, config.depth_units_per_m or 1000.0)
            return lens.take(image, straight[0]) if straight else image

        def rig(color_wh: tuple[int, int], depth_wh: tuple[int, int] | None) -> tuple[Rig, bool, list[str]]:
            return _rig(config, path, found.attachments.get(CALIBRATION), color_wh, depth_wh, straight)

        notes = [] if depth is not None else ["no depth track: fitted from colour alone"]
        if found.damage:
            notes.append(f"{found.damage} stretches of the file are damaged and left out: the film has gaps there")
        breaks_off = f"after {len(color.ticks)} colour pictures" if found.breaks_off else ""
        color_s, depth_s = ([tick * found.tick_s for tick in track.ticks] if track else [] for track in (color, depth))
        import_timed(
            config, out_dir, TimedSource(path, color_s, depth_s, read_color, read_depth, rig, notes, breaks_off)
        )


def _read(path: Path, blob: Blob) -> Matroska:
    try:
        found = read(blob)
    except (Damaged, CutShort) as error:
        raise UserError(f"{path}: its header is damaged ({error or 'it ends there'}); copy it again") from None
    if not found.tracks:
        raise UserError(f"{path}: its list of tracks is damaged or missing; copy it again")
    if not math.isfinite(found.tick_s) or not 1e-9 <= found.tick_s <= 1:
        raise UserError(f"{path}: a clock of {found.tick_s:g} s per tick; its header is damaged: copy it again")
    return found


def _troubles(found: Matroska) -> str:
    damage = f"; {found.damage} damaged stretches" if found.damage else ""
    return damage + ("; breaks off" if found.breaks_off else "")


def _track(path: Path, found: Matroska, name: str) -> Track | None:
    track = next((t for t in found.tracks.values() if t.name.upper() == name), None)
    if track is not None and not 0 < track.image_wh[0] * track.image_wh[1] <= MAX_PIXELS:
        raise UserError(f"{path}: track {name} of {_by(track.image_wh)} pixels; its header is damaged: copy it again")
    return track


def _fourcc(track: Track) -> str:
    """The four letters of the BITMAPINFOHEADER, or of FFmpeg's own names for the same."""
    if track.codec == "V_MJPEG":
        return "MJPG"
    letters = track.private[16:20] if track.codec == "V_MS/VFW/FOURCC" else b""
    return letters.decode("latin-1") or track.codec


def _payload(blob: Blob, track: Track, index: int) -> bytes:
    try:
        return blob.read(*track.places[index])
    except CutShort:
        raise Damaged("it ends there") from None


def _color(data: bytes, kind: str, image_wh: tuple[int, int]) -> np.ndarray | bytes:
    if kind == "MJPG":
        return data
    width, height = image_wh
    if len(data) != int(COLOR_FORMATS[kind] * width * height):
        raise Damaged(f"{len(data)} bytes of colour")
    pixels = np.frombuffer(data, np.uint8)
    if kind == "NV12":
        return cv2.cvtColor(pixels.reshape(height * 3 // 2, width), cv2.COLOR_YUV2RGB_NV12)
    if kind == "YUY2":
        return cv2.cvtColor(pixels.reshape(height, width, 2), cv2.COLOR_YUV2RGB_YUY2)
    return np.ascontiguousarray(pixels.reshape(height, width, 4)[..., 2::-1])


def _rig(
    config: ImportConfig,
    path: Path,
    attachment: bytes | None,
    color_wh: tuple[int, int],
    depth_wh: tuple[int, int] | None,
    straight: list[np.ndarray],
) -> tuple[Rig, bool, list[str]]:
    if attachment is None:
        if depth_wh is not None:
            raise UserError(f"{path}: no {CALIBRATION} is attached, so depth cannot be placed; use --no-depth")
        color, is_known, told = color_camera(config, None, color_wh)
        return Rig(color), is_known, [told] if told else []
    try:
        cameras = json.loads(attachment.rstrip(b"\0"))["CalibrationInformation"]["Cameras"]
        by_place = {camera["Location"]: camera for camera in cameras}
        color_raw, depth_raw = (by_place[f"CALIBRATION_CameraLocation{place}"] for place in ("PV0", "D0"))
        color, error_px = lens.camera(color_wh, *_color_lens(color_raw, color_wh))
        notes = [f"colour: {lens.words(error_px)}"] if error_px else []
        color, is_known, told = color_camera(config, color, color_wh)
        notes += [told] if told else []
        if depth_wh is None:
            return Rig(color), is_known, notes
        depth, note = _depth_camera(depth_raw, depth_wh, straight)
        depth_from_color = _from_depth(depth_raw) @ invert(_from_depth(color_raw))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: its {CALIBRATION} is not the factory's ({error!r}); use --no-depth") from None
    except UserError as error:
        raise UserError(f"{path}: {CALIBRATION}: {error}") from None
    return Rig(color, depth, depth_from_color), is_known, [*notes, *([note] if note else [])]


def _depth_camera(raw: dict[str, Any], depth_wh: tuple[int, int], straight: list[np.ndarray]) -> tuple[Camera, str]:
    """(camera, what to tell the user).  ``straight`` gets the map of a picture that must be straightened."""
    if depth_wh not in DEPTH_MODES:
        raise UserError(f"no depth mode has pictures of {_by(depth_wh)}")
    parameters = _parameters(raw)
    side, (left, top) = DEPTH_MODES[depth_wh]
    cx, cy, fx, fy = (side * value for value in parameters[:4])
    pinhole_px, coefficients = (fx, fy, cx - left, cy - top), _coefficients(parameters)
    try:
        camera, error_px = lens.camera(depth_wh, pinhole_px, coefficients)
    except UserError:
        error_px = math.inf
    if error_px <= lens.ENOUGH_PX:
        return camera, f"depth: {lens.words(error_px)}" if error_px else ""
    camera, index = lens.straightened(depth_wh, pinhole_px, coefficients)
    straight[:] = [index]
    return camera, "wide depth mode: pictures straightened to a field of 100 degrees"


def _color_lens(raw: dict[str, Any], wh: tuple[int, int]) -> tuple[tuple[float, float, float, float], list[float]]:
    """(fx, fy, cx, cy in our pixels, coefficients) at a picture size.

    Calibrated on the whole 4:3 sensor in units of its sides, the first pixel's corner at (0, 0); 16:9 modes cut it
    above and below.  Early devices were calibrated on 16:9.
    """
    parameters = _parameters(raw)
    cx, cy, fx, fy = parameters[:4]
    width, height = wh
    full_height = width * 3 / 4
    if raw["SensorWidth"] * 9 == raw["SensorHeight"] * 16:
        cy, fy = (cy * 2304 + 384) / 3072, fy * 2304 / 3072
    center_y = cy * full_height - (full_height - height) / 2
    return (fx * width, fy * full_height, cx * width, center_y), _coefficients(parameters)


def _parameters(raw: dict[str, Any]) -> list[float]:
    values = [float(value) for value in raw["Intrinsics"]["ModelParameters"]]
    if len(values) < 14 or not all(map(math.isfinite, values)):
        raise ValueError(f"ModelParameters {values}")
    return values


def _coefficients(values: list[float]) -> list[float]:
    """The file's cx, cy, fx, fy, k1 ... k6, codx, cody, p2, p1 in OpenCV's order k1, k2, p1, p2, k3 ... k6."""
    k1, k2, k3, k4, k5, k6 = values[4:10]
    return [k1, k2, values[13], values[12], k3, k4, k5, k6]


def _from_depth(raw: dict[str, Any]) -> np.ndarray:
    """(4, 4) camera_from_reference, metres; the reference is the depth camera."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(raw["Rt"]["Rotation"], float).reshape(3, 3)
    matrix[:3, 3] = np.array(raw["Rt"]["Translation"], float)
    rotation = matrix[:3, :3]
    if not np.isfinite(matrix).all() or np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2:
        raise ValueError(f"Rotation {rotation.tolist()}")
    if np.linalg.norm(matrix[:3, 3]) > MAX_BASELINE_M:
        raise ValueError(f"Translation {matrix[:3, 3].tolist()} m")
    return matrix


def _by(image_wh: tuple[int, int]) -> str:
    return f"{image_wh[0]}x{image_wh[1]}"
