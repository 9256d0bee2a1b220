"""Cameras: projecting undoes unprojecting, cropping is exact, the lens model is invertible."""

from __future__ import annotations

import json

import numpy as np
import pytest

from capture.camera import Camera, Rig, distort, invert, pixel_rays, project, transform, undistort, unproject
from capture.errors import UserError

KINECT_DEPTH = Camera((512, 424), 365.481, 365.481, 257.846, 210.847, (0.089026, -0.271706, 0.0, 0.0, 0.0982151))
COLOR = Camera((192, 108), 106.7, 107.2, 96.5, 54.1, (0.0124, -0.0054, 0.001, -0.0007, 0.0))


def rigid(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.sign(np.linalg.det(rotation))
    matrix[:3, 3] = rng.normal(size=3)
    return matrix


@pytest.mark.parametrize("camera", [KINECT_DEPTH, COLOR, COLOR.resize((48, 27))])
def test_project_undoes_unproject(camera):
    width, height = camera.image_wh
    depth_mm = np.random.default_rng(0).integers(500, 4500, (height, width)).astype(np.uint16)
    pixels = project(camera, unproject(camera, depth_mm))
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    np.testing.assert_allclose(pixels, np.stack([u, v], axis=-1), atol=1e-4)


def test_no_return_is_nan_and_behind_the_camera_is_nan():
    depth_mm = np.full((424, 512), 1000, np.uint16)
    depth_mm[3, 5] = 0
    points_m = unproject(KINECT_DEPTH, depth_mm)
    assert np.isnan(points_m[3, 5]).all() and np.isfinite(points_m[3, 6]).all()
    assert np.isnan(project(KINECT_DEPTH, np.array([[0.1, 0.1, 0.0], [0.1, 0.1, -1.0]]))).all()


@pytest.mark.parametrize("distortion", [KINECT_DEPTH.distortion, COLOR.distortion])
def test_undistort_undoes_distort(distortion):
    xy = np.random.default_rng(1).uniform(-0.65, 0.65, (500, 2)) * (1, 0.8)
    np.testing.assert_allclose(undistort(distort(xy, distortion), distortion), xy, atol=1e-7)
    assert np.abs(distort(xy, distortion) - xy).max() > 1e-4  # the lens does something


def test_the_lens_model_is_opencvs():
    import cv2

    points_m = np.random.default_rng(2).uniform((-1, -0.6, 2), (1, 0.6, 4), (50, 3))
    matrix = np.array([[COLOR.fx_px, 0, COLOR.cx_px], [0, COLOR.fy_px, COLOR.cy_px], [0, 0, 1]])
    theirs, _ = cv2.projectPoints(points_m, np.zeros(3), np.zeros(3), matrix, np.array(COLOR.distortion))
    np.testing.assert_allclose(project(COLOR, points_m), theirs[:, 0], atol=1e-6)


def test_a_crop_sees_the_same_points_at_the_cropped_pixels():
    box_px, image_wh = (-20.5, 10.0, 120.25, 90.0), (64, 40)
    crop = COLOR.crop(box_px, image_wh)
    points_m = np.random.default_rng(3).uniform((-1, -0.6, 2), (1, 0.6, 4), (50, 3))
    scale = np.array(image_wh) / (box_px[2] - box_px[0], box_px[3] - box_px[1])
    np.testing.assert_allclose(project(crop, points_m), (project(COLOR, points_m) - box_px[:2]) * scale, atol=1e-9)


def test_a_crop_of_a_crop_is_the_crop_of_both():
    first = COLOR.crop((10, 20, 110, 80), (200, 120))
    twice, once = first.crop((50, 30, 150, 90), (50, 30)), COLOR.crop((35, 35, 85, 65), (50, 30))
    for name in ("fx_px", "fy_px", "cx_px", "cy_px"):
        assert getattr(twice, name) == pytest.approx(getattr(once, name))


def test_resize_keeps_every_ray():
    half = COLOR.resize((96, 54))
    rays = pixel_rays(COLOR).reshape(54, 2, 96, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(pixel_rays(half), rays, atol=2e-5)


def test_invert_undoes_transform():
    points = np.random.default_rng(4).normal(size=(7, 3))
    np.testing.assert_allclose(transform(invert(rigid(5)), transform(rigid(5), points)), points, atol=1e-12)


def test_cameras_and_rigs_survive_json():
    rig = Rig(COLOR, KINECT_DEPTH, rigid(6))
    again = Rig.from_json(json.loads(json.dumps(rig.to_json())))
    assert again.color == rig.color and again.depth == rig.depth
    np.testing.assert_array_equal(again.depth_from_color, rig.depth_from_color)
    alone = Rig.from_json(json.loads(json.dumps(Rig(COLOR).to_json())))
    assert alone.depth is None and alone.depth_from_color is None


def test_impossible_cameras_are_refused():
    for wh, focal in (((0, 10), 5.0), ((10, 10), 0.0), ((10, 10), float("nan"))):
        with pytest.raises(UserError):
            Camera(wh, focal, focal, 5, 5)
    with pytest.raises(UserError, match=r"365\.481"):  # the misprint of a widely copied calibration
        Camera((512, 424), 365.481, 365.481, 257.3, 210.3, (0.089026, -0.271706, 0.0, 365.481, 0.0982151))
