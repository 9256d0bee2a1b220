"""Who says what the person is: the user, a network on this disk, an empty room, a screen.  Nothing is fetched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_matting import CAMERA, WH, figure, film, iou, network, picture  # noqa: F401
from tiny_network import write_network

import source as sources
from capture.camera import Rig
from capture.errors import UserError
from capture.files import encode_png, read_gray, read_image
from capture.importers import ImportConfig, record
from capture.local_model import LocalModel, weights_path
from capture.matters import chosen
from capture.matting import Masks, MatteConfig, matte
from capture.plate import Plate
from capture.recording import Recording, RecordingWriter
from capture.screen import from_picture
from capture.video import write_video


def matted(tmp_path: Path, recording_dir: Path, **settings: object) -> Masks:
    out_dir = tmp_path / f"masks{len(list(tmp_path.glob('masks*')))}"
    out_dir.mkdir()
    matte(MatteConfig(workers=1, **settings), out_dir, recording_dir)  # type: ignore[arg-type]
    return Masks.load(out_dir)


def how(masks: Masks) -> str:
    return json.loads((masks.folder / "masks.json").read_text())["method"]


# ------------------------------------------------------------------------------------------------------ the user's own


def numbered(folder: Path, count: int = 4) -> Path:
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:04d}.png").write_bytes(encode_png(picture(figure(i))))
    return folder


def test_masks_beside_a_folder_are_used_as_they_are(tmp_path):
    source = numbered(tmp_path / "film")
    (source / "masks").mkdir()
    for i in (1, 2, 3):
        (source / "masks" / f"{i:04d}.png").write_bytes(encode_png(np.rint(200 * figure(i)).astype(np.uint8)))
    record(ImportConfig(every=2), tmp_path / "rec", source)
    masks = matted(tmp_path, tmp_path / "rec")
    assert how(masks) == "given" and masks.is_found.tolist() == [False, True]
    np.testing.assert_array_equal(np.rint(masks[1] * 255), 200 * figure(2))
    assert not masks[0].any() and any("1 of 2 masks" in note for note in Recording.load(tmp_path / "rec").notes)


def test_masks_and_the_empty_room_are_turned_with_the_pictures(tmp_path):
    source = numbered(tmp_path / "film")
    (source / "masks").mkdir()
    for i in range(4):
        (source / "masks" / f"{i:04d}.png").write_bytes(encode_png(255 * figure(i).astype(np.uint8)))
    (source / "background.png").write_bytes(encode_png(picture(0 * figure(0))))
    record(ImportConfig(turn_deg=90, mirrored=True), tmp_path / "rec", source)
    recording = Recording.load(tmp_path / "rec")
    turned = np.rot90(figure(2)[:, ::-1], -1)
    np.testing.assert_array_equal(read_gray(recording.mask_path(2)) > 127, turned > 0.5)
    assert recording.color(2).shape[:2] == turned.shape
    assert read_image(recording.plate_path).shape == recording.color(2).shape


def test_masks_beside_a_video_belong_to_the_source(tmp_path):
    clip = tmp_path / "clip.mp4"
    write_video(clip, (picture(figure(i)) for i in range(4)), 25)
    before = sources.describe(str(clip))
    write_video(tmp_path / "clip_alpha.mp4", (cv2.merge([255 * figure(i).astype(np.uint8)] * 3) for i in range(4)), 25)
    assert sources.describe(str(clip))["files"] == before["files"] + 1
    record(ImportConfig(start=1), tmp_path / "rec", clip)
    masks = matted(tmp_path, tmp_path / "rec")
    assert how(masks) == "given" and len(masks) == 3
    assert all(iou(masks[i], figure(i + 1)) > 0.95 for i in range(3))


def test_alpha_of_the_pictures_themselves_is_a_mask(tmp_path):
    source = tmp_path / "film"
    source.mkdir()
    for i in range(3):
        alpha = np.rint(255 * figure(i)).astype(np.uint8)
        (source / f"{i:04d}.png").write_bytes(encode_png(np.dstack([picture(figure(i)), alpha])))
    record(ImportConfig(), tmp_path / "rec", source)
    masks = matted(tmp_path, tmp_path / "rec")
    assert how(masks) == "given"
    np.testing.assert_array_equal(masks[1], figure(1))


def test_masks_of_another_size_and_masks_that_are_absent_are_refused(tmp_path):
    folder = film(tmp_path / "film", [0, 1])
    with pytest.raises(UserError, match=r"matte\.method = given"):
        matted(tmp_path, folder, method="given")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "000000.png").write_bytes(encode_png(np.full((8, 8), 255, np.uint8)))
    with pytest.raises(UserError, match="8x8 pixels, the recording has 160x200"):
        matted(tmp_path, folder, masks=str(tmp_path / "own"))
    with pytest.raises(UserError, match="there are auto, embedded"):
        MatteConfig(method="magic")


# -------------------------------------------------------------------------------------------------------------- rembg


@pytest.fixture
def no_network(monkeypatch):
    """Whoever tries to fetch or send something fails the test."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this must not touch the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("pooch.retrieve", refuse)


def test_a_network_on_this_disk_outlines_the_person(tmp_path, network, no_network):  # noqa: F811
    path = write_network(tmp_path / "mine.onnx", (3.0, 0.0, -3.0), 0.0, side_px=160)  # warm colours
    folder = film(tmp_path / "film", [0, 2, None, 4], with_depth=False)
    masks = matted(tmp_path, folder, method="rembg", model=str(path), learn_room=False)
    assert how(masks) == "rembg" and masks.is_found.tolist() == [True, True, False, True]
    assert iou(masks[1], figure(2)) > 0.9 and not masks[2].any()
    assert any(hashlib.sha256(path.read_bytes()).hexdigest() in note for note in masks.notes)


def test_a_network_is_not_stretched_to_find_somebody_in_an_empty_picture(tmp_path, no_network):
    model = LocalModel(str(write_network(tmp_path / "mine.onnx", (0.1, 0.0, 0.0), -4.0)))
    assert model.probability(picture(np.zeros((WH[1], WH[0]), np.float32))).max() < 0.1


def test_weights_that_are_absent_or_wrong_are_refused_in_one_line(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"put its weights .*/models/u2net_human_seg/u2net_human_seg\.onnx$") as refusal:
        weights_path("u2net_human_seg")
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="give u2net_human_seg, isnet-general-use, birefnet-portrait"):
        weights_path("bria-rmbg")
    path = write_network(tmp_path / "u2net_human_seg.onnx", (1, 1, 1), 0)
    with pytest.raises(UserError, match="not the weights that rembg publishes"):
        weights_path("u2net_human_seg")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights_path("u2net_human_seg", sha256) == path
    with pytest.raises(UserError, match=r"matte\.weights_sha256 says"):
        weights_path(str(path), "0" * 64)
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="not a readable ONNX network"):
        LocalModel(str(tmp_path / "broken.onnx"))


# ---------------------------------------------------------------------------------------------------- room and screen


def still_film(folder: Path, room: np.ndarray, count: int = 6) -> Path:
    """The figure stands still before ``room`` (H, W, 3): the clip never shows what is behind it."""
    truth = figure()[..., None]
    writer = RecordingWriter(folder, Rig(CAMERA), "a painted film")
    for i in range(count):
        noise = np.random.default_rng(i).normal(0, 2, room.shape)
        person = np.array([200.0, 140.0, 90.0])
        image = cv2.GaussianBlur(room * (1 - truth) + person * truth, (0, 0), 0.6) + noise
        writer.add(i / 30, encode_png(np.rint(image).clip(0, 255).astype(np.uint8)))
    writer.finish()
    return folder


def test_a_picture_of_the_empty_room_tells_person_from_room(tmp_path, network):  # noqa: F811
    room = picture(np.zeros((WH[1], WH[0]), np.float32)).astype(float)
    folder = still_film(tmp_path / "film", room)
    (folder / "plate").mkdir()
    (folder / "plate" / "color.png").write_bytes(encode_png((room * 0.9).astype(np.uint8)))  # the exposure was another
    assert chosen(MatteConfig(), Recording.load(folder)).method == "plate"
    with_room = matted(tmp_path, folder)
    without = matted(tmp_path, folder, method="embedded", learn_room=False)
    assert how(with_room) == "plate" and iou(with_room[2], figure()) > max(0.97, iou(without[2], figure()))
    (folder / "plate" / "color.png").write_bytes(encode_png(np.zeros((20, 20, 3), np.uint8)))
    with pytest.raises(UserError, match="20x20 pixels, the recording has 160x200"):
        matted(tmp_path, folder)


def test_the_empty_room_that_was_filmed_says_how_far_away_it_is(tmp_path):
    """Where the clip never saw the room; what the clip saw itself is believed first."""
    writer = RecordingWriter(tmp_path, Rig(CAMERA, CAMERA, np.eye(4)), "film")
    grey = np.full((WH[1], WH[0], 3), 100, np.uint8)
    writer.add(0.0, grey, np.full((WH[1], WH[0]), 2000, np.uint16))
    writer.add_plate(grey, np.full((WH[1], WH[0]), 3000, np.uint16))
    writer.finish()
    recording, wh = Recording.load(tmp_path), (WH[0] // 2, WH[1] // 2)
    depth_m = np.full((wh[1], wh[0]), 2.5, np.float32)
    depth_m[20:60, 20:50] = np.nan
    seen = np.full((wh[1], wh[0]), 2.0, np.float32)
    learned = Plate(np.full((wh[1], wh[0], 3), 100, np.float32), seen, depth_m, np.zeros((2, 2, 2), np.float32), True)
    assert recording.plate_path is not None
    found_m = from_picture(learned, recording.plate_path, recording).depth_m
    np.testing.assert_allclose(found_m[20:60, 20:50], 3.0, atol=1e-3)
    np.testing.assert_allclose(found_m[np.isfinite(depth_m)], 2.5)


def test_a_green_screen_is_found_by_its_border(tmp_path, network):  # noqa: F811
    light = 0.8 + 0.3 * np.tile(np.linspace(0, 1, WH[0]), (WH[1], 1))  # lit from the right
    folder = still_film(tmp_path / "film", np.stack([40 * light, 180 * light, 60 * light], axis=-1))
    assert chosen(MatteConfig(), Recording.load(folder)).method == "chroma"
    masks = matted(tmp_path, folder)
    assert how(masks) == "chroma" and iou(masks[3], figure()) > 0.97
    grey = still_film(tmp_path / "grey", np.full((WH[1], WH[0], 3), 120.0))
    assert chosen(MatteConfig(), Recording.load(grey)).method == "embedded"
    for method, words in (("chroma", "no green or blue screen"), ("plate", "no picture of the empty room")):
        with pytest.raises(UserError, match=words):
            matted(tmp_path, grey, method=method)
