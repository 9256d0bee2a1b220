"""All frames of a recording in one append-only file that no crash can spoil.

N frames.  Byte by byte in ``docs/formats.md``: a signature, a head with the calibration, a record per frame, and, once
finished, a tail with an index.  Every part carries a CRC-32.  Whatever was written completely before a crash is read;
what was torn is left out and reported.  There is no clock in it: the same frames give the same bytes.

What is acknowledged: ``ContainerWriter.num_synced`` frames were forced to the disk and survive a power cut.  That
happens with the first frame that is SYNC_S after the last time, and at the end.  What was written after it survives the
death of the process, not that of the machine.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capture.errors import UserError

FILE_NAME = "frames.cap"
SIGNATURE = b"ANRCAP1\n"
MAGIC = b"ANRr"
HEAD, FRAME, TAIL = 1, 2, 3  # kinds of records
OTHER, JPEG, PNG = 0, 1, 2  # kinds of pictures
SUFFIXES = {OTHER: "bin", JPEG: "jpg", PNG: "png"}
RECORD = struct.Struct("<4sBB2xIIIIId")  # magic, kinds, number, bytes and CRC of part one, of part two, time in s
CRC = struct.Struct("<I")
TRAILER = struct.Struct("<Q8s")  # where the tail begins
TRAILER_MAGIC = b"ANRCAPE\n"
INDEX = np.dtype([
    ("offset", "<u8"), ("time_s", "<f8"), ("color_bytes", "<u4"), ("color_crc", "<u4"), ("depth_bytes", "<u4"),
    ("depth_crc", "<u4"), ("picture", "<u4"),
])  # fmt: skip
SYNC_S = 1.0
RECORD_BYTES = RECORD.size + CRC.size
MAX_JSON_BYTES = 64_000_000
MAX_FRAMES = 10_000_000


class ContainerWriter:
    """Appends frames to a new container; an existing file is replaced."""

    def __init__(self, path: Path, fields: dict[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        """``fields`` is what can be said before the first frame: the rig, the source.  Raises OSError."""
        self._clock, self._path = clock, path
        self._entries: list[tuple[float | int, ...]] = []
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115  lives as long as the recording
        self._end = 0
        self.num_synced = 0
        try:
            self._append(SIGNATURE + _record(HEAD, 0, json.dumps(fields, sort_keys=True).encode()))
            self.sync()
        except OSError:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """What the file holds so far."""
        return self._end

    def append(self, time_s: float, color: bytes, depth: bytes = b"") -> None:
        """Add a frame: the bytes of a picture file, and of an encoded depth image.

        Raises OSError when the disk refuses; the file then ends with the last whole frame.
        """
        picture = PNG if color.startswith(b"\x89PNG") else JPEG if color.startswith(b"\xff\xd8") else OTHER
        entry = (self._end, time_s, len(color), zlib.crc32(color), len(depth), zlib.crc32(depth), picture)
        self._append(_record(FRAME, len(self._entries), color, depth, time_s, picture))
        self._entries.append(entry)
        if self._clock() - self._synced_s >= SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Force everything so far to the disk.  Raises OSError."""
        os.fsync(self._file.fileno())
        self.num_synced, self._synced_s = len(self._entries), self._clock()

    def finish(self, fields: dict[str, Any]) -> None:
        """Add ``fields`` and the index, and close.  Raises OSError; the frames can be read without the tail, too."""
        tail = self._end
        index = np.array(self._entries, INDEX).tobytes()
        try:
            data = _record(TAIL, len(self._entries), json.dumps(fields, sort_keys=True).encode(), index)
            self._append(data + TRAILER.pack(tail, TRAILER_MAGIC))
            self.sync()
        finally:
            self._file.close()

    def close(self) -> None:
        """Close without a tail."""
        self._file.close()

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            self._file.truncate(self._end)  # leave no half a record behind; shrinking needs no room
            self._file.seek(self._end)
            raise
        self._end += len(data)


@dataclass(frozen=True)
class Container:
    """An open container: where everything is.  Keeps no file handle, so that it can be sent to other processes."""

    path: Path
    fields: dict[str, Any]  # of the head and, where it was finished, of the tail
    index: np.ndarray  # (N,) INDEX
    is_finished: bool  # False: it breaks off, and the index comes from reading the records
    torn_bytes: int = 0  # after the last whole frame of one that breaks off

    def __len__(self) -> int:
        return len(self.index)

    @staticmethod
    def open(path: Path) -> Container:
        """Read the index, or the records where there is none.  Raises UserError when it is no container of ours."""
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if file.read(len(SIGNATURE)) != SIGNATURE:
                    raise UserError(f"{path}: not a recording of ours; copy it again")
                head = _read_record(file, len(SIGNATURE), size)
                if head is None or head.kind != HEAD:
                    raise UserError(f"{path}: its first bytes are damaged or missing; copy it again")
                fields = _json(head.one, path)
                found = _indexed(file, size, path)
                if found is not None:
                    return Container(path, {**fields, **found[0]}, found[1], True)
                index, end = _scanned(file, head.end, size)
                tail = _read_record(file, end, size)
                if tail is not None and tail.kind == TAIL and tail.number == len(index):  # only what follows is torn
                    return Container(path, {**fields, **_json(tail.one, path)}, index, True)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); is the recording complete?") from None
        return Container(path, fields, index, False, size - end)

    def suffix(self, index: int) -> str:
        """What a frame's picture file would be called."""
        return SUFFIXES.get(int(self.index["picture"][index]), SUFFIXES[OTHER])

    def color(self, index: int) -> bytes:
        """The picture file of a frame.  Raises UserError when it is damaged."""
        entry = self.index[index]
        return self._part(index, int(entry["offset"]) + RECORD_BYTES, entry["color_bytes"], entry["color_crc"])

    def depth(self, index: int) -> bytes:
        """The encoded depth of a frame, empty where it has none.  Raises UserError when it is damaged."""
        entry = self.index[index]
        start = int(entry["offset"]) + RECORD_BYTES + int(entry["color_bytes"])
        return self._part(index, start, entry["depth_bytes"], entry["depth_crc"])

    def _part(self, index: int, start: int, length: int, crc: int) -> bytes:
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(start)
                data = file.read(int(length)) if length else b""
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}); is the recording complete?") from None
        if len(data) != length or zlib.crc32(data) != crc:
            raise UserError(f"{self.path}: frame {index} is damaged; copy the recording again")
        return data


def is_container(path: Path) -> bool:
    """Whether a file begins like one."""
    try:
        with open(path, "rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


def complete(path: Path, fields: dict[str, Any]) -> int:
    """Give a container that breaks off its tail, in place of what was torn; returns its number of frames.

    A finished one is left as it is.  Raises UserError when it is no container, OSError when the disk refuses.
    """
    found = Container.open(path)
    if found.is_finished:
        return len(found)
    with open(path, "r+b", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size - found.torn_bytes
        file.truncate(end)
        file.seek(end)
        head = json.dumps(fields, sort_keys=True).encode()
        data = memoryview(_record(TAIL, len(found), head, found.index.tobytes()) + TRAILER.pack(end, TRAILER_MAGIC))
        while data:
            data = data[file.write(data) :]
        os.fsync(file.fileno())
    return len(found)


@dataclass(frozen=True)
class _Record:
    kind: int
    picture: int
    number: int
    time_s: float
    one: bytes
    two: bytes
    crcs: tuple[int, int]
    end: int


def _record(kind: int, number: int, one: bytes, two: bytes = b"", time_s: float = 0.0, picture: int = 0) -> bytes:
    head = RECORD.pack(MAGIC, kind, picture, number, len(one), zlib.crc32(one), len(two), zlib.crc32(two), time_s)
    return b"".join((head, CRC.pack(zlib.crc32(head)), one, two))


def _read_record(file: Any, start: int, size: int) -> _Record | None:
    """The record at ``start``; None when it is torn or damaged.  Lengths are believed once their CRC is right."""
    file.seek(start)
    head = file.read(RECORD_BYTES)
    if len(head) < RECORD_BYTES or CRC.unpack_from(head, RECORD.size)[0] != zlib.crc32(head[: RECORD.size]):
        return None
    magic, kind, picture, number, one_bytes, one_crc, two_bytes, two_crc, time_s = RECORD.unpack_from(head)
    end = start + RECORD_BYTES + one_bytes + two_bytes
    if magic != MAGIC or end > size:
        return None
    one, two = file.read(one_bytes), file.read(two_bytes)
    if zlib.crc32(one) != one_crc or zlib.crc32(two) != two_crc:
        return None
    return _Record(kind, picture, number, time_s, one, two, (one_crc, two_crc), end)


def _indexed(file: Any, size: int, path: Path) -> tuple[dict[str, Any], np.ndarray] | None:
    """(fields, index) of the tail, None where there is none or it is damaged."""
    if size < len(SIGNATURE) + TRAILER.size:
        return None
    file.seek(size - TRAILER.size)
    offset, magic = TRAILER.unpack(file.read(TRAILER.size))
    if magic != TRAILER_MAGIC or not len(SIGNATURE) <= offset < size:
        return None
    tail = _read_record(file, offset, size)
    if tail is None or tail.kind != TAIL or tail.end != size - TRAILER.size:
        return None
    if len(tail.two) != tail.number * INDEX.itemsize:
        return None
    index = np.frombuffer(tail.two, INDEX)
    is_inside = index["offset"] <= offset
    ends = index["offset"][is_inside] + RECORD_BYTES + index["color_bytes"][is_inside] + index["depth_bytes"][is_inside]
    if not is_inside.all() or (len(ends) and int(ends.max()) > offset):
        raise UserError(f"{path}: its index points outside of the file; copy it again")
    return _json(tail.one, path), index


def _scanned(file: Any, start: int, size: int) -> tuple[np.ndarray, int]:
    """(index, where the last whole frame ends) from reading all records; ends before the first that is torn."""
    entries: list[tuple[float | int, ...]] = []
    while len(entries) < MAX_FRAMES:
        found = _read_record(file, start, size)
        if found is None or found.kind != FRAME or found.number != len(entries):
            break
        entry = (start, found.time_s, len(found.one), found.crcs[0], len(found.two), found.crcs[1], found.picture)
        entries.append(entry)
        start = found.end
    return np.array(entries, INDEX), start


def _json(data: bytes, path: Path) -> dict[str, Any]:
    try:
        if len(data) > MAX_JSON_BYTES:
            raise ValueError("too long")
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its description cannot be read ({error}); copy it again") from None
    return fields
