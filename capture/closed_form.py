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
    mean = np.empty(3)
    for y in range(height - WINDOW + 1):
        for x in range(width - WINDOW + 1):
            has_free = False
            for k in range(size):
                if number[y + k // WINDOW, x + k % WINDOW] >= 0:
                    has_free = True
            if not has_free:
                continue
            mean[:] = 0
            for k in range(size):
                for c in range(3):
                    apart[k, c] = color[y + k // WINDOW, x + k % WINDOW, c] / 255.0
                    mean[c] += apart[k, c] / size
            xx = xy = xz = yy = yz = zz = 0.0
            for k in range(size):
                for c in range(3):
                    apart[k, c] -= mean[c]
                xx += apart[k, 0] * apart[k, 0]
                xy += apart[k, 0] * apart[k, 1]
                xz += apart[k, 0] * apart[k, 2]
                yy += apart[k, 1] * apart[k, 1]
                yz += apart[k, 1] * apart[k, 2]
                zz += apart[k, 2] * apart[k, 2]
            first = (xx + epsilon) / size, xy / size, xz / size
            rest = (yy + epsilon) / size, yz / size, (zz + epsilon) / size
            for k in range(size):
                seen[k, 0], seen[k, 1], seen[k, 2] = _solved_3(first, rest, (apart[k, 0], apart[k, 1], apart[k, 2]))
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
def _solved_3(
    first: tuple[float, float, float], rest: tuple[float, float, float], right: tuple[float, float, float]
) -> tuple[float, float, float]:
    """S^-1 right for the symmetric S with the rows xx xy xz (``first``) and the rest yy yz zz, by cofactors."""
    xx, xy, xz = first
    yy, yz, zz = rest
    c0, c1, c2 = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    c3, c4, c5 = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    scale = 1.0 / (xx * c0 + xy * c1 + xz * c2)
    x, y, z = right
    return scale * (c0 * x + c1 * y + c2 * z), scale * (c1 * x + c3 * y + c4 * z), scale * (c2 * x + c4 * y + c5 * z)


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
def guided(
    guide: np.ndarray, source: np.ndarray, fine: np.ndarray, wanted: np.ndarray, radius_px: int, variance: float
) -> np.ndarray:
    """(K,) float32: the guided filter of ``source`` (h, w) at pixels of a larger picture, along that picture's edges.

    The windows' models a, b are found in ``guide`` (h, w, 3) uint8, the picture at the source's size, and laid
    bilinearly over ``fine`` (H, W, 3) uint8, the picture itself (He and Sun, "Fast Guided Filter", 2015).  ``wanted``
    (K,) are places in ``fine``, counted row by row; ``variance`` is He's epsilon, in squared grey levels.
    """
    height, width = source.shape
    fine_height, fine_width = fine.shape[:2]
    step_y, step_x = height / fine_height, width / fine_width
    model = np.empty((height, width, 4), np.float32)  # a, b of the window around each pixel
    mean = np.empty((height, width, 4), np.float32)  # of the windows that a pixel lies in
    has_model, has_mean = np.zeros((height, width), np.bool_), np.zeros((height, width), np.bool_)
    result = np.empty(len(wanted), np.float32)
    for k in range(len(wanted)):
        i, j = wanted[k] // fine_width, wanted[k] % fine_width
        y, x = (i + 0.5) * step_y - 0.5, (j + 0.5) * step_x - 0.5
        y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
        top, left = int(y), int(x)
        red = green = blue = offset = 0.0
        for v in range(top, min(top + 2, height)):
            for u in range(left, min(left + 2, width)):
                if not has_mean[v, u]:
                    _find_mean(guide, source, v, u, radius_px, variance, model, has_model, mean)
                    has_mean[v, u] = True
                share = (1 - abs(y - v)) * (1 - abs(x - u))
                red += share * mean[v, u, 0]
                green += share * mean[v, u, 1]
                blue += share * mean[v, u, 2]
                offset += share * mean[v, u, 3]
        result[k] = red * fine[i, j, 0] + green * fine[i, j, 1] + blue * fine[i, j, 2] + offset
    return result


@numba.njit(cache=True, fastmath=FREE_ORDER)
def _find_mean(
    guide: np.ndarray,
    source: np.ndarray,
    y: int,
    x: int,
    radius_px: int,
    variance: float,
    model: np.ndarray,
    has_model: np.ndarray,
    mean: np.ndarray,
) -> None:
    """mean[y, x] = the mean of a, b over the windows that (y, x) lies in, those found that ``has_model`` lacks."""
    height, width = source.shape
    count = 0
    red = green = blue = offset = 0.0
    for v in range(max(0, y - radius_px), min(height, y + radius_px + 1)):
        for u in range(max(0, x - radius_px), min(width, x + radius_px + 1)):
            if not has_model[v, u]:
                a0, a1, a2, b = _window_model(guide, source, v, u, radius_px, variance)
                model[v, u, 0], model[v, u, 1], model[v, u, 2], model[v, u, 3] = a0, a1, a2, b
                has_model[v, u] = True
            count += 1
            red += model[v, u, 0]
            green += model[v, u, 1]
            blue += model[v, u, 2]
            offset += model[v, u, 3]
    mean[y, x, 0], mean[y, x, 1], mean[y, x, 2] = red / count, green / count, blue / count
    mean[y, x, 3] = offset / count


@numba.njit(cache=True, fastmath=FREE_ORDER)
def _window_model(
    guide: np.ndarray, source: np.ndarray, y: int, x: int, radius_px: int, variance: float
) -> tuple[float, float, float, float]:
    """a (3), b of the window around (y, x)."""
    height, width = source.shape
    count = 0
    r = g = b = p = 0.0
    rr = rg = rb = gg = gb = bb = rp = gp = bp = 0.0
    for v in range(max(0, y - radius_px), min(height, y + radius_px + 1)):
        for u in range(max(0, x - radius_px), min(width, x + radius_px + 1)):
            i0, i1, i2, value = float(guide[v, u, 0]), float(guide[v, u, 1]), float(guide[v, u, 2]), float(source[v, u])
            count += 1
            r += i0
            g += i1
            b += i2
            p += value
            rr += i0 * i0
            rg += i0 * i1
            rb += i0 * i2
            gg += i1 * i1
            gb += i1 * i2
            bb += i2 * i2
            rp += i0 * value
            gp += i1 * value
            bp += i2 * value
    r, g, b, p = r / count, g / count, b / count, p / count
    a0, a1, a2 = _solved_3(
        (rr / count + variance - r * r, rg / count - r * g, rb / count - r * b),
        (gg / count + variance - g * g, gb / count - g * b, bb / count + variance - b * b),
        (rp / count - r * p, gp / count - g * p, bp / count - b * p),
    )
    return a0, a1, a2, p - a0 * r - a1 * g - a2 * b
