"""The demo subject: plausible motion, cloth outside the body, a sensor that errs like a real one, honest truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from capture.camera import project, transform, unproject
from capture.errors import UserError
from capture.files import read_gray
from capture.pose_network import PoseNetwork
from capture.recording import Recording
from demo import sensor
from demo.character import PERFORMER, PERFORMERS, Character
from demo.choreography import ARM_CHANNELS, score
from demo.cloth import Cloth
from demo.depth_statistics import describe
from demo.hair import swing_tail
from demo.motion import Actor
from demo.performer import DemoConfig, camera_poses, cast, film
from demo.renderer import SURFACES

REAL_DEPTH = Path(__file__).parents[2] / "shared" / "data" / "kinect_v2_depth"
RATE_HZ = 15.0
SHORT = DemoConfig(num_frames=8, frames_per_second=1.25, num_workers=1)  # all of the motion in eight frames


@pytest.fixture(scope="module")
def character() -> Character:
    return Character.load()


@pytest.fixture(scope="module")
def worlds(character) -> np.ndarray:
    """(120, J, 4, 4) the demo's eight seconds."""
    actor = Actor(character, score(8.0, 0, RATE_HZ))
    return np.stack([character.bone_transforms(*actor.pose(i)) for i in range(120)])


@pytest.fixture(scope="module")
def filmed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "filmed"
    folder.mkdir()
    film(SHORT, folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def truth(folder: Path) -> tuple[np.ndarray, list[str]]:
    with np.load(folder / "ground_truth" / "joints.npz", allow_pickle=False) as arrays:
        return arrays["joints_cam_m"], [str(n) for n in arrays["names"]]


# The film -----------------------------------------------------------------------------------------------------------


def test_the_same_settings_give_the_same_bytes_however_many_workers(filmed, tmp_path):
    film(DemoConfig(num_frames=8, frames_per_second=1.25, num_workers=2), tmp_path)
    assert contents(tmp_path) == contents(filmed)


def test_the_film_is_a_recording_of_both_cameras(filmed):
    recording = Recording.load(filmed)
    assert len(recording) == 8 and recording.frames_per_second == pytest.approx(1.25)
    frame = recording[3]
    assert frame.color.shape == (1080, 1920, 3)
    assert frame.depth_mm is not None and frame.depth_mm.shape == (424, 512)
    assert 0.5 < (frame.depth_mm > 0).mean() < 0.999
    assert recording.rig.depth_from_color[0, 3] == pytest.approx(-sensor.BASELINE_M, abs=1e-6)
    assert not list(filmed.glob("scratch*"))


def test_joints_lie_on_the_mask(filmed):
    joints, names = truth(filmed)
    inner = [names.index(s + n) for s in ("Left", "Right") for n in ("UpLeg", "Arm", "Leg", "ForeArm", "Foot")]
    pixels = project(sensor.COLOR, joints[:, inner])
    inside = []
    for index in range(len(joints)):
        alpha = read_gray(filmed / "ground_truth" / "masks" / f"{index:06d}.png")
        u, v = pixels[index].astype(int).T
        inside.append(alpha[v, u] == 255)
    assert np.mean(inside) > 0.98


def test_masks_are_soft_at_the_edge_and_solid_inside(filmed):
    import cv2

    alpha = read_gray(filmed / "ground_truth" / "masks" / "000000.png")
    assert alpha.shape == (1080, 1920)
    solid, soft = alpha == 255, (alpha > 0) & (alpha < 255)
    assert 0.05 < solid.mean() < 0.15
    border = cv2.dilate(solid.astype(np.uint8), np.ones((5, 5))) - cv2.erode(solid.astype(np.uint8), np.ones((5, 5)))
    assert 0.005 < soft.sum() / solid.sum() < 0.1
    assert (border[soft] == 1).mean() > 0.99


def test_depth_and_colour_see_the_same_person(filmed):
    recording = Recording.load(filmed)
    color_from_depth = np.linalg.inv(recording.rig.depth_from_color)
    for index in (0, 3, 6):
        points = transform(color_from_depth, unproject(recording.rig.depth, recording.depth_mm(index)))
        joints, _ = truth(filmed)
        near = np.linalg.norm(points[:, :, None, :] - joints[index][None, None], axis=3).min(axis=2) < 0.10
        u, v = project(recording.rig.color, points[near]).astype(int).T
        alpha = read_gray(filmed / "ground_truth" / "masks" / f"{index:06d}.png")
        is_floor = points[near][:, 1] > joints[index][:, 1].max() + 0.05
        assert near.sum() > 1000
        assert (alpha[v, u][~is_floor] > 0).mean() > 0.97


def test_a_pose_detector_sees_her_in_every_frame(filmed):
    """MediaPipe, which the fit uses: found everywhere, and with her left on her left while she faces the camera."""
    recording = Recording.load(filmed)
    joints, names = truth(filmed)
    with PoseNetwork(static_image_mode=True) as model:
        for index in range(len(recording)):
            found = model.process(recording.color(index)).pose_landmarks
            assert found is not None, index
            shoulders = np.array([(found.landmark[i].x * 1920, found.landmark[i].y * 1080) for i in (11, 12)])
            true = project(sensor.COLOR, joints[index][[names.index("LeftArm"), names.index("RightArm")]])
            if true[0, 0] > true[1, 0] + 60:
                assert np.linalg.norm(shoulders - true, axis=1).max() < 45, index


def test_exposure_is_steady(filmed):
    recording = Recording.load(filmed)
    corner = [recording.color(i)[100:300, 300:600].mean(axis=(0, 1)) for i in range(len(recording))]
    assert np.ptp(corner, axis=0).max() < 0.5


def test_another_seed_is_another_film_and_a_plain_video_has_no_depth(filmed, tmp_path):
    film(DemoConfig(num_frames=1, seed=1, with_depth=False), tmp_path)
    assert Recording.load(tmp_path).color_bytes(0) != Recording.load(filmed).color_bytes(0)
    assert Recording.load(tmp_path)[0].depth_mm is None


@pytest.mark.parametrize("bad", [{"num_frames": 0}, {"frames_per_second": 0.1}, {"frames_per_second": 600.0}])
def test_impossible_films_are_refused_by_name(bad, tmp_path):
    (name,) = bad
    with pytest.raises(UserError, match=f"demo.{name}"):
        film(DemoConfig(**bad), tmp_path)


# The performer ------------------------------------------------------------------------------------------------------


def test_the_shipped_performer_is_small_and_sound(character):
    assert PERFORMER.stat().st_size < 2_000_000
    assert np.isfinite(character.vertices_m).all()
    assert character.faces.max() < len(character.vertices_m) and character.face_uv.max() < len(character.uv)
    assert (character.joint_parents < np.arange(len(character.joint_parents))).all()
    assert set(np.unique(character.layer)) == {0, 1, 2}


def test_clothes_and_hair_stand_off_the_body(character):
    cloth = np.flatnonzero(character.layer > 0)
    gap = np.linalg.norm(character.vertices_m[cloth] - character.under_m, axis=1)
    assert np.percentile(gap, 50) > 0.008 and gap.max() > 0.015


def test_the_demo_turns_once_and_stays_in_view_of_both_cameras(character, worlds):
    across = worlds[:, character.joint("upperleg01.L"), :3, 3] - worlds[:, character.joint("upperleg01.R"), :3, 3]
    heading = np.degrees(np.unwrap(np.arctan2(across[:, 1], across[:, 0])))
    assert heading.max() - heading[0] > 345 and abs(heading[0]) < 10
    for camera, camera_from_world in zip((sensor.COLOR, sensor.DEPTH), camera_poses(), strict=True):
        for world in worlds[::4]:
            pixels = project(camera, transform(camera_from_world, character.skin(world)))
            assert (pixels > 4).all() and (pixels < np.array(camera.image_wh) - 4).all()


@pytest.fixture(scope="module")
def dana() -> Character:
    return Character.load(PERFORMERS["dana"])


def test_the_second_performer_is_smaller_to_ship_sound_and_somebody_else(character, dana):
    assert PERFORMERS["dana"].stat().st_size < PERFORMER.stat().st_size
    assert np.isfinite(dana.vertices_m).all()
    assert dana.faces.max() < len(dana.vertices_m) and dana.face_uv.max() < len(dana.uv)
    assert set(dana.materials) <= set(SURFACES) and set(np.unique(dana.layer)) == {0, 1}
    heights_m = [who.vertices_m[np.unique(who.faces[who.material == 0]), 2].max() for who in (character, dana)]
    assert heights_m[0] - heights_m[1] > 0.05
    for material in ("skin", "hair", "shirt", "shoe"):
        colors = [who.textures[who.materials.index(material)].mean(axis=(0, 1)) for who in (character, dana)]
        assert np.linalg.norm(colors[0] - colors[1]) > 15, material


def test_the_second_performer_stays_in_view_and_her_shirt_over_her_trousers(dana):
    actor = Actor(dana, score(8.0, 0, RATE_HZ))
    worlds = np.stack([dana.bone_transforms(*actor.pose(i)) for i in range(120)])
    assert swing_tail(dana, worlds, 1 / RATE_HZ) is worlds  # no pony tail
    for camera, camera_from_world in zip((sensor.COLOR, sensor.DEPTH), camera_poses(), strict=True):
        for world in worlds[::8]:
            pixels = project(camera, transform(camera_from_world, dana.skin(world)))
            assert (pixels > 4).all() and (pixels < np.array(camera.image_wh) - 4).all()
    cloth = Cloth(dana)
    hanging = cloth.hang(worlds[:12], 1 / RATE_HZ)[-1]
    target, under = cloth.skinned(worlds[11])
    out = (target - under) / np.linalg.norm(target - under, axis=1, keepdims=True)
    off_m = ((hanging - under) * out).sum(axis=1)
    assert np.percentile(off_m, 1) > 0 and np.median(off_m) > 0.004


def test_who_is_filmed_is_a_setting(character, dana, tmp_path):
    for name, who in (("demo", character), ("dana", dana)):
        assert np.array_equal(cast(DemoConfig(performer=name)).vertices_m, who.vertices_m)
    assert np.array_equal(cast(DemoConfig()).vertices_m, character.vertices_m)
    with pytest.raises(UserError, match="there are demo, dana"):
        film(DemoConfig(performer="nobody"), tmp_path)


def test_motion_is_smooth_and_feet_do_not_skate(character):
    rate_hz = 60.0
    actor = Actor(character, score(8.0, 0, rate_hz))
    joints = np.stack([character.bone_transforms(*actor.pose(i))[:, :3, 3] for i in range(480)])
    speed = np.linalg.norm(np.diff(joints, axis=0), axis=2) * rate_hz
    assert speed.max() < 6.0  # metres a second; a fast wave of the hand
    for side in "LR":
        ankle = joints[:, character.joint(f"foot.{side}")]
        planted = ankle[:-1, 2] < ankle[:, 2].min() + 0.002
        assert planted.mean() > 0.3
        assert np.percentile(speed[planted][:, character.joint(f"foot.{side}")], 80) < 0.05
        assert ankle[:, 2].min() > 0.05


def test_bones_keep_their_lengths(character, worlds):
    joints = worlds[:, :, :3, 3]
    for side in "LR":
        for a, b in (("upperleg01", "lowerleg01"), ("lowerleg01", "foot"), ("upperarm01", "lowerarm01")):
            i, j = character.joint(f"{a}.{side}"), character.joint(f"{b}.{side}")
            length = np.linalg.norm(joints[:, i] - joints[:, j], axis=1)
            assert length == pytest.approx(np.linalg.norm(character.joints_m[i] - character.joints_m[j]), abs=1e-9)


def test_held_out_poses_are_spanned_by_the_training_part(worlds):
    script = score(8.0, 0, RATE_HZ)
    for name in ARM_CHANNELS:
        train, held_out = script.channels[name][:96], script.channels[name][96:120]
        assert held_out.min() > train.min() - 0.12 and held_out.max() < train.max() + 0.12
    heading = np.degrees(script.channels["yaw"]) % 360
    for angle in heading[96:120]:  # every view of the held-out part was seen, to a few degrees
        assert np.abs((heading[:96] - angle + 180) % 360 - 180).min() < 8
    poses = np.stack([script.channels[name] for name in ARM_CHANNELS], axis=1)
    nearest = np.linalg.norm(poses[96:120, None] - poses[None, :96], axis=2).min(axis=1)
    assert nearest.max() > 0.4  # and yet it is no repetition


def test_a_longer_clip_goes_on_moving_and_follows_the_seed():
    first, again, other = (score(20.0, seed, RATE_HZ) for seed in (3, 3, 4))
    late = first.times_s > 9
    assert np.ptp(first.channels["elevation.L"][late]) > 0.5 and np.ptp(first.feet_m[late]) > 0.05
    for name, series in first.channels.items():
        np.testing.assert_array_equal(series, again.channels[name])
    assert any(np.abs(first.channels[n] - other.channels[n])[late].max() > 0.2 for n in ARM_CHANNELS)


def test_cloth_stays_outside_the_legs_and_does_not_stretch(character):
    actor = Actor(character, score(6.3, 0, 45.0))
    stretch = slice(200, 283)  # the lifted knee and the squat
    worlds = np.stack([character.bone_transforms(*actor.pose(i)) for i in range(stretch.start, stretch.stop)])
    cloth = Cloth(character)
    hanging = cloth.hang(worlds, 1 / 45.0)
    below = np.flatnonzero(cloth.meets_legs & cloth.is_skirt & (cloth.attach < 0.05))
    for sample in range(0, len(worlds), 8):
        ends = cloth.capsule_ends(worlds[sample])
        for (a, b), capsule in zip(ends, cloth.capsules, strict=True):
            points = hanging[sample][below] - a
            t = (points @ (b - a) / ((b - a) @ (b - a))).clip(0, 1)
            radius = capsule.radii_m[0] + t * (capsule.radii_m[1] - capsule.radii_m[0])
            assert (np.linalg.norm(points - t[:, None] * (b - a), axis=1) - radius).min() > -0.004
        i, j = cloth.springs[cloth.is_skirt[cloth.springs].all(axis=1)].T
        rest = character.vertices_m[cloth.vertices]
        stretched = np.linalg.norm(hanging[sample][i] - hanging[sample][j], axis=1)
        ratio = stretched / np.linalg.norm(rest[i] - rest[j], axis=1)
        assert np.median(ratio) == pytest.approx(1, abs=0.06) and np.percentile(ratio, 99) < 2.0


def test_cloth_swings_after_the_body(character):
    """A sudden turn: the hem arrives later than the hips."""
    angles = np.minimum(np.arange(60) / 15, 1.0)
    rest = np.tile(np.eye(3), (len(character.joint_names), 1, 1))
    roots = []
    for angle in angles:
        root = np.eye(4)
        root[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        root[:3, 3] = character.joints_m[0]
        roots.append(root)
    worlds = np.stack([character.bone_transforms(rest, root) for root in roots])
    cloth = Cloth(character)
    hanging = cloth.hang(worlds, 1 / 45.0)
    hem = np.flatnonzero(cloth.is_skirt & (character.vertices_m[cloth.vertices][:, 2] < 0.46))
    lag = []
    for sample in (15, 59):
        carried = cloth.skinned(worlds[sample])[0][hem]
        forward = np.stack([-carried[:, 1], carried[:, 0]], axis=1)
        forward /= np.linalg.norm(forward, axis=1, keepdims=True)
        lag.append(((carried - hanging[sample][hem])[:, :2] * forward).sum(1).mean())
    assert lag[0] - lag[1] > 0.006  # metres behind where it comes to rest


# The sensor ---------------------------------------------------------------------------------------------------------


def flat_wall(z_m: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    samples = sensor.DEPTH_SAMPLES
    shape = (424 * samples, 512 * samples)
    return np.full(shape, z_m, np.float32), np.full(shape, 0.7, np.float32), sensor.vignette(sensor.DEPTH, samples)


@pytest.mark.parametrize("z_m", [1.0, 2.0, 3.2])
def test_depth_of_a_wall_is_unbiased_and_noisy(z_m):
    depth_mm = sensor.sense_depth(*flat_wall(z_m), np.random.default_rng(0))
    middle = depth_mm[150:270, 180:330].astype(float)
    assert (middle > 0).all()
    assert middle.mean() == pytest.approx(z_m * 1000, abs=0.5)
    assert 1.2 < middle.std() < 5.0


def test_an_edge_leaves_a_hole_wider_on_the_emitters_far_side():
    z, reflect, lamp = flat_wall(3.0)
    z[:, 600:900] = 1.2
    depth_mm = sensor.sense_depth(z, reflect, lamp, np.random.default_rng(0))
    statistics = describe([depth_mm])
    assert statistics["gap_px_left_median"] > statistics["gap_px_right_median"] >= 1
    assert 0.05 < statistics["flying_per_edge"] < 0.8


def test_a_black_surface_gives_no_return():
    z, reflect, lamp = flat_wall(2.5)
    reflect[:, 700:900] = 0.01
    depth_mm = sensor.sense_depth(z, reflect, lamp, np.random.default_rng(0))
    assert (depth_mm[100:300, 240:295] == 0).mean() > 0.95 and (depth_mm[100:300, 100:200] > 0).all()


def test_simulated_errors_match_the_real_sensors(filmed):
    if not REAL_DEPTH.exists():
        pytest.skip("no real Kinect V2 frames at ../shared/data/kinect_v2_depth")
    real = describe(np.load(path) for path in sorted(REAL_DEPTH.glob("*.npy")))
    recording = Recording.load(filmed)
    simulated = describe(recording.depth_mm(i) for i in range(len(recording)))
    for name in ("noise_mm_1.6_2.0", "noise_mm_2.0_2.5", "noise_mm_2.5_3.0", "noise_mm_3.0_3.5"):
        assert simulated[name] == pytest.approx(real[name], rel=0.3), name
    assert simulated["noise_correlation"] == pytest.approx(real["noise_correlation"], abs=0.1)
    for side in ("left", "right"):
        assert simulated[f"gap_px_{side}_median"] == pytest.approx(real[f"gap_px_{side}_median"], abs=1)
        assert simulated[f"no_gap_share_{side}"] < 0.2
    assert 0.5 < simulated["flying_per_edge"] / real["flying_per_edge"] < 2
    assert simulated["pinhole_share"] < 0.002
