"""Does the depth of loose clothes inflate our body?  Prints one table in Markdown.

    python benchmarks/clothed_depth.py [--workspace DIR] [--data ../shared/data] [--pictures DIR]

Two kinds of truth.  Three frames of clothed people (``clothed_rgbd`` in --data, skipped where it lacks them), each a
recording of one frame that goes through our recording, mask and fit stages, beside a body model's depth.  And the demo
performer: her legs below the shirt's hem, which a skirt covers in part, against her undressed skin; from the finished
stages in --workspace, or else from a short clip.  --pictures keeps outlines of each body over its picture.

The three frames are no pinhole pictures: they are orthographic, 1800 / 364.276 mm a pixel, and the body model is seen
from behind (buttocks, heels; mirrored, its outline lies on the person's).  A point z mm away in front is 3600 - z mm
away behind.  Those are the values that the frames' authors compute with; outlines and rims agree with them.  Our stages
know pinhole cameras only, so the seen surface is drawn again as a Kinect V2's depth camera (the same focal length,
364.276 px, at 512x424) has it in view; no invented surface is added.

Columns.  "Less the truth": our depth minus the truth's, where both bodies cover a pixel that the person's mask covers;
negative = our body stands out of the truth.  The three frames are judged from behind, where the camera did not see, the
demo from the front.  "Less the cloth": our depth minus the seen depth, both from the front.  "Before the cloth": share
of pixels where our body stands more than 20 mm in front of what was seen.  "The cloth less the truth": what a body
glued to the cloth would have; only the demo's truth is on the cloth's side.  Area: of our silhouette over that of the
truth, seen from the truth's side, and the same of the leggings: tight clothes stand off the skin like a thicker leg,
and no camera tells the two apart.  H x W pixels, V vertices.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave the cores to others
sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
from tracking import SHARED, machine, made

from capture.camera import Camera, Rig, project
from capture.container import FILE_NAME
from capture.errors import UserError
from capture.files import encode_png, read_depth, read_image
from capture.matting import Masks, MatteConfig, matte
from capture.recording import Recording, RecordingWriter
from capture.registration import depth_in_color
from demo.character import Character
from demo.performer import DemoConfig, film
from demo.undressed import Skin, skin_color_m, undress
from demo.wardrobe import HEM_M, SKIRT_HEM_M
from fitting.body.model import BodyModel
from fitting.fit import BodyFit, FitConfig, fit
from fitting.zbuffer import rasterize_faces

FRAMES = 3
# OpenCV's pixel centres are whole numbers, ours at +0.5.
PINHOLE = Camera((512, 424), 364.276, 364.276, 256.512 + 0.5, 207.939 + 0.5)
PLANE_M = 1.8  # the plane in which orthographic and pinhole pictures agree
M_PER_PX = PLANE_M / PINHOLE.fx_px
MAX_STEP_M = 0.05  # two pixels further apart in depth are two surfaces
BEFORE_M = 0.02
SHORT = DemoConfig(num_frames=24)
EVERY = 4  # of the demo's frames
ANKLE_M = 0.12  # shoes begin below
LEG = ("upperleg", "lowerleg")


@dataclass
class Gaps:
    """Depth differences in metres and silhouettes in pixels, gathered over one or more frames."""

    truth_m: list[np.ndarray]
    cloth_m: list[np.ndarray]
    between_m: list[np.ndarray]  # cloth less truth
    our_px: int = 0
    true_px: int = 0
    worn_px: int = 0  # of tight clothes; 0 = none are known

    def row(self) -> list[str]:
        truth, cloth = 1e3 * np.concatenate(self.truth_m), 1e3 * np.concatenate(self.cloth_m)
        low, middle, high = np.percentile(truth, [5, 50, 95])
        return [
            f"{len(truth)}",
            f"{middle:+.0f}",
            f"{np.abs(truth).mean():.0f}",
            f"{low:+.0f} / {high:+.0f}",
            f"{self.our_px / self.true_px:.2f}",
            f"{self.worn_px / self.true_px:.2f}" if self.worn_px else "-",
            f"{np.median(cloth):+.0f}",
            f"{100 * (cloth < -1e3 * BEFORE_M).mean():.1f} %",
            f"{1e3 * np.median(np.concatenate(self.between_m)):+.0f}" if self.between_m else "-",
        ]


# Three frames ---------------------------------------------------------------------------------------------------------


def surface_mesh(depth_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The seen surface of an orthographic depth picture (H, W), 0 = none: vertices (V, 3) and faces (F, 3)."""
    index = np.full(depth_m.shape, -1)
    rows, columns = np.nonzero(depth_m)
    index[rows, columns] = np.arange(len(rows))
    x = (columns + 0.5 - PINHOLE.cx_px) * M_PER_PX
    y = (rows + 0.5 - PINHOLE.cy_px) * M_PER_PX
    vertices_m = np.stack([x, y, depth_m[rows, columns]], axis=1)
    corners = np.stack([index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]], axis=-1).reshape(-1, 4)
    faces = np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]])
    faces = faces[(faces >= 0).all(axis=1)]
    return vertices_m, faces[np.ptp(vertices_m[faces, 2], axis=1) < MAX_STEP_M]


def as_pinhole(color: np.ndarray, depth_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) uint8 and depth (H, W) uint16 millimetres as ``PINHOLE`` sees an orthographic picture's
    surface."""
    vertices_m, faces = surface_mesh(depth_m)
    tones = color[np.nonzero(depth_m)].astype(float)
    face, weight, z_m = rasterize_faces(project(PINHOLE, vertices_m), vertices_m[:, 2], faces, PINHOLE.image_wh)
    seen = face >= 0
    weights = np.concatenate([weight[seen], 1 - weight[seen].sum(axis=1, keepdims=True)], axis=1)
    picture, depth_mm = np.zeros_like(color), np.zeros(depth_m.shape, np.uint16)
    picture[seen] = np.rint((tones[faces[face[seen]]] * weights[..., None]).sum(axis=1)).astype(np.uint8)
    depth_mm[seen] = np.rint(1e3 * z_m[seen]).astype(np.uint16)
    return picture, depth_mm


def orthographic_m(vertices_m: np.ndarray, faces: np.ndarray, from_behind: bool) -> np.ndarray:
    """A body's depth (H, W) in the frames' own projection, inf = none; from behind as their body model's is stored."""
    points_px = vertices_m[:, :2] / M_PER_PX + (PINHOLE.cx_px, PINHOLE.cy_px)
    z_m = vertices_m[:, 2]
    if from_behind:
        points_px = np.stack([PINHOLE.image_wh[0] - points_px[:, 0], points_px[:, 1]], axis=1)
        z_m = 2 * PLANE_M - z_m
    return rasterize_faces(points_px, z_m, faces, PINHOLE.image_wh)[2]


def fitted(color: np.ndarray, depth_m: np.ndarray, home: Path) -> BodyFit:
    """The fit of one frame.  Raises UserError or ValueError when there is none."""

    def convert(folder: Path) -> None:
        writer = RecordingWriter(folder, Rig(PINHOLE, PINHOLE, np.eye(4)), "one frame of a clothed person")
        picture, depth_mm = as_pinhole(color, depth_m)
        writer.add(0.0, encode_png(picture), depth_mm)
        writer.finish()

    recording = made(home / "01_recording", FILE_NAME, convert)
    masks = made(home / "02_masks", "masks.json", lambda folder: matte(MatteConfig(), folder, recording))
    return BodyFit.load(made(home / "03_fit", "fit.json", lambda folder: fit(FitConfig(), folder, recording, masks)))


def clothed_rows(data: Path, scratch: Path, pictures: Path | None) -> Iterator[list[str]]:
    for number in range(FRAMES):
        color = read_image(data / "color" / f"{number}.png")
        seen_m = read_depth(data / "depth" / f"{number}.png") / 1e3
        behind_m = read_depth(data / "smpldepth" / f"{number}.png") / 1e3
        try:
            body = fitted(color, seen_m, scratch / f"clothed_{number}")
        except (UserError, ValueError) as error:
            yield [f"clothed {number}", f"no fit: {error}", *["-"] * 9]
            continue
        status = body.status[0] + (f" ({body.reason[0]})" if body.reason[0] else "")
        person = seen_m > 0  # the frames' own mask, in their own projection
        outlines = {"person": person, "truth": behind_m[:, ::-1] > 0}
        for name, worn, offsets_m in as_measured(body):
            vertices_m, _ = worn.posed(body.shape, body.pose[0], body.camera_from_body[0], offsets_m)
            front_m, back_m = (orthographic_m(vertices_m, body.body.faces, behind) for behind in (False, True))
            both = (behind_m > 0) & np.isfinite(back_m) & person[:, ::-1]
            on_cloth = person & np.isfinite(front_m)
            gaps = Gaps(
                [back_m[both] - behind_m[both]],
                [front_m[on_cloth] - seen_m[on_cloth]],
                [],
                int(np.isfinite(back_m).sum()),
                int((behind_m > 0).sum()),
            )
            outlines[name] = np.isfinite(front_m)
            yield [f"clothed {number}, {status}", name, *gaps.row()]
        if pictures is not None:
            draw(pictures / f"clothed_{number}.png", color, outlines)


def draw(path: Path, color: np.ndarray, outlines: dict[str, np.ndarray]) -> None:
    """Outlines over a picture, three times as large: person grey, truth green, bare body red, with offsets yellow."""
    tones = {"person": (150, 150, 150), "truth": (60, 220, 90), "bare": (240, 70, 60), "with offsets": (250, 220, 60)}
    picture = cv2.resize(color, None, fx=3, fy=3, interpolation=cv2.INTER_LINEAR)
    for name, mask in outlines.items():
        large = cv2.resize(mask.astype(np.uint8), None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
        lines, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, lines, -1, tones[name], 2 if name == "truth" else 1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(picture))


# The demo -------------------------------------------------------------------------------------------------------------


def demo_stages(scratch: Path) -> Path:
    """A short clip's folder with 01_recording, 02_masks, 03_fit."""
    home = scratch / "demo"
    recording = made(home / "01_recording", FILE_NAME, lambda folder: film(SHORT, folder))
    masks = made(home / "02_masks", "masks.json", lambda folder: matte(MatteConfig(), folder, recording))
    made(home / "03_fit", "fit.json", lambda folder: fit(FitConfig(), folder, recording, masks))
    return home


def as_measured(fit: BodyFit) -> tuple[tuple[str, BodyModel, np.ndarray | None], ...]:
    """The body without and with its clothes: name, model and offsets (V,)."""
    return ("bare", fit.body.bare, None), ("with offsets", fit.body.tracked, fit.vertex_offsets_m)


def demo_rows(home: Path, pictures: Path | None) -> Iterator[list[str]]:
    """Her thighs under the skirt, and her shins in leggings, of every ``EVERY``-th tracked frame."""
    recording, masks = Recording.load(home / "01_recording"), Masks.load(home / "02_masks")
    body = BodyFit.load(home / "03_fit")
    config = DemoConfig(
        num_frames=len(recording),
        frames_per_second=round(recording.frames_per_second, 3),
        seed=int(recording.source.rsplit(" ", 1)[1]),
    )
    character = Character.load()
    skin = undress(character)
    skin_m = skin_color_m(config, character, skin)
    worn = leggings(character)
    worn_m = skin_color_m(config, character, worn)
    model = body.body.bare
    camera = recording.rig.color.resize((recording.rig.color.image_wh[0] // 2, recording.rig.color.image_wh[1] // 2))
    # Where on the leg a face lies, at rest; skinning says which faces are legs.
    heights = skin.points_m[skin.faces, 2].mean(axis=1)
    worn_heights = worn.points_m[worn.faces, 2].mean(axis=1)
    rest_m, _ = model.shaped(body.shape)
    our_heights = (rest_m[model.faces, 2].mean(axis=1) - rest_m[:, 2].min()) * skin.height_m / np.ptp(rest_m[:, 2])
    owner = np.array([model.joint_names[j] for j in np.asarray(model.skin_weights).argmax(axis=1)])
    of_leg = np.array([name.startswith(LEG) for name in owner])[model.faces].all(axis=1)
    regions = (("under the skirt", SKIRT_HEM_M, HEM_M), ("shins, leggings", ANKLE_M, SKIRT_HEM_M))
    gathered = {(region[0], name): Gaps([], [], []) for region in regions for name in ("bare", "with offsets")}
    frames = np.flatnonzero(body.tracked)[::EVERY]
    for i in frames.tolist():
        person = cv2.resize(masks[i], camera.image_wh, interpolation=cv2.INTER_AREA) > 0.5
        depth_mm = recording.depth_mm(i)
        assert depth_mm is not None
        cloth_m = depth_in_color(recording.rig, depth_mm, camera)
        true_face, _, true_m = seen(camera, skin_m[i], skin.faces)
        worn_face, _, _ = seen(camera, worn_m[i], worn.faces)
        outlines = {"person": person, "truth": true_face >= 0}
        for name, clothed, offsets_m in as_measured(body):
            vertices_m, _ = clothed.posed(body.shape, body.pose[i], body.camera_from_body[i], offsets_m)
            our_face, _, our_m = seen(camera, vertices_m, model.faces)
            outlines[name] = our_face >= 0
            for region, low, high in regions:
                gaps = gathered[region, name]
                hers = (true_face >= 0) & (heights[true_face] > low) & (heights[true_face] < high)
                ours = (our_face >= 0) & of_leg[our_face] & (our_heights[our_face] > low)
                ours &= our_heights[our_face] < high
                both = hers & ours & person
                gaps.truth_m.append(our_m[both] - true_m[both])
                on_cloth = ours & person & np.isfinite(cloth_m)
                gaps.cloth_m.append(our_m[on_cloth] - cloth_m[on_cloth])
                on_both = both & np.isfinite(cloth_m)
                gaps.between_m.append(cloth_m[on_both] - true_m[on_both])
                gaps.our_px += int(ours.sum())
                gaps.true_px += int(hers.sum())
                if high <= SKIRT_HEM_M:  # further up they are tucked in
                    is_worn = (worn_face >= 0) & (worn_heights[worn_face] > low) & (worn_heights[worn_face] < high)
                    gaps.worn_px += int(is_worn.sum())
        if pictures is not None and i == frames[len(frames) // 2]:
            color = cv2.resize(recording.color(i), camera.image_wh, interpolation=cv2.INTER_AREA)
            draw(pictures / "demo.png", color, outlines)
    for (region, name), gaps in gathered.items():
        yield [f"demo, {len(frames)} frames, {region}", name, *gaps.row()]


def leggings(character: Character) -> Skin:
    """What she wears on her legs, as a surface that moves with her skin."""
    faces = character.faces[character.material == character.materials.index("legging")]
    vertices, numbered = np.unique(faces, return_inverse=True)
    return Skin(character.vertices_m[vertices], vertices, numbered.reshape(-1, 3).astype(np.int32))


def seen(camera: Camera, vertices_m: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rasterize_faces(project(camera, vertices_m), vertices_m[:, 2], faces, camera.image_wh)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="a workspace whose subject demo has a finished 03_fit")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--pictures", type=Path, help="write outlines over pictures here")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    data = options.data / "clothed_rgbd"
    with tempfile.TemporaryDirectory() as scratch:
        rows: list[list[str]] = []
        if data.is_dir():
            rows += clothed_rows(data, Path(scratch), options.pictures)
        else:
            print(f"skipped: {data} is not there")
        home = options.workspace / "demo" if options.workspace else demo_stages(Path(scratch))
        rows += demo_rows(home, options.pictures)
    columns = [
        "person", "our body", "pixels", "less the truth: median, mm", "mean absolute", "5th / 95th percentile",
        "area over the truth's", "the leggings' area", "less the cloth: median, mm", "before the cloth",
        "the cloth less the truth: median, mm",
    ]  # fmt: skip
    print(f"\n{machine()}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
