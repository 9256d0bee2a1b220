"""Properties of the rasteriser, CPU and torch path alike."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from capture.camera import Camera, project
from rendering.rasterize import Covered, Raster, rasterize, rasterize_covered
from rendering.rasterize_torch import TorchSurface, rasterize_torch

CAMERA = Camera((160, 128), 150.0, 155.0, 81.3, 60.2)
LENS = Camera((160, 128), 150.0, 155.0, 81.3, 60.2, (0.08, -0.05, 0.002, -0.001, 0.01))


def torus(rings: int = 40, sides: int = 20) -> tuple[SimpleNamespace, np.ndarray]:
    """A closed surface that hides parts of itself, eight parts, a seam in uv; its vertices in front of the camera."""
    u, v = np.meshgrid(np.arange(rings) / rings, np.arange(sides) / sides, indexing="ij")
    a, b = 2 * np.pi * u, 2 * np.pi * v
    rest = np.stack([(0.6 + 0.25 * np.cos(b)) * np.cos(a), (0.6 + 0.25 * np.cos(b)) * np.sin(a), 0.25 * np.sin(b)], -1)
    i, j = (k.ravel() for k in np.meshgrid(np.arange(rings), np.arange(sides), indexing="ij"))

    def quads(wide: int, high: int, count: int) -> np.ndarray:
        at = [((i + di) % wide) * count + (j + dj) % high for di, dj in ((0, 0), (1, 0), (1, 1), (0, 1))]
        return np.stack([at[0], at[1], at[2], at[0], at[2], at[3]], -1).reshape(-1, 3).astype(np.int32)

    grid = np.meshgrid(np.linspace(0, 1, rings + 1), np.linspace(0, 1, sides + 1), indexing="ij")
    body = SimpleNamespace(
        region_names=("background",),  # no head
        faces=quads(rings, sides, sides),
        face_uv=quads(rings + 1, sides + 1, sides + 1),
        uv=np.stack(grid, -1).reshape(-1, 2).astype(np.float32),
        part_names=("background", *"abcdefgh"),
        face_part=(1 + np.repeat(i * 8 // rings, 2)).astype(np.uint8),
    )
    tilt = np.array([[1, 0, 0], [0, np.cos(1.0), np.sin(1.0)], [0, -np.sin(1.0), np.cos(1.0)]])
    return body, rest.reshape(-1, 3) @ tilt.T + (0.05, -0.1, 2.4)


def covered_cpu(body, vertices, cameras) -> list[Covered]:
    return [rasterize_covered(body, v, c) for v, c in zip(vertices, cameras, strict=True)]


def covered_torch(body, vertices, cameras) -> list[Covered]:
    found = rasterize_torch(TorchSurface.of(body, "cpu"), torch.as_tensor(np.stack(vertices)), cameras)
    fields = [np.asarray(x) for x in (found.image, found.pixel, found.part, found.uv, found.normal)]
    return [Covered(found.image_wh, 1, *(x[fields[0] == i] for x in fields)) for i in range(found.num_images)]


@pytest.fixture(params=[covered_cpu, covered_torch], ids=["numba", "torch"])
def backend(request):
    return request.param


@pytest.mark.parametrize("camera", [CAMERA, LENS], ids=["pinhole", "lens"])
def test_part_and_uv_agree_with_a_ray_caster(backend, camera):
    o3d = pytest.importorskip("open3d")
    body, vertices = torus()
    (found,) = backend(body, [vertices], [camera])
    # The rasteriser projects the vertices through the lens and draws straight edges; the same picture is that of a
    # pinhole camera that looks at the lens-projected vertices.
    pixels, z = project(camera, vertices), vertices[:, 2:]
    plane = (pixels - (camera.cx_px, camera.cy_px)) / (camera.fx_px, camera.fy_px)
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(np.hstack([plane * z, z]).astype(np.float32), body.faces.astype(np.uint32))
    v, u = np.mgrid[: camera.image_wh[1], : camera.image_wh[0]] + 0.5
    x, y = (u - camera.cx_px) / camera.fx_px, (v - camera.cy_px) / camera.fy_px
    rays = np.stack([0 * x, 0 * x, 0 * x, x, y, 0 * x + 1], -1).astype(np.float32)
    hits = scene.cast_rays(rays)
    face = hits["primitive_ids"].numpy().astype(np.int64).ravel()
    hit = face != 0xFFFFFFFF
    bary = hits["primitive_uvs"].numpy().reshape(-1, 2)[hit].astype(float)
    weights = np.stack([1 - bary.sum(1), bary[:, 0], bary[:, 1]], 1)
    part, uv = np.zeros(len(face), np.uint8), np.zeros((len(face), 2))
    part[hit] = body.face_part[face[hit]]
    uv[hit] = (weights[:, :, None] * body.uv[body.face_uv[face[hit]]]).sum(1)

    own_part, own_uv = np.zeros_like(part), np.zeros_like(uv)
    own_part[found.pixel], own_uv[found.pixel] = found.part, found.uv
    agrees = (part == own_part) & (np.abs(uv - own_uv).max(1) < 1e-3)
    assert hit.mean() > 0.15
    assert agrees.mean() >= 0.999


def test_both_backends_give_the_same_pixels():
    body, vertices = torus()
    moved = [
        vertices,
        vertices + np.array([0.9, 0.1, -0.6]),
        vertices - np.array([0, 0, 9]),
    ]  # whole, cut by the border, behind
    cameras = [CAMERA, LENS, CAMERA]
    for a, b in zip(covered_cpu(body, moved, cameras), covered_torch(body, moved, cameras), strict=True):
        np.testing.assert_array_equal(a.pixel, b.pixel)
        np.testing.assert_array_equal(a.part, b.part)
        np.testing.assert_allclose(a.uv, b.uv, atol=1e-6)
        np.testing.assert_allclose(a.normal, b.normal, atol=1e-4)
    assert len(a.pixel) == 0


def test_covered_pixels_are_the_dense_planes():
    body, vertices = torus()
    dense, covered = rasterize(body, vertices, LENS), rasterize_covered(body, vertices, LENS)
    np.testing.assert_array_equal(np.flatnonzero(dense.mask), covered.pixel)
    for name in ("part", "uv", "normal"):
        plane = getattr(dense, name)
        np.testing.assert_array_equal(
            plane.reshape(dense.part.size, -1)[covered.pixel].squeeze(), getattr(covered, name)
        )


def test_normals_are_unit_and_face_the_camera():
    body, vertices = torus(120, 60)
    raster = rasterize(body, vertices, CAMERA)
    np.testing.assert_allclose(np.linalg.norm(raster.normal[raster.mask], axis=-1), 1, atol=1e-5)
    v, u = np.nonzero(raster.mask)
    rays = np.stack([(u + 0.5 - CAMERA.cx_px) / CAMERA.fx_px, (v + 0.5 - CAMERA.cy_px) / CAMERA.fy_px, 1 + 0 * u], -1)
    facing = (raster.normal[raster.mask] * rays).sum(-1)
    assert (facing < 0.1).all() and (facing < 0).mean() > 0.99


def test_depth_is_that_of_the_analytic_surface():
    """A finely meshed sphere: depth within the sagitta of its facets, NaN outside."""
    count = 200
    theta, phi = np.meshgrid(
        np.linspace(1e-3, np.pi - 1e-3, count), np.arange(count) / count * 2 * np.pi, indexing="ij"
    )
    points = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1).reshape(-1, 3)
    i, j = (k.ravel() for k in np.meshgrid(np.arange(count - 1), np.arange(count), indexing="ij"))
    a, b, c, d = i * count + j, i * count + (j + 1) % count, (i + 1) * count + j, (i + 1) * count + (j + 1) % count
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]).astype(np.int32)
    body = SimpleNamespace(faces=faces, face_uv=faces, uv=np.zeros((len(points), 2), np.float32),
                           face_part=np.ones(len(faces), np.uint8))  # fmt: skip
    raster = rasterize(body, points * 0.5 + (0, 0, 3), CAMERA)
    v, u = np.nonzero(raster.mask)
    rays = np.stack([(u + 0.5 - CAMERA.cx_px) / CAMERA.fx_px, (v + 0.5 - CAMERA.cy_px) / CAMERA.fy_px, 1 + 0 * u], -1)
    along = 3 * rays[:, 2] / (rays**2).sum(1)
    off = (rays**2).sum(1) * along**2 - 9 + 0.25
    expected = (along - np.sqrt(np.maximum(off, 0) / (rays**2).sum(1))) * rays[:, 2]
    inner = off > 0.02
    assert inner.sum() > 1000
    np.testing.assert_allclose(raster.depth_m[raster.mask][inner], expected[inner], atol=1e-3)
    assert np.isnan(raster.depth_m[~raster.mask]).all()


def test_uv_never_leaves_the_face():
    """Charts touch other charts: a rounding error outside a face's uv box would fetch another part's texel."""
    body, vertices = torus()
    rng = np.random.default_rng(0)
    body.uv = rng.uniform(0, 1, (len(body.faces) * 3, 2)).astype(np.float32)
    body.face_uv = np.arange(len(body.faces) * 3, dtype=np.int32).reshape(-1, 3)
    low, high = body.uv[body.face_uv].min(1), body.uv[body.face_uv].max(1)
    body.face_part = (1 + np.arange(len(body.faces)) % 250).astype(np.uint8)
    found = rasterize_covered(body, vertices, CAMERA)
    same_part = body.face_part[None] == found.part[:, None]
    inside = ((found.uv[:, None] >= low[None]) & (found.uv[:, None] <= high[None])).all(-1)
    assert (same_part & inside).any(1).all()


def test_an_empty_view_is_all_background():
    body, vertices = torus()
    raster = rasterize(body, vertices - (0, 0, 10), CAMERA)
    assert isinstance(raster, Raster) and not raster.mask.any()
    assert len(rasterize_covered(body, vertices + np.array([50, 0, 0]), CAMERA).pixel) == 0
