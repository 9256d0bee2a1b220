"""Person or room?  Bayes' rule for every pixel of a crop, and alpha where both are known.

H x W pixels.  I the picture, B the room (``capture.plate``), F the person's colour beside a rim pixel, r the room's
noise.  The network gives the prior, colour and depth the likelihoods:

    room      I = B + r, or in the shadow of the person I = g B + r with 0.4 < g < 1, or, rarely, anything
    person    the colours that the person has shown in the clip
    depth     a return nearer than the room's is no room; one at the room's depth hardly is the person
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numba
import numpy as np

from capture.plate import BINS, gains
from capture.segment import parts

SHADE = 0.4  # the darkest shadow, as a gain
P_SHADOW, P_OTHER = 0.1, 0.01  # shares of the room that lie in a shadow; that are something new
MOST = 6.0  # no single cue is believed further than 400 : 1: noise is not Gaussian that far out
REACH = 0.1  # of the person's longer side: how far limbs may reach beyond what the network saw
OVERLOOKED, FAR_OUT = 1.0, 4.0  # log odds against the person outside the network's outline, and more at REACH
NOTHING = 80.0  # squared sigmas: beyond, a density is a millionth of P_OTHER's
FIRM = 3.0  # log odds for the person deep inside: camouflage makes no holes there
DEPTH_SIGMA = 0.004  # m per m^2: a time-of-flight sensor's error grows with the square of the distance
DEPTH_BIAS_M = 0.02  # several paths of light, edges of the footprint
EVEN = 2.0  # sigmas before the room that speak neither way: soles, 2 cm before the floor, are left to colour
RIM_PX = 3  # pixels at the outline that may be mixed
MISFIT = 4.0  # sigmas off the line between the two colours: more, and it is no mixture of them
CONTRAST = 8.0  # person and room must be so many sigmas apart for alpha to be read off their colours


@dataclass(frozen=True)
class Room:
    """The empty room behind one crop."""

    color: np.ndarray  # (H, W, 3) float32, with this picture's exposure; NaN = unknown
    sigma: np.ndarray  # (H, W) float32
    depth_m: np.ndarray  # (H, W) float32, NaN = unknown
    person_log: np.ndarray  # (BINS, BINS, BINS)


def room_behind(
    seen: tuple[np.ndarray, np.ndarray, np.ndarray], color: np.ndarray, prior: np.ndarray, person_log: np.ndarray
) -> Room:
    """The plate as ``seen`` in a crop, with the exposure of its picture (H, W, 3)."""
    room, sigma, depth_m = seen
    gain = gains(color.astype(np.float32), room, (prior < 0.05) & np.isfinite(sigma))
    return Room((room * gain).astype(np.float32), sigma, depth_m, person_log)


def posterior(prior: np.ndarray, color: np.ndarray, room: Room, seen_m: np.ndarray | None) -> np.ndarray:
    """(H, W) float32 probability of the person from the network's (H, W), the picture and its depth, NaN = unknown."""
    is_person = (prior > 0.5).astype(np.uint8)
    if not is_person.any():
        return prior
    evidence = color_log_odds(color, room)
    if seen_m is not None:
        evidence = evidence + depth_log_odds(seen_m, room.depth_m)
    else:
        # Beyond what the network saw, something new is the person only in colours that the person has: it may as well
        # be floor that another light has just reached.  Depth tells the two apart better.
        evidence = np.where(is_person > 0, evidence, np.minimum(evidence, familiar(color, room.person_log)))
    rows, columns = np.nonzero(is_person)
    reach_px = REACH * max(int(np.ptp(rows)), int(np.ptp(columns)), 1)
    outside_px = cv2.distanceTransform(1 - is_person, cv2.DIST_L2, 5)
    inside_px = cv2.distanceTransform(is_person, cv2.DIST_L2, 5)
    odds = np.log((prior + 0.02) / (1.02 - prior))
    odds = np.where(
        outside_px > 0, odds.clip(-2 * OVERLOOKED, -OVERLOOKED) - FAR_OUT * (outside_px / reach_px) ** 2, odds
    )
    odds += FIRM * (inside_px / reach_px).clip(0, 1)
    odds = np.where(held(evidence, outside_px, reach_px), -20.0, odds)
    # Where nothing is known of the room, the network has the last word.
    result = np.where(evidence == 0, prior, 1 / (1 + np.exp(-(odds + evidence))))
    return attached(result.astype(np.float32))


def held(evidence: np.ndarray, outside_px: np.ndarray, reach_px: float) -> np.ndarray:
    """(H, W) what is no room but sticks out further than any limb that a network overlooks: a racket, a chair, somebody
    else.  It is left out whole, also where it touches the person."""
    stranger = ((outside_px > 1) & (evidence > 0)).astype(np.uint8)
    _, labels = cv2.connectedComponents(stranger, connectivity=8)
    is_far = np.zeros(labels.max() + 1, bool)
    is_far[np.unique(labels[(stranger > 0) & (outside_px > reach_px)])] = True
    is_far[0] = False
    return is_far[labels] | (outside_px > reach_px)


def color_log_odds(color: np.ndarray, room: Room) -> np.ndarray:
    """(H, W) log p(I | person) - log p(I | room), 0 where the room is unknown; the mean over 3 x 3 pixels."""
    odds = _color_log_odds(color, room.color, room.sigma, room.person_log)
    return np.where(np.isfinite(room.sigma), cv2.blur(odds, (3, 3)), 0)


def familiar(color: np.ndarray, person_log: np.ndarray) -> np.ndarray:
    """(H, W) log odds, 0 to MOST, that the person shows a colour of (H, W, 3) uint8, against one never seen on the
    person; the mean over 3 x 3 pixels."""
    shown = np.minimum(person_log - person_log.min(), MOST).astype(np.float32)
    r, g, b = np.moveaxis(color // (256 // BINS), -1, 0)
    return cv2.blur(shown[r, g, b], (3, 3))


@numba.njit(cache=True, fastmath={"contract", "arcp", "nsz"})
def _color_log_odds(color: np.ndarray, behind: np.ndarray, sigma: np.ndarray, person_log: np.ndarray) -> np.ndarray:
    """(H, W) float32 as above, before the mean."""
    height, width = sigma.shape
    odds = np.zeros((height, width), np.float32)
    p_plain = (1 - P_SHADOW - P_OTHER) / (2 * np.pi) ** 1.5
    p_shadow = P_SHADOW / (2 * np.pi) / (1 - SHADE)
    p_other = P_OTHER / 256.0**3
    log_other, per_bin = np.log(p_other), 256 // BINS
    for y in range(height):
        for x in range(width):
            noise = sigma[y, x]
            if not np.isfinite(noise):
                continue
            apart2, along, brightness2 = 0.0, 0.0, 1.0
            for c in range(3):
                b = behind[y, x, c]
                d = color[y, x, c] - b
                apart2 += d * d
                along += color[y, x, c] * b
                brightness2 += b * b
            shade = min(max(along / brightness2, SHADE), 1.0)
            off2 = 0.0
            for c in range(3):
                d = color[y, x, c] - shade * behind[y, x, c]
                off2 += d * d
            scale = 1 / (noise * noise)
            density = p_other
            if off2 * scale < NOTHING:  # a shadow explains at least as much as none does
                density += p_shadow * scale / np.sqrt(brightness2) * np.exp(-0.5 * off2 * scale)
                if apart2 * scale < NOTHING:
                    density += p_plain * scale / noise * np.exp(-0.5 * apart2 * scale)
            r, g, b = color[y, x, 0] // per_bin, color[y, x, 1] // per_bin, color[y, x, 2] // per_bin
            found = person_log[r, g, b] - (log_other if density == p_other else np.log(density))
            odds[y, x] = min(max(found, -MOST), MOST)
    return odds


def depth_log_odds(seen_m: np.ndarray, room_m: np.ndarray) -> np.ndarray:
    """(H, W) log odds for the person from depth and the room's depth (H, W), 0 where either is unknown."""
    nearer = sigmas_nearer(seen_m, room_m)
    odds = np.where(np.isfinite(nearer), (nearer - EVEN).clip(-2, MOST), 0)
    return np.where(np.isfinite(nearer), odds, 0).astype(np.float32)


def sigmas_nearer(seen_m: np.ndarray, room_m: np.ndarray) -> np.ndarray:
    """(H, W) by how many of the depth's sigmas it lies before the room's (H, W), NaN where either is unknown."""
    return (room_m - seen_m) / (DEPTH_BIAS_M + DEPTH_SIGMA * room_m**2)


def attached(probability: np.ndarray) -> np.ndarray:
    """The largest part of a probability (H, W) with what touches it; other people and things that moved go."""
    is_person = (probability > 0.5).astype(np.uint8)
    labels, areas = parts(is_person, 8)
    count = len(areas)
    if count <= 2:
        return probability
    main = 1 + int(areas[1:].argmax())
    radius = max(2, round(0.01 * max(probability.shape)))
    near = cv2.dilate((labels == main).astype(np.uint8), np.ones((2 * radius + 1,) * 2, np.uint8)) > 0
    is_kept = np.zeros(count, bool)
    is_kept[np.unique(labels[near])] = True
    is_kept[0] = True
    return np.where(is_kept[labels], probability, 0).astype(np.float32)


def rim_alpha(probability: np.ndarray, color: np.ndarray, room: Room) -> tuple[np.ndarray, np.ndarray]:
    """(alpha (H, W), is_read (H, W)): where a rim pixel's room is known and the nearest sure colour of the person
    differs from it, I = a F + (1 - a) B is solved for a (least squares over the channels)."""
    is_person = (probability > 0.5).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RIM_PX + 1,) * 2)
    core = cv2.erode(is_person, kernel) > 0
    rim = (cv2.dilate(is_person, np.ones((3, 3), np.uint8)) > 0) & ~core
    if not core.any():
        return probability, np.zeros_like(rim)
    _, labels = cv2.distanceTransformWithLabels(
        (~core).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    value_of = np.zeros((labels.max() + 1, 3), np.float32)
    value_of[labels[core]] = cv2.blur(color, (3, 3))[core]
    rim &= np.isfinite(room.sigma)
    person, behind, sigma, seen = value_of[labels[rim]], room.color[rim], room.sigma[rim], color[rim]  # (K, 3), (K,)
    across = person - behind
    length2 = _dot(across, across)
    opacity = (_dot(seen - behind, across) / np.maximum(length2, 1)).clip(0, 1)
    mixed = opacity[:, None] * person + (1 - opacity[:, None]) * behind
    # A sole is no mixture of the shoe and the floor.
    is_good = (length2 > (CONTRAST * sigma) ** 2) & (_dot(seen - mixed, seen - mixed) < (MISFIT * sigma) ** 2)
    is_read = rim.copy()
    is_read[rim] = is_good
    alpha = probability.copy()
    alpha[is_read] = opacity[is_good]
    return alpha, is_read


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(K,) inner products over the channels; numpy's own sum over so short an axis takes five times as long."""
    return np.einsum("kc,kc->k", a, b)
