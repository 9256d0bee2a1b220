"""The room is learned from the clip: what it says about person, shadow and things in hands, and where it is silent."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from test_matting import WH, figure, film, iou, network, picture, rough  # noqa: F401

from capture.files import read_image
from capture.likelihood import Room, color_log_odds, depth_log_odds, held, posterior, rim_alpha
from capture.mask_pictures import tile, uncertain, write_film, write_sheets
from capture.plate import BINS, Plate, Sample, _middle, aligned, learned, person_colors
from capture.recording import Recording
from capture.steady import FLICKER_SIDE_PX, flow_gray, unexplained

EMPTY = picture(np.zeros((WH[1], WH[0]), np.float32))
ANY_COLOR = np.full((BINS,) * 3, np.log(1 / 256**3), np.float32)


def room(person_log: np.ndarray = ANY_COLOR) -> Room:
    shape = EMPTY.shape[:2]
    return Room(
        EMPTY.astype(np.float32), np.full(shape, 3.0, np.float32), np.full(shape, np.nan, np.float32), person_log
    )


def killed(*given, **named):
    raise KeyboardInterrupt


def test_what_the_person_uncovers_is_learned_and_what_he_hides_is_not(tmp_path):
    shifts = [-30, -20, -10, 0, 10, 20, 30]
    recording = Recording.load(film(tmp_path / "film", [*shifts], with_depth=False))
    samples = [Sample(recording.color(i), None) for i in range(7)]
    plate = learned(samples, [figure(s) for s in shifts], 0.01)
    assert plate is not None and plate.is_still
    seen = np.isfinite(plate.color[..., 0])
    assert np.abs(plate.color - EMPTY)[seen].max() < 3 and seen[:, :40].all()
    plate.save(tmp_path / "plate.npz")
    np.testing.assert_array_equal(Plate.load(tmp_path / "plate.npz").color, plate.color)
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr("numpy.lib.format.write_array", killed)
        plate.save(tmp_path / "half.npz")
    assert not (tmp_path / "half.npz").exists()  # a run that goes on would read it
    still = learned([samples[3]] * 3, [figure(shifts[3])] * 3, 0.01)
    assert still is not None and not np.isfinite(still.color[60:110, 66:94]).any()


def test_the_middle_is_that_of_the_samples_that_show_the_room():
    rng = np.random.default_rng(0)
    for num, kind in ((1, np.uint8), (7, np.uint8), (32, np.uint8), (5, np.uint16)):
        stack = rng.integers(0, np.iinfo(kind).max, (num, 9, 7, 3)).astype(kind)
        is_room = rng.random((num, 9, 7)) < 0.7
        center, spread, count = _middle(stack, is_room)
        for y, x in np.ndindex(9, 7):
            seen = stack[is_room[:, y, x], y, x].astype(float)  # (n, 3)
            assert count[y, x] == len(seen)
            if len(seen):
                np.testing.assert_allclose(center[y, x], np.median(seen, axis=0))
                off = np.sort(np.abs(seen - np.median(seen, axis=0)), axis=0)
                np.testing.assert_allclose(spread[y, x], off[int(np.ceil(0.9 * (len(seen) - 1)))])


def test_a_limb_that_the_network_overlooked_is_found_and_a_shadow_is_not_the_person():
    truth = figure()
    color = picture(truth)
    shaded = color.copy()
    shaded[182:190, 40:120] = (0.7 * shaded[182:190, 40:120]).astype(np.uint8)
    missed = truth.copy()
    missed[:, 112:] = 0  # the tip of the elbow
    own = room(person_colors([(color, truth)]))
    found = posterior(rough(missed), shaded, own, None)
    elbow = (truth > 0) & (np.arange(WH[0]) > 112)
    assert (found[elbow] > 0.5).mean() > 0.9 and (rough(missed)[elbow] > 0.5).mean() < 0.6
    assert found[183:190, 40:120].max() < 0.5
    # Light that reaches the floor for the first time, beside the foot.
    shaded[182:190, 40:120] = (1.6 * color[182:190, 40:120].astype(float)).clip(0, 255).astype(np.uint8)
    beside = (truth == 0) & (np.arange(len(truth))[:, None] >= 183)
    beside[:, :40] = beside[:, 120:] = False
    assert posterior(rough(truth), shaded, own, None)[beside].max() < 0.5


def test_what_reaches_too_far_is_a_thing_and_stays_out_whole():
    truth = figure()
    color = picture(truth)
    color[83:87, 120:158] = (250, 250, 40)  # a racket at the elbow
    found = posterior(rough(truth), color, room(), None)
    assert found[83:87, 125:158].max() < 0.5 and iou(found, truth) > iou(rough(truth), truth)
    outside = np.tile(np.arange(40.0), (5, 1))
    evidence = np.full((5, 40), 3.0)
    evidence[:, 8:] = -3
    assert not held(evidence, outside, 10)[:, :10].any()  # short: a limb
    evidence[:] = 3.0
    assert held(evidence, outside, 10)[:, 2:].all()  # long: a thing


def test_the_room_says_nothing_where_it_was_not_seen():
    nothing = np.full(EMPTY.shape, np.nan, np.float32)
    unknown = Room(nothing, nothing[..., 0], nothing[..., 0], ANY_COLOR)
    prior = rough(figure())
    assert not color_log_odds(picture(figure()), unknown).any()
    np.testing.assert_allclose(posterior(prior, picture(figure()), unknown, None), prior)
    assert depth_log_odds(np.array([[2.0, 2.97, np.nan]]), np.array([[3.0, 3.0, 3.0]])).tolist()[0][2] == 0


def test_depth_before_the_room_is_the_person_and_at_the_room_is_not():
    odds = depth_log_odds(np.array([[2.0, 3.0]]), np.array([[3.0, 3.0]]))
    assert odds[0, 0] > 3 and odds[0, 1] < -1


def test_alpha_is_read_off_known_colours():
    truth = cv2.GaussianBlur(figure(), (0, 0), 1.2)
    person = np.array([220.0, 60.0, 40.0])
    color = np.rint(truth[..., None] * person + (1 - truth[..., None]) * EMPTY).astype(np.uint8)
    alpha, is_read = rim_alpha(figure(), color, room())
    assert is_read.sum() > 300 and np.abs(alpha - truth)[is_read].mean() < 0.03
    assert np.abs(figure() - truth)[is_read].mean() > 0.1


def test_a_swaying_camera_is_followed():
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (240, 320)), (0, 0), 2)
    gray = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    move = np.array([[1.01, 0.005, 3.0], [-0.005, 1.01, -2.0], [0, 0, 1]])
    other = cv2.warpPerspective(gray, move, (320, 240))
    found = aligned(gray, other, np.ones(gray.shape, bool))
    assert found is not None
    corners = np.array([[[20.0, 20.0], [300.0, 20.0], [300.0, 220.0], [20.0, 220.0]]])
    assert np.abs(cv2.perspectiveTransform(corners, found) - cv2.perspectiveTransform(corners, move)).max() < 0.3
    noise = rng.integers(0, 255, gray.shape).astype(np.uint8)
    assert aligned(gray, noise, np.ones(gray.shape, bool)) is None


def test_motion_is_no_flicker_and_flicker_is():
    own_px = FLICKER_SIDE_PX / max(WH)

    def changed(mask: np.ndarray, other: np.ndarray) -> float:
        masks = [np.rint(255 * m).astype(np.uint8) for m in (mask, other)]
        return unexplained(*masks, *(flow_gray(picture(figure(shift))) for shift in (0, 3))) / own_px

    here, there = figure(0), figure(3)
    moved, flickered = changed(here, there), changed(here, cv2.dilate(there, np.ones((7, 7))))
    assert moved < 0.5 < 2 * moved + 0.5 < flickered
    assert np.isnan(changed(here, np.zeros_like(here)))


def test_the_least_certain_frames_are_shown(tmp_path: Path):
    recording = Recording.load(film(tmp_path / "film", [0, 1, 2]))

    def mask_of(i: int) -> np.ndarray:
        return np.rint(255 * figure(i)).astype(np.uint8)

    write_sheets(tmp_path, recording, mask_of, [0, 1, 2], [0.1, 0.9, 0.2])
    write_film(tmp_path, (tile(recording.color(i), mask_of(i)) for i in range(3)), 30)
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("strip.jpg", "uncertain.jpg", "checker.mp4"))
    alone = uncertain(recording, mask_of, [1])
    sheet = read_image(tmp_path / "uncertain.jpg")
    assert np.abs(sheet[:, : alone.shape[1]].astype(int) - alone).mean() < 6


@pytest.mark.parametrize("with_depth", [True, False])
def test_the_room_makes_the_stage_better(tmp_path, network, with_depth):  # noqa: F811
    from test_matters import matted

    folder = film(tmp_path / "film", list(range(-24, 25, 4)), with_depth)
    better, plain = matted(tmp_path, folder), matted(tmp_path, folder, learn_room=False)
    scores = np.array([[iou(m[i], figure(4 * i - 24)) for i in range(13)] for m in (better, plain)])
    assert np.median(scores[0]) > 0.97 and np.median(scores[0]) >= np.median(scores[1])
