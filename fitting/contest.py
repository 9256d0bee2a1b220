"""Other poses of a limb compete with the fit's, each frame by itself.

Where a fit went wrong, the question is seldom "how far off" but "which of these": the limb mirrored in depth
(``mirror``), where another tracking had it (``passes.returned``), where the person had it at other times (``recall``).
Each is settled on the frame's evidence as the fit is; what it then costs more than the fit is its margin.

Enter: evidence and poses of a clip.  Leave: margins, in units of ``solve.pose_cost``, and the poses that have them.
N frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.ndimage import uniform_filter1d
from threadpoolctl import threadpool_limits

from capture.progress import progress
from capture.workers import Workers, num_cores
from fitting.chain import Chain
from fitting.evidence import Evidence
from fitting.limbs import ENDS
from fitting.solve import State

APART_M = 0.25  # poses of a limb that are nearer to each other than this are no two places to be
MANY, AT_ONCE, BATCH = 48, 6, 4  # frames that are worth other processes, how many go together, and how often at once
MOST_PROCESSES = 4  # 200 MB each
SURE, LEAST = 60.0, -40.0  # beyond these, margins say no more
TURN_FRAMES = 9  # so many pictures turn a limb, at any frame rate: a wrong turn lasts
FIT = -1  # no limb's other pose
Than = Literal["stays", "settled", "fit"]

log = logging.getLogger(__name__)


def with_limb(chain: Chain, state: State, other: State, limb: int) -> State:
    """``state`` with one limb posed as in ``other``."""
    pose, joints = state.pose.copy(), chain.limbs[limb]
    pose[joints] = other.pose[joints]
    return State(pose, state.camera_from_body)


def landmarks_m(chain: Chain, state: State) -> np.ndarray:
    """(L, 3) of a pose, in the camera's frame."""
    return chain.landmarks(*chain.transforms(state.pose, state.camera_from_body)[:2])


@dataclass(frozen=True)
class Settled:
    """A pose that competes."""

    limb: int  # whose other pose was the start; FIT for the fit itself
    state: State
    away_m: np.ndarray  # (4,) how far the ends of each limb are from those of the fit
    costs: tuple[float, float]  # as ``Evidence.costs``


class Frame:
    """The poses of one frame that compete: the fit as it is, the fit and other poses settled on this frame alone."""

    def __init__(self, evidence: Evidence, index: int, fit: State, settled: list[Settled]) -> None:
        self._evidence, self._index, self.fit, self.settled = evidence, index, fit, settled
        self._fit_m = landmarks_m(evidence.chain, fit)

    @staticmethod
    def of(evidence: Evidence, index: int, fit: State) -> Frame:
        """The fit, as it is and settled."""
        frame = Frame(evidence, index, fit, [])
        frame.enter(FIT, fit)
        frame.settle(FIT, fit)
        return frame

    def settle(self, limb: int, start: State) -> None:
        """Let what the frame alone makes of ``start``, another pose of ``limb``, compete."""
        self.enter(limb, self._evidence.settled(self._index, start))

    def enter(self, limb: int, state: State) -> None:
        """Let ``state``, another pose of ``limb``, compete as it is."""
        moved_m = np.linalg.norm(landmarks_m(self._evidence.chain, state) - self._fit_m, axis=1)
        away_m = np.array([moved_m[list(marks[1:])].max() for marks in ENDS.values()])
        self.settled.append(Settled(limb, state, away_m, self._evidence.costs(self._index, state)))

    def margin(self, limb: int, than: Than = "stays", apart_m: float = APART_M) -> tuple[float, State | None]:
        """(what the best other pose of the limb costs more, that pose); SURE and None without any.

        than: "stays", the best pose that leaves this limb where it is: where another limb is wrong, or the frame alone
        does not find the fit again, that is no reproach to this one; "settled", the settled fit, whoever is to blame:
        where that is in a bad place, any way out is worth trying; "fit", the fit, settled or as it is.
        """
        rivals = {
            "stays": [s for s in self.settled if s.away_m[limb] < apart_m],
            "settled": self.settled[1:2],
            "fit": self.settled[:2],
        }
        rest, world = min((s.costs for s in rivals[than]), key=sum)
        others = [
            (s.costs[0] - rest + min(s.costs[1] - world, 0.0), k)
            for k, s in enumerate(self.settled)
            if s.limb == limb and s.away_m[limb] >= apart_m
        ]
        if not others:
            return SURE, None
        least, k = min(others)
        return float(np.clip(least, LEAST, SURE)), self.settled[k].state


Enter = Callable[[Evidence, Frame, Any], None]  # lets a frame's other poses compete; importable by name
Job = tuple[int, State, Any]  # a frame, its fit, and what ``Enter`` is given


def competing(evidence: Evidence, enter: Enter, jobs: Sequence[Job]) -> dict[int, Frame]:
    """By frame, the poses that compete.

    Frames are independent, and in each a dozen poses are settled: many frames are shared with other processes.
    """
    cores = min(num_cores(), MOST_PROCESSES)
    if len(jobs) < MANY or cores < 2:
        settled = _settled_in(evidence, enter, jobs)
    else:
        settled = []
        try:
            with Workers(cores, works_along=True) as workers:
                parts = _settled_by(workers, evidence, enter, jobs, AT_ONCE * cores * BATCH)
                for part in progress(parts, "limbs' other poses", -(-len(jobs) // AT_ONCE)):
                    settled += part
        except BrokenProcessPool:
            log.warning("a process beside this one was ended, perhaps for want of memory; what it did is done here")
            settled += _settled_in(evidence, enter, jobs[len(settled) :])
    return {job[0]: Frame(evidence, job[0], job[1], one) for job, one in zip(jobs, settled, strict=True)}


def _settled_by(
    workers: Workers, evidence: Evidence, enter: Enter, jobs: Sequence[Job], at_once: int
) -> Iterator[list[list[Settled]]]:
    """``_settled_in`` by AT_ONCE frames, several processes at work on ``at_once`` of them: what is sent is held."""
    for batch in _cut(jobs, at_once):
        tasks = [(evidence.of_frames([job[0] for job in part]), enter, part) for part in _cut(batch, AT_ONCE)]
        yield from workers.map(_settled_in, tasks)


def _cut(jobs: Sequence[Job], size: int) -> list[Sequence[Job]]:
    return [jobs[first : first + size] for first in range(0, len(jobs), size)]


def _settled_in(evidence: Evidence, enter: Enter, jobs: Sequence[Job]) -> list[list[Settled]]:
    """What ``competing`` asks of some frames."""
    found = []
    with threadpool_limits(1, "blas"):  # as in the fit: sums in one order
        for i, fit, given in jobs:
            frame = Frame.of(evidence, i, fit)
            enter(evidence, frame, given)
            found.append(frame.settled)
    return found


def over_time(raw: np.ndarray, frames: int) -> np.ndarray:
    """The margins (N, 4) of single frames as those of a passage; frames in which a limb has no other pose say nothing
    about those in which it has one."""
    has_other = raw < SURE
    total, share = (uniform_filter1d(x, frames, axis=0, mode="nearest") for x in (has_other * raw, 1.0 * has_other))
    return np.where(has_other, total / np.where(has_other, share, 1.0), SURE)


def exchanged(
    chain: Chain,
    states: Mapping[int, State],
    raw: np.ndarray,
    best: Mapping[tuple[int, int], State],
    below: float = 0.0,
) -> tuple[dict[int, State], int]:
    """The states with every limb as in its ``best`` other pose, by frame and limb, whose margins ``raw`` (N, 4) are
    less than ``below`` over a passage; and how many were."""
    by_limb = over_time(raw, TURN_FRAMES)
    result, count = dict(states), 0
    for (i, limb), other in best.items():
        if by_limb[i, limb] < below:
            result[i] = with_limb(chain, result[i], other, limb)
            count += 1
    return result, count
