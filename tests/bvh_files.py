"""BVH files for tests: a person whose joints have the names of one or the other convention."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MOTIONS = Path(__file__).parents[2] / "shared" / "data" / "motion"

# A person of 20 + 20 + 2 units of leg, y up, in a T pose; the names are filled in, so that dialects can be tried.
BVH = """HIERARCHY
ROOT {hips}
{{ OFFSET 0 0 0 CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT {chest} {{ OFFSET 0 24 0 CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT {head} {{ OFFSET 0 12 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site {{ OFFSET 0 8 0 }} }}
    JOINT {armL} {{ OFFSET 8 8 0 CHANNELS 3 Zrotation Xrotation Yrotation
      JOINT {elbowL} {{ OFFSET 12 0 0 CHANNELS 3 Zrotation Xrotation Yrotation
        JOINT {handL} {{ OFFSET 11 0 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site {{ OFFSET 4 0 0 }} }} }} }}
    JOINT {armR} {{ OFFSET -8 8 0 CHANNELS 3 Zrotation Xrotation Yrotation
      JOINT {elbowR} {{ OFFSET -12 0 0 CHANNELS 3 Zrotation Xrotation Yrotation
        JOINT {handR} {{ OFFSET -11 0 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site {{ OFFSET -4 0 0 }} }} }} }}
  }}
  JOINT {legL} {{ OFFSET 4 0 0 CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT {kneeL} {{ OFFSET 0 -20 0 CHANNELS 3 Zrotation Xrotation Yrotation
      JOINT {footL} {{ OFFSET 0 -20 0 CHANNELS 3 Zrotation Xrotation Yrotation
        End Site {{ OFFSET 0 -2 6 }} }} }} }}
  JOINT {legR} {{ OFFSET -4 0 0 CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT {kneeR} {{ OFFSET 0 -20 0 CHANNELS 3 Zrotation Xrotation Yrotation
      JOINT {footR} {{ OFFSET 0 -20 0 CHANNELS 3 Zrotation Xrotation Yrotation
        End Site {{ OFFSET 0 -2 6 }} }} }} }} }}
MOTION
Frames: {count}
Frame Time: {frame_time}
{frames}
"""
DIALECTS = {
    "mixamo": ("Hips Spine Head LeftArm LeftForeArm LeftHand RightArm RightForeArm RightHand "
               "LeftUpLeg LeftLeg LeftFoot RightUpLeg RightLeg RightFoot", "mixamorig:"),
    "cmu": ("hip chest head lShldr lForeArm lHand rShldr rForeArm rHand lThigh lShin lFoot rThigh rShin rFoot", ""),
    "bandai": ("Hips Spine Head UpperArm_L LowerArm_L Hand_L UpperArm_R LowerArm_R Hand_R "
               "UpperLeg_L LowerLeg_L Foot_L UpperLeg_R LowerLeg_R Foot_R", "joint_"),
    "smpl": ("pelvis spine3 head left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist "
             "left_hip left_knee left_ankle right_hip right_knee right_ankle", ""),
}  # fmt: skip
KEYS = (
    "hips", "chest", "head", "armL", "elbowL", "handL", "armR", "elbowR", "handR",
    "legL", "kneeL", "footL", "legR", "kneeR", "footR",
)  # fmt: skip
REAL_FILES = ("02_03.bvh", "49_04.bvh", "dataset-1_dance-short_normal_001.bvh", "neutral_01_000.bvh")


def write_bvh(path: Path, frames: np.ndarray, dialect: str = "mixamo", frame_time: float = 0.04) -> Path:
    names, prefix = DIALECTS[dialect]
    fields = {key: prefix + name for key, name in zip(KEYS, names.split(), strict=True)}
    text = "\n".join(" ".join(f"{v:.5f}" for v in row) for row in frames)
    path.write_text(BVH.format(count=len(frames), frame_time=frame_time, frames=text, **fields))
    return path


def random_frames(count: int = 12) -> np.ndarray:
    """(count, 48): the root at (100, 42, -30) and gentle turns everywhere, degrees."""
    rng = np.random.default_rng(1)
    frames = rng.normal(0, 12, (count, 6 + 3 * 14)) * np.linspace(0.6, 1, count)[:, None]
    frames[:, :3] = (100, 42, -30)
    return frames
