"""Motion capture on our body: directions are kept, whatever the file's names, axes, units and rest pose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bvh_files import DIALECTS, MOTIONS, REAL_FILES, random_frames, write_bvh
from scipy.spatial.transform import Rotation

from capture.errors import UserError
from fitting.body.model import BodyModel
from rendering.alignment import level_gaze
from rendering.motion import SMPL_JOINTS, load_motion
from rendering.retarget import _roles_of, asked_of_us, retarget
from rendering.skeletons import REQUIRED, find_roles, split_side
from rendering.topology import roles_by_shape

LIMBS = (("upperarm", "lowerarm"), ("lowerarm", "hand"), ("upperleg", "lowerleg"), ("lowerleg", "foot"))


def on(body: BodyModel, path: Path):
    clip = load_motion(path)
    return clip, retarget(clip, body, *body.shaped(None))


def asked(body: BodyModel, path: Path):
    """The clip and what it asks of our body, whether a person can do it or not."""
    clip = load_motion(path)
    return clip, asked_of_us(clip, body, *body.shaped(None)).motion


def largest_angle_deg(clip, motion, body: BodyModel, world_from_clip: np.ndarray, step: int = 1) -> float:
    """Between the limbs of the clip (every ``step``-th frame) and those of our body in the world."""
    theirs = find_roles(clip.joint_names, clip.parents, "clip")
    ours = find_roles(body.joint_names, tuple(int(p) for p in body.parents), "body")
    rest = body.shaped(None)
    worst = 0.0
    for frame in range(0, len(motion), 5):
        _, joints = body.pose_vertices(*rest, motion.pose[frame], motion.world_from_body[frame])
        source = clip.positions[len(clip) - len(motion) * step + frame * step] @ world_from_clip.T
        for start, end in LIMBS:
            for side in "LR":
                a = joints[ours[f"{end}.{side}"]] - joints[ours[f"{start}.{side}"]]
                b = source[theirs[f"{end}.{side}"]] - source[theirs[f"{start}.{side}"]]
                worst = max(worst, np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))
    return worst


Y_UP = Rotation.from_euler("X", 90, degrees=True).as_matrix()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_limbs_point_where_the_performers_did_in_every_dialect(body, tmp_path, dialect):
    clip, motion = asked(body, write_bvh(tmp_path / "a.bvh", random_frames(), dialect))
    assert largest_angle_deg(clip, motion, body, Y_UP) < 0.5
    assert np.allclose(motion.pose[:, 0], 0)


@pytest.mark.parametrize("name", REAL_FILES)
def test_limbs_point_where_the_performers_did_in_real_files(body, name):
    if not (MOTIONS / name).is_file():
        pytest.skip("../shared/data/motion is absent")
    clip, motion = asked(body, MOTIONS / name)
    step = max(1, round(clip.frames_per_second / motion.frames_per_second))
    assert motion.frames_per_second <= 30.1
    if step == 1:
        assert largest_angle_deg(clip, motion, body, Y_UP) < 0.5
    rest = body.shaped(None)
    lowest = [
        body.pose_vertices(*rest, motion.pose[i], motion.world_from_body[i])[0][:, 2].min()
        for i in range(0, len(motion), 4)
    ]
    assert min(lowest) > -0.06 and np.percentile(lowest, 20) < 0.02  # stands on the floor, not in it and not over it


def test_units_and_place_do_not_matter(body, tmp_path):
    frames = random_frames()
    _, motion = asked(body, write_bvh(tmp_path / "a.bvh", frames))
    text = (tmp_path / "a.bvh").read_text()
    words = text.split("MOTION")[0].split()
    for at, word in enumerate(words):
        if word == "OFFSET":
            words[at + 1 : at + 4] = [str(float(v) * 2.54) for v in words[at + 1 : at + 4]]
    frames[:, :3] = frames[:, :3] * 2.54 + (500, 0, 70)
    rows = "\n".join(" ".join(f"{v:.5f}" for v in row) for row in frames)
    (tmp_path / "b.bvh").write_text(f"{' '.join(words)} MOTION Frames: {len(frames)} Frame Time: 0.04\n{rows}")
    _, moved = asked(body, tmp_path / "b.bvh")
    assert np.allclose(moved.pose, motion.pose, atol=1e-4)
    assert np.allclose(moved.world_from_body, motion.world_from_body, atol=1e-3)


def test_the_rest_pose_stands_upright_with_straight_arms(body, tmp_path):
    frames = np.zeros((8, 48))
    frames[:, 1] = 42
    _, motion = on(body, write_bvh(tmp_path / "a.bvh", frames))
    vertices, joints = body.pose_vertices(*body.shaped(None), motion.pose[3], motion.world_from_body[3])
    index = {name: joints[body.joint_index(name)] for name in ("wrist.L", "wrist.R", "head", "foot.L")}
    assert abs(index["wrist.L"][2] - index["wrist.R"][2]) < 0.01
    assert index["wrist.L"][0] > 0.5 and index["wrist.R"][0] < -0.5  # faces -y, its left is +x
    assert abs(vertices[:, 2].min()) < 0.01 and 1.3 < index["head"][2] < 1.8


def test_fast_clips_are_thinned_and_a_calibration_frame_is_dropped(body, tmp_path):
    frames = np.repeat(random_frames(4), 10, axis=0) + np.linspace(0, 3, 40)[:, None]
    frames[0, 3:] = 0
    _, motion = on(body, write_bvh(tmp_path / "a.bvh", frames, frame_time=1 / 120))
    assert motion.frames_per_second == pytest.approx(30, abs=0.1) and len(motion) == 10
    assert any("calibration" in note for note in motion.notes)


def test_a_jump_leaves_the_floor(body, tmp_path):
    frames = np.zeros((30, 48))
    frames[:, 1] = 42
    frames[12:18, 1] += 15
    _, motion = on(body, write_bvh(tmp_path / "a.bvh", frames))
    lowest = [
        body.pose_vertices(*body.shaped(None), p, w)[0][:, 2].min()
        for p, w in zip(motion.pose, motion.world_from_body, strict=True)
    ]
    assert lowest[15] > 0.2 and abs(lowest[2]) < 0.02 and abs(lowest[27]) < 0.02


def test_amass_moves_the_same_body(body, tmp_path):
    rng = np.random.default_rng(2)
    poses = rng.normal(0, 0.15, (6, 156))
    poses[:, :3] = Rotation.from_euler("X", 90, degrees=True).as_rotvec()
    np.savez(tmp_path / "a.npz", poses=poses, trans=rng.normal(0, 0.1, (6, 3)), mocap_framerate=60.0)
    clip, motion = asked(body, tmp_path / "a.npz")
    assert len(clip.joint_names) == len(SMPL_JOINTS) and motion.frames_per_second == 30
    assert largest_angle_deg(clip, motion, body, np.eye(3), step=2) < 0.5


def nameless(path: Path) -> Path:
    """The same file, its joints called b0, b1, ..."""
    words, count = path.read_text().split(" "), 0
    lines = []
    for line in path.read_text().splitlines():
        words = line.split()
        for at, word in enumerate(words):
            if word in ("ROOT", "JOINT"):
                words[at + 1], count = f"b{count}", count + 1
        lines.append(" ".join(words))
    path.write_text("\n".join(lines))
    return path


def test_limbs_without_names_are_found_by_the_skeletons_shape(body, tmp_path):
    frames = random_frames()
    frames[:, 5 + 3 * 10] = np.abs(frames[:, 5 + 3 * 10]) + 5  # this file has no toes: left and right are in the knees
    for knee in (11, 14):  # X rotation
        frames[:, 6 + 3 * knee - 3 + 1] = 25 + np.arange(len(frames))
    named = find_roles_of(body, write_bvh(tmp_path / "a.bvh", frames))
    shaped = find_roles_of(body, nameless(write_bvh(tmp_path / "b.bvh", frames)))
    assert {role: index for role, index in shaped.items() if role in named and role != "neck"} == {
        role: index for role, index in named.items() if role in shaped and role != "neck"
    }
    assert set(named) - {"neck"} <= set(shaped)


def find_roles_of(body: BodyModel, path: Path) -> dict[str, int]:
    notes: list[str] = []
    roles = _roles_of(load_motion(path), notes)
    assert ("shape" in notes[0]) == (path.name == "b.bvh") and "inches" in notes[-1]
    return roles


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_have_the_same_limbs_with_and_without_their_names(name):
    if not (MOTIONS / name).is_file():
        pytest.skip("../shared/data/motion is absent")
    clip = load_motion(MOTIONS / name)
    named, shaped = find_roles(clip.joint_names, clip.parents, name), roles_by_shape(clip)
    assert shaped is not None
    for role in REQUIRED:
        assert shaped[role] == named[role], role


def test_a_skeleton_without_knees_is_refused_by_name(body, tmp_path):
    path = write_bvh(tmp_path / "a.bvh", random_frames())
    text = path.read_text().replace("mixamorig:LeftLeg", "tentacle")
    path.write_text(text.replace("OFFSET 0 -20 0", "OFFSET 0 -0.1 0"))
    with pytest.raises(UserError, match="left knee") as refused:
        on(body, path)
    assert "\n" not in str(refused.value) and "tentacle" in str(refused.value)


@pytest.mark.parametrize("axes", ["z up", "y up", "y down"])
def test_smpl_poses_in_two_pieces_stand_upright_whatever_the_axes(body, tmp_path, axes):
    rng = np.random.default_rng(2)
    turn = {"z up": 90, "y up": 0, "y down": 180}[axes]
    root = Rotation.from_euler("X", turn, degrees=True).as_rotvec()
    fields = {
        "global_orient": np.tile(root, (6, 1)),
        "body_pose": rng.normal(0, 0.1, (6, 21, 3)),
        "transl": np.zeros((6, 3)),
    }
    np.savez(tmp_path / "a.npz", **fields)
    _, motion = asked(body, tmp_path / "a.npz")
    joints = body.pose_vertices(*body.shaped(None), motion.pose[2], motion.world_from_body[2])[1]
    assert joints[body.joint_index("head")][2] > 1.3
    whole = {"poses": np.concatenate([fields["global_orient"], fields["body_pose"].reshape(6, -1)], 1)}
    np.savez(tmp_path / "b.npz", **whole, trans=np.zeros((6, 3)))
    _, other = asked(body, tmp_path / "b.npz")
    assert np.allclose(motion.pose, other.pose)


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda t: t[: len(t) // 10], "ends"),
        (lambda t: t.replace("Frames: 12", "Frames: 1200"), "1200 frames"),
        (lambda t: t.replace("OFFSET 8 8 0", "OFFSET 8 nan 0"), "finite"),
        (lambda t: t.replace("Xposition", "Wposition"), "wposition"),
        (lambda t: "not a hierarchy", "HIERARCHY"),
        (lambda t: t[:-60] + " x x x x x x x x", "number"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path, damage, word):
    path = write_bvh(tmp_path / "a.bvh", random_frames())
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=word) as refused:
        load_motion(path)
    assert "\n" not in str(refused.value)


def test_other_files_are_refused(tmp_path):
    for name in ("missing.bvh", "dance.fbx"):
        (tmp_path / "dance.fbx").write_text("x")
        with pytest.raises(UserError, match=name.split(".")[0]):
            load_motion(tmp_path / name)
    np.savez(tmp_path / "b.npz", poses=np.zeros((3, 10)), trans=np.zeros((3, 3)))
    with pytest.raises(UserError, match="66"):
        load_motion(tmp_path / "b.npz")


def test_names_have_sides():
    assert ("L", "shldr") in split_side("lShldr")
    assert ("R", "upleg") in split_side("mixamorig:RightUpLeg")
    assert ("L", "upperarm") in split_side("UpperArm_L")
    assert ("R", "upperarm") in split_side("upperarm01.R")
    assert split_side("LowerBack")[0] == ("L", "owerback")  # a reading, but of no word that is known


@pytest.mark.parametrize("offset_deg", [-30.0, 30.0, 5.0])
def test_a_head_bent_throughout_is_levelled_and_a_small_nod_is_kept(offset_deg):
    swing = np.radians(offset_deg + 10 * np.sin(np.linspace(0, 6.28, 60)))
    head = np.array([[[1, 0, 0], [0, np.cos(a), np.sin(a)], [0, -np.sin(a), np.cos(a)]] for a in swing])  # gaze up by a
    pitch = np.degrees(np.arcsin(-level_gaze(head)[:, 2, 1]))
    assert abs(pitch.mean() - (offset_deg if abs(offset_deg) < 15 else 0)) < 0.5
    assert np.ptp(pitch) == pytest.approx(20, abs=0.5)
