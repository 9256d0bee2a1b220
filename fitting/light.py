"""How the room lights a person: a smooth gain over the directions that skin and clothes may face.

Whatever the colour of a piece of a person is, it is the same in all frames; what changes with its normal is light.  Far
lights on matt surfaces are nine spherical harmonics (Ramamoorthi and Hanrahan 2001); here they are those of the gain's
logarithm, which keeps it positive.  Relative to what faces the camera: a colour is the one that is seen from the front.

S samples of surface points in pictures.  Light is (LIGHT_TERMS, 3), channel by channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

LIGHT_TERMS = 8  # bands 1 and 2; band 0 is the person's own brightness
MOST_LOG = 1.5  # a gain of 4.5 either way: beyond, an extrapolated light would burn out
DARK = 0.04  # of white, added before logarithms are taken: noise in the dark says nothing
DOUBT = 0.15  # in logarithms of colour: errors by which a sample's weight is halved; wrinkles, wrong poses
# Ridge of band 1: where hardly anything turned, there is no light to be seen.  A matt surface takes pi, 2 pi / 3 and
# pi / 4 of bands 0 to 2 of the light about it (Ramamoorthi and Hanrahan 2001): band 2 is that much weaker.
PRIOR, WEAKER = 5e-5, 8 / 3
ROUNDS = 5  # of reweighting
SWEEPS = 8


def harmonics(x: Any, y: Any, z: Any) -> tuple[Any, ...]:
    """The eight real spherical harmonics of bands 1 and 2, orthonormal, of unit directions; arrays of any library."""
    return (
        0.48860251 * y,
        0.48860251 * z,
        0.48860251 * x,
        1.09254843 * (x * y),
        1.09254843 * (y * z),
        0.31539157 * (3 * z * z - 1),
        1.09254843 * (x * z),
        0.54627422 * (x * x - y * y),
    )


HEAD_ON = harmonics(0.0, 0.0, -1.0)  # of what faces the camera


def light_terms(normals: np.ndarray) -> np.ndarray:
    """(S, LIGHT_TERMS) of unit normals (S, 3), camera frame; zero for what faces the camera."""
    return np.stack(harmonics(*normals.T), axis=1) - np.array(HEAD_ON)


def gains(terms: np.ndarray, light: np.ndarray) -> np.ndarray:
    """(S, 3) by how much brighter surfaces that the camera sees, of ``terms`` (S, LIGHT_TERMS), are than one that faces
    it; for what it never saw ``rendering.light`` knows more."""
    return np.exp((terms @ light).clip(-MOST_LOG, MOST_LOG))


def found_light(
    owner: np.ndarray, frame: np.ndarray, weight: np.ndarray, terms: np.ndarray, colors: np.ndarray
) -> np.ndarray:
    """(LIGHT_TERMS, 3) the light on samples of colour (S, 3) in [0, 1] with ``terms`` (S, LIGHT_TERMS).

    owner, frame: (S,) int64, which piece of the person each sample shows, and in which picture; each piece has an
    unknown colour, each picture an unknown exposure, which is not taken for light.  weight: (S,).  Least squares of the
    logarithms, errors beyond DOUBT losing weight (Cauchy), and a small prior for no light at all, or else for one of
    band 1: how bright sides are that were never turned to the camera hangs on it.  Zero without samples.
    """
    if not len(owner):
        return np.zeros((LIGHT_TERMS, 3))
    groups = [(group, np.maximum(np.bincount(group, weight), 1e-9)) for group in (owner, frame)]

    def within_groups(values: np.ndarray) -> np.ndarray:
        """(S, M) less their piece's and their picture's weighted means: the one, then the other, until neither is
        left (Gauss-Seidel)."""
        values = np.array(values, np.float64, order="C")
        for _ in range(SWEEPS):
            for group, mass in groups:
                _take_means(values, weight, group, mass)
        return values

    terms, logs = within_groups(terms), within_groups(np.log(colors.astype(np.float64) + DARK))
    belief = weight
    for _ in range(ROUNDS):
        weighted = terms * belief[:, None]
        ridge = PRIOR * belief.sum() * np.diag([1.0] * 3 + [WEAKER**2] * 5)
        light = np.linalg.solve(weighted.T @ terms + ridge, weighted.T @ logs)
        belief = weight / (1 + (np.abs(logs - terms @ light).mean(axis=1) / DOUBT) ** 2)
    return light


@njit(cache=True, nogil=True)
def _take_means(values, weight, group, mass):  # type: ignore[no-untyped-def]
    """Values (S, M) less their group's weighted mean, in place; group (S,) indexes mass (G,), its sum of weights."""
    count, columns = values.shape
    means = np.zeros((len(mass), columns))
    for s in range(count):
        for c in range(columns):
            means[group[s], c] += weight[s] * values[s, c]
    for g in range(len(mass)):
        for c in range(columns):
            means[g, c] /= mass[g]
    for s in range(count):
        for c in range(columns):
            values[s, c] -= means[group[s], c]
