"""Stage 07, second part: report.html, one page to open, keep and send.

In: 07_report as ``evaluate`` left it, the avatar, the subjects' stages.  Out: report.html with every picture inside;
the videos are inside too while they are small, and linked beside the page when they are not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from capture.errors import UserError
from capture.files import write_atomically
from capture.manifest import Manifest, read_timings_s
from fitting.keyframes import Keyframes
from fitting.residuals import in_words, kind, residual_chart
from rendering.avatar import Avatar
from rendering.captured import Captured
from rendering.rasters import Rasters
from training import charts
from training.advice import SECTORS, advise, advise_about_avatar, sector_counts
from training.score import AVATAR, BARE_TEXTURE, NEAREST, TEXTURE
from training.strips import (
    coverage_pictures,
    head_rows,
    heldout_rows,
    keyframe_sheet,
    mask_strip,
    orbit_strip,
    overlays,
    texture_pictures,
    worst_strip,
)

TEMPLATE = Path(__file__).with_name("report.html.j2")
MAX_VIDEO_BYTES = 4_000_000  # inside the page; pages beyond 15 MB are a nuisance to send
STAGES = {
    "01_recording": "recording",
    "02_masks": "masks",
    "03_fit": "body fit",
    "04_keyframes": "keyframes",
    "05_rasters": "rasters",
    "06_avatar": "training",
    "07_report": "report",
}
METHOD_NAMES = {
    AVATAR: "avatar",
    NEAREST: "nearest training frame",
    TEXTURE: "back-projected texture on its mesh",
    BARE_TEXTURE: "back-projected texture on the bare body",
}


def report(out_dir: Path, avatar_dir: Path, subjects: Mapping[str, Path]) -> None:
    """Write ``out_dir``/report.html from the measurements there.  Raises UserError when there are none."""
    import jinja2

    try:
        figures = json.loads((out_dir / "metrics.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{out_dir}: no readable metrics.json ({error}); evaluate the avatar first") from None
    for name in subjects:
        if name not in figures["subjects"]:
            raise UserError(f"{name}: not measured yet; run pipeline.py evaluate --avatar {avatar_dir.parent.name}")
    avatar = Avatar.load(avatar_dir, "cpu")
    sections = [
        subject_section(name, folder, out_dir, avatar, figures["subjects"][name], len(subjects) == 1)
        for name, folder in subjects.items()
    ]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    page = environment.from_string(TEMPLATE.read_text()).render(
        title=" and ".join(subjects),
        figures=figures,
        sections=sections,
        advice=advise_about_avatar(avatar.settings, figures["reasons"]),
        training=training_charts(avatar_dir / "log.jsonl"),
        features=avatar.settings.get("features", ""),
        timing=charts.bars(timings(avatar_dir, subjects), "s"),
        settings=settings_of(avatar_dir, subjects),
        finished=finished(avatar_dir),
        method_names=METHOD_NAMES,
        single=len(sections) == 1,
    )
    write_atomically(out_dir / "report.html", page.encode())


def subject_section(
    name: str, folder: Path, out_dir: Path, avatar: Avatar, figures: Mapping[str, Any], is_alone: bool
) -> dict[str, Any]:
    """Everything the page shows about one subject."""
    captured, rasters = Captured.load(folder), Rasters.load(folder / "05_rasters")
    split = Keyframes.load(folder / "04_keyframes")
    counts = sector_counts(captured.fit, split.train_indices)
    suffix = "" if is_alone else f"-{name}"
    return {
        "name": name,
        "figures": figures,
        "advice": advise(name, figures, captured.fit, split.train_indices, captured.masks),
        "headline": headline(figures),
        "heldout": heldout_rows(out_dir / "pictures" / name),
        "heads": head_rows(out_dir / "pictures" / name),
        "orbit": orbit_strip(out_dir / "pictures" / name),
        "videos": [video(out_dir / f"{kind}{suffix}.mp4", words) for kind, words in VIDEOS.items()],
        "overlays": overlays(folder / "03_fit" / "overlay"),
        "masks": mask_strip(captured, rasters),
        "keyframes": keyframe_sheet(captured, rasters, split.keyframe_indices),
        "compass": charts.compass(counts, [s if i % 2 == 0 else "" for i, s in enumerate(SECTORS)]),
        "residuals": residual_chart(captured.fit, min(split.heldout_indices.tolist(), default=None)),
        "worst": worst_strip(folder / "03_fit" / "worst", captured.fit),
        "doubts": doubts(captured.fit),
        "coverage": coverage_pictures(out_dir / "pictures" / name),
        "coverage_bars": charts.bars({k: 100 * v["seen"] for k, v in figures["coverage"].items()}, "%"),
        "texture": texture_pictures(avatar, name),
        "notes": [*captured.recording.notes, *captured.fit.notes],
        "source": captured.recording.source,
        "size": captured.recording.rig.color.image_wh,
        "seconds": float(np.ptp(captured.recording.times_s)),
        "has_depth": bool(captured.recording.has_depth.any()),
    }


VIDEOS = {"heldout": "Held-out frames: truth, avatar, error", "turntable": "The avatar from all sides"}


def headline(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    """The cards at the top: value, name, and what it is to be compared with."""
    heldout, frames = figures["heldout"], figures["frames"]
    best = {
        key: max((b for b in values if b is not None), default=None)
        for key, values in {
            "masked_psnr_db": [b["masked_psnr_db"] for b in figures["baselines"].values()],
            "ssim": [b["crop"]["ssim"] for b in figures["baselines"].values()],
        }.items()
    }
    iou = (figures["fit"]["silhouette_iou"] or {}).get("median")
    measured = frames.get("measured", frames["heldout"])  # reports of before knew no other
    heldout_words = f"{frames['train']} to train, {frames['heldout']} held out, {measured} of them measured"
    flicker = (figures.get("flicker") or {}).get("ratio")
    said = {"limb_in_doubt": "but for a limb", "uncertain": "uncertain", "lost": "lost"}
    doubtful = [f"{frames[key]} {words}" for key, words in said.items() if frames[key]]
    return [
        card("Masked PSNR", heldout["masked_psnr_db"], 1, " dB", best["masked_psnr_db"]),
        card("SSIM of the person crop", heldout["crop"]["ssim"], 3, "", best["ssim"]),
        card("FLIP error of the crop", heldout["crop"]["flip"], 3, "", None, "0 = no visible difference"),
        card("Avatar outline, IoU", heldout["mask_iou"], 3, "", None, "held-out frames"),
        card("Sharpness", heldout.get("sharpness"), 2, "", None, "of the person's detail; the video's own: 1"),
        card("Flicker", flicker, 2, "", None, "of the skin's changes from frame to frame; the video's own: 1"),
        card("Body fit, silhouette IoU", iou, 3, "", None, "median of the tracked frames"),
        card(
            "Frames tracked",
            f"{frames['tracked']}/{frames['recorded']}",
            0,
            "",
            None,
            ", ".join([heldout_words, *doubtful]),
        ),
    ]


def card(name: str, value: Any, digits: int, unit: str, best: float | None, words: str = "") -> dict[str, str]:
    """One headline figure; with ``best`` it says how far it is above the better baseline."""
    shown = value if isinstance(value, str) else "–" if value is None else f"{value:.{digits}f}{unit}"
    verdict = ""
    if best is not None and value is not None:
        words = f"{value - best:+.{digits}f}{unit} against the better baseline"
        verdict = "good" if value > best else "bad"
    return {"name": name, "value": shown, "words": words, "verdict": verdict}


def doubts(fit: Any) -> list[tuple[str, int, str]]:
    """What was wrong with frames, or with limbs in them: kind, number of frames, which; the most frequent first."""
    frames: dict[str, list[int]] = {}
    for index, reason in enumerate(fit.reason):
        if reason:
            frames.setdefault(kind(reason), []).append(index)
    return [(why, len(f), in_words(f)) for why, f in sorted(frames.items(), key=lambda item: -len(item[1]))]


def training_charts(path: Path) -> list[tuple[str, str]]:
    """Loss terms and training PSNR over the steps, from log.jsonl."""
    lines = path.read_text().splitlines() if path.is_file() else []
    ticks = [json.loads(line) for line in lines if line.endswith("}")]
    if not ticks:
        return []
    steps = np.array([tick["step"] for tick in ticks], float)
    names = [name for name in ticks[-1] if name not in ("step", "train_psnr_db", "steps_per_s")]
    losses = {name: np.array([tick.get(name, np.nan) for tick in ticks], float) for name in names}
    psnr_db = np.array([tick.get("train_psnr_db", np.nan) for tick in ticks], float)
    return [
        ("Weighted losses, logarithmic", charts.lines(steps, losses, "step", log_scale=True)),
        ("Masked PSNR of training batches, dB", charts.lines(steps, {"dB": psnr_db}, "step")),
    ]


def timings(avatar_dir: Path, subjects: Mapping[str, Path]) -> dict[str, float]:
    """Seconds per stage, in words; of a cast, the stages of all subjects together."""
    total = read_timings_s(*dict.fromkeys([*subjects.values(), avatar_dir.parent]))
    return {words: total[stage] for stage, words in STAGES.items() if stage in total}


def settings_of(avatar_dir: Path, subjects: Mapping[str, Path]) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Stage -> its settings, from the manifests of the first subject and of the avatar."""
    found: list[tuple[str, list[tuple[str, Any]]]] = []
    for folder in dict.fromkeys([*list(subjects.values())[:1], avatar_dir.parent]):
        for stage in STAGES:
            made = Manifest.load(folder / stage)
            if made is not None and made.settings and stage not in dict(found):
                found.append((stage, sorted(made.settings.items())))
    return found


def finished(avatar_dir: Path) -> str:
    made = Manifest.load(avatar_dir)
    return made.finished[:16].replace("T", " ") + " UTC" if made is not None else ""


def video(path: Path, words: str) -> dict[str, str] | None:
    """A video inside the page, or a link to the file beside it; None when there is none."""
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_VIDEO_BYTES:
        return {"name": path.name, "words": words, "uri": path.name}
    encoded = base64.b64encode(path.read_bytes()).decode()
    return {"name": path.name, "words": words, "uri": f"data:video/mp4;base64,{encoded}"}


def number(value: float | None, digits: int = 3) -> str:
    """For the tables: a dash for what was not measured."""
    return "–" if value is None else f"{value:.{digits}f}"
