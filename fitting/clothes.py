"""What a person wears, as the passes learn it: offsets, a skirt, and where landmarks lie; and the chain that follows.

V vertices, L landmarks.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import Clip
from fitting.offsets import solve_landmark_offsets, solve_offsets
from fitting.shape import chain_of
from fitting.skirt import Skirt, find_hem
from fitting.solve import State

log = logging.getLogger(__name__)

FIRST_FLARE_M = 0.02
SKIRT_ROUNDS = 5  # of a skirt that was just found: cloth far from its place has other neighbours at each


@dataclass(frozen=True)
class Clothes:
    """One person's, on a body of known shape.  Metres, at rest."""

    naked: BodyModel
    shape: np.ndarray  # (S,)
    offsets_m: np.ndarray  # (V,)
    looseness_m: np.ndarray | None  # (V,); None before anything was measured
    landmarks_m: np.ndarray  # (L, 3)
    skirt: Skirt | None = None
    skirt_offsets_m: np.ndarray | None = None  # (V,) instead of ``offsets_m`` where there is a skirt

    @staticmethod
    def none(body: BodyModel, shape: np.ndarray) -> Clothes:
        """Nothing is known yet."""
        return Clothes(body, shape, np.zeros(len(body.template_m)), None, np.zeros((len(body.landmark_weights), 3)))

    @cached_property
    def dressed(self) -> tuple[BodyModel, np.ndarray]:
        """The body whose surface is seen, and its offsets (V,)."""
        if self.skirt is None or self.skirt_offsets_m is None:
            return self.naked, self.offsets_m
        return self.skirt.baked(self.skirt_offsets_m)

    @property
    def body(self) -> BodyModel:
        """The body whose surface is seen."""
        return self.dressed[0]

    @cached_property
    def chain(self) -> Chain:
        """That surface, with landmarks on the legs as they are under a skirt."""
        chain = chain_of(self.naked, self.shape, self.offsets_m, self.looseness_m, self.landmarks_m)
        if self.skirt is None:
            return chain
        body, offsets_m = self.dressed
        return chain.with_surface(body, body.shaped(self.shape, offsets_m)[0])

    def learned(self, clip: Clip, states: dict[int, State], with_offsets: bool = True) -> Clothes:
        """With the offsets, and the places of landmarks, that explain ``states`` best."""
        landmarks_m = solve_landmark_offsets(self.chain, clip, states, self.landmarks_m)
        clothes = self._measured(clip, states)
        if not with_offsets:
            clothes = replace(clothes, offsets_m=0 * clothes.offsets_m)
        return replace(clothes, landmarks_m=landmarks_m)

    def with_landmarks(self, clip: Clip, states: dict[int, State]) -> Clothes:
        """With landmarks where the detector puts them in ``states``."""
        return replace(self, landmarks_m=solve_landmark_offsets(self.chain, clip, states, self.landmarks_m))

    def with_skirt(self, clip: Clip, states: dict[int, State]) -> Clothes:
        """With a skirt, where ``states`` say that one is worn, laid out anew where there was one."""
        hem_m = find_hem(self.chain, clip, states)
        skirt = None if hem_m is None else Skirt.of(self.naked, self.shape, hem_m)
        if skirt is None:
            return self
        log.info("a skirt, down to %.2f m above the floor", skirt.hem_m)
        before_m = self.offsets_m if self.skirt_offsets_m is None else self.skirt_offsets_m
        offsets_m = np.where(skirt.is_cloth, np.maximum(before_m, FIRST_FLARE_M), before_m)
        clothes = replace(self, skirt=skirt, skirt_offsets_m=offsets_m)
        for _ in range(SKIRT_ROUNDS):
            clothes = clothes._measured(clip, states)
        return clothes

    def _measured(self, clip: Clip, states: dict[int, State]) -> Clothes:
        if self.skirt is None or self.skirt_offsets_m is None:
            offsets_m, looseness_m = solve_offsets(self.naked, self.chain, clip, states, self.offsets_m)
            return replace(self, offsets_m=offsets_m, looseness_m=looseness_m)
        wanted = self.skirt_offsets_m
        offsets_m, looseness_m = solve_offsets(self.body, self.chain, clip, states, wanted, self.skirt)
        return replace(self, skirt_offsets_m=offsets_m, looseness_m=looseness_m)
