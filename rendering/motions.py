"""Which movement a user means by ``--motion``: held-out frames, somebody's fit, or a motion capture file.

heldout            the frames that training never saw
recording          all frames of the avatar's own subject that were found
fit:NAME, NAME     what a subject of the workspace did
.../fit.npz        the same from a file or folder, of this workspace or another
FILE.bvh, FILE.npz motion capture (``motion``)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from capture.errors import UserError
from rendering.avatar import Shape
from rendering.captured import Captured
from rendering.motion import load_motion
from rendering.reenact import interpolated, of_fit, reenact
from rendering.retarget import Motion, retarget

HELDOUT, RECORDING, FIT = "heldout", "recording", "fit:"


@dataclass(frozen=True)
class Chosen:
    """A movement, and for what was filmed of the avatar's own subject the frames it is from."""

    motion: Motion
    frame_indices: np.ndarray | None = None  # (N,) of the recording; None where nothing was filmed of this

    def first(self, count: int) -> Chosen:
        """At most ``count`` frames; 0 for all."""
        return self.at(np.arange(min(count, len(self.motion)))) if count > 0 else self

    def at(self, positions: np.ndarray) -> Chosen:
        """Some of the frames."""
        motion = replace(
            self.motion, pose=self.motion.pose[positions], world_from_body=self.motion.world_from_body[positions]
        )
        return Chosen(motion, None if self.frame_indices is None else self.frame_indices[positions])

    def at_rate(self, frames_per_second: float) -> Chosen:
        """As long as before, at another rate: filmed frames are repeated or left out, poses are interpolated."""
        motion = self.motion
        times_s = np.arange(len(motion)) / motion.frames_per_second
        wanted_s = (
            np.arange(max(1, round(len(motion) / motion.frames_per_second * frames_per_second))) / frames_per_second
        )
        if self.frame_indices is not None:
            nearest = np.rint(wanted_s * motion.frames_per_second).astype(int).clip(0, len(motion) - 1)
            moved = self.at(nearest)
            return Chosen(replace(moved.motion, frames_per_second=frames_per_second), moved.frame_indices)
        pose, placed = interpolated(motion.pose, motion.world_from_body, times_s, wanted_s)
        return Chosen(
            replace(motion, pose=pose.astype(np.float32), world_from_body=placed, frames_per_second=frames_per_second)
        )


def choose(word: str, shape: Shape, workspace: Path | None, subject: str, captured: Captured | None = None) -> Chosen:
    """What ``--motion word`` means for this body.  ``captured`` is the subject's own recording, where it is needed.

    Raises UserError when there is no such movement.
    """
    if word == HELDOUT:
        assert captured is not None
        return _filmed(captured, captured.heldout_indices, f"{subject}: no held-out frame was tracked; render a .bvh")
    folder = None if word == RECORDING else fit_folder(word, workspace)
    is_own = captured is not None and workspace is not None and folder == workspace / subject / "03_fit"
    if word == RECORDING or is_own:
        assert captured is not None
        found = np.flatnonzero(np.isfinite(captured.fit.pose).all((1, 2)))
        return _filmed(captured, found, f"{subject}: the body was found in no frame")
    if folder is None:
        return Chosen(retarget(load_motion(Path(word)), *shape.skeleton()))
    return Chosen(_somebodys(folder, shape))


def fit_folder(word: str, workspace: Path | None) -> Path | None:
    """The 03_fit that ``word`` names, None when it names none.  Raises UserError for ``fit:`` without one."""
    name = word.removeprefix(FIT)
    places = [Path(name), Path(name) / "03_fit", Path(name).parent]
    if workspace is not None and Path(name).name == name:
        places.insert(0, workspace / name / "03_fit")
    if Path(name).suffix == ".npz":
        is_fit = Path(name).name == "fit.npz" and (Path(name).parent / "fit.json").is_file()
        return Path(name).parent if is_fit else None
    for place in places[:-1]:
        if (place / "fit.npz").is_file():
            return place
    if word.startswith(FIT):
        raise UserError(f"--motion {word}: {places[0]} holds no fit; run pipeline.py fit --subject {name}")
    return None


def _filmed(captured: Captured, frame_indices: np.ndarray, complaint: str) -> Chosen:
    if not len(frame_indices):
        raise UserError(complaint)
    return Chosen(captured.motion(frame_indices), frame_indices)


def _somebodys(folder: Path, shape: Shape) -> Motion:
    from capture.recording import Recording
    from fitting.fit import BodyFit

    fit, name = BodyFit.load(folder), folder.resolve().parent.name
    if not np.isfinite(fit.pose).all((1, 2)).any():
        raise UserError(f"{folder}: the body was found in no frame")
    notes: tuple[str, ...] = ()
    try:
        times_s = Recording.load(folder.parent / "01_recording").times_s
    except UserError:
        times_s = np.arange(len(fit)) / 30
        notes = (f"{folder}: no recording beside it to say when; 30 frames a second are assumed",)
    moved = of_fit(fit, np.asarray(times_s[: len(fit)], float), name)
    done = reenact(fit, moved, *shape.skeleton())
    return replace(done, notes=(*notes, *done.notes))
