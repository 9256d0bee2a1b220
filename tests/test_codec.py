"""Depth without loss: what is decoded is what was encoded, and nothing else is believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zstandard

from capture.codec import HEAD, MAGIC, decode_depth, encode_depth
from capture.errors import UserError

REAL_DEPTH = Path(__file__).parents[2] / "shared" / "data" / "kinect_v2_depth"


def noisy(shape: tuple[int, int], seed: int) -> np.ndarray:
    """A wall with steps, noise, holes and both extremes."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = 800 + 5 * rows + 900 * (columns > shape[1] // 3) + rng.normal(0, 3, shape)
    image = np.where(rng.random(shape) < rng.random() / 2, 0, image).astype(np.uint16)
    image[rng.random(shape) < 0.02] = 65535
    image[rng.random(shape) < 0.02] = 1
    return image


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 7), (20, 24), (424, 512)])
def test_every_bit_comes_back(shape: tuple[int, int]) -> None:
    images = [noisy(shape, seed) for seed in range(5)]
    images += [np.random.default_rng(1).integers(0, 65536, shape, dtype=np.uint16), np.zeros(shape, np.uint16)]
    for image in images:
        data = encode_depth(image)
        decoded = decode_depth(data)
        assert decoded.dtype == np.uint16 and np.array_equal(decoded, image)
        assert encode_depth(image[:, :].copy()) == data, "the same image must give the same bytes"


@pytest.mark.skipif(not REAL_DEPTH.is_dir(), reason="the real Kinect frames are not here")
def test_a_real_frame_takes_less_than_a_third() -> None:
    images = [np.load(path) for path in sorted(REAL_DEPTH.glob("*.npy"))]
    encoded = [encode_depth(image) for image in images]
    assert all(np.array_equal(decode_depth(data), image) for data, image in zip(encoded, images, strict=True))
    assert sum(map(len, encoded)) * 3 < sum(image.nbytes for image in images)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 1), np.uint16), np.zeros((0, 4), np.uint16)]
)
def test_only_depth_images_are_encoded(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="16-bit"):
        encode_depth(image)


def test_what_is_not_ours_is_refused() -> None:
    good = encode_depth(noisy((20, 24), 0))
    body = zstandard.ZstdDecompressor().decompress(good[HEAD.size :])
    bomb = zstandard.ZstdCompressor().compress(bytes(200_000_000))
    for data in (
        b"",
        b"\x89PNG not depth",
        good[:-5],
        good[: HEAD.size],
        HEAD.pack(MAGIC, 0, 24) + good[HEAD.size :],
        HEAD.pack(MAGIC, 25, 20) + good[HEAD.size :],
        HEAD.pack(MAGIC, 24, 20) + zstandard.ZstdCompressor().compress(body[:-1]),
        HEAD.pack(MAGIC, 24, 20) + zstandard.ZstdCompressor().compress(b""),
        HEAD.pack(MAGIC, 24, 20) + bomb,
        HEAD.pack(MAGIC, 24, 20) + zstandard.ZstdCompressor(write_content_size=False).compress(body),
    ):
        with pytest.raises(UserError):
            decode_depth(data)
