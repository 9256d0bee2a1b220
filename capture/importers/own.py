"""A recording of our own, from another workspace or another machine.

A folder that holds frames.cap or recording.json, a subject's folder that holds it in 01_recording, or a frames.cap
itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from capture.errors import UserError
from capture.files import read_gray
from capture.importers import ImportConfig
from capture.importers.images import read_depth_picture, read_picture, same_size
from capture.importers.openpose import read_checked
from capture.importers.upright import open_writer
from capture.progress import progress
from capture.recording import Recording, holds_recording


def recognises(folder: Path) -> bool:
    """Whether ``folder`` is a recording or a subject that has one."""
    return _home(folder) is not None


def count_openpose(folder: Path) -> int:
    """How many frames of a recording of ours carry OpenPose's landmarks.  Raises UserError when it is unreadable."""
    recording = _load(folder)
    return sum(recording.openpose_path(i) is not None for i in range(len(recording)))


def describe(source: Path) -> str:
    """What a recording of ours holds, in words.  Raises UserError when it is unreadable."""
    recording = _load(source)
    (width, height), count = recording.rig.color.image_wh, len(recording)
    words = [f"{count} frames in {recording.times_s[-1] - recording.times_s[0]:.1f} s, colour {width}x{height}"]
    if recording.has_depth.any() and recording.rig.depth is not None:
        width, height = recording.rig.depth.image_wh
        words.append(f"{int(recording.has_depth.sum())} depth pictures {width}x{height}")
    if not recording.focal_is_known:
        words.append("no focal length")
    if recording.plate_path is not None:
        words.append("the empty room")
    if recording.container is not None and not recording.container.is_finished:
        words.append("unfinished")
    return ", ".join(words)


def _home(folder: Path) -> Path | None:
    homes = (folder, folder / "01_recording")
    return next((home for home in homes if holds_recording(home)), None)


def _load(source: Path) -> Recording:
    """The recording that ``source`` is or holds.  Raises UserError for fields that are missing or cannot be, and for
    foreign paths."""
    home = source if source.is_file() else _home(source)
    assert home is not None
    try:
        recording = Recording.open(home) if home.is_file() else Recording.load(home)
        if recording.container is None:
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
        raise UserError(f"{home}: is damaged ({error}); copy the recording again") from None
    return recording


def _frame(recording: Recording, index: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour and depth of one frame.  Raises UserError for pictures that are broken, or none a camera takes."""
    if recording.container is not None:
        return recording.color(index), recording.depth_mm(index)
    depth_path = recording.folder / "depth" / f"{index:06d}.png"
    depth_mm = read_depth_picture(depth_path) if recording.has_depth[index] else None
    return read_picture(recording.folder / recording.color_names[index]), depth_mm


def import_own(config: ImportConfig, out_dir: Path, folder: Path) -> None:
    """Copy a recording, or the wanted part of it.  Raises UserError when a file of it is missing or broken."""
    recording = _load(folder)
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
    for new_index, index in enumerate(progress(config.taken(len(recording)), "import")):
        image, depth_mm = _frame(recording, index)  # refuses what is broken while the user has the source at hand
        if (image.shape[1], image.shape[0]) != recording.rig.color.image_wh:
            raise UserError(
                f"{recording.folder}, frame {index}: {image.shape[1]}x{image.shape[0]} pixels, the rig says "
                f"{recording.rig.color.image_wh}; copy the recording again"
            )
        if depth_mm is not None and recording.rig.depth is not None:
            same_size(recording.folder, (depth_mm.shape[1], depth_mm.shape[0]), recording.rig.depth.image_wh)
        writer.add(float(recording.times_s[index]), recording.color_bytes(index), None if config.no_depth else depth_mm)
        openpose_path = recording.openpose_path(index)
        if openpose_path is not None:
            writer.add_openpose(new_index, read_checked(openpose_path))
        mask_path = recording.mask_path(index)
        if mask_path is not None:
            writer.add_mask(new_index, read_gray(mask_path))
    plate = recording.plate()
    if plate is not None:
        writer.add_plate(plate[0], None if config.no_depth else plate[1])
    writer.add_factory(recording.factory())
    writer.finish()
