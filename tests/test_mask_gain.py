"""The benchmark that trains an avatar on two kinds of masks: everything but the masks is the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from mask_gain import compared, write_masks
from small_workspace import make_workspace

from capture.matting import Masks
from training.train import TrainConfig

TINY = TrainConfig(widths="8,16", steps=12, batch_size=2, texture_px=64, feature=False, log_every=5)


def test_only_the_masks_differ_and_worse_masks_make_a_worse_avatar(tmp_path: Path) -> None:
    subject = make_workspace(tmp_path / "made", steps=1)
    true = Masks.load(subject / "02_masks")
    bytes_of = [np.rint(255 * true[i]).astype(np.uint8) for i in range(len(true))]
    write_masks(tmp_path / "same", bytes_of)
    write_masks(tmp_path / "half", [np.where(np.arange(m.shape[1]) < m.shape[1] // 2, m, 0) for m in bytes_of])
    again = Masks.load(tmp_path / "same")
    assert np.array_equal(again.is_found, true.is_found) and np.abs(again[3] - true[3]).max() < 1 / 200
    methods = {"true": subject / "02_masks", "same": tmp_path / "same", "half": tmp_path / "half"}
    figures = compared(tmp_path / "home", subject, methods, {"truth": subject / "02_masks"}, [TINY])
    assert set(figures) == {(name, "truth") for name in methods}
    np.testing.assert_array_equal(figures["true", "truth"], figures["same", "truth"])
    assert figures["half", "truth"][0, 0] < figures["true", "truth"][0, 0] - 0.1  # mask IoU
