"""Colours that stay put: the person's own pattern tells where the surface lies, within a fraction of a pixel.

V vertices, N frames.  Each vertex has one colour over the clip, up to a gain per frame (exposure drifts) and one for
the way it faces (``fitting.light``):

    r = w ((I_i(pi(v)) / (g_i l(n_v)) - c_v),     w^-2 = sigma_noise^2 + sigma_v^2,

linearised in the picture's gradient, so that a frame's colours are rows like all others (``fitting.terms.Rows``).
c_v and its spread sigma_v are means over the teaching frames at the present poses, l is found in them, the gains fit
each frame to them; poses and colours alternate, which is groupwise registration.  It polishes a fit that is right to a
few pixels; it cannot find one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from capture.camera import Camera, distort, pixel_rays
from capture.sampling import evenly
from capture.workers import in_threads
from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import Clip
from fitting.light import LIGHT_TERMS, found_light, gains, light_terms
from fitting.observe import Observation
from fitting.shelf import Shelf
from fitting.solve import State, render_view
from fitting.terms import Rows

FINER = 2  # picture cells per grid cell
SIGMA = 0.06  # of full scale: noise, compression, shading
COUNT = 120.0  # rows of one frame are worth so many independent ones
SIGHTS_BYTES = 350_000_000  # of one blur in memory, 0.7 MB each: those of frames that are solved at once
SAMPLES_BYTES = 500_000_000  # in memory, 0.3 MB each
MIN_FACING = 0.35  # cosine; slanted skin smears
MIN_FRAMES = 8  # a vertex seen less often has no colour to believe
LIGHT_FRAMES = 200  # evenly spread: a light has 24 unknowns
KERNEL = 2.5  # Geman-McClure, in units of sigma: a fold or a shadow is no displacement


@dataclass(frozen=True)
class Sight:
    """A frame's picture around the person."""

    camera: Camera  # the finer grid
    color: np.ndarray  # (h, w, 3) float16 in [0, 1]
    solid: np.ndarray  # (h, w) bool the matte, eroded: no background bleeds in


class Samples:
    """A clip's pictures on finer grids, decoded once for all blurs.

    ``samples[i]`` is (h, w, 3) uint8, None where nobody is.  Later clips of other names for the legs have the same.
    """

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._kept: Shelf[np.ndarray | None] = Shelf(SAMPLES_BYTES, clip.scratch)

    def __getitem__(self, index: int) -> np.ndarray | None:
        return self._kept.get(index, self._sampled)

    def read(self, index: int) -> int:
        """Decode a frame before anybody asks for it; returns ``index``."""
        self[index]
        return index

    def _sampled(self, index: int) -> np.ndarray | None:
        observation, color_camera = self._clip[index], self._clip.camera
        if observation is None:
            return None
        camera = _finer(observation.camera)
        xy = distort(pixel_rays(camera)[..., :2], color_camera.distortion)
        map_x = (xy[..., 0] * color_camera.fx_px + color_camera.cx_px - 0.5).astype(np.float32)
        map_y = (xy[..., 1] * color_camera.fy_px + color_camera.cy_px - 0.5).astype(np.float32)
        cell = color_camera.fx_px / camera.fx_px  # colour pixels per cell
        margin = int(4 * cell) + 2
        left, top = (max(int(m.min()) - margin, 0) for m in (map_x, map_y))
        right, bottom = (int(m.max()) + margin for m in (map_x, map_y))
        picture = self._clip.recording.color(index)[top:bottom, left:right]
        if cell > 1.3:  # mean over the footprint
            picture = cv2.GaussianBlur(picture, (0, 0), 0.4 * cell)
        return cv2.remap(picture, map_x - left, map_y - top, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


class Pictures:
    """The sights of a clip at one blur, made when asked for; longer clips make them again."""

    def __init__(self, clip: Clip, blur_px: float, samples: Samples | None = None) -> None:
        self.clip, self.blur_px, self.samples = clip, blur_px, samples or Samples(clip)
        self._kept: Shelf[Sight] = Shelf(SIGHTS_BYTES)

    def __getitem__(self, index: int) -> Sight:
        return self._kept.get(index, self._look)

    def _look(self, index: int) -> Sight:
        observation, color = self.clip[index], self.samples[index]
        assert observation is not None and color is not None
        return look(color, observation, self.blur_px)


def _finer(grid: Camera) -> Camera:
    width, height = grid.image_wh
    return grid.crop((0, 0, width, height), (width * FINER, height * FINER))


def look(color: np.ndarray, observation: Observation, blur_px: float) -> Sight:
    """A frame's picture as ``Samples`` has it (h, w, 3), blurred, and where it is the person's."""
    camera = _finer(observation.camera)
    color = cv2.GaussianBlur(color.astype(np.float32) / 255, (0, 0), blur_px)
    solid = cv2.resize(observation.mask, camera.image_wh, interpolation=cv2.INTER_LINEAR)
    solid = cv2.erode(solid, np.ones((3, 3), np.uint8), iterations=max(1, round(blur_px)))
    return Sight(camera, color.astype(np.float16), solid > 0.9)


@dataclass(frozen=True)
class Appearance:
    """The colours of a person."""

    color: np.ndarray  # (V, 3) in [0, 1] as seen from the front, NaN where hardly seen
    sigma: np.ndarray  # (V,) their spread over the clip
    gain: dict[int, np.ndarray]  # frame -> (3,)
    light: np.ndarray  # (LIGHT_TERMS, 3)

    def gains(self, index: int, normals: np.ndarray) -> np.ndarray:
        """(K, 3) of what faces along ``normals`` (K, 3) in a frame."""
        return self.gain.get(index, np.ones(3)) * gains(light_terms(normals), self.light)


def learn(
    body: BodyModel,
    chain: Chain,
    clip: Clip,
    states: dict[int, State],
    teachers: Collection[int],
    pictures: Pictures,
) -> Appearance:
    """Colours, spreads and light from the frames ``teachers``, and the gain of every frame, at the poses ``states``."""
    count = chain.num_vertices
    samples: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    normals: dict[int, np.ndarray] = {}

    def seen_in(index: int) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
        sight = pictures[index]
        ids, xy, facing, normal = _visible(body, chain, clip, index, states[index], sight)
        return (ids, _bilinear(sight.color, xy), facing**2), normal.astype(np.float32)

    for index, found in zip(states, in_threads(seen_in, states), strict=True):
        samples[index], normals[index] = found
    light = _light_of(samples, normals, [index for index in samples if index in teachers])
    shade = {index: gains(light_terms(normal), light).astype(np.float32) for index, normal in normals.items()}
    gain = {index: np.ones(3) for index in samples}
    color = np.full((count, 3), np.nan)
    sigma = np.full(count, np.nan)
    for _ in range(3):
        total, squares, weight, seen = np.zeros((count, 3)), np.zeros(count), np.zeros(count), np.zeros(count)
        for index, (ids, values, share) in samples.items():
            if index not in teachers:
                continue
            even = values / (gain[index] * shade[index])
            total[ids] += share[:, None] * even
            squares[ids] += share * (even**2).mean(1)
            weight[ids] += share
            seen[ids] += 1
        known = seen >= MIN_FRAMES
        color = np.where(known[:, None], total / np.maximum(weight, 1e-9)[:, None], np.nan)
        sigma = np.sqrt(np.maximum(squares / np.maximum(weight, 1e-9) - (color**2).mean(1), 0))
        for index, (ids, values, share) in samples.items():
            use = known[ids]
            c, v = color[ids[use]] * shade[index][use], values[use]
            w = (share[use] / (SIGMA**2 + sigma[ids[use]] ** 2))[:, None]
            if len(c) > 30:
                gain[index] = np.clip((w * c * v).sum(0) / np.maximum((w * c * c).sum(0), 1e-9), 0.5, 2.0)
    return Appearance(color, sigma, gain, light)


def _light_of(
    samples: Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray]],
    normals: Mapping[int, np.ndarray],
    indices: Sequence[int],
) -> np.ndarray:
    """(LIGHT_TERMS, 3) the light in the frames ``indices``, or as many of them as are enough."""
    if not indices:
        return np.zeros((LIGHT_TERMS, 3))
    parts = []
    for index in evenly(indices, LIGHT_FRAMES).tolist():
        ids, values, share = samples[index]
        parts.append((ids.astype(np.int64), np.full(len(ids), index), share, light_terms(normals[index]), values))
    return found_light(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def color_rows(
    body: BodyModel, chain: Chain, clip: Clip, index: int, state: State, sight: Sight, appearance: Appearance
) -> Rows:
    """Rows of one frame: the displacement along the picture's gradient that would explain the colour, per channel."""
    ids, xy, facing, normals = _visible(body, chain, clip, index, state, sight)
    known = np.isfinite(appearance.color[ids, 0])
    ids, xy, facing = ids[known], xy[known], facing[known]
    gain = appearance.gains(index, normals[known])  # (K, 3)
    difference = _bilinear(sight.color, xy) / gain - appearance.color[ids]
    ahead = [_bilinear(sight.color, xy + step) - _bilinear(sight.color, xy - step) for step in np.eye(2)]
    gradient = np.stack(ahead, axis=-1) * (FINER / 2) / gain[..., None]
    steep = np.linalg.norm(gradient, axis=2)  # (K, 3) per grid pixel
    row, channel = np.nonzero(steep > 0.01)
    slope = gradient[row, channel]  # (R, 2)
    grid_px = xy[row] / FINER
    target = grid_px - slope * (difference[row, channel] / steep[row, channel] ** 2)[:, None]
    sigma = np.hypot(SIGMA, appearance.sigma[ids[row]])
    scale = np.sqrt(min(1.0, COUNT / max(len(row), 1)))
    weight = facing[row] * scale / sigma
    zero = np.zeros((len(row), 1))
    return Rows(
        ids[row].astype(np.int32),
        np.ones(len(row), bool),
        np.concatenate([slope, zero], 1),
        np.concatenate([target, zero], 1),
        weight,
        np.full(len(row), KERNEL * scale),
    )


def _visible(
    body: BodyModel, chain: Chain, clip: Clip, index: int, state: State, sight: Sight
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (K,) in plain view inside the matte, their place (K, 2) on the finer grid, their facing (K,), and their
    normals (K, 3)."""
    observation = clip[index]
    assert observation is not None
    vertices_m = chain.posed(state.pose, state.camera_from_body)[: chain.num_vertices]
    view = render_view(observation, vertices_m, body.faces)
    ids = np.flatnonzero(view.visible)
    v = vertices_m[ids]
    facing = -(view.normals[ids] * v).sum(1) / np.linalg.norm(v, axis=1)
    camera = sight.camera
    xy = v[:, :2] / v[:, 2:] * (camera.fx_px, camera.fy_px) + (camera.cx_px, camera.cy_px)
    height, width = sight.solid.shape
    inside = (xy > 2).all(1) & (xy[:, 0] < width - 3) & (xy[:, 1] < height - 3) & (facing > MIN_FACING)
    ids, xy, facing = ids[inside], xy[inside], facing[inside]
    solid = sight.solid[xy[:, 1].astype(int), xy[:, 0].astype(int)]
    return ids[solid], xy[solid], facing[solid], view.normals[ids[solid]]


def _bilinear(plane: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(K, C) of a plane (h, w, C) at positions (K, 2) in its pixels, centres at + 0.5."""
    x, y = xy[:, 0] - 0.5, xy[:, 1] - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    a, b = (x - left)[:, None], (y - top)[:, None]  # float64: what is kept in half precision is not summed in it
    upper = plane[top, left] * (1 - a) + plane[top, left + 1] * a
    lower = plane[top + 1, left] * (1 - a) + plane[top + 1, left + 1] * a
    return upper * (1 - b) + lower * b
