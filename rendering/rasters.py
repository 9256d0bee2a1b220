"""Stage 05: what the networks eat, rasterised once per frame and kept small.

N recorded frames, H x W raster pixels, K covered pixels, R runs of neighbouring covered pixels.  Enter: the fit.
Leave: for every frame a person crop of the colour camera and the part, uv and normal of its covered pixels.

    rasters.json       raster size, colour image size, colour camera
    boxes.npy          (N, 4) float64 crop box in the colour image: left, top, right, bottom
    run_offsets.npy    (N + 1,) int64, frame i owns runs run_offsets[i] : run_offsets[i + 1]
    pixel_offsets.npy  (N + 1,) int64, likewise covered pixels
    run_start.npy      (R,) uint32 first flat pixel of a run          run_length.npy  (R,) uint32
    doubted.npy        (N, P) bool, parts of the body whose pose is in doubt: what is filmed there teaches nothing
    part.npy           (K,) uint8      uv.npy  (K, 2) uint16, 65535 = 1      normal.npy  (K, 2) uint8, octahedral
    rasters.preview.png  a few frames to look at
    close_up/            the same of the head's own crop; absent where it would show no more than the person's

Seven bytes per covered pixel (and eight per run) instead of 24 bytes per pixel of the picture.  Frames whose body is
lost cover nothing.  Normals: Cigolle et al., "Efficient Representations for Independent Unit Vectors", 2014.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from capture.camera import Camera, project
from capture.errors import UserError
from capture.files import encode_png, write_atomically
from capture.progress import progress
from capture.recording import Recording
from rendering.close_up import FOLDER as CLOSE_UP
from rendering.close_up import MARGINS as CLOSE_MARGINS
from rendering.close_up import head_vertices
from rendering.crops import person_boxes
from rendering.rasterize import Covered, Raster, rasterize_covered

if TYPE_CHECKING:
    from fitting.body.model import BodyModel

Margins = tuple[float, float, float, float]  # left, top, right, bottom, of the height
UV_SCALE = 65535
LEAST_CLOSER = 1.3  # times as large as in the person's crop: below, a crop of the head's own shows nothing new

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RasterConfig:
    height_px: int = 256  # of the person crop; what the networks see
    width_px: int = 160  # a standing person with hanging arms fits 5:8
    margin: float = 0.07  # of the person's height on each side: clothes stand off the body, pixels are dear
    margin_top: float = 0.12  # hair stands higher than clothes stand wide
    smooth_s: float = 0.5  # the crop follows the person no faster than this, so that details keep their scale
    close_up_px: int = 96  # side of the head's own crop; 0: none

    @property
    def margins(self) -> Margins:
        return self.margin, self.margin_top, self.margin, self.margin


def rasterize(config: RasterConfig, out_dir: Path, recording_dir: Path, fit_dir: Path) -> None:
    """Write 05_rasters.  Raises UserError when no frame was tracked."""
    from fitting.fit import BodyFit

    fit = BodyFit.load(fit_dir)
    frames_per_second = Recording.load(recording_dir).frames_per_second
    tracked, doubted = fit.tracked, fit.part_doubted
    rasterize_frames(config, out_dir, fit.body, fit.camera, tracked, fit.vertices_color_m, frames_per_second, doubted)


def rasterize_frames(
    config: RasterConfig,
    out_dir: Path,
    body: BodyModel,
    camera: Camera,
    tracked: np.ndarray,
    vertices_color_m: Callable[[int], np.ndarray],
    frames_per_second: float,
    part_doubted: np.ndarray,
) -> None:
    """The stage on plain values: tracked (N,) bool; ``vertices_color_m(i)`` (V, 3) metres for tracked frames;
    part_doubted (N, P) bool."""
    if min(config.height_px, config.width_px) < 16:
        raise UserError(
            f"raster {config.width_px} x {config.height_px}: raster.width_px and height_px must be 16 or more"
        )
    if min(config.margin, config.margin_top, config.smooth_s) < 0:
        raise UserError(
            f"raster margins {config.margin}, {config.margin_top}, smooth_s {config.smooth_s}: none may be negative"
        )
    if config.close_up_px and config.close_up_px < 16:
        raise UserError(f"raster.close_up_px = {config.close_up_px}: must be 0, for none, or 16 or more")
    smooth_frames = round(config.smooth_s * frames_per_second)
    margins = config.margins
    filmed = Filmed(body, camera, vertices_color_m, part_doubted)
    extents_px = filmed.extents_px(tracked)
    raster_wh = (config.width_px, config.height_px)
    boxes_px = person_boxes(extents_px, camera.image_wh, raster_wh[0] / raster_wh[1], margins, smooth_frames)
    filmed.write(out_dir, tracked, boxes_px, raster_wh, margins)
    head = head_vertices(body) if config.close_up_px else None
    if head is None:
        return
    extents_px = filmed.extents_px(tracked, head)
    in_sight = np.asarray(((extents_px[:, 2:] > 0) & (extents_px[:, :2] < camera.image_wh)).all(axis=1))  # NaN is False
    if not in_sight.any():
        return
    extents_px[~in_sight] = np.nan
    # As close as can be in every frame, as the avatar is asked for it later: heads move faster than people.
    close_px = person_boxes(extents_px, camera.image_wh, 1.0, CLOSE_MARGINS, 0)
    side_px = (close_px[:, 3] - close_px[:, 1])[in_sight]
    in_whole_px = side_px * raster_wh[1] / (boxes_px[:, 3] - boxes_px[:, 1])[in_sight]
    closer = float(np.median(np.minimum(side_px, config.close_up_px) / in_whole_px))
    if closer < LEAST_CLOSER:
        log.info("no close-up of the head: it would be %.1f times as large as in the person's crop", closer)
        return
    (out_dir / CLOSE_UP).mkdir(exist_ok=True)
    filmed.write(out_dir / CLOSE_UP, in_sight, close_px, (config.close_up_px, config.close_up_px), None)


BODY_MARGINS = RasterConfig().margins


@dataclass(frozen=True)
class Filmed:
    """A tracked body before the colour camera."""

    body: BodyModel
    camera: Camera
    vertices_color_m: Callable[[int], np.ndarray]  # (V, 3) metres of a tracked frame
    part_doubted: np.ndarray  # (N, P) bool

    def extents_px(self, tracked: np.ndarray, vertices: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(N, 4) left, top, right, bottom of the ``vertices`` in the picture; NaN where the body was not tracked."""
        extents_px = np.full((len(tracked), 4), np.nan)
        for i in np.flatnonzero(tracked).tolist():
            points_px = project(self.camera, self.vertices_color_m(i)[vertices])
            if np.isfinite(points_px).all():
                extents_px[i] = *points_px.min(axis=0), *points_px.max(axis=0)
        return extents_px

    def write(
        self,
        folder: Path,
        is_seen: np.ndarray,
        boxes_px: np.ndarray,
        raster_wh: tuple[int, int],
        margins: Margins | None,
    ) -> None:
        """Rasterise the frames that are seen, (N,) bool, each in its box (N, 4), and write them into ``folder``;
        ``margins`` of the boxes are noted where they are not the usual ones."""
        with _Writer(folder) as writer:
            for i in progress(range(len(is_seen)), "rasters"):
                if is_seen[i]:
                    crop = self.camera.crop(tuple(boxes_px[i]), raster_wh)
                    writer.add(CompactRaster.of(rasterize_covered(self.body, self.vertices_color_m(i), crop)))
                else:
                    writer.add(CompactRaster.empty(raster_wh))
        np.save(folder / "boxes.npy", boxes_px)
        np.save(folder / "doubted.npy", self.part_doubted)
        fields: dict[str, Any] = {"raster_wh": list(raster_wh), "camera": self.camera.to_json()}
        if margins not in (None, BODY_MARGINS):
            fields["margins"] = margins
        write_atomically(folder / "rasters.json", json.dumps(fields, indent=1).encode())
        seen = np.flatnonzero(is_seen)
        shown = seen[np.linspace(0, len(seen) - 1, 8).astype(int)]
        write_atomically(folder / "rasters.preview.png", encode_png(preview(Rasters.load(folder), shown)))


@dataclass(frozen=True)
class CompactRaster:
    """The covered pixels of one frame, quantised."""

    image_wh: tuple[int, int]
    pixel: np.ndarray  # (K,) uint32, row * W + column, rising
    part: np.ndarray  # (K,) uint8 in 1..P
    uv_u16: np.ndarray  # (K, 2) uint16
    normal_oct: np.ndarray  # (K, 2) uint8

    @staticmethod
    def of(covered: Covered) -> CompactRaster:
        uv = np.round(covered.uv * np.float32(UV_SCALE)).astype(np.uint16)
        return CompactRaster(
            covered.image_wh, covered.pixel.astype(np.uint32), covered.part, uv, encode_normals(covered.normal)
        )

    @staticmethod
    def empty(image_wh: tuple[int, int]) -> CompactRaster:
        none = np.empty((0, 2), np.uint8)
        return CompactRaster(image_wh, none[:, 0].astype(np.uint32), none[:, 0], none.astype(np.uint16), none)

    @property
    def uv(self) -> np.ndarray:
        """(K, 2) float32 in [0, 1]."""
        return self.uv_u16 * np.float32(1 / UV_SCALE)

    @property
    def normal(self) -> np.ndarray:
        """(K, 3) float32, camera frame, unit."""
        return decode_normals(self.normal_oct)

    def dense(self) -> Raster:
        """Full planes; no depth."""
        width, height = self.image_wh
        part, uv = np.zeros(height * width, np.uint8), np.zeros((height * width, 2), np.float32)
        normal = np.zeros((height * width, 3), np.float32)
        part[self.pixel], uv[self.pixel], normal[self.pixel] = self.part, self.uv, self.normal
        return Raster(part.reshape(height, width), uv.reshape(height, width, 2), normal.reshape(height, width, 3))


@dataclass(frozen=True)
class Rasters:
    """Lazy sequence over the recorded frames.  ``rasters[i]`` reads frame i from the memory-mapped files."""

    image_wh: tuple[int, int]  # of a raster
    camera: Camera  # the colour camera, whole picture
    margins: Margins  # of the person's crops
    boxes_px: np.ndarray  # (N, 4) left, top, right, bottom in the colour image
    part_doubted: np.ndarray  # (N, P) bool
    run_offsets: np.ndarray
    pixel_offsets: np.ndarray
    run_start: np.ndarray
    run_length: np.ndarray
    part: np.ndarray
    uv_u16: np.ndarray
    normal_oct: np.ndarray

    @staticmethod
    def load(folder: Path) -> Rasters:
        """Open 05_rasters.  Raises UserError when the folder holds none."""
        try:
            fields = json.loads((folder / "rasters.json").read_text())
            small = [np.load(folder / f"{name}.npy") for name in ("boxes", "doubted", "run_offsets", "pixel_offsets")]
            large = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in _COLUMNS]
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: no readable rasters ({error}); run the rasterize stage again") from None
        margins = tuple(fields.get("margins", BODY_MARGINS))
        return Rasters(tuple(fields["raster_wh"]), Camera.from_json(fields["camera"]), margins, *small, *large)

    def __len__(self) -> int:
        return len(self.boxes_px)

    def __getitem__(self, index: int) -> CompactRaster:
        if not 0 <= index < len(self):
            raise IndexError(index)
        runs = slice(self.run_offsets[index], self.run_offsets[index + 1])
        covered = slice(self.pixel_offsets[index], self.pixel_offsets[index + 1])
        pixel = _expand_runs(self.run_start[runs], self.run_length[runs])
        return CompactRaster(self.image_wh, pixel, self.part[covered], self.uv_u16[covered], self.normal_oct[covered])

    @cached_property
    def cameras(self) -> tuple[Camera, ...]:
        """The camera of every frame's person crop, at raster size."""
        return tuple(self.camera.crop(tuple(box), self.image_wh) for box in self.boxes_px)

    def gather(self, frame_indices: Sequence[int] | np.ndarray) -> Covered:
        """A batch of frames as floats, ready for the networks; ``image`` counts within the batch."""
        frames = [self[int(i)] for i in frame_indices]
        counts = [len(frame.pixel) for frame in frames]
        return Covered(
            image_wh=self.image_wh,
            num_images=len(frames),
            image=np.repeat(np.arange(len(frames)), counts),
            pixel=np.concatenate([frame.pixel for frame in frames]).astype(np.int64),
            part=np.concatenate([frame.part for frame in frames]),
            uv=np.concatenate([frame.uv_u16 for frame in frames]) * np.float32(1 / UV_SCALE),
            normal=decode_normals(np.concatenate([frame.normal_oct for frame in frames])),
        )


def encode_normals(normals: np.ndarray) -> np.ndarray:
    """(K, 3) unit vectors to (K, 2) uint8: the octahedron |x| + |y| + |z| = 1 unfolded onto a square."""
    x, y, z = (normals / np.maximum(np.abs(normals).sum(axis=1, keepdims=True), 1e-12)).T
    folded_x = np.where(z < 0, (1 - np.abs(y)) * np.where(x < 0, -1, 1), x)
    folded_y = np.where(z < 0, (1 - np.abs(x)) * np.where(y < 0, -1, 1), y)
    return np.round((np.stack([folded_x, folded_y], 1) * 0.5 + 0.5) * 255).astype(np.uint8)


def decode_normals(octahedral: np.ndarray) -> np.ndarray:
    """(K, 2) uint8 to (K, 3) float32 unit vectors, within 1 degree of what was encoded."""
    return _decoded()[octahedral[:, 0].astype(np.intp) * 256 + octahedral[:, 1]]


@cache
def _decoded() -> np.ndarray:
    """(65536, 3) float32: every code decoded once."""
    x, y = (k.ravel() / 127.5 - 1 for k in np.mgrid[:256, :256])
    z = 1 - np.abs(x) - np.abs(y)
    back = np.maximum(-z, 0)
    normals = np.stack([x - np.where(x < 0, -back, back), y - np.where(y < 0, -back, back), z], 1)
    return (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32)


def preview(rasters: Rasters, frame_indices: np.ndarray) -> np.ndarray:
    """(2 h, n w, 3) uint8, thinned to about 256 rows a frame: parts coloured by uv above, normals below."""
    step = max(1, rasters.image_wh[1] // 256)
    tiles = []
    for i in frame_indices:
        raster = rasters[int(i)].dense()
        raster = Raster(*(plane[::step, ::step] for plane in (raster.part, raster.uv, raster.normal)))
        hue = raster.part[..., None] * np.array([0.37, 0.71, 0.53])  # neighbouring parts get far colours
        iuv = np.concatenate([raster.uv, raster.uv[..., :1] * 0 + hue[..., :1] % 1], axis=-1)
        tiles.append(
            np.concatenate([iuv, raster.normal * (0.5, -0.5, -0.5) + 0.5]) * np.tile(raster.mask, (2, 1))[..., None]
        )
    return np.round(np.concatenate(tiles, axis=1) * 255).astype(np.uint8)


_COLUMNS = {
    "run_start": ("<u4", ()), "run_length": ("<u4", ()),
    "part": ("|u1", ()), "uv": ("<u2", (2,)), "normal": ("|u1", (2,)),
}  # fmt: skip


class _Writer:
    """Appends frames to .npy files without holding them; the lengths in the headers are filled in at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = {name: open(folder / f"{name}.npy", "w+b") for name in _COLUMNS}  # noqa: SIM115
        self._header_bytes: dict[str, int] = {}
        self._run_offsets, self._pixel_offsets = [0], [0]

    def __enter__(self) -> _Writer:
        self._write_headers()
        return self

    def add(self, raster: CompactRaster) -> None:
        start, length = _find_runs(raster.pixel)
        for name, values in zip(_COLUMNS, (start, length, raster.part, raster.uv_u16, raster.normal_oct), strict=True):
            self._files[name].write(values.astype(_COLUMNS[name][0]).tobytes())
        self._run_offsets.append(self._run_offsets[-1] + len(start))
        self._pixel_offsets.append(self._pixel_offsets[-1] + len(raster.pixel))

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._write_headers()
            np.save(self._folder / "run_offsets.npy", np.array(self._run_offsets, np.int64))
            np.save(self._folder / "pixel_offsets.npy", np.array(self._pixel_offsets, np.int64))
        for file in self._files.values():
            file.close()

    def _write_headers(self) -> None:
        for name, file in self._files.items():
            count = self._run_offsets[-1] if name.startswith("run") else self._pixel_offsets[-1]
            descr, shape = _COLUMNS[name]
            fields = {"descr": descr, "fortran_order": False, "shape": (count, *shape)}
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, fields)
            # numpy pads the header so that the first dimension can grow in place.
            assert file.tell() == self._header_bytes.setdefault(name, file.tell())


def _find_runs(pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rising pixel indices (K,) to the start and length of every stretch of neighbours."""
    if len(pixel) == 0:
        return pixel[:0].astype(np.uint32), pixel[:0].astype(np.uint32)
    first = np.flatnonzero(np.concatenate([[True], np.diff(pixel.astype(np.int64)) != 1]))
    return pixel[first].astype(np.uint32), np.diff(np.append(first, len(pixel))).astype(np.uint32)


def _expand_runs(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Undo ``_find_runs``: (K,) uint32."""
    before = np.cumsum(length, dtype=np.int64) - length
    return (np.arange(int(length.sum())) + np.repeat(start - before, length)).astype(np.uint32)
