"""Worker processes end with the process they work for, however that ends."""

from __future__ import annotations

import ast
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from capture.workers import Workers, in_threads, num_threads

ROOT = Path(__file__).parents[1]

WORK = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from capture.workers import start_worker
if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), initializer=start_worker)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_a_killed_parent_takes_its_workers_along(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(WORK)
    parent = subprocess.Popen(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert is_alive(worker)
    parent.kill()
    parent.wait()
    deadline_s = time.monotonic() + 20
    while is_alive(worker) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not is_alive(worker)


def test_every_pool_starts_its_workers_that_way() -> None:
    for layer in ("capture", "fitting", "rendering", "training", "demo"):
        for path in (ROOT / layer).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ProcessPoolExecutor"):
                    assert "start_worker" in [ast.unparse(word.value) for word in node.keywords], (
                        f"{path}:{node.lineno}"
                    )


def who(number: int) -> tuple[int, int]:
    time.sleep(0.05)
    if number < 0:
        raise ValueError(number)
    return number, os.getpid()


def leave(path: Path, seconds: float) -> None:
    time.sleep(seconds)
    path.touch()


@pytest.mark.parametrize("works_along", [False, True])
@pytest.mark.parametrize("is_kept", [False, True])
def test_no_task_goes_on_after_a_caller_who_stops_early(tmp_path: Path, works_along: bool, is_kept: bool) -> None:
    with Workers(3, works_along) as workers:
        answers = workers.map(leave, [(tmp_path / str(i), 0.02 if i == 0 else 0.5) for i in range(20)])
        next(answers)
        if not is_kept:
            del answers
    left = sorted(tmp_path.iterdir())
    time.sleep(1.2)
    assert left == sorted(tmp_path.iterdir()) and 1 <= len(left) < 10


def test_this_process_works_along_and_answers_keep_their_order() -> None:
    with Workers(2, works_along=True) as workers:
        list(workers.map(who, [(0,), (1,)]))  # the other process has started now
        answers = list(workers.map(who, [(i,) for i in range(40)]))
        with pytest.raises(ValueError, match="-1"):
            list(workers.map(who, [(i,) for i in (0, 1, 2, -1, 3, 4)]))
        again = list(workers.map(who, [(i,) for i in range(6)]))
    assert [number for number, _ in answers] == list(range(40)) and [number for number, _ in again] == list(range(6))
    by = {pid: sum(p == pid for _, p in answers) for _, pid in answers}
    assert len(by) == 2 and 5 < by[os.getpid()] < 35


def test_tasks_are_made_while_the_others_work_and_no_more_than_asked_for_are_open() -> None:
    made: list[int] = []

    def tasks() -> Iterator[tuple[int]]:
        for number in range(30):
            made.append(number)
            yield (number,)

    with Workers(2) as workers:
        answers = []
        for task, answer in workers.stream(who, tasks(), 5):
            assert task == (answer[0],)
            answers.append(answer)
            assert len(made) <= len(answers) + 5
    assert [number for number, _ in answers] == list(range(30)) and os.getpid() not in {pid for _, pid in answers}
    with Workers(1, loads="json") as alone:
        assert list(alone.stream(who, [(1,), (2,)], 5)) == [((1,), (1, os.getpid())), ((2,), (2, os.getpid()))]


def test_processes_that_start_early_have_loaded_what_they_need() -> None:
    before = set(multiprocessing.active_children())
    with Workers(2, loads="wave") as workers:
        assert len(set(multiprocessing.active_children()) - before) == 2
        assert all(workers.map(has_loaded, [("wave",)] * 8))


def has_loaded(module: str) -> bool:
    time.sleep(0.05)
    return module in sys.modules


def test_a_worker_is_one_thread_and_this_process_as_many_as_there_are_cores(monkeypatch) -> None:
    monkeypatch.setattr("capture.workers.num_cores", lambda: 5)
    assert num_threads() == 5
    with Workers(2) as workers:
        assert list(workers.map(num_threads, [(), ()])) == [1, 1]
    assert num_threads() == 5


def test_threads_answer_in_order_and_stay_a_few_items_ahead() -> None:
    begun: list[int] = []

    def slow_first(item: int) -> int:
        begun.append(item)
        time.sleep(0.05 * (item == 0))
        return 2 * item

    answers = in_threads(slow_first, range(100), 2)
    assert [next(answers) for _ in range(3)] == [0, 2, 4]
    answers.close()
    assert len(begun) < 12
    assert list(in_threads(slow_first, [], 2)) == []


def test_what_a_thread_raises_is_raised_where_its_item_is_due() -> None:
    answers = in_threads(lambda item: 6 // item, [3, 2, 0, 1], 1)
    assert [next(answers), next(answers)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(answers)
