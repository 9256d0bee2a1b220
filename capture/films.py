"""A film in the form that its name asks for: H x W pixels, RGB or RGBA uint8, alpha not premultiplied.

.mp4            H.264, plays everywhere, knows no transparency
.mov            ProRes, for editing: 4444 with alpha, otherwise 422 HQ
.webm           VP9, for web pages, with alpha where there is some
folder or %06d.png   one PNG per picture
"""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
import zlib
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import av
import cv2
import numpy as np

from capture.errors import UserError
from capture.files import encode_png
from capture.video import VideoWriter, partial_of

NUMBER = re.compile(r"%(0\d)?d")  # as FFmpeg and every renderer write it
# suffix -> container, encoder, and the options and pixel formats without and with alpha
CODECS: dict[str, tuple[str, str, tuple[dict[str, str], str], tuple[dict[str, str], str]]] = {
    ".mov": (
        "mov",
        "prores_ks",
        ({"profile": "3", "vendor": "apl0"}, "yuv422p10le"),
        ({"profile": "4", "vendor": "apl0", "alpha_bits": "16"}, "yuva444p10le"),
    ),
    ".webm": (
        "webm",
        "libvpx-vp9",
        ({"crf": "24", "b": "0", "cpu-used": "4", "row-mt": "1"}, "yuv420p"),
        # Two pictures in one packet cannot be looked ahead at.
        ({"crf": "24", "b": "0", "cpu-used": "4", "auto-alt-ref": "0"}, "yuva420p"),
    ),
}
DUST, FAINT = 2, 16  # of 255: alpha that nobody sees, and alpha whose own colour is a rounding error
_SOFTWARE = b"tEXtSoftware\0anr film"
# A picture of a film says so in a chunk of its own after the header: what has none is somebody else's, and stays.
MARK = (len(_SOFTWARE) - 4).to_bytes(4, "big") + _SOFTWARE + zlib.crc32(_SOFTWARE).to_bytes(4, "big")
AFTER_HEADER = 33  # bytes: the signature and the chunk IHDR
BT709 = 1  # of FFmpeg's colour spaces: what players take these two for


class Film(Protocol):
    """Takes pictures of one size; a context manager that leaves either a whole film or none."""

    def add(self, image: np.ndarray) -> None:
        """Append an (H, W, 3) or (H, W, 4) uint8 picture."""

    def __enter__(self) -> Film: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_film(out: Path, is_transparent: bool) -> None:
    """Raises UserError for a name that says no kind of film, or one that knows no transparency; and where it cannot be
    written without loss."""
    suffix = out.suffix.lower()
    if suffix == ".mp4" and is_transparent:
        raise UserError(
            f"--out {out}: an mp4 knows no transparency; name it {out.with_suffix('.mov').name} (ProRes), "
            f"{out.with_suffix('.webm').name} (VP9), or a folder for PNG pictures"
        )
    if suffix == ".png" and len(NUMBER.findall(out.name)) != 1:
        raise UserError(f"--out {out}: a film is many pictures; name it {out.stem}_%06d.png, or a folder")
    if suffix not in (".mp4", ".png", *CODECS) and not _is_folder(out):
        raise UserError(f"--out {out}: films are written as .mp4, .mov, .webm, %06d.png or a folder of PNG pictures")
    if suffix in (".mp4", *CODECS):
        check_out(out)
        return
    check_writable(out, _pattern(out).parent)
    foreign = [picture.name for picture in numbered(_pattern(out)) if not _is_ours(picture)]
    if foreign:
        raise UserError(f"--out {out}: holds pictures without the mark of a film ({foreign[0]}); name a new folder")


def check_out(out: Path) -> None:
    """Raises UserError where no file ``out`` can be written."""
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; name a file")
    check_writable(out, out.parent)


def check_writable(out: Path, folder: Path) -> None:
    """Raises UserError where ``folder``, which may not be there yet, can take no file; ``out`` was asked for."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"--out {out}: {existing} is a file, not a folder; choose another place")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"--out {out}: nothing can be written to {existing}; choose another folder") from None


def _pattern(out: Path) -> Path:
    return out / "%06d.png" if _is_folder(out) else out


def open_film(out: Path, frames_per_second: float, has_alpha: bool) -> Film:
    """What writes ``out``; errors as ``check_film``."""
    check_film(out, has_alpha)
    suffix = out.suffix.lower()
    (out if _is_folder(out) else out.parent).mkdir(parents=True, exist_ok=True)
    if suffix == ".mp4":
        return VideoWriter(out, frames_per_second)
    if suffix in CODECS:
        return CodecWriter(out, frames_per_second, has_alpha)
    return PictureWriter(_pattern(out))


def _is_folder(out: Path) -> bool:
    return out.suffix == "" or (out.is_dir() and out.suffix.lower() not in (".mp4", *CODECS))


class CodecWriter(VideoWriter):
    """ProRes or VP9, begun and ended as a ``VideoWriter`` is."""

    def __init__(self, path: Path, frames_per_second: float, has_alpha: bool) -> None:
        self._path = path
        self._partial = partial_of(path)
        container, self._codec, *kinds = CODECS[path.suffix.lower()]
        self._options, self._pix_fmt = kinds[has_alpha]  # type: ignore[misc]
        self._rate = Fraction(frames_per_second).limit_denominator(1001)
        self._container = av.open(str(self._partial), "w", format=container)
        self._stream: Any = None  # begun with the first picture, whose size it has

    def add(self, image: np.ndarray, index: int | None = None) -> None:
        """Append a picture; odd sizes are padded by one pixel."""
        height, width, channels = image.shape
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._container.add_stream(self._codec, rate=self._rate, options=self._options)
            self._stream.width, self._stream.height = image.shape[1], image.shape[0]
            self._stream.pix_fmt = self._pix_fmt
            self._stream.codec_context.colorspace = BT709
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgba" if channels == 4 else "rgb24")
        frame = frame.reformat(format=self._pix_fmt, dst_colorspace=BT709)
        if index is not None:
            frame.pts, frame.time_base = index, 1 / self._rate
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


class PictureWriter:
    """Numbered PNG files.  See ``Film``; pictures of an older film of the same name, known by their mark, go when the
    new one is whole."""

    def __init__(self, pattern: Path) -> None:
        self._pattern = pattern
        self._partial = partial_of(pattern.parent / f".{NUMBER.sub('', pattern.stem)}")
        self._count = 0
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir()

    def add(self, image: np.ndarray) -> None:
        """Append a picture."""
        data = encode_png(np.ascontiguousarray(image))
        (self._partial / self._name(self._count)).write_bytes(data[:AFTER_HEADER] + MARK + data[AFTER_HEADER:])
        self._count += 1

    def _name(self, number: int) -> str:
        return NUMBER.sub(lambda match: match.group(0) % number, self._pattern.name)

    def __enter__(self) -> PictureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for old in numbered(self._pattern):
                if _is_ours(old):
                    old.unlink()
            for number in range(self._count):
                (self._partial / self._name(number)).replace(self._pattern.parent / self._name(number))
        shutil.rmtree(self._partial, ignore_errors=True)


def numbered(pattern: Path) -> list[Path]:
    """The pictures there that a film could have left."""
    before, after = (re.escape(part) for part in NUMBER.sub("\n", pattern.name).split("\n"))
    if not pattern.parent.is_dir():
        return []
    found = (path for path in pattern.parent.iterdir() if re.fullmatch(rf"{before}\d+{after}", path.name))
    return sorted(path for path in found if path.is_file())


def _is_ours(picture: Path) -> bool:
    with picture.open("rb") as file:
        return MARK in file.read(AFTER_HEADER + len(MARK))


def with_spread_colours(rgba: np.ndarray, reach_px: int = 8) -> np.ndarray:
    """(H, W, 4) uint8 with the colours near the edge carried on into what is transparent.

    Codecs share colour between neighbours and players scale; black beside the edge would show as a dark rim.  What
    is as good as transparent becomes so.
    """
    rgba = rgba.copy()
    rgba[..., 3][rgba[..., 3] <= DUST] = 0
    if not rgba[..., 3].any():
        return np.zeros_like(rgba)
    seen = rgba[..., 3] > 0
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    window = (
        slice(max(rows[0] - 2 * reach_px, 0), rows[-1] + 2 * reach_px + 1),
        slice(max(columns[0] - 2 * reach_px, 0), columns[-1] + 2 * reach_px + 1),
    )
    part = rgba[window]
    weight = part[..., 3:].astype(np.float32) / 255
    blurred = [cv2.GaussianBlur(x, (0, 0), reach_px / 2) for x in (part[..., :3] * weight, weight[..., 0])]
    near = blurred[1] > 1e-3
    filled = np.where(rgba[..., 3:] > 0, rgba, 0).astype(np.uint8)
    colour = (blurred[0] / np.maximum(blurred[1], 1e-3)[..., None]).clip(0, 255)
    empty = near & (part[..., 3] < FAINT)
    filled[window][..., :3][empty] = np.rint(colour[empty]).astype(np.uint8)
    return filled
