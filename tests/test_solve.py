"""The solver's derivatives, and that it finds poses it has not been told."""

from dataclasses import replace

import numpy as np
import pytest

from capture.camera import Camera
from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import EVERYTHING, default_prior, fit_from_scratch
from fitting.observe import Observation, _surface_normals, outline_of
from fitting.solve import (
    Prior,
    Schedule,
    State,
    advance,
    build_rows,
    normal_equations,
    prior_terms,
    render_view,
    smoothness_terms,
    solve_pose,
    total_energy,
)
from fitting.terms import Rows, landmark_depth_rows, landmark_rows, outline_rows, residuals, world_rows
from fitting.zbuffer import rasterize_faces

GRID = Camera((160, 192), 220.0, 220.0, 80.0, 96.0)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.default()


@pytest.fixture(scope="module")
def chain(body: BodyModel) -> Chain:
    return Chain.build(body, *body.shaped(np.zeros(body.num_shape)))


def random_state(chain: Chain, seed: int, spread_rad: float = 0.25) -> State:
    """A standing person 2.4 m in front of the camera, joints a little bent."""
    rng = np.random.default_rng(seed)
    placed = np.eye(4)
    placed[:3, :3] = [[-1, 0, 0], [0, 0, -1], [0, -1, 0]]  # body z up is camera -y, the face looks at the camera
    placed[:3, 3] = [0.0, 0.85, 2.4]
    dofs = rng.normal(0, spread_rad, chain.num_free)
    state = State(chain.with_dofs(np.zeros((len(chain.parents), 3)), dofs), placed)
    turn = np.concatenate([np.zeros(chain.num_free), rng.normal(0, 0.15, 3), rng.normal(0, 0.05, 3)])
    return advance(state, turn, chain)


def observe_body(body: BodyModel, chain: Chain, state: State, with_depth: bool) -> Observation:
    """The evidence that an ideal sensor would have of a posed body."""
    points_m = chain.posed(state.pose, state.camera_from_body)
    vertices = points_m[: chain.num_vertices]
    pixels = points_m[:, :2] / points_m[:, 2:] * GRID.fx_px + (GRID.cx_px, GRID.cy_px)
    face_index, _, z = rasterize_faces(pixels[: chain.num_vertices], vertices[:, 2], body.faces, GRID.image_wh)
    mask = face_index >= 0
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    z = np.where(mask, z, np.nan).astype(float)
    surface = np.stack([(columns - GRID.cx_px) / GRID.fx_px * z, (rows - GRID.cy_px) / GRID.fy_px * z, z], -1)
    landmarks = points_m[chain.num_vertices :]
    height = np.flatnonzero(mask.any(1))
    return Observation(
        camera=GRID,
        mask=mask.astype(np.float32),
        inside=np.ones(mask.shape, bool),
        surface_m=surface if with_depth else None,
        surface_normals=_surface_normals(surface) if with_depth else None,
        outline=outline_of(mask, 240),
        landmarks_px=pixels[chain.num_vertices :],
        confidence=np.ones(33),
        visibility=np.ones(33),
        world_m=landmarks - landmarks[[23, 24]].mean(0),
        height_px=float(height[-1] - height[0] + 1),
    )


def test_chain_poses_as_the_body_does(body: BodyModel, chain: Chain) -> None:
    state = random_state(chain, 1)
    vertices_m, joints_m = body.posed(np.zeros(body.num_shape), state.pose, state.camera_from_body)
    points_m = chain.posed(state.pose, state.camera_from_body)
    np.testing.assert_allclose(points_m[: chain.num_vertices], vertices_m, atol=2e-5)
    np.testing.assert_allclose(points_m[chain.num_vertices :], body.landmarks(vertices_m), atol=2e-5)
    np.testing.assert_allclose(chain.transforms(state.pose, state.camera_from_body)[2], joints_m, atol=2e-5)


@pytest.mark.parametrize("term", ["landmark", "landmark depth", "world", "depth", "outline"])
def test_jacobian_of_each_term_is_its_numerical_gradient(body: BodyModel, chain: Chain, term: str) -> None:
    state = random_state(chain, 2)
    observation = observe_body(body, chain, random_state(chain, 3), with_depth=True)
    points_m = chain.posed(state.pose, state.camera_from_body)
    rng = np.random.default_rng(0)
    rows = _rows_of(term, body, chain, observation, points_m)
    pick = rng.choice(len(rows.point), min(40, len(rows.point)), replace=False)
    rows = Rows(*(getattr(rows, name)[pick] for name in Rows.__dataclass_fields__))
    _, gradient = residuals(rows, points_m, observation)
    analytic = chain.jacobian(state.pose, state.camera_from_body, rows.point, gradient)
    numeric = np.empty_like(analytic)
    for d in range(analytic.shape[1]):
        step = np.zeros(analytic.shape[1])
        step[d] = 1e-5
        ends = [advance(state, sign * step, chain) for sign in (1, -1)]
        plus, minus = (residuals(rows, chain.posed(s.pose, s.camera_from_body), observation)[0] for s in ends)
        numeric[:, d] = (plus - minus) / 2e-5
    scale = np.abs(numeric).max()
    assert scale > 1
    np.testing.assert_allclose(analytic, numeric, atol=2e-6 * scale)


def _rows_of(term: str, body: BodyModel, chain: Chain, observation: Observation, points_m: np.ndarray) -> Rows:
    count = chain.num_vertices
    if term == "landmark":
        return landmark_rows(observation, count, np.inf)
    if term == "world":
        return world_rows(observation, points_m, count, 0.1)
    if term == "depth":
        rng = np.random.default_rng(1)
        ids = rng.choice(count, 60, replace=False).astype(np.int32)
        normals = rng.normal(size=(60, 3))
        return Rows(ids, np.zeros(60, bool), normals, points_m[ids] + 0.01, np.full(60, 80.0), np.full(60, np.inf))
    if term == "landmark depth":
        hidden = replace(observation, visibility=np.where(np.arange(33) % 2, 0.1, 1.0))
        return landmark_depth_rows(hidden, points_m, count, 0.4, 0.05)
    view = render_view(observation, points_m[:count], body.faces)
    return outline_rows(observation, view.outline, view.outline_vertex, points_m, 0.5, chain.looseness_m)


def test_gradient_of_priors_is_numerical(body: BodyModel, chain: Chain) -> None:
    state, neighbour = random_state(chain, 4, 0.8), random_state(chain, 5)
    prior = replace(default_prior(body, chain), neighbour=neighbour)
    dofs = chain.dofs(state.pose)
    root_m = chain.joints_m[0]

    def energy(step: np.ndarray) -> float:
        moved = advance(state, step, chain)
        x = chain.dofs(moved.pose)
        return prior_terms(prior, x)[2] + smoothness_terms(prior, moved, x, chain.dofs(neighbour.pose), root_m)[2]

    gradient = prior_terms(prior, dofs)[1]
    gradient = gradient + smoothness_terms(prior, state, dofs, chain.dofs(neighbour.pose), root_m)[1]
    steps = np.eye(len(gradient)) * 1e-6
    numeric = np.array([(energy(s) - energy(-s)) / 2e-6 for s in steps]) / 2  # E = r.r has gradient 2 J.r
    # The turn's residual is a rotation vector whose Jacobian the solver takes as one.
    turn = slice(chain.num_free, chain.num_free + 3)
    np.testing.assert_allclose(np.delete(gradient, turn), np.delete(numeric, turn), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(gradient[turn], numeric[turn], rtol=0.2, atol=0.5)


def test_a_step_never_raises_the_energy(body: BodyModel, chain: Chain) -> None:
    observation = observe_body(body, chain, random_state(chain, 6), with_depth=True)
    prior = default_prior(body, chain)
    state = random_state(chain, 7, 0.5)
    for _ in range(4):
        once = replace(EVERYTHING, iterations=1)
        moved, _ = solve_pose(chain, body.faces, observation, state, prior, once)
        rows = build_rows(chain, body.faces, observation, state, once, 0.0)
        before = total_energy(chain, observation, state, prior, rows)
        assert total_energy(chain, observation, moved, prior, rows) <= before
        state = moved


@pytest.mark.parametrize(("with_depth", "limit_mm"), [(True, 12.0), (False, 45.0)])
def test_finds_a_pose_from_perfect_evidence(body: BodyModel, chain: Chain, with_depth: bool, limit_mm: float) -> None:
    prior = default_prior(body, chain)
    errors_mm = []
    for seed in range(8, 12):
        truth = random_state(chain, seed, 0.2)
        truth = State(chain.with_dofs(truth.pose, np.clip(chain.dofs(truth.pose), prior.lower, prior.upper)),
                      truth.camera_from_body)  # fmt: skip
        observation = observe_body(body, chain, truth, with_depth)
        state, _ = fit_from_scratch(body, chain, observation, prior)
        state, _ = solve_pose(chain, body.faces, observation, state, prior, EVERYTHING)
        error = chain.posed(state.pose, state.camera_from_body) - chain.posed(truth.pose, truth.camera_from_body)
        errors_mm.append(np.linalg.norm(error, axis=1).mean() * 1e3)
    assert np.median(errors_mm) < limit_mm


def test_normal_equations_match_the_rows(body: BodyModel, chain: Chain) -> None:
    state = random_state(chain, 12)
    observation = observe_body(body, chain, random_state(chain, 13), with_depth=False)
    prior: Prior = default_prior(body, chain)
    rows = build_rows(chain, body.faces, observation, state, Schedule(1, use_depth=False), 1.0)
    matrix, gradient, energy = normal_equations(chain, observation, state, prior, rows)
    assert energy == pytest.approx(total_energy(chain, observation, state, prior, rows))
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-9, atol=1e-6)
    assert gradient.shape == (chain.num_free + 6,)
