"""The live view in a browser: real clicks and drags in a headless Chromium."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from bvh_files import random_frames, write_bvh
from chromium import WHERE, Page, field
from PIL import Image
from untrained import cast

from capture.camera import project, transform
from rendering.browser import view_of
from rendering.layers import LAYERS
from rendering.repertoire import Repertoire
from rendering.viewer import Viewer

LOOK_S = 0.05
PAGE_WH = (680, 440)
pytestmark = pytest.mark.skipif(WHERE is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def viewer(body, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    path = write_bvh(folder / "sway.bvh", random_frames())
    avatar = cast(body, "alice", "bob")
    repertoire = Repertoire(avatar, folder, [path])
    repertoire.act("alice", "sway.bvh", {})
    with Viewer(avatar, repertoire, "alice", "127.0.0.1", 0) as viewer:
        yield viewer


@pytest.fixture(scope="module")
def page(viewer, tmp_path_factory):
    with Page(viewer.url, tmp_path_factory.mktemp("profile"), PAGE_WH) as page:
        page.wait_for_text("pictures/s", 60)
        page.wait_for_text("Pause", 60)  # the motion of the command line plays
        page.click_text("Pause")
        page.choose("Motion", "standing")
        until(lambda: only(viewer).act_name == "standing")
        page.wait_for_text("at rest")
        page.click(*page.place(NOTICE))  # it says that there is no GPU here, and lies over the person
        page.wait(f"!({NOTICE})")
        yield page


NOTICE = "document.querySelector('.mantine-Notification-closeButton')"


def only(viewer: Viewer):
    (visitor,) = viewer.visitors
    return visitor


def seen(page: Page) -> np.ndarray:
    """The page's picture, (H, W, 3)."""
    return np.array(Image.open(io.BytesIO(page.picture())).convert("RGB")).astype(int)


def until(condition, timeout_s: float = 60.0) -> None:
    for _ in range(round(timeout_s / LOOK_S)):  # looks, not the clock: a machine that stood still must not fail it
        if condition():
            return
        time.sleep(LOOK_S)
    raise AssertionError("it never happened")


def joint_px(visitor, name: str) -> tuple[float, float]:
    eye = visitor.eye
    view = view_of(eye.wxyz, eye.position_m, eye.fov_rad, eye.page_wh)
    index = [handle.name for handle in visitor.puppet.handles].index(name)
    place_m = visitor.puppet.places(visitor.pose())[index]
    x, y = project(view.camera, transform(view.camera_from_world, place_m))
    # A page that draws slowly draws fewer pixels and says so; what is seen and clicked keeps its size.
    scale = PAGE_WH[1] / eye.page_wh[1]
    return float(x) * scale, float(y) * scale


def test_the_person_is_where_our_camera_has_her(viewer, page):
    """The picture and what the browser draws over it agree: balls sit on the joints."""
    visitor = only(viewer)
    before = seen(page)
    page.click(*page.place(field("Joints to drag")))
    x, y = joint_px(visitor, "left knee")

    def has_ball() -> bool:
        near = seen(page)[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3].reshape(-1, 3).mean(0)
        return near[2] > near[0] + 40  # blue on a red person

    until(has_ball)
    assert before[int(y), int(x), 0] > before[int(y), int(x), 2] + 40  # it was not there before


def test_a_joint_that_is_dragged_follows_and_can_be_undone(viewer, page):
    visitor = only(viewer)
    x, y = joint_px(visitor, "left wrist")
    page.drag((x, y), (x + 25, y - 70))
    until(lambda: visitor.playback.is_changed)
    until(lambda: np.hypot(*np.subtract(joint_px(visitor, "left wrist"), (x + 25, y - 70))) < 8)
    page.click_text("Undo the changes")
    until(lambda: np.hypot(*np.subtract(joint_px(visitor, "left wrist"), (x, y))) < 1)
    page.click(*page.place(field("Joints to drag")))


def test_dragging_beside_the_person_orbits_and_buttons_go_to_the_sides(viewer, page):
    visitor = only(viewer)
    before_m = np.array(visitor.eye.position_m)
    page.drag((40, 380), (150, 380))
    until(lambda: np.linalg.norm(visitor.eye.position_m[:2] - before_m[:2]) > 0.5)
    page.click_text("Back")
    facing = -visitor.pose().world_from_body[:3, 1]

    def looks_along() -> bool:
        w, x, y, z = visitor.eye.wxyz
        forward = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
        return forward @ facing > 0.9

    until(looks_along)
    page.click_text("Front")
    until(lambda: not looks_along())


def test_layers_and_clothes_change_what_is_seen(viewer, page):
    visitor = only(viewer)
    page.wait_for_text("at rest")
    before = seen(page)
    page.choose("Layer", "Mask")
    until(lambda: visitor.shown.wanted.layer == "Mask")
    until(lambda: np.abs(seen(page) - before).mean() > 1)
    page.choose("Layer", next(iter(LAYERS)))
    page.choose("Torso", "bob")

    def is_blue() -> bool:
        x, y = np.mean([joint_px(visitor, "chest"), joint_px(visitor, "hips")], axis=0)
        near = seen(page)[int(y) - 5 : int(y) + 5, int(x) - 5 : int(x) + 5].reshape(-1, 3).mean(0)
        return near[2] > near[0]

    until(is_blue)


def test_motions_play_and_pause_by_clicks(viewer, page):
    visitor = only(viewer)
    page.choose("Motion", "sway.bvh")
    until(lambda: visitor.playback.is_playing)
    frames = set()
    until(lambda: frames.add(visitor.playback.frame(time.monotonic())) or len(frames) > 4)
    page.click_text("Pause")
    until(lambda: not visitor.playback.is_playing)
    page.click_text("Play")
    until(lambda: visitor.playback.is_playing)
    page.choose("Motion", "standing")
    until(lambda: visitor.act_name == "standing" and not visitor.playback.is_playing)


def test_a_motion_file_can_be_opened_and_a_broken_one_is_told(viewer, page, tmp_path):
    visitor = only(viewer)
    broken = tmp_path / "broken.bvh"
    broken.write_text("HIERARCHY nonsense")
    page.give(broken)
    page.wait_for_text("broken.bvh, line 1")
    assert visitor.act_name == "standing" and visitor.own == {}
    page.give(write_bvh(tmp_path / "mine.bvh", random_frames()))
    until(lambda: visitor.act_name == "mine.bvh" and visitor.playback.is_playing)
    page.click_text("Pause")
    page.choose("Motion", "standing")
    until(lambda: visitor.act_name == "standing")
