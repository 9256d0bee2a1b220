"""A pipeline of three quick stages for tests of the runner: the same shape as the real one, nothing to wait for.

    01_recording   lines of the source, upper case        settings recording (scale, workers is cosmetic), demo
    02_masks       one file per line, slowly, resumable   settings matte
    06_avatar      all masks of all subjects, joined      settings train; log.jsonl is volatile

Every call of a stage function appends its name to ``calls.txt`` beside the workspace.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from capture.errors import UserError
from capture.files import write_atomically
from project import Job, Project, Stage
from settings import Layer, Settings


@dataclass(frozen=True)
class RecordingConfig:
    scale: float = 1.0
    every: int = 1
    no_depth: bool = False
    workers: int = field(default=4, metadata={"cosmetic": True})


@dataclass(frozen=True)
class DemoConfig:
    frames: int = 3


@dataclass(frozen=True)
class MatteConfig:
    softness: float = 0.5
    mode: str = "fast"
    plate: str = field(default="", metadata={"file": True})
    pause_s: float = field(default=0.0, metadata={"cosmetic": True})

    def __post_init__(self) -> None:
        if self.softness < 0:
            raise UserError(f"matte.softness = {self.softness}: must not be negative")


@dataclass(frozen=True)
class TrainConfig:
    steps: int = 5
    rate: float | None = None
    pause_s: float = field(default=0.0, metadata={"cosmetic": True})


CONFIGS = {
    "recording": "fakes.RecordingConfig",
    "demo": "fakes.DemoConfig",
    "matte": "fakes.MatteConfig",
    "train": "fakes.TrainConfig",
}


def called(job: Job, name: str) -> None:
    with open(job.out_dir.parents[2] / "calls.txt", "a") as file:
        file.write(f"{name}\n")


def record(job: Job) -> None:
    called(job, "record")
    if job.source == "demo":
        text = "demo\n" * job.settings.config("demo").frames
    else:
        text = Path(job.source or "").read_text()
    if not text.strip():
        raise UserError(f"{job.source}: empty")
    (job.out_dir / "lines.txt").write_text(text.upper())


def matte(job: Job) -> None:
    called(job, "matte")
    config = job.settings.config("matte")
    lines = (job.folders["01_recording"] / "lines.txt").read_text().splitlines()
    if "NOBODY" in lines:
        raise UserError("nobody in it")
    (job.out_dir / "scratch").mkdir(exist_ok=True)
    for i, line in enumerate(lines):
        path = job.out_dir / f"{i:03d}.txt"
        if not path.exists():
            time.sleep(config.pause_s)
            write_atomically(path, f"{line} {config.softness} {config.mode}".encode())
        (job.out_dir / "scratch" / f"{i}").write_text("temporary")


def train(job: Job) -> None:
    called(job, "train")
    config = job.settings.config("train")
    masks = [p.read_text() for folder in job.subjects.values() for p in sorted((folder / "02_masks").glob("0*.txt"))]
    for step in range(config.steps):
        path = job.out_dir / "checkpoints" / f"{step}.txt"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            time.sleep(config.pause_s)
            write_atomically(path, b"done")
    (job.out_dir / "avatar.txt").write_text(f"{config.steps} {config.rate}\n" + "\n".join(masks))
    (job.out_dir / "log.jsonl").write_text(str(time.time()))


STAGES = (
    Stage("01_recording", "record", 1, record, ("recording", "demo"), (), judges_source=True),
    Stage("02_masks", "matte", 1, matte, ("matte",), ("01_recording",), judges_source=True),
    Stage("06_avatar", "train", 1, train, ("train",), ("02_masks",), ("log.jsonl", "checkpoints/*"), of_avatar=True),
)


def project(
    workspace: Path,
    *subjects: str,
    avatar: str | None = None,
    source: str | Path | None = None,
    stages: tuple[Stage, ...] = STAGES,
    chosen: dict[str, str] | None = None,
) -> Project:
    """A Project of fake stages; ``chosen`` are --set assignments."""
    settings = Settings(CONFIGS, (Layer("--set", chosen or {}, is_text=True),), "demo")
    names = {*subjects, avatar or subjects[0]}
    return Project(
        stages,
        workspace,
        subjects,
        avatar or subjects[0],
        dict.fromkeys(names, settings),
        None if source is None else str(source),
    )


def calls(workspace: Path) -> list[str]:
    """The stage functions that ran so far."""
    path = workspace.parent / "calls.txt"
    return path.read_text().split() if path.exists() else []


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of everything below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
