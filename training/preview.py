"""preview.jpg: the true picture beside the avatar, of a few training frames, while training goes on.

H x W pixels of the person crop.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from capture.files import encode_jpeg, write_atomically
from rendering.painter import Painter
from training.cast import Actor
from training.dataset import Augment
from training.pictures import at_height, captioned, side_by_side, to_bytes
from training.state import TrainState

FILE_NAME = "preview.jpg"
PAIRS_PER_ROW, MAX_PAIRS = 4, 8
HEIGHT_PX = 320


class Preview:
    """Draws now and then; takes no random number that training would miss, so that it changes nothing."""

    def __init__(self, folder: Path, cast: list[Actor], every_s: float) -> None:
        self.path, self.cast, self.every_s = folder / FILE_NAME, cast, every_s
        self.due_s = time.monotonic() + every_s
        self.shown = shown_frames(cast)

    def draw_if_due(self, state: TrainState) -> None:
        if time.monotonic() >= self.due_s:
            self.draw(state)

    def draw(self, state: TrainState) -> None:
        """Write the picture."""
        started_s = time.monotonic()
        painter = Painter(state.average_renderer, state.device, use_graph=False)
        pairs = [self._pair(painter, state, subject, position) for subject, position in self.shown]
        pairs += [np.zeros_like(pairs[0])] * (-len(pairs) % min(PAIRS_PER_ROW, len(pairs)))
        rows = [side_by_side(pairs[i : i + PAIRS_PER_ROW]) for i in range(0, len(pairs), PAIRS_PER_ROW)]
        picture = captioned(np.concatenate(rows), f"step {state.step}: truth | avatar")
        write_atomically(self.path, encode_jpeg(picture, 88))
        ended_s = time.monotonic()
        # A large avatar on a slow machine must not spend more than a twentieth of the run on pictures.
        self.due_s = ended_s + max(self.every_s, 20 * (ended_s - started_s))

    def _pair(self, painter: Painter, state: TrainState, subject: int, position: int) -> np.ndarray:
        """(H', W', 3) uint8 of one frame: truth | avatar over the same background."""
        frames = self.cast[subject].frames
        unused = torch.Generator(), torch.Generator(state.device)
        batch = frames.batch(torch.tensor([position]), Augment(), *unused)
        image, mask, _ = painter.paint(list(state.average_textures)[subject], batch.surface)
        visible = mask * batch.valid  # beyond the picture's edge nobody knows
        blended = visible * image + (1 - visible) * batch.background
        caption = f"{frames.name} {frames.frame_indices[position]}"
        pictures = [((p[0].float() + 1) / 2).permute(1, 2, 0).cpu().numpy() for p in (batch.target, blended)]
        return side_by_side([at_height(to_bytes(p), HEIGHT_PX) for p in pictures], (caption, "avatar"))


def shown_frames(cast: list[Actor]) -> list[tuple[int, int]]:
    """(subject, position) of at most eight training frames, everybody's evenly spread over the recording."""
    each = max(1, PAIRS_PER_ROW // len(cast))
    shown = []
    for subject, actor in enumerate(cast[:MAX_PAIRS]):
        positions = np.sort(actor.train_positions)
        middles = (np.arange(each) + 0.5) / each * len(positions)
        shown += [(subject, int(positions[int(middle)])) for middle in middles]
    return shown
