"""A recording of our own, from another workspace or another machine.

A folder that holds recording.json, or a subject's folder that holds it in 01_recording.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from capture.errors import UserError
from capture.importers import ImportConfig
from capture.importers.images import read_depth_picture, read_picture, same_size
from capture.importers.openpose import read_checked
from capture.importers.upright import open_writer
from capture.progress import progress
from capture.recording import Recording, read_gray, read_image


def recognises(folder: Path) -> bool:
    """Whether ``folder`` is a recording or a subject that has one."""
    return _home(folder) is not None


def count_openpose(folder: Path) -> int:
    """How many frames of a recording of ours carry OpenPose's landmarks.  Raises UserError when it is unreadable."""
    home = _home(folder)
    assert home is not None
    recording = _load(home)
    return sum(recording.openpose_path(i) is not None for i in range(len(recording)))


def _home(folder: Path) -> Path | None:
    homes = (folder, folder / "01_recording")
    return next((home for home in homes if (home / "recording.json").is_file()), None)


def _load(home: Path) -> Recording:
    """The recording in a folder.  Raises UserError for fields that are missing or cannot be, and for foreign paths."""
    path = home / "recording.json"
    try:
        recording = Recording.load(home)
        names = [str(name) for name in recording.color_names]
        lost = [name for name in names if not (home / name).resolve().is_relative_to((home / "color").resolve())]
        if lost:
            raise ValueError(f"{lost[0][:60]!r} lies outside of color/")
        if not np.isfinite(recording.times_s).all() or (np.diff(recording.times_s) <= 0).any():
            raise ValueError("times that do not rise")
        rig = recording.rig
        has_camera = rig.depth is not None and rig.depth_from_color is not None and rig.depth_from_color.shape == (4, 4)
        if recording.has_depth.any() and not has_camera:
            raise ValueError("depth without a camera")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is damaged ({error}); copy the recording again") from None
    return recording


def import_own(config: ImportConfig, out_dir: Path, folder: Path) -> None:
    """Copy a recording, or the wanted part of it.  Raises UserError when a file of it is missing or broken."""
    home = _home(folder)
    assert home is not None
    recording = _load(home)
    rig = recording.rig
    if config.focal_px:
        rig = replace(rig, color=rig.color.with_focal(config.focal_px))
    if config.no_depth:
        rig = replace(rig, depth=None, depth_from_color=None)
    writer = open_writer(config, out_dir, rig, recording.source, recording.focal_is_known or config.focal_px > 0)
    for note in recording.notes:
        writer.note(note)
    if config.no_depth:
        writer.note("depth left out (--no-depth)")
    depth_wh = rig.depth.image_wh if rig.depth is not None else (0, 0)
    for new_index, index in enumerate(progress(config.taken(len(recording)), "import")):
        path = home / recording.color_names[index]
        image = read_picture(path)  # refuses a broken picture here, where the user still has the source at hand
        if (image.shape[1], image.shape[0]) != recording.rig.color.image_wh:
            raise UserError(f"{path}: {image.shape[1]}x{image.shape[0]} pixels, the rig says {rig.color.image_wh}")
        depth_mm = None
        if recording.has_depth[index] and not config.no_depth:
            depth_mm = read_depth_picture(home / "depth" / f"{index:06d}.png")
            same_size(home / "depth", (depth_mm.shape[1], depth_mm.shape[0]), depth_wh)
        writer.add(float(recording.times_s[index]), path.read_bytes(), depth_mm)
        openpose_path = recording.openpose_path(index)
        if openpose_path is not None:
            writer.add_openpose(new_index, read_checked(openpose_path))
        mask_path = recording.mask_path(index)
        if mask_path is not None:
            writer.add_mask(new_index, read_gray(mask_path))
    if recording.background_path is not None:
        writer.add_background(read_image(recording.background_path))
    writer.finish()
