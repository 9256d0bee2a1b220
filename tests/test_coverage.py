"""What was filmed of the skin: counted where it was seen, from where it was seen, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from miniature import CAMERA, CAMERA_FROM_BODY, doll

from capture.camera import Camera
from fitting.body.model import BodyModel
from rendering.coverage import Coverage, by_region, cover, skin
from rendering.coverage_picture import draw_atlas, draw_bodies
from rendering.rasterize import rasterize_covered
from rendering.rasters import CompactRaster

WHOLE = (0.0, 0.0, 240.0, 320.0)


@dataclass(frozen=True)
class Views:
    """Stands for Rasters: one body in some placements, rasterised whole."""

    body: BodyModel
    placed: list[np.ndarray]
    camera: Camera = CAMERA
    box_px: tuple[float, float, float, float] = WHOLE
    doubted_parts: tuple[int, ...] = ()

    @property
    def image_wh(self) -> tuple[int, int]:
        return self.camera.image_wh

    @property
    def boxes_px(self) -> np.ndarray:
        return np.array([self.box_px] * len(self.placed))

    @property
    def cameras(self) -> list[Camera]:
        return [self.camera.crop(self.box_px, self.image_wh)] * len(self.placed)

    @property
    def part_doubted(self) -> np.ndarray:
        doubted = np.zeros((len(self.placed), len(self.body.part_names)), bool)
        doubted[:, list(self.doubted_parts)] = True
        return doubted

    def __getitem__(self, index: int) -> CompactRaster:
        vertices_m, _ = self.body.posed(None, np.zeros((self.body.num_joints, 3)), self.placed[index])
        return CompactRaster.of(rasterize_covered(self.body, vertices_m, self.cameras[index]))


def turned(degrees: float, away_m: float = 2.7) -> np.ndarray:
    angle = np.radians(degrees)
    placed = CAMERA_FROM_BODY.copy()
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    placed[:3, :3] = placed[:3, :3] @ turn
    placed[2, 3] = away_m
    return placed


def covered(body: BodyModel, degrees: list[float], away_m: float = 2.7, **views) -> Coverage:  # type: ignore[no-untyped-def]
    rasters = Views(body, [turned(d, away_m) for d in degrees], **views)
    frames = list(range(len(degrees)))
    return cover(body, body.template_m, rasters, np.full(len(degrees), away_m), frames)  # type: ignore[arg-type]


def shares(body: BodyModel, coverage: Coverage) -> dict[str, float]:
    return {name: figures["seen"] for name, figures in by_region(coverage, body.part_names).items()}


def test_who_never_turns_shows_no_back(body):
    front = shares(body, covered(body, [0, 5, -5]))
    assert front["chest and belly"] > 0.75 and front["face"] > 0.3
    assert front["back"] < 0.1 and front["back of the head"] < 0.2
    assert 0.3 < front["left leg"] < 0.75


def test_a_full_turn_shows_it_all(body):
    around = shares(body, covered(body, list(range(0, 360, 15))))
    hidden = {"left arm", "right arm", "left hand", "right hand"}  # armpits, between fingers
    assert all(share > (0.6 if region in hidden else 0.85) for region, share in around.items()), around


def test_a_part_in_doubt_was_not_shown(body):
    arm = body.part_names.index("lower_arm.L")
    shown, without = (covered(body, [0, 90, 180, 270], doubted_parts=parts) for parts in ((), (arm,)))
    assert (shown.frames[shown.part == arm] > 0).any() and not without.frames[without.part == arm].any()
    others = shown.part != arm
    assert (shown.frames[others] == without.frames[others]).mean() > 0.99


def test_left_and_right_are_the_persons_own(body):
    """Turned by 90 degrees to the own left, the camera sees the right side."""
    side = shares(body, covered(body, [90, 88, 92]))
    assert side["right leg"] > side["left leg"] + 0.2


def test_more_frames_never_show_less(body):
    few, many = (by_region(covered(body, d), body.part_names) for d in ([0, 10, 20], [0, 10, 20, 40, 90]))
    assert all(many[region]["seen"] >= few[region]["seen"] for region in few)
    assert many["left arm"]["seen"] > few["left arm"]["seen"]


def test_twice_as_far_is_half_as_fine(body):
    near, far = (covered(body, [0, 2], away_m) for away_m in (2.0, 4.0))
    both = near.seen & far.seen & (near.slant_deg < 30)
    assert np.median(far.mm_per_px[both] / near.mm_per_px[both]) == pytest.approx(2.0, rel=0.05)
    assert np.nanmin(near.mm_per_px) == pytest.approx(1e3 * 2.0 / CAMERA.fx_px, rel=0.02)  # head-on


def test_what_lies_beyond_the_picture_was_not_filmed(body):
    """The crop reaches below the picture; the legs are rastered there all the same."""
    low = turned(0)
    low[1, 3] = 1.75
    rasters = Views(body, [low, low], box_px=(0.0, 0.0, 240.0, 480.0))
    figures = shares(body, cover(body, body.template_m, rasters, np.full(2, 2.7), [0, 1]))  # type: ignore[arg-type]
    assert figures["left foot"] == figures["right foot"] == 0 and figures["face"] > 0.3


def test_texels_hold_all_the_skin(body):
    corners_m = body.template_m[body.faces].astype(float)
    area_m2 = 0.5 * np.linalg.norm(
        np.cross(corners_m[:, 1] - corners_m[:, 0], corners_m[:, 2] - corners_m[:, 0]), axis=1
    )
    part, per_texel_m2 = skin(body, body.template_m, 256)
    assert per_texel_m2.sum() == pytest.approx(area_m2.sum(), rel=0.03)
    assert set(np.unique(part)) == set(range(len(body.part_names)))


def test_a_body_with_other_parts_is_told_part_by_part():
    views = Views(doll(), [turned(0), turned(3)])
    coverage = cover(doll(), doll().template_m, views, np.full(2, 2.7), [0, 1])  # type: ignore[arg-type]
    assert set(by_region(coverage, doll().part_names)) == set(doll().part_names[1:])


def test_no_frames_no_skin_but_still_a_picture(body):
    nothing = covered(body, [])
    assert not nothing.seen.any()
    assert {f["mm_per_px"] for f in by_region(nothing, body.part_names).values()} == {None}
    for picture in (draw_bodies(nothing, body, body.template_m), draw_atlas(nothing, body, 256)):
        assert picture.dtype == np.uint8 and picture.shape[2] == 3


def test_seen_skin_has_colour_and_unseen_skin_is_grey(body):
    picture = draw_bodies(covered(body, [0, 3, -3]), body, body.template_m)
    colourful = np.ptp(picture.astype(int), axis=2) > 40
    width = picture.shape[1] // 6  # front and back of the first figure
    body_rows = slice(60, 400)
    front, back = colourful[body_rows, :width].mean(), colourful[body_rows, width : 2 * width].mean()
    assert front > 5 * back
