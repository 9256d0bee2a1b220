"""Somebody new in a trained avatar, and an avatar tuned to one of its cast."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_workspace import NUM_FRAMES, NUM_TRAIN, make_workspace, stamp
from test_pipeline import command

import pipeline
from capture.errors import UserError
from capture.manifest import Manifest
from capture.matting import Masks
from capture.recording import Recording
from commands import cast_of, open_project
from rendering.avatar import Avatar
from rendering.networks import NeuralTexture
from rendering.rasters import RasterConfig, Rasters, rasterize
from stages import plan
from training import adapt as adapting
from training import train as training
from training.cast import Actor
from training.config import AdaptConfig, FinetuneConfig
from training.dataset import Augment, SubjectFrames
from training.outline import fitted_outline
from training.ticks import masked_psnr_db
from training.train import TrainConfig, train

STEPS = 240  # of two dolls together
SETTINGS = {"widths": "8,16", "texture_px": 64, "steps": STEPS // 2, "feature": False, "adversarial": False}
SETTINGS |= {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Three dolls of different looks, and an avatar of the first two."""
    folder = tmp_path_factory.mktemp("cast")
    for look, name in enumerate(("ada", "bob", "carol")):
        make_workspace(folder, steps=1, name=name, look=look)
        stamp(folder, name)
    words = ["train", "--avatar", "duo", "--subject", "ada", "--subject", "bob"]
    invoke(folder, *words, *settings())
    return folder


@pytest.fixture()
def workspace(made, tmp_path) -> Iterator[Path]:
    shutil.copytree(made, tmp_path / "ws")
    return tmp_path / "ws"


def settings(**other: object) -> list[str]:
    return [f"--set=train.{key}={value}" for key, value in (SETTINGS | other).items()]


def invoke(workspace: Path, *words: str) -> None:
    CliRunner().invoke(pipeline.cli, [*words, "--workspace", str(workspace)], catch_exceptions=False, color=False)


def avatar_bytes(folder: Path) -> dict[str, bytes]:
    """What the avatar itself is made of; logs and checkpoints are not."""
    kinds = ("renderer.safetensors", "textures/*", "bodies/*")
    return {str(p.relative_to(folder)): p.read_bytes() for kind in kinds for p in sorted(folder.glob(kind))}


def heldout_psnr_db(avatar: Avatar, name: str, folder: Path) -> float:
    recording, masks = Recording.load(folder / "01_recording"), Masks.load(folder / "02_masks")
    indices = np.arange(NUM_TRAIN, NUM_FRAMES)
    frames = SubjectFrames.load(name, indices, recording, masks, Rasters.load(folder / "05_rasters"))
    batch = frames.batch(torch.arange(len(frames)), Augment(), torch.Generator(), torch.Generator())
    image, *_ = avatar.render_raster(name, batch.surface)
    return float(masked_psnr_db(image, batch.target, batch.mask))


def trained_db(config: TrainConfig, workspace: Path, out_dir: Path, *names: str) -> float:
    """Held-out quality of the last of ``names`` after training all of them together."""
    out_dir.mkdir()
    train(config, out_dir, {name: workspace / name for name in names})
    return heldout_psnr_db(Avatar.load(out_dir, "cpu"), names[-1], workspace / names[-1])


@pytest.mark.parametrize("warm, steps, rate, ahead_db", [(True, STEPS // 12, 1.0, 0.0), (False, STEPS // 3, 3.0, 2.0)])
def test_adapting_reaches_a_training_of_its_own_in_a_fraction_of_the_updates(
    made, tmp_path, warm, steps, rate, ahead_db
):
    config = TrainConfig(**SETTINGS, warm_start=warm)
    own_db = trained_db(replace(config, steps=STEPS), made, tmp_path / "own", "carol")
    quick_db = trained_db(replace(config, steps=steps), made, tmp_path / "quick", "carol")
    base = made / "duo" / "06_avatar"
    if not warm:
        base = tmp_path / "duo"
        trained_db(config, made, base, "ada", "bob")
    (tmp_path / "trio").mkdir()
    adapting.adapt(AdaptConfig(steps, rate), {}, tmp_path / "trio", base, "carol", made / "carol")
    adapted_db = heldout_psnr_db(Avatar.load(tmp_path / "trio", "cpu"), "carol", made / "carol")
    words = f"own {own_db:.2f} dB, adapted {adapted_db:.2f} dB, own in as few updates {quick_db:.2f} dB"
    # A texture moves no faster than its texels are seen, and here it alone must make up for networks that know others.
    assert adapted_db > own_db - 0.6, words
    assert adapted_db > quick_db + ahead_db, words


def test_adapting_changes_no_byte_of_what_was_there_and_adds_one_texture(workspace):
    before = avatar_bytes(workspace / "duo" / "06_avatar")
    invoke(workspace, "adapt", "--avatar", "duo", "--subject", "carol", "--steps", "6")
    after = avatar_bytes(workspace / "duo" / "06_avatar")
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"textures/carol.safetensors", "bodies/carol.npz", "bodies/carol.safetensors"}
    assert Avatar.load(workspace / "duo" / "06_avatar", "cpu").subjects == ("ada", "bob", "carol")
    assert cast_of(workspace, "duo") == ("ada", "bob", "carol")
    assert (workspace / "duo" / "06_avatar" / "preview.jpg").is_file()


@pytest.mark.parametrize("wider", [-1.0, 1.5])
def test_somebody_new_is_outlined_as_wide_as_the_mattes_whatever_the_networks_have_learned(made, tmp_path, wider):
    base, folder = Avatar.load(made / "duo" / "06_avatar", "cpu"), made / "carol"
    learned = base.renderer.second.up[0][0].bias
    learned[3] += wider
    frames, positions = Actor.load("carol", folder, torch.device("cpu")).frames, np.arange(NUM_TRAIN)
    exact = torch.autocast("cpu", torch.bfloat16, enabled=False)
    texture = NeuralTexture.of({"texels": base.textures["ada"].texels}).requires_grad_(False)
    texture.outline = fitted_outline(base.renderer, texture, frames, positions, exact)
    batch = frames.batch(torch.from_numpy(positions), Augment(), torch.Generator(), torch.Generator())
    fitted = base.renderer.picture(texture, batch.surface).mask * batch.valid
    texture.outline = None
    usual = base.renderer.picture(texture, batch.surface).mask * batch.valid
    area = float((batch.mask * batch.valid).sum())
    assert float(fitted.sum()) == pytest.approx(area, rel=0.01)  # of 16 frames of the 18
    assert float(usual.sum()) != pytest.approx(area, rel=0.1)

    base.save(tmp_path / "base")
    adapting.adapt(AdaptConfig(2), {}, tmp_path / "trio", tmp_path / "base", "carol", folder)
    textures = Avatar.load(tmp_path / "trio", "cpu").textures
    assert float(textures["carol"].outline) == pytest.approx(-wider, abs=0.5) and textures["ada"].outline is None
    adapting.finetune(FinetuneConfig(2), {}, tmp_path / "tuned", tmp_path / "trio", "carol", folder)
    assert Avatar.load(tmp_path / "tuned", "cpu").textures["carol"].outline == textures["carol"].outline


def test_adapting_adds_one_texture_to_the_close_up_too_in_the_light_of_the_person(workspace):
    close = workspace / "duo" / "06_avatar" / "close_up"
    before = avatar_bytes(close)
    invoke(workspace, "adapt", "--avatar", "duo", "--subject", "carol", "--steps", "6")
    after = avatar_bytes(close)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"textures/carol.safetensors", "bodies/carol.npz", "bodies/carol.safetensors"}
    avatar = Avatar.load(close.parent, "cpu")
    assert avatar.close_up is not None and avatar.close_up.subjects == ("ada", "bob", "carol")
    assert torch.equal(avatar.close_up.textures["carol"].light, avatar.textures["carol"].light)


def test_finetuning_tunes_the_close_up_too(workspace):
    close = workspace / "duo" / "06_avatar" / "close_up"
    before = avatar_bytes(close)
    invoke(workspace, "finetune", "--avatar", "duo", "--subject", "ada", "--steps", "4")
    after = avatar_bytes(close)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"renderer.safetensors", "textures/ada.safetensors"}


def test_who_has_no_head_rasters_is_taken_in_without_a_close_up(made, tmp_path):
    shutil.copytree(made / "carol", tmp_path / "carol")
    shutil.rmtree(tmp_path / "carol" / "05_rasters" / "close_up")
    config = AdaptConfig(2)
    adapting.adapt(config, {}, tmp_path / "out", made / "duo" / "06_avatar", "carol", tmp_path / "carol")
    avatar = Avatar.load(tmp_path / "out", "cpu")
    assert avatar.subjects == ("ada", "bob", "carol")
    assert avatar.close_up is not None and avatar.close_up.subjects == ("ada", "bob")


def test_heads_of_another_size_are_refused_before_anything_is_trained(made, tmp_path):
    shutil.copytree(made / "carol", tmp_path / "carol")
    rasterize(
        RasterConfig(height_px=64, width_px=40, close_up_px=48),
        tmp_path / "carol" / "05_rasters",
        made / "carol" / "01_recording",
        made / "carol" / "03_fit",
    )
    with pytest.raises(UserError, match="rasters of the head are 48 x 48, those of the avatar 32 x 32"):
        adapting.adapt(AdaptConfig(2), {}, tmp_path / "out", made / "duo" / "06_avatar", "carol", tmp_path / "carol")
    assert not (tmp_path / "out").exists()


def test_an_adapted_avatar_is_up_to_date_until_something_it_rests_on_changes(workspace, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = workspace / "duo" / "06_avatar"
    words = ("adapt", "--avatar", "duo", "--subject", "carol")
    invoke(workspace, *words, "--steps", "6")
    first = avatar_bytes(folder)
    assignments = [word.removeprefix("--set=") for word in settings()]
    project = open_project(pipeline.ATLAS, workspace, [], "duo", assignments=assignments)
    (step,) = [step for step in plan(project) if step.stage.name == "06_avatar"]
    assert step.reasons == () and project.subjects == ("ada", "bob", "carol")

    invoke(
        workspace,
        "run",
        "--avatar",
        "duo",
        "--subject",
        "ada",
        "--subject",
        "bob",
        *settings(),
        "--set=evaluate.turntable_frames=1",
    )
    assert avatar_bytes(folder) == first  # who was trained on is still there, and so is who was taken in
    done = command(
        "adapt", "--avatar", "duo", "--subject", "carol", "--steps", "6", "--workspace", workspace, cwd=tmp_path
    )
    assert done.returncode == 0 and "duo/06_avatar: up to date" in done.stderr and str(folder) in done.stdout

    caplog.clear()
    invoke(workspace, *words, "--set", "train.steps=6")
    assert "duo/06_avatar: up to date" in caplog.messages
    caplog.clear()
    invoke(workspace, *words, "--steps", "8")
    assert any("adapt.steps 6 -> 8" in message for message in caplog.messages)
    assert avatar_bytes(folder)["textures/carol.safetensors"] != first["textures/carol.safetensors"]
    made = Manifest.load(folder)
    assert made is not None and [change["subject"] for change in made.changes] == ["carol"]

    mask = workspace / "carol" / "02_masks" / "masks" / "000003.png"
    shutil.copy(mask.with_name("000009.png"), mask)
    caplog.clear()
    invoke(workspace, *words, "--steps", "8")
    assert any("input carol/02_masks changed" in message for message in caplog.messages)
    caplog.clear()
    invoke(workspace, *words, "--steps", "8")
    assert "duo/06_avatar: up to date" in caplog.messages


def test_the_avatar_survives_a_failure_and_the_change_goes_on_where_it_was(workspace, monkeypatch):
    words = ("adapt", "--avatar", "duo", "--subject", "carol", "--steps", "12")
    twin = workspace.with_name("twin")
    shutil.copytree(workspace, twin)
    invoke(twin, *words)
    folder = workspace / "duo" / "06_avatar"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def broken(items, label, note):
        for count, item in enumerate(items):
            if count == 7:
                raise RuntimeError("the power is gone")
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(training, "progress", broken)
        patch.setattr(training.Saver, "save_if_due", training.Saver.save)
        with pytest.raises(RuntimeError, match="power"):
            invoke(workspace, *words)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert len(list(workspace.glob("duo/.06_avatar.partial-*"))) == 1
    resumed = []
    with monkeypatch.context() as patch:
        patch.setattr(training, "progress", lambda items, label, note: resumed.append(items) or iter(items))
        invoke(workspace, *words)
    assert resumed == [range(7, 12), range(12)]  # the person goes on, the close-up comes after
    assert avatar_bytes(folder) == avatar_bytes(twin / "duo" / "06_avatar")
    assert not list(workspace.glob("duo/.06*"))


def test_somebody_who_has_no_head_any_more_loses_its_close_up(workspace):
    words = ("adapt", "--avatar", "duo", "--subject", "carol", "--steps", "2")
    invoke(workspace, *words)
    close_up = Avatar.load(workspace / "duo" / "06_avatar", "cpu").close_up
    assert close_up is not None and close_up.subjects == ("ada", "bob", "carol")
    shutil.rmtree(workspace / "carol" / "05_rasters" / "close_up")
    stamp(workspace, "carol")
    invoke(workspace, *words, "--force")
    avatar = Avatar.load(workspace / "duo" / "06_avatar", "cpu")
    assert avatar.close_up is not None and avatar.subjects == ("ada", "bob", "carol")
    assert avatar.close_up.subjects == ("ada", "bob")
    assert avatar.close_up.settings["subjects"] == ["ada", "bob"]


def test_tables_are_of_those_whom_the_networks_were_trained_on(workspace, monkeypatch):
    invoke(workspace, "adapt", "--avatar", "duo", "--subject", "carol", "--steps", "2")
    asked = []
    monkeypatch.setattr("training.compare.run_rows", lambda name, bench, rows, seeds: asked.append(bench) or "a table")
    invoke(workspace, "compare", "--avatar", "duo", "--methods", "anr")
    assert list(asked[0].subjects) == ["ada", "bob"] and not any("carol" in label for label in asked[0].inputs)


def test_the_page_of_somebody_who_was_not_measured_is_refused(workspace):
    report = workspace / "duo" / "07_report"
    report.mkdir()
    (report / "metrics.json").write_text(json.dumps({"subjects": {"ada": {}}, "reasons": {}}))
    with pytest.raises(UserError, match=r"bob: not measured yet; run pipeline\.py evaluate --avatar duo"):
        invoke(workspace, "report", "--avatar", "duo")


def test_under_another_name_the_avatar_stays_as_it_is(workspace):
    folder = workspace / "duo" / "06_avatar"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    invoke(workspace, "adapt", "--avatar", "duo", "--subject", "carol", "--steps", "4", "--as", "trio")
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert cast_of(workspace, "trio") == ("ada", "bob", "carol")


def test_finetuning_improves_one_identity_and_changes_the_renderer(workspace, caplog):
    caplog.set_level("INFO")
    folder, bob = workspace / "duo" / "06_avatar", workspace / "bob"
    invoke(workspace, "train", "--avatar", "duo", *settings(steps=30))  # not at its best yet
    before, before_db = avatar_bytes(folder), heldout_psnr_db(Avatar.load(folder, "cpu"), "bob", bob)
    invoke(workspace, "finetune", "--avatar", "duo", "--subject", "bob", "--steps", "80")
    after, after_db = avatar_bytes(folder), heldout_psnr_db(Avatar.load(folder, "cpu"), "bob", bob)
    print(f"bob before {before_db:.2f} dB, after {after_db:.2f} dB")
    assert after_db > before_db
    assert {name for name in before if after[name] != before[name]} == {
        "renderer.safetensors",
        "textures/bob.safetensors",
    }
    (change,) = json.loads((folder / "avatar.json").read_text())["changes"]
    assert change["command"] == "finetune" and change["steps"] == 80
    caplog.clear()
    invoke(workspace, "finetune", "--avatar", "duo", "--subject", "bob", "--steps", "80")
    assert "duo/06_avatar: up to date" in caplog.messages
    invoke(workspace, "finetune", "--avatar", "duo", "--subject", "bob", "--steps", "2", "--force")
    assert avatar_bytes(folder) != after


@pytest.mark.parametrize(
    "words, complaint",
    [
        (("adapt", "--avatar", "duo", "--subject", "bob"), "finetune --avatar duo --subject bob"),
        (("finetune", "--avatar", "duo", "--subject", "carol"), "adapt --avatar duo --subject carol"),
        (("adapt", "--avatar", "nobody", "--subject", "carol"), "train --avatar nobody"),
        (("adapt", "--avatar", "duo", "--subject", "eve"), "eve has no recording"),
        (("adapt", "--avatar", "ada", "--subject", "carol"), "--as NAME"),
        (("adapt", "--avatar", "duo", "--subject", "carol", "--as", "ada"), "--as NAME"),
        (("finetune", "--avatar", "duo", "--subject", "bob", "--as", "carol"), "--as carol: is a subject"),
        (("train", "--avatar", "carol", "--subject", "ada", "--subject", "bob"), "--avatar carol: is a subject"),
        (("evaluate", "--avatar", "duo", "--subject", "carol"), "'carol' is not in this avatar; it has ada, bob"),
        (("drive", "--avatar", "duo", "--subject", "carol", "--source", "x.mp4"), "'carol' is not in this avatar"),
        (("adapt", "--avatar", "duo", "--subject", "carol", "--set", "train.widths=8,8"), "trained with 8,16"),
        (("finetune", "--avatar", "duo", "--subject", "ada", "--set", "train.pretrained=none"), "trained with person"),
        (("finetune", "--avatar", "duo", "--subject", "bob", "--set", "adapt.stepz=3"), "adapt.steps"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_leaves_nothing(made, words, complaint):
    before = sorted(made.rglob("*"))
    with pytest.raises(UserError, match=re.escape(complaint)) as error:
        invoke(made, *words)
    assert "\n" not in str(error.value)
    left = [path for path in made.rglob("*") if path not in before and ".partial-" not in str(path)]
    assert not left


def test_a_recording_of_another_crop_is_refused(made, tmp_path):
    base = Avatar.load(made / "duo" / "06_avatar", "cpu")
    odd = replace(base, settings={**base.settings, "image_wh": [80, 128]})
    odd.save(tmp_path)
    with pytest.raises(UserError, match="rasters are 40 x 64, those of the avatar 80 x 128"):
        adapting.adapt(AdaptConfig(), {}, tmp_path / "out", tmp_path, "carol", made / "carol")


def test_a_finetuning_goes_on_as_the_training_was(made, tmp_path):
    """With the shipped discriminator, and with the statistics that the networks began with."""
    began = TrainConfig(texture_px=32, steps=1, feature=False, device="cpu")
    train(began, tmp_path / "base", {"ada": made / "ada"})
    (tmp_path / "changed").mkdir()
    adapting.finetune(FinetuneConfig(steps=1), {}, tmp_path / "changed", tmp_path / "base", "ada", made / "ada")
    ticks = [json.loads(line) for line in (tmp_path / "changed" / "log.jsonl").read_text().splitlines()]
    assert ticks[0]["adversarial"] > 0
    base, changed = (Avatar.load(tmp_path / name, "cpu") for name in ("base", "changed"))
    for before, after in zip(base.renderer.buffers(), changed.renderer.buffers(), strict=True):
        assert torch.equal(before, after)
    pairs = zip(base.renderer.parameters(), changed.renderer.parameters(), strict=True)
    assert any(not torch.equal(before, after) for before, after in pairs)


def test_a_discriminator_judges_a_finetuning_only_if_it_has_judged_others_before():
    assert adapting.is_judged(TrainConfig(), is_new=False)
    assert not adapting.is_judged(TrainConfig(), is_new=True)  # the networks that painted it do not change
    for other in ({"adversarial": False}, {"discriminator_width": 5}, {"pretrained": "none"}):
        assert not adapting.is_judged(TrainConfig(**other), is_new=False)
