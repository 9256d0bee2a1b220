"""Fewer triangles, same person: quadric edge collapse that only ever drops vertices.

In: a triangle mesh (V vertices, F faces), a label per face, an importance per vertex.  Out: kept vertices, new faces.

Garland and Heckbert 1997, but a collapse moves u onto its neighbour v (half-edge collapse), so that kept vertices are a
subset and keep their skinning weights and shape deltas exactly.  Edges between labels and open edges are features: they
may only slide along themselves, which keeps body parts and the plane of symmetry where they are.
"""

from __future__ import annotations

import heapq

import numpy as np

FEATURE_WEIGHT = 0.03  # planes that stand on feature edges, against the surface: enough to straighten their teeth
LENGTH_WEIGHT = 1.2e-2  # prefers short edges where the surface is flat, so that triangles stay even
MIN_NORMAL_COS = 0.3  # a collapse may not turn a face further than this


class Simplifier:
    """Collapses the cheapest edge until told to stop; deterministic, ties go to the lower vertex numbers."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, labels: np.ndarray, importance: np.ndarray) -> None:
        self.vertices = vertices.astype(float)
        self.faces: dict[int, tuple[int, int, int]] = {i: (int(a), int(b), int(c)) for i, (a, b, c) in enumerate(faces)}
        self.labels = labels
        self.importance = importance
        self.faces_of: list[set[int]] = [set() for _ in vertices]
        for index, face in self.faces.items():
            for v in face:
                self.faces_of[v].add(index)
        self.quadrics = self._quadrics()
        self.version = np.zeros(len(vertices), int)
        self.heap: list[tuple[float, int, int, int, int]] = []
        for u in range(len(vertices)):
            for v in self._targets(u):
                self._push(u, v)

    def _quadrics(self) -> np.ndarray:
        """(V, 4, 4): area-weighted planes of the faces around a vertex, and planes that stand on its feature edges."""
        quadrics = np.zeros((len(self.vertices), 4, 4))
        for face in self.faces.values():
            a, b, c = self.vertices[list(face)]
            normal = np.cross(b - a, c - a)
            area = np.linalg.norm(normal)
            if area == 0:
                continue
            normal /= area
            plane = np.append(normal, -normal @ a)
            quadrics[list(face)] += area * np.outer(plane, plane)
            for u, v in ((face[0], face[1]), (face[1], face[2]), (face[2], face[0])):
                if self._is_feature(u, v):
                    across = np.cross(self.vertices[v] - self.vertices[u], normal)
                    plane = np.append(across, -across @ self.vertices[u])  # scaled by the length of the edge
                    quadrics[[u, v]] += FEATURE_WEIGHT * np.outer(plane, plane)
        return quadrics

    def _is_feature(self, u: int, v: int) -> bool:
        around = self.faces_of[u] & self.faces_of[v]
        return len(around) == 1 or len({self.labels[f] for f in around}) > 1

    def neighbours(self, u: int) -> set[int]:
        """Vertices that share an edge with u."""
        return {v for f in self.faces_of[u] for v in self.faces[f]} - {u}

    def is_open(self, u: int) -> bool:
        """Whether u lies on an open edge (for half a body: on the plane of symmetry)."""
        return any(len(self.faces_of[u] & self.faces_of[v]) == 1 for v in self.neighbours(u))

    def _targets(self, u: int) -> list[int]:
        """Where u may go: along its feature line when it lies on one, nowhere when it is a corner of several."""
        near = sorted(self.neighbours(u))
        features = [v for v in near if self._is_feature(u, v)]
        if not features:
            return near
        return features if len(features) == 2 else []

    def _push(self, u: int, v: int) -> None:
        p = np.append(self.vertices[v], 1.0)
        size = max(self.importance[u], self.importance[v])
        length = np.linalg.norm(self.vertices[u] - self.vertices[v])
        cost = size**4 * (p @ (self.quadrics[u] + self.quadrics[v]) @ p + LENGTH_WEIGHT * length**4)
        heapq.heappush(self.heap, (float(cost), u, v, int(self.version[u]), int(self.version[v])))

    def _allowed(self, u: int, v: int) -> bool:
        shared = self.faces_of[u] & self.faces_of[v]
        if len(self.neighbours(u) & self.neighbours(v)) != len(shared):
            return False  # would pinch the surface
        for index in self.faces_of[u] - shared:
            face = self.faces[index]
            old = self.vertices[list(face)]
            new = self.vertices[[v if w == u else w for w in face]]
            before, after = (np.cross(t[1] - t[0], t[2] - t[0]) for t in (old, new))
            if before @ after < MIN_NORMAL_COS * np.linalg.norm(before) * np.linalg.norm(after):
                return False
            longest = max(((new[i] - new[i - 1]) ** 2).sum() for i in range(3))
            if np.linalg.norm(after) < 0.05 * longest:
                return False  # a sliver
        return all(
            len(self.faces_of[w]) > 3 or self.is_open(w) for w in self.neighbours(u) & self.neighbours(v)
        )  # keeps every inner vertex with at least three faces

    def collapse(self, only_open: bool = False) -> int | None:
        """Drop the cheapest vertex and return it, None when nothing more may go."""
        postponed = []
        dropped = None
        while self.heap:
            entry = heapq.heappop(self.heap)
            _, u, v, version_u, version_v = entry
            if version_u != self.version[u] or version_v != self.version[v]:
                continue
            if only_open and not self.is_open(u):
                postponed.append(entry)
                continue
            if not self._allowed(u, v):
                continue
            self._merge(u, v)
            dropped = u
            break
        for entry in postponed:
            heapq.heappush(self.heap, entry)
        return dropped

    def _merge(self, u: int, v: int) -> None:
        for index in list(self.faces_of[u]):
            face = self.faces[index]
            for w in face:
                self.faces_of[w].discard(index)
            if v in face:
                del self.faces[index]
                continue
            self.faces[index] = tuple(v if w == u else w for w in face)  # type: ignore[assignment]
            for w in self.faces[index]:
                self.faces_of[w].add(index)
        self.quadrics[v] += self.quadrics[u]
        changed = {v} | self.neighbours(v)
        self.version[[u, *changed]] += 1
        for w in sorted(changed):
            for x in self._targets(w):
                self._push(w, x)
        for x in sorted({x for w in changed for x in self.neighbours(w)} - changed):
            for w in self._targets(x):
                if w in changed:
                    self._push(x, w)

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Kept vertices (indices into the input), faces (F', 3) in the new numbering, labels (F',)."""
        indices = sorted(self.faces)
        faces = np.array([self.faces[i] for i in indices])
        kept = np.unique(faces)
        renumber = np.full(len(self.vertices), -1)
        renumber[kept] = np.arange(len(kept))
        return kept, renumber[faces], self.labels[indices]
