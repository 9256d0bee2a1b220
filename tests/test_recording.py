"""Recordings and video files: what is written is what is read."""

from __future__ import annotations

import av
import numpy as np
import pytest

from capture.camera import Camera, Rig
from capture.errors import UserError
from capture.files import encode_jpeg, encode_png, read_depth, read_image, write_atomically
from capture.recording import Recording, RecordingWriter, layout
from capture.video import VideoWriter, write_video

COLOR = Camera((40, 30), 45.0, 45.0, 20.0, 15.0)
DEPTH = Camera((24, 20), 25.0, 25.0, 12.0, 10.0)


@pytest.fixture(params=["container", "folder"])
def either_layout(request):
    token = layout.set(request.param)
    yield request.param
    layout.reset(token)


@pytest.fixture
def plain_layout():
    token = layout.set("folder")
    yield
    layout.reset(token)


def picture(index: int) -> np.ndarray:
    v, u = np.mgrid[:30, :40]
    return np.stack([u * 6, v * 8, np.full_like(u, 20 * index)], axis=-1).astype(np.uint8)


def write(folder, num_frames: int = 4) -> None:
    writer = RecordingWriter(folder, Rig(COLOR, DEPTH, np.eye(4)), "a test", focal_is_known=False)
    writer.note("remember this")
    for i in range(num_frames):
        depth_mm = None if i == 1 else np.full((20, 24), 1000 + i, np.uint16)
        color = encode_png(picture(i)) if i == 2 else picture(i)
        writer.add(i / 30 + 0.001 * i, color, depth_mm)
    assert len(writer) == num_frames
    writer.finish()


def test_what_is_written_is_read(tmp_path, either_layout):
    write(tmp_path / "r")
    recording = Recording.load(tmp_path / "r")
    assert (recording.container is None) == (either_layout == "folder")
    assert [name.split(".")[1] for name in recording.color_names] == ["jpg", "jpg", "png", "jpg"]
    assert len(recording) == 4 and recording.notes == ("remember this",) and not recording.focal_is_known
    assert recording.rig.color == COLOR and recording.rig.depth == DEPTH
    for i, frame in enumerate(recording):
        assert frame.index == i and frame.time_s == i / 30 + 0.001 * i
        assert np.abs(frame.color.astype(int) - picture(i)).mean() < 3
        assert (frame.depth_mm is None) == (i == 1)
        if frame.depth_mm is not None:
            assert frame.depth_mm.dtype == np.uint16 and (frame.depth_mm == 1000 + i).all()
    np.testing.assert_array_equal(recording.color(2), picture(2))  # PNG is kept without loss
    assert recording.frames_per_second == pytest.approx(1 / (1 / 30 + 0.001))
    with pytest.raises(IndexError):
        recording[4]


def test_bytes_of_an_image_are_kept_as_they_are(tmp_path, either_layout):
    writer = RecordingWriter(tmp_path, Rig(COLOR), "a test")
    data = encode_jpeg(picture(3), quality=60)
    writer.add(0.0, data)
    writer.finish()
    assert Recording.load(tmp_path).color_bytes(0) == data


def test_an_unfinished_folder_is_not_read(tmp_path, plain_layout):
    writer = RecordingWriter(tmp_path, Rig(COLOR), "a test")
    writer.add(0.0, picture(0))
    with pytest.raises(UserError, match=r"recording\.json"):
        Recording.load(tmp_path)


def test_a_recording_without_a_frame_is_refused(tmp_path, either_layout):
    with pytest.raises(UserError, match="single frame"):
        RecordingWriter(tmp_path / "empty", Rig(COLOR), "a test").finish()


def test_broken_pictures_are_refused_by_name(tmp_path, plain_layout):
    write(tmp_path)
    (tmp_path / "color" / "000000.jpg").write_bytes(b"")
    (tmp_path / "color" / "000001.jpg").unlink()
    (tmp_path / "depth" / "000000.png").write_bytes(encode_png(np.zeros((20, 24), np.uint8)))
    recording = Recording.load(tmp_path)
    for index in (0, 1):
        with pytest.raises(UserError, match=f"00000{index}"):
            recording.color(index)
    with pytest.raises(UserError, match="16-bit"):
        recording.depth_mm(0)


def test_numbers_of_the_device_that_are_damaged_are_refused(tmp_path):
    """Whatever byte it is, and whatever numpy and zipfile make of it."""
    writer = RecordingWriter(tmp_path, Rig(Camera((4, 4), 4, 4, 2, 2)), "numbers")
    writer.add_factory({"ir_params": np.arange(9.0)})
    writer.add(0.0, np.zeros((4, 4, 3), np.uint8))
    writer.finish()
    recording, path = Recording.load(tmp_path), tmp_path / "factory.npz"
    data = path.read_bytes()
    outcomes = set()
    for at in range(len(data)):
        for value in (0xFF, data[at] ^ 1, data[at] ^ 8):
            path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            try:
                outcomes.add(tuple(recording.factory()["ir_params"]))
            except UserError as error:
                outcomes.add("refused")
                assert "factory.npz" in str(error) and "\n" not in str(error)
            except KeyError:
                outcomes.add("another name")
    assert outcomes <= {"refused", "another name", tuple(np.arange(9.0))}


def test_png_keeps_sixteen_bits_and_the_order_of_colours(tmp_path):
    depth_mm = np.arange(480, dtype=np.uint16).reshape(20, 24) * 130
    (tmp_path / "d.png").write_bytes(encode_png(depth_mm))
    np.testing.assert_array_equal(read_depth(tmp_path / "d.png"), depth_mm)
    (tmp_path / "c.png").write_bytes(encode_png(picture(5)))
    np.testing.assert_array_equal(read_image(tmp_path / "c.png"), picture(5))


def test_a_failed_atomic_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("capture.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("wh", [(40, 30), (41, 31)])
def test_a_video_is_read_back(tmp_path, wh):
    images = [np.full((wh[1], wh[0], 3), (10 * i, 128, 255 - 10 * i), np.uint8) for i in range(8)]
    write_video(tmp_path / "v.mp4", images, 25)
    with av.open(str(tmp_path / "v.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        rate = container.streams.video[0].average_rate
    assert len(frames) == 8 and rate == 25
    for image, frame in zip(images, frames, strict=True):
        assert np.abs(frame[: wh[1], : wh[0]].astype(int) - image).mean() < 4


def test_a_video_is_the_same_bytes_each_time(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, (picture(i) for i in range(6)), 30)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_video_that_breaks_off_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "v.mp4", 30) as video:
        video.add(picture(0))
        raise RuntimeError
    assert not list(tmp_path.iterdir())
