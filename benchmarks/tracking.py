"""How well is the body tracked?  Prints tables in Markdown, one per theme.

    python benchmarks/tracking.py [--clips casual,demo] [--workspace DIR] [--refit] [--data ../shared/data]

Each clip goes through the pipeline's own recording, mask and fit stages, in a temporary folder or in --workspace,
whose finished stages are used again (--refit makes the fits anew, with the landmarks that are there).  The demo
performer is always there; the other clips come from --data and are skipped where it lacks them.

Definitions.  12 joints: hips, knees, ankles, shoulders, elbows, wrists.  Offset removed: one constant offset per joint,
turning with the true trunk, is taken away (joint centres of two skeletons differ).  Procrustes: best similarity per
frame.  Scale: pictures alone do not tell size from distance, so clips without depth are also judged with one factor
about the camera's centre for the whole clip, "scale removed"; all that follows uses it, body height does not.
Flipped: the frame's 12 joints (or its legs, or its arms) would be nearer to the truth with left and right exchanged,
both centred.  Wrong: a joint more than 250 mm off, offset and scale removed.  Right: the 12 joints are less than 100 mm
off in the mean, offset removed.  Still: passages of at least five frames in which a true joint is never faster than
0.15 m/s; without truth the smoothed landmark, with the person taken as 1.7 m tall.  Pixels are scaled to a shorter side
of 720.
Faster: every n-th frame, with the times divided by n, so that a movement n times as fast is seen at the same rate.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave the cores to others
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import tracking_figures as figures

from capture.camera import project
from capture.container import FILE_NAME
from capture.files import read_gray, write_atomically
from capture.importers import ImportConfig, record
from capture.matting import Masks, MatteConfig, matte
from capture.recording import Recording, RecordingWriter
from demo.character import Character
from demo.performer import DemoConfig, film
from demo.undressed import skin_color_m, undress
from fitting.body.model import BodyModel
from fitting.fit import LIMB_NAMES, BodyFit, FitConfig, fit
from fitting.keypoints import Keypoints
from fitting.shape import body_height_m
from fitting.verdict import LOST, TRACKED, UNCERTAIN
from fitting.zbuffer import rasterize_faces

SHARED = Path(__file__).parents[2] / "shared"
PERSON_M = 1.7
DEMO = DemoConfig()


@dataclass(frozen=True)
class Clip:
    """What is tracked, and how its frames are taken."""

    name: str
    source: str  # the folder or file in --data; "demo" = the demo performer
    no_depth: bool = False
    every: int = 1

    @property
    def is_demo(self) -> bool:
        return self.source == "demo"


CLIPS = (
    Clip("casual", "casual_rgbd"),
    Clip("casual colour", "casual_rgbd", no_depth=True),
    Clip("demo", "demo"),
    Clip("demo colour", "demo", no_depth=True),
    Clip("taichi", "taichi_rgb/taichi.mp4"),
    Clip("tennis", "tennis_rgb/tennis.mp4"),
    Clip("turntable", "turntable_rgbd"),
    Clip("casual x2", "casual_rgbd", every=2),
    Clip("casual x3", "casual_rgbd", every=3),
    Clip("demo x2", "demo", every=2),
    Clip("demo x3", "demo", every=3),
)


@dataclass(frozen=True)
class Tracked:
    """A clip's finished stages, and the truth where there is one."""

    clip: Clip
    folder: Path  # with 01_recording, 02_masks, 03_fit
    truth: Path | None  # the source's ground_truth

    @cached_property
    def fit(self) -> BodyFit:
        return BodyFit.load(self.folder / "03_fit")

    @cached_property
    def recording(self) -> Recording:
        return Recording.load(self.folder / "01_recording")

    @cached_property
    def keypoints(self) -> Keypoints:
        return Keypoints.load(self.folder / "03_fit" / "keypoints.npz")

    @cached_property
    def joints_m(self) -> np.ndarray:
        """(N, 12, 3) of the fit."""
        return figures.of_anny(self.fit.joints_color_m, self.fit.joint_names)

    @cached_property
    def true_joints_m(self) -> np.ndarray | None:
        """(N, 12, 3)."""
        if self.truth is None:
            return None
        with np.load(self.truth / "joints.npz", allow_pickle=False) as file:
            joints_m = figures.of_mixamo(file["joints_cam_m"], [str(name) for name in file["names"]])
        return joints_m[:: self.clip.every][: len(self.fit)]

    @cached_property
    def scale(self) -> float:
        """The factor that a clip without depth leaves open; 1 with depth."""
        if self.true_joints_m is None or not self.clip.no_depth:
            return 1.0
        return figures.camera_scale(self.joints_m, self.true_joints_m)

    @cached_property
    def errors_m(self) -> np.ndarray | None:
        """(N, 12) offset and scale removed."""
        if self.true_joints_m is None:
            return None
        return figures.offset_removed_m(self.scale * self.joints_m, self.true_joints_m)

    @cached_property
    def believed_m(self) -> np.ndarray | None:
        """(N, 12) the errors of what the fit believes: NaN in frames that are not tracked, and at the middle and end of
        limbs that are in doubt."""
        if self.errors_m is None:
            return None
        errors_m = np.where(self.fit.tracked[:, None], self.errors_m, np.nan)
        errors_m[self.joint_doubted] = np.nan
        return errors_m

    @property
    def joint_doubted(self) -> np.ndarray:
        """(N, 12) bool: joints of limbs that are in doubt, in frames that are tracked otherwise."""
        doubted = np.zeros((len(self.fit), 12), bool)
        for name, own in zip(LIMB_NAMES, self.limb_doubted.T, strict=True):
            doubted[:, figures.LIMBS[name]] = own[:, None]
        return doubted

    @property
    def limb_doubted(self) -> np.ndarray:
        """(N, 4) bool by LIMB_NAMES: limbs in doubt, in frames that are tracked otherwise."""
        return self.fit.limb_doubted & self.fit.tracked[:, None]

    @property
    def to_720(self) -> float:
        """Pixels of a picture with a shorter side of 720 per pixel of this one."""
        return 720 / min(self.fit.camera.image_wh)

    def true_mask(self, index: int) -> np.ndarray | None:
        """(H, W) bool."""
        if self.truth is None:
            return None
        folder = self.truth / ("masks" if self.clip.is_demo else "mask")
        return read_gray(folder / f"{index * self.clip.every:06d}.png") > 127


# The stages ---------------------------------------------------------------------------------------------------------


def made(folder: Path, mark: str, make: Callable[[Path], None]) -> Path:
    """``folder``, made in a partial one beside it unless it is finished."""
    if not (folder / mark).is_file():
        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        make(partial)
        partial.rename(folder)
    return folder


def stages(clip: Clip, workspace: Path, data: Path, refit: bool) -> Tracked:
    """Run what is missing of a clip's three stages."""
    home = workspace / clip.name.replace(" ", "_")
    source, truth = data / clip.source, data / clip.source / "ground_truth"
    if clip.is_demo:
        filmed = made(workspace / "demo" / "01_recording", FILE_NAME, lambda folder: film(DEMO, folder))
        source, truth = filmed, filmed / "ground_truth"
    config = ImportConfig(no_depth=clip.no_depth, every=clip.every)

    def take(folder: Path) -> None:
        record(config, folder, source)
        _quicken(folder, clip.every)

    recording = made(home / "01_recording", FILE_NAME, take)
    masks = made(home / "02_masks", "masks.json", lambda folder: matte(MatteConfig(), folder, recording))
    fitted = home / "03_fit"
    if refit and fitted.exists():
        landmarks = (fitted / "keypoints.npz").read_bytes()
        shutil.rmtree(fitted)
        (home / "03_fit.partial").mkdir()
        write_atomically(home / "03_fit.partial" / "keypoints.npz", landmarks)
    made(fitted, "fit.json", lambda folder: fit(FitConfig(), folder, recording, masks))
    return Tracked(clip, home, truth if truth.is_dir() else None)


def _quicken(folder: Path, times: int) -> None:
    """Let a recording's time run faster, so that fewer frames are not a slower camera but a faster person."""
    recording = Recording.load(folder)
    quick = folder / "quick"
    writer = RecordingWriter(quick, recording.rig, recording.source, recording.focal_is_known)
    for i, time_s in enumerate(recording.times_s / times):
        writer.add(float(time_s), recording.color_bytes(i), recording.depth_mm(i))
    for note in recording.notes:
        writer.note(note)
    writer.finish()
    (quick / FILE_NAME).replace(folder / FILE_NAME)
    quick.rmdir()


# The figures --------------------------------------------------------------------------------------------------------


def silhouette(tracked: Tracked) -> tuple[np.ndarray, np.ndarray]:
    """(N,) overlap of the posed body with the true mask, and with ours; NaN where there is none."""
    fitted, masks = tracked.fit, Masks.load(tracked.folder / "02_masks")
    of_truth, of_ours = np.full(len(fitted), np.nan), np.full(len(fitted), np.nan)
    for i, status in enumerate(fitted.status):
        if status == LOST:
            continue
        model, offsets_m = fitted.body.tracked, fitted.vertex_offsets_m
        vertices_m, _ = model.posed(fitted.shape, fitted.pose[i], fitted.camera_from_body[i], offsets_m)
        pixels = project(fitted.camera, vertices_m)
        face, _, _ = rasterize_faces(pixels, vertices_m[:, 2], model.faces, fitted.camera.image_wh)
        body = face >= 0
        of_ours[i] = figures.overlap(body, masks[i] > 0.5)
        true = tracked.true_mask(i)
        if true is not None:
            of_truth[i] = figures.overlap(body, true)
    return of_truth, of_ours


def joint_row(tracked: Tracked) -> list[str]:
    truth_m, errors_m = tracked.true_joints_m, tracked.errors_m
    if truth_m is None or errors_m is None:
        return ["-"] * 11
    is_tracked = tracked.fit.tracked
    flips = [
        np.count_nonzero(figures.flipped(tracked.joints_m, truth_m, members))
        for members in (range(12), figures.LEGS, figures.ARMS)
    ]
    is_wrong, believed_m = figures.wrong(errors_m), tracked.believed_m
    assert believed_m is not None
    is_doubted = tracked.limb_doubted
    is_wrong_limb = np.stack([figures.wrong(errors_m[:, figures.LIMBS[name]]) for name in LIMB_NAMES], 1)
    return [
        spread(1e3 * figures.offset_removed_m(tracked.joints_m, truth_m)),
        f"{tracked.scale:.3f}" if tracked.clip.no_depth else "-",
        spread(1e3 * errors_m),
        spread(1e3 * errors_m[is_tracked]),
        spread(1e3 * figures.procrustes_m(tracked.joints_m, truth_m)),
        " / ".join(map(str, flips)),
        f"{np.count_nonzero(is_wrong & is_tracked)}",
        f"{np.count_nonzero(figures.wrong(believed_m))}",
        f"{np.count_nonzero(is_doubted & is_wrong_limb)} / {np.count_nonzero(is_doubted & ~is_wrong_limb)}",
        f"{np.count_nonzero(is_wrong & ~is_tracked)}",
        f"{np.count_nonzero(~is_wrong & ~is_tracked & np.isfinite(errors_m).all(1))}",
    ]


def picture_row(tracked: Tracked) -> list[str]:
    of_truth, of_ours = silhouette(tracked)
    landmarks = f"{np.nanmedian(tracked.fit.keypoint_px) * tracked.to_720:.1f}"
    return [spread(of_truth, 5, "{:.3f}"), spread(of_ours, 5, "{:.3f}"), landmarks]


def surface_row(tracked: Tracked, every: int = 4) -> list[str]:
    """Our body without offsets against the performer's skin, of every ``every``-th tracked frame."""
    fitted, character = tracked.fit, Character.load()
    bare = fitted.body.bare
    skin = undress(character)
    truth_m = skin_color_m(DEMO, character, skin)[:: tracked.clip.every]
    sampled = np.unique(skin.faces)[::7]
    border = figures.border_vertices(skin.faces)
    ends = np.zeros(len(skin.points_m), bool)
    ends[border] = True
    of_skin, of_body = [], []
    for i in np.flatnonzero(fitted.tracked)[::every]:
        vertices_m, _ = bare.posed(fitted.shape, fitted.pose[i], fitted.camera_from_body[i])
        vertices_m = tracked.scale * vertices_m
        of_skin.append(figures.to_surface_m(truth_m[i, sampled], vertices_m, bare.faces))
        # What lies nearest to an edge of the known skin belongs to the hips, the feet, or the inside of the mouth.
        nearest = figures.cKDTree(truth_m[i]).query(vertices_m)[1]
        known = ~ends[nearest]
        of_body.append(figures.to_surface_m(vertices_m[known], truth_m[i], skin.faces))
    there, back = np.concatenate(of_skin), np.concatenate(of_body)
    height_m = body_height_m(bare, fitted.shape)
    return [
        f"{1e3 * there.mean():.1f}, {spread(1e3 * there)}",
        f"{1e3 * back.mean():.1f}, {spread(1e3 * back)}",
        f"{1e3 * height_m:.0f}",
        f"{1e3 * (height_m - skin.height_m):+.0f}",
    ]


def jitter_row(tracked: Tracked) -> list[str]:
    """Joints in space and in the picture, and the raw landmarks in the picture, all over the same still passages."""
    fitted, truth_m = tracked.fit, tracked.true_joints_m
    rate_hz = tracked.recording.frames_per_second
    landmarks_px = tracked.keypoints.points_px[:, figures.LANDMARKS] * tracked.to_720
    if truth_m is not None:
        is_still = figures.still(truth_m, figures.STILL_M_PER_S / rate_hz)
    else:
        extent_px = np.nanmedian(np.ptp(tracked.keypoints.points_px[..., 1], axis=1)) * tracked.to_720
        limit_px = figures.STILL_M_PER_S / rate_hz * extent_px / PERSON_M
        is_still = figures.still(figures.smoothed(landmarks_px), limit_px)
    # Only where both are there, and inside the picture.
    wh = np.array(fitted.camera.image_wh) * tracked.to_720
    with np.errstate(invalid="ignore"):
        is_still &= np.isfinite(tracked.joints_m).all(2) & ((landmarks_px > 0) & (landmarks_px < wh)).all(2)
    joints_px = project(fitted.camera, tracked.joints_m) * tracked.to_720

    def cell(points: np.ndarray, factor: float = 1.0) -> str:
        return " / ".join(f"{factor * value:.2f}" for value in figures.jitter(points, is_still))

    return [
        f"{100 * is_still.mean():.0f} % ({'landmarks' if truth_m is None else 'truth'})",
        cell(tracked.joints_m, rate_hz**2),
        "-" if truth_m is None else cell(truth_m, rate_hz**2),
        cell(joints_px),
        cell(landmarks_px),
    ]


def speed_row(tracked: Tracked) -> list[str]:
    errors_m = tracked.errors_m
    assert errors_m is not None
    is_right, status = figures.right(errors_m), np.array(tracked.fit.status)
    seen = status != LOST
    return [
        f"{len(status)}",
        f"{100 * is_right.mean():.1f} %",
        f"{100 * (seen & ~figures.wrong(errors_m)).mean():.1f} %",
        f"{100 * (status == TRACKED).mean():.1f} %",
        f"{100 * is_right[status == TRACKED].mean():.1f} %",
        spread(1e3 * errors_m[seen]),
    ]


def spread(values: np.ndarray, tail: float = 95, form: str = "{:.1f}") -> str:
    """Median / percentile of the finite values."""
    values = values[np.isfinite(values)]
    return " / ".join(form.format(v) for v in np.percentile(values, [50, tail])) if values.size else "-"


def check_definition(tracked: Tracked, script: Path) -> str:
    """Whether the figures agree with those of ``script``, another implementation of the same definition."""
    spec = importlib.util.spec_from_file_location("joint_error", script)
    assert spec is not None and spec.loader is not None and tracked.truth is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with np.load(tracked.truth / "joints.npz", allow_pickle=False) as file:
        names = [str(name).split(":")[-1] for name in file["names"]]
        truth_m = file["joints_cam_m"][:: tracked.clip.every]
    theirs = module.joint_error(tracked.fit.joints_color_m, tracked.fit.joint_names, truth_m, names)
    truth12_m = tracked.true_joints_m
    assert truth12_m is not None
    sets = {
        "offset_removed": figures.offset_removed_m(tracked.joints_m, truth12_m),
        "procrustes": figures.procrustes_m(tracked.joints_m, truth12_m),
    }
    ours = {
        f"{k}_{q}_mm": 1e3 * np.nanpercentile(e, p) for k, e in sets.items() for q, p in (("median", 50), ("p95", 95))
    }
    apart = max(abs(theirs[key] - value) for key, value in ours.items())
    return f"{tracked.clip.name}: joint errors agree with {script.name} to {max(apart, 0.05):.2f} mm"


# The tables ---------------------------------------------------------------------------------------------------------


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    if rows:
        print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for row in rows:
            print(f"| {' | '.join(row)} |")


def print_tables(done: list[Tracked], spent_s: dict[str, float]) -> None:
    usual = [t for t in done if t.clip.every == 1]
    with_truth = [t for t in usual if t.truth is not None]
    verdicts = [[sum(s == v for s in t.fit.status) for v in (TRACKED, UNCERTAIN, LOST)] for t in usual]
    table(
        "Verdicts",
        ["clip", "frames", "tracked", "uncertain", "lost"],
        [[t.clip.name, str(len(t.fit)), *map(str, v)] for t, v in zip(usual, verdicts, strict=True)],
    )
    table(
        "12 joints against truth, median / 95th percentile, mm",
        ["clip", "offset removed", "scale", "offset and scale removed", "the same, tracked frames", "Procrustes",
         "frames flipped: whole / legs / arms",
         "tracked, a joint wrong", "a joint wrong and believed", "limbs doubted: wrong / right",
         "frames doubted and wrong", "doubted though right"],
        [[t.clip.name, *joint_row(t)] for t in with_truth],
    )  # fmt: skip
    table(
        "In the picture",
        ["clip", "silhouette IoU against truth, median / 5th percentile", "against our mask",
         "landmarks, median px at 720p"],
        [[t.clip.name, *picture_row(t)] for t in usual],
    )  # fmt: skip
    table(
        "The body under the clothes (demo performer, vertex offsets left out), mm",
        ["clip", "her skin to our body: mean, median / 95th percentile", "our body to her skin",
         "body height", "error"],
        [[t.clip.name, *surface_row(t)] for t in usual if t.clip.is_demo],
    )  # fmt: skip
    table(
        "Jitter in still passages, root mean square / median",
        ["clip", "still share of joints and frames (judged by)", "joints, m/s²", "true joints, m/s²",
         "joints in the picture, px/frame² at 720p", "raw landmarks, px/frame²"],
        [[t.clip.name, *jitter_row(t)] for t in usual],
    )  # fmt: skip
    quick = {t.clip.source for t in done if t.clip.every > 1}
    table(
        "Faster movement",
        ["clip", "frames", "right, of all", "no joint wrong, of all", "tracked, of all", "right, of tracked",
         "12 joints, offset removed, median / 95th percentile mm"],
        [[t.clip.name, *speed_row(t)] for t in done if t.clip.source in quick and not t.clip.no_depth and t.truth],
    )  # fmt: skip
    made_now = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in spent_s.items() if seconds > 1)
    print(f"\nStages that were run: {made_now or 'none, all were there'}")


def machine() -> str:
    """Processor, cores, Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", help="some of: " + ", ".join(c.name for c in CLIPS) + " (all)")
    parser.add_argument("--workspace", type=Path, help="keep the stages here, and use those that are finished")
    parser.add_argument("--refit", action="store_true", help="make the fits anew")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    wanted = [name.strip() for name in options.clips.split(",")] if options.clips else [c.name for c in CLIPS]
    unknown = set(wanted) - {c.name for c in CLIPS}
    if unknown:
        parser.error(f"--clips: no {', '.join(sorted(unknown))}")
    print(f"{machine()}; default body of {len(BodyModel.default().template_m)} vertices")
    done: list[Tracked] = []
    spent_s: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        workspace = options.workspace or Path(scratch)
        for clip in CLIPS:
            if clip.name not in wanted:
                continue
            if not clip.is_demo and not (options.data / clip.source).exists():
                print(f"skipped: {clip.name} ({options.data / clip.source} is not there)")
                continue
            started_s = time.monotonic()
            done.append(stages(clip, workspace, options.data, options.refit))
            spent_s[clip.name] = time.monotonic() - started_s
        script = options.data.parent / "tools" / "joint_error.py"
        print_tables(done, spent_s)
        for tracked in done:
            if tracked.truth is not None and not tracked.clip.is_demo and script.is_file():
                print(check_definition(tracked, script))


if __name__ == "__main__":
    main()
