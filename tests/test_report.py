"""The report: one file, everything inside, and advice that fits what is wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from miniature import film
from small_workspace import NUM_TRAIN, fit_of, make_workspace

from capture.errors import UserError
from training import charts
from training.advice import SECTORS, advise, advise_about_avatar, sector_counts, touched_borders
from training.config import EvaluateConfig
from training.evaluate import evaluate
from training.report import report
from training.train import TrainConfig, train

GOOD: dict[str, Any] = {
    "fit": {"silhouette_iou": {"median": 0.93, "p5": 0.9}, "residual_mm": {"median": 5.0, "p95": 9.0}},
    "coverage": {
        region: {"seen": 0.9, "mm_per_px": 1.5}
        for region in ("face", "back of the head", "chest and belly", "back", "left hand", "right hand", "left foot")
    },
    "heldout": {"masked_psnr_db": 22.0},
    "baselines": {
        "nearest_training_frame": {"masked_psnr_db": 16.0},
        "back_projected_texture": {"masked_psnr_db": None},
    },
    "flicker": {"ratio": 0.8},
}


SMALL = EvaluateConfig(
    full_long_side_px=96, turntable_frames=8, turntable_height_px=64, video_height_px=64, picture_height_px=64,
    picture_frames=2, flip_crop_frames=1, flip_full_frames=1, num_workers=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    subject_dir = make_workspace(tmp_path_factory.mktemp("page"), steps=6)
    out_dir = tmp_path_factory.mktemp("out")
    evaluate(SMALL, out_dir, subject_dir / "06_avatar", {"doll": subject_dir})
    report(out_dir, subject_dir / "06_avatar", {"doll": subject_dir})
    return (out_dir / "report.html").read_text()


def test_everything_is_inside_the_page(page):
    sources = re.findall(r'src="([^"]{0,40})', page)
    assert len(sources) > 30 and all(source.startswith("data:") for source in sources)
    assert not re.findall(r'(?:href|src|url)[=(]"?(?:https?:)?//', page)
    assert len(page) < 15_000_000


def test_the_page_has_every_section_and_no_hole(page):
    for heading in (
        "never saw",
        "From all sides",
        "compare",
        "The body in",
        "Frame by frame",
        "What was filmed",
        "Masks",
        "Keyframes",
        "Training",
        "Time and",
    ):
        assert heading in page, heading
    for hole in ("{{", "{%", "None", ">nan", "Undefined"):
        assert hole not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page), hole
    assert page.count("<svg") >= 5 and "a doll" in page  # charts; the notes of the fit
    assert "18 to train, 6 held out, 5 of them measured" in page


def test_without_measurements_there_is_no_report(tmp_path):
    with pytest.raises(UserError, match="evaluate"):
        report(tmp_path, tmp_path, {})


def remedies(found) -> str:
    return " ".join(advice.remedy for advice in found)


def titles(found) -> str:
    return " | ".join(advice.title for advice in found)


def filmed(**regions: float) -> dict[str, Any]:
    """GOOD, but of some regions only this share was seen; underscores for spaces."""
    changed = {name.replace("_", " "): {"seen": seen, "mm_per_px": 1.5} for name, seen in regions.items()}
    return GOOD | {"coverage": GOOD["coverage"] | changed}


def advice_on(figures: dict[str, Any], fit=None):  # type: ignore[no-untyped-def]
    return advise("doll", figures, fit or fit_of(film(24)), np.arange(18), _Masks(np.zeros((40, 30), np.float32)))


def test_a_person_who_never_turned_is_told_to_turn():
    found = advice_on(filmed(back=0.05, back_of_the_head=0.2))
    assert "The back was never seen" in titles(found) and "turn" in remedies(found)
    assert all(advice.remedy.endswith((".", "!")) or "…" in advice.remedy for advice in found)


def test_seen_from_most_sides_is_seen():
    """A direction from which nobody filmed is no complaint as long as the skin was seen from others."""
    assert "seen" not in titles(advice_on(filmed(back=0.6, back_of_the_head=0.55)))


def test_missing_feet_and_hands_are_named_and_what_to_do():
    found = advice_on(filmed(left_foot=0.0, left_hand=0.3, right_hand=0.4))
    assert "Hardly seen: left hands" not in titles(found)
    assert "Hardly seen: hands and left foot" in titles(found)
    assert "floor below the feet" in remedies(found) and "open hands" in remedies(found)


def test_a_face_from_afar_was_never_close_enough():
    far = GOOD | {"coverage": GOOD["coverage"] | {"face": {"seen": 0.9, "mm_per_px": 5.2}}}
    assert "Never close enough: face" in titles(advice_on(far))
    assert "Never close enough" not in titles(advice_on(GOOD))


def test_lost_and_doubtful_frames_are_told_apart_with_their_numbers():
    whole = fit_of(film(24))
    status, reason = list(whole.status), list(whole.reason)
    for i in (5, 6, 7, 11):
        status[i], reason[i] = "uncertain", f"left arm {200 + i} mm off in depth"
    found = advice_on(GOOD, replace(whole, status=tuple(status), reason=tuple(reason)))
    details = {advice.title: advice.detail for advice in found}
    assert "5-7 and 11" in details["Doubtful frames"] and "left arm 205 mm" in details["Doubtful frames"]
    assert "In 1 of 24 frames" in details["Lost frames"]


def test_limbs_in_doubt_are_told_and_no_problem_while_they_are_few():
    whole = fit_of(film(24))
    doubted = np.zeros((24, 4), bool)
    doubted[[5, 6], 1] = True
    reason = tuple("right arm is hidden, its place a guess" if own.any() else "" for own in doubted)
    few = replace(whole, limb_doubted=doubted, reason=reason)
    (advice,) = (a for a in advice_on(GOOD, few) if a.title == "Limbs in doubt")
    assert "In 2 frames" in advice.detail and "5-6" in advice.detail and "right arm is hidden" in advice.detail
    assert not advice.is_problem and "Limbs in doubt" not in titles(advice_on(GOOD, whole))
    doubted[:20, 1] = True
    many = replace(few, limb_doubted=doubted, reason=("right arm is hidden, its place a guess",) * 24)
    assert next(a for a in advice_on(GOOD, many) if a.title == "Limbs in doubt").is_problem


def test_the_compass_counts_every_training_frame_once():
    counts = sector_counts(fit_of(film(NUM_TRAIN + 6)), np.arange(NUM_TRAIN))
    assert counts.sum() == NUM_TRAIN and counts[0] > 0 and counts[4] == 0  # the doll sways, facing the camera


@pytest.mark.parametrize(("turn", "sector"), [(0, "front"), (90, "right"), (180, "back"), (-90, "left")])
def test_the_compass_names_the_side_that_the_camera_saw(turn, sector):
    """Turning to the own left (counter-clockwise from above) shows the camera the right side."""
    fit = fit_of(film(4))
    angle = np.radians(turn)
    about_z = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    placed = np.tile(np.array([[1.0, 0, 0, 0], [0, 0, -1, 0.9], [0, 1, 0, 2.7], [0, 0, 0, 1]]), (4, 1, 1))
    placed[:, :3, :3] = placed[:, :3, :3] @ about_z
    counts = sector_counts(replace(fit, camera_from_body=placed), np.arange(4))
    assert counts[SECTORS.index(sector)] == 4


class _Masks:
    """The same matte in every frame."""

    def __init__(self, alpha: np.ndarray) -> None:
        self._alpha = alpha

    def __getitem__(self, index: int) -> np.ndarray:
        return self._alpha


def test_cut_feet_are_noticed_and_a_free_person_is_not():
    alpha = np.zeros((40, 30), np.float32)
    alpha[5:35, 10:20] = 1
    assert touched_borders(_Masks(alpha), np.arange(5)) == {}
    alpha[5:, 10:20] = 1
    assert touched_borders(_Masks(alpha), np.arange(5)) == {"bottom": 1.0}
    found = advise("doll", GOOD, fit_of(film(24)), np.arange(18), _Masks(alpha))
    assert "The feet are cut off" in titles(found)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"fit": {**GOOD["fit"], "silhouette_iou": {"median": 0.7, "p5": 0.5}}}, "fits loosely"),
        ({"fit": {**GOOD["fit"], "residual_mm": None}}, "Colour only"),
        ({"flicker": {"ratio": 1.4}}, "The avatar flickers"),
        ({"heldout": {"masked_psnr_db": 15.0}}, "does not beat"),
    ],
)
def test_each_weakness_has_its_advice(figures, expected):
    fit, masks = fit_of(film(24)), _Masks(np.zeros((40, 30), np.float32))
    assert expected not in titles(advise("doll", GOOD, fit, np.arange(18), masks))
    assert expected in titles(advise("doll", GOOD | figures, fit, np.arange(18), masks))


def test_problems_come_before_things_that_are_only_good_to_know():
    fit, masks = fit_of(film(24)), _Masks(np.zeros((40, 30), np.float32))
    colour_only = GOOD | {"fit": {**GOOD["fit"], "residual_mm": None}}
    flags = [advice.is_problem for advice in advise("doll", colour_only, fit, np.arange(18), masks)]
    assert flags == sorted(flags, reverse=True) and not all(flags)


def test_stand_ins_of_training_are_named():
    settings = {"features": "SSIM at 3 scales, because there is no VGG19", "exposure_range": {"doll": [0.8, 1.3]}}
    found = titles(advise_about_avatar(settings, {"lpips": "no file"}))
    assert "without VGG19" in found and "LPIPS" in found and "exposure" in found
    assert not advise_about_avatar({"features": "VGG19", "exposure_range": {"doll": [0.98, 1.02]}}, {})


def test_a_gap_in_the_values_is_a_gap_in_the_line():
    svg = charts.lines(np.arange(5), {"a": np.array([1, 2, np.nan, 2, 1.0])}, "frame")
    assert svg.count("M") - svg.count("Masked") == 2
    assert "nothing was measured" in charts.lines(np.arange(2), {"a": np.full(2, np.nan)}, "frame")


def test_charts_do_not_grow_with_the_recording():
    long = charts.lines(np.arange(20_000), {"a": np.sin(np.arange(20_000))}, "frame")
    assert len(long) < 20_000


def test_a_cast_has_a_section_and_videos_for_everybody(tmp_path):
    first, second = (make_workspace(tmp_path, steps=1, name=name) for name in ("ann", "bob"))
    cast = {"ann": first, "bob": second}
    avatar_dir, out_dir = tmp_path / "duo" / "06_avatar", tmp_path / "duo" / "07_report"
    for folder in (avatar_dir, out_dir):
        folder.mkdir(parents=True)
    settings = TrainConfig(widths="8,16", steps=2, batch_size=1, texture_px=32, feature=False)
    train(settings, avatar_dir, cast)
    evaluate(SMALL, out_dir, avatar_dir, cast)
    report(out_dir, avatar_dir, cast)
    written = (out_dir / "report.html").read_text()
    for name in cast:
        assert f'<section id="{name}">' in written
        for kind in ("heldout", "turntable"):
            assert (out_dir / f"{kind}-{name}.mp4").is_file()
