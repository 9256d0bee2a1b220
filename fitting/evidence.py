"""What speaks for or against a pose of one frame, all of it in one number.

Beside what a fit follows that is the person's own colours (a sleeve is not a palm), and the trunk, which no arm reaches
through.  The detector's skeleton counts apart: it may be the one that is wrong.

Enters: the frames of a clip and the poses that its colours are learned at.  Leaves: costs of any pose, in units of
``solve.pose_cost``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np

from fitting.body.model import BodyModel
from fitting.body.skinning import vertex_normals
from fitting.chain import Chain
from fitting.clip import REFINE, Clip, default_prior
from fitting.contact import Touch, inside_rows
from fitting.observe import Observation
from fitting.photometric import SIGMA, Appearance, Pictures, Samples, Sight, learn
from fitting.shelf import Shelf
from fitting.solve import EVERYWHERE, Prior, Schedule, State, pose_cost, solve_pose
from fitting.terms import residuals, robust_energy, world_rows
from fitting.view import drawn

SETTLE = Schedule(
    4, (REFINE.landmark_scale[0], 3.0), REFINE.gate_m, REFINE.gate_outline, REFINE.world_sigma_m,
    landmark_depth_sigma_m=REFINE.landmark_depth_sigma_m,
)  # fmt: skip
WORLD_SIGMA_M = float(np.sqrt(np.prod(EVERYWHERE.world_sigma_m)))  # as ``pose_cost`` counts it
COLOR_COUNT = 750.0  # half of what the outline's cells count for: shading and folds are no other limb
COLOR_KERNEL, UNKNOWN_COLOR = 2.0, 0.4  # in sigma; the usual cost of a cell, for those whose colour nobody knows
CELLS_BYTES = 20_000_000  # in memory, of frames' mean colours

T_co = TypeVar("T_co", covariant=True)


class _ByFrame(Protocol[T_co]):
    def __getitem__(self, index: int, /) -> T_co: ...


@dataclass(frozen=True)
class Evidence:
    """All that speaks for or against a pose of one clip."""

    body: BodyModel
    chain: Chain
    clip: _ByFrame[Observation | None]
    prior: Prior
    touch: Touch
    pictures: _ByFrame[Sight]
    appearance: Appearance

    @cached_property
    def _cells(self) -> Shelf[np.ndarray]:
        """``_cells_of`` the last frames: their poses are compared one after another."""
        return Shelf(CELLS_BYTES)

    @staticmethod
    def of(
        body: BodyModel, chain: Chain, clip: Clip, states: dict[int, State], samples: Samples | None = None
    ) -> Evidence:
        pictures = Pictures(clip, 1.5, samples)
        teachers = [i for i in states if i < clip.num_teaching]
        appearance = learn(body, chain, clip, states, teachers, pictures)
        return Evidence(body, chain, clip, default_prior(body, chain), Touch.of(body), pictures, appearance)

    def of_frames(self, frames: Sequence[int]) -> Evidence:
        """What speaks in these frames alone, to be sent elsewhere."""
        return replace(self, clip={i: self.clip[i] for i in frames}, pictures={i: self.pictures[i] for i in frames})

    def settled(self, index: int, state: State) -> State:
        """The pose that the frame alone makes of ``state``."""
        return solve_pose(self.chain, self.body.faces, self._seen(index), state, self.prior, SETTLE)[0]

    def costs(self, index: int, state: State) -> tuple[float, float]:
        """(all but the detector's skeleton, the detector's skeleton)."""
        seen = self._seen(index)
        points_m = self.chain.posed(state.pose, state.camera_from_body)
        rows = world_rows(seen, points_m, self.chain.num_vertices, WORLD_SIGMA_M)
        world = robust_energy(residuals(rows, points_m, seen)[0], rows.scale)[0]
        total = pose_cost(self.chain, self.body.faces, seen, state, self.prior)
        vertices_m = points_m[: self.chain.num_vertices]
        normals = vertex_normals(vertices_m, self.body.faces).astype(float)
        rows = inside_rows(self.touch, vertices_m, normals)
        inside = robust_energy(residuals(rows, points_m, seen)[0], rows.scale)[0]
        return total - world + inside + self._color(index, vertices_m), world

    def _seen(self, index: int) -> Observation:
        observation = self.clip[index]
        assert observation is not None
        return observation

    def _cells_of(self, index: int) -> np.ndarray:
        """(h, w, 3) float32 mean colours of the grid's cells."""
        (height, width), color = self._seen(index).mask.shape, self.pictures[index].color
        finer = color.shape[0] // height
        return color.astype(np.float32).reshape(height, finer, width, finer, 3).mean((1, 3))

    def _color(self, index: int, vertices_m: np.ndarray) -> float:
        """COLOR_COUNT * mean over the cells of body or person of min(1, |I / gain - c|^2 / (kernel sigma)^2)."""
        seen = self._seen(index)
        _, face_index, _ = drawn(seen, vertices_m, self.body.faces)
        known = (face_index >= 0) & (seen.mask > 0.9) & seen.inside
        corners = self.body.faces[face_index[known]]  # (K, 3)
        cells = self._cells.get(index, self._cells_of)[known]
        normals = vertex_normals(vertices_m, self.body.faces).astype(float)[corners].mean(1)
        gain = self.appearance.gains(index, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9))
        expected, sigma = self.appearance.color[corners].mean(1), self.appearance.sigma[corners].mean(1)
        square = ((cells / gain - expected) ** 2).mean(1) / (SIGMA**2 + sigma**2) / COLOR_KERNEL**2
        cost = np.where(np.isfinite(square), np.minimum(square, 1.0), UNKNOWN_COLOR)
        count = ((face_index >= 0) | (seen.mask > 0.5)).sum()
        return float(COLOR_COUNT * cost.sum() / max(count, 1))
