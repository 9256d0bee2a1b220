"""The nouns of the stage runner: a stage, what it gets, what its output depends on, and who it is made for.

A stage is a function from folders to one folder.  Its identity is its version, the settings that can change its output
and the content of its inputs, so an earlier stage that runs again and writes the same bytes makes nothing stale.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import source as sources
from capture.errors import UserError
from capture.manifest import Manifest, Scalar
from settings import Settings


@dataclass(frozen=True)
class Stage:
    """One row of the STAGES table in pipeline.py."""

    name: str  # its folder
    command: str  # what a user calls it
    version: int  # raised whenever the stage writes something else than before
    function: Callable[[Job], None]
    settings: tuple[str, ...]  # sections that it reads
    inputs: tuple[str, ...]  # stages whose folders it reads
    volatile: tuple[str, ...] = ()  # files, or "file.json:key", that differ from run to run
    of_avatar: bool = False  # made once for a cast of subjects, not once per subject
    judges_source: bool = False  # a UserError here means that the recording cannot be used


@dataclass(frozen=True)
class Job:
    """What a stage function gets."""

    out_dir: Path  # a partial folder, perhaps with files of a killed attempt of the very same identity
    settings: Settings
    folders: Mapping[str, Path]  # stage name -> its folder, of the same subject or avatar
    subjects: Mapping[str, Path]  # subject name -> the folder that holds its stages
    source: str | None  # for 01_recording


@dataclass(frozen=True)
class Identity:
    """What the output of a stage depends on."""

    stage: str
    version: int
    settings: dict[str, Scalar]
    inputs: dict[str, str]  # input name -> its output digest; 01_recording has "source" -> its sizes and times

    @property
    def key(self) -> str:
        """Of an attempt at making it, which keeps what it has of a cast in the order in which that was named."""
        seed = {**asdict(self), "order": list(self.inputs)}
        return hashlib.sha256(json.dumps(seed, sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, made: Manifest, with_inputs: bool = True) -> list[str]:
        """Why a folder that was ``made`` earlier is not this one, in words."""
        words = [] if made.version == self.version else [f"stage version {made.version} -> {self.version}"]
        for name in sorted({*self.settings, *made.settings}):
            if name not in made.settings:
                words.append(f"{name} is a new setting ({self.settings[name]})")
            elif name not in self.settings:
                words.append(f"{name} is no longer a setting")
            elif made.settings[name] != self.settings[name]:
                words.append(f"{name} {made.settings[name]} -> {self.settings[name]}")
        for name in sorted({*self.inputs, *made.inputs}) if with_inputs else ():
            if name not in made.inputs:
                words.append(f"input {name} is new")
            elif name not in self.inputs:
                words.append(f"input {name} is no longer used")
            elif made.inputs[name] != self.inputs[name]:
                words.append(f"input {name} changed")
        return words


@dataclass(frozen=True)
class Step:
    """One stage of one subject or avatar, and why it must be made."""

    stage: Stage
    name: str  # the subject or avatar
    reasons: tuple[str, ...]  # empty: up to date
    notes: tuple[str, ...] = ()  # what a user should know although nothing will be done about it

    @property
    def label(self) -> str:
        return f"{self.name}/{self.stage.name}"


@dataclass(frozen=True)
class Project:
    """What a command line amounts to: which stages, for whom, where, with which settings."""

    stages: tuple[Stage, ...]
    workspace: Path
    subjects: tuple[str, ...]
    avatar: str
    settings: Mapping[str, Settings]  # subject or avatar name -> its settings
    source: str | None = None  # where to record from; None when the recordings must be there already
    doubt: str = ""  # why the avatar cannot be made like this, though it may be looked at; "" where it can

    def owners(self, until: Stage | None = None) -> Iterator[tuple[Stage, str]]:
        """All (stage, subject or avatar) in working order, up to and including stage ``until``."""
        stages = self.stages if until is None else self.stages[: self.stages.index(until) + 1]
        yield from ((stage, subject) for subject in self.subjects for stage in stages if not stage.of_avatar)
        yield from ((stage, self.avatar) for stage in stages if stage.of_avatar)

    def folder(self, stage: Stage, name: str) -> Path:
        """The final folder of a stage of a subject or avatar."""
        return self.workspace / name / stage.name

    def trained(self, stage: Stage) -> Path:
        """The folder of the avatar that ``stage`` made.  Raises UserError where there is none yet."""
        folder = self.folder(stage, self.avatar)
        if not folder.exists():
            raise UserError(f"{folder}: not made yet; run pipeline.py {stage.command} --avatar {self.avatar}")
        return folder

    def inputs(self, stage: Stage, name: str) -> dict[str, Path]:
        """Input name, as in stage.json -> its folder."""
        found: dict[str, Path] = {}
        for other in (other for other in self.stages if other.name in stage.inputs):
            if other.of_avatar or not stage.of_avatar:
                found[other.name] = self.folder(other, name)
            else:
                found.update({f"{subject}/{other.name}": self.folder(other, subject) for subject in self.subjects})
        return found

    def identity(self, stage: Stage, name: str) -> Identity:
        """The identity of what the stage would make now.  Inputs that do not exist count as empty."""
        sections, digests = stage.settings, {}
        for label, folder in self.inputs(stage, name).items():
            manifest = Manifest.load(folder)
            digests[label] = "" if manifest is None else manifest.current_digest(folder)
        if stage is self.stages[0] and self.source is not None:
            digests["source"] = json.dumps(sources.describe(self.source), sort_keys=True)
            sections = sections_of_source(stage, self.source)
        return Identity(stage.name, stage.version, self.settings[name].that_matter(sections), digests)

    def job(self, stage: Stage, name: str, out_dir: Path) -> Job:
        folders = {other.name: self.folder(other, name) for other in self.stages}
        subjects = {subject: self.workspace / subject for subject in self.subjects}
        return Job(out_dir, self.settings[name], folders, subjects, self.source)


def cast_of(made: Manifest) -> tuple[str, ...]:
    """The subjects of an avatar, in order."""
    return tuple(dict.fromkeys(label.split("/")[0] for label in made.inputs if "/" in label))


def sections_of_source(stage: Stage, kind: str | None) -> tuple[str, ...]:
    """The settings that the recording stage reads: filming the performer, a sensor and importing a file share none."""
    mine = {sources.DEMO: "demo", sources.SENSOR: "capture"}.get(kind or "", "recording")
    return tuple(section for section in stage.settings if section == mine)
