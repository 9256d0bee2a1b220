"""Masks: a rough network, depth and colours become a sharp subject; nobody is invented, nothing lags.

A painted figure stands before a painted wall; the network is a stand-in that sees it blurred.  The real network is
tested on real recordings where they are at hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from capture import finding, matting
from capture.alpha import FAR_REACH, cleaned, floor_depth, gated
from capture.camera import Camera, Rig
from capture.errors import UserError
from capture.files import encode_png
from capture.importers import ImportConfig, record
from capture.matte_job import Job
from capture.matting import Masks, MatteConfig, matte
from capture.parting import Whereabouts, somebody_else, trunk_distance
from capture.recording import Recording, RecordingWriter
from capture.segment import Segment, boxes_beside, main_part, scored, strangers
from capture.steady import flow_gray, steadied
from capture.workers import Workers

DATA = Path(__file__).parents[2] / "shared" / "data"
WH = (160, 200)
CAMERA = Camera(WH, 200.0, 200.0, 80.0, 100.0)
ALONE = Whereabouts(2.5, is_alone=True)


def figure(shift_px: int = 0) -> np.ndarray:
    """(H, W) float32 truth: head, trunk, two legs, and an arm with a gap to the trunk."""
    mask = np.zeros((WH[1], WH[0]), np.uint8)
    x = 80 + shift_px
    cv2.circle(mask, (x, 40), 14, 1, -1)
    cv2.rectangle(mask, (x - 18, 56), (x + 18, 115), 1, -1)
    for leg in (-13, 5):
        cv2.rectangle(mask, (x + leg, 115), (x + leg + 8, 180), 1, -1)
    cv2.polylines(mask, [np.array([(x + 16, 60), (x + 38, 85), (x + 18, 110)])], False, 1, 6)
    return mask.astype(np.float32)


def picture(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """(H, W, 3) a figure in warm colours before a wall in cold ones."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(0, 60, (WH[1], WH[0], 3)), (0, 0), 4)
    cold, warm = np.array([70, 110, 150]), np.array([200, 140, 90])
    image = np.where(truth[..., None] > 0, warm + noise, cold + noise)
    return cv2.GaussianBlur(image.clip(0, 255), (0, 0), 0.6).astype(np.uint8)


def depth(truth: np.ndarray) -> np.ndarray:
    return np.where(truth > 0, 2.0, 3.0).astype(np.float32)


def rough(truth: np.ndarray) -> np.ndarray:
    """What the stand-in network says: blurred, half a limb away from the truth."""
    return cv2.GaussianBlur(cv2.dilate(truth, np.ones((4, 4))), (0, 0), 2.5)


def iou(alpha: np.ndarray, truth: np.ndarray) -> float:
    is_a, is_b = alpha > 0.5, truth > 0.5
    return float((is_a & is_b).sum() / (is_a | is_b).sum())


class Network:
    """Stands in for MediaPipe: finds the warm colours, roughly."""

    def __init__(self) -> None:
        self.calls = 0

    def segment(self, color: np.ndarray, within: np.ndarray | None = None) -> Segment:
        self.calls += 1
        is_warm = (color[..., 0].astype(int) - color[..., 2] > 0).astype(np.uint8)
        is_warm = cv2.morphologyEx(is_warm, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        return scored(rough(is_warm.astype(np.float32)))


@pytest.fixture
def network(monkeypatch):
    network = Network()
    monkeypatch.setattr(finding, "_segmenter", lambda: network)
    return network


def film(folder: Path, shifts: list[int | None], with_depth: bool = True) -> Path:
    """A recording of the figure at each shift; None = nobody."""
    writer = RecordingWriter(folder, Rig(CAMERA, CAMERA, np.eye(4)) if with_depth else Rig(CAMERA), "a painted film")
    for i, shift in enumerate(shifts):
        truth = np.zeros((WH[1], WH[0]), np.float32) if shift is None else figure(shift)
        depth_mm = np.rint(1000 * depth(truth)).astype(np.uint16) if with_depth else None
        writer.add(i / 30, encode_png(picture(truth)), depth_mm)
    writer.finish()
    return folder


def run(tmp_path: Path, recording_dir: Path, **settings: object) -> Masks:
    out_dir = tmp_path / f"masks{len(list(tmp_path.glob('masks*')))}"
    out_dir.mkdir()
    matte(MatteConfig(workers=1, **settings), out_dir, recording_dir)  # type: ignore[arg-type]
    return Masks.load(out_dir)


# ------------------------------------------------------------------------------------------------------------ the stage


def test_the_edge_is_found_from_colours_alone(tmp_path, network):
    shifts = [0, 2, 4]
    masks = run(tmp_path, film(tmp_path / "film", [*shifts], with_depth=False))
    assert len(masks) == 3 and masks.is_found.all() and masks[0].dtype == np.float32
    for i, shift in enumerate(shifts):
        truth = figure(shift)
        assert iou(rough(truth), truth) < 0.82 < 0.9 < iou(masks[i], truth)
        assert np.abs(masks[i] - truth).mean() < 0.03


def test_depth_makes_it_better_and_keeps_the_gap_at_the_arm(tmp_path, network):
    masks = run(tmp_path, film(tmp_path / "film", [0, 1, 2]))
    alone = run(tmp_path, tmp_path / "film", use_depth=False)
    assert iou(masks[1], figure(1)) > max(0.96, iou(alone[1], figure(1)) - 0.005)
    assert masks[1][85, 81 + 24] < 0.1 and masks[1][85, 81 + 36] > 0.9
    x0, y0, x1, y1 = masks.boxes_px[1]
    assert abs(x0 - 63) <= 2 and abs(y0 - 26) <= 2 and abs(y1 - 181) <= 2 and abs(x1 - 122) <= 4


def test_frames_with_nobody_are_empty_and_said(tmp_path, network):
    masks = run(tmp_path, film(tmp_path / "film", [0, None, 2, 3]))
    assert masks.is_found.tolist() == [True, False, True, True]
    assert masks[1].shape == (WH[1], WH[0]) and not masks[1].any() and np.isnan(masks.boxes_px[1]).all()
    assert any("1 of 4" in note for note in masks.notes)


def test_who_passes_behind_is_left_out_and_who_stands_in_the_way_leaves_nobody(tmp_path, network):
    """In depth alone: the passer-by wears the same colours, and touches the person."""
    shifts, size = [0] * 9, np.s_[40:110, 8:30]
    writer = RecordingWriter(tmp_path / "film", Rig(CAMERA, CAMERA, np.eye(4)), "a painted film")
    truth = figure(0)
    with_passer = truth.copy()
    with_passer[size] = 1
    for i, _ in enumerate(shifts):
        shown = with_passer if i in (4, 6) else truth
        depth_mm = np.rint(1000 * depth(truth)).astype(np.uint16)
        if i in (4, 6):
            away = (with_passer > 0.5) & (truth < 0.5) if i == 4 else np.ones(truth.shape, bool)
            depth_mm[away & (with_passer > 0.5)] = 2800 if i == 4 else 1000
        writer.add(i / 30, encode_png(picture(shown)), depth_mm)
    writer.finish()
    masks = run(tmp_path, tmp_path / "film")
    assert iou(masks[4], truth) > 0.93 and iou(masks[5], truth) > 0.93 and not masks.is_found[6]
    again = sorted(path.name for path in (masks.folder / "scratch").glob("again_*"))
    assert again == ["again_000004.map", "again_000006.map"]  # who is alone is not looked at twice


def test_for_a_second_around_a_passer_by_the_person_is_not_alone(tmp_path, network):
    count, crowded, rate_hz = 16, 11, 5
    truth = figure(0)
    with_passer = truth.copy()
    with_passer[40:110, 8:30] = 1
    writer = RecordingWriter(tmp_path / "film", Rig(CAMERA, CAMERA, np.eye(4)), "a painted film")
    for i in range(count):
        depth_mm = np.rint(1000 * depth(truth)).astype(np.uint16)
        if i == crowded:
            depth_mm[(with_passer > 0.5) & (truth < 0.5)] = 2800
        writer.add(i / rate_hz, encode_png(picture(with_passer if i == crowded else truth)), depth_mm)
    writer.finish()
    out_dir = tmp_path / "masks"
    (out_dir / "scratch").mkdir(parents=True)
    with Workers(1) as workers:
        job = Job(MatteConfig(workers=1), out_dir, tmp_path / "film", workers)
        recording = Recording.load(tmp_path / "film")
        found, places = finding.tell_apart(job, recording, finding.find(job, recording, []))
    assert all(found)
    assert [place.is_alone for place in places] == [abs(i - crowded) > rate_hz for i in range(count)]
    assert all(abs(place.distance_m - 2.0) < 0.02 for place in places)


def test_a_film_with_nobody_is_refused(tmp_path, network):
    with pytest.raises(UserError, match="no person found in any of 3 frames of a painted film"):
        run(tmp_path, film(tmp_path / "film", [None] * 3))


def test_a_resumed_run_gives_the_same_files_and_repeats_nothing(tmp_path, network):
    recording_dir = film(tmp_path / "film", [0, 2, None, 6, 8])
    first = run(tmp_path, recording_dir)
    calls, network.calls = network.calls, 0
    out_dir = tmp_path / "resumed"
    out_dir.mkdir()
    for name in ("scratch", "masks"):
        (out_dir / name).mkdir()
    for path in [
        *sorted((first.folder / "scratch").glob("[rg]*_00000[01].map")),
        first.folder / "masks" / "000001.png",
    ]:
        (out_dir / path.relative_to(first.folder)).write_bytes(path.read_bytes())
    matte(MatteConfig(workers=1), out_dir, recording_dir)
    for path in sorted(first.folder.rglob("*.*")):
        assert path.read_bytes() == (out_dir / path.relative_to(first.folder)).read_bytes(), path
    assert 0 < network.calls < calls


def test_a_resumed_run_does_not_learn_again_what_could_not_be_learned(tmp_path, network, monkeypatch):
    recording_dir, asked = film(tmp_path / "film", [0, 2, 4]), []
    learn_plate, refine = matting.learn_plate, matting._refine_chunk

    def learned(*given):
        asked.append(len(asked))
        return None if len(asked) == 1 else learn_plate(*given)

    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(matting, "learn_plate", learned)
    monkeypatch.setattr(matting, "_refine_chunk", interrupted)
    (tmp_path / "masks").mkdir()
    with pytest.raises(KeyboardInterrupt):
        matte(MatteConfig(workers=1), tmp_path / "masks", recording_dir)
    monkeypatch.setattr(matting, "_refine_chunk", refine)
    matte(MatteConfig(workers=1), tmp_path / "masks", recording_dir)
    masks = Masks.load(tmp_path / "masks")
    assert asked == [0] and any("hides the room all the time" in note for note in masks.notes)
    frames = json.loads((tmp_path / "masks" / "masks.json").read_text())["frames"]
    assert [frame["method"] for frame in frames] == ["pose + depth"] * 3


def test_masks_refuse_what_is_not_theirs(tmp_path, network):
    with pytest.raises(UserError, match=r"masks\.json"):
        Masks.load(tmp_path)
    masks = run(tmp_path, film(tmp_path / "film", [0]))
    with pytest.raises(IndexError):
        masks[1]
    assert json.loads((masks.folder / "masks.json").read_text())["frames"][0]["method"] == "pose + depth"
    assert (masks.folder / "strip.jpg").stat().st_size > 1000


def test_settings_out_of_range_are_refused():
    for settings in ({"band": 0.0}, {"gate_m": -1.0}, {"edge_side_px": 10}, {"workers": 0}):
        with pytest.raises(UserError, match=next(iter(settings))):
            MatteConfig(**settings)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------------- the pieces


def test_depth_removes_what_stands_behind_and_keeps_a_limb_held_back():
    truth = figure()
    probability = rough(truth)
    probability[60:110, 20:50] = 1  # the network takes a piece of wall for the person
    depth_m = depth(truth)
    prior, _ = gated(probability, depth_m, gate_m=1.5, footprint_px=1)
    assert prior[62:108, 22:48].max() < 0.5 and iou(prior, truth) > iou(probability, truth)
    depth_m[120:181, 85:94] = 2.4  # one leg is put back: before the wall, it is the person
    prior, _ = gated(rough(truth), depth_m, gate_m=1.5, footprint_px=1)
    assert prior[125:170, 88:91].min() > 0.5


def test_a_far_hand_before_a_farther_wall_is_the_person():
    truth = np.zeros((200, 160), np.float32)
    trunk, hand = np.s_[20:190, 60:100], np.s_[100:110, 100:125]
    truth[trunk] = truth[hand] = 1
    depth_m = np.full(truth.shape, 4.2, np.float32)
    depth_m[trunk], depth_m[hand] = 2.5, 3.15  # the shoulder is hidden: nothing leads from the trunk to the hand
    prior, _ = gated(rough(truth), depth_m, gate_m=0.6 * FAR_REACH, footprint_px=1)
    assert prior[103:107, 103:122].min() > 0.5 and prior[130:, 110:].max() < 0.1
    prior, _ = gated(rough(truth), depth_m, gate_m=0.6, footprint_px=1)  # as where others are about
    assert prior[103:107, 103:122].max() < 0.5


def test_who_stands_elsewhere_is_somebody_else_and_an_arm_that_reaches_out_is_not():
    probability, depth_m = np.zeros((60, 100), np.float32), np.full((60, 100), 5.0, np.float32)
    body, arm, passer, rim = np.s_[10:55, 20:35], np.s_[20:26, 35:80], np.s_[15:50, 80:92], np.s_[15:50, 92:94]
    for part in (body, arm, passer, rim):
        probability[part] = 0.95
    depth_m[body], depth_m[passer], depth_m[rim] = 2.5, 3.5, np.nan
    depth_m[arm] = np.linspace(2.5, 1.6, 45)  # 0.9 m before the trunk, and of one piece with it
    is_else = somebody_else(probability, depth_m, ALONE, 0.6)
    assert is_else[passer].all() and is_else[rim].all() and not is_else[body].any() and not is_else[arm].any()
    assert not is_else[probability == 0].any()
    depth_m[passer] = 1.5  # now in front
    assert somebody_else(probability, depth_m, ALONE, 0.6)[passer].all()
    depth_m[passer] = 3.2  # somebody near behind, for the far arm is smaller
    far_arm = np.s_[15:20, 80:92]
    assert somebody_else(probability, depth_m, ALONE, 0.6)[passer].all()
    probability[passer], probability[far_arm], probability[rim] = 0, 0.95, 0
    assert not somebody_else(probability, depth_m, ALONE, 0.6).any()
    probability[passer], probability[rim] = 0.95, 0.95
    depth_m[passer] = 2.8  # a leg held back
    assert not somebody_else(probability, depth_m, ALONE, 0.6).any()
    assert trunk_distance(probability, depth_m) == pytest.approx(2.5)
    assert np.isnan(trunk_distance(probability * 0, depth_m))


def test_missing_depth_leaves_the_network_its_word():
    probability = rough(figure())
    prior, separation = gated(probability, np.full_like(probability, np.nan), gate_m=0.6, footprint_px=1)
    np.testing.assert_array_equal(prior, probability)
    assert not separation.any()


def test_feet_are_kept_on_the_floor():
    camera, height_m = Camera((200, 240), 260.0, 260.0, 100.0, 60.0), 1.0
    v = np.arange(240)[:, None] + 0.5 - camera.cy_px
    floor_m = np.broadcast_to(np.where(v > 0, height_m * camera.fy_px / np.maximum(v, 1e-3), np.inf), (240, 200))
    truth = np.zeros((240, 200), np.float32)
    truth[20:178, 85:115] = 1
    truth[165:178, 85:130] = 1  # a shoe
    depth_m = np.where(truth > 0, 2.18, np.minimum(floor_m, 4.0)).astype(np.float32)
    depth_m += np.random.default_rng(0).normal(0, 0.003, depth_m.shape).astype(np.float32)
    missed = truth.copy()
    missed[172:178] = 0  # the network overlooks the sole
    probability = cv2.GaussianBlur(missed, (0, 0), 1.5)
    found_m = floor_depth(depth_m, probability)
    assert found_m is not None
    np.testing.assert_allclose(found_m[160:], floor_m[160:], rtol=0.01)
    prior, _ = gated(probability, depth_m, gate_m=0.6, footprint_px=1)
    assert prior[173:175, 88:127].mean() > 0.7 > 0.3 > probability[173:175, 88:127].mean()
    assert prior[186:, :].max() < 0.1


def test_a_wall_is_no_floor():
    assert floor_depth(np.full((200, 160), 3.0, np.float32), rough(figure())) is None


def test_only_the_main_person_stays():
    probability = np.zeros((100, 200), np.float32)
    probability[10:90, 20:50] = 1
    probability[40:50, 51:58] = 0.9  # a hand beyond a strap
    probability[20:80, 150:170] = 1  # somebody else
    kept = main_part(cv2.GaussianBlur(probability, (0, 0), 0.8))
    assert kept[50, 35] > 0.9 and kept[45, 55] > 0.5 and kept[:, 140:].max() == 0


def test_small_specks_go_and_gaps_stay():
    alpha = figure()
    prior = rough(figure())
    alpha[5:7, 5:7] = 1  # a speck
    alpha[80:82, 80:82] = 0  # a pinhole in the trunk
    result = cleaned(alpha, prior)
    np.testing.assert_array_equal(result, figure())


def test_a_flickering_frame_is_steadied_and_motion_does_not_lag():
    truths = [figure(s) for s in (0, 3, 6)]
    pictures = [picture(truth) for truth in truths]
    maps = [rough(truth) for truth in truths]
    torn = maps[1].copy()
    torn[120:150] = 0  # the network drops the legs for a moment
    grays = [flow_gray(color) for color in pictures]
    neighbours = [(grays[0], maps[0]), (grays[2], maps[2])]
    repaired = steadied(torn, grays[1], neighbours)
    assert np.abs(repaired - maps[1])[120:150].mean() < 0.4 * np.abs(torn - maps[1])[120:150].mean()
    kept = steadied(maps[1], grays[1], neighbours)
    center = [np.average(np.arange(WH[0]), weights=m.sum(axis=0)) for m in (maps[1], kept)]
    assert abs(center[0] - center[1]) < 0.3


def test_somebody_else_is_a_stranger_and_is_looked_for_beside_the_neighbours():
    boxes = np.tile([0.4, 0.2, 0.6, 0.9], (20, 1)) + 0.002 * np.arange(20)[:, None]
    boxes[7] = [0.0, 0.5, 0.05, 0.65]
    boxes[12] = np.nan
    found = strangers(boxes)
    assert np.flatnonzero(found).tolist() == [7]
    beside = boxes_beside(boxes, np.isfinite(boxes[:, 0]) & ~found)
    for i in (7, 12):
        assert (beside[i, :2] < boxes[i - 1, :2]).all() and (beside[i, 2:] > boxes[i + 1, 2:]).all()


# ---------------------------------------------------------------------------------------------------- the real network


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data, real recordings that are not part of the project")
@pytest.mark.parametrize(("no_depth", "least", "num_frames"), [(False, 0.96, 14), (True, 0.945, 6)])
def test_masks_of_a_recording_with_truth(tmp_path, no_depth, least, num_frames):
    config = ImportConfig(start=36, every=5, max_frames=num_frames, no_depth=no_depth)
    record(config, tmp_path / "film", DATA / "casual_rgbd")
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    matte(MatteConfig(workers=2), out_dir, tmp_path / "film")
    masks = Masks.load(out_dir)
    truth_dir = DATA / "casual_rgbd" / "ground_truth" / "mask"
    truths = [cv2.imread(str(truth_dir / f"{36 + 5 * i:06d}.png"), cv2.IMREAD_GRAYSCALE) for i in range(len(masks))]
    scores = [iou(masks[i], truths[i] / 255) for i in range(len(masks))]
    assert len(masks) == len(Recording.load(tmp_path / "film")) == num_frames
    assert np.median(scores) > least and min(scores) > 0.9


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data, real recordings that are not part of the project")
def test_masks_are_the_same_however_many_processes_make_them(tmp_path):
    record(ImportConfig(start=40, every=6, max_frames=9), tmp_path / "film", DATA / "casual_rgbd")
    for workers in (1, 2):
        out_dir = tmp_path / f"by_{workers}"
        out_dir.mkdir()
        matte(MatteConfig(workers=workers), out_dir, tmp_path / "film")
    paths = sorted(path.relative_to(tmp_path / "by_1") for path in (tmp_path / "by_1").rglob("*.*"))
    assert sum(path.parts[0] == "masks" for path in paths) == 9 and Path("scratch/plate.npz") in paths
    for path in paths:
        if path.suffix != ".mp4":  # x264 does not give the same bytes in every run
            assert (tmp_path / "by_1" / path).read_bytes() == (tmp_path / "by_2" / path).read_bytes(), path
