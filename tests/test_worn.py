"""Who wears whose texels: nothing else changes, nothing is lost, and seams are soft."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from test_avatar import make_avatar

from capture.errors import UserError
from fitting.body.model import BodyModel
from fitting.light import LIGHT_TERMS
from fitting.skirt import Skirt
from rendering.avatar import Avatar, Shape
from rendering.networks import NeuralTexture
from rendering.skin import skin_of
from rendering.worn import CLOTHES, SEAM_M, clothes_of, depth_m, faces_of, morphed, shares_of, spread, worn

TEXELS = 256
EDGE_M = 0.035  # of the coarse body: how far a point of its skin may be from every vertex
PEOPLE = ("ada", "bob", "carol")


@pytest.fixture(scope="module")
def cast() -> Avatar:
    """Three people of the shipped body, untrained, with random looks, figures and clothes."""
    body, rng = BodyModel.default(), np.random.default_rng(0)
    textures, bodies = {}, {}
    for number, name in enumerate(PEOPLE):
        initial = NeuralTexture.shared_initial(TEXELS, 8, seed=number)
        textures[name] = NeuralTexture(initial).requires_grad_(False)
        offsets_m = rng.uniform(0, 0.03, len(body.template_m)).astype(np.float32)
        bodies[name] = Shape(body, rng.normal(0, 0.5, body.num_shape).astype(np.float32), offsets_m)
    settings = {"subjects": list(PEOPLE), "image_wh": [40, 64], "train": make_avatar().settings["train"]}
    return replace(make_avatar(), textures=textures, bodies=bodies, settings=settings)


def texels(avatar: Avatar, name: str) -> np.ndarray:
    return avatar.textures[name].texels.numpy()


def flat(avatar: Avatar, **values: float) -> Avatar:
    """The same people, everyone's texture one number: a mixed texture then shows the shares."""
    for name, value in values.items():
        texture = NeuralTexture(torch.full((TEXELS, TEXELS, 8), value)).requires_grad_(False)
        avatar = avatar.with_subject(name, texture, avatar.bodies[name])
    return avatar


def points_on(shape: Shape, count: int = 20_000) -> tuple[torch.Tensor, np.ndarray]:
    """(N, 2) uv and (N, 3) places at rest of points spread evenly over the skin."""
    rest_m, _ = shape.body.shaped(shape.shape)
    rng, corners = np.random.default_rng(0), rest_m[shape.body.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face = rng.choice(len(area), count, p=area / area.sum())
    weights = rng.dirichlet((1, 1, 1), count)[..., None]
    uv = (shape.body.uv[shape.body.face_uv[face]] * weights).sum(axis=1)
    return torch.from_numpy(uv.astype(np.float32)), (corners[face] * weights).sum(axis=1)


def away_m(shape: Shape, faces: np.ndarray, places_m: np.ndarray) -> np.ndarray:
    """(N,) straight distances to the nearest vertex of some faces; along the skin it is no shorter."""
    rest_m, _ = shape.body.shaped(shape.shape)
    return cKDTree(rest_m[np.unique(shape.body.faces[faces])]).query(places_m)[0]


def test_who_wears_his_own_is_himself_bit_for_bit(cast):
    for regions in ({}, {"torso": "ada"}, dict.fromkeys(CLOTHES, "ada")):
        texture, shape = worn(cast, "ada", regions)
        assert np.array_equal(texture.texels.numpy(), texels(cast, "ada"))
        assert np.array_equal(shape.vertex_offsets_m, cast.bodies["ada"].vertex_offsets_m)


def test_a_region_changes_there_and_in_the_seam_and_nowhere_else(cast):
    shape = cast.bodies["ada"]
    texture, dressed = worn(cast, "ada", {"torso": "bob"})
    uv, places_m = points_on(shape)
    shown = texture.sample(uv).numpy()
    is_ada, is_bob = ((shown == cast.textures[name].sample(uv).numpy()).all(axis=1) for name in ("ada", "bob"))
    is_torso = faces_of(shape.body, "torso")
    from_torso, from_others = away_m(shape, is_torso, places_m), away_m(shape, ~is_torso, places_m)
    reach_m = SEAM_M / 2 + EDGE_M
    assert is_ada[from_torso > reach_m].all() and (from_torso > reach_m).sum() > 5000
    assert is_bob[from_others > reach_m].all() and (from_others > reach_m).sum() > 1000
    assert (~is_ada & ~is_bob).sum() > 300  # the seam itself

    rest_m, _ = shape.body.shaped(shape.shape)
    unchanged = away_m(shape, is_torso, rest_m) > SEAM_M / 2
    offsets_m, own_m = dressed.vertex_offsets_m, shape.vertex_offsets_m
    assert offsets_m is not None and own_m is not None
    assert np.array_equal(offsets_m[unchanged], own_m[unchanged]) and not np.array_equal(offsets_m, own_m)
    assert np.array_equal(dressed.shape, shape.shape)


def test_shares_are_of_one_whole_texel_by_texel(cast):
    same = flat(cast, ada=1.0, bob=1.0, carol=1.0)
    texture, _ = worn(same, "ada", {"torso": "bob", "arms": "carol", "legs": "carol", "feet": "bob"})
    assert np.abs(texture.texels.numpy() - 1).max() < 1e-6
    depth = np.random.default_rng(0).normal(0, 1, (100, 3))
    depth[:, 0] = np.abs(depth[:, 0])  # everything is somebody's
    shares = shares_of(depth)
    assert np.abs(shares.sum(axis=1) - 1).max() < 1e-6 and shares.min() >= 0


@pytest.mark.parametrize("seam_m", [0.04, 0.12])
def test_a_seam_is_as_wide_as_it_was_asked_for(cast, seam_m):
    shape = cast.bodies["ada"]
    rest_m, _ = shape.body.shaped(shape.shape)
    label = faces_of(shape.body, "legs").astype(int)
    share = shares_of(depth_m(shape, label, 2) / seam_m)[:, 1]
    edges = np.concatenate([shape.body.faces[:, [0, 1]], shape.body.faces[:, [1, 2]]])
    step = np.abs(share[edges[:, 0]] - share[edges[:, 1]])
    length_m = np.linalg.norm(rest_m[edges[:, 0]] - rest_m[edges[:, 1]], axis=1)
    assert (step <= 1.5 * length_m / seam_m + 1e-5).all()  # the steepest a smooth step of that width can be
    of_legs = np.unique(shape.body.faces[label == 1])
    others = np.unique(shape.body.faces[label == 0])
    on_border = np.intersect1d(of_legs, others)
    assert np.abs(share[on_border] - 0.5).max() < 1e-6
    away_m = np.linalg.norm(rest_m[:, None] - rest_m[on_border], axis=2).min(axis=1)
    assert set(np.unique(share[away_m > seam_m / 2 + 1e-6])) == {0.0, 1.0}


def test_a_wider_seam_mixes_more_of_the_skin(cast):
    two, (uv, _) = flat(cast, ada=0.0, bob=1.0), points_on(cast.bodies["ada"])
    mixed = []
    for seam_m in (0.06, 0.12, 0.24):
        share = worn(two, "ada", {"legs": "bob"}, seam_m)[0].sample(uv).numpy()
        mixed.append(int(((share > 0.02) & (share < 0.98)).any(axis=1).sum()))
    assert mixed[0] > 0 and 1.5 < mixed[1] / mixed[0] < 2.5 and 1.5 < mixed[2] / mixed[1] < 2.5


def test_the_order_of_regions_does_not_matter_and_the_narrower_word_decides(cast):
    one = {"torso": "bob", "arms": "carol", "lower_arm.L": "ada", "legs": "bob"}
    texture, shape = worn(cast, "ada", one)
    again, other = worn(cast, "ada", dict(reversed(one.items())))
    assert np.array_equal(texture.texels.numpy(), again.texels.numpy())
    assert np.array_equal(shape.vertex_offsets_m, other.vertex_offsets_m)
    by_parts, _ = worn(cast, "ada", {"upper_arm": "bob", "lower_arm": "bob"})
    whole, _ = worn(cast, "ada", {"arms": "bob"})
    assert np.array_equal(by_parts.texels.numpy(), whole.texels.numpy())


def test_everything_of_another_is_the_others_texture_on_ones_own_bones(cast):
    body = cast.bodies["ada"].body
    texture, shape = worn(
        cast, "ada", dict.fromkeys([body.region_names[i] for i in np.unique(body.face_region)], "bob")
    )
    assert np.array_equal(texture.texels.numpy(), texels(cast, "bob"))
    assert np.array_equal(shape.shape, cast.bodies["ada"].shape)


def test_skin_is_what_looks_like_the_hands():
    rng, size = np.random.default_rng(0), 64
    texels = np.zeros((size, size, 8), np.float32)
    texels[..., :3] = (0.5, 0.1, -0.2)
    texels[:, size // 2 :, :3] = (-0.6, -0.2, 0.4)  # cloth on the right
    texels += rng.normal(0, 0.08, texels.shape).astype(np.float32)
    is_hand = np.zeros((size, size), bool)
    is_hand[:12, :12] = True
    skin = skin_of(texels, is_hand, np.ones_like(is_hand))
    assert skin[:, : size // 2 - 4].mean() > 0.75 and skin[:, size // 2 + 4 :].max() == 0
    assert not skin_of(texels, np.zeros_like(is_hand), np.ones_like(is_hand)).any()


def test_a_neckline_shows_ones_own_skin_and_the_others_cloth(cast):
    """Ada is red and her clothes blue, Bob green and his clothes white; both have a low neckline."""
    body = cast.bodies["ada"].body
    rest_m, _ = body.shaped(None)
    torso = np.unique(body.faces[faces_of(body, "torso")])
    head = rest_m[np.unique(body.faces[faces_of(body, "head")])]
    is_cloth = np.zeros((len(rest_m), 1), np.float32)
    is_cloth[torso[cKDTree(head).query(rest_m[torso])[0] > 0.09]] = 1
    cloth = spread(body, is_cloth, TEXELS)
    rng, avatar = np.random.default_rng(0), cast
    for name, skin, clothes in (("ada", (1, -1, -1), (-1, -1, 1)), ("bob", (-1, 1, -1), (1, 1, 1))):
        colors = np.zeros((TEXELS, TEXELS, 8), np.float32)
        colors[..., :3] = np.array(skin) * (1 - cloth) + np.array(clothes) * cloth
        colors += rng.normal(0, 0.05, colors.shape).astype(np.float32)
        texture = NeuralTexture(torch.from_numpy(colors)).requires_grad_(False)
        avatar = avatar.with_subject(name, texture, Shape(body, np.zeros(1, np.float32), None))
    made = {**avatar.settings, "train": {**avatar.settings["train"], "warm_start": True}}
    uv, places_m = points_on(avatar.bodies["ada"])
    is_torso = away_m(avatar.bodies["ada"], ~faces_of(body, "torso"), places_m) > 0.03
    from_head = cKDTree(head).query(places_m)[0]
    neckline, chest = is_torso & (from_head < 0.05), is_torso & (from_head > 0.16)
    assert neckline.sum() > 20 and chest.sum() > 500
    for settings, own in ((made, True), (avatar.settings, False)):
        shown = worn(replace(avatar, settings=settings), "ada", {"torso": "bob"})[0].sample(uv).numpy()[:, :3]
        assert (np.median(shown[neckline], axis=0)[0] > 0.5) == own  # Ada's red
        assert (np.median(shown[chest], axis=0) > 0.8).all()  # Bob's white


def test_a_morph_begins_with_one_and_ends_with_the_other(cast):
    for share, name in ((0.0, "ada"), (1.0, "bob")):
        texture, shape = morphed(cast, "ada", "bob", share)
        assert np.array_equal(texture.texels.numpy(), texels(cast, name))
        assert np.allclose(shape.shape, cast.bodies[name].shape)
        assert np.allclose(shape.vertex_offsets_m, cast.bodies[name].vertex_offsets_m)
    texture, shape = morphed(cast, "ada", "bob", 0.5)
    assert np.allclose(texture.texels.numpy(), (texels(cast, "ada") + texels(cast, "bob")) / 2, atol=1e-6)


def test_clothes_without_offsets_and_with_fit_together(cast):
    bare = cast.bodies["ada"]._replace(vertex_offsets_m=None)
    mixed = cast.with_subject("ada", cast.textures["ada"], bare)
    _, shape = worn(mixed, "ada", {"legs": "bob"})
    head = np.unique(bare.body.faces[faces_of(bare.body, "head")])
    assert shape.vertex_offsets_m is not None and (shape.vertex_offsets_m[head] == 0).all()
    nobody = mixed.with_subject("bob", cast.textures["bob"], bare)
    assert worn(nobody, "ada", {"legs": "bob"})[1].vertex_offsets_m is None


def test_mistakes_are_named(cast):
    with pytest.raises(UserError, match="'dora' is not in this avatar; it has ada, bob, carol"):
        worn(cast, "ada", {"torso": "dora"})
    with pytest.raises(UserError, match="region 'skirt': this body has head, torso, arms"):
        worn(cast, "ada", {"skirt": "bob"})
    small = NeuralTexture(NeuralTexture.shared_initial(16, 8, seed=0)).requires_grad_(False)
    with pytest.raises(UserError, match="bob and ada have bodies with different atlases"):
        worn(cast.with_subject("bob", small, cast.bodies["bob"]), "ada", {"torso": "bob"})


def test_the_clothes_of_a_body_are_regions_it_has(cast):
    body = cast.bodies["ada"].body
    assert clothes_of(body) == CLOTHES
    covered = np.any([faces_of(body, word) for word in clothes_of(body)], axis=0)
    assert not covered[faces_of(body, "head")].any() and not covered[faces_of(body, "hands")].any()


def test_clothes_are_shown_in_the_light_of_their_wearer_and_a_mixture_in_a_mixed_one(cast):
    lights = {name: torch.full((LIGHT_TERMS, 3), value) for name, value in (("ada", 0.4), ("bob", -0.2))}
    lit = cast
    for name, light in lights.items():
        lit = lit.with_subject(name, NeuralTexture(cast.textures[name].texels, light), cast.bodies[name])
    dressed, _ = worn(lit, "ada", {"torso": "bob"})
    assert torch.equal(dressed.light, lights["ada"])
    assert torch.equal(dressed.texels, worn(cast, "ada", {"torso": "bob"})[0].texels)
    assert torch.equal(worn(lit, "bob", {"torso": "ada"})[0].light, lights["bob"])
    torch.testing.assert_close(morphed(lit, "ada", "bob", 0.25)[0].light, torch.full((LIGHT_TERMS, 3), 0.25))
    torch.testing.assert_close(morphed(lit, "ada", "carol", 0.5)[0].light, torch.full((LIGHT_TERMS, 3), 0.2))
    assert worn(lit, "carol", {"torso": "bob"})[0].light is None and morphed(cast, "ada", "bob", 0.5)[0].light is None


def test_clothes_are_outlined_as_their_wearer_is_and_a_mixture_in_between(cast):
    dressy = cast
    for name, outline in (("ada", 0.4), ("bob", -0.2)):
        texture = NeuralTexture.of({"texels": cast.textures[name].texels, "outline": torch.tensor([outline])})
        dressy = dressy.with_subject(name, texture, cast.bodies[name])
    assert worn(dressy, "ada", {"torso": "bob"})[0].outline == dressy.textures["ada"].outline
    assert worn(dressy, "carol", {"torso": "bob"})[0].outline is None
    torch.testing.assert_close(morphed(dressy, "ada", "bob", 0.25)[0].outline, torch.tensor([0.25]))
    torch.testing.assert_close(morphed(dressy, "carol", "ada", 0.5)[0].outline, torch.tensor([0.2]))


# ---------------------------------------------------------------------------------------------------- skirts


@pytest.fixture(scope="module", params=[True, False], ids=["on bones", "on the legs"])
def with_skirt(cast, request) -> Avatar:
    """The same people; bob wears a skirt."""
    own = cast.bodies["bob"]
    skirt = Skirt.of(own.body, own.shape, 0.45, has_bones=request.param)
    assert skirt is not None
    body, offsets_m = skirt.baked(np.where(skirt.is_cloth, 0.05, own.vertex_offsets_m))
    return cast.with_subject("bob", cast.textures["bob"], Shape(body, own.shape, offsets_m.astype(np.float32)))


def test_a_skirt_goes_with_the_legs_it_was_worn_on(cast, with_skirt):
    naked, skirt = with_skirt.bodies["ada"].body, with_skirt.bodies["bob"].body
    legs = np.setdiff1d(naked.faces[faces_of(naked, "lower_leg")], naked.faces[~faces_of(naked, "lower_leg")])
    _, dressed = worn(with_skirt, "ada", {"legs": "bob"})
    for name in ("template_m", "skin_weights"):
        assert not np.array_equal(getattr(naked, name)[legs], getattr(skirt, name)[legs])
        np.testing.assert_allclose(getattr(dressed.body, name)[legs], getattr(skirt, name)[legs], atol=1e-6)
    assert dressed.body.joint_names == skirt.joint_names and dressed.body.bare.joint_names == naked.joint_names
    np.testing.assert_allclose(dressed.body.skin_weights.sum(1), 1, atol=1e-5)
    assert np.array_equal(dressed.shape, with_skirt.bodies["ada"].shape)
    _, shirt = worn(with_skirt, "ada", {"torso": "bob"})
    assert np.array_equal(shirt.body.template_m[legs], naked.template_m[legs])
    _, back = worn(with_skirt, "bob", {"legs": "ada"})
    np.testing.assert_allclose(back.body.template_m[legs], naked.template_m[legs], atol=1e-6)
    assert np.array_equal(worn(cast, "ada", {"legs": "bob"})[1].body.template_m, naked.template_m)


def test_a_skirt_grows_while_one_becomes_the_other(with_skirt):
    first, last = (morphed(with_skirt, "ada", "bob", share)[1] for share in (0.0, 1.0))
    for shape, name in ((first, "ada"), (last, "bob")):
        own = with_skirt.bodies[name]
        np.testing.assert_allclose(shape.body.template_m, own.body.template_m, atol=1e-6)
        pose = random_pose(own.body)
        theirs, ours = (s.body.posed(s.shape, pose, None, s.vertex_offsets_m)[0] for s in (own, shape))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_lent_skirt_hangs_about_the_legs_of_who_wears_it(cast, with_skirt):
    """By a pose of ada's, who has none, with a knee up: the hem goes where it goes on bob."""
    pose = np.zeros((cast.bodies["ada"].body.num_joints, 3))
    pose[cast.bodies["ada"].body.joint_index("upperleg01.L")] = (-1.2, 0, 0)
    _, dressed = worn(with_skirt, "ada", {"legs": "bob"})
    own = with_skirt.bodies["bob"]
    swung = []
    for shape in (dressed, own):
        moved, still = (shape.vertices_camera_m(p, np.eye(4)) for p in (pose, np.zeros_like(pose)))
        rest_m = shape.body.template_m
        front = (np.abs(rest_m[:, 2] - 0.5) < 0.05) & (rest_m[:, 0] > 0.05) & (rest_m[:, 1] < 0)
        front &= (
            shape.body.skin_weights
            != np.pad(shape.body.bare.skin_weights, ((0, 0), (0, shape.body.num_joints - shape.body.bare.num_joints)))
        ).any(1)
        swung.append((moved - still)[front].mean(0))
    assert swung[1][1] < -0.1  # forwards
    np.testing.assert_allclose(swung[0], swung[1], atol=0.03)


def random_pose(body: BodyModel) -> np.ndarray:
    return np.random.default_rng(2).normal(0, 0.2, (body.num_joints, 3))
