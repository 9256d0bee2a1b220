"""LZFSE, Apple's compression, decoded: bytes in, bytes out.  It has no checksum.

Layout: the reference implementation's description (github.com/lzfse/lzfse): blocks named by four letters, uncompressed
("bvx-"), LZVN ("bvxn") or entropy-coded ("bvx2"), and an end ("bvx$").  An entropy-coded block holds literals in four
interleaved streams, and triples (literals to copy, match length, distance), all by finite state entropy, read from the
back.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numba import njit

from capture.importers.timed import Damaged

# Symbols and states of the tables of literal lengths, match lengths, distances and literals.
SYMBOLS, STATES = (20, 20, 64, 256), (64, 64, 256, 1024)
LENGTH_BITS = np.array([0] * 16 + [2, 3, 5, 8], np.int64)
MATCH_BITS = np.array([0] * 16 + [3, 5, 8, 11], np.int64)
DISTANCE_BITS = np.repeat(np.arange(16), 4).astype(np.int64)
MAX_LITERALS = 40000
HEADER_BYTES = 32
FREQUENCY_BITS = np.array([2, 3, 2, 5, 2, 3, 2, 8, 2, 3, 2, 5, 2, 3, 2, 14] * 2, np.int64)
FREQUENCIES = np.array(
    [0, 2, 1, 4, 0, 3, 1, -1, 0, 2, 1, 5, 0, 3, 1, -1, 0, 2, 1, 6, 0, 3, 1, -1, 0, 2, 1, 7, 0, 3, 1, -1]
)


def _bases(bits: np.ndarray) -> np.ndarray:
    """The first value of each symbol, where symbol i covers 2 ** bits[i] values."""
    return np.concatenate([[0], np.cumsum(1 << bits)[:-1]]).astype(np.int64)


def decompress(data: bytes, size: int) -> bytes:
    """``size`` bytes of an LZFSE stream.  Raises Damaged for any other size, and for what is no such stream."""
    source = np.frombuffer(data, np.uint8)
    out, filled, at = np.empty(size, np.uint8), 0, 0
    try:
        while True:
            kind = data[at : at + 4]
            if kind == b"bvx$":
                break
            (count,) = struct.unpack_from("<I", data, at + 4)
            if filled + count > size:
                raise Damaged("LZFSE stream is longer than its picture")
            if kind == b"bvx-":
                at += 8
                out[filled : filled + count] = source[at : at + count]
                at, reached = at + count, filled + count
            elif kind == b"bvxn":
                (packed,) = struct.unpack_from("<I", data, at + 8)
                at += 12
                reached = _lzvn(source[at : at + packed], out, filled, filled + count)
                at += packed
            elif kind == b"bvx2":
                reached, at = _entropy_coded(data, source, at, out, filled, count)
            else:
                raise Damaged(f"LZFSE block {kind!r}")
            if reached != filled + count or at > len(data):
                raise Damaged("LZFSE block is damaged")
            filled = reached
    except (struct.error, ValueError, IndexError) as error:
        raise Damaged(f"LZFSE stream ends early ({error})") from None
    if filled != size:
        raise Damaged(f"LZFSE stream of {filled} bytes, not {size}")
    return out.tobytes()


def _entropy_coded(
    data: bytes, source: np.ndarray, at: int, out: np.ndarray, filled: int, count: int
) -> tuple[int, int]:
    """(where the output ends, -1 for a damaged block; where the next block begins)."""
    first, second, third = struct.unpack_from("<3Q", data, at + 8)
    num_literals, literal_bytes, num_triples = first & 0xFFFFF, first >> 20 & 0xFFFFF, first >> 40 & 0xFFFFF
    literal_states = np.array([second >> shift & 0x3FF for shift in (0, 10, 20, 30)], np.int64)
    triple_bytes, header_bytes = second >> 40 & 0xFFFFF, third & 0xFFFFFFFF
    triple_states = np.array([third >> shift & 0x3FF for shift in (32, 42, 52)], np.int64)
    if num_literals > MAX_LITERALS or num_literals % 4 or header_bytes < HEADER_BYTES:
        raise Damaged("LZFSE header")
    start = at + header_bytes
    end = start + literal_bytes + triple_bytes
    if end > len(data) or (triple_states >= STATES[:3]).any():
        raise Damaged("LZFSE block ends early")
    tables = _tables(source[at + HEADER_BYTES : start])
    literals = np.empty(num_literals, np.uint8)
    spare_bits = (int(first >> 60 & 7) - 7, int(second >> 60 & 7) - 7)
    middle = start + literal_bytes
    if not _read_literals(source[start:middle], spare_bits[0], tables[3], literal_states, literals):
        raise Damaged("LZFSE literals")
    reached = _read_triples(
        source[middle:end],
        spare_bits[1],
        tables[0],
        tables[1],
        tables[2],
        triple_states,
        num_triples,
        literals,
        out,
        filled,
        filled + count,
    )
    return reached, end


def _tables(packed: np.ndarray) -> list[np.ndarray]:
    """Decoder tables (states, 5) int64 of symbol, bits, base of the next state, extra bits, first value."""
    counts = np.zeros(sum(SYMBOLS), np.int64)
    if len(packed) and not _read_frequencies(packed, counts):
        raise Damaged("LZFSE frequencies")
    tables, start = [], 0
    extras = (LENGTH_BITS, MATCH_BITS, DISTANCE_BITS, np.zeros(256, np.int64))
    for symbols, states, extra in zip(SYMBOLS, STATES, extras, strict=True):
        frequencies = counts[start : start + symbols]
        start += symbols
        if frequencies.sum() > states:
            raise Damaged("LZFSE frequencies")
        first = _bases(extra) if extra.any() else np.arange(symbols)
        tables.append(_table(states, frequencies, extra, first))
    return tables


@njit(cache=True, nogil=True)
def _read_frequencies(packed: np.ndarray, counts: np.ndarray) -> bool:
    """Fill ``counts`` from the packed prefix code; False when bits are missing."""
    value, bits, at = np.uint64(0), 0, 0
    for i in range(len(counts)):
        while bits < 14 and at < len(packed):
            value |= np.uint64(packed[at]) << np.uint64(bits)
            bits, at = bits + 8, at + 1
        key = np.int64(value & np.uint64(31))
        used = FREQUENCY_BITS[key]
        if used > bits:
            return False
        if used == 8:
            counts[i] = 8 + np.int64((value >> np.uint64(4)) & np.uint64(15))
        elif used == 14:
            counts[i] = 24 + np.int64((value >> np.uint64(4)) & np.uint64(1023))
        else:
            counts[i] = FREQUENCIES[key]
        value >>= np.uint64(used)
        bits -= used
    return bits < 8 and at == len(packed)


@njit(cache=True, nogil=True)
def _table(states: int, frequencies: np.ndarray, extra: np.ndarray, first: np.ndarray) -> np.ndarray:
    """One row per state; rows that no symbol owns have symbol -1."""
    table = np.full((states, 5), -1, np.int64)
    row = 0
    for symbol in range(len(frequencies)):
        count = frequencies[symbol]
        if count == 0:
            continue
        shift = 0
        while (count << (shift + 1)) < 2 * states:
            shift += 1
        if (count << shift) < states:
            shift += 1
        split = ((2 * states) >> shift) - count
        for j in range(count):
            table[row, 0] = symbol
            if j < split:
                table[row, 1], table[row, 2] = shift, ((count + j) << shift) - states
            else:
                table[row, 1], table[row, 2] = shift - 1, (j - split) << (shift - 1)
            table[row, 3], table[row, 4] = extra[symbol], first[symbol]
            row += 1
    return table


@njit(cache=True, nogil=True)
def _bits(stream: np.ndarray, position: int, count: int) -> int:
    """``count`` bits from bit ``position`` on, the least significant first."""
    value: Any = 0  # numba counts in 64 bits
    byte = position >> 3
    have = -(position & 7)
    while have < count:
        if have < 0:
            value = np.int64(stream[byte]) >> (position & 7)
            have += 8
        else:
            value |= np.int64(stream[byte]) << have
            have += 8
        byte += 1
    return value & ((np.int64(1) << count) - 1)


@njit(cache=True, nogil=True)
def _read_literals(stream: np.ndarray, spare: int, table: np.ndarray, states: np.ndarray, literals: np.ndarray) -> bool:
    position = 8 * len(stream) + spare
    for i in range(len(literals)):
        entry = table[states[i & 3]]
        position -= entry[1]
        if entry[0] < 0 or position < 0:
            return False
        literals[i] = entry[0]
        states[i & 3] = entry[2] + _bits(stream, position, entry[1])
    return True


@njit(cache=True, nogil=True)
def _read_triples(
    stream: np.ndarray, spare: int,
    lengths: np.ndarray, matches: np.ndarray, distances: np.ndarray, states: np.ndarray,
    num_triples: int, literals: np.ndarray, out: np.ndarray, filled: int, end: int,
) -> int:  # fmt: skip
    """Where the output ends, -1 for a damaged block."""
    position, taken, distance = 8 * len(stream) + spare, 0, 0
    values = np.zeros(3, np.int64)
    for _ in range(num_triples):
        for k in range(3):
            table = lengths if k == 0 else matches if k == 1 else distances
            entry = table[states[k]]
            position -= entry[1] + entry[3]
            if entry[0] < 0 or position < 0:
                return -1
            both = _bits(stream, position, entry[1] + entry[3])
            values[k] = entry[4] + (both & ((np.int64(1) << entry[3]) - 1))
            states[k] = entry[2] + (both >> entry[3])
        if values[2]:
            distance = values[2]
        if taken + values[0] > len(literals) or filled + values[0] + values[1] > end:
            return -1
        for _literal in range(values[0]):
            out[filled] = literals[taken]
            filled, taken = filled + 1, taken + 1
        if values[1] and (distance == 0 or distance > filled):
            return -1
        for _match in range(values[1]):
            out[filled] = out[filled - distance]
            filled += 1
    return filled


@njit(cache=True, nogil=True)
def _lzvn(source: np.ndarray, out: np.ndarray, filled: int, end: int) -> int:
    """Where the output of an LZVN block ends, -1 for a damaged one."""
    at: Any = 0
    distance: Any = 0
    last = len(source)
    while at < last:
        code = np.int64(source[at])
        following = np.int64(source[at + 1]) if at + 1 < last else 0
        third = np.int64(source[at + 2]) if at + 2 < last else 0
        literals: Any = 0
        match: Any = 0
        used: Any = 1
        if code == 0x06:
            return filled
        if code == 0x0E or code == 0x16:
            at += 1
            continue
        if code >= 0xF0:
            match, used = (following + 16, 2) if code == 0xF0 else (code & 15, 1)
        elif code >= 0xE0:
            literals, used = (following + 16, 2) if code == 0xE0 else (code & 15, 1)
        elif (code & 0xF0) == 0x70 or (code & 0xF0) == 0xD0:
            return -1
        elif (code & 0xE0) == 0xA0:
            literals, used = (code >> 3) & 3, 3
            match = (((code & 7) << 2) | (following & 3)) + 3
            distance = (following >> 2) | (third << 6)
        else:
            literals, match = code >> 6, ((code >> 3) & 7) + 3
            if (code & 7) == 7:
                distance, used = following | (third << 8), 3
            elif (code & 7) == 6:
                if literals == 0:
                    return -1
            else:
                distance, used = ((code & 7) << 8) | following, 2
        at += used
        if at + literals > last or filled + literals + match > end:
            return -1
        for _literal in range(literals):
            out[filled] = source[at]
            filled, at = filled + 1, at + 1
        if match and (distance == 0 or distance > filled):
            return -1
        for _match in range(match):
            out[filled] = out[filled - distance]
            filled += 1
    return -1
