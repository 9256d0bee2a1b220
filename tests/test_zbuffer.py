"""Properties of the z-buffer: no holes, nothing drawn twice, nearest wins, perspective-correct."""

from __future__ import annotations

import numpy as np
import pytest

from fitting.zbuffer import rasterize_faces, visible_box

WH = (64, 48)


def grid_mesh(
    rng: np.random.Generator, jitter: float, columns: int = 12, rows: int = 9
) -> tuple[np.ndarray, np.ndarray]:
    """A triangulated sheet that covers the whole image, with inner vertices moved at random."""
    u, v = np.meshgrid(np.linspace(-2, WH[0] + 2, columns), np.linspace(-2, WH[1] + 2, rows))
    points = np.stack([u, v], axis=-1)
    points[1:-1, 1:-1] += rng.uniform(-jitter, jitter, points[1:-1, 1:-1].shape)
    i = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, :-1].ravel(), i[1:, 1:].ravel()
    return points.reshape(-1, 2), np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


@pytest.mark.parametrize(
    "jitter,round_to", [(1.5, 0), (1.5, 0.5), (0.0, 0.5)]
)  # 0.5: vertices and edges on pixel centres
def test_a_sheet_of_triangles_covers_every_pixel_exactly_once(jitter, round_to):
    points, faces = grid_mesh(np.random.default_rng(3), jitter)
    if round_to:
        points = np.round(points / round_to) * round_to
    depth = np.full(len(points), 2.0)
    count = np.zeros(WH[::-1], int)
    for face in faces:
        count += rasterize_faces(points, depth, face[None], WH)[0] >= 0
    assert (count == 1).all()


def test_barycentrics_reproduce_position_depth_and_perspective():
    corners_m = np.array([[-0.5, -0.4, 1.0], [0.9, -0.3, 3.0], [0.0, 0.7, 1.6]])
    focal, center = 40.0, (32.0, 24.0)
    points = corners_m[:, :2] / corners_m[:, 2:] * focal + center
    face_index, bary, z = rasterize_faces(points, corners_m[:, 2], np.array([[0, 1, 2]]), WH)
    hit = face_index == 0
    assert hit.sum() > 100
    weights = np.dstack([bary, 1 - bary.sum(-1)])[hit].astype(float)
    assert weights.min() >= 0
    at_m = weights @ corners_m
    v, u = np.nonzero(hit)
    np.testing.assert_allclose(at_m[:, :2] / at_m[:, 2:] * focal + center, np.stack([u, v], 1) + 0.5, atol=1e-4)
    np.testing.assert_allclose(at_m[:, 2], z[hit], rtol=1e-6)
    assert np.isinf(z[~hit]).all() and np.isnan(bary[~hit]).all()


def test_nearest_face_wins_in_any_order_and_the_lower_index_on_a_tie():
    points = np.array([[2.0, 2], [60, 2], [2, 40]] * 3)
    depth = np.repeat([3.0, 1.0, 2.0], 3)
    faces = np.arange(9).reshape(3, 3)
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        index, _, z = rasterize_faces(points, depth, faces[order], WH)
        hit = index >= 0
        assert hit.any() and (np.array(order)[index[hit]] == 1).all() and (z[hit] == 1).all()
    index = rasterize_faces(points, np.ones(9), faces, WH)[0]
    assert set(np.unique(index)) == {-1, 0}


def test_random_soup_agrees_with_brute_force_half_planes():
    rng = np.random.default_rng(5)
    points, depth = rng.uniform(-10, 70, (90, 2)), rng.uniform(0.5, 4, 90)
    faces = rng.permutation(90).reshape(30, 3)
    index, _, z = rasterize_faces(points, depth, faces, WH)
    v, u = np.mgrid[: WH[1], : WH[0]] + 0.5
    nearest, owner = np.full(WH[::-1], np.inf), np.full(WH[::-1], -1)
    for f, face in enumerate(faces):
        (ax, ay), (bx, by), (cx, cy) = points[face]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        w0 = ((bx - u) * (cy - v) - (cx - u) * (by - v)) / area
        w1 = ((cx - u) * (ay - v) - (ax - u) * (cy - v)) / area
        inverse_z = w0 / depth[face[0]] + w1 / depth[face[1]] + (1 - w0 - w1) / depth[face[2]]
        inside = (w0 > 0) & (w1 > 0) & (w0 + w1 < 1)
        with np.errstate(divide="ignore"):
            closer = inside & (1 / inverse_z < nearest)
        nearest[closer], owner[closer] = 1 / inverse_z[closer], f
    assert (index == owner).mean() > 0.9999
    np.testing.assert_allclose(z[index == owner], nearest[index == owner], rtol=1e-5)


def test_near_behind_and_missing_vertices_drop_their_faces():
    points = np.array([[2.0, 2], [60, 2], [2, 40]])
    face = np.array([[0, 1, 2]])
    for depth in ([1, 1, 0.04], [1, -1, 1], [1, np.nan, 1]):
        assert (rasterize_faces(points, np.array(depth, float), face, WH)[0] == -1).all()
    missing = points.copy()
    missing[1] = np.nan
    assert (rasterize_faces(missing, np.ones(3), face, WH)[0] == -1).all()


def test_huge_and_outside_faces_are_safe():
    points = np.array([[-1e12, -1e12], [1e12, -1e12], [0, 1e12]])
    assert (rasterize_faces(points, np.ones(3), np.array([[0, 1, 2]]), WH)[0] == 0).all()
    for far in (1.0, 1e10, 1e200):
        outside = np.array([[-50.0, -50], [-40, -50], [-50, -40]]) * far
        for points in (outside, -outside * 4):
            assert (rasterize_faces(points, np.ones(3), np.array([[0, 1, 2]]), WH)[0] == -1).all()


def test_a_box_changes_nothing_inside_it():
    points, faces = grid_mesh(np.random.default_rng(1), 1.5)
    depth = np.random.default_rng(2).uniform(1, 3, len(points))
    full, boxed = rasterize_faces(points, depth, faces, WH), rasterize_faces(points, depth, faces, WH, (10, 5, 40, 33))
    for whole, part in zip(full, boxed, strict=True):
        np.testing.assert_array_equal(whole[5:33, 10:40], part[5:33, 10:40])
    assert (boxed[0][:5] == -1).all() and (boxed[0][:, 40:] == -1).all()


def test_culling_keeps_the_side_that_is_wound_counter_clockwise_for_the_viewer():
    seen_ccw = np.array([[2.0, 2], [2, 40], [60, 2]])  # y points down
    face = np.array([[0, 1, 2]])
    assert (rasterize_faces(seen_ccw, np.ones(3), face, WH, cull_backfaces=True)[0] == 0).any()
    assert (rasterize_faces(seen_ccw, np.ones(3), face[:, ::-1], WH, cull_backfaces=True)[0] == -1).all()


def test_visible_box_holds_every_drawn_pixel():
    points, faces = grid_mesh(np.random.default_rng(4), 1.0)
    points = points * 0.4 + 11.3
    index = rasterize_faces(points, np.ones(len(points)), faces, WH)[0]
    left, top, right, bottom = visible_box(points, np.ones(len(points)), WH)
    inside = np.zeros_like(index, bool)
    inside[top:bottom, left:right] = True
    assert (index[~inside] == -1).all() and (index >= 0).any()
