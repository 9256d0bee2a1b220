"""What is where on the body: which part, and which region for try-on, a face belongs to.

In: the mean person's dense mesh, skinning weights and joints (Anny's names).  Out: a label per face.
V vertices, F faces, J joints.
"""

from __future__ import annotations

import numpy as np

LIMBS = ("upper_arm", "lower_arm", "upper_leg", "lower_leg")
REGION_NAMES = ("background", "head", "torso", "arms", "hands", "legs", "feet")
_SIDED = (*LIMBS, "palm", "hand_back", "instep", "sole")
PART_NAMES = (
    "background", "face", "head_back", "chest", "back", *(f"{name}.{side}" for side in "LR" for name in _SIDED),
)  # fmt: skip
REGION_OF = {
    "face": "head", "head_back": "head", "chest": "torso", "back": "torso", "upper_arm": "arms", "lower_arm": "arms",
    "upper_leg": "legs", "lower_leg": "legs", "palm": "hands", "hand_back": "hands", "instep": "feet", "sole": "feet",
}  # fmt: skip
_GROUP_OF_JOINT = {
    "head": "head", "neck03": "head", "neck02": "head", "upperarm": "upper_arm", "lowerarm": "lower_arm",
    "wrist": "hand", "finger": "hand", "metacarpal": "hand", "upperleg": "upper_leg", "lowerleg": "lower_leg",
    "foot": "foot", "hand": "hand", "toe": "foot", "jaw": "head", "eye": "head",
}  # fmt: skip


def face_parts(
    vertices_m: np.ndarray,
    faces: np.ndarray,
    skin_weights: np.ndarray,
    joint_names: tuple[str, ...],
    joints_m: np.ndarray,
) -> np.ndarray:
    """(F,) index into PART_NAMES for the left half of a body (x >= 0)."""
    joint = dict(zip(joint_names, joints_m, strict=True))
    groups = sorted({"torso", *_GROUP_OF_JOINT.values()})
    group_of_joint = np.array([groups.index(_group(name)) for name in joint_names])
    weight = np.zeros((len(vertices_m), len(groups)))
    np.add.at(weight.T, group_of_joint, skin_weights.T)
    corners = vertices_m[faces]  # (F, 3, 3)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    centers = corners.mean(1)
    neighbours = face_neighbours(faces)
    group = _smooth(_blurred(weight[faces].sum(1), neighbours, 8).argmax(1), neighbours, iterations=8)
    head, foot = corners[group == groups.index("head")], corners[group == groups.index("foot")]
    in_front_m = {  # positive on the first of the two parts
        "head": _behind_ears_y(head) - centers[:, 1],
        "torso": _side_line_y(centers[:, 2], joint) - centers[:, 1],
        "hand": -0.01 * (normals @ dorsal(joint, "L")),
        "foot": np.maximum(0.02 * (normals[:, 2] + 0.45), _behind_toes_y(foot) - centers[:, 1]),
    }
    front_back = {"head": ("face", "head_back"), "torso": ("chest", "back"), "hand": ("palm.L", "hand_back.L"),
                  "foot": ("instep.L", "sole.L")}  # fmt: skip
    part = np.zeros(len(faces), int)
    for index, name in enumerate(groups):
        inside = group == index
        if name in front_back:
            is_front = _blurred(in_front_m[name][:, None], neighbours, 3)[:, 0] > 0
            halves = _smooth(np.where(inside, is_front, 2 + group), neighbours, iterations=12, only=inside)
            for value, half in enumerate(reversed(front_back[name])):
                part[inside & (halves == value)] = PART_NAMES.index(half)
        else:
            part[inside] = PART_NAMES.index(f"{name}.L")
    return keep_largest_pieces(part, neighbours)


def _group(joint_name: str) -> str:
    stem = joint_name.split(".")[0]
    return next((group for prefix, group in _GROUP_OF_JOINT.items() if stem.startswith(prefix)), "torso")


def _side_line_y(z: np.ndarray, joint: dict[str, np.ndarray]) -> np.ndarray:
    """y of the line down the flank that parts chest from back, at height z."""
    height = [joint["upperleg01.L"][2] - 0.1, joint["upperleg01.L"][2], joint["spine03"][2], joint["upperarm01.L"][2],
              joint["neck01"][2]]  # fmt: skip
    y = [joint["upperleg01.L"][1] + 0.01, joint["upperleg01.L"][1] + 0.01, joint["spine03"][1] - 0.02,
         joint["upperarm01.L"][1], joint["neck01"][1] + 0.01]  # fmt: skip
    return np.interp(z, height, y)


def _behind_ears_y(head_corners_m: np.ndarray) -> float:
    """y of the plane that parts the face, ears included, from the back of the head."""
    y = head_corners_m[..., 1]
    return float(y.min() + 0.75 * (y.max() - y.min())) if y.size else 0.0


def _behind_toes_y(foot_corners_m: np.ndarray) -> float:
    """y of the plane that parts the toes, which lie in the instep's chart with their lower sides, from the sole."""
    y = foot_corners_m[..., 1]
    return float(y.min() + 0.24 * (y.max() - y.min())) if y.size else 0.0


def dorsal(joint: dict[str, np.ndarray], side: str) -> np.ndarray:
    """Unit vector out of the back of a hand; up for a body without fingers, which rests in a T with its palms down."""
    try:
        across = joint[f"finger5-1.{side}"] - joint[f"finger2-1.{side}"]
        out = np.cross(joint[f"finger3-1.{side}"] - joint[f"wrist.{side}"], across) * (1 if side == "L" else -1)
    except KeyError:
        return np.array([0.0, 0.0, 1.0])
    return out / np.linalg.norm(out)


def face_neighbours(faces: np.ndarray) -> np.ndarray:
    """(F, 3) the face across each edge (0-1, 1-2, 2-0), -1 at an open edge."""
    across: dict[tuple[int, int], tuple[int, int]] = {}
    out = np.full((len(faces), 3), -1)
    for f, face in enumerate(faces.tolist()):
        for e in range(3):
            u, v = face[e], face[(e + 1) % 3]
            if (v, u) in across:
                g, h = across.pop((v, u))
                out[f, e], out[g, h] = g, f
            else:
                across[(u, v)] = (f, e)
    return out


def _blurred(values: np.ndarray, neighbours: np.ndarray, iterations: int) -> np.ndarray:
    """(F, n) values averaged with those across the edges, so that borders run straight across the mesh."""
    for _ in range(iterations):
        around = np.where((neighbours >= 0)[:, :, None], values[neighbours], values[:, None])
        values = (values + around.sum(1)) / 4
    return values


def _smooth(label: np.ndarray, neighbours: np.ndarray, iterations: int, only: np.ndarray | None = None) -> np.ndarray:
    """A face that disagrees with two neighbours which agree takes their label; borders lose their teeth."""
    label = label.copy()
    for _ in range(iterations):
        around = np.where(neighbours >= 0, label[neighbours], label[:, None])
        a, b, c = around.T
        winner = np.where((a == b) | (a == c), a, np.where(b == c, b, label))
        if only is not None:
            winner = np.where(only & (winner < 2), winner, label)
        if (winner == label).all():
            break
        label = winner
    return label


def pieces(label: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """(F,) number of the connected patch of equal labels that each face belongs to."""
    piece = np.full(len(label), -1)
    for start in range(len(label)):
        if piece[start] >= 0:
            continue
        piece[start], stack = start, [start]
        while stack:
            f = stack.pop()
            for g in neighbours[f]:
                if g >= 0 and piece[g] < 0 and label[g] == label[f]:
                    piece[g] = start
                    stack.append(g)
    return piece


def keep_largest_pieces(label: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Give stray islands of a label to what surrounds them."""
    label = label.copy()
    while True:
        piece = pieces(label, neighbours)
        size = np.bincount(piece, minlength=len(label))
        strays = []
        for value in np.unique(label):
            ids = np.unique(piece[label == value])
            strays += [i for i in ids if i != ids[size[ids].argmax()]]
        if not strays:
            return label
        stray = min(strays, key=lambda i: (size[i], i))
        border = neighbours[piece == stray]
        outside = border[(border >= 0) & (piece[border] != stray)]
        label[piece == stray] = np.bincount(label[outside]).argmax()


def face_regions(face_part: np.ndarray) -> np.ndarray:
    """(F,) uint8 index into REGION_NAMES of faces whose part is known."""
    region = [0] + [REGION_NAMES.index(REGION_OF[name.split(".")[0]]) for name in PART_NAMES[1:]]
    return np.array(region, np.uint8)[face_part]


def mirrored_name(name: str) -> str:
    """The part or joint on the other side of the body; the name itself for one in the middle."""
    return name[:-1] + {"L": "R", "R": "L"}[name[-1]] if name[-2:] in (".L", ".R") else name
