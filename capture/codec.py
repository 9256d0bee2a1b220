"""Depth images without loss, in a quarter of their bytes: prediction, then entropy coding.

h x w depth pixels, V of them with a return.  Byte by byte in ``docs/formats.md``:

    mask        ceil(h * w / 8) bytes: which pixels have a return, row by row, highest bit first
    low, high   V bytes each: of every return the zigzag-coded difference to its prediction, modulo 65536

all three behind one another through Zstandard, behind a head of 8 bytes.  The prediction is that of LOCO-I (Weinberger,
Seroussi, Sapiro 2000): the median of left, upper and left + upper - upper left, where a neighbour without a return is
replaced by one that has one.  Measured by ``benchmarks/recording.py``.
"""

from __future__ import annotations

import struct

import numpy as np
from numba import njit

from capture.errors import UserError

HEAD = struct.Struct("<4sHH")
MAGIC = b"DPT1"
LEVEL = 1  # Zstandard's; higher ones take longer and are no smaller: what is left is noise
MAX_PIXELS = 100_000_000  # a depth image that claims more is a mistake or an attack


def encode_depth(depth_mm: np.ndarray) -> bytes:
    """(h, w) uint16 to bytes; the same bytes for the same image.  Raises ValueError for another kind of array."""
    import zstandard

    if depth_mm.dtype != np.uint16 or depth_mm.ndim != 2 or max(depth_mm.shape) > 65535 or not depth_mm.size:
        raise ValueError(f"{depth_mm.dtype} with shape {depth_mm.shape} is not a 16-bit depth image")
    height, width = depth_mm.shape
    low_high = _differences(np.ascontiguousarray(depth_mm))
    body = np.packbits(depth_mm > 0).tobytes() + low_high.tobytes()
    return HEAD.pack(MAGIC, width, height) + zstandard.ZstdCompressor(level=LEVEL).compress(body)


def decode_depth(data: bytes) -> np.ndarray:
    """Bytes of ``encode_depth`` to (h, w) uint16.  Raises UserError for anything else."""
    import zstandard

    if len(data) < HEAD.size or not data.startswith(MAGIC):
        raise UserError("not an encoded depth image")
    _, width, height = HEAD.unpack_from(data)
    count = width * height
    if not 0 < count <= MAX_PIXELS:
        raise UserError(f"an encoded depth image of {width}x{height} pixels")
    most = (count + 7) // 8 + 2 * count
    try:
        # The decompressor believes the size in the frame's own head, whatever limit it is given: ask first.
        claimed = zstandard.get_frame_parameters(data[HEAD.size :]).content_size
        if claimed > most:
            raise UserError(f"an encoded depth image that claims {claimed} bytes")
        body = np.frombuffer(zstandard.ZstdDecompressor().decompress(data[HEAD.size :]), np.uint8)
    except zstandard.ZstdError as error:
        raise UserError(f"an encoded depth image that cannot be read ({error})") from None
    mask = np.unpackbits(body[: (count + 7) // 8])[:count]
    if len(mask) != count or len(body) != (count + 7) // 8 + 2 * int(mask.sum()):
        raise UserError("an encoded depth image of the wrong length")
    return _restored(mask.reshape(height, width), body[(count + 7) // 8 :])


@njit(cache=True, nogil=True, inline="always")
def _predicted(image, row, column):  # type: ignore[no-untyped-def]
    """The value expected at a pixel from those before it, all returns where there are any."""
    left = np.int32(image[row, column - 1]) if column > 0 else np.int32(0)
    upper = np.int32(image[row - 1, column]) if row > 0 else np.int32(0)
    corner = np.int32(image[row - 1, column - 1]) if row > 0 and column > 0 else np.int32(0)
    if left == 0:
        left = upper if upper > 0 else corner
    if upper == 0:
        upper = left
    if corner == 0:
        corner = left
    low, high = min(left, upper), max(left, upper)
    if corner >= high:
        return low
    if corner <= low:
        return high
    return left + upper - corner


@njit(cache=True, nogil=True)
def _differences(image):  # type: ignore[no-untyped-def]
    """(2 V,) uint8: low bytes, then high bytes."""
    height, width = image.shape
    count = 0
    for i in range(height):
        for j in range(width):
            count += image[i, j] > 0
    out = np.empty(2 * count, np.uint8)
    k = 0
    for i in range(height):
        for j in range(width):
            if image[i, j] == 0:
                continue
            step = (np.int32(image[i, j]) - _predicted(image, i, j)) & 0xFFFF
            signed = step - 0x10000 if step & 0x8000 else step
            zigzag = 2 * signed if signed >= 0 else -2 * signed - 1
            out[k], out[count + k] = zigzag & 0xFF, zigzag >> 8
            k += 1
    return out


@njit(cache=True, nogil=True)
def _restored(mask, low_high):  # type: ignore[no-untyped-def]
    height, width = mask.shape
    count = len(low_high) // 2
    image = np.zeros((height, width), np.uint16)
    k = 0
    for i in range(height):
        for j in range(width):
            if mask[i, j] == 0:
                continue
            zigzag = np.int32(low_high[k]) | (np.int32(low_high[count + k]) << 8)
            signed = -((zigzag + 1) >> 1) if zigzag & 1 else zigzag >> 1
            image[i, j] = (_predicted(image, i, j) + signed) & 0xFFFF
            k += 1
    return image
