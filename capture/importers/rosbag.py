"""ROS 1 bags, version 2.0: connections and messages, indexed by reading them once from front to back.

Layout: wiki.ros.org/Bags/Format/2.0 and the messages' definitions (sensor_msgs, geometry_msgs, tf2_msgs).  A bag whose
recorder was killed has no index at its end; none is needed here.
"""

from __future__ import annotations

import bz2
import logging
import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from capture.importers.blob import Blob, CutShort
from capture.importers.timed import Damaged

log = logging.getLogger(__name__)

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, BAG_HEADER, INDEX, CHUNK, CHUNK_INFO, CONNECTION = 2, 3, 4, 5, 6, 7
MAX_HEADER = 1_000_000  # a connection's header holds its message definition
MAX_CHUNK = 256_000_000  # recorders close a chunk at 768 kB, or after one picture
KEPT_CHUNKS = 4  # colour and depth of one moment lie in neighbouring chunks
IMAGE, COMPRESSED = "sensor_msgs/Image", "sensor_msgs/CompressedImage"
KEPT_WHOLE = ("sensor_msgs/CameraInfo", "geometry_msgs/Transform", "std_msgs/Float32", "tf2_msgs/TFMessage")
KEPT_MESSAGES = 100  # of a topic that never changes


@dataclass(frozen=True)
class Place:
    """Where a message lies: in the file itself, or in an unpacked chunk."""

    start: int
    count: int
    chunk: tuple[int, int, int, str] | None = None  # start, bytes, bytes when unpacked, compression


@dataclass
class Topic:
    """The messages of one topic.  Small ones are kept, pictures are only found."""

    name: str
    kind: str
    times_s: list[float] = field(default_factory=list)  # when it was taken, or recorded where it does not say
    places: list[Place] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)


class Bag:
    """An indexed bag.  ``damage`` counts chunks that could not be read; ``breaks_off`` says it ends too early."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._unpacked: OrderedDict[int, bytes] = OrderedDict()
        self._by_connection: dict[int, Topic] = {}
        self.topics: dict[str, Topic] = {}
        self.damage, self.breaks_off = 0, False
        if blob.take(len(MAGIC)) != MAGIC:
            raise Damaged("not a bag of version 2.0")
        try:
            while blob.at < blob.size:
                self._record()
        except CutShort:
            self.breaks_off = True

    def read(self, place: Place) -> bytes:
        """The bytes of a message.  Raises Damaged."""
        try:
            if place.chunk is None:
                return self._blob.read(place.start, place.count)
            return self._chunk(place.chunk)[place.start : place.start + place.count]
        except CutShort:
            raise Damaged("it ends there") from None

    def _record(self) -> None:
        try:
            fields = _fields(self._blob.take(self._length(MAX_HEADER)))
        except Damaged:
            raise CutShort from None
        count = self._length(self._blob.size)
        kind = _byte(fields, b"op")
        if kind < 0:
            raise CutShort  # no record, as the zeros that a file system leaves where writing ended
        start = self._blob.skip(count)
        try:
            if kind == CHUNK:
                self._index_chunk(fields, start, count)
            elif kind == CONNECTION:
                self._connect(fields, self._blob.read(start, count))
            elif kind == MESSAGE:
                self._message(fields, Place(start, count))
        except Damaged as error:
            log.debug("at %d: %s", start, error)
            self.damage += 1

    def _length(self, most: int) -> int:
        (length,) = self._blob.unpack("I")
        if length > most:
            raise CutShort
        return length

    def _index_chunk(self, fields: dict[bytes, bytes], start: int, count: int) -> None:
        size, how = _number(fields, b"size"), fields.get(b"compression", b"").decode("latin-1")
        if size > MAX_CHUNK or count > MAX_CHUNK:
            raise Damaged(f"a chunk of {size} bytes")
        if how == "none":
            if size != count:
                raise Damaged("a chunk of another length than it says")
            for header, at, length in _records(self._blob.read(start, count)):
                self._inner(header, Place(start + at, length))
            return
        chunk = (start, count, size, how)
        for header, at, length in _records(self._chunk(chunk)):
            self._inner(header, Place(at, length, chunk))

    def _inner(self, fields: dict[bytes, bytes], place: Place) -> None:
        kind = _byte(fields, b"op")
        if kind == CONNECTION:
            self._connect(fields, self.read(place))
        elif kind == MESSAGE:
            self._message(fields, place)

    def _chunk(self, chunk: tuple[int, int, int, str]) -> bytes:
        start, count, size, how = chunk
        if start in self._unpacked:
            self._unpacked.move_to_end(start)
            return self._unpacked[start]
        packed = self._blob.read(start, count)
        if how == "bz2":
            raw = _unbzip(packed, size)
        elif how == "lz4":
            from capture.importers.lz4 import decompress

            raw = decompress(packed, size)
        else:
            raise Damaged(f"compression {how[:20]!r}")
        self._unpacked[start] = raw
        while len(self._unpacked) > KEPT_CHUNKS:
            self._unpacked.popitem(last=False)
        return raw

    def _connect(self, fields: dict[bytes, bytes], data: bytes) -> None:
        name = fields.get(b"topic", b"").decode("utf-8", "replace")
        kind = _fields(data).get(b"type", b"").decode("latin-1")
        self._by_connection[_number(fields, b"conn")] = self.topics.setdefault(name, Topic(name, kind))

    def _message(self, fields: dict[bytes, bytes], place: Place) -> None:
        topic = self._by_connection.get(_number(fields, b"conn"))
        if topic is None:
            raise Damaged("a message of no connection")
        seconds, nanoseconds = struct.unpack("<II", fields.get(b"time", b"").ljust(8, b"\0")[:8])
        time_s = seconds + nanoseconds * 1e-9
        if topic.kind in (IMAGE, COMPRESSED):
            stamp_s = self._stamp_s(place)
            topic.times_s.append(stamp_s or time_s)
            topic.places.append(place)
        elif topic.kind in KEPT_WHOLE and len(topic.messages) < KEPT_MESSAGES:
            topic.messages.append(self.read(place))

    def _stamp_s(self, place: Place) -> float:
        """When a picture was taken, 0 where its header does not say."""
        head = self.read(Place(place.start, min(12, place.count), place.chunk))
        if len(head) < 12:
            raise Damaged("a picture without a header")
        _, seconds, nanoseconds = struct.unpack("<III", head)
        return seconds + nanoseconds * 1e-9


def _unbzip(packed: bytes, size: int) -> bytes:
    stream = bz2.BZ2Decompressor()
    try:
        raw = stream.decompress(packed, size + 1)
        while len(raw) <= size and not stream.eof:
            more = stream.decompress(b"", size + 1 - len(raw))
            if not more:
                break
            raw += more
    except (OSError, ValueError, EOFError) as error:
        raise Damaged(str(error)) from None
    if len(raw) != size or not stream.eof:
        raise Damaged(f"bz2 stream of {len(raw)} bytes, not {size}")
    return raw


def _records(data: bytes) -> Iterator[tuple[dict[bytes, bytes], int, int]]:
    """(header fields, start and length of the data) of each record in a chunk.  Raises Damaged."""
    at = 0
    while at < len(data):
        header, at = _counted(data, at)
        body, at = _counted(data, at)
        yield _fields(header), at - len(body), len(body)


def _counted(data: bytes, at: int) -> tuple[bytes, int]:
    """(bytes, where the next are) after a length."""
    if at + 4 > len(data):
        raise Damaged("a record that ends early")
    (count,) = struct.unpack_from("<I", data, at)
    if at + 4 + count > len(data):
        raise Damaged("a record longer than its chunk")
    return data[at + 4 : at + 4 + count], at + 4 + count


def _fields(header: bytes) -> dict[bytes, bytes]:
    fields, at = {}, 0
    while at < len(header):
        item, at = _counted(header, at)
        name, _, value = item.partition(b"=")
        fields[name] = value
    return fields


def _byte(fields: dict[bytes, bytes], name: bytes) -> int:
    return fields[name][0] if fields.get(name) else -1


def _number(fields: dict[bytes, bytes], name: bytes) -> int:
    value = fields.get(name, b"")
    if len(value) != 4:
        raise Damaged(f"no {name.decode()}")
    return int.from_bytes(value, "little")


class Message:
    """The fields of a serialised ROS message, read one after the other.  Raises Damaged where it ends early."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def unpack(self, form: str) -> tuple:
        """Little-endian fields."""
        try:
            values = struct.unpack_from("<" + form, self._data, self._at)
        except struct.error:
            raise Damaged("a message that ends early") from None
        self._at += struct.calcsize("<" + form)
        return values

    def data(self) -> bytes:
        """A counted sequence of bytes."""
        value, self._at = _counted(self._data, self._at)
        return value

    def text(self) -> str:
        """A string."""
        return self.data().decode("utf-8", "replace")

    def header(self) -> tuple[float, str]:
        """(seconds, frame) of a std_msgs/Header."""
        _, seconds, nanoseconds = self.unpack("III")
        return seconds + nanoseconds * 1e-9, self.text()

    def transform(self) -> np.ndarray:
        """(4, 4) of a geometry_msgs/Transform.  Raises Damaged for no rotation."""
        tx, ty, tz, x, y, z, w = self.unpack("7d")
        norm = np.sqrt(x * x + y * y + z * z + w * w)
        if not (np.isfinite([tx, ty, tz]).all() and 0.9 < norm < 1.1):
            raise Damaged("a transform without a rotation")
        x, y, z, w = x / norm, y / norm, z / norm, w / norm
        matrix = np.eye(4)
        matrix[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        matrix[:3, 3] = tx, ty, tz
        return matrix
