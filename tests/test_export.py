"""The export command: what goes together, whose motions an export has, what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_workspace import LOST, NUM_FRAMES, NUM_TRAIN, make_workspace
from test_avatar import make_avatar
from test_gltf import Read

from capture.errors import UserError
from commands import open_project
from exporting import Wish, _write_onnx, export
from pipeline import ATLAS
from rendering import ort_web
from rendering.avatar import Avatar
from rendering.captured import Captured
from rendering.moves import moves
from rendering.networks import NeuralTexture


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    make_workspace(folder, steps=2)
    return folder


def exported(
    workspace: Path, kind: str, out: Path, motions: tuple[Path, ...] = (), runtime: Path | None = None
) -> Path:
    export(open_project(ATLAS, workspace, (), "doll"), ATLAS.stage("train"), Wish(kind, out, motions, runtime))
    return out


def test_an_avatar_moves_as_it_was_filmed(workspace):
    avatar, captured = Avatar.load(workspace / "doll/06_avatar", "cpu"), Captured.load(workspace / "doll")
    made = {move.motion.name: move for move in moves(avatar, "doll", workspace / "doll", ())}
    found = {name: move.motion for name, move in made.items()}
    assert list(found) == ["filmed", "filmed, held out", "standing"]
    assert len(found["filmed"]) == NUM_FRAMES and len(found["filmed, held out"]) == NUM_FRAMES - NUM_TRAIN
    np.testing.assert_array_equal(found["filmed"].pose[3], captured.fit.pose[3])
    np.testing.assert_array_equal(found["filmed"].pose[LOST], captured.fit.pose[LOST - 1])  # nobody was seen: he waits
    assert all(np.isfinite(motion.world_from_body).all() for motion in found.values())
    for name, in_camera in (("filmed", 0), ("filmed, held out", NUM_TRAIN)):  # lit as the camera saw him
        seen = made[name].lit_from_world @ found[name].world_from_body[0][:3, :3]
        np.testing.assert_allclose(seen, captured.fit.camera_from_body[in_camera][:3, :3], atol=1e-6)
    looks_along = made["standing"].lit_from_world @ -found["standing"].world_from_body[0][:3, 1]
    assert looks_along[2] < -0.98  # the light of who was not filmed: into the camera
    lowest = avatar.bodies["doll"].vertices_camera_m(found["standing"].pose[0], found["standing"].world_from_body[0])
    assert abs(lowest[:, 2].min()) < 1e-5


def test_without_its_recording_an_avatar_still_stands(workspace, tmp_path):
    avatar = Avatar.load(workspace / "doll/06_avatar", "cpu")
    assert [move.motion.name for move in moves(avatar, "doll", tmp_path, ())] == ["standing"]


def test_a_glb_has_the_motions_by_name(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("exporting.ATLAS_PX", 64)
    file = Read(exported(workspace, "glb", tmp_path / "deep" / "doll.glb").read_bytes())
    names = [animation["name"] for animation in file.document["animations"]]
    assert names == ["filmed", "filmed, held out", "standing"]


def test_onnx_files_run_at_the_sizes_that_the_networks_learned(workspace, tmp_path):
    import onnxruntime

    exported(workspace, "onnx", tmp_path / "doll.onnx")
    for name, (height, width) in (("doll", (64, 40)), ("doll_close_up", (32, 32))):
        session = onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        features = next(given for given in session.get_inputs() if given.name == "features")
        planes = {"features": (1, features.shape[1], height, width), "normals": (1, 3, height, width)}
        rgb, mask = session.run(["rgb", "mask"], {name: np.zeros(shape, np.float32) for name, shape in planes.items()})
        assert rgb.shape == (1, 3, height, width) and mask.shape == (1, 1, height, width)


def test_a_file_that_is_no_close_up_of_this_avatar_is_named(tmp_path, caplog):
    (tmp_path / "doll_close_up.onnx").write_bytes(b"of another")
    with caplog.at_level("WARNING"):
        _write_onnx(make_avatar(), ["doll"], tmp_path / "doll.onnx")
    assert "doll_close_up.onnx: was there before" in caplog.text
    assert (tmp_path / "doll_close_up.onnx").read_bytes() == b"of another"


def test_onnx_files_are_outlined_as_who_was_asked_for(workspace, tmp_path, caplog):
    plain = make_avatar()
    texture = NeuralTexture.of({**plain.textures["doll"].state_dict(), "outline": torch.tensor([0.5])})
    both = plain.with_subject("carol", texture, plain.bodies["doll"])
    for name, subjects in (("plain", ["doll"]), ("carol", ["carol"]), ("all", ["doll", "carol"])):
        with caplog.at_level("WARNING"):
            _write_onnx(both, subjects, tmp_path / f"{name}.onnx")
        assert ("carol: outlined as those" in caplog.text) == (name == "all")
    files = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    project = open_project(ATLAS, workspace, (), "doll")
    export(
        replace(project, subjects=("nobody",)), ATLAS.stage("train"), Wish("onnx", tmp_path / "other.onnx", (), None)
    )
    assert (tmp_path / "other.onnx").is_file()  # the networks are everybody's
    assert files["all"] == files["plain"] != files["carol"]


def test_a_page_is_written_with_the_runtime_that_is_there(workspace, tmp_path, monkeypatch):
    files = {name: b"program" for pair in ort_web.FILES.values() for name in pair}
    monkeypatch.setattr(ort_web, "runtime_files", lambda cache, given: files)
    page = exported(workspace, "web", tmp_path / "page")
    description = json.loads((page / "avatar.json").read_text())
    assert description["name"] == "doll" and description["crop_wh"] == [40, 64]
    assert description["close_up"]["crop_wh"] == [32, 32] and (page / "close_up.onnx").is_file()
    assert [motion["frames"] for motion in description["motions"]] == [NUM_FRAMES, NUM_FRAMES - NUM_TRAIN, 1]


@pytest.mark.parametrize(
    ("kind", "out", "options", "words"),
    [
        ("glb", "doll.gltf", {}, "writes a file that ends in .glb"),
        ("onnx", "folder", {}, "writes a file that ends in .onnx"),
        ("web", "doll.glb", {}, "writes a folder or a file that ends in .html"),
        ("onnx", "doll.onnx", {"motions": (Path("walk.bvh"),)}, "--motion goes with"),
        ("glb", "doll.glb", {"runtime": Path("ort.tgz")}, "--runtime goes with"),
        ("glb", "doll.glb", {"motions": (Path("absent.bvh"),)}, "absent.bvh"),
    ],
)
def test_what_does_not_go_together_is_said(workspace, tmp_path, kind, out, options, words):
    with pytest.raises(UserError, match=words):
        exported(workspace, kind, tmp_path / out, **options)
    assert not (tmp_path / out).exists()


def test_an_avatar_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"run pipeline\.py train --avatar doll"):
        exported(tmp_path, "onnx", tmp_path / "doll.onnx")


def test_a_broken_motion_is_refused_before_anything_is_written(workspace, tmp_path):
    path = tmp_path / "walk.bvh"
    path.write_text("no motion")
    with pytest.raises(UserError, match=r"walk\.bvh"):
        exported(workspace, "web", tmp_path / "page", (path,))
    assert not (tmp_path / "page").exists()
