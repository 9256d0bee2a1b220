"""A live recording on its way into the workspace.  Unlike an import it cannot be made again, so it is never deleted.

.01_recording.capture     being filmed, or left by a recorder that was killed or found the disk full
01_recording              published: its last words were added, then the folder was renamed
unfinished_recording_1    left by a killed ``record --force``: the recording that was to be replaced is still there
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import attempt
import source as sources
from capture.errors import UserError
from project import Identity, Project, sections_of_source

log = logging.getLogger(__name__)

FRAMES = "frames.cap"
ABOUT = "capture.json"  # which sensor


def folder_of(home: Path) -> Path:
    """Where a subject's live recording is made."""
    return home / ".01_recording.capture"


def is_left(home: Path) -> bool:
    """Whether a live recording was not finished."""
    return (folder_of(home) / FRAMES).is_file()


def begin(home: Path, source: str) -> Path:
    """An empty folder for a new live recording.  What was left there before has to be recovered first."""
    from capture.files import write_atomically

    folder = folder_of(home)
    assert not is_left(home)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_atomically(folder / ABOUT, json.dumps({"source": source}).encode())
    return folder


def publish(project: Project, name: str, meter: attempt.Meter) -> Path:
    """Make a finished live recording stage 01 of its subject, in place of an older one; returns its folder.

    Raises OSError when the disk refuses; the recording stays where it was then.
    """
    stage, home = project.stages[0], project.workspace / name
    folder, made = folder_of(home), project.folder(project.stages[0], name)
    try:
        source = str(json.loads((folder / ABOUT).read_text())["source"])
    except (OSError, ValueError, KeyError, TypeError):
        source = "unknown"
    described = {"kind": sources.SENSOR, "name": source}
    settings = project.settings[name]
    identity = Identity(
        stage.name,
        stage.version,
        settings.that_matter(sections_of_source(stage, sources.SENSOR)),
        {"source": json.dumps(described, sort_keys=True)},
    )
    attempt.write_manifest(folder, settings.preset, stage, identity, described, meter)
    attempt.publish(folder, made)
    return made


def recover(project: Project, name: str) -> None:
    """Finish a live recording that was left, and publish it; beside the present one where there is one.

    Raises UserError when it cannot be read, OSError when the disk refuses.
    """
    home = project.workspace / name
    folder, made = folder_of(home), project.folder(project.stages[0], name)
    if not is_left(home):
        return
    from capture.recording import complete_recording

    try:
        count = complete_recording(folder, "the recording was interrupted: it ends after {count} frames")
    except UserError:
        count = 0  # killed before its head was written
        if (folder / FRAMES).stat().st_size > 1 << 20:
            raise
    if not count:
        shutil.rmtree(folder)
        log.warning("%s: a recording was interrupted before its first frame", name)
        return
    if made.exists():
        numbers = (n for n in range(1, 10_000) if not (home / f"unfinished_recording_{n}").exists())
        aside = home / f"unfinished_recording_{next(numbers)}"
        folder.rename(aside)
        log.warning("%s: an interrupted recording of %d frames is kept as %s", name, count, aside)
        return
    meter = attempt.Meter()  # how long it took is not known any more
    publish(project, name, meter)
    log.warning("%s: a recording was interrupted; its %d whole frames are used", name, count)
