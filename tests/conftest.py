"""The shipped body, its chain at the mean shape, and an eye on the light that people are painted in."""

import os
from collections import Counter

import numpy as np
import pytest

from fitting.body.model import BodyModel
from fitting.chain import Chain
from rehearsal import SWITCH

os.environ[SWITCH] = "0"  # the tests' own runs are many and short
# Files of few tests that take long begin first: a file is one process', and the last one keeps the others waiting.
SLOW = (
    *("test_ranks", "test_kinect_recording", "test_shape", "test_rehearsal", "test_viewer_page", "test_mask_gain"),
    *("test_loose_clothes", "test_recall", "test_tasks"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow files, then those of many tests."""
    count = Counter(item.path.stem for item in items)
    place = {name: k for k, name in enumerate(SLOW)}
    items.sort(key=lambda item: (place.get(item.path.stem, len(SLOW)), -count[item.path.stem]))


@pytest.fixture(scope="session")
def body() -> BodyModel:
    return BodyModel.default()


@pytest.fixture(scope="session")
def chain(body: BodyModel) -> Chain:
    return Chain.build(body, *body.shaped(np.zeros(body.num_shape)))


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """(camera_from_body (3, 3), light_from_body (3, 3)) of everybody that ``Avatar.layer`` paints from now on."""
    from rendering.avatar import Avatar  # here: most tests need no torch

    found, layer = [], Avatar.layer

    def watched(avatar, subject, pose, camera_from_body, camera, crop_box=None, lit_from_camera=None, with_depth=False):
        assert lit_from_camera is not None
        found.append((camera_from_body[:3, :3], lit_from_camera @ camera_from_body[:3, :3]))
        return layer(avatar, subject, pose, camera_from_body, camera, crop_box, lit_from_camera, with_depth)

    monkeypatch.setattr(Avatar, "layer", watched)
    return found
