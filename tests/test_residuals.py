"""The chart and the worst frames show what went wrong, and say so."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from miniature import film
from small_workspace import LOST, fit_of

from fitting.fit import BodyFit
from fitting.residuals import caption, close_up, in_words, ranges, residual_chart, worst_frames


@pytest.fixture(scope="module")
def fit() -> BodyFit:
    """The doll, 24 frames: one lost, frames 5 to 7 uncertain, frame 12 merely worse than the others."""
    whole = fit_of(film(24))
    status, reason = list(whole.status), list(whole.reason)
    for i in (5, 6, 7):
        status[i], reason[i] = "uncertain", "facing changed for 3 frames only"
    iou = whole.silhouette_iou.copy()
    iou[12] = 0.75
    return replace(whole, status=tuple(status), reason=tuple(reason), silhouette_iou=iou)


@pytest.mark.parametrize(
    ("frames", "words"),
    [([], ""), ([4], "4"), ([4, 5, 6], "4-6"), ([1, 4, 5, 9], "1, 4-5 and 9"),
     ([0, 2, 4, 6, 7], "0, 6-7 and 2 more stretches")],
)  # fmt: skip
def test_frames_in_words(frames, words):
    assert in_words(frames, most=3 if len(frames) < 5 else 2) == words


def test_ranges_hold_every_frame_once():
    frames = [0, 1, 5, 7, 8, 9]
    assert [i for a, b in ranges(frames) for i in range(a, b + 1)] == frames


def test_the_worst_are_the_lost_the_doubtful_and_the_bad_in_turn(fit):
    worst = worst_frames(fit, 3)
    assert LOST in worst and 12 in worst and len({5, 6, 7} & set(worst)) == 1
    assert len(worst_frames(fit, 6)) == len(set(worst_frames(fit, 6))) == 6


def test_a_caption_says_number_status_and_reason(fit):
    assert caption(fit, 5) == "frame 5, uncertain: facing changed for 3 frames only"
    assert caption(fit, 0) == "frame 0, tracked: landmarks 3 px, overlap 0.90"


def test_the_chart_shades_what_is_not_tracked_and_omits_what_was_not_measured(fit):
    text = residual_chart(fit, heldout_from=18)
    root = ET.fromstring(text)
    shades = [node.get("class") for node in root.iter() if node.tag.endswith("rect")]
    # two panels, as the doll has no depth, each with one stretch of either kind; one of either in the key
    assert shades.count("uncertain") == shades.count("lost") == 3
    assert "depth" not in text and "nan" not in text and "frame 12, tracked" in text


def test_a_long_clip_does_not_make_a_heavy_chart(fit):
    many = 5000
    tall = replace(
        fit, pose=np.zeros((many, 6, 3)), status=("tracked",) * many, reason=("",) * many,
        keypoint_px=np.ones(many), silhouette_iou=np.ones(many), residual_mm=np.ones(many),
        limb_doubted=np.zeros((many, 4), bool),
    )  # fmt: skip
    assert len(residual_chart(tall)) < 60_000


@pytest.mark.parametrize("index", [5, LOST])
def test_a_close_up_is_upright_with_or_without_a_body(fit, index):
    color = film(24).color(index)
    for landmarks_px in (np.full((33, 2), np.nan), np.random.default_rng(0).uniform(50, 150, (33, 2))):
        picture = close_up(color, landmarks_px, fit, index, height=240)
        assert picture.dtype == np.uint8 and picture.shape[0] == 240 and picture.shape[1] <= 240
