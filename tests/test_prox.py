"""PROX's layout: mirrored pictures, two cameras, eighths of a millimetre, and what must be refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from capture.camera import Camera, invert, project, transform, unproject
from capture.errors import UserError
from capture.files import encode_jpeg, encode_png
from capture.importers import ImportConfig, recognise, record
from capture.recording import Recording

# Far from symmetric, so that a mirrored picture cannot pass for an upright one.
COLOR = Camera((192, 108), 105.0, 106.0, 99.5, 50.5, (0.04, -0.05, 0.001, 0.002, 0.0))
DEPTH = Camera((128, 106), 92.0, 92.0, 57.5, 55.5, (0.08, -0.2, 0.0, 0.0, 0.05))
COLOR_FROM_DEPTH = np.eye(4)
COLOR_FROM_DEPTH[:3, :3] = cv2.Rodrigues(np.array([0.01, -0.02, 0.015]))[0]
COLOR_FROM_DEPTH[:3, 3] = -0.052, 0.001, -0.004
NUM_FRAMES = 4


def stem(index: int) -> str:
    return f"s001_frame_{index + 1:05d}__00.00.{index // 30:02d}.{1000 * (index % 30) // 30:03d}"


def point_depth_m(index: int) -> np.ndarray:
    """A small bright ball in the depth camera's frame, on the left of the picture's middle and walking."""
    return np.array([-0.3 + 0.05 * index, 0.1, 1.5 + 0.1 * index])


def calibration(camera: Camera, camera_from_world: np.ndarray) -> dict:
    matrix = [[camera.fx_px, 0, camera.cx_px - 0.5], [0, camera.fy_px, camera.cy_px - 0.5], [0, 0, 1]]
    return {
        "c": [camera.cx_px - 0.5, camera.cy_px - 0.5],
        "f": [camera.fx_px, camera.fy_px],
        "k": list(camera.distortion),
        "camera_mtx": matrix,
        "view_mtx": camera_from_world[:3].tolist(),
        "R": cv2.Rodrigues(camera_from_world[:3, :3])[0].ravel().tolist(),
        "T": camera_from_world[:3, 3].tolist(),
    }


def make_prox(root: Path, *names: str) -> Path:
    """A PROX folder with the named recordings, each with OpenPose's files; frame 2 has no depth picture."""
    (root / "calibration").mkdir(parents=True)
    (root / "calibration" / "Color.json").write_text(json.dumps(calibration(COLOR, COLOR_FROM_DEPTH)))
    (root / "calibration" / "IR.json").write_text(json.dumps(calibration(DEPTH, np.eye(4))))
    for name in names:
        home = root / "recordings" / name
        for folder in ("Color", "Depth", "BodyIndex", "BodyIndexColor"):
            (home / folder).mkdir(parents=True)
        (root / "keypoints" / name).mkdir(parents=True)
        for i in range(NUM_FRAMES):
            point_m = point_depth_m(i)
            color_px = project(COLOR, transform(COLOR_FROM_DEPTH, point_m))
            color = ball(COLOR, color_px) * 255
            depth = ball(DEPTH, project(DEPTH, point_m)) * round(point_m[2] * 8000)
            mirrored = np.repeat(color[:, ::-1, None], 3, 2).astype(np.uint8)
            (home / "Color" / f"{stem(i)}.jpg").write_bytes(encode_jpeg(mirrored))
            if i != 2:
                (home / "Depth" / f"{stem(i)}.png").write_bytes(encode_png(depth[:, ::-1].astype(np.uint16)))
            (home / "BodyIndex" / f"{stem(i)}.png").write_bytes(encode_png(mirrored[..., 0]))
            keypoints = {"people": [{"pose_keypoints_2d": [*(color_px - 0.5), 0.9] * 25}]}
            (root / "keypoints" / name / f"{stem(i)}_keypoints.json").write_text(json.dumps(keypoints))
    return root


def ball(camera: Camera, center_px: np.ndarray, radius_px: float = 3) -> np.ndarray:
    width, height = camera.image_wh
    v, u = np.mgrid[:height, :width] + 0.5
    return (np.hypot(u - center_px[0], v - center_px[1]) < radius_px).astype(float)


def middle(image: np.ndarray) -> np.ndarray:
    """(2,) the bright pixels' centre, pixels."""
    v, u = np.nonzero(image > image.max() / 2)
    return np.array([u.mean(), v.mean()]) + 0.5


def run(tmp_path: Path, source: Path, **settings: object) -> Recording:
    out_dir = tmp_path / f"recorded{len(list(tmp_path.glob('recorded*')))}"
    record(ImportConfig(**settings), out_dir, source)  # type: ignore[arg-type]
    return Recording.load(out_dir)


def refusal(tmp_path: Path, source: Path, **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        run(tmp_path, source, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_point_that_both_cameras_saw_is_where_the_calibration_says(tmp_path):
    recording = run(tmp_path, make_prox(tmp_path / "prox", "N0Sofa_00034_01"))
    rig = recording.rig
    assert len(recording) == NUM_FRAMES and rig.depth is not None and rig.depth_from_color is not None
    assert list(recording.has_depth) == [True, True, False, True]
    color_from_depth = invert(rig.depth_from_color)
    for i in (0, 1, 3):
        point_m = point_depth_m(i)
        in_color_px = project(rig.color, transform(color_from_depth, point_m))
        np.testing.assert_allclose(middle(recording.color(i)[..., 0]), in_color_px, atol=0.35)
        np.testing.assert_allclose(middle(recording.depth_mm(i)), project(rig.depth, point_m), atol=0.35)
        # And the other way: the depth picture alone finds the pixel in the colour picture.
        seen_m = np.nanmean(unproject(rig.depth, recording.depth_mm(i)).reshape(-1, 3), axis=0)  # type: ignore[arg-type]
        np.testing.assert_allclose(seen_m, point_m, atol=0.01)
        np.testing.assert_allclose(project(rig.color, transform(color_from_depth, seen_m)), in_color_px, atol=0.7)
    # The ball is on the left of both true pictures, so on the right of the stored ones.
    assert middle(recording.color(0)[..., 0])[0] < 96 and middle(recording.depth_mm(0))[0] < 64


def test_depth_is_in_eighths_of_a_millimetre_and_times_are_in_the_names(tmp_path):
    recording = run(tmp_path, make_prox(tmp_path / "prox", "a"), every=3)
    assert recording.depth_mm(1).max() == 1800  # type: ignore[union-attr]
    np.testing.assert_allclose(recording.times_s, [0, 0.1], atol=1e-9)


def test_the_keypoints_beside_come_along_and_mark_the_point_that_is_seen(tmp_path):
    root = make_prox(tmp_path / "prox", "a")
    recording = run(tmp_path, root / "recordings" / "a", start=1)
    for i in range(3):
        path = recording.openpose_path(i)
        assert path is not None
        x, y, _ = json.loads(path.read_text())["people"][0]["pose_keypoints_2d"][:3]
        np.testing.assert_allclose(middle(recording.color(i)[..., 0]), (x + 0.5, y + 0.5), atol=0.35)


def test_a_root_with_one_recording_will_do_and_with_several_they_are_listed(tmp_path):
    root = make_prox(tmp_path / "prox", "a")
    for source in (root, root / "recordings", root / "recordings" / "a"):
        assert recognise(source).words == "a PROX recording"
    for name in ("b", "c"):
        shutil.copytree(root / "recordings" / "a", root / "recordings" / name)
    message = refusal(tmp_path, root)
    assert "3 PROX recordings (a, b, c)" in message and "recordings/a" in message
    assert len(run(tmp_path, root / "recordings" / "b")) == NUM_FRAMES


def test_a_folder_called_color_is_not_enough(tmp_path):
    (tmp_path / "Color").mkdir()
    (tmp_path / "Color" / "0001.jpg").write_bytes(encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(UserError, match="PROX recording"):  # the list of what is accepted
        recognise(tmp_path)


def test_a_missing_or_wrong_calibration_is_one_line(tmp_path):
    root = make_prox(tmp_path / "prox", "a")
    color, ir = (root / "calibration" / name for name in ("Color.json", "IR.json"))
    good = json.loads(ir.read_text())
    for change, reason in (
        ({"k": [0.1, 365.481, 0, 0, 0]}, "distortion"),
        ({"k": [0.1]}, "not a PROX calibration"),
        ({"camera_mtx": [[92, 0, 512], [0, 92, 424], [0, 0, 1]]}, "far from the middle"),
        ({"view_mtx": [[1, 0, 0, 52.0], [0, 1, 0, 0], [0, 0, 1, 0]]}, "metres"),
        ({"view_mtx": [[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]}, "no rotation"),
        ({"view_mtx": [[float("nan"), 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]}, "finite"),
    ):
        ir.write_text(json.dumps({**good, **change}))
        assert reason in refusal(tmp_path, root)
    ir.unlink()
    assert "IR.json: not there" in refusal(tmp_path, root)
    assert len(run(tmp_path, root, no_depth=True)) == NUM_FRAMES  # colour alone needs no depth camera
    color.unlink()
    assert "Color.json: not there" in refusal(tmp_path, root)


def test_pictures_without_times_are_evenly_spaced(tmp_path):
    root = make_prox(tmp_path / "prox", "a")
    shutil.rmtree(root / "keypoints")
    for path in sorted((root / "recordings" / "a").rglob("s001*")):
        path.rename(path.with_name(path.name.replace("s001_", "").replace("__00.00.00.", "-")))
    recording = run(tmp_path, root, frames_per_second=10.0)
    np.testing.assert_allclose(recording.times_s, np.arange(NUM_FRAMES) / 10)
    assert any("no times" in note for note in recording.notes)
