"""Read the arrays out of a SMPL .pkl, as a process of its own: ``python -I unpickle.py IN.pkl OUT.npz MAX_BYTES``.

A pickle is a program.  Here it may name a fixed list of classes and nothing else; numpy rebuilds its arrays, chumpy's
and scipy's objects are replaced by boxes that keep their contents without running any of their code.  Memory and
processor time are limited where the system can, because a damaged pickle makes numpy ask for anything.  Imports nothing
of the project, so that it starts clean.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

import numpy as np

MAX_CPU_SECONDS = 120
WANTED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")


class Box:
    """Stands in for a chumpy or scipy object: holds the state, never acts."""

    def __init__(self, *arguments: object) -> None:
        self.state: dict = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("an object with an unexpected state")
        self.state = state


class Chumpy(Box):
    """chumpy.ch.Ch: its value is ``x``."""


class ChumpySelect(Box):
    """chumpy.reordering.Select: entries ``idxs`` of ``a``."""


class Sparse(Box):
    """scipy.sparse.csc_matrix or csr_matrix."""


def _encode(text: str, encoding: str) -> bytes:
    """_codecs.encode as Python 3 uses it in protocol 2 pickles of bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _allowed() -> dict[tuple[str, str], object]:
    from numpy._core import multiarray

    table: dict[tuple[str, str], object] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    for core in ("numpy.core", "numpy._core"):
        table[(f"{core}.multiarray", "_reconstruct")] = multiarray._reconstruct
        table[(f"{core}.multiarray", "scalar")] = multiarray.scalar
    table[("_codecs", "encode")] = _encode
    table[("chumpy.ch", "Ch")] = Chumpy
    table[("chumpy.reordering", "Select")] = ChumpySelect
    for kind in ("csc", "csr"):
        for module in (f"scipy.sparse.{kind}", f"scipy.sparse._{kind}"):
            table[(module, f"{kind}_matrix")] = type(f"Sparse_{kind}", (Sparse,), {"kind": kind})
    return table


class AllowListUnpickler(pickle.Unpickler):
    """Knows the classes of SMPL's files and refuses every other name."""

    _table = _allowed()

    def find_class(self, module: str, name: str) -> object:  # type: ignore[override]
        """The stand-in for a class.  Raises UnpicklingError for a name that no SMPL file needs."""
        try:
            return self._table[(module, name)]
        except KeyError:
            raise pickle.UnpicklingError(f"refused: the file asks for {module}.{name}") from None

    def persistent_load(self, pid: object) -> object:
        """SMPL's files have none."""
        raise pickle.UnpicklingError("refused: the file asks for an object outside itself")


def to_array(value: object) -> np.ndarray:
    """The numbers in an array or in one of the boxes.  Raises UnpicklingError for anything else."""
    if isinstance(value, ChumpySelect):
        flat = to_array(value.state["a"]).ravel()[to_array(value.state["idxs"]).astype(np.int64)]
        shape = value.state.get("preferred_shape")
        return flat.reshape(tuple(int(n) for n in shape)) if shape is not None else flat
    if isinstance(value, Chumpy):
        return to_array(value.state["x"])
    if isinstance(value, Sparse):
        return _dense(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return np.array(value)
    raise pickle.UnpicklingError(f"numbers expected, found {type(value).__name__}")


def _dense(box: Sparse) -> np.ndarray:
    state = box.state
    rows, columns = (int(n) for n in state["_shape"])
    if rows < 0 or columns < 0 or rows * columns > 10**8:
        raise pickle.UnpicklingError(f"a sparse matrix of {rows} x {columns}")
    starts, inner, data = (to_array(state[key]) for key in ("indptr", "indices", "data"))
    outer = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    row, column = (inner, outer) if box.kind == "csc" else (outer, inner)  # type: ignore[attr-defined]
    out = np.zeros((rows, columns))
    np.add.at(out, (row, column), data)  # checks the bounds
    return out


def _limit(max_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no rlimits; the parent's timeout still holds
        return
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))


def main() -> int:
    """0 and OUT.npz, or 1 and one line on stderr."""
    source, target, max_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
    _limit(max_bytes)
    try:
        with open(source, "rb") as file:
            content = AllowListUnpickler(io.BytesIO(file.read()), encoding="latin1").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"a {type(content).__name__}, not a table of arrays")
        arrays: dict[str, Any] = {name: to_array(content[name]) for name in WANTED if name in content}
        np.savez(target, **arrays)
    except Exception as error:  # whatever a damaged file provokes, the answer is one line
        print(f"{type(error).__name__}: {error}".splitlines()[0][:200], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
