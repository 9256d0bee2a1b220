"""How wide somebody new is outlined by networks that do not change.

Networks outline people as wide as those whom they have learned from stood out from their bodies; somebody else's
matte lies closer or wider.  His texture cannot say so, as beside the body there is none of it; one number can.
K frames, H x W pixels of the person crop.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rendering.networks import NeuralTexture, Renderer
from training.dataset import Augment, SubjectFrames

NUM_FRAMES = 16  # evenly spread over those that teach
MOST = 4.0  # either way: a mask of one half becomes one of .98
HALVINGS = 20


@torch.no_grad()
def fitted_outline(
    renderer: Renderer, texture: NeuralTexture, frames: SubjectFrames, positions: np.ndarray, precision: torch.autocast
) -> Tensor:
    """(1,) what to add to the mask's logit so that the masks of frames at ``positions`` have the area of the mattes,
    where the camera saw: the minimum of the mask loss.  The renderer is used as it stands."""
    spread = np.linspace(0, len(positions) - 1, min(NUM_FRAMES, len(positions))).round().astype(int)
    logits, mattes, device = [], [], frames.planes.device
    for position in np.sort(positions)[spread]:
        unused = torch.Generator(), torch.Generator(device)
        batch = frames.batch(torch.tensor([position]), Augment(), *unused)
        with precision:
            rendering = renderer.picture(texture, batch.surface)
        logits.append(rendering.mask_logit.float()[batch.valid > 0].cpu())  # not every device has doubles
        mattes.append(batch.mask[batch.valid > 0].cpu())
    logit, area = torch.cat(logits), torch.cat(mattes).double().sum()
    if not area > 0:  # nobody is seen in them: nothing is known of his outline
        return torch.zeros(1, device=device)
    low, high = torch.tensor([-MOST]), torch.tensor([MOST])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        is_wide = torch.sigmoid(logit + middle).double().sum() > area
        low, high = torch.where(is_wide, low, middle), torch.where(is_wide, middle, high)
    return ((low + high) / 2).to(device)
