"""The avatar: opens without losses or optimisers, and turns a pose and a camera into a picture.

H x W pixels of the asked picture, h x w of the person crop that the networks paint, C texture channels.

    avatar.json                     subjects, settings, what made it
    renderer.safetensors            R1 and R2
    textures/<subject>.safetensors  one neural texture each, with its light, detail and outline
    bodies/<subject>.npz            the body model; bodies/<subject>.safetensors  its shape and clothing offsets
    close_up/                       where there is one, an avatar in the same files, which paints heads (``close_up``)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from capture.camera import Camera
from capture.errors import UserError
from capture.files import write_atomically
from fitting.body.model import BodyModel
from rendering import close_up as closer
from rendering.detail import with_detail
from rendering.framing import Frame, person_box, person_frame, usual_px_per_m
from rendering.networks import NeuralRenderer, NeuralTexture, Renderer, Surface
from rendering.painter import Painter, pick_device
from rendering.pasting import NOTHING, Box, Layer, paste, spread
from rendering.rasterize import Covered, rasterize, rasterize_covered
from rendering.rasterize_torch import TorchSurface, rasterize_torch
from rendering.rasters import BODY_MARGINS, Margins
from rendering.widths import parse_widths


class Shape(NamedTuple):
    """Who the body is: the model with this person's coefficients."""

    body: BodyModel
    shape: np.ndarray  # (S,)
    vertex_offsets_m: np.ndarray | None  # (V,) outwards at rest

    def vertices_camera_m(self, pose: np.ndarray, camera_from_body: np.ndarray) -> np.ndarray:
        """(V, 3) vertices of pose (J, 3) rad, in the camera's frame, metres."""
        return self.body.posed(self.shape, pose, camera_from_body, self.vertex_offsets_m)[0]

    def skeleton(self) -> tuple[BodyModel, np.ndarray, np.ndarray]:
        """What poses are made for: the body without a skirt, its rest vertices (V, 3) and joints (J, 3), metres."""
        return self.body.bare, *self.body.bare.shaped(self.shape, self.vertex_offsets_m)

    def whole(self, poses: np.ndarray) -> np.ndarray:
        """(N, J, 3): poses (N, J', 3) with every joint of this body, as ``BodyModel.whole``."""
        if poses.shape[1] == self.body.num_joints:
            return poses
        _, joints_m = self.body.shaped(self.shape, self.vertex_offsets_m)
        return np.array([self.body.whole(pose, joints_m) for pose in poses], poses.dtype).reshape(len(poses), -1, 3)


class Placed(NamedTuple):
    """A posed body before a camera."""

    vertices_m: np.ndarray  # (V, 3) in the camera's frame
    camera_from_body: np.ndarray  # (4, 4) metres
    camera: Camera
    lit_from_camera: np.ndarray | None  # (3, 3) as ``View.lit_from_camera``


class Parts(NamedTuple):
    """What a method makes its avatars of; they are saved, opened, painted and scored alike."""

    renderer: Callable[[Mapping[str, Any]], Renderer]  # from the settings of its training, as avatar.json has them
    texture: type[NeuralTexture]


def neural_renderer(made: Mapping[str, Any]) -> Renderer:
    """R1 and R2 as ``made``."""
    return NeuralRenderer(made["texture_channels"], made["latent_channels"], parse_widths(made["widths"]), made["norm"])


OURS = Parts(neural_renderer, NeuralTexture)


@dataclass(frozen=True)
class Avatar:
    """A renderer, the textures of its cast, and their bodies."""

    renderer: Renderer
    textures: Mapping[str, NeuralTexture]
    bodies: Mapping[str, Shape]
    settings: Mapping[str, Any]  # avatar.json
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    close_up: Avatar | None = None  # paints the heads of some or all of the cast, larger

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(self.textures)

    @property
    def image_wh(self) -> tuple[int, int]:
        """Size of the person crop that the networks were trained on."""
        width, height = self.settings["image_wh"]
        return int(width), int(height)

    @property
    def needs_view(self) -> bool:
        """Whether its surfaces must say from where they are seen."""
        return any(texture.needs_view for texture in self.textures.values())

    @cached_property
    def painter(self) -> Painter:
        return Painter(self.renderer, self.device)

    def with_subject(
        self, subject: str, texture: NeuralTexture, shape: Shape, close_texture: NeuralTexture | None = None
    ) -> Avatar:
        """The same networks with another look for ``subject``, or with one more; the networks are not copied.

        ``close_texture`` is the look by close-up; without it there is no close-up of ``subject``.
        """
        close_up = self.close_up
        if close_up is not None and close_texture is not None:
            close_up = close_up.with_subject(subject, close_texture, shape)
        elif close_up is not None:
            close_up = close_up.without(subject)
        textures, bodies = {**self.textures, subject: texture}, {**self.bodies, subject: shape}
        other = replace(self, textures=textures, bodies=bodies, close_up=close_up)
        other.__dict__["painter"] = self.painter  # made ready once
        return other

    def check_subject(self, subject: str) -> None:
        """Raises UserError when the avatar has no such subject."""
        if subject not in self.bodies:
            raise UserError(f"subject {subject!r} is not in this avatar; it has {', '.join(self.subjects)}")

    def without(self, subject: str) -> Avatar:
        """The same networks with one fewer in the cast; the networks are not copied."""
        textures, bodies = dict(self.textures), dict(self.bodies)
        textures.pop(subject, None), bodies.pop(subject, None)
        other = replace(self, textures=textures, bodies=bodies)
        other.__dict__["painter"] = self.painter
        return other

    def save(self, folder: Path) -> None:
        """Write every file atomically, avatar.json last."""
        if self.close_up is not None:
            self.close_up.save(folder / closer.FOLDER)
        for name in ("textures", "bodies"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        _write_tensors(folder / "renderer.safetensors", self.renderer.state_dict())
        for subject in self.textures:
            self.save_texture(folder, subject)
        for subject, shape in self.bodies.items():
            shape.body.save(folder / "bodies" / f"{subject}.npz")
            arrays = {"shape": shape.shape, "vertex_offsets_m": shape.vertex_offsets_m}
            tensors = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items() if value is not None}
            _write_tensors(folder / "bodies" / f"{subject}.safetensors", tensors)
        write_atomically(folder / "avatar.json", json.dumps(dict(self.settings), indent=1).encode())

    def save_texture(self, folder: Path, subject: str) -> None:
        """Write the texture of one of the cast, atomically."""
        _write_tensors(folder / "textures" / f"{subject}.safetensors", self.textures[subject].state_dict())

    @staticmethod
    def load(folder: Path, device: str = "auto", parts: Parts = OURS) -> Avatar:
        """Open an avatar made of ``parts``.  Raises UserError when the folder holds none, or a damaged one."""
        where = pick_device(device)
        try:
            settings = json.loads((folder / "avatar.json").read_text())
            renderer = parts.renderer(settings["train"])
            renderer.load_state_dict(_read_tensors(folder / "renderer.safetensors"))
            textures, bodies = {}, {}
            for subject in settings["subjects"]:
                texture = parts.texture.of(_read_tensors(folder / "textures" / f"{subject}.safetensors"))
                textures[subject] = texture.to(where).requires_grad_(False)
                arrays = _read_tensors(folder / "bodies" / f"{subject}.safetensors")
                offsets_m = arrays.get("vertex_offsets_m")
                bodies[subject] = Shape(
                    body=BodyModel.load(folder / "bodies" / f"{subject}.npz"),
                    shape=arrays["shape"].numpy(),
                    vertex_offsets_m=None if offsets_m is None else offsets_m.numpy(),
                )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            problem = str(error).partition("\n")[0]
            raise UserError(f"{folder}: not a readable avatar ({problem}); train it again") from None
        inner = folder / closer.FOLDER
        close_up = Avatar.load(inner, device, parts) if (inner / "avatar.json").is_file() else None
        return Avatar(renderer.to(where).eval().requires_grad_(False), textures, bodies, settings, where, close_up)

    def render(
        self,
        subject: str,
        pose: np.ndarray,
        camera_from_body: np.ndarray,
        camera: Camera,
        crop_box: Box | None = None,
        lit_from_camera: np.ndarray | None = None,
    ) -> np.ndarray:
        """The avatar in a pose as ``camera`` sees it: (H, W, 4) float32 RGBA in [0, 1], not premultiplied.

        pose (J, 3) axis-angle rad; camera_from_body (4, 4) metres; crop_box (left, top, right, bottom) px is the part
        of the picture that the networks paint, by default the person; lit_from_camera (3, 3) turns this camera's axes
        into those of the one that the light was learned by, without it the light goes with the camera.  Raises
        UserError for an unknown subject.
        """
        return self.layer(subject, pose, camera_from_body, camera, crop_box, lit_from_camera).picture(camera.image_wh)

    def layer(
        self,
        subject: str,
        pose: np.ndarray,
        camera_from_body: np.ndarray,
        camera: Camera,
        crop_box: Box | None = None,
        lit_from_camera: np.ndarray | None = None,
        with_depth: bool = False,
    ) -> Layer:
        """``render`` without the empty part of the picture; ``with_depth`` says how far away each pixel is as well:
        beside the body, where hair and clothes are painted, as far as the nearest pixel of the body."""
        self.check_subject(subject)
        vertices_m = self.bodies[subject].vertices_camera_m(pose, camera_from_body)
        if crop_box is not None:
            frame: Frame | None = Frame(crop_box, self.image_wh)
        else:
            margins = self.margins(subject)
            frame = person_frame(vertices_m, camera, self.image_wh, self.px_per_m(subject), margins)
        placed = Placed(vertices_m, camera_from_body, camera, lit_from_camera)
        layer = NOTHING if frame is None else self._painted(subject, placed, frame, with_depth)
        if frame is None or layer is NOTHING:
            return layer
        close_up, enlarged = self.close_up_of(subject), frame.enlarged
        if close_up is not None and enlarged >= closer.WORTH:
            layer = close_up.inset(subject, placed, layer)
        texture, shape = self.textures[subject], self.bodies[subject]
        return with_detail(layer, texture, shape, vertices_m, camera, enlarged, lit_from_camera)

    def close_up_of(self, *people: str) -> Avatar | None:
        """The close-up, where it knows all of ``people``."""
        return self.close_up if self.close_up is not None and set(people) <= set(self.close_up.textures) else None

    def inset(self, subject: str, placed: Placed, whole: Layer) -> Layer:
        """``whole``, a picture of the person, with the head as this close-up paints it."""
        head = closer.head_vertices(self.bodies[subject].body)
        assert head is not None, "a close-up of a body without a head"
        head_m, wh = placed.vertices_m[head], self.image_wh
        box = person_box(head_m, placed.camera, wh, closer.MARGINS)
        frame = person_frame(head_m, placed.camera, wh, self.px_per_m(subject), closer.MARGINS)
        if box is None or frame is None:  # the head is not in the picture
            return whole
        close = self._painted(subject, placed, frame, False)
        return whole if close is NOTHING else closer.inset(whole, close, box)

    def _painted(self, subject: str, placed: Placed, frame: Frame, with_depth: bool) -> Layer:
        """What is in ``frame``; NOTHING where the body is not."""
        crop_camera = placed.camera.crop(frame.box_px, frame.crop_wh)
        covered = self._rasterize(subject, placed.vertices_m, crop_camera)
        if not len(covered.pixel):
            return NOTHING
        surface = surface_of(covered)
        if self.needs_view:
            surface = replace(surface, body_from_pixel=body_from_pixel(crop_camera, placed.camera_from_body)[None])
        surface = turned(surface, placed.lit_from_camera)
        rgba = self.painter.rgba(self.textures[subject], surface.to(self.device))
        inverse_z = None
        if with_depth:
            dense = rasterize(self.bodies[subject].body, placed.vertices_m, crop_camera)
            assert dense.inverse_z is not None
            inverse_z = spread(dense.inverse_z)
        return paste(rgba, frame.box_px, placed.camera.image_wh, inverse_z, frame.is_enlarged)

    def px_per_m(self, subject: str) -> tuple[float, float]:
        """At how many pixels a metre the networks saw this person in training, least and most."""
        known = self.settings.get("px_per_m", {}).get(subject)
        if known is not None:
            made = self.settings["train"]
            return float(known[0]) * made.get("rescale_min", 1.0), float(known[1]) * made.get("rescale_max", 1.0)
        shape = self.bodies[subject]
        return usual_px_per_m(float(np.ptp(shape.body.shaped(shape.shape)[0][:, 2])), self.image_wh)

    def margins(self, subject: str) -> Margins:
        """How much room the crops had around this person."""
        left, top, right, bottom = self.settings.get("margins", {}).get(subject, BODY_MARGINS)
        return left, top, right, bottom

    def _rasterize(self, subject: str, vertices_m: np.ndarray, camera: Camera) -> Covered:
        """The covered pixels, found where they are needed."""
        body = self.bodies[subject].body
        if self.device.type == "cpu":
            return rasterize_covered(body, vertices_m, camera)
        surface = TorchSurface.of(body, self.device)
        return rasterize_torch(surface, torch.as_tensor(vertices_m, device=self.device)[None], [camera])

    def render_raster(self, subject: str, surface: Surface) -> tuple[Tensor, Tensor, Tensor]:
        """Image (B, 3, h, w) in [-1, 1], mask (B, 1, h, w) in [0, 1], and R1's rough image (B, 3, h, w) in [-1, 1]."""
        return self.painter.paint(self.textures[subject], surface.to(self.device))


def surface_of(covered: Covered) -> Surface:
    """The rasteriser's covered pixels as the networks' Surface, on the CPU."""
    width, height = covered.image_wh
    return Surface(
        pixel=torch.as_tensor(covered.image * (width * height) + covered.pixel),
        uv=torch.as_tensor(covered.uv),
        normal=torch.as_tensor(covered.normal),
        batch_hw=(covered.num_images, height, width),
    )


def turned(surface: Surface, lit_from_camera: np.ndarray | None) -> Surface:
    """A picture's surface in a light that stands still while the camera goes around: from the camera's axes to the
    light's by ``lit_from_camera`` (3, 3).  None: the light goes with the camera."""
    if lit_from_camera is None:
        return surface
    return replace(surface, lit_from_camera=torch.from_numpy(np.asarray(lit_from_camera, np.float32))[None])


def body_from_pixel(camera: Camera, camera_from_body: np.ndarray) -> Tensor:
    """(3, 3) float32 from (x, y, 1), pixels of the camera's picture, to the ray's direction in the body's own frame.

    camera_from_body (4, 4).  The lens is taken as ideal: it bends rays by less than the view matters.
    """
    ray_from_pixel = np.array(
        [
            [1 / camera.fx_px, 0, -camera.cx_px / camera.fx_px],
            [0, 1 / camera.fy_px, -camera.cy_px / camera.fy_px],
            [0, 0, 1],
        ]
    )
    return torch.from_numpy(np.asarray(camera_from_body)[:3, :3].T @ ray_from_pixel).float()


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, save_safetensors(stored))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    return load_safetensors(path.read_bytes())
