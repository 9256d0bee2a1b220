"""The TUM RGB-D layout: rgb.txt and depth.txt list ``time name``; depth is registered to colour.

N colour and M depth pictures.  A ``calibration.json`` beside rgb.txt gives width, height, fx, fy, cx, cy (OpenCV's
pixels: the first centre at (0, 0)) and depth_units_per_m.  Without it, TUM's published defaults
(https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats).
"""

from __future__ import annotations

import difflib
import json
import math
from pathlib import Path

import numpy as np

from capture.camera import Camera
from capture.errors import UserError
from capture.importers import ImportConfig
from capture.importers.images import SourceFolder, SourceFrame, import_folder

DEFAULT_UNITS_PER_M = 5000.0
CALIBRATION = ("width", "height", "fx", "fy", "cx", "cy", "depth_units_per_m", "distortion")  # in calibration.json
DEFAULT_CAMERA = Camera((640, 480), 525.0, 525.0, 319.5 + 0.5, 239.5 + 0.5)


def recognises(folder: Path) -> bool:
    """Whether ``folder`` has a list of colour pictures."""
    return (folder / "rgb.txt").is_file()


def import_tum(config: ImportConfig, out_dir: Path, folder: Path) -> None:
    """Import a TUM RGB-D folder.  Raises UserError naming the file that is missing or wrong."""
    color = read_list(folder, "rgb.txt")
    depth = read_list(folder, "depth.txt") if (folder / "depth.txt").is_file() and not config.no_depth else []
    if not color:
        raise UserError(f"{folder / 'rgb.txt'}: lists not a single picture; is the copy complete?")
    calibration = folder / "calibration.json"
    if calibration.is_file():
        camera, units_per_m, notes = read_calibration(calibration)
        notes = notes if depth else []
    else:
        camera, units_per_m = DEFAULT_CAMERA, DEFAULT_UNITS_PER_M
        notes = ["no calibration.json: TUM's defaults used (focal 525 px, centre 319.5 239.5, 5000 units per metre)"]
    times_s = np.array([time_s for time_s, _ in color])
    depth_of = associate(times_s, np.array([time_s for time_s, _ in depth]))
    unused = len(depth) - len(set(depth_of) - {None})
    if unused:
        notes.append(f"{unused} of {len(depth)} depth pictures belong to no colour picture and are left out")
    frames = []
    for (time_s, path), index in zip(color, depth_of, strict=True):
        depth_path = None if index is None else depth[index][1]
        frames.append(SourceFrame(time_s - times_s[0], path, depth_path))
    import_folder(config, out_dir, SourceFolder(folder, frames, camera, units_per_m, notes))


def describe(folder: Path) -> str:
    """What the folder lists, in words.  Raises UserError for a list or a calibration that cannot be read."""
    color = read_list(folder, "rgb.txt")
    depth = read_list(folder, "depth.txt") if (folder / "depth.txt").is_file() else []
    words = [f"{len(color)} colour pictures"]
    if depth:
        paired = associate(np.array([time_s for time_s, _ in color]), np.array([time_s for time_s, _ in depth]))
        words.append(f"{len(depth)} depth pictures, {sum(i is not None for i in paired)} of the time of a colour one")
    calibration = folder / "calibration.json"
    if calibration.is_file():
        camera, units_per_m, _ = read_calibration(calibration)
        words.append(f"camera {camera.image_wh[0]}x{camera.image_wh[1]}, {units_per_m:g} depth units per metre")
    else:
        words.append("no calibration.json")
    return ", ".join(words)


def read_list(folder: Path, name: str) -> list[tuple[float, Path]]:
    """(time in seconds, file) of each line, by time.  A missing depth picture is left out, a missing colour picture or
    an unreadable line raises UserError."""
    entries: dict[float, Path] = {}
    try:
        lines = (folder / name).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / name}: cannot be read ({error}); copy it again") from None
    root = folder.resolve()
    for number, line in enumerate(lines, 1):
        words = line.split("#", 1)[0].split(maxsplit=1)
        if not words:
            continue
        try:
            time_s, file = float(words[0]), words[1].strip()
        except (ValueError, IndexError):
            time_s, file = math.nan, ""
        if not math.isfinite(time_s):
            raise UserError(f"{folder / name}, line {number}: {line[:60]!r} is not 'time file'; correct the line")
        try:
            path = (folder / file).resolve()
            is_there = path.is_file()
        except (OSError, ValueError):  # too long, or a zero byte in it
            raise UserError(
                f"{folder / name}, line {number}: {file[:60]!r} is no file name; correct the line"
            ) from None
        if not path.is_relative_to(root):
            raise UserError(f"{folder / name}, line {number}: {file[:60]!r} lies outside the folder; correct the line")
        if is_there:
            entries.setdefault(time_s, path)
        elif name == "rgb.txt":
            raise UserError(f"{folder / name}, line {number}: {file[:60]!r} is not there; is the copy complete?")
    return sorted(entries.items())


def associate(color_times_s: np.ndarray, depth_times_s: np.ndarray) -> list[int | None]:
    """For each colour time (N,) the index of its depth time (M,), or None: the nearest, within half of the shorter
    period of the two streams, each depth picture at most once."""
    step_s = float(np.median(np.diff(color_times_s))) if len(color_times_s) > 1 else 1 / 30
    if len(depth_steps_s := np.diff(np.unique(depth_times_s))) > 2:  # colour may have been slower, in dim light
        step_s = min(step_s, float(np.median(depth_steps_s)))
    nearest: list[int | None] = [None] * len(color_times_s)
    order = np.argsort(depth_times_s)
    taken_by: dict[int, int] = {}
    for i, time_s in enumerate(color_times_s):
        if not len(order):
            break
        j = int(order[np.argmin(np.abs(depth_times_s[order] - time_s))])
        gap_s = abs(depth_times_s[j] - time_s)
        if gap_s > step_s / 2 + 1e-9:
            continue
        rival = taken_by.get(j)
        if rival is not None:
            if abs(depth_times_s[j] - color_times_s[rival]) <= gap_s:
                continue
            nearest[rival] = None
        nearest[i], taken_by[j] = j, i
    return nearest


def read_calibration(path: Path) -> tuple[Camera, float, list[str]]:
    """(camera in our pixels, depth units per metre, notes) of a calibration.json.  Raises UserError for a missing field
    and for a name that is nearly one of those that are known."""
    try:
        fields = json.loads(path.read_text())
        numbers = {name: float(fields[name]) for name in ("width", "height", "fx", "fy", "cx", "cy")}
        units_per_m = float(fields.get("depth_units_per_m", DEFAULT_UNITS_PER_M))
        distortion = tuple(float(k) for k in fields.get("distortion", (0.0,) * 5))
        for name in set(fields) - set(CALIBRATION):
            if close := difflib.get_close_matches(name, CALIBRATION, 1, 0.8):  # a slip would silently mean a default
                raise ValueError(f"{name!r}: is {close[0]} meant?")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a calibration ({error}); it needs the numbers width, height, fx, fy, cx, cy, "
            "depth_units_per_m"
        ) from None
    if not all(map(math.isfinite, [*numbers.values(), units_per_m])) or units_per_m <= 0:
        raise UserError(
            f"{path}: depth_units_per_m = {units_per_m} and the others must be finite and positive; correct it"
        )
    # OpenCV puts the first pixel's centre at (0, 0), we at (0.5, 0.5).
    size_wh = (int(numbers["width"]), int(numbers["height"]))
    camera = Camera(size_wh, numbers["fx"], numbers["fy"], numbers["cx"] + 0.5, numbers["cy"] + 0.5, distortion)
    told = f"{path.name} names no depth_units_per_m: TUM's {DEFAULT_UNITS_PER_M:g} assumed"
    return camera, units_per_m, [] if "depth_units_per_m" in fields else [told]
