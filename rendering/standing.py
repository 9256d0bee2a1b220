"""Which foot stands when, and where: soles that are on the floor stay where they are until they are lifted.

The performer's feet say when: a heel or a ball is in contact while it is near its lowest and hardly moves.  Where is
said by our own body's soles: at their mean place over the contact, level with the floor.  Between contacts the shift
that this takes fades, so that no foot jumps.

N frames, K joints of the clip, V vertices of our body.  World frame: metres, z up, floor at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_closing, binary_opening, label

from fitting.body.model import BodyModel
from rendering.placed_clip import PlacedClip

SOLE_M = 0.03  # vertices of the rest body below this are its soles
STILL_M_S = 0.25  # a planted heel rolls by a few centimetres a second; a foot that steps makes two metres a second
NEAR_FLOOR_M = 0.04  # above the height that the joint has in a tenth of the frames
MAX_SINK_M = 0.05  # a foot that would have to be lowered by more does not stand
SHORTEST_S = 0.1  # a shorter contact is a foot that passes
# A few dozen points of sole against the skin of the whole leg.  Whose ankle is at the end of its range lifts the heel.
BALL_WEIGHT, HEEL_WEIGHT = (25.0, 25.0, 25.0), (25.0, 25.0, 3.0)
FADE_S = 0.2  # over which a foot leaves and finds its place


@dataclass(frozen=True)
class Stance:
    """A heel or a ball: its contacts, and how far its skin is moved to stand still in them."""

    vertices: np.ndarray  # (S,) of our body
    is_in_contact: np.ndarray  # (N,)
    shift_m: np.ndarray  # (N, 3)
    held: np.ndarray  # (N,) 1 in a contact, falling to 0 away from it
    weight: tuple[float, float, float]  # along each axis, against that of any other skin


def low_vertices(rest_vertices_m: np.ndarray) -> np.ndarray:
    """The vertices under the feet of the rest body (V, 3), z up."""
    return np.flatnonzero(rest_vertices_m[:, 2] < rest_vertices_m[:, 2].min() + SOLE_M)


def soles(body: BodyModel, rest_vertices_m: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray]:
    """The vertices under the heel and under the ball of a foot, ``side`` "L" or "R".  The rest body faces -y."""
    low = low_vertices(rest_vertices_m)
    foot = body.joint_index(f"foot.{side}")
    of_foot = [j for j in range(body.num_joints) if j == foot or body.parents[j] == foot]  # some bodies bend their toes
    own = low[body.skin_weights[low][:, of_foot].sum(1) > 0.5]
    back = rest_vertices_m[own, 1]
    share = (back.max() - back) / np.ptp(back)  # 0 at the heel, 1 at the tips of the toes
    return own[share < 0.3], own[(share > 0.55) & (share < 0.85)]


def contacts(source: PlacedClip, roles: dict[str, int], side: str) -> tuple[np.ndarray, np.ndarray]:
    """(N,) in which frames the performer's heel and ball stand.  A skeleton without toes has one foot for both."""
    found = []
    for part in ("foot", "toe"):
        joint = part if f"{part}.L" in roles and f"{part}.R" in roles else "foot"
        floor_m = np.percentile(source.positions[:, [roles[f"{joint}.{s}"] for s in "LR"], 2], 10)
        found.append(_standing(source.positions[:, roles[f"{joint}.{side}"]], floor_m, source.frames_per_second))
    return found[0], found[1]


def _standing(path_m: np.ndarray, floor_m: float, frames_per_second: float) -> np.ndarray:
    """(N,) whether a point at (N, 3) is near the floor and hardly moves, for long enough to be no accident."""
    if len(path_m) < 3:
        return np.zeros(len(path_m), bool)
    speed_m_s = np.linalg.norm(np.gradient(path_m, axis=0), axis=1) * frames_per_second
    is_still = (speed_m_s < STILL_M_S) & (path_m[:, 2] < floor_m + NEAR_FLOOR_M)
    shortest = max(2, round(SHORTEST_S * frames_per_second))
    padded = np.pad(is_still, shortest, mode="edge")
    padded = binary_opening(binary_closing(padded, np.ones(3)), np.ones(shortest))
    return padded[shortest:-shortest]


def stances(
    source: PlacedClip, roles: dict[str, int], body: BodyModel, rest_vertices_m: np.ndarray, low_m: np.ndarray
) -> tuple[Stance, ...]:
    """Heel and ball of both feet; ``low_m`` (N, P, 3) are the ``low_vertices`` of our body as the clip asks for it.

    A foot is nearly rigid: the ball goes with its heel's shift and adds its own, the heel goes with the ball where it
    does not stand itself.
    """
    low, found = low_vertices(rest_vertices_m), []
    for side in "LR":
        heel, ball = soles(body, rest_vertices_m, side)
        heel_stands, ball_stands = contacts(source, roles, side)
        heel_skin_m, ball_skin_m = (low_m[:, np.searchsorted(low, piece)] for piece in (heel, ball))
        heel_stands = _on_the_floor(heel_stands, heel_skin_m)
        heel_m, heel_held = standing_shift(heel_skin_m, heel_stands, source.frames_per_second)
        with_heel = ball_skin_m + heel_m[:, None]
        ball_stands = _on_the_floor(ball_stands, with_heel)
        ball_m, ball_held = standing_shift(with_heel, ball_stands, source.frames_per_second)
        found.append(Stance(heel, heel_stands, heel_m + (1 - heel_held)[:, None] * ball_m, heel_held, HEEL_WEIGHT))
        found.append(Stance(ball, ball_stands, heel_m + ball_m, ball_held, BALL_WEIGHT))
    return tuple(found)


def _on_the_floor(is_in_contact: np.ndarray, skin_m: np.ndarray) -> np.ndarray:
    """Contacts while our piece of sole, (N, S, 3), is down as well: who kneels has his ankles on the floor only."""
    return is_in_contact & (skin_m[:, :, 2].min(1) < MAX_SINK_M)


def standing_shift(
    skin_m: np.ndarray, is_in_contact: np.ndarray, frames_per_second: float
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) what moves a piece of sole, (N, S, 3), so that it stands still and on the floor; (N,) how far it is held.

    In a contact its middle keeps its mean place and its lowest point the floor.  Outside, the shifts of the contacts
    before and after fade over ``FADE_S``; where both are near they are blended.
    """
    phases, count = label(is_in_contact)
    weights, shifts = np.zeros((count, len(skin_m))), np.zeros((count, len(skin_m), 3))
    frames = np.arange(len(skin_m))
    for k in range(count):
        inside = np.flatnonzero(phases == k + 1)
        middle_m = skin_m[inside].mean(1)
        shift_m = middle_m.mean(0) - middle_m
        shift_m[:, 2] = -skin_m[inside, :, 2].min(1)
        shifts[k] = np.stack([np.interp(frames, inside, shift_m[:, axis]) for axis in range(3)], axis=1)
        away_s = np.maximum(inside[0] - frames, frames - inside[-1]).clip(0) / frames_per_second
        weights[k] = np.where(phases > 0, phases == k + 1, 0.5 + 0.5 * np.cos(np.pi * (away_s / FADE_S).clip(0, 1)))
    total = weights.sum(0)
    return np.einsum("kn,knx->nx", weights / np.maximum(total, 1.0), shifts), total.clip(0, 1)
