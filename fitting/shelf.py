"""What is made of every frame of a recording, and asked for again on every pass.

As much as has room stays in memory, the rest goes to files: what took 40 milliseconds to read and prepare comes back in
one.  Twenty seconds of film with depth have room in memory, and leave no files.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import zstandard

LEAVE_FREE_BYTES = 1_000_000_000  # of the disk: the results come after

T = TypeVar("T")
log = logging.getLogger(__name__)


class Shelf(Generic[T]):
    """``shelf.get(i, make)`` is ``make(i)``, which is asked once.  Threads may share it; several may make at once.

    room_bytes: of arrays that stay in memory, those that were asked for last; folder: where the others go, in files of
    this shelf alone; None: they are made again.  It does not keep ``make``, mostly a method of who has the shelf: such
    rings are freed when the collector comes by, hundreds of megabytes late.
    """

    def __init__(self, room_bytes: int, folder: Path | None = None) -> None:
        self._room_bytes, self._folder = room_bytes, folder
        self._kept: OrderedDict[int, tuple[T, int]] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._files: Path | None = None

    def get(self, index: int, make: Callable[[int], T]) -> T:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index][0]
        value = self._read(index)
        if value is None:
            value = make(index)
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

    def _read(self, index: int) -> T | None:
        """What was put aside, or None."""
        files = self._files
        if files is None:
            return None
        try:
            value: T = pickle.loads(zstandard.decompress((files / name_of(index)).read_bytes()))
        except (OSError, EOFError, zstandard.ZstdError, pickle.UnpicklingError):  # not there, or somebody tidied up
            return None
        return value

    def _write(self, index: int, value: T) -> None:
        """Put a value aside, if there is room; None is made again at no cost."""
        if value is None:
            return
        try:
            files = self._folder_of_files()
            if files is None or (files / name_of(index)).is_file():
                return
            data = zstandard.compress(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), 1)
            if shutil.disk_usage(files).free < LEAVE_FREE_BYTES + len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            unfinished = files / f"{name_of(index)}.{threading.get_ident()}"
            unfinished.write_bytes(data)  # not waited for: it is of no use to another run
            try:
                unfinished.replace(files / name_of(index))
            except PermissionError:  # Windows: somebody is reading what another thread has just written
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            self._give_up(error)

    def _folder_of_files(self) -> Path | None:
        with self._lock:
            if self._files is None and self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._files = Path(tempfile.mkdtemp(dir=self._folder))
            return self._files

    def _give_up(self, error: OSError) -> None:
        """Leave what room there is to the results."""
        with self._lock:
            files, self._files, folder, self._folder = self._files, None, self._folder, None
        if folder is not None:
            words = "%s: %s; what does not fit into memory is made again"
            log.warning(words, folder, error.strerror or error)
        if files is not None:
            shutil.rmtree(files, ignore_errors=True)


def name_of(index: int) -> str:
    return f"{index:06d}"


def num_bytes(value: Any) -> int:
    """Of the arrays in a value and, where it is a dataclass, in its fields."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(num_bytes, vars(value).values())) if is_dataclass(value) else 0
