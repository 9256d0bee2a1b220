"""Training that can be trusted: what is not a number is caught, training stops when asked, and it can be watched."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from miniature import film
from test_train import CPU, QUICK, actor, digests, run, stop_after

from capture.errors import UserError
from capture.progress import progress
from training import preview as previews
from training import step as steps
from training import train as training
from training.cast import hold_back, whose_turn
from training.checkpoint import Saver, load_checkpoint
from training.heldback import judge
from training.preview import Preview
from training.state import TrainState


@pytest.fixture(scope="module")
def movie():
    return film(30)


@pytest.fixture(scope="module")
def cast(movie):
    return [actor(movie)]


def failing(monkeypatch, at: dict[int, int], where: str = "compare") -> None:
    """Losses, or gradients, that are not a number: ``at`` step -> how many times."""
    left, original = dict(at), getattr(steps, where)

    def poisoned_loss(config, state, *rest):
        outcome = original(config, state, *rest)
        if left.get(state.step, 0) > 0:
            left[state.step] -= 1
            outcome.losses["pixel"] = outcome.losses["pixel"] * float("nan")
        return outcome

    monkeypatch.setattr(steps, where, poisoned_loss)


ALONE = replace(QUICK, shards=1)  # one piece a step, so that one poisoned loss is one failed attempt


def test_a_step_that_is_not_a_number_changes_nothing(cast, tmp_path, monkeypatch):
    state = training.new_state(replace(ALONE, adversarial=True), cast, CPU)
    frames = cast[0].frames
    batch = frames.batch(torch.arange(2), training.Augment(), torch.Generator(), torch.Generator())
    features, _ = training.load_features(4, 2, 0, "random")

    def step() -> None:
        config = replace(ALONE, adversarial=True)
        training.train_step(config, state, 0, [batch], features, False, 1.0)

    step()
    before = {name: value.clone() for name, value in flat(state.state_dict())}
    failing(monkeypatch, {1: 1})
    with pytest.raises(steps.NotFinite) as caught:
        step()
    assert "loss pixel" in caught.value.names and any("gradient" in name for name in caught.value.names)
    after = dict(flat(state.state_dict()))
    assert all(torch.equal(before[name], after[name]) for name in before)
    step()
    assert state.step == 2
    changed = [not torch.equal(before[name], value) for name, value in flat(state.state_dict()) if name in before]
    assert any(changed)


def flat(value, prefix=""):
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in flat(item, f"{prefix}/{key}")]
    return [(prefix, value)] if isinstance(value, torch.Tensor) else []


@pytest.mark.parametrize("part", ["renderer", "texture", "statistics"])
def test_gradients_and_statistics_are_looked_at_too(cast, part, monkeypatch):
    state = training.new_state(ALONE, cast, CPU)
    original = state.shards.map

    def spoiled(work, pieces):
        results = original(work, pieces)
        if part == "statistics":
            next(b for b in state.renderer.buffers() if b.is_floating_point()).fill_(float("inf"))
            return results
        (outcome, gradients), *_ = results
        wanted = list(state.renderer.parameters()) if part == "renderer" else list(state.textures.parameters())
        place = [p is wanted[0] for p in state.learned].index(True)
        gradients = list(gradients)
        # Finite, and yet its square, which Adam keeps, is not.
        gradients[place] = torch.full_like(gradients[place], 1e25)
        return [(outcome, tuple(gradients))]

    monkeypatch.setattr(state.shards, "map", spoiled)
    batch = cast[0].frames.batch(torch.arange(2), training.Augment(), torch.Generator(), torch.Generator())
    config = replace(ALONE, split=False)
    with pytest.raises(steps.NotFinite, match=part):
        training.train_step(config, state, 0, [batch], training.load_features(4, 2, 0, "random")[0], False, 1.0)
    assert all(torch.isfinite(b).all() for b in state.renderer.buffers())


def test_a_failed_step_is_noted_and_tried_again_with_other_frames(cast, tmp_path, monkeypatch):
    failing(monkeypatch, {3: 2})
    state = run(ALONE, tmp_path, cast)
    assert state.step == ALONE.steps
    notes = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert [(note["step"], note["attempt"]) for note in notes] == [(3, 1), (3, 2)]
    assert all(note["subject"] == "doll" and len(note["frames"]) == ALONE.batch_size for note in notes)
    assert notes[0]["not_finite"][0] == "loss pixel" and notes[0]["losses"]["pixel"] is None
    inputs = load_checkpoint(tmp_path / "checkpoints" / "failed_step.safetensors")
    assert inputs["frames"] == notes[1]["frames"]
    positions = inputs["pieces"][0]["positions"]
    assert cast[0].frames.frame_indices[positions.numpy()].tolist() == notes[1]["frames"]
    assert torch.isfinite(inputs["pieces"][0]["target"]).all()
    pictures = [load["frames"] for load in notes]
    assert pictures[0] != pictures[1]


def test_failures_and_interruptions_together_change_no_byte(cast, tmp_path, monkeypatch):
    config = replace(ALONE, checkpoint_every_s=0.0)
    with monkeypatch.context() as patch:
        failing(patch, {3: 2, 8: 1})
        run(config, tmp_path / "whole", cast)
    with monkeypatch.context() as patch:
        failing(patch, {3: 2, 8: 1})
        patch.setattr(Saver, "save_if_due", Saver.save)
        patch.setattr(training, "progress", stop_after(5))
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "cut", cast)
    with monkeypatch.context() as patch:
        failing(patch, {8: 1})
        run(config, tmp_path / "cut", cast)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_a_step_that_always_fails_ends_in_one_line_and_leaves_the_last_good_state(cast, tmp_path, monkeypatch):
    failing(monkeypatch, {5: 99})
    config = replace(ALONE, checkpoint_every_s=0.0, retries=2)
    pattern = r"not a number in loss pixel.* 3 times in a row at step 5 .*renderer_lr"
    with pytest.raises(UserError, match=pattern) as error:
        run(config, tmp_path, cast)
    assert "\n" not in str(error.value)
    saved = load_checkpoint(tmp_path / "checkpoints" / "last.safetensors")
    assert saved["step"] == 5
    assert all(torch.isfinite(value).all() for _, value in flat(saved) if value.is_floating_point())


# Whose turn.


@pytest.mark.parametrize("split", [False, True])
def test_every_identity_trains_equally_often_in_every_round(split):
    num_subjects, rounds = 5, 40
    turns = [whose_turn(step, num_subjects, split, seed=3) for step in range(num_subjects * rounds * (1 + split))]
    for texture in {trains for _, trains in turns}:
        order = [subject for subject, trains in turns if trains == texture]
        for start in range(0, len(order), num_subjects):
            assert sorted(order[start : start + num_subjects]) == list(range(num_subjects))
        rows = {tuple(order[start : start + num_subjects]) for start in range(0, len(order), num_subjects)}
        assert len(rows) > rounds / 2  # random, not a fixed rotation


def test_a_short_recording_trains_as_often_as_a_long_one_and_as_somebody_alone(movie, tmp_path, monkeypatch):
    cast = [actor(movie, "long", 24), actor(movie, "short", 6)]
    asked = []
    original = training._my_pieces
    monkeypatch.setattr(
        training, "_my_pieces", lambda who, *rest: asked.append(who.frames.name) or original(who, *rest)
    )
    run(replace(QUICK, steps=16), tmp_path, cast)
    assert asked.count("long") == asked.count("short") == 16


# Early stop.


def test_frames_held_back_teach_nothing_and_are_training_frames(cast, tmp_path, monkeypatch):
    held = hold_back(cast[0])
    assert held.heldback_positions.tolist() == [22, 23]
    assert set(held.train_positions) | set(held.heldback_positions) == set(cast[0].train_positions)
    assert not set(held.keyframe_positions) & set(held.heldback_positions)
    seen = []
    original = training._my_pieces
    monkeypatch.setattr(
        training, "_my_pieces", lambda who, chosen, *rest: seen.extend(chosen.tolist()) or original(who, chosen, *rest)
    )
    run(replace(QUICK, steps=20, early_stop=True, early_stop_every=5), tmp_path, [held])
    assert not set(seen) & set(held.heldback_positions)
    ticks = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [t["step"] for t in ticks if "heldback_psnr_db" in t] == [4, 9, 14, 19]


def test_training_ends_when_held_back_frames_stop_improving_at_any_cut(cast, tmp_path, monkeypatch):
    config = replace(
        QUICK, steps=60, early_stop=True, early_stop_every=2, early_stop_patience=2, checkpoint_every_s=0.0
    )
    figures = {2: 10.0, 4: 11.0, 6: 11.01, 8: 10.5}
    monkeypatch.setattr(training, "heldback_psnr_db", lambda state, cast: figures[state.step])
    held = [hold_back(cast[0])]
    state = run(config, tmp_path / "whole", held)
    assert state.step == 8 and (state.progress.best_db, state.progress.best_step) == (11.0, 4)
    settings = json.loads((tmp_path / "whole" / "avatar.json").read_text())
    assert settings["steps"] == 8 and settings["heldback_psnr_db"] == 11.0
    for cut in (3, 5, 8):
        with monkeypatch.context() as patch:
            patch.setattr(training, "progress", stop_after(cut))
            patch.setattr(Saver, "save_if_due", Saver.save)
            if cut == 8:  # killed after the last checkpoint, before the avatar was written
                patch.setattr(Preview, "draw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                run(config, tmp_path / f"cut{cut}", held)
        run(config, tmp_path / f"cut{cut}", held)
        assert digests(tmp_path / f"cut{cut}") == digests(tmp_path / "whole"), cut


def test_the_figure_of_held_back_frames_rises_with_training(cast, tmp_path):
    config = replace(QUICK, widths="16,32", steps=80, split=False, early_stop=True, early_stop_every=20)
    run(config, tmp_path, [hold_back(cast[0])])
    ticks = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    measured = [t["heldback_psnr_db"] for t in ticks if "heldback_psnr_db" in t]
    assert len(measured) == 4 and measured[-1] > measured[0] + 1


def test_patience_counts_measurements_without_a_gain(cast):
    state = training.new_state(QUICK, cast, CPU)
    for step, (psnr_db, is_over) in enumerate([(10, False), (9, False), (10.5, False), (10.5, False), (10, True)]):
        state.step = step
        judge(state, psnr_db, patience=2)
        assert state.progress.is_over == is_over


# Looking on.


def test_the_preview_shows_truth_beside_the_avatar_and_disturbs_nothing(cast, tmp_path):
    config = replace(QUICK, steps=6)
    run(replace(config, preview_every_s=0.0), tmp_path / "often", cast)
    run(replace(config, preview_every_s=1e9), tmp_path / "once", cast)
    often, once = digests(tmp_path / "often"), digests(tmp_path / "once")
    assert often.pop("avatar.json") and once.pop("avatar.json")
    assert often == once
    picture = cv2.imread(str(tmp_path / "once" / "preview.jpg"))
    frames = cast[0].frames
    subject, position = previews.shown_frames(cast)[0]
    height, width = frames.planes.shape[2:]
    shown_width = picture.shape[1] // (2 * len(previews.shown_frames(cast)))
    truth = frames.planes[position, :3].permute(1, 2, 0).numpy()[..., ::-1]
    tile = picture[-previews.HEIGHT_PX :, :shown_width]
    small = cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA)
    assert subject == 0 and np.abs(small.astype(int) - truth).mean() < 6
    neighbour = picture[-previews.HEIGHT_PX :, shown_width : 2 * shown_width]
    assert np.abs(neighbour.astype(int) - tile).mean() > 3  # six steps do not make a likeness


def test_a_preview_is_drawn_when_its_time_has_come(cast, tmp_path, monkeypatch):
    state = TrainState.__new__(TrainState)
    drawn = []
    monkeypatch.setattr(Preview, "draw", lambda self, state: drawn.append(state))
    clock = [0.0]
    monkeypatch.setattr(previews.time, "monotonic", lambda: clock[0])
    preview = Preview(tmp_path, cast, every_s=60)
    preview.draw_if_due(state)
    assert not drawn
    clock[0] = 60.0
    preview.draw_if_due(state)
    assert drawn == [state]


def test_everybody_of_a_cast_is_in_the_preview(movie):
    cast = [actor(movie, name) for name in ("ada", "bob", "cid")]
    assert [subject for subject, _ in previews.shown_frames(cast)] == [0, 1, 2]
    assert len(previews.shown_frames(cast[:1])) == 4


def test_progress_tells_what_else_is_known_and_the_time_left(monkeypatch, caplog):
    clock = [0.0]
    monkeypatch.setattr("capture.progress.time.monotonic", lambda: clock[0])
    with caplog.at_level(logging.INFO, logger="capture.progress"):
        for _ in progress(range(4), "train", note=lambda: "loss 1.250, 7.0 images/s"):
            clock[0] += 11
    assert caplog.messages[0] == "train: 1 of 4, loss 1.250, 7.0 images/s, 33 s left"


def test_the_bar_of_a_terminal_shows_the_note(monkeypatch):
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    assert list(progress(range(3), "train", note=lambda: "loss 1.250")) == [0, 1, 2]
    assert "loss 1.250" in screen.getvalue()
