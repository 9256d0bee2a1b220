"""The grid sees what the cameras saw: the same lens, the same points, nothing from beside the person."""

import numpy as np

from capture.camera import Camera, Rig, distort, invert, pixel_rays, transform, unproject
from fitting.observe import _picture_map, _splat, observe

COLOR = Camera((320, 240), 260.0, 262.0, 161.0, 118.0, (0.03, -0.02, 0.001, -0.002, 0.01))
DEPTH = Camera((256, 212), 183.0, 183.0, 130.0, 104.0, (0.09, -0.27, 0.0, 0.0, 0.09))
DEPTH_FROM_COLOR = np.array(
    [[1.0, 0.0, 0.0, -0.05], [0.0, 1.0, 0.0, 0.001], [0.0, 0.0, 1.0, 0.002], [0.0, 0.0, 0.0, 1.0]]
)
GRID = Camera((90, 120), 200.0, 200.0, 44.0, 61.0)


def test_the_grid_is_laid_through_the_lens_as_the_camera_says() -> None:
    intrinsics = [(c.fx_px, c.fy_px, c.cx_px, c.cy_px) for c in (GRID, COLOR)]
    found = _picture_map(GRID.image_wh, *intrinsics[0], *intrinsics[1], np.array(COLOR.distortion))
    xy = distort(pixel_rays(GRID)[..., :2], COLOR.distortion)
    np.testing.assert_allclose(found[0], xy[..., 0] * COLOR.fx_px + COLOR.cx_px, rtol=1e-6)
    np.testing.assert_allclose(found[1], xy[..., 1] * COLOR.fy_px + COLOR.cy_px, rtol=1e-6)


def test_a_cell_holds_the_mean_of_its_front_most_points() -> None:
    rng = np.random.default_rng(0)
    depth_mm = np.where(rng.random((212, 256)) < 0.3, 2500, rng.integers(1995, 2006, (212, 256))).astype(np.uint16)
    depth_mm[rng.random(depth_mm.shape) < 0.2] = 0
    mask = np.zeros((120, 90), np.float32)
    mask[20:100, 15:70] = 1
    color_from_depth = invert(DEPTH_FROM_COLOR)
    intrinsics = GRID.fx_px, GRID.fy_px, GRID.cx_px, GRID.cy_px
    found = _splat(depth_mm, pixel_rays(DEPTH), color_from_depth, mask, *intrinsics, 0.04)
    points_m = transform(color_from_depth, unproject(DEPTH, depth_mm)[depth_mm > 0])
    column, row = np.floor(points_m[:, :2] / points_m[:, 2:] * intrinsics[:2] + intrinsics[2:]).astype(int).T
    for r, c in [(20, 15), (50, 40), (99, 69), (60, 30), (19, 40), (50, 70)]:
        own = points_m[(row == r) & (column == c)]
        if len(own) == 0 or mask[r, c] == 0:
            assert np.isnan(found[r, c]).all()
        else:
            np.testing.assert_allclose(found[r, c], own[own[:, 2] < own[:, 2].min() + 0.04].mean(0), atol=1e-9)
    assert np.isfinite(found[mask > 0]).any() and np.isnan(found[mask == 0]).all()


def test_an_empty_mask_is_nobody() -> None:
    nothing = np.zeros((240, 320), np.float32)
    landmarks = np.full((33, 2), np.nan), np.zeros(33), np.full((33, 3), np.nan)
    assert observe(COLOR, Rig(COLOR), nothing, None, *landmarks) is None


def test_landmarks_beyond_the_picture_are_known_to_lie_beyond_its_edge() -> None:
    plain = Camera((320, 240), 260.0, 260.0, 160.0, 120.0)
    person = np.zeros((240, 320), np.float32)
    person[40:, 100:220] = 1
    landmarks_px = np.full((33, 2), np.nan)
    landmarks_px[11], landmarks_px[15], landmarks_px[16] = (160, 100), (150, 263), (3, 238)
    seen = observe(plain, Rig(plain), person, None, landmarks_px, np.ones(33), np.full((33, 3), np.nan))
    assert seen is not None
    np.testing.assert_array_equal(seen.outward[[11, 15, 16, 12]], [[0, 0], [0, 1], [-1, 1], [0, 0]])
    # The hand may be anywhere below: the edge is the limit, not the guess beyond it.
    grid = seen.camera
    on_edge = (np.array([150.0, 240.0]) - 120) / 260 * grid.fy_px + grid.cy_px
    assert abs(seen.edge_px[15, 1] - on_edge[1]) < 1e-6
    exchanged = seen.with_sides_exchanged()
    np.testing.assert_array_equal(exchanged.outward[16], [0, 1])
    np.testing.assert_array_equal(exchanged.edge_px[16], seen.edge_px[15])
