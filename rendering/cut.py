"""The cut of clothes that change hands: how far they stand off, and skirts with their bones.

V vertices, S people or shape coefficients, J joints of the skeleton, B panels of a skirt (``fitting.body.bones``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from capture.errors import UserError
from fitting.body import bones
from fitting.body.model import CUT, MAX_INFLUENCES, BodyModel, strongest
from rendering.avatar import Avatar, Shape


def mixed_cut(avatar: Avatar, body: str, people: Sequence[str], shares: np.ndarray) -> Shape:
    """``body`` in clothes cut with ``shares`` (V, S) or (S,) of each of ``people``: how far they stand off, and where
    cloth hangs about both legs (``fitting.skirt``), its surface and what moves it."""
    own, bodies = avatar.bodies[body], [avatar.bodies[subject] for subject in people]
    shares = np.broadcast_to(shares, (len(own.body.template_m), len(people)))
    offsets_m = [shape.vertex_offsets_m for shape in bodies]
    if any(offset_m is not None for offset_m in offsets_m):
        columns = [np.zeros(len(shares), np.float32) if offset_m is None else offset_m for offset_m in offsets_m]
        mixed_m = (np.stack(columns, axis=1) * shares).sum(axis=1)
        own = own._replace(vertex_offsets_m=np.asarray(mixed_m, np.float32))
    bare, figure = avatar.bodies[body].body.bare, avatar.bodies[body].shape
    skirts = []
    for subject, share in zip(people, shares.astype(np.float32).T, strict=True):
        theirs = avatar.bodies[subject].body
        if theirs.under is None:
            continue
        if theirs.bare.skin_weights.shape != bare.skin_weights.shape:
            raise UserError(f"{subject}'s skirt is on another kind of body; train both with one fit.body")
        if share[theirs.is_cloth].any():
            skirts.append(Lent(avatar.bodies[subject], share))
    if not skirts:
        return own._replace(body=bare)
    joints = _lent_bones(bare, figure, skirts)
    count = len(joints.get("parents", bare.parents))
    cut: dict[str, Any] = {name: _padded(name, getattr(bare, name), count) for name in CUT}
    for skirt in skirts:
        for name in CUT:
            skirted, bared = (_padded(name, getattr(theirs, name), count) for theirs in (skirt.body, skirt.body.bare))
            if skirted is not None:
                cut[name] = cut[name] + skirt.share[:, None] * (skirted - bared)
    cut["skin_weights"] = strongest(np.maximum(cut["skin_weights"], 0), MAX_INFLUENCES)
    return own._replace(body=replace(bare, **joints, **cut, under=bare))


class Lent(NamedTuple):
    """Somebody's skirt, and how much of it goes where."""

    owner: Shape
    share: np.ndarray  # (V,)

    @property
    def body(self) -> BodyModel:
        return self.owner.body


def _lent_bones(bare: BodyModel, figure: np.ndarray, skirts: Sequence[Lent]) -> dict[str, Any]:
    """The arrays of joints of ``bare``, on the body of ``figure`` (S,), with the bones of the ``skirts``: as far from
    the root as on their owners, mixed as their cloth is.  None of skirts without any, as they once were."""
    skirts = [skirt for skirt in skirts if skirt.body.hem_points_m is not None]
    if not skirts:
        return {}
    amounts = [skirt.share[skirt.body.is_cloth].sum() for skirt in skirts]
    rests_m = [skirt.body.shaped(skirt.owner.shape)[1] for skirt in skirts]

    def mixed(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(np.average(np.stack(values), axis=0, weights=amounts), np.float32)

    root_m = bare.shaped(figure)[1][0]
    places_m = mixed([rest_m[bare.num_joints :] - rest_m[0] for rest_m in rests_m])
    hem_m = mixed([skirt.body.hem_points_m - rest_m[0] for skirt, rest_m in zip(skirts, rests_m, strict=True)])
    return bones.tables(bare, root_m + places_m, figure) | {
        "hem_points_m": root_m + hem_m,
        "hem_weights": mixed([np.asarray(skirt.body.hem_weights) for skirt in skirts]),
    }


def _padded(name: str, values: np.ndarray | None, num_joints: int) -> np.ndarray | None:
    """An array of ``CUT`` for so many joints."""
    if values is None or name != "skin_weights":
        return values
    return np.pad(values, ((0, 0), (0, num_joints - values.shape[1])))
