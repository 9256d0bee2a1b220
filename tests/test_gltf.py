"""The exported body: a valid glTF file whose skeleton, weights and animations put the skin where ours is."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from miniature import dance
from scipy.spatial.transform import Rotation, Slerp
from test_avatar import make_avatar

from fitting.body.model import BodyModel
from rendering.avatar import Shape
from rendering.bake import baked_colors
from rendering.gltf import UPRIGHT, glb
from rendering.networks import NeuralTexture
from rendering.poses import standing
from rendering.retarget import Motion

DTYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
COLORS = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)


class Read:
    """A .glb as any reader sees it."""

    def __init__(self, data: bytes) -> None:
        magic, version, length = np.frombuffer(data, "<u4", 3)
        assert (magic, version, length) == (0x46546C67, 2, len(data))
        size, kind = (int(value) for value in np.frombuffer(data, "<u4", 2, 12))
        assert kind == 0x4E4F534A and size % 4 == 0
        self.document: dict[str, Any] = json.loads(data[20 : 20 + size])
        binary_size, binary_kind = np.frombuffer(data, "<u4", 2, 20 + size)
        self.binary = data[28 + size :]
        assert (
            binary_kind == 0x004E4942 and binary_size == len(self.binary) == self.document["buffers"][0]["byteLength"]
        )

    def array(self, accessor: int) -> np.ndarray:
        found = self.document["accessors"][accessor]
        view = self.document["bufferViews"][found["bufferView"]]
        dtype, width = np.dtype(DTYPES[found["componentType"]]), WIDTHS[found["type"]]
        assert view["byteOffset"] % dtype.itemsize == 0
        assert found["count"] * width * dtype.itemsize == view["byteLength"]
        assert view["byteOffset"] + view["byteLength"] <= len(self.binary)
        values = np.frombuffer(self.binary, dtype, found["count"] * width, view["byteOffset"])
        values = values.reshape(found["count"], width) if width > 1 else values
        if "min" in found:
            rows = values.reshape(len(values), -1)
            assert rows.min(0).tolist() == found["min"] and rows.max(0).tolist() == found["max"]
        return values

    def primitive(self, name: str) -> np.ndarray:
        return self.array(self.document["meshes"][0]["primitives"][0]["attributes"][name])

    def posed(self, animation: int, seconds: float) -> np.ndarray:
        """(U, 3) the skinned corners in the file's world: glTF 2.0, sections 3.7.3.2 and 3.11."""
        nodes = [dict(node) for node in self.document["nodes"]]
        moving = self.document["animations"][animation]
        for channel in moving["channels"]:
            sampler = moving["samplers"][channel["sampler"]]
            times, values = self.array(sampler["input"]).astype(float), self.array(sampler["output"]).astype(float)
            assert len(times) == len(values) and (np.diff(times) > 0).all() and times[0] == 0
            at = float(np.clip(seconds, times[0], times[-1]))
            path = channel["target"]["path"]
            if path == "rotation" and len(times) > 1:
                found = Slerp(times, Rotation.from_quat(values))(at).as_quat()
            else:
                found = np.array([np.interp(at, times, column) for column in values.T])
            nodes[channel["target"]["node"]][path] = found
        placed: dict[int, np.ndarray] = {}

        def place(index: int, parent: np.ndarray) -> None:
            local = np.eye(4)
            local[:3, :3] = Rotation.from_quat(nodes[index].get("rotation", (0, 0, 0, 1))).as_matrix()
            local[:3, 3] = nodes[index].get("translation", (0, 0, 0))
            placed[index] = parent @ local
            for child in nodes[index].get("children", ()):
                place(child, placed[index])

        for root in self.document["scenes"][0]["nodes"]:
            place(root, np.eye(4))
        skin = self.document["skins"][0]
        inverse_bind = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        joints = np.stack([placed[node] for node in skin["joints"]]) @ inverse_bind
        corners = np.pad(self.primitive("POSITION"), ((0, 0), (0, 1)), constant_values=1)
        blended = np.einsum("uk,ukij->uij", self.primitive("WEIGHTS_0"), joints[self.primitive("JOINTS_0")])
        return np.einsum("uij,uj->ui", blended, corners)[:, :3]


def doll_shape() -> Shape:
    return make_avatar().bodies["doll"]


def doll_motion(count: int = 6) -> Motion:
    pose = dance(count)[0]
    placed = np.tile(np.eye(4), (count, 1, 1))
    placed[:, :3, :3] = Rotation.from_euler("z", np.linspace(0, 300, count)[:, None], degrees=True).as_matrix()
    placed[:, 0, 3] = np.linspace(0, 2, count)
    return Motion("dance", pose, placed, 10.0)


def corners_of(body: BodyModel) -> np.ndarray:
    """The vertex of each corner of the file, in its order."""
    pairs = np.stack([body.faces.reshape(-1), body.face_uv.reshape(-1)], axis=1)
    return np.unique(pairs, axis=0)[:, 0]


def test_every_frame_of_an_animation_is_the_pose_it_was_made_of() -> None:
    shape, motion = doll_shape(), doll_motion()
    file = Read(glb(shape, "doll", COLORS, [motion]))
    for frame in range(len(motion)):
        expected = shape.vertices_camera_m(motion.pose[frame], motion.world_from_body[frame])[corners_of(shape.body)]
        expected = UPRIGHT.apply(expected)
        np.testing.assert_allclose(file.posed(0, frame / 10), expected, atol=2e-5)
        assert np.ptp(expected[:, 1]) > 1.2  # he stands upright in a world whose y points up


def test_a_quick_turn_does_not_spin_backwards_between_two_frames() -> None:
    motion = doll_motion()
    file = Read(glb(doll_shape(), "doll", COLORS, [motion]))
    for channel in file.document["animations"][0]["channels"]:
        if channel["target"]["path"] == "rotation":
            values = file.array(file.document["animations"][0]["samplers"][channel["sampler"]]["output"])
            assert ((values[1:] * values[:-1]).sum(axis=1) > 0).all()
            np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-6)


def test_four_weights_do_for_the_shipped_body() -> None:
    body = BodyModel.default()
    shape = Shape(body, np.zeros(body.num_shape, np.float32), None)
    pose, world_from_body = standing(shape)
    rng = np.random.default_rng(0)
    pose[1:] += rng.normal(0, 0.25, pose[1:].shape) * body.joint_free[1:]
    file = Read(glb(shape, "person", COLORS, [Motion("standing", pose[None], world_from_body[None], 1.0)]))
    expected = UPRIGHT.apply(shape.vertices_camera_m(pose, world_from_body)[corners_of(body)])
    distance_m = np.linalg.norm(file.posed(0, 0) - expected, axis=1)
    assert np.median(distance_m) < 1e-5 and distance_m.max() < 0.005
    weights, joints = file.primitive("WEIGHTS_0"), file.primitive("JOINTS_0")
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert (joints[weights == 0] == 0).all() and joints.max() < body.num_joints


def test_the_mesh_is_whole_and_its_picture_is_inside() -> None:
    shape = doll_shape()
    file = Read(glb(shape, "doll", COLORS, []))
    assert "animations" not in file.document  # an empty list is not allowed
    for accessor in range(len(file.document["accessors"])):
        file.array(accessor)
    indices = file.array(file.document["meshes"][0]["primitives"][0]["indices"])
    assert len(indices) == shape.body.faces.size and indices.max() < len(file.primitive("POSITION"))
    np.testing.assert_array_equal(corners_of(shape.body)[indices].reshape(-1, 3), shape.body.faces)
    np.testing.assert_allclose(
        file.primitive("TEXCOORD_0")[indices].reshape(-1, 3, 2), shape.body.uv[shape.body.face_uv]
    )
    np.testing.assert_allclose(np.linalg.norm(file.primitive("NORMAL"), axis=1), 1, atol=1e-5)
    image = file.document["bufferViews"][file.document["images"][0]["bufferView"]]
    data = file.binary[image["byteOffset"] : image["byteOffset"] + image["byteLength"]]
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    np.testing.assert_array_equal(decoded[..., ::-1], COLORS)


@pytest.mark.parametrize("axis", [0, 1])
def test_baked_colours_are_those_that_the_avatar_paints(axis: int) -> None:
    """The avatar passes its texture's colours straight through; a gentle ramp must come back from its pictures."""
    avatar = make_avatar()
    ramp = np.zeros((64, 64, 8), np.float32)
    ramp[..., :3] = np.moveaxis(np.broadcast_to(np.linspace(-0.9, 0.9, 64)[:, None, None], (64, 64, 3)), 0, axis)
    texture = NeuralTexture(torch.from_numpy(ramp)).requires_grad_(False)
    painted = type(avatar)(avatar.renderer, {"doll": texture}, avatar.bodies, avatar.settings)
    baked = baked_colors(painted, "doll", 64).astype(float)
    true = (ramp[..., :3] + 1) * 127.5
    assert np.median(np.abs(baked - true)) < 4
    assert np.corrcoef(baked.ravel(), true.ravel())[0, 1] > 0.97
