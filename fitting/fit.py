"""Stage 03: the body in every frame.  Shape once, pose per frame.

In: 01_recording, 02_masks.  Out, in 03_fit:

    fit.npz         the arrays of BodyFit by these names
    fit.json        colour camera to believe, notes, per-clip figures
    body.npz        the body model that was fitted, in a skirt where there is one
    keypoints.npz   the landmarks that were found, before passages exchange the legs' names (legs)
    overlay.mp4, overlay/000000.jpg   the fit over the pictures
    residuals.svg, worst/000043.jpg   how well it fits over the clip, and the frames to look at first

N frames, J joints, V vertices, S shape coefficients.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from capture.camera import Camera
from capture.errors import BROKEN_NPZ, UserError
from capture.files import encode_jpeg, write_atomically
from capture.matting import Masks
from capture.progress import progress
from capture.recording import Recording
from capture.sampling import evenly
from capture.video import VideoWriter
from capture.workers import in_threads
from fitting import verdict
from fitting.body.model import BodyModel
from fitting.clip import Clip, heldout_from
from fitting.evidence import Evidence
from fitting.keypoints import Keypoints
from fitting.landmarkers import AUTO, MEDIAPIPE, check_choice, in_words, landmarks
from fitting.limbs import ENDS, LIMBS, parts_of_limbs
from fitting.mirror import margins, until_clear
from fitting.overlay import draw_overlay
from fitting.passes import Found, all_figures, fit_clip
from fitting.residuals import write_residuals
from fitting.shape import body_height_m, estimate_focal, solve_shape, spread_frames
from fitting.solve import State

log = logging.getLogger(__name__)

LIMB_NAMES = tuple(LIMBS)
SHORT_M, TALL_M = 0.5, 2.5  # what a person's height may be
AS_GIVEN_M = 0.01
STILL_PX = 900
FOCAL_ROUNDS = 3


@dataclass(frozen=True)
class FitConfig:
    """Settings of stage 03."""

    # "default", a BodyModel .npz, or an SMPL / SMPL-X file of your own, whose content then counts for the identity
    body: str = field(default="default", metadata={"file": True})
    # "auto", "mediapipe", a folder of OpenPose's files, or a PoseLandmarker .task file (see fitting/landmarkers.py)
    keypoints: str = field(default=AUTO, metadata={"file": True, "words": (AUTO, MEDIAPIPE)})
    # of the frames with somebody in them, from the start; the rest is held out, here as in training: it is given poses,
    # but teaches neither shape nor clothes nor colours
    train_fraction: float = 0.8
    shape_frames: int = 14  # shape needs variety, not numbers: beyond a dozen it does not move
    shape_rounds: int = 5
    height_m: float = 0.0  # body height when you know it; 0 = from depth, or the mean adult
    vertex_offsets: bool = True  # clothes, hair and skirts as a static surface; off = the bare body
    offset_rounds: int = 2
    colors: bool = True  # polish the poses by the colours that stay put on the person
    overlay_frames: int = 12  # stills for the report

    def __post_init__(self) -> None:
        check_choice(self.keypoints)
        if self.height_m and not SHORT_M <= self.height_m <= TALL_M:
            metres = f"; did you mean {self.height_m / 100:g}?" if SHORT_M <= self.height_m / 100 <= TALL_M else ""
            raise UserError(
                f"fit.height_m = {self.height_m:g}: metres, from {SHORT_M:g} to {TALL_M:g}, or 0 to measure{metres}"
            )
        if not 0 < self.train_fraction < 1:
            raise UserError(f"fit.train_fraction = {self.train_fraction}: must lie between 0 and 1, as 0.8 does")


@dataclass(frozen=True)
class BodyFit:
    """The body in every frame; NaN where lost, not to be trusted where uncertain.

    A skirt's surface goes on below its hem in ``body``; the figures are of one that ends there.
    """

    shape: np.ndarray  # (S,)
    pose: np.ndarray  # (N, J, 3) axis-angle
    camera_from_body: np.ndarray  # (N, 4, 4)
    joints_color_m: np.ndarray  # (N, J, 3)
    joint_names: tuple[str, ...]
    vertex_offsets_m: np.ndarray  # (V,) outwards at rest
    residual_mm: np.ndarray  # (N,) median depth distance, NaN without depth
    keypoint_px: np.ndarray  # (N,) median landmark error, colour pixels
    silhouette_iou: np.ndarray  # (N,)
    status: tuple[str, ...]  # (N,) "tracked", "uncertain" (has a pose, but teaches nothing) or "lost"
    reason: tuple[str, ...]  # (N,) what speaks against a frame, or against a limb of it; "" where nothing does
    limb_doubted: np.ndarray  # (N, 4) bool by LIMB_NAMES: in frames that are tracked, limbs that teach nothing
    body: BodyModel
    camera: Camera
    notes: tuple[str, ...]
    first_heldout: int  # this frame and all after it taught nothing: they may measure

    def __len__(self) -> int:
        return len(self.pose)

    @cached_property
    def tracked(self) -> np.ndarray:
        """(N,) bool: the frames to learn from and to measure on."""
        return np.array([status == verdict.TRACKED for status in self.status], bool)

    @property
    def part_doubted(self) -> np.ndarray:
        """(N, P) bool: the parts of the body that teach nothing, by the numbers of ``body.part_names``."""
        doubted = np.zeros((len(self), len(self.body.part_names)), bool)
        for own, parts in zip(self.limb_doubted.T, parts_of_limbs(self.body).values(), strict=True):
            doubted[np.ix_(own, parts)] = True
        return doubted

    def vertices_color_m(self, index: int) -> np.ndarray:
        """(V, 3) posed vertices of one frame in the colour camera's frame; NaN where lost."""
        vertices_m, _ = self.body.posed(
            self.shape, self.pose[index], self.camera_from_body[index], self.vertex_offsets_m
        )
        return vertices_m

    def save(self, folder: Path) -> None:
        """Write fit.npz, body.npz and, last, fit.json."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            shape=self.shape,
            pose=self.pose,
            camera_from_body=self.camera_from_body,
            joints_color_m=self.joints_color_m,
            joint_names=np.array(self.joint_names),
            vertex_offsets_m=self.vertex_offsets_m,
            residual_mm=self.residual_mm,
            keypoint_px=self.keypoint_px,
            silhouette_iou=self.silhouette_iou,
            status=np.array(self.status, dtype=np.str_),
            tracked=self.tracked,  # says nothing that status does not, but is what a short script wants
            reason=np.array(self.reason, dtype=np.str_),
            limb_doubted=self.limb_doubted,
            limb_names=np.array(LIMB_NAMES),
        )
        write_atomically(folder / "fit.npz", buffer.getvalue())
        self.body.save(folder / "body.npz")
        fields = {"camera": self.camera.to_json(), "notes": list(self.notes), "first_heldout": self.first_heldout}
        write_atomically(folder / "fit.json", json.dumps(fields, indent=1).encode())

    @staticmethod
    def load(folder: Path) -> BodyFit:
        """Open a fit.  Raises UserError when the folder holds none."""
        try:
            fields = json.loads((folder / "fit.json").read_text())
            with np.load(folder / "fit.npz", allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: no readable fit ({error}); run the fit stage again") from None
        tracked = arrays.pop("tracked")
        arrays.setdefault("status", np.where(tracked, verdict.TRACKED, verdict.LOST))  # before there was doubt
        arrays.setdefault("limb_doubted", np.zeros((len(tracked), len(LIMB_NAMES)), bool))  # frames as a whole only
        arrays.pop("limb_names", None)
        for name in ("joint_names", "status", "reason"):
            arrays[name] = tuple(str(text) for text in arrays[name])
        return BodyFit(
            **arrays,
            body=BodyModel.load(folder / "body.npz"),
            camera=Camera.from_json(fields["camera"]),
            notes=tuple(fields["notes"]),
            first_heldout=fields["first_heldout"],
        )


def fit(config: FitConfig, out_dir: Path, recording_dir: Path, masks_dir: Path) -> None:
    """Track the body through a recording.

    Raises UserError when no frame can be tracked at all.
    """
    scratch = out_dir / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    try:
        # Thousands of products of small matrices: threads cost more than they bring, and sum in no fixed order.
        with threadpool_limits(1, "blas"):
            _fit(config, out_dir, recording_dir, masks_dir, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fit(config: FitConfig, out_dir: Path, recording_dir: Path, masks_dir: Path, scratch: Path) -> None:
    recording, masks = Recording.load(recording_dir), Masks.load(masks_dir)
    body = load_body(config.body)
    keypoints = _keypoints(config, out_dir, recording, masks)
    if not keypoints.found.any():
        raise UserError(
            f"{recording.source}: nobody was recognised in any of {len(recording)} frames; film a whole person"
        )
    notes = [in_words(config.keypoints, recording)]
    first_heldout = heldout_from(keypoints.found, config.train_fraction)
    clip = Clip(recording, masks, keypoints, recording.rig.color, first_heldout, scratch)
    clip = _with_focal(config, body, clip, notes)
    shape = _solve_shape(config, body, clip, notes)

    found = fit_clip(body, shape, clip, config.offset_rounds, config.vertex_offsets, config.colors)
    offsets_m = found.clothes.dressed[1]
    if config.vertex_offsets:
        notes.append(f"clothes and hair: vertex offsets up to {1e3 * np.abs(offsets_m).max():.0f} mm")
    if found.clothes.skirt is not None:
        notes.append(f"a skirt, down to {found.clothes.skirt.hem_m:.2f} m above the floor")

    result = _collect(found, notes)
    if not result.tracked.any():
        raise UserError(
            f"{recording.source}: the body could not be tracked in any of {len(recording)} frames "
            f"({result.reason[0]}); film one whole person, facing the camera at first"
        )
    roomy, offsets_m = found.clothes.with_room().dressed
    if roomy.under is not None:
        result = replace(result, body=replace(roomy, hemmed=found.clothes.on_legs().body), vertex_offsets_m=offsets_m)
    for note in notes:
        log.info("%s", note)
    write_overlays(config, out_dir, recording, keypoints, result)
    write_residuals(out_dir, recording, keypoints.points_px, result)
    result.save(out_dir)


def load_body(name: str) -> BodyModel:
    """The shipped body, a saved BodyModel, or an SMPL / SMPL-X file of the user's."""
    if name == "default":
        return BodyModel.default()
    path = Path(name)
    if not path.exists():
        raise UserError(f"fit.body = {name}: no such file; use 'default' or the path of a body model")
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                is_ours = "template_m" in file.files
        except BROKEN_NPZ as error:
            raise UserError(f"fit.body = {name}: not a readable archive ({error}); copy it again") from None
        if is_ours:
            return BodyModel.load(path).bare
    from fitting.body.smpl import load_smpl

    return load_smpl(path)


def write_overlays(
    config: FitConfig, out_dir: Path, recording: Recording, keypoints: Keypoints, fitted: BodyFit
) -> None:
    """overlay.mp4 of all frames and a few stills."""
    (out_dir / "overlay").mkdir(exist_ok=True)
    stills = set(evenly(range(len(fitted)), config.overlay_frames).tolist())
    doubted = fitted.part_doubted

    def drawn(i: int) -> tuple[np.ndarray, bytes | None]:
        """A frame of the film, and its still where it is to have one."""
        status, words = fitted.status[i], fitted.reason[i] or f"IoU {fitted.silhouette_iou[i]:.2f}"
        vertices_m = fitted.vertices_color_m(i) if status != verdict.LOST else None
        caption = f"{i}  " + (f"{status}: {words}" if fitted.reason[i] else words)
        seen = recording.color(i), fitted.camera, fitted.body, vertices_m, keypoints.points_px[i], caption
        pale = np.flatnonzero(doubted[i])
        still = encode_jpeg(draw_overlay(*seen, STILL_PX, pale), 88) if i in stills else None
        return draw_overlay(*seen, pale_parts=pale), still

    pictures = progress(in_threads(drawn, range(len(fitted))), "overlay", len(fitted))
    with VideoWriter(out_dir / "overlay.mp4", recording.frames_per_second, crf=23) as video:
        for i, (picture, still) in enumerate(pictures):
            video.add(picture)
            if still is not None:
                write_atomically(out_dir / "overlay" / f"{i:06d}.jpg", still)


def _keypoints(config: FitConfig, out_dir: Path, recording: Recording, masks: Masks) -> Keypoints:
    path = out_dir / "keypoints.npz"
    if path.exists():  # left by an interrupted run of the same identity
        return Keypoints.load(path)
    keypoints = landmarks(config.keypoints, recording, masks.__getitem__)
    keypoints.save(path)
    return keypoints


def _with_focal(config: FitConfig, body: BodyModel, clip: Clip, notes: list[str]) -> Clip:
    if clip.recording.focal_is_known:
        return clip
    camera, note = estimate_focal(body, clip, spread_frames(clip, config.shape_frames), FOCAL_ROUNDS)
    notes.append(note)
    return replace(clip, camera=camera)


def _solve_shape(config: FitConfig, body: BodyModel, clip: Clip, notes: list[str]) -> np.ndarray:
    frames = spread_frames(clip, config.shape_frames)
    shape, _ = solve_shape(body, clip, frames, config.height_m or None, config.shape_rounds)
    height_m = body_height_m(body, shape)
    source = "from depth" if any(clip.recording.has_depth) else "assumed adult"
    if config.height_m:
        is_met = abs(height_m - config.height_m) < AS_GIVEN_M
        source = "as given" if is_met else f"the body model's nearest to {config.height_m:g} as given"
    notes.append(f"body height {height_m:.3f} m ({source})")
    return shape


def _collect(found: Found, notes: list[str]) -> BodyFit:
    clothes, clip, states = found.clothes, found.clip, found.states
    (body, offsets_m), chain, shape = clothes.dressed, clothes.chain, clothes.shape
    count, joints = len(clip), body.num_joints
    pose = np.full((count, joints, 3), np.nan)
    placed = np.full((count, 4, 4), np.nan)
    joints_m = np.full((count, joints, 3), np.nan)
    height_m = body_height_m(body, shape)
    by_frame = all_figures(body, chain, clip, states, height_m)
    figures = [by_frame.get(i) for i in range(count)]
    ahead = np.full((count, 3), np.nan)
    for i, state in states.items():
        landmarks_m = chain.posed(state.pose, state.camera_from_body)[chain.num_vertices :]
        ahead[i] = verdict.trunk_ahead(landmarks_m)
        pose[i], placed[i] = state.pose, state.camera_from_body
        joints_m[i] = chain.transforms(state.pose, state.camera_from_body)[2]
    asked = {i: verdict.in_question(frame) for i, frame in enumerate(figures) if frame is not None}
    if any(asked.values()):
        legs = clothes.on_legs()  # a skirt on bones fits over legs that are anywhere
        bare = {i: State(s.pose[: body.num_skeleton], s.camera_from_body) for i, s in states.items()}
        raw, _ = margins(Evidence.of(legs.body, legs.chain, clip, bare, found.samples), bare, count, asked)
        figures = _with_margins(figures, until_clear(raw, clip.step_s))
    verdicts = verdict.judge_clip(figures, ahead, joints_m, dict(zip(ENDS, chain.limbs, strict=True)))
    is_lost = np.array([judged.status == verdict.LOST for judged in verdicts])
    for array in (pose, placed, joints_m):
        array[is_lost] = np.nan
    measured = [frame or verdict.NOTHING for frame in figures]
    return BodyFit(
        shape=shape,
        pose=pose,
        camera_from_body=placed,
        joints_color_m=joints_m,
        joint_names=body.joint_names,
        vertex_offsets_m=offsets_m,
        residual_mm=np.array([frame.depth_mm for frame in measured]),
        keypoint_px=np.array([frame.landmark_px for frame in measured]),
        silhouette_iou=np.array([frame.silhouette_iou for frame in measured]),
        status=tuple(judged.status for judged in verdicts),
        reason=tuple(judged.words if figures[i] else clip.why_unseen(i) for i, judged in enumerate(verdicts)),
        limb_doubted=np.array([[name in judged.limbs for name in LIMB_NAMES] for judged in verdicts], bool),
        body=body,
        camera=clip.camera,
        notes=tuple(notes),
        first_heldout=clip.num_teaching,
    )


def _with_margins(figures: list[verdict.Figures | None], by_limb: np.ndarray) -> list[verdict.Figures | None]:
    """The figures, with the margins of their limbs (N, 4)."""
    of_name = dict(zip(ENDS, by_limb.T, strict=True))
    return [
        frame and replace(frame, limbs=tuple(replace(b, margin=float(of_name[b.name][i])) for b in frame.limbs))
        for i, frame in enumerate(figures)
    ]
