"""A limb that is wholly hidden moves from where it was last seen to where it is seen again.

Nothing in such a frame says where the limb is: the outline keeps it inside, the detector guesses in the middle of the
trunk, and what is left pulls it there however smoothly.  The shortest way between the poses on both sides, joint by
joint, is the better guess (spherical linear interpolation, Shoemake, "Animating rotation with quaternion curves",
SIGGRAPH 1985).

Enter: poses of a clip and what they look like (``limbs``).  Leave: the poses, hidden limbs bridged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from fitting.chain import Chain
from fitting.limbs import LIMBS, Limb
from fitting.solve import State
from fitting.verdict import MAX_DEPTH_MM, MAX_OFF, MIN_DRAWN, MIN_SEEN, SMALL_LIMB

MIN_GAP_S, MAX_GAP_S = 0.2, 1.5  # shorter ones smoothness bridges; unseen for longer, a limb can have been anywhere
BESIDE_FRAMES = 2  # beside a gap the limb follows what is pulled astray in it
STICKS_OUT = MIN_DRAWN / 2  # a quarter of a hand
LimbsOf = Callable[[int, State], Mapping[str, Limb]]


def bridged(
    chain: Chain, states: Mapping[int, State], limbs_of: LimbsOf, step_s: float
) -> tuple[dict[int, State], int]:
    """The states with hidden limbs bridged, and how many gaps were.

    limbs_of: what a frame's limbs look like in a state; step_s: between two frames.
    """
    figures = {i: limbs_of(i, state) for i, state in states.items()}
    result, count = dict(states), 0
    for joints, name in zip(chain.limbs, LIMBS, strict=True):
        own = {i: limbs[name] for i, limbs in figures.items() if name in limbs}
        for first, last in gaps(own, step_s):
            moved = across(result, joints, first, last)
            if all(_is_possible(limbs_of(i, state)[name], own[i]) for i, state in moved.items()):
                result.update(moved)
                count += 1
    return result, count


def gaps(own: Mapping[int, Limb], step_s: float) -> list[tuple[int, int]]:
    """The frames on both sides between which a limb, given by frame, is wholly hidden for MIN_GAP_S to MAX_GAP_S.

    It is in sight in them and towards the gap: where it shows up for a moment between two gaps, neither has a side."""
    hidden, found = np.array([i for i in sorted(own) if is_hidden(own[i])], int), []
    for run in np.split(hidden, np.flatnonzero(np.diff(hidden) > 1) + 1):
        if MIN_GAP_S <= len(run) * step_s <= MAX_GAP_S:
            first, last = int(run[0]) - BESIDE_FRAMES, int(run[-1]) + BESIDE_FRAMES
            is_whole = all(i in own for i in range(first, last + 1))
            beside = set(range(first - 1, last + 2)) - set(run.tolist())  # the next gap does not move this one's ends
            if is_whole and not any(is_hidden(own[i]) for i in beside & own.keys()):
                found.append((first, last))
    return found


def is_hidden(limb: Limb) -> bool:
    """The fit draws nothing of it, and the detector does not see it."""
    return limb.drawn <= MIN_DRAWN and limb.seen < MIN_SEEN


def _is_possible(now: Limb, before: Limb) -> bool:
    """Hidden it stays where it was hidden, in sight it leaves neither depth nor detector by more than is usual, and
    nowhere does it stick out of the person further than before."""
    if now.beyond > before.beyond + STICKS_OUT:
        return False
    if is_hidden(before):
        return now.drawn <= SMALL_LIMB
    is_off = now.off > np.fmax(before.off, MAX_OFF)
    return not (is_off or now.gap_mm > np.fmax(before.gap_mm, MAX_DEPTH_MM))


def across(states: Mapping[int, State], joints: np.ndarray, first: int, last: int) -> dict[int, State]:
    """The states between two frames, ``joints`` on their way from the pose of the one to that of the other."""
    frames = range(first + 1, last)
    poses = {i: states[i].pose.copy() for i in frames}
    for joint in joints:
        ends = Rotation.from_rotvec([states[first].pose[joint], states[last].pose[joint]])
        for i, turn in zip(frames, Slerp([first, last], ends)(list(frames)).as_rotvec(), strict=True):
            poses[i][joint] = turn
    return {i: State(pose, states[i].camera_from_body) for i, pose in poses.items()}
