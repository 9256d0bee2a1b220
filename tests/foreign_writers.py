"""Tiny files in the true bytes of foreign formats, written from their public specifications.  For tests only.

Every writer films the same scene: ``color_of(i)`` and ``depth_of(i)``, so that a reader that mixes up frames, channels,
rows or units is caught.
"""

from __future__ import annotations

import json
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


# ------------------------------------------------------------------------------------------------------- Azure Kinect

# A factory calibration as Azure Kinects carry it: 14 parameters (cx, cy, fx, fy, k1..k6, codx, cody, p2, p1) in units
# of the whole sensor's sides; Rt takes points of the depth camera, in metres.
DEPTH_PARAMETERS = [
    *(0.5118, 0.4943, 0.4921, 0.4922, 3.130577, 2.324939, 0.130416, 3.458652, 3.350115, 0.662942, 0, 0, -5.1e-5, 8.1e-5),
]
COLOR_PARAMETERS = [
    *(0.49866, 0.50207, 0.47819, 0.63736, 0.58438, -2.49425, 1.36028, 0.46476, -2.33625, 1.30116, 0, 0, -1.77e-4, 6.53e-4),
]
TILT_RAD = 0.1025  # the colour camera looks down by 6 degrees


def azure_calibration() -> dict:
    cos, sin = float(np.cos(TILT_RAD)), float(np.sin(TILT_RAD))
    cameras = []
    for place, parameters, rotation, translation, size in (
        ("D0", DEPTH_PARAMETERS, [1, 0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0], (1024, 1024)),
        ("PV0", COLOR_PARAMETERS, [1, 0, 0, 0, cos, sin, 0, -sin, cos], [-0.032, -0.002, 0.004], (4096, 3072)),
    ):
        intrinsics = {"ModelParameterCount": 14, "ModelParameters": parameters}
        intrinsics["ModelType"] = "CALIBRATION_LensDistortionModelBrownConrady"
        cameras.append(
            {
                "Intrinsics": intrinsics,
                "Location": f"CALIBRATION_CameraLocation{place}",
                "MetricRadius": 1.7,
                "Rt": {"Rotation": rotation, "Translation": translation},
                "SensorHeight": size[1],
                "SensorWidth": size[0],
            }
        )
    return {"CalibrationInformation": {"Cameras": cameras}}


def ebml(kind: int, payload: bytes, length_bytes: int = 0) -> bytes:
    """An element; ``length_bytes`` = 0 takes the shortest length, -1 the unknown one."""
    name = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    if length_bytes == -1:
        return name + b"\x01" + b"\xff" * 7 + payload
    count = length_bytes or next(n for n in range(1, 9) if len(payload) < (1 << (7 * n)) - 1)
    return name + ((1 << (7 * count)) | len(payload)).to_bytes(count, "big") + payload


def ebml_number(kind: int, value: int) -> bytes:
    return ebml(kind, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def with_checksum(payload: bytes) -> bytes:
    return b"\xbf\x84" + struct.pack("<I", zlib.crc32(payload)) + payload


def mkv_track(number: int, name: str, fourcc: bytes, wh: tuple[int, int], bits: int) -> bytes:
    header = struct.pack("<IiiHH4sIiiII", 40, *wh, 1, bits, fourcc, wh[0] * wh[1] * bits // 8, 0, 0, 0, 0)
    video = ebml(0xE0, ebml_number(0xB0, wh[0]) + ebml_number(0xBA, wh[1]))
    parts = ebml_number(0xD7, number) + ebml_number(0x73C5, 1000 + number) + ebml_number(0x83, 1)
    parts += ebml(0x536E, name.encode()) + ebml(0x86, b"V_MS/VFW/FOURCC") + ebml(0x63A2, header) + video
    return ebml(0xAE, parts)


def write_mkv(
    path: Path,
    fourcc: bytes = b"MJPG",
    num_frames: int = 3,
    color_wh: tuple[int, int] = (128, 72),
    depth_wh: tuple[int, int] = (320, 288),
    missing: tuple[int, ...] = (),
    calibration: dict | None = None,
    is_open: bool = False,
    in_groups: bool = False,
) -> Path:
    """What k4arecorder writes: COLOR and DEPTH in a clock of microseconds, tags, calibration.json, clusters with a
    checksum; ``missing`` colour frames were dropped; ``is_open``: lengths unknown, as when the recorder was killed."""
    calibration = azure_calibration() if calibration is None else calibration
    tag = ebml(0x67C8, ebml(0x45A3, b"K4A_COLOR_MODE") + ebml(0x4487, fourcc + b"_720P"))
    head = ebml(0x1549A966, ebml_number(0x2AD7B1, 1000) + ebml(0x7BA9, b"Azure Kinect") + ebml(0x4D80, b"x"))
    tracks = mkv_track(1, "COLOR", fourcc, color_wh, 24) + mkv_track(2, "DEPTH", b"b16g", depth_wh, 16)
    head += ebml(0x1654AE6B, tracks) + ebml(0x1254C367, with_checksum(ebml(0x7373, ebml(0x63C0, b"") + tag)))
    if calibration:
        data = json.dumps(calibration).encode()
        attached = ebml(0x466E, b"calibration.json") + ebml(0x4660, b"application/octet-stream") + ebml(0x465C, data)
        head += ebml(0x1941A469, ebml(0x61A7, attached + ebml_number(0x46AE, 77)))
    body = b""
    for i in range(num_frames):
        time_us = 200_000 + 33_333 * i
        blocks = [] if i in missing else [(1, 0, _mkv_color(fourcc, i, color_wh))]
        blocks.append((2, 1200, depth_of(i, depth_wh).astype(">u2").tobytes()))
        cluster = ebml_number(0xE7, time_us)
        for track, late, payload in blocks:
            block = bytes([0x80 | track]) + struct.pack(">hB", late, 0) + payload
            cluster += ebml(0xA0, ebml(0xA1, block)) if in_groups else ebml(0xA3, block, 4)
        body += ebml(0x1F43B675, cluster, -1) if is_open else ebml(0x1F43B675, with_checksum(cluster), 8)
    ids = ebml(0x1A45DFA3, ebml(0x4282, b"matroska") + ebml_number(0x4287, 4) + ebml_number(0x4285, 2))
    path.write_bytes(ids + ebml(0x18538067, head + body, -1 if is_open else 8))
    return path


def _mkv_color(fourcc: bytes, index: int, wh: tuple[int, int]) -> bytes:
    image = color_of(index, wh)
    if fourcc == b"MJPG":
        return encode_jpeg(image)
    if fourcc == b"BGRA":
        return np.dstack([image[..., ::-1], np.full((wh[1], wh[0]), 255, np.uint8)]).tobytes()
    pairs = np.frombuffer(yuy2(image), np.uint8).reshape(wh[1], wh[0], 2)
    if fourcc == b"YUY2":
        return pairs.tobytes()
    return pairs[..., 0].tobytes() + pairs[0::2, :, 1].tobytes()  # NV12
