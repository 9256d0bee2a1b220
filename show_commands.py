"""The commands that show an avatar, or a tracked body: ``pipeline.py`` adds them to its own.

Only what click must know stands here; ``showing``, ``exporting`` and ``dressing`` do what is asked for.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

import dressing
from commands import Atlas, open_project, options
from exporting import SUFFIXES, Wish, export
from showing import drive_avatar, render_film, track_body

log = logging.getLogger("pipeline")


@click.command("render")
@options("avatar", "whom", "out")
@click.option("--motion", metavar="heldout|recording|NAME|FILE", help="Kept frames, a fit, a .bvh or .npz.")
@click.option("--scene", type=click.Path(path_type=Path), metavar="FILE.json", help="Several avatars instead of one.")
@click.option("--camera", metavar="capture|orbit|FILE", help="Where from; capture for what was filmed, else orbit.")
@click.option("--background", metavar="WORD", help="studio, room, transparent, #rrggbb or a picture.")
@click.option("--size", metavar="WxH", help="Pixels of the picture.")
@click.option("--fps", type=float, metavar="N", help="Pictures a second; by default the motion's own.")
@click.option("--side-by-side", is_flag=True, help="What was filmed beside the avatar.")
@click.pass_obj
def render_command(
    atlas: Atlas, workspace: Path, avatar: str | None, subjects: tuple[str, ...], out: Path, **wished: Any
) -> None:
    """The avatar in motion, as a film."""
    for note in render_film(workspace, atlas, (avatar, subjects), out, wished):
        log.warning("%s", note)
    click.echo(out)


@click.command("drive")
@options("avatar", "whom", "set")
@click.option("--source", required=True, metavar="kinect|webcam|demo|PATH", help="Who moves: a sensor, a film.")
@click.option("--driver", metavar="NAME", help="Whose body is tracked: from a fit that was made before.")
@click.option("--show", "layout", default="beside", metavar="beside|instead", help="With the camera's picture or not.")
@click.option("--background", default="studio", metavar="WORD", help="studio, #rrggbb or a picture.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.mp4", help="Keep what is shown.")
@click.option("--no-window", is_flag=True, help="Only write --out; every frame is tracked.")
@click.option("--realtime", is_flag=True, help="With --no-window: miss frames as a live source would make you.")
@click.option("--seconds", type=float, metavar="N", help="Stop after so much of the source.")
@click.pass_obj
def drive_command(
    atlas: Atlas, workspace: Path, avatar: str | None, subjects: tuple[str, ...], out: Path | None, **driven: Any
) -> None:
    """Move, and your avatar moves: live, or while a film plays."""
    for line in drive_avatar(open_project(atlas, workspace, subjects, avatar), atlas, out, driven):
        click.echo(line)


@click.command("export")
@options("avatar", "whom")
@click.option("--format", "kind", required=True, type=click.Choice(list(SUFFIXES)), help="A page, networks, a mesh.")
@click.option(
    "--motion", "motions", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help=".bvh or .npz."
)
@click.option("--runtime", type=click.Path(path_type=Path), metavar="FILE.tgz", help="ONNX Runtime Web of your own.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="PATH", help="What to write.")
@click.pass_obj
def export_command(
    atlas: Atlas, kind: str, motions: tuple[Path, ...], runtime: Path | None, out: Path, **given: Any
) -> None:
    """The avatar for other programs: a web page that shows it, its networks as ONNX, its body as glTF."""
    export(open_project(atlas, **given), atlas.stage("train"), Wish(kind, out, motions, runtime))
    click.echo(out)


@click.command("view")
@options("avatar")
@click.option("--subject", metavar="NAME", help="Whom of the cast to show first.")
@click.option(
    "--motion",
    "motions",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A .bvh or AMASS .npz to play; may be repeated.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Who may look: only you, or 0.0.0.0 for the network.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, metavar="N", help="0: any that is free."
)
@click.pass_obj
def view_command(
    atlas: Atlas,
    avatar: str | None,
    subject: str | None,
    motions: tuple[Path, ...],
    host: str,
    port: int,
    workspace: Path,
) -> None:
    """The avatar live in your browser: orbit, pose, play motions, dress, compare."""
    project = open_project(atlas, workspace, (), avatar or subject)
    avatar_dir = project.trained(atlas.stage("train"))
    from rendering.viewer import view

    for line in view(avatar_dir, workspace, subject, motions, host, port):
        click.echo(line)


@click.command("tryon")
@options("base", "out")
@click.option("--body", metavar="NAME", help="Who moves.")
@click.option("--wear", metavar="NAME", help="Whose clothes.")
@click.option("--regions", metavar="torso,legs,...", help="Where; by default torso, upper_arm, legs and feet.")
@click.option("--motion", default="recording", metavar="recording|heldout|FILE", help="Frames of the body, or a file.")
@click.option("--camera", default="orbit", metavar="orbit|capture|FILE", help="From where; capture in his own room.")
@click.option("--all", "everybody", is_flag=True, help="A JPEG of everybody in everybody's clothes instead.")
@click.pass_obj
def tryon_command(atlas: Atlas, avatar: str, workspace: Path, out: Path, **given: Any) -> None:
    """One of a cast in the clothes of another, as a video."""
    for note in dressing.tryon(open_project(atlas, workspace, (), avatar), atlas.stage("train"), out=out, **given):
        log.warning("%s", note)
    click.echo(out)


@click.command("morph")
@options("base", "out")
@click.option("--from", "first", required=True, metavar="NAME", help="Who at the beginning.")
@click.option("--to", "second", required=True, metavar="NAME", help="Who at the end.")
@click.pass_obj
def morph_command(atlas: Atlas, avatar: str, workspace: Path, first: str, second: str, out: Path) -> None:
    """One of a cast becomes another, as a video: look, clothes and figure."""
    dressing.morph(open_project(atlas, workspace, (), avatar), atlas.stage("train"), first, second, out)
    click.echo(out)


@click.command("track")
@click.option("--source", required=True, metavar="demo|kinect|webcam|PATH", help="What to play: a video, a sensor, ...")
@click.option("--subject", metavar="NAME", help="Whose body to track: from a fit that was made before.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.mp4", help="Keep what is shown.")
@click.option("--no-window", is_flag=True, help="Only write --out; every frame is tracked.")
@click.option("--realtime", is_flag=True, help="With --no-window: miss frames as a live source would make you.")
@click.option("--seconds", type=float, metavar="N", help="Stop after so much of the source.")
@options("set")
@click.pass_obj
def track_command(atlas: Atlas, workspace: Path, out: Path | None, **tracked: Any) -> None:
    """The body over the picture while a source plays, as if it were live."""
    for line in track_body(workspace, atlas, out, tracked):
        click.echo(line)


COMMANDS = (
    render_command, drive_command, export_command, view_command, tryon_command, morph_command, track_command,
)  # fmt: skip
