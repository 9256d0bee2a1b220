"""Charts as inline SVG: lines over frames or steps, bars, a compass.  Colours come from the page's style sheet.

Enters: numbers.  Leaves: strings of SVG; NaN is a gap in a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 560, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 26
MAX_POINTS = 400  # per line: more cannot be seen and only make the page heavy


def lines(
    x: Sequence[float] | np.ndarray,
    series: Mapping[str, np.ndarray],
    x_label: str,
    y_range: tuple[float, float] | None = None,
    log_scale: bool = False,
) -> str:
    """Lines of ``series`` over ``x``."""
    x = np.asarray(x, float)
    shown = {name: np.asarray(values, float) for name, values in series.items()}
    finite = np.concatenate([v[np.isfinite(v)] for v in shown.values()]) if shown else np.zeros(0)
    if not len(x) or not len(finite):
        return '<p class="quiet">nothing was measured</p>'
    if log_scale:
        floor = finite[finite > 0].min() if (finite > 0).any() else 1e-6
        shown = {name: np.log10(np.maximum(v, floor)) for name, v in shown.items()}
        finite = np.log10(np.maximum(finite, floor))
    low, high = y_range or _padded(float(finite.min()), float(finite.max()))
    span_x = (float(x.min()), float(max(x.max(), x.min() + 1e-9)))

    def at_x(value: float) -> float:
        return LEFT + (value - span_x[0]) / (span_x[1] - span_x[0]) * (WIDTH - LEFT - RIGHT)

    def at_y(value: float) -> float:
        return HEIGHT - BOTTOM - (min(max(value, low), high) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for value in _round_steps(low, high):
        label = f"{10**value:.2g}" if log_scale else f"{value:.4g}"
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at_y(value):.1f}" y2="{at_y(value):.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 6}" y="{at_y(value) + 4:.1f}" text-anchor="end">{label}</text>')
    for value in (span_x[0], sum(span_x) / 2, span_x[1]):
        parts.append(f'<text x="{at_x(value):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{value:.0f}</text>')
    parts.append(
        f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - BOTTOM - 5}" text-anchor="end">{escape(x_label)}</text>'
    )
    for number, (name, values) in enumerate(shown.items()):
        parts.append(
            f'<path class="line s{number}" d="{_path(x, values, at_x, at_y)}"><title>{escape(name)}</title></path>'
        )
    return _svg(parts, WIDTH, HEIGHT) + _legend(list(shown))


def bars(values: Mapping[str, float], unit: str) -> str:
    """Horizontal bars, one row per name."""
    if not values:
        return '<p class="quiet">nothing was measured</p>'
    row, most = 24, max(max(values.values()), 1e-9)
    parts = []
    for number, (name, value) in enumerate(values.items()):
        y, width = number * row, value / most * (WIDTH - 230)
        parts.append(f'<text x="0" y="{y + 16}">{escape(name)}</text>')
        parts.append(f'<rect class="bar" x="130" y="{y + 5}" width="{max(width, 1):.1f}" height="14" rx="3"/>')
        parts.append(f'<text x="{138 + width:.1f}" y="{y + 16}">{value:.1f} {escape(unit)}</text>')
    return _svg(parts, WIDTH, row * len(values))


def compass(counts: np.ndarray, names: Sequence[str]) -> str:
    """How often each direction occurs: sectors around a circle, the first one down, counter-clockwise."""
    size, reach = 210, 78.0
    parts = [f'<circle class="grid" cx="{size / 2}" cy="{size / 2}" r="{reach * share:.1f}"/>' for share in (0.5, 1)]
    width = 2 * np.pi / len(counts)
    for sector, count in enumerate(counts):
        share = np.sqrt(count / max(counts.max(), 1))  # area, not radius, tells the eye how much
        corners = [(0.0, 0.0)] + [
            (share * reach * np.sin(a), share * reach * np.cos(a))
            for a in np.linspace((sector - 0.46) * width, (sector + 0.46) * width, 7)
        ]
        points = " ".join(f"{size / 2 + x:.1f},{size / 2 + y:.1f}" for x, y in corners)
        parts.append(f'<polygon class="bar" points="{points}"><title>{int(count)} frames</title></polygon>')
        angle = sector * width
        x, y = size / 2 + (reach + 14) * np.sin(angle), size / 2 + (reach + 14) * np.cos(angle) + 4
        if names[sector]:
            parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(names[sector])}</text>')
    return _svg(parts, size, size, "compass")


def _path(x: np.ndarray, values: np.ndarray, at_x, at_y) -> str:
    step = max(1, len(x) // MAX_POINTS)
    words, pen_down = [], False
    for a, b in zip(x[::step], values[::step], strict=True):
        if not np.isfinite(b):
            pen_down = False
            continue
        words.append(f"{'L' if pen_down else 'M'}{at_x(a):.1f} {at_y(b):.1f}")
        pen_down = True
    return "".join(words)


def _padded(low: float, high: float) -> tuple[float, float]:
    space = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - space, high + space


def _round_steps(low: float, high: float) -> list[float]:
    """Three to six round numbers inside [low, high]."""
    rough = (high - low) / 4
    magnitude = 10 ** np.floor(np.log10(rough))
    step = next(m for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough) * magnitude
    return [round(float(v), 10) for v in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]


def _svg(parts: Sequence[str], width: float, height: float, kind: str = "chart") -> str:
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    keys = "".join(f'<span class="key s{n}">{escape(name)}</span>' for n, name in enumerate(names))
    return f'<div class="legend">{keys}</div>'
