"""What is made of every frame of a recording, and asked for again on every pass.

As much as has room stays in memory, the rest goes to files: what took 40 milliseconds to read and prepare comes back in
one.  Twenty seconds of film with depth have room in memory, and leave no files.
"""

from __future__ import annotations

import logging
import pickle
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import zstandard

T = TypeVar("T")
log = logging.getLogger(__name__)


class Shelf(Generic[T]):
    """``shelf[i]`` is ``make(i)``, which is asked once.  Threads may share it.

    room_bytes: of arrays that stay in memory, those that were asked for last; folder: where the others go, in files of
    this shelf alone; None: they are made again.
    """

    def __init__(self, make: Callable[[int], T], room_bytes: int, folder: Path | None) -> None:
        self._make, self._room_bytes, self._folder = make, room_bytes, folder
        self._kept: OrderedDict[int, tuple[T, int]] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._files: Path | None = None

    def __getitem__(self, index: int) -> T:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index][0]
        value = self._read(index) if self._has_file(index) else self._make(index)
        with self._lock:
            if index in self._kept:  # another thread was faster: everybody shall have the same
                return self._kept[index][0]
            size = num_bytes(value)
            self._kept[index] = value, size
            self._num_bytes += size
            leaving = []
            while self._num_bytes > self._room_bytes and len(self._kept) > 1:
                old, (left, size) = self._kept.popitem(last=False)
                self._num_bytes -= size
                leaving.append((old, left))
        for old, left in leaving:
            self._write(old, left)
        return value

    def _has_file(self, index: int) -> bool:
        return self._files is not None and self._path(index).is_file()

    def _path(self, index: int) -> Path:
        assert self._files is not None
        return self._files / f"{index:06d}"

    def _read(self, index: int) -> T:
        value: T = pickle.loads(zstandard.decompress(self._path(index).read_bytes()))
        return value

    def _write(self, index: int, value: T) -> None:
        """Put a value aside, if there is room."""
        if self._folder is None:
            return
        try:
            with self._lock:
                if self._files is None:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    self._files = Path(tempfile.mkdtemp(dir=self._folder))
            path = self._path(index)
            if path.is_file():
                return
            data = zstandard.compress(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), 1)
            unfinished = path.with_name(f"{path.name}.{threading.get_ident()}")
            try:
                unfinished.write_bytes(data)  # not waited for: it is of no use to another run
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: %s; what does not fit into memory is made again", self._folder, error.strerror or error)
            self._folder = None


def num_bytes(value: Any) -> int:
    """Of the arrays in a value and, where it is a dataclass, in its fields."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(num_bytes, vars(value).values())) if is_dataclass(value) else 0
