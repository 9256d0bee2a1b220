"""RealSense's .bag, from the SDK's recorder or from its ROS node: colour and depth topics, cameras, transforms.

Topics (librealsense, ros_file_format.h; realsense-ros): ``/device_0/sensor_1/Color_0/image/data`` with
``.../Color_0/info/camera_info`` and ``.../Color_0/tf/0``, or ``/camera/color/image_raw`` with ``camera_info`` beside it
and ``/tf_static``.  H x W colour pixels, h x w depth pixels.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from capture.camera import Camera, Rig, invert
from capture.errors import UserError
from capture.importers import ImportConfig, color_camera, lens
from capture.importers.blob import Blob, begins_with, opened
from capture.importers.images import MAX_PIXELS, to_millimetres
from capture.importers.rosbag import COMPRESSED, IMAGE, Bag, Message, Topic
from capture.importers.timed import Damaged, TimedSource, import_timed

MAGIC = b"#ROSBAG V2.0\n"
RGB, RGBA = {"rgb8": None, "bgr8": cv2.COLOR_BGR2RGB}, {"rgba8": cv2.COLOR_RGBA2RGB, "bgra8": cv2.COLOR_BGRA2RGB}
YUV = {"yuyv": cv2.COLOR_YUV2RGB_YUY2, "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2, "yuv422": cv2.COLOR_YUV2RGB_UYVY}
COLOR_BYTES = {**dict.fromkeys(RGB, 3), **dict.fromkeys(RGBA, 4), **dict.fromkeys(YUV, 2)}
DEPTH_16, DEPTH_FLOAT = ("mono16", "16uc1", "z16"), "32fc1"
OTHER_LENSES = ("fish", "equi", "ftheta", "kannala")
MAX_BASELINE_M = 1.0


def recognises(path: Path) -> bool:
    """Whether a file begins like a ROS 1 bag."""
    return begins_with(path, MAGIC)


def describe(path: Path) -> str:
    """What a bag holds, in words.  Raises UserError."""
    with opened(path) as blob:
        bag = _open(path, blob)
        words = [f"{t.name} ({len(t.places)} pictures)" for t in bag.topics.values() if t.places]
    damage = f"; {bag.damage} damaged stretches" if bag.damage else ""
    return (", ".join(words) or "no pictures") + damage + ("; breaks off" if bag.breaks_off else "")


def import_realsense(config: ImportConfig, out_dir: Path, path: Path) -> None:
    """Import a bag.  Raises UserError for one without colour or cameras, and for one that breaks off."""
    with opened(path) as blob:
        bag = _open(path, blob)
        color, depth = _streams(bag)
        if color is None:
            found = ", ".join(list(bag.topics)[:6])
            raise UserError(f"{path}: holds no colour topic (found {found or 'nothing'}); record the colour stream")
        units_per_m = config.depth_units_per_m or _units_per_m(bag, depth)

        def read_color(index: int) -> np.ndarray | bytes:
            return _color(bag.read(color.places[index]), color.kind)

        def read_depth(index: int) -> np.ndarray:
            assert depth is not None
            return _depth(bag.read(depth.places[index]), units_per_m)

        def rig(color_wh: tuple[int, int], depth_wh: tuple[int, int] | None) -> tuple[Rig, bool, list[str]]:
            return _rig(config, path, bag, color, depth, color_wh, depth_wh)

        notes = [f"colour from {color.name}" + (f", depth from {depth.name}" if depth else "; no depth topic")]
        if bag.damage:
            notes.append(f"{bag.damage} stretches of the file are damaged and left out: the film may have gaps there")
        breaks_off = f"after {len(color.places)} colour pictures" if bag.breaks_off else ""
        color_s, depth_s = color.times_s, depth.times_s if depth is not None else []
        import_timed(
            config, out_dir, TimedSource(path, color_s, depth_s, read_color, read_depth, rig, notes, breaks_off)
        )


def _open(path: Path, blob: Blob) -> Bag:
    try:
        return Bag(blob)
    except Damaged as error:
        raise UserError(f"{path}: its header is damaged ({error}); copy it again") from None


def _streams(bag: Bag) -> tuple[Topic | None, Topic | None]:
    """(colour, depth) topics: depth aligned to colour before depth of its own, raw before compressed colour."""
    colors, depths = [], []
    for topic in bag.topics.values():
        if not topic.places or topic.kind not in (IMAGE, COMPRESSED):
            continue
        try:
            encoding = _encoding(bag.read(topic.places[0]), topic.kind)
        except Damaged:
            continue
        name = topic.name.lower()
        if encoding in (*DEPTH_16, DEPTH_FLOAT) and "depth" in name:
            depths.append(("aligned" not in name, topic.name, topic))
        elif encoding in COLOR_BYTES or (encoding == "jpeg" and "depth" not in name):
            is_other = not any(word in name for word in ("color", "rgb"))
            colors.append((is_other, topic.kind == COMPRESSED, topic.name, topic))
    return min(colors)[-1] if colors else None, min(depths)[-1] if depths else None


def _encoding(data: bytes, kind: str) -> str:
    message = Message(data)
    message.header()
    if kind == COMPRESSED:
        message.text()
        return "jpeg" if message.data()[:2] in (b"\xff\xd8", b"\x89P") else ""
    message.unpack("II")
    return message.text().lower()


def _image(data: bytes, sizes: dict[str, int]) -> tuple[str, np.ndarray]:
    """(encoding, (H, W, bytes per pixel) uint8) of a sensor_msgs/Image of one of the encodings.  Raises Damaged."""
    message = Message(data)
    message.header()
    height, width = message.unpack("II")
    encoding = message.text().lower()
    is_big_endian, step = message.unpack("BI")
    pixels = message.data()
    size = sizes.get(encoding)
    if size is None or not 0 < width * height <= MAX_PIXELS or step < width * size or step * height != len(pixels):
        raise Damaged(f"{width}x{height} pixels of {encoding[:20]!r} in {len(pixels)} bytes")
    image = np.frombuffer(pixels, np.uint8).reshape(height, step)[:, : width * size].reshape(height, width, size)
    return encoding, image[..., ::-1] if is_big_endian and encoding not in COLOR_BYTES else image


def _color(data: bytes, kind: str) -> np.ndarray | bytes:
    if kind == COMPRESSED:
        message = Message(data)
        message.header()
        message.text()
        return message.data()
    encoding, image = _image(data, COLOR_BYTES)
    conversion = {**RGB, **RGBA, **YUV}[encoding]
    image = np.ascontiguousarray(image)
    return image if conversion is None else cv2.cvtColor(image, conversion)


def _depth(data: bytes, units_per_m: float) -> np.ndarray:
    encoding, image = _image(data, {**dict.fromkeys(DEPTH_16, 2), DEPTH_FLOAT: 4})
    image = np.ascontiguousarray(image)
    if encoding == DEPTH_FLOAT:
        return metres_to_millimetres(image.view("<f4")[..., 0])
    return to_millimetres(image.view("<u2")[..., 0], units_per_m)


def metres_to_millimetres(depth_m: np.ndarray) -> np.ndarray:
    """(h, w) float metres to uint16 millimetres; what is not a distance, or too far, becomes 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        is_good = (depth_m > 0) & (depth_m < 65.5)
        return np.where(is_good, np.rint(np.where(is_good, depth_m, 0) * 1000), 0).astype(np.uint16)


def _units_per_m(bag: Bag, depth: Topic | None) -> float:
    """The SDK notes the sensor's unit in metres; ROS images are in millimetres."""
    sensor = "/".join(depth.name.split("/")[:3]) if depth is not None else ""
    for topic in bag.topics.values():
        name = topic.name.lower().replace(" ", "_")
        if topic.messages and name.endswith("option/depth_units/value") and topic.name.startswith(sensor):
            (unit_m,) = Message(topic.messages[-1]).unpack("f")
            if math.isfinite(unit_m) and 1e-5 < unit_m < 0.1:
                return 1 / unit_m
    return 1000.0


def _rig(
    config: ImportConfig,
    path: Path,
    bag: Bag,
    color: Topic,
    depth: Topic | None,
    color_wh: tuple[int, int],
    depth_wh: tuple[int, int] | None,
) -> tuple[Rig, bool, list[str]]:
    try:
        found, error_px = _camera(bag, color) or (None, 0.0)
        color_in, is_known, told = color_camera(config, found, color_wh)
        notes = [note for note in (f"colour: {lens.words(error_px)}" if error_px else "", told) if note]
        if depth_wh is None or depth is None:
            return Rig(color_in), is_known, notes
        found, error_px = _camera(bag, depth) or (None, 0.0)
        if found is None or found.image_wh != depth_wh:
            raise UserError(f"no camera_info of {depth_wh[0]}x{depth_wh[1]} pixels beside {depth.name}; use --no-depth")
        notes += [f"depth: {lens.words(error_px)}"] if error_px else []
        depth_from_color = np.eye(4) if "aligned" in depth.name else _depth_from_color(bag, color, depth)
    except Damaged as error:
        raise UserError(f"{path}: a camera_info or transform is damaged ({error}); copy it again") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Rig(color_in, found, depth_from_color), is_known, notes


def _camera(bag: Bag, images: Topic) -> tuple[Camera, float] | None:
    """(camera in our pixels, error in pixels of bringing its lens to ours) of the camera_info beside a topic."""
    prefix = _prefix(images.name)
    topics = [
        t for t in bag.topics.values() if t.messages and t.name.endswith("camera_info") and _prefix(t.name) == prefix
    ]
    if not topics:
        return None
    message = Message(topics[0].messages[0])
    message.header()
    height, width = message.unpack("II")
    model = message.text().lower()
    (count,) = message.unpack("I")
    if count > 14:
        raise Damaged(f"{count} lens coefficients")
    coefficients = list(message.unpack(f"{count}d"))
    matrix = message.unpack("9d")
    # OpenCV, ROS and the SDK put the first pixel's centre at (0, 0), we at (0.5, 0.5).
    pinhole_px = (matrix[0], matrix[4], matrix[2] + 0.5, matrix[5] + 0.5)
    if any(coefficients[8:]) or (any(word in model for word in OTHER_LENSES) and any(coefficients)):
        raise UserError(f"{topics[0].name}: lens model {model!r} is not supported; record rectified pictures")
    values = coefficients[:8] if any(coefficients[5:8]) else coefficients[:5]
    return lens.camera((width, height), pinhole_px, values, is_inverse="inverse" in model)


def _prefix(name: str) -> str:
    """What a stream's topics have in common."""
    parts = name.split("/")
    if len(parts) > 3 and parts[1].startswith("device_"):
        return "/".join(parts[:4])
    return name.rsplit("/compressed", 1)[0].rsplit("/", 1)[0]


def _depth_from_color(bag: Bag, color: Topic, depth: Topic) -> np.ndarray:
    """(4, 4) metres.  Raises UserError where the bag does not say how the cameras stand."""
    from_reference = [_sdk_transform(bag, topic) for topic in (color, depth)]
    if from_reference[0] is not None and from_reference[1] is not None:
        matrix = from_reference[1] @ invert(from_reference[0])
    else:
        frames = [Message(bag.read(topic.places[0])).header()[1].lstrip("/") for topic in (color, depth)]
        roots = [_to_root(_static_transforms(bag), frame) for frame in frames]
        if roots[0][0] != roots[1][0]:
            raise UserError(
                "does not say how colour and depth stand to each other (no tf); record depth aligned to colour"
            )
        matrix = invert(roots[1][1]) @ roots[0][1]
    if np.linalg.norm(matrix[:3, 3]) > MAX_BASELINE_M:
        raise UserError(
            f"cameras {np.linalg.norm(matrix[:3, 3]):.3g} m apart; its transforms are damaged: copy it again"
        )
    return matrix


def _sdk_transform(bag: Bag, images: Topic) -> np.ndarray | None:
    """(4, 4) stream_from_reference, which the SDK writes as ``STREAM/tf/0``."""
    for topic in bag.topics.values():
        if topic.messages and topic.name.startswith(_prefix(images.name) + "/tf/"):
            return Message(topic.messages[0]).transform()
    return None


def _static_transforms(bag: Bag) -> dict[str, tuple[str, np.ndarray]]:
    """{child frame: (parent frame, parent_from_child)} of /tf_static."""
    found = {}
    for topic in bag.topics.values():
        if topic.kind != "tf2_msgs/TFMessage" or "static" not in topic.name:
            continue
        for data in topic.messages:
            message = Message(data)
            (count,) = message.unpack("I")
            for _ in range(count):
                _, parent = message.header()
                child = message.text().lstrip("/")
                found[child] = (parent.lstrip("/"), message.transform())
    return found


def _to_root(transforms: dict[str, tuple[str, np.ndarray]], frame: str) -> tuple[str, np.ndarray]:
    """(the frame that has no parent, root_from_frame)."""
    root_from_frame = np.eye(4)
    for _ in range(len(transforms)):
        if frame not in transforms:
            break
        frame, parent_from_child = transforms[frame]
        root_from_frame = parent_from_child @ root_from_frame
    return frame, root_from_frame
