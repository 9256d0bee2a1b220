"""Tables of methods and of ablations: every row trained with several seeds and scored by the same evaluator.

Enters: rows and a bench.  Leaves, in the bench's folder:

    compare.json, ablate.json            every seed's figures, their mean and its 95 % interval
    compare.md, ablate.md                the same as a table
    compare-<subject>.jpg, ablate-...    the first seed's held-out frames, a row each under the true ones

S seeds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from capture.files import encode_jpeg, write_atomically
from training.pictures import captioned
from training.rows import Row
from training.trials import TRUTH, Bench, finished, read_strip, run_trial

FIGURES = {  # figure -> heading, decimals
    "masked_psnr_db": ("masked PSNR, dB", 2),
    "crop_ssim": ("crop SSIM", 4),
    "crop_flip": ("crop FLIP", 4),
    "crop_lpips": ("crop LPIPS", 4),
    "full_ssim": ("full SSIM", 4),
    "full_flip": ("full FLIP", 4),
    "mask_iou": ("mask IoU", 4),
    "sharpness": ("sharpness / video's", 3),
    "flicker": ("flicker / video's", 3),
}
AGAINST = "masked_psnr_db"  # the figure whose difference from the first row the table shows
CONFIDENCE = 0.95

log = logging.getLogger(__name__)


def run_rows(name: str, bench: Bench, rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """Make what is missing, write the tables ``name`` and return the readable one.

    Seed by seed, so that an interrupted run has compared all rows by some seeds, not some rows by all.
    """
    for done, seed in enumerate(seeds):
        for place, row in enumerate(rows):
            log.info("%s: trial %d of %d", name, done * len(rows) + place + 1, len(seeds) * len(rows))
            run_trial(bench, row, seed)
    found = {row.key: [finished(bench.trial_dir(row, seed)) or {} for seed in seeds] for row in rows}
    tables = [summarise(row, found[row.key], found[rows[0].key]) for row in rows]
    fields = {"seeds": list(seeds), "confidence": CONFIDENCE, "rows": tables}
    write_atomically(bench.folder / f"{name}.json", (json.dumps(fields, indent=1) + "\n").encode())
    table = markdown(tables, len(seeds))
    write_atomically(bench.folder / f"{name}.md", table.encode())
    for subject in bench.subjects:
        draw(name, bench, rows, seeds[0], subject)
    return table


def summarise(row: Row, trials: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row of the JSON table: per figure every seed's value (mean over subjects), and their mean and interval."""
    values = {figure: [_of_all_subjects(trial, figure) for trial in trials] for figure in FIGURES}
    reference = [_of_all_subjects(trial, AGAINST) for trial in first]
    pairs = zip(values[AGAINST], reference, strict=True)
    gains = [None if own is None or other is None else own - other for own, other in pairs]
    return {
        "key": row.key,
        "name": row.name,
        "parameters": trials[0]["parameters"],
        "texture_parameters": trials[0]["texture_parameters"],
        "steps": [trial["steps"] for trial in trials],
        "training_cpu_s": [trial["training_cpu_s"] for trial in trials],
        "figures": {figure: {"seeds": seeds, **mean_and_interval(seeds)} for figure, seeds in values.items()},
        "against_first": {"figure": AGAINST, "seeds": gains, **mean_and_interval(gains)},
    }


def _of_all_subjects(trial: Mapping[str, Any], figure: str) -> float | None:
    found = [figures[figure] for figures in trial["figures"].values()]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if len(known) == len(found) else None


def mean_and_interval(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean of (S,) and half the width of its interval by Student's t; None for what cannot be said."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return {"mean": None, "half_width": None}
    if len(known) == 1:
        return {"mean": known[0], "half_width": None}
    spread = np.std(known, ddof=1) / np.sqrt(len(known))
    half_width = float(student_t.ppf((1 + CONFIDENCE) / 2, len(known) - 1) * spread)
    return {"mean": float(np.mean(known)), "half_width": half_width}


def markdown(tables: Sequence[Mapping[str, Any]], num_seeds: int) -> str:
    """The table for people; figures that nothing has are left out."""
    shown = [name for name in FIGURES if any(row["figures"][name]["mean"] is not None for row in tables)]
    headings = ["", *(FIGURES[name][0] for name in shown), "PSNR against the first row", "parameters", "in textures"]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for place, row in enumerate(tables):
        cells = [in_words(row["figures"][name], FIGURES[name][1]) for name in shown]
        cells.append(in_words(row["against_first"], 2, "+") if place else "")
        cells += [f"{row['parameters']:,}", f"{row['texture_parameters']:,}"]
        lines.append(f"| {' | '.join([row['name'], *cells])} |")
    seeds = f"mean of {num_seeds} seeds ± its 95 % interval over seeds" if num_seeds > 1 else "one seed"
    steps = sorted({step for row in tables for step in row["steps"]})
    notes = (
        f"Held-out frames; {seeds}; {' to '.join(map(str, dict.fromkeys([steps[0], steps[-1]])))} steps. "
        "Lower is better for FLIP, LPIPS and flicker."
    )
    if num_seeds > 1:
        notes += " The interval is of training's own chance; other recordings may differ by more."
    return "\n".join([*lines, "", notes, ""])


def in_words(figure: Mapping[str, Any], digits: int, sign: str = "") -> str:
    """ "21.97 ± 0.12"; a dash for what was not measured."""
    if figure["mean"] is None:
        return "–"
    mean = f"{figure['mean']:{sign}.{digits}f}"
    return mean if figure["half_width"] is None else f"{mean} ± {figure['half_width']:.{digits}f}"


def draw(name: str, bench: Bench, rows: Sequence[Row], seed: int, subject: str) -> None:
    """The true frames, and under them every row's."""
    paths = {TRUTH: bench.folder / f"{TRUTH}-{subject}.png"}
    paths |= {row.name: bench.trial_dir(row, seed) / f"{subject}.png" for row in rows}
    strips = {words: read_strip(path) for words, path in paths.items()}
    found = [captioned(strip, words) for words, strip in strips.items() if strip is not None]
    if found:
        write_atomically(bench.folder / f"{name}-{subject}.jpg", encode_jpeg(np.concatenate(found), 90))
