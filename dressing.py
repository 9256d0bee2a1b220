"""The plumbing of ``tryon`` and ``morph``: from a project to an opened avatar, and what to say when it is done.

Enters: the project of an avatar, and the words of the command line.  Leaves: a film or a sheet, made by
``rendering.tryon``; both commands return notes for the log.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from capture.errors import UserError
from project import Project, Stage

if TYPE_CHECKING:
    from rendering.avatar import Avatar


def tryon(
    project: Project, stage: Stage, body: str | None, wear: str | None, everybody: bool, regions: str | None,
    motion: str, camera: str | None, out: Path,
) -> tuple[str, ...]:  # fmt: skip
    """One in the clothes of another, or a sheet of all.  Raises UserError for anything that cannot be."""
    from rendering.tryon import sheet, try_on

    if everybody:
        if body or wear:
            raise UserError("--all shows everybody in everybody's clothes; leave --body and --wear out")
        sheet(_open(project, stage), regions, out)
        return ()
    if body is None or wear is None:
        raise UserError(
            "say who puts on whose clothes, with --body NAME --wear NAME, or --all for a sheet of everybody"
        )
    from rendering.render import Wish

    return try_on(_open(project, stage), project.workspace, body, wear, regions, Wish(motion, camera), out)


def morph(project: Project, stage: Stage, first: str, second: str, out: Path) -> None:
    """From one to another.  Raises UserError as ``tryon`` does."""
    from rendering.tryon import morph as film

    film(_open(project, stage), first, second, out)


def _open(project: Project, stage: Stage) -> Avatar:
    folder = project.trained(stage)
    from rendering.avatar import Avatar

    return Avatar.load(folder)
