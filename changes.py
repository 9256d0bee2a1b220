"""Changes of a finished avatar: somebody new is added to it, or it is tuned to one of its cast.

The result is a 06_avatar like any other: made in a partial folder, published whole, the avatar before it in place until
then.  Its stage.json has the settings and inputs of the avatar that was changed, those of the subject beside them, and
one entry in ``changes``:

    command, subject    what was done, for whom
    version, settings   of the change itself
    inputs              digests of the subject's stages
    base                what the change rests on: in place the renderer, otherwise the whole avatar it came from
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import attempt
import workspace as workspaces
from capture.errors import UserError
from capture.manifest import Manifest
from project import Identity, Job, Project, Stage, cast_of
from stages import check_inputs_exist, some

log = logging.getLogger(__name__)

RENDERER_FILE = "renderer.safetensors"


def change(project: Project, row: Stage, base_name: str, subject: str, *, is_forced: bool = False) -> bool:
    """Do what ``row`` says to the avatar ``base_name`` for ``subject``; the result is ``project.avatar``.

    Returns whether there was anything to do.  Raises UserError; whatever avatar was there survives any failure.
    """
    name = project.avatar
    base_dir, folder = project.folder(row, base_name), project.folder(row, name)
    with workspaces.claim(project.workspace, [name]):
        attempt.recover(project.workspace / name)
        base = Manifest.load(base_dir)
        if base is None:
            raise UserError(f"{base_dir}: not made yet; run pipeline.py train --avatar {base_name}")
        own = replace(project, subjects=(subject,))
        check_inputs_exist(own, row)
        _check_allowed(row, base, base_name, subject, folder if name != base_name else None)
        entry = _entry(own, row, base, base_dir, subject, in_place=name == base_name)
        made = Manifest.load(folder)
        reasons = ["--force"] if is_forced else _reasons(entry, made)
        if not reasons:
            log.info("%s/%s: up to date", name, row.name)
            return False
        log.info("%s/%s: %s %s (%s)", name, row.name, row.command, subject, some(reasons))
        _make(own, row, base, base_dir, entry, is_forced)
    return True


def _check_allowed(row: Stage, base: Manifest, base_name: str, subject: str, other_dir: Path | None) -> None:
    cast = cast_of(base)
    if row.command == "adapt" and subject in trained_on(base):
        raise UserError(
            f"--subject {subject}: avatar {base_name} was trained on it; to tune the avatar to it: pipeline.py "
            f"finetune --avatar {base_name} --subject {subject}"
        )
    if row.command == "finetune" and subject not in cast:
        raise UserError(
            f"--subject {subject}: not in avatar {base_name} ({', '.join(cast)}); first: pipeline.py adapt "
            f"--avatar {base_name} --subject {subject}"
        )
    if other_dir is not None and other_dir.exists():
        made = Manifest.load(other_dir)
        if made is None or not made.changes:
            raise UserError(f"{other_dir}: is an avatar that was trained by itself; choose another name with --as")


def trained_on(made: Manifest) -> tuple[str, ...]:
    """The subjects that an avatar's networks were trained on: its cast without those whom ``adapt`` took in."""
    adapted = {change["subject"] for change in made.changes if change["command"] == "adapt"}
    return tuple(subject for subject in cast_of(made) if subject not in adapted)


def _entry(own: Project, row: Stage, base: Manifest, base_dir: Path, subject: str, in_place: bool) -> dict[str, Any]:
    settings = own.settings[own.avatar]
    chosen = {key: value for key, value in settings.that_matter(("train",)).items() if settings.is_explicit(key)}
    if not in_place:
        rests_on = base.current_digest(base_dir)
    elif row.command == "adapt":
        rests_on = base.changed_files(base_dir).get(RENDERER_FILE) or base.files[RENDERER_FILE].sha256
    else:
        rests_on = ""  # where it was, which is no longer there
    return {
        "command": row.command,
        "subject": subject,
        "version": row.version,
        "settings": settings.that_matter(row.settings) | chosen,
        "inputs": own.identity(row, own.avatar).inputs,
        "base": rests_on,
    }


def _reasons(entry: dict[str, Any], made: Manifest | None) -> list[str]:
    """Why the change must be made, in words; none when it is what was last done for that subject."""
    if made is None:
        return ["not made yet"]
    done = [old for old in made.changes if (old["command"], old["subject"]) == (entry["command"], entry["subject"])]
    if not done or (entry["command"] == "finetune" and made.changes[-1] != done[-1]):
        return ["not made yet"]
    before = replace(made, version=done[-1]["version"], settings=done[-1]["settings"], inputs=done[-1]["inputs"])
    identity = Identity(made.stage, entry["version"], entry["settings"], entry["inputs"])
    reasons = identity.differences(before)
    if done[-1]["base"] != entry["base"]:
        reasons.append("the avatar it rests on changed")
    return reasons


def _make(own: Project, row: Stage, base: Manifest, base_dir: Path, entry: dict[str, Any], is_forced: bool) -> None:
    name, (subject,) = own.avatar, own.subjects
    folder = own.folder(row, name)
    # A finetuning goes on from the avatar as it is now, so that one is part of what is being made.
    seed = {**entry, "from": base.current_digest(base_dir)}
    key = hashlib.sha256(json.dumps(seed, sort_keys=True).encode()).hexdigest()[:16]
    try:
        partial = attempt.open_partial(folder, key, afresh=is_forced)
        with attempt.logged_to(partial / attempt.LOG_FILE), attempt.Meter() as meter:
            job = own.job(row, name, partial)
            row.function(Job(job.out_dir, job.settings, {**job.folders, row.name: base_dir}, job.subjects, None))
        kept = [
            old
            for old in base.changes
            if not (entry["command"] == old["command"] == "adapt" and old["subject"] == subject)
        ]
        identity = Identity(row.name, base.version, base.settings, {**base.inputs, **entry["inputs"]})
        attempt.write_manifest(partial, base.preset, row, identity, None, meter, (*kept, entry))
        attempt.publish(partial, folder)
        log.info("%s/%s: done in %.1f s, %.0f MB", name, row.name, meter.timing_s, meter.peak_rss_mb)
    except Exception as error:
        full = attempt.disk_full(error, folder.parent)
        if full is not None:
            raise full from None
        raise
