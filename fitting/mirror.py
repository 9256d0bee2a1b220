"""Could a limb as well point the other way in depth?  The question that a picture often cannot answer.

A segment seen in a picture has two directions that look alike, towards the camera and away from it (Lee and Chen,
"Determination of 3D human body postures from a single view", CVGIP 1985).  A limb has two segments, so up to three
other poses.  Those that joints allow compete (``contest``), and what they cost more than the fit is the margin by which
the frame knows better.

The detector's skeleton may accuse a pose in this, and never acquit it: where a fit is mirrored it mostly followed that
skeleton (``fitting.evidence``).

Enter: evidence and poses of a clip.  Leave: margins per frame and limb, in units of ``solve.pose_cost``, and poses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fitting.chain import Chain
from fitting.contest import APART_M, SURE, Frame, Than, competing, exchanged, landmarks_m, over_time, with_limb
from fitting.evidence import Evidence
from fitting.limbs import ENDS
from fitting.solve import LIMIT_SIGMA_RAD, Prior, State, advance, prior_terms
from fitting.verdict import MIN_MARGIN

MIN_STEP_M = 0.075  # a segment that mirrors by less lies in the picture's plane
REACHED_M = 0.08  # a mirrored pose that the joints do not bring nearer is none
REACH_SIGMA_M, REACH_STEPS, MAX_STEP_RAD = 0.02, 10, 0.6
MEAN_S = 0.3  # a limb seldom crosses the picture's plane twice within this time; noise does all the time


def turned(
    evidence: Evidence, states: Mapping[int, State], count: int, asked: Mapping[int, Sequence[str]]
) -> tuple[dict[int, State], int]:
    """The states with every limb exchanged that explains the picture better pointing another way, and how many were."""
    return exchanged(evidence.chain, states, *margins(evidence, states, count, asked, "settled"))


def restored(
    evidence: Evidence,
    states: Mapping[int, State],
    count: int,
    asked: Mapping[int, Sequence[str]],
    before: Mapping[int, State],
    apart_m: float,
) -> tuple[dict[int, State], int]:
    """The states with every limb exchanged that explains the picture better pointing another way, or where it was
    ``before``, if that is ``apart_m`` away; and how many were."""
    return exchanged(evidence.chain, states, *margins(evidence, states, count, asked, "settled", before, apart_m))


def apart(
    chain: Chain, states: Mapping[int, State], others: Mapping[int, State], apart_m: float
) -> dict[int, list[str]]:
    """By frame the limbs that two fits have in different places."""
    found: dict[int, list[str]] = {}
    for i, state in states.items():
        found[i] = []
        if i in others:
            own_m, other_m = (landmarks_m(chain, s) for s in (state, others[i]))
            moved_m = np.linalg.norm(own_m - other_m, axis=1)
            found[i] = [name for name, marks in ENDS.items() if moved_m[list(marks[1:])].max() >= apart_m]
    return found


def margins(
    evidence: Evidence,
    states: Mapping[int, State],
    count: int,
    asked: Mapping[int, Sequence[str]],
    than: Than = "stays",
    others: Mapping[int, State] | None = None,
    apart_m: float = APART_M,
) -> tuple[np.ndarray, dict[tuple[int, int], State]]:
    """(N, 4) how much more the best other pose of each limb costs in each frame by itself, SURE = there is none; and
    those poses, by frame and limb.

    asked: the limbs in question, by frame; than: as in ``Frame.margin``.  A pose that was possible in one frame is
    tried in those beside it, too: what is uncertain stays so until something tells.
    """
    names = list(ENDS)
    wanted = {i: [names.index(name) for name in asked[i]] for i in states if asked[i]}
    jobs = [(i, states[i], (limbs, (others or {}).get(i))) for i, limbs in wanted.items()]
    tasks = competing(evidence, _enter, jobs)
    raw = np.full((count, len(names)), SURE)
    best: dict[tuple[int, int], State] = {}

    def ask(index: int) -> None:
        for limb in range(len(names)):
            raw[index, limb], other = tasks[index].margin(limb, than, apart_m)
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


def _enter(evidence: Evidence, frame: Frame, given: tuple[list[int], State | None]) -> None:
    """Mirrored poses of some limbs compete, and those of another state."""
    limbs, other = given
    for limb, start in mirrored(evidence.chain, frame.fit, evidence.prior, limbs):
        frame.settle(limb, start)
    if other is not None:
        for limb in limbs:
            frame.settle(limb, with_limb(evidence.chain, frame.fit, other, limb))


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
