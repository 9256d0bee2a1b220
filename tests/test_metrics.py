"""The metrics agree with the published definitions and with each other."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
import torch

from capture.errors import UserError
from training import metrics
from training.lpips import LAYERS, load_lpips, read_lpips


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.clip(rng.random((40, 56, 3)).cumsum(0) / 20, 0, 1).astype(np.float32)
    return np.clip(truth + rng.normal(0, 0.05, truth.shape), 0, 1).astype(np.float32), truth


def test_psnr_of_a_known_error():
    truth = np.full((8, 8, 3), 0.5, np.float32)
    assert metrics.psnr_db(truth + 0.1, truth) == pytest.approx(20, abs=1e-3)
    assert metrics.psnr_db(truth, truth) == metrics.PSNR_CEILING_DB


def test_masked_psnr_sees_only_the_mask():
    truth = np.zeros((8, 8, 3), np.float32)
    image = truth.copy()
    image[:, :4] = 1.0
    mask = np.zeros((8, 8), bool)
    mask[:, 6:] = True
    assert metrics.psnr_db(image, truth, mask) == metrics.PSNR_CEILING_DB
    assert metrics.psnr_db(image, truth, ~mask) < 3
    assert np.isnan(metrics.psnr_db(image, truth, np.zeros((8, 8), bool)))


def test_large_crops_are_measured_by_the_ruler_of_small_ones(pictures):
    image, truth = (np.tile(picture, (8, 8, 1)) for picture in pictures)  # 320 high
    alpha = np.zeros(image.shape[:2], np.float32)
    alpha[40:280, 50:400] = 1
    figures = metrics.measure(image, truth, image, truth, alpha, np.roll(alpha, 1, axis=1), True, False)
    assert figures["reduced_mask_iou"] == pytest.approx(figures["mask_iou"], abs=0.01)
    assert figures["reduced_masked_psnr_db"] > figures["masked_psnr_db"] + 0.5  # noise averages out
    small = [cv2.resize(p, (358, 256), interpolation=cv2.INTER_AREA) for p in (image, truth, alpha)]
    alone = metrics.measure(small[0], small[1], image, truth, small[2], small[2], True, False)
    assert alone["reduced_ssim"] == alone["crop_ssim"] == figures["reduced_ssim"]
    assert alone["reduced_flip"] == alone["crop_flip"] == figures["reduced_flip"]
    assert alone["reduced_masked_psnr_db"] == alone["masked_psnr_db"]


def test_ssim_agrees_with_torchmetrics(pictures):
    from torchmetrics.functional.image import structural_similarity_index_measure

    image, truth = (torch.from_numpy(p.transpose(2, 0, 1))[None] for p in pictures)
    expected = structural_similarity_index_measure(image, truth, gaussian_kernel=True, sigma=1.5, data_range=1.0)
    assert metrics.ssim(*pictures) == pytest.approx(float(expected), abs=2e-5)
    assert metrics.ssim(pictures[1], pictures[1]) == pytest.approx(1)


def test_flip_is_zero_for_equal_pictures_and_grows_with_the_error(pictures):
    image, truth = pictures
    assert metrics.flip_map(truth, truth).mean() == pytest.approx(0, abs=1e-6)
    small, large = metrics.flip_map(image, truth), metrics.flip_map(1 - truth, truth)
    assert small.shape == truth.shape[:2] and 0 < small.mean() < large.mean() <= 1


def test_mask_iou():
    a, b = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
    a[:2], b[1:3] = 0.9, 0.9
    b[3] = 0.4  # below the threshold: does not count
    assert metrics.mask_iou(a, b) == pytest.approx(4 / 12)


def test_sharpness_is_the_share_of_the_detail_inside():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 1, (40, 30, 3)).astype(np.float32)
    mask = np.zeros((40, 30), bool)
    mask[10:30, 5:25] = True
    assert metrics.sharpness(truth, truth, mask) == pytest.approx(1)
    assert metrics.sharpness(0.5 * truth + 0.2, truth, mask) == pytest.approx(0.5, rel=1e-4)
    blurred = cv2.GaussianBlur(truth, (0, 0), 1.0)
    assert 0.1 < metrics.sharpness(blurred, truth, mask) < 0.5
    outside = np.where(mask[..., None], truth, 0.0).astype(np.float32)  # its outline is not detail
    assert metrics.sharpness(outside, truth, mask) == pytest.approx(1)
    assert np.isnan(metrics.sharpness(truth, truth, np.zeros_like(mask)))
    assert np.isnan(metrics.sharpness(truth, np.full_like(truth, 0.5), mask))


def test_composite_is_exact_at_both_ends():
    color, alpha = np.full((2, 2, 3), 0.8, np.float32), np.array([[0, 1], [0.5, 1]], np.float32)
    assert np.allclose(metrics.composite(color, alpha, 0.5)[..., 0], [[0.5, 0.8], [0.65, 0.8]])


def test_lpips_is_missing_with_a_reason_when_nothing_is_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("ANR_WEIGHTS", str(tmp_path))
    metric, reason = load_lpips()
    assert metric is None and reason is not None and "alexnet" in reason


def test_lpips_reads_a_file_of_torchvisions_format_and_refuses_a_damaged_one(tmp_path, pictures):
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, before, after, kernel, *_ in LAYERS:
        state[f"features.{index}.weight"] = torch.randn(after, before, kernel, kernel, generator=generator) * 0.05
        state[f"features.{index}.bias"] = torch.zeros(after)
    torch.save(state, tmp_path / "weights.pth")
    data = (tmp_path / "weights.pth").read_bytes()
    path = tmp_path / f"alexnet-owt-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    path.write_bytes(data)
    lpips = read_lpips(path)
    image, truth = (np.kron(p, np.ones((2, 2, 1), np.float32)) for p in pictures)
    assert lpips(truth, truth) == pytest.approx(0, abs=1e-7)
    assert 0 < lpips(image, truth) < lpips(1 - truth, truth)
    path.write_bytes(data[:-100])
    with pytest.raises(UserError, match="SHA-256"):
        read_lpips(path)


def test_lpips_refuses_linear_layers_that_are_not_the_published_ones(tmp_path, monkeypatch):
    data = b"weights"
    path = tmp_path / f"alexnet-owt-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    path.write_bytes(data)
    monkeypatch.setattr("training.lpips.HEADS_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"not LPIPS v0\.1"):
        read_lpips(path)
