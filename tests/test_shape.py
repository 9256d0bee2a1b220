"""The lens is estimated with the body: a person with long legs is not taken for one who stands near the camera."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from test_solve import GRID, observe_body, random_state

from capture.camera import Camera
from fitting.body.model import BodyModel, rotations
from fitting.observe import Observation
from fitting.shape import chain_of, estimate_focal
from fitting.solve import State

FRAMES = 6
LENSES = (0.85, 0.55, 1.05, 1.3)
LONG_LEGS = np.array([0.8, 0.9, -0.6, 0.4, 0, 0, 0, 0, 0, 0])


@dataclass(frozen=True)
class Film:
    """What an ideal camera saw, for anybody who believes in ``camera``."""

    seen: tuple[Observation, ...]
    camera: Camera

    class recording:
        has_depth = np.zeros(FRAMES, bool)

    def __getitem__(self, index: int) -> Observation:
        return replace(self.seen[index], camera=self.camera)


@pytest.mark.parametrize("ratio", [0.55, 1.3])
def test_the_lens_of_somebody_unlike_the_mean(body: BodyModel, monkeypatch: pytest.MonkeyPatch, ratio: float) -> None:
    true = GRID.with_focal(ratio * max(GRID.image_wh))
    monkeypatch.setattr("test_solve.GRID", true)
    monkeypatch.setattr("fitting.shape.FOCALS", LENSES)  # enough to choose among
    chain = chain_of(body, LONG_LEGS)
    seen = []
    for k in range(FRAMES):
        state = random_state(chain, k, 0.12)
        placed = state.camera_from_body.copy()
        placed[:3, :3] = placed[:3, :3] @ rotations(np.array([[0, 0, 2 * np.pi * k / FRAMES]]))[0]
        placed[2, 3] *= true.fx_px / GRID.fx_px  # as large in the picture by any lens
        seen.append(observe_body(body, chain, State(state.pose, placed), with_depth=False))
    film: Any = Film(tuple(seen), GRID)
    camera, _ = estimate_focal(body, film, list(range(FRAMES)), 3)
    assert camera.fx_px == pytest.approx(true.fx_px)
