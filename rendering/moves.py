"""What an exported avatar can do: stand, move as it was filmed, and as motion files say.

Enters: an avatar, the workspace folder of its subject where there is one, motion files.  Leaves: motions in the world,
and how each is lit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from capture.camera import invert
from rendering.avatar import Avatar
from rendering.captured import Captured
from rendering.motion import load_motion
from rendering.poses import standing
from rendering.render import facing
from rendering.retarget import Motion, retarget
from rendering.viewpoints import in_front

NEEDED = ("01_recording", "02_masks", "03_fit", "04_keyframes")  # that the filmed motion is read from


@dataclass(frozen=True)
class Move:
    """A motion and its light."""

    motion: Motion
    lit_from_world: np.ndarray  # (3, 3) as ``View.lit_from_world``

    @staticmethod
    def unfilmed(motion: Motion) -> Move:
        """Of what nobody filmed: the light stands as if a camera had, in front."""
        return Move(motion, in_front(facing(motion)))


def moves(avatar: Avatar, subject: str, subject_dir: Path, files: Sequence[Path]) -> list[Move]:
    """What it can do, files first; names differ.  Raises UserError for a file that is no motion."""
    shape = avatar.bodies[subject]
    found = []
    for path in files:
        made = retarget(load_motion(path), *shape.skeleton())
        found.append(Move.unfilmed(replace(made, name=path.stem)))
    if all((subject_dir / stage).is_dir() for stage in NEEDED):
        found += _filmed(Captured.load(subject_dir))
    pose, world_from_body = standing(shape)
    found.append(Move.unfilmed(Motion("standing", pose[None], world_from_body[None], 1.0)))
    whole = [replace(move, motion=replace(move.motion, pose=shape.whole(move.motion.pose))) for move in found]
    return _with_names_of_their_own(whole)


def _filmed(captured: Captured) -> list[Move]:
    """All of the film, and the part that training never saw, in the light of the room; frames without a pose show the
    one before."""
    tracked = np.flatnonzero(captured.fit.tracked)
    lit_from_world = invert(captured.world_from_color)[:3, :3]
    found = []
    for name, frames in (("filmed", tracked), ("filmed, held out", captured.heldout_indices)):
        if len(frames):
            times = np.arange(frames[0], frames[-1] + 1)
            latest = tracked[np.searchsorted(tracked, times, side="right") - 1]
            found.append(Move(replace(captured.motion(latest), name=name), lit_from_world))
    return found


def _with_names_of_their_own(found: list[Move]) -> list[Move]:
    counts: dict[str, int] = {}
    named = []
    for move in found:
        name = move.motion.name
        counts[name] = counts.get(name, 0) + 1
        again = f" {counts[name]}" if counts[name] > 1 else ""
        named.append(replace(move, motion=replace(move.motion, name=name + again)))
    return named
