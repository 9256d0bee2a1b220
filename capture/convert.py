"""Any source as a recording of another layout: our container, a folder of pictures, or TUM's.

N frames.  What enters is whatever can be imported; what leaves is complete or not there at all.

    container   frames.cap
    folder      recording.json, color/, depth/
    tum         rgb.txt, rgb/, depth.txt, depth/, calibration.json: depth in millimetres on the colour camera's pixels
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from capture.camera import Rig
from capture.errors import UserError
from capture.files import encode_png, write_atomically
from capture.importers import ImportConfig, recognise
from capture.progress import progress
from capture.recording import FACTORY_FILE, Recording, layout
from capture.registration import depth_in_color, is_registered

LAYOUTS = ("folder", "tum", "container")


def convert(config: ImportConfig, source: Path, out_dir: Path, words: str) -> list[str]:
    """Write ``source`` into the new folder ``out_dir`` in the layout that ``words`` names; returns notes for people.

    Raises UserError for a source that cannot be read and for a folder that is there already.
    """
    if words not in LAYOUTS:
        raise UserError(f"--layout {words}: there are {', '.join(LAYOUTS)}")
    if out_dir.exists():
        raise UserError(f"{out_dir}: is there already; give a new folder")
    importer = recognise(source).importer
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    partial = out_dir.with_name(out_dir.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        read = partial / "read" if words == "tum" else partial
        token = layout.set("folder" if words == "folder" else "container")
        try:
            importer(config, read, source)
        finally:
            layout.reset(token)
        recording = Recording.load(read)
        notes = list(recording.notes)
        if words == "tum":
            notes += write_tum(recording, partial)
            shutil.rmtree(read)
        partial.rename(out_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return notes


def write_tum(recording: Recording, out_dir: Path) -> list[str]:
    """Write a recording in TUM's layout into an existing folder; returns what is lost on the way."""
    notes = []
    rig, (width, height) = recording.rig, recording.rig.color.image_wh
    moves = bool(recording.has_depth.any()) and not _fits(rig)
    if moves:
        notes.append("depth was moved to the colour camera's pixels, as TUM's layout wants it: it cannot be moved back")
    if not recording.focal_is_known:
        notes.append("the focal length in calibration.json is a guess")
    frames = range(len(recording))
    beside = {
        "the empty room": recording.plate_path is not None,
        "masks": any(recording.mask_path(i) for i in frames),
        "landmarks": any(recording.openpose_path(i) for i in frames),
        "the device's own numbers": (recording.folder / FACTORY_FILE).is_file(),
    }
    if left := [words for words, is_there in beside.items() if is_there]:
        notes.append(f"TUM's layout has no place for {', '.join(left)}: left out")
    lists: dict[str, list[str]] = {"rgb": [], "depth": []}
    (out_dir / "rgb").mkdir()
    for i in progress(frames, "convert"):
        suffix = recording.color_names[i].rpartition(".")[2]
        (out_dir / "rgb" / f"{i:06d}.{suffix}").write_bytes(recording.color_bytes(i))
        time_s = repr(float(recording.times_s[i]))  # every digit: times come back as they were
        lists["rgb"].append(f"{time_s} rgb/{i:06d}.{suffix}")
        depth_mm = recording.depth_mm(i)
        if depth_mm is None:
            continue
        if moves:
            depth_m = depth_in_color(rig, depth_mm)
            depth_mm = np.where(np.isnan(depth_m), 0, np.rint(depth_m * 1000)).clip(0, 65535).astype(np.uint16)
        (out_dir / "depth").mkdir(exist_ok=True)
        (out_dir / "depth" / f"{i:06d}.png").write_bytes(encode_png(depth_mm))
        lists["depth"].append(f"{time_s} depth/{i:06d}.png")
    for name, lines in lists.items():
        if lines:
            write_atomically(out_dir / f"{name}.txt", ("\n".join(["# time file", *lines]) + "\n").encode())
    camera = rig.color
    calibration = {
        "width": width,
        "height": height,
        "fx": camera.fx_px,
        "fy": camera.fy_px,
        "cx": camera.cx_px - 0.5,  # OpenCV puts the first pixel's centre at (0, 0), we at (0.5, 0.5)
        "cy": camera.cy_px - 0.5,
        "distortion": list(camera.distortion),
        "depth_units_per_m": 1000,
    }
    write_atomically(out_dir / "calibration.json", json.dumps(calibration, indent=1).encode())
    return notes


def _fits(rig: Rig) -> bool:
    """Whether depth is on the colour camera's rays already, at any resolution."""
    return rig.depth is not None and is_registered(rig)
