"""What a fit looks like: the body drawn over the picture.  H x W pixels, V vertices."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from capture.camera import Camera, project
from fitting.body.model import BodyModel
from fitting.body.skinning import vertex_normals
from fitting.zbuffer import rasterize_faces

_HUES = np.stack([np.arange(0, 180, 13), np.full(14, 150), np.full(14, 235)], -1).astype(np.uint8)[None]
PALETTE = cv2.cvtColor(_HUES, cv2.COLOR_HSV2RGB)[0]  # (14, 3)


def draw_overlay(
    color: np.ndarray,
    camera: Camera,
    body: BodyModel,
    vertices_color_m: np.ndarray | None,
    landmarks_px: np.ndarray | None,
    caption: str,
    long_side: int = 640,
    pale_parts: Sequence[int] | np.ndarray = (),
) -> np.ndarray:
    """The body half-transparent, its outline, the landmarks and a caption: (h, w, 3) uint8, at most ``long_side`` long.

    ``color`` (H, W, 3) uint8; ``vertices_color_m`` (V, 3), None for a lost frame; ``landmarks_px`` (33, 2), NaN where
    one was not found, or None; ``pale_parts``: of the body, drawn white because they are in doubt.
    """
    scale = min(1.0, long_side / max(color.shape[:2]))
    width, height = round(color.shape[1] * scale), round(color.shape[0] * scale)
    picture = cv2.resize(color, (width, height), interpolation=cv2.INTER_AREA)
    small = camera.resize((width, height))
    if vertices_color_m is not None:
        normals = vertex_normals(vertices_color_m, body.faces)
        face_index, _, _ = rasterize_faces(
            project(small, vertices_color_m), vertices_color_m[:, 2], body.faces, (width, height)
        )
        mask = face_index >= 0
        faces = face_index[mask]
        light = np.clip(-normals[body.faces[faces]].mean(1)[:, 2], 0, 1)[:, None] * 0.65 + 0.35
        tint = PALETTE[body.face_part[faces] % len(PALETTE)] * light
        tint[np.isin(body.face_part[faces], pale_parts)] = 255.0
        picture = picture.copy()
        picture[mask] = (0.5 * picture[mask] + 0.5 * tint).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, (255, 255, 255), 1, cv2.LINE_AA)
    if landmarks_px is not None:
        for k in range(11, len(landmarks_px)):
            point = landmarks_px[k] * scale
            if not np.isfinite(point).all():
                continue
            # Odd landmarks are the person's left: green left, red right.
            tone = (60, 220, 90) if k % 2 else (240, 70, 60)
            cv2.circle(picture, (round(float(point[0])), round(float(point[1]))), 2, tone, -1, cv2.LINE_AA)
    cv2.putText(picture, caption, (8, height - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(picture, caption, (8, height - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return picture
