"""The default subject: a synthetic performer filmed by a simulated Kinect V2, with ground truth.

N frames, H x W colour pixels.  Enters: a ``DemoConfig``.  Leaves: a recording (``capture.recording``) and beside it

    ground_truth/masks/000000.png   (H, W) uint8, the true soft alpha
    ground_truth/joints.npz         joints_cam_m (N, K, 3) metres in the colour camera's frame, names (K,) Mixamo's

Everything follows from the seed: the same settings give the same bytes.
"""

from __future__ import annotations

import multiprocessing
import shutil
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from capture.camera import invert, transform
from capture.errors import UserError
from capture.files import encode_jpeg, encode_png, write_atomically
from capture.progress import progress
from capture.recording import RecordingWriter
from capture.workers import num_cores, start_worker
from demo import renderer, room, sensor
from demo.character import PERFORMERS, Character
from demo.choreography import score
from demo.cloth import Cloth
from demo.hair import swing_tail
from demo.motion import Actor

STEPS_PER_S = 45.0  # cloth is simulated at least this finely
CAMERA_HEIGHT_M, CAMERA_DISTANCE_M, CAMERA_PITCH = 1.08, 2.62, 0.022
MIXAMO = {
    "Hips": "root", "Spine2": "spine01", "Neck": "neck01", "Head": "head",
    **{
        f"{side}{name}": f"{bone}.{side[0]}"
        for side in ("Left", "Right")
        for name, bone in (
            ("UpLeg", "upperleg01"), ("Leg", "lowerleg01"), ("Foot", "foot"), ("Shoulder", "clavicle"),
            ("Arm", "upperarm01"), ("ForeArm", "lowerarm01"), ("Hand", "wrist"),
        )
    },
}  # fmt: skip


@dataclass(frozen=True)
class DemoConfig:
    num_frames: int = 120  # eight seconds: a whole turn, arms, a knee, a squat, and a held-out end
    frames_per_second: float = 15.0  # half the sensor's rate: the same motion in half the frames
    seed: int = 0  # sensor noise, idle sway and, past eight seconds, the choreography
    performer: str = field(default="demo", metadata={"late": True})  # who: "demo" or "dana"
    with_depth: bool = True  # False films a plain colour video
    num_workers: int = field(default=2, metadata={"cosmetic": True})  # processes that render frames


def film(config: DemoConfig, out_dir: Path) -> None:
    """Film the performer into ``out_dir``.

    Raises UserError for a clip without frames, a rate outside 1 to 60 frames a second, or a performer who is not there.
    """
    if config.num_frames < 1:
        raise UserError(f"demo.num_frames = {config.num_frames}: film at least one frame")
    if not 1 <= config.frames_per_second <= 60:
        raise UserError(f"demo.frames_per_second = {config.frames_per_second}: choose between 1 and 60")
    character = cast(config)
    scratch = out_dir / "scratch_film"
    masks = out_dir / "ground_truth" / "masks"
    for folder in (scratch, masks):
        folder.mkdir(parents=True, exist_ok=True)
    rig = sensor.rig()
    who = "performer" if config.performer == "demo" else config.performer
    writer = RecordingWriter(out_dir, rig, f"demo {who}, seed {config.seed}")
    with _crew(config) as crew:
        # The room is drawn while the motion is played.
        room_is_built = crew.submit(build_set, config, scratch)
        joints_m = act(config, character, scratch)
        room_is_built.result()
        shots = crew.map(_film, [(config, scratch, index) for index in range(config.num_frames)])
        frames = progress(shots, "film", total=config.num_frames)
        try:
            for index, (color, depth_mm, mask) in enumerate(frames):
                writer.add(index / config.frames_per_second, color, depth_mm)
                (masks / f"{index:06d}.png").write_bytes(mask)
        except BaseException:
            crew.shutdown(wait=False, cancel_futures=True)  # nobody waits for the frames that were not filmed yet
            raise
    _write_joints(out_dir / "ground_truth" / "joints.npz", character, joints_m)
    shutil.rmtree(scratch)
    writer.finish()


def cast(config: DemoConfig) -> Character:
    """The performer.  Raises UserError for one who is not there."""
    if config.performer not in PERFORMERS:
        raise UserError(f"demo.performer = {config.performer}: there are {', '.join(PERFORMERS)}")
    return Character.load(PERFORMERS[config.performer])


def act(config: DemoConfig, character: Character, scratch: Path) -> np.ndarray:
    """Play the whole motion, cloth included, and leave it in ``scratch``; returns joints (N, J, 3) in the world."""
    worlds, sub_steps, rate_hz = play(config, character)
    worlds = swing_tail(character, worlds, 1 / rate_hz)
    hanging = Cloth(character).hang(worlds, 1 / rate_hz)[::sub_steps]
    worlds = worlds[::sub_steps]
    np.save(scratch / "worlds.npy", worlds)
    np.save(scratch / "cloth.npy", hanging)
    return worlds[:, :, :3, 3]


def play(config: DemoConfig, character: Character) -> tuple[np.ndarray, int, float]:
    """The skeleton's motion, pony tail and cloth aside: bone transforms (T, J, 4, 4), samples per frame and second."""
    sub_steps = max(int(np.ceil(STEPS_PER_S / config.frames_per_second)), 1)
    rate_hz = sub_steps * config.frames_per_second
    script = score(config.num_frames / config.frames_per_second, config.seed, rate_hz)
    actor = Actor(character, script)
    samples = (config.num_frames - 1) * sub_steps + 1
    worlds = np.stack([character.bone_transforms(*actor.pose(sample)) for sample in range(samples)])
    return worlds, sub_steps, rate_hz


def build_set(config: DemoConfig, scratch: Path) -> None:
    """Leave the empty room as both cameras see it in ``scratch``."""
    color_from_world, depth_from_world = camera_poses()
    room.look(sensor.COLOR, invert(color_from_world)).save(scratch / "room.npz")
    if config.with_depth:
        samples = sensor.DEPTH_SAMPLES
        wh = (sensor.DEPTH.image_wh[0] * samples, sensor.DEPTH.image_wh[1] * samples)
        np.save(scratch / "room_depth.npy", np.stack(room.measure(sensor.DEPTH.resize(wh), invert(depth_from_world))))


def camera_poses() -> tuple[np.ndarray, np.ndarray]:
    """(4, 4) color_from_world and depth_from_world."""
    world_from_color = np.eye(4)
    sine, cosine = np.sin(CAMERA_PITCH), np.cos(CAMERA_PITCH)
    # Columns: the camera's right, down and forward axes in the world.
    world_from_color[:3, :3] = np.array([[1, 0, 0], [0, -sine, cosine], [0, -cosine, -sine]])
    world_from_color[:3, 3] = (0, -CAMERA_DISTANCE_M, CAMERA_HEIGHT_M)
    color_from_world = invert(world_from_color)
    depth_from_color = sensor.rig().depth_from_color
    assert depth_from_color is not None
    return color_from_world, depth_from_color @ color_from_world


class Studio:
    """Room, cameras and performer in one process; films any frame by its index."""

    def __init__(self, config: DemoConfig, scratch: Path, character: Character) -> None:
        """``scratch``: where ``act`` and ``build_set`` left what they made."""
        self._config = config
        self._character = character
        self._cloth_vertices = np.flatnonzero(self._character.layer > 0)
        self._worlds = np.load(scratch / "worlds.npy")
        self._cloth = np.load(scratch / "cloth.npy")
        self._color_from_world, self._depth_from_world = camera_poses()
        self._backdrop = room.Backdrop.load(scratch / "room.npz")
        self._pool = sensor.noise_pool(config.seed)
        if config.with_depth:
            self._behind = np.load(scratch / "room_depth.npy")
            self._lamp = sensor.vignette(sensor.DEPTH, sensor.DEPTH_SAMPLES)

    def shot(self, index: int) -> renderer.Shot:
        world = np.array(self._worlds[index])
        vertices_m = self._character.skin(world)
        vertices_m[self._cloth_vertices] = self._cloth[index]
        return renderer.prepare(self._character, vertices_m, world[:, :3, 3])

    def film(self, index: int) -> tuple[bytes, np.ndarray | None, bytes]:
        """A frame's JPEG, its depth image in millimetres, and the PNG of its true alpha."""
        rng = np.random.default_rng([self._config.seed, 4, index])
        shot = self.shot(index)
        light, alpha = renderer.draw_color(self._character, shot, sensor.COLOR, self._color_from_world, self._backdrop)
        color = sensor.develop(light, self._pool, rng)
        mask = encode_png((alpha * 255 + 0.5).astype(np.uint8))
        depth_mm = self._sense(shot, rng) if self._config.with_depth else None
        return encode_jpeg(color), depth_mm, mask

    def _sense(self, shot: renderer.Shot, rng: np.random.Generator) -> np.ndarray:
        z, reflect = renderer.draw_depth(
            self._character, shot, sensor.DEPTH, self._depth_from_world, sensor.DEPTH_SAMPLES
        )
        behind_z, behind_reflect = self._behind
        is_near = z < behind_z
        return sensor.sense_depth(
            np.where(is_near, z, behind_z), np.where(is_near, reflect, behind_reflect), self._lamp, rng
        )


def _crew(config: DemoConfig) -> Executor:
    """Worker processes, or a single thread where they would not pay."""
    workers = min(config.num_workers, num_cores(), config.num_frames // 8)
    if workers < 2:
        return ThreadPoolExecutor(1)
    # spawn, not fork: the caller may hold threads (torch, OpenMP) that do not survive a fork.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=start_worker)


_studio: tuple[tuple, Studio] | None = None  # the one this process last used


def _film(job: tuple[DemoConfig, Path, int]) -> tuple[bytes, np.ndarray | None, bytes]:
    global _studio
    config, scratch, index = job
    if _studio is None or _studio[0] != (config, scratch):
        _studio = ((config, scratch), Studio(config, scratch, cast(config)))
    return _studio[1].film(index)


def _write_joints(path: Path, character: Character, joints_world_m: np.ndarray) -> None:
    color_from_world, _ = camera_poses()
    joints = transform(color_from_world, joints_world_m[:, [character.joint(bone) for bone in MIXAMO.values()]])
    import io

    buffer = io.BytesIO()
    np.savez(buffer, joints_cam_m=joints.astype(np.float32), names=np.array(list(MIXAMO)))
    write_atomically(path, buffer.getvalue())
