"""What stage 07 measures: held-out frames only, every method by the same rules, nothing invented."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_workspace import LOST, NUM_FRAMES, NUM_TRAIN, make_workspace

from capture.recording import Recording
from rendering.avatar import Avatar, surface_of
from rendering.networks import Surface
from rendering.rasterize import rasterize_covered
from rendering.rasters import CompactRaster
from training import metrics
from training.config import EvaluateConfig
from training.detail import without_detail
from training.evaluate import evaluate, usual_frame
from training.sanity import Crop, average_texture, nearest_frames, textured_mesh
from training.score import BARE_TEXTURE, METHODS, TEXTURE, Subject, comparison, load_scene, predict

CONFIG = EvaluateConfig(
    full_long_side_px=160, turntable_frames=8, turntable_height_px=64, video_height_px=64, picture_height_px=64,
    picture_frames=2, flip_crop_frames=2, flip_full_frames=1, num_workers=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def subject_dir(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def evaluated(subject_dir, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("report")
    evaluate(CONFIG, out_dir, subject_dir / "06_avatar", {"doll": subject_dir})
    return out_dir


def test_of_a_long_film_some_heldout_frames_are_measured_and_the_report_says_so(evaluated, subject_dir, tmp_path):
    evaluate(replace(CONFIG, heldout_frames=3), tmp_path, subject_dir / "06_avatar", {"doll": subject_dir})
    found = json.loads((tmp_path / "metrics.json").read_text())["subjects"]["doll"]
    assert found["frames"]["heldout"] == 6 and found["frames"]["measured"] == 3
    assert found["reasons"]["measured"].startswith("3 of 5 held-out frames")
    few, all_of_them = (list(csv.DictReader((d / "heldout" / "doll.csv").open())) for d in (tmp_path, evaluated))
    psnr_db = {(row["frame"], row["method"]): row["masked_psnr_db"] for row in all_of_them}
    assert len(few) == 3 * len(METHODS) < len(all_of_them)
    assert all(row["masked_psnr_db"] == psnr_db[row["frame"], row["method"]] for row in few)


@pytest.fixture(scope="module")
def subject(subject_dir):
    return Subject.load("doll", subject_dir, 160)


def test_metrics_have_the_contracts_shape(evaluated):
    figures = json.loads((evaluated / "metrics.json").read_text())
    assert set(figures) >= {"subjects", "avatar", "timing_s", "peak_rss_mb", "device"}
    doll_figures = figures["subjects"]["doll"]
    assert doll_figures["frames"] == {
        "recorded": NUM_FRAMES, "tracked": NUM_FRAMES - 1, "limb_in_doubt": 0, "uncertain": 0, "lost": 1,
        "train": NUM_TRAIN, "keyframes": 3, "heldout": 6, "measured": 5,
    }  # fmt: skip
    assert {"torso", "head"} <= set(doll_figures["coverage"]) and 0 < doll_figures["coverage"]["torso"]["seen"] < 1
    assert doll_figures["fit"]["residual_mm"] is None and "fit.residual_mm" in doll_figures["reasons"]
    assert doll_figures["fit"]["silhouette_iou"] == {"median": 0.9, "p5": 0.9}
    for block in (doll_figures["heldout"], *doll_figures["baselines"].values()):
        assert set(block) == {"full", "crop", "reduced", "masked_psnr_db", "mask_iou", "sharpness"}
        # The doll's crop is no larger than the ruler, so it is measured as it is.
        assert block["reduced"]["masked_psnr_db"] == block["masked_psnr_db"]
        for protocol in ("full", "crop"):
            assert set(block[protocol]) == {"psnr_db", "ssim", "flip", "lpips"}
            assert 0 < block[protocol]["ssim"] <= 1 and 0 < block[protocol]["flip"] < 1
    assert set(doll_figures["baselines"]) == set(METHODS) - {"avatar"}
    # six held-out frames, the third of them lost: one pair before it, two after it
    assert doll_figures["flicker"]["pairs"] == 3 and doll_figures["flicker"]["video_rms"] > 0


def test_a_figure_that_could_not_be_measured_is_null_with_a_reason(subject_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("ANR_WEIGHTS", str(tmp_path))
    evaluate(CONFIG, tmp_path, subject_dir / "06_avatar", {"doll": subject_dir})
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["subjects"]["doll"]["heldout"]["crop"]["lpips"] is None
    assert "alexnet" in figures["reasons"]["lpips"]


def test_whole_pictures_show_detail_even_of_somebody_without_a_close_up(subject_dir, tmp_path):
    avatar = replace(Avatar.load(subject_dir / "06_avatar", "cpu"), close_up=None)
    bare = replace(avatar, textures={"doll": without_detail(avatar.textures["doll"])})
    figures = []
    for name, one in (("with", avatar), ("without", bare)):
        one.save(tmp_path / name)
        evaluate(CONFIG, tmp_path / f"{name}_report", tmp_path / name, {"doll": subject_dir})
        found = json.loads((tmp_path / f"{name}_report" / "metrics.json").read_text())
        figures.append(found["subjects"]["doll"]["heldout"])
    assert figures[0]["full"]["flip"] != figures[1]["full"]["flip"] and figures[0]["crop"] == figures[1]["crop"]


def test_only_tracked_heldout_frames_are_scored(evaluated):
    rows = list(csv.DictReader((evaluated / "heldout" / "doll.csv").open()))
    frames = sorted({int(row["frame"]) for row in rows})
    assert frames == [i for i in range(NUM_TRAIN, NUM_FRAMES) if i != LOST]
    assert len(rows) == len(frames) * len(METHODS)
    figures = json.loads((evaluated / "metrics.json").read_text())["subjects"]["doll"]
    mean = np.mean([float(row["crop_ssim"]) for row in rows if row["method"] == "avatar"])
    assert figures["heldout"]["crop"]["ssim"] == pytest.approx(mean, abs=2e-4)


def test_the_same_inputs_give_the_same_bytes_with_any_number_of_workers(evaluated, subject_dir, tmp_path):
    evaluate(replace(CONFIG, num_workers=2), tmp_path, subject_dir / "06_avatar", {"doll": subject_dir})
    pictures = sorted(path.relative_to(evaluated) for path in evaluated.glob("pictures/doll/*.jpg"))
    # Views around the person, held-out frames in six versions, heads in three.
    assert len(pictures) == 8 + 2 * 6 + 2 * 3
    for name in ("heldout/doll.csv", *pictures):
        assert (tmp_path / name).read_bytes() == (evaluated / name).read_bytes(), name
    again, first = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, evaluated))
    assert again["subjects"] == first["subjects"]


def test_the_truth_scores_perfectly_and_nothing_else_does(subject):
    scene = load_scene(subject, int(subject.heldout[0]))
    perfect = metrics.measure(*comparison(scene, scene.crop), True, False)
    assert perfect["crop_ssim"] == pytest.approx(1) and perfect["mask_iou"] == 1
    assert perfect["masked_psnr_db"] == metrics.PSNR_CEILING_DB and perfect["crop_flip"] < 1e-6
    assert perfect["sharpness"] == pytest.approx(1)
    # in the whole picture only the resampling of the crop and the painted-out edge differ
    assert perfect["full_psnr_db"] > 28
    shifted = Crop(np.roll(scene.crop.color, 3, axis=1), np.roll(scene.crop.alpha, 3, axis=1))
    worse = metrics.measure(*comparison(scene, shifted), True, False)
    assert all(worse[k] < perfect[k] for k in ("crop_ssim", "mask_iou", "masked_psnr_db", "full_psnr_db"))
    assert np.isnan(worse["full_flip"])


def test_what_is_painted_beyond_the_edge_of_the_picture_is_not_judged(subject):
    scene = load_scene(subject, int(subject.heldout[0]))
    is_filmed = np.arange(scene.crop.alpha.shape[0])[:, None] < 40
    truth = Crop(scene.crop.color, scene.crop.alpha * is_filmed)
    half = replace(scene, crop=truth, is_filmed=is_filmed & np.ones_like(scene.is_filmed))
    figures = metrics.measure(*comparison(half, scene.crop), False, False)  # paints the legs as well
    assert figures["mask_iou"] == 1 and figures["crop_psnr_db"] == metrics.PSNR_CEILING_DB


def test_the_nearest_frame_is_the_one_with_the_same_pose(subject_dir, subject):
    fit = subject.captured.fit
    twin = fit.joints_color_m.copy()
    twin[21] = twin[7]
    assert nearest_frames(replace(fit, joints_color_m=twin), np.arange(NUM_TRAIN), np.array([21])) == [7]


def test_walking_across_the_picture_is_not_a_turn(subject):
    """The same pose seen along another ray through the camera is nearest, however far away it stands."""
    fit = subject.captured.fit
    angle = 0.3
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    joints = fit.joints_color_m.copy()
    joints[22] = joints[4] @ turn.T
    assert nearest_frames(replace(fit, joints_color_m=joints), np.arange(NUM_TRAIN), np.array([22])) == [4]


def test_the_texture_baseline_shows_the_dolls_colours_where_its_body_is(subject):
    captured, rasters = subject.captured, subject.rasters
    index = 3  # a training frame: there the average must come close
    surface_crop = _textured(subject, index)
    scene = load_scene(subject, index)
    inside = (surface_crop.alpha > 0) & (scene.crop.alpha > 0.9)
    assert inside.sum() > 100
    error = np.abs(surface_crop.color - scene.crop.color)[inside].mean()
    flat = np.abs(scene.crop.color[inside].mean(0) - scene.crop.color)[inside].mean()
    assert error < 0.6 * flat
    black = average_texture("doll", np.arange(4), _Dark(captured.recording), captured.masks, rasters)
    assert float(black.texels.max()) < 2 * 0.05 - 1


def test_the_bare_body_is_the_mesh_without_its_offsets(subject):
    index = int(subject.heldout[0])
    dressed, bare = subject.rasters[index], subject.bare[index]
    assert len(bare.pixel) < 0.97 * len(dressed.pixel)  # the doll's clothes stand off by two centimetres
    undressed = replace(subject.captured.fit, vertex_offsets_m=0 * subject.captured.fit.vertex_offsets_m)
    again = rasterize_covered(undressed.body, undressed.vertices_color_m(index), subject.rasters.cameras[index])
    np.testing.assert_array_equal(CompactRaster.of(again).pixel, bare.pixel)
    crops = predict(Avatar.load(subject.captured.recording.folder.parent / "06_avatar"), subject, 0)
    assert crops[BARE_TEXTURE].alpha.sum() == len(bare.pixel) and crops[TEXTURE].alpha.sum() == len(dressed.pixel)


def _textured(subject, index: int) -> Crop:
    return textured_mesh(subject.texture, surface_of(subject.rasters.gather([index])))


class _Dark:
    """The recording with the lights out."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def color(self, index: int) -> np.ndarray:
        return self._recording.color(index) // 64 * 0

    def __len__(self) -> int:
        return len(self._recording)


def test_the_turntable_shows_the_usual_pose_of_what_taught(subject):
    fit = subject.captured.fit
    pose, doubted = np.zeros_like(fit.pose), np.zeros_like(fit.limb_doubted)
    pose[:, 1, 0] = np.where(np.arange(len(fit)) < fit.first_heldout, 0.01, 1.0) * np.arange(len(fit))
    tracked = np.flatnonzero(fit.tracked)
    taught = tracked[tracked < fit.first_heldout]
    assert abs(usual_frame(replace(fit, pose=pose, limb_doubted=doubted)) - np.median(taught)) <= 1
    doubted[taught[1:]] = True
    assert usual_frame(replace(fit, pose=pose, limb_doubted=doubted)) == taught[0]
    doubted[:] = True
    assert usual_frame(replace(fit, pose=pose, limb_doubted=doubted)) in tracked


def test_an_empty_raster_leaves_an_empty_crop(subject):
    none = Surface(torch.zeros(0, dtype=torch.long), torch.zeros(0, 2), torch.zeros(0, 3), (1, 8, 6))
    crop = textured_mesh(subject.texture, none)
    assert crop.color.shape == (8, 6, 3) and not crop.alpha.any()
