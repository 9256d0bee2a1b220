"""Matroska, as far as sensor recordings use it: tracks, attachments, and where each block lies.  Headers only are read.

Layout: RFC 8794 (EBML) and RFC 9559 (Matroska).  An element is an id, a length and a payload; a length of all ones is
unknown, and the payload ends where an element of a higher level begins.  Checksums are checked where there are some.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from capture.importers.blob import Blob, CutShort
from capture.importers.timed import MAX_FRAME_BYTES, Damaged

log = logging.getLogger(__name__)

EBML = 0x1A45DFA3
SEGMENT, INFO, TRACKS, CLUSTER = 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
TAGS, ATTACHMENTS, CUES, SEEK_HEAD, CHAPTERS = 0x1254C367, 0x1941A469, 0x1C53BB6B, 0x114D9B74, 0x1043A770
VOID, CRC32 = 0xEC, 0xBF
TOP_LEVEL = (INFO, TRACKS, CLUSTER, TAGS, ATTACHMENTS, CUES, SEEK_HEAD, CHAPTERS, VOID, CRC32)
TIMESTAMP_SCALE, TITLE = 0x2AD7B1, 0x7BA9
TRACK, TRACK_NUMBER, TRACK_NAME, CODEC, CODEC_PRIVATE = 0xAE, 0xD7, 0x536E, 0x86, 0x63A2
VIDEO, PIXEL_WIDTH, PIXEL_HEIGHT = 0xE0, 0xB0, 0xBA
CLUSTER_TIME, SIMPLE_BLOCK, BLOCK_GROUP, BLOCK = 0xE7, 0xA3, 0xA0, 0xA1
ATTACHED, FILE_NAME, FILE_DATA = 0x61A7, 0x466E, 0x465C
LACING = 0x06
MAX_SMALL = 16_000_000  # of an element that is kept in memory: headers and attachments
SEARCH_STEP, MAX_SEARCH = 1 << 20, 1 << 28  # no cluster is larger


@dataclass
class Track:
    """One track, and where its blocks lie."""

    number: int = 0
    name: str = ""
    codec: str = ""
    private: bytes = b""
    image_wh: tuple[int, int] = (0, 0)
    ticks: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)  # start, bytes


@dataclass
class Matroska:
    """What a file holds.  ``damage`` counts stretches that could not be read; ``breaks_off`` says it ends too early."""

    tick_s: float = 1e-3
    title: str = ""
    tracks: dict[int, Track] = field(default_factory=dict)
    attachments: dict[str, bytes] = field(default_factory=dict)
    damage: int = 0
    breaks_off: bool = False


def read(blob: Blob, with_blocks: bool = True) -> Matroska:
    """The tracks of a file and, unless only its head is wanted, where all blocks lie.  Raises CutShort, Damaged."""
    kind, size = _element(blob)
    if kind != EBML or size is None:
        raise Damaged("not a Matroska file")
    blob.skip(size)
    kind, size = _element(blob)
    if kind != SEGMENT:
        raise Damaged("no segment")
    found = Matroska()
    end = blob.size if size is None else blob.at + size
    found.breaks_off = end > blob.size
    while blob.at < min(end, blob.size):
        start = blob.at
        try:
            kind, size = _element(blob)
            if kind not in TOP_LEVEL:
                raise Damaged(f"element {kind:x}")
            if kind == CLUSTER:
                if not with_blocks:
                    return found
                _cluster(blob, size, found)
            else:
                _top(blob, kind, size, found)
        except CutShort:
            found.breaks_off = True
            return found
        except Damaged as error:
            log.debug("at %d: %s", start, error)
            found.damage += 1
            if not _find_cluster(blob, start + 1):
                found.breaks_off = True
                return found
    return found


def _top(blob: Blob, kind: int, size: int | None, found: Matroska) -> None:
    if size is None:
        raise Damaged("an element of unknown length")
    start = blob.skip(size)
    if kind not in (INFO, TRACKS, ATTACHMENTS):
        return
    if size > MAX_SMALL:
        raise Damaged(f"{size} bytes of headers")
    data = _checked(blob.read(start, size))
    for child, payload in _children(data):
        if kind == INFO and child == TIMESTAMP_SCALE:
            found.tick_s = _number(payload) * 1e-9
        elif kind == INFO and child == TITLE:
            found.title = _text(payload)
        elif kind == TRACKS and child == TRACK:
            track = _track(payload)
            found.tracks[track.number] = track
        elif kind == ATTACHMENTS and child == ATTACHED:
            parts = dict(_children(payload))
            found.attachments[_text(parts.get(FILE_NAME, b""))] = parts.get(FILE_DATA, b"")


def _track(data: bytes) -> Track:
    track = Track()
    for child, payload in _children(data):
        if child == TRACK_NUMBER:
            track.number = _number(payload)
        elif child == TRACK_NAME:
            track.name = _text(payload)
        elif child == CODEC:
            track.codec = _text(payload)
        elif child == CODEC_PRIVATE:
            track.private = payload
        elif child == VIDEO:
            parts = dict(_children(payload))
            track.image_wh = (_number(parts.get(PIXEL_WIDTH, b"")), _number(parts.get(PIXEL_HEIGHT, b"")))
    return track


def _cluster(blob: Blob, size: int | None, found: Matroska) -> None:
    """Note where the blocks of a cluster lie.  Nothing of a cluster whose checksum is wrong is kept."""
    end = blob.size if size is None else blob.at + size
    if end > blob.size:
        found.breaks_off, end = True, blob.size
    elif size is not None and size <= MAX_FRAME_BYTES:
        _check_in_place(blob, size)
    base, blocks = 0, []
    while blob.at < end:
        start = blob.at
        kind, length = _element(blob)
        if size is None and kind in TOP_LEVEL and kind not in (VOID, CRC32):
            blob.at = start
            break
        if kind == BLOCK_GROUP and length is not None:
            continue  # its children are read as if they were the cluster's
        if length is None:
            raise Damaged("a block of unknown length")
        at = blob.skip(length)
        if kind == CLUSTER_TIME and length <= 8:
            base = _number(blob.read(at, length))
        elif kind in (SIMPLE_BLOCK, BLOCK):
            blocks.append((at, length))
    for at, length in blocks:
        _block(blob, at, length, base, found)


def _block(blob: Blob, at: int, length: int, base: int, found: Matroska) -> None:
    head = blob.read(at, min(length, 12))
    number, used = _vint(head, 0)
    if len(head) < used + 3:
        raise Damaged("a block without a header")
    relative = int.from_bytes(head[used : used + 2], "big", signed=True)
    track = found.tracks.get(number)
    if track is None:
        return
    if head[used + 2] & LACING:
        raise Damaged("laced blocks")  # of sound only; no picture is ever laced
    track.ticks.append(base + relative)
    track.places.append((at + used + 3, length - used - 3))


def _check_in_place(blob: Blob, size: int) -> None:
    """Raises Damaged when the payload that begins here is led by a CRC-32 that is not its own."""
    start = blob.at
    head = blob.read(start, min(6, size))
    if len(head) == 6 and head[:2] == b"\xbf\x84":
        checksum, at = 0, start + 6
        while at < start + size:
            data = blob.read(at, min(SEARCH_STEP, start + size - at))
            checksum, at = zlib.crc32(data, checksum), at + len(data)
        if checksum != int.from_bytes(head[2:], "little"):
            blob.at = start + size
            raise Damaged("checksum")


def _checked(data: bytes) -> bytes:
    if data[:2] == b"\xbf\x84" and zlib.crc32(data[6:]) != int.from_bytes(data[2:6], "little"):
        raise Damaged("checksum of the headers")
    return data


def _find_cluster(blob: Blob, start: int) -> bool:
    """Go to the next cluster from ``start`` on; False when there is none near."""
    magic = CLUSTER.to_bytes(4, "big")
    end = min(blob.size, start + MAX_SEARCH)
    while start < end:
        data = blob.read(start, min(SEARCH_STEP + 3, blob.size - start))
        at = data.find(magic)
        if at >= 0:
            blob.at = start + at
            return True
        start += SEARCH_STEP
    return False


def _element(blob: Blob) -> tuple[int, int | None]:
    """(id with its marker bits, length or None when unknown) of the element that begins here."""
    head = blob.read(blob.at, min(12, blob.size - blob.at))
    if not head or head[0] < 0x10:
        raise Damaged("not an element") if head else CutShort
    id_bytes = 9 - head[0].bit_length()
    if len(head) <= id_bytes:
        raise CutShort
    value, used = _vint(head, id_bytes)
    is_unknown = value == (1 << (7 * (used - id_bytes))) - 1
    blob.at += used
    return int.from_bytes(head[:id_bytes], "big"), None if is_unknown else value


def _vint(data: bytes, at: int) -> tuple[int, int]:
    """(number, where the next byte is) of a length that tells its own length."""
    if at >= len(data):
        raise CutShort
    if not data[at]:
        raise Damaged("a length of more than eight bytes")
    count = 9 - data[at].bit_length()
    if at + count > len(data):
        raise CutShort
    return int.from_bytes(data[at : at + count], "big") & ((1 << (7 * count)) - 1), at + count


def _children(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(id, payload) of each element in ``data``.  Raises Damaged when they do not fill it."""
    at = 0
    while at < len(data):
        id_bytes = 9 - data[at].bit_length()
        if not 1 <= id_bytes <= 4 or at + id_bytes > len(data):
            raise Damaged("not an element")
        kind = int.from_bytes(data[at : at + id_bytes], "big")
        try:
            size, at = _vint(data, at + id_bytes)
        except CutShort:
            raise Damaged("an element without a length") from None
        if at + size > len(data):
            raise Damaged("an element longer than its parent")
        yield kind, data[at : at + size]
        at += size


def _number(payload: bytes) -> int:
    return int.from_bytes(payload[:8], "big")


def _text(payload: bytes) -> str:
    return payload[:1000].decode("utf-8", "replace").rstrip("\0")
