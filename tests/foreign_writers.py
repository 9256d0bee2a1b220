"""Tiny files in the true bytes of foreign formats, written from their public specifications.  For tests only.

Every writer films the same scene: ``color_of(i)`` and ``depth_of(i)``, so that a reader that mixes up frames, channels,
rows or units is caught.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from pathlib import Path

import numpy as np

from capture.recording import encode_jpeg

WH = (64, 48)


def color_of(index: int, wh: tuple[int, int] = WH) -> np.ndarray:
    """(H, W, 3) uint8 RGB: red names the frame, green rises to the right, blue downwards."""
    image = np.zeros((wh[1], wh[0], 3), np.uint8)
    image[..., 0] = 30 + 20 * index
    image[..., 1] = np.linspace(20, 220, wh[0])
    image[..., 2] = np.linspace(20, 220, wh[1])[:, None]
    return image


def depth_of(index: int, wh: tuple[int, int] = WH) -> np.ndarray:
    """(h, w) uint16 millimetres: names the frame, rises to the right and downwards, with a hole at the top left."""
    x, y = np.meshgrid(np.arange(wh[0]), np.arange(wh[1]))
    depth = (1000 + 100 * index + 2 * x + y).astype(np.uint16)
    depth[:3, :5] = 0
    return depth


def yuy2(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB to the pairs Y0 U Y1 V, BT.601 studio range, as UVC cameras deliver them."""
    r, g, b = (image[..., i].astype(float) for i in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    pairs = np.empty((*image.shape[:2], 2), np.uint8)
    pairs[..., 0] = np.rint(y)
    pairs[:, 0::2, 1] = np.rint((u[:, 0::2] + u[:, 1::2]) / 2)
    pairs[:, 1::2, 1] = np.rint((v[:, 0::2] + v[:, 1::2]) / 2)
    return pairs.tobytes()


# ----------------------------------------------------------------------------------------------------------- ScanNet


def write_sens(
    path: Path,
    num_frames: int = 4,
    depth_wh: tuple[int, int] = (32, 24),
    times_us: list[int] | None = None,
    baseline_m: float = 0.0,
) -> Path:
    """ScanNet's .sens of version 4: JPEG colour, zlib depth, 1000 units per metre."""
    name = b"StructureSensor"
    color_k = np.diag([70.0, 71.0, 1, 1])
    color_k[:2, 2] = WH[0] / 2 - 0.5, WH[1] / 2 - 0.5
    depth_k = np.diag([35.0, 35.5, 1, 1])
    depth_k[:2, 2] = depth_wh[0] / 2 - 0.5, depth_wh[1] / 2 - 0.5
    color_from_common = np.eye(4)
    color_from_common[0, 3] = baseline_m
    data = struct.pack("<IQ", 4, len(name)) + name
    for matrix in (color_k, color_from_common, depth_k, np.eye(4)):
        data += struct.pack("<16f", *matrix.ravel())
    data += struct.pack("<ii4IfQ", 2, 1, *WH, *depth_wh, 1000.0, num_frames)
    times_us = times_us or [1_000_000 + 33_333 * i for i in range(num_frames)]
    for i, time_us in enumerate(times_us):
        color, depth = encode_jpeg(color_of(i)), zlib.compress(depth_of(i, depth_wh).tobytes())
        data += struct.pack("<16f", *np.eye(4).ravel()) + struct.pack("<4Q", time_us, time_us, len(color), len(depth))
        data += color + depth
    path.write_bytes(data + struct.pack("<Q", 0))  # no inertial frames
    return path


# ------------------------------------------------------------------------------------------------------ Kinect Studio

XEF_COLOR = uuid.UUID("2ba0d67d-be11-4534-9444-3fb21ae0f08b")
XEF_DEPTH = uuid.UUID("0a3914d6-3b16-11e1-aac3-001e4fd58c0f")
XEF_IR = uuid.UUID("0a3914d7-3b16-11e1-aac3-001e4fd58c0f")


def xef_event(index: int, ticks: int, tag: bytes, data: bytes, flags: int = 0, full: int | None = None) -> bytes:
    return struct.pack("<HHIqII", index, flags, len(data), ticks, 0, len(data) if full is None else full) + tag + data


def xef_stream(index: int, kind: uuid.UUID, name: str, flags: int = 0) -> bytes:
    """The two describing events of a stream: 486 bytes, 494 in an archive."""
    tag = struct.pack("<HH", index, flags) + kind.bytes_le + bytes(4)
    data = name.encode("utf-16-le").ljust(256, b"\0") + struct.pack("<HHQHH", 0x3333, 4, 0, index, flags) + bytes(20)
    guid = struct.pack("<I", 0) + "{00000000-0000-0000-0000-000000000001}\0".encode("utf-16-le") + bytes(16)
    record = xef_event(index, 0, tag, data, flags) + bytes(8 * flags) + xef_event(0, 0, bytes(24), guid)
    assert len(record) == 486 + 8 * flags
    return record


def write_xef(
    path: Path,
    num_frames: int = 3,
    color_ticks: list[int] | None = None,
    depth_ticks: list[int] | None = None,
    is_archived: bool = False,
    with_index: bool = False,
) -> Path:
    """Kinect Studio: colour (YUY2 1920x1080), depth and infrared, mirrored as the sensor sees."""
    flags, step = int(is_archived), 333_333
    color_ticks = [step * i for i in range(num_frames)] if color_ticks is None else color_ticks
    depth_ticks = [step * i + 1000 for i in range(num_frames)] if depth_ticks is None else depth_ticks
    events: list[tuple[int, int, bytes]] = []
    for i, ticks in enumerate(color_ticks):
        events.append((1, ticks, yuy2(np.ascontiguousarray(color_of(i, (1920, 1080))[:, ::-1]))))
    for i, ticks in enumerate(depth_ticks):
        depth = np.ascontiguousarray(depth_of(i, (512, 424))[:, ::-1]).tobytes()
        events += [(2, ticks, depth), (3, ticks, depth)]
    kinds = ((1, XEF_COLOR, "Nui Uncompressed Color"), (2, XEF_DEPTH, "Nui Depth"), (3, XEF_IR, "Nui IR"))
    head = b"EVENTS1\0" + struct.pack("<IIQ", 5, 0 if is_archived else 4, 0)
    head += xef_event(0, 0, bytes(24), "Properties".encode("utf-16-le") + bytes(100))

    def packed(index: int, ticks: int, data: bytes, number: int) -> bytes:
        stored = zlib.compress(data, 1) if is_archived else data
        return xef_event(index, ticks, struct.pack("<I", number), stored, flags, len(data))

    with open(path, "wb") as file:
        file.write(head)
        if is_archived:  # each stream's events follow its description
            file.write(struct.pack("<HHIqII", 0xFFFF, 0, 1, 0, 0, 0) + bytes(0xC000))
            for index, kind, name in kinds:
                file.write(xef_stream(index, kind, name, 1))
                file.writelines(packed(*event, n) for n, event in enumerate(e for e in events if e[0] == index))
        else:
            file.writelines(xef_stream(*kind) for kind in kinds)
            for n, event in enumerate(sorted(events, key=lambda e: e[1])):
                if with_index and n == 2:
                    file.write(struct.pack("<HHIqII", 0xFFFF, 0, 1, 0, 0, 0) + b"\xee" * 0x7000)
                file.write(packed(*event, n))
            file.write(struct.pack("<H", 4) + b"\xff" * 1712)
    return path
