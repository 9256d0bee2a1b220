"""The solver's energy in torch is the solver's energy."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_solve import observe_body, random_state

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import body_fit_torch
from body_fit_torch import Clock, Settings, Skinning, Stage, Task, adam, energies_apart

from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import ALONE, default_prior
from fitting.solve import build_rows, total_energy
from fitting.terms import Rows


@pytest.fixture
def stage(body: BodyModel, chain: Chain) -> Stage:
    return Stage(body, chain, default_prior(body, chain))


@pytest.fixture
def task(body: BodyModel, chain: Chain) -> Task:
    """A hand beyond the picture's edge, and a start that is off, with some angles beyond their limits."""
    seen = observe_body(body, chain, random_state(chain, 3), with_depth=True)
    outward, edge_px = seen.outward.copy(), seen.edge_px.copy()
    outward[15, 1], edge_px[15, 1] = 1, seen.landmarks_px[15, 1] + 40
    return Task(replace(seen, outward=outward, edge_px=edge_px), random_state(chain, 4, 0.4), np.zeros((12, 3)))


def test_solver_and_twin_have_the_same_energy(stage: Stage, task: Task) -> None:
    chain, prior = stage.chain, stage.prior
    rows = build_rows(chain, stage.body.faces, task.observation, task.start, ALONE, 1.0)
    of_wrist = rows.is_pixel & (rows.point == chain.num_vertices + 15)
    assert of_wrist.sum() == 3, "two rows of the landmark and one of the edge"
    of_surface = ~rows.is_pixel & (rows.point < chain.num_vertices)
    assert len(np.unique((rows.scale / rows.weight)[of_surface].round(6))) > 1, "cloth may stand off: two widths"
    dofs = chain.dofs(task.start.pose)
    assert ((dofs > prior.upper) | (dofs < prior.lower)).any()
    assert energies_apart(stage, Skinning(chain), task, ALONE) < 1e-4


def test_a_twin_with_another_kernel_is_found_out(stage: Stage, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = body_fit_torch.RowBatch

    def even(rows: list[Rows], tasks: list[Task], num_points: int) -> body_fit_torch.RowBatch:
        return plain([replace(r, scale=np.full(len(r.scale), 4.0)) for r in rows], tasks, num_points)

    monkeypatch.setattr(body_fit_torch, "RowBatch", even)
    assert energies_apart(stage, Skinning(stage.chain), task, ALONE) > 1e-2


def test_adam_descends_for_two_frames_as_for_each(stage: Stage, task: Task, chain: Chain) -> None:
    other = replace(task, start=random_state(chain, 5, 0.1))
    settings = Settings(8, 0.01, True, ALONE)
    skinning = Skinning(chain)
    together = adam(stage, skinning, [task, other], settings, Clock())
    for one, state in zip([task, other], together, strict=True):
        (alone,) = adam(stage, skinning, [one], settings, Clock())
        np.testing.assert_allclose(
            chain.posed(alone.pose, alone.camera_from_body), chain.posed(state.pose, state.camera_from_body), atol=1e-3
        )
        rows = build_rows(chain, stage.body.faces, one.observation, one.start, ALONE, 0.0)
        before, after = (total_energy(chain, one.observation, s, stage.prior, rows) for s in (one.start, state))
        assert after < before
