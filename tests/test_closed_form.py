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
    wanted = np.flatnonzero(is_free)
    inner = np.zeros_like(is_free)
    inner[5:-5, 5:-5] = True  # OpenCV mirrors the picture at its edge
    inner = inner.ravel()[wanted]
    expected = cv2.ximgproc.guidedFilter(guide=color, src=prior, radius=2, eps=25.0).ravel()[wanted]
    found = guided(color, prior, color, wanted, 2, 25.0)
    assert np.abs(expected - prior.ravel()[wanted])[inner].max() > 0.05
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-3)
    assert len(guided(color, prior, color, np.empty(0, np.int64), 2, 25.0)) == 0


def test_the_guided_filter_follows_the_edges_of_a_larger_picture():
    color, _, _ = scene()
    color = color[: color.shape[0] // 2 * 2, : color.shape[1] // 2 * 2]
    # Alpha is a linear function of the colour: the filter must find it in the reduced picture, and the finer edges with
    # it, which enlarging alpha alone does not.
    true_alpha = (color[..., 0] / 255.0 * 0.5 + color[..., 1] / 255.0 * 0.3 + 0.1).astype(np.float32)
    small = tuple(n // 2 for n in color.shape[1::-1])
    guide, alpha = (cv2.resize(image, small, interpolation=cv2.INTER_AREA) for image in (color, true_alpha))
    wanted = np.arange(true_alpha.size)
    found = guided(guide, alpha, color, wanted, 1, 1e-4)
    enlarged = cv2.resize(alpha, color.shape[1::-1], interpolation=cv2.INTER_LINEAR).ravel()
    wrong, before = np.abs(found - true_alpha.ravel()), np.abs(enlarged - true_alpha.ravel())
    assert before.max() > 0.1
    assert wrong.max() < 0.1 * before.max()
    some = wanted[::7]
    np.testing.assert_array_equal(guided(guide, alpha, color, some, 1, 1e-4), found[some])
