"""Do damaged files ever hang, crash or fool a reader?

    python benchmarks/corrupt_corpus.py [COUNT] [SEED]

COUNT damaged files (300) over all readers, each looked at by ``doctor`` and imported in a process of its own, with a
limit of time and memory.  Prints one table; exits with 1 when a file was not refused in one line or told the truth.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import corpus  # noqa: E402
import cv2  # noqa: E402

LIMIT_S, LIMIT_MB = 10, 1000
PATIENCE_S = 60  # of the wall clock: on a busy machine a process that waits for its turn does not hang
OUTCOMES = ("refused", "taken", "WRONG", "traceback", "killed", "too slow", "too large")


def main(count: int, seed: int) -> int:
    cv2.setNumThreads(1)  # a pool of threads does not survive a fork
    table: dict[str, Counter[str]] = {source.name: Counter() for source in corpus.SOURCES}
    slowest: tuple[float, float, str] = (0.0, 0.0, "")
    largest_mb, failures = 0.0, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        intact: dict[str, tuple] = {}
        for number, case in enumerate(corpus.cases(folder, count, seed)):
            intact = intact or corpus.intact_frames(folder)
            words, (took_s, cpu_s), peak_mb = _watched(case, folder / "out", intact[case.source.name])
            outcome = next(o for o in OUTCOMES if words.startswith(o))
            table[case.source.name][outcome] += 1
            slowest = max(slowest, (took_s, cpu_s, f"{case.source.name}, {case.kind}"))
            largest_mb = max(largest_mb, peak_mb)
            if outcome not in ("refused", "taken"):
                failures.append(f"file {number}, {case.source.name}, {case.kind}: {words}")
    print(f"{'source':16}" + "".join(f"{outcome:>11}" for outcome in OUTCOMES))
    for source, counts in table.items():
        print(f"{source:16}" + "".join(f"{counts[outcome]:11}" for outcome in OUTCOMES))
    print(f"{'all ' + str(count):16}" + "".join(f"{sum(c[o] for c in table.values()):11}" for o in OUTCOMES))
    print(
        f"slowest {slowest[0]:.1f} s, {slowest[1]:.1f} s of them CPU time ({slowest[2]}); largest {largest_mb:.0f} MB"
    )
    print("\n".join(failures))
    return 1 if failures else 0


def _watched(case: corpus.Case, out_dir: Path, intact: tuple) -> tuple[str, tuple[float, float], float]:
    """(outcome, (seconds, CPU seconds), MB at its largest) of reading one file in a child."""
    reader, writer = os.pipe()
    started_s = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _read(case, out_dir, intact, writer)
    os.close(writer)
    usage, status = None, 0
    while usage is None and time.monotonic() - started_s < PATIENCE_S and _cpu_s(child) < LIMIT_S:
        done, status, found = os.wait4(child, os.WNOHANG)
        usage = found if done else None
        time.sleep(0.002)
    took_s = time.monotonic() - started_s
    if usage is None:
        os.kill(child, signal.SIGKILL)
        _, _, usage = os.wait4(child, 0)
        words = "too slow"
    else:
        with os.fdopen(reader, "rb", closefd=False) as pipe:
            words = pipe.read().decode() or f"killed by signal {os.waitstatus_to_exitcode(status)}"
    os.close(reader)
    peak_mb = usage.ru_maxrss / 1024
    times_s = took_s, usage.ru_utime + usage.ru_stime
    return (f"too large: {peak_mb:.0f} MB" if peak_mb > LIMIT_MB else words), times_s, peak_mb


def _cpu_s(child: int) -> float:
    """CPU seconds of a child that was not waited for yet."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read(case: corpus.Case, out_dir: Path, intact: tuple, writer: int) -> None:
    """The child: never returns."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders complain there
    held = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + LIMIT_MB * 2**20, held + LIMIT_MB * 2**20))
    try:
        with tempfile.TemporaryDirectory(dir=out_dir.parent) as name:
            words = corpus.verdict(case, Path(name) / "out", intact)
    except BaseException:
        words = "traceback " + traceback.format_exc(limit=-3).strip().replace("\n", " | ")
    os.write(writer, words.encode()[:4000])
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(*(int(a) for a in (sys.argv[1:] + ["300", "1"][len(sys.argv) - 1 :])[:2])))
