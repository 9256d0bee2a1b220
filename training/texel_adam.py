"""Adam for textures: what a texel is moved by depends on how much was seen of it.

Adam makes a whole step of any gradient, however small.  Networks live with that, but most texels of a texture are seen
by few pixels of few frames, and of the trace of a gradient that outlines leave there Adam makes confetti, which shows
as soon as somebody turns or moves as he did not.  So the second moment of a texel is averaged with the mean one of all
that were seen: often seen texels go on as before, the others keep what they began with.  Otherwise it is Kingma and Ba
(2015), with Loshchilov and Hutter's decay of weights (2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

NOTHING = 1e-16  # added to squares


class TexelAdam(Optimizer):
    """For parameters (..., C), each channel by itself; decoupled weight decay."""

    def __init__(self, params: Iterable[Any], betas: tuple[float, float]) -> None:
        super().__init__(params, {"lr": 1e-3, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)  # on the CPU: nothing waits for a device
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        count, (first, second) = float(state["step"]), group["betas"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        channels = square.flatten(0, -2)
        seen = (channels > 0).any(dim=1).sum().clamp(min=1)
        usual = square + channels.sum(dim=0) / seen
        usual = usual.div_(2 * (1 - second**count)).add_(NOTHING).sqrt_()
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(mean, usual, value=-group["lr"] / (1 - first**count))
