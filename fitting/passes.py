"""The passes over a clip, from a shape to a pose in every frame.

    follow    which leg is which in the picture                                      (legs)
    track     frame by frame, each from the one before                             (clip)
    settle    which leg is which, passage by passage                               (legs)
    recall    arms that went astray, from where they are at other times            (recall)
    dress     where cloth, hair and landmarks lie on this person, and whether
              cloth hangs about both legs                                          (clothes)
    track, settle: again, for what is now known changes which poses can be found at all
    return    arms that the first tracking had in a better place                   (mirror)
    refine    all frames at once, with what bodies cannot do                       (batch, steady, contact, floor)
    dress, refine
    mirror    limbs that explain the picture better pointing the other way in depth  (mirror)
    polish    the same with the person's own colours, blurred and then sharp       (photometric)
              before each, where the detector puts its landmarks                   (clothes)
    bridge    limbs that are wholly hidden, from where they were to where they reappear  (hidden)
    dress     by the poses that stay
    swing     a skirt by itself, in turn with its form                             (sway)

N frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from capture.progress import progress
from capture.workers import in_threads
from fitting import mirror, verdict
from fitting.batch import refine
from fitting.body.model import BodyModel
from fitting.body.skinning import vertex_normals
from fitting.chain import Chain
from fitting.clip import Clip, default_prior, depth_residual_mm, landmark_errors_px, silhouette_iou, track
from fitting.clothes import Clothes
from fitting.contact import Touch, floor_rows, inside_rows, standing_rows, standing_targets
from fitting.evidence import Evidence
from fitting.floor import Plane, find_floor
from fitting.hidden import bridged
from fitting.legs import follow_legs, settle_legs
from fitting.limbs import Limb, limb_figures
from fitting.photometric import Pictures, Samples, color_rows, learn
from fitting.recall import ELSEWHERE_M, recalled
from fitting.shape import body_height_m
from fitting.solve import Prior, State
from fitting.sway import swayed
from fitting.terms import Rows

log = logging.getLogger(__name__)

POLISH_BLURS_PX = (3.0, 1.5)
SWING_ROUNDS = 2  # its form and how it swings wait for each other
RowsOf = Callable[[int, State], Rows]


@dataclass(frozen=True)
class Found:
    """What the passes leave."""

    clothes: Clothes
    clip: Clip  # its landmarks named as they were used
    states: dict[int, State]
    samples: Samples


def fit_clip(
    body: BodyModel, shape: np.ndarray, clip: Clip, rounds: int, with_offsets: bool, with_colors: bool
) -> Found:
    """Every pass, in the order of the module's docstring."""
    clothes = Clothes.none(body, shape)
    prior = default_prior(body, clothes.chain)
    height_m = body_height_m(body, shape)
    clip = follow_legs(clip)
    samples = Samples(clip)
    # Another thread reads ahead what is tracked here, and looked at later.
    with closing(in_threads(samples.read, range(len(clip)), 1)) as read:
        states = track(body, clothes.chain, clip, prior, progress(read, "tracking", len(clip)))
    clip, states = settle_legs(body, clothes.chain, clip, prior, states)
    states = _recalled(body, clothes.chain, clip, states, samples)
    limits = Limits.of(body, clothes.chain, clip, states)

    def good() -> dict[int, State]:
        return believed(clothes.body, clothes.chain, clip, teaching(clip, states), height_m)

    if not rounds:
        states = refine(body, clothes.chain, clip, prior, states, more=limits.rows(clothes.chain, states))
    for k in range(rounds):
        clothes = clothes.learned(clip, good(), with_offsets)
        if k == 0:
            body, chain, before = clothes.body, clothes.chain, states
            states = track(body, chain, clip, prior, progress(range(len(clip)), "tracking again", len(clip)))
            clip, states = settle_legs(body, chain, clip, prior, states)
            states = returned(body, chain, clip, states, before, samples)
        body, chain = clothes.body, clothes.chain
        states = refine(body, chain, clip, prior, states, more=limits.rows(chain, states))
    body = clothes.body
    states = _mirrored(body, clothes.chain, clip, prior, states, height_m, limits, samples)

    for blur_px in POLISH_BLURS_PX if with_colors else ():
        if rounds:  # poses and landmark offsets wait for each other: after each pass they are read off once more
            clothes = clothes.with_landmarks(clip, good())
        pictures, chain = Pictures(clip, blur_px, samples), clothes.chain
        appearance = learn(body, chain, clip, states, teaching(clip, states), pictures)
        allowed = limits.rows(chain, states)

        def all_rows(
            i: int, state: State, chain=chain, allowed=allowed, pictures=pictures, appearance=appearance
        ) -> Rows:
            colors = color_rows(body, chain, clip, i, state, pictures[i], appearance)
            return Rows.concatenate([allowed(i, state), colors])

        states = refine(body, chain, clip, prior, states, rounds=4, more=all_rows)
    states = _bridged(body, clothes.chain, clip, states, height_m)
    if rounds:
        seen = good()
        if with_offsets and seen:
            clothes = clothes.learned(clip, seen)
        clothes = clothes.with_landmarks(clip, seen)
        clothes, states = _swinging(clothes, clip, states, set(seen))
    return Found(clothes, clip, states, samples)


def _swinging(
    clothes: Clothes, clip: Clip, states: dict[int, State], good: Collection[int]
) -> tuple[Clothes, dict[int, State]]:
    """A skirt on bones, how it swings, and its form, which frames in which it hung on legs could not tell."""
    if clothes.skirt is None:
        return clothes, states
    clothes = clothes.on_bones()
    states = swayed(clothes.body, clothes.chain, clip, states)
    for _ in range(SWING_ROUNDS):
        clothes = clothes.measured(clip, {i: state for i, state in states.items() if i in good})
        states = swayed(clothes.body, clothes.chain, clip, states)
    return clothes, states


def _recalled(
    body: BodyModel, chain: Chain, clip: Clip, states: dict[int, State], samples: Samples
) -> dict[int, State]:
    """The states with arms as they are at other times, where that explains the picture better."""
    if not states:
        return states
    usual = teaching(clip, states) or states
    states, exchanged = recalled(Evidence.of(body, chain, clip, states, samples), states, usual, len(clip))
    log.info("arms that are elsewhere at other times, and were better there: %d", exchanged)
    return states


def returned(
    body: BodyModel,
    chain: Chain,
    clip: Clip,
    states: dict[int, State],
    before: dict[int, State],
    samples: Samples | None = None,
) -> dict[int, State]:
    """The states with limbs where they were ``before``, where that explains the picture better.

    Cloth that was just learned leaves room for an arm behind it, and what a frame loses, tracking hands on.
    """
    moved = mirror.apart(chain, states, before, ELSEWHERE_M)
    asked = {i: [limb for limb in limbs if limb.endswith("arm")] for i, limbs in moved.items()}  # legs were settled
    if not any(asked.values()):
        return states
    evidence = Evidence.of(body, chain, clip, states, samples)
    states, exchanged = mirror.restored(evidence, states, len(clip), asked, before, ELSEWHERE_M)
    log.info("limbs that were in a better place before: %d", exchanged)
    return states


def _mirrored(
    body: BodyModel,
    chain: Chain,
    clip: Clip,
    prior: Prior,
    states: dict[int, State],
    height_m: float,
    limits: Limits,
    samples: Samples,
) -> dict[int, State]:
    """The states with limbs exchanged that explain the picture better pointing the other way, refined once more."""
    figures = all_figures(body, chain, clip, states, height_m)
    asked = {i: verdict.in_question(frame) for i, frame in figures.items()}
    if not any(asked.values()):
        return states
    states, exchanged = mirror.turned(Evidence.of(body, chain, clip, states, samples), states, len(clip), asked)
    log.info("limbs that pointed the wrong way in depth: %d", exchanged)
    return refine(body, chain, clip, prior, states, more=limits.rows(chain, states)) if exchanged else states


def _bridged(body: BodyModel, chain: Chain, clip: Clip, states: dict[int, State], height_m: float) -> dict[int, State]:
    """The states with hidden limbs on their way from where they were seen to where they are seen again."""

    def limbs_of(index: int, state: State) -> dict[str, Limb]:
        return {limb.name: limb for limb in figures_of(body, chain, clip, index, state, height_m).limbs}

    states, count = bridged(chain, states, limbs_of, clip.step_s)
    if count:
        log.info("passages in which a limb was hidden: %d", count)
    return states


@dataclass(frozen=True)
class Limits:
    """What bodies cannot do, as rows for any frame."""

    body: BodyModel
    clip: Clip
    touch: Touch
    floor: Plane | None

    @staticmethod
    def of(body: BodyModel, chain: Chain, clip: Clip, states: dict[int, State]) -> Limits:
        """With the floor, where the first poses say that one was seen."""
        places = [chain.transforms(s.pose, s.camera_from_body)[2][_ankles(body)] for s in states.values()]
        floor = find_floor(clip, np.concatenate(places)) if places else None
        if floor is not None:
            log.info("floor seen %.2f m below the camera", -floor.offset_m)
        return Limits(body, clip, Touch.of(body), floor)

    def rows(self, chain: Chain, states: dict[int, State]) -> RowsOf:
        """A function of frame and state; where soles stand is taken from ``states``."""
        stances = self._stances(chain, states)

        def rows_of(index: int, state: State) -> Rows:
            vertices_m = chain.posed(state.pose, state.camera_from_body)[: chain.num_vertices]
            parts = [inside_rows(self.touch, vertices_m, vertex_normals(vertices_m, self.body.faces).astype(float))]
            if self.floor is not None:
                parts.append(floor_rows(self.touch, vertices_m, self.floor))
            if stances.get(index):
                parts.append(standing_rows(stances[index]))
            return Rows.concatenate(parts)

        return rows_of

    def _stances(self, chain: Chain, states: dict[int, State]) -> dict[int, dict[int, np.ndarray]]:
        """Where soles stand; only where a floor is seen, for only then the camera is known to stand still."""
        found: dict[int, dict[int, np.ndarray]] = {}
        if self.floor is None:
            return found
        times_s = self.clip.recording.times_s
        frames = np.array(sorted(states))
        for run in np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1):
            if len(run) < 3:
                continue
            left, right = self.touch.sole
            soles_m = np.array(
                [
                    chain.posed(states[i].pose, states[i].camera_from_body)[np.concatenate([left, right])]
                    for i in run.tolist()
                ]
            )
            both = soles_m[:, : len(left)], soles_m[:, len(left) :]
            targets = standing_targets(self.touch, both, self.floor, float(np.median(np.diff(times_s[run]))))
            found.update(zip(run.tolist(), targets, strict=True))
        return found


def _ankles(body: BodyModel) -> list[int]:
    owner = (np.asarray(body.landmark_weights, float) @ np.asarray(body.bare.skin_weights, float)).argmax(1)
    return [int(owner[27]), int(owner[28])]


def teaching(clip: Clip, states: dict[int, State]) -> dict[int, State]:
    """The states of frames that may teach what stays the same: held-out frames follow, and teach nothing."""
    return {i: state for i, state in states.items() if i < clip.num_teaching}


def believed(body: BodyModel, chain: Chain, clip: Clip, states: dict[int, State], height_m: float) -> dict[int, State]:
    """The states of frames that nothing speaks against, not even in a limb: a wrong pose must not dent the body."""
    figures = all_figures(body, chain, clip, states, height_m)
    return {i: states[i] for i, frame in figures.items() if verdict.judge(frame).is_sound}


def all_figures(
    body: BodyModel, chain: Chain, clip: Clip, states: dict[int, State], height_m: float
) -> dict[int, verdict.Figures]:
    """``figures_of`` every frame that has a state."""
    found = in_threads(lambda i: figures_of(body, chain, clip, i, states[i], height_m), states)
    return dict(zip(states, found, strict=True))


def figures_of(body: BodyModel, chain: Chain, clip: Clip, index: int, state: State, height_m: float) -> verdict.Figures:
    """What one frame's fit looks like, its neighbours aside."""
    observation = clip[index]
    assert observation is not None
    # Colour pixels per grid cell: errors are reported in the user's pixels.
    to_color = clip.camera.fx_px / observation.camera.fx_px
    points_m = chain.posed(state.pose, state.camera_from_body)
    vertices_m, landmarks_m = points_m[: chain.num_vertices], points_m[chain.num_vertices :]
    facing = verdict.apart_deg(verdict.trunk_ahead(landmarks_m), verdict.trunk_ahead(observation.world_m))
    # Of the person standing at that distance: half a person in the picture, or one on the floor, counts no differently.
    height_px = observation.camera.fx_px * height_m / float(np.median(vertices_m[:, 2]))
    return verdict.Figures(
        landmark_px=float(np.median(landmark_errors_px(chain, observation, state)) * to_color),
        height_px=height_px * to_color,
        silhouette_iou=silhouette_iou(chain, body, observation, state),
        depth_mm=depth_residual_mm(chain, body, observation, state),
        facing_deg=float(facing),
        limbs=limb_figures(body, observation, vertices_m, landmarks_m, height_px),
    )
