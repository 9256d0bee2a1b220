"""log.jsonl: one line per tick of training, for charts and for people.

B pictures, H x W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from capture.files import write_atomically
from training.ranks import mean_over_ranks
from training.step import Batch, Outcome


def masked_psnr_db(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """PSNR over the pixels of the person, colours in [-1, 1]."""
    weight = (mask > 0.5).float()
    error = ((image.clamp(-1, 1) - target).square() * weight).sum() / (3 * weight.sum()).clamp_min(1)
    return 10 * torch.log10(4 / error.clamp_min(1e-10))


def tick(step: int, outcomes: list[Outcome], pieces: list[Batch]) -> dict[str, float]:
    """The figures of one step, over the whole batch; every rank takes part."""

    def mean(values: Iterable[Tensor]) -> Tensor:
        return torch.stack(list(values)).mean()

    figures = {"loss": mean(outcome.total for outcome in outcomes)}
    figures |= {name: mean(outcome.losses[name] for outcome in outcomes) for name in outcomes[0].losses}
    pairs = zip(outcomes, pieces, strict=True)
    figures["train_psnr_db"] = mean(masked_psnr_db(o.blended, o.truth, piece.mask) for o, piece in pairs)
    mean_over_ranks(list(figures.values()))
    return {"step": step} | {name: value.item() for name, value in figures.items()}


def append(path: Path, figures: Mapping[str, float], steps_per_s: float) -> None:
    """Write one line."""
    with open(path, "a") as file:
        file.write(json.dumps({**figures, "steps_per_s": round(steps_per_s, 3)}) + "\n")


def truncate_log(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint that training continues from."""
    lines = path.read_text().splitlines() if path.is_file() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] < step]
    write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
