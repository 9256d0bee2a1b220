"""When to stop: training frames that were held back say whether training still helps frames it does not see.

Never the held-out frames of the report: who stops by them has seen them.
"""

from __future__ import annotations

import torch

from training.cast import Actor
from training.dataset import Augment
from training.ranks import as_lead_says
from training.state import TrainState
from training.ticks import masked_psnr_db

MAX_FRAMES = 12  # of one subject, evenly spread
LEAST_GAIN_DB = 0.02  # less is the noise of one measurement


@torch.no_grad()
def heldback_psnr_db(state: TrainState, cast: list[Actor]) -> float:
    """Masked PSNR of the held-back frames painted by the averaged weights, mean over frames, then over subjects."""
    means = []
    for actor, texture in zip(cast, state.average_textures, strict=True):
        positions = torch.from_numpy(actor.heldback_positions)
        chosen = positions[torch.linspace(0, len(positions) - 1, min(MAX_FRAMES, len(positions))).round().long()]
        figures = []
        for position in chosen:
            unused = torch.Generator(), torch.Generator(state.device)
            batch = actor.frames.batch(position[None], Augment(), *unused)
            with state.precision():
                rendering = state.average_renderer.picture(texture, batch.surface)
            figures.append(masked_psnr_db(rendering.image.float(), batch.target, batch.mask))
        means.append(torch.stack(figures).mean())
    return as_lead_says(float(torch.stack(means).mean()))


def judge(state: TrainState, psnr_db: float, patience: int) -> None:
    """Remember the best figure; end training when ``patience`` measurements in a row were no better."""
    progress = state.progress
    if progress.best_db is None or psnr_db > progress.best_db + LEAST_GAIN_DB:
        progress.best_db, progress.best_step, progress.worse = psnr_db, state.step, 0
    else:
        progress.worse += 1
        progress.is_over = progress.worse >= patience
