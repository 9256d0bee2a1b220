"""Stage 05: crops that hold the person and move calmly; a compact store that gives back what went in."""

from __future__ import annotations

import numpy as np
import pytest
from test_rasterize import torus

from capture.camera import Camera, project
from capture.errors import UserError
from rendering.crops import person_boxes
from rendering.rasterize import rasterize
from rendering.rasters import RasterConfig, Rasters, decode_normals, encode_normals, rasterize_frames

CAMERA = Camera((640, 480), 500.0, 500.0, 320.0, 240.0, (0.05, -0.02, 0.001, 0.0, 0.0))
CONFIG = RasterConfig(height_px=128, width_px=96)
LOST = (3, 4)


NO_DOUBT = np.zeros((12, 2), bool)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Twelve frames of a walking torus, two of them lost."""
    body, vertices = torus()
    tracked = np.array([i not in LOST for i in range(12)])

    def vertices_color_m(i: int) -> np.ndarray:
        assert tracked[i]
        return vertices + np.array([0.08 * i - 0.5, 0.05 * np.sin(i), 0.1 * i])

    folder = tmp_path_factory.mktemp("rasters")
    rasterize_frames(CONFIG, folder, body, CAMERA, tracked, vertices_color_m, 30.0, NO_DOUBT)
    return folder, body, vertices_color_m, tracked


def test_the_store_gives_back_what_the_rasteriser_drew(store):
    folder, body, vertices_color_m, tracked = store
    rasters = Rasters.load(folder)
    assert len(rasters) == 12
    for i in np.flatnonzero(tracked):
        truth, found = rasterize(body, vertices_color_m(i), rasters.cameras[i]), rasters[i].dense()
        np.testing.assert_array_equal(truth.part, found.part)
        assert np.abs(truth.uv - found.uv)[truth.mask].max() <= 0.51 / 65535
        assert (truth.normal * found.normal).sum(-1)[truth.mask].min() > np.cos(np.radians(1.0))


def test_lost_frames_cover_nothing_but_have_a_crop(store):
    rasters = Rasters.load(store[0])
    for i in LOST:
        assert len(rasters[i].pixel) == 0 and not rasters[i].dense().mask.any()
    assert np.isfinite(rasters.boxes_px).all()


def test_gather_is_the_frames_one_after_another(store):
    rasters = Rasters.load(store[0])
    chosen = [5, LOST[0], 0, 5]
    batch = rasters.gather(chosen)
    assert batch.num_images == 4 and (np.diff(batch.image) >= 0).all()
    for k, i in enumerate(chosen):
        mine = batch.image == k
        np.testing.assert_array_equal(batch.pixel[mine], rasters[i].pixel)
        np.testing.assert_array_equal(batch.part[mine], rasters[i].part)
        np.testing.assert_array_equal(batch.uv[mine], rasters[i].uv)
        np.testing.assert_array_equal(batch.normal[mine], rasters[i].normal)


def test_writing_twice_gives_the_same_bytes_even_over_a_killed_attempt(store, tmp_path):
    folder, body, vertices_color_m, tracked = store
    (tmp_path / "uv.npy").write_bytes(b"rubbish" * 100_000)
    rasterize_frames(CONFIG, tmp_path, body, CAMERA, tracked, vertices_color_m, 30.0, NO_DOUBT)
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_a_covered_pixel_takes_less_than_eight_bytes_and_a_bit_per_row(store):
    folder = store[0]
    stored = sum(path.stat().st_size for path in folder.glob("*.npy"))
    rasters = Rasters.load(folder)
    assert stored < 7 * len(rasters.part) + 12 * 128 * 8 * 3 + 4096


def test_nobody_tracked_is_a_user_error(tmp_path):
    body, vertices = torus()
    with pytest.raises(UserError, match="no frame"):
        rasterize_frames(CONFIG, tmp_path, body, CAMERA, np.zeros(4, bool), lambda i: vertices, 30.0, NO_DOUBT)


def test_the_crop_never_cuts_the_body(store):
    folder, _, vertices_color_m, tracked = store
    rasters = Rasters.load(folder)
    for i in np.flatnonzero(tracked):
        inside = project(CAMERA, vertices_color_m(i))
        seen = ((inside >= 0) & (inside <= CAMERA.image_wh)).all(1)
        crop = project(rasters.cameras[i], vertices_color_m(i))[seen]
        assert (crop >= 0).all() and (crop <= rasters.image_wh).all()


def shaky(count: int = 90) -> np.ndarray:
    rng = np.random.default_rng(2)
    x = 300 + 150 * np.sin(np.arange(count) / 15) + rng.normal(0, 6, count)
    half = 60 + 50 * (np.arange(count) % 40 > 30) + rng.normal(0, 4, count)
    return np.stack([x - half, 80 + rng.normal(0, 5, count), x + half, 400 + rng.normal(0, 5, count)], 1)


def test_boxes_hold_extent_and_margins_keep_the_aspect_and_are_calm():
    extents, margins, aspect = shaky(), (0.1, 0.2, 0.1, 0.05), 0.625
    boxes = person_boxes(extents, (640, 480), aspect, margins, 15)
    visible = np.clip(extents, 0, [640, 480, 640, 480])
    wanted = (visible[:, 3] - visible[:, 1])[:, None] * margins * [-1, -1, 1, 1] + visible
    assert ((boxes - wanted) * [-1, -1, 1, 1] >= -1e-9).all()
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    np.testing.assert_allclose(width / height, aspect)
    raw = person_boxes(extents, (640, 480), aspect, margins, 0)
    jerk = np.abs(np.diff(boxes, 2, axis=0)).mean()
    assert jerk < 0.1 * np.abs(np.diff(raw, 2, axis=0)).mean()


def test_one_tracked_frame_is_enough_for_boxes():
    extents = np.full((5, 4), np.nan)
    extents[2] = 10, 20, 50, 120
    boxes = person_boxes(extents, (640, 480), 0.5, (0, 0, 0, 0), 15)
    np.testing.assert_allclose(boxes, np.tile([5, 20, 55, 120], (5, 1)))


def test_normals_survive_two_bytes_within_one_degree():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(20000, 3))
    normals = np.concatenate([normals / np.linalg.norm(normals, axis=1, keepdims=True), np.eye(3), -np.eye(3)])
    back = decode_normals(encode_normals(normals))
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, atol=1e-6)
    error = np.degrees(np.arccos(np.clip((normals * back).sum(1), -1, 1)))
    assert error.max() < 1.0 and error.mean() < 0.4


def test_both_stages_run_on_the_files_of_a_fit(tmp_path):
    """Folders in, folders out: twelve frames of the shipped body turning, one of them lost."""
    from capture.camera import Rig
    from capture.recording import RecordingWriter
    from fitting.body.model import BodyModel
    from fitting.fit import LIMB_NAMES, BodyFit
    from fitting.keyframes import KeyframeConfig, Keyframes, keyframes
    from rendering.rasters import rasterize as rasterize_stage

    body, count = BodyModel.default(), 12
    camera_from_body = np.tile(np.eye(4), (count, 1, 1))
    for i in range(count):
        c, s = np.cos(i / 2), np.sin(i / 2)
        camera_from_body[i, :3, :3] = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ [[c, -s, 0], [s, c, 0], [0, 0, 1]]
        camera_from_body[i, :3, 3] = 0, 0.9, 3.0
    tracked = np.arange(count) != 5
    doubted = np.zeros((count, 4), bool)
    doubted[3, LIMB_NAMES.index("right leg")] = True
    camera_from_body[~tracked] = np.nan
    folders = {name: tmp_path / name for name in ("recording", "fit", "keyframes", "rasters")}
    for folder in folders.values():
        folder.mkdir()
    BodyFit(
        shape=np.zeros(body.num_shape),
        pose=np.zeros((count, body.num_joints, 3)),
        camera_from_body=camera_from_body,
        joints_color_m=np.zeros((count, body.num_joints, 3)),
        joint_names=body.joint_names,
        vertex_offsets_m=np.zeros(len(body.template_m)),
        residual_mm=np.full(count, np.nan),
        keypoint_px=np.zeros(count),
        silhouette_iou=np.ones(count),
        status=tuple("tracked" if t else "lost" for t in tracked),
        reason=tuple("" if t else "hidden" for t in tracked),
        limb_doubted=doubted,
        body=body,
        camera=CAMERA,
        notes=(),
        first_heldout=9,
    ).save(folders["fit"])
    writer = RecordingWriter(folders["recording"], Rig(CAMERA), "test")
    for i in range(count):
        writer.add(i / 30, np.zeros((480, 640, 3), np.uint8))
    writer.finish()
    keyframes(KeyframeConfig(), folders["keyframes"], folders["fit"])
    rasterize_stage(CONFIG, folders["rasters"], folders["recording"], folders["fit"])
    found, rasters = Keyframes.load(folders["keyframes"]), Rasters.load(folders["rasters"])
    assert len(found.train_indices) == 8 and len(found.heldout_indices) == 3 and len(found.keyframe_indices) == 1
    assert [len(rasters[i].pixel) > 500 for i in range(count)] == tracked.tolist()
    names = [body.part_names[p] for p in np.flatnonzero(rasters.part_doubted[3])]
    assert names == ["upper_leg.R", "lower_leg.R", "instep.R", "sole.R"] and rasters.part_doubted.sum() == 4
