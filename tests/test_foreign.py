"""Files of depth sensors: each becomes what was filmed, says what it lacks, and is refused in one line when damaged."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import av
import corpus
import cv2
import foreign_writers as write
import numpy as np
import pytest
from test_importers import refusal, run

import doctor
import source as sources
from capture.camera import project, unproject
from capture.files import encode_jpeg
from capture.importers import ImportConfig, lens, lz4, lzfse, recognise
from capture.importers.blob import inflate
from capture.importers.timed import Damaged
from capture.recording import Recording
from capture.registration import depth_in_color

ROOT = Path(__file__).parents[1]


def assert_filmed(
    recording: Recording, frames: dict[int, int], color_wh: tuple[int, int], depth_wh: tuple[int, int]
) -> None:
    """Recording frame i shows moment ``frames[i]`` of the writers' scene; colour was encoded as JPEG on the way."""
    assert len(recording) == len(frames)
    for index, moment in frames.items():
        wrong = np.abs(recording.color(index).astype(int) - write.color_of(moment, color_wh))
        assert wrong.mean() < 1.5, f"frame {index}"
        np.testing.assert_array_equal(recording.depth_mm(index), write.depth_of(moment, depth_wh))


# -------------------------------------------------------------------------------------------------------- what it is


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: write.write_xef(path, 1), "Kinect Studio: 1 colour, 1 depth"),
        (write.write_mkv, "Azure Kinect recording: color 128x72 MJPG, 3 frames; depth 320x288"),
        (write.write_bag, "ROS 1 bag: /device_0/sensor_1/Color_0/image/data (4 pictures)"),
        (write.write_r3d, "Record3D recording: 4 frames, colour 48x64, 4 depth pictures 24x32"),
        (write.write_sens, "ScanNet recording: StructureSensor, 4 frames, colour 64x48, depth 32x24"),
    ],
)
def test_a_file_is_known_by_its_content_and_described(tmp_path, make, words):
    checks = list(doctor.examine_source(make(tmp_path / "film.mp4")))  # a name that lies
    assert checks[0].state == "ok" and words in checks[0].words
    assert not [check for check in checks if check.state == "missing"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tum", "TUM RGB-D folder: 3 colour pictures, 3 depth pictures, 3 of the time of a colour one, camera 64x48"),
        ("numbered", "numbered pictures: 3 colour pictures 64x48, 3 depth pictures of their numbers, a camera file"),
        ("prox", "PROX recording: 3 colour pictures, 3 depth pictures"),
        ("own", "recording of ours: 3 frames in 0.1 s, colour 64x48, 3 depth pictures 64x48"),
        ("cap", "recording of ours: 3 frames in 0.1 s, colour 64x48, 3 depth pictures 64x48"),
    ],
)
def test_a_folder_is_described(tmp_path, name, words):
    source = next(source for source in corpus.SOURCES if source.name == name)
    checks = list(doctor.examine_source(source.make(tmp_path / "a")))
    assert checks[0].state == "ok" and words in checks[0].words
    assert not [check for check in checks if check.state == "missing" or check.what == "depth"]


def test_doctor_says_what_a_folder_lacks(tmp_path):
    makers = {source.name: source.make for source in corpus.SOURCES}
    (makers["tum"](tmp_path / "tum") / "calibration.json").unlink()
    assert "TUM's own" in {c.what: c.words for c in doctor.examine_source(tmp_path / "tum")}["cameras"]
    for path in makers["numbered"](tmp_path / "numbered").glob("*.xml"):
        path.unlink()
    assert ("cameras", "missing") in [(c.what, c.state) for c in doctor.examine_source(tmp_path / "numbered")]
    for path in (tmp_path / "numbered").glob("*_depth.png"):
        path.unlink()
    found = {c.what: (c.state, c.words) for c in doctor.examine_source(tmp_path / "numbered")}
    assert "guessed" in found["cameras"][1] and "colour alone" in found["depth"][1]
    cap = makers["cap"](tmp_path / "cap") / "frames.cap"
    cap.write_bytes(cap.read_bytes()[:-400])
    assert "interrupted" in {c.what: c.words for c in doctor.examine_source(cap)}["length"]


def test_an_ordinary_film_stays_a_film(tmp_path):
    corpus.write_video(tmp_path / "a.mkv", [write.color_of(0)] * 2, 30)
    assert recognise(tmp_path / "a.mkv").words == "a video file"


def test_doctor_says_that_a_file_breaks_off_and_lacks_depth_or_calibration(tmp_path):
    whole = write.write_mkv(tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(whole[:-1000])
    assert ("length", "missing") in [(c.what, c.state) for c in doctor.examine_source(tmp_path / "b.mkv")]
    kinect = write.write_xef(tmp_path / "c.xef", 1, depth_ticks=[])
    found = {c.what: c.words for c in doctor.examine_source(kinect)}
    assert "colour alone" in found["depth"] and "typical" in found["cameras"]


# ------------------------------------------------------------------------------------------------------ Kinect Studio


@pytest.mark.parametrize("layout", [{}, {"is_archived": True}, {"with_index": True}])
def test_kinect_studio(tmp_path, layout):
    recording = run(tmp_path, write.write_xef(tmp_path / "a.xef", 3, **layout))
    assert_filmed(recording, {0: 0, 1: 1, 2: 2}, (1920, 1080), (512, 424))
    np.testing.assert_allclose(recording.times_s, [0, 1 / 30, 2 / 30], atol=1e-6)
    assert any("typical" in note for note in recording.notes) and any("mirrored" in note for note in recording.notes)
    # Seen from the device, its colour camera is 52 mm to the right of the depth camera (libfreenect2's shift_m).
    assert recording.rig.depth_from_color is not None
    np.testing.assert_allclose(recording.rig.depth_from_color[:3, 3], [0.0524, 0, 0], atol=1e-9)


def test_kinect_studio_in_dim_light(tmp_path):
    ticks = {"color_ticks": [0, 666_666, 1_333_332], "depth_ticks": [333_333 * i for i in range(6)]}
    recording = run(tmp_path, write.write_xef(tmp_path / "a.xef", **ticks))
    np.testing.assert_array_equal(recording.depth_mm(2), write.depth_of(4, (512, 424)))
    assert any("half the rate" in note for note in recording.notes)


def test_kinect_studio_takes_a_calibration_from_beside_it(tmp_path):
    (tmp_path / "calibration").mkdir()
    for name, wh, x_m in (("Color", (1920, 1080), 0.0), ("IR", (512, 424), 0.05)):
        view = np.eye(3, 4)
        view[0, 3] = x_m
        matrix = [[wh[0], 0, wh[0] / 2], [0, wh[0], wh[1] / 2], [0, 0, 1]]
        fields = {"camera_mtx": matrix, "k": [0.0] * 5, "view_mtx": view.tolist()}
        (tmp_path / f"calibration/{name}.json").write_text(json.dumps(fields))
    path = write.write_xef(tmp_path / "a.xef", 1)
    recording = run(tmp_path, path)
    assert recording.rig.color.fx_px == 1920 and recording.rig.depth.fx_px == 512
    assert recording.rig.depth_from_color[0, 3] == pytest.approx(0.05)
    described = sources.describe(str(path))
    (tmp_path / "calibration/IR.json").write_text("{}")
    assert sources.describe(str(path))["stats"] != described["stats"]  # it is part of the source


def test_kinect_studio_without_colour_names_the_stream_to_record(tmp_path):
    path = write.write_xef(tmp_path / "a.xef", color_ticks=[])
    message = refusal(tmp_path, path)
    assert "found depth, infrared" in message and "Uncompressed Color" in message


# ------------------------------------------------------------------------------------------------------- Azure Kinect


@pytest.mark.parametrize("fourcc", [b"MJPG", b"NV12", b"YUY2", b"BGRA"])
@pytest.mark.parametrize("layout", [{}, {"is_open": True, "in_groups": True}])
def test_azure_kinect(tmp_path, fourcc, layout):
    recording = run(tmp_path, write.write_mkv(tmp_path / "a.mkv", fourcc, **layout))
    assert_filmed(recording, {0: 0, 1: 1, 2: 2}, (128, 72), (320, 288))
    np.testing.assert_allclose(recording.times_s, np.arange(3) * 0.033333, atol=1e-9)
    assert recording.focal_is_known


def test_the_azure_fixture_is_matroska(tmp_path):
    """FFmpeg, which shares no line with our reader, sees the same tracks, times and depth in the test's file."""
    with av.open(str(write.write_mkv(tmp_path / "a.mkv"))) as container:
        assert [stream.metadata.get("title") for stream in container.streams.video] == ["COLOR", "DEPTH"]
        for i, frame in enumerate(container.decode(container.streams.video[1])):
            np.testing.assert_array_equal(frame.to_ndarray(), write.depth_of(i, (320, 288)))
            assert float(frame.pts * frame.time_base) == pytest.approx(0.2012 + 0.033333 * i, abs=1e-6)


@pytest.mark.parametrize(("depth_wh", "side", "offset"), [((320, 288), 512, (96, 90)), ((640, 576), 1024, (192, 180))])
def test_azure_cameras_see_what_the_factory_says(tmp_path, depth_wh, side, offset):
    """A point is projected by OpenCV with the factory's eight coefficients, and by our rig."""
    rig = run(tmp_path, write.write_mkv(tmp_path / "a.mkv", depth_wh=depth_wh, num_frames=1)).rig
    points_depth_m = np.array([[0.0, 0.0, 2.0], [0.5, 0.3, 2.0], [-0.8, -0.5, 2.5], [0.6, -0.6, 1.5]])
    cx, cy, fx, fy, k1, k2, k3, k4, k5, k6, _, _, p2, p1 = write.DEPTH_PARAMETERS
    matrix = np.array([[fx * side, 0, cx * side - offset[0]], [0, fy * side, cy * side - offset[1]], [0, 0, 1]])
    distortion = np.array([k1, k2, p1, p2, k3, k4, k5, k6])
    expected = cv2.projectPoints(points_depth_m, np.zeros(3), np.zeros(3), matrix, distortion)[0][:, 0]
    np.testing.assert_allclose(project(rig.depth, points_depth_m), expected, atol=1.0)

    cx, cy, fx, fy, k1, k2, k3, k4, k5, k6, _, _, p2, p1 = write.COLOR_PARAMETERS
    extrinsics = write.azure_calibration()["CalibrationInformation"]["Cameras"][1]["Rt"]
    rotation = np.array(extrinsics["Rotation"], float).reshape(3, 3)
    points_color_m = points_depth_m @ rotation.T + extrinsics["Translation"]
    np.testing.assert_allclose(
        np.linalg.inv(rig.depth_from_color)[:3, :3] @ points_depth_m.T, rotation @ points_depth_m.T, atol=1e-9
    )
    matrix = np.array([[fx * 128, 0, cx * 128], [0, fy * 96, cy * 96 - 12], [0, 0, 1]])  # 16:9 out of 4:3
    distortion = np.array([k1, k2, p1, p2, k3, k4, k5, k6])
    expected = cv2.projectPoints(points_color_m, np.zeros(3), np.zeros(3), matrix, distortion)[0][:, 0]
    np.testing.assert_allclose(project(rig.color, points_color_m), expected, atol=0.2)


def test_a_wide_depth_picture_is_straightened(tmp_path):
    """A lens of 120 degrees is beyond five coefficients: depth moves to the pixel where a pinhole sees it."""
    recording = run(tmp_path, write.write_mkv(tmp_path / "a.mkv", depth_wh=(512, 512), num_frames=1))
    camera = recording.rig.depth
    assert not any(camera.distortion) and any("straightened" in note for note in recording.notes)
    cx, cy, fx, fy, k1, k2, k3, k4, k5, k6, _, _, p2, p1 = write.DEPTH_PARAMETERS
    matrix = np.array([[fx * 512, 0, cx * 512], [0, fy * 512, cy * 512], [0, 0, 1]])
    for x, y in ((100, 120), (256, 256), (450, 300)):
        ray = np.array([[(x + 0.5 - camera.cx_px) / camera.fx_px, (y + 0.5 - camera.cy_px) / camera.fy_px, 1.0]])
        distortion = np.array([k1, k2, p1, p2, k3, k4, k5, k6])
        there = cv2.projectPoints(ray, np.zeros(3), np.zeros(3), matrix, distortion)[0][0, 0]
        stored = write.depth_of(0, (512, 512))[int(there[1]), int(there[0])]
        assert recording.depth_mm(0)[y, x] == stored


def test_motion_jpeg_without_huffman_tables(tmp_path, monkeypatch):
    """Cameras leave out the tables that every MJPEG frame shares."""

    def bare(image: np.ndarray) -> bytes:
        data = encode_jpeg(image)
        while (at := data.find(b"\xff\xc4")) >= 0:
            data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
        return data

    monkeypatch.setattr(write, "encode_jpeg", bare)
    assert_filmed(run(tmp_path, write.write_mkv(tmp_path / "a.mkv")), {i: i for i in range(3)}, (128, 72), (320, 288))


def test_frames_that_a_recorder_dropped_stay_gaps(tmp_path):
    recording = run(tmp_path, write.write_mkv(tmp_path / "a.mkv", num_frames=6, missing=(1, 4)))
    assert_filmed(recording, {0: 0, 1: 2, 2: 3, 3: 5}, (128, 72), (320, 288))
    np.testing.assert_allclose(recording.times_s, np.array([0, 2, 3, 5]) * 0.033333, atol=1e-6)


def test_a_time_that_cannot_be_leaves_a_gap(tmp_path):
    times_us = [1_000_000 + 33_333 * i for i in range(6)]
    times_us[2] ^= 1 << 40  # a flipped bit: twelve days later
    recording = run(tmp_path, write.write_sens(tmp_path / "a.sens", 6, times_us=times_us), frames_per_second=7.0)
    if len(recording) == 6:  # taken for a file without times, and said
        assert any("assumed" in note for note in recording.notes)
    path = write.write_xef(tmp_path / "a.xef", 4)
    data = bytearray(path.read_bytes())
    at = data.find(struct.pack("<HHIq", 1, 0, 4_147_200, 333_333)) + 8
    data[at + 5] ^= 1
    path.write_bytes(data)
    recording = run(tmp_path, path)
    np.testing.assert_allclose(recording.times_s, np.array([0, 2, 3]) / 30, atol=1e-5)
    assert any("cannot be" in note for note in recording.notes)


def test_a_gap_is_said(tmp_path):
    recording = run(tmp_path, write.write_mkv(tmp_path / "a.mkv", num_frames=8, missing=(3, 4)))
    assert any("about 2 frames were dropped" in note for note in recording.notes)


@pytest.mark.parametrize("lost", [0, 2])
def test_light_that_fades_is_no_loss(tmp_path, lost):
    """Thirty pictures a second, then fifteen; what is lost is still counted."""
    times_us = [1_000_000 + 33_333 * i for i in (*range(30), *range(30, 70, 2), *range(70, 100))]
    del times_us[12 : 12 + lost]
    recording = run(tmp_path, write.write_sens(tmp_path / "a.sens", len(times_us), times_us=times_us))
    notes = " ".join(recording.notes)
    assert "half its rate for 1.3 of 3.3 s" in notes
    assert ("about 2 frames were dropped" in notes) == (lost == 2) and notes.count("dropped") == (lost == 2)


def test_a_cluster_with_a_wrong_checksum_is_left_out(tmp_path):
    path = write.write_mkv(tmp_path / "a.mkv", b"NV12", num_frames=4)
    data = bytearray(path.read_bytes())
    data[data.find(b"\x1f\x43\xb6\x75", len(data) // 2) + 5000] ^= 1
    path.write_bytes(data)
    recording = run(tmp_path, path)
    assert len(recording) == 3 and any("damaged" in note for note in recording.notes)
    assert corpus.fingerprints(recording)["depth"] <= {
        corpus.hashlib.sha256(write.depth_of(i, (320, 288)).tobytes()).digest() for i in range(4)
    }


def test_azure_kinect_without_calibration(tmp_path):
    path = write.write_mkv(tmp_path / "a.mkv", calibration={"CalibrationInformation": {}})
    assert "--no-depth" in refusal(tmp_path, path)
    assert not run(tmp_path, write.write_mkv(tmp_path / "b.mkv"), no_depth=True).has_depth.any()


# ---------------------------------------------------------------------------------------------------------- RealSense


@pytest.mark.parametrize("layout", [{}, {"compression": "bz2"}, {"compression": "lz4"}, {"unit_m": 0.00025}])
def test_realsense(tmp_path, layout):
    recording = run(tmp_path, write.write_bag(tmp_path / "a.bag", **layout))
    assert_filmed(recording, {i: i for i in range(4)}, write.WH, (40, 30))
    np.testing.assert_allclose(recording.times_s, np.arange(4) / 30, atol=1e-6)
    np.testing.assert_allclose(recording.rig.depth_from_color[:3, 3], [-0.015, 0, 0])
    assert (recording.rig.color.fx_px, recording.rig.color.cx_px, recording.rig.depth.fx_px) == (60, 32, 38)


def test_depth_is_never_taken_from_another_moment(tmp_path):
    recording = run(tmp_path, write.write_bag(tmp_path / "a.bag", missing_depth=(1,)))
    assert recording.has_depth.tolist() == [True, False, True, True]
    late = run(tmp_path, write.write_bag(tmp_path / "b.bag", depth_late_s=0.5))
    assert not late.has_depth.any()


def test_ros_topics_and_transforms(tmp_path):
    recording = run(tmp_path, write.write_ros_bag(tmp_path / "a.bag"))
    assert_filmed(recording, {i: i for i in range(3)}, write.WH, (40, 30))
    np.testing.assert_allclose(recording.rig.depth_from_color[:3, 3], [0, 0.015, 0])
    aligned = run(tmp_path, write.write_ros_bag(tmp_path / "b.bag", is_aligned=True))
    np.testing.assert_array_equal(aligned.rig.depth_from_color, np.eye(4))


def test_an_inverse_lens_is_turned_round():
    """RealSense's coefficients lead from the picture to the ray; ours lead back."""
    coefficients = (0.12, -0.2, 0.001, -0.0005, 0.05)
    camera, error_px = lens.camera((640, 480), (600, 600, 320, 240), coefficients, is_inverse=True)
    assert 0 < error_px < 0.1
    pixel = np.array([500.0, 400.0])
    ray = lens.inverse_brown(coefficients)((pixel - (320, 240)) / 600)
    np.testing.assert_allclose(project(camera, np.append(ray, 1.0)), pixel, atol=0.1)


# ---------------------------------------------------------------------------------------------------- Record3D, ScanNet


@pytest.mark.parametrize("pack", [write.lzvn, write.lzfse_stored, zlib.compress, bytes])
def test_record3d(tmp_path, pack):
    recording = run(tmp_path, write.write_r3d(tmp_path / "a.r3d", pack=pack))
    assert_filmed(recording, {i: i for i in range(4)}, (48, 64), (24, 32))
    np.testing.assert_allclose(recording.times_s, np.arange(4) / 60, atol=1e-9)
    color = recording.rig.color  # K is stored column by column
    assert (color.fx_px, color.cx_px, color.cy_px) == (55, 23.5, 32.5)


def test_record3d_pictures_larger_than_its_camera_and_doubtful_depth(tmp_path):
    path = write.write_r3d(tmp_path / "a.r3d", jpg_wh=(96, 128), with_confidence=True)
    recording = run(tmp_path, path)
    assert recording.rig.color.image_wh == (96, 128) and recording.rig.color.fx_px == 110
    assert (recording.depth_mm(1)[-1] == 0).all() and (recording.depth_mm(1)[5] > 0).all()


def test_record3d_on_its_side_is_refused(tmp_path):
    path = write.write_r3d(tmp_path / "a.r3d", depth_wh=(32, 24))
    assert "--no-depth" in refusal(tmp_path, path)


def test_scannet(tmp_path):
    recording = run(tmp_path, write.write_sens(tmp_path / "a.sens", baseline_m=0.04))
    assert_filmed(recording, {i: i for i in range(4)}, write.WH, (32, 24))
    np.testing.assert_allclose(recording.rig.depth_from_color[:3, 3], [-0.04, 0, 0], atol=1e-7)
    np.testing.assert_allclose(recording.times_s, np.arange(4) * 0.033333, atol=1e-9)
    untimed = run(tmp_path, write.write_sens(tmp_path / "b.sens", times_us=[0, 0, 0, 0]), frames_per_second=10.0)
    np.testing.assert_allclose(untimed.times_s, np.arange(4) / 10)


# -------------------------------------------------------------------------------------------------------- compression

# A depth picture of 32 x 40 float32 as Apple's encoder packs it: one block of kind bvx2.
PACKED_BY_APPLE = (
    "Vs>~k02BZKkOMF;08IdJ1`tqWK$QR>x&QzGKfKTiryvmE7Z74p001Ds%@c6Wvrzy50000!1fXnAPA*S200000006+IOeSS8n3O?D(rA)Ylj`op"
    "xEKfHVBCy3F2<w`ULBI8jY*OwF<~$$gEE<f!DOI~v5h8;jR$uZR~J_ocNbR&M;BKYR~JVYR~IKIsV32+)g&#U3`!Z4!6qa%Nn(<uF-e#V!eB5c"
    "lQL=4G*%mvHUIzsAP^v1^%>Ey#2a)Zn5M93O{Wr?55t&tt3uwMR>|yzFkcmfN@Xgh0LQ3;>=lu__3Wo3+Pje#S)-0ntBUOZEs>f%xAH~aM~e}2"
    "Twq+0l}en5YcHyQk;qAyf&7;iA}~nGCx&w%(i*|=^h6lC5%HZmhKKC)eiuWooL{>h_*?ij_)U10^?yZ1M^Lp&pGx+HU%^?3EtKp@0kqmX^MHsw"
    "s8yhGvr=uJ&KSx*rd8REqk1ksbpvinj+`d|kG;t8eYxM1R&GnFx!D&fDi;8NWx-+mDA%z`xgn}V;@z}gc9Gg;{#0J+G^*!$(@&$^yal@#27>47"
    "4groXu7>e1_o0tV6?bdXgLkA+@OU%1^vg-e7|q8%BXG=pG4Lm*^Uu)7INoav4?GIlcou~d?!L(3^K?FW=5NDR{0g6_1&j*204%nyJqORx)GE(>"
    "0+j^-H~=pn>=TdQ3P8tp>sYv_iTHG7o68$j3*HXpbUL9;yE)JQ5`j5Fj^6*J6te(Ad4n3hg67la&5;-G*=A4A>v}UGYco?$i;GZ9T;UQ`@BIUn"
    "D~`XGQC{O8lo&+YwfwXWW$F>y>_7*&KIm7y4?R$Yj2@@jXBT}3b{Ex!5v}g>4DBxEg$?58F3EKA)^NfDpf|!~9Jl_6hIG(df1qHuJ)#98QOO?q"
    "SxWC%x+_8H2WV8P{w!H*ORRJ^gJQpu(P+@>e+ra@owjcQnarkuLSzS>J21t8*ypxbH1lBFl3_FmhoHDaG#U%hbQ<E}?oOaL2%`HGkK+C5#rJL$"
    "uPH9Jt*?C_T{{<AtNPcDoNP<}wQX9Xww|6gH?c{(o~AAQO%qO<KBp@(52y(By5d0ay1*X|8`}-z_zDv~5Tg2w5Ln_NB1D8>>fMdJeFLV<-2spr"
    "1lg1C_ETJF)#CR5;@U)QjH_L#q;_3??G++zNy=@{@o)Q`y3IrOri-EJ)N2!!Y|{!(Dl&#Dj%h0zQ2+n{000000002&K@awH4|=Evdawt2fWd(5"
    "h~jug>H+aKz!ZZpyh=`brVAMZ$;$xgnH**eJuHhg6vqL(8fC@tz^+yn2N2#(o#6q-o2ellK*%Y1fCmur(N_aJfT=kpTr4NmB*qxa2R5l4#?XOH"
    "Yd400XH6~Pu!bogyw*PI>Vcl@dC&Ds&-P5udWPwFm;_>Wcq9"
)


def depth_for_apple() -> np.ndarray:
    x, y = np.meshgrid(np.arange(32), np.arange(40))
    depth = 1000 + 2 * x + 3 * y + ((x - 16) ** 2 + (y - 20) ** 2 < 80) * -400
    return (depth.astype(np.uint16) * 1e-3).astype("<f4")


def test_lzfse_reads_what_apples_encoder_wrote():
    raw = depth_for_apple().tobytes()
    packed = base64.b85decode(PACKED_BY_APPLE)
    assert packed[:4] == b"bvx2" and lzfse.decompress(packed, len(raw)) == raw


@pytest.mark.parametrize("decompress", [lzfse.decompress, lz4.decompress, inflate])
def test_compressed_data_that_is_cut_or_of_another_size_is_damaged(decompress):
    raw = depth_for_apple().tobytes()
    packed = {lzfse: base64.b85decode(PACKED_BY_APPLE), lz4: write.lz4_frame(raw)}.get(
        sys.modules[decompress.__module__], zlib.compress(raw)
    )
    assert decompress(packed, len(raw)) == raw
    for data, size in ((packed[:-30], len(raw)), (packed, len(raw) - 1), (packed, len(raw) + 1), (b"", len(raw))):
        with pytest.raises(Damaged):
            decompress(data, size)


def test_lz4_checksums_are_checked():
    assert (lz4.xxh32(b""), lz4.xxh32(b"a")) == (0x02CC5D05, 0x550D7456)  # published test values
    packed = bytearray(write.lz4_frame(depth_for_apple().tobytes()))
    packed[len(packed) // 2] ^= 4
    with pytest.raises(Damaged):
        lz4.decompress(bytes(packed), 5120)


# ------------------------------------------------------------------------------------------------- turned and mirrored


@pytest.mark.parametrize("turn_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_upright_cameras_see_the_upright_pictures(tmp_path, turn_deg, mirrored):
    """What depth shows and what colour shows stay in one place: points of the upright rig land where the upright
    pictures have the value that the stored pictures have there."""
    path = write.write_bag(tmp_path / "a.bag", 1, inverse=[0.1, -0.05, 0.004, -0.003, 0.0])
    stored = run(tmp_path, path)
    turned = run(tmp_path, path, turn_deg=turn_deg, mirrored=mirrored)
    expected = stored.depth_mm(0)[:, ::-1] if mirrored else stored.depth_mm(0)
    np.testing.assert_array_equal(turned.depth_mm(0), np.rot90(expected, -turn_deg // 90))
    assert turned.rig.color.image_wh == (turned.color(0).shape[1], turned.color(0).shape[0])
    assert turned.rig.depth.image_wh == (turned.depth_mm(0).shape[1], turned.depth_mm(0).shape[0])

    moved = [project(r.rig.color, _points_color_m(r)) for r in (stored, turned)]
    marked = np.zeros((*stored.color(0).shape[:2], 2))
    marked[..., 0], marked[..., 1] = np.meshgrid(np.arange(64), np.arange(48))
    marked = np.rot90(marked[:, ::-1] if mirrored else marked, -turn_deg // 90)  # where each pixel came from
    grid = np.rot90((moved[0][:, ::-1] if mirrored else moved[0]), -turn_deg // 90)
    is_inside = np.isfinite(moved[1]).all(-1)
    x, y = (np.floor(moved[1][is_inside][:, i]).astype(int) for i in (0, 1))
    keep = (x >= 1) & (x < marked.shape[1] - 1) & (y >= 1) & (y < marked.shape[0] - 1)
    assert keep.sum() > 500
    came_from = marked[y[keep], x[keep]] + 0.5
    assert np.abs(came_from - grid[is_inside][keep]).max() < 0.51


def _points_color_m(recording: Recording) -> np.ndarray:
    rig, depth_mm = recording.rig, recording.depth_mm(0)
    assert rig.depth is not None and rig.depth_from_color is not None and depth_mm is not None
    points_depth_m = unproject(rig.depth, depth_mm)
    color_from_depth = np.linalg.inv(rig.depth_from_color)
    return points_depth_m @ color_from_depth[:3, :3].T + color_from_depth[:3, 3]


def test_depth_reaches_colour_through_the_whole_import(tmp_path):
    recording = run(tmp_path, write.write_bag(tmp_path / "a.bag", 1))
    depth_m = depth_in_color(recording.rig, recording.depth_mm(0))
    assert depth_m.shape == (48, 64) and 1.0 < np.nanmedian(depth_m) < 1.2


def test_a_wrong_turn_and_landmarks_of_the_stored_pictures_are_refused(tmp_path):
    path = write.write_sens(tmp_path / "a.sens")
    assert "turn_deg" in _refused(lambda: ImportConfig(turn_deg=45))
    (tmp_path / "a_openpose").mkdir()
    for i in range(4):
        (tmp_path / f"a_openpose/a_{i:012d}_keypoints.json").write_text('{"people": []}')
    assert len(run(tmp_path, path)) == 4
    assert "OpenPose" in _refused(lambda: run(tmp_path, path, mirrored=True))


def _refused(action) -> str:
    with pytest.raises(Exception) as caught:
        action()
    assert type(caught.value).__name__ == "UserError"
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ damage


def test_a_file_that_breaks_off_is_refused_unless_allowed(tmp_path):
    for make, kept, cut in ((write.write_sens, 3, 300), (write.write_bag, 3, 1500), (write.write_mkv, 2, 1500)):
        path = make(tmp_path / f"{make.__name__}.bin")
        path.write_bytes(path.read_bytes()[:-cut])
        assert "allow_truncated" in refusal(tmp_path, path)
        assert len(run(tmp_path, path, allow_truncated=True)) == kept


def test_damaged_pictures_leave_gaps_and_are_counted(tmp_path):
    path = write.write_sens(tmp_path / "a.sens", num_frames=6)
    data = bytearray(path.read_bytes())
    second = data.find(b"\xff\xd8", data.find(b"\xff\xd8") + 100)
    data[second : second + 2] = b"\0\0"
    path.write_bytes(data)
    recording = run(tmp_path, path)
    np.testing.assert_allclose(recording.times_s, np.array([0, 2, 3, 4, 5]) * 0.033333, atol=1e-6)
    assert any("1 of 6 frames are damaged" in note for note in recording.notes)


def test_damaged_files_of_every_reader_are_refused_or_true(tmp_path):
    """A sample of the corpus; ``benchmarks/corrupt_corpus.py`` has all of it, with limits of time and memory."""
    intact: dict = {}
    outcomes = []
    for number, case in enumerate(corpus.cases(tmp_path, 67, seed=7)):
        intact = intact or corpus.intact_frames(tmp_path)
        words = corpus.verdict(case, tmp_path / f"out{number}", intact[case.source.name])
        assert words in ("refused", "taken"), f"{case.source.name}, {case.kind}: {words}"
        outcomes.append(words)
    assert min(outcomes.count("refused"), outcomes.count("taken")) > 10


def test_the_corpus_notices_a_reader_that_lies(tmp_path, monkeypatch):
    case = next(c for c in corpus.cases(tmp_path, 40, seed=1) if c.source.name == "room.sens" and c.kind == "bomb")
    write.write_sens(tmp_path / "b.sens")
    intact = ({"colour": set(), "depth": set()}, (48, 64, 3))
    honest = corpus.Case(case.source, "bit flipped", tmp_path / "b.sens", False)
    assert corpus.verdict(honest, tmp_path / "out", intact) == "WRONG depth"


@pytest.mark.parametrize("name", ["a.xef", "a.mkv", "a.bag", "a.r3d", "a.sens"])
def test_the_command_line_refuses_a_broken_file_in_one_line(tmp_path, name):
    makers = {"a.xef": lambda p: write.write_xef(p, 1), "a.mkv": write.write_mkv, "a.bag": write.write_bag}
    path = {**makers, "a.r3d": write.write_r3d, "a.sens": write.write_sens}[name](tmp_path / name)
    path.write_bytes(path.read_bytes()[:300])
    line = [sys.executable, str(ROOT / "pipeline.py"), "record", "--subject", "x", "--source", str(path)]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and name in errors[0] and "Traceback" not in done.stderr
