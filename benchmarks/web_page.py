"""The exported page: are its pixels those of Python, and how many pictures a second does it paint?

    python benchmarks/web_page.py [--avatar DIR] [--subject NAME] [FILE.bvh ...]

Needs Chromium, and ONNX Runtime Web in the cache of weights, where ``export --format web`` leaves it.  First table:
PSNR of the page against ``Avatar.render`` over grey within the person's box, in float32 and in the machine's own
precision; three moments of every motion, three cameras.  Second table: CPU milliseconds per picture of 1200 x 800, of
the page's own thread.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from avatar_page import in_float32, over_grey, painted_by_page, seen_from
from chromium import WHERE, Page
from web_server import served

from rendering.avatar import Avatar
from rendering.framing import person_box
from rendering.moves import Move, moves
from rendering.ort_web import ARCHIVE, runtime_files
from rendering.viewpoints import lit_as_from
from rendering.web_page import write_page
from training.features import weights_dir

ROOT = Path(__file__).parents[1]
CAMERAS = ((0.0, (600, 800)), (1.1, (1200, 800)), (3.0, (300, 160)))  # azimuth, picture
ROUNDS = 15
PAGE_WH = (1200, 800)
BEFORE = """const v = viewer, a = v.avatar, camera = v.camera(), pose = v.of("pose", 0);
  const placed = compose(camera.fromWorld, v.of("world_from_body", 0));
  const painted = await a.paint(pose, placed, camera), p = a.person;
  const crop = cropCamera(camera, painted.person.box, p.width, p.height);"""
STEPS = {
    "skin, rasteriser": "a.body.pose(pose, placed); a.body.findNormals(); p.raster.draw(crop);",
    "texture": "p.fillPlanes(camera.litFromCamera);",
    "networks, with the two above": "a.body.pose(pose, placed); a.body.findNormals(); await p.paint(camera);",
    "close-up": "if (painted.head !== null) await a.closeUp.paint(camera);",
    "shadow": "dropShadow(camera, a.body.vertices, v.picture.data);",
    "paste": "a.paste(painted, v.picture.data, camera.width, camera.height, 255);",
    "whole picture": 'v.shown = ""; v.azimuth += 0.05; v.seconds += 1 / 15; await v.draw();',
}


@click.command()
@click.option("--avatar", "folder", default=ROOT / "workspace/demo/06_avatar", type=click.Path(path_type=Path))
@click.option("--subject", help="By default the avatar's first.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
def main(folder: Path, subject: str | None, files: tuple[Path, ...]) -> None:
    """Print both tables."""
    if WHERE is None or not (weights_dir() / ARCHIVE).is_file() or not folder.is_dir():
        print(f"skipped: needs Chromium, {weights_dir() / ARCHIVE} and {folder}")
        return
    avatar = Avatar.load(folder, "cpu")
    subject = subject or avatar.subjects[0]
    found = moves(avatar, subject, folder.parent.parent / subject, files)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        home = Path(scratch)
        write_page(avatar, subject, found, runtime_files(weights_dir()), home / "page")
        with served(home / "page") as at, Page(f"{at}/index.html#paused", home / "chromium", PAGE_WH) as page:
            page.call("Performance.enable", timeDomain="threadTicks")
            page.wait("globalThis.viewer && viewer.shown")
            compare(avatar, subject, found, page)
            measure(page)


def compare(avatar: Avatar, subject: str, found: list[Move], page: Page) -> None:
    """The first table."""
    precise = in_float32(avatar)
    shape = avatar.bodies[subject]
    own = str(avatar.painter.dtype).partition(".")[2]
    print(f"| motion | frame | picture | float32, dB | {own}, dB |\n|---|---|---|---|---|")
    for index, move in enumerate(found):
        motion = move.motion
        for frame, (azimuth, image_wh) in zip((0, len(motion) // 2, len(motion) - 1), CAMERAS, strict=True):
            (view,) = lit_as_from([seen_from(shape, motion, frame, azimuth, image_wh)], move.lit_from_world)
            shown = painted_by_page(page, index, frame, view)
            placed = view.camera_from_world @ motion.world_from_body[frame]
            box = person_box(shape.vertices_camera_m(motion.pose[frame], placed), view.camera, avatar.image_wh)
            assert box is not None
            left, top, right, bottom = (max(0, round(side)) for side in box)
            figures = []
            for painter in (precise, avatar):
                true = over_grey(
                    painter.render(subject, motion.pose[frame], placed, view.camera, None, view.lit_from_camera)
                )
                figures.append(-10 * np.log10(((shown - true)[top:bottom, left:right] ** 2).mean()))
            print(f"| {motion.name} | {frame} | {image_wh[0]} x {image_wh[1]} | {figures[0]:.1f} | {figures[1]:.1f} |")


def measure(page: Page) -> None:
    """The second table."""
    print(f"\nload {os.getloadavg()[0]:.1f}\n\n| step | CPU ms |\n|---|---|")
    for name, code in STEPS.items():
        script = f"(async () => {{ {BEFORE} for (let i = 0; i < %d; i++) {{ {code} }} }})()"
        page.value(script % ROUNDS)  # let the engine compile it
        marks_s = [busy(page)]
        for rounds in (ROUNDS, 0):  # what is done before the rounds is taken off
            page.value(script % rounds)
            marks_s.append(busy(page))
        print(f"| {name} | {1000 * (2 * marks_s[1] - marks_s[0] - marks_s[2]) / ROUNDS:.1f} |")


def busy(page: Page) -> float:
    """CPU seconds of the page's thread."""
    return next(m["value"] for m in page.call("Performance.getMetrics")["metrics"] if m["name"] == "TaskDuration")


if __name__ == "__main__":
    main()
