"""Which joint is which when their names say nothing: a person is known by the tree.

Two like chains hang from the pelvis, two from the chest; in each the two longest neighbouring bones are thigh and shin,
or upper arm and forearm.  What is left is told by where the toes point or, without any, the knees: nobody's bend back.
N frames, K joints.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from rendering.motion import MotionClip
from rendering.skeletons import common_ancestor
from rendering.turns import unit

ALIKE = 0.12  # relative difference of two mirrored limbs' bones
NEARLY = 0.85
LEAST = 0.05  # of the whole skeleton's size is each bone of a limb

Limb = tuple[list[int], int]  # joints from the trunk outwards, and which of them begins the first long bone


def roles_by_shape(clip: MotionClip) -> dict[str, int] | None:
    """Role to joint index, as ``skeletons.find_roles``; None when the tree is not a person's."""
    rest = clip.positions[len(clip) // 2]  # some files rest in no human pose, but everybody moves in some
    children: list[list[int]] = [[] for _ in clip.parents]
    for joint, parent in enumerate(clip.parents):
        if parent >= 0:
            children[parent].append(joint)
    pairs = []
    for branching in (joint for joint in range(len(clip.parents)) if len(children[joint]) >= 2):
        limbs = [limb for child in children[branching] if (limb := _limb(branching, child, children, rest)) is not None]
        pairs += [(branching, a, b) for a, b in combinations(limbs, 2) if _are_alike(a, b, rest)]
    chosen = _legs_and_arms(pairs, clip)
    if chosen is None:
        return None
    legs, arms = chosen
    roles: dict[str, int] = {}
    up = np.sum([_start(limb, rest) for limb in arms], axis=0) - np.sum([_start(limb, rest) for limb in legs], axis=0)
    for (upper, lower, end, before, after), pair in (
        (("upperleg", "lowerleg", "foot", "", "toe"), legs),
        (("upperarm", "lowerarm", "hand", "clavicle", ""), arms),
    ):
        first, second = pair if _is_left(pair, legs, arms, clip.positions) else pair[::-1]
        for side, (chain, at) in (("L", first), ("R", second)):
            for role, step in ((upper, 0), (lower, 1), (end, 2)):
                roles[f"{role}.{side}"] = chain[at + step]
            if before and at > 0:
                roles[f"{before}.{side}"] = chain[at - 1]
            if after and at + 3 < len(chain):
                roles[f"{after}.{side}"] = chain[at + 3]
    roles["pelvis"] = common_ancestor(roles["upperleg.L"], roles["upperleg.R"], clip.parents)
    roles["chest"] = common_ancestor(roles["upperarm.L"], roles["upperarm.R"], clip.parents)
    roles |= _head(roles, children, rest, up)
    return roles


def _limb(branching: int, child: int, children: list[list[int]], rest: np.ndarray) -> Limb | None:
    """The way from a child of the trunk outwards, by the longest bones, and where its two long bones begin."""
    chain = [child]
    while children[chain[-1]]:
        chain.append(max(children[chain[-1]], key=lambda joint: _reach(joint, children, rest)))
    bones = np.linalg.norm(np.diff(rest[chain], axis=0), axis=1)
    if len(bones) < 2:
        return None
    both = np.minimum(bones[:-1], bones[1:])
    at = int(np.flatnonzero(both >= NEARLY * both.max())[-1])  # a collar bone may be as long as a forearm
    return (chain, at) if both[at] > LEAST * float(np.ptp(rest, axis=0).max()) else None


def _reach(joint: int, children: list[list[int]], rest: np.ndarray) -> float:
    """Length of the longest way outwards from a joint's parent, but for the first bone's own."""
    below = [float(np.linalg.norm(rest[c] - rest[joint])) + _reach(c, children, rest) for c in children[joint]]
    return max(below, default=0.0)


def _start(limb: Limb, rest: np.ndarray) -> np.ndarray:
    return rest[limb[0][limb[1]]]


def _are_alike(first: Limb, second: Limb, rest: np.ndarray) -> bool:
    lengths = [
        np.linalg.norm(np.diff(rest[chain[at : at + 3]], axis=0), axis=1)  # (2,)
        for chain, at in (first, second)
    ]
    return bool((np.abs(lengths[0] - lengths[1]) < ALIKE * np.maximum(*lengths)).all())


def _legs_and_arms(
    pairs: list[tuple[int, Limb, Limb]], clip: MotionClip
) -> tuple[tuple[Limb, Limb], tuple[Limb, Limb]] | None:
    """Legs are the pair whose trunk joint is an ancestor of the arms'; no limb may be part of the trunk."""
    for low, leg_a, leg_b in pairs:
        for high, arm_a, arm_b in pairs:
            ancestors, joint = [], clip.parents[high]
            while joint >= 0:
                ancestors.append(joint)
                joint = clip.parents[joint]
            limbs = {*leg_a[0], *leg_b[0]}
            if low in ancestors and high not in limbs:
                return (leg_a, leg_b), (arm_a, arm_b)
    return None


def _is_left(pair: tuple[Limb, Limb], legs: tuple[Limb, Limb], arms: tuple[Limb, Limb], positions: np.ndarray) -> bool:
    """Whether the first of a pair of limbs is the left one, by the mean over positions (N, K, 3)."""

    def at(limb: Limb, step: int) -> np.ndarray:
        chain, first = limb
        return positions[:, chain[first + step]]  # (N, 3)

    up = np.sum([at(limb, 0) for limb in arms], axis=0) - np.sum([at(limb, 0) for limb in legs], axis=0)
    ahead = np.zeros_like(up)
    for limb in legs:
        if limb[1] + 3 < len(limb[0]):
            ahead += at(limb, 3) - at(limb, 2)
        else:  # no toes: knees bend forwards
            thigh, shin = at(limb, 1) - at(limb, 0), at(limb, 2) - at(limb, 1)
            ahead += unit(thigh) - unit(shin)
    left = np.cross(unit(up), ahead)
    return bool(np.einsum("ni,ni->", unit(at(pair[0], 0) - at(pair[1], 0)), left) > 0)


def _head(roles: dict[str, int], children: list[list[int]], rest: np.ndarray, up: np.ndarray) -> dict[str, int]:
    """The last joint but end points of what rises from the chest between the arms."""
    arms = {roles.get(f"clavicle.{side}", roles[f"upperarm.{side}"]) for side in "LR"}
    arms |= {roles[f"upperarm.{side}"] for side in "LR"}
    between = [child for child in children[roles["chest"]] if child not in arms]
    rising = [child for child in between if (rest[child] - rest[roles["chest"]]) @ up > 0]
    if not rising:
        return {}
    chain = [max(rising, key=lambda joint: (rest[joint] - rest[roles["chest"]]) @ up)]
    while len(children[chain[-1]]) == 1:
        chain += children[chain[-1]]
    return {"head": chain[-1]} if len(chain) == 1 else {"neck": chain[0], "head": chain[1]}
