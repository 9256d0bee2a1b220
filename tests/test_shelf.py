"""What is made once per frame comes back as it was, from memory or from a file."""

from __future__ import annotations

import errno
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fitting.shelf import LEAVE_FREE_BYTES, Shelf, num_bytes


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


def counting(made: list[int]) -> Callable[[int], Holder | None]:
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
    make = counting(made)
    shelf: Shelf[Holder | None] = Shelf(20 * BYTES, tmp_path / "scratch")
    first = [shelf.get(i, make) for i in range(10)]
    assert [shelf.get(i, make) is first[i] for i in range(10)] == [True] * 10
    assert made == list(range(10)) and not (tmp_path / "scratch").exists()


def test_what_has_no_room_comes_back_from_a_file(tmp_path: Path) -> None:
    made: list[int] = []
    make = counting(made)
    shelf: Shelf[Holder | None] = Shelf(3 * BYTES, tmp_path / "scratch")
    for _ in range(3):
        for i in range(10):
            if i != 7:
                same(shelf.get(i, make), i)
        assert shelf.get(7, make) is None
    assert sorted(set(made)) == list(range(10))
    assert [i for i in made if i != 7] == [0, 1, 2, 3, 4, 5, 6, 8, 9], "nothing that takes time is made twice"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {f"{i:06d}" for i in range(10) if i != 7}
    assert sum(size for _, size in shelf._kept.values()) <= 3 * BYTES
    other: Shelf[Holder] = Shelf(0, tmp_path / "scratch")
    for _ in range(2):
        same(other.get(1, lambda i: holder(i + 100)), 101)
        same(other.get(2, lambda i: holder(i + 100)), 102)
    same(shelf.get(1, make), 1)


def test_files_that_went_are_made_again(tmp_path: Path) -> None:
    made: list[int] = []
    make = counting(made)
    shelf: Shelf[Holder | None] = Shelf(0, tmp_path)
    for i in (0, 1, 2):
        same(shelf.get(i, make), i)
    next(tmp_path.rglob("000000")).unlink()
    next(tmp_path.rglob("000001")).write_bytes(b"torn")
    for i in (0, 1):
        same(shelf.get(i, make), i)
    assert made == [0, 1, 2, 0, 1]


def test_without_a_folder_it_is_made_again() -> None:
    made: list[int] = []
    make = counting(made)
    shelf: Shelf[Holder | None] = Shelf(3 * BYTES, None)
    for i in (*range(5), 0, 4):
        same(shelf.get(i, make), i)
    assert made == [0, 1, 2, 3, 4, 0]


def test_a_disk_that_fills_up_is_left_to_the_results(tmp_path: Path, monkeypatch, caplog) -> None:
    free = LEAVE_FREE_BYTES + 10**6
    monkeypatch.setattr("fitting.shelf.shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    made: list[int] = []
    make = counting(made)
    shelf: Shelf[Holder | None] = Shelf(2 * BYTES, tmp_path)
    for i in range(5):
        same(shelf.get(i, make), i)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3
    free = LEAVE_FREE_BYTES
    for i in (5, 6, 0, 1, 2, 0):
        same(shelf.get(i, make), i)
    assert made == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 0]
    words = "No space left on device; what does not fit into memory is made again"
    assert [record.message for record in caplog.records] == [f"{tmp_path}: {words}"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("refused", ["write_bytes", "mkdir"])
def test_a_disk_that_refuses_costs_time_and_nothing_else(tmp_path: Path, monkeypatch, caplog, refused: str) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    made: list[int] = []
    make = counting(made)
    shelf: Shelf[Holder | None] = Shelf(2 * BYTES, tmp_path / "scratch")
    monkeypatch.setattr(Path, refused, full)

    def work() -> None:
        for i in (0, 1, 2, 3, 0):
            same(shelf.get(i, make), i)

    in_four_threads(work)
    assert len([i for i in made if i == 0]) >= 2 and len(caplog.records) == 1
    monkeypatch.undo()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def in_four_threads(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()


@pytest.mark.parametrize("room", [2, 50])
def test_threads_may_share_it(tmp_path: Path, room: int) -> None:
    shelf: Shelf[Holder | None] = Shelf(room * BYTES, tmp_path)
    seeds = iter(range(4))

    def work() -> None:
        for i in np.random.default_rng(next(seeds)).integers(0, 12, 120).tolist():
            same(shelf.get(i, holder), i)

    in_four_threads(work)
    kept = sum(size for _, size in shelf._kept.values())
    assert kept == shelf._num_bytes <= room * BYTES


def test_all_threads_get_the_same_where_it_has_room(tmp_path: Path) -> None:
    started = threading.Barrier(4)

    def slow(index: int) -> Holder:
        started.wait(10)
        return holder(index)

    shelf, found = Shelf[Holder](50 * BYTES, tmp_path), list[Holder]()
    in_four_threads(lambda: found.append(shelf.get(3, slow)))
    assert len(found) == 4 and len({id(one) for one in found}) == 1


def test_it_keeps_nothing_alive_that_nobody_else_needs(tmp_path: Path) -> None:
    class Owner:
        def __init__(self) -> None:
            self.shelf: Shelf[Holder] = Shelf(50 * BYTES, tmp_path)

        def make(self, index: int) -> Holder:
            return holder(index)

        def __getitem__(self, index: int) -> Holder:
            return self.shelf.get(index, self.make)

    owner = Owner()
    same(owner[3], 3)
    seen = weakref.ref(owner)
    gc.disable()
    try:
        del owner
        assert seen() is None
    finally:
        gc.enable()
