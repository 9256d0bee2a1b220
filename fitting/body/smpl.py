"""SMPL and SMPL-X files of the user's own -> BodyModel.  ``python -m fitting.body.smpl IN.pkl OUT.npz`` converts once.

In: a .pkl (SMPL, SMPL+H) or .npz (SMPL-X, SMPL+H) in the formats that the ``smplx`` package reads.  Out: the same
BodyModel as the shipped body: Anny's joint names, parts, atlas, landmarks and joint ranges, made for this mesh.
V vertices, F faces, J joints, S shape coefficients.

A .pkl is untrusted: it is read by a process of its own (``unpickle.py``) that knows only the classes of these files,
and only plain arrays come back.  Files have y up and look along +z; BODY_FROM_SMPL turns that into the body frame.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from capture.errors import BROKEN_NPZ, UserError
from fitting.body.anatomy import (
    PART_NAMES,
    REGION_NAMES,
    face_neighbours,
    face_parts,
    face_regions,
    keep_largest_pieces,
)
from fitting.body.anatomy import mirrored_name as _mirrored
from fitting.body.atlas import build_atlas
from fitting.body.landmarks import MEDIAPIPE_NAMES, regressed_landmarks
from fitting.body.model import MAX_INFLUENCES, BodyModel, strongest
from fitting.body.ranges import joint_tables

MAX_FILE_BYTES = 1_000_000_000  # SMPL-X with all its shapes is half of that
MAX_MEMORY_BYTES = 6_000_000_000
TIMEOUT_S = 180
BODY_FROM_SMPL = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_REQUIRED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")

_BODY_22 = (
    "root", "upperleg01.L", "upperleg01.R", "spine05", "lowerleg01.L", "lowerleg01.R", "spine03", "foot.L", "foot.R",
    "spine01", "toe1-1.L", "toe1-1.R", "neck01", "clavicle.L", "clavicle.R", "head", "upperarm01.L", "upperarm01.R",
    "lowerarm01.L", "lowerarm01.R", "wrist.L", "wrist.R",
)  # fmt: skip
# SMPL's fingers run index, middle, pinky, ring, thumb; MakeHuman counts them from the thumb
_HANDS = tuple(
    f"finger{finger}-{knuckle}.{side}" for side in "LR" for finger in (2, 3, 5, 4, 1) for knuckle in (1, 2, 3)
)
_JOINT_NAMES = {
    24: (*_BODY_22, "hand.L", "hand.R"),
    52: (*_BODY_22, *_HANDS),
    55: (*_BODY_22, "jaw", "eye.L", "eye.R", *_HANDS),
}  # fmt: skip


def load_smpl(path: Path, num_shape: int = 10, seed: int = 0) -> BodyModel:
    """A SMPL, SMPL+H (52 joints) or SMPL-X (55) file as a BodyModel with ``num_shape`` shape coefficients.

    Poses are body-aligned: pose_body = BODY_FROM_SMPL @ pose_smpl for every joint.  ``seed`` is for the packing
    of the atlas.  Raises UserError for a file that is not such a model, too large, damaged, or that tries to run code.
    """
    arrays = read_arrays(path)
    return _convert(arrays, path, num_shape, seed)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The plain number arrays in a model file, by the file's own names.  Raises UserError."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a SMPL .pkl or SMPL-X .npz file") from None
    if size > MAX_FILE_BYTES:
        raise UserError(f"{path}: {size / 1e6:.0f} MB, a body model has at most {MAX_FILE_BYTES / 1e6:.0f} MB")
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "arrays.npz"
        script = Path(__file__).with_name("unpickle.py")
        command = [sys.executable, "-I", str(script), str(path.resolve()), str(target), str(MAX_MEMORY_BYTES)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise UserError(f"{path}: took longer than {TIMEOUT_S} s to read; is it a SMPL model?") from None
        if done.returncode != 0 or not target.exists():
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"reader ended with {done.returncode}"
            raise UserError(f"{path}: not a readable SMPL model ({reason}); download it again from its publisher")
        return _read_npz(target)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """Number arrays of an .npz; pickled members (SMPL-X carries some names that way) are skipped, never loaded."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_MEMORY_BYTES:
            raise UserError(f"{path}: unpacks to {unpacked / 1e9:.0f} GB, not a body model")
        with np.load(path, allow_pickle=False) as data:
            for name in _REQUIRED:
                if name in data.files:
                    arrays[name] = data[name]
    except BROKEN_NPZ as error:
        raise UserError(f"{path}: not a readable model file ({error}); download it again from its publisher") from None
    return arrays


def _convert(arrays: dict[str, np.ndarray], path: Path, num_shape: int, seed: int) -> BodyModel:
    template, shapedirs, posedirs, regressor, weights, tree, faces = _checked(arrays, path)
    V, J = len(template), len(regressor)
    names = _JOINT_NAMES[J]
    R = BODY_FROM_SMPL
    template_m = template @ R.T
    basis_m = np.moveaxis(shapedirs[:, :, :num_shape], 2, 0) @ R.T  # (S, V, 3)
    joints_m = regressor @ template_m
    feet = joints_m[[names.index("foot.L"), names.index("foot.R")]].mean(0)
    origin_m = np.array([feet[0], feet[1], template_m[:, 2].min()])
    template_m, joints_m = template_m - origin_m, joints_m - origin_m
    # rotation features are linear in Rot(pose) - I: turn both of their axes, and the displacement, into the body frame
    pose_basis = posedirs.transpose(2, 0, 1).reshape(J - 1, 3, 3, V, 3)
    pose_basis = np.einsum("ca,db,jabvx,yx->jcdvy", R, R, pose_basis, R, optimize=True).reshape(-1, V, 3)
    weights = strongest(weights, MAX_INFLUENCES)  # SMPL's have at most four entries a vertex, others more
    part = _parts(template_m, faces, weights, names, joints_m)
    landmarks, toes_m = regressed_landmarks(template_m, faces, regressor, weights, names)
    nose_m = landmarks[MEDIAPIPE_NAMES.index("nose")] @ template_m
    uv, face_uv = build_atlas(template_m, faces, part, PART_NAMES, nose_m, None, np.random.default_rng(seed), tries=8)
    tables = joint_tables(names, joints_m, toes_m)
    single: dict[str, Any] = {n: table if table.dtype == bool else _float32(table) for n, table in tables.items()}
    return BodyModel(
        template_m=_float32(template_m),
        shape_basis_m=_float32(basis_m),
        faces=faces.astype(np.int32),
        uv=_float32(uv),
        face_uv=face_uv.astype(np.int32),
        face_part=part.astype(np.uint8),
        part_names=PART_NAMES,
        face_region=face_regions(part),
        region_names=REGION_NAMES,
        joint_names=names,
        parents=tree.astype(np.int32),
        joints_template_m=_float32(joints_m),
        joints_basis_m=_float32(np.einsum("jv,svx->sjx", regressor, basis_m)),
        skin_weights=_float32(weights),
        landmark_names=MEDIAPIPE_NAMES,
        landmark_weights=_float32(landmarks),
        pose_basis_m=_float32(pose_basis),
        **single,
    )


def _checked(arrays: dict[str, np.ndarray], path: Path) -> tuple[np.ndarray, ...]:
    """The model's arrays as float64 / int64, their shapes known to fit.  Raises UserError."""
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise UserError(f"{path}: no {', '.join(missing)} in it; is it a SMPL, SMPL+H or SMPL-X body model?")
    template, shapedirs, posedirs, regressor, weights = (
        np.asarray(arrays[name], float) for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
    )
    tree, faces = (np.asarray(arrays[name]).astype(np.int64) for name in ("kintree_table", "f"))
    V, J = len(template), len(regressor)
    if J not in _JOINT_NAMES:
        raise UserError(f"{path}: {J} joints; SMPL has 24, SMPL+H 52, SMPL-X 55")
    fits = (
        template.shape == (V, 3) and shapedirs.shape[:2] == (V, 3) and posedirs.shape == (V, 3, 9 * (J - 1))
        and regressor.shape == (J, V) and weights.shape == (V, J) and tree.ndim == 2 and tree.shape[1] == J
        and faces.ndim == 2 and faces.shape[1] == 3 and len(faces) > 0
    )  # fmt: skip
    if not fits:
        shapes = ", ".join(f"{name} {np.shape(arrays[name])}" for name in _REQUIRED)
        raise UserError(f"{path}: its arrays do not fit together ({shapes})")
    parents = tree[0].copy()
    parents[0] = -1  # the files say 2^32 - 1
    finite = all(np.isfinite(a).all() for a in (template, shapedirs, posedirs, regressor, weights))
    if not finite or faces.min() < 0 or faces.max() >= V or (parents[1:] >= np.arange(1, J)).any():
        raise UserError(f"{path}: damaged, it has numbers that no body model can have; download it again")
    return template, shapedirs, posedirs, regressor, weights, parents, faces


def _parts(
    template_m: np.ndarray, faces: np.ndarray, weights: np.ndarray, names: tuple[str, ...], joints_m: np.ndarray
) -> np.ndarray:
    """(F,) parts of both halves of a body; the right half is looked at in a mirror."""
    other_side = np.array([names.index(_mirrored(name)) for name in names])
    is_left = template_m[faces][:, :, 0].mean(1) >= 0
    part = np.zeros(len(faces), int)
    part[is_left] = face_parts(template_m, faces[is_left], weights, names, joints_m)
    flip = np.array([-1, 1, 1])
    right = face_parts(
        template_m * flip, faces[~is_left][:, ::-1], weights[:, other_side], names, joints_m[other_side] * flip
    )
    image = np.array([PART_NAMES.index(_mirrored(name)) for name in PART_NAMES])
    part[~is_left] = image[right]
    return keep_largest_pieces(part, face_neighbours(faces))


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def main() -> None:
    """Command line: convert a file once, so that nothing of it has to be read as a pickle again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    try:
        load_smpl(arguments.source).save(arguments.target)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
