"""Is each forearm and lower leg drawn where the picture and the depth camera saw one?

A median over the whole body forgives one wrong limb, and one wrong limb is the usual mistake: a hand swings through the
chest, a hidden arm wanders.  Enters: one frame's evidence and the posed body.  Leaves: figures per limb.
V vertices, F faces, h x w grid cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitting.body.model import BodyModel
from fitting.keypoints import LANDMARK_NAMES, MIRROR
from fitting.observe import Observation
from fitting.zbuffer import rasterize_faces

ENDS = {  # in the order of ``Chain.limbs``: the landmarks at a limb's root, middle and end
    f"{side} {limb}": tuple(LANDMARK_NAMES.index(f"{side}_{name}") for name in names)
    for limb, names in (("arm", ("shoulder", "elbow", "wrist")), ("leg", ("hip", "knee", "ankle")))
    for side in ("left", "right")
}
LIMBS = {  # name: the parts that show it, the landmarks at its two ends
    f"{side} {limb}": (tuple(f"{part}.{side[0].upper()}" for part in parts), (f"{side}_{first}", f"{side}_{last}"))
    for limb, parts, (first, last) in (
        ("arm", ("lower_arm", "palm", "hand_back"), ("elbow", "wrist")),
        ("leg", ("lower_leg", "instep", "sole"), ("knee", "ankle")),
    )
    for side in ("left", "right")
}
UPPER = {"arm": "upper_arm", "leg": "upper_leg"}
MIN_CELLS = 12  # fewer cells with depth say nothing about a limb
SURE_LANDMARK = 0.5  # the detector's confidence from which it vouches for a place
TWINS = 0.06  # of the height: landmarks of left and right that are nearer are easily taken for each other


@dataclass(frozen=True)
class Limb:
    """One limb as drawn by the fit, against what was seen.  Areas in units of the standing person's height,
    squared; a hanging forearm with its hand covers about 0.006."""

    name: str
    drawn: float  # area in which the fit shows it
    beyond: float  # of that, the area where the mask shows nobody
    gap_mm: float  # median distance in depth between drawn and seen; NaN without depth, or hardly drawn
    alone: float  # area that the person fills there and nothing else of the body explains: the outline vouches for it
    seen: float  # the detector's confidence in its outer end; NaN where that lies outside the picture
    off: float = float("nan")  # the further of its ends from where the detector surely sees it, of the height; else NaN
    jump_m: float = float("nan")  # how far its furthest joint is from where it was and from where it will be
    margin: float = float("nan")  # what its best other pose costs more (``fitting.mirror``); NaN = not asked


def parts_of_limbs(body: BodyModel) -> dict[str, np.ndarray]:
    """Name of a limb: the parts of the body that it consists of, from shoulder or hip to its end.  A doubt about the
    forearm is one about the upper arm too: the elbow belongs to both."""
    found = {}
    for name, (part_names, _) in LIMBS.items():
        side, limb = name.split()
        wanted = (f"{UPPER[limb]}.{side[0].upper()}", *part_names)
        found[name] = np.array([body.part_names.index(p) for p in wanted if p in body.part_names], int)
    return found


def limb_figures(
    body: BodyModel, observation: Observation, vertices_m: np.ndarray, landmarks_m: np.ndarray, height_px: float
) -> tuple[Limb, ...]:
    """Figures of every limb that the body's atlas names.

    Vertices (V, 3) and landmarks (L, 3) in the colour camera's frame; height_px: of the whole person standing, in grid
    cells.
    """
    camera = observation.camera
    z = np.ascontiguousarray(vertices_m[:, 2], float)
    pixels = vertices_m[:, :2] / np.maximum(z, 0.05)[:, None] * (camera.fx_px, camera.fy_px)
    pixels += (camera.cx_px, camera.cy_px)
    face_index, _, depth_m = rasterize_faces(pixels, z, body.faces, camera.image_wh)
    part = np.where((face_index >= 0) & observation.inside, body.face_part[face_index], 0)
    unit = height_px**2
    landmarks_px = landmarks_m[:, :2] / np.maximum(landmarks_m[:, 2:], 0.05) * (camera.fx_px, camera.fy_px)
    landmarks_px += (camera.cx_px, camera.cy_px)
    found = []
    for name, (part_names, ends) in LIMBS.items():
        members = [body.part_names.index(p) for p in part_names if p in body.part_names]
        if not members:
            continue
        cells = np.isin(part, members)
        gap_mm = np.nan
        if observation.surface_m is not None:
            gap_m = np.abs(observation.surface_m[..., 2] - depth_m)[cells]
            gap_m = gap_m[np.isfinite(gap_m)]
            gap_mm = float(np.median(gap_m) * 1e3) if len(gap_m) >= MIN_CELLS else np.nan
        others = body.faces[~np.isin(body.face_part, members)]
        without, _, _ = rasterize_faces(pixels, z, others, camera.image_wh)
        is_person = observation.mask >= 0.5
        areas = (cells, cells & ~is_person, cells & is_person & (without < 0))
        drawn, beyond, alone = (float(area.sum() / unit) for area in areas)
        off = _off(observation, landmarks_px, ends, height_px)
        found.append(Limb(name, drawn, beyond, gap_mm, alone, _seen(observation, ends), off))
    return tuple(found)


def _off(observation: Observation, landmarks_px: np.ndarray, ends: tuple[str, str], height_px: float) -> float:
    """``Limb.off`` of the fit's landmarks (33, 2); NaN unless the detector is sure of both ends and of their side."""
    rows = [LANDMARK_NAMES.index(name) for name in ends]
    seen_px, twins_px = observation.landmarks_px[rows], observation.landmarks_px[MIRROR[rows]]
    between = np.linalg.norm(seen_px - twins_px, axis=1) / height_px
    is_sure = (observation.confidence[rows] > SURE_LANDMARK).all() and (between > TWINS).all()
    return float(np.linalg.norm(landmarks_px[rows] - seen_px, axis=1).max() / height_px) if is_sure else float("nan")


def _seen(observation: Observation, ends: tuple[str, str]) -> float:
    """The better of the detector's confidences in the limb's ends; NaN when one of them is outside the picture."""
    rows = [LANDMARK_NAMES.index(name) for name in ends]
    points_px = observation.landmarks_px[rows]
    if not np.isfinite(points_px).all():
        return float("nan")
    width, height = observation.camera.image_wh
    column, row = np.floor(points_px).astype(int).T
    if (column < 0).any() or (row < 0).any() or (column >= width).any() or (row >= height).any():
        return float("nan")
    return float(observation.confidence[rows].max()) if observation.inside[row, column].all() else float("nan")
