"""Clothes that lag behind the body: position-based dynamics, deterministic, in one thread.

V cloth vertices, E springs, C capsules.  Enters: where the skeleton would carry each cloth vertex at every sample.
Leaves: where cloth hangs at every frame.  Each vertex is (1) moved by inertia and gravity, (2) pulled to its skinned
place as strongly as ``attach`` says and never farther from it than ``reach_m``, (3) kept at its distance from its
neighbours, (4) kept outside the body: outside the plane of the skin under it, and outside the legs' capsules.
Muller et al., "Position based dynamics", 2007.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from demo.character import Character

GRAVITY = -9.81
DAMPING_PER_S = 2.2  # air; cloth loses its swing in about half a second
CLEARANCE_M = 0.004  # of the skin's plane
FLOOR_M = 0.004
FRICTION = 0.7  # share of the slip on a leg that is taken back each step
LEGS_BELOW_M = 1.0  # cloth that hangs higher at rest never meets the legs
SUB_STEPS = 4
BIAS_STIFFNESS = 0.006  # a step; woven cloth gives easily across the weave: so a skirt can swing
BEND_STIFFNESS = 0.012
HOMING_HZ = 60.0


@dataclass(frozen=True)
class Capsule:
    """A rounded cone that follows a joint's frame: two ends at rest with radii."""

    joint: int
    ends_m: np.ndarray  # (2, 3) rest positions
    radii_m: tuple[float, float]


class Cloth:
    """What hangs loose on one performer: shirt and skirt, or a T-shirt."""

    def __init__(self, character: Character) -> None:
        self.vertices = np.flatnonzero(character.layer > 0)
        local = np.full(len(character.vertices_m), -1)
        local[self.vertices] = np.arange(len(self.vertices))
        faces = local[np.concatenate([character.faces, character.hidden_faces])]
        self.faces = faces[(faces >= 0).all(axis=1)]
        self._character = character
        rest = character.vertices_m[self.vertices]
        self.is_skirt = character.layer[self.vertices] == 2
        self.attach = character.attach
        self.reach_m = character.reach_m
        self.springs = _springs(self.faces)
        self.lengths_m = np.linalg.norm(rest[self.springs[:, 0]] - rest[self.springs[:, 1]], axis=1)
        self.stiffness = np.where(self._is_bias(rest), BIAS_STIFFNESS, 1.0)
        self.bends, self.bend_lengths_m = _bends(self.faces, rest)
        self.capsules = leg_capsules(character)
        self.meets_legs = rest[:, 2] < LEGS_BELOW_M

    def _is_bias(self, rest: np.ndarray) -> np.ndarray:
        """(E,) springs of the skirt across the weave."""
        step = np.abs(rest[self.springs[:, 0]] - rest[self.springs[:, 1]])
        across = np.hypot(step[:, 0], step[:, 1])
        return self.is_skirt[self.springs].all(axis=1) & (step[:, 2] > 0.4 * across) & (across > 0.4 * step[:, 2])

    def skinned(self, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(V, 3) cloth and (V, 3) body surface under it, carried by the skeleton."""
        character = self._character
        cloth = character.skin(world, character.vertices_m[self.vertices], self.vertices)
        return cloth, character.skin(world, character.under_m, self.vertices)

    def capsule_ends(self, world: np.ndarray) -> np.ndarray:
        """(C, 2, 3) world ends of the capsules."""
        ends = [
            (c.ends_m - self._character.joints_m[c.joint]) @ world[c.joint, :3, :3].T + world[c.joint, :3, 3]
            for c in self.capsules
        ]
        return np.array(ends)

    def hang(self, worlds: np.ndarray, step_s: float, settle_s: float = 1.0) -> np.ndarray:
        """Simulate.  worlds (T, J, 4, 4) bone transforms, ``step_s`` apart; returns (T, V, 3) float32.

        The cloth first settles on the first pose for ``settle_s``.
        """
        radii = np.array([c.radii_m for c in self.capsules])
        # A shirt keeps its distance from the legs because a skirt is between; trousers are part of the capsules.
        margin = np.where(self.is_skirt, 0.014, 0.026 if self.is_skirt.any() else 0.0)
        position, under = self.skinned(worlds[0])
        target, ends = position, self.capsule_ends(worlds[0])
        before = position.copy()
        result = np.zeros((len(worlds), len(position), 3), np.float32)
        dt = step_s / SUB_STEPS
        # 1 stays put; attached by 0 it still drifts home within a second or two.
        homing_per_s = -HOMING_HZ * np.log(np.maximum((1 - self.attach) ** 0.35 * 0.985, 1e-12))
        pull, keep = 1 - np.exp(-homing_per_s * dt), float(np.exp(-DAMPING_PER_S * dt))
        friction = 1 - (1 - FRICTION) ** (1 / SUB_STEPS)
        fixed = (
            pull,
            self.attach,
            self.reach_m,
            self.springs,
            self.lengths_m,
            self.stiffness,
            self.bends,
            self.bend_lengths_m,
        )
        touch = (radii, margin, self.is_skirt, self.meets_legs, keep, GRAVITY * dt**2, friction)
        for sample in range(-int(settle_s / step_s), len(worlds)):
            next_target, next_under = self.skinned(worlds[max(sample, 0)])
            next_ends = self.capsule_ends(worlds[max(sample, 0)])
            # Small steps, so that a fast knee cannot jump through the skirt.
            for step in range(SUB_STEPS):
                a, b = step / SUB_STEPS, (step + 1) / SUB_STEPS
                moved = [
                    (1 - b) * old + b * new
                    for old, new in ((target, next_target), (under, next_under), (ends, next_ends))
                ]
                ends_before = (1 - a) * ends + a * next_ends
                position, before = _step(position, before, moved[0], moved[1], *fixed, moved[2], ends_before, *touch)
            target, under, ends = next_target, next_under, next_ends
            if sample >= 0:
                result[sample] = position
        return result


def leg_capsules(character: Character) -> list[Capsule]:
    """The seat, and rounded cones through the cross-sections of leggings or trousers."""
    legging = character.materials.index("legging" if "legging" in character.materials else "trousers")
    points = character.vertices_m[np.unique(character.faces[character.material == legging])]
    root = character.joint("root")
    seat = np.array([[-0.075, 0.055, -0.03], [0.075, 0.055, -0.03]]) + character.joints_m[root]
    capsules = [Capsule(root, seat, (0.088, 0.088))]
    for side, sign in (("L", 1), ("R", -1)):
        mine = points[points[:, 0] * sign > 0.012]
        hip, knee, ankle = (character.joint(f"{n}.{side}") for n in ("upperleg01", "lowerleg01", "foot"))
        for first, last, shares in ((hip, knee, (0.16, 0.38, 0.6, 0.8, 1.0)), (knee, ankle, (0.0, 0.2, 0.45))):
            start, bone = character.joints_m[first], character.joints_m[last] - character.joints_m[first]
            share = (mine - start) @ bone / (bone @ bone)
            rings = [mine[np.abs(share - s) < 0.05] for s in shares]
            centres = [0.5 * (ring.min(axis=0) + ring.max(axis=0)) for ring in rings]
            axis = bone / np.linalg.norm(bone)
            radii = []
            for ring, centre in zip(rings, centres, strict=True):
                away = ring - centre
                radii.append(float(np.percentile(np.linalg.norm(away - (away @ axis)[:, None] * axis, axis=1), 97)))
            for i in range(len(shares) - 1):
                capsules.append(Capsule(first, np.stack(centres[i : i + 2]), (radii[i], radii[i + 1])))
    return capsules


def _springs(faces: np.ndarray) -> np.ndarray:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return np.unique(edges, axis=0)


def _bends(faces: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Opposite corners of faces that share an edge, and their distance at rest."""
    edges = np.concatenate([faces[:, [0, 1, 2]], faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]])
    edges[:, :2] = np.sort(edges[:, :2], axis=1)
    edges = edges[np.lexsort((edges[:, 2], edges[:, 1], edges[:, 0]))]
    twin = (edges[1:, :2] == edges[:-1, :2]).all(axis=1)
    pairs = np.stack([edges[:-1][twin, 2], edges[1:][twin, 2]], axis=1)
    return pairs, np.linalg.norm(rest[pairs[:, 0]] - rest[pairs[:, 1]], axis=1)


@njit(cache=True)
def _step(
    position, before, target, under, pull, attach, reach_m, springs, lengths, stiffness, bends, bend_lengths, ends,
    ends_before,
    radii, margin, is_skirt, meets_legs, keep, fall, friction,
):  # fmt: skip
    count = len(position)
    now = np.empty_like(position)
    for v in range(count):
        for k in range(3):
            now[v, k] = position[v, k] + (position[v, k] - before[v, k]) * keep
        now[v, 2] += fall
        for k in range(3):
            now[v, k] += (target[v, k] - now[v, k]) * pull[v]
    soft = np.full(len(bends), BEND_STIFFNESS)
    for _ in range(2):
        _keep_lengths(now, attach, springs, lengths, stiffness)
    _keep_lengths(now, attach, bends, bend_lengths, soft)
    for v in range(count):
        _keep_in_reach(now, v, target, reach_m[v])
        if not is_skirt[v]:
            _keep_off_skin(now, v, target, under)
        if meets_legs[v]:
            touched = -1
            for c in range(len(ends)):
                if _keep_out(now, v, ends, c, radii, margin[v]):
                    touched = c
            if touched >= 0:
                _rub(now, v, position, ends[touched], ends_before[touched], friction)
        if now[v, 2] < FLOOR_M:
            now[v, 2] = FLOOR_M
    return now, position


@njit(cache=True)
def _keep_lengths(now, attach, pairs, lengths, stiffness):
    for e in range(len(pairs)):
        a, b = pairs[e, 0], pairs[e, 1]
        wa, wb = 1.0 - attach[a], 1.0 - attach[b]
        total = wa + wb
        if total < 1e-6:
            continue
        dx, dy, dz = now[b, 0] - now[a, 0], now[b, 1] - now[a, 1], now[b, 2] - now[a, 2]
        length = np.sqrt(dx * dx + dy * dy + dz * dz)
        if length < 1e-9:
            continue
        move = stiffness[e] * (length - lengths[e]) / length / total
        now[a, 0] += wa * move * dx
        now[a, 1] += wa * move * dy
        now[a, 2] += wa * move * dz
        now[b, 0] -= wb * move * dx
        now[b, 1] -= wb * move * dy
        now[b, 2] -= wb * move * dz


@njit(cache=True)
def _keep_in_reach(now, v, target, reach):
    dx, dy, dz = now[v, 0] - target[v, 0], now[v, 1] - target[v, 1], now[v, 2] - target[v, 2]
    distance = np.sqrt(dx * dx + dy * dy + dz * dz)
    if distance > reach and distance > 1e-9:
        scale = reach / distance
        now[v, 0] = target[v, 0] + dx * scale
        now[v, 1] = target[v, 1] + dy * scale
        now[v, 2] = target[v, 2] + dz * scale


@njit(cache=True)
def _keep_off_skin(now, v, target, under):
    nx, ny, nz = target[v, 0] - under[v, 0], target[v, 1] - under[v, 1], target[v, 2] - under[v, 2]
    length = np.sqrt(nx * nx + ny * ny + nz * nz)
    if length < 1e-6:
        return
    nx, ny, nz = nx / length, ny / length, nz / length
    off = (now[v, 0] - under[v, 0]) * nx + (now[v, 1] - under[v, 1]) * ny + (now[v, 2] - under[v, 2]) * nz
    lack = min(CLEARANCE_M, length) - off
    if lack > 0:
        now[v, 0] += lack * nx
        now[v, 1] += lack * ny
        now[v, 2] += lack * nz


@njit(cache=True)
def _keep_out(now, v, ends, c, radii, margin):
    """Push a vertex out of a capsule; did it touch?"""
    ax, ay, az = ends[c, 0, 0], ends[c, 0, 1], ends[c, 0, 2]
    bx, by, bz = ends[c, 1, 0] - ax, ends[c, 1, 1] - ay, ends[c, 1, 2] - az
    px, py, pz = now[v, 0] - ax, now[v, 1] - ay, now[v, 2] - az
    length2 = bx * bx + by * by + bz * bz
    along = px * bx + py * by + pz * bz
    thick = max(radii[c, 0], radii[c, 1]) + margin
    if px * px + py * py + pz * pz > 2.0 * (length2 + thick * thick):
        return False
    t = min(max(along / length2, 0.0), 1.0)
    dx, dy, dz = px - t * bx, py - t * by, pz - t * bz
    radius = radii[c, 0] + t * (radii[c, 1] - radii[c, 0]) + margin
    distance2 = dx * dx + dy * dy + dz * dz
    if distance2 >= radius * radius or distance2 < 1e-12:
        return False
    scale = radius / np.sqrt(distance2) - 1.0
    now[v, 0] += dx * scale
    now[v, 1] += dy * scale
    now[v, 2] += dz * scale
    return True


@njit(cache=True)
def _rub(now, v, position, ends, ends_before, friction):
    """Cloth that touches a leg is carried along by it: some of its slip along the surface is taken back."""
    length2, along = 0.0, 0.0
    for k in range(3):
        bone = ends[1, k] - ends[0, k]
        length2 += bone * bone
        along += (now[v, k] - ends[0, k]) * bone
    t = min(max(along / length2, 0.0), 1.0)
    nx = now[v, 0] - ends[0, 0] - t * (ends[1, 0] - ends[0, 0])
    ny = now[v, 1] - ends[0, 1] - t * (ends[1, 1] - ends[0, 1])
    nz = now[v, 2] - ends[0, 2] - t * (ends[1, 2] - ends[0, 2])
    length = max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
    nx, ny, nz = nx / length, ny / length, nz / length
    sx = now[v, 0] - position[v, 0] - (1 - t) * (ends[0, 0] - ends_before[0, 0]) - t * (ends[1, 0] - ends_before[1, 0])
    sy = now[v, 1] - position[v, 1] - (1 - t) * (ends[0, 1] - ends_before[0, 1]) - t * (ends[1, 1] - ends_before[1, 1])
    sz = now[v, 2] - position[v, 2] - (1 - t) * (ends[0, 2] - ends_before[0, 2]) - t * (ends[1, 2] - ends_before[1, 2])
    outward = sx * nx + sy * ny + sz * nz
    now[v, 0] -= friction * (sx - outward * nx)
    now[v, 1] -= friction * (sy - outward * ny)
    now[v, 2] -= friction * (sz - outward * nz)
