"""A skirt: cloth that hangs about both legs in one piece, made of the legs' own surface.

A leg is a tube, and no offset along its normals makes two tubes a skirt: they part as soon as the legs do.  So above
the hem each tube is opened along its inner side and laid about its half of the skirt; what is left of the inner side
hides behind the front and the back.  The surface, its texture coordinates and its joints stay the same ones.

        back                    V vertices, L landmarks.  At rest a vertex at angle a about its leg (0 outwards, 90
      .--|--.                   degrees to the front) goes to x = X cos^p b, y = -Y sin^p b with b = 90 a / OPENED, a
     (   |   )  the skirt       superellipse (Gielis 2003) of the legs' own width; offsets then move it outwards.
      '--|--'
        front                   Where both halves meet they share place and motion, so that there is no gap.

Cloth at the side of a leg follows that leg, between the legs it follows both alike: so it is while poses are found.
Cloth swings, though.  Once they are known it hangs on bones of its own (``fitting.body.bones``, ``fitting.sway``), and
the legs only say how it hangs where nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.interpolate import interp1d
from scipy.spatial import cKDTree

from fitting.body import bones
from fitting.body.model import BodyModel, strongest
from fitting.chain import Chain
from fitting.clip import Clip
from fitting.solve import State

LEG_PARTS, TRUNK_PARTS = ("upper_leg", "lower_leg"), ("chest", "back")
SHOULDERS, HIPS, KNEES, ANKLES = (11, 12), (23, 24), (25, 26), (27, 28)  # landmarks, left and right
# There is a skirt where legs that are so far apart at a level, by their length, have something between them in so many
# of the frames that show it, of which there must be some, ...
APART, APART_CELLS, FILLED, MIN_FRAMES = 0.24, 2, 0.7, 10
LOW = 0.5  # ... and that far down the legs, by the same, where no trousers' crotch reaches: to the knee.
STRAIGHT, BELOW = 0.92, 0.75  # of a leg that stands: hip to ankle by its length, and along the trunk
FRONT_M = 0.15  # what is seen between the legs is the skirt's front, so much nearer than they are
MIN_ABOVE_ANKLE_M = 0.06
CROTCH_M, JOINED_M = 0.08, 0.08  # from so far above the lowest of the trunk, over this height, hips become skirt
UNDER_HEM_M = 0.015  # the leg goes on inside, this far above the hem
OPENED, TUCK, SUPERELLIPSE = np.deg2rad(95), 0.6, 2.4
HANGS_M = 0.04
WAIST_M = 0.08  # what is that near to the hips' height is as wide as the waist that bones hang from
CLOTH_INFLUENCES = 4  # as many as other programs know
WAVES, DEGREE = 3, 3
SYMMETRIC_M = 0.02  # a body whose sides differ by more has no twins


@dataclass(frozen=True)
class Skirt:
    """How one person's legs are laid out as a skirt."""

    body: BodyModel  # with the skirt as its surface at rest, before offsets
    direction: np.ndarray  # (V, 3) where offsets move what is cloth at rest; unit, 0 elsewhere
    is_cloth: np.ndarray  # (V,) bool
    is_below: np.ndarray  # (V,) bool: legs below the hem, with which cloth shares edges and nothing else
    folds: np.ndarray  # (V, K) of what its offsets are made: waves about the skirt, polynomials down it; 0 elsewhere
    hem_m: float  # above the floor, at rest

    @staticmethod
    def of(
        body: BodyModel, shape: np.ndarray, hem_m: float, room_m: float = 0.0, has_bones: bool = False
    ) -> Skirt | None:
        """The skirt of the shaped ``body`` that ends ``hem_m`` above the floor, its surface ``room_m`` farther down, on
        the legs or on bones of its own; None for a body without such legs."""
        ankles_m = float(body.landmarks(body.shaped(shape)[0])[list(ANKLES), 2].mean())
        hem_m = max(hem_m, ankles_m + MIN_ABOVE_ANKLE_M)
        legs = _Legs.of(body, shape, max(hem_m - room_m, ankles_m + MIN_ABOVE_ANKLE_M))
        if legs is None:
            return None
        ring = _Ring.of(legs)
        others = 0.5 * legs.share * (1 - ring.aside)
        # In other shapes and poses, too, the halves stay together, and a knee's corrective is the knee's.
        shape_basis_m, pose_basis_m = _lent(body.shape_basis_m, legs, others), body.pose_basis_m
        if pose_basis_m is not None:
            pose_basis_m = (_lent(pose_basis_m, legs, others) * (1 - legs.share)[:, None]).astype(np.float32)
        weights = _weights(body, legs, others)
        worn = replace(
            body,
            template_m=(ring.laid_m - np.tensordot(shape, shape_basis_m[: len(shape)], 1)).astype(np.float32),
            shape_basis_m=shape_basis_m.astype(np.float32),
            skin_weights=weights.astype(np.float32),
            pose_basis_m=pose_basis_m,
            under=body,
        )
        if has_bones:
            worn = _with_bones(worn, shape, legs, ring, weights)
        return Skirt(worn, ring.direction, legs.share > 0, legs.is_below, _folds(legs, ring, hem_m), hem_m)

    def baked(self, offsets_m: np.ndarray) -> tuple[BodyModel, np.ndarray]:
        """The body with the cloth's ``offsets_m`` (V,) in its surface at rest, and the offsets that are left."""
        moved_m = self.direction * np.where(self.is_cloth, offsets_m, 0)[:, None]
        body = replace(self.body, template_m=(self.body.template_m + moved_m).astype(np.float32))
        return body, np.where(self.is_cloth, 0, offsets_m)


class Hem(NamedTuple):
    """What masks say about a skirt's end."""

    height_m: float | None  # above the floor, at rest; None where trousers or bare legs explain them
    is_known: bool  # whether they say anything, that is whether legs were seen apart where it would be


def find_hem(chain: Chain, clip: Clip, states: dict[int, State], lowest_m: float = 0.0) -> Hem:
    """Where a skirt ends, by the poses ``states``; what they say below ``lowest_m`` is nothing against one.

    Half way between legs that stand apart and straight, a skirt is there down to its hem and trousers are not: a place
    on the line between hip, knee and ankle of both sides.
    """
    rest_m = _leg_axis(chain.posed(np.zeros_like(chain.joints_m), np.eye(4))[chain.num_vertices :])
    heights_m = np.arange(rest_m[2, 2], rest_m[0, 2], 0.01)[::-1]
    filled, counted = np.zeros(len(heights_m)), np.zeros(len(heights_m))
    for index, state in states.items():
        observation = clip[index]
        assert observation is not None
        landmarks_m = chain.posed(state.pose, state.camera_from_body)[chain.num_vertices :]
        legs_m = landmarks_m[np.array([HIPS, KNEES, ANKLES])]  # (3, 2, 3)
        if not _stands(legs_m, landmarks_m[list(SHOULDERS)]):
            continue
        camera, length_m = observation.camera, np.linalg.norm(np.diff(legs_m, axis=0), axis=2).sum(0).mean()
        points_m = interp1d(rest_m[:, 2], legs_m, axis=0, fill_value="extrapolate")(heights_m)  # (levels, 2, 3)
        z_m = np.maximum(points_m[..., 2:] - FRONT_M, 0.05)
        pixels = points_m[..., :2] / z_m * (camera.fx_px, camera.fy_px) + (camera.cx_px, camera.cy_px)
        apart_px = np.linalg.norm(pixels[:, 0] - pixels[:, 1], axis=1)
        counts = apart_px > APART * length_m * camera.fx_px / z_m[..., 0].mean(1) + APART_CELLS
        column, row = np.floor(pixels.mean(1)).astype(int).T
        width, height = camera.image_wh
        counts &= (column >= 0) & (row >= 0) & (column < width) & (row < height)
        column, row = column.clip(0, width - 1), row.clip(0, height - 1)
        counts &= observation.inside[row, column]
        counted += counts
        filled += counts & (observation.mask[row, column] >= 0.5)
    is_known = counted >= MIN_FRAMES
    is_cloth = is_known & (filled >= FILLED * counted)
    far_down = rest_m[0, 2] - heights_m >= LOW * (rest_m[0, 2] - rest_m[2, 2])
    found = np.flatnonzero(is_cloth & far_down)
    # Higher up legs are hardly ever far enough apart; where they are, there must be cloth too.
    if not len(found) or not is_cloth[: found[-1]][is_known[: found[-1]]].all():
        return Hem(None, bool((is_known & far_down & (heights_m >= lowest_m)).any()))
    return Hem(float(heights_m[found[-1]]), True)


def _stands(legs_m: np.ndarray, shoulders_m: np.ndarray) -> bool:
    """Whether legs (3, 2, 3) are straight and below the trunk: between knees that are bent one sees the trunk."""
    whole = legs_m[2] - legs_m[0]
    reach_m, length_m = np.linalg.norm(whole, axis=1), np.linalg.norm(np.diff(legs_m, axis=0), axis=2).sum(0)
    down = _unit(legs_m[0].mean(0) - shoulders_m.mean(0))
    return bool((reach_m > STRAIGHT * length_m).all() and (whole @ down > BELOW * reach_m).all())


@dataclass(frozen=True)
class _Legs:
    """The legs at rest, cut at the hem."""

    rest_m: np.ndarray  # (V, 3) before anything is laid out
    outward: np.ndarray  # (V, 3)
    twin: np.ndarray  # (V,) the vertex on the other side
    side: np.ndarray  # (V,) 1 on the left, -1 on the right
    is_leg: np.ndarray  # (V,) bool
    is_below: np.ndarray  # (V,) bool
    height_m: np.ndarray  # (V,) with a straight hem
    share: np.ndarray  # (V,) how much of the skirt a vertex is: 0 at the hips and below the hem, 1 where it hangs free
    axis_m: np.ndarray  # (3, 3) hip, knee and ankle of the left
    crotch_m: float

    @staticmethod
    def of(body: BodyModel, shape: np.ndarray, hem_m: float) -> _Legs | None:
        rest_m, faces = body.shaped(shape)[0].astype(float), body.faces
        left, right = ([_of_part(body, f"{part}{side}") for part in LEG_PARTS] for side in (".L", ".R"))
        trunk = np.unique(np.concatenate([_of_part(body, part) for part in TRUNK_PARTS]))
        away_m, twin = cKDTree(body.template_m).query(body.template_m * np.array([-1, 1, 1], np.float32))
        if not all(map(len, [*left, *right, trunk])) or away_m[np.concatenate(left)].max() > SYMMETRIC_M:
            return None
        is_left, is_leg = (np.isin(np.arange(len(rest_m)), np.concatenate(own)) for own in (left, left + right))
        is_cloth, is_below = is_leg & (rest_m[:, 2] > hem_m), is_leg & (rest_m[:, 2] <= hem_m)
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        across = edges[is_cloth[edges].any(1) & is_below[edges].any(1)]
        height_m = rest_m[:, 2].copy()
        height_m[across[is_cloth[across]]] = hem_m
        height_m[across[is_below[across]]] = hem_m + UNDER_HEM_M
        crotch_m = float(rest_m[trunk, 2].min())
        rise = np.clip((crotch_m + CROTCH_M - height_m) / JOINED_M, 0, 1)
        return _Legs(
            rest_m=rest_m,
            outward=body.outward(rest_m),
            twin=twin,
            side=np.where(is_left, 1.0, -1.0),
            is_leg=is_leg,
            is_below=is_below,
            height_m=height_m,
            share=rise * rise * (3 - 2 * rise) * is_cloth,
            axis_m=_leg_axis(body.landmarks(rest_m)),
            crotch_m=crotch_m,
        )

    def axis_at(self, height_m: np.ndarray) -> np.ndarray:
        """(V, 2) where the left leg's axis is, x and y."""
        return np.stack([np.interp(height_m, self.axis_m[::-1, 2], self.axis_m[::-1, k]) for k in (0, 1)], 1)


@dataclass(frozen=True)
class _Ring:
    """The legs laid about the skirt."""

    laid_m: np.ndarray  # (V, 3)
    direction: np.ndarray  # (V, 3)
    about: np.ndarray  # (V,) rad about the skirt: 0 in front, 90 degrees on the left
    aside: np.ndarray  # (V,) 0 between the legs, 1 at the side

    @staticmethod
    def of(legs: _Legs) -> _Ring:
        from_axis_m = np.stack([legs.side * legs.rest_m[:, 0], legs.rest_m[:, 1]], 1) - legs.axis_at(legs.rest_m[:, 2])
        angle, radius_m = np.arctan2(-from_axis_m[:, 1], from_axis_m[:, 0]), np.linalg.norm(from_axis_m, axis=1)
        axis_m, power = legs.axis_at(legs.height_m), 2 / SUPERELLIPSE
        half_x_m, half_y_m = axis_m[:, 0] + radius_m, radius_m + 0.01
        along = np.clip(angle / OPENED, -1, 1) * np.pi / 2
        x, y = half_x_m * np.cos(along) ** power, half_y_m * np.sign(along) * np.abs(np.sin(along)) ** power
        # What hides between front and back stays close behind them, so that normals there are the cloth's.
        y *= 1 - TUCK * np.clip((np.abs(angle) - OPENED) / (np.pi - OPENED), 0, 1) ** 2
        # Down means along the leg: at rest, where legs are apart, a hem is level across each of them.
        hip_m, _, ankle_m = legs.axis_m
        spread = (ankle_m[0] - hip_m[0]) / (hip_m[2] - ankle_m[2])
        hung_m = np.stack([legs.side * x, axis_m[:, 1] - y, legs.height_m + spread * (x - axis_m[:, 0])], 1)
        share, level_m = legs.share[:, None], np.column_stack([legs.rest_m[:, :2], legs.height_m])
        laid_m = level_m + share * (hung_m - level_m)
        out = _unit(np.stack([x / half_x_m**2, -y / half_y_m**2], 1))
        direction = np.stack([legs.side * out[:, 0], out[:, 1], spread * out[:, 0]], 1)
        direction = _unit(share * direction + (1 - share) * legs.outward) * (share > 0)
        about = np.arctan2(legs.side * np.cos(along), np.sin(along))
        return _Ring(laid_m, direction, about, np.sin(np.clip(np.abs(laid_m[:, 0]) / half_x_m, 0, 1) * np.pi / 2))


def _weights(body: BodyModel, legs: _Legs, others: np.ndarray) -> np.ndarray:
    """(V, J) skinning weights of cloth, that share (V,) of them the other leg's; everything else has the body's."""
    naked = np.asarray(body.skin_weights, float)
    hanging = np.zeros_like(naked)  # cloth has no knees: what hangs on a leg at its height, smoothly
    for leg in (legs.is_leg & (legs.side > 0), legs.is_leg & (legs.side < 0)):
        nearness = np.exp(-0.5 * ((legs.height_m[leg, None] - legs.rest_m[None, leg, 2]) / HANGS_M) ** 2)
        hanging[leg] = nearness @ naked[leg] / nearness.sum(1, keepdims=True)
    share = legs.share[:, None]
    hanging = share * hanging + (1 - share) * naked
    weights = _lent(hanging, legs, others)
    return np.where(share > 0, strongest(weights, CLOTH_INFLUENCES), naked)


def _with_bones(worn: BodyModel, shape: np.ndarray, legs: _Legs, ring: _Ring, on_legs: np.ndarray) -> BodyModel:
    """``worn`` on bones about the waist, as high as the hips; on_legs (V, J) are its weights without any."""
    bare, panel, share = worn.bare, bones.shares(ring.about), legs.share[:, None]
    hip_m, out = legs.axis_m[0], bones.directions()
    middle_m = np.array([0, hip_m[1], hip_m[2]])
    outer = np.flatnonzero(legs.is_leg & (legs.rest_m[:, 2] > hip_m[2] - WAIST_M))
    half_m = np.abs(legs.rest_m[outer] - middle_m).max(0)[:2]
    places_m = middle_m + out * np.append(half_m, 0)
    on_bones = np.concatenate([(1 - share) * bare.skin_weights, np.zeros_like(share), share * panel], axis=1)
    weights = np.pad(on_legs, ((0, 0), (0, 1 + bones.NUM_PANELS)))
    weights = np.where(share > 0, strongest(on_bones, CLOTH_INFLUENCES), weights).astype(np.float32)
    hem = panel * np.exp(-0.5 * ((legs.height_m - legs.height_m[legs.share > 0].min()) / HANGS_M) ** 2)[:, None]
    hem = np.where(share > 0, hem, 0).T  # (B, V)
    hem /= hem.sum(1, keepdims=True)
    return replace(
        worn,
        **bones.tables(bare, np.concatenate([middle_m[None], places_m]), shape),
        skin_weights=weights,
        hem_points_m=(hem @ ring.laid_m).astype(np.float32),
        hem_weights=(hem @ on_legs).astype(np.float32),
    )


def _lent(values: np.ndarray, legs: _Legs, others: np.ndarray) -> np.ndarray:
    """(..., V, X) values of vertices, ``others`` (V,) of them the twin's."""
    return np.asarray(values + others[:, None] * (values[..., legs.twin, :] - values))


def _folds(legs: _Legs, ring: _Ring, hem_m: float) -> np.ndarray:
    """(V, K) of ``Skirt``: a skirt's form is smooth, all the way round and where nobody saw it."""
    orders = range(1, WAVES + 1)
    waves = [np.ones_like(ring.about), *(wave(k * ring.about) for k in orders for wave in (np.cos, np.sin))]
    down = np.minimum(2 * (legs.crotch_m - legs.height_m) / (legs.crotch_m - hem_m) - 1, 1)  # below the hem as at it
    folds = np.einsum("vi,vj->vij", np.stack(waves, 1), np.polynomial.legendre.legvander(down, DEGREE))
    return np.asarray(folds.reshape(len(down), -1) * (legs.share > 0)[:, None])


def _of_part(body: BodyModel, name: str) -> np.ndarray:
    """The vertices of a part; none of one that the body does not have."""
    number = body.part_names.index(name) if name in body.part_names else -1
    return np.unique(body.faces[body.face_part == number])


def _leg_axis(landmarks_m: np.ndarray) -> np.ndarray:
    """(3, 3) hip, knee and ankle, the mean of both sides with x to the outside."""
    sides = np.stack([landmarks_m[list(pair)] for pair in (HIPS, KNEES, ANKLES)])  # (3, 2, 3)
    return np.asarray((sides * np.array([[1, 1, 1], [-1, 1, 1]])).mean(1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9))
