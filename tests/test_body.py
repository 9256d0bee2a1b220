"""The shipped body: closed, symmetric, skinned as SMPL skins, with an atlas in which no texel has two owners."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from capture.errors import UserError
from fitting.body.flatten import flatten, stretch
from fitting.body.model import BodyModel
from fitting.body.outward import outward
from fitting.body.preview import draw_uv_layout
from fitting.body.simplify import Simplifier
from fitting.body.skinning import rotations, vertex_normals
from fitting.fit import load_body

GRID = 256


@pytest.fixture(scope="module")
def mirror(body) -> np.ndarray:
    """(V,) the vertex on the other side."""
    apart = np.linalg.norm(body.template_m[:, None] - body.template_m[None] * [-1, 1, 1], axis=2)
    assert apart.min(1).max() < 1e-6
    return apart.argmin(1)


def volume_m3(vertices_m, faces):
    a, b, c = vertices_m[faces].transpose(1, 0, 2).astype(float)
    return (np.cross(a, b) * c).sum() / 6


def face_normals(vertices_m, faces):
    a, b, c = vertices_m[faces].transpose(1, 0, 2).astype(float)
    return np.cross(b - a, c - a)


def local_pose(body, **degrees):
    """(J, 3) pose from (twist, hinge, swing) degrees; ``wrist_L`` is the joint wrist.L."""
    pose = np.zeros((body.num_joints, 3))
    for name, angles in degrees.items():
        j = body.joint_index(name.replace("_", "."))
        pose[j] = body.joint_axes[j] @ np.deg2rad(angles)
    return pose


def test_mesh_is_one_closed_surface_seen_from_outside(body):
    assert body.template_m.shape == (1831, 3) and body.faces.shape == (3658, 3) and body.num_joints == 74
    directed = np.concatenate([body.faces[:, [0, 1]], body.faces[:, [1, 2]], body.faces[:, [2, 0]]])
    edges = {(int(a), int(b)) for a, b in directed}
    assert len(edges) == len(directed) and all((b, a) in edges for a, b in edges)
    assert len(body.template_m) - len(edges) // 2 + len(body.faces) == 2  # a sphere: no handle, no second piece
    assert 0.05 < volume_m3(body.template_m, body.faces) < 0.09


def test_zero_shape_is_an_average_adult_in_the_body_frame(body):
    low, high = body.template_m.min(0), body.template_m.max(0)
    assert abs(low[2]) < 0.005 and 1.62 < high[2] < 1.76
    landmark_m = dict(zip(body.landmark_names, body.landmarks(body.template_m), strict=True))
    assert landmark_m["left_wrist"][0] > 0.2 and landmark_m["nose"][1] < landmark_m["left_ear"][1] - 0.05
    assert np.abs((landmark_m["left_ankle"] + landmark_m["right_ankle"])[:2]).max() < 0.03


def test_shape_coefficients_have_unit_variance_and_order(body):
    spread_m2 = (body.shape_basis_m.astype(float) ** 2).sum((1, 2))
    assert (np.diff(spread_m2) < 0).all()
    rng = np.random.default_rng(0)
    heights_m = [np.ptp(body.shaped(rng.normal(size=body.num_shape))[0][:, 2]) for _ in range(200)]
    assert 0.06 < np.std(heights_m) < 0.14  # adults of both sexes: about 0.1 m


def test_mesh_weights_shapes_and_joints_are_symmetric(body, mirror):
    twin = [
        body.joint_index(n[:-1] + {"L": "R", "R": "L"}[n[-1]]) if n[-2] == "." else j
        for j, n in enumerate(body.joint_names)
    ]
    np.testing.assert_allclose(body.skin_weights[mirror][:, twin], body.skin_weights, atol=1e-6)
    np.testing.assert_allclose(body.shape_basis_m[:, mirror] * [-1, 1, 1], body.shape_basis_m, atol=1e-5)
    np.testing.assert_allclose(body.joints_basis_m[:, twin] * [-1, 1, 1], body.joints_basis_m, atol=1e-6)
    np.testing.assert_allclose(body.joints_template_m[twin] * [-1, 1, 1], body.joints_template_m, atol=1e-6)
    np.testing.assert_allclose(body.local_lower[twin][:, 1], body.local_lower[:, 1], atol=1e-6)
    np.testing.assert_allclose(-body.local_lower[twin][:, [0, 2]], body.local_upper[:, [0, 2]], atol=1e-6)


def test_weights_are_convex_and_the_compact_form_is_the_same(body):
    for weights in (body.skin_weights, body.landmark_weights):
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    assert body.skin_values.shape[1] <= 6
    dense = np.zeros_like(body.skin_weights)
    np.add.at(dense, (np.arange(len(dense))[:, None], body.skin_joints), body.skin_values)
    np.testing.assert_array_equal(dense, body.skin_weights)


def test_posed_agrees_with_the_definition(body):
    """G_j = G_parent T(j_j - j_parent) Rot(pose_j); v' = sum_j w_vj G_j T(-j_j) v, with plain 4 x 4 matrices."""
    rng = np.random.default_rng(0)
    shape, pose = rng.normal(size=4), rng.normal(scale=0.5, size=(74, 3))
    camera_from_body = np.eye(4)
    camera_from_body[:3, :3], camera_from_body[:3, 3] = rotations(rng.normal(size=(1, 3)))[0], rng.normal(size=3)
    rest_m, joints_m = body.shaped(shape)
    rotation = rotations(pose)
    to_camera = np.zeros((74, 4, 4))
    for j, parent in enumerate(body.parents):
        step = np.eye(4)
        step[:3, :3] = rotation[j]
        step[:3, 3] = joints_m[j] - (joints_m[parent] if parent >= 0 else 0)
        to_camera[j] = (to_camera[parent] if parent >= 0 else camera_from_body) @ step
    expected_joints_m = to_camera[:, :3, 3].copy()
    to_camera[:, :3, 3] -= np.einsum("jab,jb->ja", to_camera[:, :3, :3], joints_m)
    homogeneous = np.concatenate([rest_m, np.ones((len(rest_m), 1))], 1)
    expected_m = np.einsum("vj,jab,vb->va", body.skin_weights, to_camera[:, :3], homogeneous, optimize=True)
    vertices_m, found_joints_m = body.posed(shape, pose, camera_from_body)
    np.testing.assert_allclose(vertices_m, expected_m, atol=5e-6)
    np.testing.assert_allclose(found_joints_m, expected_joints_m, atol=5e-6)


def test_a_joint_moves_only_what_hangs_on_it(body):
    pose = local_pose(body, lowerarm01_L=(0, 60, 0))
    below = {body.joint_index("lowerarm01.L")}
    for j, parent in enumerate(body.parents):
        if parent in below:
            below.add(j)
    moved_m = np.linalg.norm(body.posed(None, pose)[0] - body.template_m, axis=1)
    hangs = body.skin_weights[:, sorted(below)].sum(1)
    assert moved_m[hangs == 0].max() < 1e-6 and moved_m[hangs > 0.99].min() > 0.01


def test_rotations_are_rodrigues_down_to_zero():
    vectors = np.array([[0, 0, 0], [1e-9, 0, 0], [3e-7, 1e-7, 0], [0, 0, np.pi / 2], [0.3, -2, 1]])
    expected = [cv2.Rodrigues(vector)[0] for vector in vectors]
    np.testing.assert_allclose(rotations(vectors), expected, atol=1e-12)


def test_offsets_move_vertices_outwards(body):
    vertices_m, joints_m = body.shaped(None, np.full(len(body.template_m), 0.01))
    directions = body.outward(body.template_m)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(((vertices_m - body.template_m) * directions).sum(1), 0.01, atol=1e-5)
    assert volume_m3(vertices_m, body.faces) > 1.1 * volume_m3(body.template_m, body.faces)
    np.testing.assert_array_equal(joints_m, body.joints_template_m)


def test_clothes_span_a_cleft(body):
    """By their own normals the sides of one go through each other, and then their inside is seen."""
    middles_m = body.template_m[body.faces].mean(1)
    behind = body.faces[(middles_m[:, 1] > 0.03) & (abs(middles_m[:, 2] - 0.9) < 0.07)]

    def turned_over(directions: np.ndarray) -> int:
        dressed = face_normals(body.template_m + 0.08 * directions, behind)
        return int(((face_normals(body.template_m, behind) * dressed).sum(1) < 0).sum())

    assert turned_over(vertex_normals(body.template_m, body.faces)) >= 4
    assert turned_over(body.outward(body.template_m)) == 0


def test_what_clothes_span_does_not_depend_on_how_fine_the_faces_are(body):
    open3d = pytest.importorskip("open3d")
    vertices, faces = (open3d.utility.Vector3dVector(body.template_m), open3d.utility.Vector3iVector(body.faces))
    finer = open3d.geometry.TriangleMesh(vertices, faces).subdivide_loop(1)  # goes on with the vertices there were
    places_m, count = np.asarray(finer.vertices), len(body.template_m)
    trunk = np.unique(body.faces[np.array(body.region_names)[body.face_region] == "torso"])
    finely = outward(places_m, np.asarray(finer.triangles), np.ones(len(places_m), bool))[:count]
    directions = body.outward(body.template_m)
    alike = (finely * directions).sum(1)
    own = (vertex_normals(body.template_m, body.faces) * directions).sum(1)
    assert alike[trunk].min() > 0.95 > 0.85 > own[trunk].min()


def test_hinges_fold_the_way_people_do(body):
    def joint_m(name, **degrees):
        return body.posed(None, local_pose(body, **degrees))[1][body.joint_index(name)]

    for s, out in (("L", 1), ("R", -1)):
        straight_m = np.linalg.norm(joint_m(f"wrist.{s}") - joint_m(f"upperarm01.{s}"))
        assert (
            np.linalg.norm(joint_m(f"wrist.{s}", **{f"lowerarm01_{s}": (0, 90, 0)}) - joint_m(f"upperarm01.{s}"))
            < 0.7 * straight_m
        )
        assert joint_m(f"foot.{s}", **{f"lowerleg01_{s}": (0, 90, 0)})[1] > 0.25  # the heel goes back
        assert joint_m(f"lowerleg01.{s}", **{f"upperleg01_{s}": (0, 90, 0)})[1] < -0.25  # the knee goes forward
        assert joint_m(f"wrist.{s}", **{f"upperarm01_{s}": (0, 0, -80 * out)})[2] > 1.3  # the arm goes up
    assert joint_m("head", spine03=(0, 40, 0))[1] < joint_m("head")[1] - 0.1  # the trunk bows


def test_limits_hold_rest_and_ease_and_leave_a_handful_of_free_joints(body):
    assert (body.local_lower <= 0).all() and (body.local_upper >= 0).all()
    mean = body.local_prior_mean
    assert (mean >= body.local_lower - 1e-6).all() and (mean <= body.local_upper + 1e-6).all()
    assert (body.local_prior_std > 0).all() and (body.joint_prior_std > 0).all()
    assert 20 <= body.joint_free.any(1).sum() <= 28 and not body.joint_free[0].any()
    assert not any(body.joint_free[j].any() for j, n in enumerate(body.joint_names) if n.startswith(("finger", "meta")))
    np.testing.assert_allclose(
        body.joint_axes.transpose(0, 2, 1) @ body.joint_axes, np.tile(np.eye(3), (74, 1, 1)), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.det(body.joint_axes), 1, atol=1e-5)
    rng = np.random.default_rng(0)
    local = rng.uniform(body.local_lower, body.local_upper)
    turned = np.einsum("jbl,jl->jb", body.joint_axes, local)
    assert (turned >= body.joint_lower - 1e-5).all() and (turned <= body.joint_upper + 1e-5).all()


def test_landmarks_of_joints_stay_at_the_joints_in_people_and_poses(body):
    joint_of = {
        "shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist", "hip": "upperleg01", "knee": "lowerleg01",
        "ankle": "foot",
    }  # fmt: skip
    assert len(body.landmark_names) == 33
    rng = np.random.default_rng(0)
    ease = body.joint_prior_mean
    for pose, limit_m in ((np.zeros((74, 3)), 0.012), (ease, 0.03)):
        vertices_m, joints_m = body.posed(rng.normal(size=10), pose)
        landmarks_m = body.landmarks(vertices_m)
        for stem, joint in joint_of.items():
            for side in ("left", "right"):
                found = landmarks_m[body.landmark_names.index(f"{side}_{stem}")]
                truth = joints_m[body.joint_index(f"{joint}.{side[0].upper()}")]
                assert np.linalg.norm(found - truth) < limit_m, (stem, side)


def test_landmarks_of_the_face_and_feet_sit_where_mediapipe_points(body):
    m = dict(zip(body.landmark_names, body.landmarks(body.template_m), strict=True))
    assert abs(m["nose"][0]) < 1e-4
    for side, out in (("left", 1), ("right", -1)):
        eyes_x = [out * m[f"{side}_eye_{part}"][0] for part in ("inner", "outer")]
        assert 0.01 < eyes_x[0] < out * m[f"{side}_eye"][0] < eyes_x[1] < out * m[f"{side}_ear"][0] < 0.09
        assert m["nose"][2] < m[f"{side}_eye"][2] < m["nose"][2] + 0.06
        assert m[f"mouth_{side}"][2] < m["nose"][2] and 0.015 < out * m[f"mouth_{side}"][0] < 0.035
        assert 0.2 < m[f"{side}_heel"][1] - m[f"{side}_foot_index"][1] < 0.3
        assert max(m[f"{side}_heel"][2], m[f"{side}_foot_index"][2]) < 0.05
        assert 0.05 < np.linalg.norm(m[f"{side}_wrist"] - m[f"{side}_index"]) < 0.12


def owners(body, scale=1):
    """(P + 1, H, W) per chart, how many of its faces own each texel of a texture GRID * scale wide."""
    size = GRID * scale
    masks = np.zeros((len(body.part_names), size, size), np.uint16)
    corners = body.uv[body.face_uv].astype(float) * size - 0.5
    for triangle, part in zip(corners, body.face_part, strict=True):
        low = np.maximum(np.ceil(triangle.min(0)), 0).astype(int)
        high = np.minimum(np.floor(triangle.max(0)), size - 1).astype(int)
        x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
        (ax, ay), (bx, by), (cx, cy) = triangle
        d = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy)
        l0 = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / d
        l1 = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / d
        inside = (l0 > 0) & (l1 > 0) & (l0 + l1 < 1)  # open triangles: a shared edge has no owner here
        masks[part, y[inside], x[inside]] += 1
    return masks


def test_no_texel_has_two_owners(body):
    masks = owners(body, scale=4)
    assert masks.max() == 1  # no face over another, within a chart
    assert (masks > 0).sum(0).max() == 1  # no chart over another; left and right are charts of their own
    assert (masks > 0).any((1, 2))[1:].all()
    assert (masks > 0).mean() * len(masks) > 0.55  # and the texture is not wasted


def test_charts_are_two_texels_apart(body):
    masks = (owners(body, scale=1) > 0).astype(np.uint8)
    grown = np.stack([cv2.dilate(mask, np.ones((3, 3), np.uint8)) for mask in masks])
    assert grown.sum(0).max() == 1
    assert body.uv.min() > 0 and body.uv.max() < 1


def test_every_face_has_area_and_none_is_mirrored(body):
    corners = body.uv[body.face_uv].astype(float)
    e1, e2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = e1[:, 1] * e2[:, 0] - e1[:, 0] * e2[:, 1]  # v points down: counter-clockwise as one sees it
    assert area.min() > 1e-7


def test_charts_follow_parts_and_parts_follow_regions(body):
    assert body.part_names[0] == "background" and set(np.unique(body.face_part)) == set(range(1, len(body.part_names)))
    for part in np.unique(body.face_part):
        assert len(np.unique(body.face_region[body.face_part == part])) == 1
    of_part = {
        name: body.template_m[body.faces[body.face_part == i]].mean((0, 1))
        for i, name in enumerate(body.part_names)
        if i
    }
    for name, center in of_part.items():
        if name.endswith(".L"):
            np.testing.assert_allclose(center * [-1, 1, 1], of_part[name[:-1] + "R"], atol=1e-6)
            assert center[0] > 0.05
    assert of_part["face"][1] < of_part["head_back"][1] and of_part["chest"][1] < of_part["back"][1]
    assert set(body.region_names) >= {"head", "torso", "arms", "hands", "legs", "feet"}
    shared = [set(body.face_uv[body.face_part == i].ravel()) for i in range(len(body.part_names))]
    assert sum(map(len, shared)) == len(body.uv)  # no texture vertex in two charts


def test_faces_and_hands_get_more_texels(body):
    corners, uv = body.template_m[body.faces].astype(float), body.uv[body.face_uv].astype(float) * GRID
    skin = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    texels = np.abs(np.linalg.det(uv[:, 1:] - uv[:, :1])) / 2
    density = {
        n: texels[body.face_part == i].sum() / skin[body.face_part == i].sum()
        for i, n in enumerate(body.part_names)
        if i
    }
    assert density["face"] > 2 * density["chest"] and density["palm.L"] > 1.5 * density["chest"]


def test_layout_picture_shows_every_part(body):
    image = draw_uv_layout(body, 512)
    assert image.shape == (512, 512, 3) and len(np.unique(image.reshape(-1, 3), axis=0)) > len(body.part_names)


def test_save_and_load_keep_everything_and_bytes(body, tmp_path):
    for name in ("a.npz", "b.npz"):
        body.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = BodyModel.load(tmp_path / "a.npz")
    assert again.joint_names == body.joint_names and again.joint_free.dtype == bool
    np.testing.assert_array_equal(
        again.posed(None, body.joint_prior_mean)[0], body.posed(None, body.joint_prior_mean)[0]
    )


def test_loading_something_else_is_a_user_error(tmp_path):
    path = tmp_path / "body.npz"
    path.write_bytes(b"not a body")
    with pytest.raises(UserError, match=r"body\.npz: not a readable body model"):
        BodyModel.load(path)
    with pytest.raises(UserError, match="not a readable archive"):
        load_body(str(path))
    np.savez(path, template_m=np.zeros((3, 3)))
    with pytest.raises(UserError, match="lacks"):
        BodyModel.load(path)
    np.savez(path, template_m=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="not a readable"):
        BodyModel.load(path)


def test_posing_takes_less_than_a_third_of_a_millisecond(body):
    vertices_m, joints_m = body.shaped()
    pose = np.random.default_rng(0).normal(size=(74, 3))
    times_s = []
    for _ in range(200):
        started_s = time.perf_counter()
        body.pose_vertices(vertices_m, joints_m, pose)
        times_s.append(time.perf_counter() - started_s)
    assert min(times_s) < 0.3e-3


def grid_patch(n):
    """A sheet of n x n squares, rolled into a quarter of a cylinder: vertices, faces, rim."""
    x, y = np.meshgrid(np.arange(n + 1), np.arange(n + 1))
    angle = x / n * np.pi / 2
    vertices = np.stack([np.sin(angle), np.cos(angle), y / n], -1).reshape(-1, 3)
    at = (y * (n + 1) + x)[:-1, :-1].ravel()
    faces = np.concatenate([np.stack([at, at + 1, at + n + 2], 1), np.stack([at, at + n + 2, at + n + 1], 1)])
    index = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)
    rim = np.concatenate([index[0, :-1], index[:-1, -1], index[-1, :0:-1], index[:0:-1, 0]])
    return vertices, faces, rim


def test_flatten_unrolls_a_cylinder_without_stretch():
    from fitting.body.atlas import _frames

    vertices, faces, rim = grid_patch(8)
    frames = _frames(vertices[faces], np.ones(len(faces)))
    points = flatten(faces, frames, rim)
    values = stretch(points, faces, frames)
    assert values.max() < 1.01 and values.min() > 0.99
    edges = points[faces][:, 1:] - points[faces][:, :1]
    assert (np.linalg.det(edges) > 0).all()


def test_simplifier_keeps_vertices_features_and_orientation():
    vertices, faces, rim = grid_patch(16)
    label = (vertices[faces][:, :, 2].mean(1) > 0.5).astype(int)
    simplifier = Simplifier(vertices, faces, label, np.ones(len(vertices)))
    for _ in range(200):
        assert simplifier.collapse() is not None
    kept, new_faces, new_label = simplifier.result()
    assert len(kept) == len(vertices) - 200
    corners = vertices[kept][new_faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = corners.mean(1) * [1, 1, 0]
    old = np.cross(*(vertices[faces[0, k]] - vertices[faces[0, 0]] for k in (1, 2))) @ (
        vertices[faces[0]].mean(0) * [1, 1, 0]
    )
    assert ((normals * outward).sum(1) * np.sign(old) > 0).all()
    across = (vertices[kept][new_faces][:, :, 2].min(1) < 0.5 - 1e-9) & (
        vertices[kept][new_faces][:, :, 2].max(1) > 0.5 + 1e-9
    )
    assert not across.any() and set(np.unique(new_label)) == {0, 1}  # the border between labels did not move
    assert {0, 16, 17 * 16, 17 * 17 - 1} <= set(kept) or len(set(kept) & set(rim)) > 10
