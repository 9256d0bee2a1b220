"""Claim: in another's clothes the face stays, and what is worn looks like the other's, not like one's own.

Needs an avatar of several subjects with their recordings in the workspace (``make bench`` passes over it without one):

    pipeline.py run --subject dana --source demo --set demo.performer=dana --until rasterize
    pipeline.py run --subject demo --subject dana --avatar duo

In poses of A's recording, seen from all around, three pictures: A, A wearing B's clothes, and B herself in A's pose and
in the light that A was filmed in.
Colours are compared point by point of the skin, by the texture coordinates of what is seen, where all three pictures
show it; distances are mean absolute differences per channel, of 255.  All three are painted in the same box.
"""

from __future__ import annotations

import argparse
import sys
from itertools import permutations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from capture.camera import invert
from rendering.avatar import Avatar
from rendering.captured import Captured
from rendering.framing import person_box
from rendering.rasterize import rasterize
from rendering.render import orbit_views
from rendering.viewpoints import View, lit_as_from
from rendering.worn import clothes_of, dressed, faces_of, mixed_texture

POSES, CELLS, PICTURE_WH = 12, 64, (480, 640)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--avatar", type=Path, default=Path("workspace/duo/06_avatar"))
    options = parser.parse_args()
    if not options.avatar.exists():
        print(f"passed over: {options.avatar} is not there; see --help")
        return
    avatar = Avatar.load(options.avatar)
    print(f"{POSES} poses, clothes: {', '.join(clothes_of(avatar.bodies[avatar.subjects[0]].body))}")
    print(f"{'body':>8}{'clothes':>9}{'face moved':>12}{'faces apart':>13}{'to clothes':>12}{'to own':>8}{'nearer':>8}")
    for body, wear in permutations(avatar.subjects, 2):
        face, faces, cloth, own, nearer = compare(avatar, body, wear, options.avatar.parents[1] / body)
        print(f"{body:>8}{wear:>9}{face:12.2f}{faces:13.1f}{cloth:12.1f}{own:8.1f}{nearer:8.2f}")


def compare(avatar: Avatar, body: str, wear: str, subject_dir: Path) -> tuple[float, ...]:
    """Means over all poses and points of the skin: how far A's face moved, how far B's face is from it, how far what is
    worn is from B's and from A's, and the share of its points that are nearer to B's."""
    model, captured = avatar.bodies[body].body, Captured.load(subject_dir)
    clothes = clothes_of(model)
    clothed = dressed(avatar, body, dict.fromkeys(clothes, wear))
    # What is worn is shown in its wearer's light and outline, so is its owner here.
    theirs = mixed_texture(avatar, [wear], np.ones(1), body)
    owner = avatar.with_subject(wear, theirs, avatar.bodies[wear])
    tracked = np.flatnonzero(captured.fit.tracked)
    moved = captured.motion(tracked[np.linspace(0, len(tracked) - 1, POSES).astype(int)])
    is_clothes = np.any([faces_of(model, word) for word in clothes], axis=0)
    of_clothes, of_face = (np.unique(model.face_part[faces]) for faces in (is_clothes, faces_of(model, "face")))
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("face", "faces", "clothes", "own")}
    views = lit_as_from(orbit_views(avatar, body, moved, 1.0, PICTURE_WH), invert(captured.world_from_color)[:3, :3])
    for pose, placed, view in zip(moved.pose, moved.world_from_body, views, strict=True):
        vertices_m = avatar.bodies[body].vertices_camera_m(pose, view.camera_from_world @ placed)
        box = person_box(vertices_m, view.camera, avatar.image_wh)
        seen = [
            skin_colors(who, subject, pose, placed, view, box)
            for who, subject in ((avatar, body), (clothed, body), (owner, wear))
        ]
        part = seen[0][1]
        shown = np.all([np.isfinite(colors).all(axis=1) & (parts == part) for colors, parts in seen], axis=0)
        own, worn_now, others = (255 * colors for colors, _ in seen)
        face, cloth = shown & np.isin(part, of_face), shown & np.isin(part, of_clothes)
        found["face"].append(np.abs(worn_now - own)[face].mean(axis=1))
        found["faces"].append(np.abs(others - own)[face].mean(axis=1))
        found["clothes"].append(np.abs(worn_now - others)[cloth].mean(axis=1))
        found["own"].append(np.abs(worn_now - own)[cloth].mean(axis=1))
    face, faces, cloth, own = (np.concatenate(found[name]) for name in ("face", "faces", "clothes", "own"))
    return (*(float(distances.mean()) for distances in (face, faces, cloth, own)), float((cloth < own).mean()))


def skin_colors(
    avatar: Avatar,
    subject: str,
    pose: np.ndarray,
    placed: np.ndarray,
    view: View,
    box: tuple[float, float, float, float] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """(CELLS^2, 3) mean colour of every cell of the atlas, NaN where it is not seen, and (CELLS^2,) which part it is.

    pose (J, 3), world_from_body ``placed`` (4, 4).
    """
    shape, camera_from_body = avatar.bodies[subject], view.camera_from_world @ placed
    vertices_m = shape.vertices_camera_m(pose, camera_from_body)
    rgba = avatar.render(subject, pose, camera_from_body, view.camera, box, view.lit_from_camera)
    raster = rasterize(shape.body, vertices_m, view.camera)
    inside = raster.mask & (rgba[..., 3] > 0.9) & (raster.normal[..., 2] < -0.3)
    column, row = np.minimum((raster.uv[inside] * CELLS).astype(int), CELLS - 1).T
    cell = row * CELLS + column
    count = np.bincount(cell, minlength=CELLS**2)
    totals = np.stack([np.bincount(cell, rgba[inside][:, k], CELLS**2) for k in range(3)], axis=1)
    colors = np.divide(totals, count[:, None], out=np.full_like(totals, np.nan), where=count[:, None] > 0)
    part = np.zeros(CELLS**2, int)
    part[cell] = raster.part[inside]
    return colors, part


if __name__ == "__main__":
    main()
