"""Other colours, the same performer."""

from __future__ import annotations

import numpy as np
import pytest

from demo.character import PERFORMERS, Character
from demo.dye import CLOTH, SKIN, dyed


@pytest.mark.parametrize("name", sorted(PERFORMERS))
def test_everything_but_the_eyes_has_other_colours_and_its_pattern(name: str) -> None:
    character = Character.load(PERFORMERS[name])
    others = [dyed(character, np.random.default_rng(seed)).textures for seed in range(3)]
    for material, before, *after in zip(character.materials, character.textures, *others, strict=True):
        assert all(picture.shape == before.shape and picture.dtype == np.uint8 for picture in after)
        if material == "eye":
            assert all(np.array_equal(picture, before) for picture in after)
            continue
        assert max(np.abs(picture.astype(int) - before).mean() for picture in after) > 20, material
        if material != "hair":  # which is nearly one colour
            gray = [picture.mean(axis=2).ravel() for picture in (before, *after)]
            assert all(np.corrcoef(gray[0], other)[0, 1] > 0.5 for other in gray[1:]), material


def test_colours_stay_where_people_and_cloth_have_them() -> None:
    character = Character.load()
    found: dict[str, list[float]] = {"skin": [], "shirt": []}
    for seed in range(6):
        other = dyed(character, np.random.default_rng(seed))
        means = {m: t.mean() / 255 for m, t in zip(other.materials, other.textures, strict=True)}
        assert SKIN[0] - 0.05 < means["skin"] < SKIN[1] + 0.05
        assert CLOTH[0] - 0.1 < means["shirt"] < CLOTH[1] + 0.1
        for material, seen in found.items():
            seen.append(means[material])
    for (least, most), seen in zip((SKIN, CLOTH), found.values(), strict=True):  # and are not all the same there
        assert max(seen) - min(seen) > 0.4 * (most - least)


def test_the_seed_decides() -> None:
    character = Character.load()
    one, again, other = (dyed(character, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one.textures, again.textures, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one.textures, other.textures, strict=True))
    assert one.faces is character.faces
