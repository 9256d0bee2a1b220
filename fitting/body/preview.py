"""A picture of the UV layout: ``python -m fitting.body.preview`` writes docs/uv_layout.png.

In: a BodyModel.  Out: an image of its texture, one colour per part with the part's name, edges, and the texel grid.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from capture.files import write_atomically
from fitting.body.model import BodyModel

SIZE_PX = 1024
LAYOUT_PATH = Path(__file__).parents[2] / "docs" / "uv_layout.png"


def draw_uv_layout(body: BodyModel, size_px: int = SIZE_PX) -> np.ndarray:
    """(size_px, size_px, 3) uint8 RGB: charts as the texture is read, v down, names at their middles."""
    image = np.full((size_px, size_px, 3), 24, np.uint8)
    corners = np.round(body.uv[body.face_uv] * size_px * 16).astype(np.int32)  # (F, 3, 2), 1/16 pixel
    colors = part_colors(len(body.part_names))
    for triangle, part in zip(corners, body.face_part, strict=True):
        cv2.fillConvexPoly(image, triangle, colors[part].tolist(), cv2.LINE_AA, 4)
    for triangle in corners:
        cv2.polylines(image, [triangle], True, (40, 40, 40), 1, cv2.LINE_AA, 4)
    for part in np.unique(body.face_part):
        triangles = corners[body.face_part == part] / 16.0
        edges = triangles[:, 1:] - triangles[:, :1]
        area = np.abs(np.linalg.det(edges))
        middle = (triangles.mean(1) * area[:, None]).sum(0) / area.sum()
        _label(image, body.part_names[part], middle)
    return image


def part_colors(count: int) -> np.ndarray:
    """(count, 3) uint8 RGB, neighbours in the list far apart in hue; 0 is black."""
    hue = (np.arange(count) * 0.618034 % 1 * 180).astype(np.uint8)
    value = np.where(np.arange(count) % 2, 235, 190).astype(np.uint8)
    hsv = np.stack([hue, np.full(count, 130, np.uint8), value], 1)[None]
    colors = np.array(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))[0]
    colors[0] = 0
    return colors


def _label(image: np.ndarray, text: str, middle: np.ndarray) -> None:
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    left = int(np.clip(middle[0] - width / 2, 4, image.shape[1] - width - 4))
    base = int(middle[1] + height / 2)
    cv2.rectangle(image, (left - 4, base - height - 4), (left + width + 4, base + 6), (255, 255, 255), -1)
    cv2.putText(image, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)


def main() -> None:
    """Command line: draw the shipped body's layout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--body", type=Path, help="a BodyModel .npz; the shipped one without")
    parser.add_argument("--out", type=Path, default=LAYOUT_PATH)
    arguments = parser.parse_args()
    body = BodyModel.load(arguments.body) if arguments.body else BodyModel.default()
    data = io.BytesIO()
    Image.fromarray(draw_uv_layout(body)).quantize(64).save(data, "PNG", optimize=True)  # a quarter of the size
    write_atomically(arguments.out, data.getvalue())


if __name__ == "__main__":
    main()
