"""The ``export`` command: an avatar for programs that know nothing of ours.

onnx   the networks alone          glb   the body with its colours and motions          web   the avatar itself, moving
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capture.errors import UserError
from project import Project, Stage

if TYPE_CHECKING:
    from rendering.avatar import Avatar
    from rendering.moves import Move

log = logging.getLogger(__name__)

SUFFIXES = {"onnx": (".onnx",), "glb": (".glb",), "web": ("", ".html")}
LARGE_MB = 100  # of networks in a page: the cpu preset has 22
ATLAS_PX = 512  # of a glb's colours: twice the texture, so that a chart's edges stay sharp


@dataclass(frozen=True)
class Wish:
    """What to write, and with which motions and runtime."""

    format: str
    out: Path
    motions: tuple[Path, ...]
    runtime: Path | None


def export(project: Project, stage: Stage, wish: Wish) -> None:
    """Write ``wish.out``.  Raises UserError for options that do not go together, and without a trained avatar."""
    _check(wish)
    avatar_dir = project.trained(stage)
    from rendering.avatar import Avatar

    avatar = Avatar.load(avatar_dir, "cpu")
    if wish.format == "onnx":
        named = project.subjects if set(project.subjects) <= set(avatar.subjects) else avatar.subjects
        _write_onnx(avatar, named, wish.out)
        return
    subject = _the_subject(project, avatar)
    from rendering.moves import moves

    found = moves(avatar, subject, project.workspace / subject, wish.motions)
    for note in (note for move in found for note in move.motion.notes):
        log.warning("%s", note)
    if wish.format == "glb":
        _write_glb(avatar, subject, found, wish.out)
    else:
        _write_web(avatar, subject, found, wish)


def _check(wish: Wish) -> None:
    expected = SUFFIXES[wish.format]
    if wish.out.suffix.lower() not in expected and (wish.format != "web" or wish.out.suffix.lower() in _OTHERS):
        words = (
            "a folder or a file that ends in .html" if wish.format == "web" else f"a file that ends in {expected[0]}"
        )
        raise UserError(f"--out {wish.out}: --format {wish.format} writes {words}")
    if wish.motions and wish.format == "onnx":
        raise UserError("--motion goes with --format web or glb; an .onnx holds the networks alone")
    if wish.runtime is not None and wish.format != "web":
        raise UserError("--runtime goes with --format web")


_OTHERS = {suffix for name in ("onnx", "glb") for suffix in SUFFIXES[name]} | {".mp4", ".zip", ".htm", ".js"}


def _the_subject(project: Project, avatar: Avatar) -> str:
    if len(project.subjects) > 1:
        raise UserError(f"--subject: say which of {', '.join(project.subjects)} to export")
    (subject,) = project.subjects
    avatar.check_subject(subject)
    return subject


def _write_onnx(avatar: Avatar, subjects: Sequence[str], out: Path) -> None:
    """The networks; outlined as one of ``subjects``, where there is only one, is."""
    from capture.files import write_atomically
    from rendering.networks import NeuralRenderer
    from rendering.onnx_graph import onnx_model

    out.parent.mkdir(parents=True, exist_ok=True)
    only = subjects[0] if len(subjects) == 1 else None
    adapted = [subject for subject in subjects if avatar.textures[subject].outline is not None]
    if adapted and only is None:
        log.warning("%s: outlined as those the networks learned from; --subject exports their own", ", ".join(adapted))
    for part, path in ((avatar, out), (avatar.close_up, out.with_stem(f"{out.stem}_close_up"))):
        if part is not None:
            assert isinstance(part.renderer, NeuralRenderer)
            outline = part.textures[only].outline if only is not None and only in part.textures else None
            write_atomically(path, onnx_model(part.renderer, outline).SerializeToString())
        elif path.is_file():
            log.warning("%s: was there before, and is not of this avatar, which has no close-up", path)


def _write_glb(avatar: Avatar, subject: str, moves: list[Move], out: Path) -> None:
    from capture.files import write_atomically
    from rendering.bake import baked_colors
    from rendering.gltf import glb

    shape = avatar.bodies[subject]
    if shape.body.pose_basis_m is not None:
        log.warning("a .glb has no place for the pose correctives of an SMPL body: bent joints are less round")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, glb(shape, subject, baked_colors(avatar, subject, ATLAS_PX), [move.motion for move in moves]))


def _write_web(avatar: Avatar, subject: str, moves: list[Move], wish: Wish) -> None:
    from rendering.ort_web import runtime_files
    from rendering.web_page import check_folder, write_page
    from training.features import weights_dir

    if wish.out.suffix.lower() != ".html":
        check_folder(wish.out)
    painting = [avatar] if avatar.close_up is None else [avatar, avatar.close_up]
    size_mb = sum(weight.numel() for part in painting for weight in part.renderer.parameters()) * 4e-6
    if size_mb > LARGE_MB:
        log.warning(
            "the networks are %.0f MB, for whoever opens the page as well; a smaller preset suits it better", size_mb
        )
    write_page(avatar, subject, moves, runtime_files(weights_dir(), wish.runtime), wish.out)
