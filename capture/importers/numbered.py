"""A folder of numbered pictures with camera files; depth is registered to colour.

Either side by side (``0001.jpg``, ``0001_depth.png``, ``0001_camera.xml``) or in subfolders (``color/0001.jpg``,
``depth/0001.png``) with one ``calibration.json`` (see ``tum``) or ``camera.xml``.  16-bit depth in millimetres.
Foreign masks and point clouds are left alone.  Pictures carry no times: frame n is shown at
n / recording.frames_per_second.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from capture.camera import Camera
from capture.errors import UserError
from capture.importers import ImportConfig
from capture.importers.images import COLOR_SUFFIXES, SourceFolder, SourceFrame, import_folder, read_color
from capture.importers.tum import read_calibration

COLOR_FOLDERS = ("color", "colour", "rgb", "images", "")
CAMERA_FILES = ("calibration.json", "camera.xml", "intrinsics.xml")
MAX_XML_BYTES = 1_000_000
NUMBERED = re.compile(r"(?:[A-Za-z]+[-_]?)?(\d+)")  # 0001, frame_0001, IMG-12


def recognises(folder: Path) -> bool:
    """Whether ``folder`` holds numbered colour pictures."""
    return bool(_color_files(folder)[0])


def import_numbered(config: ImportConfig, out_dir: Path, folder: Path) -> None:
    """Import a folder of numbered pictures.  Raises UserError naming the file that is missing or wrong."""
    color, is_flat = _color_files(folder)
    depth = {} if config.no_depth else _depth_files(folder, is_flat)
    numbers = sorted(color)
    first_wh = read_color(color[numbers[0]], upright=not depth)[1]
    camera, units_per_m, notes = _camera(folder, [color[n] for n in numbers], first_wh, bool(depth))
    if depth and camera is None and not config.focal_px:
        raise UserError(
            f"{folder}: depth pictures but no camera file; add calibration.json with width, height, fx, fy, cx, cy and "
            "depth_units_per_m, or use --no-depth"
        )
    unused = len(set(depth) - set(color))
    if unused:
        notes.append(f"{unused} of {len(depth)} depth pictures have no colour picture of their number and are left out")
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if missing:
        notes.append(f"{missing} numbers between {numbers[0]} and {numbers[-1]} are missing: the film has gaps there")
    notes.append(f"pictures carry no times: {config.frames_per_second:g} frames per second assumed")
    frames = [SourceFrame((n - numbers[0]) / config.frames_per_second, color[n], depth.get(n)) for n in numbers]
    import_folder(config, out_dir, SourceFolder(folder, frames, camera, units_per_m, notes))


def describe(folder: Path) -> str:
    """What the folder holds, in words.  Raises UserError for pictures of one number and cameras that cannot be read."""
    color, is_flat = _color_files(folder)
    depth, numbers = _depth_files(folder, is_flat), sorted(color)
    width, height = read_color(color[numbers[0]], upright=not depth)[1]
    camera, _, _ = _camera(folder, [color[n] for n in numbers], (width, height), bool(depth))
    words = [f"{len(color)} colour pictures {width}x{height}"]
    if depth:
        words.append(f"{len(set(depth) & set(color))} depth pictures of their numbers")
    if missing := numbers[-1] - numbers[0] + 1 - len(numbers):
        words.append(f"{missing} numbers missing in between")
    return ", ".join([*words, "a camera file" if camera is not None else "no camera file"])


def _color_files(folder: Path) -> tuple[dict[int, Path], bool]:
    """({number: colour picture}, whether they lie in the folder itself).  Raises UserError for a number used twice."""
    for name in COLOR_FOLDERS:
        files: dict[int, Path] = {}
        for path in sorted((folder / name).iterdir()) if (folder / name).is_dir() else []:
            match = NUMBERED.fullmatch(path.stem)
            if match is None or path.suffix.lower() not in COLOR_SUFFIXES or not path.is_file():
                continue
            other = files.setdefault(int(match[1]), path)
            if other != path:
                raise UserError(f"{folder / name}: {other.name} and {path.name} have one number; keep one of them")
        if files:
            return files, name == ""
    return {}, False


def _depth_files(folder: Path, is_flat: bool) -> dict[int, Path]:
    """{number: depth picture}."""
    suffix = "_depth" if is_flat else ""
    home = folder if is_flat else folder / "depth"
    files = {}
    for path in sorted(home.glob(f"*{suffix}.png")) if home.is_dir() else []:
        match = NUMBERED.fullmatch(path.stem.removesuffix(suffix))
        if match is not None:
            files[int(match[1])] = path
    return files


def _camera(
    folder: Path, color: list[Path], image_wh: tuple[int, int], has_depth: bool
) -> tuple[Camera | None, float, list[str]]:
    """(camera or None, depth units per metre, notes).  Raises UserError when cameras are unreadable or zoom."""
    per_frame = [p for p in (path.with_name(path.stem + "_camera.xml") for path in color) if p.is_file()]
    if per_frame:
        cameras = [read_camera_xml(path, image_wh) for path in per_frame]
        for path, camera in zip(per_frame, cameras, strict=True):
            if abs(camera.fx_px / cameras[0].fx_px - 1) > 1e-3:
                raise UserError(
                    f"{path}: focal length {camera.fx_px:g} px, {per_frame[0].name} says {cameras[0].fx_px:g}; "
                    "a recording has one lens setting: split it where the camera zooms"
                )
        return cameras[0], 1000.0, [f"{len(per_frame)} camera files: one lens; their poses are not used"]
    for name in CAMERA_FILES:
        path = folder / name
        if path.is_file():
            if path.suffix == ".json":
                camera, units_per_m, told = read_calibration(path)
                return camera, units_per_m, told if has_depth else []
            return read_camera_xml(path, image_wh), 1000.0, []
    return None, 1000.0, []


def read_camera_xml(path: Path, image_wh: tuple[int, int]) -> Camera:
    """The 3x3 ``intrinsic`` (or ``camera_matrix``) of an OpenCV storage file.  Raises UserError when there is none."""
    try:
        data = path.read_bytes()
        if len(data) > MAX_XML_BYTES or b"<!ENTITY" in data:
            raise ValueError("not a plain camera file")
        root = ElementTree.fromstring(data)
        nodes = [node for name in ("intrinsic", "camera_matrix", "K") for node in root.iter(name)]
        matrix = np.array((nodes[0].findtext("data") or "").split(), float).reshape(3, 3)
    except (OSError, ValueError, IndexError, ElementTree.ParseError) as error:
        raise UserError(
            f"{path}: not a readable camera file ({error}); it needs an OpenCV matrix <intrinsic>"
        ) from None
    if not np.isfinite(matrix).all():
        raise UserError(f"{path}: the intrinsic matrix holds {matrix.tolist()}; its numbers must be finite")
    # OpenCV puts the first pixel's centre at (0, 0), we at (0.5, 0.5).
    fx_px, fy_px, cx_px, cy_px = (float(matrix[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return Camera(image_wh, fx_px, fy_px, cx_px + 0.5, cy_px + 0.5)
