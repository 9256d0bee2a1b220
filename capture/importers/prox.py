"""PROX's raw layout: a Kinect V2 filmed through two cameras, colour and depth, that are not registered.

H x W colour pixels, h x w depth pixels.  ``capture.beside`` shows the folders.  What the files hold, and what becomes
of it (Hassan et al., ICCV 2019, and the layout that their data loaders expect):

    Color/*.jpg            stored mirrored, as the Kinect SDK delivers them: turned back here
    Depth/*.png            uint16 in 1/8 millimetre, mirrored too; to millimetres and turned back here
    calibration/*.json     ``camera_mtx``, ``k`` (k1, k2, p1, p2, k3) and ``view_mtx`` = camera_from_world (3, 4) in
                           metres, OpenCV's pixels, of the pictures that are NOT mirrored
    keypoints/NAME/*.json  OpenPose, of the pictures that are not mirrored: taken as they are

So after the import left is the person's left, and nothing of the calibration changes but the pixel centre.
``sNNN_frame_00001__00.00.00.023.jpg`` was taken at 0.023 s.  Masks, infrared and skeletons are left alone.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from capture.beside import openpose_folder, prox_recordings, prox_root
from capture.camera import Camera, Rig, invert
from capture.errors import UserError
from capture.importers import ImportConfig, color_camera, openpose
from capture.importers.images import (
    COLOR_SUFFIXES,
    SourceFrame,
    read_depth_picture,
    read_picture,
    same_size,
    to_millimetres,
)
from capture.importers.upright import open_writer
from capture.progress import progress
from capture.recording import RecordingWriter

log = logging.getLogger(__name__)

UNITS_PER_M = 8000.0
MAX_BASELINE_M = 1.0  # the Kinect's cameras are 5 cm apart; 52 would be millimetres
TIME = re.compile(r"__(\d+)\.(\d+)\.(\d+)\.(\d+)$")  # hours, minutes, seconds, milliseconds


def recognises(folder: Path) -> bool:
    """Whether ``folder`` is a recording in PROX's layout, or holds some."""
    return bool(prox_recordings(folder))


def import_prox(config: ImportConfig, out_dir: Path, folder: Path) -> None:
    """Import one recording.  Raises UserError for several recordings, a missing calibration, unreadable pictures."""
    home = the_recording(folder)
    frames, notes = list_frames(config, home)
    indices = config.taken(len(frames))
    wanted = [frames[i] for i in indices]
    has_depth = not config.no_depth and any(frame.depth is not None for frame in wanted)
    writer: RecordingWriter | None = None
    color_wh = depth_wh = (0, 0)
    for frame in progress(wanted, "import"):
        color = _unmirrored(read_picture(frame.color))
        depth_mm = None
        if has_depth and frame.depth is not None:
            units_per_m = config.depth_units_per_m or UNITS_PER_M
            depth_mm = to_millimetres(_unmirrored(read_depth_picture(frame.depth)), units_per_m)
            depth_wh = same_size(frame.depth, (depth_mm.shape[1], depth_mm.shape[0]), depth_wh)
        color_wh = same_size(frame.color, (color.shape[1], color.shape[0]), color_wh)
        if writer is None:
            rig, is_known, told = _rig(
                config, home, color_wh, next(f.depth for f in wanted if f.depth) if has_depth else None
            )
            writer = open_writer(config, out_dir, rig, home.name, is_known)
            notes += [told] if told else []
        writer.add(frame.time_s, color, depth_mm)
    assert writer is not None
    without = sum(frame.depth is None for frame in wanted)
    if has_depth and without:
        notes.append(f"{without} of {len(wanted)} frames have no depth picture: fitted from colour alone")
    for note in [*notes, *(["depth left out (--no-depth)"] if config.no_depth else [])]:
        writer.note(note)
        log.info("%s: %s", home, note)
    openpose.carry(writer, openpose_folder(home), indices, len(frames), [frame.color.stem for frame in frames])
    writer.finish()


def describe(folder: Path) -> str:
    """What the recording that is meant holds, in words.  Raises UserError for several recordings, and for none."""
    frames, _ = list_frames(ImportConfig(), the_recording(folder))
    with_depth = sum(frame.depth is not None for frame in frames)
    return f"{len(frames)} colour pictures" + (f", {with_depth} depth pictures of their names" if with_depth else "")


def the_recording(folder: Path) -> Path:
    """The recording that is meant.  Raises UserError naming all of them when ``folder`` holds several."""
    found = prox_recordings(folder)
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
        raise UserError(
            f"{folder}: holds {len(found)} PROX recordings ({names}); give one of them: --source {found[0]}"
        )
    return found[0]


def list_frames(config: ImportConfig, home: Path) -> tuple[list[SourceFrame], list[str]]:
    """(frames by time, notes).  Raises UserError when there is no colour picture."""
    color = sorted(p for p in (home / "Color").iterdir() if p.suffix.lower() in COLOR_SUFFIXES and p.is_file())
    if not color:
        raise UserError(f"{home / 'Color'}: holds not a single colour picture; is the copy complete?")
    notes = ["PROX layout: pictures turned back from mirrored"]
    times_s = [time_s for path in color if (time_s := _time_s(path.stem)) is not None]
    if len(times_s) < len(color) or sorted(set(times_s)) != times_s:
        notes.append(f"pictures carry no times: {config.frames_per_second:g} frames per second assumed")
        times_s = [i / config.frames_per_second for i in range(len(color))]
    depth = {path.stem: path for path in (home / "Depth").glob("*.png")} if not config.no_depth else {}
    frames = [
        SourceFrame(time_s - times_s[0], path, depth.get(path.stem))
        for time_s, path in zip(times_s, color, strict=True)
    ]
    unused = len(set(depth) - {path.stem for path in color})
    if unused:
        notes.append(f"{unused} of {len(depth)} depth pictures have no colour picture of their name and are left out")
    return frames, notes


def _time_s(stem: str) -> float | None:
    match = TIME.search(stem)
    if match is None:
        return None
    hours, minutes, seconds, milliseconds = map(int, match.groups())
    return 3600 * hours + 60 * minutes + seconds + milliseconds / 1000


def _unmirrored(image: np.ndarray) -> np.ndarray:
    """(H, W, ...) with left and right exchanged."""
    return np.ascontiguousarray(image[:, ::-1])


def _rig(
    config: ImportConfig, home: Path, color_wh: tuple[int, int], first_depth: Path | None
) -> tuple[Rig, bool, str]:
    """(rig, whether the focal length is known, what to tell the user)."""
    calibration = prox_root(home) / "calibration"
    said, color_from_world = read_camera(calibration / "Color.json", color_wh)
    color, is_known, told = color_camera(config, said, color_wh)
    if first_depth is None:
        return Rig(color), is_known, told
    height, width = read_depth_picture(first_depth).shape
    depth, depth_from_world = read_camera(calibration / "IR.json", (width, height))
    depth_from_color = depth_from_world @ invert(color_from_world)
    baseline_m = float(np.linalg.norm(depth_from_color[:3, 3]))
    if baseline_m > MAX_BASELINE_M:
        raise UserError(
            f"{calibration}: colour and depth camera are {baseline_m:.3g} m apart; view_mtx must be in metres"
        )
    return Rig(color, depth, depth_from_color), is_known, told


def read_camera(path: Path, image_wh: tuple[int, int]) -> tuple[Camera, np.ndarray]:
    """(camera in our pixels, camera_from_world (4, 4)) of one calibration file.

    Raises UserError when it is missing, lacks a field, or belongs to pictures of another size.
    """
    try:
        fields = json.loads(path.read_text())
        matrix = np.array(fields["camera_mtx"], float).reshape(3, 3)
        distortion = _five(np.array(fields["k"], float).ravel().tolist())
        camera_from_world = np.eye(4)
        camera_from_world[:3] = np.array(fields["view_mtx"], float).reshape(3, 4)
    except FileNotFoundError:
        raise UserError(
            f"{path}: not there; PROX keeps its calibration two folders above a recording: copy calibration/ with "
            "Color.json and IR.json"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a PROX calibration ({error}); it needs camera_mtx, k and view_mtx") from None
    rotation = camera_from_world[:3, :3]
    if not (np.isfinite(matrix).all() and np.isfinite(camera_from_world).all() and all(map(math.isfinite, distortion))):
        raise UserError(f"{path}: its numbers must be finite; copy it again")
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise UserError(f"{path}: view_mtx holds no rotation ({rotation.round(3).tolist()}); copy it again")
    center_px = matrix[0, 2], matrix[1, 2]
    if any(not 0.25 < c / size < 0.75 for c, size in zip(center_px, image_wh, strict=True)):
        raise UserError(
            f"{path}: its optical centre ({center_px[0]:.0f}, {center_px[1]:.0f}) is far from the middle of "
            f"{image_wh[0]}x{image_wh[1]} pixels; take the pictures in the size they were calibrated for"
        )
    # OpenCV puts the first pixel's centre at (0, 0), we at (0.5, 0.5).
    center = float(center_px[0]) + 0.5, float(center_px[1]) + 0.5
    try:
        return Camera(image_wh, float(matrix[0, 0]), float(matrix[1, 1]), *center, distortion), camera_from_world
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _five(values: Sequence[float]) -> tuple[float, ...]:
    """OpenCV writes four coefficients or five; more of them are another lens model."""
    if len(values) < 4 or any(values[5:]):
        raise ValueError(f"k = {list(values)}")
    return tuple([*values, 0.0][:5])
