"""Image metrics, one definition each: PSNR, masked PSNR, SSIM, FLIP, LPIPS, mask IoU, sharpness.

Enters: pictures (H, W, 3) float32 in [0, 1] (data range 1), alphas (H, W) in [0, 1].  Leaves: floats.

SSIM follows Wang et al. 2004 as torchmetrics computes it (Gaussian window 11, sigma 1.5, K 0.01 and 0.03, borders
mirrored, mean over pixels and channels), here by separable filters: many times faster.
FLIP is NVIDIA's LDR FLIP (Andersson et al. 2020) at PIXELS_PER_DEGREE.
"""

from __future__ import annotations

import cv2
import numpy as np

DATA_RANGE = 1.0
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K = (0.01, 0.03)
PIXELS_PER_DEGREE = 0.7 * 3840 / 0.7 * np.pi / 180  # FLIP's default: a 0.7 m wide 4K display seen from 0.7 m, 67.02
PSNR_CEILING_DB = 100.0  # equal pictures: infinity is not JSON
MASK_THRESHOLD = 0.5
LUMINANCE = (0.299, 0.587, 0.114)  # Rec. 601
REDUCED_HEIGHT_PX = 256  # of the crop by which avatars of all presets are measured: the demo preset's own


def psnr_db(image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """10 log10(1 / MSE); with ``mask`` (H, W) bool the mean runs over its pixels only.  NaN for an empty mask."""
    squared = (image.astype(np.float64) - truth) ** 2
    if mask is not None:
        if not mask.any():
            return float("nan")
        squared = squared[mask]
    mse = squared.mean()
    return PSNR_CEILING_DB if mse <= 10 ** (-PSNR_CEILING_DB / 10) else float(-10 * np.log10(mse / DATA_RANGE**2))


def ssim(image: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity, Gaussian window 11, sigma 1.5, data range 1.  NaN below 11 pixels."""
    if min(image.shape[:2]) < SSIM_WINDOW:
        return float("nan")
    kernel = cv2.getGaussianKernel(SSIM_WINDOW, SSIM_SIGMA)

    def mean(picture: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(picture, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)

    a, b = image.astype(np.float64), truth.astype(np.float64)
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = np.maximum(mean(a * a) - mean_a**2, 0), np.maximum(mean(b * b) - mean_b**2, 0)
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = ((k * DATA_RANGE) ** 2 for k in SSIM_K)
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def flip_map(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W) float32 FLIP error in [0, 1]; its mean is the metric."""
    import flip_evaluator

    errors, _, _ = flip_evaluator.evaluate(
        np.ascontiguousarray(truth, np.float32),
        np.ascontiguousarray(image, np.float32),
        "LDR",
        applyMagma=False,
        computeMeanError=False,
        parameters={"ppd": PIXELS_PER_DEGREE},
    )
    return errors if errors.ndim == 2 else errors[..., 0]


def mask_iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two alphas (H, W) cut at 0.5; 1 when both are empty."""
    a, b = mask > MASK_THRESHOLD, truth > MASK_THRESHOLD
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def sharpness(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Mean slope of the luminance inside ``mask`` (H, W) bool, a pixel away from its edge, over that of the truth.

    1: as much detail as the truth, though it may be other detail; blur has less.  NaN where there is no inside.
    """
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0)[:-1, :-1] > 0
    slopes = [_slope(picture)[inside].sum(dtype=np.float64) for picture in (image, truth)]
    return float(slopes[0] / slopes[1]) if slopes[1] > 0 else float("nan")


def _slope(picture: np.ndarray) -> np.ndarray:
    """(H - 1, W - 1) of luminance per pixel."""
    luminance = picture @ np.array(LUMINANCE, np.float32)
    return np.hypot(np.diff(luminance, axis=0)[:, :-1], np.diff(luminance, axis=1)[:-1])


def composite(color: np.ndarray, alpha: np.ndarray, background: np.ndarray | float) -> np.ndarray:
    """alpha C + (1 - alpha) B, (H, W, 3) float32."""
    return (color * alpha[..., None] + np.asarray(background, np.float32) * (1 - alpha[..., None])).astype(np.float32)


def measure(
    crop: np.ndarray,
    true_crop: np.ndarray,
    full: np.ndarray,
    true_full: np.ndarray,
    alpha: np.ndarray,
    true_alpha: np.ndarray,
    with_crop_flip: bool,
    with_full_flip: bool,
) -> dict[str, float]:
    """Every figure of one picture in all protocols, but LPIPS; NaN where FLIP was not asked for.

    A finer picture of the same quality has a lower PSNR, as the same error in place moves finer detail; so the crop is
    measured at REDUCED_HEIGHT_PX, too, by which avatars of different presets compare.  crop and full are composites
    (H, W, 3) and (H0, W0, 3), alpha (H, W) belongs to the crop.  Light to import, for it runs in processes of its own.
    """
    figures = {}
    for name, image, truth, with_flip in (
        ("crop", crop, true_crop, with_crop_flip),
        ("full", full, true_full, with_full_flip),
    ):
        figures[f"{name}_psnr_db"] = psnr_db(image, truth)
        figures[f"{name}_ssim"] = ssim(image, truth)
        figures[f"{name}_flip"] = float(flip_map(image, truth).mean()) if with_flip else float("nan")
    figures["masked_psnr_db"] = psnr_db(crop, true_crop, true_alpha > MASK_THRESHOLD)
    figures["mask_iou"] = mask_iou(alpha, true_alpha)
    figures["sharpness"] = sharpness(crop, true_crop, true_alpha > MASK_THRESHOLD)
    if crop.shape[0] <= REDUCED_HEIGHT_PX:
        same = {"masked_psnr_db": "masked_psnr_db", "ssim": "crop_ssim", "flip": "crop_flip", "mask_iou": "mask_iou"}
        return figures | {f"reduced_{name}": figures[key] for name, key in same.items()}
    crop, true_crop, alpha, true_alpha = (_reduced(plane) for plane in (crop, true_crop, alpha, true_alpha))
    flip = float(flip_map(crop, true_crop).mean()) if with_crop_flip else float("nan")
    return figures | {
        "reduced_masked_psnr_db": psnr_db(crop, true_crop, true_alpha > MASK_THRESHOLD),
        "reduced_ssim": ssim(crop, true_crop),
        "reduced_flip": flip,
        "reduced_mask_iou": mask_iou(alpha, true_alpha),
    }


def _reduced(plane: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) at REDUCED_HEIGHT_PX, each pixel the mean over its footprint."""
    wh = round(plane.shape[1] * REDUCED_HEIGHT_PX / plane.shape[0]), REDUCED_HEIGHT_PX
    return cv2.resize(np.ascontiguousarray(plane, np.float32), wh, interpolation=cv2.INTER_AREA)
