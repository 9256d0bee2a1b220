"""Tables of methods and ablations: one thing changes per row, nothing is trained twice, intervals are honest."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from miniature import doll
from small_workspace import make_workspace, stamp

import pipeline
from capture.errors import UserError
from rendering.avatar import OURS, Avatar
from training import train as training
from training import trials
from training.baselines.dnr import DNR
from training.compare import FIGURES, in_words, markdown, mean_and_interval, summarise
from training.config import NONE, PERSON, EvaluateConfig
from training.evaluate import evaluate
from training.pretrained import NOISE_TAKES
from training.rows import SINGLE, ablations, methods
from training.score import Subject
from training.train import TrainConfig
from training.trials import Bench, score

CONFIG = TrainConfig(pretrained=NONE, widths="8,16", texture_px=64, feature=False, steps=4, device="cpu")
STEPS = 4


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    make_workspace(folder, steps=1)
    stamp(folder, "doll")
    return folder


def invoke(workspace: Path, *words: str) -> str:
    line = [*words, "--avatar", "doll", "--workspace", str(workspace)]
    done = CliRunner().invoke(pipeline.cli, line, catch_exceptions=False, color=False)
    return done.output


@pytest.fixture(scope="module")
def compared(workspace) -> dict:
    output = invoke(workspace, "compare", "--methods", "anr,dnr", "--seeds", "2", "--steps", str(STEPS))
    fields = json.loads((workspace / "doll" / "comparison" / "compare.json").read_text())
    assert (workspace / "doll" / "comparison" / "compare.md").read_text().strip() in output
    return fields


def test_every_method_is_trained_with_every_seed_and_scored(compared, workspace):
    assert [row["key"] for row in compared["rows"]] == ["anr", "dnr"] and compared["seeds"] == [0, 1]
    ours, theirs = compared["rows"]
    assert abs(theirs["parameters"] / ours["parameters"] - 1) < 0.02
    assert theirs["texture_parameters"] > ours["texture_parameters"]
    for row in compared["rows"]:
        assert row["steps"] == [STEPS, STEPS]
        for figure in set(FIGURES) - {"crop_lpips"}:
            values = row["figures"][figure]["seeds"]
            assert len(values) == 2 and None not in values, figure
        psnr = row["figures"]["masked_psnr_db"]
        assert psnr["seeds"][0] != psnr["seeds"][1] and psnr["mean"] == pytest.approx(np.mean(psnr["seeds"]))
    gain = np.subtract(*(row["figures"]["masked_psnr_db"]["seeds"] for row in (theirs, ours)))
    assert theirs["against_first"]["mean"] == pytest.approx(gain.mean())
    assert (workspace / "doll" / "comparison" / "compare-doll.jpg").stat().st_size > 1000
    assert not list((workspace / "doll" / "comparison").rglob("checkpoints"))


def test_what_is_finished_is_not_trained_again(compared, workspace, monkeypatch):
    asked = []
    original = trials.train

    def counted(config, *others):
        asked.append((config.seed, others[-1]))
        original(config, *others)

    monkeypatch.setattr(trials, "train", counted)
    invoke(workspace, "compare", "--methods", "anr,dnr", "--seeds", "2", "--steps", str(STEPS))
    assert not asked
    again = json.loads((workspace / "doll" / "comparison" / "compare.json").read_text())
    assert again == compared
    # the ablation's first row is the comparison's: only the other one is new
    output = invoke(workspace, "ablate", "--rows", "one-network", "--seeds", "1", "--steps", str(STEPS))
    assert asked == [(0, SINGLE)] and "| as trained |" in output
    asked.clear()
    invoke(workspace, "compare", "--methods", "dnr", "--seeds", "1", "--steps", str(STEPS + 1))
    assert asked == [(0, DNR)]


def test_an_interrupted_trial_goes_on_where_it_was(compared, workspace, monkeypatch):
    def interrupted(items, label, note=None):
        for count, item in enumerate(items):
            if count == 2:
                raise KeyboardInterrupt
            yield item

    bench = Bench(workspace / "again", {"doll": workspace / "doll"}, {}, EvaluateConfig(num_workers=1))
    config = replace(training_config(workspace), steps=STEPS)
    (row,) = methods(config, "dnr", [doll()])
    with monkeypatch.context() as patch:
        patch.setattr(training, "progress", interrupted)
        patch.setattr(training.Saver, "save_if_due", training.Saver.save)
        with pytest.raises(KeyboardInterrupt):
            trials.run_trial(bench, row, 0)
    steps_done = []
    original = training._step
    monkeypatch.setattr(training, "_step", lambda *given: steps_done.append(1) or original(*given))
    trial = trials.run_trial(bench, row, 0)
    assert len(steps_done) == STEPS - 2 and trial["training_cpu_s"] is None
    expected = compared["rows"][1]["figures"]["masked_psnr_db"]["seeds"][0]
    assert trial["figures"]["doll"]["masked_psnr_db"] == expected


def training_config(workspace: Path) -> TrainConfig:
    return TrainConfig(**json.loads((workspace / "doll" / "06_avatar" / "avatar.json").read_text())["train"])


def test_a_trial_is_another_one_when_anything_matters(tmp_path):
    bench = Bench(tmp_path, {}, {"doll/05_rasters": "1"}, EvaluateConfig())
    (anr, dnr), (single,) = methods(CONFIG, "anr,dnr", [doll()]), ablations(CONFIG, "one-network")[1:]
    others = [
        bench.trial_dir(anr, 1),
        bench.trial_dir(dnr, 0),
        bench.trial_dir(single, 0),
        bench.trial_dir(replace(anr, config=replace(CONFIG, steps=5)), 0),
        bench.trial_dir(replace(anr, parts=SINGLE), 0),
        replace(bench, inputs={"doll/05_rasters": "2"}).trial_dir(anr, 0),
        replace(bench, evaluate=EvaluateConfig(flip_crop_frames=3)).trial_dir(anr, 0),
        replace(bench, evaluate=EvaluateConfig(heldout_frames=100)).trial_dir(anr, 0),
    ]
    first = bench.trial_dir(anr, 0)
    assert len({first, *others}) == len(others) + 1
    assert bench.trial_dir(replace(anr, config=replace(CONFIG, checkpoint_every_s=1.0), name="x"), 0) == first


def test_methods_that_paint_from_stick_figures_are_compared_alike(compared, workspace):
    invoke(workspace, "compare", "--methods", "anr,tna,vid2vid", "--seeds", "1", "--steps", str(STEPS))
    fields = json.loads((workspace / "doll" / "comparison" / "compare.json").read_text())
    ours, tna, vid2vid = fields["rows"]
    assert [row["key"] for row in fields["rows"]] == ["anr", "tna", "vid2vid"]
    assert ours["figures"]["masked_psnr_db"]["seeds"] == compared["rows"][0]["figures"]["masked_psnr_db"]["seeds"][:1]
    for row in (tna, vid2vid):
        assert row["steps"] == [STEPS] and abs(row["parameters"] / ours["parameters"] - 1) < 0.02
        assert all(row["figures"][figure]["mean"] is not None for figure in set(FIGURES) - {"crop_lpips"})
    assert tna["texture_parameters"] == 64 * 64 * 3 and vid2vid["texture_parameters"] == 0


def test_a_method_that_is_not_there_is_one_clear_line(workspace):
    with pytest.raises(UserError, match="dn: unknown") as caught:
        invoke(workspace, "compare", "--methods", "anr,dn")
    assert "anr, anr-unlit, anr-pretrained, dnr, tna, vid2vid" in str(caught.value) and "\n" not in str(caught.value)


def test_other_mistakes_are_clear_too(workspace, tmp_path):
    with pytest.raises(UserError, match="--rows no-hat: unknown; there are full, no-pixel"):
        invoke(workspace, "ablate", "--rows", "no-hat")
    with pytest.raises(UserError, match="names nothing"):
        methods(CONFIG, " , ", [doll()])
    with pytest.raises(UserError, match="--methods vid2vid: made for one person, and this avatar has 2"):
        methods(CONFIG, "anr,vid2vid", [doll(), doll()])
    with pytest.raises(UserError, match=r"anr-pretrained: there are no weights for train\.widths 8,16"):
        methods(CONFIG, "anr-pretrained", [doll()])
    with pytest.raises(UserError, match="not made yet"):
        invoke(tmp_path, "compare")


@pytest.mark.parametrize(
    "base", [CONFIG, replace(CONFIG, split=True, adversarial=True, feature=True, warm_start=False)]
)
def test_every_ablation_changes_one_thing(base):
    rows = ablations(base)
    keys = [row.key for row in rows]
    assert keys[0] == "full" and len(set(keys)) == len(keys)
    for row in rows[1:]:
        changed = {name for name, value in asdict(row.config).items() if value != asdict(base)[name]}
        parts = {"networks"} if row.parts is not OURS else set()
        several = {"pixel-mask", "pixel-mask-feature", "one-network-split", "one-network-no-split"}
        assert len((changed - {"widths"}) | parts) == 1 or row.key in several, (row.key, changed)
        assert ("widths" in changed) == (row.parts is SINGLE)
    assert {"no-pixel", "no-mask", "no-tv", "one-network", "no-normals", "no-grid-noise"} <= set(keys)
    assert ("no-adversarial" in keys) == base.adversarial and ("with-adversarial" in keys) != base.adversarial
    assert ("no-split" in keys) == base.split and ("split" in keys) != base.split
    assert ("warm-start" in keys) != base.warm_start
    assert ("no-light" in keys) == base.warm_start  # without colours to start from there is none


def test_what_begins_with_the_shipped_networks_is_compared_from_noise():
    shipped = TrainConfig()
    rows = ablations(shipped)
    assert rows[0].name == "as trained, but from noise"
    assert [row.key for row in rows if row.config.pretrained != NONE] == ["pretrained"]
    assert {row.key for row in rows if row.config.adversarial} == {"pretrained", "with-adversarial"}
    assert next(row for row in rows if row.key == "pretrained").config == shipped
    noisy, begun, dnr = methods(shipped, "anr,anr-pretrained,dnr", [doll()])
    assert noisy.config.pretrained == dnr.config.pretrained == NONE and begun.config.pretrained == shipped.pretrained
    assert not noisy.config.adversarial and begun.config == replace(noisy.config, pretrained=PERSON)
    assert noisy.config == rows[0].config  # one trial for both tables


def test_noise_takes_longer_unless_somebody_says_how_long():
    shipped = TrainConfig()
    longer = NOISE_TAKES * shipped.steps
    rows = {row.key: row.config.steps for row in ablations(shipped)}
    assert rows.pop("pretrained") == shipped.steps and set(rows.values()) == {longer}
    assert {row.config.steps for row in methods(shipped, "anr,anr-pretrained,dnr", [doll()])} == {longer}
    rows = ablations(shipped, "pretrained,no-tv", steps=7) + methods(shipped, "anr,tna", [doll()], steps=7)
    assert {row.config.steps for row in rows} == {7}
    assert {row.config.steps for row in ablations(CONFIG)} == {CONFIG.steps}  # which began with noise itself


def test_rows_that_would_be_the_same_are_trained_once():
    bare = replace(CONFIG, feature=False, tv=False, adversarial=False)
    assert "pixel-mask" not in [row.key for row in ablations(bare)]
    only_mask = replace(bare, pixel=False)
    assert "no-mask" not in [row.key for row in ablations(only_mask)]  # nothing would be left to learn from


def test_the_score_is_the_evaluators(workspace, tmp_path):
    config = EvaluateConfig(
        full_long_side_px=160, turntable_frames=8, turntable_height_px=64, video_height_px=64, picture_height_px=64,
        picture_frames=1, flip_crop_frames=2, flip_full_frames=1, num_workers=1,
    )  # fmt: skip
    evaluate(config, tmp_path, workspace / "doll" / "06_avatar", {"doll": workspace / "doll"})
    known = json.loads((tmp_path / "metrics.json").read_text())["subjects"]["doll"]
    avatar = Avatar.load(workspace / "doll" / "06_avatar")
    found = score(config, avatar, Subject.load("doll", workspace / "doll", 160), None)
    assert found["crop_flip"] == known["heldout"]["crop"]["flip"] and found["flicker"] == known["flicker"]["ratio"]
    assert found["masked_psnr_db"] == known["heldout"]["masked_psnr_db"] and found["mask_iou"] > 0
    assert set(found) - set(FIGURES) == {"crop_psnr_db", "full_psnr_db", "full_lpips"}  # what no table shows


def test_intervals_are_students():
    # three values one apart: 4.3027 is the 97.5 % quantile of t with two degrees of freedom
    figure = mean_and_interval([1.0, 2.0, 3.0])
    assert figure["mean"] == 2 and figure["half_width"] == pytest.approx(4.3027 / np.sqrt(3), abs=1e-3)
    assert mean_and_interval([2.5]) == {"mean": 2.5, "half_width": None}
    assert mean_and_interval([2.5, None]) == {"mean": None, "half_width": None}
    # the interval holds the truth as often as it says
    rng = np.random.default_rng(0)
    figures = [mean_and_interval(rng.normal(7, 2, 3).tolist()) for _ in range(2000)]
    assert np.mean([abs(f["mean"] - 7) <= f["half_width"] for f in figures]) == pytest.approx(0.95, abs=0.015)


def test_a_table_says_what_was_measured_and_leaves_out_what_was_not():
    def trial(psnr_db):
        figures = dict.fromkeys(FIGURES, 0.5) | {"masked_psnr_db": psnr_db, "crop_lpips": None}
        fields = {"parameters": 1000, "texture_parameters": 64, "steps": 7, "training_cpu_s": 1.0}
        return fields | {"figures": {"doll": figures}}

    (anr, dnr) = methods(CONFIG, "anr,dnr", [doll()])
    ours, theirs = [trial(20.0), trial(21.0)], [trial(19.5), trial(20.5)]
    table = markdown([summarise(anr, ours, ours), summarise(dnr, theirs, ours)], 2)
    header, _, first, second, *_ = table.splitlines()
    assert "LPIPS" not in header and header.count("|") == first.count("|") == second.count("|")
    assert "20.50 ± 6.35" in first and "-0.50 ± 0.00" in second and "7 steps" in table
    assert in_words({"mean": None, "half_width": None}, 2) == "–"
