"""Stage 03 on a recording by an ideal sensor: the body is the one that is tracked, so the truth is known exactly."""

import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest

from capture.camera import Camera, Rig, project
from capture.errors import UserError
from capture.files import encode_png, read_gray
from capture.recording import Recording, RecordingWriter
from fitting.body.model import BodyModel
from fitting.clip import Clip, heldout_from
from fitting.fit import BodyFit, FitConfig, fit
from fitting.keypoints import Keypoints
from fitting.passes import teaching
from fitting.shape import spread_frames
from fitting.zbuffer import rasterize_faces

CAMERA = Camera((240, 320), 300.0, 300.0, 120.0, 160.0)
NUM_FRAMES, EMPTY_FRAME = 12, 6
CONFIG = FitConfig(shape_frames=5, shape_rounds=3, offset_rounds=1, overlay_frames=2)


@dataclass(frozen=True)
class Truth:
    joints_color_m: np.ndarray  # (N, J, 3)
    height_m: float


def film(folder: Path, body: BodyModel, with_depth: bool) -> Truth:
    """A tall, heavy person turns a quarter and raises an arm; frame 6 shows nobody."""
    shape = np.zeros(body.num_shape)
    shape[:2] = 1.0, -1.0
    recording_dir, masks_dir, fit_dir = (folder / name for name in ("01_recording", "02_masks", "03_fit"))
    for each in (recording_dir, masks_dir / "masks", fit_dir):
        each.mkdir(parents=True)
    rig = Rig(CAMERA, CAMERA if with_depth else None, np.eye(4) if with_depth else None)
    writer = RecordingWriter(recording_dir, rig, "an ideal sensor")
    points, world, joints = [], [], []
    for t in range(NUM_FRAMES):
        angle = np.pi / 2 * t / NUM_FRAMES
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        placed = np.eye(4)
        placed[:3, :3] = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ turn
        placed[:3, 3] = 0.05 * np.sin(angle), 0.9, 2.5
        pose = np.zeros((body.num_joints, 3))
        pose[body.joint_index("upperarm01.L")] = 0, -0.6 * np.sin(angle), 0
        pose[body.joint_index("upperleg01.R")] = -0.5 * np.sin(angle), 0, 0
        vertices_m, joints_m = body.posed(shape, pose, placed)
        pixels = project(CAMERA, vertices_m)
        face_index, _, z_m = rasterize_faces(pixels, vertices_m[:, 2], body.faces, CAMERA.image_wh)
        mask = (face_index >= 0) & (t != EMPTY_FRAME)
        depth_mm = np.where(mask, np.nan_to_num(z_m, posinf=0) * 1000, 0).round().astype(np.uint16)
        color = np.where(mask[..., None], (200, 120, 80), (60, 70, 90)).astype(np.uint8)
        writer.add(t / 30, color, depth_mm if with_depth else None)
        (masks_dir / "masks" / f"{t:06d}.png").write_bytes(encode_png(mask.astype(np.uint8) * 255))
        landmarks_m = body.landmarks(vertices_m)
        points.append(project(CAMERA, landmarks_m))
        world.append(landmarks_m - landmarks_m[[23, 24]].mean(0))
        joints.append(joints_m)
    writer.finish()
    points_px, world_m = np.array(points), np.array(world)
    points_px[EMPTY_FRAME], world_m[EMPTY_FRAME] = np.nan, np.nan
    # What the landmark detector would have said; the stage takes over what an interrupted run left.
    visibility = np.ones(points_px.shape[:2])
    Keypoints(points_px, visibility, world_m, np.zeros(NUM_FRAMES, bool)).save(fit_dir / "keypoints.npz")
    return Truth(np.array(joints), float(np.ptp(body.shaped(shape)[0][:, 2])))


class IdealMasks:
    """Stands for capture.matting.Masks: only the pictures are needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def load(folder: Path) -> "IdealMasks":
        return IdealMasks(folder)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_gray(self._folder / "masks" / f"{index:06d}.png").astype(np.float32) / 255


@pytest.fixture(scope="module", params=[True, False], ids=["depth", "color"])
def fitted(request, tmp_path_factory, body):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("fit")
    truth = film(folder, body, request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fitting.fit.Masks", IdealMasks)
        # Colour alone has no metres: the user gives the height.
        config = CONFIG if request.param else replace(CONFIG, height_m=truth.height_m)
        fit(config, folder / "03_fit", folder / "01_recording", folder / "02_masks")
    return request.param, truth, BodyFit.load(folder / "03_fit"), folder


def test_joints_are_where_they_are(fitted) -> None:  # type: ignore[no-untyped-def]
    with_depth, truth, result, _ = fitted
    limbs = [i for i, n in enumerate(result.joint_names) if n.split(".")[0] in ("upperarm01", "lowerarm01", "foot")]
    error_mm = 1e3 * np.linalg.norm(result.joints_color_m - truth.joints_color_m, axis=-1)[result.tracked][:, limbs]
    assert np.median(error_mm) < (15 if with_depth else 75)


def test_height_is_measured_or_taken_as_given(fitted) -> None:  # type: ignore[no-untyped-def]
    _, truth, result, _ = fitted
    height_m = float(np.ptp(result.body.shaped(result.shape)[0][:, 2]))
    assert abs(height_m - truth.height_m) < 0.02


def test_silhouette_is_explained(fitted) -> None:  # type: ignore[no-untyped-def]
    assert np.nanmedian(fitted[2].silhouette_iou) > 0.93


def test_frame_with_nobody_is_lost_and_says_why(fitted) -> None:  # type: ignore[no-untyped-def]
    result = fitted[2]
    assert [i for i, status in enumerate(result.status) if status == "lost"] == [EMPTY_FRAME]
    assert result.reason[EMPTY_FRAME] == "no landmarks found"
    assert np.isnan(result.pose[EMPTY_FRAME]).all()
    assert np.isnan(result.joints_color_m[EMPTY_FRAME]).all()


def test_what_is_called_tracked_is_right_and_what_is_not_says_why(fitted) -> None:  # type: ignore[no-untyped-def]
    with_depth, truth, result, _ = fitted
    limbs = [i for i, n in enumerate(result.joint_names) if n.split(".")[0] in ("lowerarm01", "wrist", "foot")]
    error_m = np.linalg.norm(result.joints_color_m - truth.joints_color_m, axis=-1)[:, limbs].max(1)
    if with_depth:
        assert error_m[result.tracked].max() < 0.15
    assert result.tracked.sum() >= NUM_FRAMES // 2
    assert [bool(words) for words in result.reason] == [not ok for ok in result.tracked]
    for i, status in enumerate(result.status):
        assert np.isfinite(result.pose[i]).all() == (status != "lost")


def test_the_heldout_part_is_counted_in_frames_with_somebody() -> None:
    found = np.zeros(100, bool)
    found[50:90] = True
    assert heldout_from(found, 0.8) == 82
    assert heldout_from(np.ones(10, bool), 0.01) == 1 and heldout_from(np.ones(10, bool), 0.999) == 9
    assert heldout_from(np.arange(5) == 2, 0.8) == 5  # one frame: nothing to hold out


def test_heldout_frames_measure_no_body(fitted) -> None:  # type: ignore[no-untyped-def]
    _, _, result, folder = fitted
    assert result.first_heldout == 9  # 8 of the 11 frames with somebody teach; frame 6 shows nobody
    clip = Clip(
        Recording.load(folder / "01_recording"),
        IdealMasks(folder / "02_masks"),  # type: ignore[arg-type]
        Keypoints.load(folder / "03_fit" / "keypoints.npz"),
        CAMERA,
        result.first_heldout,
    )
    assert len(spread_frames(clip, 50)) == 8 and max(spread_frames(clip, 50)) < 9
    assert list(teaching(clip, dict.fromkeys(range(NUM_FRAMES)))) == list(range(9))  # type: ignore[arg-type]


def test_a_clip_with_legs_exchanged_is_what_it_would_be_if_it_were_read_again(fitted, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    _, _, result, folder = fitted
    recording, masks = Recording.load(folder / "01_recording"), IdealMasks(folder / "02_masks")
    keypoints = Keypoints.load(folder / "03_fit" / "keypoints.npz")
    clip = Clip(recording, masks, keypoints, CAMERA, result.first_heldout)  # type: ignore[arg-type]
    wrong = [1, 4]
    anew = replace(clip, keypoints=keypoints.with_legs_exchanged(wrong))
    seen = [clip[i] for i in range(NUM_FRAMES)]
    monkeypatch.setattr("fitting.clip.observe", lambda *_: pytest.fail("a frame is read once more"))
    named = clip.with_legs_exchanged([1, 7]).with_legs_exchanged([7, 4])
    np.testing.assert_array_equal(named.keypoints.points_px, anew.keypoints.points_px)
    found = [named[i] for i in range(NUM_FRAMES)]
    monkeypatch.undo()
    assert found[EMPTY_FRAME] is None
    for i, (own, before) in enumerate(zip(found, seen, strict=True)):
        expected = anew[i]
        assert (own is None) == (expected is None) and (own is before) == (i not in wrong)
        for field in () if own is None else fields(own):
            same = getattr(own, field.name), getattr(expected, field.name)
            if isinstance(same[0], np.ndarray):
                np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0])
def test_a_split_without_one_side_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="train_fraction"):
        FitConfig(train_fraction=fraction)


@pytest.mark.parametrize("fitted", [True], indirect=True, ids=["depth"])  # it has all kinds of evidence
def test_a_fit_is_the_same_where_evidence_has_no_room_in_memory(fitted, monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, _, _, folder = fitted
    left: list[str] = []
    rmtree = shutil.rmtree

    def noting(path: Path, ignore_errors: bool) -> None:
        left.extend(p.name for p in path.rglob("*") if p.is_file())
        rmtree(path, ignore_errors)

    monkeypatch.setattr("fitting.fit.Masks", IdealMasks)
    monkeypatch.setattr("fitting.clip.OBSERVED_BYTES", 3_000_000)
    monkeypatch.setattr("fitting.photometric.SAMPLES_BYTES", 1_000_000)
    monkeypatch.setattr("fitting.fit.shutil.rmtree", noting)
    shutil.copy(folder / "03_fit" / "keypoints.npz", tmp_path)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "left by a run that was killed").touch()
    fit(CONFIG, tmp_path, folder / "01_recording", folder / "02_masks")
    assert left[0] == "left by a run that was killed" and len(left) > NUM_FRAMES
    assert not (tmp_path / "scratch").exists()
    for name in ("fit.npz", "body.npz", "fit.json"):
        assert (tmp_path / name).read_bytes() == (folder / "03_fit" / name).read_bytes()


def test_fit_writes_what_it_promises(fitted) -> None:  # type: ignore[no-untyped-def]
    with_depth, _, result, folder = fitted
    for name in ("fit.npz", "fit.json", "body.npz", "keypoints.npz", "overlay.mp4", "residuals.svg"):
        assert (folder / "03_fit" / name).stat().st_size > 0
    assert len(list((folder / "03_fit" / "overlay").glob("*.jpg"))) == 2
    assert f"{EMPTY_FRAME:06d}.jpg" in {path.name for path in (folder / "03_fit" / "worst").iterdir()}
    assert np.isfinite(result.residual_mm[result.tracked]).all() == with_depth
    assert any("height" in note for note in result.notes)


def test_same_input_gives_same_bytes(tmp_path: Path, body: BodyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fitting.fit.Masks", IdealMasks)
    written = []
    for name in "ab":
        folder = tmp_path / name
        film(folder, body, True)
        fit(CONFIG, folder / "03_fit", folder / "01_recording", folder / "02_masks")
        written.append(
            {
                p.name: p.read_bytes()
                for p in sorted((folder / "03_fit").iterdir())
                if p.is_file() and p.suffix != ".mp4"
            }
        )
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("height_m", "words"), [(178.0, r"metres, .*did you mean 1\.78\?"), (-3.0, "metres"), (0.2, "0")]
)
def test_a_height_that_nobody_has_is_refused(height_m, words):
    with pytest.raises(UserError, match=words):
        FitConfig(height_m=height_m)
