"""Kinect Studio's .xef: events of a Kinect V2, colour as YUY2 of 1920 x 1080, depth as millimetres of 512 x 424.

Layout, little-endian (github.com/Isaac-W/KinectXEFTools, its documentation): a header of 24 bytes, then events of 24
bytes of header, a tag and data.  The first event of a stream describes it.  An archived file (KSConvert) keeps each
event's data as a zlib stream.

The sensor delivers what a mirror shows; pictures, depth and cameras are turned back here, as in ``prox``.  No event
carries the calibration: a typical one is used, or PROX's ``calibration/`` beside the file.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from capture.beside import calibration_beside
from capture.camera import Camera, Rig, invert
from capture.errors import UserError
from capture.importers import ImportConfig, color_camera
from capture.importers.blob import Blob, CutShort, begins_with, inflate, opened
from capture.importers.images import to_millimetres
from capture.importers.timed import Damaged, TimedSource, import_timed
from capture.importers.upright import upright, upright_rig

MAGIC = b"EVENTS1\0"
COLOR = uuid.UUID("2ba0d67d-be11-4534-9444-3fb21ae0f08b")
DEPTH = uuid.UUID("0a3914d6-3b16-11e1-aac3-001e4fd58c0f")
NAMES = {
    COLOR: "colour",
    DEPTH: "depth",
    uuid.UUID("0a3914d7-3b16-11e1-aac3-001e4fd58c0f"): "infrared",
    uuid.UUID("0a3914dc-3b16-11e1-aac3-001e4fd58c0f"): "compressed colour",
    uuid.UUID("0a3914e2-3b16-11e1-aac3-001e4fd58c0f"): "raw infrared",
    uuid.UUID("7e06d98e-d271-4a1f-9bfd-6648a700db75"): "long-exposure infrared",
    uuid.UUID("a0c45179-5168-4875-a75c-f8f1760f637c"): "bodies",
    uuid.UUID("df82ffac-b533-4438-954a-686a1e20f4aa"): "body index",
    uuid.UUID("787c7abd-9f6e-4a85-8d67-6365ff80cc69"): "sound",
}
COLOR_WH, DEPTH_WH = (1920, 1080), (512, 424)
TICK_S = 1e-7
TAG_BYTES = 24  # of an event that describes, not of a stream
NAME_BYTES, STREAM_TAG_AT = 256, 258
IS_COMPRESSED = 1
INDEX_RECORD, INDEX_BYTES = 0xFFFF, (0x6000, 0x7000, 0xC000)  # what Kinect Studio puts between events
FOOTER_BYTES = 2 + 1712
MAX_STREAMS, MAX_DESCRIBING = 1000, 10_000

# A rig fitted to a published Kinect V2 calibration (libfreenect2's registration polynomial, 0.8 to 4.5 m: median 0.24,
# largest 0.91 px), and the mean of three published depth cameras; of the mirrored pictures.
TYPICAL = Rig(
    Camera(COLOR_WH, 1067.3, 1067.4, 959.7, 541.9, (0.0116, -0.0032, 0.0, 0.0, 0.0)),
    Camera(DEPTH_WH, 366.3, 366.3, 260.5, 206.3, (0.0896, -0.2733, 0.0, 0.0, 0.0995)),
    invert(np.array([[1, 0, 0, 0.0524], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float)),
)


@dataclass
class _Stream:
    kind: uuid.UUID
    tag_bytes: int
    is_compressed: bool
    ticks: list[int] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)  # start, bytes, bytes when inflated


def recognises(path: Path) -> bool:
    """Whether a file begins like a .xef."""
    return begins_with(path, MAGIC)


def describe(path: Path) -> str:
    """What a .xef holds, in words.  Raises UserError."""
    with opened(path) as blob:
        streams, breaks_off = _index(path, blob)
    found = [f"{len(s.ticks)} {NAMES.get(s.kind, 'unknown')}" for s in streams.values() if s.ticks]
    return (", ".join(found) or "no events") + (f"; breaks off, {breaks_off}" if breaks_off else "")


def import_xef(config: ImportConfig, out_dir: Path, path: Path) -> None:
    """Import a .xef file.  Raises UserError for one without plain colour, and for one that breaks off."""
    with opened(path) as blob:
        streams, breaks_off = _index(path, blob)
        color, depth = (_of_kind(streams, kind) for kind in (COLOR, DEPTH))
        if not color.ticks:
            found = sorted({NAMES.get(s.kind, "unknown") for s in streams.values() if s.ticks})
            raise UserError(
                f"{path}: holds no plain colour (found {', '.join(found) or 'nothing'}); record the stream "
                "'Nui Uncompressed Color' in Kinect Studio"
            )
        notes = ["Kinect Studio: pictures and depth turned back from mirrored", *_rate(color.ticks, depth.ticks)]
        if not depth.ticks and not config.no_depth:
            notes.append("no depth in the file: fitted from colour alone")
        units_per_m = config.depth_units_per_m or 1000.0

        def read_color(index: int) -> np.ndarray:
            data = _data(blob, color, index, 2 * COLOR_WH[0] * COLOR_WH[1])
            pairs = np.frombuffer(data, np.uint8).reshape(COLOR_WH[1], COLOR_WH[0], 2)
            return upright(cv2.cvtColor(pairs, cv2.COLOR_YUV2RGB_YUY2), 0, True)

        def read_depth(index: int) -> np.ndarray:
            data = _data(blob, depth, index, 2 * DEPTH_WH[0] * DEPTH_WH[1])
            image = np.frombuffer(data, "<u2").reshape(DEPTH_WH[1], DEPTH_WH[0])
            return to_millimetres(upright(image, 0, True), units_per_m)

        def rig(color_wh: tuple[int, int], depth_wh: tuple[int, int] | None) -> tuple[Rig, bool, list[str]]:
            return _rig(config, path, color_wh, depth_wh)

        color_s, depth_s = ([tick * TICK_S for tick in stream.ticks] for stream in (color, depth))
        import_timed(
            config, out_dir, TimedSource(path, color_s, depth_s, read_color, read_depth, rig, notes, breaks_off)
        )


def _of_kind(streams: dict[int, _Stream], kind: uuid.UUID) -> _Stream:
    """The stream of a kind with most events; an empty one where there is none."""
    found = [stream for stream in streams.values() if stream.kind == kind]
    return max(found, key=lambda stream: len(stream.ticks), default=_Stream(kind, 0, False))


def _rate(color_ticks: list[int], depth_ticks: list[int]) -> list[str]:
    """The colour camera exposes for two frames in dim light: 15 pictures a second beside 30 of depth."""
    if len(color_ticks) < 3 or len(depth_ticks) < 3:
        return []
    steps = [float(np.median(np.diff(np.sort(np.array(ticks, float))))) for ticks in (color_ticks, depth_ticks)]
    if 1.8 < steps[0] / max(steps[1], 1.0) < 2.2:
        return ["colour at half the rate of depth, as a Kinect films in dim light: more light gives twice the frames"]
    return []


def _data(blob: Blob, stream: _Stream, index: int, size: int) -> bytes:
    start, count, full = stream.places[index]
    if full != size:
        raise Damaged(f"{full} bytes, not {size}")
    data = blob.read(start, count)
    if stream.is_compressed:
        return inflate(data, size)
    if count != size:
        raise Damaged(f"{count} bytes, not {size}")
    return data


def _index(path: Path, blob: Blob) -> tuple[dict[int, _Stream], str]:
    """({stream number: stream}, what is missing at the end in words).  Reads headers only."""
    magic, _, count, _ = blob.unpack("8sIIQ")
    if magic != MAGIC:
        raise UserError(f"{path}: not a .xef; give a recording of Kinect Studio")
    last = count - 1 if 0 < count <= MAX_STREAMS else MAX_STREAMS  # an archive may say 0
    streams: dict[int, _Stream] = {}
    before: _Stream | None = None
    describing = 0
    try:
        for index, flags in _keys(blob, last, streams):
            before = streams.get(index)
            if before is not None:
                _event(blob, before)
            elif index == 0:
                describing += 1
                if describing > MAX_DESCRIBING:  # the zeros that a file system leaves where writing ended
                    raise Damaged("no events")
                _describing(blob)
            else:
                streams[index] = _described(blob, index, bool(flags & IS_COMPRESSED))
    except (CutShort, Damaged) as error:
        if isinstance(error, Damaged) and before is not None and before.ticks:
            before.ticks.pop()  # what lies right before the nonsense is of the wrong length, or damaged itself
            before.places.pop()
        frames = sum(len(stream.ticks) for stream in streams.values() if stream.kind == COLOR)
        return streams, f"after {frames} colour pictures"
    return streams, ""


def _keys(blob: Blob, last: int, streams: dict[int, _Stream]) -> Iterator[tuple[int, int]]:
    """(stream number, flags) of each event, read position at its header, up to the footer.  Raises CutShort, and
    Damaged for bytes that are no event: from there on nothing can be trusted.

    An archive may not say how many streams it has, so that its footer is known by its length, or it has none.
    """
    while blob.at < blob.size:
        index, flags = _peek(blob)
        if index == last + 1 or (index not in streams and blob.size - blob.at == FOOTER_BYTES):
            return
        if index == INDEX_RECORD:
            _skip_index_record(blob, last)
            continue
        if index > last and index not in streams:
            raise Damaged("bytes that are no event")
        yield index, flags


def _peek(blob: Blob) -> tuple[int, int]:
    index, flags = blob.unpack("HH")
    blob.at -= 4
    return index, flags


def _skip_index_record(blob: Blob, last: int) -> None:
    """Kinect Studio writes these in three lengths and does not say which: the one that leads to an event is right."""
    start = blob.at + TAG_BYTES
    for length in INDEX_BYTES:
        blob.at = start + length
        index, _ = _peek(blob)
        if 0 < index <= last + 1 or index == INDEX_RECORD:
            return
    raise Damaged("an index record that leads nowhere")


def _event(blob: Blob, stream: _Stream) -> None:
    _, _, count, ticks, _, full = blob.unpack("HHIqII")
    blob.skip(stream.tag_bytes)
    start = blob.skip(count)
    if stream.kind not in (COLOR, DEPTH):
        full = 0
    stream.ticks.append(ticks)
    stream.places.append((start, count, full))


def _describing(blob: Blob) -> tuple[bytes, bytes]:
    """(tag, data) of an event that belongs to no stream."""
    _, _, count, _, _, _ = blob.unpack("HHIqII")
    return blob.take(TAG_BYTES), blob.take(count)


def _described(blob: Blob, index: int, is_compressed: bool) -> _Stream:
    """A stream from its two describing events.  Raises Damaged for bytes that describe nothing."""
    tag, data = _describing(blob)
    if len(data) < STREAM_TAG_AT + 2 or int.from_bytes(tag[:2], "little") != index:
        raise Damaged("an event of no stream")
    flags = int.from_bytes(tag[2:4], "little")
    stream = _Stream(
        uuid.UUID(bytes_le=tag[4:20]),
        int.from_bytes(data[STREAM_TAG_AT : STREAM_TAG_AT + 2], "little"),
        bool(flags & IS_COMPRESSED) or is_compressed,
    )
    if stream.is_compressed:
        blob.skip(8)
    _describing(blob)
    return stream


def _rig(
    config: ImportConfig, path: Path, color_wh: tuple[int, int], depth_wh: tuple[int, int] | None
) -> tuple[Rig, bool, list[str]]:
    folder = calibration_beside(path)
    if folder is None:
        rig = upright_rig(TYPICAL, 0, True)
        notes = [
            "a .xef carries no calibration: a typical Kinect V2's is used (other devices differ by some pixels); put "
            "PROX's calibration/Color.json and IR.json beside the file for your own"
        ]
    else:
        from capture.importers.prox import read_camera

        color, color_from_world = read_camera(folder / "Color.json", COLOR_WH)
        depth, depth_from_world = read_camera(folder / "IR.json", DEPTH_WH)
        rig, notes = (
            Rig(color, depth, depth_from_world @ invert(color_from_world)),
            [f"calibration from {folder.name}/"],
        )
    color, is_known, told = color_camera(config, rig.color, color_wh)
    notes += [told] if told else []
    return (Rig(color) if depth_wh is None else Rig(color, rig.depth, rig.depth_from_color)), is_known, notes
