"""stage.json: what a finished stage folder is made of.

It sits in the lowest layer because every later stage may ask what an earlier one cost; only ``stages.py`` writes it.

    stage, version    which row of the STAGES table made the folder
    settings          "section.key": value, those that can change the output
    inputs            "01_recording" or "alice/01_recording": output digest of that folder when it was read
    source            01_recording only: where the recording came from
    files             relative path: sha256, bytes, mtime_ns; the last two are a quick way to see that nothing changed
    volatile          files, or "file.json:key", that differ from run to run and are left out of the output digest
    output_digest     of all other files
    timing_s, peak_rss_mb, finished, preset, made_with    for people and for the report
    changes           06_avatar only: what was done to the avatar since it was trained
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FILE_NAME = "stage.json"

Scalar = int | float | bool | str | None


@dataclass(frozen=True)
class FileStamp:
    """A file as it was when its stage finished."""

    sha256: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Manifest:
    """The content of one stage.json."""

    stage: str
    version: int
    settings: dict[str, Scalar]
    inputs: dict[str, str]
    source: dict | None
    files: dict[str, FileStamp]
    volatile: tuple[str, ...]
    output_digest: str
    timing_s: float
    peak_rss_mb: float
    finished: str  # UTC, ISO 8601
    preset: str
    made_with: dict[str, str]  # package: version
    changes: tuple[dict, ...] = ()  # what was done to an avatar since it was trained, see changes.py

    @staticmethod
    def load(folder: Path) -> Manifest | None:
        """The manifest of a stage folder; None when there is none that can be read."""
        try:
            fields = json.loads((folder / FILE_NAME).read_bytes())
            fields["files"] = {path: FileStamp(**stamp) for path, stamp in fields["files"].items()}
            fields["volatile"] = tuple(fields["volatile"])
            fields["changes"] = tuple(fields.get("changes", ()))
            return Manifest(**fields)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def save(self, folder: Path) -> None:
        """Write stage.json, complete or not at all."""
        from capture.files import write_atomically  # late: OpenCV would slow every command down

        write_atomically(folder / FILE_NAME, json.dumps(asdict(self), indent=1).encode())

    def changed_files(self, folder: Path) -> dict[str, str | None]:
        """Files whose content is no longer what the stage wrote: new digest, or None for a missing file.

        Volatile files do not count.  A file with the same size and modification time is taken as unchanged.
        """
        changed: dict[str, str | None] = {}
        for name, stamp in self.files.items():
            if is_volatile(name, self.volatile):
                continue
            try:
                status = (folder / name).stat()
                if (status.st_size, status.st_mtime_ns) == (stamp.bytes, stamp.mtime_ns):
                    continue
                digest = digest_file(folder / name, self.volatile, name)
            except OSError:
                changed[name] = None
                continue
            if digest != stamp.sha256:
                changed[name] = digest
        return changed

    def current_digest(self, folder: Path) -> str:
        """The output digest of the folder as it is now, which differs from ``output_digest`` after an edit by hand."""
        changed = self.changed_files(folder)
        if not changed:
            return self.output_digest
        digests = {name: changed.get(name, stamp.sha256) for name, stamp in self.files.items()}
        return digest_outputs(digests, self.volatile)


def stamp_files(folder: Path, volatile: tuple[str, ...]) -> dict[str, FileStamp]:
    """Stamps of all files under ``folder`` but stage.json, by relative path."""
    stamps = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != FILE_NAME:
            status = path.stat()
            stamps[name] = FileStamp(digest_file(path, volatile, name), status.st_size, status.st_mtime_ns)
    return stamps


def digest_file(path: Path, volatile: tuple[str, ...] = (), name: str = "") -> str:
    """sha256 of a file; of a JSON object without its volatile keys when ``volatile`` lists some as ``name:key``."""
    keys = {pattern.partition(":")[2] for pattern in volatile if ":" in pattern and pattern.partition(":")[0] == name}
    if not keys:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    content = path.read_bytes()
    try:
        kept = {key: value for key, value in json.loads(content).items() if key not in keys}
    except (ValueError, AttributeError):  # broken or not an object: what matters is that it differs
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def digest_outputs(digests: Mapping[str, str | None], volatile: tuple[str, ...]) -> str:
    """One digest for a folder: over the names and digests of its files, volatile ones left out."""
    lasting = {name: digest for name, digest in digests.items() if not is_volatile(name, volatile)}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()


def is_volatile(name: str, volatile: tuple[str, ...]) -> bool:
    """Whether a whole file, given by its relative path, is left out of the output digest."""
    return any(":" not in pattern and fnmatch.fnmatchcase(name, pattern) for pattern in volatile)


def read_timings_s(*folders: Path) -> dict[str, float]:
    """Seconds that each finished stage in these subject or avatar folders took, by stage name, all of them together."""
    found: dict[str, float] = {}
    for made in _manifests(folders):
        found[made.stage] = found.get(made.stage, 0.0) + made.timing_s
    return found


def read_peak_rss_mb(*folders: Path) -> float | None:
    """The most memory that any finished stage in these subject or avatar folders needed; None when none is finished."""
    return max((m.peak_rss_mb for m in _manifests(folders)), default=None)


def _manifests(folders: tuple[Path, ...]) -> list[Manifest]:
    found = [Manifest.load(path.parent) for folder in folders for path in sorted(folder.glob(f"[0-9]*/{FILE_NAME}"))]
    return [manifest for manifest in found if manifest is not None]
