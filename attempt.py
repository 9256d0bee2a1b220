"""One attempt at making a stage folder: the hidden partial folder, its log, its cost, the rename that publishes it.

.03_fit.partial-5f0c...   being made; the next attempt of the same identity goes on from here
03_fit                    complete: stage.json was written last, then the folder was renamed into place
.03_fit.old               the previous result, for the moment between the two renames of a replacement
"""

from __future__ import annotations

import ctypes
import errno
import gc
import importlib.metadata
import logging
import os
import platform
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from capture.errors import UserError
from capture.manifest import Manifest, digest_outputs, stamp_files
from project import Identity, Stage

LOG_FILE = "stage.log"
SCRATCH = "scratch"  # files and folders of this name are a stage's own; kept for resuming, gone when published
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FEW_BYTES = 1 << 20  # with less than this left, any failure to write is a full disk, whatever it calls itself
PACKAGES = ("numpy", "numba", "torch", "opencv-contrib-python", "mediapipe", "av")  # those that shape the output

aside: set[int] = set()  # processes that this one started and that do none of a stage's work


class DiskFull(UserError):
    """No room to write: what was finished is intact, and what was begun can be resumed."""


def partial_folder(folder: Path, key: str) -> Path:
    """Where a stage folder is made; ``key`` identifies what is being made."""
    return folder.with_name(f".{folder.name}.partial-{key}")


def open_partial(folder: Path, key: str, afresh: bool) -> Path:
    """The partial folder, ready for work: what other identities left is gone, and so are torn files.

    ``afresh`` drops what an earlier attempt of the same identity left, too.
    """
    partial = partial_folder(folder, key)
    for stale in folder.parent.glob(f".{folder.name}.partial-*"):
        if afresh or stale != partial:
            shutil.rmtree(stale)
    partial.mkdir(exist_ok=True)
    for torn in [*partial.rglob("*.partial"), *partial.rglob("*.partial.*")]:  # write_atomically, VideoWriter
        torn.unlink()
    return partial


def drop_scratch(partial: Path) -> None:
    """Remove what the stage only needed for itself."""
    for path in sorted(partial.rglob(f"{SCRATCH}*"), reverse=True):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def flush(folder: Path) -> None:
    """Force all files and folders below to the disk, so that a power cut cannot tear what is about to be published."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            flush_folder(path)
            continue
        handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def flush_folder(folder: Path) -> None:
    """Force a folder's list of names to the disk.  Windows does so by itself."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_manifest(
    partial: Path,
    preset: str,
    stage: Stage,
    identity: Identity,
    source: dict | None,
    meter: Meter,
    changes: tuple[dict, ...] = (),
) -> None:
    """Say in a finished partial folder how it was made, and changed since; everything in it is forced to the disk
    first."""
    drop_scratch(partial)
    flush(partial)
    volatile = (*stage.volatile, LOG_FILE)
    files = stamp_files(partial, volatile)
    Manifest(
        stage=stage.name,
        version=identity.version,
        settings=identity.settings,
        inputs=identity.inputs,
        source=source,
        files=files,
        volatile=volatile,
        output_digest=digest_outputs({name: stamp.sha256 for name, stamp in files.items()}, volatile),
        timing_s=meter.timing_s,
        peak_rss_mb=meter.peak_rss_mb,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        preset=preset,
        made_with=made_with(),
        changes=changes,
    ).save(partial)


def publish(partial: Path, folder: Path) -> None:
    """Give a complete partial folder its final name, in place of an older result."""
    flush_folder(partial)
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        os.rename(folder, old)
    os.rename(partial, folder)
    flush_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)  # what cannot be removed now is removed by ``recover``


def needs_recovery(home: Path) -> bool:
    """Whether a replacement was interrupted between its two renames."""
    return any(home.glob(".*.old"))


def recover(home: Path) -> None:
    """Finish what an interrupted ``publish`` left in a subject's folder: the old result, where there is no new one."""
    for old in home.glob(".*.old"):
        folder = home / old.name.removeprefix(".").removesuffix(".old")
        if folder.exists():
            shutil.rmtree(old)
        else:
            os.rename(old, folder)


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Append everything that is logged to a file as well, the traceback of an unexpected error included."""
    handler = _FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    except BaseException as error:
        lines = "".join(traceback.format_exception(error))
        handler.handle(logging.LogRecord("attempt", logging.ERROR, __file__, 0, lines, None, None))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        with suppress(OSError):
            handler.close()


class _FileHandler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk is reported by the stage itself, and stderr still shows the line."""


class Meter:
    """Wall time and peak resident memory of a ``with`` block, worker processes included.

    The process itself is measured exactly; it together with its workers twice a second, where /proc lists them.
    """

    timing_s = 0.0
    peak_rss_mb = 0.0

    def __enter__(self) -> Meter:
        give_back_memory()
        with suppress(OSError):  # Linux can forget the peak of what ran before in this process
            Path("/proc/self/clear_refs").write_text("5")
        self._is_over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self._started_s = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self.timing_s = round(time.monotonic() - self._started_s, 3)
        self._is_over.set()
        self._watcher.join()
        self.peak_rss_mb = round(max(self.peak_rss_mb, _own_peak_rss_mb()), 1)

    def _watch(self) -> None:
        while not self._is_over.wait(0.5):
            total_mb = sum(_memory_mb(pid, "VmRSS:") for pid in _family(os.getpid()))
            self.peak_rss_mb = max(self.peak_rss_mb, total_mb)


def give_back_memory() -> None:
    """What this process has freed goes back to the system: a tracker's thousand small arrays leave holes, which the
    next stage's large ones do not fill.  Where the C library is another than glibc, nothing happens."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _family(pid: int) -> Iterator[int]:
    """A process and everything it started, directly or not, but for what is ``aside``."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has just ended
            for child in path.read_text().split():
                if int(child) not in aside:
                    yield from _family(int(child))


def _memory_mb(pid: int, field: str) -> float:
    """A memory figure of /proc/PID/status; 0 where there is none."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    return 0.0


def _own_peak_rss_mb() -> float:
    peak_mb = _memory_mb(os.getpid(), "VmHWM:")
    if peak_mb or sys.platform == "win32":
        return peak_mb
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024


def made_with() -> dict[str, str]:
    """Versions of what shaped the output, for people who compare two results."""
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def disk_full(error: BaseException, folder: Path) -> DiskFull | None:
    """What to tell a user when ``error`` means that ``folder``'s disk has no room; None when it means something else.

    Libraries hide the system's error: torch raises RuntimeError, safetensors only quotes the words.
    """
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    chain, cause = [error], error.__cause__ or error.__context__
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    is_full = any(
        getattr(link, "errno", None) in DISK_FULL
        or any(words in str(link) for words in ("No space left", "os error 28", "os error 27", "File too large"))
        for link in chain
    )
    if not is_full and not (isinstance(error, OSError | RuntimeError) and free_bytes < FEW_BYTES):
        return None
    return DiskFull(
        f"{folder}: no room to write ({free_bytes / 2**20:.0f} MB free on that disk); free some space and run the same "
        "command again, it goes on where it was and earlier results are intact"
    )
