"""What noise, holes and flying pixels a depth sensor makes, measured on single frames.

h x w pixels.  Enters: depth images in uint16 millimetres, 0 = no return.  Leaves: numbers that can be compared between
the real Kinect V2 frames and ours (``benchmarks/depth_sensor.py``).  No temporal statistics: the real
frames are far apart in time.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

BINS_M = ((0.8, 1.2), (1.2, 1.6), (1.6, 2.0), (2.0, 2.5), (2.5, 3.0), (3.0, 3.5))
PATCH = 5  # pixels; small enough that most of what bends inside is noise
JUMP = 0.08  # relative step that counts as a depth edge
MAX_GAP = 14  # pixels without return between the two sides of an edge


def describe(frames: Iterable[np.ndarray]) -> dict[str, float]:
    """All statistics over depth images (h, w) uint16; NaN where nothing could be measured."""
    residuals: dict[str, list[np.ndarray]] = {}
    edges = {"left": [], "right": []}  # type: dict[str, list[np.ndarray]]
    flying, pinholes, inner = 0.0, 0, 0
    correlation = []
    for depth_mm in frames:
        distance, sigma, lag = plane_residuals(depth_mm)
        for low, high in BINS_M:
            chosen = (distance >= low) & (distance < high)
            residuals.setdefault(f"noise_mm_{low:.1f}_{high:.1f}", []).append(sigma[chosen])
        correlation.append(lag)
        for side, mirrored in (("right", depth_mm), ("left", depth_mm[:, ::-1])):
            gaps, count = edge_gaps(mirrored)
            edges[side].append(gaps)
            flying += count
        hole, solid = pinhole_counts(depth_mm)
        pinholes, inner = pinholes + hole, inner + solid
    result = {name: _median(values) for name, values in residuals.items()}
    result["noise_correlation"] = float(np.median(correlation))
    total = 0
    for side, values in edges.items():
        gaps = np.concatenate(values)
        total += len(gaps)
        result[f"gap_px_{side}_median"] = float(np.median(gaps)) if len(gaps) else float("nan")
        result[f"gap_px_{side}_p90"] = float(np.percentile(gaps, 90)) if len(gaps) else float("nan")
        result[f"no_gap_share_{side}"] = float(np.mean(gaps == 0)) if len(gaps) else float("nan")
    result["flying_per_edge"] = flying / max(total, 1)
    result["pinhole_share"] = pinholes / max(inner, 1)
    return result


def _median(values: list[np.ndarray]) -> float:
    merged = np.concatenate(values)
    return float(np.median(merged)) if len(merged) > 200 else float("nan")


def plane_residuals(depth_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Distance in metres and residual sigma in mm of every fully valid, edge-free patch; and the residuals'
    correlation between horizontal neighbours."""
    windows = np.lib.stride_tricks.sliding_window_view(depth_mm, (PATCH, PATCH))[::2, ::2].reshape(-1, PATCH * PATCH)
    windows = windows[(windows > 0).all(axis=1)].astype(np.float64)
    windows = windows[(np.ptp(windows, axis=1) < 0.05 * windows.mean(axis=1))]
    v, u = np.mgrid[0:PATCH, 0:PATCH] - PATCH // 2
    design = np.stack([np.ones(PATCH * PATCH), u.ravel(), v.ravel()], axis=1)
    project = np.eye(PATCH * PATCH) - design @ np.linalg.pinv(design)
    residual = windows @ project
    sigma = np.sqrt((residual**2).sum(axis=1) / (PATCH * PATCH - 3))
    grid = residual.reshape(-1, PATCH, PATCH)
    quiet = sigma < np.median(sigma) * 1.5  # creases and steps would look correlated
    lag = (grid[quiet, :, 1:] * grid[quiet, :, :-1]).mean() / (grid[quiet] ** 2).mean()
    return windows.mean(axis=1) / 1000, sigma, float(lag)


def edge_gaps(depth_mm: np.ndarray) -> tuple[np.ndarray, float]:
    """Widths in pixels of the holes where something near ends and something far begins to its right, 0 = none;
    and how many valid pixels within three of such an edge float between the two sides."""
    gaps, flying = [], 0.0
    for row in depth_mm.astype(np.float64):
        valid = np.flatnonzero(row)
        if len(valid) < 20:
            continue
        near, far, gap = row[valid[:-1]], row[valid[1:]], np.diff(valid) - 1
        for i in np.flatnonzero((far > near * (1 + JUMP)) & (gap <= MAX_GAP)):
            before, after = row[valid[max(i - 6, 0) : max(i - 2, 1)]], row[valid[i + 4 : i + 8]]
            if len(before) < 3 or len(after) < 3 or np.ptp(before) > 60 or np.ptp(after) > 60:
                continue  # not one clean step between two smooth surfaces
            low, high = before.mean(), after.mean()
            if high < low * (1 + JUMP):
                continue
            window = row[valid[max(i - 2, 0) : i + 4]]
            flying += float(((window > low + 0.15 * (high - low)) & (window < high - 0.15 * (high - low))).sum())
            gaps.append(gap[i])
    return np.array(gaps), flying


def pinhole_counts(depth_mm: np.ndarray) -> tuple[int, int]:
    """Pixels without return whose whole 5 x 5 surrounding has one; and pixels with such a surrounding."""
    windows = np.lib.stride_tricks.sliding_window_view(depth_mm > 0, (5, 5)).reshape(-1, 25)
    around = np.delete(windows, 12, axis=1).all(axis=1)
    return int((around & ~windows[:, 12]).sum()), int(around.sum())
