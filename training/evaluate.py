"""Stage 07, first part: how good the avatar is on frames that training never saw.

In: the avatar and its subjects' stages 01 to 05.  Out, in 07_report:

    metrics.json                      DESIGN section 6, and the two sanity baselines beside the avatar
    heldout/<subject>.csv             every figure of every measured frame and method
    heldout/<subject>-heads.csv       the same of the head, with its close-up and without
    heldout.mp4, turntable.mp4        truth | avatar | error; the avatar from all sides (``-<subject>`` for a cast)
    pictures/<subject>/*.jpg, *.png   for the report; coverage.png and coverage_uv.png: which skin was filmed

H x W pixels of the person crop.  Poses of held-out frames come from the fit of those frames; appearance, exposure
included, is never fitted to them.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from capture.files import encode_jpeg, encode_png, write_atomically
from capture.manifest import Manifest, read_peak_rss_mb, read_timings_s
from capture.progress import progress
from capture.video import VideoWriter
from capture.workers import Workers, num_cores
from fitting.fit import BodyFit
from rendering.avatar import Avatar
from rendering.coverage import by_region, cover
from rendering.coverage_picture import draw_atlas, draw_bodies
from rendering.render import turntable
from training import metrics
from training.config import EvaluateConfig
from training.flicker import LIMIT, Flicker
from training.heads import score_heads
from training.lpips import Lpips, load_lpips
from training.pictures import at_height, error_map, side_by_side, to_bytes
from training.sanity import Crop, true_crop
from training.score import (
    AVATAR,
    GREY,
    METHODS,
    Scene,
    Subject,
    comparison,
    load_scene,
    predict,
    seen_by,
    spread,
)
from training.summary import in_one_line, summarize

AHEAD = 6  # frames that are painted and not measured yet, at most

log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig, out_dir: Path, avatar_dir: Path, subjects: Mapping[str, Path]) -> None:
    """Score the avatar and both baselines on every subject; write figures, pictures and videos into ``out_dir``.

    subjects: name -> folder with the stages 01 to 05.  Raises UserError when a stage is missing or unreadable,
    and for a subject that is not in the avatar.
    """
    avatar = Avatar.load(avatar_dir)
    for name in subjects:
        avatar.check_subject(name)
    lpips, why_no_lpips = load_lpips()
    results = {}
    with Workers(workers(config), loads=metrics.__name__) as pool:
        for name, folder in subjects.items():
            subject = Subject.load(name, folder, config.full_long_side_px, config.heldout_frames)
            suffix = "" if len(subjects) == 1 else f"-{name}"
            rows, flicker = score_frames(config, out_dir, avatar, subject, lpips, suffix, pool)
            write_csv(out_dir / "heldout" / f"{name}.csv", rows)
            heads, head = score_heads(avatar, subject, out_dir / "pictures" / name, config.picture_frames)
            if heads:
                write_csv(out_dir / "heldout" / f"{name}-heads.csv", heads)
            write_turntable(config, out_dir, avatar, subject, suffix)
            coverage = write_coverage(out_dir / "pictures" / name, subject)
            results[name] = summarize(subject, rows, head, flicker, coverage, why_no_lpips)
            log.info("%s: %s", name, in_one_line(results[name]))
    folders = tuple(dict.fromkeys([avatar_dir.parent, *subjects.values()]))
    made_with = Manifest.load(avatar_dir)
    textures = sum(p.numel() for texture in avatar.textures.values() for p in texture.parameters())
    own_mb = _own_peak_mb()
    fields = {
        "subjects": results,
        "avatar": {
            "parameters": int(avatar.settings["parameters"]),
            "texture_parameters": textures,
            "steps": int(avatar.settings["steps"]),
            "preset": made_with.preset if made_with is not None else None,
        },
        "timing_s": {stage: round(seconds, 2) for stage, seconds in read_timings_s(*folders).items()},
        "peak_rss_mb": round(max(own_mb, read_peak_rss_mb(*folders) or 0), 1),
        "device": device_name(avatar.device),
        "protocol": protocol(config, lpips is not None),
        "reasons": {"lpips": why_no_lpips} if why_no_lpips is not None else {},
    }
    write_atomically(out_dir / "metrics.json", (json.dumps(fields, indent=1) + "\n").encode())


def score_frames(
    config: EvaluateConfig,
    out_dir: Path,
    avatar: Avatar,
    subject: Subject,
    lpips: Lpips | None,
    suffix: str,
    pool: Workers,
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """One row of figures per held-out frame and method, and the avatar's flicker; writes heldout.mp4 and the report's
    pictures on the way."""
    count = len(subject.heldout)
    # Every method is measured on the same frames, FLIP included.
    flip_crop, flip_full = (spread(count, n) for n in (config.flip_crop_frames, config.flip_full_frames))
    shown = spread(count, config.picture_frames)
    if not count:
        return [], None
    flicker = Flicker.of(subject.rasters, subject.heldout, len(subject.captured.fit.body.part_names) - 1)

    def tasks(video: VideoWriter) -> Iterator[tuple[Any, ...]]:
        for position in progress(range(count), f"evaluate {subject.name}"):
            index = int(subject.heldout[position])
            scene, crops = load_scene(subject, index), predict(avatar, subject, position)
            compared = {method: comparison(scene, crops[method]) for method in METHODS}
            camera = subject.captured.fit.camera.resize(subject.full_wh)
            compared[AVATAR] = comparison(scene, crops[AVATAR], seen_by(avatar, subject, index, camera, scene.box_px))
            for method in METHODS:
                yield (*compared[method], position in flip_crop, position in flip_full)
            image, truth, *_ = compared[AVATAR]
            flicker.add(index, subject.rasters[index], image, truth, scene.crop.alpha > metrics.MASK_THRESHOLD)
            video.add(heldout_picture(avatar, subject, index, scene, crops[AVATAR], config.video_height_px))
            if position in shown:
                folder = out_dir / "pictures" / subject.name
                write_pictures(folder, avatar, subject, index, scene, crops, config.picture_height_px)

    with VideoWriter(out_dir / f"heldout{suffix}.mp4", subject.captured.recording.frames_per_second) as video:
        named = ((int(index), method) for index in subject.heldout for method in METHODS)
        found = measured(pool, tasks(video), AHEAD * len(METHODS), lpips)
        rows = [{"frame": index, "method": method, **row} for (index, method), row in zip(named, found, strict=True)]
    return rows, flicker.figures()


def measured(
    pool: Workers, tasks: Iterable[tuple[Any, ...]], ahead: int, lpips: Lpips | None
) -> Iterator[dict[str, float]]:
    """Every figure of ``tasks``, the arguments of ``metrics.measure``, which are made meanwhile, at most ``ahead``."""
    for (crop, crop_truth, full, full_truth, *_), row in pool.stream(metrics.measure, tasks, ahead):
        row["crop_lpips"] = lpips(crop, crop_truth) if lpips is not None else np.nan
        row["full_lpips"] = lpips(full, full_truth) if lpips is not None else np.nan
        yield row


def workers(config: EvaluateConfig) -> int:
    """As many processes as there are cores, at most as many as asked for."""
    return max(1, min(config.num_workers, num_cores()))


def heldout_picture(avatar: Avatar, subject: Subject, index: int, scene: Scene, guess: Crop, height: int) -> np.ndarray:
    """(H', W', 3) uint8: truth | avatar over the true background, both as sharp as they are | error of the crop."""
    truth, seen, is_filmed = at_size(avatar, subject, index, height)
    behind = at_height(to_bytes(scene.crop_background), height).astype(np.float32) / 255
    image = metrics.composite(seen.color, seen.alpha * is_filmed, behind)
    painted = metrics.composite(guess.color, guess.alpha * scene.is_filmed, scene.crop_background)
    error = at_height(error_map(painted, scene.crop.color), height)
    captions = (f"truth, frame {index}", "avatar", "error")
    return side_by_side([to_bytes(truth.color), to_bytes(image), error], captions)


def at_size(avatar: Avatar, subject: Subject, index: int, height: int) -> tuple[Crop, Crop, np.ndarray]:
    """The person's crop at ``height`` as recorded and as the avatar is seen, its close-up included, and which pixels
    were filmed (H', W') bool."""
    wide, high = subject.rasters.image_wh
    wh, box = (max(2, round(wide * height / high / 2) * 2), height), tuple(subject.rasters.boxes_px[index])
    color, alpha = subject.captured.recording.color(index), subject.captured.masks[index]
    truth, is_filmed = true_crop(color, alpha, box, wh)
    rgba = seen_by(
        avatar, subject, index, subject.rasters.camera.crop(box, wh), (0.0, 0.0, float(wh[0]), float(height))
    )
    return truth, Crop(rgba[..., :3], rgba[..., 3]), is_filmed


def write_pictures(
    folder: Path,
    avatar: Avatar,
    subject: Subject,
    index: int,
    scene: Scene,
    crops: Mapping[str, Crop],
    height: int,
) -> None:
    """One held-out frame in every version, at one size, for the report."""
    folder.mkdir(parents=True, exist_ok=True)
    sharp, seen, is_filmed = at_size(avatar, subject, index, height)
    truth = metrics.composite(scene.crop.color, scene.crop.alpha, GREY)
    pictures = {"truth": to_bytes(metrics.composite(sharp.color, sharp.alpha, GREY))}
    for method, crop in crops.items():
        image = metrics.composite(crop.color, crop.alpha * scene.is_filmed, GREY)
        pictures[method] = at_height(to_bytes(image), height)
        if method == AVATAR:
            pictures[AVATAR] = to_bytes(metrics.composite(seen.color, seen.alpha * is_filmed, GREY))
            pictures["error"] = at_height(error_map(image, truth), height)
    for kind, picture in pictures.items():
        write_atomically(folder / f"heldout_{index:06d}_{kind}.jpg", encode_jpeg(picture, 88))


def write_turntable(config: EvaluateConfig, out_dir: Path, avatar: Avatar, subject: Subject, suffix: str) -> None:
    """The avatar from all sides in the pose that is most usual in what was taught, as a video and eight pictures."""
    usual = usual_frame(subject.captured.fit)
    # four-to-three upright: arms spread at shoulder height still fit
    image_wh = (round(config.turntable_height_px * 0.375) * 2, config.turntable_height_px)
    count = config.turntable_frames
    stills = {round(k * count / 8) for k in range(8)}
    folder = out_dir / "pictures" / subject.name
    folder.mkdir(parents=True, exist_ok=True)
    pictures = turntable(avatar, subject.name, subject.captured, usual, count, image_wh)
    with VideoWriter(out_dir / f"turntable{suffix}.mp4", count / 4) as video:
        for number, picture in enumerate(progress(pictures, f"turntable {subject.name}", count)):
            video.add(picture)
            if number in stills:
                degrees = round(360 * number / count)
                path = folder / f"turntable_{degrees:03d}.jpg"
                write_atomically(path, encode_jpeg(at_height(picture, config.picture_height_px), 88))


def usual_frame(fit: BodyFit) -> int:
    """The frame nearest to the median of all poses: of those that teach with every limb, or else of all tracked."""
    teaches = np.arange(len(fit)) < fit.first_heldout
    whole = np.flatnonzero(fit.tracked & teaches & ~fit.limb_doubted.any(axis=1))
    frames = whole if len(whole) else np.flatnonzero(fit.tracked)
    pose = fit.pose[frames]
    return int(frames[np.argmin(np.abs(pose - np.median(pose, axis=0)).sum((1, 2)))])


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """One line per held-out frame and method; an empty cell is a figure that was not measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            cells = {k: f"{v:.5f}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow({k: "" if cell == "nan" else cell for k, cell in cells.items()})
    write_atomically(path, text.getvalue().encode())


def write_coverage(folder: Path, subject: Subject) -> dict[str, dict[str, Any]]:
    """Pictures of the skin that the training frames show, coverage.png and coverage_uv.png; figures per region."""
    fit = subject.captured.fit
    rest_m, _ = fit.body.shaped(fit.shape, fit.vertex_offsets_m)
    train = [int(i) for i in subject.keyframes.train_indices if fit.tracked[i]]
    coverage = cover(fit.body, rest_m, subject.rasters, fit.joints_color_m[:, 0, 2], train)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "coverage.png", encode_png(draw_bodies(coverage, fit.body, rest_m)))
    write_atomically(folder / "coverage_uv.png", encode_png(draw_atlas(coverage, fit.body)))
    return by_region(coverage, fit.body.part_names)


def protocol(config: EvaluateConfig, has_lpips: bool) -> dict[str, Any]:
    """How the figures were made, in words."""
    return {
        "crop": "the person's raster box over grey 0.5; truth cut out with its matte, the avatar with its own alpha; "
        "beyond the picture's edge nothing is compared",
        "full": f"whole frame, long side at most {config.full_long_side_px} px; the method composited over the true "
        "background, the person there painted out with the room's median; truth is the frame as recorded",
        "masked_psnr_db": "PSNR of the crop over the pixels where the true matte exceeds 0.5",
        "reduced": f"a crop higher than {metrics.REDUCED_HEIGHT_PX} px at that height: one ruler for all presets",
        "head": "the head's own raster box over grey 0.5 at the close-up's size: with the close-up, and the person's "
        "crop enlarged to the same size; all measured frames that show it",
        "mask_iou": "predicted alpha > 0.5 against true matte > 0.5, in the crop",
        "sharpness": "mean slope of the crop's luminance where the true matte exceeds 0.5, but for its edge, over the "
        "truth's",
        "mean": "every figure is the mean of its values per measured frame",
        "data_range": metrics.DATA_RANGE,
        "ssim": {"window": metrics.SSIM_WINDOW, "sigma": metrics.SSIM_SIGMA, "k": list(metrics.SSIM_K)},
        "flip": {
            "pixels_per_degree": round(metrics.PIXELS_PER_DEGREE, 4),
            "crop_frames_at_most": config.flip_crop_frames,
            "full_frames_at_most": config.flip_full_frames,
        },
        "lpips": "v0.1, AlexNet" if has_lpips else None,
        "flicker": "variance, over neighbouring held-out frames, of what a spot of the body changes in luminance; the "
        f"avatar's over the video's, at most {LIMIT}; where the true matte exceeds 0.5",
        "heldout_poses": "from the fit of the held-out frames themselves; appearance and exposure never fitted to them",
    }


def _own_peak_mb() -> float:
    """The most memory that this process had; 0 under Windows, which has no such module."""
    if sys.platform == "win32":
        return 0.0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def device_name(device: torch.device) -> str:
    """Where the pictures were computed."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {num_cores()} cores"
