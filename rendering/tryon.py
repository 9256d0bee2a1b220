"""The ``tryon`` and ``morph`` commands: films and a contact sheet of a cast that changes clothes.

Enters: an avatar of several subjects, and their folders in the workspace where a recording is replayed.  Leaves: an mp4
or a JPEG.  N pictures, H x W pixels.  Who wears what is ``rendering/worn.py``'s business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from capture.errors import UserError
from capture.files import encode_jpeg, write_atomically
from capture.progress import progress
from capture.video import VideoWriter
from rendering.avatar import Avatar, Shape
from rendering.backgrounds import in_studio
from rendering.render import Scene, Wish, film, orbit_views
from rendering.retarget import Motion
from rendering.worn import between, clothes_of, dressed, faces_of

RATE_HZ = 24.0
MORPH_S, HOLD_S = 8.0, 1.0  # of a whole turn; at both ends somebody is only himself
LEGS_IN = 0.12  # rad: the body rests with its legs apart, which no skirt was filmed in
RENDERED_WH, SHEET_WH = (560, 680), (270, 540)  # of a picture of the sheet, and of its middle, which is kept
SHEET_AZIMUTHS = (20, 200)  # degrees; 0 is the front
LABEL_PX = 34
PAPER, INK = 246, (40, 40, 44)


def try_on(
    avatar: Avatar, workspace: Path, body: str, wear: str, words: str | None, wish: Wish, out: Path
) -> tuple[str, ...]:
    """Film ``body`` in the clothes of ``wear``, in the regions of "torso,legs"; returns what there is to say about it.

    Raises UserError for unknown names, an avatar of one subject, and as ``film`` does.
    """
    check_cast(avatar)
    for subject in (body, wear):
        avatar.check_subject(subject)
    if body == wear:
        raise UserError(
            f"--wear {wear}: that is what --body {body} has on; name another of {', '.join(avatar.subjects)}"
        )
    regions = dict.fromkeys(regions_of(avatar, body, words), wear)
    return film(dressed(avatar, body, regions), body, workspace, wish, out)


def morph(avatar: Avatar, first: str, second: str, out: Path) -> None:
    """Film how one becomes the other while the camera goes round.  Raises UserError as ``try_on`` does."""
    check_cast(avatar)
    for subject in (first, second):
        avatar.check_subject(subject)
    if first == second:
        raise UserError(f"--to {second}: name another of {', '.join(avatar.subjects)}")
    if out.suffix.lower() != ".mp4":
        raise UserError(f"--out {out}: videos are written as .mp4; name it {out.with_suffix('.mp4').name}")
    out.parent.mkdir(parents=True, exist_ok=True)
    count = round(MORPH_S * RATE_HZ)
    with VideoWriter(out, RATE_HZ) as video:
        for picture in progress(_morph_pictures(avatar, first, second, count), f"morph {out.name}", count):
            video.add(picture)


def _morph_pictures(avatar: Avatar, first: str, second: str, count: int) -> Iterator[np.ndarray]:
    times = np.linspace(0, 1, count)
    hold = HOLD_S / MORPH_S
    even = np.clip((times - hold) / (1 - 2 * hold), 0, 1)
    shares = even * even * (3 - 2 * even)
    views = orbit_views(avatar, first, standing(avatar.bodies[first], count), 1.0)
    for share, view in zip(shares, views, strict=True):
        mixed = between(avatar, first, second, float(share))
        yield from Scene(standing(mixed.bodies[first], 1), [view], in_studio).pictures(mixed, first)


def sheet(avatar: Avatar, words: str | None, out: Path) -> None:
    """Everybody in everybody's clothes, front and back: a row per body, a column per owner of the clothes.

    Raises UserError as ``try_on`` does.
    """
    check_cast(avatar)
    if out.suffix.lower() not in (".jpg", ".jpeg"):
        raise UserError(f"--out {out}: the sheet is a JPEG; name it {out.with_suffix('.jpg').name}")
    rows = [_caption([f"in {subject}'s clothes" for subject in avatar.subjects])]
    for body in progress(avatar.subjects, "try on", len(avatar.subjects)):
        regions = regions_of(avatar, body, words)
        cells = [np.concatenate(_seen(avatar, body, dict.fromkeys(regions, wear)), axis=1) for wear in avatar.subjects]
        rows += [np.concatenate(cells, axis=1), _caption([body] * len(cells))]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, encode_jpeg(np.concatenate(rows), 90))


def _seen(avatar: Avatar, body: str, regions: dict[str, str]) -> list[np.ndarray]:
    clothed = dressed(avatar, body, regions)
    still = standing(avatar.bodies[body], 360)
    views = orbit_views(avatar, body, still, 1.0, RENDERED_WH)
    chosen = [views[degrees] for degrees in SHEET_AZIMUTHS]
    left, top = ((whole - kept) // 2 for whole, kept in zip(RENDERED_WH, SHEET_WH, strict=True))
    pictures = Scene(standing(clothed.bodies[body], len(chosen)), chosen, in_studio).pictures(clothed, body)
    return [picture[top : top + SHEET_WH[1], left : left + SHEET_WH[0]] for picture in pictures]


def _caption(words: Sequence[str]) -> np.ndarray:
    """(LABEL_PX, W, 3) one line of words, centred over the columns."""
    width = SHEET_WH[0] * len(SHEET_AZIMUTHS)
    strip = np.full((LABEL_PX, width * len(words), 3), PAPER, np.uint8)
    for column, text in enumerate(words):
        (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
        at = (column * width + (width - wide) // 2, (LABEL_PX + high) // 2)
        cv2.putText(strip, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, INK, 1, cv2.LINE_AA)
    return strip


def standing(shape: Shape, count: int) -> Motion:
    """``count`` frames of somebody who stands at ease on the floor, legs close."""
    pose = shape.body.bare.joint_prior_mean.astype(float).copy()
    for side, sign in (("L", 1), ("R", -1)):
        for name, turn in ((f"upperleg01.{side}", LEGS_IN), (f"foot.{side}", -LEGS_IN)):
            if name in shape.body.joint_names:
                pose[shape.body.joint_index(name), 1] += sign * turn
    vertices_m, _ = shape.body.posed(shape.shape, pose, None, shape.vertex_offsets_m)
    placed = np.eye(4)
    placed[2, 3] = -vertices_m[:, 2].min()
    return Motion("standing", np.repeat(pose[None], count, axis=0), np.repeat(placed[None], count, axis=0), RATE_HZ)


def regions_of(avatar: Avatar, body: str, words: str | None) -> tuple[str, ...]:
    """The regions of "torso,legs", by default those that clothes cover.  Raises UserError for one that is not there."""
    model = avatar.bodies[body].body
    if words is None:
        return clothes_of(model)
    regions = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    for region in regions:
        faces_of(model, region)
    if not regions:
        raise UserError(f"--regions {words!r}: name some, for example {','.join(clothes_of(model))}")
    return regions


def check_cast(avatar: Avatar) -> None:
    """Raises UserError when there is nobody to change clothes with."""
    if len(avatar.subjects) < 2:
        raise UserError(
            f"this avatar has one subject, {avatar.subjects[0]}; train one of several: "
            f"pipeline.py run --subject {avatar.subjects[0]} --subject NAME --avatar NAME"
        )
