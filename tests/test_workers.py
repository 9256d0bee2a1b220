"""The process pool: order, errors, and no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from capture.workers import Workers

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(num_workers):
    with Workers(num_workers) as workers:
        assert list(workers.map(divmod, [(k, 3) for k in range(20)])) == [divmod(k, 3) for k in range(20)]
        assert list(workers.map(os.path.basename, [("a/b",), ("c/d",)])) == ["b", "d"]  # the same processes again


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_in_a_task_is_raised_here(num_workers):
    with Workers(num_workers) as workers, pytest.raises(ZeroDivisionError):
        list(workers.map(divmod, [(1, 1), (1, 0), (2, 1)]))


@pytest.mark.skipif(sys.platform == "win32", reason="looks for processes in /proc")
def test_workers_go_when_their_parent_is_killed():
    code = "import os\nfrom capture.workers import Workers\n"
    code += "if __name__ == '__main__':\n    with Workers(2) as w:\n"
    code += "        for pid in w.map(os.getpid, [()] * 4):\n            print(pid, flush=True)\n"
    code += "        import time; time.sleep(60)\n"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    pids = {int(parent.stdout.readline()) for _ in range(4)}
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until_s = time.monotonic() + 10
    while any(_is_running(pid) for pid in pids) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert not any(_is_running(pid) for pid in pids)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
