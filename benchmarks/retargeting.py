"""Motion capture on our body: do feet slide, do joints break, how far is the pose from what was asked?

    python benchmarks/retargeting.py FILE.bvh ...

One table, two rows per clip: the body as the clip asks for it, and as a person can do it (``rendering.possible``).
Contact: heel or ball near its lowest and hardly moving in the clip, and our sole within 5 cm of the floor.  Slide: how
far the middle of that piece of sole moves over the floor from one frame to the next.  Ranges: frames in which some axis
of some joint is more than a hundredth of a degree beyond the body model's range.  Limbs: angle between our upper arms,
forearms, thighs and shins and those of the clip.  The mean body, 30 frames/s at most, CPU time of one thread.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from fitting.body.model import BodyModel
from rendering.alignment import LIMBS
from rendering.motion import load_motion
from rendering.possible import beyond_range
from rendering.retarget import Asked, Motion, asked_of_us, retarget
from rendering.skeletons import find_roles


def skin_and_limbs(body: BodyModel, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """(N, V, 3) vertices and (N, 8, 3) unit vectors along the limbs."""
    rest, roles = body.shaped(None), find_roles(body.joint_names, tuple(int(p) for p in body.parents), "body")
    ends = [(roles[f"{a}.{side}"], roles[f"{b}.{side}"]) for a, b in LIMBS.items() for side in "LR"]
    skin, limbs = [], []
    for pose, place in zip(motion.pose, motion.world_from_body, strict=True):
        vertices, joints = body.pose_vertices(*rest, pose, place)
        bones = np.array([joints[b] - joints[a] for a, b in ends])
        skin.append(vertices)
        limbs.append(bones / np.linalg.norm(bones, axis=1, keepdims=True))
    return np.array(skin), np.array(limbs)


def slides_mm(skin_m: np.ndarray, asked: Asked) -> np.ndarray:
    """How far each piece of sole slid over the floor, for every two neighbouring frames of a contact."""
    found = []
    for stance in asked.stances:
        step_m = np.diff(skin_m[:, stance.vertices, :2].mean(1), axis=0)
        stands = stance.is_in_contact[1:] & stance.is_in_contact[:-1]
        found.append(1e3 * np.linalg.norm(step_m[stands], axis=1))
    return np.concatenate(found)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    """Print the table."""
    body = BodyModel.default()
    rest = body.shaped(None)
    retarget(load_motion(files[0]), body, *rest)  # compiles
    three = "median / 95th percentile / most"
    print(
        f"| clip | frames | | in contact | slide a frame, {three}, mm | frames beyond a range | "
        f"limbs from the clip's, {three}, degrees | ms a frame |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for path in files:
        clip = load_motion(path)
        start = time.process_time()
        asked = asked_of_us(clip, body, *rest)
        middle = time.process_time()
        done = retarget(clip, body, *rest)
        end = time.process_time()
        wanted = skin_and_limbs(body, asked.motion)[1]
        for name, motion, seconds in (("asked", asked.motion, middle - start), ("possible", done, end - middle)):
            skin_m, limbs = skin_and_limbs(body, motion)
            slid = slides_mm(skin_m, asked)
            share = np.mean([stance.is_in_contact.mean() for stance in asked.stances])
            off = np.degrees(np.arccos(np.clip((limbs * wanted).sum(-1), -1, 1)))
            broken = int((np.degrees(beyond_range(motion.pose, body)) > 0.01).any((1, 2)).sum())
            print(
                f"| {path.name} | {len(motion)} | {name} | {share:.0%} | {np.median(slid):.1f} / "
                f"{np.percentile(slid, 95):.1f} / {slid.max():.1f} | {broken} | {np.median(off):.1f} / "
                f"{np.percentile(off, 95):.1f} / {off.max():.1f} | {1e3 * seconds / len(motion):.1f} |"
            )


if __name__ == "__main__":
    main()
