"""The folders of subjects and avatars: which names are allowed, and who may write.

    workspace/alice/          created when the first stage starts, removed again when nothing came of it
    workspace/alice/.lock     held by the one process that writes there: {"pid": ..., "started": ...}

The lock is the kernel's (a POSIX record lock, byte locking on Windows), so it ends with its holder however that dies,
and a process id that was given to somebody else means nothing.  The file's content only says whom to wait for.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from capture.errors import UserError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WINDOWS_RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}
LOCK_FILE = ".lock"


def check_name(name: str, option: str) -> str:
    """The name itself.  Raises UserError for one that is not safe as a folder name on every system."""
    if not NAME.fullmatch(name) or name.endswith("."):
        raise UserError(
            f"{option} {name!r}: use 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"
        )
    if name.split(".")[0].lower() in WINDOWS_RESERVED:
        raise UserError(f"{option} {name!r}: Windows reserves that name; choose another")
    return name


def check_not_linked(folder: Path) -> None:
    """Raises UserError when a folder that we would write to is a symbolic link or a file."""
    if folder.is_symlink():
        raise UserError(f"{folder}: is a symbolic link; results are only written to real folders, so replace it by one")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file where a folder is needed; move it away")


def known_names(workspace: Path) -> list[str]:
    """All subjects and avatars of a workspace, sorted."""
    if not workspace.is_dir():
        return []
    return sorted(path.name for path in workspace.iterdir() if path.is_dir() and NAME.fullmatch(path.name))


@contextmanager
def claim(workspace: Path, names: Iterable[str]) -> Iterator[None]:
    """Create the folders of these subjects and avatars where missing, and be the only writer in them.

    On the way out the locks end, and a folder that is empty and was not there before disappears again.
    Raises UserError when another process is writing in one of them.
    """
    with ExitStack() as stack:
        for name in sorted(set(names)):
            stack.enter_context(_claim_one(workspace, name))
        yield


@contextmanager
def _claim_one(workspace: Path, name: str) -> Iterator[None]:
    folder = workspace / name
    check_not_linked(folder)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    handle = _lock(folder)
    try:
        yield
    finally:
        # Unlinked while still locked; ``_lock`` notices when it got hold of a file that is no longer there.
        # Windows cannot remove an open file, so there it is closed first.
        if sys.platform == "win32":
            os.close(handle)
        with suppress(OSError):
            (folder / LOCK_FILE).unlink()
        if sys.platform != "win32":
            os.close(handle)
        for path in created:
            with suppress(OSError):  # not empty: something was made
                path.rmdir()


def _lock(folder: Path) -> int:
    path = folder / LOCK_FILE
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except FileNotFoundError:  # the last holder has just removed the empty folder
            continue
        try:
            _lock_handle(handle)
        except (BlockingIOError, PermissionError):
            os.close(handle)
            raise UserError(f"{folder}: {_holder(path)} is writing there; wait for it to end, or stop it") from None
        try:
            is_current = os.path.samestat(os.fstat(handle), os.stat(path))
        except FileNotFoundError:
            is_current = False
        if is_current:
            break
        os.close(handle)
    os.ftruncate(handle, 0)
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    os.write(handle, json.dumps({"pid": os.getpid(), "started": started}).encode())
    return handle


def _lock_handle(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, 1 << 20, os.SEEK_SET)  # a byte far behind the content, which stays readable
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        # Not flock(): that one is inherited by worker processes and would outlive a killed parent.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(path: Path) -> str:
    try:
        fields = json.loads(path.read_text())
        return f"process {fields['pid']} (since {fields['started']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
