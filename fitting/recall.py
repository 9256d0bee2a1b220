"""An arm that went astray, back to where the person has it at other times.

Tracking hands an arm on from frame to frame.  Where it is lost, behind the trunk, out of the picture, for a blink of
the detector, it settles in another minimum and stays there: for the rest of the clip, where the person hardly moves.
Yet the clip holds the right pose, or one that is near enough, at another time.  So in every few frames the usual poses
of each arm compete (``contest``), settled and as they are, since a frame alone may turn a whole body around; one that
wins competes in the frames beside it, too, as far as it goes on winning.

Enter: evidence and poses of a clip.  Leave: the poses, arms exchanged.  N frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.ndimage import uniform_filter1d

from fitting.chain import Chain
from fitting.contest import SURE, TURN_FRAMES, Frame, competing, exchanged, landmarks_m, with_limb
from fitting.evidence import Evidence
from fitting.limbs import ENDS
from fitting.solve import State

USUAL = 5  # poses of one arm
EVERY = 6  # frames: less than a limb takes to be turned by
ELSEWHERE_M = 0.1  # as far as an arm beside the trunk is from one within it
WON = -5.0  # the margin over a passage: what is as good as the fit is no reason to move it
FEWEST_WINS = 4  # of TURN_FRAMES: a single frame may be misled
ROUNDS = 5  # to the middles of the groups
_ARMS = tuple(limb for limb, name in enumerate(ENDS) if name.endswith("arm"))


def recalled(
    evidence: Evidence, states: Mapping[int, State], from_states: Mapping[int, State], count: int
) -> tuple[dict[int, State], int]:
    """The states of a clip of ``count`` frames with every arm exchanged that explains its frames better as it usually
    is in ``from_states``, and how many were.  Raises ValueError without any."""
    chain, frames = evidence.chain, np.array(sorted(states))
    raw = np.full((count, len(ENDS)), SURE)
    best: dict[tuple[int, int], State] = {}
    usual = [(limb, from_states[i]) for limb in _ARMS for i in usual_frames(chain, from_states, limb)]
    runs = [run.tolist() for run in np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1)]
    asked = competing(evidence, _enter, [(i, states[i], usual) for run in runs for i in run[::EVERY]])

    def ask(index: int, limb: int) -> None:
        raw[index, limb], other = asked[index].margin(limb, "fit", ELSEWHERE_M)
        if other is not None:
            best[index, limb] = other

    for i in list(asked):
        for limb in _ARMS:
            ask(i, limb)
    for run in (run[::step] for step in (1, -1) for run in runs):
        for limb in _ARMS:
            for before, i in pairwise(run):
                if (before, limb) in best and raw[before, limb] < min(raw[i, limb], 0):
                    if i not in asked:
                        asked[i] = Frame.of(evidence, i, states[i])
                    _enter(evidence, asked[i], [(limb, best[before, limb])])
                    ask(i, limb)
    wins = TURN_FRAMES * uniform_filter1d((raw < 0).astype(float), TURN_FRAMES, axis=0, mode="constant")
    return exchanged(chain, states, np.where(wins > FEWEST_WINS - 0.5, raw, SURE), best, WON)


def _enter(evidence: Evidence, frame: Frame, others: Sequence[tuple[int, State]]) -> None:
    """Limbs as they are in other frames compete."""
    for limb, other in others:
        start = with_limb(evidence.chain, frame.fit, other, limb)
        frame.settle(limb, start)
        frame.enter(limb, start)


def usual_frames(chain: Chain, states: Mapping[int, State], limb: int) -> list[int]:
    """At most USUAL frames, the middles of groups of like poses of a limb: as far apart as they come, then k-medians.

    Alike is what has the limb's middle and end in the same places about the trunk.
    """
    frames, body = sorted(states), states[min(states)]
    marks = list(list(ENDS.values())[limb][1:])
    alike = (with_limb(chain, body, states[i], limb) for i in frames)
    places_m = np.array([landmarks_m(chain, state)[marks].ravel() for state in alike])
    chosen = [_middle(places_m, np.arange(len(frames)))]
    while len(chosen) < USUAL:
        away_m = _away_m(places_m, chosen).min(1)
        if away_m.max() < ELSEWHERE_M:
            break
        chosen.append(int(away_m.argmax()))
    for _ in range(ROUNDS):
        group = _away_m(places_m, chosen).argmin(1)
        chosen = [_middle(places_m, np.flatnonzero(group == k)) for k in np.unique(group)]
    return [frames[k] for k in chosen]


def _away_m(places_m: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """(N, K) from places (N, D) to the K chosen ones."""
    return np.stack([np.linalg.norm(places_m - places_m[k], axis=1) for k in chosen], axis=1)


def _middle(places_m: np.ndarray, own: np.ndarray) -> int:
    """Which of ``own`` is nearest to their median."""
    return int(own[np.linalg.norm(places_m[own] - np.median(places_m[own], axis=0), axis=1).argmin()])
