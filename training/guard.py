"""What is not a number must not be learned: it is caught before it changes anything, kept for a look, and tried again.

A step changes weights only after all its losses, gradients and running statistics were found finite.  So the state
before a step that fails is the last good one, and undoing it means to give back the running statistics.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from capture.errors import UserError
from training.checkpoint import save_checkpoint
from training.ranks import is_lead
from training.step import Batch, NotFinite

log = logging.getLogger(__name__)

FAILURES_FILE = "failures.jsonl"
INPUTS_FILE = "checkpoints/failed_step.safetensors"  # of the last failure only: a batch is megabytes


class Guard:
    """Counts the failures of a step, and keeps what it was given."""

    def __init__(self, out_dir: Path, retries: int) -> None:
        self.out_dir, self.retries = out_dir, retries

    def failed(
        self, step: int, attempt: int, turn: Mapping[str, Any], pieces: Sequence[Batch], error: NotFinite
    ) -> None:
        """Note a failed attempt (from 1 on).  Raises UserError when it was the last that is allowed.

        turn: whose frames these are, and what they were to train.
        """
        path = self.out_dir / FAILURES_FILE
        if is_lead():
            line = {"step": step, "attempt": attempt, **turn, "not_finite": error.names, "losses": error.losses}
            with open(path, "a") as file:
                file.write(json.dumps(line) + "\n")
            save_checkpoint(self.out_dir / INPUTS_FILE, {"step": step, **turn, "pieces": list(map(_tensors, pieces))})
        what = ", ".join(error.names)
        if attempt > self.retries:
            raise UserError(
                f"training: not a number in {what}, {attempt} times in a row at step {step} (last: {turn['subject']}, "
                f"frames {', '.join(map(str, turn['frames']))}); the inputs are in {path.parent}; try half of "
                "train.renderer_lr and train.texture_lr"
            )
        log.warning("step %d: not a number in %s; undone and tried again with other frames (%s)", step, what, path)


def _tensors(batch: Batch) -> dict[str, Tensor]:
    names = ("target", "background", "mask", "valid", "positions")
    surface = {name: getattr(batch.surface, name) for name in ("pixel", "uv", "normal")}
    return {name: getattr(batch, name) for name in names} | surface
