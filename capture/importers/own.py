"""A recording of our own, from another workspace or another machine.

A folder that holds frames.cap or recording.json, a subject's folder that holds it in 01_recording, or a frames.cap
itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from capture.importers import ImportConfig
from capture.importers.openpose import read_checked
from capture.progress import progress
from capture.recording import Recording, RecordingWriter, holds_recording


def recognises(folder: Path) -> bool:
    """Whether ``folder`` is a recording or a subject that has one."""
    return _home(folder) is not None


def count_openpose(folder: Path) -> int:
    """How many frames of a recording of ours carry OpenPose's landmarks.  Raises UserError when it is unreadable."""
    recording = _load(folder)
    return sum(recording.openpose_path(i) is not None for i in range(len(recording)))


def _home(folder: Path) -> Path | None:
    homes = (folder, folder / "01_recording")
    return next((home for home in homes if holds_recording(home)), None)


def _load(source: Path) -> Recording:
    if source.is_file():
        return Recording.open(source)
    home = _home(source)
    assert home is not None
    return Recording.load(home)


def import_own(config: ImportConfig, out_dir: Path, folder: Path) -> None:
    """Copy a recording, or the wanted part of it.  Raises UserError when a file of it is missing or broken."""
    recording = _load(folder)
    rig = recording.rig
    if config.focal_px:
        rig = replace(rig, color=rig.color.with_focal(config.focal_px))
    if config.no_depth:
        rig = replace(rig, depth=None, depth_from_color=None)
    writer = RecordingWriter(out_dir, rig, recording.source, recording.focal_is_known or config.focal_px > 0)
    for note in recording.notes:
        writer.note(note)
    if config.no_depth:
        writer.note("depth left out (--no-depth)")
    for new_index, index in enumerate(progress(config.taken(len(recording)), "import")):
        recording.color(index)  # refuses a broken picture here, where the user still has the source at hand
        depth_mm = None if config.no_depth else recording.depth_mm(index)
        writer.add(float(recording.times_s[index]), recording.color_bytes(index), depth_mm)
        openpose_path = recording.openpose_path(index)
        if openpose_path is not None:
            writer.add_openpose(new_index, read_checked(openpose_path))
    plate = recording.plate()
    if plate is not None:
        writer.add_plate(plate[0], None if config.no_depth else plate[1])
    writer.finish()
