"""The shipped body and its chain at the mean shape."""

import numpy as np
import pytest

from fitting.body.model import BodyModel
from fitting.chain import Chain


@pytest.fixture(scope="session")
def body() -> BodyModel:
    return BodyModel.default()


@pytest.fixture(scope="session")
def chain(body: BodyModel) -> Chain:
    return Chain.build(body, *body.shaped(np.zeros(body.num_shape)))
