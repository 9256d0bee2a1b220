"""Importers: what each foreign format must become, and what must be refused in one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from capture.errors import UserError
from capture.files import encode_jpeg, encode_png
from capture.importers import ImportConfig, record
from capture.importers.images import to_millimetres
from capture.importers.tum import associate
from capture.recording import Recording
from capture.video import write_video

DATA = Path(__file__).parents[2] / "shared" / "data"
WH = (48, 36)


def picture(index: int, wh: tuple[int, int] = WH) -> np.ndarray:
    """A smooth picture that names its frame: red rises with the index."""
    image = np.zeros((wh[1], wh[0], 3), np.uint8)
    image[..., 0] = 20 * index
    image[..., 1] = np.linspace(0, 200, wh[0])
    return image


def make_tum(folder: Path, depth_of_frame: dict[int, float], num_frames: int = 6, units_per_m: int = 5000) -> Path:
    """A TUM folder at 30 Hz whose depth picture of frame i is ``depth_of_frame[i]`` seconds late."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    lines = {"rgb": ["# time file"], "depth": ["# time file"]}
    for i in range(num_frames):
        time_s = 100 + i / 30
        (folder / "rgb" / f"{i}.jpg").write_bytes(encode_jpeg(picture(i)))
        lines["rgb"].append(f"{time_s:.6f} rgb/{i}.jpg")
        if i in depth_of_frame:
            depth = np.full((WH[1], WH[0]), (1 + i) * units_per_m, np.uint16)
            (folder / "depth" / f"{i}.png").write_bytes(encode_png(depth))
            lines["depth"].append(f"{time_s + depth_of_frame[i]:.6f} depth/{i}.png")
    for name, text in lines.items():
        (folder / f"{name}.txt").write_text("\n".join(text))
    calibration = {
        "width": WH[0],
        "height": WH[1],
        "fx": 50.0,
        "fy": 51.0,
        "cx": 23.5,
        "cy": 17.5,
        "depth_units_per_m": units_per_m,
    }
    (folder / "calibration.json").write_text(json.dumps(calibration))
    return folder


def make_numbered(folder: Path, num_frames: int = 4) -> Path:
    folder.mkdir(parents=True)
    camera = '<opencv_storage><intrinsic type_id="opencv-matrix"><rows>3</rows><cols>3</cols><dt>f</dt><data>'
    camera += "\n 50. 0. 24. 0. 50. 18. 0. 0. 1.</data></intrinsic></opencv_storage>"
    for i in range(num_frames):
        (folder / f"{i:04d}.jpg").write_bytes(encode_jpeg(picture(i)))
        (folder / f"{i:04d}_depth.png").write_bytes(encode_png(np.full((WH[1], WH[0]), 1000 + i, np.uint16)))
        (folder / f"{i:04d}_mask.jpg").write_bytes(encode_jpeg(picture(0)))
        (folder / f"{i:04d}_camera.xml").write_text(camera)
    return folder


def run(tmp_path: Path, source: Path, **settings: object) -> Recording:
    out_dir = tmp_path / f"recorded{len(list(tmp_path.glob('recorded*')))}"
    record(ImportConfig(**settings), out_dir, source)  # type: ignore[arg-type]
    return Recording.load(out_dir)


def refusal(tmp_path: Path, source: Path, **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        run(tmp_path, source, **settings)
    message = str(caught.value)
    assert "\n" not in message and str(source.name) in message
    return message


# ---------------------------------------------------------------------------------------------------------- video


def encode(
    path: Path, pts: list[int], wh: tuple[int, int] = WH, rotation_deg: int = 0, options: dict | None = None
) -> Path:
    """An mp4 with one frame at each of ``pts`` (1/600 s)."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=600)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *wh, "yuv420p"
        stream.options = {"crf": "5", "threads": "1"}
        if rotation_deg:
            stream.set_display_rotation(rotation_deg)
        for i, time in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(picture(i % 12, wh), format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_video_keeps_every_frame_its_order_and_its_colours(tmp_path):
    write_video(tmp_path / "a.mp4", (picture(i) for i in range(10)), 25)
    recording = run(tmp_path, tmp_path / "a.mp4")
    assert len(recording) == 10 and recording.rig.depth is None and not recording.has_depth.any()
    np.testing.assert_allclose(recording.times_s, np.arange(10) / 25, atol=1e-6)
    for i in (0, 5, 9):
        assert abs(recording.color(i)[..., 0].mean() - 20 * i) < 6
    assert not recording.focal_is_known and any("guessed" in note for note in recording.notes)


def test_variable_frame_rate_keeps_the_true_times(tmp_path):
    pts = [0, 20, 40, 100, 120, 300]
    recording = run(tmp_path, encode(tmp_path / "vfr.mp4", pts))
    np.testing.assert_allclose(recording.times_s, np.array(pts) / 600, atol=1e-3)
    assert any("variable frame rate" in note for note in recording.notes)


@pytest.mark.parametrize("rotation_deg", [90, 180, -90])
def test_the_display_matrix_is_applied(tmp_path, rotation_deg):
    upright = encode(tmp_path / "plain.mp4", [0, 20])
    turned = encode(tmp_path / "turned.mp4", [0, 20], rotation_deg=rotation_deg)
    plain, rotated = run(tmp_path, upright).color(0), run(tmp_path, turned).color(0)
    expected = np.rot90(plain, rotation_deg // 90)  # FFmpeg's sense: counter-clockwise
    assert rotated.shape == expected.shape
    assert np.abs(rotated.astype(int) - expected).mean() < 3


def test_odd_sizes_are_kept(tmp_path):
    with av.open(str(tmp_path / "odd.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 47, 35, "bgr0"
        for i in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i, (47, 35)), format="rgb24")))
        container.mux(stream.encode())
    recording = run(tmp_path, tmp_path / "odd.mkv")
    assert recording.rig.color.image_wh == (47, 35) and recording.color(2).shape == (35, 47, 3)


def test_start_every_and_max_frames_choose_source_frames(tmp_path):
    write_video(tmp_path / "a.mp4", (picture(i) for i in range(12)), 30)
    recording = run(tmp_path, tmp_path / "a.mp4", start=2, every=3, max_frames=3)
    np.testing.assert_allclose(recording.times_s, np.array([2, 5, 8]) / 30, atol=1e-6)
    assert abs(recording.color(1)[..., 0].mean() - 100) < 6
    assert "start" in refusal(tmp_path, tmp_path / "a.mp4", start=40)


@pytest.mark.parametrize("rate, every", [(30, 0), (50, 2), (60, 2), (120, 4)])
def test_a_quick_film_says_that_fewer_frames_would_do(tmp_path, rate, every):
    write_video(tmp_path / "a.mp4", (picture(i) for i in range(8)), rate)
    told = [note for note in run(tmp_path, tmp_path / "a.mp4").notes if "recording.every" in note]
    assert [note.rsplit("=", 1)[1] for note in told] == ([str(every)] if every else [])
    thinned = run(tmp_path, tmp_path / "a.mp4", every=2)
    assert len(thinned) == 4 and not any("recording.every" in note for note in thinned.notes)


def test_a_truncated_video_is_refused_unless_allowed(tmp_path):
    source = encode(
        tmp_path / "whole.mp4", [20 * i for i in range(60)], wh=(160, 120), options={"movflags": "+faststart"}
    )
    data = source.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    found = re.search(r"(\d+) frames of 60 could be read", refusal(tmp_path, tmp_path / "cut.mp4"))
    assert found and 0 < int(found[1]) < 60
    assert len(run(tmp_path, tmp_path / "cut.mp4", allow_truncated=True)) == int(found[1])
    assert len(run(tmp_path, tmp_path / "cut.mp4", max_frames=3)) == 3  # what is asked for is there


def test_a_video_without_its_index_is_refused(tmp_path):
    data = encode(tmp_path / "whole.mp4", [20 * i for i in range(30)]).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: data.find(b"moov") - 20])
    assert "copy it again" in refusal(tmp_path, tmp_path / "cut.mp4")


@pytest.mark.parametrize("name", ["text.mp4", "text.txt"])
def test_text_is_no_video(tmp_path, name):
    (tmp_path / name).write_text("this is not a film\n" * 200)
    assert "video" in refusal(tmp_path, tmp_path / name)


def test_a_picture_an_empty_file_and_a_sound_are_no_video(tmp_path):
    (tmp_path / "still.jpg").write_bytes(encode_jpeg(picture(1)))
    (tmp_path / "empty.mp4").write_bytes(b"")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for name in ("still.jpg", "empty.mp4", "sound.mp4"):
        assert "video" in refusal(tmp_path, tmp_path / name)


def test_an_import_is_the_same_bytes_each_time(tmp_path):
    write_video(tmp_path / "a.mp4", (picture(i) for i in range(4)), 30)
    first, second = run(tmp_path, tmp_path / "a.mp4").folder, run(tmp_path, tmp_path / "a.mp4").folder
    for path in sorted(first.rglob("*.*")):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()


# -------------------------------------------------------------------------------------------------------- folders


def test_tum_depth_becomes_millimetres_and_pixels_shift_by_half(tmp_path):
    recording = run(tmp_path, make_tum(tmp_path / "tum", dict.fromkeys(range(6), 0.004)))
    assert recording.has_depth.all() and recording.times_s[0] == 0
    assert [int(recording.depth_mm(i)[0, 0]) for i in range(6)] == [1000 * (1 + i) for i in range(6)]  # type: ignore[index]
    camera = recording.rig.color
    assert (camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px) == (50, 51, 24, 18)
    assert recording.rig.depth == camera and np.array_equal(recording.rig.depth_from_color, np.eye(4))
    assert recording.color_bytes(3) == (tmp_path / "tum/rgb/3.jpg").read_bytes()


def test_depth_is_associated_within_half_a_frame(tmp_path):
    source = make_tum(tmp_path / "tum", {0: 0.0, 2: 0.015, 4: -0.010})
    (source / "depth.txt").write_text((source / "depth.txt").read_text() + "\n250.0 depth/0.png")
    recording = run(tmp_path, source)
    assert recording.has_depth.tolist() == [True, False, True, False, True, False]
    assert recording.depth_mm(1) is None and recording.depth_mm(2)[0, 0] == 3000  # type: ignore[index]
    assert any("3 of 6 frames have no depth" in note for note in recording.notes)
    assert any("1 of 4 depth pictures belong to no colour picture" in note for note in recording.notes)


def test_each_depth_picture_is_used_once_by_its_nearest_frame():
    color_s = np.array([0.0, 1.0, 2.0, 3.0])
    assert associate(color_s, np.array([0.5, 2.4, 2.6, 9.0])) == [0, None, 1, 2]
    assert associate(color_s, np.array([1.1, 0.95])) == [None, 1, None, None]
    assert associate(color_s, np.array([])) == [None] * 4
    rng = np.random.default_rng(0)
    for _ in range(20):
        depth_s = np.sort(rng.uniform(0, 4, 5))
        found = associate(color_s, depth_s)
        used = [j for j in found if j is not None]
        assert len(used) == len(set(used))
        assert all(abs(depth_s[j] - color_s[i]) <= 0.5 + 1e-6 for i, j in enumerate(found) if j is not None)


def test_slow_colour_does_not_widen_what_is_one_moment():
    color_s = np.arange(20) / 15  # dim light: half the rate of depth
    depth_s = np.delete(np.arange(40) / 30 + 0.005, 10)  # one depth picture was lost
    found = associate(color_s, depth_s)
    assert found[5] is None and found.count(None) == 1


def test_no_depth_leaves_depth_out(tmp_path):
    for source in (make_tum(tmp_path / "tum", {0: 0.0}), make_numbered(tmp_path / "numbered")):
        recording = run(tmp_path, source, no_depth=True)
        assert recording.rig.depth is None and not recording.has_depth.any()
        assert any("--no-depth" in note for note in recording.notes)


def test_tum_without_calibration_says_that_it_assumes_the_defaults(tmp_path):
    source = make_tum(tmp_path / "tum", {})
    (source / "calibration.json").unlink()
    assert "640x480" in refusal_text(tmp_path, source)
    for i in range(6):
        (source / "rgb" / f"{i}.jpg").write_bytes(encode_jpeg(picture(i, (640, 480))))
    recording = run(tmp_path, source)
    assert recording.rig.color.fx_px == 525 and any("defaults" in note for note in recording.notes)


def refusal_text(tmp_path: Path, source: Path) -> str:
    with pytest.raises(UserError) as caught:
        run(tmp_path, source)
    return str(caught.value)


def test_depth_that_does_not_fit_sixteen_bits_of_millimetres_is_no_return():
    depth = np.array([[0, 1, 10, 65535]], np.uint16)
    assert to_millimetres(depth, 100.0).tolist() == [[0, 10, 100, 0]]
    assert to_millimetres(depth, 5000.0).tolist() == [[0, 0, 2, 13107]]
    assert to_millimetres(depth, 1000.0).tolist() == depth.tolist()


def test_numbered_pictures_with_camera_files(tmp_path):
    source = make_numbered(tmp_path / "numbered")
    (source / "0001_depth.png").unlink()
    (source / "0002.jpg").unlink()
    recording = run(tmp_path, source)
    assert recording.has_depth.tolist() == [True, False, True]  # 0000, 0001, 0003
    np.testing.assert_allclose(recording.times_s, [0, 1 / 30, 3 / 30])
    assert recording.depth_mm(2)[0, 0] == 1003  # type: ignore[index]
    assert recording.rig.color.fx_px == 50 and recording.rig.color.cx_px == 24.5


def test_subfolders_with_a_calibration_and_a_smaller_depth(tmp_path):
    source = tmp_path / "folders"
    for name in ("color", "depth"):
        (source / name).mkdir(parents=True)
    for i in range(2):
        (source / "color" / f"frame_{i}.png").write_bytes(encode_png(picture(i)))
        (source / "depth" / f"{i}.png").write_bytes(encode_png(np.full((18, 24), 900, np.uint16)))
    assert "calibration.json" in refusal(tmp_path, source)
    fields = {"width": 48, "height": 36, "fx": 50, "fy": 50, "cx": 23.5, "cy": 17.5, "depth_units_per_m": 1000}
    (source / "calibration.json").write_text(json.dumps(fields))
    recording = run(tmp_path, source)
    assert recording.rig.depth is not None and recording.rig.depth.fx_px == 25
    assert recording.color_names[0].endswith(".png") and recording.color(1)[0, 0, 0] == 20


def test_a_picture_that_a_phone_marked_as_rotated_stands_upright(tmp_path):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for i in range(2):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(picture(i)).save(tmp_path / "photos" / f"{i}.jpg", exif=exif)
    recording = run(tmp_path, tmp_path / "photos")
    assert recording.rig.color.image_wh == (WH[1], WH[0]) and recording.color(1).shape[:2] == (WH[0], WH[1])


def test_a_recording_of_ours_is_copied(tmp_path):
    first = run(tmp_path, make_tum(tmp_path / "tum", {0: 0.0, 3: 0.0}))
    (tmp_path / "alice").mkdir()
    shutil.copytree(first.folder, tmp_path / "alice" / "01_recording")
    for source in (first.folder, tmp_path / "alice"):
        copy = run(tmp_path, source)
        for path in sorted(first.folder.rglob("*.*")):
            assert path.read_bytes() == (copy.folder / path.relative_to(first.folder)).read_bytes()
    part = run(tmp_path, first.folder, start=3, max_frames=2)
    assert part.has_depth.tolist() == [True, False] and part.times_s[0] == pytest.approx(0.1)


# ------------------------------------------------------------------------------------------------------- refusals


def test_no_such_source_and_an_empty_folder(tmp_path):
    assert "no such file" in refusal(tmp_path, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "empty" in refusal(tmp_path, tmp_path / "empty")


def test_an_unknown_folder_is_told_what_is_accepted(tmp_path):
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "letter.odt").write_text("hello")
    message = refusal(tmp_path, tmp_path / "unknown")
    assert "letter.odt" in message and "rgb.txt" in message and "calibration.json" in message


def test_pictures_of_differing_sizes_are_refused(tmp_path):
    source = make_numbered(tmp_path / "numbered")
    (source / "0002.jpg").write_bytes(encode_jpeg(picture(0, (50, 36))))
    message = refusal_text(tmp_path, source)
    assert "0002.jpg" in message and "50x36" in message and "48x36" in message


@pytest.mark.parametrize("content", ["", "<opencv_storage>", "<opencv_storage><a/></opencv_storage>", "\x00\x01"])
def test_an_unreadable_camera_file_is_refused(tmp_path, content):
    source = make_numbered(tmp_path / "numbered")
    (source / "0001_camera.xml").write_text(content)
    assert "0001_camera.xml" in refusal_text(tmp_path, source)


@pytest.mark.parametrize("content", ["{", "[]", '{"width": 48}', '{"width": "x"}'])
def test_a_broken_calibration_is_refused(tmp_path, content):
    source = make_tum(tmp_path / "tum", {})
    (source / "calibration.json").write_text(content)
    assert "calibration.json" in refusal_text(tmp_path, source)


def test_a_slip_in_a_calibration_is_not_a_default(tmp_path):
    source = make_tum(tmp_path / "tum", {0: 0.0}, units_per_m=1000)
    fields = json.loads((source / "calibration.json").read_text())
    fields["depth_unit_per_m"] = fields.pop("depth_units_per_m")
    (source / "calibration.json").write_text(json.dumps(fields))
    assert "is depth_units_per_m meant?" in refusal_text(tmp_path, source)
    del fields["depth_unit_per_m"]
    (source / "calibration.json").write_text(json.dumps({**fields, "serial": "0123"}))
    assert any("names no depth_units_per_m: TUM's 5000 assumed" in note for note in run(tmp_path, source).notes)


def test_broken_lists_and_files_are_refused(tmp_path):
    source = make_tum(tmp_path / "tum", {0: 0.0})
    listed = (source / "rgb.txt").read_text()
    for line, word in (
        ("7.0 rgb/none.jpg", "not there"),
        ("x rgb/0.jpg", "line 8"),
        ("7.0 ../../etc/passwd", "outside"),
    ):
        (source / "rgb.txt").write_text(listed + "\n" + line)
        assert word in refusal_text(tmp_path, source)
    (source / "rgb.txt").write_text(listed)
    (source / "rgb" / "2.jpg").write_bytes(encode_jpeg(picture(2))[:40])
    assert "2.jpg" in refusal_text(tmp_path, source)
    (source / "rgb" / "2.jpg").write_bytes(encode_jpeg(picture(2)))
    (source / "depth" / "0.png").write_bytes(encode_png(np.zeros((36, 48), np.uint8)))
    assert "16-bit" in refusal_text(tmp_path, source)


def test_settings_out_of_range_are_refused():
    for settings in ({"every": 0}, {"start": -1}, {"max_frames": -5}, {"frames_per_second": 0.0}, {"focal_px": -1.0}):
        with pytest.raises(UserError, match=next(iter(settings))):
            ImportConfig(**settings)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ real data


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data, real recordings that are not part of the project")
def test_real_recordings_are_recognised(tmp_path):
    turntable = run(tmp_path, DATA / "turntable_rgbd", max_frames=3)
    assert len(turntable) == 3 and turntable.has_depth.all() and turntable.rig.color.fx_px == 525
    assert 700 < np.median(turntable.depth_mm(0)[200:280, 280:360]) < 1800  # type: ignore[index]  # the man's chest
    casual = run(tmp_path, DATA / "casual_rgbd", max_frames=3)
    assert casual.rig.color.cx_px == 320 and 2000 < np.median(casual.depth_mm(0)) < 4500  # type: ignore[arg-type]
    taichi = run(tmp_path, DATA / "taichi_rgb" / "taichi.mp4", max_frames=3)
    assert taichi.rig.color.image_wh == (720, 1280) and cv2.Laplacian(taichi.color(0), cv2.CV_64F).var() > 10
