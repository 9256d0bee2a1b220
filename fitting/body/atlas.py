"""The IUV atlas."""

import numpy as np


def build_atlas(vertices_m, faces, face_part):
    num = int(face_part.max())
    grid = int(np.ceil(np.sqrt(num)))
    uv, face_uv = [], np.zeros_like(faces)
    for part in range(1, num + 1):
        mine = face_part == part
        used, compact = np.unique(faces[mine], return_inverse=True)
        p = vertices_m[used] - vertices_m[used].mean(0)
        _, _, axes = np.linalg.svd(p, full_matrices=False)
        q = p @ axes[:2].T
        q = (q - q.min(0)) / (q.max(0) - q.min(0)) * 0.9 + 0.05
        cell = np.array([(part - 1) % grid, (part - 1) // grid])
        face_uv[mine] = compact.reshape(-1, 3) + sum(map(len, uv))
        uv.append((q + cell) / grid)
    return np.concatenate(uv), face_uv
