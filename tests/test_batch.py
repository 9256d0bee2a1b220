"""All frames at once: noise falls, a turn is carried through where it cannot be seen, pieces do not feel each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from test_solve import GRID, observe_body, random_state

from fitting import batch
from fitting.batch import (
    Smoothness,
    _banded_step,
    _bends,
    _pace,
    _pieces,
    _unseen,
    refine,
)
from fitting.body.model import BodyModel
from fitting.body.skinning import vertex_normals
from fitting.chain import Chain
from fitting.clip import default_prior
from fitting.light import LIGHT_TERMS, light_terms
from fitting.light import gains as light_gains
from fitting.observe import Observation
from fitting.offsets import solve_landmark_offsets, solve_offsets
from fitting.photometric import Appearance, Pictures, Samples, color_rows, learn
from fitting.solve import State, advance
from fitting.terms import residuals


@dataclass
class FakeClip:
    """Stands for fitting.clip.Clip: evidence, times and landmarks, and pictures where a test paints some."""

    observations: list[Observation | None]
    pictures: list[np.ndarray] | None = None

    camera = GRID
    scratch = None
    step_s = 1 / 30

    @property
    def num_teaching(self) -> int:
        return len(self)

    def __len__(self) -> int:
        return len(self.observations)

    def __getitem__(self, index: int) -> Observation | None:
        return self.observations[index]

    @property
    def recording(self) -> SimpleNamespace:
        return SimpleNamespace(
            times_s=np.arange(len(self)) / 30, color=lambda i: None if self.pictures is None else self.pictures[i]
        )

    @property
    def keypoints(self) -> SimpleNamespace:
        nothing = np.full((33, 2), np.nan)
        return SimpleNamespace(
            points_px=np.array([nothing if o is None else o.landmarks_px for o in self.observations]),
            visibility=np.array([np.zeros(33) if o is None else o.visibility for o in self.observations]),
        )


def clip_of(observations: list[Any], pictures: list[np.ndarray] | None = None) -> Any:
    return FakeClip(observations, pictures)


def rest_normals(body: BodyModel) -> np.ndarray:
    return vertex_normals(body.shaped(np.zeros(body.num_shape))[0], body.faces)


def turned(chain: Chain, state: State, rad: float) -> State:
    """The same person, turned about the vertical."""
    step = np.zeros(chain.num_free + 6)
    step[chain.num_free + 1] = rad
    return advance(state, step, chain)


def noisy(chain: Chain, state: State, rng: np.random.Generator, sigma_rad: float) -> State:
    step = np.concatenate([rng.normal(0, sigma_rad, chain.num_free), rng.normal(0, 0.005, 6)])
    return advance(state, step, chain)


def joints(chain: Chain, states: dict[int, State]) -> np.ndarray:
    return np.array([chain.transforms(states[i].pose, states[i].camera_from_body)[2] for i in sorted(states)])


def test_a_trembling_start_becomes_still_and_right(body: BodyModel, chain: Chain) -> None:
    rng = np.random.default_rng(0)
    truth = [turned(chain, random_state(chain, 3), 0.01 * k) for k in range(12)]
    clip = clip_of([observe_body(body, chain, s, with_depth=True) for s in truth])
    start = {i: noisy(chain, s, rng, 0.05) for i, s in enumerate(truth)}
    refined = refine(body, chain, clip, default_prior(body, chain), start)
    right = joints(chain, dict(enumerate(truth)))

    def error_m(states: dict[int, State]) -> float:
        return float(np.median(np.linalg.norm(joints(chain, states) - right, axis=2)))

    def tremble_m(states: dict[int, State]) -> float:
        return float(np.abs(np.diff(joints(chain, states), 2, axis=0)).mean())

    assert error_m(refined) < 0.6 * error_m(start)
    assert tremble_m(refined) < 0.2 * tremble_m(start)


def test_the_bar_comes_to_its_end_though_a_piece_is_done_early(body: BodyModel, chain: Chain, monkeypatch) -> None:
    truth = [random_state(chain, 3)] * 7
    clip = clip_of([observe_body(body, chain, s, with_depth=False) for s in truth])
    done: list[int] = []

    def counted(items: range, label: str) -> Iterator[int]:
        assert len(items) == 3 * 2, "rounds of two pieces"
        for item in items:
            done.append(item)
            yield item

    monkeypatch.setattr(batch, "progress", counted)
    monkeypatch.setattr(batch, "_energy", lambda *_: np.inf)  # no step is better: the first round is the last
    states = {i: truth[i] for i in range(7) if i != 3}
    assert refine(body, chain, clip, default_prior(body, chain), states, rounds=3) == states
    assert done == list(range(6))


def test_an_arm_that_is_not_seen_does_not_creep_and_one_that_is_seen_is_not_held(body: BodyModel, chain: Chain) -> None:
    state, joint, prior = random_state(chain, 3, 0.02), body.joint_index("lowerarm02.L"), default_prior(body, chain)
    arm = [11 + 2 * k for k in range(1, 6)]  # elbow, wrist and fingers
    own = int(np.flatnonzero(chain.free_joint == joint)[0])  # a twist: outlines hardly tell
    start = {}
    for k in range(16):
        step = np.zeros(chain.num_free + 6)
        step[own] = 0.03 * k
        start[k] = advance(state, step, chain)
    seen = observe_body(body, chain, state, with_depth=False)

    def with_confidence(value: float) -> Observation:
        confidence = seen.confidence.copy()
        confidence[arm] = value
        return replace(seen, confidence=confidence)

    def twists(observation: Observation, smoothness: Smoothness) -> np.ndarray:
        found = refine(body, chain, clip_of([observation] * 16), prior, start, 4, smoothness)
        return np.array([chain.dofs(found[k].pose)[own] for k in found])

    free = Smoothness(drift_rad=np.inf)
    assert np.ptp(twists(with_confidence(0), Smoothness())) < 0.3 * np.ptp(twists(with_confidence(0), free))
    np.testing.assert_array_equal(twists(with_confidence(0.6), Smoothness()), twists(with_confidence(0.6), free))


def test_what_is_unseen_is_a_limb_by_its_landmarks_and_never_the_trunk(body: BodyModel, chain: Chain) -> None:
    seen = observe_body(body, chain, random_state(chain, 3), with_depth=False)
    confidence = np.ones(33)
    confidence[[13, 15, 28]] = 0.25, 0, 0  # the left arm's elbow and wrist, the right ankle
    unseen = _unseen(chain, clip_of([replace(seen, confidence=confidence)]), [0])[0]
    expected = np.zeros(chain.num_free + 6)
    for limb, share in ((0, 0.75), (3, 0.5)):
        expected[: chain.num_free][np.isin(chain.free_joint, chain.limbs[limb])] = share
    np.testing.assert_allclose(unseen, expected)


def test_a_banded_step_is_the_dense_one(chain: Chain) -> None:
    rng = np.random.default_rng(0)
    count, size = 6, chain.num_free + 6
    factors = rng.normal(size=(count, size, size))
    # Frames feel the two after them: the outer product of rows that look at three frames.
    blocks = np.zeros((3, count, size, size))
    blocks[0] = factors @ factors.transpose(0, 2, 1) + np.eye(size)
    rows = rng.normal(size=(count - 2, 3, 4, size))
    for k, of_frame in enumerate(rows):
        for a in range(3):
            for b in range(a + 1):
                blocks[a - b, k + b] += of_frame[a].T @ of_frame[b]
    gradients = rng.normal(size=(count, size))
    changes: list[tuple[tuple[float, ...], np.ndarray, np.ndarray]] = []
    stencils: tuple[tuple[float, ...], ...] = (1.0, -2.0, 1.0), (-1.0, 1.0)
    for stencil in stencils:
        shape = count - len(stencil) + 1, size
        changes.append((stencil, rng.normal(size=shape), rng.uniform(1, 5, shape)))
    dense = np.zeros((count * size, count * size))
    right = gradients.copy()
    for i in range(count):
        for apart in range(min(3, count - i)):
            later, here = (slice(k * size, (k + 1) * size) for k in (i + apart, i))
            dense[later, here] = blocks[apart, i]
            dense[here, later] = blocks[apart, i].T
    dense += np.diag(1e-3 * np.diag(dense) + 1e-6)
    for stencil, values, weight in changes:
        change = np.zeros((len(values), count))
        for k in range(len(values)):
            change[k, k : k + len(stencil)] = stencil
        for u in range(size):
            own = np.arange(count) * size + u
            dense[np.ix_(own, own)] += change.T @ np.diag(weight[:, u]) @ change
            right[:, u] += change.T @ (weight[:, u] * values[:, u])
    expected = -np.linalg.solve(dense, right.ravel()).reshape(count, size)
    np.testing.assert_allclose(_banded_step(blocks, gradients, changes, 0), expected, atol=1e-8)
    held = _banded_step(blocks, gradients, changes, 2)
    assert np.abs(held[:2]).max() < 1e-9 < np.abs(held[2:]).max()


def test_a_steady_motion_bends_nowhere(chain: Chain) -> None:
    states = [turned(chain, random_state(chain, 1), 0.2 * k) for k in range(8)]
    bends = _bends(chain, states)
    assert np.abs(bends[:, : chain.num_free + 3]).max() < 1e-6


def test_frames_apart_are_solved_apart() -> None:
    assert _pieces([0, 1, 2, 5, 6, 9]) == [[0, 1, 2], [5, 6], [9]]
    assert _pieces([]) == []


def test_long_clips_are_solved_in_chunks_that_agree(body: BodyModel, chain: Chain, monkeypatch) -> None:
    rng = np.random.default_rng(1)
    truth = [turned(chain, random_state(chain, 3), 0.01 * k) for k in range(14)]
    clip = clip_of([observe_body(body, chain, s, with_depth=True) for s in truth])
    start = {i: noisy(chain, s, rng, 0.03) for i, s in enumerate(truth)}
    prior = default_prior(body, chain)
    whole = refine(body, chain, clip, prior, start, rounds=4)
    monkeypatch.setattr(batch, "CHUNK", 8)
    monkeypatch.setattr(batch, "OVERLAP", 3)
    chunks = refine(body, chain, clip, prior, start, rounds=4)
    assert sorted(chunks) == sorted(start)
    apart_m = np.linalg.norm(joints(chain, whole) - joints(chain, chunks), axis=2)
    assert np.median(apart_m) < 0.003


def test_who_moves_fast_may_bend_more(body: BodyModel, chain: Chain) -> None:
    still = observe_body(body, chain, random_state(chain, 1, 0.0), with_depth=False)
    moves = [replace(still, landmarks_px=np.add(still.landmarks_px, (max(0, k - 10) * 8.0, 0))) for k in range(20)]
    pace = _pace(clip_of(moves), list(range(20)))
    assert pace[3] == batch.PACES[0] and pace[16] == batch.PACES[1]


def test_what_is_out_of_view_sets_no_pace(body: BodyModel, chain: Chain) -> None:
    rng = np.random.default_rng(0)
    still = observe_body(body, chain, random_state(chain, 1, 0.0), with_depth=False)
    out_of_view = np.arange(33) >= 13  # most of the landmarks
    leaps = [still.landmarks_px + out_of_view[:, None] * rng.normal(0, 20, (33, 2)) for _ in range(12)]
    seen = [replace(still, landmarks_px=places) for places in leaps]
    hidden = [replace(own, confidence=np.where(out_of_view, 0.0, 1.0)) for own in seen]
    assert _pace(clip_of(seen), list(range(12))).min() > 1
    assert (_pace(clip_of(hidden), list(range(12))) == batch.PACES[0]).all()


def test_half_a_person_in_the_picture_is_no_faster(body: BodyModel, chain: Chain) -> None:
    whole = observe_body(body, chain, random_state(chain, 1, 0.0), with_depth=False)
    moves = [replace(whole, landmarks_px=np.add(whole.landmarks_px, (1.5 * k, 0))) for k in range(9)]
    halves = [replace(own, height_px=own.height_px / 2) for own in moves]
    frames = list(range(9))
    whole_pace, half_pace = _pace(clip_of(moves), frames), _pace(clip_of(halves), frames)
    assert (whole_pace > batch.PACES[0]).all() and (whole_pace < batch.PACES[1]).all()
    np.testing.assert_allclose(half_pace, whole_pace, rtol=0.1)


def test_landmarks_of_another_anatomy_are_learned(body: BodyModel, chain: Chain) -> None:
    """A detector that puts the hips elsewhere does so in every view."""
    truth = [turned(chain, random_state(chain, k), 0.5 * k) for k in range(10)]
    shift = np.zeros((33, 3))
    shift[23], shift[24] = (0.03, 0.0, 0.04), (-0.03, 0.0, 0.04)
    other = Chain.build(body, *body.shaped(np.zeros(body.num_shape)), None, shift)
    clip = clip_of([observe_body(body, other, s, with_depth=False) for s in truth])
    found = solve_landmark_offsets(chain, clip, dict(enumerate(truth)), np.zeros((33, 3)), sigma_m=0.1)
    np.testing.assert_allclose(found[[23, 24]], shift[[23, 24]], atol=0.006)
    others = np.setdiff1d(np.arange(33), [23, 24])
    assert np.abs(found[others]).max() < 0.004


def test_without_a_frame_to_believe_nothing_is_learned(body: BodyModel, chain: Chain) -> None:
    before = np.full(len(body.template_m), 0.01)
    offsets_m, looseness_m = solve_offsets(body, chain, clip_of([]), {}, before, rest_normals(body))
    np.testing.assert_array_equal(offsets_m, before)
    assert not looseness_m.any()
    assert not solve_landmark_offsets(chain, clip_of([]), {}, np.zeros((33, 3))).any()


def test_a_bump_that_no_outline_shows_goes_back(body: BodyModel, chain: Chain) -> None:
    """On its sides the surface faces elsewhere than offsets move it; by its normals the bump would have to grow."""
    ear, bump_m = 101, np.zeros(len(body.template_m))
    beside = np.unique(body.faces[(body.faces == ear).any(1)])
    bump_m[beside], bump_m[ear] = 0.025, 0.05
    states = [turned(chain, random_state(chain, 1, 0.0), angle) for angle in np.linspace(-0.7, 0.7, 8)]
    clip = clip_of([observe_body(body, chain, state, with_depth=False) for state in states])
    for _ in range(3):
        dressed = Chain.build(body, *body.shaped(np.zeros(body.num_shape), bump_m))
        bump_m, _ = solve_offsets(body, dressed, clip, dict(enumerate(states)), bump_m, rest_normals(body))
    assert np.abs(bump_m[beside]).max() < 0.02


def test_cloth_that_strays_is_loose_and_skin_is_not(body: BodyModel, chain: Chain) -> None:
    """Thighs of another girth in every frame, as under a skirt; the rest of the body stays as it is."""
    owner = np.asarray(body.skin_weights).argmax(1)
    thighs = np.isin(owner, [body.joint_names.index(f"upperleg02.{side}") for side in "LR"])
    spine = np.isin(owner, [body.joint_names.index(f"spine0{k}") for k in (2, 3)])
    states = [turned(chain, random_state(chain, 1, 0.0), 0.6 * k) for k in range(10)]
    swinging = []
    for k, state in enumerate(states):
        wide = Chain.build(body, *body.shaped(np.zeros(body.num_shape), np.where(thighs, 0.05 * (k % 2), 0.0)))
        swinging.append(observe_body(body, wide, state, with_depth=True))
    clip = clip_of(swinging)
    nothing, along = np.zeros(len(body.template_m)), rest_normals(body)
    _, looseness_m = solve_offsets(body, chain, clip, dict(enumerate(states)), nothing, along)
    assert np.median(looseness_m[thighs]) > 0.02 > 0.01 > np.median(looseness_m[spine])


# ---------------------------------------------------------------------------------------------------- colours


def painted(
    body: BodyModel, chain: Chain, state: State, gain: float = 1.0, lamp: np.ndarray | None = None
) -> np.ndarray:
    """(H, W, 3) uint8: the body with a smooth pattern that is fixed to its vertices, in the light ``lamp``, if any."""
    vertices_m = chain.posed(state.pose, state.camera_from_body)[: chain.num_vertices]
    rest = np.asarray(body.template_m, float)
    color = 0.5 + 0.35 * np.stack([np.sin(25 * rest[:, 0]), np.sin(21 * rest[:, 2]), np.cos(17 * rest[:, 2])], 1)
    pixels = vertices_m[:, :2] / vertices_m[:, 2:] * GRID.fx_px + (GRID.cx_px, GRID.cy_px)
    far_to_near = np.argsort(-vertices_m[body.faces, 2].mean(1))
    if lamp is not None:
        normals = vertex_normals(vertices_m, body.faces).astype(float)
        color = color * light_gains(light_terms(normals), lamp)
    picture = np.full((GRID.image_wh[1], GRID.image_wh[0], 3), 40, np.uint8)
    scale = 2**6
    for face in far_to_near:
        corners = np.round((pixels[body.faces[face]] - 0.5) * scale).astype(np.int32)
        shade = (255 * gain * color[body.faces[face]].mean(0)).clip(0, 255)
        cv2.fillConvexPoly(picture, corners, shade.tolist(), shift=6)
    return picture


@pytest.fixture(scope="module")
def show(body: BodyModel, chain: Chain) -> tuple[Any, list[State]]:
    truth = [turned(chain, random_state(chain, 3, 0.1), 0.02 * k) for k in range(10)]
    pictures = [painted(body, chain, s, 0.8 + 0.03 * k) for k, s in enumerate(truth)]
    return clip_of([observe_body(body, chain, s, with_depth=False) for s in truth], pictures), truth


def test_colours_and_exposure_are_learned(body: BodyModel, chain: Chain, show) -> None:
    clip, truth = show
    states = dict(enumerate(truth))
    appearance = learn(body, chain, clip, states, states, Pictures(clip, 1.0))
    gains = np.array([appearance.gain[i].mean() for i in range(10)])
    np.testing.assert_allclose(gains / gains.mean(), (0.8 + 0.03 * np.arange(10)) / 0.935, rtol=0.03)
    seen = np.isfinite(appearance.color[:, 0])
    assert seen.sum() > 300 and np.median(appearance.sigma[seen]) < 0.03


def test_a_lamp_at_the_side_is_not_taken_for_the_colours_of_who_turns(
    body: BodyModel, chain: Chain, monkeypatch
) -> None:
    lamp = np.zeros((LIGHT_TERMS, 3))
    lamp[2] = 0.8  # along x: twice as bright on one side as on the other
    truth = [turned(chain, random_state(chain, 3, 0.1), 0.25 * k) for k in range(12)]
    observations = [observe_body(body, chain, state, with_depth=False) for state in truth]
    clip = clip_of(observations, [painted(body, chain, state, 0.6, lamp) for state in truth])
    states, pictures = dict(enumerate(truth)), Pictures(clip, 1.0)
    found = learn(body, chain, clip, states, states, pictures)
    sides = np.array([[np.sin(a), 0.0, -np.cos(a)] for a in np.radians((-50, -25, 25, 50))])
    true = light_gains(light_terms(sides), lamp)
    np.testing.assert_allclose(light_gains(light_terms(sides), found.light), true, rtol=0.15)

    def shift_px(appearance: Appearance) -> float:
        """How far the colours would move the right pose, median over frames and rows."""
        moves = []
        for index, state in states.items():
            rows = color_rows(body, chain, clip, index, state, pictures[index], appearance)
            moves.append(
                np.median(np.abs(residuals(rows, chain.posed(state.pose, state.camera_from_body), clip[index])[0]))
            )
        return float(np.median(moves))

    monkeypatch.setattr("fitting.photometric._light_of", lambda *_: np.zeros((LIGHT_TERMS, 3)))
    unlit = learn(body, chain, clip, states, states, pictures)
    assert not unlit.light.any() and np.nanmedian(found.sigma) < 0.6 * np.nanmedian(unlit.sigma)
    assert shift_px(found) < 0.8 * shift_px(unlit)


def test_heldout_frames_teach_no_colours(body: BodyModel, chain: Chain, show) -> None:
    clip, truth = show
    states = dict(enumerate(truth))
    first = learn(body, chain, clip, states, range(8), Pictures(clip, 1.0))
    other = clip_of([clip[i] for i in range(10)], [255 - p if i >= 8 else p for i, p in enumerate(clip.pictures)])
    second = learn(body, chain, other, states, range(8), Pictures(other, 1.0))
    np.testing.assert_array_equal(first.color, second.color)
    assert set(second.gain) == set(states) and not np.allclose(first.gain[9], second.gain[9])


def test_a_picture_is_decoded_once_for_all_blurs(body: BodyModel, chain: Chain, show) -> None:
    clip, _ = show
    decoded: list[int] = []

    def color(index: int) -> np.ndarray:
        decoded.append(index)
        picture: np.ndarray = clip.pictures[index]
        return picture

    @dataclass
    class Counting(FakeClip):
        @property
        def recording(self) -> SimpleNamespace:
            return SimpleNamespace(color=color)

    samples = Samples(Counting(clip.observations, clip.pictures))  # type: ignore[arg-type]
    sights = [Pictures(clip, blur_px, samples)[3] for blur_px in (3.0, 1.5)]
    assert decoded == [3]
    for sight, blur_px in zip(sights, (3.0, 1.5), strict=True):
        np.testing.assert_array_equal(sight.color, Pictures(clip, blur_px)[3].color)
    assert not np.array_equal(sights[0].color, sights[1].color)


def test_gradient_of_the_colour_term_is_numerical(body: BodyModel, chain: Chain, show) -> None:
    clip, truth = show
    pictures = Pictures(clip, 1.5)
    appearance = learn(body, chain, clip, dict(enumerate(truth)), range(len(truth)), pictures)
    state = noisy(chain, truth[0], np.random.default_rng(0), 0.01)
    rows = color_rows(body, chain, clip, 0, state, pictures[0], appearance)
    assert len(rows.point) > 100
    observation = clip[0]
    assert observation is not None
    points_m = chain.posed(state.pose, state.camera_from_body)
    r, by_point = residuals(rows, points_m, observation)
    assert np.abs(r).max() < 60 and np.isfinite(r).all()
    analytic = chain.jacobian(state.pose, state.camera_from_body, rows.point, by_point)
    for d in (5, chain.num_free + 1, chain.num_free + 3):
        step = np.zeros(analytic.shape[1])
        step[d] = 1e-5
        ends = [advance(state, sign * step, chain) for sign in (1, -1)]
        plus, minus = (residuals(rows, chain.posed(s.pose, s.camera_from_body), observation)[0] for s in ends)
        np.testing.assert_allclose(analytic[:, d], (plus - minus) / 2e-5, atol=1e-5 * np.abs(analytic).max())


def test_colours_pull_a_shifted_body_back(body: BodyModel, chain: Chain, show) -> None:
    """Known colours, a body half a grid cell off to the side: the rows alone say where it belongs."""
    clip, truth = show
    pictures = Pictures(clip, 1.5)
    appearance: Appearance = learn(body, chain, clip, dict(enumerate(truth)), range(len(truth)), pictures)
    shift = np.zeros(chain.num_free + 6)
    shift[-3:-1] = 0.008, 0.006  # 0.7 and 0.5 of a cell
    state = advance(truth[4], shift, chain)
    observation = clip[4]
    assert observation is not None
    for _ in range(4):
        rows = color_rows(body, chain, clip, 4, state, pictures[4], appearance)
        points_m = chain.posed(state.pose, state.camera_from_body)
        r, by_point = residuals(rows, points_m, observation)
        jacobian = chain.jacobian(state.pose, state.camera_from_body, rows.point, by_point)[:, -3:-1]
        move = np.zeros(chain.num_free + 6)
        move[-3:-1] = -np.linalg.lstsq(jacobian, r, rcond=None)[0]
        state = advance(state, move, chain)
    left_m = (state.camera_from_body - truth[4].camera_from_body)[:2, 3]
    assert np.abs(left_m).max() < 0.002
