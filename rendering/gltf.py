"""An avatar's body as a binary glTF 2.0 file: skinned mesh, colour texture, motions as animations.

V vertices, U corners of the file's mesh (a vertex once per texture coordinate), J joints, N frames.
Enter: a person at rest and motions in the world (z up).  Leaves: one .glb; its world has y up, the person looks
along +z (Khronos, "glTF 2.0 Specification", 3.4).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from capture.files import encode_png
from fitting.body.skinning import vertex_normals
from rendering.avatar import Shape
from rendering.retarget import Motion

INFLUENCES = 4  # what every viewer reads: many ignore a second set of four
STILL_RAD = 1e-4  # a joint that never turns further keeps its rest rotation
UPRIGHT = Rotation.from_euler("x", -90, degrees=True)  # glTF's world from ours
MAGIC, VERSION, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
# glTF's names for numbers: component types, buffer targets, filters
UBYTE, USHORT, UINT, FLOAT = 5121, 5123, 5125, 5126
VERTICES, INDICES = 34962, 34963
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE = 9729, 9987, 33071
COMPONENT = {np.dtype(np.uint8): UBYTE, np.dtype(np.uint16): USHORT, np.dtype(np.uint32): UINT, np.dtype("f4"): FLOAT}
KINDS = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
UNLIT = "KHR_materials_unlit"


def glb(shape: Shape, name: str, colors: np.ndarray, motions: Sequence[Motion]) -> bytes:
    """The file.  ``colors`` (T, T, 3) uint8 sRGB lies on the body's own atlas.

    Of each vertex's weights the ``INFLUENCES`` largest are kept and made to sum to 1.  SMPL's pose correctives have no
    place in it.
    """
    body = shape.body
    rest_m, joints_m = body.shaped(shape.shape, shape.vertex_offsets_m)
    file = _File()
    corners, faces = np.unique(
        np.stack([body.faces.reshape(-1), body.face_uv.reshape(-1)], axis=1), axis=0, return_inverse=True
    )
    vertex, texture = corners.T
    joints, weights = _skin(body.skin_joints, body.skin_values)
    attributes = {
        "POSITION": file.accessor(rest_m[vertex].astype(np.float32), VERTICES, with_range=True),
        "NORMAL": file.accessor(_unit(vertex_normals(rest_m, body.faces)[vertex]), VERTICES),
        "TEXCOORD_0": file.accessor(body.uv[texture].astype(np.float32), VERTICES),
        "JOINTS_0": file.accessor(joints[vertex], VERTICES),
        "WEIGHTS_0": file.accessor(weights[vertex], VERTICES),
    }
    indices = file.accessor(faces.reshape(-1).astype(np.uint32), INDICES)
    inverse_bind = np.tile(np.eye(4, dtype=np.float32), (len(joints_m), 1, 1))
    inverse_bind[:, 3, :3] = -joints_m  # stored by columns; at rest every joint's axes are the body's
    # Node j is joint j; then the world, which turns our z up to glTF's y, and the mesh.
    world, mesh = len(joints_m), len(joints_m) + 1
    quaternion = [float(value) for value in UPRIGHT.as_quat()]
    nodes = [*_joints(body.joint_names, body.parents, joints_m)]
    nodes += [{"name": "world", "rotation": quaternion, "children": [0]}, {"name": name, "mesh": 0, "skin": 0}]
    document = {
        "asset": {"version": "2.0", "generator": "capture-to-avatar pipeline"},
        "extensionsUsed": [UNLIT],
        "scene": 0,
        "scenes": [{"nodes": [world, mesh]}],
        "nodes": nodes,
        "meshes": [{"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "skins": [
            {"joints": list(range(len(joints_m))), "skeleton": 0, "inverseBindMatrices": file.accessor(inverse_bind)}
        ],
        "materials": [_material(name)],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [
            {"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, "wrapS": CLAMP_TO_EDGE, "wrapT": CLAMP_TO_EDGE}
        ],
        "images": [{"name": name, "mimeType": "image/png", "bufferView": file.view(encode_png(colors))}],
    }
    if motions:
        document["animations"] = [_animation(file, motion, joints_m) for motion in motions]
    return file.close(document)


def _material(name: str) -> dict[str, Any]:
    # The light of the recording is in the colours; a second lamp would shade them twice.
    return {
        "name": name,
        "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 0.9},
        "extensions": {UNLIT: {}},
    }


def _skin(joints: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V, 4) uint16 joints and (V, 4) float32 weights from (V, K), strongest first."""
    missing = max(0, INFLUENCES - joints.shape[1])
    joints = np.pad(joints, ((0, 0), (0, missing)))[:, :INFLUENCES]
    weights = np.pad(weights, ((0, 0), (0, missing)))[:, :INFLUENCES].astype(np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.where(weights > 0, joints, 0).astype(np.uint16), weights.astype(np.float32)


def _joints(names: Sequence[str], parents: np.ndarray, joints_m: np.ndarray) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = []
    for joint, (name, parent) in enumerate(zip(names, parents, strict=True)):
        place = joints_m[joint] - (joints_m[parent] if parent >= 0 else 0)
        nodes.append({"name": name, "translation": [float(value) for value in place]})
        if parent >= 0:
            nodes[parent].setdefault("children", []).append(joint)
    return nodes


def _animation(file: _File, motion: Motion, joints_m: np.ndarray) -> dict[str, Any]:
    """Rotations of the joints that turn, and where the root is; the other joints keep their rest."""
    times = file.accessor((np.arange(len(motion)) / motion.frames_per_second).astype(np.float32), with_range=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []

    def channel(joint: int, path: str, values: np.ndarray) -> None:
        channels.append({"sampler": len(samplers), "target": {"node": joint, "path": path}})
        samplers.append({"input": times, "output": file.accessor(values.astype(np.float32)), "interpolation": "LINEAR"})

    place = motion.world_from_body
    root_m = np.einsum("nij,j->ni", place[:, :3, :3], joints_m[0]) + place[:, :3, 3]
    channel(0, "translation", root_m)
    for joint in range(motion.pose.shape[1]):
        turned = Rotation.from_rotvec(motion.pose[:, joint])
        if joint == 0:
            turned = Rotation.from_matrix(place[:, :3, :3]) * turned
        if turned.magnitude().max() > STILL_RAD:
            channel(joint, "rotation", _without_jumps(turned.as_quat()))
    return {"name": motion.name, "samplers": samplers, "channels": channels}


def _without_jumps(quaternions: np.ndarray) -> np.ndarray:
    """(N, 4) with signs chosen so that neighbours are near: q and -q are one rotation, but not half-way between."""
    turns = np.sign((quaternions[1:] * quaternions[:-1]).sum(axis=1))
    signs = np.cumprod(np.concatenate([[1.0], np.where(turns == 0, 1, turns)]))
    return quaternions * signs[:, None]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """(U, 3) float32 of length 1, also where a vertex has no area."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(length > 0.5, vectors / np.maximum(length, 1e-9), [0.0, 0.0, 1.0]).astype(np.float32)


class _File:
    """The binary chunk and what the document says of it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        self.data += b"\0" * (-len(self.data) % 4)  # every component type begins at a multiple of its size
        found: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        if target is not None:
            found["target"] = target
        self.data += data
        self.views.append(found)
        return len(self.views) - 1

    def accessor(self, values: np.ndarray, target: int | None = None, with_range: bool = False) -> int:
        """``with_range`` states the smallest and largest values, which positions and times must."""
        values = np.ascontiguousarray(values)
        found: dict[str, Any] = {
            "bufferView": self.view(values.tobytes(), target),
            "componentType": COMPONENT[values.dtype],
            "count": len(values),
            "type": KINDS[values.shape[1:]],
        }
        if with_range:
            rows = values.reshape(len(values), -1)
            found["min"] = [float(value) for value in rows.min(axis=0)]
            found["max"] = [float(value) for value in rows.max(axis=0)]
        self.accessors.append(found)
        return len(self.accessors) - 1

    def close(self, document: dict[str, Any]) -> bytes:
        self.data += b"\0" * (-len(self.data) % 4)
        tables = {"accessors": self.accessors, "bufferViews": self.views, "buffers": [{"byteLength": len(self.data)}]}
        text = json.dumps({**document, **tables}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = b""
        for kind, content in ((JSON_CHUNK, text), (BINARY_CHUNK, bytes(self.data))):
            chunks += np.array([len(content), kind], "<u4").tobytes() + content
        return np.array([MAGIC, VERSION, 12 + len(chunks)], "<u4").tobytes() + chunks
