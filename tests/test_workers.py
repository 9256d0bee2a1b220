"""Worker processes end with the process they work for, however that ends."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
