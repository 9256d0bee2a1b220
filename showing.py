"""The commands that show an avatar: ``render`` into a film, ``drive`` it by moving.  Options in, films out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import source as sources
from capture.errors import UserError
from commands import Atlas, live_settings, live_source, open_project
from project import Project

if TYPE_CHECKING:
    from fitting.play import Draw


def read_size(text: str | None) -> tuple[int, int] | None:
    """ "1280x720" to (1280, 720).  Raises UserError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if match is None:
        raise UserError(f"--size {text}: give width and height in pixels, such as 1280x720")
    return int(match.group(1)), int(match.group(2))


def one_subject(project: Project) -> str:
    """Whom to show.  Raises UserError when there are several to choose from."""
    if len(project.subjects) > 1:
        raise UserError(f"--subject: say which of {', '.join(project.subjects)} to show")
    return project.subjects[0]


def render_film(
    workspace: Path, atlas: Atlas, named: tuple[str | None, tuple[str, ...]], out: Path, wished: Mapping[str, Any]
) -> tuple[str, ...]:
    """``pipeline.py render``: an avatar and its subjects, or a scene; ``wished`` holds the other options.

    Returns what there is to say about the film."""
    size, scene = read_size(wished["size"]), wished["scene"]
    avatar, subjects = named
    if scene is not None and (avatar or subjects or wished["motion"] or wished["side_by_side"]):
        raise UserError("--scene says who does what; leave out --avatar, --subject, --motion and --side-by-side")
    if scene is not None:
        from rendering.render import Wish
        from rendering.scenes import render_scene

        wish = Wish("", wished["camera"], wished["background"], size, wished["fps"])
        return render_scene(scene, workspace, wish, out)
    project = open_project(atlas, workspace, subjects, avatar)
    folder = project.trained(atlas.stage("train"))
    from rendering.render import HELDOUT, Wish, render

    wish = Wish(
        wished["motion"] or HELDOUT, wished["camera"], wished["background"], size, wished["fps"], wished["side_by_side"]
    )
    return render(folder, project.workspace, one_subject(project), wish, out)


def drive_avatar(project: Project, atlas: Atlas, out: Path | None, driven: Mapping[str, Any]) -> list[str]:
    """``pipeline.py drive``; ``driven`` holds its options.  Returns the lines to print."""
    folder, subject = project.trained(atlas.stage("train")), one_subject(project)
    from rendering.avatar import Avatar
    from rendering.driving import Puppet, check_layout

    check_layout(driven["layout"], driven["background"])
    played = {**driven, "subject": driven["driver"], "option": "--driver", "title": "drive (q ends)"}
    avatar = Avatar.load(folder)
    avatar.check_subject(subject)
    puppet = Puppet(avatar, subject, driven["layout"], driven["background"])
    return _played(project.workspace, atlas, out, played, puppet)


def track_body(workspace: Path, atlas: Atlas, out: Path | None, tracked: Mapping[str, Any]) -> list[str]:
    """``pipeline.py track``; ``tracked`` holds its options.  Returns the lines to print."""
    played = {**tracked, "option": "--subject", "title": "track (q ends)"}
    return _played(workspace, atlas, out, played, None)


def _is_source(source: str, out: Path) -> bool:
    """Whether writing ``out`` would change what is read."""
    path = Path(source)
    if source == sources.DEMO or not path.exists():
        return False
    return path.resolve() in (out.resolve(), out.resolve().parent)


def _played(
    workspace: Path,
    atlas: Atlas,
    out: Path | None,
    played: Mapping[str, Any],
    draw: Draw | None,
) -> list[str]:
    """Track ``played["source"]`` and show it; ``played["subject"]``, given by ``option``, is whose body it is."""
    subject = played["subject"]
    if out is not None and _is_source(played["source"], out):
        raise UserError(f"--out {out}: lies in the source, {played['source']}; write the film somewhere else")
    settings = live_settings(atlas, workspace, subject, played["assignments"])
    frames = live_source(atlas, workspace, played["source"], settings)
    from fitting.fit import BodyFit
    from fitting.play import Show, play

    fitted = None
    if subject is not None:
        folder = workspace / subject / atlas.stage("fit").name
        if not folder.exists():
            raise UserError(
                f"{folder}: not made yet; run pipeline.py fit --subject {subject}, or leave {played['option']} out"
            )
        fitted = BodyFit.load(folder)
    show = Show(out, not played["no_window"], played["realtime"], played["seconds"], played["title"])
    lines = play(settings.config("fit"), show, frames, fitted, draw=draw)
    return [*lines, str(out)] if out is not None and out.exists() else lines
