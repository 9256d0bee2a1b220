"""Where a recording comes from: the demo performer, or a file or folder of the user's.

A source is known by its content.  Reading gigabytes only to see that nothing changed would be slow, so sizes and
times are compared first: a file whose size, inode, modification and change time are all as they were is unchanged, two
sources whose sizes differ are different, and only what remains is read in full.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from capture.beside import outside
from capture.errors import UserError
from capture.manifest import digest_file

DEMO, SENSOR = "demo", "sensor"  # kinds
LIVE = ("kinect", "replay", "webcam")  # somebody has to stand before these: nothing that a stage could read by itself
MAX_FILES = 200_000  # half an hour of a Kinect is 108 000; beyond, somebody gave their home folder


def check(source: str) -> None:
    """Raises UserError for a source that cannot be read: a sensor, or a path without a file."""
    if source.partition(":")[0] in LIVE:
        raise UserError(
            f"--source {source}: is filmed live; first pipeline.py record --subject NAME --source {source}, then run "
            "without --source"
        )
    if source != DEMO and not Path(source).exists():
        raise UserError(f"--source {source}: no such file or folder; check the path")


def describe(source: str) -> dict[str, Any]:
    """What is quickly known of a source: kind, path, sizes and times of its files, as JSON fields."""
    if source == DEMO:
        return {"kind": DEMO}
    root = Path(source).resolve()
    stats = {}
    for name, path in _files(root).items():
        status = path.stat()
        stats[name] = [
            status.st_size,
            status.st_ino,
            status.st_mtime_ns,
            status.st_ctime_ns,
        ]
        if len(stats) > MAX_FILES:
            raise UserError(f"--source {source}: more than {MAX_FILES} files; give the folder of one recording")
    return {
        "kind": "path",
        "path": str(root),
        "bytes": sum(stat[0] for stat in stats.values()),
        "files": len(stats),
        "stats": hashlib.sha256(json.dumps(stats, sort_keys=True).encode()).hexdigest(),
    }


def digest(source: str) -> str:
    """sha256 over the relative names and contents of all files of a source."""
    root = Path(source).resolve()
    digests = {name: digest_file(path) for name, path in _files(root).items()}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def is_same(source: str, recorded: dict[str, Any]) -> bool:
    """Whether ``source`` has the content that a recording was made from; ``recorded`` is ``describe`` with its digest.

    A source that was moved or copied is still the same.
    """
    now = describe(source)
    if now["kind"] != recorded.get("kind"):
        return False
    if now["kind"] == DEMO or now["stats"] == recorded.get("stats"):
        return True
    if (now["bytes"], now["files"]) != (recorded.get("bytes"), recorded.get("files")):
        return False
    return digest(source) == recorded.get("digest")


def in_words(recorded: dict[str, Any] | None) -> str:
    """A recorded source for people."""
    if recorded is None:
        return "an unknown source"
    if recorded.get("kind") == SENSOR:
        return f"the sensor {recorded.get('name')}"
    return DEMO if recorded.get("kind") == DEMO else str(recorded.get("path"))


def _files(root: Path) -> dict[str, Path]:
    """Relative name -> file, with those that belong to the source though they lie beside it."""
    beside = {f"../{name}": path for name, path in outside(root).items()}
    if root.is_file():
        return {".": root, **beside}
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        found += [path for name in sorted(names) if (path := Path(folder, name)).is_file()]
        if len(found) > MAX_FILES:
            break
    return {**{path.relative_to(root).as_posix(): path for path in found}, **beside}
