"""Damaged files for every reader, and what a reader may make of one: refuse it in one line, or tell the truth.

A frame that comes out of a damaged file must be one of the intact file's wherever the format has a checksum, and
always after a truncation; without a checksum a changed pixel cannot be known, but its picture has the right size.  Nor
can a changed digit of a calibration or a list in plain text.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import foreign_writers as write
import numpy as np

import doctor
from capture.camera import Camera, Rig
from capture.errors import UserError
from capture.files import encode_jpeg, encode_png
from capture.importers import ImportConfig, record
from capture.recording import Recording, RecordingWriter, layout
from capture.video import write_video

FLAGS = {"colour": 1, "depth": 2}
KINDS = ("truncated", "bit flipped", "zeros", "huge number", "wrong size")


@dataclass(frozen=True)
class Source:
    """One intact source.  ``checked`` streams carry a checksum in this format."""

    name: str
    make: Callable[[Path], Path]
    checked: tuple[str, ...] = ()


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def _tum(path: Path) -> Path:
    for name, late_s in (("rgb", 0.0), ("depth", 0.004)):
        _folder(path / name)
        lines = [f"{100 + i / 30 + late_s:.6f} {name}/{i}.png" for i in range(3)]
        (path / f"{name}.txt").write_text("\n".join(["# time file", *lines]) + "\n")
    for i in range(3):
        (path / f"rgb/{i}.png").write_bytes(encode_png(write.color_of(i)))
        (path / f"depth/{i}.png").write_bytes(encode_png(write.depth_of(i)))
    fields = {"width": 64, "height": 48, "fx": 60, "fy": 60, "cx": 31.5, "cy": 23.5, "depth_units_per_m": 1000}
    (path / "calibration.json").write_text(json.dumps(fields))
    return path


def _numbered(path: Path) -> Path:
    _folder(path)
    xml = "<opencv_storage><intrinsic><data>60 0 32 0 60 24 0 0 1</data></intrinsic></opencv_storage>"
    for i in range(3):
        (path / f"{i:04d}.jpg").write_bytes(encode_jpeg(write.color_of(i)))
        (path / f"{i:04d}_depth.png").write_bytes(encode_png(write.depth_of(i)))
        (path / f"{i:04d}_camera.xml").write_text(xml)
    return path


def _prox(path: Path) -> Path:
    home = path / "recordings" / "one"
    for folder in (home / "Color", home / "Depth", path / "calibration", path / "keypoints" / "one"):
        _folder(folder)
    for name, wh in (("Color", write.WH), ("IR", (32, 24))):
        fields = {"camera_mtx": [[60, 0, wh[0] / 2], [0, 60, wh[1] / 2], [0, 0, 1]], "k": [0.1, 0, 0, 0, 0]}
        (path / f"calibration/{name}.json").write_text(json.dumps({**fields, "view_mtx": np.eye(3, 4).tolist()}))
    for i in range(3):
        stem = f"s001_frame_{i:05d}__00.00.00.{33 * i:03d}"
        (home / f"Color/{stem}.jpg").write_bytes(encode_jpeg(write.color_of(i)))
        (home / f"Depth/{stem}.png").write_bytes(encode_png(write.depth_of(i, (32, 24))))
        person = {"people": [{"pose_keypoints_2d": [1.0, 2.0, 0.5] * 25}]}
        (path / f"keypoints/one/{stem}_keypoints.json").write_text(json.dumps(person))
    return path


def _own(path: Path) -> Path:
    """The plain layout of ours."""
    token = layout.set("folder")
    try:
        return _cap(path)
    finally:
        layout.reset(token)


def _cap(path: Path) -> Path:
    camera = Camera(write.WH, 60, 60, 32, 24)
    writer = RecordingWriter(_folder(path), Rig(camera, camera, np.eye(4)), "own")
    for i in range(3):
        writer.add(i / 30, write.color_of(i), write.depth_of(i))
    writer.finish()
    return path


def _whole(path: Path) -> Path:
    """A live recording of ours with all that may lie beside its frames; little of it is frames."""
    camera = Camera(write.WH, 60, 60, 32, 24)
    writer = RecordingWriter(_folder(path), Rig(camera, camera, np.eye(4)), "own")
    writer.add_plate(write.color_of(7), write.depth_of(7))
    writer.add_factory({"ir_params": np.arange(9.0), "depth_rays": np.ones((24, 32, 2), np.float32)})
    for i in range(3):
        writer.add(i / 30, write.color_of(i), write.depth_of(i))
        writer.add_mask(i, write.color_of(i)[..., 1])
        writer.add_openpose(i, json.dumps({"people": [{"pose_keypoints_2d": [1.0, 2.0, 0.5] * 25}]}).encode())
    writer.finish()
    return path


def _subfolders(path: Path) -> Path:
    for name in ("color", "depth", "masks"):
        _folder(path / name)
    for i in range(3):
        (path / f"color/{i:04d}.png").write_bytes(encode_png(write.color_of(i)))
        (path / f"depth/{i:04d}.png").write_bytes(encode_png(write.depth_of(i)))
        (path / f"masks/{i:04d}.png").write_bytes(encode_png(write.color_of(i)[..., 1]))
    (path / "background.png").write_bytes(encode_png(write.color_of(7)))
    fields = {"width": 64, "height": 48, "fx": 60, "fy": 60, "cx": 31.5, "cy": 23.5, "depth_units_per_m": 1000}
    (path / "calibration.json").write_text(json.dumps(fields))
    return path


def _video(path: Path) -> Path:
    write_video(path, [write.color_of(i) for i in range(6)], 30)
    return path


SOURCES = (
    Source("video.mp4", _video),
    Source("tum", _tum, ("colour", "depth")),
    Source("numbered", _numbered, ("depth",)),
    Source("subfolders", _subfolders, ("colour", "depth")),
    Source("prox", _prox, ("depth",)),
    Source("own", _own, ("depth",)),
    Source("cap", _cap, ("colour", "depth")),
    Source("whole", _whole, ("colour", "depth")),
    Source("kinect.xef", lambda path: write.write_xef(path, 1)),
    Source("archived.xef", lambda path: write.write_xef(path, 2, is_archived=True), ("colour", "depth")),
    Source("azure.mkv", write.write_mkv, ("colour", "depth")),
    Source("azure_open.mkv", lambda path: write.write_mkv(path, b"NV12", is_open=True)),
    Source("plain.bag", write.write_bag),
    Source("packed.bag", lambda path: write.write_bag(path, compression="lz4"), ("colour", "depth")),
    Source("ros.bag", write.write_ros_bag, ("colour", "depth")),
    Source("phone.r3d", write.write_r3d, ("colour", "depth")),
    Source("plain.r3d", lambda path: write.write_r3d(path, pack=bytes, with_confidence=True), ("colour", "depth")),
    Source("room.sens", write.write_sens, ("depth",)),
)


@dataclass(frozen=True)
class Case:
    """A damaged source on disk."""

    source: Source
    kind: str
    path: Path
    allow_truncated: bool
    is_text: bool = False  # a digit of a calibration was changed, say: no checksum covers that


def cases(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """``count`` damaged sources, in turn of every reader and kind; each is deleted when the next is asked for."""
    rng = np.random.default_rng(seed)
    intact = folder / "intact"
    shutil.rmtree(intact, ignore_errors=True)
    intact.mkdir(parents=True)
    for source in SOURCES:
        source.make(intact / source.name)
    makers = [*hostile()]
    for number in range(count):
        target, is_text = _folder(folder / f"case{number}"), False
        if number < len(makers):
            source_name, kind, maker = makers[number]
            source = next(source for source in SOURCES if source.name == source_name)
            path = maker(target / source.name)
        else:
            source = SOURCES[number % len(SOURCES)]
            kind = KINDS[(number // len(SOURCES)) % len(KINDS)]
            path = target / source.name
            (shutil.copytree if (intact / source.name).is_dir() else shutil.copyfile)(intact / source.name, path)
            is_text = _damage(path, kind, rng).suffix in (".json", ".xml", ".txt")
        yield Case(source, kind, path, bool(rng.integers(2)), is_text)
        shutil.rmtree(target)


def _damage(path: Path, kind: str, rng: np.random.Generator) -> Path:
    """Damage one file, of a folder any one; returns which."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    file = files[rng.integers(len(files))]
    data = bytearray(file.read_bytes())
    at = int(rng.integers(len(data)))
    header = int(rng.integers(min(len(data), 4096)))
    if kind == "truncated":
        data = data[:at]
    elif kind == "bit flipped":
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == "zeros":
        data[at : at + 512] = bytes(len(data[at : at + 512]))
    elif kind == "huge number":
        data[header : header + 8] = b"\xff" * len(data[header : header + 8])
    else:
        data[at:at] = rng.bytes(int(rng.integers(1, 64)))
    file.write_bytes(data)
    return file


def hostile() -> Iterator[tuple[str, str, Callable[[Path], Path]]]:
    """(source, kind, writer) of files made to exhaust the reader."""
    zeros = bytes(300_000_000)

    def sens_bomb(path: Path) -> Path:
        data = bytearray(write.write_sens(path, 1).read_bytes())
        bomb = zlib.compress(zeros)
        frame_at = data.find(struct.pack("<ii", 2, 1)) + 8 + 16 + 4 + 8
        color_bytes = struct.unpack_from("<Q", data, frame_at + 64 + 16)[0]
        data[frame_at + 88 : frame_at + 96] = struct.pack("<Q", len(bomb))
        return _written(path, bytes(data[: frame_at + 96 + color_bytes]) + bomb)

    def sens_count(path: Path) -> Path:
        data = bytearray(write.write_sens(path).read_bytes())
        at = data.find(struct.pack("<ii", 2, 1)) + 8 + 16 + 4
        data[at : at + 8] = struct.pack("<Q", 2**63)
        return _written(path, bytes(data))

    def zip_bomb(path: Path) -> Path:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("metadata", json.dumps({"w": 48, "h": 64, "dw": 24, "dh": 32}))
            archive.writestr("rgbd/0.jpg", zeros)
            archive.writestr("rgbd/0.depth", zeros)
        return path

    def deep_json(path: Path) -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata", "[" * 200_000)
            archive.writestr("rgbd/0.jpg", encode_jpeg(write.color_of(0)))
        return path

    def bag_bomb(path: Path) -> Path:
        bag = write.BagWriter("bz2")
        bag.add("/camera/color/image_raw", "sensor_msgs/Image", zeros[:200_000_000])
        bag.flush()
        return _written(path, bag.data)

    def xml_bomb(path: Path) -> Path:
        _numbered(path)
        lines = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
        text = f'<!DOCTYPE x [<!ENTITY a0 "ha">{lines}]><opencv_storage><intrinsic><data>&a9;</data></intrinsic>'
        (path / "0000_camera.xml").write_text(text + "</opencv_storage>")
        return path

    def png_bomb(path: Path) -> Path:
        _tum(path)

        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        head = struct.pack(">IIBBBBB", 60_000, 60_000, 16, 0, 0, 0, 0)
        rows = zlib.compress(bytes(10_000_000))
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
        (path / "depth/1.png").write_bytes(data)
        (path / "depth/0.png").write_bytes(data)
        return path

    def mkv_pixels(path: Path) -> Path:
        return write.write_mkv(path, b"YUY2", color_wh=(128, 72), depth_wh=(320, 288), calibration={"x": "y" * 100})

    def xef_events(path: Path) -> Path:
        head = b"EVENTS1\0" + struct.pack("<IIQ", 5, 4, 0)
        return _written(path, head + bytes(2_000_000))

    def own_frames(path: Path) -> Path:
        _own(path)
        (path / "recording.json").write_text('{"rig": {"color": null}, "frames": [{}], "notes": 3}')
        return path

    def own_path(path: Path) -> Path:
        _own(path)
        fields = json.loads((path / "recording.json").read_text())
        fields["frames"][0]["color"] = "../../../../../../etc/passwd"
        (path / "recording.json").write_text(json.dumps(fields))
        return path

    def zeros_behind(maker: Callable[[Path], Path]) -> Callable[[Path], Path]:
        """A file that was allocated in advance and never filled; sparse, it takes no room."""

        def make(path: Path) -> Path:
            data = maker(path).read_bytes()
            path.write_bytes(data[: len(data) * 2 // 3])
            with open(path, "r+b") as file:
                file.truncate(3_000_000_000)
            return path

        return make

    for source in SOURCES:
        if source.name.endswith((".sens", ".bag", ".mkv", ".xef", ".r3d")):
            yield source.name, "zeros to the end", zeros_behind(source.make)
    yield "room.sens", "bomb", sens_bomb
    yield "room.sens", "huge number", sens_count
    yield "phone.r3d", "bomb", zip_bomb
    yield "phone.r3d", "deep JSON", deep_json
    yield "ros.bag", "bomb", bag_bomb
    yield "numbered", "bomb", xml_bomb
    yield "tum", "bomb", png_bomb
    yield "azure.mkv", "no calibration", mkv_pixels
    yield "kinect.xef", "zeros", xef_events
    yield "own", "wrong fields", own_frames
    yield "own", "path outside", own_path


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def fingerprints(recording: Recording) -> dict[str, set[bytes]]:
    """What the frames of a recording show, by stream."""
    found: dict[str, set[bytes]] = {"colour": set(), "depth": set()}
    for i in range(len(recording)):
        found["colour"].add(hashlib.sha256(recording.color(i).tobytes()).digest())
        depth = recording.depth_mm(i)
        if depth is not None:
            found["depth"].add(hashlib.sha256(depth.tobytes()).digest())
    return found


def intact_frames(folder: Path) -> dict[str, tuple[dict[str, set[bytes]], tuple[int, ...]]]:
    """{source: (fingerprints of its frames, colour size)}, imported from the files that ``cases`` made."""
    found = {}
    for source in SOURCES:
        out_dir = folder / f"intact_{source.name}"
        record(ImportConfig(), out_dir, folder / "intact" / source.name)
        recording = Recording.load(out_dir)
        found[source.name] = (fingerprints(recording), recording.color(0).shape)
        shutil.rmtree(out_dir)
    return found


def verdict(case: Case, out_dir: Path, intact: tuple[dict[str, set[bytes]], tuple[int, ...]]) -> str:
    """ "refused", "taken" or "WRONG ...".  Any exception but UserError passes through.  ``doctor`` looks first."""
    for check in doctor.examine_source(case.path):
        if not check.words or "\n" in check.words:
            return f"WRONG doctor {check.words!r}"
    try:
        record(ImportConfig(allow_truncated=case.allow_truncated), out_dir, case.path)
    except UserError as error:
        message = str(error)
        return "refused" if message and "\n" not in message else f"WRONG message {message!r}"
    recording = Recording.load(out_dir)
    frames, shape = fingerprints(recording), intact[1]
    for stream in FLAGS:
        is_covered = stream in case.source.checked and not case.is_text
        is_strict = is_covered or (case.kind == "truncated" and case.path.suffix != ".mp4")
        if is_strict and not frames[stream] <= intact[0][stream]:
            return f"WRONG {stream}"
    return "taken" if recording.color(0).shape == shape or not case.source.checked else "WRONG size"
