"""The body in every frame as it comes: causal, no second pass.

A frame enters, a ``LiveFit`` leaves.  The pieces are those of stage 03 (``observe``, ``clip.follow``, ``verdict``);
what needs the future (both passes, flips and jumps judged from both sides, clothes) is left out.
J joints, V vertices, S shape coefficients.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from capture.camera import Camera, Rig
from capture.recording import Frame
from fitting import verdict
from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import ALONE, LOST_LANDMARK, Clip, default_prior, follow, landmark_error
from fitting.fit import FitConfig
from fitting.observe import Observation, observe
from fitting.passes import figures_of
from fitting.settle import Beside, FirstSeconds, Here
from fitting.shape import body_height_m, chain_of
from fitting.solve import Prior, State, solve_pose
from fitting.stream import Look, SideStream, quick_alpha

MAX_ROUNDS = 3  # for the shape; more of them move it by millimetres
MAX_GAP = 15  # frames; after more of them nothing is known of the pose but that it is human
QUICK_GAP = 4  # frames; after more of them a short step leads nowhere


@dataclass(frozen=True)
class Known:
    """A body that was measured before."""

    shape: np.ndarray  # (S,)
    vertex_offsets_m: np.ndarray | None = None  # (V,)
    camera: Camera | None = None  # whose focal length was refined; None = the source's own


@dataclass(frozen=True)
class LiveFit:
    """One frame's fit, and what an overlay needs."""

    frame: Frame
    state: State | None  # None where lost
    status: str  # verdict.TRACKED, UNCERTAIN or LOST
    reason: str  # what is wrong with the frame, or with a limb of it
    vertices_m: np.ndarray | None  # (V, 3) in the colour camera's frame; None where lost
    landmarks_px: np.ndarray | None  # (33, 2)
    camera: Camera
    timings_ms: dict[str, float]  # part -> milliseconds
    is_settled: bool  # the body's shape is known and kept


class Moment(Clip):
    """A clip of nothing but the frame that is being looked at."""

    def __init__(self, camera: Camera, observation: Observation) -> None:
        object.__setattr__(self, "camera", camera)
        object.__setattr__(self, "_observation", observation)

    def __getitem__(self, index: int) -> Observation:
        return self._observation  # type: ignore[attr-defined, no-any-return]


class LiveTracker:
    """Follows one person, frame by frame.

    ``look`` finds landmarks and mask in a picture.  ``is_quick`` takes a short step where that explains the frame,
    and the full one of stage 03 only in doubt; without it every step is the full one.  ``measurer`` says where the
    body is measured: here by default.
    """

    def __init__(
        self,
        config: FitConfig,
        body: BodyModel,
        rig: Rig,
        focal_is_known: bool,
        look: Callable[[np.ndarray], Look | None],
        known: Known | None = None,
        is_quick: bool = False,
        measurer: Here | Beside | None = None,
    ) -> None:
        self._measurer = measurer or Here()
        self.body = body
        self._config, self._rig, self._look, self._is_quick = config, rig, look, is_quick
        self._camera = known.camera if known is not None and known.camera is not None else rig.color
        self._first = FirstSeconds(rig, focal_is_known) if known is None else None
        self.words = "body known" if known is not None else "measuring the body"
        self._sides = SideStream()
        self._before: tuple[int, State] | None = None
        self._facing = FacingWatch()
        shape = known.shape if known is not None else np.zeros(body.num_shape)
        self._settle(shape, known.vertex_offsets_m if known is not None else None)

    def _settle(self, shape: np.ndarray, offsets_m: np.ndarray | None) -> None:
        self.shape = np.asarray(shape)  # (S,) of the person, as far as it is known
        self._chain: Chain = chain_of(self.body, shape, offsets_m)
        self._prior: Prior = default_prior(self.body, self._chain)
        self._height_m = body_height_m(self.body, shape)

    @property
    def is_settled(self) -> bool:
        """Whether the body's shape is known and kept."""
        return self._first is None

    def feed(self, frame: Frame) -> LiveFit:
        """The body in the next frame; frames may be missing between two calls, never come twice."""
        with threadpool_limits(1, "blas"):  # small matrices, as in stage 03
            return self._feed(frame)

    def _feed(self, frame: Frame) -> LiveFit:
        laps = Laps()
        look = self._look(frame.color)
        if look is not None and self._sides.is_swapped(frame.index, look.world_m):
            look = look.with_sides_exchanged()
        laps.end("landmarks")
        if look is None:
            self._before = None
            return self._lost(frame, "no landmarks found", laps, None)
        alpha = quick_alpha(self._rig, look.probability, frame.depth_mm)
        laps.end("mask")
        observation = observe(
            self._camera, self._rig, alpha, frame.depth_mm, look.points_px, look.visibility, look.world_m
        )
        laps.end("evidence")
        if observation is None:
            self._before = None
            return self._lost(frame, "empty mask", laps, look.points_px)
        state, judged = self._follow(frame.index, observation, laps)
        if self._first is not None and judged.status != verdict.LOST:
            if not self._first.is_enough(frame.time_s):
                self._first.add(frame, alpha, look)
            self._try_to_settle(frame.time_s)
            laps.end("shape")
        if judged.status == verdict.LOST:
            return self._lost(frame, judged.words, laps, look.points_px)
        vertices_m = self._chain.posed(state.pose, state.camera_from_body)[: self._chain.num_vertices]
        return self._result(frame, state, judged.status, judged.words, vertices_m, look.points_px, laps)

    def _follow(self, index: int, observation: Observation, laps: Laps) -> tuple[State, verdict.Verdict]:
        before, prior, gap = None, self._prior, 0
        if self._before is not None and index - self._before[0] <= MAX_GAP:
            before = self._before[1]
            gap = index - self._before[0]  # who misses frames finds the person further on
            prior = replace(
                prior,
                pose_sigma_rad=gap * prior.pose_sigma_rad,
                place_sigma_m=gap * prior.place_sigma_m,
                turn_sigma_rad=gap * prior.turn_sigma_rad,
            )
        state, judged = None, verdict.Verdict(verdict.LOST)
        if self._is_quick and before is not None and gap <= QUICK_GAP:
            state = self._quickly(observation, replace(prior, neighbour=before), before)
            laps.end("pose")
            judged = self._judge(index, observation, state)
            laps.end("verdict")
        if state is None or not judged.is_sound:
            state = follow(self.body, self._chain, observation, prior, before)
            laps.end("pose")
            judged = self._judge(index, observation, state)
            laps.end("verdict")
        is_with_us = landmark_error(self._chain, observation, state) < LOST_LANDMARK
        self._before = (index, state) if is_with_us else None
        self._facing.remember(index, self._ahead(state))
        return state, judged

    def _quickly(self, observation: Observation, prior: Prior, before: State) -> State:
        return solve_pose(self._chain, self.body.faces, observation, before, prior, ALONE)[0]

    def _judge(self, index: int, observation: Observation, state: State) -> verdict.Verdict:
        moment = Moment(self._camera, observation)
        figures = figures_of(self.body, self._chain, moment, 0, state, self._height_m)
        judged = verdict.judge(figures)
        if judged.status == verdict.TRACKED and self._facing.leaps(index, self._ahead(state)):
            return replace(judged, status=verdict.UNCERTAIN, reason="facing changed all at once")
        return judged

    def _ahead(self, state: State) -> np.ndarray:
        landmarks_m = self._chain.posed(state.pose, state.camera_from_body)[self._chain.num_vertices :]
        return verdict.trunk_ahead(landmarks_m)

    def _try_to_settle(self, time_s: float) -> None:
        assert self._first is not None
        if not self._first.is_enough(time_s):
            return
        rounds = min(self._config.shape_rounds, MAX_ROUNDS)
        is_there, settled = self._measurer.solve(self._first, self.body, self._config.height_m, rounds)
        if not is_there:
            return
        if settled is None:
            self._first.start_again()
            return
        if settled.camera != self._camera:
            self._before = None  # other lens, other distance
        self._camera, self.words, self._first = settled.camera, settled.words, None
        self._settle(settled.shape, None)

    def _lost(self, frame: Frame, reason: str, laps: Laps, landmarks_px: np.ndarray | None) -> LiveFit:
        return self._result(frame, None, verdict.LOST, reason, None, landmarks_px, laps)

    def _result(
        self,
        frame: Frame,
        state: State | None,
        status: str,
        reason: str,
        vertices_m: np.ndarray | None,
        landmarks_px: np.ndarray | None,
        laps: Laps,
    ) -> LiveFit:
        return LiveFit(
            frame, state, status, reason, vertices_m, landmarks_px, self._camera, laps.taken_ms, self.is_settled
        )


class FacingWatch:
    """The causal half of ``verdict.flip_frames``: a facing that leaps is doubted until it leaps back, or has lasted."""

    def __init__(self) -> None:
        self._last: tuple[int, np.ndarray] | None = None
        self._steady: tuple[int, np.ndarray] | None = None  # from where it leapt

    def leaps(self, index: int, ahead: np.ndarray) -> bool:
        """Whether frame ``index``, which faces ``ahead`` (3,), is to be doubted."""
        anchor = self._steady or self._last
        if anchor is None or index - anchor[0] > verdict.MAX_FLIP_FRAMES:
            return False
        may_turn_deg = min(verdict.SUDDEN_TURN_DEG + verdict.STEADY_TURN_DEG * (index - anchor[0] - 1), 120.0)
        return bool(verdict.apart_deg(anchor[1], ahead) > may_turn_deg)

    def remember(self, index: int, ahead: np.ndarray) -> None:
        """Take note of the pose that was decided on."""
        self._steady = (self._steady or self._last) if self.leaps(index, ahead) else None
        self._last = index, ahead


class Laps:
    """A stopwatch that knows what the time went into."""

    def __init__(self) -> None:
        self.taken_ms: dict[str, float] = {}
        self._since_s = time.perf_counter()

    def end(self, part: str) -> None:
        """What passed since the last call went into ``part``."""
        now_s = time.perf_counter()
        self.taken_ms[part] = self.taken_ms.get(part, 0.0) + 1e3 * (now_s - self._since_s)
        self._since_s = now_s
