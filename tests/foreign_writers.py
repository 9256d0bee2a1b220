"""Tiny files in the true bytes of foreign formats, written from their public specifications.  For tests only.

Every writer films the same scene: ``color_of(i)`` and ``depth_of(i)``, so that a reader that mixes up frames, channels,
rows or units is caught.
"""

from __future__ import annotations

import bz2
import json
import re
import struct
import uuid
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from capture.files import encode_jpeg

WH = (64, 48)


def color_of(index: int, wh: tuple[int, int] = WH) -> np.ndarray:
    """(H, W, 3) uint8 RGB: red names the frame, green rises to the right, blue downwards."""
    image = np.zeros((wh[1], wh[0], 3), np.uint8)
    image[..., 0] = 30 + 20 * (index % 11)
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
    *(
        0.5118,
        0.4943,
        0.4921,
        0.4922,
        3.130577,
        2.324939,
        0.130416,
        3.458652,
        3.350115,
        0.662942,
        0,
        0,
        -5.1e-5,
        8.1e-5,
    ),
]
COLOR_PARAMETERS = [
    *(
        0.49866,
        0.50207,
        0.47819,
        0.63736,
        0.58438,
        -2.49425,
        1.36028,
        0.46476,
        -2.33625,
        1.30116,
        0,
        0,
        -1.77e-4,
        6.53e-4,
    ),
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


# ---------------------------------------------------------------------------------------------------------- RealSense


def ros_text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()


def ros_header(time_s: float, frame: str) -> bytes:
    return struct.pack("<III", 0, int(time_s), round(time_s % 1 * 1e9)) + ros_text(frame)


def ros_image(time_s: float, image: np.ndarray, encoding: str, frame: str = "f", pad: int = 0) -> bytes:
    rows = image.reshape(image.shape[0], -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, pad)))
    head = ros_header(time_s, frame) + struct.pack("<II", *image.shape[:2]) + ros_text(encoding)
    return head + struct.pack("<BII", 0, rows.shape[1], rows.size) + rows.tobytes()


def ros_camera(wh: tuple[int, int], focal_px: float, model: str, coefficients: list[float]) -> bytes:
    k = [focal_px, 0, wh[0] / 2 - 0.5, 0, focal_px, wh[1] / 2 - 0.5, 0, 0, 1]
    data = ros_header(0, "f") + struct.pack("<II", wh[1], wh[0]) + ros_text(model)
    data += struct.pack(f"<I{len(coefficients)}d", len(coefficients), *coefficients)
    return data + struct.pack("<30d", *k, *np.eye(3).ravel(), *np.eye(3, 4).ravel()) + bytes(8 + 17)


def ros_transform(translation_m: tuple[float, float, float]) -> bytes:
    return struct.pack("<7d", *translation_m, 0, 0, 0, 1)


def bag_record(data: bytes, **fields: bytes) -> bytes:
    header = b"".join(
        struct.pack("<I", len(name) + 1 + len(value)) + name.encode() + b"=" + value for name, value in fields.items()
    )
    return struct.pack("<I", len(header)) + header + struct.pack("<I", len(data)) + data


class BagWriter:
    """A ROS 1 bag of version 2.0, one chunk per ``flush``, without the optional index at its end."""

    def __init__(self, compression: str = "none") -> None:
        self._compression, self._chunk = compression, b""
        self._connections: dict[str, int] = {}
        header = bag_record(b"", op=b"\x03", index_pos=bytes(8), conn_count=bytes(4), chunk_count=bytes(4))
        self.data = (
            b"#ROSBAG V2.0\n" + header[:-4] + struct.pack("<I", 4096 - len(header)) + b" " * (4096 - len(header))
        )

    def add(self, topic: str, kind: str, message: bytes, time_s: float = 0.0) -> None:
        if topic not in self._connections:
            number = self._connections[topic] = len(self._connections)
            fields = {"topic": topic.encode(), "type": kind.encode(), "md5sum": b"*", "message_definition": b""}
            inner = b"".join(struct.pack("<I", len(n) + 1 + len(v)) + n.encode() + b"=" + v for n, v in fields.items())
            self._chunk += bag_record(inner, op=b"\x07", conn=struct.pack("<I", number), topic=topic.encode())
        time = struct.pack("<II", int(time_s), round(time_s % 1 * 1e9))
        self._chunk += bag_record(message, op=b"\x02", conn=struct.pack("<I", self._connections[topic]), time=time)

    def flush(self) -> None:
        packers: dict[str, Callable[[bytes], bytes]] = {"none": bytes, "bz2": bz2.compress, "lz4": lz4_frame}
        packed = packers[self._compression](self._chunk)
        size = struct.pack("<I", len(self._chunk))
        self.data += bag_record(packed, op=b"\x05", compression=self._compression.encode(), size=size)
        self._chunk = b""


def lz4_frame(data: bytes) -> bytes:
    """An LZ4 frame of literals and of the one long match that zeros are, with both checksums."""
    from capture.importers.lz4 import xxh32

    head = bytes([0b01100100, 0x60])  # version 1, independent blocks, content checksum; blocks of 1 MB
    out = struct.pack("<I", 0x184D2204) + head + bytes([(xxh32(head) >> 8) & 0xFF])
    for start in range(0, len(data), 1 << 20):
        part = data[start : start + (1 << 20)]
        block = lz4_block(part)
        out += struct.pack("<I", len(block)) + block
    return out + struct.pack("<II", 0, xxh32(data))


def lz4_block(data: bytes) -> bytes:
    """Runs of one byte become matches at distance 1, everything else literals; the last five bytes are literals."""

    def sequence(literals: bytes, match: int) -> bytes:
        def length(value: int) -> bytes:
            rest = value - 15
            return b"" if rest < 0 else b"\xff" * (rest // 255) + bytes([rest % 255])

        token = min(len(literals), 15) << 4 | (min(match - 4, 15) if match else 0)
        out = bytes([token]) + length(len(literals)) + literals
        return out + (b"\x01\x00" + length(match - 4) if match else b"")

    out, start = b"", 0
    for run in re.finditer(rb"(?s)(.)\1{19,}", data):
        first, last = run.start() + 1, min(run.end(), len(data) - 12)
        if last - first >= 4:
            out += sequence(data[start:first], last - first)
            start = last
    return out + sequence(data[start:], 0)


def write_bag(
    path: Path,
    num_frames: int = 4,
    compression: str = "none",
    depth_late_s: float = 0.004,
    unit_m: float = 0.001,
    inverse: list[float] | None = None,
    missing_depth: tuple[int, ...] = (),
) -> Path:
    """What the RealSense SDK records: colour and depth of two cameras 15 mm apart, cameras, transforms, depth units."""
    bag = BagWriter(compression)
    depth_wh = (40, 30)
    color, depth = "/device_0/sensor_1/Color_0", "/device_0/sensor_0/Depth_0"
    bag.add("/file_version", "std_msgs/UInt32", struct.pack("<I", 3))
    bag.add("/device_0/sensor_0/option/Depth Units/value", "std_msgs/Float32", struct.pack("<f", unit_m))
    model = "Inverse Brown Conrady" if inverse else "Brown Conrady"
    bag.add(f"{color}/info/camera_info", "sensor_msgs/CameraInfo", ros_camera(WH, 60.0, model, inverse or [0.0] * 5))
    bag.add(
        f"{depth}/info/camera_info", "sensor_msgs/CameraInfo", ros_camera(depth_wh, 38.0, "Brown Conrady", [0.0] * 5)
    )
    bag.add(f"{depth}/tf/0", "geometry_msgs/Transform", ros_transform((0, 0, 0)))
    bag.add(f"{color}/tf/0", "geometry_msgs/Transform", ros_transform((0.015, 0, 0)))
    bag.flush()
    for i in range(num_frames):
        time_s = 1_700_000_000 + i / 30
        values = np.rint(depth_of(i, depth_wh) * 0.001 / unit_m).astype(np.uint16)
        bag.add(f"{color}/image/data", "sensor_msgs/Image", ros_image(time_s, color_of(i), "rgb8"), time_s)
        if i not in missing_depth:
            message = ros_image(time_s + depth_late_s, values, "mono16")
            bag.add(f"{depth}/image/data", "sensor_msgs/Image", message, time_s)
        bag.flush()
    path.write_bytes(bag.data)
    return path


def write_ros_bag(path: Path, is_aligned: bool = False, num_frames: int = 3) -> Path:
    """What ``rosbag record`` keeps of the ROS node: JPEG colour, depth as float metres, /tf_static."""
    bag = BagWriter("bz2")
    depth = "/camera/aligned_depth_to_color" if is_aligned else "/camera/depth"
    depth_wh = WH if is_aligned else (40, 30)
    chain = [("camera_link", "camera_color_optical", (0, 0.015, 0)), ("camera_link", "camera_depth_optical", (0, 0, 0))]
    transforms = struct.pack("<I", len(chain)) + b"".join(
        ros_header(0, parent) + ros_text(child) + ros_transform(shift) for parent, child, shift in chain
    )
    bag.add("/tf_static", "tf2_msgs/TFMessage", transforms)
    bag.add("/camera/color/camera_info", "sensor_msgs/CameraInfo", ros_camera(WH, 60.0, "plumb_bob", [0.0] * 5))
    bag.add(f"{depth}/camera_info", "sensor_msgs/CameraInfo", ros_camera(depth_wh, 60.0, "plumb_bob", [0.0] * 5))
    for i in range(num_frames):
        time_s = 5 + i / 15
        jpeg = encode_jpeg(color_of(i))
        message = ros_header(time_s, "camera_color_optical") + ros_text("rgb8; jpeg compressed bgr8")
        message += struct.pack("<I", len(jpeg)) + jpeg
        bag.add("/camera/color/image_raw/compressed", "sensor_msgs/CompressedImage", message, time_s)
        metres = np.where(depth_of(i, depth_wh) == 0, np.nan, depth_of(i, depth_wh) * 1e-3).astype(np.float32)
        message = ros_image(time_s, metres, "32FC1", "camera_depth_optical", pad=8)
        bag.add(f"{depth}/image_rect_raw", "sensor_msgs/Image", message, time_s)
    bag.flush()
    path.write_bytes(bag.data)
    return path


# ----------------------------------------------------------------------------------------------------------- Record3D


def lzfse_stored(data: bytes) -> bytes:
    """An LZFSE stream of one uncompressed block."""
    return b"bvx-" + struct.pack("<I", len(data)) + data + b"bvx$"


def lzvn(data: bytes) -> bytes:
    """An LZFSE stream of one LZVN block: runs of one byte become matches at distance 1, everything else literals."""
    out, at = b"", 0
    for run in [*re.finditer(rb"(?s)(.)\1{9,}", data), None]:
        end = run.start() + 1 if run else len(data)
        while at < end:  # 0xE1 to 0xEF: literals
            part = data[at : min(end, at + 15)]
            out, at = out + bytes([0xE0 | len(part)]) + part, at + len(part)
        if run:
            left = run.end() - run.start() - 1
            out, left = out + b"\x3f\x01\x00", left - 10  # LLMMM111: no literal, match of 10, 16-bit distance
            while left > 0:  # 0xF1 to 0xFF: the match goes on
                out, left = out + bytes([0xF0 | min(left, 15)]), left - min(left, 15)
            at = run.end()
    out += b"\x06" + bytes(7)
    return b"bvxn" + struct.pack("<II", len(data), len(out)) + out + b"bvx$"


def write_r3d(
    path: Path,
    num_frames: int = 4,
    pack: Callable[[bytes], bytes] = lzvn,
    jpg_wh: tuple[int, int] = (48, 64),
    depth_wh: tuple[int, int] = (24, 32),
    with_confidence: bool = False,
    metadata: dict | None = None,
) -> Path:
    """An upright phone: colour 48x64, depth 24x32 in metres, K column by column."""
    fields: dict[str, object] = {"w": 48, "h": 64, "dw": depth_wh[0], "dh": depth_wh[1], "fps": 60}
    fields |= {"K": [55.0, 0, 0, 0, 55.0, 0, 23.0, 32.0, 1], "frameTimestamps": [2 + i / 60 for i in range(num_frames)]}
    fields |= metadata or {}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata", json.dumps(fields))
        for i in range(num_frames):
            depth = depth_of(i, depth_wh)
            metres = np.where(depth == 0, np.nan, depth * 1e-3).astype("<f4")
            archive.writestr(f"rgbd/{i}.jpg", encode_jpeg(color_of(i, jpg_wh)))
            archive.writestr(f"rgbd/{i}.depth", pack(metres.tobytes()))
            if with_confidence:
                confidence = np.full(depth.shape, 2, np.uint8)
                confidence[-1] = 0
                archive.writestr(f"rgbd/{i}.conf", pack(confidence.tobytes()))
    return path
