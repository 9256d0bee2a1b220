"""What is made once per frame comes back as it was, from memory or from a file."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fitting.shelf import Shelf, num_bytes


@dataclass(frozen=True)
class Thing:
    inner: np.ndarray
    name: str


@dataclass(frozen=True)
class Holder:
    plane: np.ndarray
    thing: Thing


def holder(index: int) -> Holder:
    plane = np.full((10, 10), float(index))
    plane[0, 0] = np.nan
    return Holder(plane, Thing(np.arange(25.0) + index, f"thing {index}"))


BYTES = num_bytes(holder(0))


def counting(made: list[int]):
    def make(index: int) -> Holder | None:
        made.append(index)
        return None if index == 7 else holder(index)

    return make


def same(found: Holder | None, index: int) -> None:
    assert found is not None
    np.testing.assert_array_equal(found.plane, holder(index).plane)
    np.testing.assert_array_equal(found.thing.inner, holder(index).thing.inner)
    assert found.thing.name == f"thing {index}" and found.plane.dtype == float


def test_arrays_count_wherever_they_are() -> None:
    assert BYTES == 800 + 200
    assert num_bytes(None) == num_bytes("text") == 0


def test_what_has_room_is_made_once_and_leaves_no_files(tmp_path: Path) -> None:
    made: list[int] = []
    shelf = Shelf(counting(made), 20 * BYTES, tmp_path / "scratch")
    first = [shelf[i] for i in range(10)]
    assert [shelf[i] is first[i] for i in range(10)] == [True] * 10
    assert made == list(range(10)) and not (tmp_path / "scratch").exists()


def test_what_has_no_room_comes_back_from_a_file(tmp_path: Path) -> None:
    made: list[int] = []
    shelf = Shelf(counting(made), 3 * BYTES, tmp_path / "scratch")
    for _ in range(3):
        for i in range(10):
            if i != 7:
                same(shelf[i], i)
        assert shelf[7] is None
    assert sorted(made) == list(range(10)), "nothing was made twice"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {f"{i:06d}" for i in range(10)}
    assert sum(size for _, size in shelf._kept.values()) <= 3 * BYTES
    other = Shelf(lambda i: holder(i + 100), 0, tmp_path / "scratch")
    for _ in range(2):
        same(other[1], 101)
        same(other[2], 102)
    same(shelf[1], 1)


def test_without_a_folder_it_is_made_again() -> None:
    made: list[int] = []
    shelf = Shelf(counting(made), 3 * BYTES, None)
    for i in (*range(5), 0, 4):
        same(shelf[i], i)
    assert made == [0, 1, 2, 3, 4, 0]


def test_a_full_disk_costs_time_and_nothing_else(tmp_path: Path, monkeypatch, caplog) -> None:
    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    made: list[int] = []
    shelf = Shelf(counting(made), 2 * BYTES, tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    for i in (0, 1, 2, 3, 0):
        same(shelf[i], i)
    assert made == [0, 1, 2, 3, 0]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: No space left on device; what does not fit into memory is made again"
    ]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("room", [2, 50])
def test_threads_may_share_it(tmp_path: Path, room: int) -> None:
    shelf = Shelf(holder, room * BYTES, tmp_path)
    wrong: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for i in np.random.default_rng(seed).integers(0, 12, 120).tolist():
                same(shelf[i], i)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    kept = sum(size for _, size in shelf._kept.values())
    assert kept == shelf._num_bytes <= max(room, 1) * BYTES
