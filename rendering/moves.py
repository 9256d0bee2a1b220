"""What an exported avatar can do: stand, move as it was filmed, and as motion files say.

Enters: an avatar, the workspace folder of its subject where there is one, motion files.  Leaves: motions in the world.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rendering.avatar import Avatar
from rendering.captured import Captured
from rendering.motion import load_motion
from rendering.poses import standing
from rendering.retarget import Motion, retarget

NEEDED = ("01_recording", "02_masks", "03_fit", "04_keyframes")  # that the filmed motion is read from


def moves(avatar: Avatar, subject: str, subject_dir: Path, files: Sequence[Path]) -> list[Motion]:
    """The motions, files first; names differ.  Raises UserError for a file that is no motion."""
    shape = avatar.bodies[subject]
    vertices_m, joints_m = shape.body.shaped(shape.shape, shape.vertex_offsets_m)
    found = []
    for path in files:
        made = retarget(load_motion(path), shape.body, vertices_m, joints_m)
        found.append(replace(made, name=path.stem))
    if all((subject_dir / stage).is_dir() for stage in NEEDED):
        found += _filmed(Captured.load(subject_dir))
    pose, world_from_body = standing(shape)
    found.append(Motion("standing", pose[None], world_from_body[None], 1.0))
    return _with_names_of_their_own(found)


def _filmed(captured: Captured) -> list[Motion]:
    """All of the film, and the part that training never saw; frames without a pose show the one before."""
    tracked = np.flatnonzero(captured.fit.tracked)
    found = []
    for name, frames in (("filmed", tracked), ("filmed, held out", captured.heldout_indices)):
        if len(frames):
            times = np.arange(frames[0], frames[-1] + 1)
            latest = tracked[np.searchsorted(tracked, times, side="right") - 1]
            found.append(replace(captured.motion(latest), name=name))
    return found


def _with_names_of_their_own(motions: list[Motion]) -> list[Motion]:
    counts: dict[str, int] = {}
    named = []
    for motion in motions:
        counts[motion.name] = counts.get(motion.name, 0) + 1
        again = f" {counts[motion.name]}" if counts[motion.name] > 1 else ""
        named.append(replace(motion, name=motion.name + again))
    return named
