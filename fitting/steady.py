"""What hardly moves does not tremble: accelerations of joints in space, for the solve of all frames at once.

The stiffness of ``batch`` acts on angles and follows the liveliest landmarks: a foot that stands under a turning trunk
hangs on a dozen angles that all move, and trembles with their errors.  So the places of the joints bend little, too:

    E = sum_i sum_k |p_{k,i-1} - 2 p_{k,i} + p_{k,i+1}|^2 / sigma_{k,i}^2,    sigma_{k,i} = (a + v_{k,i} / tau) dt^2

with v the joint's own speed around that frame, as it was before this solve: who moves fast also turns fast.  Ankles of
feet that rest in the picture keep their places, too (``rest``).  N frames, K joints, U unknowns per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d

from fitting.chain import Chain
from fitting.solve import State

STILL_M_PER_S2 = 2.0  # of a joint at rest: who stands still sways by less
CHANGE_S = 0.07  # a joint that moves may lose or win all of its speed in this time
REACH_S = 0.13  # to either side, from which a joint's speed is taken: a leap there and back is no speed
LANDMARKS = np.array([11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28])  # shoulders to wrists, hips to ankles
ANKLES = slice(10, 12)  # of these
CREEP_M_PER_S = 0.15  # of a foot that stands: its ankle moves as the heel lifts
BEND, STEP = (1.0, -2.0, 1.0), (-1.0, 1.0)


@dataclass(frozen=True)
class Steadiness:
    """The term for one run of frames."""

    chain: Chain
    weight: np.ndarray  # (N - 2, K) one over sigma^2
    rest: np.ndarray  # (N - 1, K) the same of steps; 0 but for feet that rest

    @staticmethod
    def of(chain: Chain, states: list[State], step_s: float, rests: np.ndarray | None = None) -> Steadiness:
        """From the poses there are; ``rests`` (N - 1, 2) bool: the feet that rest from frame to frame."""
        places_m = np.array([places(chain, state) for state in states])
        count, reach = len(states), max(1, round(REACH_S / step_s))
        later, earlier = np.minimum(np.arange(count) + reach, count - 1), np.maximum(np.arange(count) - reach, 0)
        way_m = np.linalg.norm(places_m[later] - places_m[earlier], axis=2)
        speed = way_m / ((later - earlier) * step_s)[:, None]  # metres per second
        fastest = maximum_filter1d(speed, 2 * (reach // 2) + 1, axis=0, mode="nearest")
        sigma_m = (STILL_M_PER_S2 + fastest / CHANGE_S) * step_s**2
        rest = np.zeros((count - 1, len(LANDMARKS)))
        if rests is not None:
            rest[:, ANKLES] = rests * (CREEP_M_PER_S * step_s) ** -2.0
        return Steadiness(chain, sigma_m[1:-1] ** -2.0, rest)

    def energy(self, states: list[State]) -> float:
        """E of these poses."""
        places_m = np.array([places(self.chain, state) for state in states])
        return float(
            sum(
                ((np.diff(places_m, order, axis=0) ** 2).sum(2) * weight).sum()
                for order, weight in ((2, self.weight), (1, self.rest))
            )
        )

    def normal_equations(self, states: list[State]) -> tuple[np.ndarray, np.ndarray]:
        """Blocks (3, N, U, U) and gradient (N, U): block [d, i] couples frame i + d (rows) with frame i (columns)."""
        chain, count = self.chain, len(states)
        point = np.repeat(chain.num_vertices + LANDMARKS, 3).astype(np.int32)
        axes = np.tile(np.eye(3), (len(LANDMARKS), 1))
        jacobians = np.array([chain.jacobian(s.pose, s.camera_from_body, point, axes) for s in states])  # (N, 3K, U)
        places_m = np.array([places(chain, state) for state in states])
        size = jacobians.shape[2]
        blocks, gradient = np.zeros((3, count, size, size)), np.zeros((count, size))
        for stencil, weight in ((BEND, self.weight), (STEP, self.rest)):
            used = np.flatnonzero(np.repeat(weight.any(0), 3))  # only ankles rest
            if len(used):
                change_m = np.diff(places_m, len(stencil) - 1, axis=0).reshape(len(weight), -1)
                rows = jacobians[:, used], change_m[:, used], np.repeat(weight, 3, axis=1)[:, used]
                _add(blocks, gradient, stencil, *rows)
        return blocks, gradient


def _add(
    blocks: np.ndarray,
    gradient: np.ndarray,
    stencil: tuple[float, ...],
    jacobians: np.ndarray,
    change_m: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Add sum_i weight_i |change_i|^2 with change_i = sum_a stencil_a p_{i+a}; jacobians (N, R, U) of p, the rest
    (N - len(stencil) + 1, R)."""
    count = len(weight)
    for a, part in enumerate(stencil):
        weighted = part * weight[:, :, None] * jacobians[a : a + count]
        gradient[a : a + count] += np.einsum("nru,nr->nu", weighted, change_m)
        for b in range(a + 1):
            blocks[a - b, b : b + count] += stencil[b] * weighted.transpose(0, 2, 1) @ jacobians[b : b + count]


def places(chain: Chain, state: State) -> np.ndarray:
    """(K, 3) the joints that are kept steady, by their landmarks."""
    rotations, translations, _ = chain.transforms(state.pose, state.camera_from_body)
    return chain.landmarks(rotations, translations)[LANDMARKS]
