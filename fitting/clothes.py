"""What a person wears, as the passes learn it: offsets, a skirt, and where landmarks lie; and the chain that follows.

V vertices, L landmarks, S shape coefficients.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import Clip
from fitting.offsets import MAX_FLARE_M, solve_landmark_offsets, solve_offsets
from fitting.shape import chain_of
from fitting.skirt import Skirt, find_hem
from fitting.solve import State

log = logging.getLogger(__name__)

FIRST_FLARE_M = 0.02
HEM_ROOM_M = 0.02  # a hem ripples: where the surface ends with it, the networks make a fringe of it
SKIRT_ROUNDS = 5  # cloth far from its place has other neighbours at each


@dataclass(frozen=True)
class Clothes:
    """One person's, on a body of known shape.  Metres, at rest."""

    naked: BodyModel
    shape: np.ndarray  # (S,)
    offsets_m: np.ndarray  # (V,) outwards; those of a skirt's cloth in its own direction
    looseness_m: np.ndarray | None  # (V,); None before anything was measured
    landmarks_m: np.ndarray  # (L, 3)
    skirt: Skirt | None = None

    @staticmethod
    def none(body: BodyModel, shape: np.ndarray) -> Clothes:
        """Nothing is known yet."""
        return Clothes(body, shape, np.zeros(len(body.template_m)), None, np.zeros((len(body.landmark_weights), 3)))

    @cached_property
    def dressed(self) -> tuple[BodyModel, np.ndarray]:
        """The body whose surface is seen, and its offsets (V,), outwards."""
        return (self.naked, self.offsets_m) if self.skirt is None else self.skirt.baked(self.offsets_m)

    @property
    def body(self) -> BodyModel:
        """The body whose surface is seen."""
        return self.dressed[0]

    @cached_property
    def chain(self) -> Chain:
        """The same, ready to be posed."""
        body, offsets_m = self.dressed
        return chain_of(body, self.shape, offsets_m, self.looseness_m, self.landmarks_m)

    def learned(self, clip: Clip, states: dict[int, State], with_offsets: bool = True) -> Clothes:
        """With the clothes, and the places of landmarks, that explain ``states`` best."""
        clothes = self.with_landmarks(clip, states)
        if not with_offsets:
            return replace(clothes.measured(clip, states), offsets_m=0 * clothes.offsets_m)
        hem_m, is_known = find_hem(clothes.chain, clip, states, 0.0 if self.skirt is None else self.skirt.hem_m)
        if self.skirt is not None and not is_known:
            hem_m = self.skirt.hem_m
        skirt = None if hem_m is None else Skirt.of(self.naked, self.shape, hem_m)
        if skirt is not None:
            log.info("a skirt, down to %.2f m above the floor", skirt.hem_m)
        clothes = clothes._laid_out(skirt)
        for _ in range(1 if skirt is None else SKIRT_ROUNDS):
            clothes = clothes.measured(clip, states)
        return clothes

    def with_room(self, room_m: float = HEM_ROOM_M) -> Clothes:
        """With a skirt's surface going on below its hem, as wide as there."""
        if self.skirt is None:
            return self
        own, wide = self.skirt.is_cloth, Skirt.of(self.naked, self.shape, self.skirt.hem_m, room_m, has_bones=True)
        assert wide is not None  # as it has one
        form = np.linalg.lstsq(self.skirt.folds[own], self.offsets_m[own], rcond=None)[0]
        flare_m = np.clip(wide.folds @ form, 0, MAX_FLARE_M)
        return replace(self, skirt=wide, offsets_m=np.where(wide.is_cloth, flare_m, self.offsets_m))

    def on_bones(self) -> Clothes:
        """With what hangs about both legs on bones of its own (``fitting.body.bones``)."""
        if self.skirt is None:
            return self
        return replace(self, skirt=Skirt.of(self.naked, self.shape, self.skirt.hem_m, has_bones=True))

    def on_legs(self) -> Clothes:
        """With the same skirt moved by the legs: where it swings says nothing then, and where the legs are does."""
        if self.skirt is None:
            return self
        return replace(self, skirt=Skirt.of(self.naked, self.shape, self.skirt.hem_m))

    def with_landmarks(self, clip: Clip, states: dict[int, State]) -> Clothes:
        """With landmarks where the detector puts them in ``states``."""
        return replace(self, landmarks_m=solve_landmark_offsets(self.chain, clip, states, self.landmarks_m))

    def _laid_out(self, skirt: Skirt | None) -> Clothes:
        """In this skirt, or none, with what is known of it from the one before."""
        nowhere = np.zeros(len(self.offsets_m), bool)
        was, is_cloth = (nowhere if own is None else own.is_cloth for own in (self.skirt, skirt))
        kept_m = np.where(was == is_cloth, self.offsets_m, 0)  # outwards from a leg is not a skirt's direction
        return replace(self, skirt=skirt, offsets_m=np.where(is_cloth, np.maximum(kept_m, FIRST_FLARE_M), kept_m))

    @property
    def directions(self) -> np.ndarray:
        """(V, 3) unit, at rest: where the offsets move the surface."""
        body = self.body
        out = body.outward(body.shaped(self.shape)[0])
        return out if self.skirt is None else np.where(self.skirt.is_cloth[:, None], self.skirt.direction, out)

    def measured(self, clip: Clip, states: dict[int, State]) -> Clothes:
        """With the offsets, and the looseness, that explain ``states`` best, all else as it is."""
        before_m, directions = self.offsets_m, self.directions
        offsets_m, looseness_m = solve_offsets(self.body, self.chain, clip, states, before_m, directions, self.skirt)
        return replace(self, offsets_m=offsets_m, looseness_m=looseness_m)
