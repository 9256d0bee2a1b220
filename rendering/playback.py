"""What a person does at a moment: frames of a motion by the clock, or a pose that hands have changed."""

from __future__ import annotations

from rendering.puppet import Pose
from rendering.repertoire import Act


class Playback:
    """One act, its position and whether it runs.  Times in seconds of one clock, given by the caller."""

    def __init__(self, act: Act) -> None:
        self.start(act)

    def start(self, act: Act) -> None:
        """Another act, from its first frame, at rest."""
        self.act = act
        self._position = 0.0  # frames, when it was last stopped
        self._since_s: float | None = None
        self._changed: Pose | None = None

    @property
    def is_playing(self) -> bool:
        return self._since_s is not None

    @property
    def is_changed(self) -> bool:
        """Whether hands have changed the pose."""
        return self._changed is not None

    def play(self, now_s: float) -> None:
        """Run from where it stands; poses that were changed are left behind.  A motion of one frame has no run."""
        self._changed = None
        if len(self.act.motion) > 1 and not self.is_playing:
            self._since_s = now_s

    def pause(self, now_s: float) -> None:
        """Stop where it is."""
        self._position = float(self.frame(now_s))
        self._since_s = None

    def seek(self, frame: int, now_s: float) -> None:
        """Go to a frame; goes on running if it did."""
        self._changed = None
        self._position = float(frame)
        self._since_s = now_s if self.is_playing else None

    def frame(self, now_s: float) -> int:
        """The frame at this moment; a motion starts over at its end."""
        ran = 0.0 if self._since_s is None else (now_s - self._since_s) * self.act.motion.frames_per_second
        return int(self._position + ran + 1e-9) % len(self.act.motion)

    def pose(self, now_s: float) -> Pose:
        """The pose at this moment."""
        if self._changed is not None:
            return self._changed
        frame, motion = self.frame(now_s), self.act.motion
        return Pose(motion.pose[frame], motion.world_from_body[frame])

    def frame_index(self, now_s: float) -> int | None:
        """The recorded frame of this moment, where the act was filmed."""
        return None if self.act.frame_indices is None else int(self.act.frame_indices[self.frame(now_s)])

    def change(self, pose: Pose, now_s: float) -> None:
        """Hold a pose of somebody's own."""
        self.pause(now_s)
        self._changed = pose

    def undo(self) -> None:
        """Back to the pose of the motion."""
        self._changed = None
