"""A glance is the picture, smaller: halved until just large enough, never too small, whatever it is stored as."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from capture.camera import Camera, Rig
from capture.errors import UserError
from capture.files import encode_jpeg, encode_png
from capture.glance import glance
from capture.recording import Recording, RecordingWriter


def picture() -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (240, 320, 3))
    return cv2.GaussianBlur(noise, (0, 0), 4).clip(0, 255).astype(np.uint8)


def recorded(folder: Path, data: bytes) -> Recording:
    writer = RecordingWriter(folder, Rig(Camera((320, 240), 300.0, 300.0, 160.0, 120.0)), "a picture")
    writer.add(0.0, data)
    writer.finish()
    return Recording.load(folder)


@pytest.mark.parametrize("encode", [encode_png, lambda image: encode_jpeg(image, quality=98)])
@pytest.mark.parametrize(("least_px", "part"), [(400, 1), (320, 1), (161, 1), (160, 2), (81, 2), (80, 4), (10, 4)])
def test_a_glance_is_the_mean_over_each_pixels_footprint(tmp_path, encode, least_px, part):
    seen = glance(recorded(tmp_path, encode(picture())), 0, least_px)
    expected = cv2.resize(picture(), (320 // part, 240 // part), interpolation=cv2.INTER_AREA)
    assert seen.shape == expected.shape
    assert np.abs(seen.astype(int) - expected).mean() < 1.5
    assert np.abs(seen[..., ::-1].astype(int) - expected).mean() > 3  # RGB, not BGR


def test_a_damaged_picture_is_refused(tmp_path):
    recording = recorded(tmp_path, encode_jpeg(picture())[:20])
    with pytest.raises(UserError):
        glance(recording, 0, 80)
