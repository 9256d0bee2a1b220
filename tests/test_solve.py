"""The solver's derivatives, and that it finds poses it has not been told."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest

from capture.camera import Camera, project
from fitting.association import match
from fitting.body.model import BodyModel, rotations
from fitting.chain import Chain, rotation_vector
from fitting.clip import ALONE, EVERYTHING, _with_best_limbs, default_prior, fit_from_scratch
from fitting.gauss_newton import damped_step, normal_matrix
from fitting.observe import Observation, _surface_normals, outline_of
from fitting.solve import (
    PICTURE_COUNT,
    PICTURE_SCALE_M,
    Prior,
    Schedule,
    State,
    advance,
    build_rows,
    normal_equations,
    pose_cost,
    prior_terms,
    render_view,
    smoothness_terms,
    solve_pose,
    total_energy,
)
from fitting.terms import (
    Rows,
    landmark_depth_rows,
    landmark_rows,
    out_of_view_rows,
    outline_rows,
    residuals,
    robust_energy,
    world_rows,
)
from fitting.zbuffer import rasterize_faces

GRID = Camera((160, 192), 220.0, 220.0, 80.0, 96.0)


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


def observe_body(
    body: BodyModel,
    chain: Chain,
    state: State,
    with_depth: bool,
    worn: Sequence[tuple[np.ndarray, np.ndarray]] = (),
) -> Observation:
    """The evidence that an ideal sensor would have of a posed body and the points (V, 3) and faces of what it wears."""
    points_m = chain.posed(state.pose, state.camera_from_body)
    vertices = points_m[: chain.num_vertices]
    pixels = points_m[:, :2] / points_m[:, 2:] * GRID.fx_px + (GRID.cx_px, GRID.cy_px)
    _, _, z = rasterize_faces(pixels[: chain.num_vertices], vertices[:, 2], body.faces, GRID.image_wh)
    for cloth_m, faces in worn:
        z = np.minimum(z, rasterize_faces(project(GRID, cloth_m), cloth_m[:, 2], faces, GRID.image_wh)[2])
    mask = np.isfinite(z)
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
        outward=np.zeros((33, 2)),
        edge_px=pixels[chain.num_vertices :],
    )


def test_chain_poses_as_the_body_does(body: BodyModel, chain: Chain) -> None:
    state = random_state(chain, 1)
    vertices_m, joints_m = body.posed(np.zeros(body.num_shape), state.pose, state.camera_from_body)
    points_m = chain.posed(state.pose, state.camera_from_body)
    np.testing.assert_allclose(points_m[: chain.num_vertices], vertices_m, atol=2e-5)
    np.testing.assert_allclose(points_m[chain.num_vertices :], body.landmarks(vertices_m), atol=2e-5)
    np.testing.assert_allclose(chain.transforms(state.pose, state.camera_from_body)[2], joints_m, atol=2e-5)


TERMS = "landmark", "landmark depth", "out of view", "world", "depth", "outline"


@pytest.mark.parametrize("term", TERMS)
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
    if term == "out of view":
        beyond = replace(observation, outward=np.ones((33, 2)), edge_px=observation.landmarks_px + 15)
        return out_of_view_rows(beyond, points_m, count, np.inf)
    view = render_view(observation, points_m[:count], body.faces)
    return outline_rows(observation, view.outline, view.outline_vertex, points_m, 0.5, chain.looseness_m, True)


def test_a_hand_out_of_view_leaves_the_picture_and_goes_no_further(body: BodyModel, chain: Chain) -> None:
    state = random_state(chain, 14, 0.1)
    seen = observe_body(body, chain, state, with_depth=False)
    wrist = 15
    limit_px = seen.landmarks_px[wrist, 1] + 12  # the picture ends a little below where the hand is drawn
    outward, edge_px = seen.outward.copy(), seen.edge_px.copy()
    outward[wrist, 1], edge_px[wrist, 1] = 1, limit_px
    confidence = np.where(np.isin(np.arange(33), [15, 17, 19, 21]), 0.0, 1.0)
    cut = replace(seen, outward=outward, edge_px=edge_px, confidence=confidence)
    plain = replace(EVERYTHING, use_outline=False)
    prior = default_prior(body, chain)

    def wrist_px(observation: Observation) -> float:
        found, _ = solve_pose(chain, body.faces, observation, state, prior, plain)
        _, y, z = chain.posed(found.pose, found.camera_from_body)[chain.num_vertices + wrist]
        return float(y / z * GRID.fy_px + GRID.cy_px)

    free_px = wrist_px(replace(cut, outward=np.zeros((33, 2))))
    assert free_px < limit_px - 4
    assert limit_px - 0.5 * (limit_px - free_px) < wrist_px(cut) < limit_px + 1
    # Beyond the edge nobody knows: a hand that is further out is left alone.
    edge_px = edge_px - (0, limit_px - free_px + 2)
    assert abs(wrist_px(replace(cut, edge_px=edge_px)) - free_px) < 1e-6


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


def test_the_energy_that_is_returned_is_never_above_the_start_on_its_rows(body: BodyModel, chain: Chain) -> None:
    observation = observe_body(body, chain, random_state(chain, 6), with_depth=True)
    prior = default_prior(body, chain)
    state = random_state(chain, 7, 0.5)
    rows = build_rows(chain, body.faces, observation, state, ALONE, 0.0)
    energies = [total_energy(chain, observation, state, prior, rows)]
    for steps in (1, 2, 4):  # on the rows of one search
        moved, energy = solve_pose(
            chain, body.faces, observation, state, prior, replace(ALONE, iterations=1, steps=steps)
        )
        assert energy == pytest.approx(total_energy(chain, observation, moved, prior, rows))
        energies.append(energy)
    assert (np.diff(energies) < 0).all()


def test_limbs_come_back_from_a_disturbed_start(body: BodyModel, chain: Chain) -> None:
    """Every joint angle off by 0.15 rad, standard deviation: a hand is where a narrow kernel no longer asks for it."""
    prior = default_prior(body, chain)
    rng = np.random.default_rng(0)
    wide = replace(ALONE, iterations=8)
    narrow = replace(wide, landmark_scale=(6.0, 3.0), steps=1)
    errors_mm = []
    for seed in range(20, 30):
        truth = random_state(chain, seed, 0.2)
        dofs = np.clip(chain.dofs(truth.pose), prior.lower, prior.upper)
        truth = State(chain.with_dofs(truth.pose, dofs), truth.camera_from_body)
        observation = observe_body(body, chain, truth, with_depth=True)
        off = np.concatenate([rng.normal(0, 0.15, chain.num_free), np.zeros(3), rng.normal(0, 0.03, 3)])
        true_m = chain.posed(truth.pose, truth.camera_from_body)
        for schedule in (wide, narrow):
            start = advance(truth, off, chain)
            found, _ = solve_pose(chain, body.faces, observation, start, prior, schedule)
            error_m = np.linalg.norm(chain.posed(found.pose, found.camera_from_body) - true_m, axis=1)
            errors_mm.append(1e3 * error_m.mean())
    wide_mm, narrow_mm = np.array(errors_mm).reshape(-1, 2).T
    assert (wide_mm > 30).sum() == 0  # with a limb elsewhere it is more than that
    assert (narrow_mm > 30).sum() > 1


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


def test_the_sparse_system_is_the_dense_one(body: BodyModel, chain: Chain) -> None:
    state = random_state(chain, 14)
    observation = observe_body(body, chain, random_state(chain, 15, 0.2), with_depth=True)
    rows = build_rows(chain, body.faces, observation, state, EVERYTHING, 0.5)
    assert len(rows.point) > 500 and rows.is_pixel.any() and not rows.is_pixel.all()
    transforms = chain.transforms(state.pose, state.camera_from_body)
    r, by_point = residuals(rows, chain.points(*transforms[:2]), observation)
    _, irls = robust_energy(r, rows.scale)
    matrix, gradient = normal_matrix(chain, state.pose, transforms, rows.point, by_point, r, irls)
    jacobian = chain.jacobian(state.pose, state.camera_from_body, rows.point, by_point)
    dense = jacobian.T @ (jacobian * irls[:, None])
    np.testing.assert_allclose(matrix, dense, atol=1e-12 * np.abs(dense).max())
    np.testing.assert_allclose(gradient, jacobian.T @ (irls * r), atol=1e-12 * np.abs(jacobian.T @ (irls * r)).max())


def test_a_damped_step_solves_the_damped_system() -> None:
    rng = np.random.default_rng(16)
    factor = rng.normal(size=(40, 30))
    matrix, gradient = factor.T @ factor, rng.normal(size=30)
    damped = matrix + np.diag(0.1 * np.diag(matrix) + 1e-9)
    np.testing.assert_allclose(damped_step(matrix, gradient, 0.1), -np.linalg.solve(damped, gradient), rtol=1e-8)
    assert not np.isfinite(damped_step(-np.eye(3), np.ones(3), 0.0)).any()


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, 3.0, np.pi - 1e-7, np.pi])
def test_a_rotation_vector_is_found_again(angle: float) -> None:
    for axis in np.concatenate([np.eye(3), np.random.default_rng(17).normal(size=(6, 3))]):
        vector = angle * axis / np.linalg.norm(axis)
        found = rotation_vector(rotations(vector[None])[0])
        if angle > 3.1:  # half a turn forwards is half a turn backwards
            found = found * np.sign(found @ vector)
        np.testing.assert_allclose(found, vector, atol=1e-7)


def test_each_point_is_matched_with_the_nearest_that_faces_the_same_way() -> None:
    rng = np.random.default_rng(18)
    points, others = rng.uniform(-3, 40, (80, 2)), rng.uniform(-3, 40, (90, 2))
    angles, other_angles = rng.uniform(0, 6.3, 80), rng.uniform(0, 6.3, 90)
    normals = np.stack([np.cos(angles), np.sin(angles)], 1)
    other_normals = np.stack([np.cos(other_angles), np.sin(other_angles)], 1)
    distance = np.linalg.norm(points[:, None] - others, axis=-1)
    distance[(normals @ other_normals.T <= 0.6) | (distance >= 6.0)] = np.inf
    expected = np.where(np.isfinite(distance.min(1)), distance.argmin(1), -1)
    np.testing.assert_array_equal(match(points, normals, others, other_normals, 6.0), expected)
    assert (expected >= 0).any() and (expected < 0).any()
    assert (match(points, normals, others[:0], other_normals[:0], 6.0) == -1).all()


def test_an_outlines_normals_are_those_of_the_smoothed_mask() -> None:
    rows, columns = np.mgrid[:60, :50]
    mask = np.hypot(rows - 30, columns - 20) < 17.3
    outline = outline_of(mask, 240)
    radial = outline.points_px - (20.5, 30.5)
    assert len(outline.points_px) > 60
    assert ((radial / np.linalg.norm(radial, axis=1)[:, None]) * outline.normals).sum(1).min() > 0.99
    smooth = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5)
    slopes = -np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)], -1)
    slopes = slopes[outline.cells[:, 0], outline.cells[:, 1]]
    np.testing.assert_allclose(outline.normals, slopes / np.linalg.norm(slopes, axis=1)[:, None], atol=1e-5)


def test_the_picture_costs_what_its_cells_say(body: BodyModel, chain: Chain) -> None:
    seen, state = random_state(chain, 19), random_state(chain, 20)
    observation = observe_body(body, chain, seen, with_depth=True)
    prior = default_prior(body, chain)
    flat = replace(observation, confidence=np.zeros(33), visibility=np.ones(33))
    view = render_view(observation, chain.posed(state.pose, state.camera_from_body)[: chain.num_vertices], body.faces)
    person = observation.mask > 0.5
    cost = (person != view.mask).astype(float)
    both = person & view.mask
    assert observation.surface_m is not None
    apart = (view.depth_m[both] - observation.surface_m[both, 2]) / PICTURE_SCALE_M
    cost[both] = np.minimum(apart**2, 1)
    expected = PICTURE_COUNT * cost.sum() / (person | view.mask).sum() + prior_terms(prior, chain.dofs(state.pose))[2]
    assert pose_cost(chain, body.faces, flat, state, prior) == pytest.approx(expected, rel=1e-6)


def test_normal_equations_match_the_rows(body: BodyModel, chain: Chain) -> None:
    state = random_state(chain, 12)
    observation = observe_body(body, chain, random_state(chain, 13), with_depth=False)
    prior: Prior = default_prior(body, chain)
    rows = build_rows(chain, body.faces, observation, state, Schedule(1, use_depth=False), 1.0)
    matrix, gradient, energy = normal_equations(chain, observation, state, prior, rows)
    assert energy == pytest.approx(total_energy(chain, observation, state, prior, rows))
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-9, atol=1e-6)
    assert gradient.shape == (chain.num_free + 6,)


def test_half_a_person_counts_as_tall_as_a_whole_one(body: BodyModel, chain: Chain) -> None:
    """Landmark errors are judged by the standing person, wherever the picture ends."""
    whole = observe_body(body, chain, random_state(chain, 1, 0.0), with_depth=False)
    upper = np.arange(33) < 25
    half = replace(whole, height_px=whole.height_px / 2, confidence=np.where(upper, 1.0, 0.0))
    assert abs(half.standing_px - whole.height_px) < 0.15 * whole.height_px
    blind = replace(half, world_m=np.full((33, 3), np.nan))
    assert blind.standing_px == half.height_px


def test_each_limb_is_taken_from_the_state_that_has_it_right(body: BodyModel, chain: Chain) -> None:
    """Two candidates, each with another arm wrong: the result is better than both."""
    truth = random_state(chain, 1, 0.0)
    observation = observe_body(body, chain, truth, with_depth=True)
    prior = default_prior(body, chain)
    candidates = []
    for joints in chain.limbs[:2]:
        pose = truth.pose.copy()
        dofs = chain.dofs(pose)
        dofs[np.isin(chain.free_joint, joints)] += 0.4
        candidates.append(State(chain.with_dofs(pose, dofs), truth.camera_from_body))
    costs = [pose_cost(chain, body.faces, observation, state, prior) for state in candidates]
    best = int(np.argmin(costs))
    mixed = _with_best_limbs(body, chain, observation, prior, candidates, best, costs[best])

    def error_m(state: State) -> float:
        places, right = (chain.transforms(s.pose, s.camera_from_body)[2] for s in (state, truth))
        return float(np.linalg.norm((places - right)[wrists], axis=1).max())

    wrists = [body.joint_names.index(f"wrist.{side}") for side in "LR"]
    assert min(error_m(state) for state in candidates) > 0.1 > 0.05 > error_m(mixed)
    assert pose_cost(chain, body.faces, observation, mixed, prior) < min(costs)
