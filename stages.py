"""The stage runner: makes what is missing or stale, one folder per stage, and can always say why.

``project.py`` has the nouns and the identity of a stage; how one folder is made and published is ``attempt.py``'s
business; who may write, ``workspace.py``'s.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import attempt
import captures
import source as sources
import workspace as workspaces
from capture.errors import UserError
from capture.manifest import Manifest
from project import Identity, Project, Stage, Step, cast_of, sections_of_source

log = logging.getLogger(__name__)


def plan(project: Project, until: Stage | None = None, force: Collection[Stage] = ()) -> list[Step]:
    """Every step in working order with the reasons to run it.  Changes nothing.

    Raises UserError where a recording is missing, and where one exists but something else is asked for.
    """
    steps: list[Step] = []
    remade: set[Path] = set()
    for stage, name in project.owners(until):
        folder = project.folder(stage, name)
        workspaces.check_not_linked(folder.parent)
        workspaces.check_not_linked(folder)
        steps.append(look(project, stage, name, remade, is_forced=stage in force))
        if steps[-1].reasons:
            remade.add(folder)
    return steps


def look(project: Project, stage: Stage, name: str, remade: Collection[Path] = (), *, is_forced: bool = False) -> Step:
    """One step: up to date, or why not.  ``remade`` are folders that will be made again before it."""
    if stage is project.stages[0]:
        return _look_at_recording(project, stage, name, is_forced)
    folder = project.folder(stage, name)
    made = Manifest.load(folder)
    if made is None:
        return Step(stage, name, ("its stage.json cannot be read" if folder.exists() else "not made yet",))
    waits = [f"{label} comes first" for label, path in project.inputs(stage, name).items() if path in remade]
    changed = made.changed_files(folder)
    identity = project.identity(stage, name)
    reasons = [
        *(["--force"] if is_forced else []),
        *identity.differences(_without_adapted(made, identity), with_inputs=not waits),
        *(f"{path} is missing" for path, digest in sorted(changed.items()) if digest is None),
        *waits,
    ]
    edited = sorted(path for path, digest in changed.items() if digest is not None)
    # A mask that somebody repaired by hand must not be lost: edits are kept, and what reads them is made again.
    notes = (f"changed by hand: {some(edited)}; kept, --force {stage.command} makes it again",) if edited else ()
    return Step(stage, name, tuple(reasons), notes)


def _without_adapted(made: Manifest, identity: Identity) -> Manifest:
    """What an avatar was made of, without those whom ``adapt`` took in later and nobody asks for now: they stay."""
    taken_in = {f"{change['subject']}/" for change in made.changes if change["command"] == "adapt"}
    gone = {label for label in set(made.inputs) - set(identity.inputs) if label[: label.find("/") + 1] in taken_in}
    return replace(made, inputs={label: digest for label, digest in made.inputs.items() if label not in gone})


def _look_at_recording(project: Project, stage: Stage, name: str, is_forced: bool) -> Step:
    """The first stage is special: what was recorded once is never replaced unless ``record --force`` says so."""
    folder, source, settings = project.folder(stage, name), project.source, project.settings[name]
    if is_forced and source is not None:
        return Step(stage, name, ("--force",))
    if not folder.exists():
        if captures.is_left(folder.parent):
            return Step(stage, name, ("an interrupted recording waits to be finished",))
        if source is None:
            raise UserError(f"{name} has no recording yet; give run or record --source PATH (or --source demo)")
        return Step(stage, name, ("not made yet",))
    remedy = f"choose another --subject, or replace it with pipeline.py {stage.command} --subject {name} --force"
    made = Manifest.load(folder)
    if made is None:
        raise UserError(
            f"{folder}: its stage.json cannot be read, and a recording is never replaced by itself; {remedy}"
        )
    if source is not None and not sources.is_same(source, made.source or {}):
        raise UserError(f"{folder}: was recorded from {sources.in_words(made.source)}, not from {source}; {remedy}")
    wanted = settings.that_matter(sections_of_source(stage, (made.source or {}).get("kind")))
    words = Identity(stage.name, stage.version, wanted, made.inputs).differences(made)
    chosen = [word for word in words if settings.is_explicit(word.split()[0])]
    if chosen:
        raise UserError(f"{folder}: was recorded with other settings ({', '.join(chosen)}); {remedy}")
    notes = [f"kept as it was recorded ({some(words)})"] if words else []
    changed = made.changed_files(folder)
    if changed:
        notes.append(f"changed since it was recorded: {some(sorted(changed))}; used as it is")
    return Step(stage, name, (), tuple(notes))


def some(words: list[str], most: int = 3) -> str:
    """A list for people, cut short."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def run(
    project: Project, until: Stage | None = None, force: Collection[Stage] = (), only: Stage | None = None
) -> list[Step]:
    """Make every step that has a reason, or only one stage of them, and return what was made.

    Raises UserError; what is finished by then stays, unless the recording itself turned out to be of no use.
    """
    check_owner(project, [stage for stage, _ in project.owners(until or only) if only in (None, stage)])
    names = {name for stage, name in project.owners(until or only) if only in (None, stage)}
    if any(_needs_recovery(project, name) for name in names):
        with workspaces.claim(project.workspace, names):
            _recover(project, names)
    planned = plan(project, until or only, force)
    if only is not None:
        _check_inputs(project, planned, only)
    if not any(step.reasons for step in planned if only in (None, step.stage)):
        _note(planned)
        return []
    made: list[Step] = []
    with workspaces.claim(project.workspace, names):
        _recover(project, names)
        for stage, name in project.owners(until or only):
            if only not in (None, stage):
                continue
            step = look(project, stage, name, is_forced=stage in force)
            _note([step])
            if not step.reasons:
                continue
            try:
                make(project, step)
            except UserError as error:
                if stage.judges_source and not isinstance(error, attempt.DiskFull):
                    _take_back(project, name, made)
                raise
            made.append(step)
    return made


def check_owner(project: Project, asked: Collection[Stage]) -> None:
    """Raises UserError where one of the stages that are ``asked`` for would put an avatar and a subject with another
    cast into one folder."""
    training = next((stage for stage in project.stages if stage.of_avatar), None)
    if training is None or not (training in asked or project.stages[0] in asked):
        return
    if training in asked and project.doubt:
        raise UserError(project.doubt)
    recorded = project.folder(project.stages[0], project.avatar)
    if training in asked and project.subjects != (project.avatar,) and recorded.exists():
        raise UserError(f"--avatar {project.avatar}: is a subject with a recording of its own; choose another name")
    for subject in project.subjects:
        made = Manifest.load(project.folder(training, subject))
        cast = cast_of(made) if made is not None else ()
        is_new = project.stages[0] in asked and not project.folder(project.stages[0], subject).exists()
        if cast not in ((), (subject,)) and (is_new or subject == project.avatar):
            raise UserError(f"--subject {subject}: is the name of an avatar, of {', '.join(cast)}; choose another name")


def _needs_recovery(project: Project, name: str) -> bool:
    home = project.workspace / name
    return attempt.needs_recovery(home) or captures.is_left(home)


def _recover(project: Project, names: Collection[str]) -> None:
    for name in names:
        attempt.recover(project.workspace / name)
        captures.recover(project, name)


def check_inputs_exist(project: Project, only: Stage) -> None:
    """Raises UserError when an input of a stage is missing; a stale one is used, and said to be stale."""
    last = [stage for stage in project.stages if not stage.of_avatar][-1]
    _check_inputs(project, plan(project, last), only)


def _check_inputs(project: Project, planned: list[Step], only: Stage) -> None:
    for step in planned:
        if step.stage is only:
            continue
        folder = project.folder(step.stage, step.name)
        if step.stage.name in only.inputs and not folder.exists():
            raise UserError(
                f"{folder}: not made yet, and {only.command} needs it; run pipeline.py {step.stage.command}, or "
                "pipeline.py run for everything"
            )
        if step.reasons:
            log.warning("%s: used as it is, though stale (%s)", step.label, some(list(step.reasons)))


def _note(steps: list[Step]) -> None:
    for step in steps:
        for note in step.notes:
            log.warning("%s: %s", step.label, note)
        if not step.reasons:
            log.info("%s: up to date", step.label)


def make(project: Project, step: Step) -> None:
    """Run one stage in its partial folder and publish it.  Raises UserError; an older result survives any failure."""
    stage, folder = step.stage, project.folder(step.stage, step.name)
    identity = project.identity(stage, step.name)
    source = sources.describe(project.source) if stage is project.stages[0] and project.source is not None else None
    try:
        partial = attempt.open_partial(folder, identity.key, afresh="--force" in step.reasons)
        if Manifest.load(partial) is None:
            log.info("%s: %s (%s)", step.label, stage.command, some(list(step.reasons)))
            with attempt.logged_to(partial / attempt.LOG_FILE), attempt.Meter() as meter:
                stage.function(project.job(stage, step.name, partial))
            if source is not None:
                source = _finish_source(project.source or "", source)
            attempt.write_manifest(partial, project.settings[step.name].preset, stage, identity, source, meter)
            log.info("%s: done in %.1f s, %.0f MB", step.label, meter.timing_s, meter.peak_rss_mb)
        attempt.publish(partial, folder)
    except Exception as error:
        full = attempt.disk_full(error, folder.parent)
        # A half import is copied again from its source, so it need not fill the disk; training goes on where it was.
        if stage.judges_source and isinstance(full or error, UserError) and (full is None or not stage.inputs):
            shutil.rmtree(attempt.partial_folder(folder, identity.key), ignore_errors=True)
        if full is not None:
            raise full from None
        raise


def _finish_source(source: str, described: dict) -> dict:
    """What to remember of a source that was read.  Raises UserError when it changed under the reader's hands."""
    if described["kind"] == sources.DEMO:
        return described
    if sources.describe(source) != described:
        raise UserError(f"--source {source}: changed while it was read; wait until it is written, then run again")
    return {**described, "digest": sources.digest(source)}


def _take_back(project: Project, name: str, made: list[Step]) -> None:
    """Undo what this very run made of a recording that cannot be used, so that a better one can take its name."""
    mine = [step for step in made if step.name == name]
    if any(step.stage is project.stages[0] for step in mine):
        for step in reversed(mine):
            shutil.rmtree(project.folder(step.stage, name))
