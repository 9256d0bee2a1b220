"""What metrics.json says of one subject, and the log in a line.

Enters: figures per held-out frame.  Leaves: their means, beside what is known of frames, fit and coverage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fitting.verdict import LOST, UNCERTAIN
from training.score import AVATAR, METHODS, Subject, means, percentiles


def summarize(
    subject: Subject,
    rows: list[dict[str, Any]],
    head: dict[str, Any] | None,
    flicker: dict[str, Any] | None,
    coverage: dict[str, dict[str, Any]],
    why_no_lpips: str | None,
) -> dict[str, Any]:
    """One subject's part of metrics.json."""
    fit, keyframes = subject.captured.fit, subject.keyframes
    tracked = np.asarray(fit.tracked, bool)
    reasons = {}
    if why_no_lpips is not None:
        reasons["lpips"] = why_no_lpips
    if not np.isfinite(fit.residual_mm[tracked]).any():
        reasons["fit.residual_mm"] = "the recording has no depth"
    lost, measured = len(keyframes.heldout_indices) - subject.num_tracked, len(subject.heldout)
    if lost:
        reasons["heldout"] = f"{lost} held-out frames without a tracked body are in no figure"
    if measured < subject.num_tracked:
        reasons["measured"] = f"{measured} of {subject.num_tracked} held-out frames, in evenly spread runs"
    if head is None:
        reasons["head"] = "there is no close-up of the head"
    if flicker is None:
        reasons["flicker"] = "too few neighbouring held-out frames show the same skin"
    return {
        "frames": {
            "recorded": len(subject.captured.recording),
            "tracked": int(tracked.sum()),
            "limb_in_doubt": int((tracked & fit.limb_doubted.any(1)).sum()),
            "uncertain": fit.status.count(UNCERTAIN),
            "lost": fit.status.count(LOST),
            "train": len(keyframes.train_indices),
            "keyframes": len(keyframes.keyframe_indices),
            "heldout": len(keyframes.heldout_indices),
            "measured": measured,
        },
        "fit": {
            "residual_mm": percentiles(fit.residual_mm[tracked], p95=95),
            "keypoint_px": percentiles(fit.keypoint_px[tracked], p95=95),
            "silhouette_iou": percentiles(fit.silhouette_iou[tracked], p5=5),
        },
        "coverage": coverage,
        "heldout": means(rows, AVATAR),
        "head": head,
        "baselines": {method: means(rows, method) for method in METHODS if method != AVATAR},
        "flicker": flicker,
        "reasons": reasons,
    }


def in_one_line(result: Mapping[str, Any]) -> str:
    """The headline for the log."""
    heldout, baselines = result["heldout"], result["baselines"]
    if heldout["masked_psnr_db"] is None:
        return "no held-out frame could be scored"
    others = ", ".join(f"{name.replace('_', ' ')} {b['masked_psnr_db']} dB" for name, b in baselines.items())
    ssim, iou = heldout["crop"]["ssim"], heldout["mask_iou"]
    flicker = "" if result["flicker"] is None else f", flicker {result['flicker']['ratio']} of the video's"
    return f"masked PSNR {heldout['masked_psnr_db']} dB ({others}), crop SSIM {ssim}, mask IoU {iou}{flicker}"
