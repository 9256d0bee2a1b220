"""LZ4 frames, as ROS bags use them: bytes in, bytes out, checksums checked.

Layout: the LZ4 frame and block format descriptions (github.com/lz4/lz4, doc/) and xxHash's (XXH32).
"""

from __future__ import annotations

import struct

import numpy as np
from numba import njit

from capture.importers.timed import Damaged

MAGIC = 0x184D2204
BLOCK_BYTES = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}
IS_STORED = 0x80000000
HAS_DICTIONARY, HAS_CHECKSUM, HAS_SIZE, HAS_BLOCK_CHECKSUMS = 0x01, 0x04, 0x08, 0x10
PRIMES = tuple(np.uint32(p) for p in (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1))


def decompress(data: bytes, size: int) -> bytes:
    """``size`` bytes of an LZ4 frame.  Raises Damaged for any other size, and for a wrong checksum."""
    try:
        return _frame(data, size)
    except (struct.error, IndexError) as error:
        raise Damaged(f"LZ4 frame ends early ({error})") from None


def _frame(data: bytes, size: int) -> bytes:
    magic, flags, block_kind = struct.unpack_from("<IBB", data)
    if magic != MAGIC or flags >> 6 != 1 or flags & HAS_DICTIONARY or block_kind >> 4 not in BLOCK_BYTES:
        raise Damaged("not an LZ4 frame of version 1")
    at = 6 + (8 if flags & HAS_SIZE else 0)
    if data[at] != (xxh32(data[4:at]) >> 8) & 0xFF:
        raise Damaged("checksum of the LZ4 frame's header")
    at += 1
    out, filled = np.empty(size, np.uint8), 0
    while True:
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if not length:
            break
        stored, length = bool(length & IS_STORED), length & ~IS_STORED
        block = data[at : at + length]
        if len(block) != length or length > BLOCK_BYTES[block_kind >> 4]:
            raise Damaged("LZ4 block ends early")
        at += length
        if flags & HAS_BLOCK_CHECKSUMS:
            if struct.unpack_from("<I", data, at)[0] != xxh32(block):
                raise Damaged("checksum of an LZ4 block")
            at += 4
        if stored:
            if filled + length > size:
                raise Damaged("LZ4 frame is longer than its chunk")
            out[filled : filled + length] = np.frombuffer(block, np.uint8)
            filled += length
        else:
            filled = _block(np.frombuffer(block, np.uint8), out, filled)
            if filled < 0:
                raise Damaged("LZ4 block is damaged")
    raw = out.tobytes()
    if filled != size:
        raise Damaged(f"LZ4 frame of {filled} bytes, not {size}")
    if flags & HAS_CHECKSUM and struct.unpack_from("<I", data, at)[0] != xxh32(raw):
        raise Damaged("checksum of the LZ4 frame")
    return raw


@njit(cache=True, nogil=True)
def _more(source: np.ndarray, at: np.int64) -> tuple[np.int64, np.int64]:
    """(where the rest of a length ends, that rest): bytes add up until one is not 255; (-1, 0) where they run out."""
    total, part = np.int64(0), np.int64(255)
    while part == 255:
        if at >= len(source):
            return np.int64(-1), np.int64(0)
        part = np.int64(source[at])
        at += np.int64(1)
        total += part
    return at, total


@njit(cache=True, nogil=True)
def _block(source: np.ndarray, out: np.ndarray, filled: int) -> int:
    """Where the output ends after one block, -1 for a damaged one.  Matches may reach into the blocks before."""
    at, end = np.int64(0), len(source)
    while at < end:
        token = source[at]
        at += np.int64(1)
        literals = np.int64(token >> 4)
        if literals == 15:
            at, more = _more(source, at)
            if at < 0:
                return -1
            literals += more
        if at + literals > end or filled + literals > len(out):
            return -1
        out[filled : filled + literals] = source[at : at + literals]
        at += literals
        filled += int(literals)
        if at == end:
            return filled
        if at + 2 > end:
            return -1
        distance = source[at] | (np.int64(source[at + 1]) << 8)
        at += np.int64(2)
        match = np.int64(token & 15)
        if match == 15:
            at, more = _more(source, at)
            if at < 0:
                return -1
            match += more
        match += 4
        if distance == 0 or distance > filled or filled + match > len(out):
            return -1
        for i in range(filled, filled + match):
            out[i] = out[i - distance]
        filled += int(match)
    return -1


def xxh32(data: bytes) -> int:
    """xxHash's 32-bit checksum with seed 0."""
    return int(_xxh32(np.frombuffer(data, np.uint8)))


@njit(cache=True, nogil=True)
def _rotated(value: np.uint32, by: int) -> np.uint32:
    return np.uint32((value << np.uint32(by)) | (value >> np.uint32(32 - by)))


@njit(cache=True, nogil=True)
def _word(data: np.ndarray, at: int) -> np.uint32:
    word = np.uint32(data[at]) | (np.uint32(data[at + 1]) << np.uint32(8))
    return np.uint32(word | (np.uint32(data[at + 2]) << np.uint32(16)) | (np.uint32(data[at + 3]) << np.uint32(24)))


@njit(cache=True, nogil=True)
def _xxh32(data: np.ndarray) -> np.uint32:
    p1, p2, p3, p4, p5 = PRIMES
    at, end = 0, len(data)
    if end >= 16:
        lanes = np.array([np.uint32(p1 + p2), p2, np.uint32(0), np.uint32(np.uint32(0) - p1)], np.uint32)
        while at + 16 <= end:
            for i in range(4):
                lanes[i] = np.uint32(_rotated(np.uint32(lanes[i] + _word(data, at) * p2), 13) * p1)
                at += 4
        total = _rotated(lanes[0], 1) + _rotated(lanes[1], 7) + _rotated(lanes[2], 12) + _rotated(lanes[3], 18)
    else:
        total = p5
    value = np.uint32(total + np.uint32(end))
    while at + 4 <= end:
        value = np.uint32(_rotated(np.uint32(value + _word(data, at) * p3), 17) * p4)
        at += 4
    while at < end:
        value = np.uint32(_rotated(np.uint32(value + np.uint32(data[at]) * p5), 11) * p1)
        at += 1
    value = np.uint32((value ^ (value >> np.uint32(15))) * p2)
    value = np.uint32((value ^ (value >> np.uint32(13))) * p3)
    return np.uint32(value ^ (value >> np.uint32(16)))
