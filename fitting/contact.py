"""What bodies cannot do: reach through themselves, stand below the floor, slide while they stand.

V vertices, A samples on forearms and hands, T trunk vertices, S sole vertices, R rows.  One pure function per term;
each gives ``Rows`` that look at one point, its counterpart held fixed until the next iteration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from fitting.body.model import BodyModel
from fitting.chain import limbs_of
from fitting.floor import Plane
from fitting.terms import Rows

INSIDE_SIGMA_M = 0.01
SKIN_M = 0.005  # flesh gives way
REACH_M = 0.25  # beyond it the nearest trunk vertex says nothing about inside and outside
FLOOR_SIGMA_M, SKATE_SIGMA_M = 0.01, 0.01
NUM_SAMPLES = 40  # per arm: a hand is 18 cm long, so its samples are two fingers apart
STANDING_M, STANDING_STEP_M = 0.05, 0.012  # a sole this low that moves this little per 1/30 s carries the person


@dataclass(frozen=True)
class Touch:
    """Which vertices can touch what, in one body model."""

    arm: np.ndarray  # (A,) int32 samples below the elbows
    trunk: np.ndarray  # (T,) int32 trunk and thighs
    sole: tuple[np.ndarray, np.ndarray]  # left and right (S,) int32, the lowest of each foot at rest

    @staticmethod
    def of(body: BodyModel) -> Touch:
        """From the joints that the landmarks of elbow, wrist and ankle belong to."""
        body = body.bare
        weights = np.asarray(body.skin_weights, float)
        owner = weights.argmax(1)
        of_landmark = (np.asarray(body.landmark_weights, float) @ weights).argmax(1)
        arms, legs = [], []
        for wrist in (15, 16):
            below = _subtree(body.parents, int(body.parents[of_landmark[wrist]]))
            own = np.flatnonzero(np.isin(owner, below))
            arms.append(own[np.linspace(0, len(own) - 1, min(NUM_SAMPLES, len(own))).astype(int)])
        both = np.concatenate(limbs_of(body)[:2])
        height_m = np.asarray(body.template_m, float)[:, 2]
        top, bottom = (height_m[np.asarray(body.landmark_weights)[k].argmax(1)] for k in ([11, 12], [25, 26]))
        # From knees to shoulders: a hand may well touch the head, and hair is no wall.
        trunk = np.flatnonzero(~np.isin(owner, both) & (height_m < top.min()) & (height_m > bottom.max()))
        for ankle in (27, 28):
            own = np.flatnonzero(np.isin(owner, _subtree(body.parents, int(of_landmark[ankle]))))
            legs.append(own[height_m[own] < height_m[own].min() + 0.015].astype(np.int32))
        return Touch(np.concatenate(arms).astype(np.int32), trunk.astype(np.int32), (legs[0], legs[1]))


def _way(parents: np.ndarray, joint: int) -> list[int]:
    return [joint] if parents[joint] < 0 else [joint, *_way(parents, int(parents[joint]))]


def _subtree(parents: np.ndarray, top: int) -> list[int]:
    return [joint for joint in range(len(parents)) if top in _way(parents, joint)]


def inside_rows(touch: Touch, vertices_m: np.ndarray, normals: np.ndarray) -> Rows:
    """Arms outside the trunk: r = min(0, n . (v - t) + skin) / sigma for arm samples v, t their nearest trunk vertex.

    n is the outward normal at t; samples that are outside, or far away, get no row.
    """
    nearest, distance = _nearest(vertices_m[touch.arm], vertices_m[touch.trunk])
    t = touch.trunk[nearest]
    depth_m = ((vertices_m[touch.arm] - vertices_m[t]) * normals[t]).sum(1) + SKIN_M
    deep = (depth_m < 0) & (distance < REACH_M)
    return _plane_rows(
        touch.arm[deep], normals[t[deep]], vertices_m[t[deep]] - SKIN_M * normals[t[deep]], INSIDE_SIGMA_M
    )


def floor_rows(touch: Touch, vertices_m: np.ndarray, floor: Plane) -> Rows:
    """Feet above the floor: r = min(0, n . v - d) / sigma for the soles' vertices."""
    soles = np.concatenate(touch.sole)
    under = soles[floor.height_m(vertices_m[soles]) < 0]
    normal = np.tile(floor.normal, (len(under), 1))
    return _plane_rows(under, normal, normal * floor.offset_m, FLOOR_SIGMA_M)


def standing_targets(
    touch: Touch, soles_m: tuple[np.ndarray, np.ndarray], floor: Plane | None, step_s: float
) -> list[dict[int, np.ndarray]]:
    """Where each sole stays while it carries the person: per frame {vertex: place (3,)}.

    soles_m: (N, S, 3) of either foot over consecutive frames of a camera that stands still.  A sole stands in frames
    in which its middle is low (where the floor is known) and moves less than a standing person sways; its place is the
    mean over that stance.
    """
    limit_m = STANDING_STEP_M * step_s * 30
    targets: list[dict[int, np.ndarray]] = [{} for _ in soles_m[0]]
    for sole, places in zip(touch.sole, soles_m, strict=True):
        middle = places.mean(1)
        step_m = np.linalg.norm(np.diff(middle, axis=0), axis=1)
        still = np.zeros(len(middle), bool)
        still[1:-1] = (step_m[1:] < limit_m) & (step_m[:-1] < limit_m)
        if floor is not None:
            still &= floor.height_m(middle) < STANDING_M
        for stance in np.split(np.arange(len(still)), np.flatnonzero(np.diff(still)) + 1):
            if still[stance[0]] and len(stance) >= 3:
                # Far ends of a long stance may differ: a foot creeps as the heel lifts.
                for i in stance:
                    window = stance[(stance > i - 8) & (stance < i + 8)]
                    mean = places[window].mean(0)
                    targets[i].update({int(v): mean[k] for k, v in enumerate(sole)})
    return targets


def standing_rows(targets: dict[int, np.ndarray]) -> Rows:
    """No skating: r = (v - place) / sigma, three rows for each vertex of a sole that stands."""
    ids = np.array(list(targets), np.int32)
    places = np.array(list(targets.values())).reshape(-1, 3)
    count = len(ids)
    weight = 1 / (SKATE_SIGMA_M * np.sqrt(max(count, 1)))
    return Rows(
        np.repeat(ids, 3),
        np.zeros(3 * count, bool),
        np.tile(np.eye(3), (count, 1)),
        np.repeat(places, 3, axis=0),
        np.full(3 * count, weight),
        np.full(3 * count, 3.0 * weight * SKATE_SIGMA_M),
    )


def _plane_rows(ids: np.ndarray, normals: np.ndarray, targets_m: np.ndarray, sigma_m: float) -> Rows:
    count = len(ids)
    return Rows(
        ids.astype(np.int32),
        np.zeros(count, bool),
        normals.reshape(-1, 3),
        targets_m.reshape(-1, 3),
        np.full(count, 1 / sigma_m),
        np.full(count, np.inf),
    )


@njit(cache=True, nogil=True)
def _nearest(points, others):  # type: ignore[no-untyped-def]
    index = np.zeros(len(points), np.int64)
    distance = np.empty(len(points))
    for i in range(len(points)):
        best = np.inf
        for k in range(len(others)):
            dx, dy, dz = others[k, 0] - points[i, 0], others[k, 1] - points[i, 1], others[k, 2] - points[i, 2]
            d2 = dx * dx + dy * dy + dz * dz
            if d2 < best:
                best = d2
                index[i] = k
        distance[i] = np.sqrt(best)
    return index, distance
