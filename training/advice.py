"""What is wrong with a capture or an avatar, and what to do about it.

Enters: a subject's stages and figures.  Leaves: pieces of advice for the report, worst first.
N frames, H x W pixels of the colour picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from capture.sampling import evenly
from fitting.residuals import LIMB, frames_with, in_words, kind
from fitting.verdict import BESIDE, LOST, UNCERTAIN
from training.flicker import LIMIT

SECTORS = ("front", "front left", "left", "back left", "back", "back right", "right", "front right")
SIDES = {"back": ("back", "back of the head"), "front": ("chest and belly", "face")}
HARDLY_SEEN = 0.35  # of a side; a person who never turns still shows a rim of it
HALF_SEEN = 0.5  # of a limb: who faces the camera shows just above half of it
TO_SHOW = {
    "head": "Turn around once, and bow.",
    "face": "Look into the camera for a while.",
    "hand": "Show both sides of the open hands.",
    "arm": "Raise the arms, and turn them.",
    "leg": "Turn around once, and stand with the legs apart.",
    "foot": "Step back or tilt the camera down until there is floor below the feet.",
}
COARSEST_MM = {"face": 3.0, "hand": 4.0, "foot": 6.0}  # per pixel: fifty across a face, twenty-five across a hand
BORDER_FRAMES = 40  # frames in which the matte is looked up, evenly spread
BORDER_SHARE = 0.01  # of the picture's side covered by the person: touched by more than a stray hair
LOW_IOU = 0.85
FEW_FRAMES = 100
SHARE_WORTH_SAYING = 0.05
LIMBS_WORTH_SAYING = 0.25  # the rest of such a frame teaches
DRIFT = 0.10


@dataclass(frozen=True)
class Advice:
    """One thing to know.  ``is_problem`` separates what costs quality from what is only good to know."""

    title: str
    detail: str
    remedy: str
    is_problem: bool = True


def sector_counts(fit: Any, frame_indices: np.ndarray) -> np.ndarray:
    """(8,) frames in which the camera saw the person from each of SECTORS.

    The azimuth of the camera around the body's own vertical axis; "left" is the person's own left side.
    """
    camera_from_body = np.asarray(fit.camera_from_body, float)[frame_indices]
    camera_from_body = camera_from_body[np.isfinite(camera_from_body).all((1, 2))]
    # the camera's centre seen from the body: it faces -y, its left is +x
    centre = -np.einsum("nji,nj->ni", camera_from_body[:, :3, :3], camera_from_body[:, :3, 3])
    azimuth = np.arctan2(centre[:, 0], -centre[:, 1])
    sector = np.round(azimuth / (2 * np.pi / len(SECTORS))).astype(int) % len(SECTORS)
    return np.bincount(sector, minlength=len(SECTORS))


def touched_borders(masks: Any, frame_indices: np.ndarray) -> dict[str, float]:
    """Side of the picture -> share of the frames in which the person reaches over it."""
    if not len(frame_indices):
        return {}
    touched: Counter[str] = Counter()
    looked = evenly(frame_indices, BORDER_FRAMES)
    for index in looked:
        person = masks[int(index)] > 0.5
        sides = {"top": person[:2].any(0), "bottom": person[-2:].any(0)}
        sides |= {"left": person[:, :2].any(1), "right": person[:, -2:].any(1)}
        touched.update(side for side, line in sides.items() if line.mean() > BORDER_SHARE)
    return {side: count / len(looked) for side, count in touched.items()}


def advise(name: str, figures: Mapping[str, Any], fit: Any, train_indices: np.ndarray, masks: Any) -> list[Advice]:
    """Advice about one subject.  figures: its part of metrics.json."""
    tracked = np.flatnonzero(fit.tracked)
    found = [
        *_about_tracking(fit),
        *_about_borders(touched_borders(masks, tracked)),
        *_about_coverage(figures["coverage"]),
        *_about_fit(figures),
        *_about_length(len(train_indices)),
        *_about_quality(figures),
        *_about_flicker(figures.get("flicker")),
    ]
    return sorted(found, key=lambda advice: not advice.is_problem)


def advise_about_avatar(settings: Mapping[str, Any], reasons: Mapping[str, str]) -> list[Advice]:
    """Advice about what all subjects share.  settings: avatar.json; reasons: of metrics.json."""
    found = []
    features = str(settings.get("features", ""))
    if "because" in features:
        found.append(
            Advice(
                "Feature loss without VGG19",
                "Training compared the structure of pictures (SSIM), because the published VGG19 weights are not on "
                "this machine.",
                "Put torchvision's vgg19-dcbb9e9d.pth into ~/.cache/anr (or $ANR_WEIGHTS), then run --force train.",
                is_problem=False,
            )
        )
    if "lpips" in reasons:
        where = "~/.cache/anr (or $ANR_WEIGHTS)"
        remedy = f"Put torchvision's alexnet-owt-7be5be79.pth into {where}, then run --force evaluate."
        found.append(
            Advice("LPIPS was not measured", f"It needs AlexNet's weights: {reasons['lpips']}.", remedy, False)
        )
    for subject, (low, high) in settings.get("exposure_range", {}).items():
        if high - low > 2 * DRIFT:
            detail = f"Training found gains from {low:.2f} to {high:.2f} in {subject}'s frames and evened them out."
            remedy = "Lock exposure and white balance of the camera before filming."
            found.append(Advice("The exposure drifts", detail, remedy, False))
    return found


def _about_tracking(fit: Any) -> list[Advice]:
    return [
        *_about_frames(fit, LOST, "Lost frames", "the body was not found"),
        *_about_frames(fit, UNCERTAIN, "Doubtful frames", "the fit is not to be believed"),
        *_about_limbs(fit),
    ]


def _about_limbs(fit: Any) -> list[Advice]:
    frames = frames_with(fit, LIMB)
    if not frames:
        return []
    common = Counter(kind(fit.reason[i]) for i in frames).most_common(1)[0][0]
    example = next(i for i in frames if kind(fit.reason[i]) == common)
    detail = (
        f"In {len(frames)} frames one arm or leg is in doubt, and taught nothing: {in_words(frames)}. "
        f"Most often like frame {example}: {fit.reason[example]}."
    )
    remedy = "Nothing to do for a few. Otherwise film slowly, with the arms away from the body; a depth camera helps."
    return [Advice("Limbs in doubt", detail, remedy, len(frames) > LIMBS_WORTH_SAYING * len(fit.status))]


def _about_frames(fit: Any, status: str, title: str, what: str) -> list[Advice]:
    frames = [i for i, s in enumerate(fit.status) if s == status]
    if not frames:
        return []
    telling = [i for i in frames if fit.reason[i] != BESIDE] or frames
    common = Counter(kind(fit.reason[i]) for i in telling).most_common(1)[0][0]
    example = next(i for i in frames if kind(fit.reason[i]) == common)
    detail = (
        f"In {len(frames)} of {len(fit.status)} frames {what}, so they teach nothing: {in_words(frames)}. "
        f"Most often like frame {example}: {fit.reason[example]}."
    )
    remedy = (
        "Look at 03_fit/worst and overlay.mp4. Keep the whole person in view, in even light, with nobody else around."
    )
    if status == UNCERTAIN:
        remedy = "Look at 03_fit/worst. Move slowly, arms away from the body, and film more than you need."
    return [Advice(title, detail, remedy, len(frames) > SHARE_WORTH_SAYING * len(fit.status))]


def _about_borders(touched: Mapping[str, float]) -> list[Advice]:
    words = {
        "bottom": ("The feet are cut off", "Step back or tilt the camera down until there is floor below the feet."),
        "top": ("The head is cut off", "Step back or tilt the camera up until there is room above the raised hands."),
        "left": ("Cut off at the left edge", "Step back, or stay nearer the middle of the picture."),
        "right": ("Cut off at the right edge", "Step back, or stay nearer the middle of the picture."),
    }
    return [
        Advice(words[side][0], f"The person reaches over this edge in {share:.0%} of the frames.", words[side][1])
        for side, share in sorted(touched.items(), key=lambda item: -item[1])
        if share > SHARE_WORTH_SAYING
    ]


def _about_coverage(coverage: Mapping[str, Mapping[str, Any]]) -> list[Advice]:
    """Which skin the training frames never showed, and which never from near enough."""
    shares = {region: figures["seen"] for region, figures in coverage.items()}
    return [*_about_unseen(shares), *_about_distance({r: f["mm_per_px"] for r, f in coverage.items()})]


def _about_unseen(shares: Mapping[str, float]) -> list[Advice]:
    found: list[Advice] = []
    told: set[str] = set()
    for side, regions in SIDES.items():
        seen = [shares[region] for region in regions if region in shares]
        if seen and np.mean(seen) < HARDLY_SEEN:
            told.update(regions)
            detail = f"Training saw {_percentages(regions, shares)}; from there the avatar is a guess."
            remedy = "Film one slow full turn, arms a little away from the body, before anything else."
            found.append(Advice(f"The {side} was never seen", detail, remedy))
    missing = [r for r, share in shares.items() if share < HALF_SEEN and r not in told]
    if missing:
        remedies = [words for key, words in TO_SHOW.items() if any(key in region for region in missing)]
        detail = f"Training saw only {_percentages(missing, shares)}; the rest is a guess."
        remedy = " ".join(remedies) or "Film one slow full turn, then move every limb once."
        found.append(Advice(f"Hardly seen: {_listed(missing)}", detail, remedy))
    return found


def _about_distance(mm_per_px: Mapping[str, float | None]) -> list[Advice]:
    far = {
        region: mm
        for region, mm in mm_per_px.items()
        for key, most in COARSEST_MM.items()
        if mm is not None and key in region and mm > most
    }
    if not far:
        return []
    worst = max(far, key=lambda region: far[region] or 0)
    limit = next(most for key, most in COARSEST_MM.items() if key in worst)
    detail = (
        f"One pixel of the picture covers {far[worst]:.1f} mm of the {worst}; it takes {limit:g} mm or less for detail."
    )
    remedy = "Come nearer for some seconds and show face and hands, or record at the camera's full resolution."
    return [Advice(f"Never close enough: {_listed(list(far))}", detail, remedy)]


def _percentages(regions: Sequence[str], shares: Mapping[str, float]) -> str:
    return _listed([f"{shares[r]:.0%} of the {r}" for r in regions if r in shares])


def _listed(words: Sequence[str]) -> str:
    """ "a, b and c"; left and right of the same thing are said once."""
    sides = {word: word.replace("left ", "right ") for word in words if word.startswith("left ")}
    both = [w for w in words if w not in sides.values() or w.replace("right ", "left ") not in words]
    named = [f"{w.removeprefix('left ')}s".replace("foots", "feet") if sides.get(w) in words else w for w in both]
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def _about_fit(figures: Mapping[str, Any]) -> list[Advice]:
    found = []
    iou = (figures["fit"]["silhouette_iou"] or {}).get("median")
    if iou is not None and iou < LOW_IOU:
        detail = f"The body's outline and the person's overlap by {iou:.2f} (median); {LOW_IOU} and more is good."
        remedy = (
            "Look at 03_fit/overlay.mp4 and at the masks. Tighter clothes, a plainer background and depth all help."
        )
        found.append(Advice("The body fits loosely", detail, remedy))
    if figures["fit"]["residual_mm"] is None:
        detail = "Pose and size come from the pictures alone; distances are only known up to a common scale."
        remedy = "Nothing to do for a plain video. With a depth camera the poses become more accurate."
        found.append(Advice("Colour only", detail, remedy, is_problem=False))
    return found


def _about_length(num_train: int) -> list[Advice]:
    if num_train >= FEW_FRAMES:
        return []
    detail = f"{num_train} training frames; below {FEW_FRAMES} the avatar repeats what it saw and invents the rest."
    return [Advice("A short recording", detail, "Film half a minute or more with slow, varied movement.")]


def _about_quality(figures: Mapping[str, Any]) -> list[Advice]:
    own = figures["heldout"]["masked_psnr_db"]
    others = {name: f["masked_psnr_db"] for name, f in figures["baselines"].items() if f["masked_psnr_db"] is not None}
    if own is None or not others:
        return []
    name, best = max(others.items(), key=lambda item: item[1])
    if own > best:
        return []
    detail = f"On held-out frames the avatar reaches {own:.1f} dB, the {name.replace('_', ' ')} {best:.1f} dB."
    remedy = "Train longer (--set train.steps=…) and look at 03_fit/overlay.mp4: a wrong fit cannot be trained away."
    return [Advice("The avatar does not beat the simplest baseline", detail, remedy)]


def _about_flicker(flicker: Mapping[str, Any] | None) -> list[Advice]:
    if flicker is None or flicker["ratio"] <= LIMIT:
        return []
    detail = f"From frame to frame its skin changes with {flicker['ratio']:.1f} times the variance of the filmed skin."
    remedy = "Train longer (--set train.steps=…); look at 03_fit/overlay.mp4, whether the body itself trembles."
    return [Advice("The avatar flickers", detail, remedy)]
