"""Closed-form matting and the guided filter, on the uncertain pixels alone.

H x W pixels of a crop, F of them uncertain ("free"), the others fixed.  Both are local linear models of alpha in the
colours of a small window, and both are needed in a rim of a few per cent of the crop only; whole images of sums, or a
sparse matrix of all H x W rows, are ten times the work.

    L   matting Laplacian (Levin et al., "A Closed-Form Solution to Natural Image Matting", PAMI 2008, Eq. 12)
    a,b alpha = a . I + b within a window (He et al., "Guided Image Filtering", PAMI 2013, Eqs. 16 to 19)
"""

from __future__ import annotations

import numba
import numpy as np

STOP = 1e-4  # of the right side: what is left of the error is 0.03 of 255 steps on average, 4 at most
MOST_STEPS = 200
WINDOW = 3  # pixels, of the Laplacian
REACH = WINDOW - 1  # a pixel shares windows with pixels so far away
STENCIL = 2 * REACH + 1
FREE_ORDER = {"reassoc", "contract", "arcp", "nsz"}  # sums may be taken in any order, the same one in every run


def solved(color: np.ndarray, prior: np.ndarray, is_free: np.ndarray, trust: np.ndarray, epsilon: float) -> np.ndarray:
    """(F,) float64 alpha of the free pixels, in the order of ``np.flatnonzero(is_free)``.

    Minimises a' L a + trust |a - prior|^2 over the free pixels of a crop (H, W, 3) uint8, the others held at their
    ``prior`` (H, W); ``trust`` is (H, W), ``epsilon`` Levin's regularisation of colours in 0..1.
    """
    rows, columns = np.nonzero(is_free)
    number = np.full(is_free.shape, -1, np.int64)
    number[rows, columns] = np.arange(len(rows))
    stencil = _laplacian(color, number, len(rows), epsilon)
    padded = np.zeros((prior.shape[0] + 2 * REACH, prior.shape[1] + 2 * REACH))
    padded[REACH:-REACH, REACH:-REACH] = np.where(is_free, 0, prior)
    weight = trust[rows, columns].astype(np.float64)
    start = prior[rows, columns].astype(np.float64)
    places = (rows + REACH) * padded.shape[1] + columns + REACH
    return _conjugate_gradients(stencil, places, padded.shape[1], padded.ravel(), weight, start)


@numba.njit(cache=True, fastmath=FREE_ORDER)
def _laplacian(color: np.ndarray, number: np.ndarray, num_free: int, epsilon: float) -> np.ndarray:
    """(F, 5, 5) the rows of L of the free pixels, ``number``ed (H, W) with -1 elsewhere, by neighbour."""
    height, width = number.shape
    stencil = np.zeros((num_free, STENCIL, STENCIL))
    size = WINDOW * WINDOW
    apart = np.empty((size, 3))
    seen = np.empty((size, 3))
    for y in range(height - WINDOW + 1):
        for x in range(width - WINDOW + 1):
            has_free = False
            for k in range(size):
                if number[y + k // WINDOW, x + k % WINDOW] >= 0:
                    has_free = True
            if not has_free:
                continue
            mean = np.zeros(3)
            for k in range(size):
                for c in range(3):
                    apart[k, c] = color[y + k // WINDOW, x + k % WINDOW, c] / 255.0
                    mean[c] += apart[k, c] / size
            spread = np.zeros(6)  # xx xy xz yy yz zz
            for k in range(size):
                for c in range(3):
                    apart[k, c] -= mean[c]
                spread[0] += apart[k, 0] * apart[k, 0] / size
                spread[1] += apart[k, 0] * apart[k, 1] / size
                spread[2] += apart[k, 0] * apart[k, 2] / size
                spread[3] += apart[k, 1] * apart[k, 1] / size
                spread[4] += apart[k, 1] * apart[k, 2] / size
                spread[5] += apart[k, 2] * apart[k, 2] / size
            for c in (0, 3, 5):
                spread[c] += epsilon / size
            _solved_3(spread, apart, seen)
            for i in range(size):
                row = number[y + i // WINDOW, x + i % WINDOW]
                if row < 0:
                    continue
                for j in range(size):
                    dot = apart[i, 0] * seen[j, 0] + apart[i, 1] * seen[j, 1] + apart[i, 2] * seen[j, 2]
                    value = (1.0 if i == j else 0.0) - (1 + dot) / size
                    stencil[row, j // WINDOW - i // WINDOW + REACH, j % WINDOW - i % WINDOW + REACH] += value
    return stencil


@numba.njit(cache=True, fastmath=FREE_ORDER)
def _solved_3(s: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """out (K, 3) = S^-1 right (K, 3) for the symmetric S = [[s0 s1 s2] [s1 s3 s4] [s2 s4 s5]], by cofactors."""
    c0, c1, c2 = s[3] * s[5] - s[4] * s[4], s[2] * s[4] - s[1] * s[5], s[1] * s[4] - s[2] * s[3]
    c3, c4, c5 = s[0] * s[5] - s[2] * s[2], s[1] * s[2] - s[0] * s[4], s[0] * s[3] - s[1] * s[1]
    scale = 1.0 / (s[0] * c0 + s[1] * c1 + s[2] * c2)
    for k in range(len(right)):
        x, y, z = right[k, 0], right[k, 1], right[k, 2]
        out[k, 0] = scale * (c0 * x + c1 * y + c2 * z)
        out[k, 1] = scale * (c1 * x + c3 * y + c4 * z)
        out[k, 2] = scale * (c2 * x + c4 * y + c5 * z)


@numba.njit(cache=True, fastmath=FREE_ORDER)
def _conjugate_gradients(
    stencil: np.ndarray, places: np.ndarray, stride: int, fixed: np.ndarray, weight: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Solves (L + W) a = W start - L fixed for the free pixels at ``places`` of a padded image of rows of ``stride``;
    preconditioned by the diagonal."""
    num = len(places)
    diagonal = np.empty(num)
    for f in range(num):
        diagonal[f] = stencil[f, REACH, REACH] + weight[f]
    image = fixed.copy()
    for f in range(num):
        image[places[f]] = start[f]
    # The residual of the start: W start - L (fixed and start) - W start.
    residual = -_applied(stencil, places, stride, image)
    right2 = 0.0
    around = _applied(stencil, places, stride, fixed)
    for f in range(num):
        right2 += (weight[f] * start[f] - around[f]) ** 2
    alpha = start.copy()
    image[:] = 0
    step = residual / diagonal
    now = np.dot(residual, step)
    for _ in range(MOST_STEPS):
        if np.dot(residual, residual) <= STOP * STOP * right2:
            break
        for f in range(num):
            image[places[f]] = step[f]
        moved = _applied(stencil, places, stride, image) + weight * step
        length = now / np.dot(step, moved)
        before, now = now, 0.0
        for f in range(num):
            alpha[f] += length * step[f]
            residual[f] -= length * moved[f]
            now += residual[f] * residual[f] / diagonal[f]
        for f in range(num):
            step[f] = residual[f] / diagonal[f] + now / before * step[f]
    return alpha


@numba.njit(cache=True, fastmath=FREE_ORDER)
def _applied(stencil: np.ndarray, places: np.ndarray, stride: int, image: np.ndarray) -> np.ndarray:
    """(F,) L times a padded image, at the free pixels."""
    result = np.empty(len(places))
    for f in range(len(places)):
        total = 0.0
        for dy in range(STENCIL):
            first = places[f] + (dy - REACH) * stride - REACH
            for dx in range(STENCIL):
                total += stencil[f, dy, dx] * image[first + dx]
        result[f] = total
    return result


@numba.njit(cache=True, fastmath=FREE_ORDER)
def guided(guide: np.ndarray, source: np.ndarray, is_wanted: np.ndarray, radius_px: int, variance: float) -> np.ndarray:
    """(H, W) float32: ``source`` (H, W), and where ``is_wanted`` (H, W) the guided filter of it along the edges of
    ``guide`` (H, W, 3) uint8.  ``variance`` is He's epsilon, in squared grey levels."""
    height, width = source.shape
    model = np.zeros((height, width, 4), np.float32)  # a, b
    is_known = np.zeros((height, width), np.bool_)
    result = source.copy()
    spread, covariance, slope, mean = np.empty(6), np.empty((1, 3)), np.empty((1, 3)), np.empty(4)
    for y in range(height):
        for x in range(width):
            if not is_wanted[y, x]:
                continue
            top, bottom = max(0, y - radius_px), min(height, y + radius_px + 1)
            left, right = max(0, x - radius_px), min(width, x + radius_px + 1)
            mean[:] = 0
            for v in range(top, bottom):
                for u in range(left, right):
                    if not is_known[v, u]:
                        _window_model(guide, source, v, u, radius_px, variance, model[v, u], spread, covariance, slope)
                        is_known[v, u] = True
                    for c in range(4):
                        mean[c] += model[v, u, c]
            value = mean[3]
            for c in range(3):
                value += mean[c] * guide[y, x, c]
            result[y, x] = value / ((bottom - top) * (right - left))
    return result


@numba.njit(cache=True, fastmath=FREE_ORDER)
def _window_model(
    guide: np.ndarray,
    source: np.ndarray,
    y: int,
    x: int,
    radius_px: int,
    variance: float,
    out: np.ndarray,
    spread: np.ndarray,
    covariance: np.ndarray,
    slope: np.ndarray,
) -> None:
    """out (4,) = a, b of the window around (y, x); the last three are room to work in."""
    height, width = source.shape
    count = 0
    r = g = b = p = 0.0
    spread[:] = 0
    covariance[:] = 0
    for v in range(max(0, y - radius_px), min(height, y + radius_px + 1)):
        for u in range(max(0, x - radius_px), min(width, x + radius_px + 1)):
            i0, i1, i2, value = float(guide[v, u, 0]), float(guide[v, u, 1]), float(guide[v, u, 2]), float(source[v, u])
            count += 1
            r += i0
            g += i1
            b += i2
            p += value
            spread[0] += i0 * i0
            spread[1] += i0 * i1
            spread[2] += i0 * i2
            spread[3] += i1 * i1
            spread[4] += i1 * i2
            spread[5] += i2 * i2
            covariance[0, 0] += i0 * value
            covariance[0, 1] += i1 * value
            covariance[0, 2] += i2 * value
    r, g, b, p = r / count, g / count, b / count, p / count
    spread /= count
    covariance /= count
    spread[0] += variance - r * r
    spread[1] -= r * g
    spread[2] -= r * b
    spread[3] += variance - g * g
    spread[4] -= g * b
    spread[5] += variance - b * b
    covariance[0, 0] -= r * p
    covariance[0, 1] -= g * p
    covariance[0, 2] -= b * p
    _solved_3(spread, covariance, slope)
    out[0], out[1], out[2] = slope[0, 0], slope[0, 1], slope[0, 2]
    out[3] = p - slope[0, 0] * r - slope[0, 1] * g - slope[0, 2] * b
