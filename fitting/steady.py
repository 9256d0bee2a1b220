"""What hardly moves does not tremble: accelerations of joints in space, for the solve of all frames at once.

The stiffness of ``batch`` acts on angles and follows the liveliest landmarks: a foot that stands under a turning trunk
hangs on a dozen angles that all move, and trembles with their errors.  So the places of the joints bend little, too:

    E = sum_i sum_k |p_{k,i-1} - 2 p_{k,i} + p_{k,i+1}|^2 / sigma_{k,i}^2,    sigma_{k,i} = (a + v_{k,i} / tau) dt^2

with v the joint's own speed around that frame, as it was before this solve: who moves fast also turns fast.
N frames, K joints, U unknowns per frame.
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
STENCIL = (1.0, -2.0, 1.0)


@dataclass(frozen=True)
class Steadiness:
    """The term for one run of frames."""

    chain: Chain
    weight: np.ndarray  # (N - 2, K) one over sigma^2

    @staticmethod
    def of(chain: Chain, states: list[State], step_s: float) -> Steadiness:
        """From the poses there are."""
        places_m = np.array([places(chain, state) for state in states])
        count, reach = len(states), max(1, round(REACH_S / step_s))
        later, earlier = np.minimum(np.arange(count) + reach, count - 1), np.maximum(np.arange(count) - reach, 0)
        way_m = np.linalg.norm(places_m[later] - places_m[earlier], axis=2)
        speed = way_m / ((later - earlier) * step_s)[:, None]  # metres per second
        fastest = maximum_filter1d(speed, 2 * (reach // 2) + 1, axis=0, mode="nearest")
        sigma_m = (STILL_M_PER_S2 + fastest / CHANGE_S) * step_s**2
        return Steadiness(chain, sigma_m[1:-1] ** -2.0)

    def energy(self, states: list[State]) -> float:
        """E of these poses."""
        bends_m = np.diff(np.array([places(self.chain, state) for state in states]), 2, axis=0)
        return float(((bends_m**2).sum(2) * self.weight).sum())

    def normal_equations(self, states: list[State]) -> tuple[np.ndarray, np.ndarray]:
        """Blocks (3, N, U, U) and gradient (N, U): block [d, i] couples frame i + d (rows) with frame i (columns)."""
        chain, count = self.chain, len(states)
        point = np.repeat(chain.num_vertices + LANDMARKS, 3).astype(np.int32)
        axes = np.tile(np.eye(3), (len(LANDMARKS), 1))
        jacobians = np.array([chain.jacobian(s.pose, s.camera_from_body, point, axes) for s in states])  # (N, 3K, U)
        bends_m = np.diff(np.array([places(chain, state) for state in states]), 2, axis=0)
        weight = np.repeat(self.weight, 3, axis=1)  # (N - 2, 3K)
        size = jacobians.shape[2]
        blocks, gradient = np.zeros((3, count, size, size)), np.zeros((count, size))
        inner = count - 2
        for a, part in enumerate(STENCIL):
            own = jacobians[a : a + inner]
            weighted = part * weight[:, :, None] * own
            gradient[a : a + inner] += np.einsum("nru,nr->nu", weighted, bends_m.reshape(inner, -1))
            for b in range(a + 1):
                blocks[a - b, b : b + inner] += STENCIL[b] * weighted.transpose(0, 2, 1) @ jacobians[b : b + inner]
        return blocks, gradient


def places(chain: Chain, state: State) -> np.ndarray:
    """(K, 3) the joints that are kept steady, by their landmarks."""
    rotations, translations, _ = chain.transforms(state.pose, state.camera_from_body)
    return chain.landmarks(rotations, translations)[LANDMARKS]
