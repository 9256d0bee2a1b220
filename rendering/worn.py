"""Clothes that change hands: one person's body in textures of several, all trained under one renderer.

Enters: an avatar with a cast, and who wears whose what.  Leaves: a texture and a shape to render.
V vertices, F faces, S people, T x T texels, C channels.

The texture's charts are parts of the body and never overlap, so whose a texel is follows from where it lies on the
body.  At the border of a region two people's texels are mixed, by how far it is along the skin to the border: so a seam
is as soft across charts as within one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from capture.errors import UserError
from fitting.body.model import BodyModel
from fitting.zbuffer import rasterize_faces
from rendering.avatar import Avatar, Shape
from rendering.cut import mixed_cut
from rendering.detail import as_stored
from rendering.networks import RGB, NeuralTexture
from rendering.skin import skin_of
from rendering.texels import DETAIL_STEP

SEAM_M = 0.05  # width of a seam along the skin: the clothes of two people never end at quite the same place
OWN_SKIN_M = 0.13  # how far from what one keeps one's own skin may show in somebody else's clothes
FAR_M = 10.0
CLOTHES = ("torso", "upper_arm", "legs", "feet")  # what is worn where nothing else is said
CLOTHES_OF_ANY = ("torso", "arms", "legs", "feet")  # of a body whose arms are one piece


def dressed(avatar: Avatar, body: str, regions: Mapping[str, str]) -> Avatar:
    """The avatar with ``body`` in other people's clothes, by close-up too; raises as ``worn`` does."""
    return avatar.with_subject(body, *worn(avatar, body, regions), worn_close(avatar, body, regions))


def between(avatar: Avatar, first: str, second: str, share: float) -> Avatar:
    """The avatar with ``first`` on the way to ``second``, by close-up too; raises as ``worn`` does."""
    close = avatar.close_up_of(first, second)
    close_texture = None if close is None else morphed(close, first, second, share)[0]
    return avatar.with_subject(first, *morphed(avatar, first, second, share), close_texture)


def worn_close(avatar: Avatar, body: str, regions: Mapping[str, str]) -> NeuralTexture | None:
    """The texture of ``worn`` for the close-up; None where not all that wear and lend have one."""
    close = avatar.close_up_of(body, *regions.values())
    return None if close is None else worn(close, body, regions)[0]


def worn(avatar: Avatar, body: str, regions: Mapping[str, str], seam_m: float = SEAM_M) -> tuple[NeuralTexture, Shape]:
    """``body`` with other people's texture, and the cut of their clothes, in some regions: {region: subject}.

    A region is a region or a part of the body model, "arms", "upper_arm" (both) or "upper_arm.L"; a part that is named
    goes before the region it lies in.  The joints stay those of ``body``, and so does the skin in a neckline and below
    a short sleeve, where both have it bare.
    Raises UserError for a subject or region that is not there, and for bodies with different atlases.
    """
    for subject in (body, *regions.values()):
        avatar.check_subject(subject)
    model = avatar.bodies[body].body
    faces = {region: faces_of(model, region) for region in regions}
    label = np.full(len(model.faces), avatar.subjects.index(body))
    for region in sorted(faces, key=lambda region: (-faces[region].sum(), region)):  # the narrower word decides
        label[faces[region]] = avatar.subjects.index(regions[region])
    present, label = np.unique(label, return_inverse=True)
    people = [avatar.subjects[i] for i in present]
    if people == [body]:
        return avatar.textures[body], avatar.bodies[body]
    depth = depth_m(avatar.bodies[body], label, len(people)) / max(seam_m, 1e-6)
    depth_px = spread(model, depth.astype(np.float32), avatar.textures[body].texels.shape[0])
    shares = shares_of(depth_px)
    if avatar.settings["train"].get("warm_start"):  # otherwise the texture's channels are no colours
        shares = _with_own_skin(avatar, people, body, shares, depth_px * max(seam_m, 1e-6))
    texture = mixed_texture(avatar, people, shares, body)
    return texture, mixed_cut(avatar, body, people, shares_of(depth))


def morphed(avatar: Avatar, first: str, second: str, share: float) -> tuple[NeuralTexture, Shape]:
    """Texture, shape and cut of two people mixed, ``share`` in [0, 1] of them the second one's.  Raises as ``worn``."""
    for subject in (first, second):
        avatar.check_subject(subject)
    people, shares = [first, second], np.array([1 - share, share], np.float32)
    texture = mixed_texture(avatar, people, shares)
    cut = mixed_cut(avatar, first, people, shares)
    figures = [avatar.bodies[subject].shape for subject in people]
    count = max(map(len, figures))
    figure = sum(part * np.pad(f, (0, count - len(f))) for part, f in zip(shares, figures, strict=True))
    return texture, cut._replace(shape=np.asarray(figure, np.float32))


def same_atlas(avatar: Avatar, first: str, second: str) -> bool:
    """Whether the texture of one fits the body of the other."""
    one, other = avatar.bodies[first].body, avatar.bodies[second].body
    is_same = np.array_equal(one.uv, other.uv) and np.array_equal(one.face_uv, other.face_uv)
    return is_same and avatar.textures[first].texels.shape == avatar.textures[second].texels.shape


def clothes_of(body: BodyModel) -> tuple[str, ...]:
    """The regions that clothes cover, as far as this body has names for them."""
    known = region_words(body)
    return tuple(word for word in (CLOTHES if "upper_arm" in known else CLOTHES_OF_ANY) if word in known)


def region_words(body: BodyModel) -> tuple[str, ...]:
    """Every word for a piece of the body: regions, parts, and pairs of parts without their side."""
    regions = [body.region_names[i] for i in np.unique(body.face_region)]
    parts = [body.part_names[i] for i in np.unique(body.face_part)]
    return tuple(dict.fromkeys([*regions, *(part.partition(".")[0] for part in parts), *parts]))


def faces_of(body: BodyModel, word: str) -> np.ndarray:
    """(F,) bool: the faces of a region, of a part, or of a pair of parts.  Raises UserError for no such word."""
    if word in body.region_names and (body.face_region == body.region_names.index(word)).any():
        return body.face_region == body.region_names.index(word)
    parts = [i for i, name in enumerate(body.part_names) if word in (name, name.partition(".")[0])]
    faces = np.isin(body.face_part, parts)
    if not faces.any():
        words = [known for known in region_words(body) if "." not in known]
        raise UserError(f"region {word!r}: this body has {', '.join(words)}")
    return faces


def shares_of(depth: np.ndarray) -> np.ndarray:
    """(..., S) shares, rows sum to 1, from how deep in one's own regions each of S people is, in widths of a seam.

    Everything is somebody's: one of a row's depths is not negative.  Half a seam before a border the share is 1, on it
    1/2, half a seam behind it 0, smooth in between.
    """
    inside = np.clip(np.asarray(depth, np.float32) + np.float32(0.5), 0, 1)
    raw = inside * inside * (3 - 2 * inside)
    return raw / raw.sum(axis=-1, keepdims=True)


def depth_m(shape: Shape, label: np.ndarray, num_people: int) -> np.ndarray:
    """(V, S) how far along the skin it is to somebody else's region, negative outside one's own; label (F,) of S."""
    rest_m, _ = shape.body.shaped(shape.shape)
    owned = [label == person for person in range(num_people)]
    return np.stack(
        [_distance_m(shape.body, rest_m, ~own) - _distance_m(shape.body, rest_m, own) for own in owned], axis=1
    )


def mixed_texture(avatar: Avatar, people: Sequence[str], shares: np.ndarray, body: str | None = None) -> NeuralTexture:
    """The texture with ``shares`` (T, T, S), or (S,) everywhere, of each of ``people``; its light and outline are those
    of ``body``, or mixed with shares (S,), too.

    Where one of them has all, the texel is his, bit for bit.  Raises UserError for bodies with different atlases.
    """
    textures = [avatar.textures[subject] for subject in people]
    for subject in people:
        if not same_atlas(avatar, subject, people[0]):
            raise UserError(
                f"{subject} and {people[0]} have bodies with different atlases; train both with one fit.body"
            )
    weights = torch.from_numpy(np.array(shares, np.float32)).to(textures[0].texels.device)
    parts = [weight[..., None] * texture.texels for weight, texture in zip(weights.unbind(-1), textures, strict=True)]
    tensors = {"texels": torch.stack(parts).sum(0)}
    whole = [(body, 1.0)] if body is not None else list(zip(people, shares.tolist(), strict=True))
    for name in ("light", "outline"):
        values = [(part, getattr(avatar.textures[subject], name)) for subject, part in whole]
        terms = [part * value for part, value in values if value is not None]
        if terms:
            tensors[name] = torch.stack(terms).sum(0)
    detail = mixed_detail(textures, np.asarray(shares, np.float32))
    if detail is not None:
        tensors["detail"] = detail
    return type(textures[0]).of(tensors).to(weights.device).requires_grad_(False)


def mixed_detail(textures: Sequence[NeuralTexture], shares: np.ndarray) -> Tensor | None:
    """The detail (``rendering.detail``) with ``shares`` (T, T, S) or (S,) of each texture's, as fine as the finest;
    None where nobody has any."""
    sizes = [texture.detail.shape[0] for texture in textures if texture.detail is not None]
    if not sizes:
        return None
    size = max(sizes)
    total = np.zeros((size, size, RGB), np.float32)
    for texture, share in zip(textures, np.moveaxis(shares, -1, 0), strict=True):
        if texture.detail is not None:
            weight = share if share.ndim == 0 else cv2.resize(share, (size, size), interpolation=cv2.INTER_LINEAR)
            theirs = cv2.resize(texture.detail_level(0).astype(np.float32), (size, size))
            total += np.asarray(weight)[..., None] * theirs
    return as_stored(total * DETAIL_STEP)


def _distance_m(body: BodyModel, rest_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) along the mesh's edges to the nearest vertex of ``faces`` (F,) bool, of which there are some.

    A piece of the mesh that is not joined to them is far away.
    """
    sources = np.unique(body.faces[faces])
    edges = np.concatenate([body.faces[:, [0, 1]], body.faces[:, [1, 2]], body.faces[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    lengths_m = np.linalg.norm(rest_m[edges[:, 0]] - rest_m[edges[:, 1]], axis=1)
    graph = csr_matrix((lengths_m, (edges[:, 0], edges[:, 1])), shape=(len(rest_m), len(rest_m)))
    return np.minimum(dijkstra(graph, directed=False, indices=sources, min_only=True), FAR_M)


def _with_own_skin(
    avatar: Avatar, people: Sequence[str], body: str, shares: np.ndarray, depth_px_m: np.ndarray
) -> np.ndarray:
    """shares (T, T, S) where ``body``'s own skin stays: near what it keeps, where it and the other both show skin."""
    model, own = avatar.bodies[body].body, people.index(body)
    layout = _layout(_Atlas(model), shares.shape[0])
    is_hand = (
        faces_of(model, "hands")[layout.face] if "hands" in region_words(model) else np.zeros(layout.face.shape, bool)
    )
    bare = [
        skin_of(avatar.textures[name].texels.cpu().numpy(), is_hand & layout.is_covered, layout.is_covered)
        for name in people
    ]
    near = np.clip((OWN_SKIN_M + depth_px_m[..., own]) / (0.3 * OWN_SKIN_M), 0, 1)
    result = shares.copy()
    for other in (i for i in range(len(people)) if i != own):
        stays = (np.minimum(bare[own], bare[other]) * near).ravel()[layout.source]
        moved = shares[..., other] * stays
        result[..., other] -= moved
        result[..., own] += moved
    return result


def spread(body: Charted, values: np.ndarray, texture_px: int) -> np.ndarray:
    """(T, T, S) float32: per-vertex values (V, S) over the atlas; texels beside a chart have their nearest one's."""
    layout = _layout(_Atlas(body), texture_px)
    corners, weights = values[body.faces[layout.face]], layout.weights  # (T, T, 3, S)
    # Equal corners must give exactly their value, whatever the weights' last bit.
    base = corners[:, :, 2]
    mix = base + weights[..., :1] * (corners[:, :, 0] - base) + weights[..., 1:] * (corners[:, :, 1] - base)
    return np.ascontiguousarray(mix, np.float32)


def nearest_vertices(body: Charted, texture_px: int) -> tuple[np.ndarray, np.ndarray]:
    """(T, T) the vertex that each texel is nearest to, and whether it lies on a chart (T, T) bool."""
    layout = _layout(_Atlas(body), texture_px)
    weights = np.concatenate([layout.weights, 1 - layout.weights.sum(axis=2, keepdims=True)], axis=2)
    corner = weights.argmax(axis=2)[..., None]
    return np.take_along_axis(body.faces[layout.face], corner, axis=2)[..., 0], layout.is_covered


class Charted(Protocol):
    """A mesh with an atlas: a body, or finer faces of one."""

    @property
    def faces(self) -> np.ndarray: ...  # (F, 3)
    @property
    def uv(self) -> np.ndarray: ...  # (U, 2) in [0, 1]
    @property
    def face_uv(self) -> np.ndarray: ...  # (F, 3) into uv


class _Atlas:
    """A body as a key: by what its atlas is made of."""

    def __init__(self, body: Charted) -> None:
        self.uv, self.face_uv = body.uv, body.face_uv
        self._key = (body.uv.tobytes(), body.face_uv.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Atlas) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class _Layout(NamedTuple):
    """What lies on every texel; where no chart does, what lies on the nearest texel of one."""

    face: np.ndarray  # (T, T)
    weights: np.ndarray  # (T, T, 2) of the face's first two corners
    is_covered: np.ndarray  # (T, T) bool
    source: np.ndarray  # (T, T) flat index of the texel itself, or of the nearest covered one


@lru_cache(maxsize=4)
def _layout(atlas: _Atlas, texture_px: int) -> _Layout:
    shape = (texture_px, texture_px)
    face, weights, _ = rasterize_faces(atlas.uv * texture_px, np.ones(len(atlas.uv)), atlas.face_uv, shape)
    is_covered = face >= 0
    _, nearest = distance_transform_edt(~is_covered, return_indices=True)
    source = nearest[0] * texture_px + nearest[1]
    return _Layout(face.ravel()[source], weights.reshape(-1, 2)[source], is_covered, source)
