"""Closed-form matting and the guided filter on few pixels are those on all."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from test_matting import figure, picture, rough

from capture.closed_form import guided, solved


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(picture (H, W, 3), prior (H, W), which pixels are free (H, W)); the rim reaches the edge of the picture."""
    color, prior = picture(figure())[28:], rough(figure())[28:]
    return color, prior, (prior > 0.05) & (prior < 0.95)


def test_the_solution_is_that_of_the_whole_laplacian():
    matting = pytest.importorskip("pymatting")
    from scipy.sparse import diags
    from scipy.sparse.linalg import spsolve

    color, prior, is_free = scene()
    trust = np.full(prior.shape, 0.01)
    trust[:, ::2] = 0.1
    laplacian = matting.cf_laplacian(color / 255.0, 1e-5, 1).tocsr()
    free, fixed = np.flatnonzero(is_free), np.flatnonzero(~is_free)
    weight = trust.ravel()[free]
    right = weight * prior.ravel()[free] - laplacian[free][:, fixed] @ prior.ravel()[fixed]
    expected = spsolve((laplacian[free][:, free] + diags(weight)).tocsc(), right)
    found = solved(color, prior, is_free, trust, 1e-5)
    assert np.abs(prior.ravel()[free] - expected).max() > 0.2
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert np.abs(found - expected).mean() < 1e-3
    assert len(solved(color, prior, np.zeros_like(is_free), trust, 1e-5)) == 0


def test_the_guided_filter_is_that_of_the_whole_picture():
    color, prior, is_free = scene()
    inner = np.s_[5:-5, 5:-5]  # OpenCV mirrors the picture at its edge
    expected = cv2.ximgproc.guidedFilter(guide=color, src=prior, radius=2, eps=25.0)
    found = guided(color, prior, is_free, 2, 25.0)
    assert np.abs(expected - prior)[inner][is_free[inner]].max() > 0.05
    np.testing.assert_allclose(found[inner][is_free[inner]], expected[inner][is_free[inner]], atol=1e-3)
    np.testing.assert_array_equal(found[~is_free], prior[~is_free])
