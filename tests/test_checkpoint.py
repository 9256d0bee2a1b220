"""Checkpoints: what comes back is what went in, and a broken file is no checkpoint."""

from __future__ import annotations

import pytest
import torch

from training.checkpoint import load_checkpoint, save_checkpoint


def some_state() -> dict:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.99))
    model(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": 7,
        "rng": torch.get_rng_state(),
        "nothing": {},
        "list": [torch.ones(2), {"deep": torch.zeros(1)}],
    }


def assert_equal(first, second) -> None:
    assert type(first) is type(second) or isinstance(first, (list, tuple))
    if isinstance(first, dict):
        assert list(map(str, sorted(first, key=str))) == list(map(str, sorted(second, key=str)))
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_equal(a, b)
    elif isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second)
    else:
        assert first == second


def test_loading_undoes_saving(tmp_path):
    state = some_state()
    save_checkpoint(tmp_path / "a.safetensors", state)
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded is not None
    loaded["optimizer"]["param_groups"] = [
        group | {"betas": tuple(group["betas"])} for group in loaded["optimizer"]["param_groups"]
    ]
    assert_equal({k: dict(v) if isinstance(v, dict) else v for k, v in state.items()}, loaded)


def test_equal_states_give_equal_bytes(tmp_path):
    for name in "ab":
        save_checkpoint(tmp_path / name, some_state())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_checkpoint_is_no_error(tmp_path):
    assert load_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("keep", [0, 7, 60, 0.5, 0.99])
def test_a_cut_checkpoint_is_no_checkpoint(tmp_path, keep):
    path = tmp_path / "a"
    save_checkpoint(path, some_state())
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    assert load_checkpoint(path) is None


def test_a_refused_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "a"
    save_checkpoint(path, {"step": 1, "x": torch.ones(3)})

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="space"):
        save_checkpoint(path, {"step": 2, "x": torch.zeros(3)})
    loaded = load_checkpoint(path)
    assert loaded is not None and loaded["step"] == 1
