"""The performer's surface, sample by sample: texture, lamp with shadow, soft sky, highlight.

F faces, H x W output pixels with S x S samples each.  Enters: what the z-buffer found at each sample, the mesh and the
light.  Leaves: linear light and coverage, added up per output pixel.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def shade(
    index, weights, faces, face_uv, uv, material, pictures, starts, shapes, surfaces, vertices, normals, openness, eye,
    lamp, frame, lamp_light, ambient_light, shadow, shadow_origin, texel, bias, samples, linear, color, cover,
):  # fmt: skip
    unit = 1.0 / (samples * samples)
    n, p, view, albedo = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for i in range(index.shape[0]):
        for j in range(index.shape[1]):
            f = index[i, j]
            if f < 0:
                continue
            w0, w1 = weights[i, j, 0], weights[i, j, 1]
            w2 = 1 - w0 - w1
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            for k in range(3):
                n[k] = w0 * normals[a, k] + w1 * normals[b, k] + w2 * normals[c, k]
                p[k] = w0 * vertices[a, k] + w1 * vertices[b, k] + w2 * vertices[c, k]
                view[k] = eye[k] - p[k]
            n /= max(np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2), 1e-9)
            view /= np.sqrt(view[0] ** 2 + view[1] ** 2 + view[2] ** 2)
            sky = w0 * openness[a] + w1 * openness[b] + w2 * openness[c]
            # The inside of a sleeve or the skirt: turn the normal, and it is dark in there.
            facing = n[0] * view[0] + n[1] * view[1] + n[2] * view[2]
            ux, uy, uz = (
                vertices[b, 0] - vertices[a, 0],
                vertices[b, 1] - vertices[a, 1],
                vertices[b, 2] - vertices[a, 2],
            )
            vx, vy, vz = (
                vertices[c, 0] - vertices[a, 0],
                vertices[c, 1] - vertices[a, 1],
                vertices[c, 2] - vertices[a, 2],
            )
            flat = (uy * vz - uz * vy) * view[0] + (uz * vx - ux * vz) * view[1] + (ux * vy - uy * vx) * view[2]
            inside = flat < 0
            if inside:
                for k in range(3):
                    n[k] = -n[k]
                facing = -facing
                sky *= 0.45
            m = material[f]
            ta, tb, tc = face_uv[f, 0], face_uv[f, 1], face_uv[f, 2]
            tu = w0 * uv[ta, 0] + w1 * uv[tb, 0] + w2 * uv[tc, 0]
            tv = w0 * uv[ta, 1] + w1 * uv[tb, 1] + w2 * uv[tc, 1]
            _texel(pictures, starts[m], shapes[m, 0], shapes[m, 1], tu, tv, linear, albedo)
            strength, sharp, _, wrap = surfaces[m]
            toward = n[0] * lamp[0] + n[1] * lamp[1] + n[2] * lamp[2]
            lit = max((toward + wrap) / (1 + wrap), 0.0)
            if lit > 0:
                lit *= _lit(p, n, frame, shadow, shadow_origin, texel, bias)
            hx, hy, hz = lamp[0] + view[0], lamp[1] + view[1], lamp[2] + view[2]
            half = (n[0] * hx + n[1] * hy + n[2] * hz) / np.sqrt(hx * hx + hy * hy + hz * hz)
            shine = strength * max(half, 0.0) ** sharp * lit
            rim = 0.10 * strength * (1 - max(facing, 0.0)) ** 3
            for k in range(3):
                value = (
                    albedo[k] * (ambient_light[k] * sky + lamp_light[k] * lit)
                    + lamp_light[k] * shine
                    + ambient_light[k] * rim
                )
                color[i // samples, j // samples, k] += value * unit
            cover[i // samples, j // samples] += unit


@njit(cache=True)
def _texel(pictures, start, height, width, u, v, linear, out):
    x, y = (u - np.floor(u)) * width - 0.5, min(max(v, 0.0), 1.0) * height - 0.5
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - x0, y - y0
    for k in range(3):
        out[k] = 0.0
    for dy in range(2):
        for dx in range(2):
            weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy)
            row, column = min(max(y0 + dy, 0), height - 1), (x0 + dx) % width
            for k in range(3):
                out[k] += weight * linear[pictures[start + row * width + column, k]]


@njit(cache=True)
def _lit(p, n, frame, shadow, origin, texel, bias):
    """Share of a 3 x 3 neighbourhood of the shadow map that does not stand between here and the lamp."""
    x, y, z = p[0] + n[0] * bias, p[1] + n[1] * bias, p[2] + n[2] * bias
    u = (frame[0, 0] * x + frame[0, 1] * y + frame[0, 2] * z - origin[0]) / texel - 0.5
    v = (frame[1, 0] * x + frame[1, 1] * y + frame[1, 2] * z - origin[1]) / texel - 0.5
    height = frame[2, 0] * x + frame[2, 1] * y + frame[2, 2] * z + bias
    iu, iv = int(np.floor(u)), int(np.floor(v))
    fu, fv = u - iu, v - iv
    free, total = 0.0, 0.0
    for dv in range(-1, 3):
        for du in range(-1, 3):
            wu = 1 - fu if du == -1 else (fu if du == 2 else 1.0)
            wv = 1 - fv if dv == -1 else (fv if dv == 2 else 1.0)
            r, c = iv + dv, iu + du
            total += wu * wv
            if not (0 <= r < shadow.shape[0] and 0 <= c < shadow.shape[1]) or shadow[r, c] <= height:
                free += wu * wv
    return free / total
