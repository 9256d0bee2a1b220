"""Reading a foreign binary file: nothing is believed that the file's length contradicts."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from capture.errors import UserError
from capture.importers.timed import MAX_FRAME_BYTES, Damaged


class CutShort(Exception):
    """The file ends before what it announces."""


class Blob:
    """A file that is read at offsets.  ``at`` is where the next ``take`` reads."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size, self.at = file, size, 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes.  Raises CutShort when the file has fewer."""
        data = self.read(self.at, count)
        self.at += count
        return data

    def unpack(self, form: str) -> tuple[Any, ...]:
        """The next little-endian fields.  Raises CutShort."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def skip(self, count: int) -> int:
        """Where the skipped ``count`` bytes begin.  Raises CutShort when the file has fewer."""
        start = self.at
        if count < 0 or start + count > self.size:
            raise CutShort
        self.at += count
        return start

    def read(self, start: int, count: int) -> bytes:
        """``count`` bytes from ``start``.  Raises CutShort when they are not there."""
        if count < 0 or count > MAX_FRAME_BYTES or start + count > self.size:
            raise CutShort
        self._file.seek(start)
        data = self._file.read(count)
        if len(data) != count:
            raise CutShort
        return data


@contextmanager
def opened(path: Path) -> Iterator[Blob]:
    """A file for reading.  Raises UserError when it cannot be opened or read."""
    try:
        with open(path, "rb") as file:
            yield Blob(file, path.stat().st_size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except CutShort:
        raise UserError(f"{path}: ends in the middle of its header; copy it again") from None


def begins_with(path: Path, magic: bytes) -> bool:
    """Whether a file begins with ``magic``; False for what cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


def inflate(data: bytes, size: int) -> bytes:
    """``size`` bytes of a zlib stream.  Raises Damaged for any other size, and for a wrong checksum."""
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(data, size + 1)
        if len(raw) == size and not stream.eof:  # the checksum comes last
            raw += stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise Damaged(str(error)) from None
    if len(raw) != size or not stream.eof:
        raise Damaged(f"zlib stream of {len(raw)} bytes, not {size}")
    return raw
