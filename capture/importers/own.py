"""A recording of our own, from another workspace or another machine.

A folder that holds recording.json, or a subject's folder that holds it in 01_recording.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from capture.importers import ImportConfig
from capture.importers.openpose import read_checked
from capture.importers.upright import open_writer
from capture.progress import progress
from capture.recording import Recording, read_image


def recognises(folder: Path) -> bool:
    """Whether ``folder`` is a recording or a subject that has one."""
    return _home(folder) is not None


def count_openpose(folder: Path) -> int:
    """How many frames of a recording of ours carry OpenPose's landmarks.  Raises UserError when it is unreadable."""
    home = _home(folder)
    assert home is not None
    recording = Recording.load(home)
    return sum(recording.openpose_path(i) is not None for i in range(len(recording)))


def _home(folder: Path) -> Path | None:
    homes = (folder, folder / "01_recording")
    return next((home for home in homes if (home / "recording.json").is_file()), None)


def import_own(config: ImportConfig, out_dir: Path, folder: Path) -> None:
    """Copy a recording, or the wanted part of it.  Raises UserError when a file of it is missing or broken."""
    home = _home(folder)
    assert home is not None
    recording = Recording.load(home)
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
        path = home / recording.color_names[index]
        read_image(path)  # refuses a broken picture here, where the user still has the source at hand
        depth_mm = None if config.no_depth else recording.depth_mm(index)
        writer.add(float(recording.times_s[index]), path.read_bytes(), depth_mm)
        openpose_path = recording.openpose_path(index)
        if openpose_path is not None:
            writer.add_openpose(new_index, read_checked(openpose_path))
    writer.finish()
