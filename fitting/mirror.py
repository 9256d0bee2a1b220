"""Could a limb as well point the other way in depth?  The question that a picture often cannot answer.

A segment seen in a picture has two directions that look alike, towards the camera and away from it (Lee and Chen,
"Determination of 3D human body postures from a single view", CVGIP 1985).  A limb has two segments, so up to three
other poses.  Those that joints allow are settled on the frame's evidence as the fit is, and what they then cost more
than the fit is the margin by which the frame knows better.

The detector's skeleton may accuse a pose in this, and never acquit it: where a fit is mirrored it mostly followed that
skeleton (``fitting.evidence``).

Enters: evidence and poses of a clip.  Leaves: margins per frame and limb, in units of ``solve.pose_cost``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d
from threadpoolctl import threadpool_limits

from capture.workers import Workers, num_cores
from fitting.chain import Chain
from fitting.evidence import Evidence
from fitting.keypoints import LANDMARK_NAMES
from fitting.solve import LIMIT_SIGMA_RAD, Prior, State, advance, prior_terms
from fitting.verdict import MIN_MARGIN

ENDS = {  # in the order of ``Chain.limbs``: the landmarks at a limb's root, middle and end
    f"{side} {limb}": tuple(LANDMARK_NAMES.index(f"{side}_{name}") for name in names)
    for limb, names in (("arm", ("shoulder", "elbow", "wrist")), ("leg", ("hip", "knee", "ankle")))
    for side in ("left", "right")
}
APART_M = 0.25  # poses of a limb that are nearer to each other than this are no two places to be
MIN_STEP_M = 0.075  # a segment that mirrors by less lies in the picture's plane
REACHED_M = 0.08  # a mirrored pose that the joints do not bring nearer is none
REACH_SIGMA_M, REACH_STEPS, MAX_STEP_RAD = 0.02, 10, 0.6
MANY, AT_ONCE, BATCH = 48, 6, 4  # frames that are worth other processes, how many go together, and how often at once
MOST_PROCESSES = 4  # 200 MB each
SURE, LEAST = 60.0, -40.0  # beyond these, margins say no more
MEAN_S = 0.3  # a limb seldom crosses the picture's plane twice within this time; noise does all the time
TURN_FRAMES = 9  # so many pictures turn a limb, at any frame rate: a wrong turn lasts
FIT = -1  # no limb's other pose

log = logging.getLogger(__name__)


def turned(
    evidence: Evidence,
    states: Mapping[int, State],
    count: int,
    asked: Mapping[int, Sequence[str]],
    others: Mapping[int, State] | None = None,
    apart_m: float = APART_M,
) -> tuple[dict[int, State], int]:
    """The states with every limb exchanged whose other pose explains the picture better, and how many were.

    others: poses that were found before, whose limbs compete, too; apart_m: what counts as another pose.
    """
    raw, best = margins(evidence, states, count, asked, True, others, apart_m)
    by_limb = over_time(raw, TURN_FRAMES)
    result, exchanged = dict(states), 0
    for (i, limb), other in best.items():
        if by_limb[i, limb] < 0:
            result[i] = with_limb(evidence.chain, result[i], other, limb)
            exchanged += 1
    return result, exchanged


def with_limb(chain: Chain, state: State, other: State, limb: int) -> State:
    """``state`` with one limb posed as in ``other``."""
    pose, joints = state.pose.copy(), chain.limbs[limb]
    pose[joints] = other.pose[joints]
    return State(pose, state.camera_from_body)


def apart(
    chain: Chain, states: Mapping[int, State], others: Mapping[int, State], apart_m: float
) -> dict[int, list[str]]:
    """By frame the limbs that two fits have in different places."""
    found: dict[int, list[str]] = {}
    for i, state in states.items():
        found[i] = []
        if i in others:
            own_m, other_m = (chain.posed(s.pose, s.camera_from_body)[chain.num_vertices :] for s in (state, others[i]))
            moved_m = np.linalg.norm(own_m - other_m, axis=1)
            found[i] = [name for name, marks in ENDS.items() if moved_m[list(marks[1:])].max() >= apart_m]
    return found


def margins(
    evidence: Evidence,
    states: Mapping[int, State],
    count: int,
    asked: Mapping[int, Sequence[str]],
    of_fit: bool = False,
    others: Mapping[int, State] | None = None,
    apart_m: float = APART_M,
) -> tuple[np.ndarray, dict[tuple[int, int], State]]:
    """(N, 4) how much more the best other pose of each limb costs in each frame by itself, SURE = there is none; and
    those poses, by frame and limb.

    asked: the limbs in question, by frame; of_fit: more than the fit itself costs, settled on its frame.  A pose that
    was possible in one frame is tried in those beside it, too: what is uncertain stays so until something tells.
    """
    names = list(ENDS)
    wanted = {i: [names.index(name) for name in asked[i]] for i in states if asked[i]}
    tasks = _competing(evidence, [(i, states[i], limbs, (others or {}).get(i)) for i, limbs in wanted.items()])
    raw = np.full((count, len(names)), SURE)
    best: dict[tuple[int, int], State] = {}

    def ask(index: int) -> None:
        for limb in range(len(names)):
            raw[index, limb], other = tasks[index].margin(limb, of_fit, apart_m)
            if other is not None:
                best[index, limb] = other

    for i in tasks:
        ask(i)
    for step in (1, -1):
        for i in sorted(tasks, reverse=step < 0):
            for limb, name in enumerate(names):
                beside = i - step, limb
                if name in asked[i] and beside in best and raw[beside] < MIN_MARGIN <= raw[i, limb]:
                    tasks[i].settle(limb, with_limb(evidence.chain, tasks[i].fit, best[beside], limb))
                    ask(i)
    return raw, best


_Job = tuple[int, State, list[int], State | None]  # a frame, its fit, the limbs in question, what else competes


def _competing(evidence: Evidence, jobs: Sequence[_Job]) -> dict[int, _Frame]:
    """By frame, the poses that compete before any are taken over from the frames beside it.

    Frames are independent, and in each a dozen poses are settled: many frames are shared with other processes.
    """
    cores = min(num_cores(), MOST_PROCESSES)
    if len(jobs) < MANY or cores < 2:
        settled = _settled_in(evidence, jobs)
    else:
        settled = []
        try:
            with Workers(cores, works_along=True) as workers:
                for batch in _cut(jobs, AT_ONCE * cores * BATCH):  # what is sent is held meanwhile
                    parts = [(evidence.of_frames([job[0] for job in part]), part) for part in _cut(batch, AT_ONCE)]
                    settled += [one for part in workers.map(_settled_in, parts) for one in part]
        except BrokenProcessPool:
            log.warning("a process beside this one was ended, perhaps for want of memory; what it did is done here")
            settled += _settled_in(evidence, jobs[len(settled) :])
    return {job[0]: _Frame(evidence, job[0], job[1], one) for job, one in zip(jobs, settled, strict=True)}


def _cut(jobs: Sequence[_Job], size: int) -> list[Sequence[_Job]]:
    return [jobs[first : first + size] for first in range(0, len(jobs), size)]


def _settled_in(evidence: Evidence, jobs: Sequence[_Job]) -> list[list[_Settled]]:
    """What ``_competing`` asks of some frames."""
    found = []
    with threadpool_limits(1, "blas"):  # as in the fit: sums in one order
        for i, fit, limbs, other in jobs:
            frame = _Frame.of(evidence, i, fit)
            for limb, start in mirrored(evidence.chain, fit, evidence.prior, limbs):
                frame.settle(limb, start)
            if other is not None:
                for limb in limbs:
                    frame.settle(limb, with_limb(evidence.chain, fit, other, limb))
            found.append(frame.settled)
    return found


def over_time(raw: np.ndarray, frames: int) -> np.ndarray:
    """The margins (N, 4) of single frames as those of a passage; frames in which a limb has no other pose say nothing
    about those in which it has one."""
    has_other = raw < SURE
    total, share = (uniform_filter1d(x, frames, axis=0, mode="nearest") for x in (has_other * raw, 1.0 * has_other))
    return np.where(has_other, total / np.where(has_other, share, 1.0), SURE)


def until_clear(raw: np.ndarray, step_s: float) -> np.ndarray:
    """The margins (N, 4) of single frames as grounds for doubt, which lasts until it is clear where a limb points.

    What a single frame says loudly against a limb stands: too little to turn it, enough not to believe it.  In a run of
    frames that are not clear, by themselves or in their mean, all are as low as the lowest, but not accused: below 0
    stands only what was.  A limb that turns slowly through a view in which both ways look alike is either right in all
    of it or wrong in all of it.
    """
    mean = over_time(raw, max(2 * round((MEAN_S / step_s - 1) / 2) + 1, 1))
    held = np.where(raw < -MIN_MARGIN, np.minimum(raw, mean), mean)
    is_unclear = np.minimum(mean, raw) < MIN_MARGIN
    for own, unclear in zip(held.T, is_unclear.T, strict=True):
        for run in np.split(np.arange(len(own)), np.flatnonzero(np.diff(unclear)) + 1):
            if len(run) and unclear[run[0]]:
                own[run] = np.where(own[run] < 0, own[run], max(own[run].min(), 0.0))
    return held


@dataclass(frozen=True)
class _Settled:
    """A pose that a frame alone makes of some start."""

    limb: int  # whose other pose was the start; FIT for the fit itself
    state: State
    away_m: np.ndarray  # (4,) how far the ends of each limb are from those of the fit
    costs: tuple[float, float]  # as ``Evidence.costs``


class _Frame:
    """The poses of one frame that compete: the fit as it is, the fit and other poses settled on this frame alone."""

    def __init__(self, evidence: Evidence, index: int, fit: State, settled: list[_Settled]) -> None:
        self._evidence, self._index, self.fit, self.settled = evidence, index, fit, settled
        self._fit_m = self._landmarks_m(fit)

    @staticmethod
    def of(evidence: Evidence, index: int, fit: State) -> _Frame:
        """The fit, as it is and settled."""
        unmoved = _Settled(FIT, fit, np.zeros(len(ENDS)), evidence.costs(index, fit))
        frame = _Frame(evidence, index, fit, [unmoved])
        frame.settle(FIT, fit)
        return frame

    def _landmarks_m(self, state: State) -> np.ndarray:
        chain = self._evidence.chain
        return chain.posed(state.pose, state.camera_from_body)[chain.num_vertices :]

    def settle(self, limb: int, start: State) -> None:
        """Let ``start``, another pose of ``limb``, compete."""
        state = self._evidence.settled(self._index, start)
        moved_m = np.linalg.norm(self._landmarks_m(state) - self._fit_m, axis=1)
        away_m = np.array([moved_m[list(marks[1:])].max() for marks in ENDS.values()])
        self.settled.append(_Settled(limb, state, away_m, self._evidence.costs(self._index, state)))

    def margin(self, limb: int, of_fit: bool = False, apart_m: float = APART_M) -> tuple[float, State | None]:
        """(what the best other pose of the limb costs more, that pose); SURE and None without any.

        More than the best pose that leaves this limb where it is: where another limb is wrong, or the frame alone does
        not find the fit again, that is no reproach to this one.  ``of_fit``: more than the settled fit, whoever is to
        blame; where that is in a bad place, any way out is worth trying.
        """
        stays = [s.costs for s in self.settled if s.away_m[limb] < apart_m]
        rest, world = self.settled[1].costs if of_fit else min(stays, key=sum)
        others = [
            (s.costs[0] - rest + min(s.costs[1] - world, 0.0), k)
            for k, s in enumerate(self.settled)
            if s.limb == limb and s.away_m[limb] >= apart_m
        ]
        if not others:
            return SURE, None
        least, k = min(others)
        return float(np.clip(least, LEAST, SURE)), self.settled[k].state


def mirrored(chain: Chain, state: State, prior: Prior, limbs: Sequence[int]) -> list[tuple[int, State]]:
    """(limb, state) of the other poses of ``limbs`` that joints allow, before any evidence."""
    landmarks_m = chain.posed(state.pose, state.camera_from_body)[chain.num_vertices :]
    found = []
    for limb in limbs:
        marks = list(ENDS.values())[limb]
        points_m = landmarks_m[list(marks)]
        for turned in ((True, False), (False, True), (True, True)):
            targets_m = _targets(points_m, turned)
            steps_m = np.linalg.norm(np.diff(targets_m - points_m[1:], axis=0, prepend=0), axis=1)
            if (steps_m[list(turned)] < MIN_STEP_M).any():
                continue
            reached = _reach(chain, state, prior, chain.limbs[limb], marks[1:], targets_m)
            if reached is not None:
                found.append((limb, reached))
    return found


def _targets(points_m: np.ndarray, turned: tuple[bool, bool]) -> np.ndarray:
    """(2, 3) middle and end of a limb of points (3, 3) whose ``turned`` segments are mirrored in depth."""
    ray = points_m.mean(0) / np.linalg.norm(points_m.mean(0))
    segments = np.diff(points_m, axis=0)
    segments = segments - 2 * (np.array(turned) * (segments @ ray))[:, None] * ray
    return points_m[0] + np.cumsum(segments, axis=0)


def _reach(
    chain: Chain, state: State, prior: Prior, joints: np.ndarray, marks: tuple[int, ...], targets_m: np.ndarray
) -> State | None:
    """The state whose limb comes to the targets (2, 3), joints within their limits; None where they do not let it."""
    own = np.flatnonzero(np.isin(chain.free_joint, joints))
    points = (chain.num_vertices + np.repeat(marks, 3)).astype(np.int32)
    gradient = np.tile(np.eye(3), (len(marks), 1)) / REACH_SIGMA_M
    for _ in range(REACH_STEPS):
        away_m = chain.posed(state.pose, state.camera_from_body)[points[::3]] - targets_m
        jacobian = chain.jacobian(state.pose, state.camera_from_body, points, gradient)[:, own]
        diagonal, pull, _ = prior_terms(prior, chain.dofs(state.pose))
        matrix = jacobian.T @ jacobian + np.diag(diagonal[own])
        matrix += 0.01 * np.diag(np.diag(matrix))
        step = np.zeros(chain.num_free + 6)
        step[own] = -np.linalg.solve(matrix, jacobian.T @ (away_m.ravel() / REACH_SIGMA_M) + pull[own])
        state = advance(state, np.clip(step, -MAX_STEP_RAD, MAX_STEP_RAD), chain)
    away_m = chain.posed(state.pose, state.camera_from_body)[points[::3]] - targets_m
    dofs = chain.dofs(state.pose)[own]
    beyond_rad = np.maximum(dofs - prior.upper[own], prior.lower[own] - dofs).max()
    reached = np.linalg.norm(away_m, axis=1).max() < REACHED_M and beyond_rad < 3 * LIMIT_SIGMA_RAD
    return state if reached else None
