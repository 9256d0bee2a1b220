"""rembg's networks, from weights on this disk: nothing is fetched and nothing is sent.

A picture (H, W, 3) enters, a probability map (H, W) leaves.  rembg (github.com/danielgatis/rembg) prepares the picture;
its sessions that fetch, upload or cost money are never made.  Its own reading of the answer is not used: it stretches
every answer to 0..1, so that a picture with nobody in it becomes a person.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from capture.errors import UserError


@dataclass(frozen=True)
class Known:
    """A network of rembg that may be named: how it wants its picture, and what its weights are."""

    side_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    md5: str  # as rembg 2.0.86 publishes it; it publishes no SHA-256


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KNOWN = {
    "u2net_human_seg": Known(320, *IMAGENET, "c09ddc2e0104f800e3e1bb4652583d1f"),
    "isnet-general-use": Known(1024, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0), "fc16ebd8b0c10d971d3513d564d01e29"),
    "birefnet-portrait": Known(1024, *IMAGENET, "c3a64a6abf20250d090cd055f12a3b67"),
}


def weights_path(model: str, sha256: str = "") -> Path:
    """The file of weights that ``model`` means: a name of ``KNOWN``, or a path to an .onnx file.

    Raises UserError when it is absent (saying where it belongs), unknown, or not the file it should be.
    """
    if model in KNOWN:
        homes = _homes(model)
        path = next((home for home in homes if home.is_file()), None)
        if path is None:
            raise UserError(
                f"matte.model = {model}: put its weights {model}.onnx (from rembg's release page v0.0.0) at {homes[0]}"
            )
    else:
        path = Path(model).expanduser()
        if path.suffix != ".onnx" or not path.is_file():
            raise UserError(
                f"matte.model = {model}: give {', '.join(KNOWN)}, or the path of an .onnx file that is there"
            )
    if sha256 and digest(path) != sha256.lower():
        raise UserError(
            f"{path}: SHA-256 is {digest(path)}, matte.weights_sha256 says {sha256}; copy the weights again"
        )
    if not sha256 and model in KNOWN and _digest(path, "md5") != KNOWN[model].md5:
        raise UserError(
            f"{path}: not the weights that rembg publishes for {model}; copy them again, or vouch for them with "
            "matte.weights_sha256"
        )
    return path


def digest(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    return _digest(path, "sha256")


@functools.cache
def _digest(path: Path, kind: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _homes(model: str) -> list[Path]:
    """Where rembg 2.0.86 keeps weights, newest convention first."""
    data = os.environ.get("XDG_DATA_HOME")
    home = os.environ.get("U2NET_HOME") or os.environ.get("REMBG_HOME") or (f"{data}/rembg" if data else "~/.rembg")
    old = os.environ.get("U2NET_HOME") or f"{data or '~'}/.u2net"
    return [Path(home).expanduser() / "models" / model / f"{model}.onnx", Path(old).expanduser() / f"{model}.onnx"]


class LocalModel:
    """A network of rembg that runs here.  Raises UserError for a file that is no network of this kind."""

    def __init__(self, model: str, sha256: str = "") -> None:
        path = weights_path(model, sha256)
        import onnxruntime
        from rembg.sessions.base import BaseSession

        class Session(BaseSession):
            @classmethod
            def download_models(cls, *_: Any, **__: Any) -> str:
                return str(path)

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self._session = Session(path.stem, options, providers=["CPUExecutionProvider"])
            shape = self._session.inner_session.get_inputs()[0].shape
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise UserError(f"{path}: not a readable ONNX network ({str(error).splitlines()[0][:120]})") from None
        if len(shape) != 4 or shape[1] not in (3, "3"):
            raise UserError(f"{path}: reads {shape}; expected pictures of 1 x 3 x H x W")
        usual = KNOWN.get(model, Known(320, *IMAGENET, ""))
        self._path, self._mean, self._std = path, usual.mean, usual.std
        height, width = (side if isinstance(side, int) else usual.side_px for side in shape[2:])
        self._wh = (width, height)

    def probability(self, color: np.ndarray) -> np.ndarray:
        """(H, W) float32 in 0..1 of a picture (H, W, 3) uint8."""
        from PIL import Image

        feed = self._session.normalize(Image.fromarray(color), self._mean, self._std, self._wh)
        answer = np.asarray(self._session.inner_session.run(None, feed)[0], np.float32)
        if answer.ndim not in (3, 4) or not np.isfinite(answer).all():
            raise UserError(f"{self._path}: answers {answer.shape}; expected finite maps of 1 x 1 x H x W")
        answer = answer.reshape(-1, *answer.shape[-2:])[0]
        if answer.min() < -0.01 or answer.max() > 1.01:  # logits, as birefnet gives them
            answer = 1 / (1 + np.exp(-answer.clip(-30, 30)))
        return cv2.resize(answer, (color.shape[1], color.shape[0]), interpolation=cv2.INTER_LINEAR).clip(0, 1)
