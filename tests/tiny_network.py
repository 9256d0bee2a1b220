"""A network of three operators as an ONNX file, written byte by byte: the format is protocol buffers.

Field numbers: github.com/onnx/onnx, onnx/onnx.proto.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_network(path: Path, weights: tuple[float, float, float], bias: float, side_px: int = 32) -> Path:
    """sigmoid(weights . pixel + bias): pictures (1, 3, S, S) in, maps (1, 1, S, S) out, as u2net's."""
    nodes = _node("Conv", ["picture", "weights", "bias"], "score") + _node("Sigmoid", ["score"], "map")
    tensors = _tensor("weights", np.array(weights, np.float32).reshape(1, 3, 1, 1)) + _tensor(
        "bias", np.array([bias], np.float32)
    )
    ends = _message(11, _end("picture", (1, 3, side_px, side_px))) + _message(12, _end("map", (1, 1, side_px, side_px)))
    graph = nodes + _text(2, "tiny") + tensors + ends
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_number(1, 8) + _message(7, graph) + _message(8, _text(1, "") + _number(2, 13)))
    return path


def _node(kind: str, inputs: list[str], output: str) -> bytes:
    return _message(1, b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(4, kind))


def _tensor(name: str, values: np.ndarray) -> bytes:
    sizes = b"".join(_number(1, size) for size in values.shape)
    return _message(5, sizes + _number(2, 1) + _text(8, name) + _message(9, values.tobytes()))


def _end(name: str, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(_message(1, _number(1, size)) for size in shape)
    return _text(1, name) + _message(2, _message(1, _number(1, 1) + _message(2, sizes)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])
