"""Training state on disk: one safetensors file, written atomically.

Tensors go in as tensors; whole numbers and the like go as JSON into the header.  No pickle: opening a checkpoint runs
no code, and equal states give equal bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from capture.files import write_atomically
from training.ranks import is_lead
from training.state import TrainState

SEPARATOR = "/"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a nested dict of tensors and JSON values (state_dicts included) so that it is never seen half-written.

    Raises OSError when the disk refuses; the checkpoint before this one is then still there.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for name, value in _flatten(state):
        if isinstance(value, Tensor):
            tensors[name] = value.detach().cpu().contiguous()
        else:
            values[name] = value
    write_atomically(path, save(tensors, metadata={"values": json.dumps(values, sort_keys=True)}))


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The nested dict that was saved, on the CPU; None without a readable checkpoint (training then begins anew)."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            flat: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            flat.update(json.loads(file.metadata()["values"]))
    except (SafetensorError, KeyError, TypeError, ValueError):
        return None
    return _nest(flat)


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """A nested dict or list to (path, leaf); a list becomes a dict of its positions, an empty one stays a leaf."""
    if isinstance(value, (list, tuple)) and any(isinstance(item, (Tensor, Mapping)) for item in value):
        value = {f"[{index}]": item for index, item in enumerate(value)}
    if isinstance(value, Mapping) and value:
        # Optimizer state is keyed by whole numbers; the mark keeps them apart from the text "0".
        pairs = [(f"#{key}" if isinstance(key, int) else str(key), item) for key, item in value.items()]
        return [leaf for key, item in pairs for leaf in _flatten(item, f"{prefix}{SEPARATOR}{key}" if prefix else key)]
    return [(prefix, value)]


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[Any, Any] = {}
    for path, value in flat.items():
        keys = [int(key[1:]) if key.startswith("#") else key for key in path.split(SEPARATOR)]
        folder = nested
        for key in keys[:-1]:
            folder = folder.setdefault(key, {})
        folder[keys[-1]] = value
    return _lists(nested)


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    items = {key: _lists(item) for key, item in value.items()}
    if items and all(isinstance(key, str) and key.startswith("[") for key in items):
        return [items[f"[{index}]"] for index in range(len(items))]
    return items


class Saver:
    """Saves now and then; when it does has no influence on what is learned."""

    def __init__(self, path: Path, every_s: float) -> None:
        self.path, self.every_s = path, every_s
        self.due_s = time.monotonic() + every_s

    def save_if_due(self, state: TrainState) -> None:
        if time.monotonic() >= self.due_s:
            self.save(state)

    def save(self, state: TrainState) -> None:
        if not is_lead():
            return
        started_s = time.monotonic()
        save_checkpoint(self.path, state.state_dict())
        ended_s = time.monotonic()
        # Gigabytes of state must not take more than a twentieth of the run.
        self.due_s = ended_s + max(self.every_s, 20 * (ended_s - started_s))
