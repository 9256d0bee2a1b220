"""The body of somebody who is seen for the first time: shape and focal length from the first seconds, then kept.

The same solvers as in stage 03, on a handful of frames that are kept in memory.  S shape coefficients.
"""

from __future__ import annotations

import multiprocessing
import signal
from dataclasses import dataclass, replace
from multiprocessing.pool import AsyncResult
from pathlib import Path
from types import TracebackType

import numpy as np
from threadpoolctl import threadpool_limits

from capture.camera import Camera, Rig
from capture.matting import Masks
from capture.recording import Frame, Recording
from capture.workers import start_worker
from fitting.body.model import BodyModel
from fitting.clip import Clip
from fitting.keypoints import Keypoints
from fitting.shape import body_height_m, estimate_focal, solve_shape
from fitting.stream import Look

SETTLE_S = 1.5  # from the first time somebody is seen
SPANS, MIN_FRAMES = 6, 3  # the clearest frame of each sixth is kept; fewer frames than that say too little
FOCAL_FRAMES, FOCAL_ROUNDS = 3, 1


@dataclass(frozen=True)
class KeptRecording(Recording):
    """Frames in memory."""

    frames: tuple[Frame, ...] = ()

    def color(self, index: int) -> np.ndarray:
        return self.frames[index].color

    def depth_mm(self, index: int) -> np.ndarray | None:
        return self.frames[index].depth_mm


@dataclass(frozen=True)
class KeptMasks(Masks):
    """Masks in memory."""

    alphas: tuple[np.ndarray, ...] = ()

    def __getitem__(self, index: int) -> np.ndarray:
        return self.alphas[index]


@dataclass(frozen=True)
class Settled:
    """What the first seconds said."""

    shape: np.ndarray  # (S,)
    camera: Camera
    words: str  # for people


class FirstSeconds:
    """Collects frames until they are enough to measure the body."""

    def __init__(self, rig: Rig, focal_is_known: bool) -> None:
        self._rig, self._focal_is_known = rig, focal_is_known
        self._kept: dict[int, tuple[Frame, np.ndarray, Look]] = {}
        self._since_s: float | None = None

    def add(self, frame: Frame, alpha: np.ndarray, look: Look) -> None:
        """Remember a frame in which the body was seen, if it is the clearest of its span."""
        if self._since_s is None:
            self._since_s = frame.time_s
        span = int((frame.time_s - self._since_s) / SETTLE_S * SPANS)
        before = self._kept.get(span)
        if before is None or look.visibility[11:].mean() > before[2].visibility[11:].mean():
            self._kept[span] = frame, alpha, look

    def is_enough(self, time_s: float) -> bool:
        """Whether the body can be measured now."""
        return self._since_s is not None and time_s - self._since_s >= SETTLE_S - 1e-9 and len(self._kept) >= MIN_FRAMES

    def solve(self, body: BodyModel, height_m: float, rounds: int) -> Settled | None:
        """Shape, and focal length where it was a guess; None when no frame was clear, and others are waited for."""
        clip = self._clip()
        focal = ""
        if not self._focal_is_known:
            camera, _ = estimate_focal(body, clip, list(range(min(FOCAL_FRAMES, len(clip)))), FOCAL_ROUNDS)
            clip = replace(clip, camera=camera)
            focal = f", focal length estimated as {camera.fx_px:.0f} px"
        shape, energy = solve_shape(body, clip, list(range(len(clip))), height_m or None, rounds)
        if not np.isfinite(energy):
            return None
        source = "as given" if height_m else "from depth" if any(clip.recording.has_depth) else "assumed adult"
        words = f"body settled: height {body_height_m(body, shape):.2f} m ({source}){focal}"
        return Settled(shape, clip.camera, words)

    def start_again(self) -> None:
        """Forget the frames: none of them was clear."""
        self._kept, self._since_s = {}, None

    def _clip(self) -> Clip:
        kept = [self._kept[span] for span in sorted(self._kept)]
        frames = tuple(frame for frame, _, _ in kept)
        looks = [look for _, _, look in kept]
        count = len(kept)
        recording = KeptRecording(
            folder=Path(),
            rig=self._rig,
            times_s=np.array([frame.time_s for frame in frames]),
            has_depth=np.array([frame.depth_mm is not None for frame in frames]),
            color_names=("",) * count,
            focal_is_known=self._focal_is_known,
            source="live",
            frames=frames,
        )
        masks = KeptMasks(
            Path(), np.ones(count), np.full((count, 4), np.nan), alphas=tuple(alpha for _, alpha, _ in kept)
        )
        keypoints = Keypoints(
            np.stack([look.points_px for look in looks]),
            np.stack([look.visibility for look in looks]),
            np.stack([look.world_m for look in looks]),
            np.zeros(count, bool),
        )
        return Clip(recording, masks, keypoints, self._rig.color)


class Here:
    """Measures the body while everybody waits: the same frames always give the same body."""

    def solve(self, first: FirstSeconds, body: BodyModel, height_m: float, rounds: int) -> tuple[bool, Settled | None]:
        """(whether an answer is there, the answer)."""
        return True, first.solve(body, height_m, rounds)


class Beside:
    """Measures the body in a process of its own while tracking goes on.  Use as a context manager."""

    def __init__(self) -> None:
        # Its imports take seconds: it starts at once and is ready when it is needed.
        self._pool = multiprocessing.get_context("spawn").Pool(1, _start)
        self._answer: AsyncResult[Settled | None] | None = None

    def solve(self, first: FirstSeconds, body: BodyModel, height_m: float, rounds: int) -> tuple[bool, Settled | None]:
        """(whether an answer is there, the answer); the first call asks, later ones look."""
        if self._answer is None:
            self._answer = self._pool.apply_async(_solve, (first, body, height_m, rounds))
        if not self._answer.ready():
            return False, None
        answer, self._answer = self._answer.get(), None
        return True, answer

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.terminate()
        self._pool.join()


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    start_worker()


def _solve(first: FirstSeconds, body: BodyModel, height_m: float, rounds: int) -> Settled | None:
    with threadpool_limits(1, "blas"):
        return first.solve(body, height_m, rounds)
