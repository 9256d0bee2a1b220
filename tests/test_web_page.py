"""The exported page: complete in itself, and in a real browser it paints the pixels that Python paints."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from avatar_page import in_float32, over_grey, painted_by_page, seen_from
from chromium import WHERE, Page
from miniature import doll
from small_workspace import make_recording, make_workspace
from test_onnx_graph import lively_renderer
from web_server import served

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import web_page as benchmark

from capture.camera import invert, project
from capture.errors import UserError
from fitting.body.model import BodyModel
from fitting.fit import BodyFit
from fitting.light import LIGHT_TERMS
from rendering import ort_web
from rendering.avatar import Avatar, Shape
from rendering.close_up import head_vertices
from rendering.moves import Move, moves
from rendering.networks import NeuralTexture
from rendering.render import Wish, film
from rendering.retarget import Motion
from rendering.viewpoints import View, lit_as_from
from rendering.web_page import PAGE, SCRIPTS, check_folder, write_page
from training.detail import without_detail
from training.features import weights_dir

RUNTIME = {name: name.encode() * 20 for pair in ort_web.FILES.values() for name in pair}


def person(body: BodyModel, image_wh: tuple[int, int] = (72, 112), seed: int = 4) -> Avatar:
    """A body under networks of random numbers, in which nothing is simple."""
    renderer = lively_renderer(True)
    torch.manual_seed(seed)
    for stage in (renderer.first, renderer.second):
        for layer in (*stage.down, *stage.up):
            for module in layer:
                if isinstance(module, torch.nn.BatchNorm2d):
                    torch.nn.init.normal_(module.weight, std=0.3)
    light = 0.3 * torch.randn(LIGHT_TERMS, 3)
    tensors = {"texels": NeuralTexture.shared_initial(64, 8, seed=seed - 2), "light": light}
    tensors["detail"] = torch.randint(-30, 30, (258, 258, 3), dtype=torch.int8)  # no multiple of four bytes
    texture = NeuralTexture.of(tensors).requires_grad_(False)
    rng = np.random.default_rng(0)
    offsets_m = rng.normal(0.005, 0.003, len(body.template_m)).astype(np.float32)
    shape = Shape(body, rng.normal(0, 1, body.num_shape).astype(np.float32), offsets_m)
    settings = {"subjects": ["person"], "image_wh": list(image_wh)}
    return in_float32(Avatar(renderer, {"person": texture}, {"person": shape}, settings))


def with_close_up(avatar: Avatar) -> Avatar:
    """The avatar with a head of other random numbers.  Both know every scale, as a page takes them to."""
    known = {"px_per_m": {"person": [1, 10_000]}, "train": {}}
    close_up = person(avatar.bodies["person"].body, (48, 56), seed=9)
    close_up = replace(close_up, bodies=avatar.bodies, settings={**close_up.settings, **known})
    return in_float32(replace(avatar, close_up=close_up, settings={**avatar.settings, **known}))


def waving(avatar: Avatar) -> Move:
    (move,) = moves(avatar, "person", Path("nowhere"), ())
    standing = move.motion
    pose = np.repeat(standing.pose, 8, axis=0)
    pose += np.random.default_rng(1).normal(0, 0.2, pose.shape) * avatar.bodies["person"].body.joint_free
    pose[:, 0] = 0
    placed = np.repeat(standing.world_from_body, 8, axis=0)
    placed[:, 0, 3] = np.linspace(0, 1, 8)
    return replace(move, motion=Motion("waving", pose, placed, 10.0))


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    return person(BodyModel.default())


def test_a_folder_has_all_it_asks_for_and_asks_nobody_else(avatar, tmp_path):
    write_page(avatar, "person", [waving(avatar)], RUNTIME, tmp_path / "page")
    page = (tmp_path / "page" / "index.html").read_text()
    description = json.loads((tmp_path / "page" / "avatar.json").read_text())
    wanted = re.findall(r'(?:src|href)="([^"]+)"', page)
    wanted = [name for name in wanted if not name.startswith("data:")]
    wanted += [name for files in description["runtime"].values() for name in files.values()]
    wanted += re.findall(r'bytesOf\("([^"]+)"\)', (PAGE / "viewer.js").read_text())
    assert len(wanted) >= len(SCRIPTS) + 4 + 3
    for name in wanted:
        assert (tmp_path / "page" / name).is_file(), name
    for path in (tmp_path / "page").rglob("*"):
        if path.suffix in (".html", ".js", ".json"):
            addresses = re.findall(r"https?://[^\s\"'<>`]+", path.read_text())
            assert set(addresses) <= {"http://localhost:8000"}, path  # said to people, not fetched
    size = (tmp_path / "page" / "avatar.bin").stat().st_size
    bytes_each = {"float32": 4, "int32": 4, "int8": 1}
    arrays = description["arrays"].values()
    assert size == sum(-(-bytes_each[entry["dtype"]] * entry["count"] // 4) * 4 for entry in arrays)
    assert all(entry["offset"] % 4 == 0 for entry in arrays)


def test_one_file_holds_the_same_bytes_and_refers_to_nothing(avatar, tmp_path):
    write_page(avatar, "person", [waving(avatar)], RUNTIME, tmp_path / "page")
    write_page(avatar, "person", [waving(avatar)], RUNTIME, tmp_path / "deep" / "one.html")
    text = (tmp_path / "deep" / "one.html").read_text()
    inside = dict(re.findall(r'data-file="([^"]+)">([^<]+)</script>', text))
    for name in ("avatar.json", "avatar.bin", "renderer.onnx", *(f"ort/{name}" for name in ort_web.FILES["wasm"])):
        assert gzip.decompress(base64.b64decode(inside[name])) == (tmp_path / "page" / name).read_bytes()
    assert not re.findall(r'<script[^>]* src=|<link[^>]* href="(?!data:)', text)
    assert text.count("</script>") == len(inside) + len(SCRIPTS)  # no program ends early


def test_a_close_up_adds_to_the_files_and_that_of_others_does_not(avatar, tmp_path):
    close = with_close_up(avatar)
    assert close.close_up is not None
    of_others = replace(avatar, close_up=close.close_up.without("person"))
    files = {}
    for name, who in (("plain", avatar), ("close", close), ("others", of_others)):
        write_page(who, "person", [waving(avatar)], RUNTIME, tmp_path / name)
        paths = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        files[name] = {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in paths}
    assert files["others"] == files["plain"]
    changed = {name for name in files["close"] if files["close"][name] != files["plain"].get(name)}
    assert changed == {"close_up.onnx", "avatar.json", "avatar.bin"}
    assert files["close"]["avatar.bin"].startswith(files["plain"]["avatar.bin"])
    write_page(avatar, "person", [waving(avatar)], RUNTIME, tmp_path / "close")  # over the one with a close-up
    assert not (tmp_path / "close" / "close_up.onnx").exists()


def test_other_peoples_folders_are_left_alone(avatar, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        check_folder(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        check_folder(tmp_path / "thesis.txt")
    for _ in range(2):  # an earlier page of ours may be replaced
        write_page(avatar, "person", [waving(avatar)], RUNTIME, tmp_path / "page")


def test_a_foreign_archive_is_refused_and_a_missing_one_said(tmp_path, monkeypatch):
    (tmp_path / ort_web.ARCHIVE).write_bytes(b"something else")
    with pytest.raises(UserError, match="not the published"):
        ort_web.runtime_files(tmp_path)
    with pytest.raises(UserError, match=r"--runtime .*no such file"):
        ort_web.runtime_files(tmp_path, tmp_path / "absent.tgz")
    monkeypatch.setattr(ort_web, "ADDRESS", "http://127.0.0.1:9/nobody")
    with pytest.raises(UserError, match=r"does not answer.*--runtime") as caught:
        ort_web.runtime_files(tmp_path / "empty")
    assert "\n" not in str(caught.value) and not (tmp_path / "empty").exists()


def test_the_runtime_is_fetched_once(tmp_path, monkeypatch):
    import hashlib
    import io
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in RUNTIME.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / ort_web.ARCHIVE).write_bytes(packed.getvalue())
    monkeypatch.setattr(ort_web, "SHA256", hashlib.sha256(packed.getvalue()).hexdigest())
    with served(tmp_path / "shop") as address:
        monkeypatch.setattr(ort_web, "ADDRESS", f"{address}/{ort_web.ARCHIVE}")
        assert ort_web.runtime_files(tmp_path / "cache") == RUNTIME
    assert ort_web.runtime_files(tmp_path / "cache") == RUNTIME  # the shop is closed
    assert ort_web.runtime_files(tmp_path, tmp_path / "shop" / ort_web.ARCHIVE) == RUNTIME


LACKING = [
    *(["Chromium"] if WHERE is None else []),
    *(
        []
        if (weights_dir() / ort_web.ARCHIVE).is_file()
        else [f"{weights_dir() / ort_web.ARCHIVE}, as export leaves it"]
    ),
]
in_a_browser = pytest.mark.skipif(bool(LACKING), reason=f"there is no {' and no '.join(LACKING)}")


def compare(page: Page, avatar: Avatar, motion: Motion, frame: int, view: View) -> np.ndarray:
    """Assert that the page, whose first motion this is, paints what Python paints, and return that over grey."""
    (subject,) = avatar.subjects
    placed = view.camera_from_world @ motion.world_from_body[frame]
    rgba = avatar.render(subject, motion.pose[frame], placed, view.camera, None, view.lit_from_camera)
    shown, true, is_person = painted_by_page(page, 0, frame, view), over_grey(rgba), rgba[..., 3] > 0.5
    assert is_person.sum() > 200 and true[is_person].std() > 0.1
    assert -10 * np.log10(((shown - true)[is_person] ** 2).mean()) > 60
    assert -10 * np.log10(((shown - true) ** 2).mean()) > 60
    return true


def painted(avatar: Avatar, motion: Motion, frame: int, view: View) -> np.ndarray:
    """What Python paints, over grey."""
    (subject,), placed = avatar.subjects, view.camera_from_world @ motion.world_from_body[frame]
    return over_grey(avatar.render(subject, motion.pose[frame], placed, view.camera, None, view.lit_from_camera))


def by_close_up(avatar: Avatar, motion: Motion, frame: int, view: View, true: np.ndarray) -> float:
    """The share of ``true``, the avatar over grey, that would be another without its close-up."""
    whole = painted(replace(avatar, close_up=None), motion, frame, view)
    return float((np.abs(whole - true).max(axis=2) > 0.05).mean())


def at_head(shape: Shape, motion: Motion, frame: int, view: View, part: tuple[float, ...], height_px: int) -> View:
    """``part`` (left, top, right, bottom, in heights of the head from its middle) of a view, ``height_px`` high."""
    placed = view.camera_from_world @ motion.world_from_body[frame]
    head_px = project(view.camera, shape.vertices_camera_m(motion.pose[frame], placed)[head_vertices(shape.body)])
    size = np.ptp(head_px[:, 1])
    left, top, right, bottom = np.tile((head_px.min(axis=0) + head_px.max(axis=0)) / 2, 2) + size * np.array(part)
    wh = round(height_px * (right - left) / (bottom - top)), height_px
    return replace(view, camera=view.camera.crop((left, top, right, bottom), wh))


@in_a_browser
def test_a_browser_paints_what_python_paints(avatar, tmp_path):
    move, shape = waving(avatar), avatar.bodies["person"]
    motion = move.motion
    still = replace(motion, name="still", pose=motion.pose[:1], world_from_body=motion.world_from_body[:1])
    runtime = ort_web.runtime_files(weights_dir())
    write_page(avatar, "person", [move, replace(move, motion=still)], runtime, tmp_path / "one.html")
    address = f"file://{tmp_path / 'one.html'}#paused"
    with Page(address, tmp_path / "chromium", (600, 400)) as page:
        page.wait("globalThis.viewer && viewer.shown")
        for frame, azimuth, image_wh in ((0, 0.0, (300, 400)), (7, 2.0, (400, 300)), (4, -1.0, (150, 50))):
            view = seen_from(shape, motion, frame, azimuth, image_wh)
            true = compare(page, avatar, motion, frame, view)
            plain = {"person": without_detail(avatar.textures["person"])}
            without = painted(replace(avatar, textures=plain), motion, frame, view)
            assert (np.abs(without - true).max() > 0.05) == (image_wh[1] > 100)  # enlarged
        view = seen_from(shape, motion, 0, 1.2, (300, 400))
        page.value("viewer.choose(0), viewer.azimuth = 1.2")
        own = page.value("viewer.camera().litFromCamera")
        assert view.lit_from_camera is not None and np.allclose(own, view.lit_from_camera.ravel(), atol=1e-6)
        page.value("document.getElementById('play').click()")
        page.wait("viewer.times.length > 3 && viewer.frame > 0")
        assert "pictures/s, WebAssembly" in page.value("document.getElementById('says').textContent")
        page.value("[...document.querySelectorAll('#motions button')].find(b => b.textContent === 'still').click()")
        page.wait("viewer.shown.endsWith('still 0')")


@in_a_browser
def test_a_browser_paints_heads_by_close_up_where_python_does(avatar, tmp_path):
    avatar, move = with_close_up(avatar), waving(avatar)
    motion, shape = move.motion, avatar.bodies["person"]
    write_page(avatar, "person", [move], ort_web.runtime_files(weights_dir()), tmp_path / "one.html")
    with Page(f"file://{tmp_path / 'one.html'}#paused", tmp_path / "chromium", (600, 400)) as page:
        page.wait("globalThis.viewer && viewer.shown")
        for frame, part, height_px, expected in (
            (0, (-0.8, -0.7, 0.8, 0.9), 240, 0.3),  # the head fills the picture
            (7, (-1.2, -1.0, 1.2, 2.0), 300, 0.05),
            (3, (0.1, -0.6, 1.0, 0.6), 200, 0.1),  # cut by the picture's left edge
            (5, (-1.0, 0.1, 1.0, 3.0), 300, 0.02),  # and by its upper one
            (2, (-5.0, 1.0, 5.0, 9.0), 400, 0.0),  # the head is above it
            (4, (-6.0, -2.0, 6.0, 8.0), 60, 0.0),  # small enough for the person's own crop
        ):
            view = seen_from(shape, motion, frame, 0.7 * frame, (300, 400))
            view = at_head(shape, motion, frame, view, part, height_px)
            share = by_close_up(avatar, motion, frame, view, compare(page, avatar, motion, frame, view))
            assert share >= expected and (share > 0) == (expected > 0), (frame, share)


@in_a_browser
def test_a_trained_head_is_the_one_that_render_paints(tmp_path):
    subject_dir = make_workspace(tmp_path)
    avatar = in_float32(Avatar.load(subject_dir / "06_avatar", "cpu"))
    found = moves(avatar, "doll", subject_dir, ())
    write_page(avatar, "doll", found, ort_web.runtime_files(weights_dir()), tmp_path / "page")
    with (
        served(tmp_path / "page") as address,
        Page(f"{address}/index.html#paused", tmp_path / "chromium", (600, 400)) as page,
    ):
        page.wait("globalThis.viewer && viewer.shown")
        for frame, azimuth in ((0, 0.0), (9, 1.0)):
            view = seen_from(avatar.bodies["doll"], found[0].motion, frame, azimuth, (300, 400))
            (view,) = lit_as_from([view], found[0].lit_from_world)
            true = compare(page, avatar, found[0].motion, frame, view)
            assert by_close_up(avatar, found[0].motion, frame, view, true) > 0.005


@in_a_browser
def test_what_was_filmed_is_lit_by_the_room_as_render_lights_it(tmp_path, monkeypatch):
    subject_dir = make_recording(tmp_path, "person")
    fit = BodyFit.load(subject_dir / "03_fit")
    sideways = np.eye(4)
    sideways[:3, :3] = cv2.Rodrigues(np.array([0, 0, 1.4]))[0]  # never head-on, in the first frame least
    replace(fit, camera_from_body=fit.camera_from_body @ sideways).save(subject_dir / "03_fit")
    avatar, seen, layer = person(doll()), [], Avatar.layer

    def watched(avatar, subject, pose, camera_from_body, camera, *more, **named):
        painted = layer(avatar, subject, pose, camera_from_body, camera, *more, **named)
        seen.append((camera, camera_from_body, over_grey(painted.picture(camera.image_wh))))
        return painted

    monkeypatch.setattr(Avatar, "layer", watched)
    wish = Wish(motion="recording", camera="orbit", image_wh=(150, 200), max_frames=8)
    film(avatar, "person", tmp_path, wish, tmp_path / "film.mp4")
    found = moves(avatar, "person", subject_dir, ())
    write_page(avatar, "person", found, ort_web.runtime_files(weights_dir()), tmp_path / "one.html")
    with Page(f"file://{tmp_path / 'one.html'}#paused", tmp_path / "chromium", (600, 400)) as page:
        page.wait("globalThis.viewer && viewer.shown")
        for frame in (0, 4):  # 4: from behind, where the light was never seen
            camera, camera_from_body, true = seen[frame]
            camera_from_world = camera_from_body @ invert(found[0].motion.world_from_body[frame])
            shown = painted_by_page(page, 0, frame, View(camera, camera_from_world))
            assert true.std() > 0.05 and -10 * np.log10(((shown - true) ** 2).mean()) > 60


@in_a_browser
def test_a_folder_opens_from_the_plainest_server(avatar, tmp_path):
    write_page(avatar, "person", [waving(avatar)], ort_web.runtime_files(weights_dir()), tmp_path / "page")
    with (
        served(tmp_path / "page") as address,
        Page(f"{address}/index.html#motion=waving&time=0.5&paused", tmp_path / "chromium", (400, 600)) as page,
    ):
        page.wait("globalThis.viewer && viewer.shown")
        assert page.value("viewer.frame") == 5
        (tmp_path / "page.png").write_bytes(page.picture())
        picture = np.asarray(cv2.imread(str(tmp_path / "page.png")), float)
        middle, rim = picture[150:450, 150:250], picture[250:450, 5:25]
        assert middle.std() > 3 * rim.std()  # somebody stands in the studio


@in_a_browser
def test_the_benchmark_can_time_every_step_of_a_picture(avatar, tmp_path, monkeypatch, capsys):
    avatar = with_close_up(avatar)
    write_page(avatar, "person", [waving(avatar)], ort_web.runtime_files(weights_dir()), tmp_path / "one.html")
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    with Page(f"file://{tmp_path / 'one.html'}#paused", tmp_path / "chromium", (400, 600)) as page:
        page.call("Performance.enable", timeDomain="threadTicks")
        page.wait("globalThis.viewer && viewer.shown")
        benchmark.measure(page)
    assert re.findall(r"^\| ([^|]+) \| -?[0-9.]+ \|$", capsys.readouterr().out, re.M) == list(benchmark.STEPS)
