"""How well the body fits, frame by frame: one chart over the clip, and the worst frames as pictures.

Enters: the fit, N frames.  Leaves: residuals.svg (small multiples that share the axis of frames; uncertain and lost
frames are shaded) and worst/000043.jpg, the frames to look at first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from capture.camera import Camera, project
from capture.files import encode_jpeg, write_atomically
from capture.recording import Recording
from fitting.overlay import draw_overlay
from fitting.verdict import LOST, TRACKED, UNCERTAIN

if TYPE_CHECKING:
    from fitting.fit import BodyFit

LIMB = "limb"  # beside the verdicts on frames: tracked, with a limb in doubt
WORST = 6  # pictures
WIDTH, PANEL, GAP = 920, 112, 30
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 58, 44
MAX_POINTS = 1200  # of a line: more cannot be seen
STYLE = """
.residuals{--ink:#1b1d22;--quiet:#666c78;--rule:#e3e5ea;--line:#2b5fd9;--unsure:#e8a33d;--gone:#d23f31;
font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
@media (prefers-color-scheme:dark){.residuals{--ink:#e9ebf0;--quiet:#9aa1ae;--rule:#2d323b;--line:#86a8ff;
--unsure:#f3b45c;--gone:#ff7a6d}}
.residuals text{fill:var(--quiet);font-size:12px}.residuals .name{fill:var(--ink);font-weight:600;font-size:13px}
.residuals .rule{stroke:var(--rule)}.residuals .line{fill:none;stroke:var(--line);stroke-width:1.5}
.residuals .dot{fill:var(--line)}.residuals .uncertain{fill:var(--unsure);opacity:.30}
.residuals .lost{fill:var(--gone);opacity:.38}.residuals .heldout{fill:none;stroke:var(--quiet);stroke-dasharray:3 3}
.residuals .limb{fill:var(--unsure);opacity:.14}.residuals .worst{fill:var(--gone);stroke:none}
"""


def ranges(frame_indices: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
    """First and last of every stretch of neighbouring frames; enters rising."""
    frames = np.asarray(frame_indices, int)
    if not len(frames):
        return []
    breaks = np.flatnonzero(np.diff(frames) > 1)
    firsts, lasts = frames[np.r_[0, breaks + 1]], frames[np.r_[breaks, len(frames) - 1]]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def in_words(frame_indices: Sequence[int] | np.ndarray, most: int = 8) -> str:
    """ "12, 40-44 and 97"; of many stretches the longest, in order, and how many more there are."""
    stretches = ranges(frame_indices)
    shown = sorted(sorted(stretches, key=lambda r: r[0] - r[1])[:most])
    words = [str(a) if a == b else f"{a}-{b}" for a, b in shown]
    if len(shown) < len(stretches):
        words.append(f"{len(stretches) - len(shown)} more stretches")
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def frames_with(fit: BodyFit, status: str) -> list[int]:
    """The frames of a status; of LIMB, those that are tracked but for a limb."""
    if status == LIMB:
        return np.flatnonzero(fit.tracked & fit.limb_doubted.any(1)).tolist()
    return [i for i, own in enumerate(fit.status) if own == status]


def badness(fit: BodyFit) -> np.ndarray:
    """(N,) how far the figures of a frame are above what is usual in this clip, lost and uncertain frames first."""
    worse = np.zeros(len(fit))
    for figure in (fit.keypoint_px, 1 - fit.silhouette_iou, fit.residual_mm):
        known = figure[np.isfinite(figure)]
        if len(known):
            usual, high = np.median(known), np.percentile(known, 95)
            worse += np.nan_to_num((figure - usual) / max(high - usual, 1e-6)).clip(0, 5)
    status = np.asarray(fit.status)
    return worse + 2.0 * fit.limb_doubted.sum(1) + 5.0 * (status == UNCERTAIN) + 8.0 * (status == LOST)


def worst_frames(fit: BodyFit, count: int = WORST) -> list[int]:
    """The ``count`` worst frames, rising; no two from the same moment, and one for each reason before any twice."""
    order = np.argsort(-badness(fit), kind="stable").tolist()
    apart = max(2, len(fit) // (4 * count))
    chosen: list[int] = []
    for may_repeat in (False, True):
        for i in order:
            is_new = all(abs(i - k) >= apart for k in chosen)
            is_named = kind(fit.reason[i]) in {kind(fit.reason[k]) for k in chosen}
            if len(chosen) < count and is_new and (may_repeat or not is_named):
                chosen.append(i)
    return sorted(chosen)


def kind(reason: str) -> str:
    """A reason without its figures: what frames have in common."""
    return re.sub(r"[0-9.]+", "…", reason)


def caption(fit: BodyFit, index: int) -> str:
    """What to know about a frame: number, status and why, or its figures."""
    if fit.reason[index]:
        return f"frame {index}, {fit.status[index]}: {fit.reason[index]}"
    figures = [f"landmarks {fit.keypoint_px[index]:.0f} px", f"overlap {fit.silhouette_iou[index]:.2f}"]
    if np.isfinite(fit.residual_mm[index]):
        figures.append(f"depth {fit.residual_mm[index]:.0f} mm")
    return f"frame {index}, tracked: {', '.join(figures)}"


def write_residuals(out_dir: Path, recording: Recording, landmarks_px: np.ndarray, fit: BodyFit) -> None:
    """residuals.svg and worst/*.jpg; landmarks_px (N, 33, 2)."""
    write_atomically(out_dir / "residuals.svg", residual_chart(fit).encode())
    (out_dir / "worst").mkdir(exist_ok=True)
    for i in worst_frames(fit):
        picture = close_up(recording.color(i), landmarks_px[i], fit, i)
        write_atomically(out_dir / "worst" / f"{i:06d}.jpg", encode_jpeg(picture, 88))


def close_up(color: np.ndarray, landmarks_px: np.ndarray, fit: BodyFit, index: int, height: int = 720) -> np.ndarray:
    """(height, w, 3) uint8: the overlay around the person, upright; of a frame where nobody was found, all of it."""
    points = [landmarks_px]
    if fit.status[index] != LOST:
        points.append(project(fit.camera, fit.vertices_color_m(index)))
    found = np.concatenate(points)
    found = found[np.isfinite(found).all(1)]
    full_h, full_w = color.shape[:2]
    if len(found):
        low, high = found.min(0).clip(0, (full_w, full_h)), found.max(0).clip(0, (full_w, full_h))
        tall = max(1.16 * (high[1] - low[1]), 1.5 * (high[0] - low[0]), 64)
        center = (low + high) / 2
        tall = min(tall, full_h)
        wide = min(0.75 * tall, full_w)
        left = int(np.clip(center[0] - wide / 2, 0, full_w - wide))
        top = int(np.clip(center[1] - tall / 2, 0, full_h - tall))
        box = (left, top, left + int(wide), top + int(tall))
    else:
        box = (0, 0, full_w, full_h)
    return _overlay_in(color, box, landmarks_px, fit, index, height)


def _overlay_in(
    color: np.ndarray, box: tuple[int, int, int, int], landmarks_px: np.ndarray, fit: BodyFit, index: int, height: int
) -> np.ndarray:
    import cv2

    left, top, right, bottom = box
    scale = height / (bottom - top)
    size = (round((right - left) * scale), height)
    part = cv2.resize(
        color[top:bottom, left:right], size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    )
    camera: Camera = fit.camera.crop(box, size)
    vertices_m = fit.vertices_color_m(index) if fit.status[index] != LOST else None
    shown_px = (landmarks_px - (left, top)) * scale
    words = f"frame {index}  {fit.reason[index]}"
    pale = np.flatnonzero(fit.part_doubted[index])
    return draw_overlay(part, camera, fit.body, vertices_m, shown_px, words, max(size), pale)


def residual_chart(fit: BodyFit, heldout_from: int | None = None) -> str:
    """The chart as SVG; ``heldout_from``: the first held-out frame, marked where it is known."""
    wanted = (
        ("Landmark error, pixels", fit.keypoint_px, True),
        ("Silhouette overlap, IoU", fit.silhouette_iou, False),
        ("Distance to the depth points, mm", fit.residual_mm, True),
    )
    panels = [(name, values, from_zero) for name, values, from_zero in wanted if np.isfinite(values).any()]
    height = TOP + len(panels) * (PANEL + GAP) - GAP + BOTTOM
    last = max(len(fit) - 1, 1)

    def at_x(frame: float) -> float:
        return LEFT + frame / last * (WIDTH - LEFT - RIGHT)

    parts = _key(fit, heldout_from is not None)
    for number, (name, values, from_zero) in enumerate(panels):
        parts += _panel(name, values, from_zero, TOP + number * (PANEL + GAP), at_x, fit, heldout_from)
    bottom = height - BOTTOM
    for frame in _round_frames(len(fit)):
        parts.append(f'<text x="{at_x(frame):.1f}" y="{bottom + 23}" text-anchor="middle">{frame}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{bottom + 40}" text-anchor="end">frame</text>')
    parts += [
        f'<path class="worst" d="M{at_x(i):.1f} {bottom + 1}l4 7h-8z"><title>{escape(caption(fit, i))}</title></path>'
        for i in worst_frames(fit)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="residuals" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<style>{STYLE}</style>{''.join(parts)}</svg>\n"
    )


def _panel(name, values, from_zero, top, at_x, fit, heldout_from) -> list[str]:
    """One figure over the frames, its shaded frames and its scale."""
    known = values[np.isfinite(values)]
    low, high = (0.0, float(known.max()) * 1.08) if from_zero else (min(float(known.min()), 0.8) - 0.03, 1.0)

    def at_y(value: float) -> float:
        return top + PANEL - (value - low) / max(high - low, 1e-9) * PANEL

    parts = [f'<text class="name" x="{LEFT}" y="{top - 8}">{escape(name)}</text>']
    half = (at_x(1) - at_x(0)) / 2
    for status in (LIMB, UNCERTAIN, LOST):
        for a, b in ranges(frames_with(fit, status)):
            x, width = max(at_x(a) - half, LEFT), max(at_x(b) - at_x(a) + 2 * half, 1.5)
            why = f"{fit.status[a]}: {a if a == b else f'{a}-{b}'}, {fit.reason[a]}"
            parts.append(
                f'<rect class="{status}" x="{x:.1f}" y="{top}" width="{min(width, WIDTH - RIGHT - x):.1f}" '
                f'height="{PANEL}"><title>{escape(why)}</title></rect>'
            )
    for value in _round_values(low, high):
        y = at_y(value)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    if heldout_from is not None:
        x = at_x(heldout_from)
        parts.append(f'<line class="heldout" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + PANEL}"/>')
    return [*parts, *_line(values, at_x, at_y)]


def _line(values: np.ndarray, at_x, at_y) -> list[str]:
    """The line with its gaps; a frame alone between gaps is a dot."""
    step = max(1, len(values) // MAX_POINTS)
    frames = [i for i in range(0, len(values), step) if np.isfinite(values[i])]
    words, dots = [], []
    for a, b in ranges(np.array(frames, int) // step):
        points = [f"{at_x(k * step):.1f} {at_y(values[k * step]):.1f}" for k in range(a, b + 1)]
        if len(points) == 1:
            x, y = points[0].split()
            dots.append(f'<circle class="dot" cx="{x}" cy="{y}" r="2"/>')
        else:
            words.append("M" + "L".join(points))
    return [f'<path class="line" d="{"".join(words)}"/>', *dots]


def _key(fit: BodyFit, has_heldout: bool) -> list[str]:
    """What the shades mean and how many frames they cover, above the panels."""
    x, parts = float(LEFT), []
    parts.append(f'<text x="{x:.0f}" y="14">{fit.status.count(TRACKED)} of {len(fit)} frames tracked</text>')
    x += 170
    meanings = (LIMB, "with a limb in doubt"), (UNCERTAIN, "uncertain: teach nothing"), (LOST, "lost")
    for status, words in meanings:
        count = len(frames_with(fit, status))
        if not count:
            continue
        parts.append(f'<rect class="{status}" x="{x:.0f}" y="3" width="14" height="14"/>')
        text = f"{count} {words}"
        parts.append(f'<text x="{x + 20:.0f}" y="14">{text}</text>')
        x += 40 + 6.3 * len(text)
    parts.append(f'<path class="worst" d="M{x + 5:.0f} 6l4 7h-8z"/><text x="{x + 16:.0f}" y="14">pictured</text>')
    if has_heldout:
        x += 90
        parts.append(f'<line class="heldout" x1="{x:.0f}" x2="{x:.0f}" y1="3" y2="17"/>')
        parts.append(f'<text x="{x + 8:.0f}" y="14">held out from here</text>')
    return parts


def _round_frames(count: int) -> list[int]:
    step = next(s * 10**k for k in range(8) for s in (1, 2, 5) if count / (s * 10**k) <= 10)
    return list(range(0, count, step))


def _round_values(low: float, high: float) -> list[float]:
    """Two to five round numbers inside [low, high]."""
    rough = max(high - low, 1e-9) / 4
    magnitude = 10 ** np.floor(np.log10(rough))
    step = next(m for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough) * magnitude
    return [round(float(v), 10) for v in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]
