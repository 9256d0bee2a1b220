"""An avatar as a web page: a folder for any web server, or one .html that opens by itself.

N frames, J joints, V vertices.  Enters: an avatar, motions in the world and their light.  Leaves: the page's files;
what is in them is in docs/formats.md.  The programs of the page are in rendering/web/.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capture.errors import UserError
from capture.files import write_atomically
from rendering import close_up as closer
from rendering import ort_web
from rendering.avatar import Avatar
from rendering.detail import texels_per_m
from rendering.moves import Move
from rendering.networks import NeuralRenderer
from rendering.onnx_graph import onnx_model
from rendering.render import facing, follow

FORMAT = 1
PAGE = Path(__file__).with_name("web")
SCRIPTS = ("body.js", "raster.js", "painter.js", "studio.js", "viewer.js")
DESCRIPTION, DATA, MODEL, CLOSE_UP, RUNTIME = "avatar.json", "avatar.bin", "renderer.onnx", "close_up.onnx", "ort"
LICENSE = "LICENSE.txt"
SLOT = "<!-- scripts -->"


def write_page(avatar: Avatar, subject: str, moves: Sequence[Move], runtime: Mapping[str, bytes], out: Path) -> None:
    """Write ``out``: one file where it is called .html, else a folder.

    ``runtime`` is that of ``ort_web.runtime_files``.  One file holds the WebAssembly backend only.  Raises UserError
    when the folder holds something else.
    """
    assert isinstance(avatar.renderer, NeuralRenderer)
    is_one_file = out.suffix.lower() == ".html"
    if not is_one_file:
        check_folder(out)
    table = _Table()
    description = _description(avatar, subject, moves, table)
    files = {
        DESCRIPTION: json.dumps(description).encode(),
        DATA: b"".join(table.parts),
        MODEL: onnx_model(avatar.renderer, avatar.textures[subject].outline).SerializeToString(),
        f"{RUNTIME}/{LICENSE}": (PAGE / "onnxruntime_license.txt").read_bytes(),
    }
    close_up = avatar.close_up_of(subject)
    if close_up is not None:
        assert isinstance(close_up.renderer, NeuralRenderer)
        files[CLOSE_UP] = onnx_model(close_up.renderer, close_up.textures[subject].outline).SerializeToString()
    files |= {f"{RUNTIME}/{name}": content for name, content in runtime.items()}
    page = (PAGE / "index.html").read_text()
    if is_one_file:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page.replace(SLOT, _inside(files)).encode())
        return
    files |= {name: (PAGE / name).read_bytes() for name in SCRIPTS}
    files["index.html"] = page.replace(SLOT, "\n".join(f'<script src="{name}"></script>' for name in SCRIPTS)).encode()
    if CLOSE_UP not in files:
        (out / CLOSE_UP).unlink(missing_ok=True)  # of an earlier page
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out / name, content)


def check_folder(out: Path) -> None:
    """Raises UserError unless ``out`` is absent, an empty folder, or an earlier page of ours."""
    if out.is_file():
        raise UserError(f"--out {out}: is a file; name a folder, or a file that ends in .html")
    if out.is_dir() and any(out.iterdir()) and not (out / DESCRIPTION).is_file():
        raise UserError(f"--out {out}: holds other files; name a new folder, or a file that ends in .html")


def _inside(files: Mapping[str, bytes]) -> str:
    """Everything the page loads, in the page: what another backend needs is left out."""
    lines = []
    for name, content in files.items():
        if Path(name).name in ort_web.FILES["webgpu"]:
            continue
        packed = base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
        lines.append(f'<script type="text/plain" data-file="{name}">{packed}</script>')
    return "\n".join([*lines, *(f"<script>\n{(PAGE / name).read_text()}</script>" for name in SCRIPTS)])


class _Table:
    """Arrays one after another, each beginning at a multiple of four bytes."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.entries: dict[str, dict[str, Any]] = {}
        self.size = 0

    def add(self, name: str, values: np.ndarray, dtype: str = "float32") -> str:
        content = np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes()
        self.entries[name] = {
            "dtype": dtype, "shape": list(values.shape), "offset": self.size, "count": int(values.size)
        }  # fmt: skip
        content += bytes(-len(content) % 4)
        self.parts.append(content)
        self.size += len(content)
        return name


def _description(avatar: Avatar, subject: str, moves: Sequence[Move], table: _Table) -> dict[str, Any]:
    shape, texture = avatar.bodies[subject], avatar.textures[subject]
    body = shape.body
    rest_m, joints_m = body.shaped(shape.shape, shape.vertex_offsets_m)
    for name, values in (("rest_vertices", rest_m), ("rest_joints", joints_m), ("skin_values", body.skin_values)):
        table.add(name, values)
    indices = {"skin_joints": body.skin_joints, "parents": body.parents, "faces": body.faces, "face_uv": body.face_uv}
    for name, values in indices.items():
        table.add(name, values, "int32")
    table.add("uv", body.uv)
    table.add("texels", texture.texels.detach().cpu().numpy())
    if texture.light is not None:
        table.add("light", texture.light.cpu().numpy())
    if body.pose_basis_m is not None:
        table.add("pose_basis", body.pose_basis_m)
    if texture.detail is not None:
        table.add("detail", texture.detail.cpu().numpy(), "int8")
    description = {
        "format": FORMAT,
        "name": subject,
        "crop_wh": list(avatar.image_wh),
        "margins": list(avatar.margins(subject)),
        "height_m": float(np.ptp(rest_m[:, 2])),
        "texture_px": texture.texels.shape[0],
        "texture_channels": texture.channels,
        "detail_per_m": None if texture.detail is None else texels_per_m(shape, texture.detail.shape[0]),
        "runtime": {
            backend: {"script": f"{RUNTIME}/{script}", "binary": f"{RUNTIME}/{binary}"}
            for backend, (script, binary) in ort_web.FILES.items()
        },
        "motions": [_motion(avatar, subject, move, index, table) for index, move in enumerate(moves)],
        "arrays": table.entries,
    }
    close_up = avatar.close_up_of(subject)
    if close_up is not None:
        description["close_up"] = _close_up(close_up, subject, table)
    return description


def _close_up(avatar: Avatar, subject: str, table: _Table) -> dict[str, Any]:
    head, texture = closer.head_vertices(avatar.bodies[subject].body), avatar.textures[subject]
    assert head is not None, "a close-up of a body without a head"
    table.add("head_vertices", head, "int32")
    table.add("close_up_texels", texture.texels.detach().cpu().numpy())
    if texture.light is not None:
        table.add("close_up_light", texture.light.cpu().numpy())
    return {
        "model": CLOSE_UP,
        "crop_wh": list(avatar.image_wh),
        "margins": list(closer.MARGINS),
        "texture_px": texture.texels.shape[0],
        "texture_channels": texture.channels,
    }


def _motion(avatar: Avatar, subject: str, move: Move, index: int, table: _Table) -> dict[str, Any]:
    motion = move.motion
    targets_m, _ = follow(avatar.bodies[subject], motion)
    x, y, _ = facing(motion)
    return {
        "name": motion.name,
        "frames": len(motion),
        "frames_per_second": motion.frames_per_second,
        "facing": float(np.arctan2(y, x)),
        "lit_from_world": move.lit_from_world.tolist(),
        "pose": table.add(f"pose_{index}", motion.pose),
        "world_from_body": table.add(f"world_from_body_{index}", motion.world_from_body[:, :3]),
        "targets": table.add(f"targets_{index}", targets_m),
    }
