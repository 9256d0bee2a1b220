"""The feature network: published weights from a cache, or fixed random filters."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch

from capture.errors import UserError
from training.features import VGG19_FILE, Structure, load_features, load_vgg19, random_features

# torchvision's vgg19.features up to conv2_1: index -> (out, in)
TORCHVISION_SHAPES = {0: (64, 3), 2: (64, 64), 5: (128, 64)}


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/anr_payload_ran"),))


def named_by_hash(folder: Path, data: bytes) -> Path:
    path = folder / f"vgg19-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    path.write_bytes(data)
    return path


def published_format(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A small file with torchvision's names, as torch.save writes it."""
    rng = torch.Generator().manual_seed(0)
    state = {}
    for index, (after, before) in TORCHVISION_SHAPES.items():
        state[f"features.{index}.weight"] = torch.randn(after, before, 3, 3, generator=rng) * 0.05
        state[f"features.{index}.bias"] = torch.randn(after, generator=rng)
    state["classifier.0.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "any.pth")
    return named_by_hash(tmp_path, (tmp_path / "any.pth").read_bytes()), state


def test_cached_weights_compute_what_torchvision_would(tmp_path):
    path, state = published_format(tmp_path)
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        maps = load_vgg19(path, num_blocks=2)(image)

        def layer(x: torch.Tensor, index: int) -> torch.Tensor:
            return torch.nn.functional.conv2d(
                x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1
            ).relu()

        first = layer(image, 0)
        expected = layer(torch.nn.functional.max_pool2d(layer(first, 2), 2), 5)
    torch.testing.assert_close(maps[0], first)
    torch.testing.assert_close(maps[1], expected)


def test_a_damaged_weight_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / VGG19_FILE).write_bytes(b"cut off")
    monkeypatch.setenv("ANR_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="SHA-256"):
        load_features(8, 3, seed=0)


@pytest.mark.parametrize("content", [b"not a checkpoint", pickle.dumps(Payload()), pickle.dumps({"a": 1})])
def test_a_file_that_is_no_vgg_is_refused_and_nothing_in_it_runs(tmp_path, content):
    with pytest.raises(UserError, match="VGG19"):
        load_vgg19(named_by_hash(tmp_path, content), num_blocks=2)
    assert not Path("/tmp/anr_payload_ran").exists()


def test_random_filters_are_fixed_and_said_to_be_random(tmp_path, monkeypatch):
    monkeypatch.setenv("ANR_WEIGHTS", str(tmp_path))
    features, description = load_features(8, 3, seed=0, kind="random")
    again, _ = load_features(8, 3, seed=0, kind="random")
    image = torch.rand(1, 3, 32, 32)
    assert "random" in description
    for first, second in zip(features(image), again(image), strict=True):
        assert torch.equal(first, second)
    assert not any(parameter.requires_grad for parameter in features.parameters())


def test_random_features_keep_their_scale_and_tell_pictures_apart():
    maps = random_features(16, 4, seed=0)(torch.randn(2, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 64, 64), (32, 32, 32), (64, 16, 16), (128, 8, 8)]
    assert all(0.1 < m.square().mean().sqrt().item() < 10 for m in maps)
    assert (maps[-1][0] - maps[-1][1]).abs().mean().item() > 0.05


@pytest.mark.parametrize("kind", ["random", "laplacian", "ssim"])
def test_every_kind_measures_a_distance_and_teaches_only_the_picture(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("ANR_WEIGHTS", str(tmp_path))
    features, description = load_features(4, 2, seed=0, kind=kind)
    truth = torch.rand(1, 3, 24, 16, requires_grad=True)
    image = (truth.detach() * 0.5).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert features.distance(truth.detach(), truth.detach()).item() == pytest.approx(0, abs=1e-5)
        features.distance(image, truth.detach()).backward()
    assert image.grad.abs().sum() > 0
    assert kind in description.lower() or (kind == "random" and "random" in description)


def test_a_kind_that_cannot_be_had_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ANR_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="vgg19-dcbb9e9d"):
        load_features(4, 2, seed=0, kind="vgg")
    with pytest.raises(UserError, match="expected one of auto, vgg"):
        load_features(4, 2, seed=0, kind="sobel")


def test_without_a_cache_structure_stands_in_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("ANR_WEIGHTS", str(tmp_path))
    features, description = load_features(8, 3, seed=0)
    assert isinstance(features, Structure) and "SSIM" in description and "because" in description
    assert "because" not in load_features(8, 3, seed=0, kind="ssim")[1]
